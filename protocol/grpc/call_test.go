package grpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text is a message that is a string.
type text struct{ s string }

func (m *text) AppendProto(b []byte) []byte { return append(b, m.s...) }
func (m *text) ParseProto(b []byte) error {
	if string(b) == "unreadable" {
		return errors.New("no text")
	}
	m.s = string(b)
	return nil
}

// methods are what is called here.
var methods = map[string]grpc.Method{
	"/test.Echo/Say": grpc.Unary(func(c *grpc.Call, in *text) (*text, error) {
		for _, f := range c.Request().Header {
			if strings.HasPrefix(f.Name, "x-say-") {
				c.AddHeader(f.Name, f.Value)
				c.AddTrailer(f.Name+"-trailer", f.Value)
			}
		}
		switch in.s {
		case "fail":
			return nil, grpc.NewStatus(loam.NotFound, "nothing of 100%\nnamed ü", grpc.ErrorInfo("NONE", "dapr.io", map[string]string{"b": "2", "a": "1"}), grpc.ResourceInfo("state", "x", "", "none"))
		case "op":
			return nil, &loam.Error{Code: loam.Aborted, Op: "state.Set", Err: errors.New("etag"), Hint: "try again"}
		case "secret":
			return nil, errors.New("secret")
		case "nothing":
			return nil, nil
		case "deadline":
			left := time.Until(c.Request().Deadline())
			return &text{fmt.Sprint(left > time.Minute && left <= time.Hour+time.Second)}, nil
		case "wait":
			return nil, c.Task().Park(c.Request().Deadline())
		}
		return in, nil
	}),
	"/test.Echo/Chat": grpc.Streaming(func(s *grpc.Stream) error {
		s.AddHeader("x-chat", "yes")
		for n := 0; ; n++ {
			var in text
			err := s.Recv(&in)
			switch {
			case errors.Is(err, io.EOF):
				s.AddTrailer("x-count", fmt.Sprint(n))
				return nil
			case err != nil:
				return err
			case in.s == "fail":
				return grpc.NewStatus(loam.DataLoss, "as asked")
			case in.s == "flood":
				for range 1000 {
					if err := s.Send(&text{strings.Repeat("x", 1000)}); err != nil {
						return err
					}
				}
				continue
			}
			if err := s.Send(&in); err != nil {
				return err
			}
		}
	}),
}

func newServer() *grpc.Server { return &grpc.Server{Methods: methods, MaxMessage: 1 << 20} }

// frame is a body of memory.
type frame struct {
	b    []byte
	read int
}

func (f *frame) Read(p []byte) (int, error) {
	n := copy(p, f.b[f.read:])
	if f.read += n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (*frame) Close() error { return nil }

type world struct {
	loop.Engine
	hub    *http2.Hub
	server string
	client *grpc.Client
}

// worlds runs a test over each engine, with a server of methods and a client of it.
func worlds(t *testing.T, test func(t *testing.T, w *world)) {
	for _, goroutines := range []bool{true, false} {
		t.Run(map[bool]string{true: "goroutines", false: "loops"}[goroutines], func(t *testing.T) { test(t, newWorld(t, goroutines)) })
	}
}

func newWorld(t testing.TB, goroutines bool) *world { return newWorldOf(t, goroutines, newServer()) }

func newWorldOf(t testing.TB, goroutines bool, server *grpc.Server) *world {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	e := loop.New(loop.Options{Goroutines: goroutines, Log: log, Loops: 1})
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{Engine: e, hub: http2.NewHub(e)}
	s := http2.NewServer(server, http2.ServerConfig{Options: protocol.Options{Log: log}, Hub: w.hub})
	for _, network := range []string{"tcp", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = t.TempDir() + "/s"
		}
		ln, err := e.Listen(context.Background(), network, address, loop.ListenOptions{Open: func(c loop.Conn) loop.Session { return s.Session(c, nil, nil, nil) }})
		if err != nil {
			t.Fatal(err)
		}
		if network == "tcp" {
			w.server = ln.Addr().String()
			continue
		}
		w.client = &grpc.Client{Target: http2.NewClient(address, http2.ClientConfig{Hub: w.hub, Network: network})}
	}
	return w
}

