package snapshot

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/loam-run/loam/resource"
)

// Who wins where several policies hold for a request. They come in layers: what is attached to the Gateway, to its
// listener, to the route, to its rule, then what the rule's own filters and fields say. An inner layer replaces what an
// outer one says, section by section; a timeout, a limit, and jwt and mtls of authn each for itself. Rate limits, rules
// of authz and mirrors add up: an inner layer cannot lift them. What is attached to a target is a stack of its own,
// round the target; the backendRef's filters are innermost there. Only of retries and hedges what the rule says replaces
// what the target says, so that tries do not multiply.
//
// A layer is one of these, or several merged.
type layer struct {
	Policy
	timeout     resource.PolicyTimeout // in place of Policy.Timeout: nil is not said
	connections resource.Connections
}

// stack merges layers, the outermost first.
func stack(lists ...[]layer) layer {
	var all layer
	for _, list := range lists {
		for _, l := range list {
			all = all.and(l)
		}
	}
	return all
}

// and is l with inner inside it.
func (l layer) and(inner layer) layer {
	p, q := l.Policy, inner.Policy
	return layer{
		timeout: resource.PolicyTimeout{
			Request: cmp.Or(inner.timeout.Request, l.timeout.Request), BackendRequest: cmp.Or(inner.timeout.BackendRequest, l.timeout.BackendRequest),
			Idle: cmp.Or(inner.timeout.Idle, l.timeout.Idle),
		},
		connections: resource.Connections{
			Max: cmp.Or(inner.connections.Max, l.connections.Max), MaxStreams: cmp.Or(inner.connections.MaxStreams, l.connections.MaxStreams),
			HeaderTimeout: cmp.Or(inner.connections.HeaderTimeout, l.connections.HeaderTimeout),
			IdleTimeout:   cmp.Or(inner.connections.IdleTimeout, l.connections.IdleTimeout), MinRate: cmp.Or(inner.connections.MinRate, l.connections.MinRate),
		},
		Policy: Policy{
			Broken:    cmp.Or(p.Broken, q.Broken),
			AccessLog: cmp.Or(q.AccessLog, p.AccessLog), Limits: q.Limits.within(p.Limits), CORS: cmp.Or(q.CORS, p.CORS), Authn: q.Authn.within(p.Authn),
			Authz: slices.Concat(p.Authz, q.Authz), RateLimits: slices.Concat(p.RateLimits, q.RateLimits), Fault: cmp.Or(q.Fault, p.Fault),
			Bulkhead: cmp.Or(q.Bulkhead, p.Bulkhead), Adaptive: cmp.Or(q.Adaptive, p.Adaptive), Compression: cmp.Or(q.Compression, p.Compression),
			Redirect: cmp.Or(q.Redirect, p.Redirect), RequestHeaders: cmp.Or(q.RequestHeaders, p.RequestHeaders),
			ResponseHeaders: cmp.Or(q.ResponseHeaders, p.ResponseHeaders), Rewrite: cmp.Or(q.Rewrite, p.Rewrite), Mirrors: slices.Concat(p.Mirrors, q.Mirrors),
			Retry: cmp.Or(q.Retry, p.Retry), Hedge: cmp.Or(q.Hedge, p.Hedge), Breaker: cmp.Or(q.Breaker, p.Breaker),
		},
	}
}

func (l *Limits) within(outer *Limits) *Limits {
	if l == nil || outer == nil {
		return cmp.Or(l, outer)
	}
	return &Limits{cmp.Or(l.HeaderBytes, outer.HeaderBytes), cmp.Or(l.HeaderCount, outer.HeaderCount), cmp.Or(l.BodyBytes, outer.BodyBytes)}
}

func (a *Authn) within(outer *Authn) *Authn {
	if a == nil || outer == nil {
		return cmp.Or(a, outer)
	}
	both := &Authn{JWT: a.JWT, MTLS: cmp.Or(a.MTLS, outer.MTLS)}
	if len(both.JWT) == 0 {
		both.JWT = outer.JWT
	}
	return both
}

// without leaves the tries of a backend to its rule, where that says how often.
func (l layer) without(rule layer) layer {
	if rule.Retry != nil {
		l.Retry = nil
	}
	if rule.Hedge != nil {
		l.Hedge = nil
	}
	return l
}

