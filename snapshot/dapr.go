package snapshot

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/resource"
)

// capabilitySettings are the names of metadata that belong to a capability, whatever the technology: no factory sees them.
var capabilitySettings = map[string][]string{
	"state": {
		"keyPrefix", "primaryEncryptionKey", "secondaryEncryptionKey", "outboxPublishPubsub", "outboxPublishTopic", "outboxPubsub",
		"outboxDiscardWhenMissingState", "actorStateStore",
	},
	"pubsub":   {"publishingScopes", "subscriptionScopes", "allowedTopics", "protectedTopics"},
	"lock":     {"keyPrefix"},
	"config":   {"keyPrefix"},
	"sequence": {"keyPrefix"},
	"binding":  {"direction", "route"},
}

// IsSetting tells whether metadata of that name belongs to a capability, whatever the technology.
func IsSetting(capability, name string) bool {
	_, ok := named(capabilitySettings[capability], name)
	return ok
}

// factory is the one of that name.
func (b *builder) factory(typ string) (loam.Factory, bool) {
	i := slices.IndexFunc(b.env.Factories, func(f loam.Factory) bool { return f.Named(typ) })
	if i < 0 {
		return loam.Factory{}, false
	}
	return b.env.Factories[i], true
}

// isSecret tells whether the first object that is there is a secret component that needs no other one.
func (b *builder) isSecret(objects ...*resource.Object) bool {
	for _, o := range objects {
		if o == nil {
			continue
		}
		s := o.Spec.(*resource.Component)
		f, ok := b.factory(s.Type)
		return ok && f.Capability() == "secret" && s.SecretStore == ""
	}
	return false
}

// elsewhere tells whether an object is for other apps than the one that all is for.
func (b *builder) elsewhere(o *resource.Object) bool {
	return b.env.App != "" && len(o.Scopes) > 0 && !slices.Contains(o.Scopes, b.env.App)
}

func (b *builder) component(o *resource.Object, s *resource.Component) {
	if b.elsewhere(o) {
		return
	}
	if strings.HasPrefix(s.Type, "middleware.") {
		b.middleware[o.Name] = s
		return
	}
	f, ok := b.factory(s.Type)
	if !ok {
		var types []string
		for _, f := range b.env.Factories {
			types = append(append(types, f.Type), f.Aliases...)
		}
		b.fault(unresolved, o.Problem("spec.type", fmt.Sprintf("there is no component type %q", s.Type), meant(s.Type, types, "the types are ")))
		return
	}
	c := Component{
		Name: o.Name, Capability: f.Capability(), Type: s.Type, Version: s.Version, Metadata: map[string]string{}, Scopes: o.Scopes,
		Timeout: s.InitTimeout, Optional: s.IgnoreErrors, Fatal: o.Annotations[resource.FatalAnnotation] == "true",
	}
	for i, m := range s.Metadata {
		to := &c.Metadata
		if name, ok := named(capabilitySettings[c.Capability], m.Name); ok {
			m.Name, to = name, &c.Settings
		}
		if *to == nil {
			*to = map[string]string{}
		}
		if m.SecretKeyRef != nil || m.EnvRef != "" {
			c.Refs = append(c.Refs, b.ref(m, s.SecretStore))
			if m.SecretKeyRef != nil && to == &c.Settings && strings.HasSuffix(m.Name, "EncryptionKey") {
				c.Settings[m.Name+"Name"] = m.SecretKeyRef.Name // what is encrypted bears the secret's name, as Dapr has it
			}
			continue
		}
		(*to)[m.Name] = b.fill(o, fmt.Sprintf("spec.metadata[%d].value", i), string(m.Value))
	}
	if route := c.Settings["route"]; c.Capability == "binding" && strings.ContainsFunc(route, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' || r == '?' }) {
		b.fault(invalid, o.Problem("spec.metadata", fmt.Sprintf("route: %q is no path of a request", route), "write a path such as /"+o.Name))
	}
	if s.SecretStore != "" {
		if len(b.env.Embedded) == 0 || s.SecretStore != "default" {
			b.resolve(o, "auth.secretStore", "secret", s.SecretStore, "")
		}
		if s.SecretStore == o.Name && c.Capability == "secret" {
			b.fault(invalid, o.Problem("auth.secretStore", "is this component itself", "name another one"))
		}
	}
	if len(c.Refs) == 0 { // what is elsewhere is known, and checked, when it is opened
		if err := f.Check(c.Metadata); err != nil {
			why := strings.TrimPrefix(strings.TrimPrefix(err.Error(), f.Type+": invalid argument: "), s.Type+": invalid argument: ")
			b.fault(invalid, o.Problem("spec.metadata", strings.ReplaceAll(why, "\n", ", "), cmp.Or(loam.HintOf(err), "write metadata that "+s.Type+" takes")))
		}
	}
	marked := o.Annotations[resource.DefaultAnnotation]
	chosen := b.defaults[c.Capability]
	if marked == "true" && chosen != "" && chosen != "default" {
		b.fault(conflict, o.Problem("metadata.annotations."+resource.DefaultAnnotation,
			fmt.Sprintf("component %s is the default of %s already", chosen, c.Capability), "keep the annotation on one of them"))
	}
	if len(b.faults.problems) > 0 {
		return
	}
	if marked == "true" || o.Name == "default" && chosen == "" && marked != "false" {
		b.defaults[c.Capability] = o.Name
	}
	b.components[componentKey{c.Capability, o.Name}] = o
	b.plan.Components = append(b.plan.Components, c)
}

