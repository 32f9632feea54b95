package snapshot

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/route"
)

// A listener is one listener of a Gateway at one of its addresses.
type listener struct {
	section  string
	port     int
	hostname string
	socket   string // Name of the plan's Section
}

// gateway opens a socket for each port at each address; listeners of one port share theirs and differ by hostname.
func (b *builder) gateway(o *resource.Object, s *resource.Gateway) {
	var ls []listener
	var sockets []Listener
	for i, l := range s.Listeners {
		at := fmt.Sprintf("spec.listeners[%d].port", i)
		if app := b.ports[l.Port]; app != "" {
			b.fault(conflict, o.Problem(at, fmt.Sprintf("%s has port %d already", app, l.Port), "write another"))
			continue
		}
		for _, a := range s.Addresses {
			address := net.JoinHostPort(a.Value, strconv.Itoa(l.Port))
			section := Section{Name: o.Name + "/" + l.Name, Protocol: l.Protocol, Hostname: l.Hostname, Port: l.Port}
			if i := slices.IndexFunc(sockets, func(s Listener) bool { return s.Address == address }); i >= 0 {
				sockets[i].Sections = append(sockets[i].Sections, section)
				continue
			}
			if i := slices.IndexFunc(b.plan.Listeners, func(s Listener) bool { return overlap(s.Address, address) }); i >= 0 {
				other := b.plan.Listeners[i]
				b.fault(conflict, o.Problem(at, fmt.Sprintf("Gateway/%s listens at %s already", other.Gateway, other.Address), "write another port, or add the listener to that Gateway"))
				continue
			}
			name := o.Name + "/" + l.Name
			if len(s.Addresses) > 1 {
				name += " " + a.Value
			}
			sockets = append(sockets, Listener{Name: name, Gateway: o.Name, Address: address, Sections: []Section{section}})
		}
		ls = append(ls, listener{l.Name, l.Port, l.Hostname, o.Name + "/" + l.Name})
	}
	if len(b.faults.problems) > 0 {
		return
	}
	b.gateways[o.Name] = ls
	b.plan.Listeners = append(b.plan.Listeners, sockets...)
}

// overlap tells whether two sockets could not be open at once.
func overlap(a, b string) bool {
	x, errX := netip.ParseAddrPort(a)
	y, errY := netip.ParseAddrPort(b)
	return errX == nil && errY == nil && x.Port() == y.Port() && x.Port() != 0 &&
		(x.Addr() == y.Addr() || x.Addr().IsUnspecified() || y.Addr().IsUnspecified())
}

// implicitGateway is there while no Gateway is declared, be it a broken one.
func (b *builder) implicitGateway() {
	for _, e := range b.order {
		if e.kind == "Gateway" || strings.HasPrefix(e.status.Key, "Gateway/") {
			return
		}
	}
	l := Listener{Name: "default/http", Gateway: "default", Address: cmp.Or(b.env.Address, "127.0.0.1:8080"), Sections: []Section{{Name: "default/http", Protocol: "HTTP"}}}
	b.plan.Listeners = append(b.plan.Listeners, l)
	b.gateways["default"] = []listener{{section: "http", socket: l.Name}}
	b.plan.Statuses = append(b.plan.Statuses, Status{Key: "Gateway/default", Ready: true, Reason: ready})
}

