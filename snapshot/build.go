package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/suggest"
	"github.com/loam-run/loam/resource"
)

// Env is what Build knows beside the resources.
type Env struct {
	Factories []loam.Factory // every type of component in the binary
	Embedded  []Component    // what a capability has as its default while no resource says otherwise; none: whatever
	Address   string         // host:port of the Gateway there is when none is declared; default 127.0.0.1:8080

	// App is the program that all is for, as with loam sidecar: what is scoped to others is left out, and what names nobody
	// is for it; "": there may be many.
	App string

	// CheckMatch compiles the match of a subscription's rule and tells what is wrong with it; nil: none is looked at.
	CheckMatch func(expression string) error
	// CheckTrip does so with the trip of a Resiliency's breaker.
	CheckTrip func(expression string) error
	// CheckExpression compiles an expression of a policy's authz and tells what is wrong with it; nil: none is looked at.
	CheckExpression func(expression string) error
}

// The reasons of a Status that is not ready. Those of the second half are the Gateway API's own words.
const (
	ready      = "Ready"
	invalid    = "Invalid"    // wrong by itself
	duplicate  = "Duplicate"  // another one has its kind and name
	unresolved = "Unresolved" // it names what is not there
	conflict   = "Conflict"   // it cannot be beside another one

	backendNotFound       = "BackendNotFound"
	invalidKind           = "InvalidKind"
	unsupportedProtocol   = "UnsupportedProtocol"
	noMatchingParent      = "NoMatchingParent"
	noMatchingHostname    = "NoMatchingListenerHostname"
	notAllowed            = "NotAllowedByListeners"
	portUnavailable       = "PortUnavailable"
	invalidCertificateRef = "InvalidCertificateRef"
	invalidCARef          = "InvalidCACertificateRef"
	targetNotFound        = "TargetNotFound"
	conflicted            = "Conflicted" // of policies
)

// Build compiles what a provider loaded. A resource that is broken, by itself (problems) or in what it names, gets a
// status that says so and keeps its version of prev, which may be nil, as long as that still holds together; it takes
// nothing else down but what depends on it. A route or subscription of which no version holds together serves the
// targets that it names rightly. A problem that names no resource keeps everything that its file declared before.
func Build(objects []*resource.Object, problems []resource.Problem, prev *Plan, env Env) *Plan {
	b := &builder{
		env: env, plan: &Plan{good: map[string]*resource.Object{}},
		entries: map[string]*entry{}, components: map[componentKey]*resource.Object{}, defaults: map[string]string{},
		targets: map[string]TargetRef{}, services: map[string]*resource.Service{}, ports: map[int]string{}, gateways: map[string][]listener{},
		matches: map[string]string{}, owners: map[string][]owner{}, subscribed: map[string]string{},
		middleware: map[string]*resource.Component{}, configurations: map[string]*resource.Configuration{}, endpoints: map[string]string{}, addresses: map[string]string{},
		data: map[string]keyed{}, policies: map[string]*layer{}, attached: map[string][]layer{}, said: map[string]string{}, used: map[string]bool{},
	}
	if prev != nil {
		b.before = prev.good
	}
	b.collect(objects, problems)
	for _, secrets := range []bool{true, false} { // which the others refer to
		for _, e := range b.order {
			if e.kind == "Component" && b.isSecret(e.object, b.before[e.status.Key]) == secrets {
				b.settle(e)
			}
		}
	}
	b.embed()
	b.settleAll("Configuration", "Resiliency", "HTTPEndpoint")
	b.settleAll("Secret", "ConfigMap")
	b.settleAll("Function", "App")
	b.inputs()
	for _, subsets := range []bool{false, true} { // which name the others
		for _, e := range b.order {
			if e.kind == "Service" && isSubset(e.object, b.before[e.status.Key]) == subsets {
				b.settle(e)
			}
		}
	}
	b.settleAll("Policy")
	b.settleAll("Gateway")
	b.implicitGateway()
	b.settleAll("HTTPRoute", "GRPCRoute")
	b.settleAll("TLSRoute", "TCPRoute")
	b.settleAll("Subscription")
	b.finishPolicies()
	b.finishResiliency()
	for _, e := range b.order {
		b.plan.Statuses = append(b.plan.Statuses, e.status)
	}
	slices.SortStableFunc(b.plan.Statuses, func(x, y Status) int {
		return cmp.Or(strings.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line))
	})
	return b.plan
}

