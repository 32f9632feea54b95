package wasm

import (
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	"github.com/loam-run/loam/wasm/rewrite"
	wasmapi "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// A guest that is profiled says where it is each time its fuel runs out: the engine hands the stack to the listener of
// one host function, yield, which guests' own code knows nothing of. So a profile costs nothing where none is made, and
// what it shows is work, not time: the guest's share of the processor, whatever else the machine did.

// maxStacks is how many different stacks a profile has, at most.
const maxStacks = 20_000

// A profiler collects the stacks of one function's guests.
type profiler struct {
	mu      sync.Mutex
	program *program // whose guests they are
	stacks  map[string]*stackCount
	pcs     []byte
	lost    int64 // samples for which there was no room
}

// stackCount is how often a stack was met, and what work that stands for.
type stackCount struct{ samples, units int64 }

// sample notes where a guest is. f is its fuel when it yields.
func (p *profiler) sample(i *instance, f rewrite.Fuel, stack experimental.StackIterator) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stacks == nil {
		return // it is done
	}
	p.program = i.program // the same module as before, though it may have been loaded anew
	p.pcs = p.pcs[:0]
	for stack.Next() {
		if f := stack.Function().Definition(); f.GoFunction() == nil { // else it is yield itself
			p.pcs = binary.LittleEndian.AppendUint32(p.pcs, f.Index())
		}
	}
	c := p.stacks[string(p.pcs)]
	if c == nil {
		if len(p.stacks) == maxStacks {
			p.lost++
			return
		}
		c = &stackCount{}
		p.stacks[string(p.pcs)] = c
	}
	c.samples++
	c.units += sliceFuel - min(f.Left(), 0) // a slice, and what it took beyond
}

// firstSlice is the fuel that a call under a profile begins with: anything up to a slice, so that a call that takes a
// tenth of a slice is met by one in ten.
func firstSlice() (rewrite.Fuel, int64) {
	n := rand.Int64N(sliceFuel) + 1
	return rewrite.NewFuel(rewrite.MinFuel+n) - rewrite.NewFuel(rewrite.MinFuel), n
}

// sampling is the listener of yield.
type sampling struct{}

// NewFunctionListener implements experimental.FunctionListenerFactory.
func (s sampling) NewFunctionListener(f wasmapi.FunctionDefinition) experimental.FunctionListener {
	for _, name := range f.ExportNames() {
		if name == rewrite.Yield {
			return s
		}
	}
	return nil
}

// Before implements experimental.FunctionListener.
func (sampling) Before(ctx context.Context, _ wasmapi.Module, _ wasmapi.FunctionDefinition, params []uint64, stack experimental.StackIterator) {
	c := guest.Of(ctx)
	if i := c.Owner.(*instance); i.profiler != nil {
		i.profiler.sample(i, rewrite.Fuel(params[0]), stack)
	}
}

// After implements experimental.FunctionListener.
func (sampling) After(context.Context, wasmapi.Module, wasmapi.FunctionDefinition, []uint64) {}

// Abort implements experimental.FunctionListener.
func (sampling) Abort(context.Context, wasmapi.Module, wasmapi.FunctionDefinition, error) {}

// Profile writes a CPU profile of the function's guests to w, in pprof's format, of the calls that begin within d or
// before ctx ends. What host functions do for a guest is not in it. One profile is made at a time.
func (m *Module) Profile(ctx context.Context, d time.Duration, w io.Writer) error {
	p := &profiler{stacks: map[string]*stackCount{}}
	if !m.profiler.CompareAndSwap(nil, p) {
		return &loam.Error{Code: loam.FailedPrecondition, Op: op(m.name), Err: errors.New("it is being profiled already"), Hint: "wait until that is done"}
	}
	began := time.Now()
	timer := time.NewTimer(d)
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	timer.Stop()
	m.profiler.Store(nil)
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	taken := &profiler{program: p.program, stacks: p.stacks, lost: p.lost}
	p.stacks = nil
	p.mu.Unlock()
	return taken.write(w, m.name, m.host.rate, began, time.Since(began))
}

// write writes the profile as a gzipped message Profile of pprof's profile.proto. rate is units in a nanosecond.
func (p *profiler) write(w io.Writer, function string, rate float64, began time.Time, took time.Duration) error {
	var out message
	texts := map[string]uint64{"": 0}
	table := []string{""}
	text := func(s string) uint64 {
		at, ok := texts[s]
		if !ok {
			at = uint64(len(table))
			texts[s], table = at, append(table, s)
		}
		return at
	}
	valueType := func(field int, kind, unit string) {
		var m message
		m.uint(1, text(kind))
		m.uint(2, text(unit))
		out.bytes(field, m)
	}
	valueType(1, "samples", "count")
	valueType(1, "cpu", "nanoseconds")
	known := map[uint32]bool{}
	for stack, c := range p.stacks {
		var locations, values message
		for at := 0; at+4 <= len(stack); at += 4 {
			f := binary.LittleEndian.Uint32([]byte(stack[at:]))
			known[f] = true
			locations = binary.AppendUvarint(locations, uint64(f)+1)
		}
		values = binary.AppendUvarint(values, uint64(c.samples))
		values = binary.AppendUvarint(values, uint64(float64(c.units)/rate))
		var m message
		m.bytes(1, locations)
		m.bytes(2, values)
		out.bytes(2, m)
	}
	var mapping message
	mapping.uint(1, 1)
	mapping.uint(3, 1<<32)
	mapping.uint(5, text(function+".wasm"))
	mapping.uint(7, 1) // has functions
	mapping.uint(8, 1) // has file names
	out.bytes(3, mapping)
	for f := range known {
		s := p.program.symbol(f)
		var line, location, m message
		line.uint(1, uint64(f)+1)
		line.uint(2, uint64(max(s.Line, 0)))
		location.uint(1, uint64(f)+1)
		location.uint(2, 1)
		location.uint(3, uint64(f))
		location.bytes(4, line)
		out.bytes(4, location)
		m.uint(1, uint64(f)+1)
		m.uint(2, text(s.Name))
		m.uint(3, text(s.Name))
		m.uint(4, text(s.File))
		m.uint(5, uint64(max(s.Line, 0)))
		out.bytes(5, m)
	}
	out.uint(9, uint64(began.UnixNano()))
	out.uint(10, uint64(took))
	valueType(11, "cpu", "nanoseconds")
	out.uint(12, uint64(sliceFuel/rate))
	if p.lost > 0 {
		out.uint(13, text("samples were lost: there were too many different stacks"))
	}
	for _, s := range table {
		out.bytes(6, []byte(s))
	}
	z := gzip.NewWriter(w)
	_, err := z.Write(out)
	return errors.Join(err, z.Close())
}

// A message is a Protocol Buffers message that is being written.
type message []byte

func (m *message) uint(field int, v uint64) {
	if v != 0 {
		*m = binary.AppendUvarint(binary.AppendUvarint(*m, uint64(field)<<3), v)
	}
}

func (m *message) bytes(field int, b []byte) {
	*m = append(binary.AppendUvarint(binary.AppendUvarint(*m, uint64(field)<<3|2), uint64(len(b))), b...)
}
