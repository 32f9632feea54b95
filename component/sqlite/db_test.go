package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/state"
)

// busy makes somebody the writer, who stays it until let go.
func busy(t *testing.T, d *db) (letGo func()) {
	t.Helper()
	entered, leave, left := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		left <- d.write(context.Background(), func(*db) error {
			close(entered)
			<-leave
			return nil
		})
	}()
	<-entered
	return sync.OnceFunc(func() {
		close(leave)
		if err := <-left; err != nil {
			t.Error(err)
		}
	})
}

// inLine waits until n writes wait for their turn.
func inLine(t *testing.T, d *db, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		d.mu.Lock()
		waiting := len(d.waiting)
		d.mu.Unlock()
		if waiting == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d writes wait, not %d", waiting, n)
		}
	}
}

// What waits while somebody writes is committed together; in it, what is refused fails alone, and what breaks fails
// alone too, though it takes the group's first try with it.
func TestGroup(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "loam.db"))
	defer closed(t, s)
	const n = 50
	for _, bad := range []struct {
		err    error
		groups int // in which a good write is tried
		code   loam.Code
	}{
		{nil, 1, loam.OK},
		{loam.Errorf(loam.Aborted, "test", "refused"), 1, loam.Aborted},
		{errors.New("broken"), 2, loam.Unavailable},
	} {
		letGo := busy(t, s.db)
		tries, sizes, errs := make([]int, n), make([]int, n), make([]error, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				errs[i] = s.write(t.Context(), func(d *db) error {
					tries[i]++
					sizes[i] = max(sizes[i], len(d.group))
					if i == n/2 {
						return bad.err
					}
					return d.exec("INSERT INTO state (space, key, value, etag, expires) VALUES (?, ?, ?, 1, 0) ON CONFLICT DO NOTHING", s.id, fmt.Sprintf("%v %d", bad.err, i), "v")
				})
			})
		}
		inLine(t, s.db, n)
		letGo()
		all.Wait()
		for i := range n {
			want := loam.OK
			if i == n/2 {
				want = bad.code
			}
			if loam.CodeOf(errs[i]) != want || sizes[i] != n || tries[i] > bad.groups {
				t.Errorf("with %v in the group: write %d of a group of %d was tried %d times: %v", bad.err, i, sizes[i], tries[i], errs[i])
			}
			if i == n/2 {
				continue
			}
			if items, err := s.Get(t.Context(), []string{fmt.Sprintf("%v %d", bad.err, i)}); err != nil || items[0].ETag == "" {
				t.Errorf("with %v in the group: write %d was acknowledged and is not there (%v)", bad.err, i, err)
			}
		}
	}
}

// Who gives up before the writer came to him has changed nothing, and holds nobody up.
func TestGiveUp(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "loam.db"))
	defer closed(t, s)
	letGo := busy(t, s.db)
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 20 {
		ctx, want := ctx, loam.Canceled
		if i%2 == 0 {
			ctx, want = t.Context(), loam.OK
		}
		all.Go(func() {
			_, err := s.Apply(ctx, []state.Op{{Key: fmt.Sprint(i)}})
			if loam.CodeOf(err) != want {
				t.Errorf("write %d: %v, want %s", i, err, want)
			}
		})
	}
	inLine(t, s.db, 20)
	cancel()
	inLine(t, s.db, 10)
	letGo()
	all.Wait()
	for i := range 20 {
		items, err := s.Get(t.Context(), []string{fmt.Sprint(i)})
		if err != nil || (items[0].ETag != "") != (i%2 == 0) {
			t.Errorf("write %d: %+v, %v", i, items, err)
		}
	}
	if len(s.slots) != 0 {
		t.Errorf("%d places in line are lost", len(s.slots))
	}
}

// A full line holds up, and lets go of who gives up.
func TestFullLine(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "loam.db"))
	defer closed(t, s)
	for range queueLength {
		s.slots <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Apply(ctx, []state.Op{{Key: "k"}}); loam.CodeOf(err) != loam.DeadlineExceeded {
		t.Errorf("%v", err)
	}
	for range queueLength {
		<-s.slots
	}
}

// Closing does what was handed in, and refuses what comes after.
func TestCloseWhileBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loam.db")
	s := opened(t, path)
	letGo := busy(t, s.db)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if _, err := s.Apply(t.Context(), []state.Op{{Key: fmt.Sprint(i)}}); err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	inLine(t, s.db, 20)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		closed(t, s)
	}()
	<-s.stop
	if _, err := s.Apply(t.Context(), []state.Op{{Key: "late"}}); loam.CodeOf(err) != loam.Unavailable {
		t.Errorf("a write after the end: %v", err)
	}
	letGo()
	all.Wait()
	<-ended
	s = opened(t, path)
	defer closed(t, s)
	for i := range 20 {
		if items, err := s.Get(t.Context(), []string{fmt.Sprint(i)}); err != nil || items[0].ETag == "" {
			t.Errorf("write %d is not there: %v", i, err)
		}
	}
}

// count is how many rows a table has.
func count(t *testing.T, d *db, table string) (n int) {
	t.Helper()
	if err := d.readers.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// What has expired goes, more than one batch of it, by the clock of the set.
func TestSweep(t *testing.T) {
	f, ctx := New(), t.Context()
	var mu sync.Mutex
	ahead := time.Duration(0)
	f.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(ahead)
	}
	config := Config{Path: filepath.Join(t.TempDir(), "loam.db"), Retention: time.Hour, Sweep: 100 * time.Millisecond}
	s, err := f.OpenState(ctx, "s", config)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, s)
	l, err := f.OpenLock(ctx, "l", config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	for batch := range 3 {
		var ops []state.Op
		for i := range 500 {
			ops = append(ops, state.Op{Key: fmt.Sprint(batch, i), TTL: time.Minute})
		}
		if _, err := s.Apply(ctx, append(ops, state.Op{Key: fmt.Sprint("stays", batch), TTL: time.Hour}, state.Op{Key: fmt.Sprint("stays too", batch)})); err != nil {
			t.Fatal(err)
		}
	}
	for owner, ttl := range map[string]time.Duration{"short": time.Minute, "long": time.Hour} {
		if ok, err := l.TryLock(ctx, owner, owner, ttl); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	if n := count(t, s.db, "state"); n != 1506 {
		t.Fatalf("%d items", n)
	}
	mu.Lock()
	ahead = 2 * time.Minute
	mu.Unlock()
	for deadline := time.Now().Add(20 * time.Second); count(t, s.db, "state") != 6 || count(t, s.db, "lease") != 1; {
		if time.Now().After(deadline) {
			t.Fatalf("%d items and %d leases are left", count(t, s.db, "state"), count(t, s.db, "lease"))
		}
	}
}
