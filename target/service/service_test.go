package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newRequest(t testing.TB) *loam.Request {
	req := loam.NewRequest(context.Background())
	req.Method, req.Path = "GET", "/"
	return req
}

// newService makes a service of members whose transports answer at once with a body, so that requests stay under way.
func newService(t testing.TB, c Config, members []member) *Service {
	t.Helper()
	c.Name, c.Seed = "orders", 1
	if c.Discovery == nil {
		list := make([]Endpoint, len(members))
		for i := range members {
			list[i] = members[i].Endpoint
		}
		c.Discovery = Static(list...)
	}
	if c.Open == nil {
		c.Open = func(string) Transport {
			return &nowhere{loam.Response{Status: 200, Body: io.NopCloser(strings.NewReader(""))}}
		}
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// backends are endpoints that do what a test tells them.
type backends struct {
	mu    sync.Mutex
	serve map[string]func(*loam.Request) (*loam.Response, error)
	open  map[string]int // how often opened, less how often closed
	calls map[string]int
}

func newBackends() *backends {
	return &backends{serve: map[string]func(*loam.Request) (*loam.Response, error){}, open: map[string]int{}, calls: map[string]int{}}
}

type backend struct {
	*backends
	address string
}

func (b *backends) Open(address string) Transport {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[address]++
	return &backend{b, address}
}

func (b *backend) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[b.address]--
}

func (b *backend) Serve(req *loam.Request) (*loam.Response, error) {
	b.mu.Lock()
	b.calls[b.address]++
	serve := b.serve[b.address]
	b.mu.Unlock()
	if serve != nil {
		return serve(req)
	}
	return &loam.Response{Status: 200}, nil
}

func (b *backends) set(address string, serve func(*loam.Request) (*loam.Response, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.serve[address] = serve
}

func (b *backends) took() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls
	b.calls = map[string]int{}
	return c
}

func status(code int) func(*loam.Request) (*loam.Response, error) {
	return func(*loam.Request) (*loam.Response, error) { return &loam.Response{Status: code}, nil }
}

func refuses(*loam.Request) (*loam.Response, error) {
	return nil, loam.Errorf(loam.Unavailable, "connect", "refused")
}

// send sends n requests and returns who got them.
func (b *backends) send(t *testing.T, s loam.Target, n int) map[string]int {
	t.Helper()
	b.took()
	for range n {
		req := newRequest(t)
		if res, err := s.Serve(req); err == nil {
			_ = res.Close()
		}
		req.Release()
	}
	return b.took()
}

func find(t testing.TB, s *Service, address string) EndpointStatus {
	t.Helper()
	all := s.Status().Endpoints
	i := slices.IndexFunc(all, func(e EndpointStatus) bool { return e.Address == address })
	if i < 0 {
		t.Fatalf("there is no endpoint %s: %+v", address, all)
	}
	return all[i]
}

func abc() Discovery {
	return Static(Endpoint{Address: "a", Labels: map[string]string{"v": "1"}}, Endpoint{Address: "b", Labels: map[string]string{"v": "2"}}, Endpoint{Address: "c", Labels: map[string]string{"v": "2", "x": "y"}})
}

func TestAccounting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackends()
		s := newService(t, Config{Discovery: Static(Endpoint{Address: "a"}), Open: b.Open}, nil)
		body := io.NopCloser(strings.NewReader("x"))
		b.set("a", func(*loam.Request) (*loam.Response, error) {
			<-time.After(20 * time.Millisecond)
			return &loam.Response{Status: 200, Body: body}, nil
		})
		req := newRequest(t)
		res, err := s.Serve(req)
		if err != nil || res.Body != body {
			t.Fatalf("%v; the body is handed on as it is, so that it can be relayed fast: %v", err, res)
		}
		if e := find(t, s, "a"); e.InFlight != 1 || e.Requests != 1 || e.Failures != 0 || e.Latency.Round(time.Millisecond) != 20*time.Millisecond {
			t.Errorf("under way: %+v", e)
		}
		if req.Affinity != newID("a") || !slices.Equal(req.Tried, []string{"a"}) {
			t.Errorf("affinity %q, tried %q", req.Affinity, req.Tried)
		}
		req.Release()
		if e := find(t, s, "a"); e.InFlight != 0 {
			t.Errorf("after the end %d are under way", e.InFlight)
		}
		for name, c := range map[string]struct {
			serve func(*loam.Request) (*loam.Response, error)
			fault uint64
		}{
			"status 503 with a body": {func(*loam.Request) (*loam.Response, error) {
				return &loam.Response{Status: 503, Body: io.NopCloser(strings.NewReader("no"))}, nil
			}, 1},
			"status 500": {status(500), 1}, "status 404": {status(404), 0}, "refused": {refuses, 1},
			"canceled": {func(*loam.Request) (*loam.Response, error) { return nil, context.Canceled }, 0},
			"late":     {func(*loam.Request) (*loam.Response, error) { return nil, context.DeadlineExceeded }, 1},
			"broken":   {func(*loam.Request) (*loam.Response, error) { return nil, io.ErrUnexpectedEOF }, 1},
			"own bounds": {func(*loam.Request) (*loam.Response, error) {
				return nil, loam.Errorf(loam.ResourceExhausted, "pool", "full")
			}, 0},
			"panics": {func(*loam.Request) (*loam.Response, error) { panic("broken") }, 0},
		} {
			b.set("a", c.serve)
			before := find(t, s, "a")
			req := newRequest(t)
			func() {
				defer func() { _ = recover() }() // the edge does
				_, _ = s.Serve(req)
			}()
			if e := find(t, s, "a"); e.InFlight != 0 || e.Requests != before.Requests+1 || e.Failures != before.Failures+c.fault {
				t.Errorf("%s: %+v", name, e)
			}
			req.Release()
			if e := find(t, s, "a"); e.InFlight != 0 {
				t.Errorf("%s: ended twice: %d", name, e.InFlight)
			}
		}
	})
}

