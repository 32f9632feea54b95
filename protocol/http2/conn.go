package http2

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
)

// A conn is one connection, of a server's client or to a client's server. Its shard's lock guards it; the task that
// serves it is the only one to read from it, and a task of its own writes what has gathered.
type conn struct {
	sh     *shard
	hub    *Hub
	raw    loop.Conn
	stream net.Conn          // what is spoken on: raw, or TLS over it
	tls    *protocol.Carrier // what TLS writes to; nil: there is none
	lim    *Limits
	srv    *Server // nil: it is a client's
	pool   *pool   // nil: it is a server's
	peer   *loam.Peer
	remote string

	// What has come in.
	early   []byte // read before the connection was ours
	partial []byte // the beginning of a frame; nil between two
	preface int    // bytes of it that are still to come
	greeted bool   // the peer's settings have come
	gather  uint32 // the stream whose head is gathered from several frames; 0: none
	flags   byte   // of the frame that began it
	block   []byte // what has come of it
	pieces  int    // in how many frames
	began   time.Time
	dec     decoder
	scrap   *head // for heads that nobody reads; nil until one comes
	calm    int   // how many frames that move nothing may still come
	calmAt  time.Time
	lent    int64 // bytes of DATA that were sent and the peer may still open its windows for
	readAt  time.Time
	pinged  bool
	end     error // why it is over; nil: it is not

	// Streams.
	streams map[uint32]*stream
	last    uint32   // the latest stream that the peer opened, or we did
	running int      // streams whose task has not ended, a reset one's too
	resets  []uint32 // the streams that we reset lately
	forgot  uint32   // below it are others, perhaps
	idleAt  time.Time

	// Windows, and what the peer has set.
	window     int64 // what may be sent
	first      int64 // what may be sent on a new stream
	recvWindow int64 // what the peer may send
	credit     int64 // what it may send besides and has not been told
	frame      int   // the largest frame
	most       uint32
	websocket  bool // it takes extended CONNECT
	counted    bool // its pool knows that it is no more

	// What goes out.
	out       []byte
	resize    bool // the next block must say that the dynamic table has no room
	writing   bool // a task writes, or is about to
	wroteAt   time.Time
	held      *stream // those that wait for room in out or the connection's window, first come first served
	heldLast  *stream
	reader    loam.Task // waits until less is to be written
	draining  drainState
	drainedAt time.Time
	ending    bool // a GOAWAY with the last word is on its way: nothing that comes in counts any more
	endAt     time.Time
	dead      bool
	flushes   func(loam.Task)

	nextDirty, nextClosing *conn
}

type drainState uint8

const (
	open     drainState = iota
	warned              // a GOAWAY told the peer to open no more streams
	drained             // a second one said which was the last
	goneAway            // the peer's server sent one
)

const (
	// outHigh is how much may wait to be written before data stays where it is.
	outHigh = 2 * bufferSize
	// outPause is how much may wait before nothing more is read from a client: it makes us send and takes nothing.
	outPause = 4 * bufferSize
	// outMost is how much may wait in any case.
	outMost = 64 * bufferSize
)

var (
	errSlowReader = errors.New("the peer takes nothing")
	errSilent     = errors.New("the peer is silent")
	errEOF        = errors.New("the peer ended the connection")
)

func newConn(hub *Hub, sh *shard, raw loop.Conn, stream net.Conn, lim *Limits) *conn {
	if stream == nil {
		stream = raw
	}
	c := &conn{
		sh: sh, hub: hub, raw: raw, stream: stream, lim: lim, window: 65535, first: 65535, recvWindow: 65535, frame: maxFrame, most: 100,
		resize: true, dec: decoder{memo: hub.memo, most: lim.Head, count: lim.Fields}, calm: lim.Nuisance,
	}
	if secure, ok := stream.(interface{ NetConn() net.Conn }); ok {
		if c.tls, ok = secure.NetConn().(*protocol.Carrier); ok {
			c.tls.Gather()
		}
	}
	c.flushes = c.flush
	return c
}

