package http2

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
)

// ClientConfig says how a Client keeps its connections. Zero fields take the default beside them.
type ClientConfig struct {
	Limits
	Hub            *Hub          // of the engine whose tasks use it; required
	MaxConnections int           // in each shard; 8
	MaxWaiting     int           // requests in each shard that wait for one; 1024
	ConnectTimeout time.Duration // 5s
	TLS            *tls.Config   // nil: plain TCP, and HTTP/2 without asking
	Network        string        // "tcp", or "unix"; "tcp"
}

// A Client sends requests to one server. Each shard has connections of its own, as few as the server's bound on streams
// allows. It is safe for concurrent use.
type Client struct {
	address string
	op      string
	c       ClientConfig
	connect func(loam.Task) (loop.Conn, net.Conn, error)
	pools   []pool
}

// A pool is what one shard has of a Client. Its shard's lock guards it.
type pool struct {
	client  *Client
	sh      *shard
	conns   []*conn // that take streams, unless they have as many as the server allows
	open    int     // connections there are, those that take no more streams too
	dials   bool
	closed  bool
	waiting []*waiting // first come first served
	next    *pool      // in the shard's list of those that need another connection
}

// waiting is a request that waits for a connection.
type waiting struct {
	task loam.Task
	err  error // that there will be none
}

// NewClient makes a client of the server at address, a host:port or a path.
func NewClient(address string, c ClientConfig) *Client {
	c.Limits.setDefaults(1000)
	c.MaxConnections = cmp.Or(c.MaxConnections, 8)
	c.MaxWaiting = cmp.Or(c.MaxWaiting, 1024)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 5*time.Second)
	c.Network = cmp.Or(c.Network, "tcp")
	if c.TLS != nil {
		c.TLS = c.TLS.Clone()
		c.TLS.NextProtos = []string{"h2"}
		if c.TLS.ServerName == "" {
			c.TLS.ServerName, _, _ = net.SplitHostPort(address)
		}
	}
	cl := &Client{address: address, op: "upstream " + address, c: c, pools: make([]pool, len(c.Hub.shards))}
	cl.connect = cl.dial
	for i := range cl.pools {
		cl.pools[i].client, cl.pools[i].sh = cl, &c.Hub.shards[i]
	}
	return cl
}

// Address is the server's.
func (cl *Client) Address() string { return cl.address }

// Connections is how many connections are open.
func (cl *Client) Connections() (n int) {
	for i := range cl.pools {
		p := &cl.pools[i]
		p.sh.mu.Lock()
		n += p.open
		p.sh.mu.Unlock()
	}
	return n
}

// Close sends no more requests. Connections are closed as soon as the streams they have are over. It does not wait.
func (cl *Client) Close() {
	for i := range cl.pools {
		p := &cl.pools[i]
		p.sh.mu.Lock()
		p.closed = true
		for _, w := range p.waiting {
			w.err = cl.fail(errClosedClient)
			w.task.Wake()
		}
		p.waiting = nil
		for _, c := range slices.Clone(p.conns) {
			c.draining = goneAway
			p.remove(c)
			c.checkDone()
		}
		p.sh.leaveOff()
	}
}

var errClosedClient = fmt.Errorf("%w: the client was closed", protocol.ErrNotProcessed)

// fail is err as who sent the request gets it.
func (cl *Client) fail(err error) error {
	e := &loam.Error{Code: loam.Unavailable, Op: cl.op, Err: err}
	switch {
	case errors.Is(err, context.Canceled):
		e.Code = loam.Canceled
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		e.Code = loam.DeadlineExceeded
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Err = fmt.Errorf("nothing listens there: %w", err)
		e.Hint = "start the program, or set the address to where it listens"
	}
	return e
}

// explain adds where it happened to an error that has its code.
func (cl *Client) explain(err error) error {
	if e, ok := errors.AsType[*loam.Error](err); ok {
		return &loam.Error{Code: e.Code, Op: cl.op, Err: cmp.Or(e.Err, err), Hint: e.Hint}
	}
	return cl.fail(err)
}

