package http2_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/http2"
)

// behind listens for what a test does as a server, one connection after another. Each has been greeted.
func behind(t *testing.T, settings []byte, serve ...func(r *raw)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, f := range serve {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				r := newRaw(t, c)
				defer c.Close()
				r.send(frame(nil, 4, 0, 0, settings))
				if _, err := io.ReadFull(c, make([]byte, len(http2.Preface))); err != nil {
					return
				}
				f(r)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

func ask(path string) *loam.Request {
	return &loam.Request{Method: "GET", Scheme: "http", Authority: "up", Path: path}
}

var ok200 = block(":status", "200")

// reply answers a stream.
func (r *raw) reply(id uint32) { r.send(frame(nil, 1, 5, id, ok200)) }

// answer answers everything until the connection ends.
func answer(r *raw) {
	for {
		g, ok := r.next()
		if !ok {
			return
		}
		if g.kind == 1 {
			if _, err := r.Write(frame(nil, 1, 5, g.id, ok200)); err != nil {
				return
			}
		}
	}
}

// Requests that the server has surely not processed are sent again; others say what is known.
func TestRetries(t *testing.T) {
	refuse := func(r *raw) {
		g := r.want(1, 1)
		r.send(frame(nil, 3, 0, g.id, []byte{0, 0, 0, 7}))
		answer(r)
	}
	goAway := func(last byte, code byte) func(r *raw) {
		return func(r *raw) {
			r.want(1, 1)
			r.send(frame(nil, 7, 0, 0, []byte{0, 0, 0, last, 0, 0, 0, code}))
		}
	}
	for name, c := range map[string]struct {
		serve []func(*raw)
		want  error
		code  loam.Code
	}{
		"refused":                          {serve: []func(*raw){refuse}},
		"it goes away before it":           {serve: []func(*raw){goAway(0, 0), answer}},
		"it goes away and does not answer": {serve: []func(*raw){goAway(1, 0)}, want: protocol.ErrConnectionLost, code: loam.Unavailable},
		"the connection ends":              {serve: []func(*raw){func(r *raw) { r.want(1, 1) }}, want: protocol.ErrConnectionLost, code: loam.Unavailable},
		"reset":                            {serve: []func(*raw){func(r *raw) { r.want(1, 1); r.send(frame(nil, 3, 0, 1, []byte{0, 0, 0, 2})); answer(r) }}, code: loam.Unavailable},
		"an answer that is none":           {serve: []func(*raw){func(r *raw) { r.want(1, 1); r.send(frame(nil, 1, 5, 1, block("x", "y"))); answer(r) }}, code: loam.Unavailable},
		"101":                              {serve: []func(*raw){func(r *raw) { r.want(1, 1); r.send(frame(nil, 1, 5, 1, block(":status", "101"))); answer(r) }}, code: loam.Unavailable},
		"content-length that is not kept": {serve: []func(*raw){func(r *raw) {
			r.want(1, 1)
			r.send(frame(nil, 1, 5, 1, block(":status", "200", "content-length", "3")))
			answer(r)
		}}, code: loam.Internal},
		"frames of a stream nobody opened": {serve: []func(*raw){func(r *raw) { r.want(1, 1); r.send(frame(nil, 1, 5, 5, ok200)); answer(r) }}, code: loam.Unavailable},
		"interim answers before the real one": {serve: []func(*raw){func(r *raw) {
			r.want(1, 1)
			r.send(frame(frame(nil, 1, 4, 1, block(":status", "103", "link", "x")), 1, 5, 1, ok200))
			answer(r)
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, e *engine) {
				cl := e.client(behind(t, nil, c.serve...))
				defer cl.Close()
				res, _, err := e.do(t, cl, ask("/"))
				if c.code == loam.OK {
					if err != nil || res.Status != 200 {
						t.Errorf("%v, %v", res, err)
					}
					return
				}
				if loam.CodeOf(err) != c.code || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func TestNobodyListens(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	engines(t, func(t *testing.T, e *engine) {
		_, _, err := e.do(t, e.client(ln.Addr().String()), ask("/"))
		if loam.CodeOf(err) != loam.Unavailable || !errors.Is(err, protocol.ErrConnect) || loam.HintOf(err) == "" {
			t.Errorf("%v, hint %q", err, loam.HintOf(err))
		}
	})
}

// A server's bound on streams is kept: more connections are made up to a bound, and then requests wait.
func TestStreamsOfTheServer(t *testing.T) {
	one := []byte{0, 3, 0, 0, 0, 1}
	engines(t, func(t *testing.T, e *engine) {
		var mu sync.Mutex
		conns := 0
		serve := func(r *raw) {
			mu.Lock()
			conns++
			mu.Unlock()
			mine := 0
			for {
				g, ok := r.next()
				if !ok {
					return
				}
				if g.kind != 1 {
					continue
				}
				mu.Lock()
				if mine++; mine > 1 {
					t.Error("two streams on a connection that takes one")
				}
				mine--
				mu.Unlock()
				r.reply(g.id)
			}
		}
		cl := e.client(behind(t, one, slices.Repeat([]func(*raw){serve}, 3)...), func(c *http2.ClientConfig) { c.MaxConnections = 3 })
		defer cl.Close()
		if _, _, err := e.do(t, cl, ask("/")); err != nil { // the bound is known once the settings are
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, _, err := e.do(t, cl, ask("/")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		mu.Lock()
		defer mu.Unlock()
		if conns > 3 {
			t.Errorf("%d connections", conns)
		}
	})
}

// A request whose deadline passes, or that nobody waits for any more, is taken back from the server.
func TestTakenBack(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		resets := make(chan http2.Code, 2)
		cl := e.client(behind(t, nil, func(r *raw) {
			for {
				g, ok := r.next()
				if !ok {
					return
				}
				if g.kind == 3 {
					resets <- g.code()
				}
			}
		}))
		defer cl.Close()
		req := ask("/")
		req.SetDeadline(time.Now().Add(50 * time.Millisecond))
		if _, _, err := e.do(t, cl, req); loam.CodeOf(err) != loam.DeadlineExceeded {
			t.Errorf("%v", err)
		}
		if code := <-resets; code != http2.Cancel {
			t.Errorf("reset with %v", code)
		}
		done := make(chan error, 1)
		e.Go(func(task loam.Task) {
			started := make(chan loam.Task, 1)
			child := task.Go(func(task loam.Task) {
				started <- task
				req := ask("/")
				req.Begin(task)
				_, err := cl.Serve(req)
				done <- err
			})
			_ = loam.Sleep(task, 20*time.Millisecond) // canceled before or while it waits: either is fine
			child.Cancel()
		})
		if err := <-done; loam.CodeOf(err) != loam.Canceled {
			t.Errorf("%v", err)
		}
	})
}

// A slow receiver does not hold up the others of one upstream connection.
func TestSlowReceiverHoldsUpNobody(t *testing.T) {
	up := upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			b := make([]byte, 1<<20)
			for range 3 {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}
	}))
	engines(t, func(t *testing.T, e *engine) {
		address, _ := e.serve(t, e.client(up, func(c *http2.ClientConfig) { c.MaxConnections = 1 }))
		slow := dialRaw(t, address)
		for id := uint32(1); id < 41; id += 2 {
			slow.send(frame(nil, 1, 5, id, block(":method", "GET", ":scheme", "http", ":authority", "h", ":path", "/large")))
		}
		sent := 0
		for sent < 65535 { // it is under way, and stops at the window of the slow client's connection
			g, ok := slow.next()
			if !ok {
				t.Fatal("the connection ended")
			}
			if g.kind == 0 {
				sent += len(g.payload)
			}
		}
		fast := dialRaw(t, address)
		for id := uint32(1); id < 41; id += 2 {
			fast.send(frame(nil, 1, 5, id, get()))
			if g := fast.want(1, id); g.field(":status") != "200" {
				t.Errorf("%v", g)
			}
		}
		// When it goes on, it gets all: nothing was lost.
		total := sent
		slow.send(frame(nil, 8, 0, 0, []byte{0x7f, 0, 0, 0}))
		for id := uint32(1); id < 41; id += 2 {
			slow.send(frame(nil, 8, 0, id, []byte{0x7f, 0, 0, 0}))
		}
		for ended := 0; ended < 20; {
			g, ok := slow.next()
			if !ok {
				t.Fatal("the connection ended")
			}
			if g.kind == 0 {
				total += len(g.payload)
				if g.flags&1 != 0 {
					ended++
				}
			}
		}
		if want := 20 * 3 << 20; total != want {
			t.Errorf("%d bytes, want %d", total, want)
		}
	})
}

// The client goes away in the middle: what was under way for it ends at the upstream.
func TestClientGoesAway(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		codes := make(chan http2.Code, 1)
		cl := e.client(behind(t, nil, func(r *raw) {
			r.want(1, 1)
			r.send(frame(nil, 1, 4, 1, ok200))
			codes <- r.want(3, 1).code()
		}))
		defer cl.Close()
		address, _ := e.serve(t, cl)
		r := dialRaw(t, address)
		r.send(frame(nil, 1, 4, 1, post("content-type", "application/grpc")))
		r.want(1, 1)
		r.Close()
		if code := <-codes; code != http2.Cancel {
			t.Errorf("%v", code)
		}
	})
}

// WebSocket over HTTP/2 in front, HTTP/2 behind: relayed frame by frame. And to a target that is not ours.
func TestExtendedConnect(t *testing.T) {
	open := block(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "h", ":path", "/chat", "sec-websocket-version", "13")
	talk := func(t *testing.T, address string) {
		r := dialRaw(t, address)
		r.send(frame(nil, 1, 4, 1, open))
		if g := r.want(1, 1); g.field(":status") != "200" || g.field("upgrade")+g.field("sec-websocket-accept") != "" || g.field("x-request-id") == "" || g.flags&1 != 0 {
			t.Fatalf("%v", g)
		}
		for _, say := range []string{"hello", "again"} {
			r.send(frame(nil, 0, 0, 1, []byte(say)))
			for heard := ""; heard != say; {
				heard += string(r.want(0, 1).payload)
				if !strings.HasPrefix(say, heard) {
					t.Fatalf("heard %q", heard)
				}
			}
		}
		r.send(frame(nil, 0, 1, 1, nil))
		if g := r.want(0, 1); g.flags&1 == 0 || len(g.payload) != 0 {
			t.Errorf("%v", g)
		}
	}
	engines(t, func(t *testing.T, e *engine) {
		echoing := e.echoTunnel(t)
		direct, _ := e.serve(t, echoing)
		talk(t, direct)
		// A client that breaks one off has its loop go on.
		r := dialRaw(t, direct)
		for id := uint32(1); id < 7; id += 2 {
			r.send(frame(nil, 1, 4, id, open))
			r.want(1, id)
			r.send(frame(nil, 3, 0, id, []byte{0, 0, 0, byte(http2.Cancel)}))
		}
		r.Close()
		relayed, _ := e.serve(t, e.client(direct))
		talk(t, relayed)
	})
	engines(t, func(t *testing.T, e *engine) { // a server that does not take it
		cl := e.client(upstream(t, http.NotFoundHandler()))
		defer cl.Close()
		req := ask("/")
		req.Header.Add("Upgrade", "websocket")
		if _, _, err := e.do(t, cl, req); loam.CodeOf(err) != loam.Unimplemented {
			t.Errorf("%v", err)
		}
	})
}

// echoTunnel is a target that leaves HTTP to a server which says everything again.
func (e *engine) echoTunnel(t *testing.T) loam.Target {
	ln, err := e.Listen(t.Context(), "tcp", "127.0.0.1:0", loop.ListenOptions{Open: func(loop.Conn) loop.Session { return again{} }})
	if err != nil {
		t.Fatal(err)
	}
	return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		if req.Method != "GET" || req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Sec-WebSocket-Key") == "" || req.Path != "/chat" {
			t.Errorf("%s %s %v", req.Method, req.Path, req.Header)
		}
		c, err := loop.Dial(req.Task(), "tcp", ln.Addr().String(), time.Time{})
		if err != nil {
			return nil, err
		}
		res := &loam.Response{Status: 101, Tunnel: c}
		res.Header.Add("Upgrade", "websocket")
		res.Header.Add("Sec-WebSocket-Accept", "x")
		return res, nil
	})
}

