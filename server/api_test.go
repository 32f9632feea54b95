package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/component/memory"
	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/snapshot"
)

// flaky is a state driver that fails so often before it works.
type flaky struct{ failures, calls atomic.Int64 }

func (f *flaky) try() error {
	f.calls.Add(1)
	if f.failures.Add(-1) >= 0 {
		return loam.Errorf(loam.Unavailable, "", "it fails")
	}
	return nil
}

func (f *flaky) Get(_ context.Context, keys []string) ([]state.Item, error) {
	return make([]state.Item, len(keys)), f.try()
}

func (f *flaky) Apply(_ context.Context, ops []state.Op) ([]string, error) {
	if len(ops) > 0 && ops[0].IfMatch != "" {
		f.calls.Add(1)
		return nil, loam.Errorf(loam.Aborted, "", "the ETag does not match")
	}
	return make([]string, len(ops)), f.try()
}

func (f *flaky) Close() error { return nil }

func (f *flaky) factory(opens func() error) loam.Factory {
	return loam.Factory{Type: "state.flaky", Check: func(map[string]string) error { return nil }, Open: func(context.Context, string, map[string]string) (any, error) {
		if err := opens(); err != nil {
			return nil, err
		}
		return f, nil
	}}
}

// asker is an app with Dapr's API, at an address of its own.
func asker(t *testing.T, more string) (yaml, url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprintf(`
apiVersion: loam.dev/v1alpha1
kind: App
metadata: {name: a}
spec: {grants: [{capability: "*"}], api: {dapr: {http: "%s"}}%s}
`, l.Addr(), more), "http://" + l.Addr().String()
}

