package policy

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// racer is a target whose tries each take their time and end as told. It keeps which were canceled.
type racer struct {
	mu       sync.Mutex
	tries    []func() (*loam.Response, error)
	takes    []time.Duration
	begun    int
	canceled int
	bodies   []string
}

func (r *racer) Serve(req *loam.Request) (*loam.Response, error) {
	r.mu.Lock()
	i := min(r.begun, len(r.tries)-1)
	r.begun++
	r.mu.Unlock()
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.bodies = append(r.bodies, string(b))
		r.mu.Unlock()
	}
	req.Target, req.Affinity = "racer", string(rune('a'+i))
	if err := loam.Sleep(req.Task(), r.takes[i]); err != nil {
		r.mu.Lock()
		r.canceled++
		r.mu.Unlock()
		return nil, err
	}
	return r.tries[i]()
}

func TestHedge(t *testing.T) {
	answer := func(s int) func() (*loam.Response, error) {
		return func() (*loam.Response, error) { return status(s), nil }
	}
	fail := func() (*loam.Response, error) { return nil, errBroken }
	ms := func(n ...time.Duration) []time.Duration {
		for i := range n {
			n[i] *= time.Millisecond
		}
		return n
	}
	for _, c := range []struct {
		name             string
		takes            []time.Duration
		tries            []func() (*loam.Response, error)
		max              int
		method, body     string
		status           int
		affinity         string
		after            time.Duration
		begun, cancelled int
	}{
		{"fast", ms(10), []func() (*loam.Response, error){answer(200)}, 1, "GET", "", 200, "a", 10, 1, 0},
		{"the first is slow", ms(1000, 10), []func() (*loam.Response, error){answer(200), answer(201)}, 1, "GET", "", 201, "b", 110, 2, 1},
		{"the first still wins", ms(120, 1000), []func() (*loam.Response, error){answer(200), answer(201)}, 1, "GET", "", 200, "a", 120, 2, 1},
		{"with a body", ms(1000, 10), []func() (*loam.Response, error){answer(200), answer(201)}, 1, "PUT", "hello", 201, "b", 110, 2, 1},
		{"not idempotent", ms(1000, 10), []func() (*loam.Response, error){answer(200), answer(201)}, 1, "POST", "hello", 200, "a", 1000, 1, 0},
		{"a body too large", ms(1000, 10), []func() (*loam.Response, error){answer(200), answer(201)}, 1, "PUT", strings.Repeat("x", 101), 200, "a", 1000, 1, 0},
		{"the second fails", ms(300, 10), []func() (*loam.Response, error){answer(200), fail}, 1, "GET", "", 200, "a", 300, 2, 0},
		{"the second is 503", ms(300, 10), []func() (*loam.Response, error){answer(200), answer(503)}, 1, "GET", "", 200, "a", 300, 2, 0},
		{"both fail", ms(300, 10), []func() (*loam.Response, error){fail, answer(503)}, 1, "GET", "", 503, "b", 300, 2, 0},
		{"all fail", ms(300, 10), []func() (*loam.Response, error){fail, fail}, 1, "GET", "", 0, "", 300, 2, 0},
		{"it fails fast", ms(10), []func() (*loam.Response, error){fail}, 1, "GET", "", 0, "", 10, 1, 0},
		{"two more", ms(1000, 1000, 10), []func() (*loam.Response, error){answer(200), answer(201), answer(202)}, 2, "GET", "", 202, "c", 210, 3, 2},
	} {
		for _, unknown := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					r := &racer{takes: c.takes, tries: c.tries}
					var count tally
					p := Hedge(HedgeConfig{After: 100 * time.Millisecond, Max: c.max, Body: 100, Told: count.told})
					req := loam.NewRequest(t.Context())
					if req.Method, req.Path = c.method, "/"; c.body != "" {
						if req.Body, req.Length = io.NopCloser(strings.NewReader(c.body)), int64(len(c.body)); unknown {
							req.Length = -1
						}
					}
					start := time.Now()
					res, err := p(r).Serve(req)
					switch {
					case c.status == 0 && err == nil, c.status != 0 && (err != nil || res.Status != c.status || req.Affinity != c.affinity):
						t.Errorf("%v, %v from %q", res, err, req.Affinity)
					}
					if took := time.Since(start); took != c.after*time.Millisecond || count.of(Hedged) != c.begun-1 {
						t.Errorf("after %s, %d hedges", took, count.of(Hedged))
					}
					req.Release()
					pass(time.Minute)
					if r.begun != c.begun || r.canceled != c.cancelled {
						t.Errorf("%d tries of which %d were canceled", r.begun, r.canceled)
					}
					for _, b := range r.bodies {
						if b != c.body {
							t.Errorf("a try got a body of %d bytes", len(b))
						}
					}
				})
			})
		}
	}
}

