package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/dialect/dapr"
	"github.com/loam-run/loam/dialect/layotto"
	"github.com/loam-run/loam/listener"
	"github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http1"
	"github.com/loam-run/loam/protocol/http2"
	"github.com/loam-run/loam/snapshot"
)

// An api is one that an app is served, of one generation after the other.
type api struct {
	plan    snapshot.API
	hash    string
	targets map[string]loam.Target // by the name of a socket
	sibling loam.Target            // the app as others of this process call it; nil: as its handle is
	close   func()
	rounds  *rounds // what the app is brought; nil: nothing
	stop    context.CancelFunc
}

// apiListener is the name of an API's socket among all listeners.
func apiListener(a snapshot.API, sock snapshot.APISocket) string {
	return "api/" + a.Key() + "/" + sock.Name + "/" + sock.Address
}

// neighbours are what APIs find of each other.
type neighbours struct {
	siblings  map[string]loam.Target // apps that are called in Dapr's way, by id
	endpoints map[string]*endpoint   // by name
}

// applyAPIs serves the APIs that are new or changed. It comes after components and targets, which they lead to.
func (s *server) applyAPIs(ctx context.Context, plan *snapshot.Plan) {
	ends := s.applyEndpoints(ctx, plan)
	siblings := map[string]loam.Target{}
	wanted, sockets := map[string]bool{}, map[string]bool{}
	for _, p := range plan.APIs {
		wanted[p.Key()] = true
		p.Token, p.AppToken = orEnv(p.Token, p.TokenEnv), orEnv(p.AppToken, p.AppTokenEnv)
		now, hash := s.apis[p.Key()], snapshot.Hash(p)
		if now == nil || now.hash != hash {
			made, err := s.newAPI(p)
			if err != nil {
				s.failures["App/"+p.App] = err
				s.o.Log.Error("API is not served", "app", p.App, "api", p.Dialect, "error", err, "hint", loam.HintOf(err))
				if now == nil {
					continue
				}
				made = now // it serves on
			}
			if now != nil && made != now {
				s.endAPI(now)
			}
			made.hash = hash
			s.apis[p.Key()], now = made, made
		}
		if now.sibling != nil {
			siblings[p.App] = now.sibling
		}
	}
	s.neighbours.Store(&neighbours{siblings, ends}) // before the sockets open: the first request may be for one of them
	for _, p := range plan.APIs {
		now := s.apis[p.Key()]
		if now == nil {
			continue
		}
		for _, sock := range now.plan.Sockets {
			name := apiListener(now.plan, sock)
			sockets[name] = true
			if err := s.listenAPI(ctx, now, sock, name); err != nil {
				s.failures["App/"+p.App] = err
			}
		}
	}
	for key, a := range s.apis {
		if !wanted[key] {
			delete(s.apis, key)
			s.endAPI(a)
		}
	}
	for name, l := range s.listeners {
		if strings.HasPrefix(name, "api/") && !sockets[name] {
			delete(s.listeners, name)
			if l.listener != nil {
				s.endLater(l.listener.Drain, "listener", name)
			}
		}
	}
	for _, a := range s.apis {
		if a.rounds != nil {
			a.rounds.look()
		}
		s.announce(a)
	}
}

// endAPI ends what an API does by itself, once what it brings has ended.
func (s *server) endAPI(a *api) {
	a.stop()
	s.endLater(func(context.Context) error {
		if a.rounds != nil {
			<-a.rounds.done
		}
		a.close()
		return nil
	}, "api", a.plan.Key())
}

func orEnv[T ~string](value T, name string) T {
	if name != "" {
		return T(os.Getenv(name))
	}
	return value
}

