package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/snapshot"
	"github.com/loam-run/loam/target/app"
)

// A handle is a target by name. Routes and subscriptions hold handles, so that a new version of a function takes over
// for all of them in one store, while calls of the old one finish.
type handle struct {
	name    string
	current atomic.Pointer[version]
	own     atomic.Pointer[loam.Target] // it, behind the policies that hold for it whoever asks; nil: there are none
}

// asked is a target as it is asked otherwise than by a route: by an event, a binding, a job, a call by name. Routes have its
// policies among their own.
type asked struct{ *handle }

// Serve calls the present version, behind its policies.
func (a asked) Serve(req *loam.Request) (*loam.Response, error) {
	if t := a.own.Load(); t != nil {
		return (*t).Serve(req)
	}
	return a.handle.Serve(req)
}

// A version is one target and the calls that are in it.
type version struct {
	hash   string
	target loam.Target
	close  func(context.Context) error
	state  func() string // how it is, for status; nil: ready

	// improve puts a better version of the same in its place, once there is one; nil: this is the best.
	improve func(*handle)

	parts parts // of a service: its subsets

	calls   atomic.Int64 // calls under way; closing is added once it shall end
	idle    chan struct{}
	emptied sync.Once
}

// closing is more than there will ever be calls: a count at or above it says that the version takes no more.
const closing = 1 << 40

func newVersion(hash string, t loam.Target, close func(context.Context) error) *version {
	return &version{hash: hash, target: t, close: close, idle: make(chan struct{})}
}

func (v *version) take() bool {
	if v.calls.Add(1) < closing {
		return true
	}
	v.leave()
	return false
}

func (v *version) leave() {
	if v.calls.Add(-1) == closing {
		v.emptied.Do(func() { close(v.idle) })
	}
}

// end closes the target once its calls are done, or ctx is over.
func (v *version) end(ctx context.Context) error {
	if v.calls.Add(closing) > closing {
		select {
		case <-v.idle:
		case <-ctx.Done():
		}
	}
	return v.close(ctx)
}

// Serve calls the present version.
func (h *handle) Serve(req *loam.Request) (*loam.Response, error) {
	v, err := h.enter()
	if err != nil {
		return nil, err
	}
	defer v.leave()
	return v.target.Serve(req)
}

// enter takes the present version for a call, which ends with its leave.
func (h *handle) enter() (*version, error) {
	for {
		v := h.current.Load()
		if v == nil {
			return nil, loam.Errorf(loam.Unavailable, strconv.Quote(h.name), "it is not ready; see loam get")
		}
		if v.take() {
			return v, nil
		}
		// It was replaced between the two lines: the next version stands there already.
	}
}

// port is where the program listens that h leads to; 0: it is none that was started here.
func (h *handle) port() int {
	if v := h.current.Load(); v != nil {
		if p, ok := v.target.(*app.Process); ok {
			port, _ := p.Port()
			return port
		}
	}
	return 0
}

// onlyAsks is the target of an app that has no program to send requests to.
func onlyAsks(name string) loam.Target {
	return loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
		return nil, &loam.Error{
			Code: loam.FailedPrecondition, Op: "app " + strconv.Quote(name), Err: errors.New("it only asks: it says nowhere that it listens"), Hint: "write its address, command or source",
		}
	})
}

