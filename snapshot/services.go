package snapshot

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/loam-run/loam/resource"
)

// isSubset tells whether the present version of a service, or else its last good one, is part of another.
func isSubset(versions ...*resource.Object) bool {
	for _, o := range versions {
		if o != nil {
			s, ok := o.Spec.(*resource.Service)
			return ok && s.Subset != nil
		}
	}
	return false
}

func (b *builder) service(o *resource.Object, s *resource.Service) {
	if s.Subset != nil {
		switch of, there := b.services[s.Subset.Service]; {
		case !there:
			b.missing(o, unresolved, "spec.subset.service", []string{"Service"}, s.Subset.Service)
			return
		case of.Subset != nil:
			b.fault(unresolved, o.Problem("spec.subset.service", "Service/"+s.Subset.Service+" is a subset itself", "name Service/"+of.Subset.Service))
			return
		}
		b.services[o.Name] = s
		return
	}
	p := Service{
		Name: o.Name, Protocol: s.Protocol, SlowStart: s.SlowStart, LoadBalancer: LoadBalancer{Algorithm: s.LoadBalancer.Algorithm, Zone: s.LoadBalancer.Zone},
		PanicBelow: float64(s.Health.PanicBelow) / 100, Pool: Pool(s.Pool),
	}
	for _, e := range s.Endpoints {
		p.Endpoints = append(p.Endpoints, Endpoint(e))
	}
	if s.DNS != nil {
		p.DNS = &DNS{s.DNS.Name, s.DNS.Port, s.DNS.Refresh}
	}
	if s.Registry != nil {
		p.Registry = s.Registry.Name
	}
	if h := s.LoadBalancer.HashOn; h != nil {
		l := &p.LoadBalancer
		switch {
		case h.Header != "":
			l.Hash, l.HashName = "header", h.Header
		case h.Cookie != "":
			l.Hash, l.HashName = "cookie", h.Cookie
		case h.Query != "":
			l.Hash, l.HashName = "query", h.Query
		default:
			l.Hash = "source"
		}
	}
	if t := s.TLS; t != nil {
		p.TLS = &ClientTLS{ServerName: t.ServerName, Insecure: t.Insecure}
		if t.CA != "" {
			p.TLS.CA = &Authority{Name: t.CA, File: beside(o, t.CA)}
		}
		if t.Cert != "" {
			p.TLS.Certificate = &Certificate{Name: t.Cert, CertFile: beside(o, t.Cert), KeyFile: beside(o, t.Key)}
		}
		if t.Insecure {
			b.warn(o.Problem("spec.tls.insecure", "whoever answers at the address is taken for the service", "write ca: with the file of its authority"))
		}
	}
	if h := s.Health.Active; h != nil {
		p.Active = &ActiveHealth{
			Type: h.Type, Service: h.Service, Interval: h.Interval, Timeout: h.Timeout,
			Healthy: h.Healthy, Unhealthy: h.Unhealthy, Status: h.Status,
		}
		if h.Type == "http" {
			p.Active.Path = h.Path
		}
	}
	if h := s.Health.Passive; h != nil {
		p.Passive = &PassiveHealth{
			ConsecutiveErrors: h.ConsecutiveErrors, Ratio: float64(h.Ratio) / 100, MinRequests: h.MinRequests,
			Interval: h.Interval, Ejection: h.Ejection, MaxEjected: float64(h.MaxEjected) / 100,
		}
	}
	b.services[o.Name] = s
	b.plan.Services = append(b.plan.Services, p)
}

// backend resolves what a route names at path of o. Where it cannot be, it reports why and says so in Broken.
func (b *builder) backend(o *resource.Object, path, kind, name string, port int) Backend {
	before := len(b.faults.problems)
	ref := Backend{TargetRef: TargetRef{kind, name}}
	service, there := b.services[name]
	switch {
	case kind == "Service" && there:
		if service.Subset != nil {
			ref.Name, ref.Subset = service.Subset.Service, service.Subset.Labels
			service = b.services[ref.Name]
		}
		b.speaks(o, path+".name", name, service.Protocol)
	case kind == "Service" || b.targets[name] != ref.TargetRef:
		b.missing(o, backendNotFound, path+".name", []string{kind}, name)
	case o.Kind == "TCPRoute" || o.Kind == "TLSRoute":
		b.fault(invalidKind, o.Problem(path+".kind", "a connection goes to a Service, not to "+article(kind), "write kind: Service, with the address among its endpoints"))
	case o.Kind == "GRPCRoute":
		b.fault(unsupportedProtocol, o.Problem(path+".kind", article(kind)+" does not speak gRPC", "write kind: Service, of protocol: grpc"))
	}
	if port != 0 && len(b.faults.problems) == before {
		b.hasPort(o, path+".port", TargetRef{kind, name}, service, port)
	}
	if len(b.faults.problems) > before {
		ref.Broken = b.faults.problems[before].What
		ref.Name, ref.Subset = name, nil
	}
	return ref
}

