// Package listener opens sockets and hands what comes in to what serves it: requests in plaintext or TLS, in HTTP/1 or
// HTTP/2, to a target; other connections to an upstream, as they are. Which of these a connection is, its first bytes
// say, so one port may take all of them. Every limit has a bound.
package listener

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/http1"
	"github.com/loam-run/loam/protocol/http2"
)

// Config of a listener. Zero limits take the default that stands beside them.
type Config struct {
	Name    string
	Network string // tcp or unix; tcp
	Address string // host:port, port 0 is any free one; or a path
	Limits
	// Files are sockets that another process handed over; the address is theirs.
	Files []*os.File
	Log   *slog.Logger
}

// Limits bound what clients may hold.
type Limits struct {
	MaxConnections   int           // open at once; those beyond wait unaccepted; 50000
	MaxStreams       int           // requests at once on one connection of HTTP/2; 250
	MaxHeader        int           // bytes; 64 KiB
	MaxFields        int           // of a header; 128
	MaxBody          int64         // bytes of a request; 64 MiB; negative: no bound
	HeadTimeout      time.Duration // from a header's first byte to its last; 10s
	BodyTimeout      time.Duration // that a sender or receiver of a body may be silent; 30s
	IdleTimeout      time.Duration // between two requests of a connection; 2m
	StreamIdle       time.Duration // that nothing moves on a stream of HTTP/2 either way; 1h; negative: no bound
	HandshakeTimeout time.Duration // of TLS; 10s
	MinRate          int64         // bytes a second of a request's body, for what it is waited for longer than BodyTimeout; 0: no bound
}

func (l *Limits) setDefaults() {
	l.MaxConnections = cmp.Or(l.MaxConnections, 50_000)
	l.MaxStreams = cmp.Or(l.MaxStreams, 250)
	l.MaxHeader = cmp.Or(l.MaxHeader, 64<<10)
	l.MaxFields = cmp.Or(l.MaxFields, 128)
	l.MaxBody = cmp.Or(l.MaxBody, 64<<20)
	l.HeadTimeout = cmp.Or(l.HeadTimeout, 10*time.Second)
	l.BodyTimeout = cmp.Or(l.BodyTimeout, 30*time.Second)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, 2*time.Minute)
	l.HandshakeTimeout = cmp.Or(l.HandshakeTimeout, 10*time.Second)
}

// Service is what a listener's connections are for. It can be replaced while they are open. Where a connection is passed
// on as it is, the target gets a request of method CONNECT for the name that was asked for by TLS, and answers with a
// Tunnel.
type Service struct {
	HTTP   loam.Target // gets the requests; nil: none are taken
	Plain  bool        // requests may come without TLS
	TLS    func(serverName string) *tls.Config
	Stream func(serverName string) loam.Target // of a connection of TLS that is passed on undecrypted; nil, or answers nil: it is decrypted
	Within func(serverName string) loam.Target // of what a connection of TLS carries, which is passed on decrypted; nil, or answers nil: it carries requests
	TCP    loam.Target                         // of every connection, whatever it speaks; nil: they are looked into
}

// A Listener is an open socket that is being served.
type Listener struct {
	c       Config
	socket  loop.Listener
	service atomic.Pointer[Service]
	http1   *http1.Server
	http2   *http2.Server
	ids     *protocol.IDs // of connections that are passed on
}

// Listen opens the socket and serves it until Drain. hub is the engine's.
func Listen(ctx context.Context, engine loop.Engine, hub *http2.Hub, c Config, s Service) (*Listener, error) {
	c.setDefaults()
	c.Network = cmp.Or(c.Network, "tcp")
	c.Log = c.Log.With("listener", c.Name)
	l := &Listener{c: c, ids: protocol.NewIDs()}
	l.service.Store(&s)
	shared := protocol.Options{Log: c.Log, MaxBody: c.MaxBody, MinRate: c.MinRate}
	l.http1 = http1.NewServer(loam.TargetFunc(l.serve), http1.ServerConfig{
		Options: shared, Limits: http1.Limits{Head: c.MaxHeader, Fields: c.MaxFields},
		HeadTimeout: c.HeadTimeout, BodyTimeout: c.BodyTimeout, WriteTimeout: c.BodyTimeout, IdleTimeout: c.IdleTimeout,
	})
	l.http2 = http2.NewServer(loam.TargetFunc(l.serve), http2.ServerConfig{Options: shared, Hub: hub, Limits: http2.Limits{
		Streams: c.MaxStreams, Head: c.MaxHeader, Fields: c.MaxFields,
		HeadTimeout: c.HeadTimeout, BodyTimeout: c.BodyTimeout, WriteTimeout: c.BodyTimeout, StreamIdle: c.StreamIdle, IdleTimeout: c.IdleTimeout,
	}})
	var err error
	l.socket, err = engine.Listen(ctx, c.Network, c.Address, loop.ListenOptions{Open: l.open, Idle: c.HeadTimeout, MaxConnections: c.MaxConnections, Files: c.Files})
	if err != nil {
		return nil, explain(c, err)
	}
	return l, nil
}

// serve sends a request to the present target.
func (l *Listener) serve(req *loam.Request) (*loam.Response, error) {
	if t := l.service.Load().HTTP; t != nil {
		return t.Serve(req)
	}
	return nil, loam.Errorf(loam.NotFound, "listener", "no requests are taken here")
}

// Update replaces what the listener's connections are for. Requests under way end as they began.
func (l *Listener) Update(s Service) { l.service.Store(&s) }

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
func (l *Listener) Name() string { return l.c.Name }

// Addr is where it listens, with the port it got.
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

// Connections is how many connections are open.
func (l *Listener) Connections() int { return l.socket.Connections() }

// Files are duplicates of its sockets, for a new process.
func (l *Listener) Files() ([]*os.File, error) { return l.socket.Files() }

// Drain stops accepting, waits until the requests under way are answered, or ctx ends, and closes what is left.
func (l *Listener) Drain(ctx context.Context) error {
	err := l.socket.Stop()
	l.http1.Drain()
	l.http2.Drain()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		l.socket.Each(func(c loop.Conn, s loop.Session) {
			if idle, ok := s.(interface{ Quiet() bool }); !ok || idle.Quiet() {
				_ = c.Close() // it has no request under way
			}
		})
		if l.socket.Connections() == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			err = errors.Join(err, fmt.Errorf("listener %q: %d connections were cut off: %w", l.c.Name, l.socket.Connections(), ctx.Err()))
			l.socket.Cut()
			return err
		}
	}
}
