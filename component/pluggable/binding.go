package pluggable

import (
	"context"
	"errors"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api/dapr/components"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/component"
	"github.com/loam-run/loam/protocol/grpc"
)

// Output is a binding.Driver that can be invoked.
type Output struct {
	*conn
	operations []string
}

// Input is a binding.Driver that brings events.
type Input struct{ *conn }

// Both is a binding.Driver that does either.
type Both struct {
	Output
	in Input
}

func openBinding(ctx context.Context, c *conn, metadata map[string]string, in, out bool) (binding.Driver, error) {
	properties := &components.MetadataRequest{Properties: metadata}
	var o Output
	if out {
		if err := c.init(ctx, "OutputBinding", &components.OutputBindingInitRequest{Metadata: properties}); err != nil {
			return nil, err
		}
		var list components.ListOperationsResponse
		if err := c.call(ctx, "OutputBinding/ListOperations", &components.ListOperationsRequest{}, &list); err != nil && loam.CodeOf(err) != loam.Unimplemented {
			return nil, c.fail("OutputBinding.ListOperations", err)
		}
		o = Output{c, list.Operations}
	}
	if in {
		if err := c.init(ctx, "InputBinding", &components.InputBindingInitRequest{Metadata: properties}); err != nil {
			return nil, err
		}
	}
	switch {
	case in && out:
		return &Both{o, Input{c}}, nil
	case in:
		return &Input{c}, nil
	}
	return &o, nil
}

// Operations are those that the program lists.
func (o *Output) Operations() []string { return o.operations }

// Invoke has the program do one.
func (o *Output) Invoke(ctx context.Context, r binding.Request) (binding.Response, error) {
	var out components.InvokeResponse
	err := o.call(ctx, "OutputBinding/Invoke", &components.InvokeRequest{Operation: r.Operation, Data: r.Data, Metadata: r.Metadata}, &out)
	return binding.Response{Data: out.Data, Metadata: out.Metadata}, o.fail("binding.Invoke "+r.Operation, err)
}

// Read is the Input's.
func (b *Both) Read(ctx context.Context, handle binding.Handler) error { return b.in.Read(ctx, handle) }

// maxReads is how many events of an input are handled at once.
const maxReads = 64

// Read hands on what the program reads, several at once, and opens its stream anew where it breaks.
func (b *Input) Read(ctx context.Context, handle binding.Handler) error {
	slots := make(chan struct{}, maxReads)
	answer := func(id string, data []byte, err error) grpc.Message {
		out := &components.ReadRequest{ResponseData: data, MessageId: id}
		if err != nil {
			out.ResponseError = &components.AckResponseError{Message: err.Error()}
		}
		return out
	}
	for ctx.Err() == nil {
		err := talk(ctx, b.conn, "InputBinding/Read", &components.ReadRequest{}, slots, func(ctx context.Context, m *components.ReadResponse) grpc.Message {
			defer func() { <-slots }()
			data, err := handle(context.WithoutCancel(ctx), binding.Event{Data: m.Data, Metadata: m.Metadata, ContentType: m.ContentType})
			return answer(m.MessageId, data, err)
		}, func(m *components.ReadResponse) grpc.Message { return answer(m.MessageId, nil, errEnded) })
		if loam.CodeOf(err) == loam.Unimplemented || errors.Is(err, errClosed) {
			return b.fail("binding.Read", err)
		}
		component.Pause(ctx, again)
	}
	return nil
}