// applyTargets starts functions and apps that are new or changed.
func (s *server) applyTargets(ctx context.Context, plan *snapshot.Plan) {
	wanted := map[snapshot.TargetRef]bool{}
	var making sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, 2) // compiling takes a core
	start := func(ref snapshot.TargetRef, hash string, make func() (*version, error)) {
		wanted[ref] = true
		h := s.targets[ref]
		if h == nil {
			h = &handle{name: ref.Name}
			s.targets[ref] = h
		}
		key := ref.Kind + "/" + ref.Name
		if _, failed := s.failures[key]; failed {
			return // it could not be prepared
		}
		if v := h.current.Load(); v != nil && v.hash == hash {
			return
		}
		making.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			v, err := make()
			if err != nil {
				s.o.Log.Error("not started", strings.ToLower(ref.Kind), ref.Name, "error", err, "hint", loam.HintOf(err))
				mu.Lock()
				s.failures[key] = err
				mu.Unlock()
				return
			}
			if old := h.current.Swap(v); old != nil {
				s.endLater(old.end, strings.ToLower(ref.Kind), ref.Name)
			}
			if v.improve != nil {
				s.ending.Go(func() { v.improve(h) })
			}
		})
	}
	for _, f := range plan.Functions {
		ref := snapshot.TargetRef{Kind: "Function", Name: f.Name}
		sum, err := s.digest(f.File)
		start(ref, snapshot.Hash(f)+sum, func() (*version, error) {
			if err != nil {
				return nil, &loam.Error{Code: loam.NotFound, Op: fmt.Sprintf("function %q", f.Name), Err: err, Hint: "build it first: loam build"}
			}
			module, err := os.ReadFile(f.File)
			if err != nil {
				return nil, err
			}
			return s.startFunction(ctx, snapshot.Hash(f)+sum, module, f)
		})
	}
	for _, a := range plan.Apps {
		ref := snapshot.TargetRef{Kind: "App", Name: a.Name}
		sum, err := "", error(nil)
		args := a.Command
		if a.Source != "" {
			args = []string{a.Binary}
			sum, err = s.digest(a.Binary)
		}
		start(ref, snapshot.Hash(a)+sum, func() (*version, error) {
			if err != nil {
				return nil, &loam.Error{Code: loam.NotFound, Op: fmt.Sprintf("app %q", a.Name), Err: err, Hint: "build it first: loam build"}
			}
			if !a.Program() {
				return newVersion(snapshot.Hash(a), onlyAsks(a.Name), func(context.Context) error { return nil }), nil
			}
			if a.Address != "" {
				t := app.New(app.Config{Engine: s.engine, Hub: s.hub, Address: a.Address, Protocol: a.Protocol})
				return newVersion(snapshot.Hash(a), t, t.Close), nil
			}
			command := app.Command{Name: a.Name, Args: args, Dir: a.Dir, Env: a.Env, Port: a.Port, Ready: a.Health, Protocol: a.Protocol, Hub: s.hub}
			var p *app.Process
			if old, ok := s.inheritApp(a.Name, snapshot.Hash(a)+sum); ok {
				command.Port = old.Port
				p = app.Resume(s.engine, command, old.Ready, s.o.Log)
			} else if p, err = app.Start(s.engine, command, s.o.Log); err != nil {
				return nil, err
			}
			v := newVersion(snapshot.Hash(a)+sum, p, p.Close)
			v.state = p.State
			return v, nil
		})
	}
	for _, sv := range plan.Services {
		ref := snapshot.TargetRef{Kind: "Service", Name: sv.Name}
		before := s.targets[ref].service()
		start(ref, snapshot.Hash(sv), func() (*version, error) { return s.startService(snapshot.Hash(sv), sv, before) })
	}
	making.Wait()
	for ref, h := range s.targets {
		if !wanted[ref] {
			delete(s.targets, ref)
			if v := h.current.Swap(nil); v != nil {
				s.endLater(v.end, strings.ToLower(ref.Kind), ref.Name)
			}
		}
	}
	s.guardTargets(plan.Policies)
	named := maps.Clone(s.targets)
	s.named.Store(&named)
	for path := range s.digests {
		if !s.digests[path].used {
			delete(s.digests, path)
		}
	}
}

// guardTargets puts round targets what of their policies holds for events and calls by name as well: what bounds and mends
// calls. What asks who comes from outside, or changes what goes there, is for requests of routes.
func (s *server) guardTargets(all []snapshot.TargetPolicy) {
	own := map[*handle]loam.Target{}
	for _, p := range all {
		if h := s.targets[p.TargetRef]; h != nil {
			inside := snapshot.Policy{
				Timeout: p.Policy.Timeout, Retry: p.Policy.Retry, Hedge: p.Policy.Hedge, Bulkhead: p.Policy.Bulkhead, Adaptive: p.Policy.Adaptive, Breaker: p.Policy.Breaker,
			}
			for _, l := range p.Policy.RateLimits {
				if l.By == "all" {
					inside.RateLimits = append(inside.RateLimits, l)
				}
			}
			own[h] = s.policies(inside, nil)(h)
		}
	}
	for _, h := range s.targets {
		if t := own[h]; t != nil {
			h.own.Store(&t)
		} else {
			h.own.Store(nil)
		}
	}
}
