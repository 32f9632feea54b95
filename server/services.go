package server

import (
	"cmp"
	"net/http"
	"slices"
	"sync"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/http1"
	"github.com/loam-run/loam/protocol/http2"
	"github.com/loam-run/loam/snapshot"
	"github.com/loam-run/loam/target/service"
)

// service is the service that h leads to; nil where it leads to none.
func (h *handle) service() *service.Service {
	if h == nil {
		return nil
	}
	v := h.current.Load()
	if v == nil {
		return nil
	}
	t, _ := v.target.(*service.Service)
	return t
}

// Services tells how every service is, by name.
func (s *server) Services() []service.Status {
	all := []service.Status{}
	for ref, h := range *s.named.Load() {
		if t := h.service(); ref.Kind == "Service" && t != nil {
			all = append(all, t.Status())
		}
	}
	slices.SortFunc(all, func(a, b service.Status) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Registry is the embedded registry over HTTP.
func (s *server) Registry() http.Handler { return s.registry.Handler() }

// startService makes a version of a service. It knows of endpoints what the one before knew, which may be nil.
func (s *server) startService(hash string, sv snapshot.Service, before *service.Service) (*version, error) {
	algorithm, err := service.ParseAlgorithm(sv.LoadBalancer.Algorithm)
	if err != nil {
		return nil, err
	}
	c := service.Config{
		Name: sv.Name, Shards: s.engine.Shards(), Algorithm: algorithm, SlowStart: sv.SlowStart, GRPC: sv.Protocol == "grpc",
		Zone: sv.LoadBalancer.Zone, PanicBelow: sv.PanicBelow, Log: s.o.Log, Before: before,
	}
	if sv.Pool.MaxConnections > 0 && sv.Protocol == "http" {
		c.MaxRequests = sv.Pool.MaxConnections + sv.Pool.MaxPending
	}
	switch {
	case sv.DNS != nil:
		c.Discovery = service.DNS{Name: sv.DNS.Name, Port: sv.DNS.Port, Refresh: sv.DNS.Refresh}
	case sv.Registry != "":
		c.Discovery = s.registry.Discovery(sv.Registry)
	default:
		var endpoints []service.Endpoint
		for _, e := range sv.Endpoints {
			endpoints = append(endpoints, service.Endpoint(e))
		}
		c.Discovery = service.Static(endpoints...)
	}
	switch sv.LoadBalancer.Hash {
	case "header":
		c.HashOn = service.HashHeader(sv.LoadBalancer.HashName)
	case "cookie":
		c.HashOn = service.HashCookie(sv.LoadBalancer.HashName)
	case "query":
		c.HashOn = service.HashQuery(sv.LoadBalancer.HashName)
	case "source":
		c.HashOn = service.HashSource
	}
	if c.Open, err = s.transport(sv); err != nil {
		return nil, err
	}
	if a := sv.Active; a != nil {
		c.Active = &service.Active{Interval: a.Interval, Timeout: a.Timeout, Healthy: a.Healthy, Unhealthy: a.Unhealthy}
		switch a.Type {
		case "http":
			c.Active.Check = service.CheckHTTP(a.Path, sv.Name, a.Status)
		case "grpc":
			c.Active.Check = service.CheckGRPC(a.Service, sv.Name)
		default:
			c.Active.Check = service.CheckTCP
		}
	}
	if p := sv.Passive; p != nil {
		c.Passive = &service.Passive{
			ConsecutiveErrors: p.ConsecutiveErrors, Ratio: p.Ratio, MinRequests: p.MinRequests, Interval: p.Interval, Ejection: p.Ejection, MaxEjected: p.MaxEjected,
		}
	}
	t, err := service.New(c)
	if err != nil {
		return nil, err
	}
	v := newVersion(hash, t, t.Close)
	v.state = func() string { return t.Status().String() }
	return v, nil
}

// transport is how requests travel to a service's endpoints, by its protocol.
func (s *server) transport(sv snapshot.Service) (func(address string) service.Transport, error) {
	p := sv.Pool
	if sv.TLS != nil && sv.TLS.ServerName == "" && sv.DNS != nil && sv.DNS.Port != 0 { // endpoints are addresses; their certificates have the name
		named := *sv.TLS
		named.ServerName = sv.DNS.Name
		sv.TLS = &named
	}
	switch sv.Protocol {
	case "h2c", "grpc":
		secure, err := clientTLS(sv.TLS, "h2")
		return func(address string) service.Transport {
			return http2.NewClient(address, http2.ClientConfig{
				Hub: s.hub, MaxConnections: p.MaxConnections, MaxWaiting: p.MaxPending, ConnectTimeout: p.ConnectTimeout, Limits: http2.Limits{IdleTimeout: p.IdleTimeout}, TLS: secure(address),
			})
		}, err
	case "tcp":
		secure, err := clientTLS(sv.TLS)
		return func(address string) service.Transport { return service.TCP(p.ConnectTimeout, secure(address))(address) }, err
	}
	secure, err := clientTLS(sv.TLS, "http/1.1")
	return func(address string) service.Transport {
		return http1.NewClient(address, http1.ClientConfig{
			Engine: s.engine, MaxConnections: p.MaxConnections, MaxIdle: p.MaxIdle, IdleTimeout: p.IdleTimeout, ConnectTimeout: p.ConnectTimeout, TLS: secure(address),
		})
	}, err
}

// part is the endpoints of a service that have certain labels, whichever version of it is there.
type part struct {
	h      *handle
	labels map[string]string
	key    string
}

// Serve sends the request to one of them.
func (p *part) Serve(req *loam.Request) (*loam.Response, error) {
	v, err := p.h.enter()
	if err != nil {
		return nil, err
	}
	defer v.leave()
	whole, ok := v.target.(*service.Service)
	if !ok {
		return v.target.Serve(req)
	}
	return v.parts.of(p.key, func() loam.Target { return whole.Subset(p.labels) }).Serve(req)
}

// parts are the subsets of one version, by their labels.
type parts struct{ m sync.Map }

func (p *parts) of(key string, make func() loam.Target) loam.Target {
	t, ok := p.m.Load(key)
	if !ok {
		t, _ = p.m.LoadOrStore(key, make())
	}
	return t.(loam.Target)
}
