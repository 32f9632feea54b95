package redis

import (
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
	"github.com/loam-run/loam/component/redis/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a component in a server of its own, as the process does.
func open[D io.Closer](typ string) func(*testing.T) D {
	return func(t *testing.T) D {
		return openAt[D](t, typ, map[string]string{"redisHost": redistest.Start(t).Addr})
	}
}

func openAt[D io.Closer](t *testing.T, typ string, metadata map[string]string) D {
	t.Helper()
	for _, f := range Factories() {
		if f.Type != typ {
			continue
		}
		d, err := f.Open(t.Context(), "test", metadata)
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
	t.Fatalf("there is no type %s", typ)
	panic("unreachable")
}

func TestState(t *testing.T)    { statetest.Run(t, open[state.Driver]("state.redis")) }
func TestPubsub(t *testing.T)   { pubsubtest.Run(t, open[pubsub.Driver]("pubsub.redis")) }
func TestLock(t *testing.T)     { locktest.Run(t, open[lock.Driver]("lock.redis")) }
func TestConfig(t *testing.T)   { configtest.Run(t, open[config.Driver]("config.redis")) }
func TestSequence(t *testing.T) { sequencetest.Run(t, open[sequence.Driver]("sequence.redis")) }

func TestOutbox(t *testing.T) {
	statetest.RunOutbox(t, func(t *testing.T) (state.Outbox, pubsub.Driver, pubsub.Driver) {
		here := map[string]string{"redisHost": redistest.Start(t).Addr}
		return openAt[*State](t, "state.redis", here), openAt[*Pubsub](t, "pubsub.redis", here), open[*Pubsub]("pubsub.redis")(t)
	})
}
