package http2

import (
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// lingers is how long a connection that was ended may take to close.
const lingers = 500 * time.Millisecond

// sweep looks over the shard's connections from time to time: one task for all of them, since an idle connection has
// none. It ends with the last connection.
func (sh *shard) sweep(t loam.Task) {
	sh.enter(t)
	sh.sweeper = t
	for {
		next := sh.now.Add(sh.tick)
		for c := range sh.conns {
			if at := c.sweep(sh.now); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		if len(sh.conns) == 0 {
			sh.sweeper, sh.tick = nil, 0
			sh.leave(t)
			return
		}
		if soonest := sh.now.Add(time.Millisecond); next.Before(soonest) {
			next = soonest
		}
		sh.sweepAt = next
		sh.leave(t)
		if err := t.Park(next); err != nil && loam.CodeOf(err) != loam.DeadlineExceeded {
			sh.enter(t) // the engine has stopped: it closes the connections
			sh.sweeper = nil
			sh.stopped = true
			sh.leave(t)
			return
		}
		sh.enter(t)
	}
}

// soon has the sweeper look again at a time, if it would not have done so by then.
func (sh *shard) soon(at time.Time) {
	if sh.sweeper != nil && !at.IsZero() && at.Before(sh.sweepAt) {
		sh.sweepAt = at
		sh.sweeper.Wake()
	}
}

// past tells whether since is longer ago than d, which may be no limit.
func past(now, since time.Time, d time.Duration) bool {
	return d > 0 && !since.IsZero() && now.Sub(since) > d
}

// sweep ends what has taken too long, and tells when to look again at the latest; zero: when it is convenient.
func (c *conn) sweep(now time.Time) (next time.Time) {
	if c.dead {
		return next
	}
	lim := c.lim
	switch {
	case c.ending && now.Sub(c.endAt) > lingers:
		c.lost(errEOF)
	case c.writing && past(now, c.wroteAt, lim.WriteTimeout):
		c.lost(errSlowReader)
	case c.ending:
	case past(now, c.began, lim.HeadTimeout) && (c.srv != nil || c.greeted):
		c.fail(&fault{EnhanceYourCalm, "a frame or head takes too long"})
	case past(now, c.began, lim.HeadTimeout):
		c.lost(errSilent)
	case len(c.streams) == 0 && c.running == 0 && past(now, c.idleAt, lim.IdleTimeout):
		c.goAway(NoError, "")
		c.finish()
	case len(c.streams) > 0 && past(now, c.readAt, 2*lim.KeepAlive):
		c.lost(errSilent)
	case len(c.streams) > 0 && past(now, c.readAt, lim.KeepAlive) && !c.pinged:
		c.pinged = true
		c.out = append(appendFrame(c.room(), 8, framePing, 0, 0), "loam.run"...)
		c.wants()
	}
	if c.dead || c.ending {
		return next
	}
	if c.srv != nil && c.srv.draining.Load() {
		switch {
		case c.draining == open:
			c.drain()
		case c.draining == warned && now.Sub(c.drainedAt) > lingers:
			c.drainLast()
		}
		if c.draining == warned {
			next = c.drainedAt.Add(lingers + time.Millisecond)
		}
	}
	for _, s := range c.streams {
		if at := s.sweep(now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

func (s *stream) sweep(now time.Time) (next time.Time) {
	lim := s.c.lim
	last := s.recvAt
	if s.sentAt.After(last) {
		last = s.sentAt
	}
	// Until there is an answer, silence is the server thinking.
	idle := lim.StreamIdle
	if s.idle > 0 && s.sentHead && s.head != nil {
		idle = s.idle
		next = last.Add(idle)
	}
	owing := s.c.srv != nil && !s.recvEnd && s.recvErr == nil && !s.discard && (!s.head.grpc || s.owes) && s.head.protocol == "" && s.taken == len(s.recv)
	slow := false
	if owing && s.c.srv.c.MinRate > 0 {
		if !s.sweptAt.IsZero() {
			s.waited += now.Sub(s.sweptAt)
		}
		slow = s.waited > lim.BodyTimeout+time.Duration(float64(s.got)/float64(s.c.srv.c.MinRate)*float64(time.Second))
	}
	s.sweptAt = now
	switch {
	case !s.deadline.IsZero() && !now.Before(s.deadline):
		s.sourceFailed(errDeadline)
	case past(now, s.markAt, lim.WriteTimeout):
		s.abort(loam.Errorf(loam.DeadlineExceeded, "http2", "%w", errSlowReader), Cancel)
	case past(now, last, idle):
		s.sourceFailed(errIdle)
	case owing && (slow || past(now, s.recvAt, lim.BodyTimeout)):
		s.failBody(protocol.ErrSlowBody)
	case next.IsZero() || !s.deadline.IsZero() && s.deadline.Before(next):
		return s.deadline
	}
	return next
}

var (
	errDeadline = loam.Errorf(loam.DeadlineExceeded, "http2", "the request took too long")
	errIdle     = loam.Errorf(loam.DeadlineExceeded, "http2", "nothing has moved on the stream for too long")
)
