package http1

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
)

// ClientConfig says how a Client keeps its connections. Zero fields take the default beside them.
type ClientConfig struct {
	Engine         loop.Engine   // whose tasks use it; required
	MaxConnections int           // open at once in all shards; 0: no bound
	MaxIdle        int           // kept in each shard; 256
	ConnectTimeout time.Duration // 5s
	IdleTimeout    time.Duration // after which a kept connection is closed; 55s, less than what servers commonly allow
	WriteTimeout   time.Duration // the server may take nothing that long; 30s
	ReadTimeout    time.Duration // it may be silent that long within a body; 0: as long as the request has
	MaxHead        int           // bytes of a response's head; 64 KiB
	TLS            *tls.Config   // nil: plain TCP
	Network        string        // "tcp", or "unix"; "tcp"
}

// A Client sends requests to one server and keeps connections to it. It is safe for concurrent use.
type Client struct {
	address string
	op      string
	c       ClientConfig
	lim     Limits
	shards  []shard
	open    counter
}

// shard keeps the connections of one loop. Its lock is held for a few instructions and contended for by nobody but the
// goroutines of shard 0.
type shard struct {
	mu     sync.Mutex
	idle   []*conn // the last one kept is the first one used: the others may grow old
	closed bool
	_      [64]byte
}

// NewClient makes a client of the server at address, a host:port or a path.
func NewClient(address string, c ClientConfig) *Client {
	c.MaxIdle = cmp.Or(c.MaxIdle, 256)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 5*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 55*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 30*time.Second)
	c.Network = cmp.Or(c.Network, "tcp")
	lim := Limits{Head: c.MaxHead, Body: -1}
	lim.setDefaults()
	return &Client{address: address, op: "upstream " + address, c: c, lim: lim, shards: make([]shard, c.Engine.Shards())}
}

// Address is the server's.
func (c *Client) Address() string { return c.address }

// conn is a connection to the server.
type conn struct {
	client *Client
	shard  *shard
	conn   loop.Conn
	known  bool // the engine tells when it is closed: it was released once
}

// close closes the connection.
func (c *conn) close() {
	_ = c.conn.Close() // there is nothing left to be done with it
	if !c.known {
		c.Close()
	}
}

// Serve is called when a kept connection has something to say: nothing good, since nothing was asked.
func (c *conn) Serve(loam.Task, loop.Conn) loop.Verdict { return loop.Close }

// Close forgets a connection that was closed.
func (c *conn) Close() {
	c.client.open.add(-1)
	s := c.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.idle {
		if other == c {
			s.idle = append(s.idle[:i], s.idle[i+1:]...)
			return
		}
	}
}

// take returns a kept connection, or nil.
func (c *Client) take(t loam.Task, s *shard) *conn {
	for {
		s.mu.Lock()
		n := len(s.idle)
		if n == 0 {
			s.mu.Unlock()
			return nil
		}
		conn := s.idle[n-1]
		s.idle[n-1] = nil
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		if conn.conn.Take(t) {
			return conn
		}
		conn.close() // it has something to say, or is closed already
	}
}

func (c *Client) put(conn *conn) {
	s := conn.shard
	s.mu.Lock()
	keep := !s.closed && len(s.idle) < c.c.MaxIdle
	s.mu.Unlock()
	if !keep {
		conn.close()
		return
	}
	conn.known = true
	conn.conn.Release(conn, c.c.IdleTimeout) // first: once it is in the list, another goroutine may take it
	s.mu.Lock()
	s.idle = append(s.idle, conn)
	s.mu.Unlock()
}

// errFull is the error of a request beyond MaxConnections.
var errFull = errors.New("as many connections are open as may be")

func (c *Client) dial(t loam.Task, s *shard, deadline time.Time) (*conn, error) {
	if n := c.open.add(1); c.c.MaxConnections > 0 && n > int64(c.c.MaxConnections) {
		c.open.add(-1)
		return nil, errFull
	}
	until := soon(t, c.c.ConnectTimeout, deadline)
	raw, err := loop.Dial(t, c.c.Network, c.address, until)
	if err != nil {
		c.open.add(-1)
		return nil, err
	}
	k := &conn{client: c, shard: s, conn: raw}
	if c.c.TLS != nil {
		secure := loop.TLSClient(raw, c.c.TLS)
		k.conn = secure
		_ = secure.SetDeadline(until) // it fails only for a connection that is closed, as the handshake will
		if err := secure.Handshake(t, false); err != nil {
			k.close()
			return nil, err
		}
	}
	return k, nil
}

// Close lets go of the connections that are kept; those in use end with their request.
func (c *Client) Close() {
	c.c.Engine.Each(func(t loam.Task) {
		s := &c.shards[t.Shard()]
		s.mu.Lock()
		s.closed = true
		idle := s.idle
		s.idle = nil
		s.mu.Unlock()
		for _, k := range idle {
			k.close()
		}
	})
}