func TestGRPCFailures(t *testing.T) {
	for code, want := range map[string]bool{"": false, "0": false, "14": true, "13": true, "4": true, "15": true, "5": false, "2": false, "x": false} {
		res := &loam.Response{Status: 200}
		if code != "" {
			res.Header.Add("grpc-status", code)
		}
		if blame(res, nil, true) != want || blame(res, nil, false) {
			t.Errorf("grpc-status %q is the endpoint's fault: %t, want %t", code, !want, want)
		}
	}
}

// A retry of a key goes the same way each time: where the cache is that others of the key have filled.
func TestRetryOfKey(t *testing.T) {
	for _, a := range []Algorithm{RingHash, Maglev} {
		s := newService(t, Config{Algorithm: a, HashOn: HashHeader("K")}, equal(20))
		second := map[string]string{}
		for i := range 200 {
			req := newRequest(t)
			key := fmt.Sprint(i % 10)
			req.Header.Add("K", key)
			for range 2 {
				if _, err := s.Serve(req); err != nil {
					t.Fatal(err)
				}
			}
			way := strings.Join(req.Tried, " ")
			if second[key] == "" {
				second[key] = way
			}
			if way != second[key] {
				t.Errorf("%v: key %s went %s, and before %s", a, key, way, second[key])
			}
			req.Release()
		}
	}
}

// A retry gets another endpoint as long as there is one.
func TestRetryGoesElsewhere(t *testing.T) {
	for a := LeastRequest; a <= Maglev; a++ {
		b := newBackends()
		s := newService(t, Config{Algorithm: a, Discovery: abc(), Open: b.Open, HashOn: HashHeader("K")}, nil)
		for _, address := range []string{"a", "b", "c"} {
			b.set(address, refuses)
		}
		for range 50 {
			req := newRequest(t)
			req.Header.Add("K", "k")
			for range 4 {
				_, _ = s.Serve(req)
			}
			three := slices.Clone(req.Tried[:3])
			slices.Sort(three)
			if len(req.Tried) != 4 || !slices.Equal(three, []string{"a", "b", "c"}) {
				t.Errorf("%v: tried %q", a, req.Tried)
			}
			req.Release()
		}
	}
}