func (b *builder) settleAll(kinds ...string) {
	for _, e := range b.order {
		if slices.Contains(kinds, e.kind) {
			b.settle(e)
		}
	}
}

// A builder makes one plan. Its maps hold what has compiled so far.
type builder struct {
	env    Env
	plan   *Plan
	before map[string]*resource.Object // the last good versions

	order   []*entry
	entries map[string]*entry // by key

	components map[componentKey]*resource.Object
	defaults   map[string]string    // capability → component
	targets    map[string]TargetRef // functions and apps
	services   map[string]*resource.Service
	data       map[string]keyed      // of Secrets and ConfigMaps, by key
	ports      map[int]string        // of apps → key
	gateways   map[string][]listener // by name
	matches    map[string]string     // section, host and match → route
	owners     map[string][]owner    // section and kind → the routes of requests there
	subscribed map[string]string     // component, topic and target → subscription

	middleware     map[string]*resource.Component     // by name
	configurations map[string]*resource.Configuration // by name
	resiliencies   []*resource.Object
	endpoints      map[string]string // names of HTTPEndpoints
	addresses      map[string]string // of APIs → key

	policies map[string]*layer  // by name
	attached map[string][]layer // what is attached to a resource, or to a section of it, by Kind/name and Kind/name section
	said     map[string]string  // target and section of a policy → the policy
	used     map[string]bool    // policies that a route's filter names

	faults faults // of the object being compiled
}

type componentKey struct{ capability, name string }

// An entry is one resource on its way into the plan.
type entry struct {
	kind   string
	object *resource.Object // nil: what is declared is broken by itself
	status Status
}

// faults are what is wrong with one object among the others.
type faults struct {
	reason   string // of the first
	problems []resource.Problem
	warnings []resource.Problem
}

func (b *builder) fault(reason string, p resource.Problem) {
	b.faults.reason = cmp.Or(b.faults.reason, reason)
	b.faults.problems = append(b.faults.problems, p)
}

func (b *builder) warn(p resource.Problem) { b.faults.warnings = append(b.faults.warnings, p) }

// collect makes an entry of every declared resource, broken ones included.
func (b *builder) collect(objects []*resource.Object, problems []resource.Problem) {
	for _, o := range objects {
		e := &entry{kind: o.Kind, object: o, status: Status{Key: o.Key(), File: o.File, Line: o.Line, Ready: true, Reason: ready}}
		b.order = append(b.order, e)
		if other := b.entries[o.Key()]; other != nil {
			e.kind = "" // it compiles to nothing
			e.status.Ready, e.status.Reason = false, duplicate
			e.status.Problems = []resource.Problem{o.Problem("metadata.name",
				fmt.Sprintf("%s is declared %s already", o.Key(), other.where(o.File)), "give one of them another name, or delete it")}
			continue
		}
		b.entries[o.Key()] = e
	}
	type id struct{ file, key string }
	broken := map[id]*entry{}
	for _, p := range problems {
		e := broken[id{p.File, p.Key}]
		if e == nil {
			e = &entry{status: Status{Key: p.Key, File: p.File, Line: p.Line, Reason: invalid}}
			broken[id{p.File, p.Key}] = e
			b.order = append(b.order, e)
			if p.Key != "" && b.entries[p.Key] == nil {
				e.kind, _, _ = strings.Cut(p.Key, "/")
				b.entries[p.Key] = e
			}
		}
		e.status.Problems = append(e.status.Problems, p)
	}
	for _, key := range slices.Sorted(maps.Keys(b.before)) {
		o := b.before[key]
		file := broken[id{o.File, ""}]
		if file == nil || b.entries[key] != nil {
			continue
		}
		e := &entry{kind: o.Kind, object: o, status: Status{Key: key, File: o.File, Line: o.Line, Ready: true, Reason: ready, Previous: true}}
		e.status.Warnings = []resource.Problem{{File: o.File, Line: file.status.Line, Column: 1, Key: key,
			What: "is kept as it was: a part of its file cannot be read", Hint: "mend that part"}}
		b.entries[key] = e
		b.order = append(b.order, e)
	}
}

// where says where an entry is declared, to somebody who reads file.
func (e *entry) where(file string) string {
	if e.status.File == file {
		return fmt.Sprintf("on line %d", e.status.Line)
	}
	return fmt.Sprintf("at %s:%d", e.status.File, e.status.Line)
}

