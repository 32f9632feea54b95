package wasm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/loam-run/loam"
)

// otherWays are hosts that reset as older kernels make them, or as they do once an instance has served for a while.
func otherWays(t *testing.T) map[string]*Host {
	old := newHost(t, Options{})
	_ = unix.Close(old.mapper.pagemap)
	old.mapper.pagemap, old.mapper.how, old.mapper.noHuge = -1, "madvise: it is a test", true
	none := newHost(t, Options{})
	none.mapper.noFiles = errors.New("it is a test")
	watched := newHost(t, Options{})
	watched.mapper.watch = 1
	return map[string]*Host{"madvise": old, "copy": none, "watched": watched}
}

// allMemory is all that an instance can ever have seen, its end and behind it.
func allMemory(i *instance) []byte {
	switch m := i.memory.(type) {
	case *mappedMemory:
		if !m.grown {
			return m.buf[:len(m.image.bytes)]
		}
		return m.buf
	case *copiedMemory:
		switch g := m.grown.(type) {
		case *plainMemory:
			return g.buf
		case *sliceMemory:
			return g.buf[:cap(g.buf)]
		}
		return m.home
	}
	return nil
}

// Pages that were written are found wherever they are meanwhile.
func TestScanFindsWhatWasPagedOut(t *testing.T) {
	m := compile(t, handmade{serve: serves, pages: 64, data: []byte("image")}.bytes(), Config{})
	i, err := m.program.fork()
	if err != nil {
		t.Fatal(err)
	}
	defer i.close()
	mapped := i.memory.(*mappedMemory)
	view := mapped.buf[:len(mapped.image.bytes)]
	for at := 0; at < len(view); at += 3 * pageSize {
		copy(view[at:], "written")
	}
	if err := unix.Madvise(view, unix.MADV_PAGEOUT); err != nil {
		t.Logf("nothing can be paged out: %v", err)
	}
	if !i.reset() {
		t.Fatal("not reset")
	}
	if string(view) != string(mapped.image.bytes) {
		t.Error("not all is as it was")
	}
	// A swapped page of ours is neither present nor the file's.
	present := unsafe.Sizeof(scanArg{})
	if present != 96 || pageIsPrivately&pageIsSwapped == 0 {
		t.Errorf("the kernel is asked for the wrong pages, in %d bytes", present)
	}
}

// A call that wrote far more than others does not make the later ones dearer.
func TestDirtyPagesAreDropped(t *testing.T) {
	m := compile(t, handmade{serve: serves, pages: 64, data: []byte("image")}.bytes(), Config{})
	i, err := m.program.fork()
	if err != nil {
		t.Fatal(err)
	}
	defer i.close()
	mapped := i.memory.(*mappedMemory)
	if mapped.file.mapper.pagemap < 0 {
		t.Log(mapped.image.how)
		return
	}
	written := func() (pages int) {
		if err := mapped.file.mapper.scan(mapped.buf[:len(mapped.image.bytes)], func(from, to int) { pages += (to - from) / pageSize }); err != nil {
			t.Fatal(err)
		}
		return pages
	}
	write := func(pages int) {
		for p := range pages {
			mapped.buf[p*pageSize]++
		}
	}
	for range 20 {
		write(5)
		if !i.reset() {
			t.Fatal("not reset")
		}
	}
	if n := written(); n != 5 {
		t.Errorf("%d pages are private after small calls, want the 5 that each wrote", n)
	}
	write(900)
	if n := written(); n != 900 {
		t.Fatalf("%d pages were written", n)
	}
	i.reset()
	if n := written(); n != 0 {
		t.Errorf("%d pages are private after a large call", n)
	}
}

