package resource

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	grpcServiceForm = regexp.MustCompile(`^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$`)
	grpcMethodForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
	valueForm       = regexp.MustCompile(`^[\x21-\x7e]+([\t ]+[\x21-\x7e]+)*$`)
	originForm      = regexp.MustCompile(`^(\*|(?:https?)://(?:\*|(?:\*\.)?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?)(?::[0-9]{1,5})?)$`)
	rewriteForm     = regexp.MustCompile("^/(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*$")
)

func (c *check) gateway(g *Gateway) {
	names, ports := map[string]bool{}, map[int]bool{}
	https := false
	for i, l := range g.Listeners {
		at := fmt.Sprintf("spec.listeners[%d].", i)
		c.name(at+"name", l.Name)
		if names[l.Name] {
			c.add(at+"name", strconv.Quote(l.Name)+" is there twice", "give each listener its own name")
		}
		names[l.Name], ports[l.Port] = true, true
		https = https || l.Protocol == "HTTPS"
		c.host(at+"hostname", l.Hostname)
		if l.Protocol == "TCP" && l.Hostname != "" {
			c.add(at+"hostname", "TCP has no host names", "delete it")
		}
		c.port(at+"port", l.Port)
		for _, other := range g.Listeners[:i] {
			if l.Port != other.Port || l.Port == 0 {
				continue
			}
			secure := l.TLS != nil && other.TLS != nil // one server name cannot lead to two of them
			if (l.Protocol == other.Protocol || secure) && l.Hostname == other.Hostname {
				c.add(at+"port", fmt.Sprintf("listener %s has port %d already", other.Name, l.Port), "give it another port, or another hostname")
				break
			}
			if l.Protocol == "TCP" || other.Protocol == "TCP" {
				c.add(at+"port", fmt.Sprintf("listener %s has port %d already, and TCP shares it with none", other.Name, l.Port), "give it another port")
				break
			}
		}
		c.listenerTLS(at, l)
		for j, k := range l.AllowedRoutes.Kinds {
			if fits := RouteKinds(l); k.Kind != "" && !slices.Contains(fits, k.Kind) {
				c.add(fmt.Sprintf("%sallowedRoutes.kinds[%d].kind", at, j), fmt.Sprintf("a listener of protocol %s has no %s", l.Protocol, k.Kind), "write "+strings.Join(fits, " or "))
			}
		}
	}
	front := "spec.tls.frontend."
	c.validation(front+"default", g.TLS.Frontend.Default)
	for i, p := range g.TLS.Frontend.PerPort {
		at := fmt.Sprintf("%sperPort[%d].", front, i)
		if !ports[p.Port] && p.Port != 0 {
			c.add(at+"port", fmt.Sprintf("no listener has port %d", p.Port), "write that of a listener of protocol HTTPS")
		}
		if slices.ContainsFunc(g.TLS.Frontend.PerPort[:i], func(q PortedTLS) bool { return q.Port == p.Port }) {
			c.add(at+"port", strconv.Itoa(p.Port)+" is there twice", "keep one of them")
		}
		c.validation(at+"tls", p.TLS)
	}
	if !https && g.TLS.Frontend.Default.Validation != nil {
		c.add(front+"default", "is for listeners of protocol HTTPS, and there is none", "delete it")
	}
	for i, a := range g.Addresses {
		if _, err := netip.ParseAddr(a.Value); err != nil && a.Value != "" {
			hint := "write 127.0.0.1 for this machine only, 0.0.0.0 for all that can reach it"
			if host, _, err := net.SplitHostPort(a.Value); err == nil {
				hint = "write " + host + ", and the port in listeners"
			}
			c.add(fmt.Sprintf("spec.addresses[%d].value", i), strconv.Quote(a.Value)+" is not an IP address", hint)
		}
	}
}