// newAPI makes an API of its plan.
func (s *server) newAPI(p snapshot.API) (*api, error) {
	a := &api{plan: p}
	life, stop := context.WithCancel(s.life)
	a.stop = stop
	caller := p.Caller
	o := dialect.Options{
		App: dialect.App{
			ID: p.App, Caller: &caller, GRPC: strings.HasPrefix(p.Protocol, "grpc"),
			APIToken: string(p.Token), AppToken: string(p.AppToken), MaxBody: p.MaxBody,
		},
		Capabilities: &view{s: s, app: p.App, guards: s.guards(p.Resiliency, func(r snapshot.ComponentResiliency) snapshot.Policy { return r.Outbound })}, Engine: s.engine, Version: s.o.Version,
		Log: s.o.Log.With("app", p.App, "api", p.Dialect), Policies: s.appPolicies(p.Resiliency), Healthy: s.healthy, Shutdown: s.shutdown, SetLevel: s.o.SetLevel,
	}
	inbound := s.guards(p.Resiliency, func(r snapshot.ComponentResiliency) snapshot.Policy { return r.Inbound })
	o.Inbound = func(capability, component string) loam.Guard {
		if g := inbound.of(capability, component); g != nil {
			return g.do
		}
		return nil
	}
	if p.Target {
		o.App.Target = s.policies(p.Dapr.AppPipeline, nil)(asked{s.targets[snapshot.TargetRef{Kind: "App", Name: p.App}]})
	}
	var r round
	switch p.Dialect {
	case "dapr":
		settings, err := s.daprSettings(p, a)
		if err != nil {
			stop()
			return nil, err
		}
		d, err := dapr.New(o, settings)
		if err != nil {
			stop()
			return nil, err
		}
		a.targets = map[string]loam.Target{
			"http": s.policies(p.Dapr.Pipeline, nil)(s.degraded(d.HTTP())), "grpc": d.GRPC(), "internal": d.Internal(), "public": d.Public(),
		}
		a.sibling, a.close = d.App(), d.Close
		r = round{callback: d.Callback(), watch: d.WatchApp}
	case "layotto":
		l, err := layotto.New(o)
		if err != nil {
			stop()
			return nil, err
		}
		a.targets = map[string]loam.Target{"grpc": l.GRPC(), "http": l.HTTP()}
		a.close = func() {}
		r = round{run: l.Run}
		if p.Target {
			r.callback = l.Callback()
		}
	}
	if r.callback != nil || r.run != nil {
		a.rounds = s.newRounds(life, p, &caller, r, inbound, s.apis[p.Key()])
	}
	return a, nil
}

// daprSettings are what Dapr's API has beyond the options of every dialect.
func (s *server) daprSettings(p snapshot.API, a *api) (dapr.Settings, error) {
	c := p.Dapr
	out := dapr.Settings{
		AllowedOrigins: p.AllowedOrigins, Features: c.Features, AppProtocol: p.Protocol, MaxConcurrency: p.MaxConcurrency, Namespace: p.Namespace, Metrics: s.dapr,
		Subscriptions: func() []dapr.Subscription {
			if a.rounds == nil {
				return nil
			}
			return a.rounds.subscriptions()
		},
	}
	if host, port, err := net.SplitHostPort(p.Address); err == nil {
		out.AppAddress = host
		out.AppPort, _ = strconv.Atoi(port)
	} else if h := s.targets[snapshot.TargetRef{Kind: "App", Name: p.App}]; p.Target && h != nil {
		out.AppAddress, out.AppPort = "127.0.0.1", h.port()
	}
	for _, r := range c.Allowed {
		out.Allowed = append(out.Allowed, dapr.AccessRule(r))
	}
	for _, r := range c.Denied {
		out.Denied = append(out.Denied, dapr.AccessRule(r))
	}
	if h := p.Health; h != nil {
		out.Health = &dapr.AppHealth{Path: h.Path, Interval: h.Interval, Timeout: h.Timeout, Threshold: h.Threshold}
	}
	names, err := s.names(c)
	if err != nil {
		return out, err
	}
	out.Invocation = dapr.Invocation{
		Hub: s.hub, Names: names, MTLS: c.MTLS, Address: hostAddress(),
		Sibling: func(id string) loam.Target {
			if n := s.neighbours.Load(); n != nil {
				return n.siblings[id]
			}
			return nil
		},
		Endpoint: func(name string) (dapr.Endpoint, bool) {
			if n := s.neighbours.Load(); n != nil {
				if e := n.endpoints[name]; e != nil && (len(e.plan.Scopes) == 0 || slices.Contains(e.plan.Scopes, p.App)) {
					return e.Endpoint, true
				}
			}
			return dapr.Endpoint{}, false
		},
	}
	if c.DefaultDeny || len(c.AccessPolicies) > 0 {
		access := &dapr.Access{Default: "allow", TrustDomain: c.TrustDomain}
		if c.DefaultDeny {
			access.Default = "deny"
		}
		action := func(deny bool) string {
			if deny {
				return "deny"
			}
			return "allow"
		}
		for _, r := range c.AccessPolicies {
			one := dapr.AccessPolicy{AppID: r.App, Namespace: r.Namespace, TrustDomain: r.TrustDomain, Default: action(r.Deny)}
			for _, op := range r.Operations {
				one.Operations = append(one.Operations, dapr.AccessOperation{Name: op.Path, Verbs: op.Methods, Action: action(op.Deny)})
			}
			access.Policies = append(access.Policies, one)
		}
		if err := access.Check(); err != nil {
			return out, err
		}
		out.Invocation.Access = access
	}
	for _, sock := range p.Sockets {
		if sock.Name == "internal" {
			_, port, _ := net.SplitHostPort(sock.Address) // it was checked
			out.InternalPort, _ = strconv.Atoi(port)
		}
	}
	return out, nil
}

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

// degraded tells who asks how the sidecar is what it lacks, though it serves.
func (s *server) degraded(next loam.Target) loam.Target {
	return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		res, err := next.Serve(req)
		if err == nil && (req.Path == "/v1.0/healthz" || req.Path == "/v1.0/healthz/outbound") {
			if lacks := s.lacks(); lacks != "" {
				res.Header.Add("Loam-Degraded", lacks)
			}
		}
		return res, err
	})
}

