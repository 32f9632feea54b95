package loop

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/loam-run/loam"
)

// Bits of conn.flags.
const (
	canRead  = 1 << iota // an edge came, and the socket was not seen empty since
	canWrite             // likewise
	hung                 // an end or an error is queued: read on to see it
	poll                 // Read does not wait
	free                 // released: nobody has it
	queued               // it has a turn to come
	dead                 // closed
	noted                // bytes of it are among the loop's notes
	owes                 // bytes of it found no room in the socket
)

// A conn is a socket of a loop. An idle one is this struct and what its session keeps, and nothing else. All of it
// belongs to the loop's thread.
type conn struct {
	tm       timer // of the idle limit
	l        *loop
	fd       int32
	gen      uint32 // tells it from others that had its descriptor
	flags    uint16
	reader   *task // that waits to read
	writer   *task // that waits to write
	owner    *task // that a session is served by: it is canceled when the peer has left
	relay    *relay
	session  Session
	listener *listener     // that accepted it
	idle     time.Duration // of the last release
	until    int64         // when it is closed, while it is free; 0: never
	readBy   int64         // deadlines; 0: none
	writeBy  int64
}

var (
	errClosed       = net.ErrClosed
	errBusy   error = &loam.Error{Code: loam.FailedPrecondition, Op: "loop", Err: errors.New("another task waits for the same direction of the connection")}
)

// add takes in a socket that does not block. It is known to be ready as flags say; what epoll finds comes on top.
func (l *loop) add(fd int, flags uint16) (*conn, error) {
	l.gen++
	c := &conn{l: l, fd: int32(fd), gen: l.gen, flags: flags}
	c.tm.owner = c
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge, Fd: c.fd, Pad: int32(c.gen)}
	if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	if fd >= len(l.conns) {
		more := make([]*conn, max(fd+1, 2*len(l.conns), 256))
		copy(more, l.conns)
		l.conns = more
	}
	l.conns[fd] = c
	l.open++
	return c, nil
}

// edge is EPOLLET, which package syscall has as a negative number.
const edge = 1 << 31

// ready deals with an event of the socket.
func (c *conn) ready(events uint32) {
	l := c.l
	if events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		c.flags |= hung | canRead
	}
	if events&syscall.EPOLLIN != 0 {
		c.flags |= canRead
	}
	if events&(syscall.EPOLLOUT|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		c.flags |= canWrite
		if t := c.writer; c.paid() && t != nil {
			l.wake(t, wakeReady)
		}
	}
	switch {
	case c.flags&dead != 0:
	case c.relay != nil:
		c.relay.pump()
	case c.flags&canRead == 0:
	case c.reader != nil:
		l.wake(c.reader, wakeReady)
	case c.flags&(free|queued) == free:
		l.serve(c)
	case c.owner != nil && c.flags&hung != 0 && c.writer != c.owner:
		if _, gone := peek(uintptr(c.fd)); gone {
			c.owner.Cancel()
		}
	}
}

// turn serves a connection that had something to say when it was released.
func (c *conn) turn() {
	c.flags &^= queued
	if c.flags&(free|dead) == free {
		c.l.serve(c)
	}
}

// await parks the running task until the direction is ready that slot is of.
func (c *conn) await(slot **task, by int64) error {
	t := c.l.cur
	if t == nil {
		panic("loop: a Conn waits in a task of its loop only")
	}
	if *slot != nil {
		return errBusy
	}
	*slot = t
	why := t.yield(waitConn, by)
	*slot = nil
	return why.err()
}

// check is what every read and write looks at first.
func (c *conn) check(by int64) error {
	if c.flags&dead != 0 {
		return errClosed
	}
	if by != 0 && by <= c.l.now {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// spend takes one from the running task's budget, and lets the others run where there is none left.
func (c *conn) spend() {
	if t := c.l.cur; t != nil {
		if t.budget--; t.budget < 0 {
			t.Yield()
		}
	}
}

// tryRead reads what is there: again: nothing.
func (c *conn) tryRead(p []byte) (n int, again bool, err error) {
	if c.flags&canRead == 0 {
		return 0, true, nil
	}
	for {
		// Not read: that is for files of every kind, and costs a tenth more.
		r, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
		switch n = int(r); {
		case e == 0 && n > 0:
			if n < len(p) && c.flags&hung == 0 {
				c.flags &^= canRead // the socket is empty; the next byte makes a new edge
			}
			return n, false, nil
		case e == 0:
			return 0, false, io.EOF
		case e == syscall.EAGAIN:
			c.flags &^= canRead
			return 0, true, nil
		case e != syscall.EINTR:
			return 0, false, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", e)}
		}
	}
}

// tryWrite writes what there is room for.
func (c *conn) tryWrite(p []byte) (n int, again bool, err error) {
	if c.flags&(canWrite|noted|owes) != canWrite && (!c.clear() || c.flags&canWrite == 0) {
		return 0, len(p) > 0, nil
	}
	for n < len(p) {
		r, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&p[n])), uintptr(len(p)-n), syscall.MSG_NOSIGNAL, 0, 0)
		switch e {
		case 0:
			n += int(r)
		case syscall.EAGAIN:
			c.flags &^= canWrite
			return n, true, nil
		case syscall.EINTR:
		default:
			return n, false, &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", e)}
		}
	}
	return n, false, nil
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		if err := c.check(c.readBy); err != nil || len(p) == 0 {
			return 0, err
		}
		n, again, err := c.tryRead(p)
		if !again {
			c.spend()
			return n, err
		}
		if c.flags&poll != 0 {
			return 0, ErrAgain
		}
		if err := c.await(&c.reader, c.readBy); err != nil {
			return 0, err
		}
	}
}