// register makes c known to its shard, and greets the peer.
func (c *conn) register() {
	sh := c.sh
	if sh.conns == nil {
		sh.conns = map[*conn]struct{}{}
	}
	sh.conns[c] = struct{}{}
	if tick := c.lim.tick(); sh.tick == 0 || tick < sh.tick {
		sh.tick = tick
		if sh.sweeper != nil {
			sh.sweeper.Wake()
		}
	}
	c.readAt, c.idleAt, c.calmAt, c.began = sh.now, sh.now, sh.now, sh.now
	b := c.room()
	if c.srv == nil {
		b = append(b, preface...)
	}
	head := len(b)
	b = appendFrame(b, 0, frameSettings, 0, 0)
	b = appendSetting(b, settingTableSize, 0)
	b = appendSetting(b, settingWindow, uint32(c.lim.StreamWindow))
	b = appendSetting(b, settingHeaderList, uint32(c.lim.Head))
	if c.srv != nil {
		b = appendSetting(b, settingStreams, uint32(c.lim.Streams))
		b = appendSetting(b, settingConnectProtocol, 1)
	} else {
		b = appendSetting(b, settingPush, 0)
	}
	b[head+2] = byte(len(b) - head - frameHeader)
	// A server takes back what its client may send as it is used; of what a client receives, only streams are bounded: a
	// slow one must not hold up the others, who may be somebody else's.
	most := int64(c.lim.ConnWindow)
	if c.srv == nil {
		most = maxWindow / 2
	}
	if more := most - c.recvWindow; more > 0 {
		b = appendWindowUpdate(b, 0, uint32(more))
		c.recvWindow = most
	}
	c.out = b
	c.wants()
}

// room is what is to be written so far, in a buffer that can take more.
func (c *conn) room() []byte {
	if c.out == nil {
		c.out = c.sh.buffer()
	}
	return c.out
}

// wants sees to it that what was added to out will be written.
func (c *conn) wants() {
	if !c.writing && !c.dead {
		c.writing = true
		c.wroteAt = c.sh.now
		c.nextDirty, c.sh.dirty = c.sh.dirty, c
	}
}

// flush writes what is there, and what comes meanwhile. It runs in a task of its own, which nobody cancels.
func (c *conn) flush(t loam.Task) {
	sh := c.sh
	sh.enter(t)
	for (len(c.out) > 0 || c.tls != nil && c.tls.Pending()) && !c.dead {
		b := c.out
		c.out = nil
		sh.leave(t)
		err := c.write(b)
		sh.enter(t)
		sh.giveBack(b)
		if err != nil {
			c.lost(fmt.Errorf("write: %w", err))
			break
		}
		c.wroteAt = sh.now
		c.resume()
		if c.reader != nil && len(c.out) < outPause {
			c.reader.Wake()
			c.reader = nil
		}
	}
	c.writing = false
	if len(c.out) == 0 && c.out != nil {
		sh.giveBack(c.out)
		c.out = nil
	}
	last := c.ending && !c.dead
	sh.leave(t)
	if last {
		c.closeWrite()
	}
}

// write writes b, encrypted where that is so.
func (c *conn) write(b []byte) error {
	if len(b) > 0 {
		if _, err := c.stream.Write(b); err != nil {
			return err
		}
	}
	if c.tls == nil {
		return nil
	}
	sealed := c.tls.Take(nil)
	_, err := c.raw.Write(sealed)
	return err
}

// closeWrite says farewell, after which the peer ends the connection. Should that fail, it is over anyway.
func (c *conn) closeWrite() {
	half, ok := c.stream.(interface{ CloseWrite() error })
	if !ok {
		return
	}
	if half.CloseWrite() == nil && c.tls != nil {
		_ = c.write(nil)
	}
}

