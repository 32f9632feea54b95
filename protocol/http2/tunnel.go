package http2

import (
	"cmp"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
)

// A connection that leaves HTTP is asked for by the field Upgrade in HTTP/1.1 and by extended CONNECT in HTTP/2 (RFC
// 8441). In a loam.Request it is the former, and its answer a 101; both sides translate.

// upgrade is the protocol that a request asks to leave HTTP for; "" if it does not.
func upgrade(req *loam.Request) string {
	for i := range req.Header {
		if f := &req.Header[i]; len(f.Name) == 7 && protocol.EqualFold(f.Name, "upgrade") && token(f.Value) {
			return strings.ToLower(f.Value)
		}
	}
	return ""
}

// isHandshake tells whether a field belongs to the handshake of WebSocket in HTTP/1.1 alone.
func isHandshake(name string) bool {
	return protocol.EqualFold(name, "sec-websocket-key") || protocol.EqualFold(name, "sec-websocket-accept")
}

// asUpgrade makes an extended CONNECT what it is in HTTP/1.1.
func (s *stream) asUpgrade() error {
	if protocol.EqualFold(s.head.protocol, "h2c") { // requests inside would pass by all routes and policies
		return loam.Errorf(loam.Unimplemented, "request", "HTTP/2 inside of HTTP/2")
	}
	req := &s.req
	req.Method, req.Body, req.Length = http.MethodGet, nil, 0
	req.Header.Set("Upgrade", s.head.protocol)
	if s.head.protocol == "websocket" {
		var nonce [16]byte
		_, _ = rand.Read(nonce[:]) // never fails
		req.Header.Set("Sec-WebSocket-Key", base64.StdEncoding.EncodeToString(nonce[:]))
	}
	return nil
}

// acceptKey is the server's answer to a Sec-WebSocket-Key (RFC 6455, section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// openTunnel makes a response of the client's side what it is in HTTP/1.1.
func (cl *Client) openTunnel(s *stream, req *loam.Request) {
	res := &s.res
	if res.Status > 299 {
		res.Body = (*body)(s)
		return
	}
	res.Status, res.Length, res.Body = http.StatusSwitchingProtocols, -1, nil
	res.Header.Add("Upgrade", s.tunneled)
	if key := req.Header.Get("Sec-WebSocket-Key"); key != "" {
		res.Header.Add("Sec-WebSocket-Accept", acceptKey(key))
	}
	res.Tunnel = (*tunnel)(s)
}

// tunnel answers with what leaves HTTP.
func (s *stream) tunnel(t loam.Task, res *loam.Response) error {
	sh, c := s.sh, s.c
	if s.head.protocol == "" {
		_ = res.Close() // nobody has asked for it
		return s.respond(t, nil, loam.Errorf(loam.Internal, "http2", "the target left HTTP unasked"))
	}
	s.status = cmp.Or(res.Status, http.StatusSwitchingProtocols)
	sh.enter(t)
	if s.gone {
		err := s.err
		sh.leave(t)
		_ = res.Close() // the client is gone
		return err
	}
	start := c.beginHead()
	b, id := appendStatus(c.out, http.StatusOK), false
	for _, f := range res.Header {
		if isHandshake(f.Name) {
			continue
		}
		id = id || protocol.EqualFold(f.Name, protocol.RequestID)
		var ok bool
		if b, ok = appendRegular(b, f.Name, f.Value, false); !ok {
			c.out = c.out[:start]
			sh.leave(t)
			_ = res.Close() // it is not what is answered
			return s.respond(t, nil, errField)
		}
	}
	if !id {
		b = appendField(b, "x-request-id", s.req.ID)
	}
	c.out = b
	c.endHead(start, s.id, false)
	s.sentHead = true
	if end, ok := res.Tunnel.(*tunnel); ok && end.sh == sh && end.c.srv == nil && end.sink == nil {
		u := (*stream)(end)
		s.source, u.sink, u.source, s.sink = u, s, s, u
		res.Body = (*body)(u) // by which it is found at the end
		res.Tunnel = nil
		s.answer = res
		s.pull()
		u.pull()
		sh.leave(t)
		return nil
	}
	sh.leave(t)
	s.carry(t, res)
	return nil
}

// carry relays between the stream and a tunnel that somebody else has. The task stays until that is over: the stream is
// its own.
func (s *stream) carry(t loam.Task, res *loam.Response) {
	end := res.Tunnel
	over := make(chan struct{})
	r := loop.Relay{A: (*tunnel)(s), B: end, Idle: s.c.lim.StreamIdle, Done: func(int64, int64) {
		s.sh.mu.Lock()
		close(over)
		if s.task != nil {
			s.task.Wake()
		}
		s.sh.mu.Unlock()
	}}
	if e, ok := end.(interface{ Early() []byte }); ok {
		r.FromB = e.Early()
	}
	r.Start(t)
	for {
		select {
		case <-over:
			return
		default:
		}
		if err := t.Park(s.req.Deadline()); err != nil {
			s.sh.enter(t)
			s.abort(err, Cancel)
			s.sh.leave(t)
			_ = end.Close()            // the relay sees it
			t.Await(func() { <-over }) // whoever was canceled cannot park any more
			return
		}
	}
}

// tunnel is a stream as one end of a connection that left HTTP.
type tunnel stream

func (e *tunnel) Read(p []byte) (int, error) { return (*stream)(e).read(p) }

func (e *tunnel) Write(p []byte) (int, error) {
	s := (*stream)(e)
	if err := s.send(s.waiter(writes), p, false, s.limit()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite ends the direction towards the peer.
func (e *tunnel) CloseWrite() error {
	s := (*stream)(e)
	return s.send(s.waiter(writes), nil, true, s.limit())
}

// Close ends both directions.
func (e *tunnel) Close() error {
	s := (*stream)(e)
	t := s.waiter(writes)
	s.sh.enter(t)
	s.abort(errClosed, Cancel)
	s.sh.leave(t)
	return nil
}
