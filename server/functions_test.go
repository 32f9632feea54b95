package server

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam/component/cron"
	"github.com/loam-run/loam/component/crypto"
	"github.com/loam-run/loam/component/localstorage"
	"github.com/loam-run/loam/internal/build"
)

// tour is examples/languages in Go, with the components that the machine has by itself.
const tour = `
apiVersion: loam.dev/v1alpha1
kind: Function
metadata: {name: tour}
spec:
  file: %[1]s
  limits: {calls: 2, egress: 4Ki}
  grants:
    - {capability: state, names: ["notes/*"]}
    - {capability: file, names: ["a/*", "b*"]}
    - {capability: crypto, names: [seal, sign, gone]}
    - {capability: binding, names: [create, get]}
%[3]s---
apiVersion: loam.dev/v1alpha1
kind: Function
metadata: {name: generous}
spec:
  file: %[1]s
  grants: [{capability: crypto}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: tour}
spec:
  rules:
    - matches: [{path: {value: /cipher}}]
      backendRefs: [{name: generous}]
    - backendRefs: [{name: tour}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: files, annotations: {loam.dev/default: "true"}}
spec: {type: file.localstorage, metadata: [{name: rootPath, value: %[2]s/files}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: folder, annotations: {loam.dev/default: "true"}}
spec: {type: bindings.localstorage, metadata: [{name: rootPath, value: %[2]s/folder}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: keys, annotations: {loam.dev/default: "true"}}
spec:
  type: crypto.dapr.jwks
  metadata:
    - name: jwks
      value: |
        {"keys": [
          {"kid": "seal", "kty": "oct", "k": "b25seSBhbiBleGFtcGxlLCBuZXZlciBhIGtleSAxMTE"},
          {"kid": "other", "kty": "oct", "k": "b25seSBhbiBleGFtcGxlLCBuZXZlciBhIGtleSAxMTE"},
          {"kid": "sign", "kty": "OKP", "crv": "Ed25519", "d": "b25seSBhbiBleGFtcGxlLCBuZXZlciBhIGtleSAwMDA", "x": "ZO_LfjDR5S_DlqLt89bqtlbdyi4jGhW3A5Z8woiieiU"}
        ]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: clock}
spec:
  type: bindings.cron
  metadata:
    - {name: schedule, value: "@every 1s"}
    - {name: route, value: /tick}
scopes: [tour]
`

