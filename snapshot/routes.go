package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/route"
)

// A rule is what the rules of HTTPRoutes and GRPCRoutes come to.
type rule struct {
	name     string
	matches  []route.Match
	prefix   string // of the only match, where that is of a prefix
	filters  []resource.Filter
	backends []resource.BackendRef
	timeouts resource.Timeouts
	retry    *resource.Retry
	session  *resource.SessionPersistence
}

func (b *builder) httpRoute(o *resource.Object, s *resource.HTTPRoute, tolerant bool) {
	var rules []rule
	for _, r := range s.Rules {
		out := rule{name: r.Name, filters: r.Filters, backends: r.BackendRefs, timeouts: r.Timeouts, retry: r.Retry, session: r.SessionPersistence}
		for _, m := range r.Matches {
			out.matches = append(out.matches, match(m))
		}
		if len(out.matches) == 1 && out.matches[0].Path.Kind == route.Prefix {
			out.prefix = strings.TrimSuffix(route.Clean(out.matches[0].Path.Value), "/")
		}
		rules = append(rules, out)
	}
	b.route(o, s.ParentRefs, s.Hostnames, rules, tolerant)
}

func (b *builder) grpcRoute(o *resource.Object, s *resource.GRPCRoute, tolerant bool) {
	var rules []rule
	for _, r := range s.Rules {
		out := rule{name: r.Name, filters: r.Filters, backends: r.BackendRefs, session: r.SessionPersistence}
		for _, m := range r.Matches {
			out.matches = append(out.matches, route.Match{Path: method(m.Method), Headers: values(m.Headers)})
		}
		rules = append(rules, out)
	}
	b.route(o, s.ParentRefs, s.Hostnames, rules, tolerant)
}

// An owner is a route that has the requests of some hosts at a section.
type owner struct {
	key   string
	hosts []string
}

// route attaches the rules of an HTTPRoute or GRPCRoute to the listeners of its Gateways.
func (b *builder) route(o *resource.Object, parents []resource.ParentRef, hostnames []string, rules []rule, tolerant bool) {
	places := b.attach(o, parents, hostnames)
	b.share(o, places)
	bad := len(b.faults.problems) > 0
	var routes []Route
	ids := map[string]string{}
	dead, alive := 0, 0
	for i, rule := range rules {
		at := fmt.Sprintf("spec.rules[%d]", i)
		name := ruleName(o, i, rule.name)
		says := b.filters(o, at, name, rule.filters, rule.prefix).and(says(name, rule))
		backends, own := b.backends(o, at, name, rule)
		for _, p := range places {
			r := Route{Name: name, Kind: o.Kind, Listener: p.section.Name, Hosts: p.hosts, Matches: rule.matches, Session: session(name, rule.session)}
			whole := stack(p.policies, b.attached[o.Key()], b.attached[o.Key()+" "+rule.name]).and(says)
			r.Policy = whole.policy(name, p.section)
			r.Backends = slices.Clone(backends)
			for j := range r.Backends {
				r.Backends[j].Policy = own[j].without(whole).policy(name, p.section)
			}
			routes = append(routes, r)
			for j, m := range r.Matches {
				for _, host := range orAny(r.Hosts) {
					id := matchID(r.Listener, host, m)
					if other := cmp.Or(b.matches[id], ids[id]); other != "" {
						dead++
						b.warn(o.Problem(fmt.Sprintf("%s.matches[%d]", at, j), fmt.Sprintf("never gets a request: %s matches the same", other), "change the match, or delete it"))
						continue
					}
					alive++
					ids[id] = name
				}
			}
		}
	}
	if alive == 0 && dead > 0 {
		bad = true
		b.fault(conflict, b.faults.warnings[0])
		b.faults.warnings = nil
	}
	if bad || len(b.faults.problems) > 0 && !tolerant {
		return
	}
	maps.Copy(b.matches, ids)
	for _, p := range places {
		id := p.section.Name + "\x00" + o.Kind
		b.owners[id] = append(b.owners[id], owner{o.Key(), p.hosts})
	}
	b.plan.Routes = append(b.plan.Routes, routes...)
}

// share reports hosts at a listener that a route of the other kind has: the standard lets HTTPRoutes and GRPCRoutes
// share none, and the first of them wins.
func (b *builder) share(o *resource.Object, places []place) {
	others := map[string]string{"HTTPRoute": "GRPCRoute", "GRPCRoute": "HTTPRoute"}[o.Kind]
	for _, p := range places {
		for _, other := range b.owners[p.section.Name+"\x00"+others] {
			if meet(other.hosts, p.hosts) {
				b.fault(conflict, o.Problem("spec.hostnames", fmt.Sprintf("%s has requests of these hosts at listener %s, and HTTPRoutes and GRPCRoutes share none", other.key, p.section.Name),
					"write hostnames of its own, or another listener"))
				return
			}
		}
	}
}