// Stats are a client's connections at this moment.
type Stats struct {
	Open int // connections there are
	Idle int // of which nobody uses
}

// Stats counts the connections.
func (c *Client) Stats() (st Stats) {
	st.Open = int(c.open.load())
	for i := range c.shards {
		c.shards[i].mu.Lock()
		st.Idle += len(c.shards[i].idle)
		c.shards[i].mu.Unlock()
	}
	return st
}

// Connections is how many connections are open.
func (c *Client) Connections() int { return int(c.open.load()) }

// call is one request under way: it is the response, and the response's body.
type call struct {
	res    loam.Response
	body   body
	r      reader
	msg    message
	out    []byte
	client *Client
	conn   *conn
	buf    *buffer
	reused bool
	method string
}

var calls = sync.Pool{New: func() any { return &call{out: make([]byte, 0, 2<<10)} }}

// Serve sends the request and returns once the response's head is there. A request that may be sent again without harm
// is sent again when a kept connection proves to have been closed by the server meanwhile.
func (c *Client) Serve(req *loam.Request) (*loam.Response, error) {
	k := calls.Get().(*call)
	k.client, k.method = c, req.Method
	for again := false; ; again = true {
		err := k.try(req, again)
		if err == nil {
			return &k.res, nil
		}
		stale := errors.As(err, new(*staleError))
		k.drop()
		if stale && !again && mayRepeat(req) {
			continue
		}
		k.release()
		return nil, c.explain(req, err)
	}
}

// staleError is a kept connection that ended before the first byte of an answer.
type staleError struct{ error }

func (e *staleError) Unwrap() error { return e.error }

// mayRepeat tells whether a request can be sent a second time: the server may have acted on the first. Methods that are
// idempotent may, and what carries a key by which the server knows it (RFC 9110, section 9.2.2); the body must be whole
// in memory.
func mayRepeat(req *loam.Request) bool {
	switch req.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
	default:
		if !req.Header.Has("Idempotency-Key") && !req.Header.Has("X-Idempotency-Key") {
			return false
		}
	}
	return req.Body == nil || rewind(req.Body)
}

// rewind begins a body anew, where it can be.
func rewind(body io.Reader) bool {
	r, ok := body.(interface{ Rewind() bool })
	return ok && r.Rewind()
}

// Rewind begins the body anew. It is false where bytes of it are gone.
func (b *body) Rewind() bool {
	if b.framing != bodyLength || b.err != nil || b.got > int64(b.r-b.base) {
		return false
	}
	b.r -= int(b.got)
	b.left += b.got
	b.got, b.ended = 0, false
	return true
}

func (k *call) try(req *loam.Request, fresh bool) (err error) {
	t := req.Task()
	s := &k.client.shards[t.Shard()]
	if k.conn = nil; !fresh {
		k.conn = k.client.take(t, s)
	}
	if k.reused = k.conn != nil; !k.reused {
		if k.conn, err = k.client.dial(t, s, req.Deadline()); err != nil {
			return &dialError{err}
		}
	}
	if k.out, err = appendRequest(k.out[:0], req); err != nil {
		return err
	}
	if err := k.send(req, t); err != nil {
		return err
	}
	return k.receive(req, t)
}

// send writes the request. An error of the request's own body is told apart from one of the connection.
func (k *call) send(req *loam.Request, t loam.Task) error {
	if req.Body == nil {
		return k.write(k.out, t, req)
	}
	room := cap(k.out) - len(k.out)
	if req.Length >= 0 && atHand(req.Body, req.Length) >= int(req.Length) && int(req.Length) <= room { // one write for all
		head := len(k.out)
		n, err := readAtLeast(req.Body, k.out[head:head+int(req.Length)], req.Length)
		if err != nil {
			return &senderError{err}
		}
		return k.write(k.out[:head+n], t, req)
	}
	return k.stream(req, t)
}

// dialError is a failure to connect.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// senderError is a failure to read the request's body: the server is not to blame.
type senderError struct{ error }

func (e *senderError) Unwrap() error { return e.error }

