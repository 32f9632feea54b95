package loop

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/loam-run/loam"
)

// listener is a listener of event loops. For tcp each loop has a socket of its own, and the kernel deals connections
// out; other sockets, and those that another process had, are shared out or shared.
type listener struct {
	e      *coroutines
	o      ListenOptions
	addr   net.Addr
	open   atomic.Int64 // connections
	paused atomic.Int32 // sockets that wait for one to end
	probes bool         // connections are asked whether their peer is still there

	mu      sync.Mutex // of what follows
	fds     []int
	sockets []*socket
	given   bool // another process has the sockets
	stopped bool
}

// socket is a listening socket in the set of one loop. Several may have the same descriptor.
type socket struct {
	ln     *listener
	l      *loop
	fd     int
	gen    uint32
	tm     timer
	paused bool
	closed bool
}

func (e *coroutines) Listen(ctx context.Context, network, address string, o ListenOptions) (Listener, error) {
	ln := &listener{e: e, o: o}
	var err error
	switch {
	case len(o.Files) > 0:
		for _, f := range o.Files {
			fd, ferr := takeFile(f)
			if err = errors.Join(err, ferr); ferr == nil {
				ln.fds = append(ln.fds, fd)
			}
		}
	case network == "unix":
		if err = freePath(network, address); err == nil {
			err = ln.bind(ctx, network, address, false)
		}
	default:
		// The first socket is bound as one that shares with nobody, so that a second process on the same port fails
		// instead of taking half of the connections. Only then it is opened to those of the other loops.
		err = ln.bind(ctx, network, address, false)
		if err == nil && len(e.loops) > 1 {
			err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(ln.fds[0], syscall.SOL_SOCKET, soReusePort, 1))
			var sa syscall.Sockaddr
			if err == nil {
				sa, err = syscall.Getsockname(ln.fds[0])
			}
			for range len(e.loops) - 1 {
				if err == nil {
					err = ln.bind(ctx, network, netAddr(sa).String(), true)
				}
			}
		}
	}
	if err == nil {
		var sa syscall.Sockaddr
		if sa, err = syscall.Getsockname(ln.fds[0]); err == nil {
			ln.addr = netAddr(sa)
		}
	}
	if err != nil {
		for _, fd := range ln.fds {
			closeFd(fd)
		}
		return nil, listenError(network, address, err)
	}
	for _, fd := range ln.fds {
		ln.tune(fd)
	}
	e.mu.Lock()
	if !e.stopped {
		e.listeners[ln] = struct{}{}
	}
	e.mu.Unlock()
	for i := range max(len(e.loops), len(ln.fds)) {
		l, fd := e.loops[i%len(e.loops)], ln.fds[i%len(ln.fds)]
		s := &socket{ln: ln, l: l, fd: fd}
		s.tm.owner = s
		ln.sockets = append(ln.sockets, s)
	}
	for _, s := range ln.sockets {
		err := error(ErrStopped)
		s.l.do(func() {
			if !s.l.stopping {
				err = s.begin()
			}
		})
		if err != nil {
			_ = ln.Stop() // err says more
			return nil, listenError(network, address, err)
		}
	}
	return ln, nil
}

const soReusePort = 15 // SO_REUSEPORT, which package syscall does not have for every architecture

// bind opens a listening socket. The net package does it: it knows what a host name, a missing host and the two
// versions of IP mean.
func (ln *listener) bind(ctx context.Context, network, address string, shared bool) error {
	var lc net.ListenConfig
	if shared {
		lc.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			if cerr := raw.Control(func(fd uintptr) {
				err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, 1))
			}); cerr != nil {
				return cerr
			}
			return err
		}
	}
	s, err := lc.Listen(ctx, network, address)
	if err != nil {
		return err
	}
	defer s.Close()
	if u, ok := s.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // Stop does, unless another process has it
	}
	f, err := s.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return err
	}
	fd, err := takeFile(f)
	if err == nil {
		ln.fds = append(ln.fds, fd)
	}
	return err
}