// again is a session that says everything again.
type again struct{}

func (again) Close() {}
func (again) Serve(t loam.Task, c loop.Conn) loop.Verdict {
	b := loop.Borrow(t, 4096)
	defer b.Free(t)
	for {
		n, err := c.Read(b.B)
		if n > 0 {
			_, err = c.Write(b.B[:n])
		}
		if err != nil {
			return loop.Close
		}
	}
}

// A stream whose answer broke off is broken off for who receives it, and one of gRPC says why.
func TestAnswerBreaksOff(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		half := func(r *raw) {
			r.want(1, 1)
			r.send(frame(frame(nil, 1, 4, 1, ok200), 0, 0, 1, []byte("half")))
			r.send(frame(nil, 3, 0, 1, []byte{0, 0, 0, 11}))
			answer(r)
		}
		cl := e.client(behind(t, nil, half))
		address, _ := e.serve(t, cl)
		r := dialRaw(t, address)
		r.send(frame(nil, 1, 5, 1, get()))
		if g := r.want(3, 1); g.code() != http2.EnhanceYourCalm {
			t.Errorf("%v", g)
		}
		cl.Close()
		cl = e.client(behind(t, nil, half))
		defer cl.Close()
		address, _ = e.serve(t, cl)
		r = dialRaw(t, address)
		r.send(frame(nil, 1, 4, 1, post("content-type", "application/grpc")))
		r.want(0, 1)
		if g := r.want(1, 1); g.field("grpc-status") != "8" || g.flags&1 == 0 {
			t.Errorf("%v", g)
		}
	})
}

