package snapshot

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/loam-run/loam/resource"
)

// A listener is one listener of a Gateway, as routes find it.
type listener struct {
	section  Section
	kinds    []string // of routes it takes
	policies []layer
}

// gateway opens a socket for each port at each address; listeners of one port share theirs. A tolerant one leaves out
// the listeners that are broken.
func (b *builder) gateway(o *resource.Object, s *resource.Gateway, tolerant bool) {
	var ls []listener
	var sockets []Listener
	for i, l := range s.Listeners {
		at := fmt.Sprintf("spec.listeners[%d]", i)
		before := len(b.faults.problems)
		if app := b.ports[l.Port]; app != "" {
			b.fault(portUnavailable, o.Problem(at+".port", fmt.Sprintf("%s has port %d already", app, l.Port), "write another"))
		}
		for _, a := range s.Addresses {
			address := net.JoinHostPort(a.Value, strconv.Itoa(l.Port))
			if i := slices.IndexFunc(b.plan.Listeners, func(s Listener) bool { return overlap(s.Address, address) }); i >= 0 {
				other := b.plan.Listeners[i]
				b.fault(portUnavailable, o.Problem(at+".port", fmt.Sprintf("Gateway/%s listens at %s already", other.Gateway, other.Address), "write another port, or add the listener to that Gateway"))
			}
		}
		section := Section{Name: o.Name + "/" + l.Name, Protocol: l.Protocol, Hostname: l.Hostname, Port: l.Port, TLS: b.serverTLS(o, at+".tls", s, l)}
		policies := slices.Concat(b.attached["Gateway/"+o.Name], b.attached["Gateway/"+o.Name+" "+l.Name])
		connections := b.connections(policies)
		if i := slices.IndexFunc(sockets, func(s Listener) bool { return s.Sections[0].Port == l.Port }); i >= 0 && sockets[i].Connections != connections {
			b.fault(conflicted, o.Problem(at+".port", fmt.Sprintf("shares port %d with listener %s, and their policies say other connections and limits", l.Port, sockets[i].Sections[0].Name), "attach those policies to the Gateway"))
		}
		if len(b.faults.problems) > before {
			continue
		}
		kinds := resource.RouteKinds(l)
		if len(l.AllowedRoutes.Kinds) > 0 {
			kinds = nil
			for _, k := range l.AllowedRoutes.Kinds {
				kinds = append(kinds, k.Kind)
			}
		}
		ls = append(ls, listener{section, kinds, policies})
		for _, a := range s.Addresses {
			address := net.JoinHostPort(a.Value, strconv.Itoa(l.Port))
			if i := slices.IndexFunc(sockets, func(s Listener) bool { return s.Address == address }); i >= 0 {
				sockets[i].Sections = append(sockets[i].Sections, section)
				continue
			}
			name := section.Name
			if len(s.Addresses) > 1 {
				name += " " + a.Value
			}
			sockets = append(sockets, Listener{Name: name, Gateway: o.Name, Address: address, Connections: connections, Sections: []Section{section}})
		}
	}
	if len(b.faults.problems) > 0 && (!tolerant || len(ls) == 0) {
		return
	}
	b.gateways[o.Name] = ls
	b.plan.Listeners = append(b.plan.Listeners, sockets...)
}

// serverTLS finds the certificates of a listener.
func (b *builder) serverTLS(o *resource.Object, at string, g *resource.Gateway, l resource.Listener) *ServerTLS {
	t := l.TLS
	switch {
	case t == nil:
		return nil
	case t.Mode == "Passthrough":
		return &ServerTLS{Passthrough: true}
	}
	out := &ServerTLS{MinVersion: cmp.Or(t.Options[resource.OptionMinVersion], "1.2")}
	for i, ref := range t.CertificateRefs {
		out.Certificates = append(out.Certificates, b.certificate(o, fmt.Sprintf("%s.certificateRefs[%d]", at, i), ref))
	}
	if file := t.Options[resource.OptionCertFile]; file != "" {
		out.Certificates = append(out.Certificates, Certificate{Name: file, CertFile: beside(o, file), KeyFile: beside(o, t.Options[resource.OptionKeyFile])})
	}
	if l.Protocol == "HTTPS" {
		front, at := g.TLS.Frontend.Default, "spec.tls.frontend.default"
		for i, p := range g.TLS.Frontend.PerPort {
			if p.Port == l.Port {
				front, at = p.TLS, fmt.Sprintf("spec.tls.frontend.perPort[%d].tls", i)
			}
		}
		if v := front.Validation; v != nil {
			out.ClientAuth = ClientAuthRequire
			if v.Mode == "AllowInsecureFallback" {
				out.ClientAuth = ClientAuthRequest
			}
			out.ClientCA = b.authorities(o, at+".validation.caCertificateRefs", v.CACertificateRefs)
		}
	}
	if file := t.Options[resource.OptionClientCAFile]; file != "" {
		out.ClientAuth = ClientAuthRequire
		out.ClientCA = []Authority{{Name: file, File: beside(o, file)}}
	}
	return out
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
	if b.env.App != "" && !slices.ContainsFunc(b.order, func(e *entry) bool { return strings.HasSuffix(e.kind, "Route") }) {
		return // nothing would be served there
	}
	address := cmp.Or(b.env.Address, "127.0.0.1:8080")
	section := Section{Name: "default/http", Protocol: "HTTP"}
	if _, port, err := net.SplitHostPort(address); err == nil {
		section.Port, _ = strconv.Atoi(port) // 0: a free one
	}
	policies := slices.Concat(b.attached["Gateway/default"], b.attached["Gateway/default http"])
	b.plan.Listeners = append(b.plan.Listeners, Listener{
		Name: section.Name, Gateway: "default", Address: address, Connections: b.connections(policies), Sections: []Section{section},
	})
	b.gateways["default"] = []listener{{section, []string{"HTTPRoute", "GRPCRoute"}, policies}}
	b.plan.Statuses = append(b.plan.Statuses, Status{Key: "Gateway/default", Ready: true, Reason: ready})
}

