package sqlite

import (
	"context"
	"io"
	"path/filepath"
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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openIn opens a component of a type in a file, as the server does.
func openIn[D io.Closer](t *testing.T, f *Files, typ, name, path string) D {
	t.Helper()
	for _, factory := range f.Factories() {
		if factory.Type == typ {
			d, err := factory.Open(t.Context(), name, map[string]string{"path": path, "sweepInterval": "100ms"})
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

func opener[D io.Closer](typ string) func(*testing.T) D {
	return func(t *testing.T) D { return openIn[D](t, New(), typ, "test", filepath.Join(t.TempDir(), "loam.db")) }
}

func TestState(t *testing.T)    { statetest.Run(t, opener[state.Driver]("state.sqlite")) }
func TestPubsub(t *testing.T)   { pubsubtest.Run(t, opener[pubsub.Driver]("pubsub.sqlite")) }
func TestLock(t *testing.T)     { locktest.Run(t, opener[lock.Driver]("lock.sqlite")) }
func TestConfig(t *testing.T)   { configtest.Run(t, opener[config.Driver]("config.sqlite")) }
func TestSequence(t *testing.T) { sequencetest.Run(t, opener[sequence.Driver]("sequence.sqlite")) }

func TestOutbox(t *testing.T) {
	statetest.RunOutbox(t, func(t *testing.T) (state.Outbox, pubsub.Driver, pubsub.Driver) {
		f, dir := New(), t.TempDir()
		return openIn[*State](t, f, "state.sqlite", "s", filepath.Join(dir, "loam.db")),
			openIn[pubsub.Driver](t, f, "pubsub.sqlite", "p", filepath.Join(dir, "loam.db")),
			openIn[pubsub.Driver](t, f, "pubsub.sqlite", "p", filepath.Join(dir, "other.db"))
	})
}

// Components of one file share it, and keep to themselves.
func TestTransactions(t *testing.T) {
	for _, second := range []string{"loam.db", "other.db"} { // of one file, and of two: without a commit that is shared
		t.Run(second, func(t *testing.T) {
			statetest.RunTransactions(t, func(t *testing.T) (state.Driver, pubsub.Driver) {
				f, dir := New(), t.TempDir()
				return openIn[state.Driver](t, f, "state.sqlite", "s", filepath.Join(dir, "loam.db")), openIn[pubsub.Driver](t, f, "pubsub.sqlite", "p", filepath.Join(dir, second))
			})
		})
	}
}

func TestComponentsOfOneFile(t *testing.T) {
	f, path := New(), filepath.Join(t.TempDir(), "loam.db")
	a := openIn[*State](t, f, "state.sqlite", "a", path)
	b := openIn[*State](t, f, "state.sqlite", "b", path)
	if a.db != b.db {
		t.Error("the file is open twice")
	}
	if _, err := a.Apply(t.Context(), []state.Op{{Key: "k", Value: []byte("a")}}); err != nil {
		t.Fatal(err)
	}
	if items, err := b.Get(t.Context(), []string{"k"}); err != nil || items[0].ETag != "" {
		t.Errorf("b sees a's key: %+v, %v", items, err)
	}
}

// What was written is there after the file was closed and opened again, and numbers and ETags do not come again.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loam.db")
	var etag string
	var number int64
	for range 3 {
		f := New()
		config := Config{Path: path, Retention: time.Hour, Sweep: time.Hour}
		s, err := f.OpenState(t.Context(), "s", config)
		if err != nil {
			t.Fatal(err)
		}
		q, err := f.OpenSequence(t.Context(), "q", config)
		if err != nil {
			t.Fatal(err)
		}
		items, err := s.Get(t.Context(), []string{"k"})
		if err != nil || items[0].ETag != etag {
			t.Errorf("after reopening: %+v, %v; want the ETag %q", items, err, etag)
		}
		n, err := q.Next(t.Context(), "n", 1)
		if err != nil || n <= number {
			t.Errorf("%d came after %d (%v)", n, number, err)
		}
		number = n
		etags, err := s.Apply(t.Context(), []state.Op{{Key: "k", Value: []byte("v")}})
		if err != nil || etags[0] == etag {
			t.Errorf("the ETag %q came again (%v)", etag, err)
		}
		etag = etags[0]
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A second process is told who has the file. Another set of files stands for it: the lock is the file's, not the set's.
func TestSecondProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loam.db")
	openIn[*State](t, New(), "state.sqlite", "s", path)
	_, err := New().OpenState(t.Context(), "s", Config{Path: path, Sweep: time.Hour})
	if loam.CodeOf(err) != loam.FailedPrecondition || loam.HintOf(err) == "" {
		t.Errorf("%v (hint %q)", err, loam.HintOf(err))
	}
}

// Events past their retention go, whether anybody read them or not; younger ones stay.
func TestRetention(t *testing.T) {
	f := New()
	p, err := f.OpenPubsub(t.Context(), "p", Config{Path: filepath.Join(t.TempDir(), "loam.db"), Retention: time.Hour, Sweep: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	var events []loam.Event
	for range 1200 { // more than a sweep's batch
		events = append(events, loam.Event{ID: "old", Topic: "t", Time: time.Now().Add(-2 * time.Hour)})
	}
	events = append(events, loam.Event{ID: "young", Topic: "t", Time: time.Now()})
	if err := p.Publish(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	left := func() (n int) {
		if err := p.readers.QueryRow("SELECT count(*) FROM event").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for deadline := time.Now().Add(20 * time.Second); left() > 1; {
		if time.Now().After(deadline) {
			t.Fatalf("%d events are left, want the young one", left())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	if err := p.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g", InFlight: 1}, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
		got = append(got, d.Event.ID)
		cancel()
		return pubsub.Verdict{}
	}); err != nil || len(got) != 1 || got[0] != "young" {
		t.Errorf("%q, %v", got, err)
	}
}
