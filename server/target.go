package server

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/loam-run/loam"
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
