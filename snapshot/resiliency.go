package snapshot

import (
	"cmp"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/resource"
)

// resiliency enters a Resiliency: what several of them come to together is each app's to ask.
func (b *builder) resiliency(o *resource.Object, s *resource.Resiliency) {
	if b.elsewhere(o) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s.Policies.CircuitBreakers)) {
		trip := s.Policies.CircuitBreakers[name].Trip
		if _, simple := inARow(trip); simple || trip == "" || b.env.CheckTrip == nil {
			continue
		}
		if err := b.env.CheckTrip(trip); err != nil {
			b.fault(invalid, o.Problem("spec.policies.circuitBreakers."+name+".trip", "is no expression in CEL: "+err.Error(), "write one such as consecutiveFailures > 5"))
		}
	}
	if len(s.Targets.Actors) > 0 {
		b.warn(o.Problem("spec.targets.actors", "there are no actors yet", "delete it, or leave it for later"))
	}
	if len(b.faults.problems) == 0 {
		b.resiliencies = append(b.resiliencies, o)
	}
}

// finishResiliency says what holds for calls that come by no app's API.
func (b *builder) finishResiliency() { b.plan.Resiliency = b.resiliencyOf("") }

// kindsOfComponents are Dapr's words in the names of default policies.
var kindsOfComponents = map[string]string{
	"binding": "Binding", "config": "Configuration", "lock": "Lock", "pubsub": "Pubsub", "crypto": "Crypto", "secret": "Secretstore", "state": "Statestore",
}

// resiliencyOf is what holds for the calls of an app: all Resiliencies that are for it, as one.
func (b *builder) resiliencyOf(app string) Resiliency {
	all := resource.ResiliencyPolicies{Timeouts: map[string]time.Duration{}, Retries: map[string]resource.DaprRetry{}, CircuitBreakers: map[string]resource.CircuitBreaker{}}
	var out Resiliency
	apps, components := map[string]resource.AppResiliency{}, map[string]resource.ComponentResiliency{}
	any := false
	for _, o := range b.resiliencies {
		if len(o.Scopes) > 0 && !slices.Contains(o.Scopes, app) {
			continue
		}
		any = true
		s := o.Spec.(*resource.Resiliency)
		maps.Copy(all.Timeouts, s.Policies.Timeouts)
		maps.Copy(all.Retries, s.Policies.Retries)
		maps.Copy(all.CircuitBreakers, s.Policies.CircuitBreakers)
		maps.Copy(apps, s.Targets.Apps)
		maps.Copy(components, s.Targets.Components)
	}
	// Calls to apps that cannot be reached are tried again, whatever is declared.
	out.OtherApps = Policy{Retry: builtInRetry(all)}
	if !any {
		return out
	}
	m := merged{all, app}
	one := func(at string, names resource.PolicyNames) Policy { return m.policy(at, names) }
	names := m.defaults("App")
	if names != (resource.PolicyNames{}) {
		out.OtherApps = one("apps", names)
	}
	for name, t := range apps {
		if out.Apps == nil {
			out.Apps = map[string]Policy{}
		}
		out.Apps[name] = one("apps/"+name, resource.PolicyNames{Timeout: t.Timeout, Retry: t.Retry, CircuitBreaker: t.CircuitBreaker})
	}
	for name, t := range components {
		if out.Components == nil {
			out.Components = map[string]ComponentResiliency{}
		}
		out.Components[name] = ComponentResiliency{Outbound: one("components/"+name+"/outbound", t.Outbound), Inbound: one("components/"+name+"/inbound", t.Inbound)}
	}
	for capability, kind := range kindsOfComponents {
		o := m.defaults(kind+"ComponentOutbound", "ComponentOutbound", "Component")
		i := m.defaults(kind+"ComponentInbound", "ComponentInbound", "Component")
		if none := (resource.PolicyNames{}); o == none && i == none {
			continue
		}
		if out.Others == nil {
			out.Others = map[string]ComponentResiliency{}
		}
		out.Others[capability] = ComponentResiliency{Outbound: one("outbound", o), Inbound: one("inbound", i)}
	}
	return out
}

// merged are the policies of several Resiliencies for an app.
type merged struct {
	resource.ResiliencyPolicies
	app string
}

