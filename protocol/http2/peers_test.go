package http2_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/http2"
)

// A client that is not ours asks our server.
func TestServerAnswersNetHTTP(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		address, _ := e.serve(t, echo)
		client := h2c(t)
		for _, size := range []int{0, 1, 1000, 16384, 16385, 100_000, 3_000_000} {
			body := strings.Repeat("0123456789", size/10+1)[:size]
			req, _ := http.NewRequest("POST", "http://"+address+"/a/b?c=d", strings.NewReader(body))
			req.Header.Set("X-Give", "back")
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(got) != body {
				t.Errorf("%d bytes: got %d, %v", size, len(got), err)
			}
			if res.StatusCode != 200 || res.Header.Get("X-Path") != "/a/b?c=d" || res.Header.Get("X-Given") != "back" || res.Header.Get("X-Request-Id") == "" || res.Header.Get("Date") == "" {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
		}
	})
}

// Our server sends on by our client to a server that is not ours.
func TestProxy(t *testing.T) {
	behind := upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Path", r.URL.String())
		w.Header().Set("X-For", r.Header.Get("X-Forwarded-For"))
		b := new(bytes.Buffer)
		n, err := io.Copy(b, r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Got-Trailer", r.Trailer.Get("X-In"))
		w.WriteHeader(201)
		_, _ = b.WriteTo(w)
		w.Header().Set("X-Sum", strings.Repeat("x", int(n%10)))
	}))
	engines(t, func(t *testing.T, e *engine) {
		address, _ := e.serve(t, e.client(behind))
		client := h2c(t)
		var wg sync.WaitGroup
		for i, size := range []int{0, 1, 5, 1000, 16384, 16385, 100_000, 1 << 20, 3_000_001} {
			wg.Go(func() {
				for range 3 {
					body := strings.Repeat("0123456789", size/10+1)[:size]
					req, _ := http.NewRequest("POST", "http://"+address+"/a/b?c=d", io.NopCloser(strings.NewReader(body)))
					if i%2 == 0 {
						req.Trailer = http.Header{"X-In": {"yes"}}
					}
					res, err := client.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(res.Body)
					res.Body.Close()
					if err != nil || string(got) != body {
						t.Errorf("%d bytes: got %d, %v", size, len(got), err)
					}
					if res.StatusCode != 201 || res.Header.Get("X-Path") != "/a/b?c=d" || res.Header.Get("X-For") != "127.0.0.1" || len(res.Trailer.Get("X-Sum")) != size%10 {
						t.Errorf("%d %v %v", res.StatusCode, res.Header, res.Trailer)
					}
					if want := ""; i%2 == 0 {
						want = "yes"
						if got := res.Header.Get("X-Got-Trailer"); got != want {
							t.Errorf("trailer %q, want %q", got, want)
						}
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestClient(t *testing.T) {
	behind := upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Method", r.Method)
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(204)
		default:
			_, _ = w.Write(b)
		}
	}))
	engines(t, func(t *testing.T, e *engine) {
		cl := e.client(behind)
		for _, size := range []int{0, 10, 20_000, 500_000} {
			body := strings.Repeat("a", size)
			for _, length := range []int64{int64(size), -1} {
				req := &loam.Request{Method: "PUT", Path: "/x", Scheme: "http", Authority: "up", Body: io.NopCloser(strings.NewReader(body)), Length: length}
				res, got, err := e.do(t, cl, req)
				if err != nil || res.Status != 200 || got != body {
					t.Errorf("size %d, length %d: %v, %d bytes, %v", size, length, res, len(got), err)
				}
			}
		}
		res, body, err := e.do(t, cl, &loam.Request{Method: "GET", Path: "/none", Scheme: "http", Authority: "up"})
		if err != nil || res.Status != 204 || body != "" {
			t.Errorf("%v, %q, %v", res, body, err)
		}
		res, body, err = e.do(t, cl, &loam.Request{Method: "HEAD", Path: "/", Scheme: "http", Authority: "up"})
		if err != nil || res.Status != 200 || body != "" {
			t.Errorf("%v, %q, %v", res, body, err)
		}
	})
}

// A client that reads by a little at a time opens its windows as often, for which it is not sent away.
func TestSmallReads(t *testing.T) {
	const size = 8 << 20
	engines(t, func(t *testing.T, e *engine) {
		address, _ := e.serve(t, loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
			return loam.NewResponse(200, "text/plain", make([]byte, size)), nil
		}), func(c *http2.ServerConfig) { c.Nuisance = 50 })
		res, err := h2c(t).Get("http://" + address)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got := 0
		for b := make([]byte, 4096); ; {
			n, err := res.Body.Read(b)
			got += n
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("after %d bytes: %v", got, err)
			}
		}
		if got != size {
			t.Errorf("%d bytes", got)
		}
	})
}
