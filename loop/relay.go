package loop

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
)

// A Relay carries bytes both ways between two connections, without a task where the engine can do it, until both
// directions have ended, or nothing moved for Idle. The end of one direction is passed on as an end; an error on either
// side ends the relay.
//
// Ends that are no Conns of the engine's own are carried by two tasks, which read and write at the same time: on an event
// loop they must not hold a lock while they wait, so that a tls.Conn is none of them, and TLS is.
type Relay struct {
	A, B  io.ReadWriteCloser // Conns of the calling task's loop, or anything else that reads and writes
	FromA []byte             // read from A already, and due to B
	FromB []byte             // read from B already, and due to A
	Idle  time.Duration      // 0: no limit
	// Tag says for a relay that was frozen what it carries: a route's name, say. The engine does not look at it.
	Tag string
	// Done is told how many bytes went from A to B and from B to A once both ends are closed. nil: nobody is. It is
	// called on the loop, and must not wait.
	Done func(aToB, bToA int64)
}

// A Frozen is a relay between two processes: what Engine.Freeze took out of one and Engine.Thaw puts into another.
type Frozen struct {
	A, B         *os.File // the two sockets
	FromA, FromB []byte   // read from A and due to B; read from B and due to A
	EndA, EndB   bool     // A, or B, has ended its direction, and nothing more is to be read from it
	Idle         time.Duration
	Tag          string
	AToB, BToA   int64 // bytes carried so far, without FromA and FromB
}

// Start begins to relay and returns at once. A and B belong to the relay from then on. It is called by task t, whose
// loop they are of.
func (r Relay) Start(t loam.Task) {
	if l, ok := t.(looped); ok && l.startRelay(&r) {
		return
	}
	c := &carried{Relay: r}
	c.halves[0] = half{c: c, from: r.A, to: r.B, due: r.FromA}
	c.halves[1] = half{c: c, from: r.B, to: r.A, due: r.FromB}
	for _, end := range [2]io.ReadWriteCloser{r.A, r.B} {
		if c, ok := end.(Conn); ok {
			c.Poll(false)
		}
		if n := plainConn(end); n != nil {
			n.bind(nil) // the relay outlives the task that begins it
		}
	}
	if rt, ok := t.(*routine); ok {
		c.e = rt.e
	}
	c.start(t.Go)
}

// plainConn is the connection of the portable engine under end, or nil.
func plainConn(end io.ReadWriteCloser) *netConn {
	for {
		switch e := end.(type) {
		case *netConn:
			return e
		case interface{ NetConn() net.Conn }:
			end = e.NetConn()
		default:
			return nil
		}
	}
}

// carried is a relay that two tasks carry, one for each direction.
type carried struct {
	Relay
	e       *goroutines // which can freeze it; nil: none
	halves  [2]half
	left    atomic.Int32 // directions under way
	last    atomic.Int64 // when bytes last moved, in nanoseconds of the Unix time
	frozen  atomic.Bool
	stopped chan struct{} // closed when both directions have stopped
	closing sync.Once
}

// half is one direction.
type half struct {
	c        *carried
	from, to io.ReadWriteCloser
	due      []byte // read, and not yet written
	n        int64  // carried
	ended    bool   // from has nothing more
}

func (c *carried) start(run func(func(loam.Task)) loam.Task) {
	c.stopped = make(chan struct{})
	c.left.Store(2)
	c.last.Store(time.Now().UnixNano())
	if c.e != nil {
		c.e.addRelay(c)
	}
	for i := range c.halves {
		run(func(t loam.Task) {
			h := &c.halves[i]
			ok := false
			defer func() { h.stop(ok) }()
			ok = h.run(t)
		})
	}
}

// stop is what a direction does at its end. ok: the other one goes on.
func (h *half) stop(ok bool) {
	c := h.c
	if !ok && !c.frozen.Load() {
		c.close()
	}
	if c.left.Add(-1) > 0 {
		return
	}
	if c.e != nil && !c.e.dropRelay(c) { // Freeze has it
		close(c.stopped)
		return
	}
	c.close()
	if c.Done != nil {
		c.Done(c.halves[0].n, c.halves[1].n)
	}
}

func (c *carried) close() {
	c.closing.Do(func() {
		_ = c.A.Close() // the relay is over: there is nobody to tell
		_ = c.B.Close()
	})
}

// run carries one direction to its end. It is true where that is an end in order, or a pause.
func (h *half) run(t loam.Task) bool {
	if !h.flush(t) {
		return h.c.frozen.Load()
	}
	for !h.ended {
		if c, ok := h.from.(Conn); ok { // waits without a buffer
			h.limit(t, c.SetReadDeadline)
			if err := c.Ready(); err != nil {
				if h.stale(t, err) {
					continue
				}
				return h.c.frozen.Load()
			}
		} else if c, ok := h.from.(net.Conn); ok {
			h.limit(t, c.SetReadDeadline)
		}
		buf := Borrow(t, 16<<10)
		n, err := h.from.Read(buf.B)
		h.due = buf.B[:n]
		ok := h.flush(t)
		if len(h.due) > 0 {
			h.due = append([]byte(nil), h.due...)
		} else {
			h.due = nil
		}
		buf.Free(t)
		switch {
		case !ok:
			return h.c.frozen.Load()
		case errors.Is(err, io.EOF):
			h.ended = true
		case err != nil && !h.stale(t, err):
			return h.c.frozen.Load()
		}
	}
	if c, ok := h.to.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite() == nil
	}
	return false // it cannot be told of one direction's end: the relay is over
}

// flush writes what is due, and tells whether it could.
func (h *half) flush(t loam.Task) bool {
	for len(h.due) > 0 {
		if c, ok := h.to.(net.Conn); ok {
			h.limit(t, c.SetWriteDeadline)
		}
		n, err := h.to.Write(h.due)
		h.due = h.due[n:]
		h.n += int64(n)
		if n > 0 {
			h.c.last.Store(t.Now().UnixNano())
		}
		if err != nil && !h.stale(t, err) {
			return false
		}
	}
	return true
}

// limit arms the deadline at which a wait looks whether the relay is idle.
func (h *half) limit(t loam.Task, set func(time.Time) error) {
	if h.c.Idle > 0 {
		_ = set(t.Now().Add(h.c.Idle)) // fails for a closed connection only, as will what comes next
	}
}

// stale tells whether err is but a deadline, and bytes moved meanwhile in the other direction.
func (h *half) stale(t loam.Task, err error) bool {
	return os.IsTimeout(err) && !h.c.frozen.Load() && h.c.Idle > 0 &&
		t.Now().UnixNano()-h.c.last.Load() < int64(h.c.Idle)
}