func TestAffinity(t *testing.T) {
	b := newBackends()
	var update func([]Endpoint, error)
	s := newService(t, Config{Open: b.Open, Discovery: DiscoveryFunc(func(ctx context.Context, u func([]Endpoint, error)) {
		update = u
		u([]Endpoint{{Address: "a"}, {Address: "b"}, {Address: "c"}}, nil)
		<-ctx.Done()
	})}, nil)
	<-s.Ready()
	for range 50 {
		req := newRequest(t)
		req.Affinity = newID("b")
		if _, err := s.Serve(req); err != nil || req.Tried[0] != "b" {
			t.Fatalf("sent to %q: %v", req.Tried, err)
		}
		if _, err := s.Serve(req); err != nil || req.Tried[1] == "b" || req.Affinity == newID("b") {
			t.Fatalf("tried again at %q, affinity %q: %v", req.Tried, req.Affinity, err)
		}
		req.Release()
	}
	update([]Endpoint{{Address: "a"}}, nil)
	req := newRequest(t)
	defer req.Release()
	req.Affinity = newID("b")
	if _, err := s.Serve(req); err != nil || req.Affinity != newID("a") {
		t.Errorf("an endpoint that is gone: affinity %q, %v", req.Affinity, err)
	}
	if id := newID("10.0.0.1:80"); len(id) != 13 || strings.Contains(id, "10") && strings.Contains(id, "80") {
		t.Errorf("id %q", id)
	}
}

func TestMaxRequests(t *testing.T) {
	s := newService(t, Config{MaxRequests: 3}, equal(2))
	var all []*loam.Request
	for range 6 {
		req := newRequest(t)
		if _, err := s.Serve(req); err != nil {
			t.Fatal(err)
		}
		all = append(all, req)
	}
	req := newRequest(t)
	if _, err := s.Serve(req); loam.CodeOf(err) != loam.ResourceExhausted || loam.HintOf(err) == "" {
		t.Errorf("a seventh request: %v", err)
	}
	all[0].Release()
	if _, err := s.Serve(req); err != nil {
		t.Error(err)
	}
	req.Release()
	for _, r := range all[1:] {
		r.Release()
	}
	for _, e := range s.Status().Endpoints {
		if e.InFlight != 0 {
			t.Errorf("%+v", e)
		}
	}
}

