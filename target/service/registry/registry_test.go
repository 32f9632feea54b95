package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/target/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newRegistry(t testing.TB) *Registry {
	r := New(slog.New(slog.DiscardHandler))
	t.Cleanup(r.Close)
	return r
}

func register(t testing.TB, r *Registry, name string, i Instance) {
	t.Helper()
	if err := r.Register(name, i); err != nil {
		t.Fatal(err)
	}
}

func ids(l List) string {
	var s []string
	for _, i := range l.Instances {
		s = append(s, i.ID)
	}
	return strings.Join(s, " ")
}

func TestRegister(t *testing.T) {
	r := newRegistry(t)
	empty := r.List("orders")
	if len(empty.Instances) != 0 || len(r.Services()) != 0 {
		t.Errorf("%+v", empty)
	}
	one := Instance{ID: "1", Address: "10.0.0.1:80", Labels: map[string]string{"v": "1"}}
	register(t, r, "orders", one)
	first := r.List("orders")
	want := Instance{ID: "1", Address: "10.0.0.1:80", Weight: 1, TTL: Duration(30 * time.Second), Labels: map[string]string{"v": "1"}}
	if len(first.Instances) != 1 || !first.Instances[0].equal(want) || first.Version <= empty.Version {
		t.Errorf("%+v", first)
	}
	one.Labels["v"] = "changed by the caller"
	if got := r.List("orders"); got.Instances[0].Labels["v"] != "1" {
		t.Error("the list holds the caller's map")
	}
	one.Labels = map[string]string{"v": "1"}
	register(t, r, "orders", one)
	if got := r.List("orders"); got.Version != first.Version {
		t.Error("a heartbeat is no change")
	}
	one.Down = true
	register(t, r, "orders", one)
	if got := r.List("orders"); got.Version <= first.Version || !got.Instances[0].Down {
		t.Errorf("%+v", got)
	}
	register(t, r, "orders", Instance{ID: "0", Address: "[::1]:80"})
	register(t, r, "carts", Instance{ID: "0", Address: "carts.internal:80"})
	if got := r.Services(); len(got) != 2 || got["orders"] != 2 || got["carts"] != 1 || ids(r.List("orders")) != "0 1" {
		t.Errorf("%v", got)
	}
	if err := r.Deregister("orders", "1"); err != nil || ids(r.List("orders")) != "0" {
		t.Error(err, r.List("orders"))
	}
	for _, at := range [][2]string{{"orders", "1"}, {"none", "1"}} {
		if err := r.Deregister(at[0], at[1]); loam.CodeOf(err) != loam.NotFound {
			t.Error(err)
		}
	}
}