// lacks names the components that did not open, but for those that may be missing, and those whose declaration is wrong.
func (s *server) lacks() string {
	var all []string
	if c := s.status.Load(); c != nil {
		all = slices.Clone(c.wrong)
	}
	for _, f := range s.open.Load().all {
		if f.err != nil && !f.plan.Optional && !slices.Contains(all, f.plan.Name) {
			all = append(all, f.plan.Name)
		}
	}
	return strings.Join(all, ", ")
}

// healthy tells whether what must be there is: components that demand it.
func (s *server) healthy() error {
	for _, f := range s.open.Load().all {
		if f.plan.Fatal && f.made == nil {
			return fmt.Errorf("component %s did not open: %w", f.plan.Name, f.err)
		}
	}
	return nil
}

// appPolicies is what resiliency says of calls to other apps.
func (s *server) appPolicies(r snapshot.Resiliency) func(app string) loam.Policy {
	made := map[string]loam.Policy{}
	for name, p := range r.Apps {
		made[name] = s.policies(p, nil)
	}
	return func(app string) loam.Policy {
		if p := made[app]; p != nil {
			return p
		}
		if name, _, ok := strings.Cut(app, "."); ok && made[name] != nil {
			return made[name]
		}
		return s.otherPolicies(r, app)
	}
}

// An endpoint is what an HTTPEndpoint comes to.
type endpoint struct {
	dapr.Endpoint
	plan snapshot.HTTPEndpoint
	hash string
}

// applyEndpoints makes the HTTPEndpoints, those anew of which something changed.
func (s *server) applyEndpoints(ctx context.Context, plan *snapshot.Plan) map[string]*endpoint {
	before := map[string]*endpoint{}
	if n := s.neighbours.Load(); n != nil {
		before = n.endpoints
	}
	all := map[string]*endpoint{}
	for _, p := range plan.HTTPEndpoints {
		filled, err := s.fillEndpoint(ctx, p)
		hash := snapshot.Hash(filled)
		was := before[p.Name]
		if err == nil && was != nil && was.hash == hash {
			all[p.Name] = was
			continue
		}
		e := &endpoint{plan: p, hash: hash}
		if err == nil {
			e.Endpoint, err = endpointOf(filled)
		}
		if err != nil {
			s.failures["HTTPEndpoint/"+p.Name] = err
			if was != nil {
				all[p.Name] = was // as it was
			}
			continue
		}
		all[p.Name] = e
	}
	return all
}

func (s *server) fillEndpoint(ctx context.Context, p snapshot.HTTPEndpoint) (snapshot.HTTPEndpoint, error) {
	p.Headers = maps.Clone(p.Headers)
	for _, r := range p.Refs {
		value, err := s.refer(ctx, r, s.components)
		if err != nil {
			return p, &loam.Error{Code: loam.CodeOf(err), Op: "HTTPEndpoint " + p.Name, Err: fmt.Errorf("%s: %w", r.Name, err), Hint: loam.HintOf(err)}
		}
		switch r.Name {
		case "clientTLS.rootCA":
			p.RootCA = sensitive(value)
		case "clientTLS.certificate":
			p.Certificate = sensitive(value)
		case "clientTLS.privateKey":
			p.PrivateKey = sensitive(value)
		default:
			if p.Headers == nil {
				p.Headers = map[string]string{}
			}
			p.Headers[r.Name] = value
		}
	}
	return p, nil
}

func endpointOf(p snapshot.HTTPEndpoint) (dapr.Endpoint, error) {
	e := dapr.Endpoint{BaseURL: p.URL}
	for _, name := range slices.Sorted(maps.Keys(p.Headers)) {
		e.Header.Add(name, p.Headers[name])
	}
	if p.RootCA == "" && p.Certificate == "" {
		return e, nil
	}
	e.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if p.RootCA != "" {
		e.TLS.RootCAs = x509.NewCertPool()
		if !e.TLS.RootCAs.AppendCertsFromPEM([]byte(p.RootCA)) {
			return e, &loam.Error{Code: loam.InvalidArgument, Op: "HTTPEndpoint " + p.Name, Err: errors.New("clientTLS.rootCA holds no certificate"), Hint: "it is PEM"}
		}
	}
	if p.Certificate != "" {
		c, err := tls.X509KeyPair([]byte(p.Certificate), []byte(p.PrivateKey))
		if err != nil {
			return e, &loam.Error{Code: loam.InvalidArgument, Op: "HTTPEndpoint " + p.Name, Err: err, Hint: "certificate and privateKey are PEM, and belong together"}
		}
		e.TLS.Certificates = []tls.Certificate{c}
	}
	return e, nil
}
