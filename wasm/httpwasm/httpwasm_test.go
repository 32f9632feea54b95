package httpwasm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/build"
	"github.com/loam-run/loam/wasm"
	"go.uber.org/goleak"
)

// handler is testdata/guest, built once for all tests.
var handler []byte

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "loam-httpwasm-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		out := filepath.Join(dir, "guest.wasm")
		if err := build.Go(context.Background(), build.Job{Name: "guest", Dir: "testdata/guest", Out: out, Wasm: true}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if handler, err = os.ReadFile(out); err != nil {
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
	c.ABI = "http-wasm"
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
	m := compile(t, handler, wasm.Config{Settings: []byte("settings ")})
	if s := m.State(); !s.Image {
		t.Errorf("there is no image: %s", s.Reason)
	}
	large := strings.Repeat("0123456789", 5_000)
	for range 3 {
		a, err := send(t, m, "POST", "/echo?a=%20b", large, "Accept", "one", "accept", "two", "Host-Like", "x")
		if err != nil {
			t.Fatal(err)
		}
		if want := "POST /echo?a=%20b HTTP/1.1 192.0.2.7:4711 settings 7 1 " + large; a.status != 201 || a.body != want {
			t.Errorf("%d %.100q", a.status, a.body)
		}
		if want := (loam.Header{{Name: "X-accept", Value: "one"}, {Name: "X-accept", Value: "two"}, {Name: "X-host-like", Value: "x"}, {Name: "x-set", Value: "2"}}); fmt.Sprint(a.header) != fmt.Sprint(want) {
			t.Errorf("%v", a.header)
		}
		if a.trailer.Get("x-end") != "here" {
			t.Errorf("trailer %v", a.trailer)
		}
	}
	if a, err := send(t, m, "GET", "/default", ""); err != nil || a.status != 200 || a.body != "" { // as the ABI says
		t.Errorf("%v %v", a, err)
	}
	if _, err := send(t, m, "GET", "/nothing", ""); loam.CodeOf(err) != loam.NotFound || loam.HintOf(err) == "" {
		t.Errorf("passed on, and nothing is there: %v", err)
	}
}

func TestLog(t *testing.T) {
	m := compile(t, handler, wasm.Config{})
	a, err := send(t, m, "GET", "/log", "")
	if err != nil || a.header.Get("X-Enabled") != "10" {
		t.Errorf("%v %v", a, err)
	}
	s := log.String()
	for _, want := range []string{"msg=starting function=guest\n", `level=DEBUG msg="debug words" function=guest request=r-1`, `level=WARN msg="warning words" function=guest request=r-1`} {
		if !strings.Contains(s, want) {
			t.Errorf("%q is not in\n%s", want, s)
		}
	}
	if strings.Contains(s, "no level") {
		t.Error("a level that there is not was logged")
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
		got = fmt.Sprint(r.Method, " ", r.Path, " ", r.RawQuery, " ", r.Header, " ", string(b))
		resp := &loam.Response{Status: 206, Length: -1, Body: closer{strings.NewReader("from behind"), &closed}}
		resp.Header.Add("X-Behind", "yes")
		resp.Header.Add("Content-Length", "11")
		resp.Trailer.Add("X-End", "here")
		return resp, nil
	})
	m := compile(t, handler, wasm.Config{Next: behind, MaxResponse: 1 << 20})
	for _, c := range []struct {
		name, method, uri, body, do string
		got                         string
		status                      int
		want, header                string
	}{
		{"untouched", "POST", "/a?b=c", "body", "", "POST /a b=c [{X-Do } {X-Secret s}] body", 206, "from behind",
			"[{X-Behind yes} {Content-Length 11} {X-Ctx 77} {X-Status 206}]"},
		{"the request changed", "POST", "/a?b=c", "body", "request", "PUT /other b=c&more=1 [{X-Do request} {X-Added by the guest}] rewritten body", 206, "from behind",
			"[{X-Behind yes} {Content-Length 11} {X-Ctx 77} {X-Status 206}]"},
		{"a body to a GET", "GET", "/a", "", "request", "PUT /other &more=1 [{X-Do request} {X-Added by the guest}] rewritten ", 206, "from behind",
			"[{X-Behind yes} {Content-Length 11} {X-Ctx 77} {X-Status 206}]"},
		{"the response read", "GET", "/a", "", "read", "GET /a  [{X-Do read} {X-Secret s}] ", 206, "from behind",
			"[{X-Behind yes} {X-Ctx 77} {X-Status 206} {X-Length 11} {X-Trailer here}]"},
		{"and written", "GET", "/a", "", "read write", "GET /a  [{X-Do read write} {X-Secret s}] ", 203, "FROM BEHIND!",
			"[{X-Behind yes} {X-Ctx 77} {X-Status 206} {X-Length 11} {X-Trailer here}]"},
		{"replaced", "GET", "/a", "", "replace", "GET /a  [{X-Do replace} {X-Secret s}] ", 206, "replaced",
			"[{X-Behind yes} {X-Ctx 77} {X-Status 206}]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			closed = 0
			a, err := send(t, m, c.method, c.uri, c.body, "X-Do", c.do, "X-Secret", "s")
			if err != nil {
				t.Fatal(err)
			}
			if got != c.got {
				t.Errorf("behind got\n%s\nwant\n%s", got, c.got)
			}
			if a.status != c.status || a.body != c.want || fmt.Sprint(a.header) != c.header {
				t.Errorf("%d %q %v", a.status, a.body, a.header)
			}
			if closed != 1 {
				t.Errorf("the response from behind was closed %d times", closed)
			}
		})
	}
	for do, want := range map[string]string{"late": "the request was passed on", "trap": "trap: unreachable"} {
		closed = 0
		if _, err := send(t, m, "GET", "/a", "", "X-Do", do); loam.CodeOf(err) != loam.Internal || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", do, err)
		}
		if closed != 1 {
			t.Errorf("%s: the response from behind was closed %d times", do, closed)
		}
	}
}

