package server

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/snapshot"
)

// A guard does something behind policies, which know requests only: it is a request to them, whose answer is that it was
// done. What no other try can mend is not tried again: the error's code says.
type guard struct{ policy loam.Policy }

// guard makes one of what resiliency says of a component; an empty one is nil, and does what it is given.
func (s *server) guard(p snapshot.Policy) *guard {
	if p.Timeout == nil && p.Retry == nil && p.Breaker == nil {
		return nil
	}
	return &guard{s.policies(p, nil)}
}

// guards are those of all components that resiliency says something of, by name; those of a capability have a slash before
// its name.
type guards map[string]*guard

// of is what guards a component.
func (all guards) of(capability, name string) *guard {
	if g, ok := all[name]; ok {
		return g
	}
	return all["/"+capability]
}

func (s *server) guards(r snapshot.Resiliency, of func(snapshot.ComponentResiliency) snapshot.Policy) guards {
	all := guards{}
	for name, c := range r.Components {
		all[name] = s.guard(of(c))
	}
	for capability, c := range r.Others {
		all["/"+capability] = s.guard(of(c))
	}
	return all
}

// unguarded is for who only looks what there is.
func unguarded(string, string) *guard { return nil }

// done is the answer of something that was done.
var done = loam.Response{Status: http.StatusOK}

// do does something, where it may block.
func (g *guard) do(ctx context.Context, fn func(ctx context.Context) error) error {
	return g.in(ctx, nil, fn)
}

// in does something in a task; nil: where it may block.
func (g *guard) in(ctx context.Context, t loam.Task, fn func(ctx context.Context) error) error {
	if g == nil {
		return fn(ctx)
	}
	req := loam.NewRequest(ctx)
	defer req.Release()
	if t != nil {
		req.SetTask(t)
	}
	req.Method, req.Scheme, req.Authority, req.Path = http.MethodGet, "http", "component", "/"
	var permanent error
	_, err := g.policy(loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		switch err := fn(req.Context()); {
		case err == nil:
		case mends(err):
			return nil, err
		default:
			permanent = err
		}
		res := done
		return &res, nil
	})).Serve(req)
	return cmp.Or(err, permanent)
}

// each does several things together, and those that failed again, as long as the policies have it tried. fn answers for each
// of those that it is asked for, or nil for all.
func (g *guard) each(ctx context.Context, n int, fn func(ctx context.Context, which []int) []error) []error {
	errs, left := make([]error, n), make([]int, n)
	for i := range left {
		left[i] = i
	}
	err := g.do(ctx, func(ctx context.Context) error {
		answers := fn(ctx, left)
		var first error
		var again []int
		for i, at := range left {
			switch errs[at] = nil; {
			case i < len(answers):
				errs[at] = answers[i]
			case answers != nil:
				errs[at] = loam.Errorf(loam.Internal, "subscription", "%d answers for %d events", len(answers), len(left))
			}
			if errs[at] != nil && mends(errs[at]) {
				again, first = append(again, at), cmp.Or(first, errs[at])
			}
		}
		left = again
		return first
	})
	for _, at := range left {
		errs[at] = cmp.Or(errs[at], err)
	}
	return errs
}

// mends tells whether another try may do what one failed to: nobody asked for too much, nothing is missing, and no app said
// that it does not want it again.
func mends(err error) bool {
	var dropped interface{ Drop() bool }
	if errors.As(err, &dropped) && dropped.Drop() {
		return false
	}
	switch loam.CodeOf(err) {
	case loam.Unavailable, loam.DeadlineExceeded, loam.Internal, loam.Unknown, loam.ResourceExhausted, loam.DataLoss:
		return true
	}
	return false
}

// otherPolicies is what holds for calls to an app that resiliency does not name. Each app has a breaker of its own.
func (s *server) otherPolicies(r snapshot.Resiliency, app string) loam.Policy {
	p := r.OtherApps
	if p.Breaker != nil {
		b := *p.Breaker
		b.State += " " + app
		p.Breaker = &b
	}
	return s.policies(p, nil)
}

func containsWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(w), word) {
			return true
		}
	}
	return false
}

func sensitive(value string) resource.Sensitive { return resource.Sensitive(value) }