// route attaches an HTTPRoute's rules to the sockets of its Gateways.
func (b *builder) route(o *resource.Object, s *resource.HTTPRoute, tolerant bool) {
	hosts := b.attach(o, s)
	bad := len(b.faults.problems) > 0
	var routes []Route
	ids := map[string]string{}
	dead, alive := 0, 0
	for i, rule := range s.Rules {
		r := Route{Name: fmt.Sprintf("%s rules[%d]", o.Key(), i), Kind: o.Kind}
		if t := rule.Timeouts.Request; t != nil {
			r.Policy.Timeout = &Timeout{Request: *t}
		}
		for j, ref := range rule.BackendRefs {
			backend := Backend{TargetRef: TargetRef{ref.Kind, ref.Name}, Weight: ref.Weight}
			if b.targets[ref.Name] != backend.TargetRef {
				b.missing(o, fmt.Sprintf("spec.rules[%d].backendRefs[%d].name", i, j), []string{ref.Kind}, ref.Name)
				backend.Broken = b.faults.problems[len(b.faults.problems)-1].What
			}
			r.Backends = append(r.Backends, backend)
		}
		for _, m := range rule.Matches {
			r.Matches = append(r.Matches, match(m))
		}
		for _, socket := range slices.Sorted(maps.Keys(hosts)) {
			r.Listener, r.Hosts = socket, hosts[socket]
			routes = append(routes, r)
			for j, m := range r.Matches {
				for _, host := range orAny(r.Hosts) {
					id := matchID(socket, host, m)
					if other, ok := b.matches[id]; ok || ids[id] != "" {
						dead++
						other = cmp.Or(other, ids[id])
						b.faults.warnings = append(b.faults.warnings, o.Problem(fmt.Sprintf("spec.rules[%d].matches[%d]", i, j),
							fmt.Sprintf("never gets a request: %s matches the same", other), "change the match, or delete it"))
						continue
					}
					alive++
					ids[id] = r.Name
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
	b.plan.Routes = append(b.plan.Routes, routes...)
}

// attach finds the sockets a route is served at and its hosts at each: none for any.
func (b *builder) attach(o *resource.Object, s *resource.HTTPRoute) map[string][]string {
	refs := s.ParentRefs
	names := slices.Sorted(maps.Keys(b.gateways))
	if len(refs) == 0 {
		switch _, there := b.gateways["default"]; {
		case there || b.entries["Gateway/default"] != nil || len(names) == 0:
			refs = []resource.ParentRef{{Name: "default"}}
			if len(names) == 0 && b.entries["Gateway/default"] == nil {
				b.fault(unresolved, o.Problem("spec", "the only Gateway is broken", "mend it"))
				return nil
			}
		case len(names) == 1:
			refs = []resource.ParentRef{{Name: names[0]}}
		default:
			b.fault(unresolved, o.Problem("spec.parentRefs", "there are several Gateways, and none is called default", "write parentRefs: [{name: "+names[0]+"}]"))
			return nil
		}
	}
	hosts, whole := map[string][]string{}, map[string]bool{}
	for i, ref := range refs {
		at := fmt.Sprintf("spec.parentRefs[%d].", i)
		ls, there := b.gateways[ref.Name]
		if !there {
			if e := b.entries["Gateway/"+ref.Name]; e != nil {
				b.fault(unresolved, o.Problem(at+"name", "Gateway/"+ref.Name+" is broken", "mend it, "+e.where(o.File)))
			} else {
				b.fault(unresolved, o.Problem(at+"name", fmt.Sprintf("there is no Gateway %q", ref.Name), meant(ref.Name, names, "declare it, or name one of ")))
			}
			continue
		}
		sections := make([]string, 0, len(ls))
		chosen, fits := false, false
		for _, l := range ls {
			sections = append(sections, l.section)
			if ref.SectionName != "" && ref.SectionName != l.section || ref.Port != 0 && ref.Port != l.port {
				continue
			}
			chosen = true
			both, ok := intersect(l.hostname, s.Hostnames)
			if !ok {
				continue
			}
			fits = true
			if len(both) == 0 {
				whole[l.socket] = true
			}
			hosts[l.socket] = append(hosts[l.socket], both...)
		}
		switch {
		case !chosen && ref.SectionName != "":
			b.fault(unresolved, o.Problem(at+"sectionName", fmt.Sprintf("Gateway/%s has no such listener", ref.Name), meant(ref.SectionName, sections, "its listeners are ")))
		case !chosen:
			b.fault(unresolved, o.Problem(at+"port", fmt.Sprintf("Gateway/%s has no listener of port %d", ref.Name, ref.Port), "its listeners are "+strings.Join(sections, ", ")))
		case !fits:
			b.fault(unresolved, o.Problem("spec.hostnames", fmt.Sprintf("none fits a hostname of the listeners of Gateway/%s", ref.Name), "write one that does, or delete them to take all of the listener's"))
		}
	}
	for socket := range hosts {
		if slices.Sort(hosts[socket]); whole[socket] {
			hosts[socket] = nil
		}
		hosts[socket] = slices.Compact(hosts[socket])
	}
	return hosts
}

// intersect narrows a route's hosts by a listener's: none is any. It is false where nothing is left.
func intersect(listener string, hosts []string) ([]string, bool) {
	if listener == "" {
		return hosts, true
	}
	if len(hosts) == 0 {
		return []string{listener}, true
	}
	var both []string
	for _, h := range hosts {
		switch {
		case h == listener || below(h, listener):
			both = append(both, h)
		case below(listener, h):
			both = append(both, listener)
		}
	}
	return both, len(both) > 0
}

// below tells whether a wildcard takes all that host stands for.
func below(host, wildcard string) bool {
	suffix, ok := strings.CutPrefix(wildcard, "*")
	return ok && strings.HasSuffix(host, suffix) && len(host) > len(suffix)
}

func orAny(hosts []string) []string {
	if len(hosts) == 0 {
		return []string{""}
	}
	return hosts
}

// match translates the standard's match.
func match(m resource.HTTPMatch) route.Match {
	values := func(in []resource.ValueMatch) []route.Value {
		var out []route.Value
		for _, v := range in {
			out = append(out, route.Value{Name: v.Name, Value: v.Value, Regexp: v.Type == "RegularExpression"})
		}
		return out
	}
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

// matchID is the same for matches that accept the same requests.
func matchID(socket, host string, m route.Match) string {
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
	return socket + "\x00" + host + "\x00" + string(data)
}
