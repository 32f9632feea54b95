package server

import (
	"context"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/dialect/dapr"
	"github.com/loam-run/loam/dialect/layotto"
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

// daprMetrics are what the calls of a sidecar's app are counted in, unless its Configuration says that they are not.
func (s *server) daprMetrics(c snapshot.Configuration) *dapr.Metrics {
	switch {
	case s.o.App == "" || s.o.Metrics == "":
		return nil
	case c.NoMetrics:
		s.dapr.Store(nil)
	case s.dapr.Load() == nil:
		s.dapr.Store(dapr.NewMetrics(s.o.App, os.Getenv("NAMESPACE"), s.engine.Shards()))
	}
	return s.dapr.Load()
}

// daprSettings are what Dapr's API has beyond the options of every dialect.
func (s *server) daprSettings(p snapshot.API, a *api) (dapr.Settings, error) {
	c := p.Dapr
	out := dapr.Settings{
		AllowedOrigins: p.AllowedOrigins, Features: c.Features, AppProtocol: p.Protocol, MaxConcurrency: p.MaxConcurrency, Namespace: p.Namespace, Metrics: s.daprMetrics(c),
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
