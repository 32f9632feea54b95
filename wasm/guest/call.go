package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/loam-run/loam"
)

// Limits bound what one call may do.
type Limits struct {
	Response int64 // bytes of a response's body
	Calls    int64 // capability calls
	Egress   int64 // bytes sent by capability calls
}

// A Limit is one of a function's limits, as they are counted.
type Limit uint8

// The limits.
const (
	LimitRequest Limit = iota
	LimitResponse
	LimitCalls
	LimitEgress
	LimitQueue
	LimitWall
	LimitCPU
	LimitStack
	LimitMemory // it asked for more and was refused
	LimitOutput // log lines
	LimitSessions
	NumLimits
)

// Used is what a call has used of what is counted.
type Used struct {
	Calls    int64 // capability calls
	Sent     int64 // bytes by them
	Received int64
	Limits   [NumLimits]uint32 // how often a limit was hit
}

// An Owner is who the host is for a Call.
type Owner interface {
	// Worked bills work that host functions did for the guest, in units of fuel; about four are a nanosecond. From time to
	// time it lets others run; it panics where the guest may not go on.
	Worked(units int64)
}

// A Call is one request that a guest serves, or its start. It is the context that the engine hands to host functions,
// so that they find it without a table; package wasm makes it and uses it again for the instance's next request.
type Call struct {
	Request *loam.Request // nil while the guest starts
	Body    []byte        // of Request, whole

	Function string
	Settings []byte       // the guest's own configuration, where its ABI has such a thing
	Next     loam.Target  // what the request goes on to where the guest lets it pass; nil: there is nothing behind it
	Caller   *loam.Caller // who the capability calls are made as
	Methods  loam.Methods
	InTask   map[string]loam.TaskMethod // those of Methods that run in the call's task, where others would need a thread
	Limits   Limits
	Until    time.Time       // when it has to be done
	Life     context.Context // the function's; it ends with the calls under way when they may take no longer
	Task     loam.Task       // what the guest runs in: where it waits

	// What WASI gives the guest.
	Began     time.Time // from which its monotonic clock counts; the same for all that share an image
	Args, Env []string
	Stdin     io.Reader // nil: it is at its end. It is read into the guest's memory, so not by a system call: see [View]
	Stdout    io.Writer // nil: what is written there is dropped
	Stderr    io.Writer
	Random    io.Reader

	Buffers *Buffers // for bodies; nil: they are the heap's

	State any // the ABI's
	Owner Owner

	Used Used

	ctx    context.Context
	cancel context.CancelFunc
}

type callKey struct{}

// Of is the call that a host function works for.
func Of(ctx context.Context) *Call {
	if c, ok := ctx.(*Call); ok {
		return c
	}
	c, ok := ctx.Value(callKey{}).(*Call) // in a start function, which the engine itself calls
	if !ok {
		panic(Misuse("it called the host while nobody called it"))
	}
	return c
}

// Serving is the same, of a host function that a guest may call only while it serves a request. The name is the
// function's, for the trap.
func Serving(ctx context.Context, name string) *Call {
	c := Of(ctx)
	if c.Request == nil {
		panic(Misuse("it called %s while no request was being served", name))
	}
	return c
}

// End makes the call empty. Contexts that it handed out end.
func (c *Call) End() {
	if c.cancel != nil {
		c.cancel()
	}
	*c = Call{State: c.State, Owner: c.Owner}
}

// above is the context's key for the call that a request was made by.
type above struct{}

// Context is the call's life for code that takes a context. It costs allocations, so it is made when somebody asks.
func (c *Call) Context() context.Context {
	if c.ctx != nil {
		return c.ctx
	}
	parent := context.Background()
	switch {
	case c.Request != nil:
		parent = c.Request.Context()
	case c.Task != nil:
		parent = c.Task.Context()
	}
	ctx, cancel := context.WithDeadline(parent, c.Until)
	c.cancel = cancel
	if c.Life != nil {
		stop := context.AfterFunc(c.Life, cancel)
		c.cancel = func() { stop(); cancel() }
	}
	c.ctx = context.WithValue(ctx, above{}, &link{c.Function, parentLink(parent)})
	return c.ctx
}

// A link is a call in a chain of calls that wait for each other. It outlives the Call.
type link struct {
	function string
	up       *link
}

func parentLink(ctx context.Context) *link {
	l, _ := ctx.Value(above{}).(*link)
	return l
}

