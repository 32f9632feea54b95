package http1

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
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var silent = slog.New(slog.DiscardHandler)

// engines runs a test over every engine there is.
func engines(t *testing.T, test func(t *testing.T, e loop.Engine)) {
	for name, o := range map[string]loop.Options{"goroutines": {Goroutines: true}, "coroutines": {Loops: 2}} {
		if name == "coroutines" && runtime.GOOS != "linux" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			e := loop.New(o)
			test(t, e)
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// listen serves target and returns where.
func listen(t *testing.T, e loop.Engine, target loam.TargetFunc, c ServerConfig) string {
	t.Helper()
	if c.Log == nil {
		c.Log = silent
	}
	s := NewServer(target, c)
	l, err := e.Listen(t.Context(), "tcp", "127.0.0.1:0", loop.ListenOptions{Open: func(c loop.Conn) loop.Session { return s.Session(c, c, nil, nil) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Stop() })
	return l.Addr().String()
}

func hello(*loam.Request) (*loam.Response, error) {
	return loam.NewResponse(200, "text/plain", []byte("hello")), nil
}

// raw sends bytes and returns all that comes back until the connection ends or is silent.
func raw(t *testing.T, address, in string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { _, _ = io.WriteString(c, in) }()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Minute))
	b, _ := io.ReadAll(c) // what came is what is looked at
	return string(b)
}

func TestServer(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		address := listen(t, e, func(r *loam.Request) (*loam.Response, error) {
			body := ""
			if r.Body != nil {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					return nil, err
				}
				body = string(b)
			}
			res := loam.NewResponse(200, "text/plain", fmt.Appendf(nil, "%s %s?%s %s %q %q", r.Method, r.Path, r.RawQuery, r.Authority, body, r.Trailer.Get("T")))
			return res, nil
		}, ServerConfig{})
		for _, c := range []struct{ in, want string }{
			{"GET /a?b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", `GET /a?b h "" ""`},
			{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", `POST /? h "abc" ""`},
			{"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: end\r\n\r\n", `POST /? h "abcde" "end"`},
			{"GET / HTTP/1.0\r\n\r\n", `GET /?  "" ""`},
			{"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nxGET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", `GET /2? h "" ""`}, // pipelined
		} {
			got := raw(t, address, c.in)
			if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "\r\n\r\n"+c.want) || !strings.Contains(got, "\r\nX-Request-Id: ") || !strings.Contains(got, "\r\nDate: ") {
				t.Errorf("%q: %q", c.in, got)
			}
		}
		if got := raw(t, address, "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost : h\r\n\r\n"); strings.Count(got, "HTTP/1.1 200") != 1 || strings.Count(got, "HTTP/1.1 400") != 1 || !strings.Contains(got, "Connection: close") {
			t.Errorf("%q", got)
		}
	})
}

func TestKeepAliveAndLarge(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		large := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
		address := listen(t, e, func(r *loam.Request) (*loam.Response, error) {
			switch r.Path {
			case "/echo":
				return &loam.Response{Length: r.Length, Body: r.Body}, nil
			case "/large":
				return loam.NewResponse(200, "", large), nil
			case "/stream":
				return &loam.Response{Length: -1, Body: io.NopCloser(bytes.NewReader(large))}, nil
			}
			return hello(r)
		}, ServerConfig{})
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		client := &http.Client{Transport: tr}
		for i := range 20 {
			for _, path := range []string{"/", "/large", "/stream"} {
				res, err := client.Get("http://" + address + path)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || path != "/" && !bytes.Equal(b, large) {
					t.Fatalf("%d %s: %d bytes, %v", i, path, len(b), err)
				}
			}
			for _, body := range []io.Reader{bytes.NewReader(large), struct{ io.Reader }{bytes.NewReader(large)}} {
				res, err := client.Post("http://"+address+"/echo", "text/plain", body)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || !bytes.Equal(b, large) {
					t.Fatalf("%d echo: %d bytes, %v", i, len(b), err)
				}
			}
		}
	})
}

// proxy puts us before a server: client → Server → Client → h.
func proxy(t *testing.T, e loop.Engine, h http.HandlerFunc, c ClientConfig) (front string, client *Client, back *httptest.Server) {
	back = httptest.NewServer(h)
	t.Cleanup(back.Close)
	c.Engine = e
	client = NewClient(back.Listener.Addr().String(), c)
	return listen(t, e, client.Serve, ServerConfig{}), client, back
}

