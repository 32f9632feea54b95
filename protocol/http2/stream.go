package http2

import (
	"cmp"
	"context"
	"errors"
	"io"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// A stream is one request with its response, of a server or of a client. It is pooled by the server's side.
//
// What a stream receives either waits in recv for a task that reads it, or goes to another stream: its sink, for which it
// is the source. Then whatever brings bytes or room moves them on, and no task is needed.
type stream struct {
	state

	runs func(loam.Task) // run, bound once
	recv []byte          // received: recv[taken:] has nobody taken yet
	req  loam.Request    // of the server's side
	id32 [32]byte        // its id
	res  loam.Response   // of the client's side

	small []byte // what a body that is another's is read into at first

	ownHead, ownTrailer head

	own [2]loam.Task // where goroutines wait that have no task at hand: one that reads, and one that writes
}

// state is what a stream forgets between two uses.
type state struct {
	c    *conn
	sh   *shard
	id   uint32
	next *stream // in a list of the shard

	// What is received.
	head       *head
	trailer    *head
	taken      int
	recvWindow int64 // what the peer may send
	credit     int64 // what it may send besides and has not been told
	recvEnd    bool
	discard    bool  // nobody wants what comes
	got        int64 // bytes of the body so far
	want       int64 // that it announced; -1: it did not
	most       int64 // that are taken; negative: no bound
	sink       *stream
	recvErr    error         // what a reader gets after what there is
	recvAt     time.Time     // when the latest came
	owes       bool          // its reader waits for bytes that were announced, in a gRPC stream too
	sweptAt    time.Time     // when a sweep saw the stream, where its sender owes a rate
	waited     time.Duration // for what came, as sweeps saw it

	// What is sent.
	window   int64
	source   *stream
	sentHead bool
	sentEnd  bool
	sent     int64 // bytes of the body
	isHeld   bool  // it waits in the connection's line
	nextHeld *stream
	mark     int64
	markAt   time.Time // since when no more than mark was sent although there is more; zero: it does not wait
	sentAt   time.Time // when the latest went

	gone     bool          // it is over, and the connection does not know it any more
	err      error         // why, if it did not end well
	deadline time.Time     // when it is ended, having no task to do so
	idle     time.Duration // how long it may be silent, by its request; 0: as its connection's limits say

	// Who waits.
	task   loam.Task // that serves it, or waits for the response's head; nil: none
	reader loam.Task // waits for bytes
	writer loam.Task // waits for room

	// Of the server's side.
	running bool
	listed  bool // it is among the shard's ended
	begun   time.Time
	status  int
	answer  *loam.Response // whose body is relayed

	// Of the client's side.
	headless bool      // the response has no body, whatever it says: the request was HEAD
	tunneled string    // the protocol that HTTP is left for
	until    time.Time // the request's deadline
	pump     *pump     // the task that sends a body which somebody else has; nil: there is none
}

// body is a stream as the reader of what it receives sees it.
type body stream

// Buffered is how many bytes a Read gives without waiting.
func (b *body) Buffered() int {
	s := (*stream)(b)
	s.sh.mu.Lock()
	defer s.sh.mu.Unlock()
	return len(s.recv) - s.taken
}

func (b *body) Read(p []byte) (int, error) { return (*stream)(b).read(p) }

// Owe says whether the sender has announced what it has not sent: then it may not be silent, as a gRPC stream otherwise may.
func (b *body) Owe(on bool) {
	s := (*stream)(b)
	s.sh.mu.Lock()
	defer s.sh.mu.Unlock()
	s.owes = on
}

func (b *body) Close() error { (*stream)(b).closeBody(); return nil }

// stream takes an empty stream from the shard.
func (sh *shard) stream(c *conn, id uint32) *stream {
	s := sh.free
	if s == nil {
		s = &stream{}
		s.runs = s.run
	} else {
		sh.free, s.next = s.next, nil
		sh.spare--
	}
	s.c, s.sh, s.id = c, sh, id
	s.window, s.recvWindow, s.want, s.most = c.first, int64(c.lim.StreamWindow), -1, -1
	s.recvAt, s.sentAt = sh.now, sh.now
	if c.streams == nil {
		c.streams = map[uint32]*stream{}
	}
	c.streams[id] = s
	return s
}

// maxSpare is how many streams a shard keeps for use again.
const maxSpare = 1024

// recycle takes back a stream that nobody knows any more.
func (sh *shard) recycle(s *stream) {
	if sh.spare >= maxSpare {
		return
	}
	recv := s.recv[:0]
	if cap(recv) > 4<<10 {
		recv = nil
	}
	s.recv = recv
	s.ownHead.reset()
	s.ownTrailer.reset()
	s.res = loam.Response{Header: clearHeader(s.res.Header), Trailer: clearHeader(s.res.Trailer)}
	s.state = state{next: sh.free}
	sh.free = s
	sh.spare++
}

func clearHeader(h loam.Header) loam.Header {
	if cap(h) > 64 {
		return nil
	}
	h = h[:cap(h)]
	clear(h)
	return h[:0]
}

func (s *stream) client() bool { return s.c.srv == nil }

func wake(t *loam.Task) {
	if *t != nil {
		(*t).Wake()
		*t = nil
	}
}

// ---- Receiving

// arrived takes bytes of the body.
func (s *stream) arrived(p []byte, end bool) {
	c := s.c
	s.got += int64(len(p))
	s.recvAt = s.sh.now
	switch {
	case s.client() && s.head == nil:
		c.credit += int64(len(p))
		c.refuse(s.id, ProtocolError) // DATA before HEADERS
		return
	case s.want >= 0 && (s.got > s.want || end && s.got < s.want):
		c.credit += int64(len(p))
		c.refuse(s.id, ProtocolError) // not what Content-Length announced
		return
	case s.most >= 0 && s.got > s.most && s.recvErr == nil:
		s.failBody(errTooLarge(s.most))
	}
	if s.client() {
		c.credit += int64(len(p)) // the connection's window only bounds a server's clients
	}
	if s.discard || s.recvErr != nil {
		if !s.client() {
			c.credit += int64(len(p))
		}
		if end {
			s.ended()
		}
		return
	}
	if u := s.sink; u != nil && s.taken == len(s.recv) && u.sentHead && u.source == s {
		n := u.forward(p, end)
		s.took(n)
		p = p[n:]
		if len(p) == 0 {
			if end {
				s.ended()
			} else {
				s.update()
			}
			return
		}
	}
	if s.taken > 0 && len(s.recv)+len(p) > cap(s.recv) {
		s.recv = append(s.recv[:0], s.recv[s.taken:]...)
		s.taken = 0
	}
	s.recv = append(s.recv, p...)
	if end {
		s.ended()
	}
	wake(&s.reader)
}

// took gives back room to the sender for n bytes that have left recv.
func (s *stream) took(n int) {
	s.credit += int64(n)
	if !s.client() {
		s.c.credit += int64(n)
		if s.c.credit >= int64(s.c.lim.ConnWindow)/2 && !s.c.dead {
			s.c.out = appendWindowUpdate(s.c.room(), 0, uint32(s.c.credit))
			s.c.recvWindow += s.c.credit
			s.c.credit = 0
			s.c.wants()
		}
	}
}

// update tells the peer what more it may send, when that is worth a frame.
func (s *stream) update() {
	if s.recvEnd || s.gone || s.credit < int64(s.c.lim.StreamWindow)/2 {
		return
	}
	s.c.out = appendWindowUpdate(s.c.room(), s.id, uint32(s.credit))
	s.recvWindow += s.credit
	s.credit = 0
	s.c.wants()
}

// ended is called when the peer has sent all.
func (s *stream) ended() {
	s.recvEnd = true
	wake(&s.reader)
	if s.client() && s.task != nil {
		s.task.Wake()
	}
	if s.sink != nil {
		s.sink.pull()
	}
	s.checkGone()
}

// failBody makes err what a reader gets, and the end of a request that sends the body on.
func (s *stream) failBody(err error) {
	s.recvErr = err
	s.dropBytes()
	wake(&s.reader)
	if u := s.sink; u != nil && u.client() {
		u.abort(err, Cancel)
	}
}

// dropBytes gives up what has come and was not taken.
func (s *stream) dropBytes() {
	n := len(s.recv) - s.taken
	s.recv, s.taken = s.recv[:0], 0
	s.took(n)
}

// waiter is where a reader or writer waits that has no task at hand: its own one on an event loop, and a goroutine's
// otherwise.
func (s *stream) waiter(what int) loam.Task {
	if e, ok := s.c.raw.(interface{ Task() loam.Task }); ok {
		if t := e.Task(); t != nil {
			return t
		}
	}
	if s.own[what] == nil {
		s.own[what], _ = loam.NewTask(context.Background()) // it lives as long as the stream
	}
	return s.own[what]
}

const (
	reads = iota
	writes
)

// limit is when its waits end.
func (s *stream) limit() time.Time {
	if s.client() {
		return s.until
	}
	return s.req.Deadline()
}

// read waits for bytes of the body.
func (s *stream) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	t := s.waiter(reads)
	sh := s.sh
	for {
		sh.enter(t)
		if n := copy(p, s.recv[s.taken:]); n > 0 {
			s.taken += n
			if s.taken == len(s.recv) {
				s.recv, s.taken = s.recv[:0], 0
				if cap(s.recv) > bufferSize {
					s.recv = nil
				}
			}
			s.took(n)
			s.update()
			sh.leave(t)
			return n, nil
		}
		if err := s.readErr(); err != nil {
			sh.leave(t)
			return 0, err
		}
		s.reader = t
		sh.leave(t)
		if err := t.Park(s.limit()); err != nil {
			return 0, waitError(err)
		}
	}
}