func TestRefused(t *testing.T) {
	r := newRegistry(t)
	good := Instance{ID: "1", Address: "10.0.0.1:80"}
	many := map[string]string{}
	for i := range maxLabels + 1 {
		many[fmt.Sprint(i)] = ""
	}
	for name, c := range map[string]struct {
		service string
		change  func(*Instance)
	}{
		"no service":    {"", func(*Instance) {}},
		"slash":         {"a/b", func(*Instance) {}},
		"dots":          {"..", func(*Instance) {}},
		"long service":  {strings.Repeat("a", 129), func(*Instance) {}},
		"no id":         {"a", func(i *Instance) { i.ID = "" }},
		"id with space": {"a", func(i *Instance) { i.ID = "a b" }},
		"no port":       {"a", func(i *Instance) { i.Address = "10.0.0.1" }},
		"port 0":        {"a", func(i *Instance) { i.Address = "10.0.0.1:0" }},
		"large port":    {"a", func(i *Instance) { i.Address = "10.0.0.1:65536" }},
		"no host":       {"a", func(i *Instance) { i.Address = ":80" }},
		"odd host":      {"a", func(i *Instance) { i.Address = "a b:80" }},
		"weight":        {"a", func(i *Instance) { i.Weight = -1 }},
		"heavy":         {"a", func(i *Instance) { i.Weight = maxWeight + 1 }},
		"short ttl":     {"a", func(i *Instance) { i.TTL = 1 }},
		"long ttl":      {"a", func(i *Instance) { i.TTL = Duration(2 * time.Hour) }},
		"long zone":     {"a", func(i *Instance) { i.Zone = strings.Repeat("z", 257) }},
		"labels":        {"a", func(i *Instance) { i.Labels = many }},
		"label":         {"a", func(i *Instance) { i.Labels = map[string]string{"": "x"} }},
		"label value":   {"a", func(i *Instance) { i.Labels = map[string]string{"a": "x\n"} }},
	} {
		i := good
		c.change(&i)
		if err := r.Register(c.service, i); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Watch(t.Context(), "a b", 0); loam.CodeOf(err) != loam.InvalidArgument {
		t.Error(err)
	}
	if len(r.Services()) != 0 {
		t.Error(r.Services())
	}
}

func TestFull(t *testing.T) {
	r := newRegistry(t)
	for i := range maxInstances {
		register(t, r, fmt.Sprint("s", i%100), Instance{ID: fmt.Sprint(i), Address: "10.0.0.1:80"})
	}
	if err := r.Register("s0", Instance{ID: "one more", Address: "10.0.0.1:80"}); loam.CodeOf(err) == loam.OK {
		t.Error("an instance with a space is taken")
	}
	if err := r.Register("s0", Instance{ID: "more", Address: "10.0.0.1:80"}); loam.CodeOf(err) != loam.ResourceExhausted || loam.HintOf(err) == "" {
		t.Error(err)
	}
	register(t, r, "s0", Instance{ID: "0", Address: "10.0.0.2:80"}) // those that are there may say so
	if err := r.Deregister("s0", "0"); err != nil {
		t.Error(err)
	}
	register(t, r, "s0", Instance{ID: "more", Address: "10.0.0.1:80"})

	few := newRegistry(t)
	for i := range maxServices {
		register(t, few, fmt.Sprint("s", i), Instance{ID: "1", Address: "10.0.0.1:80"})
	}
	if err := few.Register("more", Instance{ID: "1", Address: "10.0.0.1:80"}); loam.CodeOf(err) != loam.ResourceExhausted {
		t.Error(err)
	}
	if _, err := few.Watch(t.Context(), "more", absent); loam.CodeOf(err) != loam.ResourceExhausted {
		t.Error(err)
	}
}

func TestTooManyWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(slog.New(slog.DiscardHandler))
		defer r.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		for range maxWatches {
			work.Go(func() {
				if _, err := r.Watch(ctx, "orders", absent); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if _, err := r.Watch(ctx, "orders", absent); loam.CodeOf(err) != loam.ResourceExhausted {
			t.Error(err)
		}
		cancel()
		work.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.services) != 0 || r.watches != 0 {
			t.Errorf("%d services and %d watches are left", len(r.services), r.watches)
		}
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(slog.New(slog.DiscardHandler))
		defer r.Close()
		at := func(d time.Duration, want string) {
			t.Helper()
			<-time.After(d)
			synctest.Wait()
			if got := ids(r.List("orders")); got != want {
				t.Errorf("there is %q, want %q", got, want)
			}
		}
		long, short := Instance{ID: "long", Address: "10.0.0.1:80", TTL: Duration(time.Minute)}, Instance{ID: "short", Address: "10.0.0.2:80", TTL: Duration(10 * time.Second)}
		register(t, r, "orders", long)
		register(t, r, "orders", short)
		at(9*time.Second, "long short")
		register(t, r, "orders", short)
		at(9*time.Second, "long short")
		at(2*time.Second, "long")
		register(t, r, "orders", short)
		at(9*time.Second, "long short")
		at(3*time.Second, "long")
		at(26*time.Second, "long")
		at(4*time.Second, "")
		if len(r.Services()) != 0 {
			t.Error(r.Services())
		}
		register(t, r, "orders", short)
		at(12*time.Second, "")
	})
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(slog.New(slog.DiscardHandler))
		defer r.Close()
		got := make(chan List)
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() {
			first, last := true, ""
			for version := uint64(0); ctx.Err() == nil; {
				l, err := r.Watch(ctx, "orders", version)
				if err != nil {
					t.Error(err)
				}
				if version == l.Version {
					continue
				}
				version = l.Version
				if now := ids(l); now != last || first { // that nothing is left may be told twice
					first, last = false, now
					got <- l
				}
			}
		})
		next := func(want string) {
			t.Helper()
			if l := <-got; ids(l) != want {
				t.Errorf("list %q, want %q", ids(l), want)
			}
			synctest.Wait()
			select {
			case l := <-got:
				t.Errorf("a list that has not changed: %+v", l)
			default:
			}
		}
		next("")
		one := Instance{ID: "1", Address: "10.0.0.1:80", TTL: Duration(5 * time.Second)}
		register(t, r, "orders", one)
		next("1")
		register(t, r, "orders", one)
		register(t, r, "others", one)
		synctest.Wait()
		register(t, r, "orders", Instance{ID: "2", Address: "10.0.0.2:80"})
		next("1 2")
		<-time.After(6 * time.Second)
		next("2")
		if err := r.Deregister("orders", "2"); err != nil {
			t.Error(err)
		}
		next("")
		register(t, r, "orders", one)
		next("1")
		cancel()
		work.Wait()

		later, end := context.WithTimeout(t.Context(), time.Minute)
		defer end()
		start := time.Now()
		if _, err := r.Watch(later, "none", absent); err != nil || time.Since(start) != time.Minute {
			t.Errorf("a watch of nothing ended after %s: %v", time.Since(start), err)
		}
	})
}

func TestDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(slog.New(slog.DiscardHandler))
		defer r.Close()
		var last []service.Endpoint
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() {
			r.Discovery("orders").Run(ctx, func(list []service.Endpoint, err error) {
				if err != nil {
					t.Error(err)
				}
				last = list
			})
		})
		synctest.Wait()
		if last == nil || len(last) != 0 {
			t.Errorf("a service of none is a list of none: %v", last)
		}
		register(t, r, "orders", Instance{ID: "1", Address: "10.0.0.1:80", Weight: 3, Zone: "a", Labels: map[string]string{"v": "1"}})
		register(t, r, "orders", Instance{ID: "2", Address: "10.0.0.2:80", Down: true})
		synctest.Wait()
		if len(last) != 1 || last[0].Address != "10.0.0.1:80" || last[0].Weight != 3 || last[0].Zone != "a" || last[0].Labels["v"] != "1" {
			t.Errorf("%+v", last)
		}
		cancel()
		work.Wait()
	})
}

func TestSaveLoad(t *testing.T) {
	r := newRegistry(t)
	register(t, r, "orders", Instance{ID: "1", Address: "10.0.0.1:80", Labels: map[string]string{"v": "1"}, Zone: "z", Down: true, TTL: Duration(time.Minute)})
	register(t, r, "carts", Instance{ID: "2", Address: "10.0.0.2:80"})
	b, err := r.Save()
	if err != nil {
		t.Fatal(err)
	}
	other := newRegistry(t)
	if err := other.Load(b); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"orders", "carts"} {
		if a, b := r.List(name).Instances, other.List(name).Instances; !slices.EqualFunc(a, b, Instance.equal) {
			t.Errorf("%v became %v", a, b)
		}
	}
	if err := other.Load([]byte(`{"a":[{"id":"1"}]}`)); loam.CodeOf(err) != loam.InvalidArgument {
		t.Error(err)
	}
	if err := other.Load([]byte(`[`)); loam.CodeOf(err) != loam.DataLoss {
		t.Error(err)
	}
}