// RouteKinds are the kinds of routes that a listener's protocol can serve.
func RouteKinds(l Listener) []string {
	switch l.Protocol {
	case "TCP":
		return []string{"TCPRoute"}
	case "TLS":
		if l.TLS != nil && l.TLS.Mode == "Passthrough" {
			return []string{"TLSRoute"}
		}
		return []string{"TLSRoute", "TCPRoute"} // of what its TLS held
	}
	return []string{"HTTPRoute", "GRPCRoute"}
}

func (c *check) listenerTLS(at string, l Listener) {
	secure := l.Protocol == "HTTPS" || l.Protocol == "TLS"
	switch {
	case l.TLS == nil && secure:
		c.add(at+"tls", "is missing: "+l.Protocol+" needs it", "write tls: {mode: Terminate, certificateRefs: [{name: shop-tls}]}")
	case l.TLS != nil && !secure:
		c.add(at+"tls", "protocol "+l.Protocol+" speaks no TLS", "write protocol: HTTPS, or delete it")
	}
	if l.TLS == nil || !secure {
		return
	}
	at += "tls."
	t := l.TLS
	if l.Protocol == "TLS" && !c.written(at+"mode") {
		c.add(at+"mode", "is missing: protocol TLS needs it", "write mode: Passthrough, or mode: Terminate")
	}
	for i, r := range t.CertificateRefs {
		c.object(fmt.Sprintf("%scertificateRefs[%d].", at, i), r, "Secret")
	}
	for _, name := range slices.Sorted(maps.Keys(t.Options)) {
		known := []string{OptionCertFile, OptionKeyFile, OptionClientCAFile, OptionMinVersion}
		if !slices.Contains(known, name) {
			c.add(at+"options."+name, "there is no such option", meant(name, known, "those of Loam are "))
		} else if t.Options[name] == "" {
			c.add(at+"options."+name, "is empty", "write a file, or delete it")
		}
	}
	if v := t.Options[OptionMinVersion]; v != "" && v != "1.2" && v != "1.3" {
		c.add(at+"options."+OptionMinVersion, strconv.Quote(v)+" is none of its values", `write "1.2" or "1.3"`)
	}
	cert, key := t.Options[OptionCertFile] != "", t.Options[OptionKeyFile] != ""
	switch {
	case t.Mode == "Passthrough" && l.Protocol == "HTTPS":
		c.add(at+"mode", "HTTPS ends at the listener", "write mode: Terminate, or protocol: TLS to pass connections on as they are")
	case t.Mode == "Passthrough" && (len(t.CertificateRefs) > 0 || len(t.Options) > 0):
		c.add(at+"mode", "what passes through needs no certificates or options here", "delete them, or write mode: Terminate")
	case t.Mode != "Passthrough" && cert != key:
		c.add(at+"options", "a certificate and its key come together", "write "+OptionCertFile+" and "+OptionKeyFile)
	case t.Mode != "Passthrough" && !cert && len(t.CertificateRefs) == 0:
		c.add(at+"certificateRefs", "is missing: Terminate needs a certificate", "write certificateRefs: [{name: shop-tls}], naming a Secret, or options: {"+OptionCertFile+": ./tls.crt, "+OptionKeyFile+": ./tls.key}")
	}
}

func (c *check) object(at string, r ObjectRef, kinds ...string) {
	c.name(at+"name", r.Name)
	if r.Group != "" {
		c.add(at+"group", strconv.Quote(r.Group)+" has no "+r.Kind, `write group: "", or delete it`)
	}
	if !slices.Contains(kinds, r.Kind) && r.Kind != "" {
		c.add(at+"kind", "a "+r.Kind+" cannot be here", "write kind: "+strings.Join(kinds, " or "))
	}
}

func (c *check) validation(at string, t TLSConfig) {
	if t.Validation != nil {
		for i, r := range t.Validation.CACertificateRefs {
			c.object(fmt.Sprintf("%s.validation.caCertificateRefs[%d].", at, i), r, "ConfigMap", "Secret")
		}
	}
}

