// Package pubsubtest is what every driver of the pubsub capability must do. A component's own test calls Run.
package pubsubtest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
)

// Run tests the drivers that open returns: each call an empty one.
func Run(t *testing.T, open func(t *testing.T) pubsub.Driver) {
	for name, test := range map[string]func(*testing.T, pubsub.Driver){
		"whole events":             wholeEvents,
		"groups each get all":      groupsEachGetAll,
		"a group shares":           aGroupShares,
		"retry":                    retry,
		"where it left off":        whereItLeftOff,
		"in flight is bounded":     inFlightIsBounded,
		"the end waits":            theEndWaits,
		"dead letter":              deadLetter,
		"out of order is no twice": outOfOrderIsNoTwice,
		"retries in order of time": retriesInOrderOfTime,
		"many groups, many topics": manyGroupsManyTopics,
		"messages are copies":      messagesAreCopies,
		"raw messages":             rawMessages,
		"raw subscription":         rawSubscription,
		"end of life":              endOfLife,
		"dropped":                  dropped,
		"bulk":                     inBulk,
		"bulk waits for no more":   bulkWaitsForNoMore,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

const patience = 20 * time.Second

func publish(t *testing.T, d pubsub.Driver, ids ...string) {
	t.Helper()
	var events []loam.Event
	for _, id := range ids {
		events = append(events, loam.Event{ID: id, Topic: "t", Time: time.Now()})
	}
	if err := d.Publish(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

func numbered(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("%03d", i))
	}
	return ids
}

// subscribe consumes until stop is called, which waits for the subscription's end.
func subscribe(t *testing.T, d pubsub.Driver, group string, inFlight int, h pubsub.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: group, InFlight: inFlight}, h)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Subscribe: %v", err)
			}
		case <-time.After(patience):
			t.Error("a subscription does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

// collect hands on the ids that a handler acknowledges.
func collect(ids chan<- string) pubsub.Handler {
	return func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
		ids <- d.Event.ID
		return pubsub.Verdict{}
	}
}

func take(t *testing.T, ids <-chan string, n int) []string {
	t.Helper()
	var got []string
	late := time.After(patience)
	for len(got) < n {
		select {
		case id := <-ids:
			got = append(got, id)
		case <-late:
			t.Fatalf("%d of %d deliveries came: %q", len(got), n, got)
		}
	}
	return got
}

func nothing(t *testing.T, ids <-chan string) {
	t.Helper()
	select {
	case id := <-ids:
		t.Errorf("%s was delivered, and nothing should have been", id)
	case <-time.After(100 * time.Millisecond):
	}
}

func wholeEvents(t *testing.T, d pubsub.Driver) {
	sent := loam.Event{
		ID: "1", Source: "s", Type: "y", Subject: "j", Time: time.UnixMilli(1_700_000_000_123), ContentType: "text/plain", Topic: "t",
		Attributes: map[string]string{"traceparent": "00-1", "x": "ü"}, Data: []byte("\x00data\xff"),
		Extra: map[string]json.RawMessage{"n": json.RawMessage("12345678901234567890"), "o": json.RawMessage(`{"a":[1,true]}`)},
	}
	bare := loam.Event{ID: "2", ContentType: "application/json", Topic: "t", Time: time.UnixMilli(0)} // which Bus gives every event
	usual := loam.Event{ID: "3", Source: "orders", Type: "t", ContentType: "application/json", Topic: "t", Time: time.UnixMilli(1), Data: []byte("{}")}
	if err := d.Publish(t.Context(), []loam.Event{sent, bare, usual}); err != nil {
		t.Fatal(err)
	}
	got := make(chan pubsub.Delivery, 3)
	subscribe(t, d, "g", 1, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict { got <- d; return pubsub.Verdict{} })
	for _, want := range []loam.Event{sent, bare, usual} {
		select {
		case x := <-got:
			e := x.Event
			if x.Attempt != 1 || e.ID != want.ID || e.Source != want.Source || e.Type != want.Type || e.Subject != want.Subject || !e.Time.Equal(want.Time) ||
				e.ContentType != want.ContentType || e.Topic != want.Topic || !maps.Equal(e.Attributes, want.Attributes) || !maps.EqualFunc(e.Extra, want.Extra, sameJSON) || e.Raw || string(e.Data) != string(want.Data) {
				t.Errorf("got %+v, want %+v", e, want)
			}
		case <-time.After(patience):
			t.Fatal("nothing came")
		}
	}
}