// The deadline and the caller end all tries.
func TestHedgeEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		slow := func() *racer {
			return &racer{takes: []time.Duration{time.Hour}, tries: []func() (*loam.Response, error){nil}}
		}
		for _, code := range []loam.Code{loam.DeadlineExceeded, loam.Canceled} {
			r := slow()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if code == loam.Canceled {
				cancel()
				ctx, cancel = context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
			}
			defer cancel()
			req := loam.NewRequest(ctx)
			req.Method, req.Path = "GET", "/"
			start := time.Now()
			_, err := Hedge(HedgeConfig{})(r).Serve(req)
			if loam.CodeOf(err) != code || time.Since(start) > time.Second {
				t.Errorf("%v after %s", err, time.Since(start))
			}
			req.Release()
			pass(time.Second)
			if r.begun != 2 || r.canceled != 2 {
				t.Errorf("%d tries, %d were canceled", r.begun, r.canceled)
			}
		}
	})
}

// The body of the answer that won can be read after the race, and that of the one that lost is closed.
func TestHedgeBodies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		won, lost := &there{memory: memory{b: []byte("won")}}, &there{memory: memory{b: []byte("lost")}}
		r := &racer{takes: []time.Duration{150 * time.Millisecond, 20 * time.Millisecond}, tries: []func() (*loam.Response, error){
			func() (*loam.Response, error) { return &loam.Response{Status: 200, Body: lost, Length: 4}, nil },
			func() (*loam.Response, error) { return &loam.Response{Status: 200, Body: won, Length: 3}, nil },
		}}
		// A target that does not notice that it was canceled.
		deaf := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			task, end := loam.NewTask(context.Background())
			defer end()
			req.SetTask(task)
			return r.Serve(req)
		})
		req := loam.NewRequest(t.Context())
		req.Method, req.Path = "GET", "/"
		res, err := Hedge(HedgeConfig{})(deaf).Serve(req)
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if b, err := io.ReadAll(res.Body); string(b) != "won" || err != nil || won.closed != 0 {
			t.Errorf("%q, %v", b, err)
		}
		if lost.closed != 1 {
			t.Error("the answer that lost was not closed")
		}
		_ = res.Close()
		req.Release()
	})
}

// A panic of the only try is the request's own.
func TestHedgePanic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		defer func() {
			if recover() != "oh" {
				t.Error("the panic is lost")
			}
		}()
		_, _ = Hedge(HedgeConfig{})(loam.TargetFunc(func(*loam.Request) (*loam.Response, error) { panic("oh") })).Serve(get(t, "/"))
	})
}

// When everything is slow, hedges stay within their budget.
func TestHedgeBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var count tally
		p := Hedge(HedgeConfig{Budget: NewBudget(BudgetConfig{Percent: 10, MinPerSecond: -1}), Told: count.told})
		r := &racer{takes: []time.Duration{time.Second}, tries: []func() (*loam.Response, error){func() (*loam.Response, error) { return status(200), nil }}}
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				req := loam.NewRequest(t.Context())
				defer req.Release()
				req.Method, req.Path = "GET", "/"
				if _, err := p(r).Serve(req); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := count.of(Hedged); n != 10 || r.begun != 110 {
			t.Errorf("%d hedges, %d tries", n, r.begun)
		}
	})
}

// A try that failed does not keep the place that the other one waits for.
func TestHedgeLeavesItsPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBulkhead(BulkheadConfig{Concurrency: 1, Queue: 10})
		r := &racer{takes: []time.Duration{150 * time.Millisecond, 10 * time.Millisecond}, tries: []func() (*loam.Response, error){
			func() (*loam.Response, error) { return status(503), nil },
			func() (*loam.Response, error) { return status(200), nil },
		}}
		req := get(t, "/")
		req.SetDeadline(time.Now().Add(time.Second))
		res, err := Build(Chain{Hedge: Hedge(HedgeConfig{}), Bulkhead: b.Policy()})(r).Serve(req)
		if err != nil || res.Status != 200 {
			t.Errorf("%v, %v", res, err)
		}
	})
}