// call asks the handler over a socket.
func call(t *testing.T, base, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
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

func TestHandler(t *testing.T) {
	r := newRegistry(t)
	server := httptest.NewServer(http.StripPrefix("/v1/registry", r.Handler()))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	base := server.URL + "/v1/registry"
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/", "", 200, "{}"},
		{"PUT", "/orders/1", `{"address":"10.0.0.1:80","labels":{"v":"1"}}`, 200, `{"id":"1","address":"10.0.0.1:80","weight":1,"labels":{"v":"1"},"ttl":"30s"}`},
		{"PUT", "/orders/2", `{"id":"2","address":"10.0.0.2:80","weight":3,"zone":"a","ttl":"1m30s","down":true}`, 200, `"down":true,"ttl":"1m30s"`},
		{"GET", "/", "", 200, `{"orders":2}`},
		{"GET", "/orders", "", 200, `"instances":[{"id":"1"`},
		{"GET", "/orders?after=0", "", 200, `"instances":[{"id":"1"`},
		{"GET", "/none", "", 200, `{"version":1,"instances":[]}`},
		{"GET", "/none?after=1&wait=1ms", "", 200, `{"version":1,"instances":[]}`},
		{"DELETE", "/orders/2", "", 204, ""},
		{"DELETE", "/orders/2", "", 404, "no instance"},
		{"PUT", "/orders/2", `{"address":"10.0.0.2"}`, 400, "missing port"},
		{"PUT", "/orders/2", `{"id":"3","address":"10.0.0.2:80"}`, 400, "not that of the path"},
		{"PUT", "/orders/2", `{"port":"10.0.0.2:80"}`, 400, "unknown field"},
		{"PUT", "/orders/2", `{"address":"10.0.0.2:80"}{}`, 400, "something after"},
		{"PUT", "/orders/2", `{"address":"10.0.0.2:80","ttl":5}`, 400, "read the instance"},
		{"PUT", "/orders/2", "", 400, "read the instance"},
		{"PUT", "/orders/a%20b", `{"address":"10.0.0.2:80"}`, 400, "the id is not"},
		{"PUT", "/orders/2", `{"address":"` + strings.Repeat("1", maxBody) + `"}`, 413, "too large"},
		{"GET", "/orders?after=x", "", 400, "not a version"},
		{"GET", "/orders?after=1&wait=2m", "", 400, "up to 1m"},
		{"GET", "/a%20b", "", 400, "name is not"},
		{"POST", "/orders/2", "{}", 405, ""},
	} {
		status, body := call(t, base, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %.80s: %d %s, want %d %s", c.method, c.path, c.body, status, body, c.status, c.want)
		}
	}

	// A long poll ends with the change.
	var before, after List
	if err := json.Unmarshal([]byte(second(call(t, base, "GET", "/orders", ""))), &before); err != nil {
		t.Fatal(err)
	}
	answer := make(chan string)
	go func() {
		_, body := call(t, base, "GET", fmt.Sprintf("/orders?after=%d&wait=1m", before.Version), "")
		answer <- body
	}()
	for r.watching() == 0 {
		select {
		case body := <-answer:
			t.Fatalf("it did not wait: %s", body)
		case <-time.After(time.Millisecond):
		}
	}
	register(t, r, "orders", Instance{ID: "9", Address: "10.0.0.9:80"})
	if err := json.Unmarshal([]byte(<-answer), &after); err != nil || ids(after) != "1 9" || after.Version <= before.Version {
		t.Errorf("%+v, %v", after, err)
	}
}

func second(_ int, s string) string { return s }

func (r *Registry) watching() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.watches
}

// A service over the registry, through the handler, to the endpoint that gets the request.
func TestService(t *testing.T) {
	r := newRegistry(t)
	var mu sync.Mutex
	got := map[string]int{}
	s, err := service.New(service.Config{Name: "orders", Discovery: r.Discovery("orders"), Open: func(address string) service.Transport {
		return open(func(*loam.Request) (*loam.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			got[address]++
			return &loam.Response{Status: 200}, nil
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	<-s.Ready()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("PUT", "/orders/1", strings.NewReader(`{"address":"10.0.0.1:80"}`)))
	if w.Code != 200 {
		t.Fatal(w.Code, w.Body)
	}
	timeout := time.After(2 * time.Minute)
	for len(s.Status().Endpoints) == 0 {
		select {
		case <-timeout:
			t.Fatal("the service does not see what was registered")
		case <-time.After(time.Millisecond):
		}
	}
	req := loam.NewRequest(t.Context())
	defer req.Release()
	if _, err := s.Serve(req); err != nil || got["10.0.0.1:80"] != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

type open func(*loam.Request) (*loam.Response, error)

func (o open) Serve(req *loam.Request) (*loam.Response, error) { return o(req) }
func (open) Close()                                            {}

// FuzzHandler: whatever is sent, the answer is one that HTTP knows, and what was taken is what a list may hold.
func FuzzHandler(f *testing.F) {
	f.Add("PUT", "/orders/1", []byte(`{"address":"10.0.0.1:80"}`))
	f.Add("GET", "/orders?after=0&wait=0s", []byte(nil))
	f.Add("DELETE", "/orders/1", []byte(nil))
	f.Add("PUT", "/a/..", []byte(`{"address":"[::1%25x]:80","ttl":"1h","labels":{"a":"b"}}`))
	r := New(slog.New(slog.DiscardHandler))
	f.Cleanup(r.Close)
	h := r.Handler()
	f.Fuzz(func(t *testing.T, method, target string, body []byte) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://registry", bytes.NewReader(body))
		if err != nil {
			return
		}
		if req.URL, err = req.URL.Parse(target); err != nil || strings.Contains(req.URL.RawQuery, "after=1") {
			return // a watch would wait
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code < 200 || w.Code >= 500 {
			t.Errorf("%s %s: %d %s", method, target, w.Code, w.Body)
		}
		for name := range r.Services() {
			for _, i := range r.List(name).Instances {
				if err := check(name, i); err != nil {
					t.Errorf("%q %+v was taken: %v", name, i, err)
				}
				if err := r.Deregister(name, i.ID); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
