package memory

import (
	"context"
	"errors"
	"io"
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
