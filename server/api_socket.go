package server

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/listener"
	"github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http1"
	"github.com/loam-run/loam/protocol/http2"
	"github.com/loam-run/loam/snapshot"
)

// listenAPI opens a socket of an API, unless it is open, and has it serve the present one.
func (s *server) listenAPI(ctx context.Context, a *api, sock snapshot.APISocket, name string) error {
	l := s.listeners[name]
	if l == nil {
		l = &socket{address: sock.Address}
		s.listeners[name] = l
	}
	forward := &forwarding{s: s, next: a.targets[sock.Name], network: sock.Network}
	if a.plan.Dapr.LogCalls {
		forward.log = s.o.Log.With("app", a.plan.App, "api", a.plan.Dialect, "socket", sock.Name)
	}
	service := listener.Service{HTTP: forward, Plain: true}
	if l.listener != nil {
		l.err = nil
		forward.address = here(l.listener.Addr())
		l.listener.Update(service)
		return nil
	}
	if sock.Network == "unix" {
		if err := os.MkdirAll(filepath.Dir(sock.Address), 0o755); err != nil {
			l.err = err
			return err
		}
	}
	limits := listener.Limits{MaxBody: -1, IdleTimeout: idleAPI, StreamIdle: -1} // a subscription waits for its event however long
	if a.plan.MaxBody > 0 {
		limits.MaxBody = a.plan.MaxBody + 64<<10 // the dialect says in its own words what is too large
	}
	as := sock.Address
	if sock.Network == "unix" {
		as = "unix:" + sock.Address
	}
	l.listener, l.err = listener.Listen(ctx, s.engine, s.hub, listener.Config{
		Name: name, Network: sock.Network, Address: sock.Address, Limits: limits, Files: s.inherit(snapshot.Listener{Name: name, Address: sock.Address}, l), Log: s.o.Log,
	}, service)
	if l.err != nil {
		s.o.Log.Error("API is not served", "app", a.plan.App, "api", a.plan.Dialect, "socket", sock.Name, "address", as, "error", l.err, "hint", loam.HintOf(l.err))
		return l.err
	}
	forward = &forwarding{s: s, next: forward.next, log: forward.log, network: sock.Network, address: here(l.listener.Addr())}
	l.listener.Update(listener.Service{HTTP: forward, Plain: true})
	s.o.Log.Info("API", "app", a.plan.App, "api", a.plan.Dialect, "socket", sock.Name, "address", l.listener.Addr().String())
	return nil
}

// here is an address by which this machine reaches a socket.
func here(at net.Addr) string {
	if t, ok := at.(*net.TCPAddr); ok && t.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", strconv.Itoa(t.Port))
	}
	return at.String()
}

// idleAPI is how long a connection of an app may be silent: SDKs keep theirs.
const idleAPI = time.Hour

// forwarding is an API's target. While an upgrade moves the components to another process requests wait; those that come on
// connections of this one afterwards go to that process, by the address that it listens at now.
type forwarding struct {
	s                *server
	next             loam.Target
	log              *slog.Logger // of each call; nil: none is logged
	network, address string

	once  sync.Once
	http1 loam.Target
	http2 loam.Target
}

// Serve serves the request here, or has the process serve it that took over.
func (f *forwarding) Serve(req *loam.Request) (*loam.Response, error) {
	for {
		p := f.s.gate.at.Load()
		var moved <-chan struct{} = p.moved
		switch {
		case p.here && f.log == nil:
			return f.next.Serve(req)
		case p.here:
			f.log.Info("call", "method", req.Method, "path", req.Path, "user-agent", req.Header.Get("User-Agent"))
			return f.next.Serve(req)
		case p.peer != nil:
			select {
			case <-f.s.left:
				return f.forward(req)
			default:
				moved = f.s.left
			}
		}
		ctx := req.Context()
		var err error
		req.Task().Await(func() {
			select {
			case <-moved:
			case <-ctx.Done():
				err = ctx.Err()
			}
		})
		if err != nil {
			return nil, loam.Errorf(loam.Unavailable, "upgrade", "the store changes hands: %w", err)
		}
	}
}

// forward sends the request to the process that took over.
func (f *forwarding) forward(req *loam.Request) (*loam.Response, error) {
	f.once.Do(func() {
		f.http1 = http1.NewClient(f.address, http1.ClientConfig{Engine: f.s.engine, Network: f.network})
		f.http2 = http2.NewClient(f.address, http2.ClientConfig{Hub: f.s.hub, Network: f.network, Limits: http2.Limits{StreamIdle: -1}})
	})
	if grpc.Is(req.Header.Get("Content-Type")) {
		return f.http2.Serve(req)
	}
	return f.http1.Serve(req)
}