func (c *check) parents(refs []ParentRef) {
	for i, p := range refs {
		at := fmt.Sprintf("spec.parentRefs[%d].", i)
		c.name(at+"name", p.Name)
		if p.Port != 0 {
			c.port(at+"port", p.Port)
		}
	}
}

func (c *check) hosts(hosts []string) {
	for i, h := range hosts {
		at := fmt.Sprintf("spec.hostnames[%d]", i)
		if c.host(at, h); slices.Contains(hosts[:i], h) {
			c.add(at, strconv.Quote(h)+" is there twice", "keep one of them")
		}
	}
}

// ruleName checks the i-th of a route's rules, whose names are those before it.
func (c *check) ruleName(i int, name string, before map[string]bool) {
	at := fmt.Sprintf("spec.rules[%d].name", i)
	c.name(at, name)
	if name != "" && before[name] {
		c.add(at, strconv.Quote(name)+" is there twice", "give each rule its own name")
	}
	before[name] = true
}

func (c *check) httpRoute(r *HTTPRoute) {
	c.parents(r.ParentRefs)
	c.hosts(r.Hostnames)
	names := map[string]bool{}
	for i := range r.Rules {
		rule, at := &r.Rules[i], fmt.Sprintf("spec.rules[%d].", i)
		c.ruleName(i, rule.Name, names)
		for j, m := range rule.Matches {
			at := fmt.Sprintf("%smatches[%d].", at, j)
			c.pathMatch(at+"path.value", m.Path)
			c.values(at+"headers", m.Headers, true)
			c.values(at+"queryParams", m.QueryParams, false)
		}
		prefix := len(rule.Matches) == 1 && rule.Matches[0].Path.Type == "PathPrefix"
		redirects := c.filters(at, rule.Filters, filterRules{http: true, prefix: prefix})
		c.backends(at, rule.BackendRefs, filterRules{http: true, prefix: prefix})
		switch {
		case redirects && len(rule.BackendRefs) > 0:
			c.add(at+"backendRefs", "a rule that redirects sends to nobody", "delete them, or the RequestRedirect filter")
		case !redirects && len(rule.BackendRefs) == 0:
			what := "is missing"
			if c.written(at + "backendRefs") {
				what = "is empty"
			}
			c.add(at+"backendRefs", what, "write backendRefs: [{kind: Function, name: orders}]")
		}
		request, try := rule.Timeouts.Request, rule.Timeouts.BackendRequest
		if request != nil && *request < 0 {
			c.add(at+"timeouts.request", request.String()+" is below 0", "write one such as 30s, or 0s for none")
		}
		if try != nil && *try < 0 {
			c.add(at+"timeouts.backendRequest", try.String()+" is below 0", "write one such as 5s, or 0s for none")
		}
		if request != nil && try != nil && *request > 0 && *try > *request {
			c.add(at+"timeouts.backendRequest", fmt.Sprintf("%s is more than the %s of the whole request", try, request), "write less")
		}
		if t := rule.Retry; t != nil {
			c.between(at+"retry.attempts", t.Attempts, 1, 100, "write how often it may be tried again")
			c.time(at+"retry.backoff", t.Backoff, 0, time.Minute)
			c.statuses(at+"retry.codes", t.Codes, 400, 599)
		}
		c.session(at+"sessionPersistence.", rule.SessionPersistence)
	}
}

func (c *check) statuses(at string, codes []int, low, high int) {
	for i, code := range codes {
		at := fmt.Sprintf("%s[%d]", at, i)
		if code < low || code > high {
			c.add(at, fmt.Sprintf("%d is not a status between %d and %d", code, low, high), "write one such as "+strconv.Itoa(high-96))
		} else if slices.Contains(codes[:i], code) {
			c.add(at, strconv.Itoa(code)+" is there twice", "keep one of them")
		}
	}
}

