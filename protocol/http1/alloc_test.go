//go:build !race

// The race detector allocates, and makes pools forget.

package http1

import (
	"runtime"
	"testing"
)

// A request that goes through allocates nothing, with a body that fits a buffer and with one that does not.
func TestProxyAllocatesNothing(t *testing.T) {
	for _, size := range []int{128, 16 << 10, 100 << 10 / 2} {
		f := newFixture(t, size)
		for range 100 {
			f.once(t)
		}
		runtime.GC() // pools are refilled after it
		for range 10 {
			f.once(t)
		}
		const runs = 2000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			f.once(t)
		}
		runtime.ReadMemStats(&after)
		if n := after.Mallocs - before.Mallocs; n > runs/20 { // the clock's stamp, a second's turn, the runtime's own
			t.Errorf("%d bytes: %d allocations in %d requests", size, n, runs)
		}
		f.end()
	}
}
