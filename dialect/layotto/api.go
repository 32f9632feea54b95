// Package layotto speaks Layotto's API (mosn/layotto, main of August 2025): gRPC for the program beside us, its callback for
// events, and the actuator over HTTP. It translates into the typed calls of the capabilities and holds no logic of theirs.
// docs/layotto.md lists every method and route with what differs.
package layotto

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/protocol/grpc"
)

// An API is Layotto's for one program.
type API struct {
	opts   dialect.Options
	app    string // the program's name
	caller *loam.Caller
	log    *slog.Logger
	server *grpc.Server
	client *grpc.Client // calls the program back; nil: it has no port, or none for gRPC

	mu        sync.Mutex
	greetings map[string]string // of SayHello, by service: what ApplyConfiguration said
}

// New makes the API.
func New(o dialect.Options) (*API, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{opts: o, app: o.App.ID, caller: o.App.Caller, log: o.Log, greetings: map[string]string{}}
	a.server = a.newServer()
	a.client = newClient(o.App)
	return a, nil
}

// await runs what may block, a driver above all, where it holds no event loop. fn gets the call's context.
func await(c *grpc.Call, fn func(ctx context.Context)) {
	ctx := c.Context() // made here: it belongs to the task
	c.Task().Await(func() { fn(ctx) })
}

// Layotto's words for what is wrong with a request are tested by its clients: they go out as they are.
func fail(code loam.Code, format string, args ...any) error {
	return grpc.NewStatus(code, fmt.Sprintf(format, args...))
}

// invalid is the failure of a request that can never succeed as it is.
func invalid(format string, args ...any) error { return fail(loam.InvalidArgument, format, args...) }

// because puts Layotto's words round an error. Layotto answers Internal for nearly all of them; here the code tells more
// where somebody knows more. A condition that does not hold is Aborted in both.
func because(err error, format string, args ...any) error {
	code := loam.CodeOf(err)
	switch code {
	case loam.Unknown:
		code = loam.Internal
	case loam.AlreadyExists:
		code = loam.Aborted
	}
	return grpc.NewStatus(code, fmt.Sprintf(format, args...)+words(err))
}

// refused is because for an error that may have Layotto's words already.
func refused(err error, format string, args ...any) error {
	var said *grpc.Status
	if errors.As(err, &said) {
		return said
	}
	return because(err, format, args...)
}

// words are what an error says to a program: nothing of one that nobody classified, which may hold what is not for it.
func words(err error) string {
	var known *loam.Error
	if !errors.As(err, &known) {
		return loam.CodeOf(err).String()
	}
	text := err.Error()
	if hint := loam.HintOf(err); hint != "" {
		text += " (" + hint + ")"
	}
	return text
}

// A section is one of the kinds of components that Layotto has, with its words for those that are not there.
type section struct {
	capability    string
	notConfigured string // there is none of the kind at all; "": notFound says it
	notFound      string // with the name
	missing       string // of one that is there and did not open
}

var (
	states    = section{"state", "state store is not configured", "state store %s is not found", "state store %s is not available: "}
	pubsubs   = section{"pubsub", "", "pubsub %s not found", "pubsub %s is not available: "}
	configs   = section{"config", "", "configure store [%s] don't support now", "configure store [%s] is not available: "}
	locks     = section{"lock", "lock store is not configured", "lock store %s not found", "lock store %s is not available: "}
	sequences = section{"sequence", "Sequencer store is not configured", "Sequencer store %s not found", "Sequencer store %s is not available: "}
	secrets   = section{"secret", "error when get secret but not find configured", "error when get secret but not find : %s", "secret store %s is not available: "}
	files     = section{"file", "", "not supported store type: %s", "store %s is not available: "}
	filesToo  = section{"file", "", "not support store type: %s", "store %s is not available: "} // as Layotto says of all but reading
	cryptions = section{"crypto", "", "component %s is not found", "component %s is not available: "}
)

// find looks a component up by the name that programs say. In Layotto names are a kind's own, here they are one set: where
// two kinds have the same one, the second component is called capability.name, and still found by its name.
func find[T any](a *API, s section, name string, get func(string) (T, error)) (T, error) {
	var none T
	if name == "" { // which is the default component to other carriers; Layotto knows none
		return none, invalid(s.notFound, name)
	}
	v, err := get(name)
	if loam.CodeOf(err) == loam.NotFound {
		if w, err := get(s.capability + "." + name); loam.CodeOf(err) != loam.NotFound {
			return w, s.words(err, name)
		}
		if s.notConfigured != "" && !a.has(s.capability) {
			return none, fail(loam.FailedPrecondition, "%s", s.notConfigured)
		}
		return none, invalid(s.notFound, name)
	}
	return v, s.words(err, name)
}

func (s section) words(err error, name string) error {
	if err == nil {
		return nil
	}
	return because(err, s.missing, name)
}

// has tells whether there is any component of a capability that the program may see.
func (a *API) has(capability string) bool {
	for _, c := range a.opts.Capabilities.Components(a.caller) {
		if c.Capability == capability {
			return true
		}
	}
	return false
}

// separator stands between the prefix of a key and the key, so no key may have it.
const separator = "||"

func checkKey(key string) error {
	if strings.Contains(key, separator) {
		return invalid("input key/keyPrefix '%s' can't contain '%s'", key, separator)
	}
	return nil
}
