package loam

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// handle registers for one test.
func handle(t *testing.T, pattern string, h HandlerFunc) {
	t.Helper()
	before := slices.Clone(routes)
	t.Cleanup(func() { routes = before })
	Handle(pattern, h)
}

func TestMux(t *testing.T) {
	fake := NewFake(t)
	for _, p := range []string{
		"GET /", "GET /orders", "POST /orders", "GET /orders/{id}", "GET /orders/new", "/static/", "GET /files/{path...}",
		"GET /orders/{id}/lines/{line}",
	} {
		handle(t, p, func(r *Request) (*Response, error) {
			return Text(200, p+" "+r.PathValue("id")+r.PathValue("line")+r.PathValue("path")), nil
		})
	}
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/", "GET / "},
		{"GET", "/orders", "GET /orders "},
		{"HEAD", "/orders", "GET /orders "},
		{"POST", "/orders", "POST /orders "},
		{"GET", "/orders/7?x=1", "GET /orders/{id} 7"},
		{"GET", "/orders/a%2Fb", "GET /orders/{id} a/b"},
		{"GET", "/orders/new", "GET /orders/new "},
		{"GET", "/orders/7/lines/2", "GET /orders/{id}/lines/{line} 72"},
		{"DELETE", "/static/a/b", "/static/ "},
		{"GET", "/files/a/b", "GET /files/{path...} a/b"},
	} {
		if r := fake.Serve(c.method, c.path, nil); r.Status != 200 || string(r.Body) != c.want {
			t.Errorf("%s %s: %d %s", c.method, c.path, r.Status, r.Body)
		}
	}
	if r := fake.Serve("PUT", "/orders", nil); r.Status != 405 || !strings.Contains(r.Header.Get("allow"), "POST") {
		t.Errorf("wrong method: %+v", r)
	}
	for _, wrong := range []string{"orders", "GET orders", "/{}", "/{a", "/{a...}/b", "GET /orders"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was registered", wrong)
				}
			}()
			handle(t, wrong, func(*Request) (*Response, error) { return nil, nil })
		}()
	}
}

func TestErrorsBecomeStatuses(t *testing.T) {
	fake := NewFake(t)
	for i, c := range []struct {
		err    error
		status int
		shown  bool
	}{
		{errors.New("secret"), 500, false},
		{Errorf(NotFound, "secret"), 404, true},
		{fmt.Errorf("round it: %w", Errorf(Aborted, "secret")), 409, true},
		{Errorf(Unavailable, "secret"), 503, false},
	} {
		path := fmt.Sprintf("/%d", i)
		handle(t, path, func(*Request) (*Response, error) { return nil, c.err })
		if r := fake.Serve("GET", path, nil); r.Status != c.status || strings.Contains(string(r.Body), "secret") != c.shown {
			t.Errorf("%v: %d %s", c.err, r.Status, r.Body)
		}
	}
	handle(t, "/panic", func(*Request) (*Response, error) { panic("oh") })
	if r := fake.Serve("GET", "/panic", nil); r.Status != 500 {
		t.Errorf("panic: %d", r.Status)
	}
	handle(t, "/json", func(r *Request) (*Response, error) { var v int; return nil, r.JSON(&v) })
	if r := fake.Serve("POST", "/json", []byte("{")); r.Status != 400 {
		t.Errorf("bad JSON: %d", r.Status)
	}
}

func TestEvents(t *testing.T) {
	fake := NewFake(t)
	var got Event
	var result error
	handle(t, "/unused", func(*Request) (*Response, error) { return nil, nil })
	HandleEvent("/events", func(_ *Request, e Event) error { got = e; return result })
	sent := Event{
		ID: "1", Source: "shop", Type: "OrderCreated", Topic: "orders", Time: time.Unix(5, 7).UTC(), ContentType: "application/json",
		Data: []byte(`{"a":1}`), Attributes: map[string]string{"traceparent": "x"},
	}
	var v struct{ A int }
	if !fake.Deliver("/events", sent) || fmt.Sprint(got) != fmt.Sprint(sent) || got.JSON(&v) != nil || v.A != 1 {
		t.Errorf("%+v", got)
	}
	for _, c := range []struct {
		err  error
		done bool
	}{
		{errors.New("again"), false},
		{Errorf(NotFound, "a key, not the event"), false},
		{fmt.Errorf("%w: not for us", ErrDrop), true},
	} {
		if result = c.err; fake.Deliver("/events", sent) != c.done {
			t.Errorf("%v: done is not %t", c.err, c.done)
		}
	}
	if r := fake.Serve("POST", "/events", nil); r.Status != 400 {
		t.Errorf("no event: %d", r.Status)
	}
}

