package pluggable

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api/dapr/components"
	"github.com/loam-run/loam/component"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/grpc"
)

// conn is one component's way to its program.
type conn struct {
	client   *grpc.Client
	engine   loop.Engine     // of the tasks that read streams
	gone     <-chan struct{} // closed with it
	instance string
}

// call calls a method of Dapr's services: "StateStore/Get".
func (c *conn) call(ctx context.Context, method string, in, out grpc.Message) error {
	if err := ctx.Err(); err != nil {
		return err // the program is not asked: it might do what nobody hears of
	}
	req := loam.NewRequest(ctx)
	defer req.Release()
	req.Header.Add("x-component-instance", c.instance)
	return c.client.Call(req, "/"+prefix+method, in, out, nil)
}

// init makes a service ready: it waits until the program answers, then hands it the component's metadata.
func (c *conn) init(ctx context.Context, service string, in grpc.Message) error {
	for {
		err := c.call(ctx, service+"/Ping", &components.PingRequest{}, &components.PingResponse{})
		if err == nil || loam.CodeOf(err) == loam.Unimplemented {
			break
		}
		if loam.CodeOf(err) != loam.Unavailable || !component.Pause(ctx, 50*time.Millisecond) {
			return c.fail(service+".Ping", err)
		}
	}
	return c.fail(service+".Init", c.call(ctx, service+"/Init", in, ignored{}))
}

// features are what a service says that it can.
func (c *conn) features(ctx context.Context, service string) ([]string, error) {
	var out components.FeaturesResponse
	err := c.call(ctx, service+"/Features", &components.FeaturesRequest{}, &out)
	if loam.CodeOf(err) == loam.Unimplemented {
		err = nil
	}
	return out.Features, c.fail(service+".Features", err)
}

// fail says which component and what it was doing.
func (c *conn) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return &loam.Error{Code: loam.CodeOf(err), Op: "component " + c.instance + ": " + op, Err: cause(err), Hint: loam.HintOf(err)}
}

// cause is a status's words without its code, which the error round it has.
func cause(err error) error {
	if s, ok := errors.AsType[*grpc.Status](err); ok && s.Message != "" {
		return errors.New(s.Message)
	}
	return err
}

// Close leaves the connection to the program's other components.
func (c *conn) Close() error { return nil }

// ignored is an answer of which nothing is wanted.
type ignored struct{}

func (ignored) AppendProto(b []byte) []byte { return b }
func (ignored) ParseProto([]byte) error     { return nil }

// talk is a call whose messages go both ways: after the first of ours, the program's are handled, each beside the others once
// it has a slot, which handle gives back, and answered. When ctx ends no more are handled: those that come are answered by
// refuse, and once all others are answered the call is ended. handle's context ends with the call, or with ctx.
func talk[M any, P interface {
	*M
	grpc.Message
}](ctx context.Context, c *conn, method string, first grpc.Message, slots chan struct{}, handle func(context.Context, P) grpc.Message, refuse func(P) grpc.Message,
) error {
	ended := make(chan error, 1)
	c.engine.Go(func(t loam.Task) { ended <- talkIn(t, ctx, c, method, first, slots, handle, refuse) })
	select {
	case err := <-ended:
		return err
	case <-c.gone: // it may not have been begun
		return errClosed
	}
}

// talkIn is talk in a task of the engine, whose waits can be ended.
func talkIn[M any, P interface {
	*M
	grpc.Message
}](t loam.Task, ctx context.Context, c *conn, method string, first grpc.Message, slots chan struct{}, handle func(context.Context, P) grpc.Message, refuse func(P) grpc.Message, //nolint:revive // the task is what runs it
) error {
	req := new(loam.Request) // whose life is longer than ctx, so that what was handled can be answered
	req.Begin(t)
	defer req.End()
	req.Header.Add("x-component-instance", c.instance)
	s := c.client.Open(req, "/"+prefix+method)
	defer s.Close()
	if err := s.Post(first); err != nil {
		return err
	}
	life, over := context.WithCancel(ctx)
	var mu sync.Mutex // over what is begun, and that nothing more is
	var handling, ending sync.WaitGroup
	read := make(chan struct{})
	closed := false
	ending.Go(func() {
		<-life.Done()
		mu.Lock()
		closed = true
		mu.Unlock()
		handling.Wait()
		s.CloseSend()
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case <-read: // to its end
		case <-late.C: // a program that does not end the call
			t.Cancel()
		}
	})
	defer t.Await(ending.Wait)
	defer over()
	defer close(read)
	for {
		m := P(new(M))
		if err := s.Recv(m); err != nil {
			return err
		}
		free := false
		t.Await(func() {
			select {
			case slots <- struct{}{}:
				free = true
			case <-ctx.Done():
			}
		})
		mu.Lock()
		switch {
		case free && !closed:
			handling.Go(func() { _ = s.Post(handle(life, m)) }) // where the call is over the program brings it again
		case free:
			<-slots
			fallthrough
		default:
			_ = s.Post(refuse(m)) // the same
		}
		mu.Unlock()
	}
}

// grace is how long a program may take to end a stream that we have.
const grace = 2 * time.Second

// services asks a program what it offers, by gRPC's server reflection: the version that Dapr asks for, or the one after it.
func services(ctx context.Context, client *grpc.Client) ([]string, error) {
	list, err := servicesBy(ctx, client, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
	if loam.CodeOf(err) == loam.Unimplemented {
		list, err = servicesBy(ctx, client, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
	}
	if loam.CodeOf(err) == loam.Unimplemented {
		err = &loam.Error{Code: loam.Unimplemented, Err: errors.New("the program does not tell its services"), Hint: "register gRPC server reflection in it, as Dapr's SDKs do"}
	}
	return list, err
}

func servicesBy(ctx context.Context, client *grpc.Client, method string) ([]string, error) {
	req := loam.NewRequest(ctx)
	defer req.Release()
	s := client.Open(req, method)
	defer s.Close()
	if err := s.Send(&listServices{}); err != nil && !errors.Is(err, io.EOF) { // how it ended is told below
		return nil, err
	}
	var list serviceList
	if err := s.Recv(&list); err != nil {
		return nil, err
	}
	if list.failed {
		return nil, errors.New("reflection answers with an error")
	}
	return list.names, nil
}