// do runs fn in a task of the engine, with a request of its own.
func (w *world) do(t testing.TB, fn func(req *loam.Request)) {
	t.Helper()
	done := make(chan struct{})
	w.Go(func(task loam.Task) {
		defer close(done)
		req := new(loam.Request)
		req.Begin(task)
		defer req.End()
		fn(req)
	})
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("it does not end")
	}
}

func TestCall(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		call := func(in string, change func(*loam.Request)) (out text, reply grpc.Reply, err error) {
			w.do(t, func(req *loam.Request) {
				if change != nil {
					change(req)
				}
				err = w.client.Call(req, "/test.Echo/Say", &text{in}, &out, &reply)
			})
			return out, reply, err
		}
		for _, s := range []string{"", "hello", strings.Repeat("x", 2000), strings.Repeat("y", 20_000), strings.Repeat("z", 1<<20)} {
			out, reply, err := call(s, func(req *loam.Request) { req.Header.Add("x-say-a", "1") })
			if err != nil || out.s != s {
				t.Errorf("%d bytes came back as %d: %v", len(s), len(out.s), err)
			}
			if reply.Header.Get("x-say-a") != "1" || reply.Trailer.Get("x-say-a-trailer") != "1" {
				t.Errorf("metadata %v, %v", reply.Header, reply.Trailer)
			}
		}
		_, reply, err := call("fail", func(req *loam.Request) { req.Header.Add("x-say-a", "1") })
		s, ok := errors.AsType[*grpc.Status](err)
		if !ok || s.Code != loam.NotFound || s.Message != "nothing of 100%\nnamed ü" || len(s.Details) != 2 || s.Details[0].Type != "google.rpc.ErrorInfo" ||
			!bytes.Equal(s.Details[0].Value, grpc.ErrorInfo("NONE", "dapr.io", map[string]string{"a": "1", "b": "2"}).Value) || reply.Header.Get("x-say-a") != "1" {
			t.Errorf("%#v, %v", err, reply)
		}
		for in, want := range map[string]grpc.Status{
			"op":                       {Code: loam.Aborted, Message: "state.Set: aborted: etag (try again)"},
			"secret":                   {Code: loam.Unknown, Message: "unknown"},
			"nothing":                  {Code: loam.Internal, Message: "grpc: internal: the handler of /test.Echo/Say answered nothing"},
			"unreadable":               {Code: loam.Internal, Message: "grpc: internal: a message cannot be read\nno text"},
			strings.Repeat("x", 1<<21): {Code: loam.ResourceExhausted, Message: "grpc: resource exhausted: a message of 2097152 bytes, where at most 1048576 are taken"},
		} {
			if _, _, err := call(in, nil); loam.CodeOf(err) != want.Code || !strings.Contains(err.Error(), want.Message) {
				t.Errorf("%.10s: %v, want %v", in, err, &want)
			}
		}
		if out, _, err := call("deadline", func(req *loam.Request) { req.SetDeadline(time.Now().Add(time.Hour)) }); err != nil || out.s != "true" {
			t.Errorf("deadline: %q, %v", out.s, err)
		}
		if _, _, err := call("wait", func(req *loam.Request) { req.SetDeadline(time.Now().Add(20 * time.Millisecond)) }); loam.CodeOf(err) != loam.DeadlineExceeded {
			t.Errorf("wait: %v", err)
		}
		for method, want := range map[string]string{"/test.Echo/None": "unknown method None for service test.Echo", "/none/None": "unknown service none"} {
			w.do(t, func(req *loam.Request) {
				err := w.client.Call(req, method, &text{}, &text{}, nil)
				if s, ok := errors.AsType[*grpc.Status](err); !ok || s.Code != loam.Unimplemented || s.Message != want {
					t.Errorf("%s: %v", method, err)
				}
			})
		}
	})
}

