package proxywasm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/internal/build"
	"github.com/loam-run/loam/wasm"
	"go.uber.org/goleak"
)

// filter is testdata/guest, built once for all tests.
var filter []byte

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "loam-proxywasm-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		out := filepath.Join(dir, "guest.wasm")
		if err := build.Go(context.Background(), build.Job{Name: "guest", Dir: "testdata/guest", Out: out, Wasm: true}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if filter, err = os.ReadFile(out); err != nil {
			panic(err)
		}
		if host, err = wasm.NewHost(wasm.Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}); err != nil {
			panic(err)
		}
		code := m.Run()
		if err := errors.Join(host.Close(), goleak.Find()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return code
	}())
}

var (
	host *wasm.Host
	log  buffer
)

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func compile(t testing.TB, binary []byte, c wasm.Config) *wasm.Module {
	t.Helper()
	c.ABI = "proxy-wasm"
	m, err := host.Compile(t.Context(), "guest", binary, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// An answer is a response that was read to its end.
type answer struct {
	status          int
	header, trailer loam.Header
	body            string
}

func send(t testing.TB, target loam.Target, method, uri, body string, header ...string) (*answer, error) {
	t.Helper()
	r := loam.NewRequest(t.Context())
	defer r.Release()
	r.Method, r.Scheme, r.Authority, r.ID, r.Remote = method, "http", "shop.example", "r-1", "192.0.2.7:4711"
	r.Path, r.RawQuery, _ = strings.Cut(uri, "?")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	if body != "" {
		r.Body, r.Length = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	resp, err := target.Serve(r)
	if err != nil {
		return nil, err
	}
	a := &answer{status: resp.Status, header: append(loam.Header(nil), resp.Header...)}
	if resp.Body != nil {
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		a.body = string(b)
	}
	a.trailer = append(loam.Header(nil), resp.Trailer...)
	return a, resp.Close()
}

func TestFunction(t *testing.T) {
	m := compile(t, filter, wasm.Config{Settings: []byte("blue")})
	if s := m.State(); !s.Image {
		t.Errorf("there is no image: %s", s.Reason)
	}
	large := strings.Repeat("0123456789", 5_000)
	for _, c := range []struct {
		name, method, uri, body, do string
		status                      int
		want, header                string
	}{
		{"local response", "GET", "/local", "", "", 418, "short and stout root 1 status 1, vm 1 0, plugin 1 4blueblue", "[{x-a 1} {x-a 2}]"},
		{"headers", "GET", "/headers?a=%20", "", "x", 200, ":method=GET :scheme=http :authority=shop.example :path=/headers?a=%20 x-do=x end 1 1", "[]"},
		{"headers before a body", "POST", "/headers", "body", "", 200, ":method=POST :scheme=http :authority=shop.example :path=/headers x-do= end 0 1", "[]"},
		{"body", "POST", "/", large, "echo", 200, large + " end 1 1", "[]"},
		{"a response of its own", "GET", "/type", "", "", 203, "with a type", "[{content-type text/x-test}]"},
		{"empty on purpose", "GET", "/empty", "", "", 200, "", "[]"},
		{"log", "GET", "/log", "", "", 200, "0000002", "[]"},
		{"properties", "POST", "/property?a=b", "body", "x", 200, `request path: "/property?a=b"
request url_path: "/property"
request query: "a=b"
request host: "shop.example"
request scheme: "http"
request method: "POST"
request id: "r-1"
request size: "\x04\x00\x00\x00\x00\x00\x00\x00"
request headers x-do: "x"
request nothing: "status 1"
source address: "192.0.2.7:4711"
source port: "g\x12\x00\x00\x00\x00\x00\x00"
set: 0
response code: "\xc8\x00\x00\x00\x00\x00\x00\x00"
plugin_name: "guest"
own: "mine"
`, "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 {
				a, err := send(t, m, c.method, c.uri, c.body, "X-Do", c.do)
				if err != nil {
					t.Fatal(err)
				}
				if a.status != c.status || a.body != c.want || fmt.Sprint(a.header) != c.header {
					t.Errorf("%d %v\n%.2000s\nwant\n%.2000s", a.status, a.header, a.body, c.want)
				}
			}
		})
	}
	s := log.String()
	for _, want := range []string{
		"level=INFO msg=configured function=guest\n", "level=INFO msg=\"done 1 418 2 2 2\" function=guest request=r-1\n",
		`level=DEBUG msg="level 1" function=guest request=r-1`, `level=WARN msg="level 3" function=guest request=r-1`, `level=ERROR msg="level 5" function=guest request=r-1`,
	} {
		if !strings.Contains(s, want) {
			t.Errorf("%q is not in\n%.3000s", want, s)
		}
	}
}

// Where there is no answer, that is an error with a reason; nothing is an empty 200.
func TestNoAnswer(t *testing.T) {
	m := compile(t, filter, wasm.Config{Timeout: time.Minute})
	for _, c := range []struct {
		path, want string
		code       loam.Code
	}{
		{"/nothing", "there is nothing behind it", loam.NotFound},
		{"/refused", "there is nothing behind it", loam.NotFound},
		{"/pause", "paused in proxy_on_request_headers, and nothing is under way", loam.Internal},
		{"/close", "closed the stream", loam.Unavailable},
		{"/trap", "trap: unreachable", loam.Internal},
	} {
		_, err := send(t, m, "GET", c.path, "")
		if loam.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "r-1") {
			t.Errorf("%s: %v", c.path, err)
		}
	}
	m = compile(t, filter, wasm.Config{Timeout: 300 * time.Millisecond})
	if _, err := send(t, m, "GET", "/loop", ""); loam.CodeOf(err) != loam.DeadlineExceeded {
		t.Error(err)
	}
	if _, err := host.Compile(t.Context(), "guest", filter, wasm.Config{ABI: "proxy-wasm", Settings: []byte("refuse")}); loam.CodeOf(err) != loam.InvalidArgument ||
		!strings.Contains(err.Error(), "proxy_on_configure refused") {
		t.Error(err)
	}
	for _, c := range []struct{ exports, want string }{
		{"", "neither proxy_on_memory_allocate nor malloc"},
		{"malloc", "exports malloc with other parameters"}, // () -> ()
	} {
		if _, err := host.Compile(t.Context(), "guest", exporting(c.exports), wasm.Config{ABI: "proxy-wasm"}); loam.CodeOf(err) != loam.InvalidArgument || !strings.Contains(err.Error(), c.want) {
			t.Error(err)
		}
	}
}