// named finds a name without regard to case, as Dapr compares those of metadata.
func named(all []string, name string) (string, bool) {
	for _, n := range all {
		if strings.EqualFold(n, name) {
			return n, true
		}
	}
	return "", false
}

func (b *builder) ref(m resource.Metadata, store string) Ref {
	if m.EnvRef != "" {
		return Ref{Name: m.Name, Env: m.EnvRef}
	}
	return Ref{Name: m.Name, Store: store, Secret: m.SecretKeyRef.Name, Key: cmp.Or(m.SecretKeyRef.Key, m.SecretKeyRef.Name)}
}

// fill writes what Dapr's placeholders stand for that name the app. {uuid} and {podName} are the process's to fill in.
func (b *builder) fill(o *resource.Object, at, text string) string {
	if !strings.Contains(text, "{appID}") && !strings.Contains(text, "{namespace}") {
		return text
	}
	app := b.env.App
	if app == "" && len(o.Scopes) == 1 {
		app = o.Scopes[0]
	}
	if app == "" {
		b.fault(unresolved, o.Problem(at, "holds a placeholder for the app, and the component is for several", "write scopes with one app beside spec, or the value itself"))
		return text
	}
	return strings.NewReplacer("{appID}", app, "{namespace}", "default."+app).Replace(text)
}