func TestFilterFailures(t *testing.T) {
	failed := loam.Errorf(loam.Unavailable, "behind", "it is not there")
	m := compile(t, handler, wasm.Config{Next: loam.TargetFunc(func(*loam.Request) (*loam.Response, error) { return nil, failed })})
	if _, err := send(t, m, "GET", "/a", ""); loam.CodeOf(err) != loam.Unavailable {
		t.Errorf("%v", err)
	}
	if !strings.Contains(log.String(), "it failed") {
		t.Error("handle_response was not told of an error")
	}
	closed := 0
	m = compile(t, handler, wasm.Config{MaxResponse: 1000, Next: loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
		return &loam.Response{Length: -1, Body: closer{strings.NewReader(strings.Repeat("x", 1001)), &closed}}, nil
	})})
	if _, err := send(t, m, "GET", "/a", "", "X-Do", "read"); loam.CodeOf(err) != loam.ResourceExhausted || closed != 1 {
		t.Errorf("too large to hold: %v, closed %d times", err, closed)
	}
	if a, err := send(t, m, "GET", "/a", ""); err != nil || len(a.body) != 1001 {
		t.Errorf("it passes what it need not hold: %v", err)
	}
}

// Lying pointers and lengths trap, or fail in the ABI's way; the next request finds everything in order.
func TestHostile(t *testing.T) {
	m := compile(t, handler, wasm.Config{Isolation: wasm.IsolationShared, MaxResponse: 1 << 20, Timeout: time.Minute})
	const end = "4294967295"
	for query, want := range map[string]string{
		"get_config,0," + end:                   "outside its memory",
		"log,0," + end + ",1":                   "outside its memory",
		"get_method," + end + ",16":             "outside its memory",
		"set_method,1," + end:                   "outside its memory",
		"set_method,0,0":                        "is no method",
		"get_uri,4294967280,256":                "outside its memory",
		"set_uri," + end + ",2":                 "outside its memory",
		"get_protocol_version,0," + end:         "outside its memory",
		"get_source_addr,1," + end:              "outside its memory",
		"get_header_names,0,0," + end:           "outside its memory",
		"get_header_names,9,0,0":                "no kind of header 9",
		"get_header_values,0," + end + ",1,0,0": "outside its memory",
		"get_header_values,0,0,0," + end + ",1": "outside its memory",
		"set_header_value,1," + end + ",1,0,0":  "outside its memory",
		"set_header_value,1,0,0," + end + ",1":  "outside its memory",
		"set_header_value,1,0,0,0,0":            "without a name",
		"set_header_value,7,0,0,0,0":            "without a name",
		"add_header_value,1,1," + end + ",0,0":  "outside its memory",
		"add_header_value,1,0,0,1," + end:       "outside its memory",
		"remove_header,1," + end + ",1":         "outside its memory",
		"remove_header,4294967295,0,0":          "no kind of header",
		"read_body,0,0,0":                       "no room",
		"read_body,0,0," + end:                  "outside its memory",
		"read_body,2,4096,1":                    "no kind of body 2",
		"write_body,1,0," + end:                 "outside its memory",
		"write_body,0," + end + ",1":            "outside its memory",
		"write_body,2,0,0":                      "no kind of body 2",
		"set_status_code,101":                   "status 101",
		"set_status_code,0":                     "status 0",
		"set_status_code," + end:                "status -1",
		"split":                                 "control character",
		"name":                                  "header field name",
		"flood":                                 "more than 1000 header fields",
		"uri":                                   "is not encoded",
		"large":                                 "larger than 1048576 bytes",
	} {
		_, err := send(t, m, "POST", "/lie?"+query, "body")
		code := loam.Internal
		if query == "large" {
			code = loam.ResourceExhausted
		}
		if loam.CodeOf(err) != code || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "r-1") {
			t.Errorf("%s: %v", query, err)
		}
		if a, err := send(t, m, "GET", "/echo", ""); err != nil || !strings.Contains(a.body, " 1 ") {
			t.Fatalf("after %s: %v %v", query, a, err)
		}
	}
	if _, err := send(t, m, "GET", "/trap", ""); loam.CodeOf(err) != loam.Internal {
		t.Error(err)
	}
	m = compile(t, handler, wasm.Config{Timeout: 300 * time.Millisecond})
	if _, err := send(t, m, "GET", "/loop", ""); loam.CodeOf(err) != loam.DeadlineExceeded {
		t.Error(err)
	}
}

// Requests at once have an instance each, and every answer is that of its own request.
func TestConcurrent(t *testing.T) {
	m := compile(t, handler, wasm.Config{Concurrency: 4, Queue: 100})
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 100 {
				body := fmt.Sprint(g, "-", i, strings.Repeat("x", 100*g))
				if a, err := send(t, m, "POST", "/echo", body); err != nil || a.body != "POST /echo HTTP/1.1 192.0.2.7:4711 7 1 "+body {
					t.Errorf("%v %v", a, err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkFunction(b *testing.B) {
	m := compile(b, handler, wasm.Config{})
	for b.Loop() {
		if _, err := send(b, m, "GET", "/default", ""); err != nil {
			b.Fatal(err)
		}
	}
}
