package wasm

import (
	"bytes"
	"math"

	"github.com/tetratelabs/wazero/experimental"
)

// An image is a guest's memory as it was when the guest had started. Instances are forked from it and reset to it.
type image struct {
	bytes   []byte   // never written; the first instance's until they are kept
	runs    []run    // where bytes is not zero
	globals []uint64 // of the mutable globals, in the order of rewrite.Module.Globals
	seeds   []seed   // random state in bytes, which each fork has its own of

	file *imageFile // bytes as a file that is mapped; nil: forks copy
	how  string     // they are reset, for status
}

// A run is a range of an image.
type run struct{ from, to int }

const pageSize = 4096 // in which memory is copied; not the kernel's, which may be larger

var zeroPage [pageSize]byte

// runsOf finds what is not zero.
func runsOf(b []byte) (runs []run) {
	for at := 0; at < len(b); at += pageSize {
		end := min(at+pageSize, len(b))
		if bytes.Equal(b[at:end], zeroPage[:end-at]) {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1].to == at {
			runs[n-1].to = end
		} else {
			runs = append(runs, run{at, end})
		}
	}
	return runs
}

// A memory is an instance's. It is the engine's until the instance is closed, which frees it; reset is called while the
// instance is in nobody's call.
type memory interface {
	experimental.LinearMemory
	// reset makes the content that of the image. resized says that the memory is larger than the image, and that the engine
	// has to ask for it anew: see shrinking.
	reset(p pauser) (resized bool)
	// shrinking makes the next Reallocate answer with the image's size, or ends that.
	shrinking(bool)
}

// A pauser is told between the steps of work that takes long, and lets others run then.
type pauser interface{ pause() }

// Pages are a memory that can be given back step by step, before it is freed.
type pages interface{ drop(p pauser) }

// A given is an allocator that has its memory already, and counts what it refuses.
type given struct {
	experimental.LinearMemory
	refused *uint32
}

// Allocate implements experimental.MemoryAllocator.
func (g *given) Allocate(_, _ uint64) experimental.LinearMemory { return g }

// Reallocate implements experimental.LinearMemory.
func (g *given) Reallocate(size uint64) []byte {
	b := g.LinearMemory.Reallocate(size)
	if b == nil {
		*g.refused++
	}
	return b
}

// A copiedMemory is a copy of an image in the Go heap, for images so small that mapping them costs more, and for systems
// that cannot do better. One that grows moves to a memory of its own.
type copiedMemory struct {
	image  *image
	mapper *mapper
	limit  uint64 // bytes
	home   []byte
	grown  experimental.LinearMemory // that it has moved to; nil: it is at home
	shrink bool
}

func (m *copiedMemory) Reallocate(size uint64) []byte {
	home := uint64(len(m.image.bytes))
	if m.home == nil {
		m.home = make([]byte, home)
		m.lay()
	}
	if m.shrink || size <= home {
		m.leave()
		return m.home[:home:home]
	}
	if m.grown != nil {
		return m.grown.Reallocate(size)
	}
	grown := m.mapper.plain(m.limit)
	b := grown.Reallocate(size)
	if b == nil {
		grown.Free()
		return nil
	}
	copy(b, m.home)
	m.grown = grown
	return b
}

// leave gives back what it has moved to.
func (m *copiedMemory) leave() {
	if m.grown != nil {
		m.grown.Free()
		m.grown = nil
	}
}

func (m *copiedMemory) lay() {
	for _, r := range m.image.runs {
		copy(m.home[r.from:r.to], m.image.bytes[r.from:r.to])
	}
}

func (m *copiedMemory) reset(p pauser) (resized bool) {
	at := 0
	for _, r := range m.image.runs {
		clear(m.home[at:r.from])
		at = r.to
	}
	clear(m.home[at:])
	m.lay()
	m.drop(p)
	return m.grown != nil
}

// drop implements pages.
func (m *copiedMemory) drop(p pauser) {
	if g, ok := m.grown.(pages); ok {
		g.drop(p)
	}
}

func (m *copiedMemory) shrinking(on bool) { m.shrink = on }

func (m *copiedMemory) Free() {
	m.leave()
	m.home = nil
}

// A sliceMemory is a slice of the Go heap, where there is nothing better.
type sliceMemory struct {
	limit uint64 // bytes
	buf   []byte
}

func (m *sliceMemory) Reallocate(size uint64) []byte {
	if size > m.limit || size > math.MaxInt32*2 {
		return nil
	}
	if size > uint64(cap(m.buf)) {
		grown := make([]byte, size, min(max(size, 2*uint64(cap(m.buf))), m.limit)) // a guest may grow by a page at a time
		copy(grown, m.buf)
		m.buf = grown
	}
	m.buf = m.buf[:size]
	return m.buf
}

func (m *sliceMemory) Free() { m.buf = nil }
