package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/status"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/http2"
)

// behind is gRPC's own interop server.
func behind(t *testing.T) string {
	t.Helper()
	return serveGRPC(t, interop.NewTestServer(), orca.CallMetricsServerOption(nil))
}

func serveGRPC(t *testing.T, service testgrpc.TestServiceServer, o ...grpc.ServerOption) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(o...)
	testgrpc.RegisterTestServiceServer(s, service)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return ln.Addr().String()
}

func connect(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// gRPC's interop cases pass through us. A case that fails ends the process with what went wrong.
func TestInterop(t *testing.T) {
	upstream := behind(t)
	engines(t, func(t *testing.T, e *engine) {
		conn := connect(t, e.serve(t, http2.NewClient(upstream, http2.ClientConfig{Hub: e.hub})))
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
			// cancel_after_begin ends the process where a busy machine lets the answer overtake the cancel: see TestCancel.
			// pick_first_unary and those of load reports and credentials speak of the client's own balancer and keys.
			"unimplemented_service": func() { interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn)) },
		} {
			t.Run(name, func(t *testing.T) {
				var wg sync.WaitGroup
				for range 4 { // several at once, on one connection
					wg.Go(run)
				}
				wg.Wait()
			})
		}
	})
}

// waiter is a service whose streams last until they are canceled.
type waiter struct {
	testgrpc.UnimplementedTestServiceServer
	ended chan error
}

func (w *waiter) StreamingInputCall(stream testgrpc.TestService_StreamingInputCallServer) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	<-stream.Context().Done()
	w.ended <- stream.Context().Err()
	return stream.Context().Err()
}

// A call that its client cancels is canceled at the server behind us, although no task waits for it here.
func TestCancel(t *testing.T) {
	w := &waiter{ended: make(chan error, 1)}
	upstream := serveGRPC(t, w)
	engines(t, func(t *testing.T, e *engine) {
		tc := testgrpc.NewTestServiceClient(connect(t, e.serve(t, http2.NewClient(upstream, http2.ClientConfig{Hub: e.hub}))))
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := tc.StreamingInputCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Header(); err != nil { // it is relayed now
			t.Fatal(err)
		}
		cancel()
		if err := stream.RecvMsg(&testgrpc.Empty{}); status.Code(err) != codes.Canceled {
			t.Errorf("the client sees %v", err)
		}
		if err := <-w.ended; err != context.Canceled {
			t.Errorf("the server sees %v", err)
		}
	})
}

// What a target's errors look like to gRPC's client.
func TestErrors(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		var failing atomic.Uint32
		tc := testgrpc.NewTestServiceClient(connect(t, e.serve(t, loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
			return nil, &loam.Error{Code: loam.Code(failing.Load()), Op: "target", Err: errors.New("50% größer"), Hint: "do this"}
		}))))
		for code := loam.Canceled; code <= loam.Unauthenticated; code++ {
			failing.Store(uint32(code))
			_, err := tc.EmptyCall(t.Context(), &testgrpc.Empty{})
			s, _ := status.FromError(err)
			if s.Code() != codes.Code(code) || !strings.HasSuffix(s.Message(), ": 50% größer (do this)") {
				t.Errorf("%v: %v", code, err)
			}
		}
	})
}

// A server that is not there, and one that goes away in the middle of a stream.
func TestUpstreamGone(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		testgrpc.RegisterTestServiceServer(s, interop.NewTestServer())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.Serve(ln)
		}()
		tc := testgrpc.NewTestServiceClient(connect(t, e.serve(t, http2.NewClient(ln.Addr().String(), http2.ClientConfig{Hub: e.hub}))))
		stream, err := tc.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 10}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		s.Stop()
		<-done
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("the stream ends with %v", err)
		}
		if _, err := tc.EmptyCall(t.Context(), &testgrpc.Empty{}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "start the program") {
			t.Errorf("a call ends with %v", err)
		}
	})
}

// A deadline binds a stream that is relayed without a task.
func TestDeadlineOfRelayedStream(t *testing.T) {
	upstream := behind(t)
	engines(t, func(t *testing.T, e *engine) {
		forward := http2.NewClient(upstream, http2.ClientConfig{Hub: e.hub})
		tc := testgrpc.NewTestServiceClient(connect(t, e.serve(t, loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			req.SetDeadline(time.Now().Add(300 * time.Millisecond)) // as a route's timeout does: the client knows nothing of it
			return forward.Serve(req)
		}))))
		stream, err := tc.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 10}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("the stream ends with %v", err)
		}
	})
}

// Streams that carry much both ways at once, more than all windows together hold.
func TestBulk(t *testing.T) {
	upstream := behind(t)
	engines(t, func(t *testing.T, e *engine) {
		tc := testgrpc.NewTestServiceClient(connect(t, e.serve(t, http2.NewClient(upstream, http2.ClientConfig{Hub: e.hub}))))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				stream, err := tc.FullDuplexCall(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				const rounds, size = 20, 300_000
				wg.Go(func() {
					for range rounds {
						if err := stream.Send(&testgrpc.StreamingOutputCallRequest{
							ResponseParameters: []*testgrpc.ResponseParameters{{Size: size}}, Payload: &testgrpc.Payload{Body: make([]byte, size)},
						}); err != nil {
							t.Error(err)
							return
						}
					}
					_ = stream.CloseSend() // should it fail, Recv says so
				})
				n := 0
				for {
					m, err := stream.Recv()
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Error(err)
						return
					}
					n += len(m.Payload.Body)
				}
				if n != rounds*size {
					t.Errorf("%d bytes came back", n)
				}
			})
		}
		wg.Wait()
	})
}