// readErr is why nothing more comes; nil: more may.
func (s *stream) readErr() error {
	switch {
	case s.recvErr != nil:
		return s.recvErr
	case s.recvEnd:
		if s.trailer != nil {
			to := &s.req.Trailer
			if s.client() {
				to = &s.res.Trailer
			}
			*to = append((*to)[:0], s.trailer.fields...)
		}
		return io.EOF
	case s.err != nil:
		return s.err
	case s.discard:
		return errClosed
	}
	return nil
}

var errClosed = errors.New("http2: the body was closed")

// waitError is what a wait that was ended early means.
func waitError(err error) error {
	if code := loam.CodeOf(err); code == loam.DeadlineExceeded || code == loam.Canceled {
		return &loam.Error{Code: code, Op: "http2", Err: err}
	}
	return err
}

// closeBody is called by the reader when it wants no more.
func (s *stream) closeBody() {
	sh := s.sh
	if sh == nil {
		return
	}
	t := s.waiter(reads)
	sh.enter(t)
	if s.sink == nil {
		s.discard = true
		s.dropBytes()
	}
	if s.client() && !s.gone {
		s.abort(errClosed, Cancel)
	}
	p := s.pump
	sh.leave(t)
	if p != nil {
		p.stop(t)
	}
}

// ---- Sending