// speaks reports a service whose protocol a route cannot use.
func (b *builder) speaks(o *resource.Object, path, name, protocol string) {
	fits := true
	hint := ""
	switch o.Kind {
	case "GRPCRoute":
		fits, hint = protocol == "grpc" || protocol == "h2c", "write protocol: grpc in Service/"+name
	case "HTTPRoute", "Policy": // which mirrors
		fits, hint = protocol != "tcp", "send to it by a TCPRoute, or write protocol: http in Service/"+name
	}
	if !fits {
		b.fault(unsupportedProtocol, o.Problem(path, fmt.Sprintf("Service/%s speaks %s", name, protocol), hint))
	}
}

// hasPort reports a port that a target does not have.
func (b *builder) hasPort(o *resource.Object, path string, ref TargetRef, s *resource.Service, port int) {
	var ports []int
	of := func(address string) {
		if _, p, err := net.SplitHostPort(address); err == nil {
			n, _ := strconv.Atoi(p) // it was checked
			ports = append(ports, n)
		}
	}
	switch {
	case ref.Kind == "App":
		i := slices.IndexFunc(b.plan.Apps, func(a App) bool { return a.Name == ref.Name })
		if a := b.plan.Apps[i]; a.Address != "" {
			of(a.Address)
		} else if a.Port != 0 {
			ports = []int{a.Port}
		}
	case s.DNS != nil:
		ports = []int{s.DNS.Port}
	default:
		for _, e := range s.Endpoints {
			of(e.Address)
		}
	}
	if !slices.Contains(ports, port) {
		b.fault(backendNotFound, o.Problem(path, fmt.Sprintf("%s/%s has no port %d", ref.Kind, ref.Name, port), "delete it, and the one it has is used"))
	}
}

// keyed is what a Secret or ConfigMap holds.
type keyed struct {
	values map[string]string
	key    resource.Sensitive // tls.key
}

func (b *builder) secret(o *resource.Object, s *resource.Secret) {
	k := keyed{values: map[string]string{}, key: s.StringData["tls.key"]}
	for _, name := range []string{"tls.crt", "ca.crt"} {
		if v := s.StringData[name]; v != "" {
			k.values[name] = string(v)
		}
	}
	if s.Type == "kubernetes.io/tls" {
		if _, err := tls.X509KeyPair([]byte(k.values["tls.crt"]), []byte(k.key)); err != nil {
			b.fault(invalid, o.Problem("stringData", "is no certificate and key: "+err.Error(), "write both in PEM, the certificate's chain below it"))
			return
		}
	}
	b.data[o.Key()] = k
}

// certificate finds the certificate that a listener names.
func (b *builder) certificate(o *resource.Object, path string, ref resource.ObjectRef) Certificate {
	key := ref.Kind + "/" + ref.Name
	data, there := b.data[key]
	switch {
	case !there:
		b.missing(o, invalidCertificateRef, path+".name", []string{ref.Kind}, ref.Name)
	case data.key == "" || data.values["tls.crt"] == "":
		b.fault(invalidCertificateRef, o.Problem(path+".name", key+" holds no tls.crt and tls.key", "write type: kubernetes.io/tls and both of them in it"))
	}
	return Certificate{Name: key, CertPEM: data.values["tls.crt"], KeyPEM: data.key}
}

// authorities finds the certificates that clients are verified by.
func (b *builder) authorities(o *resource.Object, path string, refs []resource.ObjectRef) []Authority {
	var all []Authority
	for i, ref := range refs {
		at := fmt.Sprintf("%s[%d].name", path, i)
		key := ref.Kind + "/" + ref.Name
		data, there := b.data[key]
		switch pem := data.values["ca.crt"]; {
		case !there:
			b.missing(o, invalidCARef, at, []string{ref.Kind}, ref.Name)
		case pem == "":
			b.fault(invalidCARef, o.Problem(at, key+" holds no ca.crt", "write the certificates of the authority there, in PEM"))
		case !x509.NewCertPool().AppendCertsFromPEM([]byte(pem)):
			b.fault(invalidCARef, o.Problem(at, "ca.crt of "+key+" holds no certificate", "write it in PEM"))
		default:
			all = append(all, Authority{Name: key, PEM: pem})
		}
	}
	return all
}