// Serve sends a request and waits for the head of its response. The error of one that can be sent again wraps
// one of package protocol's. A request that the server has not processed, and of whose body nothing is gone,
// is sent again by itself.
func (cl *Client) Serve(req *loam.Request) (*loam.Response, error) {
	t := req.Task()
	for again := 0; ; again++ {
		s, err := cl.begin(t, req)
		if err != nil {
			return nil, err
		}
		res, err := cl.await(t, req, s)
		if err == nil || again == 3 || !errors.Is(err, protocol.ErrNotProcessed) {
			return res, err
		}
		if _, ours := req.Body.(*body); req.Body != nil && (!ours || s.sent > 0) {
			return nil, err // some of the body may be gone
		}
	}
}

// begin opens a stream for a request and sends its head, and its body as far as that is possible without waiting.
func (cl *Client) begin(t loam.Task, req *loam.Request) (*stream, error) {
	sh := cl.c.Hub.shard(t)
	p := &cl.pools[t.Shard()]
	sh.enter(t)
	leaves := upgrade(req)
	c, err := p.pick(t, req.Deadline())
	for err == nil && leaves != "" && !c.greeted { // whether the server takes that is in its settings
		w := &waiting{task: t}
		p.waiting = append(p.waiting, w)
		sh.leave(t)
		err = t.Park(req.Deadline())
		sh.enter(t)
		p.forget(w)
		if err == nil {
			c, err = p.pick(t, req.Deadline())
		}
	}
	if err != nil {
		sh.leave(t)
		return nil, cl.explain(err)
	}
	if leaves != "" && !c.websocket {
		sh.leave(t)
		return nil, &loam.Error{Code: loam.Unimplemented, Op: cl.op, Err: errors.New("the server takes no " + leaves + " over HTTP/2")}
	}
	if c.last > maxStreamID-8 { // it has no more numbers: the next request gets another
		c.draining = goneAway
		p.remove(c)
	}
	before := c.last
	c.last = (before+1)&^1 + 1 // 1, 3, 5, …
	s := sh.stream(c, c.last)
	s.task, s.until, s.idle = t, req.Deadline(), req.Idle
	s.headless, s.tunneled = req.Method == http.MethodHead, leaves
	start := c.beginHead()
	b, err := appendRequest(c.out, req, leaves)
	if err != nil {
		c.out = c.out[:start]
		s.gone = true
		delete(c.streams, s.id)
		c.last = before
		sh.recycle(s)
		sh.leave(t)
		return nil, err
	}
	c.out = b
	end := req.Body == nil && leaves == ""
	c.endHead(start, s.id, end)
	s.sentHead = true
	if end {
		s.finishSending()
	}
	var from *stream
	if b, ok := req.Body.(*body); ok && b.sh == sh && b.c.srv != nil {
		from = (*stream)(b)
	}
	if from != nil && !end {
		switch {
		case from.sink != nil:
			s.abort(errTwice, Cancel)
		case from.recvErr != nil || from.gone && !from.recvEnd:
			err := cmp.Or(from.recvErr, from.err, errClosed)
			s.abort(err, Cancel)
		default:
			s.source, from.sink = from, s
			s.pull()
		}
		end = true
	}
	sh.leave(t)
	if !end && leaves == "" {
		cl.sendBody(t, req, s)
	}
	return s, nil
}

var errTwice = loam.Errorf(loam.Internal, "http2", "a body is sent on by two at once")

// smallBody is what of a body is read before the response is waited for. A longer one is sent by a task of its own.
const smallBody = 16 << 10

// sendBody sends a body that somebody else has.
func (cl *Client) sendBody(t loam.Task, req *loam.Request, s *stream) {
	if 0 <= req.Length && req.Length <= smallBody {
		if err := s.sendFrom(t, req); err != nil {
			s.sh.enter(t)
			s.abort(err, Cancel)
			s.sh.leave(t)
		}
		return
	}
	p := &pump{s: s}
	s.pump = p
	p.task = t.Go(func(t loam.Task) {
		protocol.Bind(req.Body, t)
		err := s.sendFrom(t, req)
		protocol.Bind(req.Body, nil)
		sh := s.sh
		sh.enter(t)
		if err != nil {
			s.abort(err, Cancel)
		}
		p.done = true
		wake(&p.waiter)
		sh.leave(t)
	})
}

