package resource

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// daprName checks the name of one of Dapr's resources, which outside Kubernetes need not be a name of DNS.
func (c *check) daprName(path, name string) {
	if name != "" && !daprNameForm.MatchString(name) || len(name) > 253 {
		c.add(path, strconv.Quote(name)+" is not a name", "write up to 253 letters, digits, -, _ and ., a letter or digit at both ends")
	}
}

func (c *check) api(a AppAPI) {
	if d := a.Dapr; d != nil {
		at := "spec.api.dapr."
		c.listens(at+"http", d.HTTP)
		c.listens(at+"grpc", d.GRPC)
		c.listens(at+"internal", d.Internal)
		c.listens(at+"public", d.Public)
		if len(d.HTTP)+len(d.GRPC) == 0 && d.SocketDir == "" && !c.has("spec.api.dapr") {
			c.add("spec.api.dapr", "is served nowhere", "write http: 127.0.0.1:3500 and grpc: 127.0.0.1:50001")
		}
		for _, t := range []struct {
			name       string
			token, env string
		}{{"token", string(d.Token), d.TokenEnv}, {"appToken", string(d.AppToken), d.AppTokenEnv}} {
			if t.token != "" && t.env != "" {
				c.add(at+t.name+"Env", "is beside "+t.name+", and only one of them can be", "keep one of them")
			}
			if t.env != "" && !envForm.MatchString(t.env) {
				c.add(at+t.name+"Env", strconv.Quote(t.env)+" is not the name of a variable", "write letters, digits and _, no digit first")
			}
		}
		c.maxBody(at+"maxBody", d.MaxBody)
		for i, name := range d.Configuration {
			c.daprName(at+"configuration["+strconv.Itoa(i)+"]", name)
		}
		c.daprName(at+"namespace", d.Namespace)
	}
	if l := a.Layotto; l != nil {
		c.listens("spec.api.layotto.grpc", l.GRPC)
		c.listens("spec.api.layotto.http", l.HTTP)
		if len(l.GRPC) == 0 && !c.has("spec.api.layotto") {
			c.add("spec.api.layotto", "is served nowhere", "write grpc: 127.0.0.1:34904")
		}
		c.maxBody("spec.api.layotto.maxBody", l.MaxBody)
	}
}

// maxBody checks the bound of a message; 0: none.
func (c *check) maxBody(at string, b Bytes) {
	if b < 0 || b > 1<<30 {
		c.add(at, "is not between 0 and 1Gi", "write one such as 4Mi")
	}
}

// listens checks addresses to listen on. Their host may be left out for all there are, their port may be 0 for a free one.
func (c *check) listens(at string, addresses []string) {
	for i, a := range addresses {
		here := at + "[" + strconv.Itoa(i) + "]"
		if path, ok := strings.CutPrefix(a, "unix:"); ok && strings.Trim(path, "/") != "" {
			continue
		}
		host, port, err := net.SplitHostPort(a)
		n, perr := strconv.Atoi(port)
		if err != nil || strings.Contains(host, "/") || perr != nil || n < 0 || n > 65535 {
			c.add(here, strconv.Quote(a)+" is not an address", "write host and port: 127.0.0.1:3500")
		} else if n > 0 && slices.Contains(addresses[:i], a) {
			c.add(here, a+" is there twice", "keep one of them")
		}
	}
}

func (c *check) component(s *Component) {
	if s.Type != "" && !componentForm.MatchString(s.Type) {
		c.add("spec.type", strconv.Quote(s.Type)+" is not a component type", "write capability and technology, such as state.sqlite")
	}
	if s.Version != "v1" {
		c.add("spec.version", "there is no version "+strconv.Quote(s.Version), "write v1, or delete it")
	}
	c.time("spec.initTimeout", s.InitTimeout, 0, time.Hour)
	c.metadata("spec.metadata", s.Metadata, s.SecretStore)
}

// metadata checks settings by name, of which each has one value, and where secrets are.
func (c *check) metadata(at string, all []Metadata, store string) {
	for i, m := range all {
		here := fmt.Sprintf("%s[%d]", at, i)
		for _, n := range all[:i] {
			if strings.EqualFold(m.Name, n.Name) && m.Name != "" {
				c.add(here+".name", strconv.Quote(m.Name)+" is there twice", "keep one of them")
				break
			}
		}
		switch {
		case m.SecretKeyRef != nil && (m.Value != "" || m.EnvRef != ""), m.Value != "" && m.EnvRef != "":
			c.add(here, "has more than one of value, secretKeyRef and envRef", "keep one of them")
		case m.EnvRef == "":
		case !envForm.MatchString(m.EnvRef):
			c.add(here+".envRef", strconv.Quote(m.EnvRef)+" is not the name of a variable", "write letters, digits and _, no digit first")
		case strings.HasPrefix(strings.ToUpper(m.EnvRef), "DAPR_"), strings.EqualFold(m.EnvRef, "APP_API_TOKEN"):
			c.add(here+".envRef", m.EnvRef+" is not for components", "name another variable")
		}
		c.secretRef(here+".secretKeyRef", m.SecretKeyRef, store)
	}
	c.daprName("auth.secretStore", store)
}