// capacity is how many bytes may be sent now. Where it is none, the stream is resumed when that changes.
func (s *stream) capacity() int {
	c := s.c
	if s.window <= 0 {
		s.wait()
		return 0
	}
	room := outHigh - len(c.out)
	if c.window <= 0 || room <= 0 {
		s.wait()
		c.hold(s)
		return 0
	}
	return int(min(s.window, c.window, int64(max(room, 1024)), maxFrame))
}

func (s *stream) wait() {
	if s.markAt.IsZero() {
		s.mark, s.markAt = s.sent, s.sh.now
	}
}

// forward sends bytes as far as the peer takes them, and tells how many that were. The last of them end the stream if end
// is set.
func (s *stream) forward(p []byte, end bool) (n int) {
	c := s.c
	for {
		most := len(p) - n
		if most > 0 {
			most = min(most, s.capacity())
			if most == 0 {
				return n
			}
		}
		last := end && n+most == len(p)
		if most == 0 && !last {
			return n
		}
		flags := byte(0)
		if last {
			flags = flagEndStream
		}
		c.out = appendFrame(c.room(), most, frameData, flags, s.id)
		c.out = append(c.out, p[n:n+most]...)
		c.wants()
		c.moved()
		c.lent += 2 * int64(most) // once for the stream, once for the connection
		s.window -= int64(most)
		c.window -= int64(most)
		s.sent += int64(most)
		s.sentAt = s.sh.now
		n += most
		if s.sent-s.mark >= minProgress || n == len(p) {
			s.markAt = time.Time{}
		}
		if last {
			s.finishSending()
			return n
		}
	}
}

