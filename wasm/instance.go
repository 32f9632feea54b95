package wasm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
)

// An instance is one guest. It serves one request at a time, and is dropped after one that failed.
type instance struct {
	module         wasmapi.Module
	serve          serveFunc
	ctx            context.Context // of the request under way; sleeping ends with it
	stdout, stderr lineWriter
}

// instantiate starts an instance. Its _initialize may run as long as a request, and no longer than ctx.
func (m *Module) instantiate(ctx context.Context) (*instance, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.Timeout)
	defer cancel()
	i := &instance{ctx: ctx}
	i.stdout = lineWriter{log: m.log, limit: &m.lines, stream: "stdout"}
	i.stderr = lineWriter{log: m.log, limit: &m.lines, stream: "stderr"}
	config := wazero.NewModuleConfig().
		WithName(""). // anonymous: there are many
		WithArgs(m.name).
		WithStdout(&i.stdout).WithStderr(&i.stderr).
		WithRandSource(rand.Reader).
		WithSysWalltime().WithSysNanotime().
		WithNanosleep(i.sleep).WithOsyield(runtime.Gosched).
		WithStartFunctions("_initialize")
	for k, v := range m.config.Env {
		config = config.WithEnv(k, v)
	}
	var err error
	i.module, err = m.runtime.InstantiateModule(ctx, m.compiled, config)
	i.flush()
	if err != nil {
		return nil, m.failure(ctx, "starting it", err)
	}
	i.serve = m.abi.Bind(i.module)
	return i, nil
}

// begin says what request the instance works for from now on.
func (i *instance) begin(ctx context.Context, id string) {
	i.ctx = ctx
	i.stdout.request, i.stderr.request = id, id
}

// flush logs what the guest printed without ending the line.
func (i *instance) flush() {
	i.stdout.flush()
	i.stderr.flush()
}

func (i *instance) close() {
	_ = i.module.Close(context.Background()) // a guest without files has nothing whose closing can fail
}

// sleep is what the guest's clock waits by. The engine cannot interrupt it, so it ends with the request itself.
func (i *instance) sleep(ns int64) {
	t := time.NewTimer(time.Duration(ns))
	defer t.Stop()
	select {
	case <-t.C:
	case <-i.ctx.Done():
	}
}

// failure says what became of a guest that did not return.
func (m *Module) failure(ctx context.Context, doing string, err error) error {
	e := &loam.Error{Code: loam.Internal, Op: m.op()}
	var exit *sys.ExitError
	var own *loam.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		e.Code, e.Err = loam.DeadlineExceeded, fmt.Errorf("%s: it was not done in time and was ended", doing)
		e.Hint = fmt.Sprintf("its spec.timeout is %v; the caller or route may give less", m.config.Timeout)
	case ctx.Err() != nil:
		e.Code, e.Err = loam.Canceled, fmt.Errorf("%s: nobody waits for it any more; it was ended", doing)
	case errors.As(err, &own):
		e.Code, e.Err, e.Hint = own.Code, fmt.Errorf("%s: %w", doing, own.Err), own.Hint
	case errors.As(err, &exit):
		e.Err = fmt.Errorf("%s: it exited with status %d", doing, exit.ExitCode())
		e.Hint = "its log lines say why"
	default:
		cause, stack, _ := strings.Cut(err.Error(), "\n")
		e.Err = fmt.Errorf("%s: trap: %s", doing, strings.TrimPrefix(cause, "wasm error: "))
		m.log.Error("guest trapped", "doing", doing, "cause", cause, "stack", stack)
	}
	return e
}
