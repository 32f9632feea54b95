package http1

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
)

// ServerConfig says how a Server treats its clients. Zero times take the default beside them.
type ServerConfig struct {
	protocol.Options
	Limits
	HeadTimeout  time.Duration // from a head's first byte to its last; 10s
	BodyTimeout  time.Duration // a sender of a body may be silent that long; 30s
	WriteTimeout time.Duration // a receiver may take nothing that long; 30s
	IdleTimeout  time.Duration // between two requests; 2m
}

// A Server answers the requests of connections by a target.
type Server struct {
	target  loam.Target
	c       ServerConfig
	ids     *protocol.IDs
	clock   clock
	leaving atomic.Int32 // how: stays and so on
	pool    sync.Pool    // of *exchange
}

// NewServer makes a server of target.
func NewServer(target loam.Target, c ServerConfig) *Server {
	c.Limits.setDefaults()
	c.Limits.Body = cmp.Or(c.Options.MaxBody, c.Limits.Body)
	c.HeadTimeout = cmp.Or(c.HeadTimeout, 10*time.Second)
	c.BodyTimeout = cmp.Or(c.BodyTimeout, 30*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 30*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 2*time.Minute)
	s := &Server{target: target, c: c, ids: protocol.NewIDs()}
	s.pool.New = func() any { return &exchange{in: make([]byte, firstBuffer), out: make([]byte, 0, firstBuffer)} }
	return s
}

// firstBuffer is what a request's head is read into; a longer one gets more.
const firstBuffer = 8 << 10

// Drain ends every connection with the request it serves; those that are idle are the listener's to close.
func (s *Server) Drain() { s.leaving.Store(drains) }

// How a server leaves, each more than the one before.
const (
	stays      = iota
	retiresTLS // connections in TLS end with the request they serve
	retiresAll // the others too
	drains     // those that turn idle are closed
)

// Retire ends connections in TLS with the request they serve, and where plain is true the others too. Unlike Drain it
// leaves those that are idle alone, for another process to take over.
func (s *Server) Retire(plain bool) {
	if plain {
		s.leaving.Store(retiresAll)
	} else {
		s.leaving.Store(retiresTLS)
	}
}

// ends tells whether the connection ends with the present request.
func (x *exchange) ends() bool {
	how := x.s.leaving.Load()
	return how >= retiresAll || how == retiresTLS && x.peer != nil
}

// Between tells whether the connection could be gone on with by another process that has but its socket: it is plain, and
// nothing was read that is not answered. It is asked of a connection that no task serves.
func (c *session) Between() bool { return !c.secure() && (c.more == nil || c.more.early == nil) }

// Session begins to serve a connection. stream is what is spoken on: the connection itself, or TLS over it; peer is what
// TLS told of the client, nil without it. read are bytes that came in already.
func (s *Server) Session(conn loop.Conn, stream net.Conn, peer *loam.Peer, read []byte) loop.Session {
	c := &session{s: s}
	if peer != nil || stream != net.Conn(conn) || len(read) > 0 {
		c.more = &more{stream: stream, peer: peer, early: read}
	}
	return c
}

// session is all that an idle connection keeps: there may be very many of them.
type session struct {
	s    *Server
	more *more // nil: there is nothing to say, as for most
	ip   [4]byte
	port uint16
	v4   bool // ip and port are the client's
}

// more is what few sessions have.
type more struct {
	stream net.Conn // what is spoken on
	peer   *loam.Peer
	early  []byte // came in before the session began
	remote string // the client's address, if it is none of IPv4
}

// secure tells whether TLS is spoken, or anything else on top of the connection.
func (c *session) secure() bool { return c.more != nil && c.more.peer != nil }

// address is the client's, written to b where it is one of IPv4.
func (c *session) address(conn net.Conn, b []byte) string {
	if c.v4 {
		return view(netip.AddrPortFrom(netip.AddrFrom4(c.ip), c.port).AppendTo(b))
	}
	if c.more != nil && c.more.remote != "" {
		return c.more.remote
	}
	a := conn.RemoteAddr()
	if tcp, ok := a.(*net.TCPAddr); ok && tcp.IP.To4() != nil {
		c.ip, c.port, c.v4 = [4]byte(tcp.IP.To4()), uint16(tcp.Port), true
		return c.address(conn, b)
	}
	if c.more == nil {
		c.more = &more{stream: conn}
	}
	c.more.remote = a.String()
	return c.more.remote
}

