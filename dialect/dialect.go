// Package dialect is what the dialects of the runtime API have in common: who they serve, what they are given to serve
// with, and how events, bindings and jobs come back to the program. The packages below it are one for each; none of
// them holds logic of a capability: they translate.
package dialect

import (
	"context"
	"log/slog"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
)

// An App is the program that a dialect is spoken with: one API, on sockets of its own, for each.
type App struct {
	ID       string
	Caller   *loam.Caller // who its calls are from, with its grants
	Target   loam.Target  // the program, with the policies that hold for it; nil: it has no port, and only asks
	GRPC     bool         // it is called back by gRPC; else by HTTP
	APIToken string       // that it must show; "": none
	AppToken string       // that we show it; "": none
	MaxBody  int64        // bytes of a message either way
}

// Budget is what the program's large messages may hold at once, of whatever MaxBody lets each be: 128 MiB, or four of them.
// Where a message has no bound, all have none.
func (a App) Budget() *protocol.Budget {
	if a.MaxBody <= 0 {
		return nil
	}
	return protocol.NewBudget(max(128<<20, 4*a.MaxBody))
}

// Options are what a dialect is made of.
type Options struct {
	App          App
	Capabilities capability.Set
	Engine       loop.Engine
	Version      string // of Loam
	Log          *slog.Logger
	// Policies are what resiliency says of calls to another app, by its name: what is done round each; nil: nothing.
	Policies func(app string) loam.Policy
	// Inbound is what resiliency says of what a component of a capability brings the program; nil, or answering nil: nothing.
	Inbound func(capability, component string) loam.Guard
	// Healthy tells whether the process serves as declared: nil, or what it lacks.
	Healthy func() error
	// Shutdown ends the process as SIGTERM does; nil: the dialect may not.
	Shutdown func()
	// SetLevel changes from which level on is logged what a component says (DEBUG, INFO, WARN, ERROR); nil: nobody can.
	SetLevel func(component, level string) error
}

// Guarded is deliver behind what resiliency says of what a component brings.
func (o *Options) Guarded(ctx context.Context, capability, component string, deliver func(ctx context.Context) error) error {
	if o.Inbound != nil {
		if g := o.Inbound(capability, component); g != nil {
			return g(ctx, deliver)
		}
	}
	return deliver(ctx)
}

// A Callback is how the program is told of what happens, in its dialect. Every method may be called from many goroutines
// at once, and waits no longer than ctx.
type Callback interface {
	// Subscriptions asks the program what it subscribes to by itself.
	Subscriptions(ctx context.Context) ([]event.Subscription, error)
	// Deliver brings one event. nil acknowledges it; an error with Drop() true means that it must not come again; any other
	// error, that it should. It waits in t; nil: it may block the goroutine that calls.
	Deliver(ctx context.Context, t loam.Task, to *event.Subscription, e loam.Event, attempt int) error
	// DeliverBulk brings several at once and answers for each.
	DeliverBulk(ctx context.Context, to *event.Subscription, events []loam.Event) []error
	// Binding asks whether the program wants what an input binding reads.
	Binding(ctx context.Context, name string) (bool, error)
	// Read brings what an input binding read; what the program answers may be for output bindings and state.
	Read(ctx context.Context, name string, data []byte, metadata map[string]string) ([]byte, error)
	// Job brings a job that is due. Its Type says what its Data is, in the dialect that scheduled it.
	Job(ctx context.Context, job jobs.Job) error
	// Healthy asks the program whether it is well.
	Healthy(ctx context.Context) error
}