// minProgress is how many bytes a stalled receiver must take in WriteTimeout.
const minProgress = 1024

// pull sends what the source has received.
func (s *stream) pull() {
	u := s.source
	if u == nil || !s.sentHead || s.sentEnd || s.gone {
		return
	}
	rest := u.recv[u.taken:]
	plain := u.recvEnd && u.trailer == nil
	n := 0
	if len(rest) > 0 {
		n = s.forward(rest, plain)
		u.taken += n
		u.took(n)
		if u.taken == len(u.recv) {
			u.recv, u.taken = u.recv[:0], 0
			if cap(u.recv) > bufferSize {
				u.recv = nil
			}
		}
	}
	if n < len(rest) {
		u.update()
		return
	}
	switch {
	case u.err != nil && !u.recvEnd:
		s.sourceFailed(u.err)
	case !u.recvEnd:
		u.update()
	case s.sentEnd:
	case u.trailer != nil:
		s.sendTrailer(u.trailer.fields)
	default:
		s.forward(nil, true)
	}
}

// resume goes on sending after there is room again.
func (s *stream) resume() {
	if s.source != nil {
		s.pull()
		return
	}
	wake(&s.writer)
}

// send sends p whole, and ends the stream with it if end is set. It waits in t for room.
func (s *stream) send(t loam.Task, p []byte, end bool, deadline time.Time) error {
	sh := s.sh
	for {
		sh.enter(t)
		if s.gone || s.sentEnd {
			err := s.err
			sh.leave(t)
			if err == nil {
				err = errStopSending
			}
			return err
		}
		n := s.forward(p, end)
		p = p[n:]
		if len(p) == 0 {
			sh.leave(t)
			return nil
		}
		s.writer = t
		sh.leave(t)
		if err := t.Park(deadline); err != nil {
			return waitError(err)
		}
	}
}

// errStopSending is that of a request whose response came whole before it was sent.
var errStopSending = errors.New("http2: the peer wants no more")

// sendTrailer ends the stream by a trailer.
func (s *stream) sendTrailer(fields loam.Header) {
	c := s.c
	start := c.beginHead()
	n := len(c.out)
	b := c.out
	for i := range fields {
		b, _ = appendRegular(b, fields[i].Name, fields[i].Value, true) // what no field may hold is left out
	}
	c.out = b
	if len(b) == n && !c.resize { // nothing is left of it
		c.out = c.out[:start]
		s.forward(nil, true)
		return
	}
	c.endHead(start, s.id, true)
	s.finishSending()
}

// finishSending is called when the last frame was sent.
func (s *stream) finishSending() {
	s.sentEnd = true
	s.markAt = time.Time{}
	s.c.moved()
	if s.client() {
		s.checkGone()
		return
	}
	if !s.recvEnd && s.head.protocol != "" {
		return // a tunnel ends one way at a time
	}
	if !s.recvEnd { // the answer is whole: what the client still sends would be for nobody (RFC 9113, section 8.1)
		if u := s.sink; u != nil {
			s.sink = nil
			u.source = nil
		}
		s.c.sendReset(s.id, NoError)
		s.detach()
		return
	}
	s.checkGone()
}

// ---- The end

