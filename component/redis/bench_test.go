package redis

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/component/redis/redistest"
)

// Benchmark reads and writes state with so many callers at once. cpu/op is this process's processor time, the server's not
// counted.
func Benchmark(b *testing.B) {
	server := redistest.Start(b)
	s, err := OpenState(b.Context(), "bench", StateConfig{Server: Server{
		Host: server.Addr, Type: "node", MinRetry: 8 * time.Millisecond, MaxRetry: 512 * time.Millisecond, DialTimeout: 5 * time.Second, ReadTimeout: 3 * time.Second,
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	ctx, value := b.Context(), make([]byte, 128)
	for what, do := range map[string]func() error{
		"get": func() error { _, err := s.GetOne(ctx, "key", state.GetOptions{}); return err },
		"set": func() error { _, err := s.Apply(ctx, []state.Op{{Key: "key", Value: value}}); return err },
	} {
		for _, callers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/%d", what, callers), func(b *testing.B) {
				b.ReportAllocs()
				var left atomic.Int64
				left.Store(int64(b.N))
				before := processor(b)
				var calling sync.WaitGroup
				for range callers {
					calling.Go(func() {
						for left.Add(-1) >= 0 {
							if err := do(); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				calling.Wait()
				b.ReportMetric(float64((processor(b)-before).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
			})
		}
	}
}

// processor is the time that this process has used.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