// A pump is the task that sends a body which somebody else has.
type pump struct {
	s      *stream
	task   loam.Task
	done   bool
	waiter loam.Task
}

// stop ends the pump, and returns when it no longer reads the request.
func (p *pump) stop(t loam.Task) {
	sh := p.s.sh
	for {
		sh.mu.Lock()
		if p.done {
			sh.mu.Unlock()
			return
		}
		p.task.Cancel()
		p.waiter = t
		sh.mu.Unlock()
		if t.Park(time.Time{}) != nil { // canceled or not, it has to be over
			t.Yield() // a canceled task does not wait any more, and the pump may need its thread
		}
	}
}

// sendFrom sends the request's body and its trailer.
func (s *stream) sendFrom(t loam.Task, req *loam.Request) error {
	if w, ok := req.Body.(protocol.Whole); ok {
		p := w.Whole()
		if req.Length >= 0 && int64(len(p)) != req.Length {
			return loam.Errorf(loam.InvalidArgument, "http2", "the body is not as long as was announced")
		}
		return s.sendWhole(t, p, req.Trailer, req.Deadline())
	}
	buf := loop.Borrow(t, int(min(max(req.Length, 4<<10), 32<<10)))
	defer buf.Free(t)
	sent := int64(0)
	for {
		n, err := req.Body.Read(buf.B)
		if sent += int64(n); req.Length >= 0 && sent > req.Length || err == io.EOF && sent < req.Length {
			return loam.Errorf(loam.InvalidArgument, "http2", "the body is not as long as was announced")
		}
		last := err == io.EOF && len(req.Trailer) == 0
		if n > 0 || last {
			if err := s.send(t, buf.B[:n], last, req.Deadline()); err != nil {
				return err
			}
		}
		switch {
		case last:
			return nil
		case err == io.EOF:
			s.sh.enter(t)
			if !s.gone {
				s.sendTrailer(req.Trailer)
			}
			s.sh.leave(t)
			return nil
		case err != nil:
			return err
		}
	}
}

// await waits for the response's head.
func (cl *Client) await(t loam.Task, req *loam.Request, s *stream) (*loam.Response, error) {
	sh := s.sh
	sh.enter(t)
	for s.head == nil && s.err == nil {
		sh.leave(t)
		if err := t.Park(req.Deadline()); err != nil {
			sh.enter(t)
			s.abort(err, Cancel)
			break
		}
		sh.enter(t)
	}
	if h := s.head; h != nil && (s.err == nil || h.status != 0) {
		s.task = nil
		res := &s.res
		res.Status, res.Length = h.status, h.length
		res.Header = append(res.Header[:0], h.fields...)
		switch {
		case s.tunneled != "":
			cl.openTunnel(s, req)
		case s.recvEnd && s.taken == len(s.recv) && s.trailer == nil:
			if res.Length < 0 {
				res.Length = 0
			}
		default:
			res.Body = (*body)(s)
		}
		p := s.pump
		sh.leave(t)
		if p != nil && res.Body == nil {
			p.stop(t) // the server has answered without it
		}
		return res, nil
	}
	s.task = nil
	err := s.err
	if from := s.source; from != nil {
		from.sink, s.source = nil, nil
	}
	p := s.pump
	sh.leave(t)
	if p != nil {
		p.stop(t)
	}
	return nil, cl.explain(err)
}

