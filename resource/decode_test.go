package resource_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loam-run/loam/resource"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestBroken shows what a person is told about each kind of broken YAML.
func TestBroken(t *testing.T) {
	files, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v; want at least 50", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			objects, problems := resource.Decode(filepath.Base(file), data)
			if len(problems) == 0 {
				t.Fatal("no problem was found")
			}
			var out strings.Builder
			for _, p := range problems {
				fmt.Fprintf(&out, "%s:%d:%d", p.File, p.Line, p.Column)
				if p.Key != "" {
					fmt.Fprintf(&out, " (%s)", p.Key)
				}
				fmt.Fprintf(&out, "\n  what: %s\n  hint: %s\n", strings.TrimPrefix(p.Path+": "+p.What, ": "), p.Hint)
				if p.Hint == "" || p.What == "" {
					t.Errorf("%v: does not say what to do", p)
				}
			}
			for _, o := range objects {
				fmt.Fprintf(&out, "goes on: %s\n", o.Key())
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", out.String())
		})
	}
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

func TestDecode(t *testing.T) {
	const function = "apiVersion: loam.dev/v1alpha1\nkind: Function\nmetadata: {name: a}\n"
	for name, yaml := range map[string]string{
		"nothing":         "",
		"comments":        "# a\n---\n# b\n---\nnull\n",
		"documents":       function + "spec: {}\n---\n" + strings.Replace(function, "name: a", "name: b", 1) + "spec: {}\n...\n",
		"directive":       "%YAML 1.1\n---\n" + function + "spec: {}\n",
		"windows":         "\xef\xbb\xbf" + strings.ReplaceAll(function+"spec:\n  timeout: 5s\n", "\n", "\r\n"),
		"json":            "{\n\t\"apiVersion\": \"loam.dev/v1alpha1\",\n\t\"kind\": \"Function\",\n\t\"metadata\": {\"name\": \"a\"},\n\t\"spec\": {\"env\": {\"URL\": \"http:\\/\\/x\\\\/\", \"HI\": \"\\ud83d\\ude00 \\ud83d \\n\"}}\n}\n",
		"list":            "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n- apiVersion: loam.dev/v1alpha1\n  kind: Function\n  metadata: {name: a}\n  spec: {}\n- apiVersion: loam.dev/v1alpha1\n  kind: App\n  metadata: {name: b, namespace: shop, labels: {team: x}}\n  spec: {address: 'localhost:80'}\n",
		"merged":          function + "spec:\n  env: {A: &a x, B: *a}\n  grants:\n    - &g {capability: state, names: [k]}\n    - {<<: *g, access: read}\n",
		"block":           function + "spec:\n  env:\n    TEXT: |\n      a\n      --- b\n    DATE: 2026-11-21\n    YES: yes\n",
		"v1 subscription": "apiVersion: dapr.io/v1alpha1\nkind: Subscription\nmetadata: {name: s}\nspec: {topic: t, route: /t, pubsubname: bus, metadata: {maxInFlight: '4'}}\nscopes: [a]\n",
		"dapr": "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: state_Store}\nspec:\n  type: state.redis\n  initTimeout: 5s\n  ignoreErrors: 'true'\n  metadata: [{name: host, envRef: REDIS}, {name: password, secretKeyRef: {name: redis, key: password}}]\nauth: {secretStore: vault}\nscopes: [App_1]\n---\n" +
			"apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies:\n    timeouts: {fast: 50ms}\n    retries: {often: {policy: exponential, maxRetries: 3, matching: {httpStatusCodes: 429}}}\n    circuitBreakers: {guard: {maxRequests: 1, timeout: 30s, trip: consecutiveFailures > 2}}\n  targets: {apps: {b: {timeout: fast, retry: often, circuitBreaker: guard}}, components: {s: {outbound: {timeout: fast}}}}\n---\n" +
			"apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: h}\nspec: {baseUrl: 'https://x.example.com/a', headers: [{name: A, value: b}], clientTLS: {rootCA: {value: pem}}}\n---\n" +
			"apiVersion: loam.dev/v1alpha1\nkind: App\nmetadata: {name: a}\nspec: {api: {dapr: {http: '127.0.0.1:3500', grpc: ['127.0.0.1:50001', '[::1]:50001'], configuration: c}}}\n---\n" +
			"apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: s}\nspec: {topic: t, pubsubname: bus, routes: {rules: [{match: 'event.type == 1', path: /a}]}, bulkSubscribe: {enabled: true}, metadata: {rawPayload: 'true', consumerID: x}}\n",
		"configuration": "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: daprConfig}\nspec:\n  tracing: {samplingRate: '1', zipkin: {endpointAddress: 'http://localhost:9411/api/v2/spans'}}\n  features: [{name: HotReload, enabled: true}]\n  api: {denied: [{name: state, version: v1.0, protocol: http}]}\n  nameResolution: {component: mdns, configuration: {a: 1}}\n",
		"component":     "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: c}\nspec:\n  type: state.memory\n  metadata: [{name: size, value: 10}, {name: fast, value: true}, {name: none, value: ''}]\n",
	} {
		t.Run(name, func(t *testing.T) {
			objects, problems := resource.Decode("x.yaml", []byte(yaml))
			var out strings.Builder
			for _, p := range problems {
				t.Error(p)
			}
			for _, o := range objects {
				spec, err := json.MarshalIndent(o.Spec, "", " ")
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&out, "%s %s line %d scopes %v labels %v\n%s\n", o.APIVersion, o.Key(), o.Line, o.Scopes, o.Labels, spec)
			}
			golden(t, filepath.Join("testdata", "good", strings.ReplaceAll(name, " ", "-")+".golden"), out.String())
		})
	}
}

// TestTooBig: what could eat the machine is refused before it does.
func TestTooBig(t *testing.T) {
	for name, data := range map[string]string{
		"bytes":    strings.Repeat("#", 5<<20),
		"flow":     "spec: " + strings.Repeat("[", 100_000),
		"block":    strings.Repeat("- ", 100_000) + "a",
		"cycle":    "apiVersion: loam.dev/v1alpha1\nkind: Function\nmetadata: &m {name: a, labels: *m}\nspec: {grants: &g [*g]}\n",
		"laughing": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\nkind: *c\n",
	} {
		t.Run(name, func(t *testing.T) {
			if objects, problems := resource.Decode("x.yaml", []byte(data)); len(problems) == 0 || len(objects) > 0 {
				t.Errorf("%d objects, problems %v", len(objects), problems)
			}
		})
	}
}

// FuzzDecode: whatever a file holds, it is objects or problems that stand somewhere in it.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil && len(data) < 2000 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, problems := resource.Decode("x.yaml", data)
		lines := 1 // YAML ends them by more than one character
		for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
			lines += strings.Count(string(data), end)
		}
		for _, p := range problems {
			if p.What == "" || p.Hint == "" || p.Line < 0 || p.Line > lines+1 || p.Line > 0 && p.Column < 1 {
				t.Fatalf("of %d lines: %#v", lines, p)
			}
		}
		for _, o := range objects {
			if o.Name == "" || o.Kind == "" || o.Spec == nil || o.Line < 1 || o.Line > lines {
				t.Fatalf("of %d lines: %#v", lines, o)
			}
		}
	})
}
