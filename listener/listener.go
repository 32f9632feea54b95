// Package listener opens sockets and hands the requests that come in to a target. It serves HTTP/1.1 and cleartext
// HTTP/2 by net/http; every limit has a bound.
package listener

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/nethttp"
)

// Config of a listener. Zero limits take the default that stands beside them.
type Config struct {
	Name    string
	Address string // host:port; port 0 is any free one

	MaxConnections    int           // open at once; those beyond wait unaccepted; 10000
	MaxHeader         int           // bytes; 64 KiB
	MaxBody           int64         // bytes of a request; 64 MiB
	ReadHeaderTimeout time.Duration // 10s
	IdleTimeout       time.Duration // between two requests of a connection; 2m
}

func (c *Config) setDefaults() {
	c.MaxConnections = cmp.Or(c.MaxConnections, 10_000)
	c.MaxHeader = cmp.Or(c.MaxHeader, 64<<10)
	c.MaxBody = cmp.Or(c.MaxBody, 64<<20)
	c.ReadHeaderTimeout = cmp.Or(c.ReadHeaderTimeout, 10*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 2*time.Minute)
}

// A Listener is an open socket that is being served.
type Listener struct {
	name   string
	socket net.Listener
	server *http.Server
	served chan struct{}
	err    error // why serving ended; read after served is closed
}

// Listen opens the socket and serves target until Drain.
func Listen(ctx context.Context, c Config, target loam.Target, log *slog.Logger) (*Listener, error) {
	c.setDefaults()
	log = log.With("listener", c.Name)
	var lc net.ListenConfig
	socket, err := lc.Listen(ctx, "tcp", c.Address)
	if err != nil {
		return nil, explain(c, err)
	}
	l := &Listener{name: c.Name, socket: socket, served: make(chan struct{})}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	l.server = &http.Server{
		Handler: nethttp.Handler(target, nethttp.Options{Log: log, MaxBody: c.MaxBody, Done: accessLog(log)}), Protocols: &protocols,
		MaxHeaderBytes: c.MaxHeader, ReadHeaderTimeout: c.ReadHeaderTimeout, IdleTimeout: c.IdleTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(l.served)
		l.err = l.server.Serve(&capped{Listener: socket, slots: make(chan struct{}, c.MaxConnections), closed: make(chan struct{})})
	}()
	return l, nil
}

func accessLog(log *slog.Logger) func(*loam.Request, int, int64, time.Duration) {
	return func(req *loam.Request, status int, sent int64, took time.Duration) {
		if log.Enabled(req.Context(), slog.LevelDebug) {
			log.Debug("request", "method", req.Method, "path", req.Path, "status", status, "bytes", sent, "took", took, "request", req.ID, "remote", req.Remote)
		}
	}
}

func explain(c Config, err error) error {
	e := &loam.Error{Code: loam.Unavailable, Op: fmt.Sprintf("listener %q on %s", c.Name, c.Address), Err: err}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		e.Hint = "another program listens there: end it, or give the Gateway's listener another port"
	case errors.Is(err, syscall.EACCES):
		e.Hint = "ports below 1024 need a privilege: choose a higher one, or grant CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Hint = "no interface of this machine has that address: correct the Gateway's addresses"
	}
	return e
}

// Name is the listener's name, as its Gateway has it.
func (l *Listener) Name() string { return l.name }

// Addr is where it listens, with the port it got.
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

// Drain stops accepting, waits until the requests under way are answered, or ctx ends, and closes what is left.
func (l *Listener) Drain(ctx context.Context) error {
	err := l.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("listener %q: requests were cut off: %w", l.name, err), l.server.Close())
	}
	<-l.served
	if !errors.Is(l.err, http.ErrServerClosed) {
		err = errors.Join(err, l.err)
	}
	return err
}

// capped bounds how many connections are open at once: past the bound they wait in the kernel's queue.
type capped struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (c *capped) Accept() (net.Conn, error) {
	select {
	case c.slots <- struct{}{}:
	case <-c.closed:
		return nil, net.ErrClosed
	}
	conn, err := c.Listener.Accept()
	if err != nil {
		<-c.slots
		return nil, err
	}
	return &slotConn{TCPConn: conn.(*net.TCPConn), free: sync.OnceFunc(func() { <-c.slots })}, nil
}

func (c *capped) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Listener.Close()
}

// slotConn stays a TCP connection for net/http, which closes one half of it to have a refusal read, and sends files.
type slotConn struct {
	*net.TCPConn
	free func()
}

func (c *slotConn) Close() error {
	defer c.free()
	return c.TCPConn.Close()
}