func (b *builder) subscription(o *resource.Object, s *resource.Subscription, tolerant bool) {
	if b.elsewhere(o) {
		return
	}
	scopes := o.Scopes
	if b.env.App != "" {
		scopes = []string{b.env.App}
	}
	var subs []Subscription
	component := b.resolve(o, "spec.pubsubname", "pubsub", s.Pubsubname, "")
	if len(scopes) == 0 {
		b.fault(unresolved, o.Problem("scopes", "the events go to nobody", "write scopes: ["+b.anyTarget()+"] beside spec, naming functions or apps"))
	}
	whole := Subscription{
		Name: o.Name, Component: component, Topic: s.Topic, Path: s.Routes.Default, DeadLetter: s.DeadLetterTopic,
		Deliveries: s.Metadata.MaxDeliveries, InFlight: s.Metadata.MaxInFlight, RetryAfter: s.Metadata.RetryAfter, Raw: s.Metadata.RawPayload,
	}
	if n := s.BulkSubscribe; n.Enabled {
		whole.Bulk = cmp.Or(n.MaxMessagesCount, 100)
		whole.BulkWait = time.Duration(cmp.Or(n.MaxAwaitDurationMs, 1000)) * time.Millisecond
		whole.InFlight = max(whole.InFlight, whole.Bulk)
	}
	for name, value := range s.Metadata.Others {
		if whole.Metadata == nil {
			whole.Metadata = map[string]string{}
		}
		whole.Metadata[name] = string(value)
	}
	for i, r := range s.Routes.Rules {
		if b.env.CheckMatch != nil && r.Match != "" {
			if err := b.env.CheckMatch(r.Match); err != nil {
				b.fault(invalid, o.Problem(fmt.Sprintf("spec.routes.rules[%d].match", i), "is no expression in CEL: "+err.Error(), `write one such as event.type == "order.created"`))
			}
		}
		whole.Rules = append(whole.Rules, EventRule(r))
	}
	bad := len(b.faults.problems) > 0
	for i, name := range scopes {
		at := fmt.Sprintf("scopes[%d]", i)
		ref, ok := b.targets[name]
		if !ok {
			b.missing(o, unresolved, at, []string{"Function", "App"}, name)
			continue
		}
		before := len(b.faults.problems)
		if !bad {
			b.resolve(o, at, "pubsub", s.Pubsubname, name)
		}
		id := component + "\x00" + s.Topic + "\x00" + name
		if other, ok := b.subscribed[id]; ok {
			b.fault(conflict, o.Problem(at, fmt.Sprintf("Subscription/%s delivers topic %s to %s already", other, s.Topic, name), "delete one of them: a target gets an event once"))
		}
		if len(b.faults.problems) > before {
			continue
		}
		sub := whole
		sub.Target, sub.Group = ref, name
		if sub.Deliveries == 0 {
			sub.Deliveries = 5
			if slices.ContainsFunc(b.plan.APIs, func(a API) bool { return a.App == name && a.Dialect == "dapr" }) {
				sub.Deliveries = 1 // Dapr leaves tries to Resiliency
			}
		}
		subs = append(subs, sub)
	}
	if bad || len(b.faults.problems) > 0 && !tolerant {
		return
	}
	for _, sub := range subs {
		b.subscribed[component+"\x00"+s.Topic+"\x00"+sub.Target.Name] = o.Name
	}
	b.plan.Subscriptions = append(b.plan.Subscriptions, subs...)
}

// inputs are what bindings read for the functions and apps in their scopes: to be named there is to want it.
func (b *builder) inputs() {
	for _, c := range b.plan.Components {
		direction := strings.ToLower(c.Settings["direction"])
		if c.Capability != "binding" || direction != "" && !strings.Contains(direction, "input") {
			continue
		}
		path := "/" + strings.TrimLeft(cmp.Or(c.Settings["route"], c.Name), "/")
		for _, name := range c.Scopes {
			asked := slices.ContainsFunc(b.plan.APIs, func(a API) bool { return a.App == name && a.Target })
			if ref, ok := b.targets[name]; ok && !asked && b.program(ref) {
				b.plan.Inputs = append(b.plan.Inputs, Input{c.Name, path, ref})
			}
		}
	}
}

// program tells whether there is something to send requests to.
func (b *builder) program(ref TargetRef) bool {
	return ref.Kind == "Function" || slices.ContainsFunc(b.plan.Apps, func(a App) bool { return a.Name == ref.Name && a.Program() })
}