func (c *session) Close() {}

// exchange is what a request needs while it is served: buffers, and the request itself. It is pooled.
type exchange struct {
	in     []byte // read from the client: heads, and what came with them
	out    []byte // to be written to it
	n      int    // in[:n] is read and not yet used
	req    loam.Request
	msg    message
	body   body
	r      reader
	id     [32]byte
	remote [24]byte
	s      *Server
	c      *session
	conn   loop.Conn
	stream net.Conn   // what is spoken on: conn, or TLS over it
	peer   *loam.Peer // nil without TLS
	task   loam.Task
}

// Serve serves the requests that are there.
func (c *session) Serve(t loam.Task, conn loop.Conn) loop.Verdict {
	x := c.s.pool.Get().(*exchange)
	x.s, x.c, x.conn, x.task = c.s, c, conn, t
	x.stream, x.peer = conn, nil
	x.n = 0
	if m := c.more; m != nil {
		x.stream, x.peer = m.stream, m.peer
		x.n = copy(x.in, m.early) // as much as a listener looks at is far below the buffer's size
		if m.early = nil; m.peer == nil && m.stream == net.Conn(conn) && m.remote == "" {
			c.more = nil
		}
	}
	v := x.serve()
	x.c, x.conn, x.task, x.stream, x.peer = nil, nil, nil, nil, nil
	if len(x.in) > firstBuffer {
		x.in = make([]byte, firstBuffer)
	}
	c.s.pool.Put(x)
	if v == loop.Idle {
		conn.Release(c, c.s.c.IdleTimeout)
	}
	return v
}

func (x *exchange) serve() loop.Verdict {
	for {
		n, v := x.head()
		if n == 0 {
			return v
		}
		if v, ok := x.request(n); !ok {
			return v
		}
	}
}

// head reads the next request's head and returns its length. 0: there is none, and what becomes of the connection.
func (x *exchange) head() (int, loop.Verdict) {
	x.req.Begin(x.task)
	armed, parsed := false, 0
	x.conn.Poll(x.n == 0)
	for {
		// A head that comes in pieces is parsed when its end may be there, not at each piece.
		if x.n > 0 && (parsed == 0 || mayEnd(x.in[max(parsed-3, 0):x.n]) || x.n > x.s.c.Head) {
			x.req.Header = x.req.Header[:0]
			n, err := parseRequest(x.in[:x.n], &x.s.c.Limits, &x.req, &x.msg)
			if err != nil {
				return 0, x.refuse(err)
			}
			if n > 0 {
				x.conn.Poll(false)
				return n, 0
			}
			parsed = x.n
		}
		if x.n == len(x.in) {
			if x.n > x.s.c.Head {
				return 0, x.refuse(errHead)
			}
			x.in = append(x.in, make([]byte, len(x.in))...)
		}
		if x.n > 0 && !armed {
			x.conn.Poll(false)
			armed = true
			if err := x.stream.SetReadDeadline(x.task.Now().Add(x.s.c.HeadTimeout)); err != nil {
				return 0, loop.Close
			}
		}
		m, err := x.stream.Read(x.in[x.n:])
		x.n += m
		if m > 0 {
			continue
		}
		switch {
		case errors.Is(err, loop.ErrAgain):
			x.conn.Poll(false)
			if x.s.leaving.Load() == drains {
				return 0, x.close()
			}
			return 0, loop.Idle
		case x.n > 0 && errors.Is(err, os.ErrDeadlineExceeded):
			return 0, x.refuse(errSlow)
		}
		return 0, x.close()
	}
}

// mayEnd tells whether the end of a head may be in b: an empty line, be it one that is refused.
func mayEnd(b []byte) bool { return bytes.Contains(b, headEnd) || bytes.Contains(b, bareEnd) }

var (
	headEnd = []byte("\n\r\n")
	bareEnd = []byte("\n\n")
	errSlow = refuse(408, "the head did not come in time")
)