func TestDiscovery(t *testing.T) {
	b := newBackends()
	updates := make(chan func([]Endpoint, error), 1)
	s := newService(t, Config{Open: b.Open, Discovery: DiscoveryFunc(func(ctx context.Context, u func([]Endpoint, error)) {
		updates <- u
		<-ctx.Done()
	})}, nil)
	update := <-updates
	update(nil, errors.New("no name server"))
	if st := s.Status(); st.Error != "no name server" || st.Ready || st.String() != "no endpoints: no name server" {
		t.Errorf("%+v", st)
	}
	update([]Endpoint{{Address: "a", Weight: 1}, {Address: "b"}, {Address: "a", Weight: 7}, {}}, nil)
	<-s.Ready()
	if st := s.Status(); len(st.Endpoints) != 2 || st.Error != "" || st.Endpoints[0].Weight != 1 || st.Endpoints[1].Weight != 1 {
		t.Errorf("%+v", st)
	}
	b.send(t, s, 20)
	before := find(t, s, "b")
	if before.Requests == 0 {
		t.Fatal("nothing went to b")
	}
	if got := s.Status().String(); got != "2 of 2 endpoints healthy" {
		t.Error(got)
	}
	update(nil, errors.New("no name server"))
	if got := s.Status().String(); got != "2 of 2 endpoints healthy; the list is old: no name server" {
		t.Error(got)
	}
	if took := b.send(t, s, 20); took["a"]+took["b"] != 20 || s.Status().Error == "" {
		t.Errorf("the last good list is not used: %v", took)
	}
	before = find(t, s, "b")
	update([]Endpoint{{Address: "b", Weight: 5}, {Address: "c"}}, nil)
	if after := find(t, s, "b"); after.Requests != before.Requests || after.Weight != 5 {
		t.Errorf("what was known of b is lost: %+v, before %+v", after, before)
	}
	if took := b.send(t, s, 60); took["a"] != 0 || took["c"] == 0 || took["b"] < 2*took["c"] {
		t.Errorf("took %v", took)
	}
	if b.open["a"] != 0 || b.open["b"] != 1 || b.open["c"] != 1 {
		t.Errorf("open transports: %v", b.open)
	}
	many := make([]Endpoint, most+10)
	for i := range many {
		many[i].Address = newID(string(rune(i)))
	}
	if update(many, nil); len(s.Status().Endpoints) != most {
		t.Errorf("%d endpoints", len(s.Status().Endpoints))
	}
	if update([]Endpoint{}, nil); len(s.Status().Endpoints) != 0 {
		t.Error("an empty list is a list")
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if update(many, nil); b.open[many[0].Address] != 0 {
		t.Error("a closed service opens transports")
	}
}

// A request that comes before the first list waits for it.
func TestFirstList(t *testing.T) {
	for _, c := range []struct {
		after, deadline time.Duration // 0: none
		want            loam.Code
		took            time.Duration
	}{{time.Second, 0, loam.OK, time.Second}, {time.Minute, 0, loam.Unavailable, patience}, {time.Minute, time.Second, loam.Unavailable, time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBackends()
			s := newService(t, Config{Open: b.Open, Discovery: DiscoveryFunc(func(ctx context.Context, u func([]Endpoint, error)) {
				u(nil, errors.New("no name server"))
				select {
				case <-ctx.Done():
				case <-time.After(c.after):
					u([]Endpoint{{Address: "a"}}, nil)
				}
			})}, nil)
			req := newRequest(t)
			defer req.Release()
			start := time.Now()
			if c.deadline > 0 {
				req.SetDeadline(start.Add(c.deadline))
			}
			if _, err := s.Serve(req); loam.CodeOf(err) != c.want || err != nil && loam.HintOf(err) == "" || time.Since(start) != c.took {
				t.Errorf("a list after %s: %v after %s", c.after, err, time.Since(start))
			}
		})
	}
}

func TestCloseClosesTransports(t *testing.T) {
	b := newBackends()
	s := newService(t, Config{Discovery: abc(), Open: b.Open}, nil)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for address, n := range b.open {
		if n != 0 {
			t.Errorf("%s is open %d times", address, n)
		}
	}
	if took := b.send(t, s, 3); len(took) == 0 {
		t.Error("requests that come late, while the service drains, are refused")
	}
}

func TestSubset(t *testing.T) {
	b := newBackends()
	s := newService(t, Config{Discovery: abc(), Open: b.Open}, nil)
	two, both, none := s.Subset(map[string]string{"v": "2"}), s.Subset(map[string]string{"v": "2", "x": "y"}), s.Subset(map[string]string{"v": "3"})
	if took := b.send(t, two, 40); took["a"] != 0 || took["b"] == 0 || took["c"] == 0 {
		t.Errorf("v=2 took %v", took)
	}
	if took := b.send(t, both, 10); took["c"] != 10 {
		t.Errorf("v=2, x=y took %v", took)
	}
	req := newRequest(t)
	defer req.Release()
	if _, err := none.Serve(req); loam.CodeOf(err) != loam.Unavailable {
		t.Errorf("a subset of none: %v", err)
	}
	if s.Subset(map[string]string{"x": "y", "v": "2"}) != both || s.Subset(nil) != s.whole {
		t.Error("one subset is made twice")
	}
	if n := find(t, s, "c").Requests; n < 10 {
		t.Errorf("the service knows of %d requests", n)
	}
}

