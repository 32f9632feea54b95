package policy

import (
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
)

// window counts requests, and some of them apart, over a span of time that moves on by a tenth of itself. Tasks of
// different loops write to different places. Where goroutines share one, a few counts may be lost when a tenth begins.
type window struct {
	tenth  time.Duration
	shards [windowShards]atomic.Pointer[windowShard] // made when first written: many windows are never used
}

const (
	windowShards = 16
	windowTenths = 10
)

type windowShard [windowTenths]tenth

type tenth struct {
	number    atomic.Int64 // which tenth since 1970 these are the counts of
	all, some atomic.Int64
}

func newWindow(span time.Duration) *window { return &window{tenth: max(span/windowTenths, 1)} }

// add counts one request, and as one of some.
func (w *window) add(t loam.Task, now time.Time, all, some int64) {
	slot := &w.shards[t.Shard()%windowShards]
	s := slot.Load()
	if s == nil {
		slot.CompareAndSwap(nil, new(windowShard))
		s = slot.Load()
	}
	number := now.UnixNano() / int64(w.tenth)
	c := &s[number%windowTenths]
	if was := c.number.Load(); was != number && c.number.CompareAndSwap(was, number) {
		c.all.Store(0)
		c.some.Store(0)
	}
	if all != 0 {
		c.all.Add(all)
	}
	if some != 0 {
		c.some.Add(some)
	}
}

// sum is what was counted in the last n tenths, the present one among them.
func (w *window) sum(now time.Time, n int64) (all, some int64) {
	last := now.UnixNano() / int64(w.tenth)
	for i := range w.shards {
		s := w.shards[i].Load()
		if s == nil {
			continue
		}
		for j := range s {
			if number := s[j].number.Load(); number > last-n && number <= last {
				all += s[j].all.Load()
				some += s[j].some.Load()
			}
		}
	}
	return all, some
}

// forget begins anew.
func (w *window) forget() {
	for i := range w.shards {
		if s := w.shards[i].Load(); s != nil {
			for j := range s {
				s[j].number.Store(-windowTenths)
			}
		}
	}
}
