package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/protocol/cloudevents"
)

// listen subscribes by a Bus until the test ends, and hands on what comes; handle says what becomes of it.
func listen(t *testing.T, d pubsub.Driver, o pubsub.Options, handle func(e loam.Event, attempt int) error) <-chan loam.Event {
	t.Helper()
	got := make(chan loam.Event, 1000)
	running(t, func(ctx context.Context) error {
		return pubsub.New("bus", d).Subscribe(ctx, o, func(_ context.Context, e loam.Event, attempt int) error {
			got <- e
			if handle == nil {
				return nil
			}
			return handle(e, attempt)
		})
	})
	return got
}

// running calls f until the test ends.
func running(t *testing.T, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var ending sync.WaitGroup
	ending.Go(func() {
		if err := f(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); ending.Wait() })
}

func await[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}

func manyGroupsManyTopics(t *testing.T, d pubsub.Driver) {
	const topics, groups, n = 4, 3, 20
	var events []loam.Event
	for i := range n {
		for topic := range topics {
			events = append(events, loam.Event{ID: fmt.Sprintf("%d-%03d", topic, i), Topic: fmt.Sprint("topic", topic), Time: time.Now()})
		}
	}
	var all []<-chan loam.Event
	for topic := range topics {
		for group := range groups {
			all = append(all, listen(t, d, pubsub.Options{Topic: fmt.Sprint("topic", topic), Group: fmt.Sprint("group", group), InFlight: 1}, nil))
		}
	}
	if err := d.Publish(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	for i, got := range all {
		for j := range n {
			if e := await(t, got); e.ID != fmt.Sprintf("%d-%03d", i/groups, j) {
				t.Fatalf("event %d of topic %d is %s", j, i/groups, e.ID)
			}
		}
	}
}

// messagesAreCopies: strings of a request lie in buffers that are used again.
func messagesAreCopies(t *testing.T, d pubsub.Driver) {
	buffer := []byte("first")
	text := unsafe.String(&buffer[0], len(buffer))
	e := loam.Event{ID: text, Source: text, Type: text, Subject: text, ContentType: "text/plain", Topic: "t", Attributes: map[string]string{"x": text}, Data: buffer, Time: time.Now()}
	if err := d.Publish(t.Context(), []loam.Event{e}); err != nil {
		t.Fatal(err)
	}
	copy(buffer, "later")
	got := await(t, listen(t, d, pubsub.Options{Topic: "t", Group: "g"}, nil))
	if s := got.ID + got.Source + got.Type + got.Subject + got.Attributes["x"] + string(got.Data); s != strings.Repeat("first", 6) {
		t.Errorf("somebody's buffer was kept: %q", s)
	}
}

// rawMessages: what was published without an envelope comes as it is, unless it is an envelope itself.
func rawMessages(t *testing.T, d pubsub.Driver) {
	messages := []string{
		"plain \xff", `{"order": 7}`, `"text"`,
		`{"specversion": "1.0", "id": "x1", "source": "s", "type": "y", "datacontenttype": "text/plain", "data": "hello", "n": 5}`,
	}
	for i, m := range messages {
		if err := d.Publish(t.Context(), []loam.Event{{ID: fmt.Sprint(i), Topic: "t", Time: time.Now(), Raw: true, Data: []byte(m), ContentType: "application/octet-stream"}}); err != nil {
			t.Fatal(err)
		}
	}
	got := listen(t, d, pubsub.Options{Topic: "t", Group: "g", InFlight: 1}, nil)
	for _, m := range messages[:3] {
		if e := await(t, got); !e.Raw || string(e.Data) != m || e.Topic != "t" || e.ID == "" {
			t.Errorf("%q came as %+v", m, e)
		}
	}
	if e := await(t, got); e.Raw || e.ID != "x1" || e.Source != "s" || e.Type != "y" || string(e.Data) != "hello" || e.ContentType != "text/plain" || string(e.Extra["n"]) != "5" || e.Topic != "t" {
		t.Errorf("an envelope came as %+v", e)
	}
}

// rawSubscription: who asks for messages as they are gets the bytes of raw ones, and the envelopes of the others.
func rawSubscription(t *testing.T, d pubsub.Driver) {
	if err := d.Publish(t.Context(), []loam.Event{
		{ID: "1", Topic: "t", Time: time.Now(), Raw: true, Data: []byte("plain \xff"), ContentType: "application/octet-stream"},
		{ID: "2", Topic: "t", Time: time.Now(), Source: "s", Type: "y", ContentType: "text/plain", Data: []byte("hello"), Attributes: map[string]string{"x": "1"}},
	}); err != nil {
		t.Fatal(err)
	}
	got := listen(t, d, pubsub.Options{Topic: "t", Group: "g", InFlight: 1, Raw: true}, nil)
	if e := await(t, got); e.Raw || string(e.Data) != "plain \xff" || e.ContentType != "application/octet-stream" || e.ID == "" || e.Source != "Dapr" || e.Topic != "t" {
		t.Errorf("it came as %+v", e)
	}
	e := await(t, got)
	inside, err := cloudevents.Decode(e.Data, "t")
	if err != nil || e.ContentType != "application/octet-stream" || inside.ID != "2" || inside.Source != "s" || string(inside.Data) != "hello" || inside.Attributes["x"] != "1" {
		t.Errorf("an event came as %+v: inside %+v, %v", e, inside, err)
	}
}

func endOfLife(t *testing.T, d pubsub.Driver) {
	event := func(id string, left time.Duration) loam.Event {
		return loam.Event{ID: id, Topic: "t", Time: time.Now(), ContentType: "text/plain", Attributes: map[string]string{"expiration": time.Now().Add(left).UTC().Format(time.RFC3339)}}
	}
	if err := d.Publish(t.Context(), []loam.Event{event("old", -time.Minute), event("new", time.Hour), event("older", -time.Hour)}); err != nil {
		t.Fatal(err)
	}
	dead := listen(t, d, pubsub.Options{Topic: "dead", Group: "g", InFlight: 1}, nil)
	got := listen(t, d, pubsub.Options{Topic: "t", Group: "g", InFlight: 1, DeadLetter: "dead"}, nil)
	if e := await(t, got); e.ID != "new" {
		t.Errorf("%s was delivered", e.ID)
	}
	for _, want := range []string{"old", "older"} {
		if e := await(t, dead); e.ID != want || e.Attributes["deadletterreason"] == "" {
			t.Errorf("in place of %s the dead letter is %+v", want, e)
		}
	}
}

// drop is the error of an event that is not wanted again.
type drop struct{ error }

func (drop) Drop() bool { return true }

// dropped: what is not wanted comes once, and goes to the dead letter topic where there is one.
func dropped(t *testing.T, d pubsub.Driver) {
	publish(t, d, "1", "2")
	refuse := func(e loam.Event, _ int) error {
		if e.ID == "1" {
			return fmt.Errorf("it says: %w", drop{errors.New("no such path")})
		}
		return nil
	}
	dead := listen(t, d, pubsub.Options{Topic: "dead", Group: "g"}, nil)
	with := listen(t, d, pubsub.Options{Topic: "t", Group: "with", InFlight: 1, DeadLetter: "dead"}, refuse)
	without := listen(t, d, pubsub.Options{Topic: "t", Group: "without", InFlight: 1}, refuse)
	for name, got := range map[string]<-chan loam.Event{"with": with, "without": without} {
		if one, two := await(t, got), await(t, got); one.ID != "1" || two.ID != "2" {
			t.Errorf("%s a dead letter topic, %s and %s came", name, one.ID, two.ID)
		}
	}
	if e := await(t, dead); e.ID != "1" || e.Attributes["deadlettergroup"] != "with" || !strings.Contains(e.Attributes["deadletterreason"], "no such path") {
		t.Errorf("the dead letter is %+v", e)
	}
}

// inBulk: events come together, and each is answered for.
func inBulk(t *testing.T, d pubsub.Driver) {
	publish(t, d, numbered(25)...)
	type batch struct {
		ids      []string
		attempts []int
	}
	batches := make(chan batch, 100)
	running(t, func(ctx context.Context) error {
		return pubsub.New("bus", d).SubscribeBulk(ctx, pubsub.Options{Topic: "t", Group: "g", RetryMin: time.Millisecond, RetryMax: time.Millisecond},
			pubsub.Bulk{Max: 10, Wait: 50 * time.Millisecond}, func(_ context.Context, deliveries []pubsub.Delivery) []error {
				var b batch
				errs := make([]error, len(deliveries))
				for i, x := range deliveries {
					b.ids, b.attempts = append(b.ids, x.Event.ID), append(b.attempts, x.Attempt)
					if x.Event.ID == "007" && x.Attempt < 3 {
						errs[i] = errors.New("not yet")
					}
				}
				batches <- b
				return errs
			})
	})
	tries := map[string][]int{}
	largest := 0
	for n := 0; n < 27; {
		b := await(t, batches)
		n += len(b.ids)
		largest = max(largest, len(b.ids))
		for i, id := range b.ids {
			tries[id] = append(tries[id], b.attempts[i])
		}
	}
	if largest < 2 || largest > 10 {
		t.Errorf("at most %d came together, of 10 that might", largest)
	}
	for _, id := range numbered(25) {
		want := []int{1}
		if id == "007" {
			want = []int{1, 2, 3}
		}
		if !slices.Equal(tries[id], want) {
			t.Errorf("%s was tried %v, want %v", id, tries[id], want)
		}
	}
}

// bulkWaitsForNoMore: the end of a subscription hands out what is gathered, and waits for it.
func bulkWaitsForNoMore(t *testing.T, d pubsub.Driver) {
	publish(t, d, "1")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var got []string
	go func() {
		ended <- pubsub.New("bus", d).SubscribeBulk(ctx, pubsub.Options{Topic: "t", Group: "g"}, pubsub.Bulk{Max: 10, Wait: time.Hour}, func(_ context.Context, deliveries []pubsub.Delivery) []error {
			for _, x := range deliveries {
				got = append(got, x.Event.ID)
			}
			return nil
		})
	}()
	// Another group sees the event: by then it is out, and the first waits for more in vain.
	await(t, listen(t, d, pubsub.Options{Topic: "t", Group: "probe"}, nil))
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the subscription does not end")
	}
	if len(got) > 1 {
		t.Errorf("it got %q", got)
	}
	again := listen(t, d, pubsub.Options{Topic: "t", Group: "g"}, nil)
	if len(got) == 0 { // it had not come yet, so it comes now
		await(t, again)
		return
	}
	select {
	case e := <-again:
		t.Errorf("%s came again", e.ID)
	case <-time.After(100 * time.Millisecond):
	}
}