func post(t *testing.T, url, body string) (int, string) {
	t.Helper()
	res, err := http.Post(url, "application/json", strings.NewReader(body))
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

// TestResiliencyOfComponents: calls of a component are tried again, but not those that no try can mend; a breaker answers
// for one that fails on; what is scoped to another app holds for that one alone.
func TestResiliencyOfComponents(t *testing.T) {
	yaml, url := asker(t, "")
	f := &flaky{}
	start(t, yaml+`
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: state.flaky}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    retries: {twice: {duration: 1ms, maxRetries: 2}}
    circuitBreakers: {guard: {timeout: 1m, trip: totalFailures > 4}}
  targets: {components: {store: {outbound: {retry: twice, circuitBreaker: guard}}}}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: others}
spec: {policies: {retries: {never: {maxRetries: 0}}}, targets: {components: {store: {outbound: {retry: never}}}}}
scopes: [somebody]
`, f.factory(func() error { return nil }))
	f.failures.Store(2)
	if code, body := get(t, url+"/v1.0/state/store/a"); code != 204 || f.calls.Load() != 3 {
		t.Errorf("%d %s after %d calls, want the third to succeed", code, body, f.calls.Load())
	}
	f.calls.Store(0)
	if code, body := post(t, url+"/v1.0/state/store", `[{"key": "a", "value": 1, "etag": "7"}]`); code != 409 || f.calls.Load() != 1 {
		t.Errorf("%d %s after %d calls: an ETag that does not match is not tried again", code, body, f.calls.Load())
	}
	f.calls.Store(0)
	f.failures.Store(1000)
	for range 3 {
		if code, _ := get(t, url+"/v1.0/state/store/a"); code != 500 {
			t.Errorf("%d, want 500", code)
		}
	}
	if n := f.calls.Load(); n != 3 { // two failures stand already, and the fifth opens it
		t.Errorf("%d calls of a component that the breaker rests", n)
	}
}

// TestDegraded: a component that does not open leaves the rest serving and says so; it is tried again, and then is there.
func TestDegraded(t *testing.T) {
	yaml, url := asker(t, "")
	var well atomic.Bool
	f := &flaky{}
	r := start(t, yaml+`
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: state.flaky}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: odd}
spec: {type: state.nowhere}
`, f.factory(func() error {
		if well.Load() {
			return nil
		}
		return errors.New("no route to host")
	}))
	res, err := http.Get(url + "/v1.0/healthz")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 204 || res.Header.Get("Loam-Degraded") != "odd, store" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	if code, body := get(t, url+"/v1.0/state/store/a"); code < 400 || !strings.Contains(body, "no route to host") {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := get(t, url+"/v1.0/state/default/a"); code != 204 {
		t.Errorf("%d of the store that is open", code)
	}
	well.Store(true)
	r.await(t, func(s admin.Status) bool { return resourceOf(s, "Component", "store").Ready })
	if code, _ := get(t, url+"/v1.0/state/store/a"); code != 204 {
		t.Errorf("%d once it opens", code)
	}
}

func resourceOf(s admin.Status, kind, name string) admin.Resource {
	for _, r := range s.Resources {
		if r.Kind == kind && r.Name == name {
			return r
		}
	}
	return admin.Resource{}
}

// TestFatal: a component that must be there keeps the process from starting.
func TestFatal(t *testing.T) {
	s := &server{components: map[componentKey]*component{}}
	s.plan = planOf(t, `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store, annotations: {loam.dev/fatal: "true"}}
spec: {type: state.memory}
`)
	if err := s.fatal(); err != nil {
		t.Error(err)
	}
	s.components[componentKey{"state", "store"}] = &component{err: loam.Errorf(loam.Unavailable, "redis", "no route to host")}
	if err := s.fatal(); loam.CodeOf(err) != loam.Unavailable || loam.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

// TestAppHealth: an app that is unwell is brought nothing; what was published meanwhile comes once it is well again, and the
// app is asked anew what it wants.
func TestAppHealth(t *testing.T) {
	var well atomic.Bool
	var asked atomic.Int64
	got := make(chan string, 10)
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz" && !well.Load():
			w.WriteHeader(503)
		case r.URL.Path == "/dapr/subscribe":
			asked.Add(1)
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `[{"pubsubname": "bus", "topic": "t", "route": "/t"}]`)
		case r.URL.Path == "/t":
			if !well.Load() {
				t.Error("an event came to an app that is unwell")
			}
			b, _ := io.ReadAll(r.Body)
			got <- string(b)
		}
	})
	yaml, url := asker(t, `, address: "`+up+`", health: {interval: 20ms, timeout: 10ms, threshold: 1}`)
	start(t, yaml+`
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.memory}
`)
	publish := func(n int) {
		if code, body := post(t, url+"/v1.0/publish/bus/t", fmt.Sprintf(`{"n": %d}`, n)); code != 204 {
			t.Fatalf("%d %s", code, body)
		}
	}
	expect := func(n int) {
		t.Helper()
		select {
		case b := <-got:
			if !strings.Contains(b, fmt.Sprintf(`"n": %d`, n)) && !strings.Contains(b, fmt.Sprintf(`"n":%d`, n)) {
				t.Errorf("%s, want n %d", b, n)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("it did not come")
		}
	}
	publish(1)
	well.Store(true)
	expect(1)
	well.Store(false)
	until(t, func() bool { // the sidecar has noticed: it does not call the app any more
		code, _ := get(t, url+"/v1.0/invoke/a/method/x")
		return code == 500
	})
	publish(2)
	before := asked.Load()
	well.Store(true)
	expect(2)
	if asked.Load() <= before {
		t.Error("the app was not asked again what it wants")
	}
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it did not come to that")
		}
	}
}

// TestResiliencyOfApps: calls to an app are tried again as is declared, whatever their method, and time out.
func TestResiliencyOfApps(t *testing.T) {
	var calls atomic.Int64
	b := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch n := calls.Add(1); {
		case r.URL.Path == "/slow":
			<-r.Context().Done()
		case n <= 2:
			w.WriteHeader(503)
		default:
			body, _ := io.ReadAll(r.Body)
			w.Write(body)
		}
	})
	yaml, url := asker(t, "")
	start(t, yaml+`
---
apiVersion: loam.dev/v1alpha1
kind: App
metadata: {name: b}
spec: {address: "`+b+`"}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    retries: {some: {duration: 1ms, maxRetries: 5, matching: {httpStatusCodes: "500-599"}}, none: {maxRetries: 0}}
    timeouts: {soon: 100ms}
  targets: {apps: {b: {retry: some, timeout: soon}}}
`)
	if code, body := post(t, url+"/v1.0/invoke/b/method/x", "hello"); code != 200 || body != "hello" || calls.Load() != 3 {
		t.Errorf("%d %q after %d calls", code, body, calls.Load())
	}
	calls.Store(0)
	if code, body := get(t, url+"/v1.0/invoke/b/method/slow"); code < 500 || calls.Load() != 6 {
		t.Errorf("%d %q after %d calls, want each to time out", code, body, calls.Load())
	}
}