// exporting is a module with a memory and a function () -> ().
func exporting(name string) []byte {
	b := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x05\x03\x01\x00\x01")
	exports := []byte("\x02\x06memory\x02\x00" + string(rune(len(name))) + name + "\x00\x00")
	b = append(append(b, 7, byte(len(exports))), exports...)
	return append(b, "\x0a\x04\x01\x02\x00\x0b"...)
}

func TestStatuses(t *testing.T) {
	m := compile(t, filter, wasm.Config{})
	a, err := send(t, m, "GET", "/statuses", "")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(a.body, ", ")
	slices.Sort(got)
	want := `authority 2, beyond a body 2, call 2, call data 0, call's buffer 1, close response 2, context 0, continue nothing 2, continue tcp 12, done 1, foreign 1, grpc map 2, level 0, local 101 2, local header 2, method 2, metric 12, much call data 10, name 2, no buffer 2, no context 2, no key 1, no map 2, no status 2, pairs 2, path 2, pseudo 2, root 0, scheme 2, settings 2, shared data 12, splitting 2, status 101 2, tcp buffer 1, tick 12, tick off 0, time 0`
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
}

// A closer counts.
type closer struct {
	io.Reader
	closed *int
}

func (c closer) Close() error { *c.closed++; return nil }

func TestFilter(t *testing.T) {
	var got string
	closed := 0
	behind := loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
		b := []byte(nil)
		if r.Body != nil {
			b, _ = io.ReadAll(r.Body)
		}
		if int(r.Length) != len(b) {
			t.Errorf("length %d, %d bytes", r.Length, len(b))
		}
		got = fmt.Sprint(r.Method, " ", r.Authority, " ", r.Path, " ", r.RawQuery, " ", r.Header, " ", string(b))
		resp := &loam.Response{Status: 206, Length: -1, Body: closer{strings.NewReader("from behind"), &closed}}
		resp.Header.Add("X-Behind", "yes")
		if r.Path == "/trailers" {
			resp.Trailer.Add("X-End", "here")
		}
		return resp, nil
	})
	m := compile(t, filter, wasm.Config{Next: behind})
	for _, c := range []struct {
		name, method, uri, body, do string
		got                         string
		status                      int
		want, header, trailer       string
	}{
		{"untouched", "POST", "/a?b=c", "body", "", "POST shop.example /a b=c [{X-Do } {X-Secret s}] body", 206, "from behind", "[{x-behind yes} {x-status 206}]", "[]"},
		{"the request changed", "POST", "/a?b=c", "body", "request", "PUT shop.example /other b=c [{x-do request} {x-added by the guest}] before Body after", 206, "from behind",
			"[{x-behind yes} {x-status 206}]", "[]"},
		{"the response changed", "GET", "/a", "", "write", "GET shop.example /a  [{X-Do write} {X-Secret s}] ", 203, "FROM BEHIND!", "[{x-behind yes} {x-status 206}]", "[]"},
		{"trailers", "GET", "/trailers", "", "", "GET shop.example /trailers  [{X-Do } {X-Secret s}] ", 206, "from behind", "[{x-behind yes} {x-status 206}]", "[{x-end here} {x-trailers 1}]"},
		{"denied when it was answered", "GET", "/a", "", "deny", "GET shop.example /a  [{X-Do deny} {X-Secret s}] ", 403, "no", "[]", "[]"},
		{"answered before", "GET", "/local", "", "", "", 418, "short and stout root 1 status 1, vm 1 0, plugin 1 0", "[{x-a 1} {x-a 2}]", "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			closed, got = 0, ""
			a, err := send(t, m, c.method, c.uri, c.body, "X-Do", c.do, "X-Secret", "s")
			if err != nil {
				t.Fatal(err)
			}
			if got != c.got {
				t.Errorf("behind got\n%s\nwant\n%s", got, c.got)
			}
			if a.status != c.status || a.body != c.want || fmt.Sprint(a.header) != c.header || fmt.Sprint(a.trailer) != c.trailer {
				t.Errorf("%d %q %v %v", a.status, a.body, a.header, a.trailer)
			}
			if c.got != "" && closed != 1 {
				t.Errorf("the response from behind was closed %d times", closed)
			}
		})
	}
	closed = 0
	if _, err := send(t, m, "GET", "/a", "", "X-Do", "trap at the end"); loam.CodeOf(err) != loam.Internal || closed != 1 {
		t.Errorf("%v, closed %d times", err, closed)
	}
	failed := loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
		return nil, loam.Errorf(loam.Unavailable, "behind", "gone")
	})
	if _, err := send(t, compile(t, filter, wasm.Config{Next: failed}), "GET", "/a", ""); loam.CodeOf(err) != loam.Unavailable {
		t.Error(err)
	}
}

