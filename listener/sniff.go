package listener

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/http2"
)

// open begins a connection: what it is shows when its first bytes come, or is known.
func (l *Listener) open(c loop.Conn) loop.Session { return &newcomer{l: l} }

// newcomer is a connection that has not said yet what it speaks.
type newcomer struct {
	l    *Listener
	next loop.Session // what it turned out to be
}

// Eager says that the connection is passed on, whatever it speaks: the server may speak first.
func (n *newcomer) Eager() bool { return n.l.service.Load().TCP != nil }

// Close ends what the connection became.
func (n *newcomer) Close() {
	if n.next != nil {
		n.next.Close()
	}
}

// Quiet says that no request is under way, on a connection that nobody serves at this moment: none of HTTP/1 then, while
// HTTP/2 serves requests without being served itself.
func (n *newcomer) Quiet() bool {
	if q, ok := n.next.(interface{ Quiet() bool }); ok {
		return q.Quiet()
	}
	return true
}

// recordHandshake is the first byte of a client that speaks TLS.
const recordHandshake = 0x16

// Serve looks at the first bytes and goes on as what they say.
func (n *newcomer) Serve(t loam.Task, c loop.Conn) loop.Verdict {
	if n.next != nil {
		return n.next.Serve(t, c)
	}
	s := n.l.service.Load()
	if s.TCP != nil {
		return n.connect(t, c, s.TCP, nil, nil)
	}
	if c.SetReadDeadline(t.Now().Add(n.l.c.HeadTimeout)) != nil {
		return loop.Close
	}
	first := make([]byte, 1, len(http2.Preface))
	if _, err := io.ReadFull(c, first); err != nil {
		return loop.Close
	}
	if s.TLS != nil && first[0] == recordHandshake {
		return n.secure(t, c, s, first)
	}
	if !s.Plain {
		if s.HTTP == nil {
			return loop.Close
		}
		return n.refusePlain(c)
	}
	// The client of HTTP/2 says so by 24 bytes, of which the first differ from every request's but one of method PRI.
	for bytes.HasPrefix([]byte(http2.Preface), first) && len(first) < len(http2.Preface) {
		m, err := c.Read(first[len(first):cap(first)])
		if first = first[:len(first)+m]; err != nil {
			return loop.Close
		}
	}
	if c.SetReadDeadline(time.Time{}) != nil {
		return loop.Close
	}
	if string(first) == http2.Preface {
		n.next = n.l.http2.Session(c, c, nil, first)
	} else {
		n.next = n.l.http1.Session(c, c, nil, first)
	}
	return n.next.Serve(t, c)
}

// refusePlain answers a client that should have spoken TLS in the words it understands.
func (n *newcomer) refusePlain(c loop.Conn) loop.Verdict {
	const words = "Client sent an HTTP request to an HTTPS server.\n"
	_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 48\r\nConnection: close\r\n\r\n"+words)
	return loop.Close
}

// secure serves a client of TLS: by decrypting what it sends, or by passing it on.
func (n *newcomer) secure(t loam.Task, c loop.Conn, s *Service, first []byte) loop.Verdict {
	until := t.Now().Add(n.l.c.HandshakeTimeout)
	if c.SetDeadline(until) != nil {
		return loop.Close
	}
	read := first
	if s.Stream != nil {
		hello, all, err := clientHello(&replay{Conn: c, read: first})
		if err != nil {
			return loop.Close
		}
		read = all
		if to := s.Stream(hello.ServerName); to != nil {
			return n.connect(t, c, to, &loam.Peer{ServerName: hello.ServerName}, read)
		}
	}
	secure := loop.TLSServer(c, read, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if config := s.TLS(hello.ServerName); config != nil {
			return config, nil
		}
		return nil, errors.New("no certificate for that name") // the client gets the alert internal_error
	}})
	if err := secure.Handshake(t, true); err != nil { // on another thread: it takes as long as a hundred requests
		n.l.c.Log.Debug("handshake failed", "remote", c.RemoteAddr(), "error", err)
		return loop.Close
	}
	if secure.SetDeadline(time.Time{}) != nil {
		return loop.Close
	}
	state := secure.ConnectionState()
	peer := &loam.Peer{ServerName: state.ServerName, Protocol: state.NegotiatedProtocol}
	if len(state.VerifiedChains) > 0 {
		peer.Chain = state.VerifiedChains[0]
	}
	if s.Within != nil {
		if to := s.Within(state.ServerName); to != nil {
			return n.connect(t, secure, to, peer, nil)
		}
	}
	if state.NegotiatedProtocol == "h2" {
		n.next = n.l.http2.Session(secure, secure, peer, nil)
	} else {
		n.next = n.l.http1.Session(secure, secure, peer, nil)
	}
	return n.next.Serve(t, secure)
}

// connect passes a connection on, with what was read of it. The connection is a request to the target, which answers
// with the upstream's end, and ends when both do. peer is nil where it is none of TLS.
func (n *newcomer) connect(t loam.Task, c loop.Conn, to loam.Target, peer *loam.Peer, read []byte) loop.Verdict {
	if c.SetDeadline(time.Time{}) != nil {
		return loop.Close
	}
	start := t.Now()
	req := new(loam.Request)
	req.Begin(t)
	req.Method, req.Scheme, req.Path, req.Remote, req.Peer = "CONNECT", "tcp", "/", c.RemoteAddr().String(), peer
	if peer != nil {
		req.Authority = peer.ServerName
	}
	req.ID = string(n.l.ids.Append(nil))
	res, err := protocol.Serve(to, req, n.l.c.Log)
	if err != nil || res.Tunnel == nil {
		n.l.c.Log.Warn("connection not passed on", "remote", req.Remote, "route", req.Route, "error", err, "hint", loam.HintOf(err))
		if req.Observer != nil {
			req.Observer.Observe(req, http.StatusServiceUnavailable, 0, t.Now().Sub(start))
		}
		req.End()
		return loop.Close
	}
	loop.Relay{A: c, B: res.Tunnel, FromA: read, Idle: time.Hour, Tag: req.Route, Done: func(_, toClient int64) {
		if req.Observer != nil {
			req.Observer.Observe(req, http.StatusOK, toClient, time.Since(start))
		}
		req.End()
	}}.Start(t)
	return loop.Handed
}

// replay is a connection of which bytes were read already.
type replay struct {
	net.Conn
	read []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.read) > 0 {
		n := copy(p, r.read)
		r.read = r.read[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// clientHello reads what a client of TLS says first, and returns the bytes it read for that. It has crypto/tls read
// them: a handshake that ends as soon as the hello is understood, on a connection that cannot be written to.
func clientHello(c net.Conn) (hello tls.ClientHelloInfo, read []byte, err error) {
	tee := &recorder{Conn: c}
	understood := false
	err = tls.Server(tee, &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		hello, understood = *info, true
		return nil, errUnderstood
	}}).HandshakeContext(context.Background())
	if understood {
		return hello, tee.read, nil
	}
	return hello, nil, err
}

var errUnderstood = errors.New("understood")

type recorder struct {
	net.Conn
	read []byte
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.read = append(r.read, p[:n]...)
	return n, err
}

func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }
func (r *recorder) Close() error                { return nil }
