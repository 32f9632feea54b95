// Package http2 speaks HTTP/2 (RFC 9113) on connections of package loop, to clients and to servers, by frames of its own.
//
// A Server calls a target for each stream, in a task of its own; a Client is a target that sends requests on to one
// address. Where the body that one of them is to send is what the other receives on the same loop, nobody copies it and
// no task waits for it: a frame that comes in goes out on the other connection in the same turn, as far as the windows of
// both let it. What is written in one turn of a loop is written by one call for each connection.
//
// All state of one loop, the connections of servers and clients alike, is guarded by one lock of its shard of the Hub. No
// task holds it while it waits, so on an event loop nobody ever waits for it; a goroutine engine has one for all.
package http2

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
)

// Limits bound what a peer may do. Zero fields take the default beside them; negative times mean that there is no limit.
type Limits struct {
	Streams      int   // requests under way on one connection; 128 for clients of ours, 1000 to servers
	Head         int   // bytes of a message's names and values, and 32 for each field; 64 KiB
	Fields       int   // how many fields; 128
	StreamWindow int   // bytes that a stream may have sent and nobody has taken yet; 256 KiB, 64 KiB at least
	ConnWindow   int   // the same for all streams of a client's connection together; 1 MiB, 64 KiB at least
	Body         int64 // bytes of a request's body; 64 MiB; negative: no bound
	Nuisance     int   // frames that move no request on (pings, settings, resets, empty ones), at once; 1000, and half of it each second

	HeadTimeout  time.Duration // from the first byte of a head or frame to its last; 10s
	BodyTimeout  time.Duration // a sender of a body that is no gRPC stream may be silent that long; 30s
	WriteTimeout time.Duration // a receiver may take (next to) nothing that long; 30s
	StreamIdle   time.Duration // nothing moves on a stream either way; 1h
	IdleTimeout  time.Duration // a connection without streams; 2m
	KeepAlive    time.Duration // a connection with streams is silent: it is sent a ping, and closed if that stays unanswered as long; 30s
}

func (l *Limits) setDefaults(streams int) {
	l.Streams = cmp.Or(l.Streams, streams)
	l.Head = cmp.Or(l.Head, 64<<10)
	l.Fields = cmp.Or(l.Fields, 128)
	l.StreamWindow = min(max(cmp.Or(l.StreamWindow, 256<<10), 64<<10), maxWindow)
	l.ConnWindow = min(max(cmp.Or(l.ConnWindow, 1<<20), 64<<10), maxWindow)
	l.Body = cmp.Or(l.Body, 64<<20)
	l.Nuisance = cmp.Or(l.Nuisance, 1000)
	for t, d := range map[*time.Duration]time.Duration{
		&l.HeadTimeout: 10 * time.Second, &l.BodyTimeout: 30 * time.Second, &l.WriteTimeout: 30 * time.Second,
		&l.StreamIdle: time.Hour, &l.IdleTimeout: 2 * time.Minute, &l.KeepAlive: 30 * time.Second,
	} {
		*t = cmp.Or(*t, d)
	}
}

// tick is how often connections are looked over.
func (l *Limits) tick() time.Duration {
	tick := 4 * time.Second
	for _, d := range []time.Duration{l.HeadTimeout, l.BodyTimeout, l.WriteTimeout, l.StreamIdle, l.IdleTimeout, l.KeepAlive} {
		if d > 0 {
			tick = min(tick, d)
		}
	}
	return max(tick/4, time.Millisecond)
}

// A Hub is what the servers and clients of one engine share: a lock for each loop, buffers, and the memory of heads.
// Bodies are relayed without a task only between a Server and a Client of one Hub.
type Hub struct {
	shards []shard
	memo   *memo
	ids    *protocol.IDs
	stamp  atomic.Pointer[stamp]
}

// NewHub makes a hub for the connections of an engine.
func NewHub(e loop.Engine) *Hub {
	return &Hub{shards: make([]shard, e.Shards()), memo: newMemo(), ids: protocol.NewIDs()}
}

// A shard is the state of one loop.
type shard struct {
	mu      sync.Mutex
	conns   map[*conn]struct{}
	sweeper loam.Task // looks over the connections from time to time; nil: there are none
	sweepAt time.Time // when it does so next
	tick    time.Duration
	now     time.Time // when a task entered last
	stopped bool      // the engine has

	// What is to be done once the lock is free again.
	starting, startingLast *stream // the server's streams that need a task
	ended                  *stream // streams that are over, and need to be told of
	dirty                  *conn   // connections that have bytes to write, and nobody who writes them
	closing                *conn   // connections to be closed
	dialing                *pool   // upstreams that need another connection

	free  *stream // to be used again
	spare int     // how many of them there are
	bufs  [][]byte
}

func (h *Hub) shard(t loam.Task) *shard { return &h.shards[t.Shard()] }

// enter waits for the lock, which nobody holds for long.
func (sh *shard) enter(t loam.Task) {
	now := t.Now()
	sh.mu.Lock()
	sh.now = now
}

// leave lets others into the shard and then does what was put off until then. t is the task that calls.
func (sh *shard) leave(t loam.Task) {
	for sh.starting != nil || sh.ended != nil || sh.dirty != nil || sh.closing != nil || sh.dialing != nil || sh.sweeper == nil && len(sh.conns) > 0 && !sh.stopped {
		starting, ended, dirty, closing, dialing := sh.starting, sh.ended, sh.dirty, sh.closing, sh.dialing
		sh.starting, sh.startingLast, sh.ended, sh.dirty, sh.closing, sh.dialing = nil, nil, nil, nil, nil, nil
		now := sh.now
		sweep := sh.sweeper == nil && len(sh.conns) > 0 && !sh.stopped
		if sweep {
			sh.sweeper, sh.sweepAt = t, now.Add(sh.tick) // until it knows itself
		}
		sh.mu.Unlock()
		for s := ended; s != nil; {
			next := s.next
			s.next = nil
			s.finish(now)
			s = next
		}
		for s := starting; s != nil; {
			next := s.next
			s.next = nil
			t.Go(s.runs)
			s = next
		}
		for p := dialing; p != nil; {
			next := p.next
			p.next = nil
			t.Go(p.dial)
			p = next
		}
		for c := dirty; c != nil; { // last: tasks that were begun before have more to write
			next := c.nextDirty
			c.nextDirty = nil
			t.Go(c.flushes)
			c = next
		}
		for c := closing; c != nil; {
			next := c.nextClosing
			c.nextClosing = nil
			_ = c.raw.Close() // nobody is left to tell
			c = next
		}
		if sweep {
			t.Go(sh.sweep)
		}
		sh.mu.Lock()
	}
	sh.mu.Unlock()
}

// leaveOff is leave for who has no task: the sweeper does what is to be done.
func (sh *shard) leaveOff() {
	if sh.sweeper != nil {
		sh.sweeper.Wake()
	}
	sh.mu.Unlock()
}

// buffer lends an empty buffer.
func (sh *shard) buffer() []byte {
	if n := len(sh.bufs); n > 0 {
		b := sh.bufs[n-1]
		sh.bufs[n-1] = nil
		sh.bufs = sh.bufs[:n-1]
		return b[:0]
	}
	return make([]byte, 0, bufferSize)
}

// giveBack takes a buffer back.
func (sh *shard) giveBack(b []byte) {
	if cap(b) >= bufferSize && cap(b) <= 4*bufferSize && len(sh.bufs) < 64 {
		sh.bufs = append(sh.bufs, b)
	}
}

// bufferSize is of buffers that connections read into and write from: some frames of the largest size.
const bufferSize = 64 << 10