func (k *call) stream(req *loam.Request, t loam.Task) error {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	chunked := req.Length < 0
	p := buf.b[:0]
	p = append(p, k.out...)
	var sent int64
	for {
		at := len(p)
		if chunked {
			at += sizeLine
		}
		if at > bufferSize/2 { // a long head goes first
			if err := k.write(p, t, req); err != nil {
				return err
			}
			p, at = buf.b[:0], at-len(p)
		}
		n, err := req.Body.Read(buf.b[at : bufferSize-2])
		if err != nil && err != io.EOF {
			return &senderError{err}
		}
		if sent += int64(n); !chunked && sent > req.Length {
			return &senderError{errLong}
		}
		if n > 0 {
			if chunked {
				appendChunkSize(p, n)
			}
			if p = buf.b[:at+n]; chunked {
				p = append(p, "\r\n"...)
			}
		}
		end := err == io.EOF || !chunked && sent == req.Length
		if end && chunked {
			p = appendTrailer(p, req.Trailer)
		}
		if len(p) > 0 {
			if err := k.write(p, t, req); err != nil {
				return err
			}
		}
		if end {
			if !chunked && sent < req.Length {
				return &senderError{io.ErrUnexpectedEOF}
			}
			return nil
		}
		p = buf.b[:0]
	}
}

func (k *call) write(p []byte, t loam.Task, req *loam.Request) error {
	if err := k.conn.conn.SetWriteDeadline(soon(t, cmp.Or(req.Idle, k.client.c.WriteTimeout), req.Deadline())); err != nil {
		return err
	}
	n, err := k.conn.conn.Write(p)
	if err != nil && k.reused && n == 0 && broken(err) {
		return &staleError{err}
	}
	return err
}

// broken tells an end that the peer made from one that this side made.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// receive reads the response's head, past interim ones (RFC 9110, section 15.2).
func (k *call) receive(req *loam.Request, t loam.Task) error {
	// A buffer is lent only once there is something to put into it.
	if err := k.conn.conn.SetReadDeadline(req.Deadline()); err != nil {
		return err
	}
	if err := k.conn.conn.Ready(); err != nil {
		return k.stale(err, 0)
	}
	k.buf = buffers.Get().(*buffer)
	k.r = reader{conn: k.conn.conn, buf: k.buf.b, task: t, req: req}
	for interim := 0; ; {
		if k.r.w > k.r.r {
			k.res.Header = k.res.Header[:0]
			n, err := parseResponse(k.r.buf[k.r.r:k.r.w], k.method, &k.client.lim, &k.res, &k.msg)
			if err != nil {
				return err
			}
			if n > 0 {
				k.r.r += n
				if k.res.Status >= 200 || k.res.Status == 101 {
					break
				}
				if interim++; interim > 10 {
					return errStatus
				}
				continue
			}
		}
		if err := k.r.fill(); err != nil {
			if errors.Is(err, errHead) && len(k.r.buf) <= k.client.lim.Head { // longer than a lent buffer
				k.r.buf = append(k.r.buf[:len(k.r.buf):len(k.r.buf)], make([]byte, k.client.lim.Head)...)
				continue
			}
			return k.stale(err, k.r.w)
		}
	}
	k.r.base = k.r.r
	k.r.patience = k.client.c.ReadTimeout
	k.body.start(&k.r, k.msg, &k.client.lim, -1, &k.res.Trailer)
	k.res.Body = k
	if k.res.Status == http.StatusSwitchingProtocols {
		return k.leave(req)
	}
	return nil
}

// leave hands the connection over as a tunnel.
func (k *call) leave(req *loam.Request) error {
	if !k.msg.upgrade || !req.Header.Has("Upgrade") {
		return errUpgrade
	}
	_ = k.conn.conn.SetDeadline(time.Time{})
	res := &loam.Response{Status: k.res.Status, Length: -1}
	for _, f := range k.res.Header { // the strings outlive the buffer
		res.Header.Add(string(append([]byte(nil), f.Name...)), string(append([]byte(nil), f.Value...)))
	}
	res.Tunnel = &Tunnel{Conn: k.conn.conn, FromPeer: append([]byte(nil), k.r.buf[k.r.r:k.r.w]...)}
	k.res = *res
	k.conn = nil
	return nil
}

var errUpgrade = refuse(502, "the server changed to a protocol that was not asked for")

