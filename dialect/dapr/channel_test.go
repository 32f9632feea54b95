package dapr

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/dapr"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/component/memory"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/protocol/grpc"
)

// An appServer is a program that answers by path what a test says, and keeps what it got.
type appServer struct {
	mu      sync.Mutex
	answers map[string]func(w http.ResponseWriter, r *http.Request, body []byte) // by method and path
	got     []mirrored
}

func (s *appServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.got = append(s.got, mirrored{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, string(b), r.Header, r.ContentLength})
	answer := s.answers[r.Method+" "+r.URL.Path]
	s.mu.Unlock()
	if answer == nil {
		w.WriteHeader(404)
		return
	}
	answer(w, r, b)
}

func (s *appServer) on(what string, status int, body string) {
	s.set(what, func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func (s *appServer) set(what string, f func(w http.ResponseWriter, r *http.Request, body []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answers == nil {
		s.answers = map[string]func(http.ResponseWriter, *http.Request, []byte){}
	}
	s.answers[what] = f
}

func (s *appServer) last() mirrored {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[len(s.got)-1]
}

func callbackOf(t *testing.T, h http.Handler, change func(*dialect.Options, *Settings)) dialect.Callback {
	f := newFleet(t)
	return f.start("shop", app(t, h), change).Callback()
}

func TestSubscriptionsHTTP(t *testing.T) {
	s := &appServer{}
	c := callbackOf(t, s, nil)
	if got, err := c.Subscriptions(t.Context()); err != nil || got != nil {
		t.Errorf("an app that has none: %v, %v", got, err)
	}
	s.on("GET /dapr/subscribe", 200, `[
		{"pubsubname":"bus","topic":"orders","route":"/on/order","deadLetterTopic":"dead","metadata":{"rawPayload":"true","x":"y"}},
		{"pubsubname":"bus","topic":"rules","routes":{"rules":[{"match":"event.type == \"a\"","path":"/a"}],"default":"/b"},"bulkSubscribe":{"enabled":true,"maxMessagesCount":5,"maxAwaitDurationMs":40}},
		{"pubsubname":"bus","topic":"none"},
		{"pubsubname":"bus","topic":"bad","routes":{"rules":[{"match":"event.","path":"/a"}]}}]`)
	got, err := c.Subscriptions(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	if g := got[0]; g.Component != "bus" || g.Topic != "orders" || g.Default != "/on/order" || g.DeadLetter != "dead" || !g.Raw || g.Metadata["x"] != "y" || g.Bulk != nil {
		t.Errorf("%+v", g)
	}
	if g := got[1]; g.Bulk == nil || *g.Bulk != (event.Bulk{Max: 5, Wait: 40 * time.Millisecond}) || g.Default != "/b" || len(g.Rules) != 1 || g.Rules[0].Path != "/a" || g.Raw {
		t.Errorf("%+v", g)
	}
	for _, bad := range []struct {
		status int
		body   string
		code   loam.Code
	}{
		{200, `{"a":1}`, loam.InvalidArgument}, {200, `[{"topic":7}]`, loam.InvalidArgument}, {200, "[", loam.InvalidArgument}, {500, "", loam.Unavailable},
		{200, "[" + strings.Repeat(`{"topic":"x","route":"/x"},`, maxSubscriptions) + "{}]", loam.ResourceExhausted},
		{200, strings.Repeat(" ", maxAnswer+1), loam.ResourceExhausted},
	} {
		s.on("GET /dapr/subscribe", bad.status, bad.body)
		if got, err := c.Subscriptions(t.Context()); loam.CodeOf(err) != bad.code {
			t.Errorf("%d %.50s: %v, %v", bad.status, bad.body, got, err)
		}
	}
	for _, empty := range []string{"", "[]", "null"} {
		s.on("GET /dapr/subscribe", 200, empty)
		if got, err := c.Subscriptions(t.Context()); err != nil || got != nil {
			t.Errorf("%q: %v, %v", empty, got, err)
		}
	}
}

var order = loam.Event{
	ID: "e1", Source: "shop", Type: "OrderCreated", Subject: "7", Time: time.Date(2026, 11, 21, 7, 0, 0, 0, time.UTC), ContentType: "application/json", Topic: "orders",
	Attributes: map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, Data: []byte(`{"n":12345678901234567890}`),
	Extra: map[string]json.RawMessage{"level": json.RawMessage("3")}, Metadata: map[string]string{"partition": "4", "bad name": "x", "Content-Length": "9"},
}

func isDrop(err error) bool {
	d, ok := errors.AsType[interface {
		error
		Drop() bool
	}](err)
	return ok && d.Drop()
}

func TestDeliverHTTP(t *testing.T) {
	s := &appServer{}
	c := callbackOf(t, s, func(o *dialect.Options, _ *Settings) { o.App.AppToken = "secret" })
	to := &event.Subscription{Component: "bus", Topic: "orders", Default: "/on/order?x=1"}
	s.on("POST /on/order", 200, "")
	if err := c.Deliver(t.Context(), nil, to, order, 1); err != nil {
		t.Fatal(err)
	}
	got := s.last()
	var envelope map[string]any
	if err := json.Unmarshal([]byte(got.Body), &envelope); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"specversion": "1.0", "id": "e1", "source": "shop", "type": "OrderCreated", "subject": "7", "time": "2026-11-21T07:00:00Z", "datacontenttype": "application/json",
		"topic": "orders", "pubsubname": "bus", "traceparent": order.Attributes["traceparent"], "level": 3.0, "data": map[string]any{"n": 12345678901234567890.0},
	}
	if diff := cmp.Diff(want, envelope); diff != "" {
		t.Error(diff)
	}
	if h := got.Header; got.Query != "x=1" || h.Get("Content-Type") != "application/cloudevents+json" || h.Get("Dapr-Api-Token") != "secret" || h.Get("Pubsubname") != "bus" ||
		h.Get("Partition") != "4" || h.Get("Traceparent") == "" || len(h["Bad name"]) > 0 {
		t.Errorf("%+v", got)
	}
	raw := loam.Event{Topic: "orders", Data: []byte("\xff\x00"), Raw: true}
	if err := c.Deliver(t.Context(), nil, to, raw, 1); err != nil {
		t.Fatal(err)
	}
	envelope = nil
	if err := json.Unmarshal([]byte(s.last().Body), &envelope); err != nil || envelope["data_base64"] != "/wA=" || envelope["datacontenttype"] != "application/octet-stream" || envelope["id"] == "" || envelope["type"] != "com.dapr.event.sent" {
		t.Errorf("%v, %v", envelope, err)
	}
	const ack, retry, drop = "ack", "retry", "drop"
	for _, c2 := range []struct {
		status int
		body   string
		want   string
	}{
		{200, "{}", ack}, {204, "", ack}, {200, `{"status":"SUCCESS"}`, ack}, {200, "OK", ack}, {200, `{"status":5}`, ack}, {201, `[]`, ack}, {200, `{"status":""}`, ack},
		{200, `{"status":"RETRY"}`, retry}, {200, `{"status":"DROP"}`, drop}, {200, `{"status":"WHAT"}`, retry}, {404, "", drop},
		{500, "", retry}, {400, `{"status":"DROP"}`, retry}, {302, "", retry}, {200, strings.Repeat("x", maxAnswer+1), retry},
	} {
		s.on("POST /on/order", c2.status, c2.body)
		err := c.Deliver(t.Context(), nil, to, order, 1)
		is := retry
		switch {
		case err == nil:
			is = ack
		case isDrop(err):
			is = drop
		}
		if is != c2.want {
			t.Errorf("%d %.40q: %s, want %s: %v", c2.status, c2.body, is, c2.want, err)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
	rules := &event.Subscription{Component: "bus", Topic: "orders", Rules: []event.Rule{{Match: `event.type == "OrderCreated"`, Path: "/created"}}}
	s.on("POST /created", 200, "")
	if err := c.Deliver(t.Context(), nil, rules, order, 1); err != nil || s.last().Path != "/created" {
		t.Errorf("%v, %s", err, s.last().Path)
	}
	other := order
	other.Type = "Else"
	if err := c.Deliver(t.Context(), nil, rules, other, 1); !isDrop(err) {
		t.Error(err)
	}
}

func TestDeliverBulkHTTP(t *testing.T) {
	s := &appServer{}
	c := callbackOf(t, s, nil)
	to := &event.Subscription{Component: "bus", Topic: "orders", Default: "/bulk", Rules: []event.Rule{{Match: `event.id == "other"`, Path: "/other"}}}
	events := []loam.Event{order, {ID: "drop", Topic: "orders", Data: []byte("a")}, {ID: "retry", Topic: "orders"}, {ID: "silent"}, {Raw: true, Data: []byte("\xff")}, {ID: "other"}, {ID: "e1"}}
	s.on("POST /other", 404, "")
	s.set("POST /bulk", func(w http.ResponseWriter, _ *http.Request, b []byte) {
		var in struct {
			ID, Type, Topic, Pubsubname string
			Metadata                    map[string]string
			Entries                     []struct {
				EntryID     string `json:"entryId"`
				ContentType string
				Event       json.RawMessage
			}
		}
		if err := json.Unmarshal(b, &in); err != nil || in.ID == "" || in.Type != "com.dapr.event.sent.bulk" || in.Topic != "orders" || in.Pubsubname != "bus" || in.Metadata["pubsubName"] != "bus" {
			t.Errorf("%s, %v", b, err)
		}
		var out []map[string]string
		for _, e := range in.Entries {
			status := "SUCCESS"
			switch {
			case strings.HasPrefix(e.EntryID, "drop"):
				status = "DROP"
			case strings.HasPrefix(e.EntryID, "retry"):
				status = "RETRY"
			case strings.HasPrefix(e.EntryID, "silent"):
				continue
			case e.ContentType == "application/octet-stream":
				if string(e.Event) != `"/w=="` {
					t.Errorf("%s", e.Event)
				}
			}
			out = append(out, map[string]string{"entryId": e.EntryID, "status": status})
		}
		out = append(out, map[string]string{"entryId": "nobody's", "status": "DROP"})
		_ = json.NewEncoder(w).Encode(map[string]any{"statuses": out})
	})
	var got []string
	for _, err := range c.DeliverBulk(t.Context(), to, events) {
		switch {
		case err == nil:
			got = append(got, "ack")
		case isDrop(err):
			got = append(got, "drop")
		default:
			got = append(got, "retry")
		}
	}
	if want := []string{"ack", "drop", "retry", "retry", "ack", "drop", "ack"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, bad := range []struct {
		status int
		body   string
	}{{200, ""}, {200, `{"statuses":7}`}, {500, ""}, {200, `{}`}} {
		s.on("POST /bulk", bad.status, bad.body)
		for _, err := range c.DeliverBulk(t.Context(), to, events[:2]) {
			if err == nil || isDrop(err) {
				t.Errorf("%d %s: %v", bad.status, bad.body, err)
			}
		}
	}
}

// output is a binding that keeps what it is given.
type output struct {
	mu  sync.Mutex
	got []string
}

func (o *output) Operations() []string { return []string{"create"} }
func (o *output) Close() error         { return nil }
func (o *output) Invoke(_ context.Context, r binding.Request) (binding.Response, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.got = append(o.got, string(r.Data))
	return binding.Response{}, nil
}

func TestBindingsHTTP(t *testing.T) {
	s := &appServer{}
	out := &output{}
	d, err := memory.New().OpenState(t.Context(), "store", memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	store := state.New("store", d)
	set := &components{state: map[string]*state.Store{"store": store}, binding: map[string]*binding.Binding{"out": binding.New("out", out)}}
	c := callbackOf(t, s, func(o *dialect.Options, _ *Settings) { o.Capabilities = set })
	if ok, err := c.Binding(t.Context(), "in"); ok || err != nil {
		t.Error(ok, err)
	}
	for status, want := range map[int]bool{200: true, 204: true, 405: true, 404: false, 500: false} {
		s.on("OPTIONS /in", status, "")
		if ok, err := c.Binding(t.Context(), "in"); ok != want || err != nil {
			t.Errorf("%d: %v %v", status, ok, err)
		}
	}
	s.on("POST /in", 200, `plain text`)
	if b, err := c.Read(t.Context(), "in", []byte("hello"), map[string]string{"x": "y"}); err != nil || string(b) != "plain text" || s.last().Body != "hello" || s.last().Header.Get("X") != "y" {
		t.Errorf("%q, %v, %+v", b, err, s.last())
	}
	for _, concurrency := range []string{"parallel", "sequential"} {
		s.on("POST /in", 200, `{"data":{"a":1},"storeName":"store","state":[{"key":"k","value":{"v":2}}],"to":["out","out"],"concurrency":"`+concurrency+`"}`)
		if _, err := c.Read(t.Context(), "in", nil, nil); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(out.got, slices.Repeat([]string{`{"a":1}`}, 4)) {
		t.Errorf("%q", out.got)
	}
	mine, err := store.For("shop", "")
	if err != nil {
		t.Fatal(err)
	}
	if it, err := mine.Get(t.Context(), &loam.Caller{Grants: []loam.Grant{{Capability: "*", Component: "*"}}}, "k"); err != nil || string(it[0].Value) != `{"v":2}` {
		t.Errorf("%v, %v", it, err)
	}
	for answer, code := range map[string]loam.Code{
		`{"to":["nobody"]}`: loam.NotFound, `{"storeName":"nobody","state":[{"key":"k"}]}`: loam.NotFound, `{"to":["out"` + strings.Repeat(`,"out"`, maxFollow) + `]}`: loam.ResourceExhausted,
		`{"storeName":"store","state":[{"key":"k","metadata":{"ttlInSeconds":"x"}}]}`: loam.InvalidArgument,
	} {
		s.on("POST /in", 200, answer)
		if _, err := c.Read(t.Context(), "in", nil, nil); loam.CodeOf(err) != code {
			t.Errorf("%.60s: %v", answer, err)
		}
	}
	s.on("POST /in", 500, "no")
	if _, err := c.Read(t.Context(), "in", nil, nil); loam.CodeOf(err) != loam.Unavailable {
		t.Error(err)
	}
}

func TestJobsAndConfigurationHTTP(t *testing.T) {
	s := &appServer{}
	f := newFleet(t)
	a := f.start("shop", app(t, s), nil)
	s.on("POST /job/nightly report", 200, "")
	value, err := valueOf([]byte(`{"a": [1, null]}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Callback().Job(t.Context(), jobs.Job{Name: "nightly report", Data: value, Type: valueType}); err != nil || s.last().Path != "/job/nightly%20report" || s.last().Body != `{"a":[1,null]}` {
		t.Errorf("%v %+v", err, s.last())
	}
	if err := a.Callback().Job(t.Context(), jobs.Job{Name: "nightly report", Data: []byte(" bytes ")}); err != nil || s.last().Body != "bytes" {
		t.Errorf("%v %+v", err, s.last())
	}
	if err := a.Callback().Job(t.Context(), jobs.Job{Name: "none"}); loam.CodeOf(err) != loam.NotFound {
		t.Error(err)
	}
	s.on("POST /configuration/store/key", 204, "")
	if err := a.pushConfiguration("store", "key", []byte(`{"id":"1"}`)); err != nil || s.last().Body != `{"id":"1"}` {
		t.Errorf("%v %+v", err, s.last())
	}
	if err := a.pushConfiguration("store", "other", nil); err == nil {
		t.Error("a change that was not taken")
	}
}

// A change of configuration is posted to who subscribed over HTTP, until it unsubscribes.
func TestConfigurationSubscriptionHTTP(t *testing.T) {
	s := &appServer{}
	posted := make(chan string, 16)
	for _, key := range []string{"color", "size"} {
		s.set("POST /configuration/settings/"+key, func(_ http.ResponseWriter, r *http.Request, body []byte) {
			posted <- r.URL.Path + " " + string(body)
		})
	}
	c := newComponents(t)
	a := newFleet(t).start("shop", app(t, s), func(o *dialect.Options, _ *Settings) { o.Capabilities = c })
	var subscribed struct{ ID string }
	r := do(t, a.HTTP(), "GET", "/v1.0/configuration/settings/subscribe?key=color&key=size", "")
	if err := json.Unmarshal([]byte(r.body), &subscribed); err != nil || r.status != 200 || subscribed.ID == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	set := func(key, value string) {
		t.Helper()
		if err := c.config["settings"].Set(t.Context(), a.opts.App.Caller, []config.Item{{Key: key, Value: value}}); err != nil {
			t.Fatal(err)
		}
	}
	set("other", "1") // nobody asked
	set("color", "blue")
	var told struct {
		ID    string
		Items map[string]jsonConfig
	}
	got := <-posted
	path, body, _ := strings.Cut(got, " ")
	if err := json.Unmarshal([]byte(body), &told); err != nil || path != "/configuration/settings/color" || told.ID != subscribed.ID || told.Items["color"].Value != "blue" {
		t.Errorf("%s, %v", got, err)
	}
	if r := do(t, a.HTTP(), "GET", "/v1.0/configuration/settings/"+subscribed.ID+"/unsubscribe", ""); r.status != 200 || strings.TrimSpace(r.body) != `{"ok":true}` {
		t.Errorf("%+v", r)
	}
	// Another subscription goes on, and its change comes after what the first would have brought.
	if r := do(t, a.HTTP(), "GET", "/v1.0/configuration/settings/subscribe?key=size", ""); r.status != 200 {
		t.Fatalf("%+v", r)
	}
	set("color", "red")
	set("size", "large")
	if got := <-posted; !strings.HasPrefix(got, "/configuration/settings/size ") {
		t.Errorf("after it unsubscribed: %s", got)
	}
}

// TestHostileApps: a program that is slow, endless, gone, or no HTTP costs its own calls, in bounded time and memory.
func TestHostileApps(t *testing.T) {
	released := make(chan bool)
	defer close(released)
	s := &appServer{}
	c := callbackOf(t, s, nil)
	s.set("POST /slow", func(_ http.ResponseWriter, r *http.Request, _ []byte) {
		select {
		case <-released:
		case <-r.Context().Done():
		}
	})
	s.set("POST /endless", func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		for {
			if _, err := w.Write(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
				return
			}
		}
	})
	s.set("POST /break", func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "short")
		panic(http.ErrAbortHandler)
	})
	for path, code := range map[string]loam.Code{"/slow": loam.DeadlineExceeded, "/endless": loam.ResourceExhausted, "/break": loam.Unavailable} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if path == "/slow" {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		}
		err := c.Deliver(ctx, nil, &event.Subscription{Default: path}, order, 1)
		cancel()
		if is := loam.CodeOf(err); is != code && (path != "/slow" || is != loam.Unavailable) || isDrop(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
	gone := newFleet(t).start("gone", "127.0.0.1:1", nil).Callback()
	if err := gone.Deliver(t.Context(), nil, &event.Subscription{Default: "/x"}, order, 1); loam.CodeOf(err) != loam.Unavailable {
		t.Error(err)
	}
	if _, err := gone.Subscriptions(t.Context()); loam.CodeOf(err) != loam.Unavailable {
		t.Error(err)
	}
	if c := newFleet(t).start("none", "", nil).Callback(); c != nil {
		t.Error("an app without a port is told of something")
	}
}

func TestAppHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		sick := true
		probes := 0
		target := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			if req.Path != "/well?" && req.Path == "/well" {
				probes++
				if sick {
					return loam.NewResponse(500, "", nil), nil
				}
			}
			return loam.NewResponse(200, "", nil), nil
		})
		a, err := New(dialect.Options{App: dialect.App{ID: "shop", Target: target}, Capabilities: &components{}}, Settings{Health: &AppHealth{Path: "/well", Interval: 10 * time.Second, Timeout: time.Second, Threshold: 3}})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var told []bool
		done := make(chan bool)
		go func() {
			a.WatchApp(ctx, func(healthy bool) { told = append(told, healthy) })
			close(done)
		}()
		is := func(want bool) {
			t.Helper()
			synctest.Wait()
			if a.AppHealthy() != want {
				t.Errorf("healthy is %v", !want)
			}
			err := a.Callback().Job(t.Context(), jobs.Job{Name: "x"})
			if want != (err == nil) {
				t.Errorf("called while healthy is %v: %v", want, err)
			}
			var req loam.Request
			req.Begin(mustTask(t))
			req.Method, req.Path = "GET", "/x"
			res, err := a.App().Serve(&req)
			if err == nil {
				_ = res.Close()
			} else if !errors.Is(err, errUnhealthy) {
				t.Error(err)
			}
			if want != (err == nil) {
				t.Errorf("invoked while healthy is %v: %v", want, err)
			}
			req.End()
		}
		set := func(v bool) {
			mu.Lock()
			sick = v
			mu.Unlock()
		}
		is(false)
		set(false)
		<-time.After(10 * time.Second) // by synctest's clock
		is(true)
		set(true)
		<-time.After(20 * time.Second) // by synctest's clock
		is(true)                       // two of three
		<-time.After(10 * time.Second) // by synctest's clock
		is(false)
		<-time.After(30 * time.Second) // by synctest's clock
		is(false)
		set(false)
		<-time.After(10 * time.Second) // by synctest's clock
		is(true)
		cancel()
		<-done
		if !slices.Equal(told, []bool{true, false, true}) {
			t.Error(told)
		}
	})
	for _, bad := range []AppHealth{{Interval: time.Second, Timeout: 2 * time.Second}, {Interval: -1}, {Threshold: -1}} {
		if _, err := New(dialect.Options{App: dialect.App{Target: loam.TargetFunc(nil)}, Capabilities: &components{}}, Settings{Health: &bad}); err == nil {
			t.Errorf("%+v", bad)
		}
	}
}

func mustTask(t *testing.T) loam.Task {
	task, end := loam.NewTask(t.Context())
	t.Cleanup(end)
	return task
}

// grpcApp is a program that speaks gRPC: our own server, which the SDKs' tests hold to theirs.
func grpcApp(f *fleet, methods map[string]grpc.Method, unknown loam.Target) string {
	return f.listen(&grpc.Server{Methods: methods, Unknown: unknown})
}

func TestCallbacksGRPC(t *testing.T) {
	f := newFleet(t)
	var mu sync.Mutex
	var event1 pb.TopicEventRequest
	var header loam.Header
	status := pb.TopicEventResponse_SUCCESS
	var wellness error
	var job pb.JobEventRequest
	methods := map[string]grpc.Method{
		pb.MethodAppCallbackListTopicSubscriptions: grpc.Unary(func(*grpc.Call, *pb.Empty) (*pb.ListTopicSubscriptionsResponse, error) {
			return &pb.ListTopicSubscriptionsResponse{Subscriptions: []pb.TopicSubscription{
				{PubsubName: "bus", Topic: "orders"},
				{PubsubName: "bus", Topic: "rules", Metadata: map[string]string{"rawPayload": "true"}, DeadLetterTopic: "dead", Routes: &pb.TopicRoutes{Rules: []pb.TopicRule{{Match: `event.type == "x"`, Path: "/x"}}, Default: "/d"}, BulkSubscribe: &pb.BulkSubscribeConfig{Enabled: true}},
			}}, nil
		}),
		pb.MethodAppCallbackOnTopicEvent: grpc.Unary(func(c *grpc.Call, in *pb.TopicEventRequest) (*pb.TopicEventResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			event1, header = *in, nil
			for _, h := range c.Request().Header {
				header.Add(strings.Clone(h.Name), strings.Clone(h.Value))
			}
			if status == 77 {
				return nil, grpc.NewStatus(loam.Unimplemented, "not here")
			}
			if status == 78 {
				return nil, grpc.NewStatus(loam.Internal, "broken")
			}
			return &pb.TopicEventResponse{Status: status}, nil
		}),
		pb.MethodAppCallbackAlphaOnBulkTopicEventAlpha1: grpc.Unary(func(_ *grpc.Call, in *pb.TopicEventBulkRequest) (*pb.TopicEventBulkResponse, error) {
			var out pb.TopicEventBulkResponse
			for i, e := range in.Entries {
				if i < 2 {
					out.Statuses = append(out.Statuses, pb.TopicEventBulkResponseEntry{EntryId: e.EntryId, Status: pb.TopicEventResponse_TopicEventResponseStatus(2 * i)})
				}
			}
			return &out, nil
		}),
		pb.MethodAppCallbackListInputBindings: grpc.Unary(func(*grpc.Call, *pb.Empty) (*pb.ListInputBindingsResponse, error) {
			return &pb.ListInputBindingsResponse{Bindings: []string{"in"}}, nil
		}),
		pb.MethodAppCallbackOnBindingEvent: grpc.Unary(func(_ *grpc.Call, in *pb.BindingEventRequest) (*pb.BindingEventResponse, error) {
			return &pb.BindingEventResponse{Data: []byte(in.Name + string(in.Data) + in.Metadata["x"]), To: []string{"out"}}, nil
		}),
		pb.MethodAppCallbackAlphaOnJobEventAlpha1: grpc.Unary(func(_ *grpc.Call, in *pb.JobEventRequest) (*pb.Empty, error) {
			mu.Lock()
			defer mu.Unlock()
			job = *in
			return &pb.Empty{}, nil
		}),
		pb.MethodAppCallbackHealthCheckHealthCheck: grpc.Unary(func(*grpc.Call, *pb.Empty) (*pb.Empty, error) {
			mu.Lock()
			defer mu.Unlock()
			return &pb.Empty{}, wellness
		}),
	}
	out := &output{}
	a := f.start("shop", grpcApp(f, methods, nil), func(o *dialect.Options, _ *Settings) {
		o.App.GRPC, o.App.AppToken = true, "secret"
		o.Capabilities = &components{binding: map[string]*binding.Binding{"out": binding.New("out", out)}}
	})
	c := a.Callback()
	subs, err := c.Subscriptions(t.Context())
	if err != nil || len(subs) != 2 || subs[1].Default != "/d" || !subs[1].Raw || subs[1].Bulk == nil || subs[1].Bulk.Max != bulkMax || subs[1].DeadLetter != "dead" || len(subs[1].Rules) != 1 {
		t.Fatalf("%+v, %v", subs, err)
	}
	if err := c.Deliver(t.Context(), nil, &subs[0], order, 1); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if event1.Id != "e1" || event1.Source != "shop" || event1.Type != "OrderCreated" || event1.SpecVersion != "1.0" || event1.DataContentType != "application/json" || string(event1.Data) != string(order.Data) ||
		event1.Topic != "orders" || event1.PubsubName != "bus" || event1.Path != "" || *event1.Extensions.Fields["subject"].StringValue != "7" || *event1.Extensions.Fields["level"].NumberValue != 3 {
		t.Errorf("%+v", event1)
	}
	if header.Get("dapr-api-token") != "secret" || header.Get("grpc-trace-bin") == "" || header.Get("traceparent") == "" || header.Get("pubsubname") != "bus" || header.Get("partition") != "4" {
		t.Errorf("%v", header)
	}
	mu.Unlock()
	for s, want := range map[pb.TopicEventResponse_TopicEventResponseStatus]string{1: "retry", 2: "drop", 9: "retry", 77: "drop", 78: "retry"} {
		mu.Lock()
		status = s
		mu.Unlock()
		err := c.Deliver(t.Context(), nil, &subs[1], order, 1)
		if err == nil || isDrop(err) != (want == "drop") {
			t.Errorf("%d: %v", s, err)
		}
	}
	mu.Lock()
	if event1.Path != "/d" {
		t.Errorf("path %q", event1.Path)
	}
	mu.Unlock()
	errs := c.DeliverBulk(t.Context(), &subs[0], []loam.Event{order, {ID: "b", Raw: true, Data: []byte{1}}, {ID: "c"}})
	if errs[0] != nil || !isDrop(errs[1]) || errs[2] == nil || isDrop(errs[2]) {
		t.Error(errs)
	}
	for name, want := range map[string]bool{"in": true, "other": false} {
		if ok, err := c.Binding(t.Context(), name); ok != want || err != nil {
			t.Error(name, ok, err)
		}
	}
	if b, err := c.Read(t.Context(), "in", []byte("1"), map[string]string{"x": "y"}); err != nil || string(b) != "in1y" || !slices.Equal(out.got, []string{"in1y"}) {
		t.Errorf("%q %v %q", b, err, out.got)
	}
	err = c.Job(t.Context(), jobs.Job{Name: "n", Data: []byte("d"), Type: "t"})
	mu.Lock()
	if err != nil || job.Name != "n" || job.Method != "job/n" || job.Data == nil || job.Data.TypeUrl != "t" || string(job.Data.Value) != "d" {
		t.Errorf("%+v %v", job, err)
	}
	mu.Unlock()
	if err := c.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	wellness = grpc.NewStatus(loam.Unavailable, "sick")
	mu.Unlock()
	if err := c.Healthy(t.Context()); loam.CodeOf(err) != loam.Unavailable {
		t.Error(err)
	}
	bare := f.start("bare", grpcApp(f, nil, nil), func(o *dialect.Options, _ *Settings) { o.App.GRPC = true }).Callback()
	if subs, err := bare.Subscriptions(t.Context()); subs != nil || err != nil {
		t.Error(subs, err)
	}
	if ok, err := bare.Binding(t.Context(), "in"); ok || err != nil {
		t.Error(ok, err)
	}
	if err := bare.Deliver(t.Context(), nil, &event.Subscription{}, order, 1); !isDrop(err) {
		t.Error(err)
	}
	if err := bare.Job(t.Context(), jobs.Job{Name: "x"}); loam.CodeOf(err) != loam.Unimplemented {
		t.Error(err)
	}
}

// onInvoke is a program that speaks gRPC and answers invocations.
func onInvoke(f *fleet) string {
	return grpcApp(f, map[string]grpc.Method{pb.MethodAppCallbackOnInvoke: grpc.Unary(func(c *grpc.Call, in *pb.InvokeRequest) (*pb.InvokeResponse, error) {
		for _, h := range c.Request().Header {
			if !strings.HasPrefix(h.Name, "grpc-") && h.Name != "te" && h.Name != "content-type" && h.Name != "x-request-id" {
				c.AddHeader("got-"+h.Name, h.Value)
			}
		}
		c.AddTrailer("x-trailer", "t")
		verb, query := "", ""
		if in.HttpExtension != nil {
			verb, query = verbs[in.HttpExtension.Verb], in.HttpExtension.Querystring
		}
		if in.Method == "fail" {
			return nil, grpc.NewStatus(loam.FailedPrecondition, "not now", grpc.ErrorInfo("WHY", "shop", nil))
		}
		data, typeURL := []byte(nil), ""
		if in.Data != nil {
			data, typeURL = in.Data.Value, in.Data.TypeUrl
		}
		return &pb.InvokeResponse{ContentType: in.ContentType, Data: &pb.Any{TypeUrl: typeURL, Value: fmt.Appendf(nil, "%s %s %s %s", in.Method, verb, query, data)}}, nil
	})}, nil)
}

// TestInvokeGRPC: HTTP and gRPC call apps that speak HTTP and gRPC, in the same sidecar and by another.
func TestInvokeGRPC(t *testing.T) {
	f := newFleet(t)
	http1 := app(t, http.HandlerFunc(mirror))
	grpc1 := onInvoke(f)
	isGRPC := func(o *dialect.Options, _ *Settings) { o.App.GRPC = true }
	f.start("remote-http", http1, nil)
	f.start("remote-grpc", grpc1, isGRPC)
	for name, caller := range map[string]*sidecar{"http": f.start("local-http", http1, nil), "grpc": f.start("local-grpc", grpc1, isGRPC)} {
		for _, callee := range []string{"remote-http", "remote-grpc", "local-" + name} {
			t.Run(name+" to "+callee, func(t *testing.T) {
				byGRPC(t, f, caller, callee)
				if strings.HasSuffix(callee, "-grpc") {
					base := "http://" + caller.http + "/v1.0/invoke/" + callee + "/method/"
					res, b := send(t, "PUT", base+"m/n?q=1", "data", "Content-Type: text/x", "X-Y: z", "Accept: a/b", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
					if res.StatusCode != 200 || b != "m/n PUT q=1 data" || res.Header.Get("Content-Type") != "text/x" || res.Header.Get("Got-X-Y") != "z" || res.Header.Get("Got-Dapr-Accept") != "a/b" || res.Header.Get("Got-Traceparent") == "" {
						t.Errorf("%d %q %v", res.StatusCode, b, res.Header)
					}
					res, b = send(t, "POST", base+"fail", "")
					if res.StatusCode != 400 || !strings.Contains(b, `"code":9`) || !strings.Contains(b, `"message":"not now"`) || !strings.Contains(b, "google.rpc.ErrorInfo") || res.Header.Get("Content-Type") != "application/json" {
						t.Errorf("%d %q %v", res.StatusCode, b, res.Header)
					}
					for name := range res.Header {
						if private(name) {
							t.Errorf("%s got out", name)
						}
					}
				}
			})
		}
	}
}

// byGRPC calls InvokeService.
func byGRPC(t *testing.T, f *fleet, caller *sidecar, callee string) {
	t.Helper()
	call := func(m *pb.InvokeRequest, header ...loam.Field) (out pb.InvokeResponse, reply grpc.Reply, err error) {
		client, end := f.client(caller.grpc)
		defer end()
		f.task(func(task loam.Task) {
			var req loam.Request
			req.Begin(task)
			defer req.End()
			req.Header = header
			err = client.Call(&req, pathInvokeService, &pb.InvokeServiceRequest{Id: callee, Message: m}, &out, &reply)
		})
		return out, reply, err
	}
	out, reply, err := call(&pb.InvokeRequest{
		Method: "m/n", Data: &pb.Any{TypeUrl: "type.googleapis.com/x.Y", Value: []byte("data")}, ContentType: "text/x", HttpExtension: &pb.HTTPExtension{Verb: 4, Querystring: "q=1"},
	}, loam.Field{Name: "x-y", Value: "z"}, loam.Field{Name: "b-bin", Value: "AQI"})
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(callee, "-grpc") {
		if string(out.Data.Value) != "m/n PUT q=1 data" || out.Data.TypeUrl != "type.googleapis.com/x.Y" {
			t.Errorf("%+v", out)
		}
		if reply.Header.Get("got-x-y") != "z" || strings.TrimRight(reply.Header.Get("got-b-bin"), "=") != "AQI" || reply.Trailer.Get("x-trailer") != "t" {
			t.Errorf("%v %v", reply.Header, reply.Trailer)
		}
	} else {
		var got mirrored
		if err := json.Unmarshal(out.Data.Value, &got); err != nil || got.Method != "PUT" || got.Path != "/m/n" || got.Query != "q=1" || got.Body != "data" || got.Header.Get("X-Y") != "z" || got.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%+v %v", got, err)
		}
		if out.ContentType != "application/json" || reply.Header.Get("dapr-http-status") != "200" || !slices.Equal(reply.Header.Values("x-two"), []string{"one", "two"}) {
			t.Errorf("%+v %v", out, reply.Header)
		}
	}
	if strings.HasSuffix(callee, "-grpc") {
		_, _, err = call(&pb.InvokeRequest{Method: "fail"})
		s, ok := errors.AsType[*grpc.Status](err)
		if !ok || s.Code != loam.FailedPrecondition || s.Message != "not now" || len(s.Details) != 1 || s.Details[0].Type != "google.rpc.ErrorInfo" {
			t.Errorf("%+v", err)
		}
	} else {
		_, reply, err = call(&pb.InvokeRequest{Method: "x", HttpExtension: &pb.HTTPExtension{Verb: 1}}, loam.Field{Name: "x-status", Value: "409"})
		s, ok := errors.AsType[*grpc.Status](err)
		if !ok || s.Code != loam.AlreadyExists || s.Message != "Conflict" || reply.Header.Get("dapr-http-status") != "409" {
			t.Errorf("%+v %v", err, reply.Header)
		}
		if _, _, err = call(&pb.InvokeRequest{Method: "x"}); err == nil || !strings.Contains(err.Error(), "missing HTTP extension field") {
			t.Errorf("%v", err)
		}
	}
}

// client is one of gRPC, for tasks of the fleet's engine.
func (f *fleet) client(address string) (*grpc.Client, func()) {
	c := newHTTP2(f, address)
	return &grpc.Client{Target: c}, c.Close
}

// task runs fn in a task of the engine and waits for it.
func (f *fleet) task(fn func(loam.Task)) {
	done := make(chan bool)
	f.engine.Go(func(t loam.Task) {
		defer close(done)
		fn(t)
	})
	<-done
}

// TestProxyGRPC: a call of a service that is none of ours passes unread to the app that metadata names: both ways at once,
// with metadata, trailers, details and cancellation.
func TestProxyGRPC(t *testing.T) {
	f := newFleet(t)
	ended := make(chan error, 10)
	methods := map[string]grpc.Method{
		"/shop.Shop/Echo": grpc.Streaming(func(s *grpc.Stream) error {
			s.AddHeader("x-head", s.Request().Header.Get("x-mine"))
			s.AddHeader("x-callee", s.Request().Header.Get("dapr-callee-app-id")+s.Request().Header.Get("dapr-app-id"))
			s.AddTrailer("x-tail", "t")
			for {
				var m grpc.Raw
				err := s.Recv(&m)
				if errors.Is(err, io.EOF) {
					return grpc.NewStatus(loam.Aborted, "done", grpc.ErrorInfo("R", "d", nil))
				}
				if err != nil {
					ended <- err
					return err
				}
				m = bytes.ToUpper(m)
				if err := s.Send(&m); err != nil {
					return err
				}
			}
		}),
	}
	isGRPC := func(o *dialect.Options, _ *Settings) { o.App.GRPC = true }
	address := grpcApp(f, methods, nil)
	f.start("callee", address, isGRPC)
	f.start("web", app(t, http.HandlerFunc(mirror)), nil)
	caller := f.start("caller", address, isGRPC)
	client, end := f.client(caller.grpc)
	defer end()
	for _, id := range []string{"callee", "caller", "callee.default"} {
		f.task(func(task loam.Task) {
			var req loam.Request
			req.Begin(task)
			req.Header = loam.Header{{Name: "dapr-app-id", Value: id}, {Name: "x-mine", Value: "1"}}
			s := client.Open(&req, "/shop.Shop/Echo")
			for i, size := range []int{1, 10, 100 << 10, 3 << 20} {
				m := grpc.Raw(bytes.Repeat([]byte("a"), size))
				if err := s.Send(&m); err != nil {
					t.Error(id, i, err)
					return
				}
				var got grpc.Raw
				if err := s.Recv(&got); err != nil || !bytes.Equal(got, bytes.ToUpper(m)) {
					t.Error(id, i, len(got), err)
					return
				}
			}
			s.CloseSend()
			var got grpc.Raw
			err := s.Recv(&got)
			st, ok := errors.AsType[*grpc.Status](err)
			if !ok || st.Code != loam.Aborted || st.Message != "done" || len(st.Details) != 1 {
				t.Error(id, err)
			}
			h, err := s.Header()
			if want := map[bool]string{true: "", false: "callee"}[id == "caller"]; err != nil || h.Get("x-head") != "1" || h.Get("x-callee") != want || s.Trailer().Get("x-tail") != "t" {
				t.Error(id, err, h, s.Trailer())
			}
			s.Close()
			// Who goes away is told to the app.
			req = loam.Request{}
			req.Begin(task)
			req.Header = loam.Header{{Name: "dapr-app-id", Value: id}}
			s = client.Open(&req, "/shop.Shop/Echo")
			m := grpc.Raw("x")
			if err := errors.Join(s.Send(&m), s.Recv(&got)); err != nil {
				t.Error(id, err)
			}
			s.Close()
		})
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("the app was not told that nobody waits any more")
		}
	}
	for header, want := range map[string]loam.Code{"": loam.Unknown, "dapr-app-id: nobody": loam.NotFound, "dapr-app-id: web": loam.Unimplemented} {
		f.task(func(task loam.Task) {
			var req loam.Request
			req.Begin(task)
			if name, value, ok := strings.Cut(header, ": "); ok {
				req.Header = loam.Header{{Name: name, Value: value}}
			}
			var in, out grpc.Raw
			if err := client.Call(&req, "/shop.Shop/Echo", &in, &out, nil); loam.CodeOf(err) != want {
				t.Errorf("%q: %v", header, err)
			}
		})
	}
}
