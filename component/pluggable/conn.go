package pluggable

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api/dapr/components"
	"github.com/loam-run/loam/protocol/grpc"
)

// conn is one component's way to its program.
type conn struct {
	client   *grpc.Client
	instance string
}

// call calls a method of Dapr's services: "StateStore/Get".
func (c *conn) call(ctx context.Context, method string, in, out grpc.Message) error {
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
		if loam.CodeOf(err) != loam.Unavailable || !pause(ctx, 50*time.Millisecond) {
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

// pause waits, and is false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// stream is a call whose messages go both ways. Its life is longer than that of who reads it, so that what was read can be
// acknowledged.
type stream struct {
	*grpc.ClientStream
	req *loam.Request
}

func (c *conn) open(method string) *stream {
	req := loam.NewRequest(context.Background())
	req.Header.Add("x-component-instance", c.instance)
	return &stream{c.client.Open(req, "/"+prefix+method), req}
}

// recv waits for a message until ctx ends.
func (s *stream) recv(ctx context.Context, m grpc.Message) error {
	t, end := loam.NewTask(ctx)
	defer end()
	return s.RecvIn(t, m)
}

// end says that no more is sent, gives the program a while to take what was, and closes the stream.
func (s *stream) end() {
	s.CloseSend()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	for s.recv(ctx, ignored{}) == nil {
	}
	s.Close()
	s.req.Release()
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