// A function uses what the machine has: files, keys, bindings out and in, jobs that come back to it. What it was not granted
// it does not reach, and no more of it than its limits say.
func TestFunctionsCapabilities(t *testing.T) {
	dir := t.TempDir()
	module := filepath.Join(dir, "tour.wasm")
	if err := build.Run(t.Context(), build.Job{Name: "tour", Dir: "../examples/languages/go", Out: module, Wasm: true}); err != nil {
		t.Fatal(err)
	}
	granted := fmt.Sprintf(tour, module, dir, "    - {capability: jobs, names: [tea, later, nonsense]}\n")
	r := start(t, granted, slices.Concat(cron.Factories(), crypto.Factories(), localstorage.Factories())...)

	ask := func(method, target, body string) (int, string, http.Header) {
		t.Helper()
		req, err := http.NewRequest(method, r.url+target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "text/plain")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b), res.Header
	}
	// until asks again and again, since what it waits for happens by itself.
	until := func(what, target string, status int, want string) {
		t.Helper()
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for late := time.Now().Add(60 * time.Second); ; <-again.C {
			got, body, _ := ask("GET", target, "")
			if got == status && strings.Contains(body, want) {
				return
			}
			if time.Now().After(late) {
				t.Fatalf("%s: %d %q, want %d %q", what, got, body, status, want)
			}
		}
	}
	for _, c := range []struct {
		method, target, body string
		status               int
		want                 string
	}{
		{"PUT", "/files/a/tea.txt", "green tea", 201, ""},
		{"GET", "/files/a/tea.txt?from=6", "", 200, "tea"},
		{"GET", "/files/a/tea.txt?from=0&length=5", "", 200, "green"},
		{"GET", "/files/a/tea.txt?from=10", "", 400, "out of range"},
		{"GET", "/files/a/tea.txt?length=20000000", "", 400, "invalid argument"},
		{"GET", "/files/a/gone.txt", "", 404, "not found"},
		{"GET", "/files/c.txt", "", 403, "permission denied"},
		{"PUT", "/files/c.txt", "x", 403, "permission denied"},
		{"PUT", "/files/a/%2e%2e/%2e%2e/escaped", "x", 400, "invalid argument"},
		{"PUT", "/files/b.txt", strings.Repeat("x", 5000), 429, "resource exhausted"},
		{"POST", "/files/b.txt", "1", 200, "1 bytes\n"},
		{"POST", "/files/b.txt", "23", 200, "3 bytes\n"},
		{"GET", "/folder?prefix=a/", "", 200, "a/tea.txt: 9\nnext: \n"},
		{"GET", "/folder?prefix=", "", 403, "permission denied"},
		{"DELETE", "/files/a/tea.txt", "", 204, ""},
		{"DELETE", "/files/a/tea.txt", "", 404, "not found"},

		{"POST", "/seal/seal", "a message", 200, "a message"},
		{"POST", "/seal/seal?broken=yes", "a message", 400, "invalid argument"},
		{"POST", "/seal/gone", "a message", 404, "not found"},
		{"POST", "/seal/other", "a message", 403, "permission denied"},
		{"POST", "/sign/sign", "a message", 429, "more than 2 capability calls"}, // the third is one too many
		{"POST", "/cipher/seal", "a message", 200, "9, 16: a message; 24: a key of 16 byte\n"},
		{"GET", "/keys/sign", "", 200, "-----BEGIN PUBLIC KEY-----\n"},
		{"GET", "/keys/seal", "", 404, "symmetric"},

		{"POST", "/bind/create?file=x.txt", "kept here", 200, `{"fileName":"x.txt"}`},
		{"POST", "/bind/get?file=x.txt", "", 200, "kept here"},
		{"POST", "/bind/delete?file=x.txt", "", 403, "permission denied"},
		{"POST", "/bind/burn?file=x.txt", "", 403, "permission denied"},

		{"POST", "/jobs/tea?due=1h", "green", 204, ""},
		{"POST", "/jobs/tea?due=1h", "black", 409, "already exists"},
		{"GET", "/jobs/tea", "", 200, "tea  1h 1 text/plain 5 green\n"},
		{"POST", "/jobs/tea?due=1h&schedule=@daily&replace=yes", "black", 204, ""},
		{"GET", "/jobs/tea", "", 200, "tea @daily 1h 2 text/plain 5 black\n"},
		{"DELETE", "/jobs/tea", "", 204, ""},
		{"DELETE", "/jobs/tea", "", 404, "not found"},
		{"GET", "/jobs/tea", "", 404, "not found"},
		{"POST", "/jobs/tea", "green", 400, "invalid argument"},
		{"POST", "/jobs/coffee?due=1h", "green", 403, "permission denied"},
	} {
		if status, body, _ := ask(c.method, c.target, c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.target, status, body, c.status, c.want)
		}
	}
	for name, data := range map[string]string{"tea": "green", "later": "later", "nonsense": "nonsense"} {
		if status, body, _ := ask("POST", "/jobs/"+name+"?due=1ms", data); status != 204 {
			t.Fatalf("job %s: %d %s", name, status, body)
		}
	}
	until("a job", "/notes/job-tea", 200, "text/plain green")
	for _, name := range []string{"tea", "later", "nonsense"} {
		until("the end of job "+name, "/jobs/"+name, 404, "not found")
	}
	until("an input", "/notes/tick", 200, time.Local.String())

	// Without the grant there is nothing of it any more.
	r.write(t, fmt.Sprintf(tour, module, dir, ""))
	until("the end of a grant", "/jobs/tea", 403, "permission denied")
}

// An app without an API is brought what a binding in whose scopes it is reads, where the present resources say.
func TestInputsReachApps(t *testing.T) {
	came := make(chan string, 100)
	address := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case came <- r.Method + " " + r.URL.Path + " " + r.Header.Get("timeZone"):
		default:
		}
	})
	clock := func(route string) string {
		return resources(address, "/", `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: clock}
spec:
  type: bindings.cron
  metadata: [{name: schedule, value: "@every 1s"}, {name: route, value: `+route+`}]
scopes: [a]
`)
	}
	r := start(t, clock("one"), cron.Factories()...)
	for _, route := range []string{"one", "two"} {
		r.write(t, clock(route))
		late := time.After(60 * time.Second)
		for want, got := "POST /"+route+" "+time.Local.String(), ""; got != want; {
			select {
			case got = <-came:
			case <-late:
				t.Fatalf("%q did not come", want)
			}
		}
	}
}