func (c *check) session(at string, s *SessionPersistence) {
	if s == nil {
		return
	}
	if s.SessionName != "" && (!headerForm.MatchString(s.SessionName) || len(s.SessionName) > 128) {
		c.add(at+"sessionName", strconv.Quote(s.SessionName)+" is not the name of a cookie or header", "write one such as session")
	}
	c.time(at+"absoluteTimeout", s.AbsoluteTimeout, 0, 10*365*24*time.Hour)
	if s.CookieConfig == nil {
		return
	}
	if s.Type != "Cookie" {
		c.add(at+"cookieConfig", "is for sessions of type Cookie", "delete it, or write type: Cookie")
	} else if s.CookieConfig.LifetimeType == "Permanent" && s.AbsoluteTimeout == 0 {
		c.add(at+"absoluteTimeout", "is missing: a permanent cookie needs it", "write absoluteTimeout: 24h")
	}
}

// filterRules says which filters can be in a place.
type filterRules struct {
	http   bool // those of HTTPRoutes, not only those of GRPCRoutes
	prefix bool // the rule has one match, of a path prefix
	none   bool // connections have none
}

func (c *check) backends(at string, refs []BackendRef, rules filterRules) {
	sum := 0
	for j, b := range refs {
		at := fmt.Sprintf("%sbackendRefs[%d].", at, j)
		c.target(at, b.Kind, b.Name, b.Port)
		if b.Weight < 0 || b.Weight > 1_000_000 {
			c.add(at+"weight", strconv.Itoa(b.Weight)+" is not between 0 and 1000000", "write its share beside the other weights of the rule")
		}
		sum += max(b.Weight, 0)
		c.filters(at, b.Filters, rules)
	}
	if len(refs) > 0 && sum == 0 && !c.has(at+"backendRefs") {
		c.add(at+"backendRefs", "every weight is 0, so that the rule sends to nobody", "give one of them a weight")
	}
}

// target checks what a backendRef names.
func (c *check) target(at, kind, name string, port int) {
	c.name(at+"name", name)
	if !c.written(at + "port") {
		return
	}
	if c.port(at+"port", port); kind == "Function" {
		c.add(at+"port", "a function has no port", "delete it, or write kind: App or kind: Service")
	}
}