func (c *check) secretRef(at string, ref *SecretKeyRef, store string) {
	if ref != nil && store == "" && !c.has("auth") {
		c.add(at, "nothing says which secret component it is of", "write auth: {secretStore: NAME} beside spec")
	}
}

func (c *check) subscription(s *Subscription) {
	c.daprName("spec.pubsubname", s.Pubsubname)
	c.topic("spec.topic", s.Topic)
	c.topic("spec.deadLetterTopic", s.DeadLetterTopic)
	if s.DeadLetterTopic != "" && s.DeadLetterTopic == s.Topic {
		c.add("spec.deadLetterTopic", "is the topic itself, so that what failed would come back for ever", "name another topic, such as "+s.Topic+"-dead")
	}
	c.path("spec.routes.default", s.Routes.Default)
	for i, r := range s.Routes.Rules {
		at := fmt.Sprintf("spec.routes.rules[%d].", i)
		c.path(at+"path", r.Path)
		if r.Match == "" && i < len(s.Routes.Rules)-1 {
			c.add(at+"match", "is empty, which matches all, so that the rules below it are never asked", "make it the last, or write it")
		}
	}
	if s.Routes.Default == "" && len(s.Routes.Rules) == 0 && c.written("spec.routes") {
		c.add("spec.routes", "says nowhere to go", "write default: /"+cmp.Or(s.Topic, "orders"))
	}
	c.between("spec.bulkSubscribe.maxMessagesCount", s.BulkSubscribe.MaxMessagesCount, 0, 10_000, "write how many events may come at once")
	c.between("spec.bulkSubscribe.maxAwaitDurationMs", s.BulkSubscribe.MaxAwaitDurationMs, 0, 60_000, "write how many milliseconds to wait for them")
	m := s.Metadata
	if m.MaxDeliveries < 1 && c.written("spec.metadata.maxDeliveries") || m.MaxDeliveries > 1000 {
		c.add("spec.metadata.maxDeliveries", strconv.Itoa(m.MaxDeliveries)+" is not between 1 and 1000", "write how often an event is tried before it goes to the deadLetterTopic")
	}
	if m.MaxInFlight < 1 || m.MaxInFlight > 10_000 {
		c.add("spec.metadata.maxInFlight", strconv.Itoa(m.MaxInFlight)+" is not between 1 and 10000", "write how many events are handled at once")
	}
	if m.RetryAfter <= 0 || m.RetryAfter > 30*time.Second {
		c.add("spec.metadata.retryAfter", m.RetryAfter.String()+" is not between 1ms and 30s", "write one such as 500ms")
	}
}

func (c *check) httpEndpoint(s *HTTPEndpoint) {
	u, err := url.Parse(s.BaseURL)
	switch {
	case s.BaseURL == "":
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		c.add("spec.baseUrl", strconv.Quote(s.BaseURL)+" is not a URL", "write one such as https://api.example.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		c.add("spec.baseUrl", "has a user, a query or a fragment", "write scheme, host and path alone")
	}
	c.metadata("spec.headers", s.Headers, s.SecretStore)
	for i, h := range s.Headers {
		if h.Name != "" && !headerForm.MatchString(h.Name) {
			c.add(fmt.Sprintf("spec.headers[%d].name", i), strconv.Quote(h.Name)+" is not the name of a header", "write letters, digits and -")
		}
	}
	t := s.ClientTLS
	if t == nil {
		return
	}
	for _, d := range []struct {
		name string
		doc  *TLSDocument
	}{{"rootCA", t.RootCA}, {"certificate", t.Certificate}, {"privateKey", t.PrivateKey}} {
		at := "spec.clientTLS." + d.name
		if d.doc == nil {
			continue
		}
		if (d.doc.Value == "") == (d.doc.SecretKeyRef == nil) {
			c.add(at, "has not just one of value and secretKeyRef", "write one of them")
		}
		c.secretRef(at+".secretKeyRef", d.doc.SecretKeyRef, s.SecretStore)
	}
	if (t.Certificate == nil) != (t.PrivateKey == nil) {
		c.add("spec.clientTLS", "a certificate and its key come together", "write certificate and privateKey")
	}
}

func (c *check) resiliency(s *Resiliency) {
	p := s.Policies
	for _, name := range slices.Sorted(maps.Keys(p.Timeouts)) {
		c.time("spec.policies.timeouts."+name, p.Timeouts[name], 0, day)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Retries)) {
		r, at := p.Retries[name], "spec.policies.retries."+name+"."
		c.time(at+"duration", r.Duration, 0, day)
		c.time(at+"maxInterval", r.MaxInterval, 0, day)
		if r.MaxRetries != nil {
			c.between(at+"maxRetries", *r.MaxRetries, -1, 1_000_000, "write how often it is tried again, -1 for ever")
		}
		if r.Matching != nil {
			c.codes(at+"matching.httpStatusCodes", string(r.Matching.HTTPStatusCodes), 100, 599)
			c.codes(at+"matching.gRPCStatusCodes", string(r.Matching.GRPCStatusCodes), 0, 16)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.CircuitBreakers)) {
		b, at := p.CircuitBreakers[name], "spec.policies.circuitBreakers."+name+"."
		c.between(at+"maxRequests", b.MaxRequests, 0, 1000, "write how many requests may try the target")
		c.time(at+"interval", b.Interval, 0, day)
		c.time(at+"timeout", b.Timeout, 0, day)
	}
	named := func(at string, n PolicyNames) {
		has(c, at+".timeout", n.Timeout, p.Timeouts, nil)
		has(c, at+".retry", n.Retry, p.Retries, builtInRetries)
		has(c, at+".circuitBreaker", n.CircuitBreaker, p.CircuitBreakers, nil)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Targets.Apps)) {
		t := s.Targets.Apps[name]
		named("spec.targets.apps."+name, PolicyNames{t.Timeout, t.Retry, t.CircuitBreaker})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Targets.Actors)) {
		t := s.Targets.Actors[name]
		named("spec.targets.actors."+name, PolicyNames{t.Timeout, t.Retry, t.CircuitBreaker})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Targets.Components)) {
		t := s.Targets.Components[name]
		named("spec.targets.components."+name+".inbound", t.Inbound)
		named("spec.targets.components."+name+".outbound", t.Outbound)
	}
}

