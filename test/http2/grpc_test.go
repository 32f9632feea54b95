package http2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/loam-run/loam"
	loamgrpc "github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http2"
)

// A message is one of protobuf's own, which Loam sends or receives.
type message struct{ proto.Message }

func (m message) AppendProto(b []byte) []byte {
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m.Message)
	if err != nil {
		panic(err)
	}
	return b
}

func (m message) ParseProto(b []byte) error {
	return proto.UnmarshalOptions{Merge: true}.Unmarshal(b, m.Message)
}

// service is gRPC's test service, as Loam's server serves it.
func service() *loamgrpc.Server {
	raw := func(m proto.Message) (*loamgrpc.Raw, error) {
		b, err := proto.Marshal(m)
		return (*loamgrpc.Raw)(&b), err
	}
	payload := func(n int32) *testgrpc.Payload { return &testgrpc.Payload{Body: make([]byte, n)} }
	echo := func(c *loamgrpc.Call) {
		if v := c.Request().Header.Get("x-grpc-test-echo-initial"); v != "" {
			c.AddHeader("x-grpc-test-echo-initial", v)
		}
		if v := c.Request().Header.Get("x-grpc-test-echo-trailing-bin"); v != "" {
			c.AddTrailer("x-grpc-test-echo-trailing-bin", v)
		}
	}
	asked := func(s *testgrpc.EchoStatus) error {
		if s.GetCode() == 0 {
			return nil
		}
		return loamgrpc.NewStatus(loam.Code(s.GetCode()), s.GetMessage())
	}
	return &loamgrpc.Server{MaxMessage: 8 << 20, Methods: map[string]loamgrpc.Method{
		"/grpc.testing.TestService/EmptyCall": loamgrpc.Unary(func(*loamgrpc.Call, *loamgrpc.Raw) (*loamgrpc.Raw, error) { return new(loamgrpc.Raw), nil }),
		"/grpc.testing.TestService/UnaryCall": loamgrpc.Unary(func(c *loamgrpc.Call, in *loamgrpc.Raw) (*loamgrpc.Raw, error) {
			var req testgrpc.SimpleRequest
			if err := proto.Unmarshal(*in, &req); err != nil {
				return nil, err
			}
			echo(c)
			if c.Request().Header.Has("x-details") {
				return nil, loamgrpc.NewStatus(loam.NotFound, "no such thing", loamgrpc.ErrorInfo("WHY", "dapr.io", map[string]string{"a": "b"}),
					loamgrpc.ResourceInfo("state", "x", "owner", "gone"), loamgrpc.BadRequest(loamgrpc.Violation{Field: "f", Description: "bad"}))
			}
			if err := asked(req.GetResponseStatus()); err != nil {
				return nil, err
			}
			return raw(&testgrpc.SimpleResponse{Payload: payload(req.GetResponseSize())})
		}),
		"/grpc.testing.TestService/StreamingInputCall": loamgrpc.Streaming(func(s *loamgrpc.Stream) error {
			sum := int32(0)
			for {
				var req testgrpc.StreamingInputCallRequest
				if err := s.Recv(message{&req}); err == io.EOF {
					return s.Send(message{&testgrpc.StreamingInputCallResponse{AggregatedPayloadSize: sum}})
				} else if err != nil {
					return err
				}
				sum += int32(len(req.GetPayload().GetBody()))
			}
		}),
		"/grpc.testing.TestService/StreamingOutputCall": loamgrpc.Streaming(duplex(echo, asked)),
		"/grpc.testing.TestService/FullDuplexCall":      loamgrpc.Streaming(duplex(echo, asked)),
	}}
}

// duplex answers each request by the messages that it asks for.
func duplex(echo func(*loamgrpc.Call), asked func(*testgrpc.EchoStatus) error) func(*loamgrpc.Stream) error {
	return func(s *loamgrpc.Stream) error {
		echo(&s.Call)
		for {
			var req testgrpc.StreamingOutputCallRequest
			if err := s.Recv(message{&req}); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if err := asked(req.GetResponseStatus()); err != nil {
				return err
			}
			for _, p := range req.GetResponseParameters() {
				if err := loam.Sleep(s.Task(), time.Duration(p.GetIntervalUs())*time.Microsecond); err != nil {
					return err
				}
				if err := s.Send(message{&testgrpc.StreamingOutputCallResponse{Payload: &testgrpc.Payload{Body: make([]byte, p.GetSize())}}}); err != nil {
					return err
				}
			}
		}
	}
}