func (k *call) stale(err error, got int) error {
	if k.reused && got == 0 && broken(err) {
		return &staleError{err}
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Read reads the response's body.
func (k *call) Read(p []byte) (int, error) { return k.body.Read(p) }

// Buffered is how much of the body a Read gives without waiting.
func (k *call) Buffered() int { return k.body.Buffered() }

// Close ends the response. The connection is kept if the body was read to its end.
func (k *call) Close() error {
	if k.client == nil {
		return nil // it was closed before
	}
	if conn := k.conn; conn != nil {
		if k.conn = nil; k.body.ended && k.body.err == nil && !k.msg.close && k.r.r == k.r.w {
			_ = conn.conn.SetDeadline(time.Time{})
			k.client.put(conn)
		} else {
			conn.close() // without TLS's farewell: the server shall not take what was cut off for whole
		}
	}
	k.release()
	return nil
}

// drop closes the connection of an attempt that failed.
func (k *call) drop() {
	if k.conn != nil {
		k.conn.close()
		k.conn = nil
	}
	if k.buf != nil {
		buffers.Put(k.buf)
		k.buf = nil
	}
}

func (k *call) release() {
	if k.buf != nil {
		buffers.Put(k.buf)
	}
	h, tr := k.res.Header[:cap(k.res.Header)], k.res.Trailer[:0]
	clear(h)
	*k = call{out: k.out[:0]}
	k.res.Header, k.res.Trailer = h[:0], tr
	calls.Put(k)
}

// appendRequest writes the head of the request as it is sent on.
func appendRequest(b []byte, req *loam.Request) ([]byte, error) {
	if !validName(req.Method) || !all(bytesOf(req.Path), targetByte) || !all(bytesOf(req.RawQuery), targetByte) || !all(bytesOf(req.Authority), hostByte) {
		return b, errRequest
	}
	b = append(b, req.Method...)
	b = append(b, ' ')
	b = append(b, req.Path...)
	if req.RawQuery != "" {
		b = append(b, '?')
		b = append(b, req.RawQuery...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, req.Authority...)
	b = append(b, "\r\n"...)
	upgrade := req.Header.Has("Upgrade")
	b, _, err := appendFields(b, req.Header, upgrade, req.Remote != "")
	if err != nil {
		return b, err
	}
	if req.Remote != "" {
		b = appendForwarded(b, req)
	}
	switch {
	case req.Body != nil && req.Length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case req.Body != nil || req.Length > 0:
		b = appendLength(b, max(req.Length, 0))
	case req.Method == "POST" || req.Method == "PUT" || req.Method == "PATCH":
		b = append(b, "Content-Length: 0\r\n"...)
	}
	if upgrade {
		b = append(b, "Connection: Upgrade\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

var errRequest = &loam.Error{Code: loam.InvalidArgument, Op: "http1", Err: errors.New("the request holds what no request line may")}

// appendForwarded tells the server who asked: the client's address after those that were told already, and what it asked
// for. A client may have written anything into the first of them.
func appendForwarded(b []byte, req *loam.Request) []byte {
	b = append(b, "X-Forwarded-For: "...)
	for i := range req.Header {
		if f := &req.Header[i]; len(f.Name) == 15 && protocol.EqualFold(f.Name, "x-forwarded-for") {
			b = append(b, f.Value...)
			b = append(b, ", "...)
		}
	}
	host := req.Remote
	for i := len(host) - 1; i > 0; i-- {
		if host[i] == ':' {
			host = host[:i]
			break
		}
	}
	if len(host) > 2 && host[0] == '[' {
		host = host[1 : len(host)-1]
	}
	b = append(b, host...)
	b = append(b, "\r\nX-Forwarded-Proto: "...)
	b = append(b, req.Scheme...)
	b = append(b, "\r\nX-Forwarded-Host: "...)
	b = append(b, req.Authority...)
	return append(b, "\r\n"...)
}

// explain gives an error the code and the words that its reader needs.
func (c *Client) explain(req *loam.Request, err error) error {
	e := &loam.Error{Code: loam.Unavailable, Op: c.op, Err: err}
	var sender *senderError
	var known *loam.Error
	var dial *dialError
	switch {
	case errors.As(err, &sender):
		if errors.As(sender.error, &known) {
			return sender.error
		}
		if e.Code = loam.InvalidArgument; errors.Is(err, os.ErrDeadlineExceeded) {
			e.Code = loam.DeadlineExceeded
		}
		e.Op, e.Err = "request", fmt.Errorf("read the body: %w", sender.error)
	case errors.As(err, &known) && known.Code != loam.Unavailable:
		e.Code = known.Code
	case errors.Is(err, context.Canceled):
		e.Code = loam.Canceled
	case errors.Is(err, os.ErrDeadlineExceeded) && !req.Deadline().IsZero() && !req.Task().Now().Before(req.Deadline()):
		e.Code = loam.DeadlineExceeded
	case errors.Is(err, errFull):
		e.Err = fmt.Errorf("%w: %w", protocol.ErrConnect, err)
		e.Code = loam.ResourceExhausted
		e.Hint = "raise its pool's maxConnections (now " + strconv.Itoa(c.c.MaxConnections) + "), or send less"
	case errors.As(err, &dial):
		e.Err = fmt.Errorf("%w: %w", protocol.ErrConnect, err)
		if errors.Is(err, syscall.ECONNREFUSED) {
			e.Err = fmt.Errorf("nothing listens there: %w", e.Err)
			e.Hint = "start the program, or set the app's address to where it listens"
		}
	case broken(err):
		e.Err = fmt.Errorf("%w: %w", protocol.ErrConnectionLost, err)
	}
	return e
}