// builtInRetries are policies that are there without being declared.
var builtInRetries = []string{
	"DaprBuiltInServiceRetries", "DaprBuiltInActorRetries", "DaprBuiltInActorReminderRetries", "DaprBuiltInActorNotFoundRetries",
	"DaprBuiltInInitializationRetries",
}

// has checks that a policy is declared.
func has[T any](c *check, at, name string, declared map[string]T, built []string) {
	if _, ok := declared[name]; ok || name == "" || slices.Contains(built, name) {
		return
	}
	kind := at[strings.LastIndexByte(at, '.')+1:]
	known := slices.Sorted(maps.Keys(declared))
	hint := "declare it below spec.policies"
	if len(known) > 0 {
		hint = meant(name, known, "declare it below spec.policies, or name one of ")
	}
	c.add(at, fmt.Sprintf("there is no %s policy %q", kind, name), hint)
}

// codes checks a list of numbers and ranges: 429,500-599.
func (c *check) codes(at, list string, low, high int) {
	if _, err := ParseCodes(list, low, high); err != nil {
		c.add(at, err.Error(), fmt.Sprintf("write numbers from %d to %d and ranges, such as %d,%d-%d", low, high, low, high-1, high))
	}
}

// ParseCodes reads a list of numbers and ranges between low and high, and returns all numbers that it names.
func ParseCodes(list string, low, high int) ([]int, error) {
	var all []int
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err := strconv.Atoi(strings.TrimSpace(first))
		b, err2 := strconv.Atoi(strings.TrimSpace(last))
		if err != nil || err2 != nil || a < low || b > high || a > b {
			return nil, fmt.Errorf("%q is no code or range of codes between %d and %d", part, low, high)
		}
		for n := a; n <= b; n++ {
			all = append(all, n)
		}
	}
	return all, nil
}

func (c *check) configuration(s *Configuration) {
	for i, sc := range s.Secrets.Scopes {
		at := fmt.Sprintf("spec.secrets.scopes[%d].", i)
		c.daprName(at+"storeName", sc.StoreName)
		if slices.ContainsFunc(s.Secrets.Scopes[:i], func(o SecretsScope) bool { return o.StoreName == sc.StoreName }) {
			c.add(at+"storeName", strconv.Quote(sc.StoreName)+" is there twice", "keep one of them")
		}
	}
	for i, h := range handlers(s.HTTPPipeline) {
		c.handler(fmt.Sprintf("spec.httpPipeline.handlers[%d].", i), h)
	}
	for i, h := range handlers(s.AppHTTPPipeline) {
		c.handler(fmt.Sprintf("spec.appHttpPipeline.handlers[%d].", i), h)
	}
	if s.Metric != nil && s.Metrics != nil {
		c.add("spec.metric", "is beside metrics, and only one of them can be", "keep metrics")
	}
}

func handlers(p *Pipeline) []Handler {
	if p == nil {
		return nil
	}
	return p.Handlers
}

func (c *check) handler(at string, h Handler) {
	c.daprName(at+"name", h.Name)
	if h.Type != "" && !strings.HasPrefix(h.Type, "middleware.http.") {
		c.add(at+"type", strconv.Quote(h.Type)+" is not a middleware type", "write one such as middleware.http.ratelimit")
	}
}