// settle compiles an entry's object or, where that fails, the last good version of it.
func (b *builder) settle(e *entry) {
	try := func(o *resource.Object, tolerant bool) (faults, bool) {
		b.faults = faults{}
		b.compile(o, tolerant)
		ok := len(b.faults.problems) == 0
		if ok {
			b.plan.good[e.status.Key] = o
		}
		return b.faults, ok
	}
	if e.object != nil {
		f, ok := try(e.object, false)
		e.status.Warnings = append(e.status.Warnings, f.warnings...)
		if ok {
			return
		}
		e.status.Ready, e.status.Reason, e.status.Problems = false, f.reason, f.problems
	}
	if last := b.before[e.status.Key]; last != nil {
		if _, ok := try(last, false); ok {
			e.status.Previous = true
			return
		}
		b.plan.good[e.status.Key] = last // what it names may come back
	}
	if e.object != nil {
		try(e.object, true)
	}
	if e.kind == "Policy" {
		b.closePolicy(e)
	}
	if c, ok := e.spec().(*resource.Component); ok && e.object.Annotations[resource.DefaultAnnotation] == "true" {
		capability, _, _ := strings.Cut(c.Type, ".")
		if b.defaults[capability] == "" {
			b.defaults[capability] = e.object.Name // nobody's data may go to the embedded one in its place
		}
	}
}

func (e *entry) spec() any {
	if e.object == nil {
		return nil
	}
	return e.object.Spec
}

// compile adds what an object comes to to the plan, all of it or, where it has faults, nothing. A tolerant one adds
// what can be had of a Gateway, route or subscription.
func (b *builder) compile(o *resource.Object, tolerant bool) {
	switch s := o.Spec.(type) {
	case *resource.Component:
		b.component(o, s)
	case *resource.Function:
		b.function(o, s)
	case *resource.App:
		b.app(o, s)
	case *resource.Service:
		b.service(o, s)
	case *resource.Configuration:
		b.configuration(o, s)
	case *resource.Resiliency:
		b.resiliency(o, s)
	case *resource.HTTPEndpoint:
		b.httpEndpoint(o, s)
	case *resource.Secret:
		b.secret(o, s)
	case *resource.ConfigMap:
		b.data[o.Key()] = keyed{values: s.Data}
	case *resource.Policy:
		b.policy(o, s)
	case *resource.Gateway:
		b.gateway(o, s, tolerant)
	case *resource.HTTPRoute:
		b.httpRoute(o, s, tolerant)
	case *resource.GRPCRoute:
		b.grpcRoute(o, s, tolerant)
	case *resource.TLSRoute:
		b.stream(o, s.ParentRefs, s.Hostnames, s.Rules, tolerant)
	case *resource.TCPRoute:
		b.stream(o, s.ParentRefs, nil, s.Rules, tolerant)
	case *resource.Subscription:
		b.subscription(o, s, tolerant)
	}
}

// embed completes the components by the embedded ones and says which is its capability's default.
func (b *builder) embed() {
	for i, c := range b.plan.Components {
		b.plan.Components[i].Default = b.defaults[c.Capability] == c.Name
	}
	for _, c := range b.env.Embedded {
		if b.defaults[c.Capability] == "" {
			b.defaults[c.Capability] = c.Name
			b.components[componentKey{c.Capability, c.Name}] = nil
			c.Default, c.Embedded = true, true
			b.plan.Components = append(b.plan.Components, c)
		}
	}
	if len(b.env.Embedded) == 0 {
		for _, capability := range b.capabilities() {
			if b.defaults[capability] == "" {
				b.defaults[capability] = "default"
				b.components[componentKey{capability, "default"}] = nil
			}
		}
	}
}

// withoutComponents are the capabilities that have nothing behind them to choose: there is one, and it is the default.
func withoutComponents() []string { return []string{"http", "invoke"} }

func (b *builder) capabilities() []string {
	var all []string
	for _, f := range b.env.Factories {
		all = append(all, f.Capability())
	}
	for _, c := range b.env.Embedded {
		all = append(all, c.Capability)
	}
	all = append(all, withoutComponents()...)
	slices.Sort(all)
	return slices.Compact(all)
}