func TestProxy(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		front, client, _ := proxy(t, e, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("X-Answer", "yes")
			w.Header().Set("Keep-Alive", "timeout=5")
			w.Header().Set("Trailer", "X-Sum")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(418)
			fmt.Fprintf(w, "%s %s %s %s %s %s", r.Method, r.RequestURI, r.Host, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"), b)
			_ = http.NewResponseController(w).Flush()
			w.Header().Set("X-Sum", "1")
		}, ClientConfig{})
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		for range 50 {
			for _, body := range []io.Reader{nil, strings.NewReader("body"), struct{ io.Reader }{strings.NewReader("body")}} {
				req, _ := http.NewRequestWithContext(t.Context(), "PUT", "http://"+front+"/a%2Fb//c?x=%31", body)
				req.Host = "shop.example"
				req.Header.Set("X-Forwarded-For", "1.2.3.4")
				req.Header.Set("X-Forwarded-Proto", "https")
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				want := "PUT /a%2Fb//c?x=%31 shop.example 1.2.3.4, 127.0.0.1 http "
				if body != nil {
					want += "body"
				}
				if err != nil || res.StatusCode != 418 || string(b) != want || res.Header.Get("X-Answer") != "yes" || res.Header.Get("Keep-Alive") != "" || res.Trailer.Get("X-Sum") != "1" {
					t.Fatalf("%d %q %v %v %v", res.StatusCode, b, res.Header, res.Trailer, err)
				}
			}
		}
		if st := client.Stats(); st.Open != 1 {
			t.Errorf("%d connections for requests one after the other", st.Open)
		}
		client.Close()
		for st := client.Stats(); st.Open != 0 || st.Idle != 0; st = client.Stats() { // the last one may be on its way back
			if t.Context().Err() != nil {
				t.Fatalf("left open: %+v", st)
			}
			runtime.Gosched()
		}
	})
}

// A server that closes kept connections: whoever may be sent again is, and nobody sees it.
func TestStale(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var served atomic.Int64
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { // one request a connection, but it does not say so; the second it cuts off
					defer c.Close()
					r := bufio.NewReader(c)
					for n := range 2 {
						req, err := http.ReadRequest(r)
						if err != nil {
							return
						}
						_, _ = io.Copy(io.Discard, req.Body)
						if n == 0 {
							served.Add(1)
							_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
						}
					}
				}()
			}
		}()
		client := NewClient(l.Addr().String(), ClientConfig{Engine: e})
		defer client.Close()
		front := listen(t, e, client.Serve, ServerConfig{})
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		failed := 0
		for i := range 20 {
			method, body := "GET", io.Reader(nil)
			switch i % 4 {
			case 1:
				method, body = "PUT", strings.NewReader("small")
			case 3:
				method, body = "POST", strings.NewReader("small")
			}
			req, _ := http.NewRequestWithContext(t.Context(), method, "http://"+front, body)
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if method == "POST" && res.StatusCode == 503 {
				failed++ // it may have been acted on: its sender decides
			} else if res.StatusCode != 200 || string(b) != "ok" {
				t.Errorf("%d %s: %d %s", i, method, res.StatusCode, b)
			}
		}
		if failed == 0 || served.Load() != int64(20-failed) {
			t.Errorf("%d posts failed, %d requests served", failed, served.Load())
		}
	})
}

func TestFailures(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close() // nobody listens there now
		refused := NewClient(l.Addr().String(), ClientConfig{Engine: e})
		address := listen(t, e, refused.Serve, ServerConfig{})
		if got := raw(t, address, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "start the program") {
			t.Errorf("%q", got)
		}
		for answer, want := range map[string]string{
			"":                                  "503",
			"HTTP/1.1 200 OK\r\nContent-Le":     "503",
			"nonsense\r\n\r\n":                  "503",
			"HTTP/1.1 101 Switching\r\n\r\n":    "503",
			"HTTP/1.1 200 OK\nX: 1\n\n":         "503",
			"HTTP/1.1 200 OK\r\n\r\nto the end": "200",
		} {
			up, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				c, err := up.Accept()
				if err != nil {
					return
				}
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, answer)
				c.Close()
			}()
			client := NewClient(up.Addr().String(), ClientConfig{Engine: e})
			if got := raw(t, listen(t, e, client.Serve, ServerConfig{}), "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
				t.Errorf("%q: %q", answer, got)
			}
			client.Close()
			up.Close()
		}
	})
}

// What a target answers is never more or less than what it says, or the client sees it broken.
func TestBrokenAnswers(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		for name, c := range map[string]struct {
			res    loam.Response
			status string
		}{
			"error":     {loam.Response{Length: -1, Body: io.NopCloser(io.MultiReader(strings.NewReader("ab"), failing{}))}, "200"},
			"short":     {loam.Response{Length: 5, Body: io.NopCloser(strings.NewReader("ab"))}, "200"},
			"long":      {loam.Response{Length: 1, Body: io.NopCloser(strings.NewReader("ab"))}, "200"},
			"injection": {loam.Response{Header: loam.Header{{Name: "X", Value: "1\r\nY: 2"}}}, "500"},
			"name":      {loam.Response{Header: loam.Header{{Name: "X\r\nY", Value: "1"}}}, "500"},
			"status":    {loam.Response{Status: 99}, "500"},
		} {
			address := listen(t, e, func(*loam.Request) (*loam.Response, error) { res := c.res; return &res, nil }, ServerConfig{})
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			_ = conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				if strconv.Itoa(res.StatusCode) != c.status || res.Header.Get("Y") != "" {
					t.Errorf("%s: %d %v", name, res.StatusCode, res.Header)
				}
			}
			if (err == nil) != (c.status == "500") {
				t.Errorf("%s: %v", name, err)
			}
			conn.Close()
		}
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