// policy is what a layer comes to for a rule at a section; both are empty for a target itself.
func (l layer) policy(rule string, at Section) Policy {
	p := l.Policy
	if t := l.timeout; t.Request != nil || t.BackendRequest != nil || t.Idle != nil {
		p.Timeout = &Timeout{Request: or0(t.Request), BackendRequest: or0(t.BackendRequest), Idle: or0(t.Idle)}
	}
	p.RateLimits = slices.Clone(p.RateLimits)
	for i := range p.RateLimits {
		r := &p.RateLimits[i]
		if r.By == "route" {
			if r.By = "all"; rule != "" {
				r.State += " of " + rule
			}
		}
		r.State = state(r.State, *r)
	}
	if p.Bulkhead != nil {
		c := *p.Bulkhead
		c.State = state(c.State, c)
		p.Bulkhead = &c
	}
	if p.Adaptive != nil {
		c := *p.Adaptive
		c.State = state(c.State, c)
		p.Adaptive = &c
	}
	if p.Breaker != nil {
		c := *p.Breaker
		c.State = state(c.State, c)
		p.Breaker = &c
	}
	if p.Retry != nil {
		c := *p.Retry
		c.State = state(c.State, []any{c.BudgetPercent, c.BudgetMin})
		p.Retry = &c
	}
	if p.Redirect != nil {
		p.Redirect = p.Redirect.at(at)
	}
	return p
}

// state is the name of a count with what it counts by: when that changes, it begins anew.
func state(name string, counts any) string { return name + " " + Hash(counts)[:6] }

