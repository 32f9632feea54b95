package loop

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
)

func (t *task) dial(network, address string, deadline time.Time) (Conn, error) {
	c, err := t.connect(network, address, deadline)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: text{network, address}, Err: err}
	}
	return c, nil
}

// text is an address as it was given.
type text struct{ network, address string }

func (a text) Network() string { return a.network }
func (a text) String() string  { return a.address }

func (t *task) connect(network, address string, deadline time.Time) (*conn, error) {
	switch network {
	case "unix":
		return t.connectTo(syscall.AF_UNIX, &syscall.SockaddrUnix{Name: address}, deadline)
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	if ap, err := netip.ParseAddrPort(address); err == nil {
		return t.connectIP(ap, deadline)
	}
	addrs, port, err := t.lookup(network, address, deadline)
	if err != nil {
		return nil, err
	}
	for i, a := range addrs {
		until := deadline
		if left := len(addrs) - i; !deadline.IsZero() && left > 1 { // one address that is silent must not use up the time of all
			now := t.Now()
			until = now.Add(deadline.Sub(now) / time.Duration(left))
		}
		var c *conn
		if c, err = t.connectIP(netip.AddrPortFrom(a, port), until); err == nil {
			return c, nil
		}
		if errors.Is(err, context.Canceled) || errors.Is(err, ErrStopped) {
			break
		}
	}
	return nil, err
}

// lookup finds the addresses of a host's name, which may block a thread.
func (t *task) lookup(network, address string, deadline time.Time) (addrs []netip.Addr, port uint16, err error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, 0, err
	}
	if host == "" {
		host = "localhost"
	}
	ctx := t.Context()
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	t.Await(func() {
		var p int
		if n, perr := strconv.ParseUint(service, 10, 16); perr == nil {
			p = int(n)
		} else if p, err = net.DefaultResolver.LookupPort(ctx, network, service); err != nil {
			return
		}
		port = uint16(p)
		family := "ip"
		if network != "tcp" {
			family += network[3:]
		}
		addrs, err = net.DefaultResolver.LookupNetIP(ctx, family, host)
	})
	if err != nil && ctx.Err() != nil {
		switch {
		case t.l.stopping:
			err = ErrStopped
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			err = os.ErrDeadlineExceeded
		default:
			err = ctx.Err()
		}
	}
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	return addrs, port, err
}

func (t *task) connectIP(ap netip.AddrPort, deadline time.Time) (*conn, error) {
	ip := ap.Addr()
	if ip.Is4() || ip.Is4In6() {
		return t.connectTo(syscall.AF_INET, &syscall.SockaddrInet4{Port: int(ap.Port()), Addr: ip.Unmap().As4()}, deadline)
	}
	sa := &syscall.SockaddrInet6{Port: int(ap.Port()), Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
			sa.ZoneId = uint32(n)
		} else if i, err := net.InterfaceByName(zone); err == nil {
			sa.ZoneId = uint32(i.Index)
		} else {
			return nil, err
		}
	}
	return t.connectTo(syscall.AF_INET6, sa, deadline)
}

func (t *task) connectTo(family int, sa syscall.Sockaddr, deadline time.Time) (*conn, error) {
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if family != syscall.AF_UNIX {
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) // slower without, but it works
		_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
		nearby(fd, sa)
	}
	flags := uint16(canWrite)
	switch err := syscall.Connect(fd, sa); err {
	case nil:
	case syscall.EINPROGRESS, syscall.EINTR:
		flags = 0
	default:
		closeFd(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	c, err := t.l.add(fd, flags) // after connect: a socket that is not connected counts as hung up
	if err != nil {
		return nil, err
	}
	if flags == 0 {
		if err = c.await(&c.writer, t.l.since(deadline)); err == nil {
			var e int
			if e, err = syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR); err == nil && e != 0 {
				err = syscall.Errno(e)
			}
			err = os.NewSyscallError("connect", err)
		}
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}
