package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/internal/build"
	"go.uber.org/goleak"
)

// guestModule is testdata/guest, built once for all tests.
var guestModule []byte

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "loam-guest-")
	if err != nil {
		panic(err)
	}
	out := filepath.Join(dir, "guest.wasm")
	if err := build.Go(context.Background(), build.Job{Name: "guest", Dir: "testdata/guest", Out: out, Wasm: true}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if guestModule, err = os.ReadFile(out); err != nil {
		panic(err)
	}
	cacheDir = filepath.Join(dir, "cache")
	if testHost, err = NewHost(Options{CacheDir: cacheDir}); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := testHost.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// testHost and cacheDir are shared by all tests, so that each guest is compiled once.
var (
	testHost *Host
	cacheDir string
)

// newHost is a host with the shared cache and options of its own.
func newHost(t testing.TB, o Options) *Host {
	t.Helper()
	o.CacheDir = cacheDir
	h, err := NewHost(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func compile(t testing.TB, binary []byte, c Config) *Module {
	t.Helper()
	m, err := tryCompile(t, testHost, binary, c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tryCompile(t testing.TB, h *Host, binary []byte, c Config) (*Module, error) {
	t.Helper()
	m, err := h.Compile(t.Context(), "orders", binary, c)
	if err == nil {
		if m.program == nil { // tests look into it
			if err := m.load(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			if err := m.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	return m, err
}

func request(ctx context.Context, method, target, body string) *loam.Request {
	r := loam.NewRequest(ctx)
	r.Method, r.Scheme, r.Authority, r.ID = method, "http", "localhost", "r-1"
	r.Path, r.RawQuery, _ = strings.Cut(target, "?")
	if body != "" {
		r.Body, r.Length = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	return r
}

// send answers with status and body.
func send(t testing.TB, m *Module, method, target, body string) (int, string) {
	t.Helper()
	status, got, err := trySend(t, m, method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	return status, got
}

func trySend(t testing.TB, m *Module, method, target, body string) (int, string, error) {
	t.Helper()
	r := request(t.Context(), method, target, body)
	defer r.Release()
	resp, err := m.Serve(r)
	if err != nil {
		return 0, "", err
	}
	if resp.Body == nil {
		return resp.Status, "", nil
	}
	b, err := io.ReadAll(resp.Body)
	return resp.Status, string(b), errors.Join(err, resp.Close())
}

func TestServe(t *testing.T) {
	for _, isolation := range []string{IsolationRequest, IsolationShared} {
		t.Run(isolation, func(t *testing.T) {
			m := compile(t, guestModule, Config{Isolation: isolation})
			if status, body := send(t, m, "GET", "/hello/J%C3%B6rg", ""); status != 200 || body != "hello Jörg" {
				t.Errorf("hello: %d %q", status, body)
			}
			if status, _ := send(t, m, "GET", "/nothing", ""); status != 404 {
				t.Errorf("unknown path: %d", status)
			}
			if status, _ := send(t, m, "DELETE", "/count", ""); status != 405 {
				t.Errorf("wrong method: %d", status)
			}
			large := strings.Repeat("0123456789", 50_000)
			r := request(t.Context(), "POST", "/echo?q=a+b", large)
			r.Header.Add("Content-Type", "text/x-test")
			resp, err := m.Serve(r)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			h := resp.Header
			if resp.Status != 201 || string(b) != large || resp.Length != int64(len(large)) || h.Get("content-type") != "text/x-test" || h.Get("x-id") != "r-1" || h.Get("x-query") != "a b" {
				t.Errorf("echo: %d, %d bytes, %v", resp.Status, len(b), h)
			}
		})
	}
}

func TestIsolation(t *testing.T) {
	fresh := compile(t, guestModule, Config{})
	shared := compile(t, guestModule, Config{Isolation: IsolationShared})
	for i := 1; i <= 5; i++ {
		if _, body := send(t, fresh, "GET", "/count", ""); body != "1" {
			t.Errorf("request %d of a fresh instance counted %s", i, body)
		}
		if _, body := send(t, shared, "GET", "/count", ""); body != fmt.Sprint(i) {
			t.Errorf("request %d of a shared instance counted %s", i, body)
		}
	}
}

func TestGuestSeesOnlyWhatItIsGiven(t *testing.T) {
	t.Setenv("LOAM_TEST_SECRET", "of the host")
	m := compile(t, guestModule, Config{Env: map[string]string{"GREETING": "hi"}})
	if _, body := send(t, m, "GET", "/env", ""); body != `["GREETING=hi"] files: false` {
		t.Error(body)
	}
	_, a := send(t, m, "GET", "/random", "")
	_, b := send(t, m, "GET", "/random", "")
	if a[:32] == b[:32] {
		t.Errorf("two instances drew the same random bytes %s", a)
	}
	var now int64
	if _, err := fmt.Sscan(b[33:], &now); err != nil || time.Since(time.Unix(0, now)).Abs() > time.Minute {
		t.Errorf("clock %s: %v", b[33:], err)
	}
}

// A guest that does not end, by whatever it does, ends with its time, and its instance is not used again.
func TestTimeout(t *testing.T) {
	for _, path := range []string{"/loop", "/sleep/1h"} {
		t.Run(path, func(t *testing.T) {
			m := compile(t, guestModule, Config{Isolation: IsolationShared, Timeout: 2 * time.Second})
			send(t, m, "GET", "/count", "")
			start := time.Now()
			_, _, err := trySend(t, m, "GET", path, "")
			if loam.CodeOf(err) != loam.DeadlineExceeded || !strings.Contains(err.Error(), `"orders"`) || !strings.Contains(err.Error(), "r-1") {
				t.Errorf("%v", err)
			}
			if d := time.Since(start); d > 30*time.Second {
				t.Errorf("it took %v to end", d)
			}
			if _, body := send(t, m, "GET", "/count", ""); body != "1" {
				t.Errorf("the instance that was ended served again: count %s", body)
			}
		})
	}
	t.Run("caller gone", func(t *testing.T) {
		m := compile(t, guestModule, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := m.Serve(request(ctx, "GET", "/loop", "")); loam.CodeOf(err) != loam.Canceled {
			t.Errorf("%v", err)
		}
	})
}

func TestGuestFailures(t *testing.T) {
	var log syncBuffer
	h := newHost(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	m, err := tryCompile(t, h, guestModule, Config{Isolation: IsolationShared, Memory: 32 << 20, MaxResponse: 1 << 20, MaxRequest: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		code loam.Code
		want string
	}{
		{"/exit", loam.Internal, "exited with status 3"},
		{"/memory", loam.Internal, "trap: unreachable"},
		{"/large/1048577", loam.ResourceExhausted, "larger than 1048576 bytes"},
	} {
		send(t, m, "GET", "/count", "")
		_, _, err := trySend(t, m, "GET", c.path, "")
		if loam.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v", c.path, err)
		}
		if _, body := send(t, m, "GET", "/count", ""); body != "1" {
			t.Errorf("%s: the failed instance served again: count %s", c.path, body)
		}
	}
	if !strings.Contains(log.String(), "out of memory") {
		t.Errorf("the log does not say what it died of:\n%s", log.String())
	}
	if status, _ := send(t, m, "GET", "/panic", ""); status != 500 || !strings.Contains(log.String(), "oh no") {
		t.Errorf("panic: %d\n%s", status, log.String())
	}
	if status, body := send(t, m, "GET", "/large/1048576", ""); status != 200 || len(body) != 1<<20 {
		t.Errorf("largest response: %d, %d bytes", status, len(body))
	}
	if _, _, err := trySend(t, m, "POST", "/echo", strings.Repeat("x", 1<<20+1)); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("too large a request: %v", err)
	}
	r := request(t.Context(), "POST", "/echo", strings.Repeat("x", 1<<20+1))
	r.Length = -1
	if _, err := m.Serve(r); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("too large a request of unknown length: %v", err)
	}
}

func TestLog(t *testing.T) {
	var log syncBuffer
	h := newHost(t, Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))})
	m, err := tryCompile(t, h, guestModule, Config{})
	if err != nil {
		t.Fatal(err)
	}
	send(t, m, "GET", "/log", "")
	want := `level=WARN msg="stock is low" function=orders article=pen left=3 request=r-1
level=INFO msg="plain words" function=orders stream=stdout request=r-1
level=WARN msg="no newline" function=orders stream=stderr request=r-1
`
	if got := log.String(); got != want {
		t.Errorf("log:\n%swant:\n%s", got, want)
	}
}

func TestConcurrency(t *testing.T) {
	m := compile(t, guestModule, Config{Concurrency: 2, Queue: 1, Timeout: 5 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 3 { // two are served, one waits
		wg.Go(func() {
			if _, err := m.Serve(request(ctx, "GET", "/sleep/1h", "")); err == nil {
				t.Error("sleeping for an hour was done in no time")
			}
		})
	}
	for busy, waiting := 0, 0; waiting < 1 || busy < 2; runtime.Gosched() {
		m.mu.Lock()
		busy, waiting = m.busy, m.waiting.len()
		m.mu.Unlock()
	}
	if _, _, err := trySend(t, m, "GET", "/count", ""); loam.CodeOf(err) != loam.ResourceExhausted {
		t.Errorf("%v", err)
	}
}

// Two modules of the same bytes share compiled code; closing one leaves the other running.
func TestCloseLeavesTheOther(t *testing.T) {
	a, b := compile(t, guestModule, Config{}), compile(t, guestModule, Config{})
	send(t, a, "GET", "/count", "")
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		send(t, b, "GET", "/count", "")
	}
}

func TestCapabilityCall(t *testing.T) {
	caller := &loam.Caller{Name: "orders"}
	stored := map[string][]byte{"large": bytes.Repeat([]byte("large"), 5_000)}
	m := compile(t, guestModule, Config{Caller: caller, Methods: loam.Methods{
		"state.Get": func(_ context.Context, c *loam.Caller, in []byte) ([]byte, error) {
			var req api.StateGetRequest
			if err := req.ParseProto(in); err != nil || c != caller {
				return nil, fmt.Errorf("%w from %v", err, c)
			}
			resp := api.StateGetResponse{Items: []api.StateItem{{Key: req.Keys[0]}}}
			if v, ok := stored[req.Keys[0]]; ok {
				resp.Items[0].Value, resp.Items[0].Etag = v, "1"
			}
			return resp.AppendProto(nil), nil
		},
		"state.Apply": func(_ context.Context, _ *loam.Caller, in []byte) ([]byte, error) {
			var req api.StateApplyRequest
			if err := req.ParseProto(in); err != nil {
				return nil, err
			}
			op := req.Ops[0]
			if _, ok := stored[op.Key]; ok && op.IfAbsent && op.TtlMs == 60_000 {
				return nil, &loam.Error{Code: loam.AlreadyExists, Err: errors.New("taken"), Hint: "try another"}
			}
			stored[op.Key] = op.Value
			return (&api.StateApplyResponse{Etags: []string{"7"}}).AppendProto(nil), nil
		},
	}})
	for _, c := range []struct {
		target, body string
		status       int
		want         string
	}{
		{"/call/get?key=a", "", 404, `{"code":"not found","message":"state \"a\" is not there"}` + "\n"},
		{"/call/put?key=a", "value", 200, "7"},
		{"/call/get?key=a", "", 200, "value"},
		{"/call/put?key=a", "again", 409, `{"code":"already exists","message":"already exists: taken"}` + "\n"},
		{"/call/get?key=large", "", 200, string(stored["large"])},
	} {
		if status, body := send(t, m, "POST", c.target, c.body); status != c.status || body != c.want {
			t.Errorf("%s: %d %.200s", c.target, status, body)
		}
	}
}

func textLog(to io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(to, nil)) }

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func BenchmarkServe(b *testing.B) {
	for _, isolation := range []string{IsolationRequest, IsolationShared} {
		b.Run(isolation, func(b *testing.B) {
			m := compile(b, guestModule, Config{Isolation: isolation})
			for b.Loop() {
				send(b, m, "GET", "/hello/you", "")
			}
		})
	}
}

// Functions of one module that are loaded from the cache at the same time each get it whole.
func TestLoadTogether(t *testing.T) {
	binary := handmade{serve: serves, pages: 1}.bytes()
	for round := range 20 {
		h := newHost(t, Options{})
		var group sync.WaitGroup
		for n := range 8 {
			group.Go(func() {
				m, err := h.Compile(context.Background(), "together", binary, Config{Memory: int64(64+n) << 20, Env: map[string]string{"ROUND": fmt.Sprint(round)}})
				if err != nil {
					t.Error(err)
					return
				}
				if err := m.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
}

// Functions of one module that differ in their limits begin at once, and each of them compiles it.
func TestOneModuleManyFunctions(t *testing.T) {
	for n := range 30 {
		binary := handmade{pages: 1, serve: join(0x41, n, drop)}.bytes() // one that nobody has compiled yet
		h, err := NewHost(Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // after its modules
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				if _, err := tryCompile(t, h, binary, Config{Memory: int64(i+1) << 20}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
