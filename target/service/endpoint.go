package service

import (
	"context"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/grpc"
)

// state is what is known of an endpoint for as long as its address is on the list. Requests count in its atomics; what
// stands below them belongs to Service.mu.
type state struct {
	address string
	id      string // by which sessions keep to it
	via     Transport

	_       [64]byte // what every request writes shares no cache line with what it reads
	started atomic.Uint64
	ended   atomic.Uint64
	failed  atomic.Uint64
	row     atomic.Int32 // of failures, the last request among them
	latency ewma
	total   *atomic.Int64 // under way in the service; nil: nobody asks
	_       [64]byte

	stop context.CancelFunc // of the goroutine that asks it; nil: nobody does
	health
	seenEnded  uint64 // when Passive's present interval began
	seenFailed uint64
}

// health is what a service has learned of an endpoint, and hands on to the one that takes its place.
type health struct {
	fresh        time.Time // when it came or returned; zero: with the first list
	asked        bool      // an answer was had
	sick         bool      // by the answers
	why          string    // the last bad answer
	good, bad    int       // answers in a row
	ejectedUntil time.Time // zero: it is not ejected
	ejections    int       // lately
}

// newID is the opaque name of an address, the same in every process.
func newID(address string) string {
	s := strconv.FormatUint(hash(address, 0x1d), 36)
	return "0000000000000"[len(s):] + s
}

func (e *state) begin() {
	e.started.Add(1)
	if e.total != nil {
		e.total.Add(1)
	}
}

func (e *state) end() {
	e.ended.Add(1)
	if e.total != nil {
		e.total.Add(-1)
	}
}

// RequestEnded counts a request as over whose answer was good.
func (e *state) RequestEnded() { e.end() }

// inFlight is how many requests are under way.
func (e *state) inFlight() int64 {
	ended := e.ended.Load() // first: what ends between the two must not make it negative
	return int64(e.started.Load() - ended)
}

// usable tells whether an endpoint's health lets it have requests.
func (e *state) usable() bool { return !e.sick && e.ejectedUntil.IsZero() }

// ewma is a moving average of latency that rises at once and falls slowly (peak EWMA), as a float32 of nanoseconds above
// the stamp of the last change. 0: nothing was measured.
type ewma struct{ v atomic.Uint64 }

// worst bounds what failures make of an average.
const worst = float32(10 * time.Second)

// stampOf is a time in units of 16.4 µs; it goes round in 19 hours.
func stampOf(t time.Time) uint32 { return uint32(t.UnixNano() >> 14) }

// elapsed is the units from one stamp to another, 0 where the clocks of two loops disagree on which came first.
func elapsed(from, to uint32) float32 { return float32(max(int32(to-from), 0)) }

// observe takes in a latency. A failure counts as twice what is known: an endpoint that fails at once is not a fast one.
func (w *ewma) observe(took time.Duration, failed bool, now uint32, decay float32) {
	for {
		old := w.v.Load()
		x, last := max(float32(took), 1), math.Float32frombits(uint32(old>>32))
		switch {
		case failed:
			x = min(max(x, 2*last, float32(100*time.Millisecond)), max(worst, last))
		case old != 0 && x < last:
			left := decay / (decay + elapsed(uint32(old), now)) // close to an exponential where it is applied often
			x += (last - x) * left
		}
		if w.v.CompareAndSwap(old, uint64(math.Float32bits(x))<<32|uint64(now)) {
			return
		}
	}
}

// read is the average in nanoseconds, less what time has taken from it.
func (w *ewma) read(now uint32, decay float32) float32 {
	v := w.v.Load()
	if v == 0 {
		return 0
	}
	return math.Float32frombits(uint32(v>>32)) * decay / (decay + elapsed(uint32(v), now))
}

// blame tells whether what came of a request is the endpoint's fault.
func blame(res *loam.Response, err error, isGRPC bool) bool {
	if err != nil {
		switch loam.CodeOf(err) {
		case loam.Canceled, loam.InvalidArgument, loam.ResourceExhausted, loam.PermissionDenied, loam.Unauthenticated, loam.FailedPrecondition, loam.Unimplemented:
			return false // the sender's, or this side's own bounds
		}
		return true
	}
	if res.Status >= 500 {
		return true
	}
	if isGRPC {
		switch code, _ := grpc.ParseCode(res.Header); code { // where an answer is a head alone; a trailer comes too late
		case loam.DeadlineExceeded, loam.Internal, loam.Unavailable, loam.DataLoss:
			return true
		}
	}
	return false
}