// Write returns when all is in the socket's buffer, or little enough to be written at the end of the turn: that it waits
// is the flow control.
func (c *conn) Write(p []byte) (int, error) {
	if l := c.l; l.more && l.cur != nil {
		if c.note(p) {
			c.spend()
			return len(p), nil
		}
		l.together()
	}
	done := 0
	for {
		if err := c.check(c.writeBy); err != nil {
			return done, err
		}
		n, again, err := c.tryWrite(p[done:min(len(p), done+maxWrite)])
		done += n
		if !again {
			c.spend()
			if done == len(p) || err != nil {
				return done, err
			}
			continue
		}
		if err := c.await(&c.writer, c.writeBy); err != nil {
			return done, err
		}
	}
}

// maxWrite is how much is written at once: a peer that takes all there is must not have the loop for itself.
const maxWrite = 256 << 10

func (c *conn) Poll(on bool) {
	if on {
		c.flags |= poll
	} else {
		c.flags &^= poll
	}
}

func (c *conn) Ready() error {
	for {
		if err := c.check(c.readBy); err != nil {
			return err
		}
		if c.flags&canRead != 0 {
			// A read that filled its buffer to the brim leaves the flag although nothing may be there.
			if c.flags&hung != 0 {
				return nil
			}
			if ready, _ := peek(uintptr(c.fd)); ready {
				return nil
			}
			c.flags &^= canRead
		}
		if err := c.await(&c.reader, c.readBy); err != nil {
			return err
		}
		if c.flags&canRead != 0 { // fresh from the kernel
			return c.check(0)
		}
	}
}

func (c *conn) CloseWrite() error {
	for {
		if err := c.check(0); err != nil {
			return err
		}
		if c.clear() {
			break
		}
		if err := c.await(&c.writer, c.writeBy); err != nil {
			return err
		}
	}
	err := syscall.Shutdown(int(c.fd), syscall.SHUT_WR)
	if err == syscall.ENOTCONN { // both directions have ended already
		return nil
	}
	return os.NewSyscallError("shutdown", err)
}

// Close may be called by a task, or by the loop itself.
func (c *conn) Close() error {
	if c.flags&dead != 0 {
		return errClosed
	}
	if !c.clear() && c.check(c.writeBy) == nil { // it had time enough otherwise
		c.linger()
		return nil
	}
	c.forget()
	err := os.NewSyscallError("close", syscall.Close(int(c.fd)))
	c.bury()
	return err
}

// forget takes the connection out of the loop's books. Tasks that wait for it learn of it in their turn.
func (c *conn) forget() {
	l := c.l
	c.flags |= dead
	for _, t := range [2]*task{c.reader, c.writer} {
		if t != nil {
			l.later(t, wakeClosed)
		}
	}
	l.conns[c.fd] = nil
	delete(l.debts, c)
	l.open--
	l.wheel.disarm(&c.tm)
}

// bury tells those that want to know that the connection is closed.
func (c *conn) bury() {
	if c.listener != nil {
		c.listener.closed()
	}
	if s := c.session; s != nil {
		c.session = nil
		c.l.safely(s.Close)
	}
}

func (c *conn) Release(s Session, idle time.Duration) { c.release(s, idle, false) }