// A body that stays silent longer than its request allows is given up, read by a task or relayed without one.
func TestIdleLimitOfARequest(t *testing.T) {
	codes := make(chan http2.Code, 1)
	stall := func(r *raw) {
		r.want(1, 1)
		r.send(frame(frame(nil, 1, 4, 1, ok200), 0, 0, 1, []byte("some")))
		codes <- r.want(3, 1).code()
		answer(r)
	}
	engines(t, func(t *testing.T, e *engine) {
		cl := e.client(behind(t, nil, stall))
		defer cl.Close()
		req := ask("/")
		req.Idle = 50 * time.Millisecond
		if _, body, err := e.do(t, cl, req); body != "some" || loam.CodeOf(err) != loam.DeadlineExceeded {
			t.Errorf("%q, %v", body, err)
		}
		if code := <-codes; code != http2.Cancel {
			t.Errorf("reset with %v", code)
		}
		relayed := e.client(behind(t, nil, stall))
		defer relayed.Close()
		address, _ := e.serve(t, loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			req.Idle = 50 * time.Millisecond
			return relayed.Serve(req)
		}))
		r := dialRaw(t, address)
		r.send(frame(nil, 1, 5, 1, get()))
		r.want(0, 1)
		if g := r.want(3, 1); g.code() != http2.InternalError {
			t.Errorf("%v", g)
		}
		if code := <-codes; code != http2.Cancel {
			t.Errorf("reset with %v", code)
		}
	})
}
