package snapshot_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/route"
	"github.com/loam-run/loam/snapshot"
)

// FuzzBuild: whatever files hold, what is built of it can run: its routes compile, what they name is in the plan, and who
// is not ready says why.
func FuzzBuild(f *testing.F) {
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, problems := resource.Decode("x.yaml", data)
		plan := snapshot.Build(objects, problems, nil, env())
		check(t, plan)
		check(t, snapshot.Build(nil, []resource.Problem{{File: "x.yaml", What: "gone", Hint: "none"}}, plan, env())) // all is kept
	})
}

// TestMixtures: the documents of all golden tests in any number and order, one set after the other, as files change under
// a running process.
func TestMixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var documents []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(file, ".out.yaml") {
			documents = append(documents, strings.Split("\n"+string(data), "\n---")...)
		}
	}
	rnd := rand.New(rand.NewPCG(4, 1))
	var plan *snapshot.Plan
	ready := 0
	for range 300 {
		var some []string
		for range 5 + rnd.IntN(60) {
			some = append(some, documents[rnd.IntN(len(documents))])
		}
		objects, problems := resource.Decode("x.yaml", []byte(strings.Join(some, "\n---\n")))
		next := snapshot.Build(objects, problems, plan, env())
		check(t, next)
		if again := snapshot.Build(objects, problems, plan, env()); !again.Equal(next) {
			t.Fatalf("built again, it is another plan:\n%s", strings.Join(some, "\n---\n"))
		}
		plan = next
		ready += len(next.Routes) + len(next.Streams)
	}
	if ready < 1000 {
		t.Errorf("%d routes came of it: the mixtures test nothing", ready)
	}
}

func check(t *testing.T, plan *snapshot.Plan) {
	t.Helper()
	targets := map[snapshot.TargetRef]bool{}
	for _, x := range plan.Functions {
		targets[snapshot.TargetRef{Kind: "Function", Name: x.Name}] = true
	}
	for _, x := range plan.Apps {
		targets[snapshot.TargetRef{Kind: "App", Name: x.Name}] = true
	}
	for _, x := range plan.Services {
		targets[snapshot.TargetRef{Kind: "Service", Name: x.Name}] = true
		if n := len(x.Endpoints); n > 0 && (x.DNS != nil || x.Registry != "") || n == 0 && x.DNS == nil && x.Registry == "" {
			t.Fatalf("no way to find %+v", x)
		}
	}
	backends := func(name string, bs []snapshot.Backend) {
		for _, b := range bs {
			if b.Broken == "" && !targets[b.TargetRef] {
				t.Fatalf("%s: %v is not in the plan", name, b.TargetRef)
			}
			for _, m := range b.Policy.Mirrors {
				if !targets[m.Backend] {
					t.Fatalf("%s: mirrors to %v, which is not in the plan", name, m.Backend)
				}
			}
		}
	}
	sections := map[string]bool{}
	addresses := map[string]bool{}
	for _, l := range plan.Listeners {
		if len(l.Sections) == 0 || addresses[l.Address] {
			t.Fatalf("listener %+v", l)
		}
		addresses[l.Address] = true
		for _, s := range l.Sections {
			sections[s.Name] = true
			if (s.TLS != nil) != (s.Protocol == "HTTPS" || s.Protocol == "TLS") || s.TLS != nil && !s.TLS.Passthrough && len(s.TLS.Certificates) == 0 {
				t.Fatalf("section %+v", s)
			}
		}
	}
	for _, r := range plan.Routes {
		rule := route.Rule{Name: r.Name, Hosts: r.Hosts, Matches: r.Matches, Backends: []route.Backend{{Target: loam.TargetFunc(nil), Weight: 1}}}
		if _, err := route.Compile(route.Site{Rules: []route.Rule{rule}}); err != nil {
			t.Fatal(err)
		}
		backends(r.Name, r.Backends)
		backends(r.Name, []snapshot.Backend{{Broken: "-", Policy: r.Policy}})
		if len(r.Backends) == 0 && r.Policy.Redirect == nil || !sections[r.Listener] {
			t.Fatalf("%s at %s leads nowhere", r.Name, r.Listener)
		}
	}
	for _, s := range plan.Streams {
		backends(s.Name, s.Backends)
		if len(s.Backends) == 0 || !sections[s.Listener] {
			t.Fatalf("%s at %s leads nowhere", s.Name, s.Listener)
		}
	}
	for _, p := range plan.Policies {
		if !targets[p.TargetRef] {
			t.Fatalf("a policy of %v, which is not in the plan", p.TargetRef)
		}
	}
	for _, s := range plan.Statuses {
		if s.Ready != (len(s.Problems) == 0) {
			t.Fatalf("status %+v", s)
		}
	}
	_ = snapshot.Hash(plan)
}

// BenchmarkBuild: what a reload of so many routes costs.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		data := "apiVersion: loam.dev/v1alpha1\nkind: App\nmetadata: {name: a}\nspec: {address: 'localhost:80'}\n"
		for i := range n {
			data += fmt.Sprintf("---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r%d}\nspec: {rules: [{matches: [{path: {value: /r%d}}], backendRefs: [{kind: App, name: a}]}]}\n", i, i)
		}
		objects, problems := resource.Decode("x.yaml", []byte(data))
		if len(problems) > 0 {
			b.Fatal(problems)
		}
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				snapshot.Build(objects, nil, nil, env())
			}
		})
	}
}