// capabilities are a store, one function and the network, as the guest's host has them.
func capabilities(sent *[]string) loam.Methods {
	return loam.Methods{
		"state.Get": func(_ context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.StateGetRequest
			if err := req.ParseProto(in); err != nil {
				return nil, err
			}
			if err := caller.Check("state", req.Component, req.Keys[0], false); err != nil {
				return nil, err
			}
			item := api.StateItem{Key: req.Keys[0]}
			if item.Key == "book1" {
				item.Value, item.Etag = []byte("100"), "1"
			}
			return (&api.StateGetResponse{Items: []api.StateItem{item}}).AppendProto(nil), nil
		},
		"invoke.Call": func(_ context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.InvokeCallRequest
			if err := req.ParseProto(in); err != nil {
				return nil, err
			}
			if err := caller.Check("invoke", "default", req.Target, true); err != nil {
				return nil, err
			}
			*sent = append(*sent, fmt.Sprintf("%s %s %s %s %v", req.Target, req.Method, req.Path, req.Body, req.Headers))
			status := uint32(200)
			if string(req.Body) == "fail" {
				status = 503
			}
			return (&api.InvokeCallResponse{Status: status, Body: []byte("100")}).AppendProto(nil), nil
		},
		"http.Send": func(_ context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.HttpSendRequest
			if err := req.ParseProto(in); err != nil {
				return nil, err
			}
			*sent = append(*sent, fmt.Sprintf("%s %s %s %v %d", req.Method, req.Url, req.Body, req.Headers, req.TimeoutMs))
			if strings.Contains(req.Url, "gone") {
				return nil, loam.Errorf(loam.Unavailable, "http.Send", "nobody is there")
			}
			return (&api.HttpSendResponse{Status: 201, Headers: []api.Header{{Name: "X-Answer", Value: "42"}}, Body: []byte("answer")}).AppendProto(nil), nil
		},
	}
}