func (b *builder) httpEndpoint(o *resource.Object, s *resource.HTTPEndpoint) {
	if b.elsewhere(o) {
		return
	}
	e := HTTPEndpoint{Name: o.Name, URL: strings.TrimRight(s.BaseURL, "/"), Scopes: o.Scopes}
	if ref, ok := b.targets[o.Name]; ok {
		b.fault(conflict, o.Problem("metadata.name", fmt.Sprintf("%s/%s has that name", ref.Kind, ref.Name), "give one of them another name"))
	}
	for i, h := range s.Headers {
		if h.SecretKeyRef != nil || h.EnvRef != "" {
			e.Refs = append(e.Refs, b.ref(h, s.SecretStore))
			continue
		}
		if e.Headers == nil {
			e.Headers = map[string]string{}
		}
		e.Headers[h.Name] = b.fill(o, fmt.Sprintf("spec.headers[%d].value", i), string(h.Value))
	}
	if t := s.ClientTLS; t != nil {
		for _, d := range []struct {
			name string
			doc  *resource.TLSDocument
			to   *resource.Sensitive
		}{{"rootCA", t.RootCA, &e.RootCA}, {"certificate", t.Certificate, &e.Certificate}, {"privateKey", t.PrivateKey, &e.PrivateKey}} {
			switch {
			case d.doc == nil:
			case d.doc.SecretKeyRef != nil:
				e.Refs = append(e.Refs, b.ref(resource.Metadata{Name: "clientTLS." + d.name, SecretKeyRef: d.doc.SecretKeyRef}, s.SecretStore))
			default:
				*d.to = d.doc.Value
			}
		}
	}
	if s.SecretStore != "" {
		b.resolve(o, "auth.secretStore", "secret", s.SecretStore, "")
	}
	if len(b.faults.problems) > 0 {
		return
	}
	b.endpoints[o.Name] = o.Key()
	b.plan.HTTPEndpoints = append(b.plan.HTTPEndpoints, e)
}

// apis are what an app is served.
func (b *builder) apis(o *resource.Object, s *resource.App, caller loam.Caller) []API {
	program := s.Address != "" || len(s.Command) > 0 || s.Source != ""
	base := API{
		App: o.Name, Caller: caller, Target: program, Protocol: s.Protocol, Address: s.Address, MaxConcurrency: s.MaxConcurrency,
		Resiliency: b.resiliencyOf(o.Name),
	}
	if h := s.Health; h.Interval > 0 && program {
		base.Health = &AppHealth{Path: cmp.Or(h.Path, "/healthz"), Interval: h.Interval, Timeout: h.Timeout, Threshold: h.Threshold}
	}
	var all []API
	tcp := func(a *API, name string, addresses []string) {
		for _, at := range addresses {
			if path, ok := strings.CutPrefix(at, "unix:"); ok {
				a.Sockets = append(a.Sockets, APISocket{name, "unix", beside(o, filepath.Clean(path))})
				continue
			}
			a.Sockets = append(a.Sockets, APISocket{name, "tcp", at})
		}
	}
	if d := s.API.Dapr; d != nil {
		a := base
		a.Dialect, a.Token, a.TokenEnv, a.AppToken, a.AppTokenEnv = "dapr", d.Token, d.TokenEnv, d.AppToken, d.AppTokenEnv
		a.MaxBody, a.Namespace, a.AllowedOrigins = int64(d.MaxBody), d.Namespace, d.AllowedOrigins
		if d.SocketDir == "" {
			tcp(&a, "http", d.HTTP)
			tcp(&a, "grpc", d.GRPC)
		} else {
			for _, name := range []string{"http", "grpc"} {
				path := filepath.Join(beside(o, d.SocketDir), "dapr-"+o.Name+"-"+name+".socket")
				a.Sockets = append(a.Sockets, APISocket{name, "unix", path})
			}
		}
		tcp(&a, "internal", d.Internal)
		tcp(&a, "public", d.Public)
		a.Dapr, a.Caller.Denied = b.configure(o, d.Configuration, caller.Denied)
		a.Dapr.MTLS, a.Silent = d.MTLS, d.NoSubscriptions
		a.Dapr.LogCalls = a.Dapr.LogCalls || d.LogCalls
		all = append(all, a)
	}
	if l := s.API.Layotto; l != nil {
		a := base
		a.Dialect, a.MaxBody, a.Namespace = "layotto", int64(l.MaxBody), "default"
		tcp(&a, "grpc", l.GRPC)
		tcp(&a, "http", l.HTTP)
		all = append(all, a)
	}
	mine := map[string]string{}
	for _, a := range all {
		for _, sock := range a.Sockets {
			if _, port, err := net.SplitHostPort(sock.Address); sock.Network == "tcp" && (err != nil || port == "0") {
				continue
			}
			at := "spec.api." + a.Dialect + "." + sock.Name
			if other := cmp.Or(b.addresses[sock.Address], mine[sock.Address]); other != "" {
				b.fault(conflict, o.Problem(at, fmt.Sprintf("%s has %s already", other, sock.Address), "write another address"))
			}
			mine[sock.Address] = o.Key()
		}
	}
	if len(b.faults.problems) == 0 {
		maps.Copy(b.addresses, mine)
	}
	return all
}

