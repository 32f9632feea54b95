//go:build daprd

package dapr

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/dapr"
	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/component/mdns"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/protocol/grpc"
)

// These tests hold the protocol between sidecars, and mdns, to Dapr's own daprd, whose binary $DAPRD names:
//
//	DAPRD=/path/to/daprd go test -tags daprd -run Daprd ./dialect/dapr

// daprd starts Dapr's sidecar for an app, and returns the addresses of its APIs.
func daprd(t *testing.T, id, app, protocol string) (httpAPI, grpcAPI string) {
	t.Helper()
	binary := os.Getenv("DAPRD")
	if binary == "" {
		t.Fatal("$DAPRD names no daprd: build it in bench/daprd")
	}
	var ports [5]string
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
		_ = l.Close() // it may be somebody else's by the time that daprd wants it; then the test says so
	}
	args := []string{
		"--app-id", id, "--app-protocol", protocol, "--dapr-http-port", ports[0], "--dapr-grpc-port", ports[1], "--dapr-internal-grpc-port", ports[2],
		"--metrics-port", ports[3], "--enable-mtls=false", "--max-body-size", "64Mi", "--log-level", "error", "--resources-path", t.TempDir(),
	}
	if app != "" {
		_, port, _ := net.SplitHostPort(app)
		args = append(args, "--app-port", port)
	}
	var output bytes.Buffer
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // daprd's status is its own business
		if t.Failed() {
			t.Logf("daprd of %s: %s", id, &output)
		}
	})
	httpAPI, grpcAPI = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1]
	waitFor(t, "daprd of "+id, func() error {
		res, err := client0.Get("http://" + httpAPI + "/v1.0/healthz/outbound")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode != 204 {
				err = fmt.Errorf("it answers %d", res.StatusCode)
			}
		}
		return err
	})
	return httpAPI, grpcAPI
}

func waitFor(t *testing.T, what string, ok func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		if err = ok(); err == nil {
			return
		}
	}
	t.Fatalf("waited in vain for %s: %v", what, err)
}

// address is this machine's as others reach it.
func address(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

// mixed is a sidecar of ours that is found by mdns.
func (f *fleet) mixed(id, app string, change func(*dialect.Options, *Settings)) *sidecar {
	f.t.Helper()
	r := mdns.New(mdns.Config{Log: f.log})
	names := invoke.NewNames(r, f.log)
	s := f.start(id, app, func(o *dialect.Options, s *Settings) {
		s.Invocation.Names = names
		if change != nil {
			change(o, s)
		}
	})
	f.t.Cleanup(func() {
		names.Close()
		if err := r.Close(); err != nil {
			f.t.Error(err)
		}
	})
	internal := f.listenOn("0.0.0.0:0", s.Internal())
	_, port, _ := net.SplitHostPort(internal)
	if err := r.Announce(f.t.Context(), id, net.JoinHostPort(address(f.t.(*testing.T)), port)); err != nil {
		f.t.Fatal(err)
	}
	return s
}

// TestDaprdHTTP: daprd calls an app behind Loam and the other way round, found by mdns.
func TestDaprdHTTP(t *testing.T) {
	f := newFleet(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/large" {
			mirror(w, r)
			return
		}
		if err := same(r.Body, 12<<20); err != nil {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, err.Error())
			return
		}
		_, _ = io.Copy(w, &letters{n: 12 << 20})
	})
	ours := f.mixed("loam-http", app(t, h), nil)
	theirs, _ := daprd(t, "daprd-http", app(t, h), "http")
	for name, base := range map[string]string{
		"from daprd": "http://" + theirs + "/v1.0/invoke/loam-http/method", "from loam": "http://" + ours.http + "/v1.0/invoke/daprd-http/method",
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range []struct{ method, path, body, want string }{
				{"POST", "/orders/1?x=1&y=a%20b", "hello", "/orders/1"}, {"GET", "/orders", "", "/orders"}, {"PUT", "/a/b%20c", strings.Repeat("x", 100<<10), "/a/b%20c"}, {"DELETE", "/x", "", "/x"},
			} {
				res, b := send(t, s.method, base+s.path, s.body, "X-Custom: yes", "Content-Type: text/x")
				var got mirrored
				if err := json.Unmarshal([]byte(b), &got); err != nil || res.StatusCode != 200 {
					t.Fatalf("%s %s: %d %.300s", s.method, s.path, res.StatusCode, b)
				}
				if got.Method != s.method || got.Path != s.want || got.Body != s.body || got.Header.Get("X-Custom") != "yes" || got.Header.Get("Content-Type") != "text/x" ||
					got.Header.Get("Dapr-Caller-App-Id") == "" || got.Header.Get("Dapr-Callee-App-Id") == "" || got.Header.Get("X-Forwarded-For") == "" {
					t.Errorf("%s %s: %+v", s.method, s.path, got)
				}
				if len(res.Header["X-Two"]) != 2 || res.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%v", res.Header)
				}
			}
			for _, status := range []string{"201", "404", "418", "503"} {
				if res, b := send(t, "POST", base+"/x", "{}", "X-Status: "+status); fmt.Sprint(res.StatusCode) != status || !strings.Contains(b, `"Path":"/x"`) {
					t.Errorf("%s became %d %s", status, res.StatusCode, b)
				}
			}
			for _, known := range []bool{true, false} {
				req, err := http.NewRequestWithContext(t.Context(), "POST", base+"/large", &letters{n: 12 << 20})
				if err != nil {
					t.Fatal(err)
				}
				if known {
					req.ContentLength = 12 << 20
				}
				res, err := client0.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				if err := same(res.Body, 12<<20); err != nil || res.StatusCode != 200 {
					t.Errorf("known %v: %d %v", known, res.StatusCode, err)
				}
				_ = res.Body.Close()
			}
		})
	}
	// The words of errors are the same; ours may say more.
	for _, path := range []string{"/v1.0/invoke/nobody-at-all/method/x", "/v1.0/invoke/a.b.c/method/x", "/v1.0/invoke/x", "/v1.0/invoke/SELF/method/a%23b"} {
		var status [2]int
		var said [2]struct{ ErrorCode, Message string }
		for i, c := range [2]struct{ api, id string }{{theirs, "daprd-http"}, {ours.http, "loam-http"}} {
			res, b := send(t, "GET", "http://"+c.api+strings.ReplaceAll(path, "SELF", c.id), "")
			if err := json.Unmarshal([]byte(strings.ReplaceAll(b, c.id, "SELF")), &said[i]); err != nil {
				t.Fatalf("%s: %s", path, b)
			}
			status[i] = res.StatusCode
		}
		if status[0] != status[1] || said[0].ErrorCode != said[1].ErrorCode || !strings.HasPrefix(said[1].Message, said[0].Message) {
			t.Errorf("%s:\ndaprd %d %+v\n loam %d %+v", path, status[0], said[0], status[1], said[1])
		}
	}
}

