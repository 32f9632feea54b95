package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
)

func openBus(t *testing.T, path string) *Pubsub {
	t.Helper()
	p, err := New().OpenPubsub(t.Context(), "p", Config{Path: path, Retention: time.Hour, Sweep: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func closeBus(t *testing.T, p *Pubsub) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func publish(t *testing.T, p *Pubsub, from, to int) {
	t.Helper()
	var events []loam.Event
	for i := from; i < to; i++ {
		events = append(events, loam.Event{ID: fmt.Sprint(i), Topic: "t", Time: time.Now()})
	}
	if err := p.Publish(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

// consume subscribes until handle has been called n times, or for a little while more than nothing where n is 0.
func consume(t *testing.T, p *Pubsub, inFlight, n int, handle func(d pubsub.Delivery) pubsub.Verdict) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	if n == 0 {
		ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	}
	defer cancel()
	var mu sync.Mutex
	calls := 0
	err := p.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g", InFlight: inFlight}, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls == n {
			cancel()
		}
		if calls > n {
			t.Errorf("event %s came, attempt %d, and nothing should have", d.Event.ID, d.Attempt)
		}
		return handle(d)
	})
	if err != nil || calls < n {
		t.Errorf("%d deliveries of %d: %v", calls, n, err)
	}
}

func acknowledge(pubsub.Delivery) pubsub.Verdict { return pubsub.Verdict{} }

// After a clean stop nothing acknowledged comes again, in whatever order it was, and retries go on counting.
func TestConsumerReopens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loam.db")
	p := openBus(t, path)
	publish(t, p, 0, 10)
	consume(t, p, 1, 10, func(d pubsub.Delivery) pubsub.Verdict {
		return pubsub.Verdict{Retry: d.Event.ID == "3" || d.Event.ID == "7", After: time.Minute}
	})
	closeBus(t, p)

	later := func(d time.Duration) *Pubsub {
		c := New()
		c.now = func() time.Time { return time.Now().Add(d) }
		p, err := c.OpenPubsub(t.Context(), "p", Config{Path: path, Retention: 24 * time.Hour, Sweep: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p = later(2 * time.Minute)
	publish(t, p, 10, 12)
	var got []string
	consume(t, p, 1, 4, func(d pubsub.Delivery) pubsub.Verdict {
		got = append(got, fmt.Sprint(d.Event.ID, "/", d.Attempt))
		return pubsub.Verdict{Retry: d.Event.ID == "7", After: time.Hour}
	})
	slices.Sort(got)
	if want := []string{"10/1", "11/1", "3/2", "7/2"}; !slices.Equal(got, want) {
		t.Errorf("after a restart came %q, want %q", got, want)
	}
	closeBus(t, p)

	p = later(2 * time.Hour)
	defer closeBus(t, p)
	consume(t, p, 4, 1, func(d pubsub.Delivery) pubsub.Verdict {
		if d.Event.ID != "7" || d.Attempt != 3 {
			t.Errorf("an hour later came %s, attempt %d", d.Event.ID, d.Attempt)
		}
		return pubsub.Verdict{}
	})
	consume(t, p, 4, 0, acknowledge)
	for _, table := range []string{"done", "retry"} {
		if n := count(t, p.db, table); n != 0 {
			t.Errorf("%d rows are left in %s, of a log that was worked off", n, table)
		}
	}
}

// An event that takes long holds back the cursor, not the others; those are not delivered again when the process dies
// before it is done.
func TestOutOfOrderSurvivesACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loam.db")
	p := openBus(t, path)
	publish(t, p, 0, 200)
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	var others sync.WaitGroup
	others.Add(199)
	ended := make(chan error, 1)
	go func() {
		ended <- p.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g", InFlight: 4}, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
			if d.Event.ID == "5" {
				<-release
			} else {
				others.Done()
			}
			return pubsub.Verdict{}
		})
	}()
	others.Wait()
	for deadline := time.Now().Add(20 * time.Second); count(t, p.db, "done") != 194; {
		if time.Now().After(deadline) {
			t.Fatalf("%d events above the cursor are marked done, want 194", count(t, p.db, "done"))
		}
	}
	// What is on disk now is what a crash would leave.
	var cursor int
	if err := p.readers.QueryRow("SELECT cursor FROM consumer").Scan(&cursor); err != nil || cursor != 5 {
		t.Errorf("the cursor is at %d, and the sixth event is not finished (%v)", cursor, err)
	}
	p.mu.Lock()
	delete(p.consumers["t"], "g") // the next subscription loads the group from disk, as after a restart
	p.mu.Unlock()
	consume(t, p, 4, 1, func(d pubsub.Delivery) pubsub.Verdict {
		if d.Event.ID != "5" {
			t.Errorf("%s came again", d.Event.ID)
		}
		return pubsub.Verdict{}
	})
	close(release)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	closeBus(t, p)
}