// TestEncryption: keys of a component file encrypt what is stored, as daprd does with the same file: the value bears the name
// of the secret, and what daprd's own package encrypted is read.
func TestEncryption(t *testing.T) {
	secrets := filepath.Join(t.TempDir(), "secrets.json")
	if err := os.WriteFile(secrets, []byte(`{"vault": {"k": "00112233445566778899aabbccddeeff", "old": "ffeeddccbbaa99887766554433221100"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := memory.New().OpenState(t.Context(), "store", memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	yaml, url := asker(t, "")
	start(t, yaml+`
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: file}
spec: {type: secretstores.local.file, metadata: [{name: secretsFile, value: `+secrets+`}, {name: multiValued, value: "true"}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec:
  type: state.watched
  metadata:
    - {name: keyPrefix, value: none}
    - {name: primaryEncryptionKey, secretKeyRef: {name: vault, key: k}}
    - {name: secondaryEncryptionKey, secretKeyRef: {name: vault, key: old}}
auth: {secretStore: file}
`, loam.Factory{
		Type: "state.watched", Check: func(map[string]string) error { return nil },
		Open: func(context.Context, string, map[string]string) (any, error) { return store, nil },
	})
	if code, body := post(t, url+"/v1.0/state/store", `[{"key": "ours", "value": {"of": "Loam"}}]`); code != 204 {
		t.Fatal(code, body)
	}
	if code, body := post(t, url+"/v1.0/state/store/transaction", `{"operations": [{"operation": "upsert", "request": {"key": "two", "value": 2}}]}`); code != 204 {
		t.Fatal(code, body)
	}
	items, err := store.Get(t.Context(), []string{"ours", "two"})
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		if text, ok := strings.CutSuffix(string(it.Value), "||vault"); !ok || strings.Contains(text, "Loam") {
			t.Errorf("stored: %q", it.Value)
		}
	}
	// As github.com/dapr/dapr/pkg/encryption 1.18.3 wrote it with this key.
	if _, err := store.Apply(t.Context(), []state.Op{{Key: "theirs", Value: []byte("o4e75QfwIkQa9ZFGP1rtbjfq7z6GF2/ONG+krwKNDLU3/tKh||vault")}}); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"ours": `{"of": "Loam"}`, "two": "2", "theirs": "of daprd"} {
		if code, body := get(t, url+"/v1.0/state/store/"+key); code != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", key, code, body, want)
		}
	}
	if code, body := post(t, url+"/v1.0-alpha1/state/store/query", `{}`); code != 500 || !strings.Contains(body, "ERR_STATE_QUERY") {
		t.Errorf("a query of what is encrypted: %d %s", code, body)
	}
}

// TestHTTPEndpoint: a name for a URL outside, with fields from a secret, for the apps that it is for.
func TestHTTPEndpoint(t *testing.T) {
	t.Setenv("LOAM_SECRET_token", "Bearer x")
	out := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.URL.Path, " ", r.Header.Get("Authorization"))
	})
	yaml, url := asker(t, "")
	start(t, yaml+`
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: outside}
spec: {baseUrl: "http://`+out+`/v3", headers: [{name: Authorization, secretKeyRef: {name: token}}]}
auth: {secretStore: default}
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: theirs}
spec: {baseUrl: "http://`+out+`"}
scopes: [somebody]
`)
	if code, body := get(t, url+"/v1.0/invoke/outside/method/users/1"); code != 200 || body != "/v3/users/1 Bearer x" {
		t.Errorf("%d %q", code, body)
	}
	if code, _ := get(t, url+"/v1.0/invoke/theirs/method/x"); code < 400 {
		t.Errorf("%d of an endpoint that is not for the app", code)
	}
}

func planOf(t *testing.T, yaml string) *snapshot.Plan {
	t.Helper()
	objects, problems := resource.Decode("a.yaml", []byte(yaml))
	for _, p := range problems {
		t.Fatal(p)
	}
	return snapshot.Build(objects, nil, nil, snapshot.Env{Factories: memory.New().Factories()})
}

// TestPoliciesOfApp: what a Policy says of an app holds for the events and calls that its API brings it, and what asks who
// comes from outside does not.
func TestPoliciesOfApp(t *testing.T) {
	var calls atomic.Int64
	got := make(chan string, 10)
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dapr/subscribe":
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `[{"pubsubname": "bus", "topic": "t", "route": "/t"}]`)
		case "/t":
			if calls.Add(1) == 1 {
				w.WriteHeader(503)
				return
			}
			b, _ := io.ReadAll(r.Body)
			got <- string(b)
		case "/slow":
			<-r.Context().Done()
		}
	})
	yaml, url := asker(t, `, address: "`+up+`"`)
	start(t, yaml+`
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.memory}
---
apiVersion: loam.dev/v1alpha1
kind: Policy
metadata: {name: mine}
spec:
  targetRefs: [{group: loam.dev, kind: App, name: a}]
  timeout: {request: 3s}
  retry: {attempts: 2, on: ["503"], methods: [POST], backoff: 1ms}
  rateLimit: [{requests: 1, per: 1h, by: client}]
`)
	if code, body := post(t, url+"/v1.0/publish/bus/t", `{"n": 1}`); code != 204 {
		t.Fatalf("%d %s", code, body)
	}
	select {
	case b := <-got:
		if !strings.Contains(b, `"n"`) || calls.Load() != 2 {
			t.Errorf("%s after %d calls", b, calls.Load())
		}
	case <-time.After(time.Minute):
		t.Error("the event does not come")
	}
	if code, body := get(t, url+"/v1.0/invoke/a/method/slow"); code != 504 && code != 500 {
		t.Errorf("%d %s of a call that takes too long", code, body)
	}
}

// TestResiliencyOfBulk: of events that come together, those that failed are brought again, and no others.
func TestResiliencyOfBulk(t *testing.T) {
	batches := make(chan int, 100)
	var failed atomic.Bool
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dapr/subscribe":
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `[{"pubsubname": "bus", "topic": "t", "route": "/t", "bulkSubscribe": {"enabled": true, "maxMessagesCount": 3, "maxAwaitDurationMs": 20000}, "deadLetterTopic": "dead"}]`)
		case "/t":
			var in struct{ Entries []struct{ EntryID string } }
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			batches <- len(in.Entries)
			var out []string
			for i, e := range in.Entries {
				status := "SUCCESS"
				if i == 1 && !failed.Swap(true) {
					status = "RETRY"
				}
				out = append(out, fmt.Sprintf(`{"entryId": %q, "status": %q}`, e.EntryID, status))
			}
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"statuses": [`+strings.Join(out, ",")+`]}`)
		}
	})
	yaml, url := asker(t, `, address: "`+up+`"`)
	start(t, yaml+`
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.memory}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies: {retries: {some: {duration: 1ms, maxRetries: 5}}}
  targets: {components: {bus: {inbound: {retry: some}}}}
`)
	for n := range 3 {
		if code, body := post(t, url+"/v1.0/publish/bus/t", fmt.Sprintf(`{"n": %d}`, n)); code != 204 {
			t.Fatalf("%d %s", code, body)
		}
	}
	for _, want := range []int{3, 1} {
		select {
		case n := <-batches:
			if n != want {
				t.Errorf("%d events, want %d", n, want)
			}
		case <-time.After(time.Minute):
			t.Fatal("no events come")
		}
	}
}