// tune sets what connections inherit from the socket they are accepted by.
func (ln *listener) tune(fd int) {
	if _, ok := ln.addr.(*net.TCPAddr); !ok {
		return
	}
	// A kernel that does not know one of them serves all the same.
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, probeAfter)
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15)
	ln.probes = true
}

// After so many seconds of silence the kernel asks a peer whether it is still there, and after up to so many more: those
// of thousands of connections that came in together would all be asked in one moment, which is more than a queue takes
// (loopback's has room for 1,000 packets), and that time after time, until the kernel resets connections that are well.
const (
	probeAfter  = 60
	probeSpread = 60
)

// nearby frees the connection to a peer of this machine from what controls congestion: its path cannot be congested. BBR,
// which many machines have for all of them, costs a twentieth of a request there, and lets but four packets out for 200 ms
// every ten seconds to measure the path (draft-ietf-ccwg-bbr, section 5.3.4). Reno is in every kernel, for everybody.
func nearby(fd int, peer syscall.Sockaddr) {
	near := false
	switch a := peer.(type) {
	case *syscall.SockaddrInet4:
		near = a.Addr[0] == 127
	case *syscall.SockaddrInet6:
		near = netip.AddrFrom16(a.Addr).Unmap().IsLoopback()
	}
	if near {
		_ = syscall.SetsockoptString(fd, syscall.IPPROTO_TCP, syscall.TCP_CONGESTION, "reno") // slower without, but it works
	}
}

// takeFile takes a descriptor out of f, which is closed.
func takeFile(f *os.File) (int, error) {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	var fd uintptr
	var e syscall.Errno
	// Not by Fd, which makes the socket one that blocks: for a moment, but for a process too that accepts from it as well.
	if err := raw.Control(func(have uintptr) {
		fd, _, e = syscall.Syscall(syscall.SYS_FCNTL, have, syscall.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, err
	}
	if e != 0 {
		return -1, os.NewSyscallError("fcntl", e)
	}
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		closeFd(int(fd))
		return -1, os.NewSyscallError("fcntl", err)
	}
	return int(fd), nil
}

func closeFd(fd int) { _ = syscall.Close(fd) } // of a socket nobody uses any more

// begin puts the socket into the set of its loop. By levels: a turn may leave connections for the next one.
func (s *socket) begin() error {
	s.l.gen++
	s.gen = s.l.gen
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | exclusive, Fd: int32(s.fd), Pad: int32(s.gen)}
	if err := syscall.EpollCtl(s.l.epoll, syscall.EPOLL_CTL_ADD, s.fd, &event); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	s.l.sockets[int32(s.fd)] = s
	return nil
}

// exclusive is EPOLLEXCLUSIVE: of the loops that share a socket, not all are woken by one connection.
const exclusive = 1 << 28

// perTurn is how many connections a loop accepts before it looks at the others again.
const perTurn = 64

func (s *socket) accept() {
	ln := s.ln
	for range perTurn {
		if ln.o.MaxConnections > 0 && ln.open.Load() >= int64(ln.o.MaxConnections) {
			s.pause()
			if ln.open.Load() >= int64(ln.o.MaxConnections) {
				return
			}
			s.resume() // one ended meanwhile, and may not have seen that we wait
		}
		fd, peer, err := syscall.Accept4(s.fd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		switch err {
		case nil:
		case syscall.EINTR, syscall.ECONNABORTED:
			continue
		case syscall.EAGAIN:
			return
		default: // out of descriptors or memory: others have to end first
			s.l.log.Warn("cannot accept", "listener", ln.addr.String(), "error", err)
			s.pause()
			s.l.wheel.arm(&s.tm, s.l.now+int64(acceptPause))
			return
		}
		if ln.probes {
			_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, probeAfter+fd%probeSpread)
			nearby(fd, peer)
		}
		if err := s.l.open1(ln, fd, ln.o.Idle); err != nil {
			s.l.log.Warn("cannot serve a connection", "listener", ln.addr.String(), "error", err)
		}
		if s.closed {
			return
		}
	}
}

