package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/listener"
	"github.com/loam-run/loam/route"
	"github.com/loam-run/loam/snapshot"
	"github.com/loam-run/loam/telemetry"
)

// A socket is an open listener and what it serves at present.
type socket struct {
	hash     string // of what needs another socket when it changes
	address  string // as its Gateway has it
	listener *listener.Listener
	table    atomic.Pointer[route.Table]
	err      error
}

// Serve sends a request where the present routes say.
func (s *socket) Serve(req *loam.Request) (*loam.Response, error) {
	got := s.table.Load().Match(req)
	rule := got.Rule
	switch {
	case got.Misdirected:
		return loam.NewResponse(421, "text/plain; charset=utf-8", []byte("this host is served by another connection\n")), nil
	case rule == nil:
		return nil, &loam.Error{Code: loam.NotFound, Op: "route", Err: fmt.Errorf("no route for %s %s%s", req.Method, req.Authority, req.Path)}
	}
	return rule.Pick().Serve(req)
}

// applyListeners compiles each listener's routes, opens sockets that are new and drains those that are no more.
func (s *server) applyListeners(ctx context.Context, plan *snapshot.Plan) {
	rules := map[string][]route.Rule{}
	for _, r := range plan.Routes {
		rules[r.Listener] = append(rules[r.Listener], s.rule(r))
	}
	streams := map[string][]snapshot.Stream{}
	for _, st := range plan.Streams {
		streams[st.Listener] = append(streams[st.Listener], st)
	}
	wanted := map[string]bool{}
	for _, l := range plan.Listeners {
		wanted[l.Name] = true
		var sites []route.Site
		for _, section := range l.Sections {
			if section.Protocol == "HTTP" || section.Protocol == "HTTPS" {
				sites = append(sites, route.Site{Scheme: strings.ToLower(section.Protocol), Host: section.Hostname, Rules: rules[section.Name]})
			}
		}
		table, err := route.Compile(sites...)
		if err != nil {
			s.failures["Gateway/"+l.Gateway] = err // Build let a rule through that does not compile
			continue
		}
		now := s.listeners[l.Name]
		if now == nil {
			now = &socket{}
			s.listeners[l.Name] = now
		}
		service, err := s.service(now, l, streams)
		if err != nil {
			now.err = err
			s.failures["Gateway/"+l.Gateway] = err
			s.o.Log.Error("not listening", "listener", l.Name, "error", err, "hint", loam.HintOf(err))
			continue // what it served before, it serves on
		}
		now.table.Store(table)
		hash := snapshot.Hash([]any{l.Address, l.Connections})
		if now.listener != nil && now.hash == hash {
			now.err = nil
			now.listener.Update(service)
			continue
		}
		if now.listener != nil { // it moves: the old socket may hold the address of the new
			s.endLater(now.listener.Drain, "listener", l.Name)
		}
		now.hash, now.address = hash, l.Address
		now.listener, now.err = listener.Listen(ctx, s.engine, s.hub, listener.Config{Name: l.Name, Address: l.Address, Limits: limits(l.Connections), Files: s.inherit(l, now), Log: s.o.Log}, service)
		if now.err != nil {
			s.failures["Gateway/"+l.Gateway] = now.err
			s.o.Log.Error("not listening", "listener", l.Name, "error", now.err, "hint", loam.HintOf(now.err))
		}
	}
	for name, l := range s.listeners {
		if !wanted[name] && !strings.HasPrefix(name, "api/") {
			delete(s.listeners, name)
			if l.listener != nil {
				s.endLater(l.listener.Drain, "listener", name)
			}
		}
	}
}

func limits(c snapshot.Connections) listener.Limits {
	return listener.Limits{
		MaxConnections: c.Max, MaxStreams: c.MaxStreams, MaxHeader: int(c.HeaderBytes), MaxFields: c.HeaderCount,
		HeadTimeout: c.HeaderTimeout, IdleTimeout: c.IdleTimeout, MinRate: c.MinRate,
	}
}

