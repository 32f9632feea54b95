package memory

import (
	"errors"
	"io"
	"testing"

	"go.uber.org/goleak"

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