// resume lets streams that wait for the connection go on as far as they can.
func (c *conn) resume() {
	for c.held != nil && c.window > 0 && len(c.out) < outHigh && !c.dead {
		s := c.held
		c.held = s.nextHeld
		if c.held == nil {
			c.heldLast = nil
		}
		s.nextHeld, s.isHeld = nil, false
		s.resume()
	}
}

// hold puts s last in the line for room.
func (c *conn) hold(s *stream) {
	if s.isHeld {
		return
	}
	s.isHeld = true
	if c.heldLast == nil {
		c.held = s
	} else {
		c.heldLast.nextHeld = s
	}
	c.heldLast = s
}

// drop takes s out of the line.
func (c *conn) drop(s *stream) {
	if !s.isHeld {
		return
	}
	var before *stream
	for at := c.held; at != s; at = at.nextHeld {
		before = at
	}
	if before == nil {
		c.held = s.nextHeld
	} else {
		before.nextHeld = s.nextHeld
	}
	if c.heldLast == s {
		c.heldLast = before
	}
	s.nextHeld, s.isHeld = nil, false
}

// Serve reads what there is: loop.Session.
func (c *conn) Serve(t loam.Task, raw loop.Conn) loop.Verdict {
	sh := c.sh
	if sh == nil { // the first time: now it is known which loop has it
		c.sh = c.hub.shard(t)
		sh = c.sh
		sh.enter(t)
		c.register()
	} else {
		sh.enter(t)
	}
	buf := sh.buffer()
	sh.leave(t)
	buf = buf[:cap(buf)]
	n := copy(buf, c.partial)
	n += copy(buf[n:], c.early) // a listener has looked at far less than the buffer holds
	c.partial, c.early = nil, nil
	fresh := n > 0
	raw.Poll(true)
	v := loop.Idle
	for {
		if fresh {
			used, paused, ok := c.turn(t, buf[:n])
			if !ok {
				n = 0
				v = loop.Close
				break
			}
			n = copy(buf, buf[used:n])
			if paused {
				if err := c.pause(t); err != nil {
					v = loop.Close
					break
				}
			}
		}
		m, err := c.stream.Read(buf[n:])
		if c.tls != nil && c.tls.Pending() { // TLS itself has something to say
			sh.enter(t)
			c.wants()
			sh.leave(t)
		}
		if n += m; m > 0 {
			fresh = true
			continue
		}
		if errors.Is(err, loop.ErrAgain) {
			break
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = errEOF
		}
		sh.enter(t)
		c.lost(err)
		sh.leave(t)
		v = loop.Close
		break
	}
	if n > 0 && v == loop.Idle {
		c.partial = slices.Clone(buf[:n])
	}
	sh.mu.Lock()
	sh.giveBack(buf)
	sh.mu.Unlock()
	if v == loop.Idle {
		raw.Release(c, 0) // how long it may be idle depends on its streams: the sweeper knows
	}
	return v
}

// turn takes the frames in p and tells how many bytes they had, and whether to wait until the peer has taken what there
// is for it. It is false if the connection is closed.
func (c *conn) turn(t loam.Task, p []byte) (used int, pause, ok bool) {
	sh := c.sh
	sh.enter(t)
	defer sh.leave(t)
	if c.dead {
		return 0, false, false
	}
	if c.ending {
		return len(p), false, true
	}
	c.readAt, c.pinged = sh.now, false
	gathered := c.gather
	used, f := c.frames(p)
	if f != nil {
		c.fail(f)
		return len(p), false, true
	}
	switch {
	case used == len(p) && c.gather == 0 && c.greeted:
		c.began = time.Time{}
	case c.began.IsZero() || used > 0 && c.greeted && (c.gather == 0 || c.gather != gathered):
		c.began = sh.now // another frame, or head, has begun
	}
	if c.credit >= int64(c.lim.ConnWindow)/2 {
		c.out = appendWindowUpdate(c.room(), 0, uint32(c.credit))
		c.recvWindow += c.credit
		c.credit = 0
		c.wants()
	}
	if len(c.out) > outMost {
		c.fail(&fault{EnhanceYourCalm, "more is to be answered than is taken"})
	}
	return used, c.srv != nil && len(c.out) > outPause, true
}