// onResponse takes the head or trailer of a response.
func (c *conn) onResponse(id uint32, end bool, block []byte) *fault {
	s := c.streams[id]
	if s == nil {
		if c.idle(id) {
			return &fault{ProtocolError, "HEADERS of a stream that was not opened"}
		}
		if !c.wasReset(id) {
			return &fault{StreamClosed, "HEADERS of a stream that is closed"}
		}
		if f := c.skip(block); f != nil {
			return f
		}
		return c.nuisance()
	}
	if s.head != nil {
		return s.onTrailer(end, block)
	}
	h, err := c.dec.decode(block, responseHead, &s.ownHead)
	switch {
	case errors.Is(err, errCompression):
		return &fault{CompressionError, "a head is not HPACK"}
	case err != nil:
		s.abort(loam.Errorf(loam.Unavailable, "http2", "the response is no good: %w", err), ProtocolError)
		return nil
	case h.status < 200:
		if end {
			c.refuse(id, ProtocolError)
		}
		return c.nuisance()
	}
	s.head = h
	if s.idle > 0 { // from now on it counts
		s.sh.soon(s.sh.now.Add(s.idle))
	}
	if s.want = h.length; s.headless || h.status == http.StatusNotModified || h.status == http.StatusNoContent {
		s.want = -1
	}
	if end && s.want > 0 {
		s.head = nil
		c.refuse(id, ProtocolError)
		return nil
	}
	if s.task != nil {
		s.task.Wake()
	}
	if end {
		s.ended()
	}
	return nil
}

// ---- Connections

// takes tells whether the connection may have another stream.
func (c *conn) takes() bool {
	return !c.dead && !c.ending && c.draining == open && len(c.streams) < int(min(uint64(c.most), uint64(c.lim.Streams)))
}

// pick finds a connection for a stream, waiting for one if all have as many as they may. The lock is held before and
// after it, not while it waits.
func (p *pool) pick(t loam.Task, deadline time.Time) (*conn, error) {
	var w *waiting
	for {
		if p.closed {
			return nil, errClosedClient
		}
		if w != nil && w.err != nil {
			return nil, w.err
		}
		if len(p.waiting) == 0 || p.waiting[0] == w {
			for _, c := range p.conns {
				if c.takes() {
					p.forget(w)
					return c, nil
				}
			}
		}
		if w == nil {
			if len(p.waiting) >= p.client.c.MaxWaiting {
				return nil, &loam.Error{Code: loam.Unavailable, Err: fmt.Errorf("%w: %d wait for a connection already", protocol.ErrNotProcessed, len(p.waiting))}
			}
			w = &waiting{task: t}
			p.waiting = append(p.waiting, w)
		}
		p.grow()
		p.sh.leave(t)
		err := t.Park(deadline)
		p.sh.enter(t)
		if err != nil {
			p.forget(w)
			p.wake() // it may have been woken for a connection that another can have now
			return nil, err
		}
	}
}

func (p *pool) forget(w *waiting) {
	if i := slices.Index(p.waiting, w); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		p.wake()
	}
}

// wake lets the one that waits longest look whether there is a connection for it.
func (p *pool) wake() {
	if len(p.waiting) > 0 {
		p.waiting[0].task.Wake()
	}
}

// grow has another connection made, unless that is under way or there are enough.
func (p *pool) grow() {
	if p.dials || p.open >= p.client.c.MaxConnections || p.closed {
		return
	}
	p.dials = true
	p.next, p.sh.dialing = p.sh.dialing, p
}

// remove takes a connection out that takes no more streams.
func (p *pool) remove(c *conn) {
	if i := slices.Index(p.conns, c); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
	if c.dead && !c.counted {
		c.counted = true
		p.open--
		p.wake()
	}
}

// dial makes a connection. It runs in a task of its own: who waits for it may give up, others still need it.
func (p *pool) dial(t loam.Task) {
	raw, stream, err := p.client.connect(t)
	sh := p.sh
	var c *conn
	if err == nil {
		c = newConn(p.client.c.Hub, sh, raw, stream, &p.client.c.Limits)
		c.pool = p
	}
	sh.enter(t)
	p.dials = false
	switch {
	case err != nil:
		for _, w := range p.waiting {
			w.err = err
			w.task.Wake()
		}
		p.waiting = nil
	case p.closed:
		sh.leave(t)
		_ = raw.Close() // nobody needs it any more
		return
	default:
		p.open++
		p.conns = append(p.conns, c)
		c.register()
		p.wake()
	}
	sh.leave(t)
	if c != nil {
		raw.Release(c, 0)
	}
}

