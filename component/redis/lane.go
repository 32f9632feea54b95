package redis

import (
	"bufio"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/component"
	"github.com/loam-run/loam/loop"
)

// laneFlights is how many connections a lane has at most: one call, or one batch, is under way on each.
const laneFlights = 2

// A lane is the way to Redis of one event loop's tasks: connections of the loop, which they write to and read from
// themselves. A call from outside of the loop wakes a goroutine on another thread, which the answer wakes once more, and then
// the loop: for one call at a time that is most of what it costs. Calls that come at the same time share a flight here too.
//
// All of it belongs to the loop, but for closing and ended.
type lane struct {
	c       *client
	idle    []*wire
	waiting []*call
	flights int
	shut    bool          // no connection is kept any more
	keeper  loam.Task     // waits to close those that are idle at the end
	closing atomic.Bool   // the end has come
	ended   chan struct{} // the keeper has ended
}

// laneOptions are what lanes connect by: to one node whose address is known, without TLS; nil: that is not so.
func laneOptions(db redis.UniversalClient, s *Server) *redis.Options {
	if single, ok := db.(*redis.Client); ok && !s.Failover && !s.TLS {
		return single.Options()
	}
	return nil
}

// enter is the lane of t's loop, with a call begun in it that flying.Done ends.
func (c *client) enter(t loam.Task) (*lane, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed {
		return nil, redis.ErrClosed
	}
	c.flying.Add(1)
	l := c.lanes[t.Shard()]
	if l == nil {
		l = &lane{c: c, ended: make(chan struct{})}
		l.keeper = t.Go(l.keep)
		c.lanes[t.Shard()] = l
	}
	return l, nil
}

// keep closes the idle connections when the component is closed, or the loop ends: only a task of theirs can.
func (l *lane) keep(t loam.Task) {
	defer close(l.ended)
	for !l.closing.Load() && t.Park(time.Time{}) == nil {
	}
	l.shut = true
	for _, w := range slices.Clone(l.idle) { // closing one takes it out
		_ = w.conn.Close()
	}
}

// close ends the lane, in which no call is under way.
func (l *lane) close() {
	l.closing.Store(true)
	l.keeper.Wake()
	<-l.ended
}

// waitIn is wait in a task of an event loop. What is to be sent again goes the way of other calls.
func (c *client) waitIn(ctx context.Context, t loam.Task, x *call) error {
	l, err := c.enter(t)
	if err != nil {
		return err
	}
	defer c.flying.Done()
	err = l.send(ctx, t, x)
	if err != nil {
		return inTime(ctx, err)
	}
	verdict := c.judge(x)
	if verdict == unknownScript {
		x.sendText()
		if err = l.send(ctx, t, x); err != nil {
			return inTime(ctx, err)
		}
		verdict = c.judge(x)
	}
	if c.again(ctx, x, verdict, 0) {
		t.Await(func() {
			component.Pause(ctx, c.backoff(0))
			x.forget()
			x.done = make(chan struct{})
			c.send(ctx, []*call{x}, 1)
		})
	}
	if x.err != nil {
		return inTime(ctx, x.err)
	}
	return nil
}

// send returns when a call was answered, or lost. The error is that of t's wait: the call may still be done.
func (l *lane) send(ctx context.Context, t loam.Task, x *call) error {
	by, _ := ctx.Deadline()
	if l.flights < laneFlights && len(l.waiting) == 0 {
		l.flights++
		defer l.land(t)
		l.fly(t, by, x.commands)
		return nil
	}
	x.waiter, x.landed = t, false
	l.waiting = append(l.waiting, x)
	for !x.landed {
		if err := t.Park(by); err != nil && !x.landed {
			x.waiter = nil
			return err
		}
	}
	return nil
}

// land ends a flight. What waits by then flies on, in a task that outlives any of the callers.
func (l *lane) land(t loam.Task) {
	if len(l.waiting) == 0 {
		l.flights--
		return
	}
	l.c.flying.Add(1)
	t.Go(func(t loam.Task) {
		defer l.c.flying.Done()
		defer func() { l.flights-- }()
		var commands []redis.Cmder
		for len(l.waiting) > 0 {
			batch := slices.Clone(l.waiting[:min(len(l.waiting), maxBatch)])
			l.waiting = slices.Delete(l.waiting, 0, len(batch))
			commands = commands[:0]
			for _, x := range batch {
				if x.waiter != nil {
					commands = append(commands, x.commands...)
				}
			}
			l.fly(t, time.Time{}, commands)
			for _, x := range batch {
				if x.landed = true; x.waiter != nil {
					x.waiter.Wake()
				}
			}
		}
	})
}

