package loop

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/loam-run/loam"
)

// netConn is the portable engine's connection: one of the net package, on which goroutines wait.
type netConn struct {
	net.Conn
	raw syscall.RawConn
	e   *goroutines  // nil: no engine looks after it
	ln  *netListener // that accepted it; nil: it was dialed

	reading atomic.Bool           // somebody waits to read: whether the peer is there shows by itself
	ended   atomic.Pointer[error] // every wait ends with it
	serving atomic.Pointer[routine]

	mu      sync.Mutex
	state   state
	session Session
	idle    time.Duration // of the release
	until   time.Time     // when a released connection is closed
	binding *binding
	left    chan struct{} // closed when the goroutine that watches a released connection has left
	armed   bool          // a deadline is set
	more    bool          // of the release: there is something to be served that the socket does not show

	// Only the goroutine that reads uses these: they are here so that no read allocates.
	poll   bool
	p      []byte
	n      int
	again  bool
	err    error
	first  bool
	readFn func(fd uintptr) bool
	waitFn func(fd uintptr) bool
}

type state uint8

const (
	held     state = iota // a task has it
	released              // nobody has it: its session is told when something comes in
	visited               // Listener.Each shows it
	closed
)

// binding joins a connection to the task whose Cancel ends its waits.
type binding struct {
	c    *netConn
	t    loam.Task
	stop func() bool
}

func newNetConn(e *goroutines, nc net.Conn) (*netConn, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		nc.Close()
		return nil, loam.Errorf(loam.Internal, "loop", "a %T is no socket", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		nc.Close()
		return nil, err
	}
	c := &netConn{Conn: nc, raw: raw, e: e}
	c.readFn = func(fd uintptr) bool {
		c.n, c.again, c.err = tryRead(fd, c.p)
		return true
	}
	c.waitFn = func(fd uintptr) bool {
		if c.first {
			c.first = false
			ready, _ := peek(fd)
			return ready
		}
		return true
	}
	if e != nil && !e.add(c) {
		nc.Close()
		return nil, ErrStopped
	}
	return c, nil
}

// bind makes t the task whose Cancel ends the connection's waits; nil: none.
func (c *netConn) bind(t loam.Task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rebind(t)
}

func (c *netConn) rebind(t loam.Task) {
	if c.binding != nil {
		c.binding.stop()
		c.binding = nil
	}
	if t != nil && c.state != closed {
		b := &binding{c: c, t: t}
		c.binding = b
		b.stop = context.AfterFunc(t.Context(), b.canceled)
	}
}

func (b *binding) canceled() {
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	if b.c.binding == b {
		b.c.end(reason(b.t))
	}
}

// reason is what the waits of a task whose context has ended return.
func reason(t loam.Task) error {
	if r, ok := t.(*routine); ok && r.e.stopped.Load() {
		return ErrStopped
	}
	return t.Context().Err()
}

// end ends every wait with err. The lock is held.
func (c *netConn) end(err error) {
	if c.ended.CompareAndSwap(nil, &err) {
		_ = c.Conn.SetDeadline(time.Unix(1, 0)) // fails for a closed connection only, which has no waits
	}
}

func (c *netConn) why(err error) error {
	if err == nil {
		return nil
	}
	if p := c.ended.Load(); p != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		return *p
	}
	return err
}

func (c *netConn) Read(p []byte) (int, error) {
	if c.poll && canPeek && len(p) > 0 {
		c.p = p
		err := c.raw.Read(c.readFn)
		c.p = nil
		switch {
		case err != nil:
			return 0, c.why(err)
		case c.again:
			return 0, ErrAgain
		case c.err != nil:
			return 0, &net.OpError{Op: "read", Net: c.LocalAddr().Network(), Err: os.NewSyscallError("read", c.err)}
		case c.n == 0:
			return 0, io.EOF
		}
		return c.n, nil
	}
	c.reading.Store(true)
	n, err := c.Conn.Read(p)
	c.reading.Store(false)
	return n, c.why(err)
}

func (c *netConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.why(err)
}

func (c *netConn) Poll(on bool) { c.poll = on }

func (c *netConn) Ready() error {
	c.first = true
	c.reading.Store(true)
	err := c.raw.Read(c.waitFn)
	c.reading.Store(false)
	return c.why(err)
}

func (c *netConn) CloseWrite() error {
	w, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	err := w.CloseWrite()
	if errors.Is(err, syscall.ENOTCONN) { // both directions have ended already
		return nil
	}
	return err
}

func (c *netConn) SetDeadline(t time.Time) error      { return c.deadline(c.Conn.SetDeadline, t) }
func (c *netConn) SetReadDeadline(t time.Time) error  { return c.deadline(c.Conn.SetReadDeadline, t) }
func (c *netConn) SetWriteDeadline(t time.Time) error { return c.deadline(c.Conn.SetWriteDeadline, t) }

func (c *netConn) deadline(set func(time.Time) error, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended.Load() != nil && c.state != closed {
		return nil // it is the past for good
	}
	if t.IsZero() && !c.armed {
		return nil
	}
	c.armed = c.armed || !t.IsZero()
	return set(t)
}

func (c *netConn) Release(s Session, idle time.Duration) { c.release(s, idle, false) }

// release leaves the connection to its session. more: something is there to be served that the socket does not show.
func (c *netConn) release(s Session, idle time.Duration, more bool) {
	c.mu.Lock()
	switch {
	case c.state == closed:
		c.mu.Unlock()
		return
	case c.ended.Load() != nil: // no wait would last
		c.session = s
		c.mu.Unlock()
		hangUp(c, s)
		return
	}
	c.session, c.idle, c.more = s, idle, more
	c.until = time.Time{}
	if idle > 0 {
		c.until = time.Now().Add(idle)
	}
	c.rest()
}