// Waits tells whether a call of that function waits for what ctx belongs to.
func Waits(ctx context.Context, function string) bool {
	for l := parentLink(ctx); l != nil; l = l.up {
		if l.function == function {
			return true
		}
	}
	return false
}

// Deadline implements context.Context.
func (c *Call) Deadline() (time.Time, bool) { return c.Until, !c.Until.IsZero() }

// Done implements context.Context.
func (c *Call) Done() <-chan struct{} { return c.Context().Done() }

// Err implements context.Context.
func (c *Call) Err() error { return c.Context().Err() }

// Value implements context.Context. The engine asks at each call, which must not cost a context.
func (c *Call) Value(key any) any {
	if _, ok := key.(callKey); ok {
		return c
	}
	if c.ctx == nil {
		return nil
	}
	return c.ctx.Value(key)
}

// perByte is what host functions bill for bytes that they copy or scan, as units for each 16.
const perByte = 4

// Moved bills n bytes that a host function has copied for the guest.
func (c *Call) Moved(n int) { c.Owner.Worked(int64(n) / 16 * perByte) }

// Do makes a capability call. in may be the guest's memory; the answer is not. Others run meanwhile.
func (c *Call) Do(method string, in []byte) ([]byte, error) {
	do, ok := c.Methods[method]
	if !ok {
		return nil, loam.Errorf(loam.Unimplemented, "call", "there is no method %q", method)
	}
	if c.Used.Calls++; c.Used.Calls > c.Limits.Calls {
		return nil, c.exceeded(LimitCalls, method, "more than %d capability calls for one request", c.Limits.Calls)
	}
	if int64(len(in)) > c.Limits.Egress-c.Used.Sent {
		return nil, c.exceeded(LimitEgress, method, "more than %d bytes sent for one request", c.Limits.Egress)
	}
	c.Used.Sent += int64(len(in))
	c.Moved(len(in))
	in = bytes.Clone(in) // the memory may be used again before a driver is done with it
	ctx := c.Context()
	var out []byte
	var err error
	if here := c.InTask[method]; here != nil {
		out, err = here(ctx, c.Task, c.Caller, in)
	} else {
		c.Task.Await(func() { out, err = do(ctx, c.Caller, in) })
	}
	c.Used.Received += int64(len(out))
	c.Moved(len(out))
	return out, err
}

func (c *Call) exceeded(l Limit, method, format string, args ...any) error {
	c.Used.Limits[l]++
	return &loam.Error{
		Code: loam.ResourceExhausted, Op: method, Err: fmt.Errorf(format, args...),
		Hint: "do less for one request, or raise the function's limit",
	}
}

// Room tells whether a response's body that has some bytes may have n more: nil, or what to fail with.
func (c *Call) Room(has, n int) error {
	if int64(n) <= c.Limits.Response-int64(has) {
		return nil
	}
	c.Used.Limits[LimitResponse]++
	return &loam.Error{
		Code: loam.ResourceExhausted, Err: fmt.Errorf("its response's body is larger than %d bytes", c.Limits.Response),
		Hint: "answer in pages, or keep large data elsewhere",
	}
}

// Respond is Room for host functions: it panics where there is none.
func (c *Call) Respond(has, n int) {
	if err := c.Room(has, n); err != nil {
		panic(err)
	}
}

// Over is why the guest may not go on, or nil: its time is over, nobody waits for it, or the function ends.
func (c *Call) Over(now time.Time) error {
	if !c.Until.IsZero() && !now.Before(c.Until) {
		return context.DeadlineExceeded
	}
	if c.Life != nil && c.Life.Err() != nil {
		return context.Canceled
	}
	if c.ctx != nil {
		return c.ctx.Err()
	}
	return c.Context().Err()
}

// Sleep lets d pass, but ends the guest, by a panic, when it may not go on.
func (c *Call) Sleep(d time.Duration) {
	until := time.Now().Add(d)
	if c.Life != nil {
		defer context.AfterFunc(c.Life, c.Task.Wake)()
	}
	for {
		now := time.Now()
		if err := c.Over(now); err != nil {
			panic(err)
		}
		if !now.Before(until) {
			return
		}
		wake := until
		if !c.Until.IsZero() && c.Until.Before(until) {
			wake = c.Until
		}
		if err := c.Task.Park(wake); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			panic(context.Canceled)
		}
	}
}
