package policy

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loam-run/loam"
)

func TestRateLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var count tally
		l := NewRateLimit(RateLimitConfig{Name: "shop", Requests: 10, Per: time.Second, Burst: 3, Told: count.told})
		target := l.Policy()(&fixed{res: status(200)})
		serve := func(n int) (ok int) {
			for range n {
				res, err := target.Serve(get(t, "/"))
				if err != nil {
					t.Fatal(err)
				}
				if res.Status == 200 {
					ok++
				}
			}
			return ok
		}
		if ok := serve(10); ok != 3 {
			t.Errorf("%d at once, want the burst of 3", ok)
		}
		pass(100 * time.Millisecond)
		if ok := serve(10); ok != 1 {
			t.Errorf("%d after a tenth of a second, want 1", ok)
		}
		pass(time.Hour)
		if ok := serve(10); ok != 3 {
			t.Errorf("%d after an hour: what is not used does not add up beyond the burst", ok)
		}
		if count.of(RateLimited) != 7+9+7 {
			t.Errorf("told of %d", count.of(RateLimited))
		}

		res, err := target.Serve(get(t, "/"))
		if err != nil || res.Status != 429 {
			t.Fatal(res, err)
		}
		for name, want := range map[string]string{"Retry-After": "1", "RateLimit-Policy": `"shop";q=10;w=1`, "RateLimit": `"shop";r=0;t=1`} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		res, err = target.Serve(get(t, "/", "Content-Type", "application/grpc"))
		if err != nil || res.Header.Get("grpc-status") != "8" || res.Header.Get("Retry-After") == "" {
			t.Errorf("to a gRPC client: %+v, %v", res, err)
		}
	})
}

// Whose requests count together.
func TestRateLimitBy(t *testing.T) {
	for _, c := range []struct {
		name string
		c    RateLimitConfig
		same bool
		a, b func(*loam.Request)
	}{
		{"route", RateLimitConfig{}, true, func(r *loam.Request) { r.Remote = "192.0.2.1:1" }, func(r *loam.Request) { r.Remote = "192.0.2.2:1" }},
		{"another address", RateLimitConfig{By: ByClient}, false, func(r *loam.Request) { r.Remote = "192.0.2.1:1" }, func(r *loam.Request) { r.Remote = "192.0.2.2:1" }},
		{"another port", RateLimitConfig{By: ByClient}, true, func(r *loam.Request) { r.Remote = "192.0.2.1:1" }, func(r *loam.Request) { r.Remote = "192.0.2.1:2" }},
		{"an IPv4 address in IPv6", RateLimitConfig{By: ByClient}, true, func(r *loam.Request) { r.Remote = "192.0.2.1:1" }, func(r *loam.Request) { r.Remote = "[::ffff:192.0.2.1]:2" }},
		{"one IPv6 network", RateLimitConfig{By: ByClient}, true, func(r *loam.Request) { r.Remote = "[2001:db8::1]:1" }, func(r *loam.Request) { r.Remote = "[2001:db8::ffff:2]:1" }},
		{"another IPv6 network", RateLimitConfig{By: ByClient}, false, func(r *loam.Request) { r.Remote = "[2001:db8::1]:1" }, func(r *loam.Request) { r.Remote = "[2001:db8:0:1::1]:1" }},
		{"another header", RateLimitConfig{By: ByHeader, Header: "X-Key"}, false, func(r *loam.Request) { r.Header.Add("x-key", "a") }, func(r *loam.Request) { r.Header.Add("x-key", "b") }},
		{"the same header", RateLimitConfig{By: ByHeader, Header: "X-Key"}, true, func(r *loam.Request) { r.Header.Add("x-key", "a") }, func(r *loam.Request) { r.Header.Add("X-KEY", "a") }},
		{"no header", RateLimitConfig{By: ByHeader, Header: "X-Key"}, true, func(*loam.Request) {}, func(r *loam.Request) { r.Header.Add("x-key", "") }},
		{"another claim", RateLimitConfig{By: ByClaim, Claim: "sub"}, false, func(r *loam.Request) { r.Claims = map[string]any{"sub": "a"} }, func(r *loam.Request) { r.Claims = map[string]any{"sub": "b"} }},
		{"the same claim", RateLimitConfig{By: ByClaim, Claim: "org.id"}, true, func(r *loam.Request) { r.Claims = map[string]any{"org": map[string]any{"id": 7}} }, func(r *loam.Request) { r.Claims = map[string]any{"org": map[string]any{"id": 7}, "sub": "b"} }},
	} {
		c.c.Requests, c.c.Per = 1, time.Hour
		target := NewRateLimit(c.c).Policy()(&fixed{res: status(200)})
		a, b := get(t, "/"), get(t, "/")
		c.a(a)
		c.b(b)
		first, err := target.Serve(a)
		if err != nil || first.Status != 200 {
			t.Fatal(first, err)
		}
		second, err := target.Serve(b)
		if err != nil || (second.Status == 429) != c.same {
			t.Errorf("%s: the other got %d, %v", c.name, second.Status, err)
		}
	}
}