func caller(grants ...loam.Grant) *loam.Caller { return &loam.Caller{Name: "guest", Grants: grants} }

func TestHTTPCall(t *testing.T) {
	var sent []string
	next := loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
		return loam.NewResponse(200, "", []byte("behind, "+r.Header.Get("x-called"))), nil
	})
	m := compile(t, filter, wasm.Config{Methods: capabilities(&sent), Caller: caller(), Next: next})
	for _, c := range []struct{ name, query, do, want, sent string }{
		{"answered by it", "cluster", "", "2 201 42 answer", "[GET http://upstream.example/x?y=z  [{x-from guest}] 1000]"},
		{"an address", "https://other.example:8443/", "", "2 201 42 answer", "[GET https://other.example:8443/x?y=z  [{x-from guest}] 1000]"},
		{"resumed after it", "cluster", "resume", "behind, 2 201 42 answer", "[GET http://upstream.example/x?y=z  [{x-from guest}] 1000]"},
		{"not waited for", "cluster", "go on", "behind, ", "[GET http://upstream.example/x?y=z  [{x-from guest}] 1000]"},
		{"another one", "cluster", "again", "2 201 42 answer", "[GET http://upstream.example/x?y=z  [{x-from guest}] 1000 POST http://second.example/ more [{x-from guest}] 1000]"},
		{"failed", "http://gone.example", "", "0 0 status 2 ", "[GET http://gone.example/x?y=z  [{x-from guest}] 1000]"},
	} {
		sent = nil
		a, err := send(t, m, "GET", "/call?"+c.query, "", "X-Do", c.do)
		if err != nil || a.status != 200 || a.body != c.want || fmt.Sprint(sent) != c.sent {
			t.Errorf("%s: %v %v\n%v", c.name, a, err, sent)
		}
	}
	if !strings.Contains(log.String(), "called 2 201 42 answer") {
		t.Error("an answer nobody waited for was not told")
	}
	if !strings.Contains(log.String(), "nobody is there") {
		t.Error("the log does not say why a call failed")
	}
}