func TestPanic(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		address := listen(t, e, func(*loam.Request) (*loam.Response, error) { panic("in a target") }, ServerConfig{})
		for range 3 {
			if got := raw(t, address, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 500 ") || strings.Contains(got, "in a target") {
				t.Errorf("%q", got)
			}
		}
	})
}

func TestLimits(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		config := ServerConfig{Options: protocol.Options{MaxBody: 1 << 10, Log: silent}, Limits: Limits{Head: 1 << 10, Fields: 10}}
		whole := func(r *loam.Request) (*loam.Response, error) {
			if r.Body != nil {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					return nil, err
				}
			}
			return hello(r)
		}
		address := listen(t, e, whole, config)
		config.HeadTimeout, config.BodyTimeout = 50*time.Millisecond, 50*time.Millisecond
		impatient := listen(t, e, whole, config)
		for name, c := range map[string]struct{ in, want string }{
			"head":         {"GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("h", 20<<10) + "\r\n\r\n", "431"},
			"fields":       {"GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: 1\r\n", 11) + "\r\n", "431"},
			"body":         {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n" + strings.Repeat("b", 4_000_000), "413"},
			"chunks":       {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n" + strings.Repeat("b", 0x800) + "\r\n0\r\n\r\n", "413"},
			"tiny chunks":  {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("x", 900)+"\r\nx\r\n", 100) + "0\r\n\r\n", "400"},
			"slow head":    {"GET / HTTP/1.1\r\nHost: ", "408"},
			"silent body":  {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab", "408"},
			"broken chunk": {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
			"expectation":  {"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n", "413"},
		} {
			at := address
			if c.want == "408" {
				at = impatient
			}
			if got := raw(t, at, c.in); !strings.HasPrefix(got, "HTTP/1.1 "+c.want) {
				t.Errorf("%s: %.200q", name, got)
			}
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
		b := make([]byte, 25)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "HTTP/1.1 100 Continue\r\n\r\n" {
			t.Fatalf("%q %v", b, err)
		}
		_, _ = io.WriteString(c, "ab")
		if rest, _ := io.ReadAll(c); !strings.HasPrefix(string(rest), "HTTP/1.1 200") {
			t.Errorf("%q", rest)
		}
	})
}

// A body that comes, but next to nothing of it, is the sender's fault; one that is late for the target's sake is not.
func TestMinRate(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		address := listen(t, e, func(r *loam.Request) (*loam.Response, error) {
			for b := make([]byte, 1); ; { // it takes its time: the body has come long before
				if _, err := r.Body.Read(b); errors.Is(err, io.EOF) {
					return hello(r)
				} else if err != nil {
					return nil, err
				}
				if err := loam.Sleep(r.Task(), time.Millisecond); err != nil {
					return nil, err
				}
			}
		}, ServerConfig{Options: protocol.Options{MinRate: 1 << 20, Log: silent}, BodyTimeout: 50 * time.Millisecond})
		if got := raw(t, address, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 100\r\n\r\n"+strings.Repeat("b", 100)); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("a slow target: %q", got)
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n")
			often := time.NewTicker(5 * time.Millisecond) // well within the time of a pause
			defer often.Stop()
			for err == nil {
				<-often.C
				_, err = c.Write([]byte("b"))
			}
		}()
		b := make([]byte, 13)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "HTTP/1.1 408 " {
			t.Errorf("a sender of a byte at a time: %q %v", b, err)
		}
	})
}

// A client that goes away ends its request's context.
func TestGoneClient(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		began, ended := make(chan struct{}), make(chan error, 1)
		address := listen(t, e, func(r *loam.Request) (*loam.Response, error) {
			ctx := r.Context()
			close(began)
			r.Task().Await(func() { <-ctx.Done() })
			ended <- ctx.Err()
			return nil, ctx.Err()
		}, ServerConfig{})
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		<-began
		c.Close()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A connection that changes protocol carries bytes both ways, those that were sent too early included.
func TestUpgrade(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		front, _, _ := proxy(t, e, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "echo" {
				w.WriteHeader(400)
				return
			}
			c, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly ")
			_ = rw.Flush()
			_, _ = io.Copy(c, rw)
		}, ClientConfig{})
		c, err := net.Dial("tcp", front)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\nfirst ")
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "echo" {
			t.Fatal(res, err)
		}
		_, _ = io.WriteString(c, "second")
		b := make([]byte, len("early first second"))
		if _, err := io.ReadFull(r, b); err != nil || string(b) != "early first second" {
			t.Errorf("%q %v", b, err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
			t.Errorf("%q %v", rest, err)
		}
		if got := raw(t, front, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: close\r\nUpgrade: echo\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Errorf("an Upgrade that Connection does not list was passed on: %q", got)
		}
	})
}