// filters checks the filters of a rule or backend and tells whether they redirect.
func (c *check) filters(at string, filters []Filter, rules filterRules) (redirects bool) {
	types := map[string]bool{}
	for i, f := range filters {
		at := fmt.Sprintf("%sfilters[%d].", at, i)
		if rules.none {
			c.add(at[:len(at)-1], "connections have no filters", "delete it")
			continue
		}
		if f.Type == "" {
			continue
		}
		field := strings.ToLower(f.Type[:1]) + f.Type[1:]
		switch f.Type {
		case "URLRewrite":
			field = "urlRewrite"
		case "CORS":
			field = "cors"
		}
		for _, other := range []struct {
			name string
			set  bool
		}{
			{"requestHeaderModifier", f.RequestHeaderModifier != nil}, {"responseHeaderModifier", f.ResponseHeaderModifier != nil},
			{"requestRedirect", f.RequestRedirect != nil}, {"urlRewrite", f.URLRewrite != nil}, {"requestMirror", f.RequestMirror != nil},
			{"cors", f.CORS != nil}, {"extensionRef", f.ExtensionRef != nil},
		} {
			if other.set && other.name != field {
				c.add(at+other.name, "is not for a filter of type "+f.Type, "delete it, or put it in a filter of its own")
			} else if !other.set && other.name == field {
				c.add(at+field, "is missing: type "+f.Type+" needs it", "write "+field+":")
			}
		}
		switch {
		case types[f.Type] && f.Type != "RequestMirror" && f.Type != "ExtensionRef":
			c.add(at+"type", f.Type+" is there twice", "write both in one filter")
		case f.Type == "URLRewrite" && types["RequestRedirect"] || f.Type == "RequestRedirect" && types["URLRewrite"]:
			c.add(at+"type", "a request is redirected or rewritten, not both", "delete one of the filters")
		case !rules.http && slices.Contains([]string{"RequestRedirect", "URLRewrite", "CORS"}, f.Type):
			c.add(at+"type", f.Type+" is not for gRPC", "delete the filter")
		}
		types[f.Type] = true
		if f.RequestHeaderModifier != nil {
			c.headers(at+"requestHeaderModifier.", *f.RequestHeaderModifier)
		}
		if f.ResponseHeaderModifier != nil {
			c.headers(at+"responseHeaderModifier.", *f.ResponseHeaderModifier)
		}
		if r := f.RequestRedirect; r != nil {
			c.precise(at+"requestRedirect.hostname", r.Hostname)
			c.modifier(at+"requestRedirect.path.", r.Path, rules.prefix)
			if c.written(at + "requestRedirect.port") {
				c.port(at+"requestRedirect.port", r.Port)
			}
			if !slices.Contains([]int{301, 302, 303, 307, 308}, r.StatusCode) {
				c.add(at+"requestRedirect.statusCode", strconv.Itoa(r.StatusCode)+" does not redirect", "write 301, 302, 303, 307 or 308")
			}
		}
		if r := f.URLRewrite; r != nil {
			c.precise(at+"urlRewrite.hostname", r.Hostname)
			c.modifier(at+"urlRewrite.path.", r.Path, rules.prefix)
		}
		if f.RequestMirror != nil {
			c.mirror(at+"requestMirror.", *f.RequestMirror)
		}
		if f.CORS != nil {
			c.cors(at+"cors.", *f.CORS)
		}
		if f.ExtensionRef != nil {
			c.name(at+"extensionRef.name", f.ExtensionRef.Name)
		}
	}
	return types["RequestRedirect"]
}

