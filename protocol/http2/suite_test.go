package http2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/http2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engines runs a test over each engine that this system has.
func engines(t *testing.T, test func(t *testing.T, e *engine)) {
	for _, goroutines := range []bool{true, false} {
		e := newEngine(t, goroutines)
		if !goroutines && e.name == "goroutines" {
			continue // there are no event loops here
		}
		t.Run(e.name, func(t *testing.T) { test(t, e) })
	}
}

// newEngine makes an engine that ends with the test.
func newEngine(t testing.TB, goroutines bool, loops ...int) *engine {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	e := loop.New(loop.Options{Goroutines: goroutines, Log: log, Loops: append(loops, 1)[0]})
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	name := fmt.Sprintf("%T", e)
	return &engine{Engine: e, hub: http2.NewHub(e), log: log, name: name[strings.LastIndexByte(name, '.')+1:]}
}

type engine struct {
	loop.Engine
	hub  *http2.Hub
	log  *slog.Logger
	name string
}

// serve listens for a server of target and returns its address.
func (e *engine) serve(t testing.TB, target loam.Target, change ...func(*http2.ServerConfig)) (address string, s *http2.Server) {
	t.Helper()
	c := http2.ServerConfig{Options: protocol.Options{Log: e.log}, Hub: e.hub}
	for _, f := range change {
		f(&c)
	}
	s = http2.NewServer(target, c)
	ln, err := e.Listen(context.Background(), "tcp", "127.0.0.1:0", loop.ListenOptions{Open: func(c loop.Conn) loop.Session { return s.Session(c, nil, nil, nil) }})
	if err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String(), s
}

func (e *engine) client(address string, change ...func(*http2.ClientConfig)) *http2.Client {
	c := http2.ClientConfig{Hub: e.hub}
	for _, f := range change {
		f(&c)
	}
	return http2.NewClient(address, c)
}

// do sends a request by a client from a task of the engine and returns what came back.
func (e *engine) do(t testing.TB, target loam.Target, req *loam.Request) (res *loam.Response, body string, err error) {
	t.Helper()
	done := make(chan struct{})
	e.Go(func(task loam.Task) {
		defer close(done)
		defer req.End()
		req.Begin(task)
		var r *loam.Response
		if r, err = target.Serve(req); err != nil {
			return
		}
		if r.Body != nil {
			var b []byte
			b, err = io.ReadAll(r.Body)
			body = string(b)
		}
		res = &loam.Response{Status: r.Status, Length: r.Length, Header: append(loam.Header(nil), r.Header...), Trailer: append(loam.Header(nil), r.Trailer...)}
		err = errors.Join(err, r.Close())
	})
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("no answer")
	}
	return res, body, err
}

// h2c is net/http's client over plain TCP.
func h2c(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 2 * time.Minute}
}

// upstream is net/http's server over plain TCP.
func upstream(t testing.TB, h http.Handler) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return ln.Addr().String()
}

// echo answers with what it was asked.
var echo = loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
	res := &loam.Response{Status: 200, Length: req.Length, Body: io.NopCloser(strings.NewReader(""))}
	res.Header.Add("X-Path", req.Path+"?"+req.RawQuery)
	res.Header.Add("X-Authority", req.Authority)
	res.Header.Add("X-Method", req.Method)
	if v := req.Header.Get("x-give"); v != "" {
		res.Header.Add("X-Given", v)
	}
	if v := req.Header.Get("cookie"); v != "" {
		res.Header.Add("X-Cookie", v)
	}
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		res.Body = io.NopCloser(strings.NewReader(string(b)))
		res.Length = int64(len(b))
		for _, f := range req.Trailer {
			res.Header.Add("Got-"+f.Name, f.Value)
		}
	}
	return res, nil
})