// fly sends commands and reads their answers. Each has its error, or all that of the connection.
func (l *lane) fly(t loam.Task, by time.Time, commands []redis.Cmder) {
	if len(commands) == 0 {
		return
	}
	w, err := l.take(t, by)
	if err != nil {
		for _, cmd := range commands {
			cmd.SetErr(err)
		}
		return
	}
	if w.exchange(t, by, commands) != nil || l.shut {
		_ = w.conn.Close()
		return
	}
	l.idle = append(l.idle, w)
	w.conn.Release(w, max(l.c.own.ConnMaxIdleTime, 0))
}

// take is a connection that was idle, or a new one.
func (l *lane) take(t loam.Task, by time.Time) (*wire, error) {
	for n := len(l.idle); n > 0; n = len(l.idle) {
		w := l.idle[n-1]
		l.idle = slices.Delete(l.idle, n-1, n)
		if !w.conn.Take(t) {
			continue // it was ended, or says what nobody asked: the loop closes it
		}
		if age := l.c.own.ConnMaxLifetime; age <= 0 || t.Now().Sub(w.born) < age {
			return w, nil
		}
		_ = w.conn.Close()
	}
	return l.dial(t, by)
}

func (l *lane) dial(t loam.Task, by time.Time) (*wire, error) {
	o := l.c.own
	by = sooner(by, t.Now(), o.DialTimeout)
	conn, err := loop.Dial(t, o.Network, o.Addr, by)
	if err != nil {
		return nil, err
	}
	w := &wire{l: l, conn: conn, in: bufio.NewReaderSize(conn, o.ReadBufferSize), born: t.Now()}
	ctx := context.Background()
	var hello []redis.Cmder
	switch {
	case o.Password == "":
	case o.Username == "":
		hello = append(hello, redis.NewCmd(ctx, "auth", o.Password))
	default:
		hello = append(hello, redis.NewCmd(ctx, "auth", o.Username, o.Password))
	}
	if o.DB != 0 {
		hello = append(hello, redis.NewCmd(ctx, "select", o.DB))
	}
	hello = append(hello, redis.NewCmd(ctx, "client", "setname", o.ClientName))
	err = w.exchange(t, by, hello)
	for _, cmd := range hello {
		if err == nil {
			err = cmd.Err()
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return w, nil
}

// A wire is a connection of a lane. While it is idle it is its own session, which has nothing to serve.
type wire struct {
	l    *lane
	conn loop.Conn
	in   *bufio.Reader
	out  []byte
	born time.Time
}

// keptOut is how large a buffer for writing may be that is kept.
const keptOut = 16 << 10

// Serve has the connection closed: Redis says something that it was not asked, or has left.
func (w *wire) Serve(loam.Task, loop.Conn) loop.Verdict { return loop.Close }

// Close forgets a connection that was closed.
func (w *wire) Close() {
	w.l.idle = slices.DeleteFunc(w.l.idle, func(other *wire) bool { return other == w })
}

var errOutOfStep = errors.New("more answers came than commands were sent")

// exchange sends commands, each a *redis.Cmd, and gives them their answers. After an error, which the commands without an
// answer have too, the connection is of no use.
func (w *wire) exchange(t loam.Task, by time.Time, commands []redis.Cmder) error {
	o := w.l.c.own
	out := w.out[:0]
	for _, cmd := range commands {
		out = appendCommand(out, cmd.Args())
	}
	_ = w.conn.SetWriteDeadline(sooner(by, t.Now(), o.WriteTimeout))
	_, err := w.conn.Write(out)
	if w.out = out; cap(out) > keptOut {
		w.out = nil
	}
	for _, cmd := range commands {
		var answer any
		if err == nil {
			_ = w.conn.SetReadDeadline(sooner(by, t.Now(), o.ReadTimeout))
			answer, err = readAnswer(w.in, maxDepth)
		}
		switch a := answer.(type) {
		case nil:
			if cmd.SetErr(redis.Nil); err != nil {
				cmd.SetErr(err)
			}
		case refused:
			cmd.SetErr(a)
		default:
			cmd.(*redis.Cmd).SetVal(a)
		}
	}
	if err == nil && w.in.Buffered() > 0 {
		return errOutOfStep
	}
	return err
}

// sooner is the sooner of by, where it is one, and the end of d from now, where that is more than 0.
func sooner(by, now time.Time, d time.Duration) time.Time {
	if d > 0 {
		if end := now.Add(d); by.IsZero() || end.Before(by) {
			return end
		}
	}
	return by
}
