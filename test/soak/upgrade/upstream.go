//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// upstreams are what the process under test leads to: they live in the driver and are never replaced.
type upstreams struct {
	http, grpc, tcp, app string // addresses
	servers              []io.Closer

	mu     sync.Mutex
	events map[string]int // deliveries, by id
	twice  []string       // what the function saw twice
}

func startUpstreams() (*upstreams, error) {
	u := &upstreams{events: map[string]int{}}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	for _, s := range []struct {
		address *string
		serve   func(net.Listener) io.Closer
	}{
		{&u.http, serveHTTP(&http.Server{Handler: http.HandlerFunc(echo)})},
		{&u.grpc, serveHTTP(&http.Server{Handler: http.HandlerFunc(grpcEcho), Protocols: &protocols})},
		{&u.app, serveHTTP(&http.Server{Handler: http.HandlerFunc(u.event)})},
		{&u.tcp, serveTCP},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		*s.address = l.Addr().String()
		u.servers = append(u.servers, s.serve(l))
	}
	return u, nil
}

func (u *upstreams) close() {
	for _, s := range u.servers {
		s.Close()
	}
}

func serveHTTP(s *http.Server) func(net.Listener) io.Closer {
	return func(l net.Listener) io.Closer {
		go s.Serve(l)
		return s
	}
}

func serveTCP(l net.Listener) io.Closer {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // the client sees what is missing
			}()
		}
	}()
	return l
}

// echo answers with what it got, or leaves HTTP to echo bytes.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(c, rw)
		return
	}
	if d, err := time.ParseDuration(r.Header.Get("X-Wait")); err == nil {
		time.Sleep(d)
	}
	b, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(b)
}

// grpcEcho sends each message back as it comes, one or many.
func grpcEcho(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	for {
		m, err := readMessage(r.Body)
		if errors.Is(err, io.EOF) {
			w.Header().Set("Grpc-Status", "0")
			return
		}
		if err == nil {
			err = writeMessage(w, m)
		}
		if err == nil {
			err = flush.Flush()
		}
		if err != nil {
			w.Header().Set("Grpc-Status", "13")
			return
		}
	}
}

// event counts the deliveries of an event.
func (u *upstreams) event(w http.ResponseWriter, r *http.Request) {
	var e struct {
		ID   string
		Data string
	}
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.events[e.ID]++
	if strings.Contains(e.Data, "twice") {
		u.twice = append(u.twice, e.ID)
	}
}

// count is how often an event came.
func (u *upstreams) count(id string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.events[id]
}
