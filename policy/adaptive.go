package policy

import (
	"cmp"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
)

// AdaptiveConfig bounds requests at once by what the target shows it can bear. Zero fields take the default beside them.
type AdaptiveConfig struct {
	Min     int // requests at once that are always let pass; 1
	Max     int // 1000
	Initial int // 20, within the others
	Told    Told
}

// An Adaptive limits requests at once as TCP limits packets under way: it compares how long answers take with how long they
// take when the target has no queue. As long as that is about the same, the limit grows by its square root; when answers
// slow down, a queue is forming in the target, and the limit shrinks by as much as they did. Every half a minute it is
// halved for a moment, to see what answers take without a queue: otherwise it would get used to one. What is beyond the
// limit is answered Unavailable at once. A request counts until its answer's body was sent; its latency is that of the
// answer's head. All ways to the target share one.
type Adaptive struct {
	c     AdaptiveConfig
	err   error
	held  atomic.Int64
	limit atomic.Int64

	mu     sync.Mutex // guards what follows; who finds it locked does without a sample
	exact  float64    // limit
	alone  float64    // latency without a queue, in nanoseconds; 0: not known yet
	sum    float64    // of this window's latencies
	count  int
	most   int64 // held at once in this window
	late   bool  // a request of this window ran out of time
	begins time.Time
	probe  int       // windows that the limit is halved for: in the first the queue drains, the second is measured
	probed time.Time // when it was last halved
}

const (
	adaptiveWindow  = 100 * time.Millisecond
	adaptiveSamples = 10  // in a window, at least
	adaptiveSlack   = 1.5 // answers may take that much longer than without a queue
	adaptiveProbe   = 30 * time.Second
)

// NewAdaptive makes a limit that begins at c.Initial.
func NewAdaptive(c AdaptiveConfig) *Adaptive {
	c.Min = max(c.Min, 1)
	c.Max = max(cmp.Or(c.Max, 1000), c.Min)
	c.Initial = min(max(cmp.Or(c.Initial, 20), c.Min), c.Max)
	a := &Adaptive{c: c, exact: float64(c.Initial), err: refusal(loam.Unavailable, "adaptiveConcurrency", "the target answers slower with more requests at once", "give it more room or more copies")}
	a.limit.Store(int64(c.Initial))
	return a
}

// Limit is how many requests may be at the target now.
func (a *Adaptive) Limit() int { return int(a.limit.Load()) }

// Policy puts the limit before a target.
func (a *Adaptive) Policy() loam.Policy {
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			held := a.held.Add(1)
			if held > a.limit.Load() {
				a.held.Add(-1)
				a.c.Told.of(req, Shed)
				return nil, a.err
			}
			req.AtEnd(a)
			task := req.Task()
			start := task.Now()
			res, err := next.Serve(req)
			// An error says nothing of how fast the target is, but that it was too slow.
			if code := loam.CodeOf(err); code == loam.OK || code == loam.DeadlineExceeded {
				now := task.Now()
				a.sample(now, now.Sub(start), held, code == loam.DeadlineExceeded)
			}
			return res, err
		})
	}
}

// RequestEnded counts a request as gone.
func (a *Adaptive) RequestEnded() { a.held.Add(-1) }

func (a *Adaptive) sample(now time.Time, took time.Duration, held int64, late bool) {
	if !a.mu.TryLock() {
		return
	}
	defer a.mu.Unlock()
	if a.begins.IsZero() {
		a.begins = now
	}
	a.sum += float64(max(took, 1))
	a.count++
	a.most = max(a.most, held)
	a.late = a.late || late
	if a.count < adaptiveSamples || now.Sub(a.begins) < adaptiveWindow {
		return
	}
	short, most, late := a.sum/float64(a.count), a.most, a.late
	a.sum, a.count, a.most, a.late, a.begins = 0, 0, 0, false, now
	if a.probed.IsZero() {
		a.alone, a.probed = short, now
	}
	if a.probe > 0 {
		if a.probe--; a.probe == 0 {
			a.alone = short
			a.set(a.exact)
		}
		return
	}
	if short < a.alone {
		a.alone += (short - a.alone) * 0.2
	}
	gradient := min(max(adaptiveSlack*a.alone/short, 0.5), 1)
	if late {
		gradient = 0.5
	}
	if next := a.exact*gradient + math.Sqrt(a.exact); next < a.exact || most*2 >= int64(a.exact) { // what is not used need not grow
		a.exact += (next - a.exact) * 0.2
	}
	a.exact = min(max(a.exact, float64(a.c.Min)), float64(a.c.Max))
	if a.set(a.exact); now.Sub(a.probed) >= adaptiveProbe {
		a.probe, a.probed = 2, now
		a.set(max(a.exact/2, float64(a.c.Min)))
	}
}

func (a *Adaptive) set(limit float64) { a.limit.Store(int64(limit)) }