// backends resolves a rule's backends and what each says.
func (b *builder) backends(o *resource.Object, at, name string, r rule) (all []Backend, own []layer) {
	for j, ref := range r.backends {
		at := fmt.Sprintf("%s.backendRefs[%d]", at, j)
		backend := b.backend(o, at, ref.Kind, ref.Name, ref.Port)
		backend.Weight = ref.Weight
		says := stack(b.attached[ref.Kind+"/"+ref.Name])
		if backend.Subset != nil {
			says = stack(b.attached[backend.Kind+"/"+backend.Name], b.attached[ref.Kind+"/"+ref.Name])
		}
		all = append(all, backend)
		own = append(own, says.and(b.filters(o, at, name, ref.Filters, r.prefix)))
	}
	return all, own
}

// ruleName names the i-th rule of a route for logs and metrics.
func ruleName(o *resource.Object, i int, name string) string {
	if name != "" {
		return o.Key() + "/" + name
	}
	return fmt.Sprintf("%s rules[%d]", o.Key(), i)
}

func session(rule string, s *resource.SessionPersistence) *Session {
	if s == nil {
		return nil
	}
	out := &Session{Name: s.SessionName, Header: s.Type == "Header", Lifetime: s.AbsoluteTimeout}
	if s.CookieConfig != nil {
		out.Permanent = s.CookieConfig.LifetimeType == "Permanent"
	}
	if out.Name == "" { // each rule its own
		out.Name = fmt.Sprintf("loam-%.4x", sha256.Sum256([]byte(rule)))
	}
	return out
}

// stream attaches a TLSRoute, whose hosts are server names, or a TCPRoute.
func (b *builder) stream(o *resource.Object, parents []resource.ParentRef, hostnames []string, rules []resource.StreamRule, tolerant bool) {
	places := b.attach(o, parents, hostnames)
	ids := map[string]string{}
	for _, p := range places {
		for _, host := range orAny(p.hosts) {
			id := p.section.Name + "\x00" + host
			if other := b.matches[id]; other != "" {
				what := "listener " + p.section.Name
				if host != "" {
					what = host + " at " + what
				}
				b.fault(conflict, o.Problem("spec", fmt.Sprintf("%s has the connections of %s already", other, what), "attach it to another listener, or delete it"))
			}
			ids[id] = o.Key()
		}
	}
	bad := len(b.faults.problems) > 0
	var streams []Stream
	for i, r := range rules {
		backends, _ := b.backends(o, fmt.Sprintf("spec.rules[%d]", i), "", rule{backends: r.BackendRefs})
		for _, p := range places {
			streams = append(streams, Stream{Name: ruleName(o, i, r.Name), Kind: o.Kind, Listener: p.section.Name, Hosts: p.hosts, Backends: backends})
		}
	}
	if bad || len(b.faults.problems) > 0 && !tolerant {
		return
	}
	maps.Copy(b.matches, ids)
	b.plan.Streams = append(b.plan.Streams, streams...)
}

// match translates the standard's match.
func match(m resource.HTTPMatch) route.Match {
	kind := route.Prefix
	switch m.Path.Type {
	case "Exact":
		kind = route.Exact
	case "RegularExpression":
		kind = route.Regexp
	}
	return route.Match{
		Path: route.Path{Kind: kind, Value: m.Path.Value}, Method: m.Method, Headers: values(m.Headers), Query: values(m.QueryParams),
	}
}

func values(in []resource.ValueMatch) []route.Value {
	var out []route.Value
	for _, v := range in {
		out = append(out, route.Value{Name: v.Name, Value: v.Value, Regexp: v.Type == "RegularExpression"})
	}
	return out
}

// method translates a gRPC method to the path it is called by: /service/method.
func method(m *resource.MethodMatch) route.Path {
	switch {
	case m == nil:
		return route.Path{Value: "/"}
	case m.Type == "Exact" && m.Service != "" && m.Method != "":
		return route.Path{Kind: route.Exact, Value: "/" + m.Service + "/" + m.Method}
	case m.Type == "Exact" && m.Service != "":
		return route.Path{Value: "/" + m.Service}
	case m.Type == "Exact":
		return route.Path{Kind: route.Regexp, Value: "/[^/]+/" + regexp.QuoteMeta(m.Method)}
	}
	either := func(pattern string) string {
		if pattern == "" {
			return "[^/]+"
		}
		return "(?:" + pattern + ")"
	}
	return route.Path{Kind: route.Regexp, Value: "/" + either(m.Service) + "/" + either(m.Method)}
}

// matchID is the same for matches that accept the same requests.
func matchID(section, host string, m route.Match) string {
	if m.Path.Kind == route.Prefix && m.Path.Value != "/" {
		m.Path.Value = strings.TrimSuffix(m.Path.Value, "/")
	}
	m.Headers = slices.Clone(m.Headers)
	for i := range m.Headers {
		m.Headers[i].Name = strings.ToLower(m.Headers[i].Name)
	}
	byName := func(a, b route.Value) int { return strings.Compare(a.Name, b.Name) }
	m.Query = slices.SortedFunc(slices.Values(m.Query), byName)
	slices.SortFunc(m.Headers, byName)
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return section + "\x00" + host + "\x00" + string(data)
}
