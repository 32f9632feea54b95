package http2

import (
	"cmp"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/grpc"
)

// ServerConfig says how a Server treats its clients.
type ServerConfig struct {
	protocol.Options
	Limits
	Hub *Hub // of the engine whose connections it is given; required
}

// A Server answers the requests of connections by a target.
type Server struct {
	target   loam.Target
	c        ServerConfig
	draining atomic.Bool
}

// NewServer makes a server of target.
func NewServer(target loam.Target, c ServerConfig) *Server {
	c.Limits.Body = cmp.Or(c.Options.MaxBody, c.Limits.Body)
	c.Limits.setDefaults(128)
	return &Server{target: target, c: c}
}

// Session begins to serve a connection. stream is what is spoken on: the connection itself, or TLS over a
// protocol.Carrier over it; peer is what TLS told of the client, nil without it. read are bytes that came in already,
// less than a frame of the largest size.
func (s *Server) Session(conn loop.Conn, stream net.Conn, peer *loam.Peer, read []byte) loop.Session {
	c := newConn(s.c.Hub, nil, conn, stream, &s.c.Limits)
	c.srv, c.peer, c.early, c.preface = s, peer, read, len(preface)
	c.remote = c.stream.RemoteAddr().String()
	return c
}

// Drain has every connection told to open no more streams, and closed when those it has are over. It does not wait.
func (s *Server) Drain() {
	s.draining.Store(true)
	for i := range s.c.Hub.shards {
		sh := &s.c.Hub.shards[i]
		sh.mu.Lock()
		if sh.sweeper != nil {
			sh.sweepAt = time.Time{}
			sh.sweeper.Wake()
		}
		sh.mu.Unlock()
	}
}

// Quiet says that the connection may be closed without a word. One that has begun is never quiet: it tells its client
// which requests it has served, and closes by itself after Drain.
func (c *conn) Quiet() bool { return c.sh == nil }

// onRequest takes the head or trailer of a request.
func (c *conn) onRequest(id uint32, end bool, block []byte, loops bool) *fault {
	if s := c.streams[id]; s != nil {
		return s.onTrailer(end, block)
	}
	switch {
	case id&1 == 0:
		return &fault{ProtocolError, "a client's stream has an even number"}
	case id <= c.last:
		if c.wasReset(id) {
			if f := c.skip(block); f != nil {
				return f
			}
			return c.nuisance()
		}
		return &fault{StreamClosed, "HEADERS of a stream that is closed"}
	}
	c.last = id
	if len(c.streams) >= c.lim.Streams || c.running >= 2*c.lim.Streams || c.draining == drained {
		c.sendReset(id, RefusedStream)
		if f := c.skip(block); f != nil {
			return f
		}
		return c.nuisance()
	}
	s := c.sh.stream(c, id)
	h, err := c.dec.decode(block, requestHead, &s.ownHead)
	switch {
	case errors.Is(err, errCompression):
		delete(c.streams, id)
		c.sh.recycle(s)
		return &fault{CompressionError, "a head is not HPACK"}
	case errors.Is(err, errTooMany):
		h = &s.ownHead
		h.reset()
		h.method, h.scheme, h.path = "GET", "http", "/"
		s.recvErr = errHead
	case err != nil || loops || end && h.length > 0:
		delete(c.streams, id)
		c.sh.recycle(s)
		c.sendReset(id, ProtocolError)
		return c.nuisance()
	}
	s.head = h
	s.want = h.length
	if !h.grpc && h.protocol == "" { // those are streams: what is on its way is bounded, not their whole
		s.most = max(c.lim.Body, -1)
	}
	s.recvEnd = end
	s.running = true
	c.running++
	if sh := c.sh; sh.starting == nil {
		sh.starting, sh.startingLast = s, s
	} else {
		sh.startingLast.next, sh.startingLast = s, s
	}
	return nil
}

var errHead = loam.Errorf(loam.ResourceExhausted, "request", "the head is too large")

// onTrailer takes the fields that end a body.
func (s *stream) onTrailer(end bool, block []byte) *fault {
	c := s.c
	h, err := c.dec.decode(block, trailerHead, &s.ownTrailer)
	switch {
	case errors.Is(err, errCompression):
		return &fault{CompressionError, "a head is not HPACK"}
	case s.recvEnd:
		c.refuse(s.id, StreamClosed)
		return c.nuisance()
	case err != nil || !end || s.want >= 0 && s.got != s.want:
		c.refuse(s.id, ProtocolError)
		return c.nuisance()
	}
	if len(h.fields) > 0 {
		s.trailer = h
	}
	s.ended()
	return nil
}