// release leaves the connection to its session. more: something is there to be served that the socket does not show.
func (c *conn) release(s Session, idle time.Duration, more bool) {
	if c.flags&dead != 0 {
		return
	}
	l := c.l
	c.session, c.idle, c.owner = s, idle, nil
	c.readBy, c.writeBy = 0, 0
	if l.stopping {
		hangUp(c, s)
		return
	}
	c.flags |= free
	c.until = 0
	if idle > 0 {
		c.until = l.now + int64(idle)
		l.wheel.arm(&c.tm, c.until)
	}
	if c.flags&canRead != 0 && !more && c.flags&hung == 0 {
		if ready, _ := peek(uintptr(c.fd)); !ready {
			c.flags &^= canRead
		}
	}
	if (more || c.flags&canRead != 0) && c.flags&queued == 0 {
		c.flags |= queued
		l.turns = append(l.turns, c)
	}
}

// expire closes a connection that was idle for too long, when its timer fires: the timer may be of an earlier release.
func (c *conn) expire(now int64) {
	switch {
	case c.flags&(free|dead) != free || c.until == 0:
	case c.until > now:
		c.l.wheel.arm(&c.tm, c.until)
	default:
		hangUp(c, c.session)
	}
}

func (c *conn) Take(loam.Task) bool {
	if c.flags&(free|dead) != free || c.flags&(canRead|queued) != 0 {
		return false
	}
	c.flags &^= free
	return true
}

func (c *conn) File() (*os.File, error) {
	if c.flags&(free|dead|queued) != free || !c.clear() {
		return nil, errNotIdle
	}
	return c.detach(), nil
}

// detach takes the socket out, as a file that has its descriptor.
func (c *conn) detach() *os.File {
	c.forget()
	event := syscall.EpollEvent{}
	_ = syscall.EpollCtl(c.l.epoll, syscall.EPOLL_CTL_DEL, int(c.fd), &event) // it is in the set, so this does not fail
	f := os.NewFile(uintptr(c.fd), "connection")
	c.bury()
	return f
}

func (c *conn) SetDeadline(t time.Time) error {
	by := c.l.since(t)
	c.setReadBy(by)
	c.setWriteBy(by)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.setReadBy(c.l.since(t))
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.setWriteBy(c.l.since(t))
	return nil
}

func (c *conn) setReadBy(by int64) {
	if c.readBy = by; c.reader != nil {
		c.l.hurry(c.reader, by)
	}
}

func (c *conn) setWriteBy(by int64) {
	if c.writeBy = by; c.writer != nil {
		c.l.hurry(c.writer, by)
	}
}

// hurry moves the deadline of a wait that is under way.
func (l *loop) hurry(t *task, by int64) {
	if t.wait != waitConn {
		return
	}
	if t.deadline = by; by != 0 {
		l.wheel.arm(&t.w.tm, by)
	}
}

func (c *conn) lend(class uint8) *Buffer { return c.l.lend(class) }
func (c *conn) giveBack(b *Buffer)       { c.l.keep(b) }

func (c *conn) now(p []byte) {
	if c.flags&dead == 0 && c.writer == nil {
		_, _, _ = c.tryWrite(p) // as far as it goes
	}
}

func (c *conn) outside() (net.Conn, func(), error) {
	if c.flags&dead != 0 || !c.clear() {
		return nil, nil, errClosed
	}
	dup, _, e := syscall.Syscall(syscall.SYS_FCNTL, uintptr(c.fd), syscall.F_DUPFD_CLOEXEC, 0)
	if e != 0 {
		return nil, nil, os.NewSyscallError("fcntl", e)
	}
	f := os.NewFile(dup, "handshake")
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, nil, err
	}
	if c.readBy != 0 {
		_ = nc.SetDeadline(c.l.base.Add(time.Duration(c.readBy))) // it is open
	}
	return nc, func() {
		nc.Close()
		c.flags |= canRead | canWrite // edges that came meanwhile say nothing of now
	}, nil
}

func (c *conn) LocalAddr() net.Addr  { return c.address(syscall.Getsockname) }
func (c *conn) RemoteAddr() net.Addr { return c.address(syscall.Getpeername) }

func (c *conn) address(get func(int) (syscall.Sockaddr, error)) net.Addr {
	if c.flags&dead == 0 {
		if sa, err := get(int(c.fd)); err == nil {
			return netAddr(sa)
		}
	}
	return &net.TCPAddr{}
}

func netAddr(sa syscall.Sockaddr) net.Addr {
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return &net.TCPAddr{IP: append(net.IP(nil), a.Addr[:]...), Port: a.Port}
	case *syscall.SockaddrInet6:
		zone := ""
		if a.ZoneId != 0 {
			if i, err := net.InterfaceByIndex(int(a.ZoneId)); err == nil {
				zone = i.Name
			}
		}
		return &net.TCPAddr{IP: append(net.IP(nil), a.Addr[:]...), Port: a.Port, Zone: zone}
	case *syscall.SockaddrUnix:
		return &net.UnixAddr{Name: a.Name, Net: "unix"}
	}
	return &net.TCPAddr{}
}
