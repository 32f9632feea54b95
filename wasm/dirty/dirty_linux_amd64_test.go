package dirty

import (
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// mapping is n pages that are gone at the test's end.
func mapping(t testing.TB, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	return b
}

func watch(t testing.TB, b []byte) *Memory {
	t.Helper()
	m, err := Watch(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func noted(m *Memory) []uint32 {
	pages, _ := m.Pages()
	pages = slices.Clone(pages)
	slices.Sort(pages)
	return pages
}

func TestPages(t *testing.T) {
	b := mapping(t, 100)
	b[7*4096] = 1
	m := watch(t, b)
	if p, all := m.Pages(); len(p) != 0 || !all {
		t.Errorf("%v, %t before anything was written", p, all)
	}
	sum := byte(0)
	for _, v := range b {
		sum += v // to read is no write
	}
	b[99*4096+4095] = sum
	b[0]++
	b[1]++
	copy(b[20*4096-1:], "over the edge")
	if got, want := noted(m), []uint32{0, 19, 20, 99}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if b[99*4096+4095] != 1 || b[0] != 1 || b[1] != 1 || string(b[20*4096-1:][:13]) != "over the edge" {
		t.Error("what was written is not there")
	}
	m.Stop()
	for at := 0; at < len(b); at += 4096 {
		b[at]++ // nobody looks
	}
	m = watch(t, b)
	if got := noted(m); len(got) != 0 {
		t.Errorf("%v from before", got)
	}
	m.Forget()
}

func TestMoreThanCanBeNoted(t *testing.T) {
	b := mapping(t, Max+10)
	m := watch(t, b)
	for p := range Max {
		b[p*4096] = byte(p)
		if got, all := m.Pages(); len(got) != p+1 || !all {
			t.Fatalf("%d pages, %t after %d", len(got), all, p+1)
		}
	}
	for p := Max; p < Max+10; p++ {
		b[p*4096] = byte(p)
		if got, all := m.Pages(); len(got) != Max || all {
			t.Fatalf("%d pages, %t after %d", len(got), all, p+1)
		}
	}
	for p := range Max + 10 {
		if b[p*4096] != byte(p) {
			t.Errorf("page %d has %d", p, b[p*4096])
		}
	}
	m.Stop()
}

// Where the kernel has no mapping more for a page of its own, all pages can be written.
func TestNoMappingsLeft(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/vm/max_map_count")
	if err != nil {
		t.Fatal(err)
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || most > 4<<20 {
		t.Fatalf("%d mappings, %v: more than can be made here", most, err)
	}
	b, filler := mapping(t, 10), mapping(t, most+10)
	m := watch(t, b)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the runtime shall need none meanwhile
	runtime.GC()
	for p := 0; err == nil && p < most; p += 2 {
		err = unix.Mprotect(filler[p*4096:][:4096], unix.PROT_READ)
	}
	full := err
	b[5*4096] = 1
	_, all := m.Pages()
	err = unix.Mprotect(filler, unix.PROT_READ|unix.PROT_WRITE)
	if full == nil || err != nil {
		t.Errorf("not all mappings were used up: %v, %v", full, err)
	}
	if all || b[5*4096] != 1 {
		t.Errorf("all %t, written %d", all, b[5*4096])
	}
	m.Stop()
}

func TestAsManyAsThereCanBe(t *testing.T) {
	b := mapping(t, maxRegions+1)
	var all []*Memory
	for p := range maxRegions {
		all = append(all, watch(t, b[p*4096:][:4096]))
	}
	if _, err := Watch(b[maxRegions*4096:]); err == nil {
		t.Error("one more")
	}
	for p := range maxRegions + 1 {
		b[p*4096] = 1
	}
	for p, m := range all {
		if got := noted(m); !slices.Equal(got, []uint32{0}) {
			t.Errorf("region %d: %v", p, got)
		}
		m.Stop()
	}
	watch(t, b[maxRegions*4096:]).Stop()
}

// A fault that is not a watched write is the Go runtime's, as without this package.
func TestOtherFaults(t *testing.T) {
	b := mapping(t, 2)
	m := watch(t, b[:4096])
	defer m.Stop()
	if err := unix.Mprotect(b[4096:], unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	fails := func(what string, f func()) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if err, ok := recover().(runtime.Error); !ok {
				t.Errorf("%s: %v", what, err)
			}
		}()
		f()
	}
	var none *int
	fails("a nil pointer", func() { *none++ })
	fails("a write to what may only be read", func() { b[4096]++ })
	if _, all := m.Pages(); !all || len(noted(m)) > 0 {
		t.Error("noted as a watched one")
	}
}

// What the package says of system calls.
func TestSystemCall(t *testing.T) {
	b := mapping(t, 2)
	m := watch(t, b)
	defer m.Stop()
	zeros, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer zeros.Close()
	if _, err := unix.Read(int(zeros.Fd()), b[:10]); !errors.Is(err, unix.EFAULT) {
		t.Errorf("%v", err)
	}
	if len(noted(m)) > 0 {
		t.Error("noted")
	}
}

// Many threads write to regions of theirs, which come and go, while the collector runs and stops them anywhere.
func TestMany(t *testing.T) {
	const threads, rounds, pages = 8, 300, 64
	stop := make(chan struct{})
	var collecting, writing sync.WaitGroup
	collecting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	for range threads {
		writing.Go(func() {
			b := mapping(t, pages)
			for round := range rounds {
				m, err := Watch(b)
				if err != nil {
					t.Error(err)
					return
				}
				var want []uint32
				for range rand.IntN(Max) {
					p := rand.IntN(pages)
					b[p*4096+rand.IntN(4096)] = byte(round)
					want = append(want, uint32(p))
				}
				slices.Sort(want)
				if got := noted(m); !slices.Equal(got, slices.Compact(want)) {
					t.Errorf("%v, want %v", got, want)
				}
				m.Stop()
			}
		})
	}
	writing.Wait()
	close(stop)
	collecting.Wait()
}

// BenchmarkFirstWrite is what the first write to a page costs, and what comes before and after it for a region.
func BenchmarkFirstWrite(b *testing.B) {
	const pages = 50
	mem := mapping(b, pages)
	for at := 0; at < len(mem); at += 4096 {
		mem[at] = 1
	}
	for b.Loop() {
		m := watch(b, mem)
		for at := 0; at < len(mem); at += 4096 {
			mem[at]++
		}
		m.Stop()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pages, "ns/page")
}