// run serves a request in a task of its own.
func (s *stream) run(t loam.Task) {
	c, sh, srv := s.c, s.sh, s.c.srv
	defer s.leaveTask(t)
	req, h := &s.req, s.head
	req.Begin(t)
	s.begun = t.Now()
	req.Method, req.Scheme, req.Authority, req.Path, req.RawQuery = h.method, "http", h.authority, h.path, h.query
	if req.Peer = c.peer; c.peer != nil {
		req.Scheme = "https"
	}
	req.Remote = c.remote
	req.Header = append(req.Header[:0], h.fields...)
	if req.ID = h.id; req.ID == "" {
		req.ID = view(c.hub.ids.Append(s.id32[:0]))
		req.Header.Set(protocol.RequestID, req.ID)
	}
	if h.timeout > 0 {
		req.SetDeadline(s.begun.Add(h.timeout))
	}
	sh.mu.Lock()
	if req.Length = h.length; s.recvEnd && len(s.recv) == 0 && s.trailer == nil {
		req.Length = 0
	} else {
		req.Body = (*body)(s)
	}
	if s.gone {
		sh.mu.Unlock()
		return
	}
	s.task = t
	err := s.recvErr
	sh.mu.Unlock()
	var res *loam.Response
	switch {
	case h.method == http.MethodConnect && h.protocol == "":
		err = loam.Errorf(loam.Unimplemented, "request", "CONNECT: this is no forward proxy")
	case h.method == http.MethodConnect:
		err = s.asUpgrade()
	case err == nil && srv.c.Limits.Body > 0 && h.length > srv.c.Limits.Body:
		err = errTooLarge(srv.c.Limits.Body)
	}
	if err == nil {
		res, err = protocol.Serve(srv.target, req, srv.c.Log)
	}
	if err = s.respond(t, res, err); err != nil {
		if code := loam.CodeOf(err); code != loam.Canceled {
			srv.c.Log.Warn("answer broken off", "request", req.ID, "path", req.Path, "error", err)
		}
	}
}

func errTooLarge(limit int64) error { return protocol.TooLarge(limit) }

// leaveTask is the end of the stream's task. What goes on without it goes on by itself.
func (s *stream) leaveTask(t loam.Task) {
	sh := s.sh
	sh.enter(t)
	s.task, s.running = nil, false
	s.c.running--
	if !s.gone && s.source == nil {
		s.abort(errNoAnswer, InternalError) // the task was ended before it had answered whole
	}
	if !s.gone { // it goes on without a task: somebody else has to look at the time
		s.deadline = s.req.Deadline()
		s.idle = s.req.Idle
		sh.soon(s.deadline)
		if s.idle > 0 {
			sh.soon(sh.now.Add(s.idle))
		}
	}
	s.checkEnded()
	s.c.checkDone()
	sh.leave(t)
}

var errNoAnswer = loam.Errorf(loam.Internal, "http2", "the answer broke off")

// finish lets go of a server's stream that is over.
func (s *stream) finish(now time.Time) {
	sh := s.sh
	var u *stream
	if s.answer != nil {
		if b, ok := s.answer.Body.(*body); ok {
			u = (*stream)(b)
		}
	}
	if o := s.req.Observer; o != nil {
		o.Observe(&s.req, cmp.Or(s.status, protocol.StatusClientClosed), s.sent, now.Sub(s.begun))
	}
	s.req.Body = nil // it is this stream
	s.req.End()
	sh.mu.Lock()
	s.c.checkDone()
	if u != nil {
		u.unlink()
		if u.gone {
			sh.recycle(u)
		} else {
			u.abort(errClosed, Cancel)
		}
	}
	s.unlink()
	sh.recycle(s)
	sh.mu.Unlock()
}

// unlink takes a stream out of what others send or receive.
func (s *stream) unlink() {
	if u := s.source; u != nil {
		s.source = nil
		if u.sink == s {
			u.sink = nil
		}
	}
	if u := s.sink; u != nil {
		s.sink = nil
		if u.source == s {
			u.source = nil
		}
	}
}

// failure is what an error looks like to who asked.
func (s *stream) failure(err error) *loam.Response {
	if s.head.grpc {
		return grpc.ErrorResponse(err)
	}
	res := protocol.ErrorResponse(err, s.req.ID)
	if errors.Is(err, errHead) {
		res.Status = http.StatusRequestHeaderFieldsTooLarge
	}
	return res
}

func grpcStatus(err error) loam.Header { return grpc.AppendStatus(nil, err) }