// gRPC's interop cases, with Loam's server.
func TestGRPCServer(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		conn := connect(t, e.serve(t, service()))
		tc := testgrpc.NewTestServiceClient(conn)
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		for name, run := range map[string]func(){
			"empty_unary":                 func() { interop.DoEmptyUnaryCall(ctx, tc) },
			"large_unary":                 func() { interop.DoLargeUnaryCall(ctx, tc) },
			"client_streaming":            func() { interop.DoClientStreaming(ctx, tc) },
			"server_streaming":            func() { interop.DoServerStreaming(ctx, tc) },
			"ping_pong":                   func() { interop.DoPingPong(ctx, tc) },
			"empty_stream":                func() { interop.DoEmptyStream(ctx, tc) },
			"timeout_on_sleeping_server":  func() { interop.DoTimeoutOnSleepingServer(ctx, tc) },
			"cancel_after_first_response": func() { interop.DoCancelAfterFirstResponse(ctx, tc) },
			"status_code_and_message":     func() { interop.DoStatusCodeAndMessage(ctx, tc) },
			"special_status_message":      func() { interop.DoSpecialStatusMessage(ctx, tc) },
			"custom_metadata":             func() { interop.DoCustomMetadata(ctx, tc) },
			"unimplemented_method":        func() { interop.DoUnimplementedMethod(ctx, conn) },
			"unimplemented_service":       func() { interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn)) },
			"large_unary_gzip":            func() { interop.DoLargeUnaryCall(ctx, tc, grpc.UseCompressor(gzip.Name)) },
			"ping_pong_gzip":              func() { interop.DoPingPong(ctx, tc, grpc.UseCompressor(gzip.Name)) },
		} {
			t.Run(name, func(t *testing.T) {
				var wg sync.WaitGroup
				for range 4 { // several at once, on one connection
					wg.Go(run)
				}
				wg.Wait()
			})
		}
		_, err := tc.UnaryCall(metadata.AppendToOutgoingContext(ctx, "x-details", "1"), &testgrpc.SimpleRequest{})
		s := status.Convert(err)
		if s.Code() != codes.NotFound || s.Message() != "no such thing" || len(s.Details()) != 3 {
			t.Fatalf("%v with %v", err, s.Details())
		}
		for i, want := range []proto.Message{
			&errdetails.ErrorInfo{Reason: "WHY", Domain: "dapr.io", Metadata: map[string]string{"a": "b"}},
			&errdetails.ResourceInfo{ResourceType: "state", ResourceName: "x", Owner: "owner", Description: "gone"},
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "f", Description: "bad"}}},
		} {
			if got, ok := s.Details()[i].(proto.Message); !ok || !proto.Equal(got, want) {
				t.Errorf("detail %v, want %v", s.Details()[i], want)
			}
		}
		bomb := &testgrpc.SimpleRequest{Payload: &testgrpc.Payload{Body: make([]byte, 9<<20)}}
		if _, err := tc.UnaryCall(ctx, bomb, grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("9 MiB as a few KiB of gzip: %v", err)
		}
	})
}

