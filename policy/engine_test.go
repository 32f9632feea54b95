package policy

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
)

// engines runs a test over event loops, where they are to be had, and over goroutines.
func engines(t *testing.T, test func(t *testing.T, e loop.Engine)) {
	for _, portable := range []bool{false, true} {
		if runtime.GOOS != "linux" && !portable {
			continue
		}
		t.Run(map[bool]string{false: "loops", true: "goroutines"}[portable], func(t *testing.T) {
			e := loop.New(loop.Options{Loops: 2, Goroutines: portable})
			test(t, e)
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// each runs n tasks on an engine's loops and waits for their end.
func each(e loop.Engine, n int, fn func(i int, req *loam.Request)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		e.Go(func(task loam.Task) {
			defer wg.Done()
			var req loam.Request
			req.Begin(task)
			req.Method, req.Scheme, req.Authority, req.Path, req.Remote = "GET", "http", "shop.example.com", "/", "192.0.2.7:1234"
			fn(i, &req)
			req.End()
		})
	}
	wg.Wait()
}

// All that waits, on real loops: tasks of one loop and of others wait for each other's places, leases, keys and answers, and
// no lock is held meanwhile: that would stop a loop for good.
func TestPoliciesOnEngines(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		s := signers(t)["EdDSA"]
		token := "Bearer " + s.sign(t, claimsOf(nil))
		i := &issuer{keys: jwks(t, s), takes: 5 * time.Millisecond}
		shared := &store{left: 1 << 30, takes: time.Millisecond}
		var mirrored, served atomic.Int64
		bulkhead, adaptive := NewBulkhead(BulkheadConfig{Concurrency: 7, Queue: 1000}), NewAdaptive(AdaptiveConfig{Initial: 1000})
		chain := Build(Chain{
			Authn:     JWT(JWTOptions{}, JWTConfig{Issuer: "https://login.example.com", Keys: RemoteKeys(i.fetch, 0)}),
			RateLimit: NewRateLimit(RateLimitConfig{Requests: 1e6, Shared: shared.take, By: ByClaim, Claim: "sub"}).Policy(),
			Fault:     Fault(FaultConfig{Delay: FaultDelay{Duration: time.Millisecond, Percent: 30}}),
			Mirror: Mirror(MirrorConfig{Percent: 50, InFlight: 1000, To: loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
				mirrored.Add(1)
				return status(200), nil
			})}),
			Timeout:  Timeout(time.Minute),
			Retry:    Retry(RetryConfig{On: On5xx, Attempts: 20, Backoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond}),
			Hedge:    Hedge(HedgeConfig{After: 2 * time.Millisecond, Budget: NewBudget(BudgetConfig{Percent: 1000})}),
			Bulkhead: bulkhead.Policy(), Adaptive: adaptive.Policy(), Breaker: NewBreaker(BreakerConfig{Failures: 1 << 30}).Policy(),
			Try: Timeout(10 * time.Second),
		})(loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			n := served.Add(1)
			if err := loam.Sleep(req.Task(), time.Duration(n%4)*time.Millisecond); err != nil {
				return nil, err
			}
			if n%3 == 0 {
				return status(503), nil
			}
			return status(200, "n", fmt.Sprint(n)), nil
		}))
		var ok atomic.Int64
		const requests = 300
		each(e, requests, func(n int, req *loam.Request) {
			req.Header.Add("Authorization", token)
			res, err := chain.Serve(req)
			switch {
			case err != nil:
				t.Error(err)
			case res.Status != 200:
				t.Errorf("%d", res.Status)
			default:
				ok.Add(1)
				_ = res.Close()
			}
		})
		if ok.Load() != requests || mirrored.Load() == 0 || i.count() < 1 || i.count() > 3 { // a slow machine fetches again, and never for each request
			t.Errorf("%d of %d succeeded, %d were mirrored, %d fetches", ok.Load(), requests, mirrored.Load(), i.count())
		}
		wait(t, func() bool { return bulkhead.Held() == 0 && adaptive.held.Load() == 0 })
	})
}

// wait waits for what other tasks bring about.
func wait(t *testing.T, there func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for !there() {
		if ctx.Err() != nil {
			t.Fatal("it did not come about")
		}
		runtime.Gosched()
	}
}
