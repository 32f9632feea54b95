package policy

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// get makes a request for a path that ends with the test.
func get(t testing.TB, path string, header ...string) *loam.Request {
	req := loam.NewRequest(t.Context())
	req.Method, req.Scheme, req.Authority, req.Path, req.Remote = "GET", "http", "shop.example.com", path, "192.0.2.7:1234"
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	t.Cleanup(req.Release)
	return req
}

// post is get with a body whose length is known or, if unknown, is not.
func post(t testing.TB, method, body string, unknown bool) *loam.Request {
	req := get(t, "/")
	req.Method, req.Body, req.Length = method, io.NopCloser(strings.NewReader(body)), int64(len(body))
	if unknown {
		req.Length = -1
	}
	return req
}

func status(code int, header ...string) *loam.Response {
	res := &loam.Response{Status: code}
	for i := 0; i < len(header); i += 2 {
		res.Header.Add(header[i], header[i+1])
	}
	return res
}

// script is a target that answers as it is told, one step a call, the last for ever. It keeps what it was asked.
type script struct {
	mu    sync.Mutex
	steps []any // *loam.Response, error, or func(*loam.Request) (*loam.Response, error)
	calls int
	seen  []string // method, path and body of each call
}

func (s *script) Serve(req *loam.Request) (*loam.Response, error) {
	s.mu.Lock()
	step := s.steps[min(s.calls, len(s.steps)-1)]
	s.calls++
	s.mu.Unlock()
	seen := req.Method + " " + req.Path
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		seen += " " + string(b)
	}
	s.mu.Lock()
	s.seen = append(s.seen, seen)
	s.mu.Unlock()
	switch step := step.(type) {
	case error:
		return nil, step
	case *loam.Response:
		res := *step
		res.Header = append(loam.Header(nil), step.Header...)
		return &res, nil
	case func(*loam.Request) (*loam.Response, error):
		return step(req)
	}
	panic(fmt.Sprintf("step %T", step))
}

// fixed is a target that answers each request with the same, at no cost.
type fixed struct {
	res *loam.Response
	err error
}

func (f *fixed) Serve(*loam.Request) (*loam.Response, error) { return f.res, f.err }

// coroutine is a task as a loop's are, as far as requests that never wait can tell.
type coroutine struct {
	loam.Task
	now   time.Time
	shard int
}

func (c *coroutine) Now() time.Time { return c.now }
func (c *coroutine) Shard() int     { return c.shard }

// tally counts what policies tell.
type tally struct {
	mu   sync.Mutex
	acts map[Act]int
}

func (c *tally) told(_ *loam.Request, act Act) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.acts == nil {
		c.acts = map[Act]int{}
	}
	c.acts[act]++
}

func (c *tally) of(act Act) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acts[act]
}

// The order is that of the fields of Chain, and nil ones are left out.
func TestBuild(t *testing.T) {
	var order []string
	mark := func(name string) loam.Policy {
		return func(next loam.Target) loam.Target {
			return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
				order = append(order, name)
				return next.Serve(req)
			})
		}
	}
	p := Build(Chain{
		Try: mark("try"), Breaker: mark("breaker"), Adaptive: mark("adaptive"), Bulkhead: mark("bulkhead"), Hedge: mark("hedge"),
		Retry: mark("retry"), Timeout: mark("timeout"), Mirror: mark("mirror"), Rewrite: mark("rewrite"),
		RequestHeaders: mark("requestHeaders"), Redirect: mark("redirect"), ResponseHeaders: mark("responseHeaders"),
		Session: mark("session"), Compression: mark("compression"), Fault: mark("fault"), RateLimit: Join(mark("rateLimit"), mark("and another")),
		Authz: mark("authz"), Authn: mark("authn"), CORS: mark("cors"), Limits: mark("limits"),
	})
	if _, err := p(&fixed{res: status(200)}).Serve(get(t, "/")); err != nil {
		t.Fatal(err)
	}
	want := "limits cors authn authz rateLimit and another fault compression session responseHeaders redirect requestHeaders rewrite mirror timeout retry hedge bulkhead adaptive breaker try"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("the order is\n%s\nwant\n%s", got, want)
	}
	target := &fixed{}
	if Build(Chain{})(target) != loam.Target(target) {
		t.Error("a chain of nothing is not nothing")
	}
}