func TestCapabilities(t *testing.T) {
	fake := NewFake(t)
	s := State("")
	if _, err := s.Get("a"); !IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
	etag, err := s.PutJSON("a", map[string]int{"n": 1}, IfAbsent())
	if err != nil || etag == "" {
		t.Fatal(etag, err)
	}
	if _, err := s.Put("a", nil, IfMatch("")); !IsConflict(err) {
		t.Errorf("the ETag of what was not there: %v", err)
	}
	tx := s.Begin()
	tx.Put("b", []byte("2"))
	tx.Put("a", []byte("3"), IfMatch("wrong"))
	tx.Publish("", "orders", "lost")
	if err := tx.Commit(); !IsConflict(err) || len(fake.Published) != 0 {
		t.Errorf("%v, %d published", err, len(fake.Published))
	}
	if items, err := s.List("", "", 0); err != nil || len(items) != 1 {
		t.Errorf("half a transaction is there: %v %v", items, err)
	}
	tx = s.Begin()
	tx.Put("b", []byte(strings.Repeat("large", 2000)))
	tx.Delete("a", IfMatch(etag))
	tx.Publish("", "orders", map[string]int{"n": 1}, WithType("OrderCreated"), WithAttribute("x", "y"))
	if err := tx.Commit(); err != nil || len(fake.Published) != 1 || fake.Published[0].Type != "OrderCreated" || string(fake.Published[0].Data) != `{"n":1}` {
		t.Errorf("%v %+v", err, fake.Published)
	}
	if items, err := s.GetMany("a", "b"); err != nil || items[0].Exists() || len(items[1].Value) != 10_000 {
		t.Errorf("%v %v", items, err)
	}
	tx.PutJSON("c", func() {})
	if err := tx.Commit(); CodeOf(err) != InvalidArgument {
		t.Errorf("a func as JSON: %v", err)
	}

	l := Lock("")
	if ok, err := l.Try("x", "me", time.Second); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := l.Try("x", "you", time.Second); ok || err != nil {
		t.Error(ok, err)
	}
	if err := l.Unlock("x", "you"); CodeOf(err) != PermissionDenied {
		t.Error(err)
	}
	if err := errors.Join(l.Renew("x", "me", time.Second), l.Unlock("x", "me")); err != nil {
		t.Error(err)
	}
	fake.Config["greeting"] = "hi"
	if v, err := Config("").Get("greeting"); v != "hi" || err != nil {
		t.Error(v, err)
	}
	if _, err := Config("").Get("nothing"); !IsNotFound(err) {
		t.Error(err)
	}
	if first, err := Sequence("").NextN("n", 5); first != 1 || err != nil {
		t.Error(first, err)
	}
	if next, err := Sequence("").Next("n"); next != 6 || err != nil {
		t.Error(next, err)
	}
	fake.Secrets["token"] = "s3cret"
	if v, err := Secret("").Get("token"); string(v) != "s3cret" || err != nil {
		t.Error(v, err)
	}
	if _, err := Secret("").Get("nothing"); !IsNotFound(err) {
		t.Error(err)
	}
	if _, err := Invoke("mailer", "/", Outgoing{}); !IsNotFound(err) {
		t.Error(err)
	}
	if _, err := Fetch("https://example.org/", Outgoing{}); CodeOf(err) != PermissionDenied {
		t.Error(err)
	}
	answer := func(to string, o Outgoing) (*Response, error) {
		return Text(418, fmt.Sprint(to, " ", o.Method, " ", o.Header.Get("x"), " ", string(o.Body), " ", o.Timeout)), nil
	}
	fake.Invoke = func(target, path string, o Outgoing) (*Response, error) { return answer(target+path, o) }
	fake.Fetch = answer
	o := Outgoing{Method: "PUT", Header: Header{{"X", "y"}}, Body: []byte("body"), Timeout: time.Second}
	if r, err := Invoke("mailer", "/mails", o); err != nil || r.Status != 418 || string(r.Body) != "mailer/mails PUT y body 1s" {
		t.Error(r, err)
	}
	if r, err := Fetch("https://example.org/", o); err != nil || r.Header.Get("content-type") == "" || string(r.Body) != "https://example.org/ PUT y body 1s" {
		t.Error(r, err)
	}
	fake.Fail = func(string) error { return Errorf(Unavailable, "down") }
	if _, err := s.Get("b"); CodeOf(err) != Unavailable {
		t.Error(err)
	}
}

// What a header cannot hold comes by percent signs; what only looks so stays as it is.
func TestEventAttributes(t *testing.T) {
	r := &Request{Header: Header{{"Ce-Specversion", "1.0"}, {"Ce-Id", "1"}, {"Ce-Subject", "order%207%20%E2%82%AC"}, {"Ce-Reason", "100%"}}}
	e, ok := r.Event()
	if !ok || e.ID != "1" || e.Subject != "order 7 €" || e.Attributes["reason"] != "100%" {
		t.Errorf("%+v, %t", e, ok)
	}
}
