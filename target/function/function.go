// Package function is the target that is a Wasm function in this process: a wasm.Module for as long as a snapshot serves
// it. The module counts its calls, so that those under way finish before it goes.
package function

import (
	"context"
	"io"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm"
)

// A Function is a loam.Target. It is safe for concurrent use.
type Function struct{ module *wasm.Module }

// New compiles binary and starts a first instance: what is wrong with it is the error. The caller calls Close.
func New(ctx context.Context, host *wasm.Host, name string, binary []byte, c wasm.Config) (*Function, error) {
	m, err := host.Compile(ctx, name, binary, c)
	if err != nil {
		return nil, err
	}
	return &Function{m}, nil
}

// Serve answers req by an instance of the function. After Close, wasm.ErrClosed is in the error's chain and nothing of
// req was read.
func (f *Function) Serve(req *loam.Request) (*loam.Response, error) { return f.module.Serve(req) }

// State tells how the function is at this moment.
func (f *Function) State() wasm.State { return f.module.State() }

// Stats are the function's counters.
func (f *Function) Stats() *wasm.Stats { return f.module.Stats() }

// Profile writes a CPU profile of the guest's code to w, in pprof's format, of the calls that begin within d.
func (f *Function) Profile(ctx context.Context, d time.Duration, w io.Writer) error {
	return f.module.Profile(ctx, d, w)
}

// Close refuses new calls and waits for those under way. Once ctx ends it ends them too; either way nothing of the
// function is left when it returns.
func (f *Function) Close(ctx context.Context) error { return f.module.Close(ctx) }
