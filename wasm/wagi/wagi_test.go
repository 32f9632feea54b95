package wagi_test

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

// program is testdata/program, built once for all tests.
var program []byte

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "loam-wagi-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		out := filepath.Join(dir, "program.wasm")
		if err := build.Go(context.Background(), build.Job{Name: "program", Dir: "testdata/program", Out: out, Wasm: true, Main: true}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if program, err = os.ReadFile(out); err != nil {
			panic(err)
		}
		if host, err = wasm.NewHost(wasm.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
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
	c.ABI = "wagi"
	m, err := host.Compile(t.Context(), "program", binary, c)
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

// send gives the status, header and body of the answer.
func send(t testing.TB, m *wasm.Module, method, target, body string, header ...string) (int, loam.Header, string, error) {
	t.Helper()
	r := loam.NewRequest(t.Context())
	defer r.Release()
	r.Method, r.Scheme, r.Authority, r.ID, r.Remote, r.Route = method, "https", "shop.example:8443", "r-1", "192.0.2.7:4711", "all"
	r.Path, r.RawQuery, _ = strings.Cut(target, "?")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	if body != "" {
		r.Body, r.Length = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	resp, err := m.Serve(r)
	if err != nil {
		return 0, nil, "", err
	}
	if resp.Body == nil {
		return resp.Status, resp.Header, "", nil
	}
	b, err := io.ReadAll(resp.Body)
	return resp.Status, resp.Header, string(b), errors.Join(err, resp.Close())
}

func TestGoProgram(t *testing.T) {
	m := compile(t, program, wasm.Config{Env: map[string]string{"GREETING": "hi"}})
	if s := m.State(); !s.Image {
		t.Errorf("there is no image: %s", s.Reason)
	}
	large := strings.Repeat("0123456789", 50_000)
	for range 3 { // each is a run of its own
		status, h, body, err := send(t, m, "POST", "/echo", large, "Content-Type", "text/x-test")
		if err != nil || status != 201 || body != large || h.Get("Content-Type") != "text/x-test" || h.Get("X-Served") != "1" || len(h) != 2 {
			t.Errorf("echo: %d %v, %d bytes, %v", status, h, len(body), err)
		}
	}
	_, _, body, err := send(t, m, "POST", "/environment?a=1&b=%20&c", "12345",
		"Content-Type", "text/plain", "Accept", "a/b", "X-Name", "one", "X-Name", "two", "Cookie", "a=1", "Cookie", "b=2",
		"Proxy", "http://evil.example", "X_Name", "three", "Connection", "close", "Content-Length", "99")
	if err != nil {
		t.Fatal(err)
	}
	want := `AUTH_TYPE=
CONTENT_LENGTH=5
CONTENT_TYPE=text/plain
GATEWAY_INTERFACE=CGI/1.1
GREETING=hi
HTTPS=on
HTTP_ACCEPT=a/b
HTTP_COOKIE=a=1; b=2
HTTP_HOST=shop.example:8443
HTTP_X_NAME=one, two
PATH_INFO=/environment
PATH_TRANSLATED=/environment
QUERY_STRING=a=1&b=%20&c
REMOTE_ADDR=192.0.2.7
REMOTE_HOST=192.0.2.7
REMOTE_PORT=4711
REMOTE_USER=
REQUEST_METHOD=POST
REQUEST_URI=/environment?a=1&b=%20&c
SCRIPT_NAME=
SERVER_NAME=shop.example
SERVER_PORT=8443
SERVER_PROTOCOL=HTTP/1.1
SERVER_SOFTWARE=loam
X_FULL_URL=https://shop.example:8443/environment?a=1&b=%20&c
X_MATCHED_ROUTE=all
X_RAW_PATH_INFO=/environment
X_REQUEST_ID=r-1
["/environment" "a=1" "b=%20" "c"]`
	if body != want {
		t.Errorf("got\n%s\nwant\n%s", body, want)
	}
}

// What a program prints is a response, or an error that says why not; never an empty 200.
func TestOutput(t *testing.T) {
	m := compile(t, program, wasm.Config{MaxResponse: 1 << 20, Timeout: time.Minute})
	for _, c := range []struct {
		name, target string
		status       int
		header, body string
		code         loam.Code // of the error, or
		reason       string
	}{
		{"plain", "/print/Content-Type:%20text/plain%0A%0Ahello", 200, "Content-Type: text/plain\n", "hello", 0, ""},
		{"no body", "/print/Content-Type:%20text/plain%0A%0A", 200, "Content-Type: text/plain\n", "", 0, ""},
		{"status", "/print/status:404%20gone%0D%0A%0D%0A", 404, "", "", 0, ""},
		{"redirect", "/print/Location:%20/there%0A%0A", 302, "Location: /there\n", "", 0, ""},
		{"redirect for good", "/print/Location:%20http://there/%0AStatus:%20308%0A%0A", 308, "Location: http://there/\n", "", 0, ""},
		{"two of a name", "/print/Set-Cookie:%20a%0ASet-Cookie:%20b%0AStatus:%20204%0A%0A", 204, "Set-Cookie: a\nSet-Cookie: b\n", "", 0, ""},
		{"of the connection", "/print/Connection:%20close%0AContent-Length:%2099%0AStatus:%20200%0A%0Ax", 200, "", "x", 0, ""},
		{"exit 0", "/exit0", 200, "Content-Type: text/plain\n", "all is well", 0, ""},
		{"nothing", "/silent", 0, "", "", loam.Internal, "it is empty"},
		{"no header", "/print/hello", 0, "", "", loam.Internal, "an empty line is missing"},
		{"header without an end", "/print/Content-Type:%20a/b%0A", 0, "", "", loam.Internal, "an empty line is missing"},
		{"empty header", "/print/%0Ahello", 0, "", "", loam.Internal, "no Content-Type, Location or Status"},
		{"no field", "/print/hello%0A%0A", 0, "", "", loam.Internal, `"hello" is no header field`},
		{"bad name", "/print/a%20b:%20c%0A%0A", 0, "", "", loam.Internal, `field name "a b"`},
		{"carriage return", "/print/Status:%20200%0AA:%20b%0Dc%0A%0A", 0, "", "", loam.Internal, "control character"},
		{"bad status", "/print/Status:%20fine%0A%0A", 0, "", "", loam.Internal, "Status says"},
		{"status 101", "/print/Status:%20101%0A%0A", 0, "", "", loam.Internal, "status 101"},
		{"two statuses", "/print/Status:%20200%0AStatus:%20500%0A%0A", 0, "", "", loam.Internal, "two fields Status"},
		{"a thousand fields", "/fields", 0, "", "", loam.Internal, "more than 1000 fields"},
		{"a long field", "/print/a:%20" + strings.Repeat("b", 1<<16) + "%0A%0A", 0, "", "", loam.Internal, "or 65536 bytes"},
		{"exit", "/exit", 0, "", "", loam.Internal, "exited with status 3"},
		{"panic", "/panic", 0, "", "", loam.Internal, "exited with status 2"},
		{"too much", "/large", 0, "", "", loam.ResourceExhausted, "larger than 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, h, body, err := send(t, m, "GET", c.target, "")
			var got strings.Builder
			for _, f := range h {
				fmt.Fprintf(&got, "%s: %s\n", f.Name, f.Value)
			}
			switch {
			case c.reason == "":
				if err != nil || status != c.status || got.String() != c.header || body != c.body {
					t.Errorf("%d %q %q %v", status, got.String(), body, err)
				}
			case loam.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.reason) || !strings.Contains(err.Error(), "r-1"):
				t.Errorf("%d %q %v", status, body, err)
			case loam.HintOf(err) == "":
				t.Errorf("no hint: %v", err)
			}
		})
	}
	if s := log.String(); !strings.Contains(s, `msg="nothing is well" function=program stream=stderr request=r-1`) || !strings.Contains(s, `msg="panic: oh no"`) {
		t.Errorf("stderr is not in the log:\n%.2000s", s)
	}
}

func TestTimeout(t *testing.T) {
	m := compile(t, program, wasm.Config{Timeout: 300 * time.Millisecond})
	if _, _, _, err := send(t, m, "GET", "/loop", ""); loam.CodeOf(err) != loam.DeadlineExceeded {
		t.Error(err)
	}
}

// A program ends with its request: an instance that kept anything would be one that has exited.
func TestIsolation(t *testing.T) {
	for _, c := range []wasm.Config{{Isolation: wasm.IsolationShared}, {Isolation: wasm.IsolationSession}, {Warmup: &wasm.Warmup{Method: "GET", Path: "/"}}} {
		c.ABI = "wagi"
		_, err := host.Compile(t.Context(), "program", program, c)
		if loam.CodeOf(err) != loam.InvalidArgument || !strings.Contains(err.Error(), "ends with each request") || loam.HintOf(err) == "" {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestNoProgram(t *testing.T) {
	_, err := host.Compile(t.Context(), "program", []byte("\x00asm\x01\x00\x00\x00\x05\x03\x01\x00\x01\x07\x0a\x01\x06memory\x02\x00"), wasm.Config{ABI: "wagi"})
	if loam.CodeOf(err) != loam.InvalidArgument || !strings.Contains(err.Error(), "does not export _start") {
		t.Error(err)
	}
}

func BenchmarkGo(b *testing.B) {
	m := compile(b, program, wasm.Config{})
	for b.Loop() {
		if _, _, _, err := send(b, m, "GET", "/echo", "hello"); err != nil {
			b.Fatal(err)
		}
	}
}