// What a request pays that succeeds, beside what it costs to make and end it ("none").
func BenchmarkChain(b *testing.B) {
	target := &fixed{res: status(200, "Content-Type", "text/plain", "Server", "x", "Date", "today")}
	for _, c := range []struct {
		name  string
		chain Chain
	}{
		{"none", Chain{}},
		{"timeout", Chain{Timeout: Timeout(15 * time.Second)}},
		{"retry", Chain{Retry: Retry(RetryConfig{On: On5xx | OnConnect | OnReset, Budget: NewBudget(BudgetConfig{})})}},
		{"breaker", Chain{Breaker: NewBreaker(BreakerConfig{ErrorRatio: 0.5}).Policy()}},
		{"all three", Chain{
			Timeout: Timeout(15 * time.Second), Retry: Retry(RetryConfig{On: On5xx | OnConnect | OnReset, Budget: NewBudget(BudgetConfig{})}),
			Breaker: NewBreaker(BreakerConfig{ErrorRatio: 0.5}).Policy(), Try: Timeout(5 * time.Second),
		}},
		{"rate limit by client", Chain{RateLimit: NewRateLimit(RateLimitConfig{Requests: 1e9, By: ByClient}).Policy()}},
		{"bulkhead and adaptive", Chain{Bulkhead: NewBulkhead(BulkheadConfig{}).Policy(), Adaptive: NewAdaptive(AdaptiveConfig{}).Policy()}},
	} {
		b.Run(c.name, func(b *testing.B) {
			chain := Build(c.chain)(target)
			task, end := loam.NewTask(b.Context())
			defer end()
			one := &coroutine{Task: task, now: time.Now(), shard: 1}
			var req loam.Request
			for b.Loop() {
				req.Begin(one)
				req.Method, req.Path, req.Authority, req.Remote = "GET", "/", "shop.example.com", "192.0.2.7:1234"
				for range 8 {
					req.Header = append(req.Header, loam.Field{Name: "X-Header", Value: "value"})
				}
				if res, err := chain.Serve(&req); err != nil || res.Status != 200 {
					b.Fatal(res, err)
				}
				req.End()
			}
			b.ReportAllocs()
		})
	}
}

func TestChainAllocatesNothing(t *testing.T) {
	chain := Build(Chain{
		Timeout: Timeout(15 * time.Second), Retry: Retry(RetryConfig{On: On5xx | OnConnect | OnReset, Budget: NewBudget(BudgetConfig{})}),
		Breaker: NewBreaker(BreakerConfig{ErrorRatio: 0.5}).Policy(), Try: Timeout(5 * time.Second),
		Bulkhead: NewBulkhead(BulkheadConfig{}).Policy(), Adaptive: NewAdaptive(AdaptiveConfig{}).Policy(),
		RateLimit: NewRateLimit(RateLimitConfig{Requests: 1_000_000, By: ByClient}).Policy(),
	})(&fixed{res: status(200)})
	task, end := loam.NewTask(t.Context())
	defer end()
	one := &coroutine{Task: task, now: time.Now(), shard: 1}
	var req loam.Request
	n := testing.AllocsPerRun(1000, func() {
		req.Begin(one)
		req.Method, req.Path, req.Remote = "GET", "/", "192.0.2.7:1234"
		req.Header = append(req.Header, loam.Field{Name: "Accept", Value: "*/*"})
		if _, err := chain.Serve(&req); err != nil {
			t.Error(err)
		}
		req.End()
	})
	if n >= 1 {
		t.Errorf("%v allocations for a request that succeeds", n)
	}
}

var errBroken = errors.New("broken")

// pass lets time go by in a bubble, until everybody waits again: what they wrote can be read then.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// bubble runs a test in which time passes when everybody waits.
func bubble(t *testing.T, fn func(*testing.T)) { synctest.Test(t, fn) }
