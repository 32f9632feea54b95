package policy

import (
	"cmp"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/grpc"
)

// BreakerConfig says when a target is left alone. Zero fields take the default beside them.
type BreakerConfig struct {
	Failures    int           // in a row that open it; 5; negative: not counted
	ErrorRatio  float64       // of the requests in Window that opens it, from 0 to 1; 0: not counted
	MinRequests int           // in Window, before ErrorRatio counts; 20
	Window      time.Duration // 10s
	Rest        time.Duration // before it is tried again; 5s
	HalfOpen    int           // requests that try it then, and must all succeed to close it; 1
	Trip        *Trip         // it opens where that is true, too; nil: it is not asked
	Interval    time.Duration // after which the counts of Trip begin anew; 0: never
	Told        Told
}

// A Breaker answers for a target that fails, at once and with Unavailable, to give it rest and its callers an answer.
// Closed, it lets everything pass; open, nothing; after Rest it is half open and lets a few requests try. A failure is an
// error, or an answer, that blames the target: 5xx but 501, or its like in gRPC. All ways to the target share one.
type Breaker struct {
	c    BreakerConfig
	open atomic.Bool // or half open: what is rare is behind the lock
	row  atomic.Int64
	seen *window // requests, and failures; nil: not counted
	trip *counts // nil: not counted
	err  error

	mu        sync.Mutex // guards what follows; never held while waiting
	until     time.Time  // of rest
	opened    int        // how often: the result of a request that began before says nothing now
	trying    int        // requests that try it
	succeeded int        // of those that tried
}

// NewBreaker makes a breaker that is closed.
func NewBreaker(c BreakerConfig) *Breaker {
	c.Failures = cmp.Or(c.Failures, 5)
	c.MinRequests = cmp.Or(c.MinRequests, 20)
	c.Window = cmp.Or(c.Window, 10*time.Second)
	c.Rest = cmp.Or(c.Rest, 5*time.Second)
	c.HalfOpen = cmp.Or(c.HalfOpen, 1)
	b := &Breaker{c: c, err: refusal(loam.Unavailable, "breaker", "the target failed too often and is given rest", "see why it fails; it is tried again within "+c.Rest.String())}
	if c.ErrorRatio > 0 {
		b.seen = newWindow(c.Window)
	}
	if c.Trip != nil {
		b.trip = &counts{trip: c.Trip, interval: c.Interval}
	}
	return b
}

// Open tells whether it refuses requests, but for the few that try the target.
func (b *Breaker) Open() bool { return b.open.Load() }

// Policy puts the breaker before a target.
func (b *Breaker) Policy() loam.Policy {
	return func(next loam.Target) loam.Target { return &guarded{next, b} }
}

type guarded struct {
	next loam.Target
	b    *Breaker
}

func (g *guarded) Serve(req *loam.Request) (*loam.Response, error) {
	b := g.b
	if b.open.Load() {
		return g.try(req)
	}
	res, err := g.next.Serve(req)
	if failed(res, err) {
		b.failure(req)
		return res, err
	}
	if b.row.Load() != 0 && loam.CodeOf(err) != loam.Canceled {
		b.row.Store(0)
	}
	if b.seen != nil {
		t := req.Task()
		b.seen.add(t, t.Now(), 1, 0)
	}
	if b.trip != nil && loam.CodeOf(err) != loam.Canceled {
		b.trip.add(req.Task().Now(), false)
	}
	return res, err
}

// failed tells whether an outcome is the target's fault.
func failed(res *loam.Response, err error) bool {
	if err != nil {
		return blamed(loam.CodeOf(err)) && !errors.Is(err, errRefused)
	}
	if res.Status >= 500 {
		return res.Status != 501
	}
	if res.Length > 0 || res.Tunnel != nil { // a gRPC call that fails at once has no body
		return false
	}
	code, ok := grpc.ParseCode(res.Header)
	return ok && blamed(code)
}

func blamed(code loam.Code) bool {
	switch code {
	case loam.Unavailable, loam.DeadlineExceeded, loam.Internal, loam.Unknown, loam.DataLoss:
		return true
	}
	return false
}

// failure counts one, and opens the breaker if it was one too many.
func (b *Breaker) failure(req *loam.Request) {
	t := req.Task()
	now := t.Now()
	row := b.row.Add(1)
	enough := b.c.Failures > 0 && row >= int64(b.c.Failures)
	if b.seen != nil {
		b.seen.add(t, now, 1, 1)
		all, failures := b.seen.sum(now, windowTenths)
		enough = enough || all >= int64(b.c.MinRequests) && float64(failures) >= b.c.ErrorRatio*float64(all)
	}
	if b.trip != nil {
		enough = b.trip.add(now, true) || enough
	}
	if !enough {
		return
	}
	b.mu.Lock()
	first := !b.open.Load()
	if first {
		b.rest(now)
	}
	b.mu.Unlock()
	if first {
		b.c.Told.of(req, BreakerOpened)
	}
}

// rest opens the breaker. The caller has the lock.
func (b *Breaker) rest(now time.Time) {
	b.until, b.trying, b.succeeded = now.Add(b.c.Rest), 0, 0
	b.opened++
	b.open.Store(true)
}

// try serves a request while the breaker is open: it is refused, or one of those that find out how the target is.
func (g *guarded) try(req *loam.Request) (res *loam.Response, err error) {
	b := g.b
	opened, ok := b.admit(req.Task().Now())
	if !ok {
		b.c.Told.of(req, BreakerRefused)
		return nil, b.err
	}
	outcome := lost // of a panic
	defer func() { b.tried(req, opened, outcome) }()
	res, err = g.next.Serve(req)
	switch {
	case failed(res, err):
	case loam.CodeOf(err) == loam.Canceled:
		outcome = unknown
	default:
		outcome = won
	}
	return res, err
}

type outcome uint8

const (
	lost    outcome = iota
	won             //
	unknown         // the caller went away
)

func (b *Breaker) admit(now time.Time) (opened int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open.Load(): // it was closed meanwhile
		return -1, true
	case now.Before(b.until), b.trying+b.succeeded >= b.c.HalfOpen:
		return 0, false
	}
	b.trying++
	return b.opened, true
}

func (b *Breaker) tried(req *loam.Request, opened int, how outcome) {
	b.mu.Lock()
	if opened != b.opened || !b.open.Load() {
		b.mu.Unlock()
		return
	}
	b.trying--
	act, changed := BreakerOpened, true
	switch how {
	case lost:
		b.rest(req.Task().Now())
	case won:
		b.succeeded++
		if changed = b.succeeded >= b.c.HalfOpen; changed {
			act = BreakerClosed
			b.row.Store(0)
			if b.seen != nil {
				b.seen.forget()
			}
			if b.trip != nil {
				b.trip.forget(req.Task().Now())
			}
			b.open.Store(false)
		}
	case unknown:
		changed = false
	}
	b.mu.Unlock()
	if changed {
		b.c.Told.of(req, act)
	}
}

// String is the breaker's state in words, for who looks after it.
func (b *Breaker) String() string {
	if !b.open.Load() {
		return "closed"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.trying+b.succeeded > 0 {
		return "half open: " + strconv.Itoa(b.succeeded) + " of " + strconv.Itoa(b.c.HalfOpen) + " tries succeeded"
	}
	return "open"
}
