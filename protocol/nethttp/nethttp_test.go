package nethttp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var silent = slog.New(slog.DiscardHandler)

// serve runs a target on a socket of its own.
func serveTarget(t testing.TB, target loam.TargetFunc, o protocol.Options) *httptest.Server {
	t.Helper()
	if o.Log == nil {
		o.Log = silent
	}
	s := httptest.NewUnstartedServer(Handler(target, o))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func do(t *testing.T, s *httptest.Server, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

type body struct {
	io.Reader
	closed atomic.Int32
}

func (b *body) Close() error { b.closed.Add(1); return nil }

func TestRequestAsSent(t *testing.T) {
	var got loam.Request
	var sent string
	s := serveTarget(t, func(r *loam.Request) (*loam.Response, error) {
		got = *r
		got.Header = append(loam.Header(nil), r.Header...)
		b, err := io.ReadAll(r.Body)
		sent = string(b)
		return loam.NewResponse(201, "text/plain", []byte("made")), err
	}, protocol.Options{})
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL+"/a%2Fb/%E2%82%AC?q=1&r=%20", strings.NewReader("hello"))
	req.Host = "shop.example:81"
	req.Header = http.Header{
		"X-Two": {"1", "2"}, "Connection": {"x-hop, Keep-Alive"}, "X-Hop": {"gone"}, "Keep-Alive": {"gone"}, "Te": {"trailers"},
		"X-Request-Id": {"mine-1"}, "Proxy-Authorization": {"gone"},
	}
	res, answer := do(t, s, req)
	if res.StatusCode != 201 || answer != "made" || res.ContentLength != 4 || res.Header.Get("X-Request-Id") != "mine-1" {
		t.Errorf("%d %q %v", res.StatusCode, answer, res.Header)
	}
	if got.Method != "PUT" || got.Scheme != "http" || got.Authority != "shop.example:81" || got.Path != "/a%2Fb/%E2%82%AC" || got.RawQuery != "q=1&r=%20" || got.Length != 5 || got.ID != "mine-1" || sent != "hello" {
		t.Errorf("%+v %q", got, sent)
	}
	if diff := cmp.Diff([]string{"1", "2"}, got.Header.Values("x-two")); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"Connection", "X-Hop", "Keep-Alive", "Te", "Proxy-Authorization"} {
		if got.Header.Has(name) {
			t.Errorf("%s was passed on", name)
		}
	}
	if _, _, err := net.SplitHostPort(got.Remote); err != nil {
		t.Error(err)
	}
}

func TestRequestID(t *testing.T) {
	s := serveTarget(t, func(r *loam.Request) (*loam.Response, error) {
		if r.ID != r.Header.Get(protocol.RequestID) {
			return nil, errors.New("the header says another id")
		}
		return loam.NewResponse(200, "", []byte(r.ID)), nil
	}, protocol.Options{})
	ids := map[string]bool{}
	for _, id := range []string{"", "", "with space", strings.Repeat("x", 129), "é"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if id != "" {
			req.Header.Set(protocol.RequestID, id)
		}
		res, answer := do(t, s, req)
		if answer == id || len(answer) < 16 || ids[answer] || res.Header.Get(protocol.RequestID) != answer {
			t.Errorf("%q → %q", id, answer)
		}
		ids[answer] = true
	}
}

