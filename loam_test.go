package loam_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/loam-run/loam"
)

func TestHeader(t *testing.T) {
	h := loam.Header{{"Accept", "a"}, {"X-Two", "1"}, {"accept", "b"}, {"x-two", "2"}, {"Empty", ""}}
	if got := h.Get("ACCEPT"); got != "a" {
		t.Errorf("Get: %q", got)
	}
	if diff := cmp.Diff([]string{"a", "b"}, h.Values("Accept")); diff != "" {
		t.Error(diff)
	}
	if !h.Has("empty") || h.Has("Emptyy") || h.Get("missing") != "" || h.Values("missing") != nil {
		t.Error("an empty value is there, a missing field is not")
	}
	h.Set("X-TWO", "3")
	h.Add("Last", "z")
	if diff := cmp.Diff(loam.Header{{"Accept", "a"}, {"X-Two", "3"}, {"accept", "b"}, {"Empty", ""}, {"Last", "z"}}, h); diff != "" {
		t.Errorf("Set keeps the place of the first:\n%s", diff)
	}
	h.Del("aCCept")
	h.Set("New", "n")
	if diff := cmp.Diff(loam.Header{{"X-Two", "3"}, {"Empty", ""}, {"Last", "z"}, {"New", "n"}}, h); diff != "" {
		t.Error(diff)
	}
	for _, pair := range [][2]string{{"@", "`"}, {"[", "{"}, {"k", "\u212a"}, {"a-b", "a\rb"}} { // apart by one bit, or folded by Unicode alone
		if (loam.Header{{pair[0], "v"}}).Has(pair[1]) {
			t.Errorf("%q counts as %q", pair[0], pair[1])
		}
	}
}

// FuzzHeader does the same to a Header and to net/http's, which must agree on every name.
func FuzzHeader(f *testing.F) {
	f.Add("a X-Request-Id 1\na x-request-ID 2\ns X-REQUEST-ID 3\nd x-request-id\na Cookie c")
	f.Add("s A 1\ns a 2\na B 3\nd A")
	f.Fuzz(func(t *testing.T, script string) {
		var ours loam.Header
		theirs := http.Header{}
		var names []string
		for line := range strings.Lines(script) {
			op, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			name, value, _ := strings.Cut(rest, " ")
			if name == "" || strings.ContainsFunc(name, func(c rune) bool {
				return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", c)
			}) {
				continue // net/http canonicalises tokens only
			}
			names = append(names, name, strings.ToUpper(name), strings.ToLower(name))
			switch op {
			case "a":
				ours.Add(name, value)
				theirs.Add(name, value)
			case "s":
				ours.Set(name, value)
				theirs.Set(name, value)
			case "d":
				ours.Del(name)
				theirs.Del(name)
			}
		}
		fields := 0
		for _, values := range theirs {
			fields += len(values)
		}
		if fields != len(ours) {
			t.Fatalf("%d fields, net/http has %d: %v and %v", len(ours), fields, ours, theirs)
		}
		for _, name := range names {
			want := theirs.Values(name)
			if diff := cmp.Diff(want, ours.Values(name)); diff != "" {
				t.Fatalf("%s: %s", name, diff)
			}
			if ours.Get(name) != theirs.Get(name) || ours.Has(name) != (len(want) > 0) {
				t.Fatalf("%s: Get %q, Has %v; net/http has %q", name, ours.Get(name), ours.Has(name), want)
			}
		}
	})
}

type closeCounter struct {
	io.Reader
	closed int
}

func (c *closeCounter) Close() error { c.closed++; return nil }

func TestRequestIsCleanWhenTakenAgain(t *testing.T) {
	type key struct{}
	body := &closeCounter{Reader: strings.NewReader("")}
	req := loam.NewRequest(context.WithValue(t.Context(), key{}, "secret"))
	if req.Context().Value(key{}) != "secret" {
		t.Fatal("the context given is not the request's")
	}
	req.Method, req.Path, req.ID, req.Body, req.Length, req.Caller = "POST", "/", "id", body, 7, &loam.Caller{Name: "x"}
	req.Header.Add("Authorization", "secret")
	fields := req.Header[:1]
	req.Release()
	if body.closed != 1 {
		t.Errorf("the body was closed %d times", body.closed)
	}
	if fields[0] != (loam.Field{}) {
		t.Errorf("the pool keeps %v", fields[0])
	}
	for range 8 { // whichever the pool hands out
		req := loam.NewRequest(t.Context())
		if req.Method != "" || req.Path != "" || req.ID != "" || req.Body != nil || req.Length != 0 || req.Caller != nil || len(req.Header) != 0 || req.Context().Value(key{}) != nil {
			t.Errorf("not clean: %+v", req)
		}
		defer req.Release()
	}
	if new(loam.Request).Context() == nil {
		t.Error("a request made by hand has no context")
	}
}