// request serves the request whose head is in[:n]. It is true if the connection can take another.
func (x *exchange) request(n int) (loop.Verdict, bool) {
	start := x.task.Now()
	s, req := x.s, &x.req
	req.Scheme, req.Peer = "http", x.peer
	if x.peer != nil {
		req.Scheme = "https"
	}
	req.Remote = x.c.address(x.conn, x.remote[:0])
	if req.ID = req.Header.Get(protocol.RequestID); !protocol.ValidID(req.ID) {
		req.ID = view(s.ids.Append(x.id[:0]))
		req.Header.Set(protocol.RequestID, req.ID)
	}
	x.r = reader{conn: x.stream, buf: x.in, base: n, r: n, w: x.n, task: x.task, req: req, patience: s.c.BodyTimeout, rate: s.c.MinRate}
	if x.msg.framing == bodyChunked && len(x.in)-n < 4<<10 { // chunk lines and trailers need room of their own
		x.in = append(x.in, make([]byte, 4<<10)...)
		x.r.buf = x.in
	}
	x.body.start(&x.r, x.msg, &s.c.Limits, s.c.Body, &req.Trailer)
	x.body.request = true
	req.Body, req.Length = nil, 0
	switch x.msg.framing {
	case bodyLength:
		req.Body, req.Length = &x.body, x.msg.length
	case bodyChunked:
		req.Body, req.Length = &x.body, -1
	}
	if x.msg.expect && x.r.r == x.r.w && req.Body != nil {
		x.body.first = x.goOn
	}

	res, err := (*loam.Response)(nil), x.forbidden()
	if err == nil {
		res, err = protocol.Serve(s.target, req, s.c.Log)
	}
	if err != nil {
		res = protocol.ErrorResponse(err, req.ID)
	}
	status := cmp.Or(res.Status, http.StatusOK)
	if res.Tunnel != nil {
		return x.tunnel(res, start), false
	}
	last := x.msg.close || x.ends()
	left := !x.body.ended // bytes of the request that nobody has asked for yet
	if left && !last && (x.body.first != nil || x.msg.framing == bodyLength && x.body.left > int64(s.c.Discard)) {
		last = true // reading them would cost more than a new connection
	}
	sent, last, err := x.respond(res, status, last)
	if err != nil && x.gone() == nil {
		s.c.Log.Warn("answer broken off", "request", req.ID, "path", req.Path, "error", err)
	}
	if req.Observer != nil {
		req.Observer.Observe(req, status, sent, x.task.Now().Sub(start))
	}
	whole := x.body.discard(int64(s.c.Discard))
	switch {
	case err != nil:
		x.finish()
		return loop.Close, false // so that the peer sees a broken answer and not a short one
	case last || !whole:
		x.finish()
		return x.linger(!whole), false
	}
	r, w := x.r.r, x.r.w
	x.finish()
	x.n = copy(x.in, x.in[r:w])
	return 0, true
}

// finish forgets the request, after which its strings may be overwritten.
func (x *exchange) finish() {
	x.req.Body = nil
	x.req.End()
	x.n = 0
	x.body = body{}
	x.r = reader{}
}

// gone is why nobody waits for an answer any more, nil if somebody may.
func (x *exchange) gone() error {
	if x.req.Deadline().IsZero() || x.task.Now().Before(x.req.Deadline()) {
		return nil
	}
	return os.ErrDeadlineExceeded
}

// forbidden is the error of a request that no target shall see.
func (x *exchange) forbidden() error {
	switch {
	case x.req.Method == http.MethodConnect:
		return loam.Errorf(loam.Unimplemented, "request", "CONNECT: this is no forward proxy")
	case x.msg.framing == bodyLength && x.s.c.Body >= 0 && x.msg.length > x.s.c.Body:
		return protocol.TooLarge(x.s.c.Body)
	}
	return nil
}

// goOn tells a client that waits for it to send its body (RFC 9110, section 10.1.1).
func (x *exchange) goOn() error {
	return x.write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
}

func (x *exchange) write(p []byte) error {
	if err := x.stream.SetWriteDeadline(soon(x.task, cmp.Or(x.req.Idle, x.s.c.WriteTimeout), time.Time{})); err != nil {
		return err
	}
	_, err := x.stream.Write(p)
	return err
}