// configuration enters a Configuration: what it comes to is an app's to ask.
func (b *builder) configuration(o *resource.Object, s *resource.Configuration) {
	b.pipeline(o, "spec.httpPipeline", s.HTTPPipeline)
	b.pipeline(o, "spec.appHttpPipeline", s.AppHTTPPipeline)
	if a := s.AccessControl; a != nil && (a.DefaultAction == "deny" || len(a.Policies) > 0) && (s.MTLS == nil || !s.MTLS.Enabled) {
		b.warn(o.Problem("spec.accessControl", "callers that other sidecars speak for do not prove who they are yet: defaultAction holds for all of them", "have apps that are named here in one Loam with this one"))
	}
	if n := s.NameResolution; n != nil && n.Component != "" && !slices.Contains(nameResolutions, n.Component) {
		b.fault(unresolved, o.Problem("spec.nameResolution.component", fmt.Sprintf("there is no name resolution %q", n.Component), meant(n.Component, nameResolutions, "it is one of ")))
	}
	if t := s.Tracing; t != nil && (t.Stdout || t.Zipkin != nil || t.OTel != nil) {
		b.warn(o.Problem("spec.tracing", "spans are not exported yet; trace context is passed on", "delete the exporters, or leave them for later"))
	}
	if m := s.MTLS; m != nil && m.Enabled {
		b.warn(o.Problem("spec.mtls", "sidecars do not prove who they are to each other yet", "keep their internal ports in a network of their own"))
	}
	for _, m := range []*resource.Metrics{s.Metric, s.Metrics} {
		if m != nil && (m.HTTP != nil || len(m.Rules) > 0 || len(m.LatencyDistributionBuckets) > 0 || m.RecordErrorCodes) {
			b.warn(o.Problem("spec.metrics", "only enabled has an effect", "delete the rest, or leave it for later"))
		}
	}
	if l := s.Logging; l != nil && l.APILogging != nil && (l.APILogging.ObfuscateURLs || l.APILogging.OmitHealthChecks) {
		b.warn(o.Problem("spec.logging.apiLogging", "only enabled has an effect", "delete the rest, or leave it for later"))
	}
	if s.Workflow != nil {
		b.warn(o.Problem("spec.workflow", "there are no workflows yet", "delete it, or leave it for later"))
	}
	if len(b.faults.problems) == 0 {
		b.configurations[o.Name] = s
	}
}

// nameResolutions are the ways in which apps find each other.
var nameResolutions = []string{"mdns", "registry"}