// Loam's client, with gRPC's own server.
func TestGRPCClient(t *testing.T) {
	upstream := serveGRPC(t, interop.NewTestServer(), orca.CallMetricsServerOption(nil))
	engines(t, func(t *testing.T, e *engine) {
		client := &loamgrpc.Client{Target: http2.NewClient(upstream, http2.ClientConfig{Hub: e.hub})}
		do := func(fn func(req *loam.Request)) {
			t.Helper()
			done := make(chan struct{})
			e.Go(func(task loam.Task) {
				defer close(done)
				req := new(loam.Request)
				req.Begin(task)
				defer req.End()
				fn(req)
			})
			select {
			case <-done:
			case <-time.After(30 * time.Second):
				t.Fatal("it does not end")
			}
		}
		const unary, double = "/grpc.testing.TestService/UnaryCall", "/grpc.testing.TestService/FullDuplexCall"
		do(func(req *loam.Request) {
			var out testgrpc.SimpleResponse
			var reply loamgrpc.Reply
			trailing := loamgrpc.EncodeBinary([]byte{0xab, 0xab, 0xab})
			req.Header.Add("x-grpc-test-echo-initial", "hello")
			req.Header.Add("x-grpc-test-echo-trailing-bin", trailing)
			in := &testgrpc.SimpleRequest{ResponseSize: 314159, Payload: &testgrpc.Payload{Body: make([]byte, 271828)}}
			if err := client.Call(req, unary, message{in}, message{&out}, &reply); err != nil || len(out.GetPayload().GetBody()) != 314159 {
				t.Errorf("%d bytes, %v", len(out.GetPayload().GetBody()), err)
			}
			back, err := loamgrpc.DecodeBinary(reply.Trailer.Get("x-grpc-test-echo-trailing-bin"))
			if err != nil || !bytes.Equal(back, []byte{0xab, 0xab, 0xab}) || reply.Header.Get("x-grpc-test-echo-initial") != "hello" {
				t.Errorf("%v, %v, %v", reply, back, err)
			}
		})
		do(func(req *loam.Request) {
			const words = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
			err := client.Call(req, unary, message{&testgrpc.SimpleRequest{ResponseStatus: &testgrpc.EchoStatus{Code: 5, Message: words}}}, message{&testgrpc.SimpleResponse{}}, nil)
			if s, ok := errors.AsType[*loamgrpc.Status](err); !ok || s.Code != loam.NotFound || s.Message != words {
				t.Errorf("%q", err)
			}
		})
		do(func(req *loam.Request) {
			req.SetDeadline(time.Now().Add(20 * time.Millisecond))
			cs := client.Open(req, double)
			defer cs.Close()
			if err := cs.Send(message{&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 1, IntervalUs: 500_000}}}}); err != nil {
				t.Error(err)
			}
			if err := cs.Recv(message{&testgrpc.StreamingOutputCallResponse{}}); loam.CodeOf(err) != loam.DeadlineExceeded {
				t.Error(err)
			}
		})
		do(func(req *loam.Request) {
			cs := client.Open(req, double)
			defer cs.Close()
			for _, size := range []int32{31415, 9, 2653, 58979, 1_000_000} {
				var out testgrpc.StreamingOutputCallResponse
				in := &testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: size}}, Payload: &testgrpc.Payload{Body: make([]byte, size)}}
				if err := errors.Join(cs.Send(message{in}), cs.Recv(message{&out})); err != nil || int32(len(out.GetPayload().GetBody())) != size {
					t.Errorf("%d: %v", size, err)
				}
			}
			cs.CloseSend()
			if err := cs.Recv(message{&testgrpc.StreamingOutputCallResponse{}}); err != io.EOF {
				t.Error(err)
			}
		})
		do(func(req *loam.Request) {
			cs := client.Open(req, "/grpc.testing.TestService/StreamingInputCall")
			defer cs.Close()
			for range 1000 {
				if err := cs.Send(message{&testgrpc.StreamingInputCallRequest{Payload: &testgrpc.Payload{Body: make([]byte, 1000)}}}); err != nil {
					t.Fatal(err)
				}
			}
			cs.CloseSend()
			var out testgrpc.StreamingInputCallResponse
			if err := cs.Recv(message{&out}); err != nil || out.GetAggregatedPayloadSize() != 1_000_000 {
				t.Errorf("%d, %v", out.GetAggregatedPayloadSize(), err)
			}
		})
		do(func(req *loam.Request) {
			err := client.Call(req, "/grpc.testing.TestService/None", message{&testgrpc.SimpleRequest{}}, message{&testgrpc.SimpleResponse{}}, nil)
			if loam.CodeOf(err) != loam.Unimplemented || !strings.Contains(err.Error(), "unknown method None") {
				t.Error(err)
			}
		})
	})
}
