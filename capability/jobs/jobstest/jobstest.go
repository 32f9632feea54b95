// Package jobstest is what every driver of the jobs capability must do. A component's own test calls Run.
package jobstest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/jobs"
)

// Run tests the drivers that open returns: each call one with no jobs.
func Run(t *testing.T, open func(t *testing.T) jobs.Driver) {
	t.Run("put and get", func(t *testing.T) { putAndGet(t, open(t)) })
	t.Run("list", func(t *testing.T) { list(t, open(t)) })
	t.Run("due", func(t *testing.T) { due(t, open(t)) })
	t.Run("replace", func(t *testing.T) { replace(t, open(t)) })
	t.Run("changed", func(t *testing.T) { changed(t, open(t)) })
	t.Run("one of many", func(t *testing.T) { oneOfMany(t, open(t)) })
	t.Run("run", func(t *testing.T) { run(t, open(t)) })
}

// at is a time that drivers must keep as it is.
func at(second int) time.Time { return time.Unix(2_000_000_000+int64(second), 123_456_789) }

func record(owner, name string, second int) jobs.Record {
	three := uint32(3)
	return jobs.Record{
		Job: jobs.Job{
			Name: name, Schedule: "@every 1h", Due: "PT1S", TTL: "24h", Repeats: &three, Data: []byte("\x00data\xff"), Type: "type.example/x",
			Failure: &jobs.FailurePolicy{Interval: time.Second, MaxRetries: &three},
		},
		Owner: owner, Created: at(0), Turn: at(second), Next: at(second), Expires: at(1_000_000), Runs: 2, Tries: 1,
	}
}

func put(t *testing.T, d jobs.Driver, r jobs.Record) jobs.Record {
	t.Helper()
	if err := d.Put(t.Context(), r, false); err != nil {
		t.Fatal(err)
	}
	got, err := d.Get(t.Context(), r.Owner, r.Name)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func wantCode(t *testing.T, what string, err error, code loam.Code) {
	t.Helper()
	if loam.CodeOf(err) != code {
		t.Errorf("%s: %v, want %v", what, err, code)
	}
}

func putAndGet(t *testing.T, d jobs.Driver) {
	ctx := t.Context()
	_, err := d.Get(ctx, "app", "a")
	wantCode(t, "get what is not there", err, loam.NotFound)
	want := record("app", "a", 1)
	got := put(t, d, want)
	if got.Version == "" || got.Name != "a" || got.Owner != "app" || got.Schedule != want.Schedule || got.Due != want.Due || got.TTL != want.TTL ||
		*got.Repeats != 3 || string(got.Data) != string(want.Data) || got.Type != want.Type || got.Failure.Interval != time.Second ||
		*got.Failure.MaxRetries != 3 || got.Runs != 2 || got.Tries != 1 {
		t.Errorf("%+v", got)
	}
	for what, times := range map[string][2]time.Time{
		"created": {got.Created, want.Created}, "turn": {got.Turn, want.Turn}, "next": {got.Next, want.Next}, "expires": {got.Expires, want.Expires},
	} {
		if !times[0].Equal(times[1]) {
			t.Errorf("%s: %s, want %s", what, times[0], times[1])
		}
	}
	wantCode(t, "put again", d.Put(ctx, want, false), loam.AlreadyExists)
	want.Data = []byte("new")
	want.Next = at(5)
	wantCode(t, "overwrite", d.Put(ctx, want, true), loam.OK)
	again, err := d.Get(ctx, "app", "a")
	if err != nil || string(again.Data) != "new" || again.Version == got.Version || !again.Next.Equal(at(5)) {
		t.Errorf("%+v, %v", again, err)
	}
	_, err = d.Get(ctx, "other", "a")
	wantCode(t, "another's", err, loam.NotFound)
	put(t, d, record("other", "a", 1))
	plain := put(t, d, jobs.Record{Job: jobs.Job{Name: "plain", Due: "1s"}, Owner: "app", Next: at(1)})
	if plain.Repeats != nil || plain.Failure != nil || len(plain.Data) > 0 || !plain.Expires.IsZero() {
		t.Errorf("%+v", plain)
	}
}

func names(records []jobs.Record) (names []string) {
	for _, r := range records {
		names = append(names, r.Name)
	}
	return names
}

func list(t *testing.T, d jobs.Driver) {
	for _, n := range []string{"b", "a", "ab", "a/1", "z ü", "c"} {
		put(t, d, record("app", n, 1))
	}
	put(t, d, record("app2", "x", 1))
	put(t, d, record("ap", "y", 1))
	put(t, d, record("app\x01space", "z", 1))
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"", "", 100, []string{"a", "a/1", "ab", "b", "c", "z ü"}}, {"a", "", 100, []string{"a", "a/1", "ab"}}, {"a", "a", 100, []string{"a/1", "ab"}},
		{"", "", 2, []string{"a", "a/1"}}, {"", "b", 1, []string{"c"}}, {"nosuch", "", 100, nil}, {"", "zz", 100, nil},
	} {
		got, err := d.List(t.Context(), "app", c.prefix, c.after, c.limit)
		if err != nil || !slices.Equal(names(got), c.want) {
			t.Errorf("%+v: %q, %v", c, names(got), err)
		}
	}
}