// configure is what the Configurations of those names come to for an app, and what they deny beside denied. Of two that
// say something, the later counts, section by section.
func (b *builder) configure(o *resource.Object, names []string, denied []loam.Grant) (Configuration, []loam.Grant) {
	var all resource.Configuration
	for i, name := range names {
		at := fmt.Sprintf("spec.api.dapr.configuration[%d]", i)
		s := b.configurations[name]
		if s == nil {
			if e := b.entries["Configuration/"+name]; e != nil {
				b.fault(unresolved, o.Problem(at, "Configuration/"+name+" is broken", "mend it, "+e.where(o.File)))
			} else {
				known := slices.Sorted(maps.Keys(b.configurations))
				b.fault(unresolved, o.Problem(at, fmt.Sprintf("there is no Configuration %q", name), meant(name, known, "declare it, or name one of ")))
			}
			continue
		}
		overlay(reflect.ValueOf(&all).Elem(), reflect.ValueOf(s).Elem())
	}
	c := Configuration{NameResolution: "mdns"}
	for _, r := range all.API.Allowed {
		c.Allowed = append(c.Allowed, AccessRule(r))
	}
	for _, r := range all.API.Denied {
		c.Denied = append(c.Denied, AccessRule(r))
	}
	for _, f := range all.Features {
		if f.Enabled {
			c.Features = append(c.Features, f.Name)
		}
	}
	if n := all.NameResolution; n != nil {
		c.NameResolution = cmp.Or(n.Component, "mdns")
		for name, value := range n.Configuration {
			if c.Resolution == nil {
				c.Resolution = map[string]string{}
			}
			c.Resolution[name] = string(value)
		}
	}
	if a := all.AccessControl; a != nil {
		c.DefaultDeny, c.TrustDomain = a.DefaultAction == "deny", a.TrustDomain
		for _, p := range a.Policies {
			deny := c.DefaultDeny
			if p.DefaultAction != "" {
				deny = p.DefaultAction == "deny"
			}
			out := AccessFor{App: p.AppID, TrustDomain: p.TrustDomain, Namespace: p.Namespace, Deny: deny}
			for _, op := range p.Operations {
				methods := op.HTTPVerb
				if slices.Contains(methods, "*") {
					methods = nil
				}
				out.Operations = append(out.Operations, AccessOperation{op.Name, methods, op.Action == "deny"})
			}
			c.AccessPolicies = append(c.AccessPolicies, out)
		}
	}
	c.Pipeline, c.AppPipeline = b.pipeline(o, "spec.api.dapr.configuration", all.HTTPPipeline), b.pipeline(o, "spec.api.dapr.configuration", all.AppHTTPPipeline)
	if l := all.Logging; l != nil && l.APILogging != nil && l.APILogging.Enabled != nil {
		c.LogCalls = *l.APILogging.Enabled
	}
	for _, m := range []*resource.Metrics{all.Metric, all.Metrics} {
		c.NoMetrics = c.NoMetrics || m != nil && m.Enabled != nil && !*m.Enabled
	}
	denied = slices.Clone(denied)
	for _, s := range all.Secrets.Scopes {
		g := loam.Grant{Capability: "secret", Component: s.StoreName}
		switch {
		case len(s.AllowedSecrets) > 0:
			g.Except = s.AllowedSecrets
		case s.DefaultAccess == "deny":
		case len(s.DeniedSecrets) > 0:
			g.Names = s.DeniedSecrets
		default:
			continue
		}
		denied = append(denied, g)
	}
	for _, comp := range b.plan.Components {
		if slices.ContainsFunc(all.Components.Deny, func(typ string) bool { return comp.isType(typ) }) {
			denied = append(denied, loam.Grant{Capability: comp.Capability, Component: comp.Name})
		}
	}
	return c, denied
}

// overlay sets the fields of a struct that another one says.
func overlay(to, from reflect.Value) {
	for i := range from.NumField() {
		switch f := from.Field(i); {
		case f.Kind() == reflect.Struct && f.CanInterface():
			overlay(to.Field(i), f)
		case f.CanInterface() && !f.IsZero():
			to.Field(i).Set(f)
		}
	}
}

// isType tells whether a component is of a type as a Configuration denies it: state.redis, state.redis/v1, state.*.
func (c Component) isType(typ string) bool {
	name, version, said := strings.Cut(typ, "/")
	if said && version != c.Version {
		return false
	}
	prefix, all := strings.CutSuffix(name, "*")
	return name == c.Type || all && strings.HasPrefix(c.Type, prefix)
}

// pipeline is the policies that middleware comes to. Where there is no counterpart, o, which names it at a path, is broken.
func (b *builder) pipeline(o *resource.Object, at string, p *resource.Pipeline) Policy {
	if p == nil {
		return Policy{}
	}
	var all layer
	for i, h := range p.Handlers {
		here := fmt.Sprintf("%s.handlers[%d]", at, i)
		c := b.middleware[h.Name]
		if c == nil {
			known := slices.Sorted(maps.Keys(b.middleware))
			b.fault(unresolved, o.Problem(here+".name", fmt.Sprintf("there is no middleware component %q", h.Name), meant(h.Name, known, "declare it, or name one of ")))
			continue
		}
		if c.Type != h.Type {
			b.fault(unresolved, o.Problem(here+".type", fmt.Sprintf("component %s is of type %s", h.Name, c.Type), "write type: "+c.Type))
			continue
		}
		one, err := middlewarePolicy(h.Name, c)
		if err != nil {
			b.fault(invalid, o.Problem(here, err.Error(), cmp.Or(loam.HintOf(err), "delete it")))
			continue
		}
		all = all.and(layer{Policy: one})
	}
	return all.policy(o.Key()+" "+at, Section{})
}