// TestDaprdGRPC: InvokeService, and calls that are carried unread, in a fleet of both.
func TestDaprdGRPC(t *testing.T) {
	f := newFleet(t)
	methods := map[string]grpc.Method{
		pb.MethodAppCallbackOnInvoke: grpc.Unary(func(c *grpc.Call, in *pb.InvokeRequest) (*pb.InvokeResponse, error) {
			c.AddHeader("got-x-y", c.Request().Header.Get("x-y"))
			if in.Method == "fail" {
				return nil, grpc.NewStatus(loam.FailedPrecondition, "not now")
			}
			return &pb.InvokeResponse{ContentType: in.ContentType, Data: &pb.Any{TypeUrl: in.Data.TypeUrl, Value: append([]byte(in.Method+" "), in.Data.Value...)}}, nil
		}),
		"/shop.Shop/Echo": grpc.Streaming(func(s *grpc.Stream) error {
			s.AddTrailer("x-tail", "t")
			for {
				var m grpc.Raw
				if err := s.Recv(&m); err == io.EOF {
					return grpc.NewStatus(loam.Aborted, "done")
				} else if err != nil {
					return err
				}
				m = bytes.ToUpper(m)
				if err := s.Send(&m); err != nil {
					return err
				}
			}
		}),
		pb.MethodAppCallbackListTopicSubscriptions: grpc.Unary(func(*grpc.Call, *pb.Empty) (*pb.ListTopicSubscriptionsResponse, error) {
			return &pb.ListTopicSubscriptionsResponse{}, nil
		}),
	}
	ourApp, theirApp := grpcApp(f, methods, nil), grpcApp(f, methods, nil)
	ours := f.mixed("loam-grpc", ourApp, func(o *dialect.Options, _ *Settings) { o.App.GRPC = true })
	_, theirs := daprd(t, "daprd-grpc", theirApp, "grpc")
	for callee, api := range map[string]string{"loam-grpc": theirs, "daprd-grpc": ours.grpc} {
		t.Run("to "+callee, func(t *testing.T) {
			client, end := f.client(api)
			defer end()
			f.task(func(task loam.Task) {
				var req loam.Request
				req.Begin(task)
				req.Header = loam.Header{{Name: "x-y", Value: "z"}}
				var out pb.InvokeResponse
				var reply grpc.Reply
				m := &pb.InvokeRequest{Method: "m", ContentType: "text/x", Data: &pb.Any{TypeUrl: "type.googleapis.com/x.Y", Value: []byte("data")}}
				if err := client.Call(&req, pathInvokeService, &pb.InvokeServiceRequest{Id: callee, Message: m}, &out, &reply); err != nil ||
					string(out.Data.Value) != "m data" || out.Data.TypeUrl != "type.googleapis.com/x.Y" || reply.Header.Get("got-x-y") != "z" {
					t.Errorf("%+v %v %v", out, reply, err)
				}
				m = &pb.InvokeRequest{Method: "fail", Data: &pb.Any{}}
				err := client.Call(&req, pathInvokeService, &pb.InvokeServiceRequest{Id: callee, Message: m}, &out, nil)
				if s, ok := errors.AsType[*grpc.Status](err); !ok || s.Code != loam.FailedPrecondition || s.Message != "not now" {
					t.Errorf("%v", err)
				}
				req = loam.Request{}
				req.Begin(task)
				req.Header = loam.Header{{Name: "dapr-app-id", Value: callee}}
				s := client.Open(&req, "/shop.Shop/Echo")
				defer s.Close()
				for _, size := range []int{1, 100, 1 << 20} {
					m, got := grpc.Raw(bytes.Repeat([]byte("a"), size)), grpc.Raw(nil)
					if err := errors.Join(s.Send(&m), s.Recv(&got)); err != nil || !bytes.Equal(got, bytes.ToUpper(m)) {
						t.Errorf("%d bytes: %d %v", size, len(got), err)
						return
					}
				}
				s.CloseSend()
				var got grpc.Raw
				err = s.Recv(&got)
				if st, ok := errors.AsType[*grpc.Status](err); !ok || st.Code != loam.Aborted || st.Message != "done" || s.Trailer().Get("x-tail") != "t" {
					t.Errorf("%v %v", err, s.Trailer())
				}
			})
		})
	}
}