// A capability call that failed is seen by the client, whatever the guest makes of its status.
func TestState(t *testing.T) {
	m := compile(t, filter, wasm.Config{Methods: capabilities(nil), Caller: caller(loam.Grant{Capability: "state", Component: "redis", Names: []string{"book*"}})})
	for _, c := range []struct {
		query, do, want string
		code            loam.Code
	}{
		{"book1", "", "100", loam.OK},
		{"book2", "", "", loam.OK}, // not there, and that is no error
		{"secret", "", "status 10", loam.OK},
		{"secret", "swallow", "", loam.PermissionDenied},
		{"secret", "pause", "", loam.PermissionDenied},
	} {
		a, err := send(t, m, "GET", "/state?"+c.query, "", "X-Do", c.do)
		if loam.CodeOf(err) != c.code || err == nil && (a.body != c.want || a.status != 200) {
			t.Errorf("%s %s: %v %v", c.query, c.do, a, err)
		}
		if err != nil && !strings.Contains(loam.HintOf(err), "spec.grants") {
			t.Errorf("hint %q", loam.HintOf(err))
		}
	}
	m = compile(t, filter, wasm.Config{})
	if _, err := send(t, m, "GET", "/state?a", "", "X-Do", "swallow"); loam.CodeOf(err) != loam.Unimplemented {
		t.Error(err)
	}
}