// middlewarePolicy is the policy that a middleware component comes to.
func middlewarePolicy(name string, c *resource.Component) (Policy, error) {
	values := map[string]string{}
	for _, m := range c.Metadata {
		if m.SecretKeyRef != nil || m.EnvRef != "" {
			return Policy{}, &loam.Error{Code: loam.Unimplemented, Op: "component " + name, Err: fmt.Errorf("metadata %s: middleware takes values only, so far", m.Name), Hint: "write its value"}
		}
		values[strings.ToLower(m.Name)] = string(m.Value)
	}
	take := func(names ...string) (value string) {
		for _, n := range names {
			value = cmp.Or(value, values[strings.ToLower(n)])
			delete(values, strings.ToLower(n))
		}
		return value
	}
	wrong := func(hint, format string, args ...any) (Policy, error) {
		return Policy{}, &loam.Error{Code: loam.InvalidArgument, Op: "component " + name, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	var p Policy
	switch c.Type {
	case "middleware.http.ratelimit":
		text := take("maxRequestsPerSecond")
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || n <= 0 || n > 1e6 {
			return wrong("write maxRequestsPerSecond: 10", "metadata maxRequestsPerSecond: %q is no number of requests", text)
		}
		r := RateLimit{State: "Component/" + name + " ratelimit", Requests: int(n), Per: time.Second, Burst: max(1, int(n)), By: "client"}
		if n < 1 || n != float64(int(n)) {
			r.Requests, r.Per = 1, time.Duration(float64(time.Second)/n)
		}
		p.RateLimits = []RateLimit{r}
	case "middleware.http.bearer":
		j := JWT{Issuer: take("issuer", "issuerURL"), URL: take("jwksURL")}
		audience := take("audience", "clientID")
		if j.Issuer == "" || audience == "" {
			return wrong("write issuer and audience", "metadata issuer and audience are needed")
		}
		if j.URL == "" {
			return wrong("write jwksURL: the jwks_uri that stands in "+strings.TrimRight(j.Issuer, "/")+"/.well-known/openid-configuration", "metadata jwksURL is missing")
		}
		j.Audiences = []string{audience}
		p.Authn = &Authn{JWT: []JWT{j}}
	case "middleware.http.routerchecker":
		rule := take("rule")
		if rule == "" {
			return wrong("write rule: ^[A-Za-z0-9/._-]+$", "metadata rule is missing")
		}
		p.Authz = [][]Rule{{{Deny: true, Expression: "!request.path.matches(" + strconv.Quote(rule) + ")", Message: "the path is not allowed", Where: "Component/" + name}}}
	default:
		hints := map[string]string{
			"middleware.http.wasm":        "declare a Function of ABI http-wasm, and route to it",
			"middleware.http.routeralias": "write an HTTPRoute with a filter of type URLRewrite",
			"middleware.http.oauth2":      "use middleware.http.bearer with the tokens of the same issuer",
			"middleware.http.opa":         "write a Policy with authz rules in CEL",
			"middleware.http.sentinel":    "write a Policy with rateLimit, breaker or bulkhead",
		}
		return Policy{}, &loam.Error{
			Code: loam.Unimplemented, Op: "component " + name, Err: fmt.Errorf("%s has no counterpart here", c.Type),
			Hint: cmp.Or(hints[c.Type], "the types that have one are middleware.http.ratelimit, middleware.http.bearer, middleware.http.routerchecker"),
		}
	}
	if len(values) > 0 {
		left := strings.Join(slices.Sorted(maps.Keys(values)), ", ")
		return wrong("delete it", "metadata %s: unknown", left)
	}
	return p, nil
}