// Who watches a method is told how its calls ended, be the status in a head or an error; a stream is not told of.
func TestWatched(t *testing.T) {
	codes := make(chan loam.Code, 10)
	told := func(_ *loam.Request, code loam.Code, took time.Duration) {
		if took < 0 {
			t.Errorf("it took %v", took)
		}
		codes <- code
	}
	server := &grpc.Server{Methods: map[string]grpc.Method{}}
	for name, m := range methods {
		server.Methods[name] = grpc.Watched(m, told)
	}
	w := newWorldOf(t, false, server)
	for _, c := range []struct {
		in       string
		metadata bool // with it, the error comes in a head
		want     loam.Code
	}{{"hello", false, loam.OK}, {"fail", false, loam.NotFound}, {"fail", true, loam.NotFound}, {"secret", true, loam.Unknown}, {"unreadable", false, loam.Internal}} {
		w.do(t, func(req *loam.Request) {
			if c.metadata {
				req.Header.Add("x-say-a", "1")
			}
			if err := w.client.Call(req, "/test.Echo/Say", &text{c.in}, &text{}, nil); loam.CodeOf(err) != c.want {
				t.Errorf("%s: %v", c.in, err)
			}
		})
		if got := <-codes; got != c.want {
			t.Errorf("%s: %v, told %v", c.in, c.want, got)
		}
	}
	w.do(t, func(req *loam.Request) { _ = w.client.Call(req, "/test.Echo/Chat", &text{"fail"}, &text{}, nil) })
	if len(codes) > 0 {
		t.Errorf("a stream was told of: %v", <-codes)
	}
}

func TestStream(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.do(t, func(req *loam.Request) {
			cs := w.client.Open(req, "/test.Echo/Chat")
			defer cs.Close()
			for _, s := range []string{"", "one", strings.Repeat("x", 300_000)} {
				var out text
				if err := errors.Join(cs.Send(&text{s}), cs.Recv(&out)); err != nil || out.s != s {
					t.Errorf("%.9q came back as %.9q: %v", s, out.s, err)
				}
			}
			if h, err := cs.Header(); err != nil || h.Get("x-chat") != "yes" {
				t.Errorf("header %v, %v", h, err)
			}
			cs.CloseSend()
			if err := cs.Recv(&text{}); !errors.Is(err, io.EOF) || cs.Trailer().Get("x-count") != "3" {
				t.Errorf("%v, trailer %v", err, cs.Trailer())
			}
		})
		w.do(t, func(req *loam.Request) { // more than all windows hold
			cs := w.client.Open(req, "/test.Echo/Chat")
			defer cs.Close()
			if err := cs.Post(&text{"flood"}); err != nil {
				t.Error(err)
			}
			cs.CloseSend()
			n := 0
			for {
				var out text
				if err := cs.Recv(&out); err != nil {
					if !errors.Is(err, io.EOF) {
						t.Error(err)
					}
					break
				}
				n += len(out.s)
			}
			if n != 1_000_000 {
				t.Errorf("%d bytes", n)
			}
		})
		w.do(t, func(req *loam.Request) { // the server ends it before its client has sent all
			cs := w.client.Open(req, "/test.Echo/Chat")
			defer cs.Close()
			err := cs.Send(&text{"fail"})
			for err == nil {
				err = cs.Send(&text{strings.Repeat("x", 1000)})
			}
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			if s, ok := errors.AsType[*grpc.Status](cs.Recv(&text{})); !ok || s.Code != loam.DataLoss || s.Message != "as asked" {
				t.Error(s)
			}
			if err := cs.Send(&text{}); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
		w.do(t, func(req *loam.Request) { // nobody waits for the end
			cs := w.client.Open(req, "/test.Echo/Chat")
			if err := errors.Join(cs.Send(&text{"flood"}), cs.Recv(&text{})); err != nil {
				t.Error(err)
			}
			cs.Close()
			if err := cs.Send(&text{}); loam.CodeOf(err) != loam.Canceled {
				t.Error(err)
			}
		})
		w.do(t, func(req *loam.Request) {
			cs := w.client.Open(req, "/test.Echo/None")
			defer cs.Close()
			if err := cs.Recv(&text{}); loam.CodeOf(err) != loam.Unimplemented {
				t.Error(err)
			}
		})
	})
}

// A stream may end well without a message.
func TestEmptyStream(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.do(t, func(req *loam.Request) {
			for range 3 { // the request can be used again after it
				cs := w.client.Open(req, "/test.Echo/Chat")
				cs.CloseSend()
				if err := cs.Recv(&text{}); !errors.Is(err, io.EOF) {
					t.Errorf("it ends with %v", err)
				}
				if got := cs.Trailer().Get("x-count"); got != "0" {
					t.Errorf("its trailer says %q", got)
				}
				cs.Close()
				req.Header = req.Header[:0]
			}
		})
	})
}