func TestAnswers(t *testing.T) {
	var last *body
	responses := map[string]func() (*loam.Response, error){
		"/zero":      func() (*loam.Response, error) { return &loam.Response{}, nil },
		"/nocontent": func() (*loam.Response, error) { return &loam.Response{Status: 204, Length: 3, Body: last}, nil },
		"/unchanged": func() (*loam.Response, error) { return &loam.Response{Status: 304, Length: 3, Body: last}, nil },
		"/sized": func() (*loam.Response, error) {
			return &loam.Response{Length: 3, Body: last, Header: loam.Header{{Name: "set-cookie", Value: "a"}, {Name: "Connection", Value: "x"}, {Name: "Content-Length", Value: "99"}, {Name: "SET-COOKIE", Value: "b"}}}, nil
		},
		"/unsized":  func() (*loam.Response, error) { return &loam.Response{Length: -1, Body: last}, nil },
		"/status":   func() (*loam.Response, error) { return &loam.Response{Status: 101, Length: 3, Body: last}, nil },
		"/status2":  func() (*loam.Response, error) { return &loam.Response{Status: 1000, Length: 3, Body: last}, nil },
		"/nothing":  func() (*loam.Response, error) { return nil, nil },
		"/notfound": func() (*loam.Response, error) { return nil, loam.Errorf(loam.NotFound, "route", "none") },
		"/secret":   func() (*loam.Response, error) { return nil, errors.New("password") },
		"/panic":    func() (*loam.Response, error) { panic("password") },
	}
	var logged bytes.Buffer
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(lockedWriter{&mu, &logged}, nil))
	s := serveTarget(t, func(r *loam.Request) (*loam.Response, error) { return responses[r.Path]() }, protocol.Options{Log: log})
	for _, c := range []struct {
		method, path string
		status       int
		body         string // "" where a part is enough
		length       int64
		closed       int32
	}{
		{"GET", "/zero", 200, "", 0, 0},
		{"GET", "/nocontent", 204, "", 0, 1},
		{"GET", "/unchanged", 304, "", 0, 1},
		{"GET", "/sized", 200, "abc", 3, 1},
		{"HEAD", "/sized", 200, "", 3, 1},
		{"GET", "/unsized", 200, "abc", -1, 1},
		{"HEAD", "/unsized", 200, "", -1, 1},
		{"GET", "/status", 500, "{", 0, 1},
		{"GET", "/status2", 500, "{", 0, 1},
		{"GET", "/nothing", 500, "{", 0, 0},
		{"GET", "/notfound", 404, "{", 0, 0},
		{"GET", "/secret", 500, "{", 0, 0},
		{"GET", "/panic", 500, "{", 0, 0},
	} {
		last = &body{Reader: strings.NewReader("abc")}
		req, _ := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, nil)
		res, answer := do(t, s, req)
		if res.StatusCode != c.status || last.closed.Load() != c.closed {
			t.Errorf("%s %s: %d, closed %d times", c.method, c.path, res.StatusCode, last.closed.Load())
		}
		if c.body == "{" {
			if strings.Contains(answer, "password") || strings.Contains(answer, "goroutine") || !strings.HasPrefix(answer, `{"error":`) || !strings.Contains(answer, res.Header.Get(protocol.RequestID)) {
				t.Errorf("%s: %s", c.path, answer)
			}
			continue
		}
		if answer != c.body || res.ContentLength != c.length {
			t.Errorf("%s %s: %q, length %d", c.method, c.path, answer, res.ContentLength)
		}
		if c.path == "/sized" && (len(res.Header["Set-Cookie"]) != 2 || res.Header.Get("Connection") != "") {
			t.Errorf("%v", res.Header)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"panic=password", "error=password", "status 101"} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("the log does not say %s", want)
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}

// A stream's head comes before its first byte, and each part when it was written, not when the next one is.
func TestStream(t *testing.T) {
	pr, pw := io.Pipe()
	res := &loam.Response{Length: -1, Body: pr, Header: loam.Header{{Name: "Content-Type", Value: "text/event-stream"}}}
	s := serveTarget(t, func(*loam.Request) (*loam.Response, error) { return res, nil }, protocol.Options{})
	got, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	lines := bufio.NewReader(got.Body)
	for i := range 3 {
		fmt.Fprintf(pw, "data: %d\n", i)
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatal(line, err)
		}
	}
	res.Trailer = loam.Header{{Name: "X-Sum", Value: "6"}}
	pw.Close()
	if _, err := lines.ReadString('\n'); err != io.EOF {
		t.Fatal(err)
	}
	if got.Trailer.Get("X-Sum") != "6" {
		t.Errorf("trailer %v", got.Trailer)
	}
}