// A place is where a route is served: a listener, and its hosts there; none for any.
type place struct {
	listener
	hosts []string
}

// attach finds the places that a route of o's kind is served at.
func (b *builder) attach(o *resource.Object, refs []resource.ParentRef, hostnames []string) []place {
	names := slices.Sorted(maps.Keys(b.gateways))
	if len(refs) == 0 {
		switch _, there := b.gateways["default"]; {
		case there || b.entries["Gateway/default"] != nil || len(names) == 0:
			refs = []resource.ParentRef{{Name: "default"}}
			if len(names) == 0 && b.entries["Gateway/default"] == nil {
				b.fault(noMatchingParent, o.Problem("spec", "the only Gateway is broken", "mend it"))
				return nil
			}
		case len(names) == 1:
			refs = []resource.ParentRef{{Name: names[0]}}
		default:
			b.fault(noMatchingParent, o.Problem("spec.parentRefs", "there are several Gateways, and none is called default", "write parentRefs: [{name: "+names[0]+"}]"))
			return nil
		}
	}
	places := map[string]*place{}
	for i, ref := range refs {
		at := fmt.Sprintf("spec.parentRefs[%d].", i)
		ls, there := b.gateways[ref.Name]
		if !there {
			if e := b.entries["Gateway/"+ref.Name]; e != nil {
				b.fault(noMatchingParent, o.Problem(at+"name", "Gateway/"+ref.Name+" is broken", "mend it, "+e.where(o.File)))
			} else {
				b.fault(noMatchingParent, o.Problem(at+"name", fmt.Sprintf("there is no Gateway %q", ref.Name), meant(ref.Name, names, "declare it, or name one of ")))
			}
			continue
		}
		sections := make([]string, 0, len(ls))
		chosen, allowed, fits := false, false, false
		for _, l := range ls {
			name := strings.TrimPrefix(l.section.Name, ref.Name+"/")
			sections = append(sections, name)
			if ref.SectionName != "" && ref.SectionName != name || ref.Port != 0 && ref.Port != l.section.Port {
				continue
			}
			chosen = true
			if !slices.Contains(l.kinds, o.Kind) {
				continue
			}
			allowed = true
			both, ok := intersect(l.section.Hostname, hostnames)
			if !ok {
				continue
			}
			fits = true
			places[l.section.Name] = &place{l, both}
		}
		switch {
		case !chosen && ref.SectionName != "":
			b.fault(noMatchingParent, o.Problem(at+"sectionName", fmt.Sprintf("Gateway/%s has no such listener", ref.Name), meant(ref.SectionName, sections, "its listeners are ")))
		case !chosen:
			b.fault(noMatchingParent, o.Problem(at+"port", fmt.Sprintf("Gateway/%s has no listener of port %d", ref.Name, ref.Port), "its listeners are "+strings.Join(sections, ", ")))
		case !allowed:
			b.fault(notAllowed, o.Problem(at+"name", fmt.Sprintf("no listener of Gateway/%s that it attaches to takes %ss", ref.Name, o.Kind), "see their protocol and allowedRoutes"))
		case !fits:
			b.fault(noMatchingHostname, o.Problem("spec.hostnames", fmt.Sprintf("none fits a hostname of the listeners of Gateway/%s", ref.Name), "write one that does, or delete them to take all of the listener's"))
		}
	}
	var all []place
	for _, name := range slices.Sorted(maps.Keys(places)) {
		slices.Sort(places[name].hosts)
		places[name].hosts = slices.Compact(places[name].hosts)
		all = append(all, *places[name])
	}
	return all
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

// meet tells whether two lists of hosts have some in common: none is any.
func meet(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return true
	}
	return slices.ContainsFunc(a, func(x string) bool {
		return slices.ContainsFunc(b, func(y string) bool { return x == y || below(x, y) || below(y, x) })
	})
}