func sameJSON(a, b json.RawMessage) bool { return string(a) == string(b) }

func groupsEachGetAll(t *testing.T, d pubsub.Driver) {
	publish(t, d, numbered(10)...) // before anybody subscribes: a new group starts at the oldest
	for _, group := range []string{"g1", "g2"} {
		ids := make(chan string, 100)
		subscribe(t, d, group, 1, collect(ids))
		if got := take(t, ids, 10); !slices.Equal(got, numbered(10)) {
			t.Errorf("%s got %q", group, got)
		}
	}
}

func aGroupShares(t *testing.T, d pubsub.Driver) {
	const n = 200
	ids := make(chan string, 2*n)
	for range 3 {
		subscribe(t, d, "g", 4, collect(ids))
	}
	for _, id := range numbered(n) {
		publish(t, d, id)
	}
	got := take(t, ids, n)
	slices.Sort(got)
	if !slices.Equal(got, numbered(n)) {
		t.Errorf("not each event once: %q", got)
	}
	nothing(t, ids)
}

func retry(t *testing.T, d pubsub.Driver) {
	type try struct {
		id string
		n  int
		at time.Time
	}
	tries := make(chan try, 100)
	subscribe(t, d, "g", 2, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
		tries <- try{d.Event.ID, d.Attempt, time.Now()}
		return pubsub.Verdict{Retry: d.Event.ID == "bad" && d.Attempt < 3, After: 50 * time.Millisecond}
	})
	publish(t, d, "bad", "good")
	var bad []try
	late := time.After(patience)
	for len(bad) < 3 {
		select {
		case x := <-tries:
			if x.id == "bad" {
				bad = append(bad, x)
			} else if x.n != 1 {
				t.Errorf("good was tried %d times", x.n)
			}
		case <-late:
			t.Fatalf("it was tried %d times", len(bad))
		}
	}
	for i, x := range bad {
		if x.n != i+1 {
			t.Errorf("attempt %d is called %d", i+1, x.n)
		}
		// The deadline is on disk in milliseconds, so a retry may come one early.
		if i > 0 && x.at.Sub(bad[i-1].at) < 48*time.Millisecond {
			t.Errorf("attempt %d came after %v", i+1, x.at.Sub(bad[i-1].at))
		}
	}
}

func whereItLeftOff(t *testing.T, d pubsub.Driver) {
	ids := make(chan string, 100)
	publish(t, d, "1", "2", "3")
	stop := subscribe(t, d, "g", 1, collect(ids))
	take(t, ids, 3)
	stop()
	publish(t, d, "4")
	subscribe(t, d, "g", 1, collect(ids))
	if got := take(t, ids, 1); got[0] != "4" {
		t.Errorf("it went on with %s", got[0])
	}
	nothing(t, ids)
}

func inFlightIsBounded(t *testing.T, d pubsub.Driver) {
	inside, release := make(chan string, 100), make(chan struct{})
	stop := subscribe(t, d, "g", 3, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
		inside <- d.Event.ID
		<-release
		return pubsub.Verdict{}
	})
	publish(t, d, numbered(10)...)
	take(t, inside, 3)
	nothing(t, inside)
	close(release)
	take(t, inside, 7)
	stop()
}