// service is what a listener's connections are for, by its sections.
func (s *server) service(now *socket, l snapshot.Listener, streams map[string][]snapshot.Stream) (listener.Service, error) {
	var out listener.Service
	var names route.Hosts[*site]                // the section of the most specific hostname has a connection, whichever way it goes
	secure, ends, passes := false, false, false // there is TLS; that ends here, for streams; that passes through
	for _, section := range l.Sections {
		switch section.Protocol {
		case "HTTP":
			out.HTTP, out.Plain = now, true
		case "HTTPS":
			out.HTTP = now
			config, err := s.serverTLS(section)
			if err != nil {
				return out, err
			}
			secure = true
			names.Set(section.Hostname, &site{config: config})
		case "TLS":
			n := &site{raw: true}
			if !section.TLS.Passthrough {
				config, err := s.serverTLS(section)
				if err != nil {
					return out, err
				}
				config.NextProtos = nil // what is spoken within is the backend's
				n.config = config
			}
			secure, ends, passes = true, ends || n.config != nil, passes || n.config == nil
			names.Set(section.Hostname, n)
			for _, st := range streams[section.Name] {
				target := s.stream(st)
				hosts := st.Hosts
				if len(hosts) == 0 {
					hosts = []string{section.Hostname}
				}
				for _, host := range hosts {
					n.streams.Set(host, target)
				}
			}
		case "TCP":
			out.TCP = refused
			for _, st := range streams[section.Name] {
				out.TCP = s.stream(st)
			}
		}
	}
	if secure {
		out.TLS = func(name string) *tls.Config {
			n, _ := names.Find(name)
			if n == nil {
				return nil
			}
			return n.config
		}
	}
	if passes {
		out.Stream = func(name string) loam.Target {
			if n, _ := names.Find(name); n != nil && n.raw && n.config == nil {
				t, _ := n.streams.Find(name)
				return t
			}
			return nil
		}
	}
	if ends {
		out.Within = func(name string) loam.Target {
			n, _ := names.Find(name)
			if n == nil || !n.raw {
				return nil
			}
			if t, _ := n.streams.Find(name); t != nil {
				return t
			}
			return refused
		}
	}
	return out, nil
}

// site is what a section does with connections that ask for its hostname by TLS.
type site struct {
	config  *tls.Config              // to decrypt them; nil: none are
	raw     bool                     // what they carry is passed on, and not taken for requests
	streams route.Hosts[loam.Target] // to pass them on to
}

// refused is where the connections of a section go that no route is for.
var refused = loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
	return nil, loam.Errorf(loam.NotFound, "route", "no TCPRoute or TLSRoute is for this connection")
})

// rule is what a route comes to: a target for each backend, behind the policies of both.
func (s *server) rule(r snapshot.Route) route.Rule {
	rule := route.Rule{Name: r.Name, Hosts: r.Hosts, Matches: r.Matches}
	log := s.accessLog(r.Policy.AccessLog)
	watch := func(name string, next loam.Target) *observed {
		return &observed{name: r.Name, target: name, listener: r.Listener, next: next, log: log, series: s.series.Series(telemetry.Labels{Route: r.Name, Target: name})}
	}
	whole := s.policies(r.Policy, r.Session)
	if len(r.Backends) == 0 { // Policy answers by itself
		rule.Backends = []route.Backend{{Weight: 1, Target: watch("", whole(s.backend(snapshot.TargetRef{}, nil, "the rule has no backend", r.Kind)))}}
		return rule
	}
	if r.Session != nil && len(r.Backends) > 1 {
		all := &sticky{named: map[string]loam.Target{}}
		for i, b := range r.Backends {
			t := &named{name: b.Kind + "/" + b.Name, next: s.policies(b.Policy, nil)(s.backend(b.TargetRef, b.Subset, b.Broken, r.Kind)), key: strconv.Itoa(i)}
			all.named[t.key] = t
			all.shares.Add(t, b.Weight)
		}
		rule.Backends = []route.Backend{{Weight: 1, Target: watch("", whole(all))}}
		return rule
	}
	for _, b := range r.Backends {
		t := s.policies(b.Policy, nil)(s.backend(b.TargetRef, b.Subset, b.Broken, r.Kind))
		rule.Backends = append(rule.Backends, route.Backend{Weight: b.Weight, Target: watch(b.Kind+"/"+b.Name, whole(t))})
	}
	return rule
}