// respond sends the answer, or hands it over to be relayed.
func (s *stream) respond(t loam.Task, res *loam.Response, err error) error {
	sh, c := s.sh, s.c
	if err != nil {
		res = s.failure(err)
	}
	if res.Tunnel != nil {
		return s.tunnel(t, res)
	}
	s.status = cmp.Or(res.Status, http.StatusOK)
	bodiless := s.status == http.StatusNoContent || s.status == http.StatusNotModified || res.Body == nil
	head := s.req.Method == http.MethodHead
	known := res.Length >= 0 && (res.Body != nil || res.Length == 0)
	length := int64(-1)
	if s.status != http.StatusNoContent && s.status != http.StatusNotModified && (head && res.Length > 0 || !head && known && !s.head.grpc) {
		length = res.Length
	}
	end := bodiless || head
	sh.enter(t)
	if s.gone {
		err := s.err
		sh.leave(t)
		return errors.Join(err, res.Close())
	}
	start := c.beginHead()
	b := appendStatus(c.out, s.status)
	id, date := s.head.grpc, s.head.grpc // gRPC has no use for them, and every byte is parsed by somebody
	ok := true
	for i := range res.Header {
		f := &res.Header[i]
		switch len(f.Name) {
		case 4:
			date = date || protocol.EqualFold(f.Name, "date")
		case 12:
			id = id || protocol.EqualFold(f.Name, "x-request-id")
		}
		if b, ok = appendRegular(b, f.Name, f.Value, false); !ok {
			break
		}
	}
	if !ok {
		c.out = c.out[:start]
		sh.leave(t)
		s.c.srv.c.Log.Error("request failed", "request", s.req.ID, "path", s.req.Path, "error", errField)
		_ = res.Close() // it is not what is answered
		return s.respond(t, nil, errField)
	}
	if length >= 0 {
		b = appendLength(b, length)
	}
	if !id {
		b = appendField(b, "x-request-id", s.req.ID)
	}
	if !date {
		b = appendField(b, "date", c.hub.date(sh.now))
	}
	c.out = b
	if end && len(res.Trailer) > 0 && !head { // an answer without a body may have a trailer: gRPC's without messages
		c.endHead(start, s.id, false)
		s.sentHead = true
		s.sendTrailer(res.Trailer)
	} else {
		c.endHead(start, s.id, end)
		s.sentHead = true
		if end {
			s.finishSending()
		}
	}
	if s.sentEnd {
		if u := relayed(res, sh); u != nil {
			s.answer = res
		}
		sh.leave(t)
		if s.answer != nil {
			return nil
		}
		return res.Close()
	}
	if u := relayed(res, sh); u != nil {
		s.source, u.sink, s.answer = u, s, res
		s.pull()
		sh.leave(t)
		return nil
	}
	sh.leave(t)
	err = s.copyBody(t, res, length)
	if err != nil {
		sh.enter(t)
		s.sourceFailed(err)
		sh.leave(t)
	}
	return errors.Join(err, res.Close())
}

// relayed is the stream of a client of the same shard whose body an answer is; nil: it is another's.
func relayed(res *loam.Response, sh *shard) *stream {
	if b, ok := res.Body.(*body); ok && b.sh == sh && (*stream)(b).client() && b.sink == nil && (b.pump == nil || b.pump.done) {
		return (*stream)(b)
	}
	return nil
}

// copyBody sends a body that somebody else has. Until it has filled a small buffer it gets no large one.
func (s *stream) copyBody(t loam.Task, res *loam.Response, length int64) error {
	sh := s.sh
	if w, ok := res.Body.(protocol.Whole); ok {
		p := w.Whole()
		if length >= 0 && int64(len(p)) != length {
			return errors.New("the body is not as long as was announced")
		}
		return s.sendWhole(t, p, res.Trailer, s.req.Deadline())
	}
	if s.small == nil {
		s.small = make([]byte, 2<<10)
	}
	buf, large := s.small, false
	defer func() {
		if large {
			sh.mu.Lock()
			sh.giveBack(buf)
			sh.mu.Unlock()
		}
	}()
	sent := int64(0)
	for {
		n, err := res.Body.Read(buf)
		if sent += int64(n); length >= 0 && sent > length {
			return errors.New("the body is longer than was announced")
		}
		last := err == io.EOF && len(res.Trailer) == 0
		if err == io.EOF && length >= 0 && sent < length {
			return io.ErrUnexpectedEOF
		}
		if n > 0 && length >= 0 && sent == length && err == nil {
			// Most bodies end with a Read of their own that gives nothing: it is not worth a frame.
			m, e := res.Body.Read(buf[:0:0])
			last = m == 0 && e == io.EOF && len(res.Trailer) == 0
		}
		if n > 0 || last {
			if err := s.send(t, buf[:n], last, s.req.Deadline()); err != nil {
				return err
			}
		}
		switch {
		case last:
			return nil
		case err == io.EOF:
			sh.enter(t)
			if !s.gone {
				s.sendTrailer(res.Trailer)
			}
			sh.leave(t)
			return nil
		case err != nil:
			return err
		}
		if n == len(buf) && !large {
			large = true
			sh.mu.Lock()
			buf = sh.buffer()
			sh.mu.Unlock()
			buf = buf[:cap(buf)]
		}
	}
}

// sendWhole sends a body that is in memory, and the trailer where there is one.
func (s *stream) sendWhole(t loam.Task, p []byte, trailer loam.Header, deadline time.Time) error {
	if len(p) > 0 || len(trailer) == 0 {
		if err := s.send(t, p, len(trailer) == 0, deadline); err != nil {
			return err
		}
	}
	if len(trailer) > 0 {
		s.sh.enter(t)
		if !s.gone {
			s.sendTrailer(trailer)
		}
		s.sh.leave(t)
	}
	return nil
}

// stamp is the Date field's value of one second.
type stamp struct {
	second int64
	value  string
}

// date is the present time as HTTP says it, made once a second.
func (h *Hub) date(now time.Time) string {
	second := now.Unix()
	s := h.stamp.Load()
	if s == nil || s.second != second {
		s = &stamp{second, now.UTC().Format(http.TimeFormat)}
		h.stamp.Store(s)
	}
	return s.value
}
