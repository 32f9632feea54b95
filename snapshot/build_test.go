package snapshot_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/route"
	"github.com/loam-run/loam/snapshot"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// env is a binary with one technology, which takes a retention.
func env() snapshot.Env {
	e := snapshot.Env{CheckExpression: func(expression string) error {
		if strings.Count(expression, "(") != strings.Count(expression, ")") {
			return errors.New("a parenthesis is missing")
		}
		return nil
	}}
	e.CheckMatch, e.CheckTrip = e.CheckExpression, e.CheckExpression
	for _, capability := range []string{"state", "pubsub", "lock", "config", "sequence"} {
		typ := capability + ".memory"
		e.Factories = append(e.Factories, loam.Factory{Type: typ, Aliases: []string{capability + ".in-memory"}, Check: func(metadata map[string]string) error {
			for name, value := range metadata {
				if name != "retention" {
					return loam.Errorf(loam.InvalidArgument, typ, "metadata %s: unknown; it takes retention", name)
				}
				if _, err := time.ParseDuration(value); err != nil {
					return &loam.Error{Code: loam.InvalidArgument, Op: typ, Err: errors.New("metadata retention: " + value + " is not a duration"), Hint: "write 1h"}
				}
			}
			return nil
		}})
		e.Embedded = append(e.Embedded, snapshot.Component{Name: "default", Capability: capability, Type: typ})
	}
	e.Factories = append(e.Factories, loam.Factory{Type: "secret.file", Aliases: []string{"secretstores.local.file"}, Check: func(map[string]string) error { return nil }})
	e.Factories = append(e.Factories, loam.Factory{Type: "binding.cron", Aliases: []string{"bindings.cron"}, Check: func(map[string]string) error { return nil }})
	return e
}

func build(t *testing.T, file string, prev *snapshot.Plan) *snapshot.Plan {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	objects, problems := resource.Decode("shop/shop.yaml", data)
	return snapshot.Build(objects, problems, prev, env())
}

// TestBuild shows what each *.in.yaml comes to, *.before.yaml having served before where there is one.
func TestBuild(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		base := strings.TrimSuffix(file, ".in.yaml")
		t.Run(filepath.Base(base), func(t *testing.T) {
			var prev *snapshot.Plan
			if _, err := os.Stat(base + ".before.yaml"); err == nil {
				prev = build(t, base+".before.yaml", nil)
				for _, s := range prev.Statuses {
					if !s.Ready {
						t.Errorf("before: %v", s.Problems)
					}
				}
			}
			plan := build(t, file, prev)
			golden(t, base+".out.yaml", render(t, plan))
			ask(t, file, plan)
			if again := build(t, file, prev); !again.Equal(plan) {
				t.Error("built again, it is another plan")
			}
		})
	}
}

// ask sends the requests in an *.in.yaml through the plan's routes: lines such as
//
//	#? default/http GET shop.example.com/a?q=1 x-version=beta -> HTTPRoute/shop rules[0]
//	#? default/http GET https://a.example.com@shop.example.com/ -> misdirected
//
// name a listener, a request and the rule it must match, or none; before an @ stands the name that TLS was asked for. A line of method CONNECT names a server name and the
// stream that has its connections.
func ask(t *testing.T, file string, p *snapshot.Plan) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		question, isOne := strings.CutPrefix(strings.TrimSpace(line), "#? ")
		if !isOne {
			continue
		}
		question, want, _ := strings.Cut(question, " -> ")
		f := strings.Fields(question)
		i := slices.IndexFunc(p.Listeners, func(l snapshot.Listener) bool { return l.Name == f[0] })
		if i < 0 {
			t.Errorf("%s: there is no listener %s", line, f[0])
			continue
		}
		got := "none"
		if f[1] == "CONNECT" {
			got = cmp.Or(stream(p, p.Listeners[i], f[2]), got)
		} else if r := table(t, p, p.Listeners[i]).Match(request(f[1:])); r.Misdirected {
			got = "misdirected"
		} else if r.Rule != nil {
			got = r.Rule.Name
		}
		if got != want {
			t.Errorf("%s -> %s, want %s", question, got, want)
		}
	}
}

