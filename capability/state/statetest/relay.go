package statetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/state"
)

// RunTransactions tests the outbox of a component's settings: events of transactions, each delivered at least once if the
// transaction was committed, never if not. open returns a state driver that has transactions and a pubsub driver; whether
// they share a commit is theirs.
func RunTransactions(t *testing.T, open func(t *testing.T) (state.Driver, pubsub.Driver)) {
	for name, test := range map[string]func(*testing.T, *world){
		"writes are published":    writesArePublished,
		"refused is not":          refusedIsNotPublished,
		"committed and not yet":   committedAndNotYet,
		"published and not noted": publishedAndNotNoted,
		"never committed":         neverCommitted,
	} {
		t.Run(name, func(t *testing.T) {
			s, p := open(t)
			w := &world{t: t, driver: &faulty{Driver: s}, bus: pubsub.New("bus", p)}
			o, ok := s.(state.Outbox)
			w.shared = ok && o.SharesCommit(p)
			var driver state.Driver = w.driver
			if w.shared {
				driver = s
			}
			store, err := state.Open("store", driver, state.Options{
				Settings: map[string]string{"outboxPublishPubsub": "bus", "outboxPublishTopic": "changes"},
				Bus:      func(string) (*pubsub.Bus, error) { return w.bus, nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			if w.store, err = store.For("orders", "prod"); err != nil {
				t.Fatal(err)
			}
			test(t, w)
		})
	}
}

// world is a store with an outbox, and what comes out of it.
type world struct {
	t      *testing.T
	driver *faulty
	bus    *pubsub.Bus
	store  *state.Store
	shared bool
}

var caller = &loam.Caller{Name: "orders", Grants: []loam.Grant{{Capability: "state", Component: "store"}}}

// faulty is a driver that can be kept from working, as a process is that was killed.
type faulty struct {
	state.Driver
	fail atomic.Pointer[func(ops []state.Op) error]
}

func (f *faulty) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	if fail := f.fail.Load(); fail != nil {
		if err := (*fail)(ops); err != nil {
			return nil, err
		}
	}
	return f.Driver.Apply(ctx, ops)
}

func (f *faulty) failing(fail func(ops []state.Op) error) {
	if fail == nil {
		f.fail.Store(nil)
		return
	}
	f.fail.Store(&fail)
}

// relay runs what publishes the records, until stop is called or the test ends.
func (w *world) relay() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.store.Relay(ctx, "orders") }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

func (w *world) changes() <-chan loam.Event {
	got := make(chan loam.Event, 100)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- w.bus.Subscribe(ctx, pubsub.Options{Topic: "changes", Group: "g", InFlight: 1}, func(_ context.Context, e loam.Event, _ int) error {
			got <- e
			return nil
		})
	}()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	return got
}

func (w *world) await(from <-chan loam.Event) loam.Event {
	w.t.Helper()
	select {
	case e := <-from:
		return e
	case <-time.After(30 * time.Second):
		w.t.Fatal("nothing was published")
	}
	panic("unreachable")
}

func (w *world) nothing(from <-chan loam.Event) {
	w.t.Helper()
	select {
	case e := <-from:
		w.t.Errorf("published: %+v", e)
	case <-time.After(200 * time.Millisecond):
	}
}

func (w *world) transact(ops ...state.Op) error {
	return w.store.Transact(w.t.Context(), caller, ops, state.Trace{Parent: "00-1-2-01", State: "a=b"})
}

