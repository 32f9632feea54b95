package wasm

import (
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
)

// A Cold says why a call was not served by an instance that waited for it.
type Cold string

// Why a call was cold. The first that applies counts.
const (
	Warm      Cold = ""
	ColdLoad  Cold = "load"  // the function was not loaded
	ColdStart Cold = "start" // an instance was started, for want of an image
	ColdFork  Cold = "fork"  // an instance was forked from the image
)

// A Usage is what one call took.
type Usage struct {
	Function string
	Shard    int           // of the engine, in which it was served
	Code     loam.Code     // what became of it
	CPU      time.Duration // of the processor: what the guest did, and the host for it, by the count of its work
	Wall     time.Duration // from the call's begin to its end, waiting included
	Memory   int64         // bytes of the guest's memory, for each microsecond that the guest was under way
	In, Out  int64         // bytes of the request's and of the response's body
	Calls    int64         // capability calls
	Sent     int64         // bytes by capability calls
	Received int64
	Cold     Cold
}

func (u *Usage) coldBy(c Cold) {
	if u.Cold == Warm {
		u.Cold = c
	}
}

// Stats are counters of one function. They only grow.
type Stats struct {
	Outcomes [loam.Unauthenticated + 1]atomic.Int64 // calls, by what became of them
	Cold     atomic.Int64                           // calls that were
	CPU      atomic.Int64                           // ns
	Wall     atomic.Int64                           // ns
	Memory   atomic.Int64                           // bytes × µs
	In, Out  atomic.Int64                           // bytes of bodies
	Calls    atomic.Int64                           // capability calls
	Sent     atomic.Int64                           // bytes by them
	Received atomic.Int64
	Limits   [guest.NumLimits]atomic.Int64 // how often each was hit

	Loaded, Unloaded atomic.Int64 // the function
	Started          atomic.Int64 // instances, for want of an image
	Forked           atomic.Int64 // instances
	Reset            atomic.Int64 // instances, made clean for the next request
	Dropped          atomic.Int64 // instances, that could not be made clean or not be kept
	Evicted          atomic.Int64 // sessions that made room for another
}

func (s *Stats) count(u *Usage) {
	s.Outcomes[min(u.Code, loam.Unauthenticated)].Add(1)
	s.CPU.Add(int64(u.CPU))
	s.Wall.Add(int64(u.Wall))
	s.Memory.Add(u.Memory)
	add(&s.In, u.In)
	add(&s.Out, u.Out)
	add(&s.Calls, u.Calls)
	add(&s.Sent, u.Sent)
	add(&s.Received, u.Received)
	if u.Cold != Warm {
		s.Cold.Add(1)
	}
}

func add(to *atomic.Int64, n int64) {
	if n != 0 {
		to.Add(n)
	}
}