func TestZones(t *testing.T) {
	b := newBackends()
	s := newService(t, Config{
		Zone: "here", Open: b.Open, Passive: &Passive{ConsecutiveErrors: 1, MaxEjected: 1},
		Discovery: Static(Endpoint{Address: "a", Zone: "here"}, Endpoint{Address: "b", Zone: "here", Weight: 2}, Endpoint{Address: "c", Zone: "there"}),
	}, nil)
	if took := b.send(t, s, 30); took["c"] != 0 || took["a"] == 0 || took["b"] == 0 {
		t.Errorf("took %v, want those here", took)
	}
	req := newRequest(t)
	req.Tried = append(req.Tried, "a", "b")
	if _, err := s.Serve(req); err != nil || req.Tried[2] != "c" {
		t.Errorf("a retry past those here went to %q: %v", req.Tried, err)
	}
	req.Release()
	b.set("b", refuses)
	eventually(t, "b is ejected", func() bool { b.send(t, s, 5); return find(t, s, "b").State == Ejected })
	if took := b.send(t, s, 60); took["a"] == 0 || took["c"] == 0 {
		t.Errorf("took %v with a third of this zone left, want both zones", took)
	}
}

func TestPanic(t *testing.T) {
	for _, c := range []struct {
		below float64
		sick  string
		want  string // who gets requests
	}{{0, "", "abc"}, {0, "ab", "c"}, {0, "abc", "abc"}, {0.5, "a", "bc"}, {0.5, "ab", "abc"}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBackends()
			s := newService(t, Config{PanicBelow: c.below, Discovery: abc(), Open: b.Open, Active: &Active{Check: func(_ context.Context, address string, _ loam.Target) error {
				if strings.Contains(c.sick, address) {
					return errors.New("sick")
				}
				return nil
			}}}, nil)
			synctest.Wait()
			took, got := b.send(t, s, 100), ""
			for _, a := range []string{"a", "b", "c"} {
				if took[a] > 0 {
					got += a
				}
			}
			if got != c.want || s.Status().Panic != (len(c.want) == 3 && c.sick != "") || s.Status().Panic != strings.HasSuffix(s.Status().String(), "; requests go to all of them") {
				t.Errorf("%q sick, panic below %v: %q got requests, want %q; panic %t", c.sick, c.below, got, c.want, s.Status().Panic)
			}
		})
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	for a := LeastRequest; a <= Maglev; a++ {
		s := newService(t, Config{Algorithm: a, HashOn: HashCookie("sid"), MaxRequests: 100, Passive: &Passive{ConsecutiveErrors: 5}}, equal(10))
		req := newRequest(t)
		task := req.Task()
		n := testing.AllocsPerRun(100, func() {
			req.Begin(task)
			req.Header.Add("Cookie", "sid=0123456789")
			for range 2 { // and a retry
				if _, err := s.Serve(req); err != nil {
					t.Fatal(err)
				}
			}
			req.End()
		})
		if n != 0 {
			t.Errorf("%v: %v allocations", a, n)
		}
	}
}