// marks are what the transactions left in the store for the relay; -1: the driver cannot be asked.
func (w *world) marks() int {
	l, ok := w.driver.Driver.(state.Lister)
	if !ok {
		return -1
	}
	items, err := l.List(w.t.Context(), "outbox-", "", 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(items)
}

func writesArePublished(t *testing.T, w *world) {
	w.relay()
	got := w.changes()
	if err := w.transact(
		state.Op{Key: "1", Value: []byte(`{"n": 1}`), Metadata: map[string]string{"contentType": "application/json", "x": "kept", "subject": "order 1"}},
		state.Op{Key: "2", Value: []byte(`"text"`)},
		state.Op{Key: "gone", Delete: true},
		state.Op{Key: "3", Value: []byte("stored")},
		state.Op{Key: "3", Value: []byte(`{"told": true}`), Projection: true, Metadata: map[string]string{"contentType": "application/json"}},
	); err != nil {
		t.Fatal(err)
	}
	events := map[string]loam.Event{}
	for range 3 {
		e := w.await(got)
		events[string(e.Data)] = e
	}
	w.nothing(got)
	one, two, three := events[`{"n": 1}`], events["text"], events[`{"told": true}`]
	if one.ContentType != "application/json" || one.Attributes["x"] != "kept" || one.Subject != "order 1" || one.Attributes["traceparent"] != "00-1-2-01" || one.Attributes["tracestate"] != "a=b" ||
		one.Source != "orders" || one.Type != "com.dapr.event.sent" || !strings.HasPrefix(one.ID, "outbox-") || one.Topic != "changes" || one.Attributes["topic"] != "" {
		t.Errorf("the first write was told as %+v", one)
	}
	if two.ContentType != "text/plain" || three.ContentType != "application/json" || two.ID == three.ID || two.ID == "" {
		t.Errorf("the others were told as %+v and %+v", two, three)
	}
	items, err := w.store.Get(t.Context(), caller, "1", "2", "3")
	if err != nil || string(items[0].Value) != `{"n": 1}` || string(items[1].Value) != `"text"` || string(items[2].Value) != "stored" {
		t.Errorf("stored: %+v, %v", items, err)
	}
	for deadline := time.Now().Add(10 * time.Second); w.marks() > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d marks are left behind", w.marks())
		}
	}
}

func refusedIsNotPublished(t *testing.T, w *world) {
	w.relay()
	got := w.changes()
	if err := w.transact(state.Op{Key: "1", Value: []byte("x"), IfMatch: "no such"}); loam.CodeOf(err) != loam.Aborted {
		t.Fatal(err)
	}
	if err := w.transact(state.Op{Key: "only", Delete: true}); err != nil {
		t.Fatal(err)
	}
	w.nothing(got)
	if err := w.transact(state.Op{Key: "1", Value: []byte("y")}); err != nil {
		t.Fatal(err)
	}
	if e := w.await(got); string(e.Data) != "y" {
		t.Errorf("published: %+v", e)
	}
	if w.marks() > 1 {
		t.Errorf("%d marks", w.marks())
	}
}

// committedAndNotYet: the process ends when the transaction is committed and nothing published.
func committedAndNotYet(t *testing.T, w *world) {
	got := w.changes()
	if err := w.transact(state.Op{Key: "1", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if !w.shared {
		w.nothing(got)
		w.relay()
	}
	if e := w.await(got); string(e.Data) != "x" {
		t.Errorf("published: %+v", e)
	}
}

// publishedAndNotNoted: the process ends when the event is published and its mark not removed. It comes twice, with one id.
func publishedAndNotNoted(t *testing.T, w *world) {
	if w.shared {
		return // there is no such moment
	}
	got := w.changes()
	w.driver.failing(func(ops []state.Op) error {
		if ops[0].Delete && strings.HasPrefix(ops[0].Key, "outbox-") {
			return errors.New("the process was killed")
		}
		return nil
	})
	stop := w.relay()
	if err := w.transact(state.Op{Key: "1", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	first := w.await(got)
	stop()
	w.driver.failing(nil)
	w.relay()
	if again := w.await(got); again.ID != first.ID || string(again.Data) != "x" {
		t.Errorf("after %+v came %+v", first, again)
	}
}

// neverCommitted: the process ends when the records are published and the transaction is not committed. Nothing is ever
// published of it, and what comes later is.
func neverCommitted(t *testing.T, w *world) {
	if w.shared {
		return // there is no such moment
	}
	got := w.changes()
	w.driver.failing(func(ops []state.Op) error {
		if slices.ContainsFunc(ops, func(op state.Op) bool { return string(op.Value) == "lost" }) {
			return loam.Errorf(loam.Unavailable, "state", "the process was killed")
		}
		return nil
	})
	if err := w.transact(state.Op{Key: "1", Value: []byte("lost")}); loam.CodeOf(err) != loam.Unavailable {
		t.Fatal(err)
	}
	w.relay()
	if err := w.transact(state.Op{Key: "1", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if e := w.await(got); string(e.Data) != "x" {
		t.Errorf("published: %+v", e)
	}
	w.nothing(got)
}