// dial opens a connection, with TLS where that is asked for.
func (cl *Client) dial(t loam.Task) (loop.Conn, net.Conn, error) {
	deadline := t.Now().Add(cl.c.ConnectTimeout)
	raw, err := loop.Dial(t, cl.c.Network, cl.address, deadline)
	if err != nil {
		return nil, nil, &loam.Error{Code: loam.Unavailable, Err: fmt.Errorf("%w: %w", protocol.ErrConnect, err), Hint: hint(err)}
	}
	if cl.c.TLS == nil {
		return raw, nil, nil
	}
	stream := tls.Client(&protocol.Carrier{Conn: raw}, cl.c.TLS)
	err = raw.SetDeadline(deadline)
	if err == nil {
		err = stream.Handshake()
	}
	if err == nil && stream.ConnectionState().NegotiatedProtocol != "h2" {
		err = errALPN
	}
	if err != nil {
		_ = raw.Close() // err says why
		return nil, nil, &loam.Error{Code: loam.Unavailable, Err: fmt.Errorf("%w: TLS: %w", protocol.ErrConnect, err), Hint: hint(err)}
	}
	_ = raw.SetDeadline(time.Time{}) // a connection that is closed says so soon enough
	return raw, stream, nil
}

var errALPN = errors.New("it did not choose HTTP/2")

func hint(err error) string {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "start the program, or set the address to where it listens"
	}
	// crypto/tls does not export the alert no_application_protocol.
	if errors.Is(err, errALPN) || strings.Contains(err.Error(), "no application protocol") {
		return "the server does not speak HTTP/2: have it offer h2 by ALPN, or send it HTTP/1.1"
	}
	return ""
}

// appendRequest writes the head of a request.
func appendRequest(b []byte, req *loam.Request, protocol string) ([]byte, error) {
	if !token(req.Method) || !all(req.Path, targetByte) || !all(req.RawQuery, targetByte) || !all(req.Authority, hostByte) || req.Path == "" {
		return b, errRequest
	}
	if protocol != "" {
		b = appendNamed(b, 2, http.MethodConnect)
		b = appendField(b, ":protocol", protocol)
	} else {
		b = appendMethod(b, req.Method)
	}
	if req.Scheme == "https" {
		b = appendIndexed(b, 7)
	} else {
		b = appendIndexed(b, 6)
	}
	if req.Authority != "" {
		b = appendNamed(b, 1, req.Authority)
	}
	switch {
	case req.RawQuery != "":
		b = appendInt(append(b, 4), 0, 7, len(req.Path)+1+len(req.RawQuery))
		b = append(append(append(b, req.Path...), '?'), req.RawQuery...)
	case req.Path == "/":
		b = appendIndexed(b, 4)
	default:
		b = appendNamed(b, 4, req.Path)
	}
	forwarded := ""
	var ok bool
	for i := range req.Header {
		f := &req.Header[i]
		if len(f.Name) >= 15 && len(f.Name) <= 17 && req.Remote != "" {
			if isForwarded(f.Name) {
				if len(f.Name) == 15 && printable(f.Value) {
					forwarded += f.Value + ", "
				}
				continue
			}
		}
		if protocol != "" && isHandshake(f.Name) {
			continue
		}
		if b, ok = appendRegular(b, f.Name, f.Value, false); !ok {
			return b, errField
		}
	}
	if req.Remote != "" {
		b = appendField(b, "x-forwarded-for", forwarded+hostOf(req.Remote))
		b = appendField(b, "x-forwarded-proto", req.Scheme)
		b = appendField(b, "x-forwarded-host", req.Authority)
	}
	if req.Length > 0 || req.Length == 0 && req.Body != nil {
		b = appendLength(b, req.Length)
	}
	return b, nil
}

var errRequest = &loam.Error{Code: loam.InvalidArgument, Op: "http2", Err: errors.New("the request holds what no request may")}

// isForwarded tells whether a field says who asked: a client may have written anything into it.
func isForwarded(name string) bool {
	return protocol.EqualFold(name, "x-forwarded-for") || protocol.EqualFold(name, "x-forwarded-proto") || protocol.EqualFold(name, "x-forwarded-host")
}

// hostOf is an address without its port.
func hostOf(address string) string {
	for i := len(address) - 1; i > 0; i-- {
		if address[i] == ':' {
			address = address[:i]
			break
		}
	}
	if len(address) > 2 && address[0] == '[' {
		address = address[1 : len(address)-1]
	}
	return address
}