// open1 begins the session of a connection.
func (l *loop) open1(ln *listener, fd int, idle time.Duration) error {
	c, err := l.add(fd, canWrite)
	if err != nil {
		return err
	}
	c.listener = ln
	ln.open.Add(1)
	var session Session
	l.safely(func() { session = ln.o.Open(c) })
	if session == nil {
		_ = c.Close()
		return nil
	}
	c.release(session, idle, isEager(session))
	return nil
}

// pause leaves connections in the kernel's queue.
func (s *socket) pause() {
	if s.paused || s.closed {
		return
	}
	s.paused = true
	delete(s.l.sockets, int32(s.fd))
	event := syscall.EpollEvent{}
	_ = syscall.EpollCtl(s.l.epoll, syscall.EPOLL_CTL_DEL, s.fd, &event) // it is in the set
	s.ln.paused.Add(1)
}

func (s *socket) resume() {
	if !s.paused || s.closed {
		return
	}
	s.paused = false
	s.ln.paused.Add(-1)
	if err := s.begin(); err != nil {
		s.l.log.Error("a listener is lost", "listener", s.ln.addr.String(), "error", err)
	}
}

func (s *socket) expire(int64) { s.resume() }

// close takes the socket out of its loop.
func (s *socket) close() {
	s.pause()
	s.closed = true
	s.l.wheel.disarm(&s.tm)
}

// closed counts a connection out.
func (ln *listener) closed() {
	ln.open.Add(-1)
	if ln.paused.Load() == 0 || ln.o.MaxConnections == 0 {
		return
	}
	for _, s := range ln.sockets { // is not changed any more
		s.l.call(func() {
			if !s.tm.on {
				s.resume()
			}
		})
	}
}

func (ln *listener) Addr() net.Addr   { return ln.addr }
func (ln *listener) Connections() int { return int(ln.open.Load()) }

func (ln *listener) Files() ([]*os.File, error) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.stopped {
		return nil, listenError(ln.addr.Network(), ln.addr.String(), net.ErrClosed)
	}
	var files []*os.File
	for _, fd := range ln.fds {
		dup, _, e := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
		if e != 0 {
			for _, f := range files {
				f.Close()
			}
			return nil, listenError(ln.addr.Network(), ln.addr.String(), os.NewSyscallError("fcntl", e))
		}
		files = append(files, os.NewFile(dup, "listener"))
	}
	ln.given = true
	return files, nil
}

func (ln *listener) Stop() error {
	ln.e.mu.Lock()
	delete(ln.e.listeners, ln)
	ln.e.mu.Unlock()
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.stopped {
		return nil
	}
	ln.stopped = true
	for _, s := range ln.sockets {
		s.l.do(func() {
			if !s.paused && !s.l.stopping {
				s.accept() // those in the kernel's queue were promised a connection
			}
			s.close()
		})
	}
	for _, fd := range ln.fds {
		closeFd(fd)
	}
	if a, ok := ln.addr.(*net.UnixAddr); ok && !ln.given {
		return removePath(a.Name)
	}
	return nil
}

func (ln *listener) Each(fn func(Conn, Session)) {
	for _, l := range ln.e.loops {
		l.do(func() {
			for _, c := range l.conns {
				if c != nil && c.listener == ln && c.flags&(free|queued|dead) == free {
					l.safely(func() { fn(c, c.session) })
				}
			}
		})
	}
}

func (ln *listener) Cut() {
	for _, l := range ln.e.loops {
		l.do(func() {
			for _, c := range l.conns {
				switch {
				case c == nil || c.listener != ln || c.flags&dead != 0:
				case c.relay != nil:
					c.relay.close()
				default:
					if c.owner != nil {
						c.owner.Cancel()
					}
					_ = c.Close() // what cannot be closed is closed already
				}
			}
		})
	}
}

func (ln *listener) Adopt(f *os.File, idle time.Duration) error {
	fd, err := takeFile(f)
	if err != nil {
		return loam.Errorf(loam.InvalidArgument, "loop: adopt", "%w", err)
	}
	l := ln.e.pick()
	err = ErrStopped
	if !l.do(func() {
		if !l.stopping {
			err = l.open1(ln, fd, cmp.Or(idle, ln.o.Idle))
			fd = -1
		}
	}) || fd >= 0 {
		closeFd(fd)
	}
	return err
}