func table(t *testing.T, p *snapshot.Plan, l snapshot.Listener) *route.Table {
	t.Helper()
	var sites []route.Site
	for _, s := range l.Sections {
		site := route.Site{Host: s.Hostname, Scheme: map[string]string{"HTTP": "http", "HTTPS": "https"}[s.Protocol]}
		if site.Scheme == "" {
			continue // it has no requests
		}
		for _, r := range p.Routes {
			if r.Listener == s.Name {
				any := []route.Backend{{Target: loam.TargetFunc(nil), Weight: 1}}
				site.Rules = append(site.Rules, route.Rule{Name: r.Name, Hosts: r.Hosts, Matches: r.Matches, Backends: any})
			}
		}
		sites = append(sites, site)
	}
	table, err := route.Compile(sites...)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func request(f []string) *loam.Request {
	r := loam.NewRequest(context.Background())
	r.Method, r.Scheme = f[0], "http"
	if rest, ok := strings.CutPrefix(f[1], "https://"); ok {
		met, host, other := strings.Cut(rest, "@")
		if !other {
			host = rest
			met, _, _ = strings.Cut(rest, "/")
		}
		f[1], r.Scheme, r.Peer = host, "https", &loam.Peer{ServerName: met}
	}
	r.Authority, r.Path, _ = strings.Cut(f[1], "/")
	r.Path, r.RawQuery, _ = strings.Cut("/"+r.Path, "?")
	for _, h := range f[2:] {
		name, value, _ := strings.Cut(h, "=")
		r.Header.Add(name, value)
	}
	return r
}

func stream(p *snapshot.Plan, l snapshot.Listener, name string) string {
	var sections route.Hosts[string]
	for _, s := range l.Sections {
		sections.Set(s.Hostname, s.Name)
	}
	section, _ := sections.Find(name)
	var streams route.Hosts[string]
	for _, s := range p.Streams {
		for _, host := range append(s.Hosts, "")[:max(1, len(s.Hosts))] {
			if s.Listener == section {
				streams.Set(host, s.Name)
			}
		}
	}
	found, _ := streams.Find(name)
	return found
}

// render writes a plan as YAML without what is empty.
func render(t *testing.T, p *snapshot.Plan) string {
	t.Helper()
	type status struct {
		Key, At, Reason    string
		Previous           bool
		Problems, Warnings []string
	}
	statuses := []status{}
	for _, s := range p.Statuses {
		if s.Ready != (s.Reason == "Ready") || s.Ready != (len(s.Problems) == 0) {
			t.Errorf("%s: ready %v, reason %s, %d problems", s.Key, s.Ready, s.Reason, len(s.Problems))
		}
		out := status{Key: s.Key, At: fmt.Sprintf("%s:%d", s.File, s.Line), Reason: s.Reason, Previous: s.Previous}
		for _, p := range s.Problems {
			out.Problems = append(out.Problems, p.Error())
			if p.Hint == "" {
				t.Errorf("%v: does not say what to do", p)
			}
		}
		for _, p := range s.Warnings {
			out.Warnings = append(out.Warnings, p.Error())
		}
		statuses = append(statuses, out)
	}
	out := struct {
		Statuses      []status
		Listeners     []snapshot.Listener
		Routes        []snapshot.Route
		Streams       []snapshot.Stream
		Services      []snapshot.Service
		Policies      []snapshot.TargetPolicy
		Functions     []snapshot.Function
		Apps          []snapshot.App
		Components    []snapshot.Component
		Subscriptions []snapshot.Subscription
		Inputs        []snapshot.Input
		APIs          []snapshot.API          `yaml:"apis"`
		HTTPEndpoints []snapshot.HTTPEndpoint `yaml:"httpEndpoints"`
		Resiliency    *snapshot.Resiliency
	}{statuses, p.Listeners, p.Routes, p.Streams, p.Services, p.Policies, p.Functions, p.Apps, nil, p.Subscriptions, p.Inputs, p.APIs, p.HTTPEndpoints, nil}
	if r := p.Resiliency; len(r.Apps)+len(r.Components)+len(r.Others) > 0 {
		out.Resiliency = &r
	}
	for _, c := range p.Components {
		if c.Name != "default" || !c.Default || len(p.Components) == 5 && len(p.Statuses) == 1 {
			out.Components = append(out.Components, c)
		}
	}
	var n yaml.Node
	if err := n.Encode(out); err != nil {
		t.Fatal(err)
	}
	prune(&n)
	data, err := yaml.Marshal(&n)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func prune(n *yaml.Node) {
	for _, c := range n.Content {
		prune(c)
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	var kept []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		v := n.Content[i+1]
		empty := v.Kind == yaml.ScalarNode && (v.Value == "" || v.Value == "0" || v.Value == "0s" || v.Value == "false" || v.Value == "null")
		if !empty && (v.Kind == yaml.ScalarNode || len(v.Content) > 0) {
			kept = append(kept, n.Content[i], v)
		}
	}
	n.Content = kept
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s\nrun with -update where the new one is right", file, got, want)
	}
}

// TestHash: an item keeps its hash while nothing of it changes, whatever else does.
func TestHash(t *testing.T) {
	decode := func(timeout string) *snapshot.Plan {
		objects, problems := resource.Decode("a.yaml", []byte("# a comment\napiVersion: loam.dev/v1alpha1\nkind: Function\nmetadata: {name: a}\nspec: {env: {A: x, B: y}, timeout: "+timeout+"}\n"))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return snapshot.Build(objects, nil, nil, env())
	}
	a, same, other := decode("30s"), decode("0.5m"), decode("31s")
	if snapshot.Hash(a.Functions[0]) != snapshot.Hash(same.Functions[0]) || !a.Equal(same) {
		t.Error("the same function has another hash")
	}
	if snapshot.Hash(a.Functions[0]) == snapshot.Hash(other.Functions[0]) || a.Equal(other) {
		t.Error("another function has the same hash")
	}
}

// TestLastGoodComesBack: what could not serve for a while, because what it names was gone, still knows its last good
// version when that is there again.
func TestLastGoodComesBack(t *testing.T) {
	const store = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\nspec: {type: state.memory}\n---\n"
	const function = "apiVersion: loam.dev/v1alpha1\nkind: Function\nmetadata: {name: a}\nspec: {timeout: %s, grants: [{capability: state, component: store}]}\n"
	var plan *snapshot.Plan
	for i, step := range []struct {
		yaml  string
		serve string
	}{
		{store + fmt.Sprintf(function, "10s"), "10s"},
		{fmt.Sprintf(function, "10s"), ""},          // the component is gone
		{store + fmt.Sprintf(function, "1"), "10s"}, // it is back, but the function is broken by itself
		{store + fmt.Sprintf(function, "20s"), "20s"},
		{store, ""},
	} {
		objects, problems := resource.Decode("a.yaml", []byte(step.yaml))
		plan = snapshot.Build(objects, problems, plan, env())
		got := ""
		for _, f := range plan.Functions {
			got += f.Timeout.String()
		}
		if got != step.serve {
			t.Errorf("step %d: a function of timeout %q serves, want %q", i, got, step.serve)
		}
	}
}

// TestCheckOnly: without embedded components, as `loam check` builds, the defaults are taken to be there.
func TestCheckOnly(t *testing.T) {
	e := env()
	e.Embedded = nil
	data, err := os.ReadFile("testdata/shop.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, _ := resource.Decode("shop.yaml", data)
	for _, s := range snapshot.Build(objects, nil, nil, e).Statuses {
		if !s.Ready {
			t.Error(s.Problems)
		}
	}
}

// TestFactoriesAreOnlyChecked: Build opens nothing.
func TestFactoriesAreOnlyChecked(t *testing.T) {
	e := env()
	for i := range e.Factories {
		e.Factories[i].Open = func(context.Context, string, map[string]string) (any, error) {
			t.Error("opened")
			return nil, nil
		}
	}
	objects, _ := resource.Decode("c.yaml", []byte("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: c}\nspec: {type: state.memory}\n"))
	if p := snapshot.Build(objects, nil, nil, e); len(p.Components) != 6 {
		t.Errorf("%d components, want the five embedded and one", len(p.Components))
	}
}

// TestState: a count begins anew when what it counts by changes, and only then.
func TestState(t *testing.T) {
	state := func(requests int, timeout string) string {
		objects, problems := resource.Decode("a.yaml", []byte(fmt.Sprintf(`
apiVersion: loam.dev/v1alpha1
kind: App
metadata: {name: a}
spec: {address: "localhost:80"}
---
apiVersion: loam.dev/v1alpha1
kind: Policy
metadata: {name: p}
spec: {targetRefs: [{kind: App, name: a}], timeout: {request: %s}, rateLimit: [{requests: %d}]}
`, timeout, requests)))
		plan := snapshot.Build(objects, problems, nil, env())
		if len(plan.Policies) != 1 {
			t.Fatalf("%+v", plan.Statuses)
		}
		return plan.Policies[0].Policy.RateLimits[0].State
	}
	if a, same, other := state(10, "1s"), state(10, "2s"), state(11, "1s"); a != same || a == other {
		t.Errorf("states %q, %q, and of another limit %q", a, same, other)
	}
}
