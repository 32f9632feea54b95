package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/config/configtest"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/lock/locktest"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/pubsub/pubsubtest"
	"github.com/loam-run/loam/capability/sequence"
	"github.com/loam-run/loam/capability/sequence/sequencetest"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/capability/state/statetest"
	"github.com/loam-run/loam/loop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a new component of a type, as the server does.
func open[D io.Closer](typ string) func(*testing.T) D {
	return func(t *testing.T) D {
		for _, f := range New().Factories() {
			if f.Type == typ {
				d, err := f.Open(t.Context(), "test", nil)
				if err != nil {
					t.Fatal(err)
				}
				driver := d.(D)
				t.Cleanup(func() {
					if err := driver.Close(); err != nil {
						t.Error(err)
					}
				})
				return driver
			}
		}
		t.Fatalf("there is no type %s", typ)
		panic("unreachable")
	}
}

func TestState(t *testing.T)    { statetest.Run(t, open[state.Driver]("state.memory")) }
func TestPubsub(t *testing.T)   { pubsubtest.Run(t, open[pubsub.Driver]("pubsub.memory")) }
func TestLock(t *testing.T)     { locktest.Run(t, open[lock.Driver]("lock.memory")) }
func TestConfig(t *testing.T)   { configtest.Run(t, open[config.Driver]("config.memory")) }
func TestSequence(t *testing.T) { sequencetest.Run(t, open[sequence.Driver]("sequence.memory")) }

func TestOutbox(t *testing.T) {
	m := New()
	statetest.RunOutbox(t, func(t *testing.T) (state.Outbox, pubsub.Driver, pubsub.Driver) {
		s, err := m.OpenState(t.Context(), "s", Config{})
		if err != nil {
			t.Fatal(err)
		}
		shared, err := m.OpenPubsub(t.Context(), "p", Config{})
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := New().OpenPubsub(t.Context(), "p", Config{})
		if err != nil {
			t.Fatal(err)
		}
		return s, shared, stranger
	})
}

func TestTransactions(t *testing.T) {
	for name, other := range map[string]func(*Memory) *Memory{
		"one commit": func(m *Memory) *Memory { return m }, "two": func(*Memory) *Memory { return New() },
	} {
		t.Run(name, func(t *testing.T) {
			statetest.RunTransactions(t, func(t *testing.T) (state.Driver, pubsub.Driver) {
				m := New()
				s, err1 := m.OpenState(t.Context(), "s", Config{})
				p, err2 := other(m).OpenPubsub(t.Context(), "p", Config{})
				if err := errors.Join(err1, err2); err != nil {
					t.Fatal(err)
				}
				return s, p
			})
		})
	}
}

