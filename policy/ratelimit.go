package policy

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
)

// RateLimitConfig bounds requests in time. Zero fields take the default beside them.
type RateLimitConfig struct {
	Name     string        // in the fields that tell a client of the limit; "default"
	Requests int           // in Per; 100
	Per      time.Duration // 1s
	Burst    int           // requests at once; Requests
	By       By            // whose requests count together
	Header   string        // of ByHeader
	Claim    string        // of ByClaim
	Keys     int           // that are counted apart, at most: of more, those not seen for longest begin anew; 16384
	Shared   TakeFunc      // counts for all processes; nil: each counts for itself
	Told     Told
}

// By is whose requests count together.
type By uint8

// What requests are counted by.
const (
	ByRoute  By = iota // all of them
	ByClient           // the address they come from, of IPv6 its /64
	ByHeader           // the value of a header; those without it together
	ByClaim            // the value of a claim; those without it together
)

// ParseBy reads its word in configuration.
func ParseBy(word string) (By, bool) {
	switch word {
	case "route":
		return ByRoute, true
	case "client":
		return ByClient, true
	case "header":
		return ByHeader, true
	case "claim":
		return ByClaim, true
	}
	return 0, false
}

// A TakeFunc takes up to n requests of key's share from what all processes have together. It returns how many it got and,
// if none, after which time there may be one. It may block, and is called by Task.Await.
type TakeFunc func(ctx context.Context, key string, n int) (got int, after time.Duration, err error)

// A RateLimit lets so many requests pass in a time. It is a token bucket kept as one time for each key (the generic cell rate
// algorithm): when the bucket would be full again. Who comes too soon is answered 429 with Retry-After (RFC 9110) and the
// fields RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10).
type RateLimit struct {
	c      RateLimitConfig
	each   int64 // nanoseconds for one request
	burst  int64 // nanoseconds for Burst of them
	policy string
	all    atomic.Int64         // of ByRoute
	keys   *keyed[atomic.Int64] // of the others
	leases *keyed[lease]        // where it is shared
}

// NewRateLimit makes a limit of which nothing was used.
func NewRateLimit(c RateLimitConfig) *RateLimit {
	c.Name = cmp.Or(c.Name, "default")
	c.Requests = cmp.Or(c.Requests, 100)
	c.Per = cmp.Or(c.Per, time.Second)
	c.Burst = cmp.Or(c.Burst, c.Requests)
	c.Keys = cmp.Or(c.Keys, 16384)
	each := max(int64(c.Per)/int64(c.Requests), 1)
	l := &RateLimit{c: c, each: each, burst: each * int64(c.Burst)}
	l.policy = fmt.Sprintf("%q;q=%d;w=%d", c.Name, c.Requests, max(int64(c.Per/time.Second), 1))
	if c.By != ByRoute {
		l.keys = newKeyed[atomic.Int64](c.Keys)
	}
	if c.Shared != nil {
		l.leases = newKeyed[lease](c.Keys)
	}
	return l
}

// Policy puts the limit before a target.
func (l *RateLimit) Policy() loam.Policy {
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			var room [64]byte
			key := l.key(room[:0], req)
			wait, err := time.Duration(0), error(nil)
			if l.c.Shared == nil {
				wait = l.take(key, req.Task().Now())
			} else if wait, err = l.takeShared(key, req); err != nil {
				return nil, err
			}
			if wait > 0 {
				l.c.Told.of(req, RateLimited)
				return l.refuse(req, wait), nil
			}
			return next.Serve(req)
		})
	}
}

// key is what a request is counted by.
func (l *RateLimit) key(b []byte, req *loam.Request) []byte {
	switch l.c.By {
	case ByClient:
		return client(b, req)
	case ByHeader:
		return digest(b, req.Header.Get(l.c.Header))
	case ByClaim:
		return digest(b, claim(req.Claims, l.c.Claim))
	}
	return b
}