// respond writes the answer and tells how many bytes its body had, and whether the connection must end.
func (x *exchange) respond(res *loam.Response, status int, last bool) (sent int64, _ bool, err error) {
	defer func() { _ = res.Close() }() // the answer was sent whole by then, or err says that it was not
	known := res.Length >= 0 && (res.Body != nil || res.Length == 0)
	empty := bodiless(status) || x.req.Method == http.MethodHead || res.Body == nil
	chunked := !empty && !known && x.msg.minor > 0
	last = last || !empty && !known && !chunked
	b, err := x.appendHead(x.out[:0], res, status)
	if err != nil {
		x.s.c.Log.Error("request failed", "request", x.req.ID, "path", x.req.Path, "error", err)
		failure := protocol.ErrorResponse(err, x.req.ID)
		return x.respond(failure, failure.Status, last)
	}
	switch {
	case bodiless(status):
	case x.req.Method == http.MethodHead:
		if res.Length > 0 || res.Length == 0 && res.Body == nil {
			b = appendLength(b, res.Length)
		}
	case chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case known:
		b = appendLength(b, res.Length)
	case res.Body == nil:
		b = appendLength(b, 0)
	}
	if last {
		b = append(b, "Connection: close\r\n"...)
	} else if x.msg.minor == 0 {
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	b = append(b, "\r\n"...)
	x.out = b[:0]
	switch {
	case empty:
		return 0, last, x.write(b)
	case known:
		sent, err = x.sendKnown(b, res)
	default:
		sent, err = x.sendStream(b, res, chunked)
	}
	return sent, last, err
}

func (x *exchange) appendHead(b []byte, res *loam.Response, status int) ([]byte, error) {
	b = append(b, "HTTP/1.1 "...)
	if status == http.StatusOK {
		b = append(b, "200 OK\r\n"...)
	} else {
		b = strconv.AppendInt(b, int64(status), 10)
		b = append(b, ' ')
		b = append(b, http.StatusText(status)...)
		b = append(b, "\r\n"...)
	}
	b, seen, err := appendFields(b, res.Header, res.Tunnel != nil, false)
	if err != nil {
		return b, err
	}
	if !seen.date {
		b = append(b, x.s.clock.field(x.task.Now())...)
	}
	if !seen.id {
		b = append(b, "X-Request-Id: "...)
		b = append(b, x.req.ID...)
		b = append(b, "\r\n"...)
	}
	return b, nil
}

// buffered is a body that can say how much of it is at hand.
type buffered interface{ Buffered() int }

// atHand is how many bytes of the body can be read without waiting for them: all there are where the body does not say,
// since then it is no stream of ours.
func atHand(body io.Reader, length int64) int {
	if b, ok := body.(buffered); ok {
		return b.Buffered()
	}
	return int(min(length, bufferSize))
}

// sendKnown writes the head and a body of known length, with one write where all is there.
func (x *exchange) sendKnown(b []byte, res *loam.Response) (sent int64, err error) {
	head := len(b)
	room := atHand(res.Body, res.Length)
	if room > cap(b)-head || int64(room) < res.Length {
		buf := buffers.Get().(*buffer)
		defer buffers.Put(buf)
		b = append(buf.b[:0], b...)
	}
	if room > 0 {
		n, err := readAtLeast(res.Body, b[head:cap(b)], min(int64(room), res.Length))
		b = b[:head+n]
		if err != nil {
			return 0, cmp.Or(x.write(b), err)
		}
	}
	for {
		if sent += int64(len(b) - head); sent > res.Length {
			return sent, errLong
		}
		if err := x.write(b); err != nil || sent == res.Length {
			return sent, err
		}
		head = 0
		n, err := res.Body.Read(b[:cap(b)])
		b = b[:n]
		if n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return sent, err
		}
	}
}

var errLong = errors.New("the body is longer than was announced")

