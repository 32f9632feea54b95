package policy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// The breaker's life: it opens after failures in a row, rests, lets so many try, and closes once they all succeed.
func TestBreakerConsecutive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var count tally
		b := NewBreaker(BreakerConfig{Failures: 3, Rest: time.Second, HalfOpen: 2, Told: count.told})
		s := &script{steps: []any{status(503), status(200), status(500), errBroken, status(502), status(200)}}
		target := b.Policy()(s)
		serve := func() error {
			t.Helper()
			_, err := target.Serve(get(t, "/"))
			return err
		}
		for range 5 { // a success in between begins the row anew
			if b.Open() {
				t.Fatalf("it opened after %d calls", s.calls)
			}
			if err := serve(); err != nil && !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
		}
		if !b.Open() || b.String() != "open" {
			t.Fatal("three failures in a row do not open it")
		}
		if err := serve(); loam.CodeOf(err) != loam.Unavailable || loam.HintOf(err) == "" || s.calls != 5 {
			t.Errorf("open: %v, %d calls", err, s.calls)
		}
		pass(999 * time.Millisecond)
		if err := serve(); err == nil {
			t.Error("it did not rest long enough")
		}
		pass(time.Millisecond)
		if err := serve(); err != nil || b.String() != "half open: 1 of 2 tries succeeded" {
			t.Errorf("%v, %s", err, b)
		}
		if err := serve(); err != nil || b.Open() || b.String() != "closed" {
			t.Errorf("two tries succeeded: %v, %s", err, b)
		}
		if count.of(BreakerOpened) != 1 || count.of(BreakerClosed) != 1 || count.of(BreakerRefused) != 2 {
			t.Errorf("it told %v", count.acts)
		}
	})
}

func TestBreakerHalfOpenFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBreaker(BreakerConfig{Failures: 1, Rest: time.Second})
		s := &script{steps: []any{status(503), status(503), status(200)}}
		target := b.Policy()(s)
		for i, wait := range []time.Duration{0, time.Second, time.Second} {
			pass(wait)
			if _, err := target.Serve(get(t, "/")); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
			if _, err := target.Serve(get(t, "/")); i < 2 && err == nil {
				t.Errorf("call %d: it is not open", i)
			}
		}
		if b.Open() {
			t.Error("a try succeeded, and it stays open")
		}
	})
}

// While it is half open no more may try at once than shall succeed; one whose caller goes away leaves its place to another,
// and one that panics is a failure.
func TestBreakerTries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBreaker(BreakerConfig{Failures: 1, Rest: time.Second})
		release := make(chan error)
		slow := b.Policy()(loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
			if err := <-release; err != nil {
				return nil, err
			}
			return status(200), nil
		}))
		failing := b.Policy()(&fixed{err: errBroken})
		_, _ = failing.Serve(get(t, "/"))
		pass(time.Second)

		var wg sync.WaitGroup
		wg.Go(func() { _, _ = slow.Serve(get(t, "/")) })
		pass(time.Millisecond)
		if _, err := slow.Serve(get(t, "/")); err == nil {
			t.Error("two try at once")
		}
		release <- context.Canceled
		wg.Wait()
		wg.Go(func() {
			if _, err := slow.Serve(get(t, "/")); err != nil {
				t.Errorf("the place of who went away is lost: %v", err)
			}
		})
		release <- nil
		wg.Wait()
		if b.Open() {
			t.Error("it is open after a try succeeded")
		}

		_, _ = failing.Serve(get(t, "/"))
		pass(time.Second)
		func() {
			defer func() { _ = recover() }()
			_, _ = b.Policy()(loam.TargetFunc(func(*loam.Request) (*loam.Response, error) { panic("oh") })).Serve(get(t, "/"))
		}()
		if _, err := failing.Serve(get(t, "/")); errors.Is(err, errBroken) {
			t.Error("a try that panicked is not a failure")
		}
	})
}

// What began before the breaker opened says nothing of how the target is now.
func TestBreakerLateResults(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBreaker(BreakerConfig{Failures: 1, Rest: time.Second})
		end := make(chan struct{})
		first := true
		target := b.Policy()(loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
			if first {
				first = false
				<-end
				return status(200), nil
			}
			return status(503), nil
		}))
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = target.Serve(get(t, "/")) })
		pass(time.Millisecond)
		_, _ = target.Serve(get(t, "/"))
		close(end)
		wg.Wait()
		if !b.Open() {
			t.Error("a request from before closed it")
		}
	})
}