// resolve finds the component that user, a function or app, means by name, and reports at path of o where there is none.
func (b *builder) resolve(o *resource.Object, path, capability, name, user string) string {
	key := componentKey{capability, name}
	component, there := b.components[key]
	if slices.Contains(withoutComponents(), capability) {
		if name != "" && name != "default" {
			b.fault(unresolved, o.Problem(path, fmt.Sprintf("%s has no components", capability), "leave it out"))
		}
		return "default"
	}
	if !there && (name == "" || name == "default") {
		key.name = cmp.Or(b.defaults[capability], "default")
		component, there = b.components[key]
	}
	switch {
	case !there && b.entries["Component/"+key.name] != nil && !b.entries["Component/"+key.name].status.Ready:
		b.fault(unresolved, o.Problem(path, fmt.Sprintf("component %s is broken", key.name), "mend Component/"+key.name+", "+b.entries["Component/"+key.name].where(o.File)))
	case !there:
		var names []string
		for _, k := range slices.SortedFunc(maps.Keys(b.components), func(x, y componentKey) int { return strings.Compare(x.name, y.name) }) {
			if k.capability == capability {
				names = append(names, k.name)
			}
		}
		b.fault(unresolved, o.Problem(path, fmt.Sprintf("there is no %s component %q", capability, name), meant(name, names, "declare it, or name one of ")))
	case component != nil && len(component.Scopes) > 0 && user != "" && !slices.Contains(component.Scopes, user):
		b.fault(unresolved, o.Problem(path, fmt.Sprintf("component %s is not for %s: its scopes are %s", key.name, user, strings.Join(component.Scopes, ", ")),
			"add "+user+" to the scopes of Component/"+key.name))
	}
	return key.name
}

// grants are what a function or app may reach, and what it may not though one of those says *.
func (b *builder) grants(o *resource.Object, grants []resource.Grant) (all, denied []loam.Grant) {
	known := b.capabilities()
	any := false
	for i, g := range grants {
		at := fmt.Sprintf("spec.grants[%d].", i)
		out := loam.Grant{Capability: g.Capability, Component: g.Component, Names: g.Names, ReadOnly: g.Access == "read"}
		if g.Capability == "*" && g.Component == "default" {
			out.Component = "*"
		}
		switch {
		case g.Capability != "*" && !slices.Contains(known, g.Capability):
			b.fault(unresolved, o.Problem(at+"capability", fmt.Sprintf("there is no capability %q", g.Capability), meant(g.Capability, known, "the capabilities are ")))
			continue
		case g.Component == "*", g.Capability == "*":
			any = true
		default:
			out.Component = b.resolve(o, at+"component", g.Capability, g.Component, o.Name)
		}
		all = append(all, out)
	}
	for _, c := range b.plan.Components {
		if any && len(c.Scopes) > 0 && !slices.Contains(c.Scopes, o.Name) {
			denied = append(denied, loam.Grant{Capability: c.Capability, Component: c.Name})
		}
	}
	return all, denied
}

// target enters a function or app, whose names are of one space: scopes and callers tell them apart by nothing else.
func (b *builder) target(o *resource.Object) bool {
	if other, ok := b.targets[o.Name]; ok {
		b.fault(conflict, o.Problem("metadata.name", fmt.Sprintf("%s/%s has that name, and functions and apps share theirs", other.Kind, other.Name), "give one of them another name"))
	}
	if len(b.faults.problems) > 0 {
		return false
	}
	b.targets[o.Name] = TargetRef{o.Kind, o.Name}
	return true
}

func (b *builder) function(o *resource.Object, s *resource.Function) {
	grants, denied := b.grants(o, s.Grants)
	if !b.target(o) {
		return
	}
	f := Function{
		Name: o.Name, File: beside(o, s.File), Source: beside(o, s.Source), ABI: s.ABI, Isolation: s.Isolation, Env: s.Env, Settings: s.Settings,
		Timeout: s.Timeout, CPU: s.CPU, Memory: int64(s.Memory), Concurrency: s.Concurrency, Queue: s.Queue,
		MaxRequest: int64(s.Limits.Request), MaxResponse: int64(s.Limits.Response), MaxCalls: int64(s.Limits.Calls), MaxEgress: int64(s.Limits.Egress),
		Idle: s.Idle, Grants: grants, Denied: denied,
	}
	if n := s.Session; n != nil {
		f.Session = &FunctionSession{Header: n.Header, Cookie: n.Cookie, Max: n.Max, Idle: n.Idle}
	}
	if w := s.Warmup; w != nil {
		f.Warmup = &Warmup{Method: cmp.Or(w.Method, "GET"), Path: w.Path, Body: w.Body}
	}
	b.plan.Functions = append(b.plan.Functions, f)
}

