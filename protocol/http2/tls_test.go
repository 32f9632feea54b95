package http2_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/http2"
)

// secured is a session that speaks TLS before it becomes one of HTTP/2, as a listener does it.
type secured struct {
	s      *http2.Server
	config *tls.Config
	next   loop.Session
}

func (s *secured) Close() {
	if s.next != nil {
		s.next.Close()
	}
}

func (s *secured) Serve(t loam.Task, c loop.Conn) loop.Verdict {
	if s.next == nil {
		secure := loop.TLSServer(c, nil, s.config)
		if secure.Handshake(t, true) != nil {
			return loop.Close
		}
		s.next = s.s.Session(secure, secure, &loam.Peer{Protocol: secure.ConnectionState().NegotiatedProtocol}, nil)
		return s.next.Serve(t, secure)
	}
	return s.next.Serve(t, c)
}

// Everything in TLS: a client that is not ours, our proxy, a server that is not ours.
func TestTLS(t *testing.T) {
	behind := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Proto", r.Proto+" "+r.Header.Get("X-Forwarded-Proto"))
		_, _ = io.Copy(w, r.Body) // the client sees what is missing
	}))
	behind.EnableHTTP2 = true
	behind.StartTLS()
	defer behind.Close()
	roots := x509.NewCertPool()
	roots.AddCert(behind.Certificate())
	engines(t, func(t *testing.T, e *engine) {
		cl := e.client(behind.Listener.Addr().String(), func(c *http2.ClientConfig) {
			c.TLS = &tls.Config{RootCAs: roots, ServerName: "example.com"}
		})
		defer cl.Close()
		s := http2.NewServer(cl, http2.ServerConfig{Options: protocol.Options{Log: e.log}, Hub: e.hub})
		config := &tls.Config{Certificates: behind.TLS.Certificates, NextProtos: []string{"h2"}}
		ln, err := e.Listen(t.Context(), "tcp", "127.0.0.1:0", loop.ListenOptions{Open: func(loop.Conn) loop.Session { return &secured{s: s, config: config} }})
		if err != nil {
			t.Fatal(err)
		}
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		client := &http.Client{Transport: tr, Timeout: 2 * time.Minute}
		var wg sync.WaitGroup
		for _, size := range []int{0, 10, 100_000, 3_000_000} {
			wg.Go(func() {
				body := strings.Repeat("0123456789", size/10)
				res, err := client.Post("https://"+ln.Addr().String()+"/", "text/plain", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || string(got) != body || res.ProtoMajor != 2 || res.Header.Get("X-Proto") != "HTTP/2.0 https" {
					t.Errorf("%d bytes of %d, %s, %v, %v", len(got), size, res.Proto, res.Header, err)
				}
			})
		}
		wg.Wait()
	})
	engines(t, func(t *testing.T, e *engine) { // a server that does not speak HTTP/2
		old := httptest.NewUnstartedServer(http.NotFoundHandler())
		old.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
		old.StartTLS()
		defer old.Close()
		cl := e.client(old.Listener.Addr().String(), func(c *http2.ClientConfig) { c.TLS = &tls.Config{RootCAs: roots, ServerName: "example.com"} })
		if _, _, err := e.do(t, cl, ask("/")); loam.CodeOf(err) != loam.Unavailable || !strings.Contains(loam.HintOf(err), "HTTP/2") {
			t.Errorf("%v, hint %q", err, loam.HintOf(err))
		}
	})
}

// Requests of one loop's connections are served by connections of that loop, however many loops there are.
func TestLoops(t *testing.T) {
	e := newEngine(t, false, 3)
	up := upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	address, _ := e.serve(t, e.client(up))
	var wg sync.WaitGroup
	for range 12 {
		client := h2c(t)
		for range 4 {
			wg.Go(func() {
				for range 10 {
					res, err := client.Post("http://"+address+"/", "text/plain", strings.NewReader("hello"))
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(res.Body)
					res.Body.Close()
					if err != nil || string(got) != "hello" {
						t.Errorf("%q, %v", got, err)
					}
				}
			})
		}
	}
	wg.Wait()
}

// A target that waits for a body which comes by TLS lets the loop go on.
func TestBodyOverTLS(t *testing.T) {
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	defer certified.Close()
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	engines(t, func(t *testing.T, e *engine) {
		first := make(chan struct{}, 1)
		s := http2.NewServer(loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			b := make([]byte, 1)
			if _, err := io.ReadFull(req.Body, b); err != nil {
				return nil, err
			}
			first <- struct{}{}
			rest, err := io.ReadAll(req.Body)
			return loam.NewResponse(200, "text/plain", append(b, rest...)), err
		}), http2.ServerConfig{Options: protocol.Options{Log: e.log}, Hub: e.hub})
		config := &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: []string{"h2"}}
		ln, err := e.Listen(t.Context(), "tcp", "127.0.0.1:0", loop.ListenOptions{Open: func(loop.Conn) loop.Session { return &secured{s: s, config: config} }})
		if err != nil {
			t.Fatal(err)
		}
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		r, w := io.Pipe()
		go func() {
			_, _ = io.WriteString(w, "a") // what is missing is missed below
			<-first
			_, _ = io.WriteString(w, "b")
			_ = w.Close()
		}()
		res, err := (&http.Client{Transport: tr, Timeout: 2 * time.Minute}).Post("https://"+ln.Addr().String()+"/", "text/plain", r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); err != nil || string(b) != "ab" {
			t.Errorf("%q, %v", b, err)
		}
	})
}
