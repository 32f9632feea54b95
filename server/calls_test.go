package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/internal/build"
)

// buildGuest builds the function of examples/languages, which calls all that there is to call.
func buildGuest(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "tour.wasm")
	if err := build.Go(context.Background(), build.Job{Name: "tour", Dir: "../examples/languages/go", Out: out, Wasm: true}); err != nil {
		t.Fatal(err)
	}
	return out
}

// guestFunction declares it under a name, with a route by its name.
func guestFunction(name, file, spec string) string {
	return fmt.Sprintf(`
apiVersion: loam.dev/v1alpha1
kind: Function
metadata: {name: %[1]s}
spec:
  file: %[2]s
%[3]s
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %[1]s}
spec:
  hostnames: [%[1]s.test]
  rules: [{backendRefs: [{name: %[1]s}]}]
---
`, name, file, spec)
}

// ask sends a request to a function's route.
func ask(t *testing.T, r *running, method, host, target, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, r.url+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host + ".test"
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// What functions call beyond their data: each other, apps, hosts outside, secrets; and what they were not granted.
func TestCallsOfFunctions(t *testing.T) {
	t.Setenv("LOAM_SECRET_token", "12345")
	file := buildGuest(t)
	outside := upstream(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "outside %s", r.URL.Path) })
	r := start(t, guestFunction("a", file, `
  grants:
    - {capability: invoke, names: [a, b, desk, ghost]}
    - {capability: http, names: ["`+outside+`"], access: read}
    - {capability: secret, names: [token, nothing]}`)+
		guestFunction("b", file, "  grants: []")+
		guestFunction("narrow", file, "  concurrency: 2\n  grants: [{capability: invoke, names: [narrow]}]")+
		`
apiVersion: loam.dev/v1alpha1
kind: App
metadata: {name: desk}
spec: {address: "`+outside+`"}
`)
	r.await(t, func(s admin.Status) bool {
		for _, x := range s.Resources {
			if !x.Ready {
				t.Fatalf("%s/%s: %s", x.Kind, x.Name, x.Message)
			}
		}
		return true
	})
	deep := func(name string, n int) string { return strings.Repeat("/ask/"+name, n) }
	for _, c := range []struct {
		name, method, host, target, body string
		status                           int
		want                             string
	}{
		{"another function", "POST", "a", "/ask/b/echo/there", "word", 200, "word"},
		{"an app", "POST", "a", "/ask/desk/work", "word", 200, "outside /work"},
		{"itself", "POST", "a", deep("a", 3) + "/echo/there", "word", 200, "word"},
		{"itself without end", "POST", "a", deep("a", 20) + "/echo/there", "word", 429, "16 calls wait for each other already"},
		{"itself while all instances are busy", "POST", "narrow", deep("narrow", 2) + "/echo/there", "word", 400, "calls itself"},
		{"none of that name", "POST", "a", "/ask/ghost/echo/there", "word", 404, "ghost"},
		{"not granted", "POST", "b", "/ask/a/echo/there", "word", 403, "no grant"},
		{"a host outside", "GET", "a", "/fetch?url=http://" + outside + "/page", "", 200, "200 outside /page"},
		{"a host outside, not granted", "GET", "b", "/fetch?url=http://" + outside + "/page", "", 403, "no grant"},
		{"a secret", "GET", "a", "/secrets/token", "", 200, "5 bytes"},
		{"a secret that is not there", "GET", "a", "/secrets/nothing", "", 404, "LOAM_SECRET_nothing"},
		{"a secret, not granted", "GET", "b", "/secrets/token", "", 403, "no grant"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := ask(t, r, c.method, c.host, c.target, c.body)
			if status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("%d %q, want %d with %q", status, body, c.status, c.want)
			}
		})
	}
}

// A grant of invoke or http has no component to choose.
func TestGrantWithoutComponent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none.wasm")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, guestFunction("a", file, "  grants: [{capability: http, component: fast}]"))
	s := r.await(t, func(admin.Status) bool { return true })
	for _, x := range s.Resources {
		if x.Kind == "Function" && !strings.Contains(x.Message, "http has no components") {
			t.Errorf("the function is %q: %q", x.Reason, x.Message)
		}
	}
}