// Each component of a file has its own retention.
func TestRetentionOfEach(t *testing.T) {
	f, path := New(), filepath.Join(t.TempDir(), "loam.db")
	open := func(name string, retention time.Duration) *Pubsub {
		p, err := f.OpenPubsub(t.Context(), name, Config{Path: path, Retention: retention, Sweep: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeBus(t, p) })
		return p
	}
	long, short := open("long", 3*time.Hour), open("short", time.Hour)
	for _, p := range []*Pubsub{long, short} {
		if err := p.Publish(t.Context(), []loam.Event{{ID: "1", Topic: "t", Time: time.Now().Add(-2 * time.Hour)}}); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); count(t, long.db, "event") != 1; {
		if time.Now().After(deadline) {
			t.Fatalf("%d events are left of two, one of which is too old", count(t, long.db, "event"))
		}
	}
	consume(t, long, 1, 1, acknowledge)
	// The number of what is gone is not given again: a group that has read it would take the next for old.
	if err := short.Publish(t.Context(), []loam.Event{{ID: "2", Topic: "t", Time: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	consume(t, short, 1, 1, func(d pubsub.Delivery) pubsub.Verdict {
		if d.Event.ID != "2" {
			t.Errorf("%s came", d.Event.ID)
		}
		return pubsub.Verdict{}
	})
}

// A log that retention has emptied goes on where it was, after a restart too: a number that came again would be taken for
// the event that a group has finished, or put aside, under it.
func TestEmptiedLogGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loam.db")
	p := openBus(t, path)
	var old []loam.Event
	for i := range 5 {
		old = append(old, loam.Event{ID: fmt.Sprint(i), Topic: "t", Time: time.Now().Add(-2 * time.Hour)})
	}
	if err := p.Publish(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	consume(t, p, 1, 5, func(d pubsub.Delivery) pubsub.Verdict {
		return pubsub.Verdict{Retry: d.Event.ID == "3", After: time.Hour}
	})
	if err := p.write(t.Context(), func(d *db) error { _, err := d.sweep(); return err }); err != nil {
		t.Fatal(err)
	}
	if n := count(t, p.db, "event"); n != 0 {
		t.Errorf("%d events are left, all of them too old", n)
	}
	closeBus(t, p)
	p = openBus(t, path)
	defer closeBus(t, p)
	publish(t, p, 5, 10)
	var got []string
	consume(t, p, 1, 5, func(d pubsub.Delivery) pubsub.Verdict {
		got = append(got, fmt.Sprint(d.Event.ID, "/", d.Attempt))
		return pubsub.Verdict{}
	})
	if want := []string{"5/1", "6/1", "7/1", "8/1", "9/1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Verdicts that cannot be written wait until they can. Where the end comes first, it says so, and the events come again.
func TestVerdictsThatCannotBeWritten(t *testing.T) {
	p := openBus(t, filepath.Join(t.TempDir(), "loam.db"))
	defer closeBus(t, p)
	rename := func(from, to string) {
		t.Helper()
		if err := p.write(t.Context(), func(d *db) error { return d.exec("ALTER TABLE " + from + " RENAME TO " + to) }); err != nil {
			t.Fatal(err)
		}
	}
	cursor := func() (n int) {
		t.Helper()
		if err := p.readers.QueryRow("SELECT cursor FROM consumer").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	publish(t, p, 0, 3)
	ctx, cancel := context.WithCancel(t.Context())
	handled, ended := make(chan string), make(chan error, 1)
	subscribe := func() {
		ended <- p.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g", InFlight: 1}, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
			handled <- d.Event.ID
			return pubsub.Verdict{}
		})
	}
	go subscribe()
	<-handled
	rename("consumer", "elsewhere")
	<-handled
	<-handled
	rename("elsewhere", "consumer")
	for deadline := time.Now().Add(20 * time.Second); cursor() != 3; {
		if time.Now().After(deadline) {
			t.Fatalf("the cursor stays at %d", cursor())
		}
	}
	rename("consumer", "elsewhere")
	publish(t, p, 3, 4)
	<-handled
	cancel()
	if err := <-ended; loam.CodeOf(err) != loam.Unavailable {
		t.Errorf("a subscription whose last verdict is lost ends with %v", err)
	}
	rename("elsewhere", "consumer")
	consume(t, p, 1, 1, func(d pubsub.Delivery) pubsub.Verdict {
		if d.Event.ID != "3" {
			t.Errorf("%s came again", d.Event.ID)
		}
		return pubsub.Verdict{}
	})
}

// A subscription of a closed component ends with an error that says so.
func TestSubscribeClosed(t *testing.T) {
	p := openBus(t, filepath.Join(t.TempDir(), "loam.db"))
	closeBus(t, p)
	err := p.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"}, func(context.Context, pubsub.Delivery) pubsub.Verdict { return pubsub.Verdict{} })
	if !errors.Is(err, errClosed) {
		t.Errorf("%v", err)
	}
}