func (b *builder) app(o *resource.Object, s *resource.App) {
	grants, denied := b.grants(o, s.Grants)
	if other := b.ports[s.Port]; s.Port != 0 && other != "" {
		b.fault(conflict, o.Problem("spec.port", fmt.Sprintf("%s has port %d already", other, s.Port), "write another, or delete it to get a free one"))
	}
	apis := b.apis(o, s, loam.Caller{Name: o.Name, Grants: grants, Denied: denied})
	if !b.target(o) {
		return
	}
	if s.Port != 0 {
		b.ports[s.Port] = o.Key()
	}
	a := App{Name: o.Name, Address: s.Address, Command: s.Command, Env: s.Env, Port: s.Port, Protocol: s.Protocol, Health: s.Health.Path, Grants: grants}
	if s.Address == "" {
		a.Dir = beside(o, cmp.Or(s.Dir, "."))
	}
	if s.Source != "" {
		a.Source, a.Binary = beside(o, s.Source), beside(o, "build/"+o.Name)
	}
	b.plan.Apps = append(b.plan.Apps, a)
	b.plan.APIs = append(b.plan.APIs, apis...)
}

// beside resolves a path by the file that declares it.
func beside(o *resource.Object, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(o.File), filepath.FromSlash(path))
}

// missing reports that none of kinds is called name, or that the one that is, is broken.
func (b *builder) missing(o *resource.Object, reason, path string, kinds []string, name string) {
	var names []string
	for _, ref := range b.refs() {
		if slices.Contains(kinds, ref.Kind) {
			names = append(names, ref.Name)
		} else if ref.Name == name && isData(ref.Kind) == isData(kinds[0]) {
			b.fault(reason, o.Problem(path, fmt.Sprintf("%q is %s, not %s", name, article(ref.Kind), article(kinds[0])), "write kind: "+ref.Kind))
			return
		}
	}
	for _, kind := range kinds {
		if e := b.entries[kind+"/"+name]; e != nil {
			b.fault(reason, o.Problem(path, e.status.Key+" is broken", "mend it, "+e.where(o.File)))
			return
		}
	}
	hint := "declare it"
	if len(names) > 0 {
		hint = meant(name, names, "declare it, or name one of ")
	}
	b.fault(reason, o.Problem(path, fmt.Sprintf("there is no %s %q", strings.ToLower(strings.Join(kinds, " or ")), name), hint))
}

func isData(kind string) bool { return kind == "Secret" || kind == "ConfigMap" }

// refs are all functions, apps, services, Secrets and ConfigMaps, by name.
func (b *builder) refs() []TargetRef {
	all := slices.Collect(maps.Values(b.targets))
	for name := range b.services {
		all = append(all, TargetRef{"Service", name})
	}
	for key := range b.data {
		kind, name, _ := strings.Cut(key, "/")
		all = append(all, TargetRef{kind, name})
	}
	slices.SortFunc(all, func(x, y TargetRef) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.Kind, y.Kind))
	})
	return all
}

func article(kind string) string {
	if kind == "App" {
		return "an app"
	}
	return "a " + strings.ToLower(kind)
}

// anyTarget is the name of a function or app for an example.
func (b *builder) anyTarget() string {
	names := slices.Sorted(maps.Keys(b.targets))
	if len(names) == 0 {
		return "orders"
	}
	return names[0]
}

// meant is the hint for a word that is none of known.
func meant(word string, known []string, list string) string {
	if near := suggest.Nearest(word, known); near != "" {
		return "did you mean " + near + "?"
	}
	return list + strings.Join(known, ", ")
}

// Hash is a value's digest, the same in every process: an item whose hash stays may go on running.
func Hash(item any) string {
	data, err := json.Marshal(item)
	if err != nil {
		panic(err) // the items are plain values
	}
	sum := sha256.Sum256(fmt.Appendf(data, "%T", item))
	return hex.EncodeToString(sum[:12])
}

// Equal tells whether two plans run the same, whatever their statuses say.
func (p *Plan) Equal(q *Plan) bool {
	items := func(p *Plan) string {
		return Hash([]any{p.Listeners, p.Routes, p.Streams, p.Services, p.Policies, p.Functions, p.Apps, p.Components, p.Subscriptions, p.Inputs, p.APIs, p.HTTPEndpoints, p.Resiliency})
	}
	return items(p) == items(q)
}