func theEndWaits(t *testing.T, d pubsub.Driver) {
	inside, release := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g", InFlight: 1}, func(ctx context.Context, _ pubsub.Delivery) pubsub.Verdict {
			close(inside)
			<-release
			if ctx.Err() != nil {
				t.Error("the handler's context ended with the subscription's")
			}
			return pubsub.Verdict{}
		})
	}()
	publish(t, d, "1")
	<-inside
	cancel()
	select {
	case err := <-ended:
		t.Errorf("Subscribe returned %v while a handler was at work", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	ids := make(chan string, 10)
	subscribe(t, d, "g", 1, collect(ids))
	nothing(t, ids) // its verdict counted
}

func deadLetter(t *testing.T, d pubsub.Driver) {
	bus := pubsub.New("c", d)
	ctx, cancel := context.WithCancel(context.Background())
	var ending sync.WaitGroup
	defer ending.Wait()
	defer cancel()
	tries := make(chan int, 100)
	ending.Go(func() {
		err := bus.Subscribe(ctx, pubsub.Options{Topic: "t", Group: "g", DeadLetter: "dead", MaxDeliveries: 3, RetryMin: time.Millisecond}, func(_ context.Context, e loam.Event, attempt int) error {
			tries <- attempt
			return fmt.Errorf("no use")
		})
		if err != nil {
			t.Error(err)
		}
	})
	dead := make(chan loam.Event, 10)
	ending.Go(func() {
		err := bus.Subscribe(ctx, pubsub.Options{Topic: "dead", Group: "g"}, func(_ context.Context, e loam.Event, _ int) error { dead <- e; return nil })
		if err != nil {
			t.Error(err)
		}
	})
	publish(t, d, "1")
	select {
	case e := <-dead:
		if e.ID != "1" || e.Topic != "dead" || e.Attributes["topic"] != "t" || e.Attributes["deadlettertopic"] != "t" || e.Attributes["deadletterreason"] != "no use" || len(tries) != 3 {
			t.Errorf("after %d tries: %+v", len(tries), e)
		}
	case <-time.After(patience):
		t.Error("nothing came to the dead letter topic")
	}
}

// Events acknowledged behind one that is still at work are not delivered again after a clean end.
func outOfOrderIsNoTwice(t *testing.T, d pubsub.Driver) {
	publish(t, d, numbered(20)...)
	ids, release := make(chan string, 100), make(chan struct{})
	stop := subscribe(t, d, "g", 4, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
		if d.Event.ID == "000" {
			<-release
			return pubsub.Verdict{Retry: true, After: time.Millisecond}
		}
		ids <- d.Event.ID
		return pubsub.Verdict{}
	})
	take(t, ids, 19)
	close(release)
	stop()
	subscribe(t, d, "g", 4, collect(ids))
	if got := take(t, ids, 1); got[0] != "000" {
		t.Errorf("%s came again", got[0])
	}
	nothing(t, ids)
}

// Of events that wait for another attempt, the one that is due first comes first, whatever their order was; and they do
// not hold up the rest.
func retriesInOrderOfTime(t *testing.T, d pubsub.Driver) {
	after := map[string]time.Duration{"000": 150 * time.Millisecond, "001": 50 * time.Millisecond, "002": 100 * time.Millisecond}
	again, first := make(chan string, 10), make(chan string, 10)
	subscribe(t, d, "g", 1, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
		if d.Attempt > 1 {
			again <- d.Event.ID
			return pubsub.Verdict{}
		}
		first <- d.Event.ID
		return pubsub.Verdict{Retry: after[d.Event.ID] > 0, After: after[d.Event.ID]}
	})
	publish(t, d, numbered(5)...)
	if got := take(t, first, 5); !slices.Equal(got, numbered(5)) {
		t.Errorf("first came %q", got)
	}
	if got := take(t, again, 3); !slices.Equal(got, []string{"001", "002", "000"}) {
		t.Errorf("again came %q", got)
	}
}
