// Package function is the target that is a Wasm function in this process. It owns a wasm.Module for as long as a
// snapshot serves it, and lets the calls under way finish before it goes.
package function

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm"
)

// A Function is a loam.Target. It is safe for concurrent use.
type Function struct {
	name   string
	module *wasm.Module
	stop   context.Context // ends when calls under way may take no longer
	kill   context.CancelFunc

	mu     sync.Mutex
	calls  int
	closed bool
	idle   chan struct{} // closed once closed is set and calls are at their end
}

// New compiles binary and starts a first instance: what is wrong with it is the error. The caller calls Close.
func New(ctx context.Context, host *wasm.Host, name string, binary []byte, c wasm.Config) (*Function, error) {
	m, err := host.Compile(ctx, name, binary, c)
	if err != nil {
		return nil, err
	}
	f := &Function{name: name, module: m, idle: make(chan struct{})}
	f.stop, f.kill = context.WithCancel(context.Background())
	return f, nil
}

// Serve answers req by an instance of the function.
func (f *Function) Serve(req *loam.Request) (*loam.Response, error) {
	if !f.enter() {
		return nil, &loam.Error{Code: loam.Unavailable, Op: "function " + strconv.Quote(f.name), Err: errors.New("it is being stopped")}
	}
	defer f.leave()
	before := req.Context()
	ctx, cancel := context.WithCancel(before)
	defer cancel()
	defer context.AfterFunc(f.stop, cancel)()
	req.SetContext(ctx)
	defer req.SetContext(before)
	return f.module.Serve(req)
}

// Close refuses new calls and waits for those under way. Once ctx ends it ends them too; either way nothing of the
// function is left when it returns.
func (f *Function) Close(ctx context.Context) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		<-f.idle
		return nil
	}
	f.closed = true
	if f.calls == 0 {
		close(f.idle)
	}
	f.mu.Unlock()

	var err error
	select {
	case <-f.idle:
	case <-ctx.Done():
		err = &loam.Error{Code: loam.CodeOf(ctx.Err()), Op: "function " + strconv.Quote(f.name), Err: errors.New("calls under way were ended")}
		f.kill()
		<-f.idle
	}
	f.kill()
	return errors.Join(err, f.module.Close())
}

func (f *Function) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.calls++
	return true
}

func (f *Function) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls--; f.calls == 0 && f.closed {
		close(f.idle)
	}
}
