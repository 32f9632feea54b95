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

// hold serves a request that stays for d, and tells how it ended.
func hold(t *testing.T, ctx context.Context, p loam.Policy, d time.Duration) error {
	req := loam.NewRequest(ctx)
	defer req.Release()
	_, err := p(loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		if err := loam.Sleep(req.Task(), d); err != nil {
			return nil, err
		}
		return status(200), nil
	})).Serve(req)
	return err
}

func TestBulkhead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var count tally
		b := NewBulkhead(BulkheadConfig{Concurrency: 2, Queue: 2, Wait: time.Second, Told: count.told})
		var wg sync.WaitGroup
		start := time.Now()
		var mu sync.Mutex
		ended := map[int]string{}
		for i := range 5 {
			wg.Go(func() {
				err := hold(t, t.Context(), b.Policy(), 700*time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				ended[i] = fmt.Sprint(time.Since(start).Milliseconds(), " ", loam.CodeOf(err))
			})
			synctest.Wait() // one after the other
			if i == 1 && b.Held() != 2 {
				t.Errorf("%d hold a place", b.Held())
			}
		}
		wg.Wait()
		want := map[int]string{0: "700 ok", 1: "700 ok", 2: "1400 ok", 3: "1400 ok", 4: "0 unavailable"}
		if fmt.Sprint(ended) != fmt.Sprint(want) || b.Held() != 0 || count.of(BulkheadRefused) != 1 {
			t.Errorf("%v, %d held, told %v", ended, b.Held(), count.acts)
		}
	})
}

// Who waits too long, or goes away, gives up its turn, and not another's place.
func TestBulkheadGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBulkhead(BulkheadConfig{Concurrency: 1, Queue: 10, Wait: 500 * time.Millisecond})
		ctx, cancel := context.WithCancel(t.Context())
		late, end := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer end()
		var wg sync.WaitGroup
		start := time.Now()
		want := func(ctx context.Context, code loam.Code, after time.Duration) {
			wg.Go(func() {
				if err := hold(t, ctx, b.Policy(), time.Second); loam.CodeOf(err) != code || time.Since(start) != after {
					t.Errorf("%v after %s, want %v after %s", err, time.Since(start), code, after)
				}
			})
			synctest.Wait()
		}
		want(t.Context(), loam.OK, time.Second)
		want(ctx, loam.Canceled, 100*time.Millisecond)
		want(late, loam.Unavailable, 200*time.Millisecond)
		want(t.Context(), loam.Unavailable, 500*time.Millisecond)
		time.AfterFunc(100*time.Millisecond, cancel)
		wg.Wait()
		if b.Held() != 0 || b.queue.Len() != 0 || b.waiting.Load() != 0 {
			t.Errorf("%d held, %d queued, %d waiting", b.Held(), b.queue.Len(), b.waiting.Load())
		}
	})
}

// A place is kept until the answer was sent, and freed when the target panics.
func TestBulkheadHolds(t *testing.T) {
	b := NewBulkhead(BulkheadConfig{Concurrency: 1})
	req := loam.NewRequest(t.Context())
	if _, err := b.Policy()(&fixed{res: status(200)}).Serve(req); err != nil || b.Held() != 1 {
		t.Errorf("%v, %d held", err, b.Held())
	}
	req.Release()
	req = loam.NewRequest(t.Context())
	func() {
		defer func() { _ = recover() }()
		_, _ = b.Policy()(loam.TargetFunc(func(*loam.Request) (*loam.Response, error) { panic("oh") })).Serve(req)
	}()
	if req.Release(); b.Held() != 0 {
		t.Errorf("%d held", b.Held())
	}
}

// A request that is tried again does not wait for the place it had before.
func TestBulkheadWithinRetry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBulkhead(BulkheadConfig{Concurrency: 1})
		s := &script{steps: []any{status(503), errBroken, status(200)}}
		chain := Build(Chain{Retry: Retry(RetryConfig{On: On5xx}), Bulkhead: b.Policy()})
		if res, err := chain(s).Serve(get(t, "/")); err != nil || res.Status != 200 {
			t.Errorf("%v, %v", res, err)
		}
	})
}

// Many at once, on goroutines: never more than may be, and all are served in the end.
func TestBulkheadCrowd(t *testing.T) {
	b := NewBulkhead(BulkheadConfig{Concurrency: 3, Queue: 1000})
	var mu sync.Mutex
	inside, most, served := 0, 0, 0
	target := b.Policy()(loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		mu.Lock()
		inside++
		most = max(most, inside)
		mu.Unlock()
		req.Task().Yield()
		mu.Lock()
		inside--
		served++
		mu.Unlock()
		return status(200), nil
	}))
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			req := loam.NewRequest(t.Context())
			defer req.Release()
			if _, err := target.Serve(req); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most > 3 || served != 200 || b.Held() != 0 {
		t.Errorf("%d at once, %d served, %d held", most, served, b.Held())
	}
}

// A target that bears ten requests at once, and queues what is more: the limit finds that, and the answers stay fast.
func TestAdaptive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const bears, takes = 10, 10 * time.Millisecond
		var count tally
		a := NewAdaptive(AdaptiveConfig{Initial: 5, Max: 500, Told: count.told})
		places := make(chan struct{}, bears)
		target := a.Policy()(loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			places <- struct{}{}
			defer func() { <-places }()
			return status(200), loam.Sleep(req.Task(), takes)
		}))
		load := func(clients int, d time.Duration) {
			var wg sync.WaitGroup
			end := time.Now().Add(d)
			for range clients {
				wg.Go(func() {
					for time.Now().Before(end) {
						req := loam.NewRequest(t.Context())
						if _, err := target.Serve(req); err != nil {
							_ = loam.Sleep(req.Task(), takes)
						}
						req.Release()
					}
				})
			}
			wg.Wait()
		}
		load(8, 5*time.Second)
		if a.Limit() < 10 {
			t.Errorf("the limit is %d though nothing is slow", a.Limit())
		}
		load(60, 45*time.Second)
		if a.Limit() < 8 || a.Limit() > 40 {
			t.Errorf("a target that bears %d at once is sent %d", bears, a.Limit())
		}
		if count.of(Shed) == 0 {
			t.Error("nothing was shed")
		}
		if a.held.Load() != 0 {
			t.Errorf("%d are still counted", a.held.Load())
		}
	})
}

// A target that answers nobody in time is sent less and less, down to the least.
func TestAdaptiveTimeouts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := NewAdaptive(AdaptiveConfig{Initial: 100, Min: 3})
		target := a.Policy()(loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			_ = loam.Sleep(req.Task(), 50*time.Millisecond)
			return nil, context.DeadlineExceeded
		}))
		for range 1000 {
			req := loam.NewRequest(t.Context())
			_, _ = target.Serve(req)
			req.Release()
		}
		if a.Limit() < 3 || a.Limit() > 8 {
			t.Errorf("the limit is %d", a.Limit())
		}
	})
}