// reserved are the fields that say how a message is framed or routed: who changes them breaks it, or has no effect.
var reserved = []string{"connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

func (c *check) headers(at string, h HeaderModifier) {
	seen := map[string]bool{}
	name := func(at, name string) {
		lower := strings.ToLower(name)
		switch {
		case name == "":
		case !headerForm.MatchString(name):
			c.add(at, strconv.Quote(name)+" is not the name of a header", "write one such as x-version")
		case lower == "host":
			c.add(at, "the host is no header to modify", "write a filter of type URLRewrite with hostname")
		case slices.Contains(reserved, lower):
			c.add(at, name+" belongs to the connection, not to the message", "delete it")
		case seen[lower]:
			c.add(at, strconv.Quote(name)+" is there twice", "keep one action for each header: values can be joined by a comma")
		}
		seen[lower] = true
	}
	for _, action := range []struct {
		name   string
		values []HeaderValue
	}{{"set", h.Set}, {"add", h.Add}} {
		for i, v := range action.values {
			at := fmt.Sprintf("%s%s[%d].", at, action.name, i)
			name(at+"name", v.Name)
			if v.Value != "" && (!valueForm.MatchString(v.Value) || len(v.Value) > 4096) {
				c.add(at+"value", strconv.Quote(v.Value)+" is not a header's value", "write up to 4096 printable characters, without spaces at both ends")
			}
		}
	}
	for i, n := range h.Remove {
		name(fmt.Sprintf("%sremove[%d]", at, i), n)
	}
	if len(h.Set)+len(h.Add)+len(h.Remove) == 0 {
		c.add(at[:len(at)-1], "changes nothing", "write set, add or remove")
	}
}

// precise checks a host name that is one, without a wildcard.
func (c *check) precise(at, host string) {
	if strings.HasPrefix(host, "*") {
		c.add(at, strconv.Quote(host)+" is many hosts", "write one such as shop.example.com")
		return
	}
	c.host(at, host)
}

func (c *check) modifier(at string, p *PathModifier, prefix bool) {
	if p == nil || p.Type == "" {
		return
	}
	for _, way := range []struct {
		typ, field string
		value      *string
	}{{"ReplaceFullPath", "replaceFullPath", p.ReplaceFullPath}, {"ReplacePrefixMatch", "replacePrefixMatch", p.ReplacePrefixMatch}} {
		switch {
		case way.value == nil && p.Type == way.typ:
			c.add(at+way.field, "is missing: type "+p.Type+" needs it", "write "+way.field+": /v2")
		case way.value == nil:
		case p.Type != way.typ:
			c.add(at+way.field, "is not for type "+p.Type, "delete it, or write type: "+way.typ)
		case *way.value == "" && way.typ == "ReplacePrefixMatch":
		case !rewriteForm.MatchString(*way.value) || len(*way.value) > 1024:
			c.add(at+way.field, strconv.Quote(*way.value)+" is not a path", "write one such as /v2")
		}
	}
	if p.Type == "ReplacePrefixMatch" && !prefix {
		c.add(at+"type", "needs a rule with one match, of a PathPrefix, to know the prefix", "write ReplaceFullPath, or split the rule")
	}
}

func (c *check) mirror(at string, m Mirror) {
	c.target(at+"backendRef.", m.BackendRef.Kind, m.BackendRef.Name, m.BackendRef.Port)
	if m.Fraction == nil {
		return
	}
	if m.Percent != nil {
		c.add(at+"fraction", "is beside percent, and only one of them can be", "keep one of them")
	}
	if m.Fraction.Denominator < 1 || m.Fraction.Numerator < 0 || m.Fraction.Numerator > m.Fraction.Denominator {
		c.add(at+"fraction", fmt.Sprintf("%d of %d is no share", m.Fraction.Numerator, m.Fraction.Denominator), "write one such as {numerator: 1, denominator: 1000}")
	}
}

func (c *check) cors(at string, r CORS) {
	for i, o := range r.AllowOrigins {
		_, port, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(o, "http://"), "https://"), ":")
		if n, err := strconv.Atoi(port); !originForm.MatchString(o) || port != "" && (err != nil || n < 1 || n > 65535) {
			c.add(fmt.Sprintf("%sallowOrigins[%d]", at, i), strconv.Quote(o)+" is not an origin", "write one such as https://shop.example.com, https://*.example.com, or *")
		}
	}
	for _, f := range []struct {
		name   string
		values []string
	}{{"allowOrigins", r.AllowOrigins}, {"allowMethods", r.AllowMethods}, {"allowHeaders", r.AllowHeaders}, {"exposeHeaders", r.ExposeHeaders}} {
		if slices.Contains(f.values, "*") && len(f.values) > 1 {
			c.add(at+f.name, "* takes all, so that the others mean nothing", "keep * alone, or delete it")
		}
		for i, v := range f.values {
			if strings.HasSuffix(f.name, "Headers") && !headerForm.MatchString(v) {
				c.add(fmt.Sprintf("%s%s[%d]", at, f.name, i), strconv.Quote(v)+" is not the name of a header", "write one such as x-version")
			}
		}
	}
	c.between(at+"maxAge", r.MaxAge, 1, 86400*365, "write seconds")
}

func (c *check) grpcRoute(r *GRPCRoute) {
	c.parents(r.ParentRefs)
	c.hosts(r.Hostnames)
	names := map[string]bool{}
	for i := range r.Rules {
		rule, at := &r.Rules[i], fmt.Sprintf("spec.rules[%d].", i)
		c.ruleName(i, rule.Name, names)
		for j, m := range rule.Matches {
			at := fmt.Sprintf("%smatches[%d].", at, j)
			if m.Method != nil {
				c.methodMatch(at+"method", *m.Method)
			}
			c.values(at+"headers", m.Headers, true)
		}
		c.filters(at, rule.Filters, filterRules{})
		c.backends(at, rule.BackendRefs, filterRules{})
		if len(rule.BackendRefs) == 0 {
			c.add(at+"backendRefs", "is missing", "write backendRefs: [{kind: Service, name: orders}]")
		}
		c.session(at+"sessionPersistence.", rule.SessionPersistence)
	}
}

