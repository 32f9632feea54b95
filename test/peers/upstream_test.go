//go:build peers

package peers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// An upstream writes down what reaches it. It reads with net/http, which is neither of those under test, and takes one
// request of a connection: what comes behind that on the same connection is written down as such.
type upstream struct {
	ln    net.Listener
	ended chan struct{}

	mu      sync.Mutex
	reached []*message // in the order that the connections came in
	conns   sync.WaitGroup
}

// message is what of a connection looked like a request.
type message struct {
	line   string // method and target
	fields string // that change what the connection is
	body   string
	whole  bool   // or the sender broke it off
	behind string // bytes that came behind it
}

func (m message) String() string {
	s := fmt.Sprintf("%s %d", m.line, len(m.body))
	if m.fields != "" {
		s += " (" + m.fields + ")"
	}
	if !m.whole {
		s += " broken off"
	}
	if m.behind != "" {
		s += fmt.Sprintf(" and behind it %q", m.behind)
	}
	return s
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{ln: ln, ended: make(chan struct{})}
	go func() {
		defer close(u.ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			m := &message{}
			u.mu.Lock()
			u.reached = append(u.reached, m)
			u.mu.Unlock()
			u.conns.Go(func() { *m = read(c) })
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close() // once
		<-u.ended
		u.conns.Wait()
	})
	return u
}

func (u *upstream) address() string { return u.ln.Addr().String() }

// read reads a request, answers it, and waits for the end of the connection. The zero message: nothing was sent.
func read(c net.Conn) (m message) {
	defer c.Close()
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			m.line = "no request: " + err.Error()
		}
		return m
	}
	m.line = req.Method + " " + req.RequestURI
	var fields []string
	for _, name := range []string{"Upgrade", "Http2-Settings", "Te", "Expect", "X-A"} {
		if v := req.Header.Values(name); v != nil {
			fields = append(fields, strings.ToLower(name)+" "+strings.Join(v, "|"))
		}
	}
	m.fields = strings.Join(fields, ", ")
	body, err := io.ReadAll(req.Body)
	if m.body = string(body); err != nil {
		return m
	}
	m.whole = true
	// What was seen goes back, so that the client can tell whose answer it is given.
	if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Saw: %s\r\nContent-Length: %d\r\n\r\n%s", m.line, len(m.line), m.line); err == nil {
		behind, _ := io.ReadAll(r) // up to the close, however that comes
		m.behind = string(behind)
	}
	return m
}

// take waits until every connection that was made is over, and returns what came on them.
func (u *upstream) take(t *testing.T) []message {
	t.Helper()
	// Connections are taken in the order they came in: once this one was served, all before it are being so.
	c, err := net.Dial("tcp", u.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /settle HTTP/1.1\r\nHost: settle\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	u.conns.Wait()
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []message
	for _, m := range u.reached {
		if m.line != "" && m.line != "GET /settle" {
			all = append(all, *m)
		}
	}
	u.reached = nil
	return all
}