// checkGone lets the connection forget a stream whose both directions have ended.
func (s *stream) checkGone() {
	if s.gone || !s.recvEnd {
		return
	}
	if s.client() {
		if !s.sentEnd && s.tunneled != "" && s.head != nil && s.head.status < 300 {
			return // a tunnel ends one way at a time
		}
		if !s.sentEnd {
			// The server has answered without reading all: it gets no more.
			if s.head == nil || s.head.status < 200 {
				return
			}
			if u := s.source; u != nil {
				s.source = nil
				u.sink = nil
				u.discard = true
				u.dropBytes()
			}
			s.c.sendReset(s.id, Cancel)
			wake(&s.writer)
		}
		s.detach()
		return
	}
	if s.sentEnd {
		s.detach()
	}
}

// detach makes the connection forget the stream.
func (s *stream) detach() {
	if s.gone {
		return
	}
	s.gone = true
	c := s.c
	c.drop(s)
	delete(c.streams, s.id)
	c.idleAt = s.sh.now
	wake(&s.reader)
	wake(&s.writer)
	if s.client() {
		if s.task != nil {
			s.task.Wake()
		}
		if c.pool != nil {
			c.pool.wake()
		}
		c.checkDone()
		return
	}
	if s.recvErr == nil && (!s.recvEnd || s.taken < len(s.recv) && s.head.protocol == "") {
		if s.recvEnd { // what is dropped must not look like the end to who still reads
			s.recvErr = cmp.Or(s.err, errClosed)
		}
		s.discard = true
		s.dropBytes() // the connection's window is all streams'
	}
	s.checkEnded()
}

// checkEnded has a server's stream told of when nothing of it is left.
func (s *stream) checkEnded() {
	if s.gone && !s.running && !s.listed {
		s.listed = true
		s.next, s.sh.ended = s.sh.ended, s
	}
}

// abort ends the stream by our own will.
func (s *stream) abort(err error, code Code) {
	if s.gone {
		return
	}
	if !s.c.dead && !s.c.ending {
		s.c.sendReset(s.id, code)
	}
	s.broken(err)
}

// wasReset is called when the peer ended the stream.
func (s *stream) wasReset(code Code) {
	if s.client() {
		e := &loam.Error{Op: "http2", Err: errReset(code)}
		switch code {
		case NoError:
			if s.recvEnd {
				s.broken(errStopSending)
				return
			}
			e.Code = loam.Internal
		case RefusedStream:
			e.Code, e.Err = loam.Unavailable, errRefused
		case Cancel:
			e.Code = loam.Canceled
		case EnhanceYourCalm:
			e.Code = loam.ResourceExhausted
		case InadequateSecurity:
			e.Code = loam.PermissionDenied
		default:
			e.Code = loam.Internal
		}
		if e.Code == loam.Canceled || e.Code == loam.Internal {
			e.Code = loam.Unavailable // it is the server's doing, not the caller's
		}
		s.broken(e)
		return
	}
	s.broken(&loam.Error{Code: loam.Canceled, Op: "http2", Err: errReset(code)})
}

var errRefused = errors.Join(protocol.ErrNotProcessed, errReset(RefusedStream))

// errReset is that of a stream that the peer ended.
type errReset Code

func (e errReset) Error() string { return "the peer reset the stream: " + Code(e).String() }

// broken ends a stream that did not end well.
func (s *stream) broken(err error) {
	if s.gone {
		return
	}
	if s.err == nil {
		s.err = err
	}
	if s.client() {
		s.detach()
		if u := s.source; u != nil { // nobody sends on what the client sends
			s.source = nil
			u.sink = nil
		}
		if d := s.sink; d != nil {
			d.pull() // what has come is still handed on, and then that it broke off
		}
		return
	}
	for _, u := range [2]*stream{s.sink, s.source} {
		if u != nil {
			u.abort(err, Cancel)
		}
	}
	s.sink = nil
	s.detach()
	if s.task != nil {
		s.task.Cancel()
	}
}

// sourceFailed ends a response whose rest will not come.
func (s *stream) sourceFailed(err error) {
	if s.client() {
		s.abort(err, Cancel)
		return
	}
	if s.gone || s.sentEnd {
		return
	}
	if s.head.grpc && s.sentHead {
		s.sendTrailer(grpcStatus(err))
		return
	}
	code := InternalError
	if r, ok := errors.AsType[errReset](err); ok {
		code = Code(r)
	}
	s.abort(err, code)
}