// TestTasks delivers events in tasks of an event loop: again after an error, and after a panic, which takes no room away.
func TestTasks(t *testing.T) {
	engine := loop.New(loop.Options{})
	defer engine.Close()
	d, err := New().OpenPubsub(t.Context(), "bus", Config{})
	if err != nil {
		t.Fatal(err)
	}
	bus := pubsub.New("bus", d)
	caller := &loam.Caller{Name: "shop", Grants: []loam.Grant{{Capability: "*", Component: "*"}}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	type seen struct {
		data    string
		attempt int
		task    bool
	}
	got := make(chan seen, 16)
	go func() {
		o := pubsub.Options{Topic: "t", Group: "g", InFlight: 1, RetryMin: time.Millisecond}
		ended <- bus.SubscribeIn(ctx, o, engine.Go, func(_ context.Context, task loam.Task, e loam.Event, attempt int) error {
			got <- seen{string(e.Data), attempt, task != nil}
			switch attempt {
			case 1:
				panic("the handler's")
			case 2:
				return errors.New("not yet")
			}
			return nil
		})
	}()
	for _, data := range []string{"1", "2"} {
		if err := bus.Publish(t.Context(), caller, []loam.Event{{Topic: "t", Data: []byte(data)}}); err != nil {
			t.Fatal(err)
		}
	}
	attempts := map[string]int{}
	for range 6 {
		select {
		case s := <-got:
			if attempts[s.data]++; s.attempt != attempts[s.data] || !s.task {
				t.Errorf("%+v, as number %d", s, attempts[s.data])
			}
		case <-time.After(time.Minute):
			t.Fatalf("delivered so far: %v", attempts)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if attempts["1"] != 3 || attempts["2"] != 3 {
		t.Errorf("attempts %v", attempts)
	}
}

// TestWildcards: a topic that ends in a star is all that go on from there, those that come later too.
func TestWildcards(t *testing.T) {
	d := open[pubsub.Driver]("pubsub.memory")(t)
	publish := func(topics ...string) {
		t.Helper()
		for _, topic := range topics {
			if err := d.Publish(t.Context(), []loam.Event{{ID: topic, Topic: topic}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	type got struct {
		topic   string
		attempt int
	}
	subscribe := func(topic string, seen chan<- got, retry string) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() {
			ended <- d.Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: "g", InFlight: 1}, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
				seen <- got{d.Event.Topic, d.Attempt}
				return pubsub.Verdict{Retry: d.Event.Topic == retry && d.Attempt == 1}
			})
		}()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	want := func(seen <-chan got, all ...got) {
		t.Helper()
		left := map[got]int{}
		for _, g := range all {
			left[g]++
		}
		for range all {
			select {
			case g := <-seen:
				if left[g]--; left[g] < 0 {
					t.Errorf("%+v was delivered, of %+v", g, all)
				}
			case <-time.After(2 * time.Minute):
				t.Fatalf("still to come: %v", left)
			}
		}
	}
	publish("heat/old", "heat/", "heat", "cold/1")
	like, all, one := make(chan got, 100), make(chan got, 100), make(chan got, 100)
	stopLike, stopAll := subscribe("heat/*", like, "heat/b"), subscribe("*", all, "")
	defer stopAll()
	defer subscribe("heat/a", one, "")()
	want(like, got{"heat/old", 1}) // as groups of a plain topic do
	publish("heat/a", "heat/b", "heat", "cold/2", "heat/a", "heat/*")
	want(like, got{"heat/a", 1}, got{"heat/a", 1}, got{"heat/b", 1}, got{"heat/b", 2}, got{"heat/*", 1})
	want(one, got{"heat/a", 1}, got{"heat/a", 1})
	want(all, got{"heat/old", 1}, got{"heat/", 1}, got{"heat", 1}, got{"cold/1", 1}, got{"heat/a", 1}, got{"heat/b", 1}, got{"heat", 1}, got{"cold/2", 1}, got{"heat/a", 1}, got{"heat/*", 1})
	// Who comes again goes on where it was, and finds what came meanwhile.
	stopLike()
	publish("heat/a", "heat/c", "cold/3")
	want(all, got{"heat/a", 1}, got{"heat/c", 1}, got{"cold/3", 1})
	defer subscribe("heat/*", like, "")()
	want(like, got{"heat/a", 1}, got{"heat/c", 1})
	for _, rest := range []chan got{like, all} {
		if len(rest) > 0 {
			t.Errorf("%+v was delivered too", <-rest)
		}
	}
	if !slices.Equal(d.(pubsub.Featured).Features(), []string{"SUBSCRIBE_WILDCARDS"}) {
		t.Error("it does not say so")
	}
}

// TestWildcardsShare: subscribers of one group take what comes to many topics between them, each event once, and none waits
// while one has room.
func TestWildcardsShare(t *testing.T) {
	d := open[pubsub.Driver]("pubsub.memory")(t)
	ctx, cancel := context.WithCancel(context.Background())
	const topics, events = 20, 50
	var mu sync.Mutex
	seen := map[string]int{}
	var left atomic.Int64
	left.Store(topics * events * 2) // each twice: the first time it is wanted again
	done := make(chan struct{})
	var ends sync.WaitGroup
	for range 3 {
		ends.Go(func() {
			err := d.Subscribe(ctx, pubsub.Subscription{Topic: "t*", Group: "g", InFlight: 2}, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
				mu.Lock()
				seen[d.Event.ID]++
				mu.Unlock()
				if left.Add(-1) == 0 {
					close(done)
				}
				return pubsub.Verdict{Retry: d.Attempt == 1, After: time.Duration(d.Event.ID[0]%3) * time.Millisecond}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	for i := range events {
		for topic := range topics {
			if err := d.Publish(t.Context(), []loam.Event{{ID: fmt.Sprint(i, "/", topic), Topic: fmt.Sprint("t", topic)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Errorf("%d deliveries did not come", left.Load())
	}
	cancel()
	ends.Wait()
	for id, n := range seen {
		if n != 2 {
			t.Errorf("%s was delivered %d times", id, n)
		}
	}
}

// TestRetained: what topics keep for groups that may come takes no room from what is published.
func TestRetained(t *testing.T) {
	d := open[pubsub.Driver]("pubsub.memory")(t)
	data := make([]byte, 1<<20)
	for topic := range 40 {
		for range 5 {
			if err := d.Publish(t.Context(), []loam.Event{{Topic: fmt.Sprint(topic), Data: data}}); err != nil {
				t.Fatal(topic, err)
			}
		}
	}
}