// An instance that has been used for a while is made clean without asking the kernel, until a call writes much.
func TestWatchedWrites(t *testing.T) {
	h := newHost(t, Options{})
	if h.mapper.watch = 3; runtime.GOARCH != "amd64" {
		t.Log("only on amd64")
		return
	}
	before := h.mapper.used()
	m, err := tryCompile(t, h, handmade{serve: serves, pages: 64, data: []byte("image")}.bytes(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	i, err := m.program.fork()
	if err != nil {
		t.Fatal(err)
	}
	mapped := i.memory.(*mappedMemory)
	home := mapped.buf[:len(mapped.image.bytes)]
	call := func(pages int) {
		t.Helper()
		view, _ := i.module.Memory().Read(0, i.module.Memory().Size())
		for p := range pages {
			view[p*3*pageSize+p] = 1
		}
		if !i.reset() {
			t.Fatal("not reset")
		}
		if string(home) != string(mapped.image.bytes) {
			t.Fatal("not all is as it was")
		}
	}
	watched := func(want bool) {
		t.Helper()
		if mapped.written != nil != want {
			t.Fatalf("watched: %t, after %d resets", !want, mapped.resets)
		}
	}
	for range 3 {
		watched(false)
		call(5)
	}
	for _, pages := range []int{5, 0, 7, 1, 5} {
		watched(true)
		call(pages)
	}
	if pages, _ := mapped.written.Pages(); len(pages) != 7 {
		t.Errorf("%d pages are copied back, want the 7 that were ever written", len(pages))
	}
	// A mapping is the image, one is each page that was written, and one what is between.
	if n := h.mapper.used() - before; n < 2+2*7 {
		t.Errorf("%d mappings are counted", n)
	}
	i.module.Memory().Grow(2)
	call(5)
	watched(true)
	call(300)     // more than can be noted
	for range 5 { // it was the first of the six
		watched(false)
		call(50)
	}
	watched(true)
	call(5)
	i.close()
	m.program.pool.trim()
	if n := h.mapper.used() - before; n != 1 {
		t.Errorf("%d mappings are counted, want the image's", n)
	}
}

// Where the kernel has no more mappings to give, a request is refused and the others go on.
func TestMappingsAreCounted(t *testing.T) {
	h := newHost(t, Options{})
	m, err := tryCompile(t, h, handmade{serve: serves, pages: 2}.bytes(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	before := h.mapper.maps.Load()
	h.mapper.maxMaps = before + 2
	var all []*instance
	for range 2 {
		i, err := m.program.fork()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	if _, _, err := trySend(t, m, "GET", "/", ""); loam.CodeOf(err) != loam.Unavailable || !strings.Contains(loam.HintOf(err), "max_map_count") {
		t.Errorf("%v, %q", err, loam.HintOf(err))
	}
	all[0].close()
	send(t, m, "GET", "/", "")
	all[1].close()
	m.program.pool.trim()
	m.program.pool.trim()
	if n := h.mapper.maps.Load(); n != before {
		t.Errorf("%d mappings are counted, there were %d", n, before)
	}
}

// BenchmarkIdle reports what 10,000 instances of a Go guest take that wait for their first request.
func BenchmarkIdle(b *testing.B) {
	resident := func() float64 {
		runtime.GC()
		debug.FreeOSMemory()
		text, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			b.Fatal(err)
		}
		var all, pages int
		if _, err := fmt.Sscan(string(text), &all, &pages); err != nil {
			b.Fatal(err)
		}
		return float64(pages*os.Getpagesize()) / (1 << 20)
	}
	const many = 10_000
	m := compile(b, guestModule, Config{})
	for b.Loop() {
		before := resident()
		instances := make([]*instance, many)
		for k := range instances {
			i, err := m.program.fork()
			if err != nil {
				b.Fatal(err)
			}
			instances[k] = i
		}
		after := resident()
		b.ReportMetric(after-before, "MiB")
		b.ReportMetric(after, "MiB-in-all")
		for _, i := range instances {
			i.close()
		}
	}
}

// The memory of an instance that has no image grows in its place up to its limit, and is gone when it is closed.
func TestPlainMemory(t *testing.T) {
	h := newHost(t, Options{})
	const limit = 4 << 20
	before := h.mapper.used()
	m := h.mapper.plain(limit)
	small := m.Reallocate(1 << 16)
	small[1<<16-1] = 7
	large := m.Reallocate(limit)
	if len(large) != limit || &large[0] != &small[0] || large[1<<16-1] != 7 || large[limit-1] != 0 {
		t.Error("it did not grow in its place")
	}
	if m.Reallocate(limit+1) != nil {
		t.Error("it grew beyond its limit")
	}
	if n := h.mapper.used() - before; n != 1 {
		t.Errorf("%d mappings", n)
	}
	m.Free()
	if n := h.mapper.used() - before; n != 0 {
		t.Errorf("%d mappings are left", n)
	}
	h.mapper.maxMaps = 0 // as many as there may be
	if _, ok := h.mapper.plain(limit).(*sliceMemory); !ok {
		t.Error("a mapping more than there may be")
	}
}

// A copy of a small image moves to a mapping when it grows, with what was written, and back when it is reset.
func TestCopiedMemoryMoves(t *testing.T) {
	h := newHost(t, Options{})
	m, err := tryCompile(t, h, handmade{serve: serves, pages: 1, data: []byte("image")}.bytes(), Config{Memory: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	i, err := m.program.fork()
	if err != nil {
		t.Fatal(err)
	}
	defer i.close()
	copied, ok := i.memory.(*copiedMemory)
	if !ok {
		t.Fatalf("the memory is a %T", i.memory)
	}
	before := h.mapper.used()
	for range 3 {
		i.module.Memory().WriteByte(1<<16-1, 7)
		for range 30 { // a page at a time
			if _, ok := i.module.Memory().Grow(16); !ok {
				t.Fatal("it does not grow")
			}
		}
		i.module.Memory().WriteByte(i.module.Memory().Size()-1, 8)
		all := allMemory(i)
		if n := h.mapper.used() - before; n != 1 || all[1<<16-1] != 7 || all[30<<20+1<<16-1] != 8 {
			t.Fatalf("%d mappings, or it is not all there", n)
		}
		if _, ok := i.module.Memory().Grow(1000); ok {
			t.Error("it grew beyond its limit")
		}
		if !i.reset() {
			t.Fatal("not reset")
		}
		view, _ := i.module.Memory().Read(0, i.module.Memory().Size())
		if n := h.mapper.used() - before; n != 0 || len(view) != 1<<16 || &view[0] != &copied.home[0] || string(view) != string(copied.image.bytes) {
			t.Errorf("%d mappings, %d bytes, or it is not as it was", n, len(view))
		}
	}
}