// sticky picks the backend of a session: the one that it has been to, whose key stands before the endpoint's in the
// request's affinity; a new session's by weight.
type sticky struct {
	named  map[string]loam.Target
	shares route.Shares[loam.Target]
}

// Serve sends the request to the session's backend.
func (s *sticky) Serve(req *loam.Request) (*loam.Response, error) {
	key, endpoint, _ := strings.Cut(req.Affinity, ".")
	req.Affinity = endpoint
	if t := s.named[key]; t != nil {
		return t.Serve(req)
	}
	if req.Affinity = ""; s.shares.Pick() == nil {
		return nil, loam.Errorf(loam.Unavailable, req.Route, "no backend has a weight")
	}
	return s.shares.Pick().Serve(req)
}

// named is a backend of sessions.
type named struct {
	name, key string
	next      loam.Target
}

// Serve sends the request on, and writes down where it went.
func (n *named) Serve(req *loam.Request) (*loam.Response, error) {
	req.Target = n.name
	res, err := n.next.Serve(req)
	req.Affinity = n.key + "." + req.Affinity
	return res, err
}

// backend is a target by name.
func (s *server) backend(ref snapshot.TargetRef, subset map[string]string, broken, kind string) loam.Target {
	if broken != "" {
		code := loam.Internal // 500, as the Gateway API asks
		if kind == "GRPCRoute" {
			code = loam.Unavailable
		}
		err := &loam.Error{Code: code, Op: "backend", Err: fmt.Errorf("%s", broken), Hint: "see what became of the route: loam get"}
		return loam.TargetFunc(func(*loam.Request) (*loam.Response, error) { return nil, err })
	}
	h := s.targets[ref]
	if len(subset) > 0 {
		return &part{h: h, labels: subset, key: fmt.Sprint(subset)}
	}
	return h
}

// stream is where the connections of a TCPRoute or TLSRoute go.
func (s *server) stream(st snapshot.Stream) loam.Target {
	var shares route.Shares[loam.Target]
	for _, b := range st.Backends {
		name := b.Kind + "/" + b.Name
		shares.Add(&observed{
			name: st.Name, target: name, listener: st.Listener, next: s.backend(b.TargetRef, b.Subset, b.Broken, st.Kind),
			series: s.series.Series(telemetry.Labels{Route: st.Name, Target: name}), log: s.accessLog(b.Policy.AccessLog),
		}, b.Weight)
	}
	return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		if t := shares.Pick(); t != nil {
			return t.Serve(req)
		}
		return nil, loam.Errorf(loam.Unavailable, st.Name, "no backend has a weight")
	})
}

// observed counts and logs what a route sends to a target.
type observed struct {
	name, target, listener string
	next                   loam.Target
	series                 *telemetry.Series
	log                    *telemetry.AccessLog // nil: nothing is written
}

// Serve sends the request on.
func (o *observed) Serve(req *loam.Request) (*loam.Response, error) {
	req.Route, req.Target, req.Observer = o.name, o.target, o
	o.series.Begin(req.Task().Shard())
	return o.next.Serve(req)
}

// Observe counts the answer.
func (o *observed) Observe(req *loam.Request, status int, sent int64, took time.Duration) {
	t := req.Task()
	o.series.End(t.Shard(), status, sent, took)
	if o.log != nil {
		o.log.Log(o.listener, req, t.Now(), status, sent, took)
	}
}

// accessLog is the log of that form, one for all who want the same.
func (s *server) accessLog(c *snapshot.AccessLog) *telemetry.AccessLog {
	if c == nil {
		return nil
	}
	l := s.logs[*c]
	if l == nil {
		l = telemetry.NewAccessLog(s.o.AccessLog, c.Format, c.Sample)
		s.logs[*c] = l
	}
	return l
}