func TestBrokenAnswerIsSeenAsBroken(t *testing.T) {
	for name, res := range map[string]*loam.Response{
		"error":   {Length: -1, Body: io.NopCloser(io.MultiReader(strings.NewReader("ab"), failing{}))},
		"panic":   {Length: -1, Body: io.NopCloser(io.MultiReader(strings.NewReader("ab"), panicking{}))},
		"short":   {Length: 5, Body: io.NopCloser(strings.NewReader("ab"))},
		"toolong": {Length: 1, Body: io.NopCloser(strings.NewReader("ab"))},
	} {
		done := make(chan int, 1)
		s := serveTarget(t, func(r *loam.Request) (*loam.Response, error) {
			r.Observer = observer{done}
			return res, nil
		}, protocol.Options{})
		got, err := s.Client().Get(s.URL)
		if err == nil {
			_, err = io.ReadAll(got.Body)
			got.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: the client took it for whole", name)
		}
		if status := <-done; status != 200 {
			t.Errorf("%s: %d", name, status)
		}
	}
}

type observer struct{ status chan int }

func (o observer) Observe(_ *loam.Request, status int, _ int64, _ time.Duration) { o.status <- status }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("in a body") }

func TestGoneClientEndsTheRequest(t *testing.T) {
	began, ended := make(chan struct{}), make(chan error, 1)
	s := serveTarget(t, func(r *loam.Request) (*loam.Response, error) {
		close(began)
		<-r.Context().Done()
		ended <- r.Context().Err()
		return nil, r.Context().Err()
	}, protocol.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if res, err := s.Client().Do(req); err == nil {
		res.Body.Close()
		t.Error("answered")
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestBodyTooLarge(t *testing.T) {
	calls := 0
	s := serveTarget(t, func(r *loam.Request) (*loam.Response, error) {
		calls++
		_, err := io.ReadAll(r.Body)
		return loam.NewResponse(200, "", nil), err
	}, protocol.Options{MaxBody: 10})
	for _, c := range []struct {
		body   io.Reader
		status int
		calls  int
	}{
		{strings.NewReader("0123456789"), 200, 1},
		{strings.NewReader("0123456789a"), 413, 1},                      // announced: the target is not asked
		{struct{ io.Reader }{strings.NewReader("0123456789")}, 200, 2},  // chunked
		{struct{ io.Reader }{strings.NewReader("0123456789a")}, 413, 3}, // found out while reading
		{io.LimitReader(zeros{}, 1<<20), 413, 4},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, c.body)
		res, answer := do(t, s, req)
		if res.StatusCode != c.status || calls != c.calls {
			t.Errorf("%d %s after %d calls, want %d after %d", res.StatusCode, answer, calls, c.status, c.calls)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestConnectIsRefused(t *testing.T) {
	s := serveTarget(t, func(*loam.Request) (*loam.Response, error) { t.Error("asked"); return nil, nil }, protocol.Options{})
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != 501 {
		t.Errorf("%v %v", res, err)
	}
}

// FuzzFromHTTP: whatever net/http takes for a request goes where it was sent, and never carries on what belongs to one
// connection.
func FuzzFromHTTP(f *testing.F) {
	f.Add("GET /a%2Fb/../c?x=%20 HTTP/1.1\r\nHost: a\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nx-two: 1\r\nX-Two: 2\r\n\r\n")
	f.Add("POST http://b/|?|# HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nX-Request-Id: a b\r\n\r\nhi")
	f.Add("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
	f.Add("OPTIONS * HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	f.Fuzz(func(t *testing.T, raw string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		req := FromHTTP(r)
		defer req.Release()
		if req.Path == "" || !protocol.ValidID(req.ID) || req.Header.Get(protocol.RequestID) != req.ID {
			t.Fatalf("%+v", req)
		}
		for _, field := range req.Header {
			if protocol.HopByHop(field.Name) {
				t.Fatalf("%s was passed on", field.Name)
			}
		}
		if r.Method != http.MethodConnect && r.URL.Path != "" && (req.Path != r.URL.EscapedPath() || req.RawQuery != r.URL.RawQuery) {
			t.Fatalf("%q became %q %q", r.URL, req.Path, req.RawQuery)
		}
	})
}

func BenchmarkHandler(b *testing.B) {
	target := loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
		return loam.NewResponse(200, "text/plain", []byte("hello")), nil
	})
	h := Handler(target, protocol.Options{Log: silent, MaxBody: 1 << 20})
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/orders/7?full=1", nil)
	r.Header.Set(protocol.RequestID, "a-request")
	r.Header.Set("Accept", "*/*")
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(&nowhere{header: http.Header{}}, r)
	}
}

type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) WriteHeader(int)             {}
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