// take takes one request, or tells how long to wait for it.
func (l *RateLimit) take(key []byte, now time.Time) (wait time.Duration) {
	if l.keys == nil {
		return l.cell(&l.all, now)
	}
	l.keys.with(key, func(full *atomic.Int64) { wait = l.cell(full, now) })
	return wait
}

// cell is the algorithm: full is when all that was taken is due again.
func (l *RateLimit) cell(full *atomic.Int64, now time.Time) time.Duration {
	for at := now.UnixNano(); ; {
		was := full.Load()
		next := max(was, at) + l.each
		if wait := next - at - l.burst; wait > 0 {
			return time.Duration(wait)
		}
		if full.CompareAndSwap(was, next) {
			return 0
		}
	}
}

// refuse answers in the target's place. A client is told whole seconds, rounded up.
func (l *RateLimit) refuse(req *loam.Request, wait time.Duration) *loam.Response {
	seconds := strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)
	res := answer(req, refusal(loam.ResourceExhausted, "rateLimit", "too many requests", "try again in "+seconds+" s"))
	res.Header.Add("Retry-After", seconds)
	res.Header.Add("RateLimit-Policy", l.policy)
	res.Header.Add("RateLimit", strconv.Quote(l.c.Name)+";r=0;t="+seconds)
	return res
}

// lease is what this process took of a key's share and has not used up, or why it asks for none. A lease saves asking the
// component for each request.
type lease struct {
	left    int
	until   time.Time   // what is left is void then: others may want it
	barred  time.Time   // nothing is to be had before
	alone   time.Time   // the component does not answer: until then this process counts for itself
	asking  bool        // a request of this process asks
	waiting []loam.Task // for its answer
}

const (
	leaseParts = 20          // how many leases a key's share makes: who holds one keeps no more from the others
	leaseTime  = time.Second // bounds the component's answer, and how long a lease or its absence is believed
)

// takeShared is take where processes count together. Of the requests that find no lease one asks and the others wait for
// its answer. While the component does not answer, each process counts for itself.
func (l *RateLimit) takeShared(key []byte, req *loam.Request) (wait time.Duration, err error) {
	task := req.Task()
	for {
		var found *lease
		got, alone, ask := false, false, false
		now := task.Now()
		l.leases.with(key, func(s *lease) {
			found = s
			switch {
			case s.left > 0 && now.Before(s.until):
				s.left--
				got = true
			case now.Before(s.barred):
				wait = s.barred.Sub(now)
			case now.Before(s.alone):
				alone = true
			case !s.asking:
				s.asking, ask = true, true
			default:
				s.waiting = append(s.waiting, task)
			}
		})
		switch {
		case got || wait > 0:
			return wait, nil
		case alone:
			return l.take(key, now), nil
		case ask:
			l.ask(key, req, found)
		default:
			if err := task.Park(req.Deadline()); err != nil {
				return 0, err
			}
		}
	}
}

// ask takes a lease for all that wait for it. It has the lease itself, which may have made room for another meanwhile.
func (l *RateLimit) ask(key []byte, req *loam.Request, s *lease) {
	task := req.Task()
	name := l.c.Name + ":" + hex.EncodeToString(key)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), leaseTime) // the others need the answer too
	defer cancel()
	var got int
	var after time.Duration
	err := errPanicked
	defer func() {
		now := task.Now()
		shard := l.leases.shard(key)
		shard.mu.Lock()
		waiting := s.waiting
		s.asking, s.waiting = false, nil
		switch {
		case err != nil:
			s.alone = now.Add(leaseTime)
		case got > 0:
			s.left, s.until = got, now.Add(min(l.c.Per, leaseTime))
		default:
			s.barred = now.Add(max(after, time.Millisecond))
		}
		shard.mu.Unlock()
		for _, t := range waiting {
			t.Wake()
		}
	}()
	task.Await(func() {
		got, after, err = l.c.Shared(ctx, name, min(max(l.c.Burst/leaseParts, 1), 1000))
	})
}

var errPanicked = errors.New("it panicked")