// defaults names the policies that hold where a target names none: DefaultAppRetryPolicy, else DefaultRetryPolicy.
func (m merged) defaults(levels ...string) (n resource.PolicyNames) {
	for _, level := range append(levels, "") {
		if name := "Default" + level + "TimeoutPolicy"; n.Timeout == "" && has(m.Timeouts, name) {
			n.Timeout = name
		}
		if name := "Default" + level + "RetryPolicy"; n.Retry == "" && has(m.Retries, name) {
			n.Retry = name
		}
		if name := "Default" + level + "CircuitBreakerPolicy"; n.CircuitBreaker == "" && has(m.CircuitBreakers, name) {
			n.CircuitBreaker = name
		}
	}
	return n
}

func has[T any](m map[string]T, name string) bool { _, ok := m[name]; return ok }

// policy is what the policies of those names come to for a target.
func (m merged) policy(at string, names resource.PolicyNames) Policy {
	var p Policy
	if d := m.Timeouts[names.Timeout]; d > 0 {
		p.Timeout = &Timeout{BackendRequest: d} // of each try, as Dapr has it
	}
	switch r, ok := m.Retries[names.Retry]; {
	case ok:
		p.Retry = lowerRetry(r)
	case names.Retry == "DaprBuiltInServiceRetries":
		p.Retry = builtInRetry(m.ResiliencyPolicies)
	}
	if c, ok := m.CircuitBreakers[names.CircuitBreaker]; ok {
		k := lowerBreaker(c)
		k.State = state("Resiliency "+m.app+" "+at+" "+names.CircuitBreaker, k)
		p.Breaker = &k
	}
	return p
}

// builtInRetry is for calls to apps that say nothing: those that did not reach the app are tried again. It may be declared
// otherwise, with three tries at least.
func builtInRetry(p resource.ResiliencyPolicies) *Retry {
	if r, ok := p.Retries["DaprBuiltInServiceRetries"]; ok {
		out := lowerRetry(r)
		out.Attempts = max(out.Attempts, 3)
		return out
	}
	return &Retry{Attempts: 3, On: []string{"connect", "refused-stream"}, Backoff: time.Second, MaxBackoff: time.Second, Methods: everyMethod}
}

// everyMethod may be tried again: Dapr asks no more of those who declare retries.
var everyMethod = []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}

// lowerRetry is a retry in the words of a plan. Pauses are chosen at random up to what is declared, so that callers that
// failed together do not come back together.
func lowerRetry(r resource.DaprRetry) *Retry {
	out := &Retry{Attempts: math.MaxInt32, On: []string{"connect", "reset", "refused-stream"}, Methods: everyMethod, Backoff: r.Duration, MaxBackoff: r.Duration}
	if r.Policy == "exponential" {
		out.Backoff, out.MaxBackoff = 500*time.Millisecond, max(r.MaxInterval, 500*time.Millisecond)
	}
	if r.MaxRetries != nil && *r.MaxRetries >= 0 {
		out.Attempts = *r.MaxRetries
	}
	statuses, codes := "400-599", "1-16"
	if m := r.Matching; m != nil {
		statuses, codes = cmp.Or(string(m.HTTPStatusCodes), statuses), cmp.Or(string(m.GRPCStatusCodes), codes)
	}
	out.Statuses, _ = resource.ParseCodes(statuses, 100, 599) // it was checked
	out.Statuses = slices.DeleteFunc(out.Statuses, func(s int) bool { return s < 400 })
	numbers, _ := resource.ParseCodes(codes, 0, 16)
	for _, n := range numbers {
		if n > 0 {
			out.GRPC = append(out.GRPC, loam.Code(n).String())
		}
	}
	return out
}

var consecutive = regexp.MustCompile(`^\s*consecutiveFailures\s*(>=|>)\s*(\d{1,6})\s*$`)

// inARow reads the trip that almost everybody writes.
func inARow(trip string) (failures int, ok bool) {
	m := consecutive.FindStringSubmatch(trip)
	if m == nil {
		return 0, false
	}
	failures, _ = strconv.Atoi(m[2])
	if m[1] == ">" {
		failures++
	}
	return max(failures, 1), true
}

func lowerBreaker(c resource.CircuitBreaker) Breaker {
	k := Breaker{Rest: cmp.Or(c.Timeout, time.Minute), HalfOpen: cmp.Or(c.MaxRequests, 1), Failures: 6}
	if n, ok := inARow(c.Trip); ok {
		k.Failures = n
	} else if trip := strings.TrimSpace(c.Trip); trip != "" {
		k.Failures, k.Trip, k.Window = 0, trip, c.Interval
	}
	return k
}
