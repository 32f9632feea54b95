package wasm

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/loam-run/loam/internal/build"
)

// emptyGuest is testdata/empty: a Go guest that answers nothing, so that what is left is the host's.
var emptyGuest = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "loam-guest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "empty.wasm")
	if err := build.Go(context.Background(), build.Job{Name: "empty", Dir: "testdata/empty", Out: out, Wasm: true}); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
})

func empty(b testing.TB, c Config) *Module {
	binary, err := emptyGuest()
	if err != nil {
		b.Fatal(err)
	}
	return compile(b, binary, c)
}

// perOp reports the processor time that an operation took, which other processes disturb less than its duration.
func perOp(b *testing.B) func() {
	now := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	runtime.GC()
	began := now()
	return func() { b.ReportMetric(float64(now()-began)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkEmptyCall is a call of a guest that does nothing, in a clean instance and in one that is not reset.
func BenchmarkEmptyCall(b *testing.B) {
	for _, isolation := range []string{IsolationRequest, IsolationShared} {
		b.Run(isolation, func(b *testing.B) {
			m := empty(b, Config{Isolation: isolation})
			r := request(b.Context(), "GET", "/", "")
			defer r.Release()
			b.ReportAllocs()
			defer perOp(b)()
			for b.Loop() {
				if _, err := m.Serve(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFork makes an instance, does nothing with it, and closes it.
func BenchmarkFork(b *testing.B) {
	for _, guest := range []struct {
		name   string
		binary func() ([]byte, error)
	}{
		{"go", emptyGuest},
		{"tiny", func() ([]byte, error) { return handmade{serve: serves, pages: 1}.bytes(), nil }},
		{"two pages", func() ([]byte, error) { return handmade{serve: serves, pages: 2}.bytes(), nil }},
	} {
		b.Run(guest.name, func(b *testing.B) {
			binary, err := guest.binary()
			if err != nil {
				b.Fatal(err)
			}
			m := compile(b, binary, Config{})
			b.ReportAllocs()
			defer perOp(b)()
			for b.Loop() {
				i, err := m.program.fork()
				if err != nil {
					b.Fatal(err)
				}
				i.close()
			}
		})
	}
}

// BenchmarkReset resets an instance that wrote nothing, of an image that is copied and of one that is mapped.
func BenchmarkReset(b *testing.B) {
	for _, c := range []struct {
		name  string
		pages int
	}{{"1 page", 1}, {"2 pages", 2}, {"4 pages", 4}} {
		b.Run(c.name, func(b *testing.B) {
			m := compile(b, handmade{serve: serves, pages: c.pages}.bytes(), Config{})
			i, err := m.program.fork()
			if err != nil {
				b.Fatal(err)
			}
			defer i.close()
			defer perOp(b)()
			for b.Loop() {
				if !i.reset() {
					b.Fatal("not reset")
				}
			}
		})
	}
}

// BenchmarkRequest is a request by the SDK with JSON in and out.
func BenchmarkRequest(b *testing.B) {
	const body = `{"items":[{"id":1,"name":"widget","price":9.5},{"id":2,"name":"gadget","price":3.25},{"id":3,"name":"doohickey","price":7}]}`
	warmup := &Warmup{Method: "POST", Path: "/json", Body: []byte(body)}
	for _, c := range []struct {
		name   string
		config Config
	}{
		{"request", Config{}},
		{"request warmed up", Config{Warmup: warmup}},
		{"shared", Config{Isolation: IsolationShared, Warmup: warmup}},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := compile(b, guestModule, c.config)
			b.ReportAllocs()
			defer perOp(b)()
			for b.Loop() {
				if status, _ := send(b, m, "POST", "/json", body); status != 200 {
					b.Fatal(status)
				}
			}
		})
	}
}

// BenchmarkLoad loads a function that another process has compiled: the code from disk, a first start, the image.
func BenchmarkLoad(b *testing.B) {
	for _, guest := range []struct {
		name   string
		binary func() ([]byte, error)
	}{
		{"go with the SDK", func() ([]byte, error) { return guestModule, nil }},
		{"tiny", func() ([]byte, error) { return handmade{serve: serves, pages: 2}.bytes(), nil }},
	} {
		b.Run(guest.name, func(b *testing.B) {
			binary, err := guest.binary()
			if err != nil {
				b.Fatal(err)
			}
			load := func() {
				h, err := NewHost(Options{CacheDir: cacheDir})
				if err != nil {
					b.Fatal(err)
				}
				defer h.Close()
				m, err := h.Compile(b.Context(), "orders", binary, Config{})
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := m.load(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := m.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			load()
			b.ResetTimer()
			b.StopTimer()
			for range b.N {
				load()
			}
		})
	}
}