func TestWrapOrder(t *testing.T) {
	var seen []string
	named := func(name string) loam.Policy {
		return func(next loam.Target) loam.Target {
			return loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
				seen = append(seen, name+" in")
				defer func() { seen = append(seen, name+" out") }()
				return next.Serve(r)
			})
		}
	}
	end := loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
		seen = append(seen, "target")
		return loam.NewResponse(200, "", nil), nil
	})
	if _, err := loam.Wrap(end, named("first"), named("second")).Serve(new(loam.Request)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"first in", "second in", "target", "second out", "first out"}, seen); diff != "" {
		t.Error(diff)
	}
}

func TestNewResponseCopies(t *testing.T) {
	b := []byte("hello")
	r := loam.NewResponse(201, "text/plain", b)
	copy(b, "XXXXX")
	got, err := io.ReadAll(r.Body)
	if err != nil || string(got) != "hello" || r.Length != 5 || r.Status != 201 || r.Header.Get("content-type") != "text/plain" {
		t.Errorf("%q %v %+v", got, err, r)
	}
	if err := errors.Join(r.Close(), new(loam.Response).Close()); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	caller := &loam.Caller{Name: "orders", Grants: []loam.Grant{
		{Capability: "state", Component: "default", Names: []string{"orders/*", "total"}},
		{Capability: "state", Component: "default", Names: []string{"prices/*"}, ReadOnly: true},
		{Capability: "pubsub", Component: "bus"},
	}}
	all := &loam.Caller{Name: "sidecar", Grants: []loam.Grant{{Capability: "*", Component: "*"}}, Denied: []loam.Grant{
		{Capability: "secret", Component: "vault", Except: []string{"db", "api/*"}},
		{Capability: "*", Component: "others"},
		{Capability: "secret", Component: "files", Names: []string{"root"}},
	}}
	for _, c := range []struct {
		caller                      *loam.Caller
		capability, component, name string
		write, ok                   bool
	}{
		{caller, "state", "default", "orders/1", true, true},
		{caller, "state", "default", "orders/", true, true},
		{caller, "state", "default", "orders", true, false},
		{caller, "state", "default", "total", true, true},
		{caller, "state", "default", "totals", false, false},
		{caller, "state", "default", "prices/1", false, true},
		{caller, "state", "default", "prices/1", true, false},
		{caller, "state", "other", "orders/1", false, false},
		{caller, "lock", "default", "orders/1", false, false},
		{caller, "pubsub", "bus", "anything", true, true},
		{&loam.Caller{Name: "bare"}, "pubsub", "bus", "x", false, false},
		{nil, "pubsub", "bus", "x", false, false},
		{all, "state", "any", "x", true, true},
		{all, "state", "others", "x", false, false},
		{all, "secret", "vault", "db", false, true},
		{all, "secret", "vault", "api/key", false, true},
		{all, "secret", "vault", "root", false, false},
		{all, "secret", "files", "root", false, false},
		{all, "secret", "files", "db", false, true},
	} {
		err := c.caller.Check(c.capability, c.component, c.name, c.write)
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if err != nil && loam.CodeOf(err) != loam.PermissionDenied {
			t.Errorf("%+v: code %v", c, loam.CodeOf(err))
		}
	}
	err := caller.Check("state", "default", "stock", true)
	const hint = `add to its spec.grants: {capability: state, component: default, names: ["stock"]}`
	if got := loam.HintOf(err); got != hint {
		t.Errorf("hint %q", got)
	}
}

func TestFactoryCapability(t *testing.T) {
	if got := (loam.Factory{Type: "state.sqlite"}).Capability(); got != "state" {
		t.Error(got)
	}
}

type ended int

func (e *ended) RequestEnded() { *e++ }

func TestRequestEnds(t *testing.T) {
	var first, second ended
	req := loam.NewRequest(t.Context())
	req.AtEnd(&first)
	req.AtEnd(&second)
	req.Tried = append(req.Tried, "10.0.0.1:80")
	req.Affinity = "a"
	clone := req.Clone(req.Task())
	if clone.Affinity != "a" || len(clone.Tried) != 1 || clone.Tried[0] != "10.0.0.1:80" {
		t.Errorf("the clone goes elsewhere: %q, tried %q", clone.Affinity, clone.Tried)
	}
	clone.Release()
	if first != 0 {
		t.Error("the end of a clone is not the request's")
	}
	req.End()
	if first != 1 || second != 1 || len(req.Tried) != 0 || req.Affinity != "" {
		t.Errorf("told %d and %d times, left tried %q, affinity %q", first, second, req.Tried, req.Affinity)
	}
	if req.Release(); first != 1 {
		t.Error("told again")
	}
}

type endCount struct{ n int }

func (e *endCount) RequestEnded() { e.n++ }

// What counts a try is told when the try is over, and not again at the request's end.
func TestRequestEndTry(t *testing.T) {
	req := loam.NewRequest(t.Context())
	var whole, first, second endCount
	req.AtEnd(&whole)
	n := req.Enders()
	req.AtEnd(&first)
	req.EndTry(n)
	if whole.n != 0 || first.n != 1 {
		t.Errorf("after a try: %d, %d", whole.n, first.n)
	}
	req.AtEnd(&second)
	req.Release()
	if whole.n != 1 || first.n != 1 || second.n != 1 {
		t.Errorf("at the end: %d, %d, %d", whole.n, first.n, second.n)
	}
}