// Lying pointers, lengths and allocators get a status or trap; the next request finds everything in order.
func TestHostile(t *testing.T) {
	var sent []string
	m := compile(t, filter, wasm.Config{
		Isolation: wasm.IsolationShared, MaxResponse: 1 << 20, Timeout: time.Minute, Methods: capabilities(&sent),
		Caller: caller(loam.Grant{Capability: "state", Component: ""}, loam.Grant{Capability: "invoke", Component: "default"}),
	})
	const end = "4294967295"
	for query, want := range map[string]string{
		"proxy_log,2," + end + ",1":                            "6",
		"proxy_log,2,0," + end:                                 "6",
		"proxy_get_log_level," + end:                           "6",
		"proxy_get_current_time_nanoseconds,4294967290":        "6",
		"proxy_get_status,4096,4096," + end:                    "6",
		"proxy_get_status," + end + ",4096,4096":               "6",
		"proxy_get_configuration," + end + ",4096":             "6",
		"proxy_get_buffer_status,0," + end + ",4096":           "6",
		"proxy_get_buffer_status,0,4096," + end:                "6",
		"proxy_get_buffer_status," + end + ",4096,4096":        "2",
		"proxy_get_buffer_bytes,0,0,4," + end + ",4096":        "6",
		"proxy_get_buffer_bytes,0,0,4,4096," + end:             "6",
		"proxy_get_buffer_bytes,0,5,1,4096,4096":               "2",
		"proxy_get_buffer_bytes,0,1,4294967294,4096,4096":      "0", // to its end
		"proxy_get_buffer_bytes,0,4,4294967294,4096,4096":      "2", // more than there are numbers
		"proxy_set_buffer_bytes,1,0,0," + end + ",2":           "6",
		"proxy_set_buffer_bytes,1,0,0,0," + end:                "6",
		"proxy_set_buffer_bytes," + end + ",0,0,0,0":           "2",
		"proxy_set_buffer_bytes,8," + end + "," + end + ",0,0": "0",
		"proxy_get_header_map_size,0," + end:                   "6",
		"proxy_get_header_map_size," + end + ",4096":           "2",
		"proxy_get_header_map_pairs,0," + end + ",4096":        "6",
		"proxy_get_header_map_pairs,0,4096," + end:             "6",
		"proxy_set_header_map_pairs,0," + end + ",8":           "6",
		"proxy_set_header_map_pairs,0,0," + end:                "6",
		"proxy_get_header_map_value,0," + end + ",5,4096,4096": "6",
		"proxy_get_header_map_value,0,0," + end + ",4096,4096": "6",
		"proxy_add_header_map_value,2," + end + ",1,0,0":       "6",
		"proxy_add_header_map_value,2,0,0," + end + ",1":       "6",
		"proxy_add_header_map_value,2,0,0,0,0":                 "2",
		"proxy_replace_header_map_value,0,0," + end + ",0,0":   "6",
		"proxy_replace_header_map_value,0,0,1,0," + end:        "6",
		"proxy_remove_header_map_value,0," + end + ",1":        "6",
		"proxy_get_property," + end + ",4,4096,4096":           "6",
		"proxy_get_property,0," + end + ",4096,4096":           "6",
		"proxy_set_property," + end + ",4,0,0":                 "6",
		"proxy_set_property,4096,4,0," + end:                   "6",
		"proxy_set_property,4096,0,0,0":                        "1",
		"proxy_send_local_response,200," + end + ",1,0,0,0,0":  "6",
		"proxy_send_local_response,200,0,0,0," + end + ",0,0":  "6",
		"proxy_send_local_response,200,0,0,0,0," + end + ",9":  "6",
		"proxy_send_local_response," + end + ",0,0,0,0,0,0":    "2",
		"proxy_http_call," + end + ",1,0,0,0,0,0,0,0,4096":     "6",
		"proxy_http_call,0,0,0," + end + ",0,0,0,0,0,4096":     "6",
		"proxy_http_call,0,0,0,0,0," + end + ",0,0,0,4096":     "6",
		"proxy_http_call,0,0,0,0,0,0,0," + end + ",0,4096":     "6",
		"proxy_http_call,0,0,0,0,0,0,0,0,0," + end:             "6",
		"proxy_get_state," + end + ",1,0,0,4096,4096":          "6",
		"proxy_get_state,0,0,0," + end + ",4096,4096":          "6",
		"proxy_get_state,0,0,0,0," + end + ",4096":             "6",
		"proxy_get_state,0,0,0,0,4096," + end:                  "6",
		"proxy_invoke_service," + end + ",1,0,0,0,0,4096,4096": "6",
		"proxy_invoke_service,0,0,0," + end + ",0,0,4096,4096": "6",
		"proxy_invoke_service,0,0,0,0,0," + end + ",4096,4096": "6",
		"proxy_invoke_service,0,0,0,0,0,0," + end + ",4096":    "6",
		"proxy_invoke_service,0,0,0,0,0,0,4096," + end:         "6",
		"flood": "10",
		"calls": "10",
	} {
		a, err := send(t, m, "POST", "/lie?"+query, "body")
		if err != nil || a.body != want {
			t.Errorf("%s: %v %v, not %s", query, a, err, want)
		}
		if a, err := send(t, m, "POST", "/", "still here", "X-Do", "echo"); err != nil || !strings.HasPrefix(a.body, "still here") {
			t.Fatalf("after %s: %v %v", query, a, err)
		}
	}
	for _, s := range sent {
		if !strings.HasPrefix(s, "GET http://x.example/") { // those of calls, which are made when their request is over
			t.Errorf("a capability was called for a guest that could not have heard: %s", s)
		}
	}
	if _, err := send(t, m, "GET", "/lie?large", ""); loam.CodeOf(err) != loam.ResourceExhausted {
		t.Error(err)
	}
	for play, want := range map[string]string{"null": "status 10", "outside": "status 6"} {
		if a, err := send(t, m, "GET", "/play?"+play, ""); err != nil || a.body != want {
			t.Errorf("%s: %v %v", play, a, err)
		}
	}
	for play, want := range map[string]string{"again": "its allocator called proxy_get_property", "trap": "trap: unreachable"} {
		if _, err := send(t, m, "GET", "/play?"+play, ""); loam.CodeOf(err) != loam.Internal || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", play, err)
		}
	}
	if a, err := send(t, m, "POST", "/", "still here", "X-Do", "echo"); err != nil || a.body != "still here end 1 1" { // none that trapped is used again
		t.Error(a, err)
	}
}

// Requests at once have an instance each, and every answer is that of its own request.
func TestConcurrent(t *testing.T) {
	m := compile(t, filter, wasm.Config{Concurrency: 4, Queue: 100})
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 100 {
				body := fmt.Sprint(g, "-", i, strings.Repeat("x", 100*g))
				if a, err := send(t, m, "POST", "/", body, "X-Do", "echo"); err != nil || a.body != body+" end 1 1" {
					t.Errorf("%v %v", a, err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkFunction(b *testing.B) {
	m := compile(b, filter, wasm.Config{})
	for b.Loop() {
		if _, err := send(b, m, "GET", "/empty", ""); err != nil {
			b.Fatal(err)
		}
	}
}