// readAtLeast reads until want bytes are there, or the body's end; more are taken where they come along.
func readAtLeast(r io.Reader, p []byte, want int64) (n int, err error) {
	for int64(n) < want && n < len(p) {
		m, err := r.Read(p[n:])
		n += m
		if err != nil && m == 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
	return n, nil
}

// sendStream writes the head and a body whose end is not known, handing on what there is as it comes: the head first
// where nothing is there yet, for a stream of events opens long before the first of them.
func (x *exchange) sendStream(b []byte, res *loam.Response, chunked bool) (sent int64, err error) {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	p := buf.b[:0]
	if s, ok := res.Body.(buffered); ok && s.Buffered() > 0 && len(b) < bufferSize/2 {
		p = append(p, b...)
	} else if err := x.write(b); err != nil {
		return 0, err
	}
	for {
		at := len(p)
		if chunked {
			at += sizeLine
		}
		n, err := res.Body.Read(buf.b[at : bufferSize-2])
		sent += int64(n)
		if n > 0 {
			if chunked {
				appendChunkSize(p, n)
			}
			if p = buf.b[:at+n]; chunked {
				p = append(p, "\r\n"...)
			}
		}
		if err == io.EOF && chunked {
			p = appendTrailer(p, res.Trailer)
		}
		if len(p) > 0 {
			if err := x.write(p); err != nil {
				return sent, err
			}
			p = buf.b[:0]
		}
		if err == io.EOF {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
	}
}

// refuse answers a message that is none, and ends the connection.
func (x *exchange) refuse(err error) loop.Verdict {
	x.conn.Poll(false)
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		r = errLine
	}
	id := view(x.s.ids.Append(x.id[:0]))
	b := x.out[:0]
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.status), 10)
	b = append(append(append(b, ' '), http.StatusText(r.status)...), "\r\nContent-Type: text/plain; charset=utf-8\r\n"...)
	b = appendLength(b, int64(len(r.why)+1))
	b = append(append(append(b, "X-Request-Id: "...), id...), "\r\nConnection: close\r\n\r\n"...)
	b = append(append(b, r.why...), '\n')
	x.out = b[:0]
	x.req.End()
	x.n = 0
	if x.write(b) != nil {
		return loop.Close
	}
	return x.linger(true)
}

// linger closes a connection so that the peer can read the answer: closing a socket that has unread bytes makes the
// kernel cut off what was sent and not yet read (RFC 9112, section 9.6).
func (x *exchange) linger(unread bool) loop.Verdict {
	if !unread || x.peer != nil {
		return x.close()
	}
	if x.conn.CloseWrite() != nil || x.conn.SetReadDeadline(x.task.Now().Add(lingerTime)) != nil {
		return loop.Close
	}
	for total := 0; total < maxLinger; {
		n, err := x.conn.Read(x.in)
		if err != nil {
			break
		}
		total += n
	}
	return loop.Close
}

const (
	lingerTime = 500 * time.Millisecond
	maxLinger  = 32 << 20 // bytes that are read and thrown away in that time
)

// close ends the connection, TLS included: without its own farewell clients would not resume the session.
func (x *exchange) close() loop.Verdict {
	x.conn.Poll(false)
	x.req.End()
	x.n = 0
	if x.peer != nil {
		_ = x.stream.SetWriteDeadline(x.task.Now().Add(lingerTime)) // the peer may be gone: then there is nobody to tell
		_ = x.stream.Close()
	}
	return loop.Close
}

// tunnel sends the head by which the connection leaves HTTP, and joins both ends.
func (x *exchange) tunnel(res *loam.Response, start time.Time) loop.Verdict {
	b, err := x.appendHead(x.out[:0], res, cmp.Or(res.Status, http.StatusSwitchingProtocols))
	if err == nil {
		b = append(b, "Connection: Upgrade\r\n\r\n"...)
		x.out = b[:0]
		err = x.write(b)
	}
	if err != nil {
		_ = res.Close() // the client is gone
		x.finish()
		return loop.Close
	}
	rest := append([]byte(nil), x.r.buf[x.r.r:x.r.w]...)
	if o := x.req.Observer; o != nil {
		o.Observe(&x.req, cmp.Or(res.Status, http.StatusSwitchingProtocols), 0, x.task.Now().Sub(start))
	}
	x.finish()
	_ = x.stream.SetDeadline(time.Time{})
	relay := loop.Relay{A: x.stream, B: res.Tunnel, FromA: rest, Idle: time.Hour}
	if t, ok := res.Tunnel.(*Tunnel); ok {
		relay.B, relay.FromB = t.Conn, t.FromPeer
	}
	relay.Start(x.task)
	return loop.Handed
}

// A Tunnel is the upstream's end of a connection that left HTTP, with what was read of it already.
type Tunnel struct {
	net.Conn
	FromPeer []byte
}

// Early is FromPeer, for who does not know the type.
func (t *Tunnel) Early() []byte { return t.FromPeer }

func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
