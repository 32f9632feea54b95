package resource

import (
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

func (c *check) service(s *Service) {
	c.oneOf("spec", "endpoints: [{address: 10.0.0.1:8080}]", "endpoints", "dns", "registry", "subset")
	if s.Subset != nil {
		c.name("spec.subset.service", s.Subset.Service)
		if s.Subset.Service == c.Name && c.Name != "" {
			c.add("spec.subset.service", "is this service itself", "name the service that has the endpoints")
		}
		for _, field := range []string{"protocol", "tls", "loadBalancer", "slowStart", "health", "pool"} {
			if c.written("spec." + field) {
				c.add("spec."+field, "is the other service's to say", "write it in Service/"+s.Subset.Service)
			}
		}
		return
	}
	for i, e := range s.Endpoints {
		at := fmt.Sprintf("spec.endpoints[%d].", i)
		if e.Address != "" {
			c.address(at+"address", e.Address)
		}
		if slices.ContainsFunc(s.Endpoints[:i], func(o Endpoint) bool { return o.Address == e.Address }) && e.Address != "" {
			c.add(at+"address", strconv.Quote(e.Address)+" is there twice", "keep one, with the sum of their weights")
		}
		c.between(at+"weight", e.Weight, 0, 1_000_000, "write its share beside the other weights")
		c.zone(at+"zone", e.Zone)
	}
	if c.written("spec.endpoints") && len(s.Endpoints) == 0 {
		c.add("spec.endpoints", "is empty", "write endpoints: [{address: 10.0.0.1:8080}]")
	}
	if s.DNS != nil {
		c.lookedUp(s)
		c.time("spec.dns.refresh", s.DNS.Refresh, time.Second, day)
	}
	if s.Registry != nil {
		c.name("spec.registry.name", s.Registry.Name)
	}
	if t := s.TLS; t != nil {
		c.precise("spec.tls.serverName", t.ServerName)
		if (t.Cert == "") != (t.Key == "") {
			c.add("spec.tls", "a certificate and its key come together", "write cert and key, both files")
		}
		if t.Insecure && t.CA != "" {
			c.add("spec.tls.insecure", "what is not verified needs no ca", "delete one of them")
		}
	}
	c.loadBalancer(s.LoadBalancer)
	c.time("spec.slowStart", s.SlowStart, 0, day)
	if h := s.Health.Active; h != nil {
		at := "spec.health.active."
		c.path(at+"path", h.Path)
		if h.Type != "http" && (c.written(at+"path") || c.written(at+"status")) {
			c.add(at+"type", "path and status are of http, not of "+h.Type, "write type: http, or delete them")
		}
		if h.Type != "grpc" && h.Service != "" {
			c.add(at+"service", "is of grpc, not of "+h.Type, "delete it, or write type: grpc")
		}
		c.time(at+"interval", h.Interval, 100*time.Millisecond, day)
		c.time(at+"timeout", h.Timeout, 10*time.Millisecond, time.Hour)
		c.between(at+"healthy", h.Healthy, 1, 100, "write how many good answers bring an endpoint back")
		c.between(at+"unhealthy", h.Unhealthy, 1, 100, "write how many bad answers take an endpoint out")
		c.statuses(at+"status", h.Status, 100, 599)
	}
	if h := s.Health.Passive; h != nil {
		at := "spec.health.passive."
		c.between(at+"consecutiveErrors", h.ConsecutiveErrors, 0, 10_000, "write how many errors in a row take an endpoint out")
		c.between(at+"minRequests", h.MinRequests, 1, 1_000_000, "write how many requests must be seen first")
		c.time(at+"interval", h.Interval, 100*time.Millisecond, day)
		c.time(at+"ejection", h.Ejection, 100*time.Millisecond, day)
		if h.ConsecutiveErrors == 0 && h.Ratio == 0 {
			c.add("spec.health.passive", "counts nothing", "write consecutiveErrors or ratio")
		}
	}
	at := "spec.pool."
	c.between(at+"maxConnections", s.Pool.MaxConnections, 1, 1_000_000, "write how many connections an endpoint may get")
	c.between(at+"maxIdle", s.Pool.MaxIdle, 0, 1_000_000, "write how many connections are kept for later")
	c.between(at+"maxPending", s.Pool.MaxPending, 0, 1_000_000, "write how many requests may wait for a connection")
	c.time(at+"idleTimeout", s.Pool.IdleTimeout, time.Millisecond, day)
	c.time(at+"connectTimeout", s.Pool.ConnectTimeout, time.Millisecond, time.Hour)
}

// serviceForm is the name of SRV records (RFC 2782): _service._protocol.host.
var serviceForm = regexp.MustCompile(`^_[A-Za-z0-9-]+\._[A-Za-z0-9-]+\.`)

// lookedUp checks a name and its port, which where there is none SRV records have to say.
func (c *check) lookedUp(s *Service) {
	d := s.DNS
	label := serviceForm.FindString(d.Name)
	c.precise("spec.dns.name", d.Name[len(label):])
	switch {
	case c.written("spec.dns.port") && label != "":
		c.port("spec.dns.port", d.Port)
		c.add("spec.dns.port", "the SRV records of "+strconv.Quote(d.Name)+" say it", "delete it")
	case c.written("spec.dns.port"):
		c.port("spec.dns.port", d.Port)
	case label == "" && d.Name != "":
		c.add("spec.dns.port", "is missing: there are SRV records for names like _http._tcp.orders.internal only", "write port: 8080")
	case label != "" && s.TLS != nil && s.TLS.ServerName == "" && !s.TLS.Insecure:
		c.add("spec.tls.serverName", "is missing: endpoints found by SRV records are addresses", "write the name that is in their certificates")
	}
}

// zone checks a zone's name, as the embedded registry does.
func (c *check) zone(at, zone string) {
	if len(zone) > 256 || strings.ContainsFunc(zone, func(r rune) bool { return r < ' ' || r > '~' }) {
		c.add(at, "is longer than 256 bytes, or not printable ASCII", "write one such as eu-central-1a")
	}
}

func (c *check) loadBalancer(l LoadBalancer) {
	c.zone("spec.loadBalancer.zone", l.Zone)
	hashes := l.Algorithm == "ring-hash" || l.Algorithm == "maglev"
	switch {
	case hashes && l.HashOn == nil:
		c.add("spec.loadBalancer.hashOn", "is missing: "+l.Algorithm+" needs it", "write hashOn: {header: x-user}, or hashOn: {source: true}")
	case !hashes && l.HashOn != nil:
		c.add("spec.loadBalancer.hashOn", "means nothing to "+l.Algorithm, "delete it, or write algorithm: maglev")
	}
	if l.HashOn == nil {
		return
	}
	c.oneOf("spec.loadBalancer.hashOn", "header: x-user", "header", "cookie", "query", "source")
	for _, f := range [][2]string{{"header", l.HashOn.Header}, {"cookie", l.HashOn.Cookie}} {
		if f[1] != "" && !headerForm.MatchString(f[1]) {
			c.add("spec.loadBalancer.hashOn."+f[0], strconv.Quote(f[1])+" is not the name of a "+f[0], "write one such as x-user")
		}
	}
	if c.written("spec.loadBalancer.hashOn.source") && !l.HashOn.Source {
		c.add("spec.loadBalancer.hashOn.source", "false hashes nothing", "write source: true")
	}
}

func (c *check) secret(s *Secret) {
	for _, name := range slices.Sorted(maps.Keys(s.Data)) {
		if _, err := base64.StdEncoding.DecodeString(string(s.Data[name])); err != nil {
			c.add("data."+name, "is not base64", "encode it, or put it below stringData as it is")
		}
	}
	if s.Type != "kubernetes.io/tls" {
		return
	}
	for _, name := range []string{"tls.crt", "tls.key"} {
		if s.StringData[name] == "" && s.Data[name] == "" {
			c.add("stringData."+name, "is missing: type kubernetes.io/tls needs it", "write "+strings.TrimPrefix(name, "tls.")+" in PEM, or name files in the listener's options")
		}
	}
}