// What a service has learned, the one that takes its place knows.
func TestBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackends()
		b.set("b", refuses)
		check := func(_ context.Context, address string, _ loam.Target) error {
			if address == "a" {
				return errors.New("it aches")
			}
			return nil
		}
		c := Config{Discovery: abc(), Open: b.Open, SlowStart: time.Minute, Active: &Active{Check: check, Interval: time.Hour}, Passive: &Passive{ConsecutiveErrors: 1, Ejection: time.Minute}}
		old := newService(t, c, nil)
		synctest.Wait()
		b.send(t, old, 20)
		synctest.Wait()
		pass(time.Second)
		c.Before = old
		c.Discovery = Static(Endpoint{Address: "a"}, Endpoint{Address: "b"}, Endpoint{Address: "c"}, Endpoint{Address: "d"})
		s := newService(t, c, nil)
		if s.c.Before != nil {
			t.Error("the old one is held for ever")
		}
		if a, b := find(t, s, "a"), find(t, s, "b"); a.State != Unhealthy || a.Reason != "it aches" || b.State != Ejected || time.Until(b.EjectedUntil) != 59*time.Second {
			t.Errorf("%+v, %+v", a, b)
		}
		if c, d := find(t, s, "c"), find(t, s, "d"); c.Share != 1 || d.Share != 0.1 || c.Requests != 0 {
			t.Errorf("%+v, %+v", c, d)
		}
		if took := b.send(t, s, 50); took["a"]+took["b"] != 0 {
			t.Errorf("took %v", took)
		}
		pass(time.Minute)
		if e := find(t, s, "b"); e.State != Healthy {
			t.Errorf("%+v", e)
		}
		plain := newService(t, Config{Discovery: abc(), Open: b.Open, Before: old}, nil) // it asks nobody, so nobody would get well
		for _, e := range plain.Status().Endpoints {
			if e.State != Healthy || e.Share != 1 || e.Reason != "" {
				t.Errorf("%+v", e)
			}
		}
	})
}

// Everything at once, for the race detector; and nothing is counted twice or lost.
func TestConcurrency(t *testing.T) {
	b := newBackends()
	updates := make(chan func([]Endpoint, error), 1)
	s := newService(t, Config{
		Shards: 2, Open: b.Open, SlowStart: time.Millisecond, Passive: &Passive{ConsecutiveErrors: 2, Ejection: time.Millisecond, Interval: time.Millisecond, Ratio: 0.5, MinRequests: 1},
		Discovery: DiscoveryFunc(func(ctx context.Context, u func([]Endpoint, error)) {
			u([]Endpoint{{Address: "a"}, {Address: "b"}, {Address: "c"}}, nil)
			updates <- u
			<-ctx.Done()
		}),
	}, nil)
	update := <-updates
	b.set("b", status(503))
	b.set("c", func(*loam.Request) (*loam.Response, error) {
		return &loam.Response{Status: 200, Body: io.NopCloser(strings.NewReader("c"))}, nil
	})
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 500 {
				req := newRequest(t)
				if res, err := s.Serve(req); err != nil {
					t.Error(err)
				} else {
					_ = res.Close()
				}
				req.Release()
			}
		})
	}
	work.Go(func() {
		for i := range 200 {
			list := []Endpoint{{Address: "a"}, {Address: "b"}, {Address: "c", Weight: i + 1}}
			update(list, nil)
			s.Subset(map[string]string{"x": fmt.Sprint(i % 8)})
			s.Status()
		}
	})
	work.Wait()
	var n uint64
	for _, e := range s.Status().Endpoints {
		n += e.Requests
		if e.InFlight != 0 {
			t.Errorf("%s has %d under way", e.Address, e.InFlight)
		}
	}
	if n != 4000 {
		t.Errorf("%d requests counted of 4000", n)
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"empty": {}, "no discovery": {Name: "a", Open: newBackends().Open}, "no way there": {Name: "a", Discovery: Static()},
		"no check": {Name: "a", Discovery: Static(), Open: newBackends().Open, Active: &Active{}},
	} {
		if _, err := New(c); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	for a := LeastRequest; a <= Maglev; a++ {
		if got, err := ParseAlgorithm(a.String()); err != nil || got != a {
			t.Errorf("%v is %v: %v", a, got, err)
		}
	}
	if a, err := ParseAlgorithm(""); err != nil || a != LeastRequest {
		t.Error(a, err)
	}
	if _, err := ParseAlgorithm("fastest"); loam.CodeOf(err) != loam.InvalidArgument {
		t.Error(err)
	}
}

// eventually waits for what real time brings about.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	timeout := time.After(2 * time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-timeout:
			t.Fatalf("not within two minutes: %s", what)
		case <-tick.C:
		}
	}
}