// rest leaves the connection to whoever watches it. It unlocks.
func (c *netConn) rest() {
	c.state = released
	if c.serving.Load() != nil { // the goroutine that serves goes on to watch
		c.mu.Unlock()
		return
	}
	c.rebind(nil)
	c.left = make(chan struct{})
	left, s := c.left, c.session
	c.mu.Unlock()
	watch := func() { c.watch(left) }
	if c.e == nil {
		go watch()
	} else if !c.e.goWatch(watch) {
		close(left)
		hangUp(c, s)
	}
}

// watch waits for a released connection to say something, and serves it.
func (c *netConn) watch(left chan struct{}) {
	defer close(left)
	var r *routine
	defer func() {
		if r != nil {
			r.end()
		}
	}()
	for {
		c.mu.Lock()
		if c.state != released {
			c.mu.Unlock()
			return
		}
		if c.ended.Load() != nil { // before we came: its deadline must stay
			s := c.session
			c.mu.Unlock()
			hangUp(c, s)
			return
		}
		if !c.more {
			c.armed = !c.until.IsZero()
			_ = c.Conn.SetDeadline(c.until)
			c.mu.Unlock()
			c.poll = false
			err := c.Ready()
			c.mu.Lock()
			if c.state != released { // somebody took it
				c.mu.Unlock()
				return
			}
			if errors.Is(err, os.ErrDeadlineExceeded) || c.ended.Load() != nil {
				s := c.session
				c.mu.Unlock()
				hangUp(c, s)
				return
			}
		}
		c.more = false
		c.state = held
		if c.armed {
			_ = c.Conn.SetDeadline(time.Time{})
			c.armed = false
		}
		if r == nil {
			r = c.e.routine()
			c.rebind(r)
		}
		c.mu.Unlock()
		if !c.serve(r) {
			return
		}
	}
}

// serve runs the session once, and tells whether the connection was left to wait for more.
func (c *netConn) serve(r *routine) (idle bool) {
	v := Close
	defer func() {
		c.mu.Lock()
		c.serving.Store(nil)
		switch {
		case c.state == closed:
		case v == Close:
			c.mu.Unlock()
			_ = c.Close()
			return
		case c.state == released: // by the session
			idle = true
		case v == Idle:
			if c.state, c.until = released, (time.Time{}); c.idle > 0 {
				c.until = time.Now().Add(c.idle)
			}
			idle = true
		default: // handed
			c.rebind(nil)
		}
		c.mu.Unlock()
	}()
	c.mu.Lock()
	s := c.session
	c.serving.Store(r)
	c.mu.Unlock()
	defer c.e.guard()
	v = s.Serve(r, c)
	return
}

// claim takes a released connection, and waits until its watcher has left. It is false where there is nothing to take.
func (c *netConn) claim(to state) bool {
	c.mu.Lock()
	if c.state != released || c.serving.Load() != nil {
		c.mu.Unlock()
		return false
	}
	busy := c.more
	if busy || c.raw.Control(func(fd uintptr) { busy, _ = peek(fd) }) != nil || busy {
		c.mu.Unlock()
		return false
	}
	c.state = to
	_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // wakes the watcher; others may be writing
	left := c.left
	c.mu.Unlock()
	<-left
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closed {
		return false
	}
	c.armed = false
	if p := c.ended.Load(); p == nil {
		_ = c.Conn.SetReadDeadline(time.Time{})
	}
	return true
}

func (c *netConn) Take(t loam.Task) bool {
	if !c.claim(held) {
		return false
	}
	c.bind(t)
	return true
}

// visit shows fn an idle connection, which it may close or take the File of.
func (c *netConn) visit(fn func(Conn, Session)) {
	if !c.claim(visited) {
		return
	}
	fn(c, c.session)
	c.mu.Lock()
	if c.state == visited {
		c.rest()
		return
	}
	c.mu.Unlock()
}

func (c *netConn) Close() error {
	c.mu.Lock()
	if c.state == closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.state = closed
	c.rebind(nil)
	session := c.session
	c.mu.Unlock()
	err := c.Conn.Close()
	if c.e != nil {
		c.e.remove(c)
	}
	if c.ln != nil {
		c.ln.closed()
	}
	if session != nil {
		session.Close()
	}
	return err
}

func (c *netConn) File() (*os.File, error) {
	c.mu.Lock()
	idle := c.state == visited
	c.mu.Unlock()
	if !idle && !c.claim(visited) {
		return nil, errNotIdle
	}
	return c.detach()
}

// detach takes the socket out. The connection counts as closed; its peer sees nothing, since another descriptor lives.
func (c *netConn) detach() (*os.File, error) {
	s, ok := c.Conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.ErrUnsupported
	}
	f, err := s.File()
	if cerr := c.Close(); err == nil && cerr != nil {
		f.Close()
		return nil, cerr
	}
	return f, err
}

// errNotIdle is the answer to who wants the socket of a connection that a task has.
var errNotIdle = &loam.Error{Code: loam.FailedPrecondition, Op: "loop", Err: errors.New("the connection is not idle")}

func (c *netConn) lend(class uint8) *Buffer {
	if b, ok := buffers[class].Get().(*Buffer); ok {
		return b
	}
	return newBuffer(class)
}

func (c *netConn) giveBack(b *Buffer) { buffers[b.class].Put(b) }

func (c *netConn) now(p []byte) {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(farewell))
	_, _ = c.Conn.Write(p) // as far as it goes
}

// farewell is how long a goroutine waits for the last words of a connection to go out.
const farewell = 100 * time.Millisecond

func (c *netConn) outside() (net.Conn, func(), error) { return c, func() {}, nil }
