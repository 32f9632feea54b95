// Package binding is the binding capability: systems outside that are asked to do something (output) or that bring what
// happens there (input), each by operations and metadata of its own. Binding holds what is the same for every component
// (grants, bounds, errors), a Driver what is not.
package binding

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
)

// Bounds of one operation.
const (
	MaxData      = 128 << 20 // bytes
	MaxMetadata  = 256       // entries, and 64 KiB altogether
	maxMetaBytes = 64 << 10
	maxOperation = 256 // bytes
)

// A Binding is one component's.
type Binding struct {
	name   string
	driver Driver
	guard  loam.Guard
}

// New makes a Binding of the component called name.
func New(name string, d Driver) *Binding { return &Binding{name: name, driver: d} }

// Guarded is the binding with g round every call of the component, but for those that last.
func (b *Binding) Guarded(g loam.Guard) *Binding {
	made := *b
	made.guard = g
	return &made
}

// Output tells whether it can be invoked.
func (b *Binding) Output() bool { _, ok := b.driver.(Output); return ok }

// Input tells whether it brings events.
func (b *Binding) Input() bool { _, ok := b.driver.(Input); return ok }

// Operations are those that Invoke takes; none where it is no output, or takes any.
func (b *Binding) Operations() []string {
	if o, ok := b.driver.(Output); ok {
		return o.Operations()
	}
	return nil
}

// Invoke does one operation. A grant names operations; one to read is enough for those that change nothing, by their
// names: get, list, head, options, trace, query. Beside an error there may be a Response: what the system outside said.
func (b *Binding) Invoke(ctx context.Context, caller *loam.Caller, r Request) (Response, error) {
	op := "binding " + strconv.Quote(b.name)
	if r.Operation == "" || len(r.Operation) > maxOperation {
		return Response{}, loam.Errorf(loam.InvalidArgument, op, "an operation takes 1 to %d bytes", maxOperation)
	}
	op += " " + strconv.Quote(r.Operation)
	if err := check(r.Data, r.Metadata); err != nil {
		return Response{}, &loam.Error{Code: loam.InvalidArgument, Op: op, Err: err}
	}
	name := strings.ToLower(r.Operation)
	if err := caller.Check("binding", b.name, name, !reads(name)); err != nil {
		return Response{}, err
	}
	out, ok := b.driver.(Output)
	if !ok {
		return Response{}, loam.Errorf(loam.Unimplemented, op, "the component only brings events: it takes no operations")
	}
	if known := out.Operations(); len(known) > 0 && !slices.Contains(known, name) {
		return Response{}, loam.Errorf(loam.InvalidArgument, op, "the component takes %s", strings.Join(known, ", "))
	}
	r.Operation = name
	resp, err := loam.Guarded(ctx, b.guard, func(ctx context.Context) (Response, error) { return out.Invoke(ctx, r) })
	if err != nil {
		return resp, &loam.Error{Code: loam.CodeOf(err), Op: op, Err: err, Hint: loam.HintOf(err)}
	}
	return resp, nil
}

// Read hands what the component brings to handle until ctx ends, which is no error.
func (b *Binding) Read(ctx context.Context, handle Handler) error {
	in, ok := b.driver.(Input)
	if !ok {
		return loam.Errorf(loam.Unimplemented, "binding "+strconv.Quote(b.name), "the component brings no events: it only takes operations")
	}
	if err := in.Read(ctx, handle); err != nil && ctx.Err() == nil {
		return &loam.Error{Code: loam.CodeOf(err), Op: "binding " + strconv.Quote(b.name), Err: err, Hint: loam.HintOf(err)}
	}
	return nil
}

func check(data []byte, metadata map[string]string) error {
	if len(data) > MaxData {
		return fmt.Errorf("data of %d bytes: at most %d", len(data), MaxData)
	}
	n := 0
	for k, v := range metadata {
		n += len(k) + len(v)
	}
	if len(metadata) > MaxMetadata || n > maxMetaBytes {
		return errors.New("metadata of " + strconv.Itoa(len(metadata)) + " entries, " + strconv.Itoa(n) + " bytes: at most " +
			strconv.Itoa(MaxMetadata) + ", " + strconv.Itoa(maxMetaBytes))
	}
	return nil
}

// reads tells whether an operation of that name changes nothing.
func reads(operation string) bool {
	switch operation {
	case "get", "list", "head", "options", "trace", "query":
		return true
	}
	return false
}