func due(t *testing.T, d jobs.Driver) {
	ctx := t.Context()
	for name, second := range map[string]int{"a": 30, "b": 10, "c": 20, "d": 100, "e": -3_000_000_000} { // before 1970, too
		put(t, d, record("app", name, second))
	}
	put(t, d, record("app2", "x", 1))
	put(t, d, record("app\x01space", "y", 1))
	want := func(limit int, want ...string) {
		t.Helper()
		got, err := d.Due(ctx, "app", limit)
		if err != nil || !slices.Equal(names(got), want) {
			t.Errorf("due: %q, %v; want %q", names(got), err, want)
		}
	}
	want(100, "e", "b", "c", "a", "d")
	want(2, "e", "b")
	b, err := d.Get(ctx, "app", "b")
	if err != nil {
		t.Fatal(err)
	}
	next := b
	next.Next = at(50)
	wantCode(t, "put off", d.Replace(ctx, b, &next), loam.OK)
	want(100, "e", "c", "a", "b", "d")
	moved := record("app", "a", 5)
	wantCode(t, "overwrite", d.Put(ctx, moved, true), loam.OK)
	want(100, "e", "a", "c", "b", "d")
	c, err := d.Get(ctx, "app", "c")
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "delete", d.Replace(ctx, c, nil), loam.OK)
	want(100, "e", "a", "b", "d")
	got, err := d.Due(ctx, "nobody", 10)
	if err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func replace(t *testing.T, d jobs.Driver) {
	ctx := t.Context()
	old := put(t, d, record("app", "a", 1))
	next := old
	next.Runs++
	wantCode(t, "replace", d.Replace(ctx, old, &next), loam.OK)
	wantCode(t, "replace what was replaced", d.Replace(ctx, old, &next), loam.Aborted)
	wantCode(t, "delete what was replaced", d.Replace(ctx, old, nil), loam.Aborted)
	now, err := d.Get(ctx, "app", "a")
	if err != nil || now.Runs != 3 {
		t.Fatalf("%+v, %v", now, err)
	}
	wantCode(t, "delete", d.Replace(ctx, now, nil), loam.OK)
	_, err = d.Get(ctx, "app", "a")
	wantCode(t, "get", err, loam.NotFound)
	wantCode(t, "replace what was deleted", d.Replace(ctx, now, &next), loam.Aborted)
	put(t, d, record("app", "a", 1))
	wantCode(t, "delete what came anew", d.Replace(ctx, now, nil), loam.Aborted)
}

func changed(t *testing.T, d jobs.Driver) {
	tell := func(what string, change func()) {
		t.Helper()
		c := d.Changed()
		select {
		case <-c:
			t.Errorf("changed before %s", what)
		default:
		}
		change()
		select {
		case <-c:
		case <-time.After(10 * time.Second):
			t.Errorf("not changed by %s", what)
		}
	}
	var r jobs.Record
	tell("put", func() { r = put(t, d, record("app", "a", 1)) })
	tell("overwrite", func() {
		if err := d.Put(t.Context(), r, true); err != nil {
			t.Error(err)
		}
	})
	tell("delete", func() {
		r, err := d.Get(t.Context(), "app", "a")
		if err == nil {
			err = d.Replace(t.Context(), r, nil)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

func oneOfMany(t *testing.T, d jobs.Driver) {
	var made, replaced atomic.Int64
	var working sync.WaitGroup
	for range 16 {
		working.Go(func() {
			switch err := d.Put(t.Context(), record("app", "a", 1), false); loam.CodeOf(err) {
			case loam.OK:
				made.Add(1)
			case loam.AlreadyExists:
			default:
				t.Error(err)
			}
		})
	}
	working.Wait()
	old, err := d.Get(t.Context(), "app", "a")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 16 {
		working.Go(func() {
			next := old
			next.Next = at(i + 100)
			switch err := d.Replace(t.Context(), old, &next); loam.CodeOf(err) {
			case loam.OK:
				replaced.Add(1)
			case loam.Aborted:
			default:
				t.Error(err)
			}
		})
	}
	working.Wait()
	if due, err := d.Due(t.Context(), "app", 10); made.Load() != 1 || replaced.Load() != 1 || err != nil || len(due) != 1 {
		t.Errorf("made %d times, replaced %d times, due %d times, %v", made.Load(), replaced.Load(), len(due), err)
	}
}

// run has many jobs brought, each once, by the capability's runner.
func run(t *testing.T, d jobs.Driver) {
	const n = 100
	j := jobs.New("test", d)
	caller := &loam.Caller{Name: "app", Grants: []loam.Grant{{Capability: "jobs", Component: "test"}}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	got := map[string]int{}
	var ran sync.WaitGroup
	defer ran.Wait()
	ran.Go(func() {
		j.Run(ctx, "app", 4, func(_ context.Context, job jobs.Job) error {
			mu.Lock()
			defer mu.Unlock()
			if got[job.Name]++; string(job.Data) != job.Name {
				t.Errorf("%s comes with %q", job.Name, job.Data)
			}
			return nil
		})
	})
	for i := range n {
		name := fmt.Sprint("job", i)
		if err := j.Schedule(ctx, caller, jobs.Job{Name: name, Due: "1ms", Data: []byte(name)}, false); err != nil {
			t.Fatal(err)
		}
	}
	for left := n; left > 0; {
		changed := d.Changed()
		jobs, err := j.List(ctx, caller, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if left = len(jobs); left == 0 {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%d jobs are left", left)
		}
	}
	cancel()
	ran.Wait()
	for name, times := range got {
		if times != 1 {
			t.Errorf("%s came %d times", name, times)
		}
	}
	if len(got) != n {
		t.Errorf("%d of %d jobs came", len(got), n)
	}
}