// pause waits until the peer has taken of what there is for it.
func (c *conn) pause(t loam.Task) error {
	sh := c.sh
	for {
		sh.mu.Lock()
		if c.dead {
			sh.mu.Unlock()
			return net.ErrClosed
		}
		if len(c.out) < outPause {
			sh.mu.Unlock()
			return nil
		}
		c.reader = t
		sh.mu.Unlock()
		if err := t.Park(time.Time{}); err != nil {
			return err
		}
	}
}

// Close is told that the connection was closed: loop.Session.
func (c *conn) Close() {
	sh := c.sh
	if sh == nil {
		return
	}
	sh.mu.Lock()
	c.lost(net.ErrClosed)
	sh.leaveOff()
}

// checkDone closes the connection once it is drained.
func (c *conn) checkDone() {
	if len(c.streams) == 0 && c.running == 0 && (c.draining == drained || c.draining == goneAway) && !c.ending && !c.dead {
		if c.draining == goneAway {
			c.goAway(NoError, "")
		}
		c.finish()
	}
}

// drainPing marks the ping that follows the first GOAWAY: once it is answered the client has seen that.
const drainPing = "draining"

// drain tells the client to open no more streams (RFC 9113, section 6.8).
func (c *conn) drain() {
	if c.draining != open || c.ending || c.dead {
		return
	}
	c.draining, c.drainedAt = warned, c.sh.now
	b := appendGoAway(c.room(), maxStreamID, NoError, "")
	c.out = append(appendFrame(b, len(drainPing), framePing, 0, 0), drainPing...)
	c.wants()
}

// settles is how long a client that was warned is waited for: a part of it may have chosen this connection for a request,
// and not have written that yet, when another one answers the ping.
const settles = 250 * time.Millisecond

// warned has the client told the rest soon: it has read that it shall open no more streams.
func (c *conn) warned() {
	if at := c.sh.now.Add(settles - lingers); at.Before(c.drainedAt) {
		c.drainedAt = at
		c.sh.soon(at.Add(lingers + time.Millisecond))
	}
}

// drainLast tells the client which streams are still served.
func (c *conn) drainLast() {
	c.draining = drained
	c.goAway(NoError, "")
	c.checkDone()
}

func (c *conn) goAway(code Code, why string) {
	last := uint32(0)
	if c.srv != nil {
		last = c.last
	}
	c.out = appendGoAway(c.room(), last, code, why)
	c.wants()
}

// fail ends the connection because of what the peer did.
func (c *conn) fail(f *fault) {
	if c.ending || c.dead {
		return
	}
	c.goAway(f.code, f.why)
	code := loam.Unavailable
	if c.srv != nil {
		code = loam.Canceled
	}
	c.over(loam.Errorf(code, "http2", "the connection was ended: %w", f))
	c.finish()
}

// finish ends the connection once what there is was written.
func (c *conn) finish() {
	c.ending, c.endAt = true, c.sh.now
	if c.pool != nil {
		c.pool.remove(c)
	}
}

// over ends every stream.
func (c *conn) over(err error) {
	for _, s := range c.streams {
		s.broken(err)
	}
}

// lost ends the connection at once: the peer is gone, or must go.
func (c *conn) lost(why error) {
	if c.dead {
		return
	}
	c.dead, c.end = true, why
	delete(c.sh.conns, c)
	if c.pool != nil {
		c.pool.remove(c)
	}
	code := loam.Unavailable
	if c.srv != nil {
		code = loam.Canceled // who waited for the answers is gone
	}
	c.over(&loam.Error{Code: code, Op: "http2", Err: fmt.Errorf("%w: %w", protocol.ErrConnectionLost, why)})
	if c.reader != nil {
		c.reader.Wake()
		c.reader = nil
	}
	c.block = nil
	c.nextClosing, c.sh.closing = c.sh.closing, c
}