func (c *check) methodMatch(at string, m MethodMatch) {
	switch {
	case m.Service == "" && m.Method == "":
		c.add(at, "has neither service nor method", "write service: shop.v1.Orders, or delete it to take any")
	case m.Type == "RegularExpression":
		c.regexp(at+".service", m.Service)
		c.regexp(at+".method", m.Method)
	default:
		if m.Service != "" && !grpcServiceForm.MatchString(m.Service) {
			c.add(at+".service", strconv.Quote(m.Service)+" is not the name of a gRPC service", "write package and service, such as shop.v1.Orders")
		}
		if m.Method != "" && !grpcMethodForm.MatchString(m.Method) {
			c.add(at+".method", strconv.Quote(m.Method)+" is not the name of a gRPC method", "write one such as GetOrder")
		}
	}
}

func (c *check) tlsRoute(r *TLSRoute) {
	c.parents(r.ParentRefs)
	c.hosts(r.Hostnames)
	c.streams(r.Rules)
}

func (c *check) tcpRoute(r *TCPRoute) {
	c.parents(r.ParentRefs)
	c.streams(r.Rules)
}

func (c *check) streams(rules []StreamRule) {
	for i, rule := range rules {
		at := fmt.Sprintf("spec.rules[%d]", i)
		if i > 0 {
			c.add(at, "a connection has no more than one rule", "put its backends in the first, or make a route of it")
			return
		}
		c.ruleName(i, rule.Name, map[string]bool{})
		c.backends(at+".", rule.BackendRefs, filterRules{none: true})
	}
}

// pathMatch checks the value of a path match by the standard's rules.
func (c *check) pathMatch(at string, p PathMatch) {
	if p.Type == "RegularExpression" {
		c.regexp(at, p.Value)
		return
	}
	v := p.Value
	switch {
	case v == "" || v[0] != '/':
		c.path(at, v)
	case strings.Contains(v, "?"):
		c.add(at, "a path ends before the ?", "match the query with queryParams")
	case strings.Contains(v, "#"):
		c.add(at, "# never reaches a server", "delete it and what follows")
	case p.Type == "PathPrefix" && strings.HasSuffix(v, "/*"):
		better := strings.TrimSuffix(v, "/*")
		if better == "" {
			better = "/"
		}
		c.add(at, "a prefix takes no *", "write "+better+": it takes all that is below it")
	case strings.Contains(v, "//") || strings.Contains(v, "/./") || strings.Contains(v, "/../") ||
		strings.HasSuffix(v, "/.") || strings.HasSuffix(v, "/.."):
		c.add(at, strconv.Quote(v)+" can match nothing: paths are cleaned before they are matched", "write "+path.Clean(v))
	case strings.Contains(strings.ToLower(v), "%2f"):
		c.add(at, strconv.Quote(v)+" has an escaped slash, which never matches", "write / in its place")
	case strings.ContainsAny(v, " \t\n\\"):
		c.add(at, strconv.Quote(v)+" has a character that no path holds", "escape it: %20 for a space")
	}
}

func (c *check) values(at string, values []ValueMatch, header bool) {
	for i, v := range values {
		at := at + "[" + strconv.Itoa(i) + "]."
		if header && v.Name != "" && !headerForm.MatchString(v.Name) {
			c.add(at+"name", strconv.Quote(v.Name)+" is not the name of a header", "write one such as x-version")
		}
		for _, w := range values[:i] {
			if v.Name == w.Name || header && strings.EqualFold(v.Name, w.Name) {
				c.add(at+"name", strconv.Quote(v.Name)+" is there twice", "keep one: all of them must match")
				break
			}
		}
		if v.Type == "RegularExpression" {
			c.regexp(at+"value", v.Value)
		}
	}
}