// However many keys strangers send, so many are kept: those used last.
func TestKeyed(t *testing.T) {
	k := newKeyed[int](64)
	for i := range 100_000 {
		k.with(fmt.Appendf(nil, "key %d", i), func(n *int) { *n = i })
		k.with([]byte("dear"), func(n *int) { *n++ })
	}
	kept := 0
	for i := range k.shards {
		s := &k.shards[i]
		if len(s.byKey) > 4 {
			t.Errorf("a part keeps %d", len(s.byKey))
		}
		n := 0
		for e := s.first; e != nil; e = e.next {
			if s.byKey[e.key] != e || e.next.prev != e {
				t.Fatal("the list is not the map")
			}
			if n++; e.next == s.first {
				break
			}
		}
		if n != len(s.byKey) {
			t.Errorf("%d listed, %d kept", n, len(s.byKey))
		}
		kept += n
	}
	if kept != 64 {
		t.Errorf("%d are kept", kept)
	}
	k.with([]byte("dear"), func(n *int) {
		if *n != 100_000 {
			t.Errorf("one that is used all the time was forgotten: %d", *n)
		}
	})
	one := newKeyed[int](1) // a list of one makes room for the next
	for i := range 100 {
		one.with([]byte{byte(i)}, func(n *int) {
			if *n != 0 {
				t.Error("a new key has another's value")
			}
			*n = 1
		})
	}
}

// store counts as a component would: a number that refills never, and calls.
type store struct {
	mu    sync.Mutex
	left  int
	calls int
	takes time.Duration
	err   error
}

func (s *store) take(ctx context.Context, key string, n int) (int, time.Duration, error) {
	<-time.After(s.takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.err != nil {
		return 0, 0, s.err
	}
	got := min(n, s.left)
	s.left -= got
	return got, 3 * time.Second, nil
}

// Processes that share a limit let pass together what it says, and ask for far less than each request.
func TestRateLimitShared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &store{left: 1000, takes: 5 * time.Millisecond}
		var ok, refused int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 3 { // processes
			target := NewRateLimit(RateLimitConfig{Requests: 1000, Per: time.Minute, Shared: s.take}).Policy()(&fixed{res: status(200)})
			for range 500 {
				wg.Go(func() {
					req := loam.NewRequest(t.Context())
					defer req.Release()
					res, err := target.Serve(req)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err != nil:
						t.Error(err)
					case res.Status == 200:
						ok++
					default:
						if refused++; res.Header.Get("Retry-After") != "3" {
							t.Errorf("try again after %q", res.Header.Get("Retry-After"))
						}
					}
				})
			}
		}
		wg.Wait()
		if ok > 1000 || ok < 900 || ok+refused != 1500 { // what is left in a lease at the end is nobody's
			t.Errorf("%d passed, %d were refused", ok, refused)
		}
		if s.calls > 60 {
			t.Errorf("the component was asked %d times", s.calls)
		}
	})
}

// While the component fails, a process counts for itself and asks again now and then; requests do not queue for it.
func TestRateLimitSharedFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &store{left: 1000, err: errBroken, takes: 300 * time.Millisecond}
		target := NewRateLimit(RateLimitConfig{Requests: 5, Per: time.Hour, Shared: s.take}).Policy()(&fixed{res: status(200)})
		start := time.Now()
		ok := 0
		for range 10 {
			res, err := target.Serve(get(t, "/"))
			if err != nil {
				t.Fatal(err)
			}
			if res.Status == 200 {
				ok++
			}
		}
		if ok != 5 || s.calls != 1 || time.Since(start) != 300*time.Millisecond {
			t.Errorf("%d passed, asked %d times, %s", ok, s.calls, time.Since(start))
		}
		s.err = nil
		pass(time.Second)
		if res, err := target.Serve(get(t, "/")); err != nil || res.Status != 200 || s.calls != 2 {
			t.Errorf("the component is back: %v, %v, asked %d times", res, err, s.calls)
		}
	})
}

// A request that waits for another's answer goes when its caller does; and a key that made room for others meanwhile wakes
// who waits for it.
func TestRateLimitSharedWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &store{left: 100, takes: 500 * time.Millisecond}
		l := NewRateLimit(RateLimitConfig{Requests: 100, Per: time.Hour, Keys: 1, By: ByHeader, Header: "Key", Shared: s.take})
		target := l.Policy()(&fixed{res: status(200)})
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				req := loam.NewRequest(ctx)
				defer req.Release()
				req.Header.Add("Key", "a")
				if i == 2 {
					time.AfterFunc(100*time.Millisecond, cancel)
				}
				_, err := target.Serve(req)
				if i == 2 && (loam.CodeOf(err) != loam.Canceled || time.Since(start) != 100*time.Millisecond) || i < 2 && err != nil {
					t.Errorf("%d: %v after %s", i, err, time.Since(start))
				}
			})
			synctest.Wait()
		}
		for i := range 100 { // evict
			l.leases.with(fmt.Appendf(nil, "%d", i), func(*lease) {})
		}
		wg.Wait()
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestParseBy(t *testing.T) {
	for word, want := range map[string]By{"route": ByRoute, "client": ByClient, "header": ByHeader, "claim": ByClaim} {
		if got, ok := ParseBy(word); !ok || got != want {
			t.Errorf("%s: %v, %t", word, got, ok)
		}
	}
	if _, ok := ParseBy("moon"); ok {
		t.Error("it takes any word")
	}
}

func TestClaim(t *testing.T) {
	claims := map[string]any{
		"sub": "ann", "admin": true, "n": 3.5, "groups": []any{"a", "b"}, "mixed": []any{"a", 1.0}, "null": nil,
		"realm": map[string]any{"roles": []any{"x"}, "deep": map[string]any{"er": "y"}}, "https://example.com/tenant": "t", "a.b": "dot",
	}
	for name, want := range map[string]string{
		"sub": "ann", "admin": "true", "n": "3.5", "groups": "a,b", "mixed": `["a",1]`, "null": "", "none": "",
		"realm.roles": "x", "realm.deep.er": "y", "realm.deep": `{"er":"y"}`, "sub.x": "", "https://example.com/tenant": "t", "a.b": "dot", "": "",
	} {
		if got := claim(claims, name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if claim(nil, "a.b") != "" {
		t.Error("a claim of none")
	}
}