func TestBreakerRatio(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBreaker(BreakerConfig{Failures: -1, ErrorRatio: 0.5, MinRequests: 10, Window: 10 * time.Second})
		bad, good := b.Policy()(&fixed{res: status(503)}), b.Policy()(&fixed{res: status(200)})
		call := func(target loam.Target) {
			t.Helper()
			if _, err := target.Serve(get(t, "/")); err != nil {
				t.Fatal(err)
			}
		}
		for range 9 {
			call(bad)
		}
		if b.Open() {
			t.Fatal("it opened before it saw enough requests")
		}
		pass(11 * time.Second) // what was is forgotten
		for range 6 {
			call(good)
		}
		for range 5 {
			call(bad)
		}
		if b.Open() {
			t.Fatal("it opened at 5 of 11")
		}
		call(bad)
		if !b.Open() {
			t.Error("it did not open at 6 of 12")
		}
	})
}

// Whose fault an outcome is.
func TestFailed(t *testing.T) {
	for _, c := range []struct {
		res  *loam.Response
		err  error
		want bool
	}{
		{status(200), nil, false}, {status(0), nil, false}, {status(404), nil, false}, {status(429), nil, false}, {status(501), nil, false},
		{status(500), nil, true}, {status(503), nil, true},
		{status(200, "grpc-status", "0"), nil, false}, {status(200, "grpc-status", "5"), nil, false}, {status(200, "grpc-status", "14"), nil, true},
		{nil, errBroken, true}, {nil, context.DeadlineExceeded, true}, {nil, context.Canceled, false},
		{nil, loam.Errorf(loam.NotFound, "", "x"), false}, {nil, loam.Errorf(loam.Unavailable, "", "x"), true},
		{nil, fmt.Errorf("policy: %w", NewBulkhead(BulkheadConfig{}).err), false},
	} {
		if got := failed(c.res, c.err); got != c.want {
			t.Errorf("%v, %v: %t", c.res, c.err, got)
		}
	}
}

// Many tasks of many loops: nothing is lost but at a tenth's turn, and the race detector is content.
func TestWindow(t *testing.T) {
	w := newWindow(10 * time.Second)
	now := time.Unix(1e9, 0)
	var wg sync.WaitGroup
	for shard := range 20 {
		wg.Go(func() {
			task := &coroutine{now: now, shard: shard}
			for i := range 1000 {
				w.add(task, now, 1, int64(i%2))
			}
		})
	}
	wg.Wait()
	if all, some := w.sum(now, windowTenths); all != 20_000 || some != 10_000 {
		t.Errorf("%d, %d", all, some)
	}
	task := &coroutine{}
	for i := range 20 {
		w.add(task, now.Add(time.Duration(i)*time.Second), 1, 0)
	}
	if all, _ := w.sum(now.Add(19*time.Second), windowTenths); all != 10 {
		t.Errorf("%d in the last ten tenths, of one each", all)
	}
	if all, _ := w.sum(now.Add(19*time.Second), 3); all != 3 {
		t.Errorf("%d in the last three", all)
	}
	w.forget()
	if all, _ := w.sum(now.Add(19*time.Second), windowTenths); all != 0 {
		t.Errorf("%d after it forgot", all)
	}
}

// An expression over the counts opens it, and the counts begin anew after their interval, and when it closes.
func TestBreakerTrip(t *testing.T) {
	if _, err := ParseTrip("requests + 1"); err == nil {
		t.Error("a number is no answer")
	}
	if _, err := ParseTrip("request > 1"); err == nil {
		t.Error("there is no such variable")
	}
	bubble(t, func(t *testing.T) {
		trip, err := ParseTrip("requests >= 4 && totalFailures * 2 >= requests && totalSuccesses < 3 && consecutiveSuccesses == 0 && consecutiveFailures > 0")
		if err != nil {
			t.Fatal(err)
		}
		b := NewBreaker(BreakerConfig{Failures: -1, Trip: trip, Interval: 10 * time.Second, Rest: time.Second})
		s := &script{steps: []any{status(500), status(200), status(500), status(500), status(200), status(500), status(200), status(500)}}
		target := b.Policy()(s)
		serve := func(n int) {
			for range n {
				_, _ = target.Serve(get(t, "/"))
			}
		}
		serve(3)
		pass(10 * time.Second) // forgotten
		serve(1)
		if b.Open() {
			t.Fatal("it remembers what is too long ago")
		}
		serve(3)
		if b.Open() {
			t.Fatal("a success opened it")
		}
		serve(1)
		if !b.Open() {
			t.Fatal("three of five failed, and it is closed")
		}
		pass(time.Second)
		s.steps, s.calls = []any{status(200), status(500), status(500), status(500), status(500)}, 0
		serve(4)
		if b.Open() {
			t.Fatal("the counts of before it closed still count")
		}
		serve(1)
		if !b.Open() {
			t.Fatal("it does not open again")
		}
	})
}
