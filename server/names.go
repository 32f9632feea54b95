package server

import (
	"net"
	"os"
	"strconv"

	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/snapshot"
)

// names is where other processes' apps are, by the name resolution of a Configuration; nil: nobody knows.
func (s *server) names(c snapshot.Configuration) (*invoke.Names, error) {
	if s.o.Resolver == nil || c.NameResolution == "" {
		return nil, nil
	}
	key := snapshot.Hash([]any{c.NameResolution, c.Resolution})
	if n := s.resolvers[key]; n != nil {
		return n.names, nil
	}
	r, err := s.o.Resolver(c.NameResolution, c.Resolution)
	if err != nil {
		return nil, err
	}
	n := &resolver{Resolver: r, names: invoke.NewNames(r, s.o.Log)}
	s.resolvers[key] = n
	return n.names, nil
}

// A resolver lives as long as the process.
type resolver struct {
	invoke.Resolver
	names *invoke.Names
	told  map[string]bool // ids and addresses that were announced
}

// announce makes an app known to other processes, at the address where its sidecar's port is open.
func (s *server) announce(a *api) {
	r := s.resolvers[snapshot.Hash([]any{a.plan.Dapr.NameResolution, a.plan.Dapr.Resolution})]
	if r == nil {
		return
	}
	for _, sock := range a.plan.Sockets {
		l := s.listeners[apiListener(a.plan, sock)]
		if sock.Name != "internal" || l == nil || l.listener == nil {
			continue
		}
		address := reachable(l.listener.Addr())
		if id := a.plan.App + " " + address; !r.told[id] {
			if r.told == nil {
				r.told = map[string]bool{}
			}
			r.told[id] = true
			s.ending.Go(func() {
				if err := r.Announce(s.life, a.plan.App, address); err != nil && s.life.Err() == nil {
					s.o.Log.Warn("other processes do not learn of the app", "app", a.plan.App, "address", address, "error", err)
				}
			})
		}
	}
}

// reachable is an address by which others reach a socket.
func reachable(at net.Addr) string {
	t, ok := at.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return at.String()
	}
	return net.JoinHostPort(hostAddress(), strconv.Itoa(t.Port))
}

// hostAddress is this machine's, as others see it: what DAPR_HOST_IP says, else that of the way to elsewhere, else loopback.
func hostAddress() string {
	if a := os.Getenv("DAPR_HOST_IP"); a != "" {
		return a
	}
	if c, err := net.Dial("udp4", "192.0.2.1:9"); err == nil { // a packet is never sent
		defer c.Close()
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok && !a.IP.IsUnspecified() {
			return a.IP.String()
		}
	}
	return "127.0.0.1"
}
