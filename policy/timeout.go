package policy

import (
	"time"

	"github.com/loam-run/loam"
)

// Timeout bounds a request, from here to the end of the answer's body. A sooner deadline of the request's own stays. Past
// it every wait of the request ends, and the answer is DeadlineExceeded. It stands round all tries (Chain.Timeout), round
// each (Chain.Try), or both. A connection that leaves HTTP is bounded no more. d of 0 bounds nothing.
func Timeout(d time.Duration) loam.Policy {
	return func(next loam.Target) loam.Target {
		if d <= 0 {
			return next
		}
		return &timeout{next, d}
	}
}

type timeout struct {
	next  loam.Target
	limit time.Duration
}

func (p *timeout) Serve(req *loam.Request) (*loam.Response, error) {
	whole, end := req.Deadline(), req.Task().Now().Add(p.limit)
	if !whole.IsZero() && !whole.After(end) {
		return p.next.Serve(req)
	}
	req.SetDeadline(end)
	res, err := p.next.Serve(req)
	switch {
	case err != nil:
		req.SetDeadline(whole) // a retry round this one begins anew
		if code := loam.CodeOf(err); code != loam.DeadlineExceeded && code != loam.Canceled && !req.Task().Now().Before(end) {
			err = loam.Errorf(loam.DeadlineExceeded, "timeout", "no answer within %s: %w", p.limit, err)
		}
	case res.Tunnel != nil:
		req.SetDeadline(whole)
	}
	return res, err
}

// Idle bounds how long a body or stream of the exchange may be silent, either way. A shorter bound that the request has
// stays. 0 bounds nothing.
func Idle(d time.Duration) loam.Policy {
	return func(next loam.Target) loam.Target {
		if d <= 0 {
			return next
		}
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if req.Idle == 0 || req.Idle > d {
				req.Idle = d
			}
			return next.Serve(req)
		})
	}
}