func or0[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// at completes a redirect by the listener that is asked: without a scheme its scheme and port stay, with one the port is
// that scheme's, and a scheme's own port is not written.
func (r *Redirect) at(section Section) *Redirect {
	own := map[string]int{"http": 80, "https": 443}
	out := *r
	if out.Scheme == "" {
		out.Scheme = "http"
		if section.Protocol == "HTTPS" {
			out.Scheme = "https"
		}
		out.Port = cmp.Or(out.Port, section.Port)
	}
	if out.Port == own[out.Scheme] {
		out.Port = 0
	}
	return &out
}

// policy compiles a resource of kind Policy and attaches it.
func (b *builder) policy(o *resource.Object, s *resource.Policy) {
	l := b.lower(o, s)
	ids := make([]string, 0, len(s.TargetRefs))
	said := map[string]string{}
	for i, t := range s.TargetRefs {
		at := fmt.Sprintf("spec.targetRefs[%d]", i)
		id := t.Kind + "/" + t.Name
		b.attachable(o, at, t)
		if t.SectionName != "" {
			id += " " + t.SectionName
		}
		for _, section := range sections(s) {
			key := id + "\x00" + section
			if other := b.said[key]; other != "" {
				b.fault(conflicted, o.Problem("spec."+section, fmt.Sprintf("%s says that of %s already", other, id), "keep it in one of them"))
			}
			said[key] = o.Key()
		}
		ids = append(ids, id)
	}
	if len(b.faults.problems) > 0 {
		return
	}
	for key := range said {
		b.said[key] = o.Key()
	}
	for _, id := range ids {
		b.attached[id] = append(b.attached[id], l.counting(id))
	}
	b.policies[o.Name] = &l
}

// attachable reports a target that is not there.
func (b *builder) attachable(o *resource.Object, at string, t resource.PolicyTarget) {
	key := t.Kind + "/" + t.Name
	e := b.entries[key]
	if e == nil && key == "Gateway/default" && !slices.ContainsFunc(b.order, func(e *entry) bool { return e.kind == "Gateway" }) {
		if t.SectionName != "" && t.SectionName != "http" {
			b.fault(targetNotFound, o.Problem(at+".sectionName", key+" has no listener "+t.SectionName, "its only one is http"))
		}
		return
	}
	if e == nil {
		var names []string
		for _, other := range b.order {
			if kind, name, _ := strings.Cut(other.status.Key, "/"); kind == t.Kind {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		hint := "declare it"
		if len(names) > 0 {
			hint = meant(t.Name, names, "declare it, or name one of ")
		}
		b.fault(targetNotFound, o.Problem(at+".name", fmt.Sprintf("there is no %s %q", t.Kind, t.Name), hint))
		return
	}
	if t.SectionName == "" || e.object == nil {
		return
	}
	var names []string
	switch s := e.object.Spec.(type) {
	case *resource.Gateway:
		for _, l := range s.Listeners {
			names = append(names, l.Name)
		}
	case *resource.HTTPRoute:
		for _, r := range s.Rules {
			names = append(names, r.Name)
		}
	case *resource.GRPCRoute:
		for _, r := range s.Rules {
			names = append(names, r.Name)
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "" })
	if !slices.Contains(names, t.SectionName) {
		hint := "give the rule that name"
		if len(names) > 0 {
			hint = meant(t.SectionName, names, "its sections are ")
		}
		b.fault(targetNotFound, o.Problem(at+".sectionName", fmt.Sprintf("%s has no section %q", key, t.SectionName), hint))
	}
}

// sections are those of a policy that only one can say of a target.
func sections(s *resource.Policy) []string {
	var all []string
	for _, one := range []struct {
		name string
		said bool
	}{
		{"timeout", s.Timeout != nil}, {"retry", s.Retry != nil}, {"hedge", s.Hedge != nil}, {"breaker", s.Breaker != nil},
		{"bulkhead", s.Bulkhead != nil}, {"adaptiveConcurrency", s.AdaptiveConcurrency != nil}, {"fault", s.Fault != nil},
		{"authn", s.Authn != nil}, {"compression", s.Compression != nil}, {"limits", s.Limits != nil}, {"cors", s.CORS != nil},
		{"connections", s.Connections != nil}, {"accessLog", s.AccessLog != nil},
	} {
		if one.said {
			all = append(all, one.name)
		}
	}
	return all
}

// closePolicy has what a broken policy was to protect refuse all requests: who it was to keep out must not come in.
func (b *builder) closePolicy(e *entry) {
	var targets []resource.PolicyTarget
	if e.object != nil {
		if p := e.object.Spec.(*resource.Policy); p.Protects() {
			targets = p.TargetRefs
		}
	} else if len(e.status.Problems) > 0 {
		targets = e.status.Problems[0].Protects
	}
	for _, t := range targets {
		id := t.Kind + "/" + t.Name
		if t.SectionName != "" {
			id += " " + t.SectionName
		}
		b.attached[id] = append(b.attached[id], layer{Policy: Policy{Broken: e.status.Key + " is broken"}})
	}
}

// finishPolicies says what holds for targets themselves, and which policies hold for nothing.
func (b *builder) finishPolicies() {
	for _, ref := range b.refs() {
		if own := b.attached[ref.Kind+"/"+ref.Name]; len(own) > 0 && (ref.Kind != "Service" || b.services[ref.Name].Subset == nil) {
			b.plan.Policies = append(b.plan.Policies, TargetPolicy{ref, stack(own).policy("", Section{})})
		}
	}
	for _, e := range b.order {
		if o := b.plan.good[e.status.Key]; e.kind == "Policy" && o != nil && e.status.Ready && len(o.Spec.(*resource.Policy).TargetRefs) == 0 && !b.used[o.Name] {
			e.status.Warnings = append(e.status.Warnings, o.Problem("spec", "holds for nothing", "write targetRefs, or name it in a route's filter of type ExtensionRef"))
		}
	}
}

// connections is what policies of a Gateway say of the connections to a listener.
func (b *builder) connections(policies []layer) Connections {
	l := stack(policies)
	c := Connections{
		Max: l.connections.Max, MaxStreams: l.connections.MaxStreams, HeaderTimeout: l.connections.HeaderTimeout,
		IdleTimeout: l.connections.IdleTimeout, MinRate: int64(l.connections.MinRate),
	}
	if l.Limits != nil {
		c.HeaderBytes, c.HeaderCount = l.Limits.HeaderBytes, l.Limits.HeaderCount
	}
	return c
}

// counting is a layer whose counts belong to what it is attached to.
func (l layer) counting(at string) layer {
	l.RateLimits = slices.Clone(l.RateLimits)
	for i := range l.RateLimits {
		l.RateLimits[i].State += " at " + at
	}
	if l.Bulkhead != nil {
		c := *l.Bulkhead
		c.State += " at " + at
		l.Bulkhead = &c
	}
	if l.Adaptive != nil {
		c := *l.Adaptive
		c.State += " at " + at
		l.Adaptive = &c
	}
	if l.Breaker != nil {
		c := *l.Breaker
		c.State += " at " + at
		l.Breaker = &c
	}
	if l.Retry != nil {
		c := *l.Retry
		c.State += " at " + at
		l.Retry = &c
	}
	return l
}

// The budget of retries where nobody says another.
const (
	budgetPercent = 20
	budgetMin     = 10
)

// lower is what a Policy says, in the words of a plan.
func (b *builder) lower(o *resource.Object, s *resource.Policy) layer {
	l := layer{timeout: or0(s.Timeout), connections: or0(s.Connections)}
	if r := s.Retry; r != nil {
		out := Retry{
			State: o.Key() + " retry", Attempts: r.Attempts, Backoff: r.Backoff, MaxBackoff: r.MaxBackoff, PerTry: r.PerTry, Methods: r.Methods,
			BudgetPercent: budgetPercent, BudgetMin: budgetMin,
		}
		if r.Budget != nil {
			out.BudgetPercent, out.BudgetMin = float64(r.Budget.Percent), r.Budget.MinPerSecond
		}
		on := r.On
		if len(on) == 0 {
			on = []resource.Text{"connect", "reset", "refused-stream", "gateway-error", "unavailable"}
		}
		for _, word := range on {
			if status, err := strconv.Atoi(string(word)); err == nil {
				out.Statuses = append(out.Statuses, status)
			} else if slices.Index(resource.RetryOn, string(word)) >= slices.Index(resource.RetryOn, "cancelled") {
				out.GRPC = append(out.GRPC, string(word))
			} else {
				out.On = append(out.On, string(word))
			}
		}
		l.Retry = &out
	}
	if s.Hedge != nil {
		l.Hedge = &Hedge{s.Hedge.After, s.Hedge.Max}
	}
	if k := s.Breaker; k != nil {
		l.Breaker = &Breaker{
			State: o.Key() + " breaker", Failures: k.Failures, ErrorRatio: float64(k.ErrorRatio) / 100, MinRequests: k.MinRequests, Window: k.Window, Rest: k.Rest, HalfOpen: k.HalfOpen,
		}
	}
	if k := s.Bulkhead; k != nil {
		l.Bulkhead = &Bulkhead{o.Key() + " bulkhead", k.Concurrency, k.Queue, k.Wait}
	}
	for i, r := range s.RateLimit {
		out := RateLimit{
			State: fmt.Sprintf("%s rateLimit[%d]", o.Key(), i), Requests: r.Requests, Per: r.Per, Burst: cmp.Or(r.Burst, r.Requests),
			By: r.By, Name: cmp.Or(r.Header, r.Claim),
		}
		if r.Shared != nil {
			out.Component = b.resolve(o, fmt.Sprintf("spec.rateLimit[%d].shared.component", i), "state", r.Shared.Component, "")
		}
		l.RateLimits = append(l.RateLimits, out)
	}
	if a := s.AdaptiveConcurrency; a != nil {
		l.Adaptive = &Adaptive{o.Key() + " adaptiveConcurrency", a.Min, a.Max, min(max(a.Initial, a.Min), a.Max)}
	}
	if f := s.Fault; f != nil {
		l.Fault = &Fault{}
		if d := f.Delay; d != nil {
			l.Fault.Delay, l.Fault.DelayPercent = d.Duration, float64(d.Percent)
		}
		if a := f.Abort; a != nil {
			l.Fault.Status, l.Fault.GRPCStatus, l.Fault.AbortPercent = a.Status, a.GRPCStatus, float64(a.Percent)
		}
	}
	for i, m := range s.Mirror {
		l.Mirrors = append(l.Mirrors, b.mirror(o, fmt.Sprintf("spec.mirror[%d]", i), m)...)
	}
	if a := s.Authn; a != nil {
		l.Authn = &Authn{}
		for _, j := range a.JWT {
			l.Authn.JWT = append(l.Authn.JWT, JWT{j.Issuer, j.Audiences, beside(o, j.JWKSFile), j.JWKS, j.JWKSURL, j.Forward})
		}
		if a.MTLS != nil {
			l.Authn.MTLS = &MTLS{a.MTLS.Required, a.MTLS.Subjects, a.MTLS.SANs}
		}
	}
	var rules []Rule
	for i, r := range s.Authz {
		out := Rule{r.Deny != "", cmp.Or(r.Deny, r.Allow), r.Message, fmt.Sprintf("%s spec.authz[%d]", o.Key(), i)}
		field := "allow"
		if out.Deny {
			field = "deny"
		}
		if b.env.CheckExpression != nil {
			if err := b.env.CheckExpression(out.Expression); err != nil {
				b.fault(invalid, o.Problem(fmt.Sprintf("spec.authz[%d].%s", i, field), "is no expression in CEL: "+err.Error(), `write one such as request.method == "GET"`))
			}
		}
		rules = append(rules, out)
	}
	if len(rules) > 0 {
		l.Authz = [][]Rule{rules}
	}
	if c := s.Compression; c != nil {
		l.Compression = &Compression{c.Algorithms, int64(c.MinSize), c.Types}
	}
	if m := s.Limits; m != nil {
		l.Limits = &Limits{int64(m.HeaderBytes), m.HeaderCount, int64(m.BodyBytes)}
	}
	if s.CORS != nil {
		l.CORS = cors(*s.CORS)
	}
	if a := s.AccessLog; a != nil {
		l.AccessLog = &AccessLog{Format: a.Format, Sample: 1}
		if a.Sample != nil {
			l.AccessLog.Sample = *a.Sample
		}
	}
	return l
}
