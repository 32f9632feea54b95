package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/component/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) jobs.Driver {
	t.Helper()
	d, err := memory.New().OpenJobs(t.Context(), "jobs", memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func app(grants ...loam.Grant) *loam.Caller {
	if len(grants) == 0 {
		grants = []loam.Grant{{Capability: "jobs", Component: "jobs"}}
	}
	return &loam.Caller{Name: "app", Grants: grants}
}

func ptr[T any](v T) *T { return &v }

var errApp = errors.New("the program failed")

type dropped struct{}

func (dropped) Error() string { return "dropped" }
func (dropped) Drop() bool    { return true }

// When a job comes, in seconds from when it was scheduled, by what the program answers each time.
func TestRun(t *testing.T) {
	const d = -1 // an answer: drop
	for what, c := range map[string]struct {
		job     jobs.Job
		answers []int // 1: fail; 0, and past the end: succeed
		want    []float64
	}{
		"once":                        {jobs.Job{Due: "5s"}, nil, []float64{5}},
		"at once":                     {jobs.Job{Due: "2000-01-01T00:00:00Z"}, nil, []float64{0}},
		"again and again":             {jobs.Job{Schedule: "@every 30s"}, nil, []float64{30, 60, 90}},
		"first when due":              {jobs.Job{Schedule: "@every 30s", Due: "5s"}, nil, []float64{5, 35, 65, 95}},
		"so often":                    {jobs.Job{Schedule: "@every 10s", Repeats: ptr(uint32(3))}, nil, []float64{10, 20, 30}},
		"so long":                     {jobs.Job{Schedule: "@every 10s", TTL: "45s"}, nil, []float64{10, 20, 30, 40}},
		"until it succeeds":           {jobs.Job{Due: "5s"}, []int{1, 1}, []float64{5, 6, 7}},
		"three more times":            {jobs.Job{Due: "5s"}, []int{1, 1, 1, 1, 1}, []float64{5, 6, 7, 8}},
		"dropped by policy":           {jobs.Job{Schedule: "@every 30s", Failure: &jobs.FailurePolicy{Drop: true}}, []int{1, 0, 1}, []float64{30, 60, 90}},
		"dropped by the program":      {jobs.Job{Schedule: "@every 30s"}, []int{d}, []float64{30, 60, 90}},
		"its own policy":              {jobs.Job{Schedule: "@every 50s", Failure: &jobs.FailurePolicy{Interval: 7 * time.Second, MaxRetries: ptr(uint32(2))}}, []int{1, 1, 1, 1}, []float64{50, 57, 64, 100, 107}},
		"a failed run counts as one":  {jobs.Job{Schedule: "@every 10s", Repeats: ptr(uint32(2)), Failure: &jobs.FailurePolicy{Drop: true}}, []int{1}, []float64{10, 20}},
		"for ever":                    {jobs.Job{Due: "100s", Failure: &jobs.FailurePolicy{Interval: 4 * time.Second}}, []int{1, 1, 1, 1, 1, 1, 1, 1}, []float64{100, 104, 108}},
		"retries that pass its turns": {jobs.Job{Schedule: "@every 10s", Repeats: ptr(uint32(2)), Failure: &jobs.FailurePolicy{Interval: 25 * time.Second}}, []int{1}, []float64{10, 35, 40}},
	} {
		synctest.Test(t, func(t *testing.T) {
			j := jobs.New("jobs", open(t))
			ctx, cancel := context.WithTimeout(t.Context(), 109*time.Second)
			defer cancel()
			start := time.Now()
			c.job.Name = "job"
			if err := j.Schedule(ctx, app(), c.job, false); err != nil {
				t.Fatal(err)
			}
			var got []float64
			j.Run(ctx, "app", 1, func(_ context.Context, job jobs.Job) error {
				got = append(got, time.Since(start).Seconds())
				if n := len(got) - 1; n < len(c.answers) && c.answers[n] == 1 {
					return errApp
				} else if n < len(c.answers) && c.answers[n] == d {
					return fmt.Errorf("wrapped: %w", dropped{})
				}
				return nil
			})
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", what, got, c.want)
			}
		})
	}
}

// run runs jobs in the background until the func returned is called, which tells what came: names in order.
func run(t *testing.T, j *jobs.Jobs, atOnce int, handle func(ctx context.Context, job jobs.Job) error) (stop func() []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var came []string
	var running sync.WaitGroup
	running.Go(func() {
		j.Run(ctx, "app", atOnce, func(ctx context.Context, job jobs.Job) error {
			mu.Lock()
			came = append(came, job.Name)
			mu.Unlock()
			return handle(ctx, job)
		})
	})
	return func() []string {
		cancel()
		running.Wait()
		return came
	}
}

func schedule(t *testing.T, j *jobs.Jobs, job jobs.Job, overwrite bool) {
	t.Helper()
	if err := j.Schedule(t.Context(), app(), job, overwrite); err != nil {
		t.Error(err)
	}
}

func left(t *testing.T, j *jobs.Jobs) (names []string) {
	t.Helper()
	list, err := j.List(t.Context(), app(), "", "")
	if err != nil {
		t.Error(err)
	}
	for _, job := range list {
		names = append(names, job.Name)
	}
	return names
}

// A job that runs when the runner ends comes again where it did not answer, and not where it did.
func TestEndOfRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := jobs.New("jobs", open(t))
		schedule(t, j, jobs.Job{Name: "answers", Due: "1s"}, false)
		schedule(t, j, jobs.Job{Name: "gives up", Due: "1s"}, false)
		stop := run(t, j, 2, func(ctx context.Context, job jobs.Job) error {
			<-ctx.Done()
			if job.Name == "answers" {
				return nil
			}
			return ctx.Err()
		})
		<-time.After(2 * time.Second)
		if came := stop(); len(came) != 2 {
			t.Fatal(came)
		}
		if names := left(t, j); !slices.Equal(names, []string{"gives up"}) {
			t.Errorf("%q are left", names)
		}
		stop = run(t, j, 2, func(context.Context, jobs.Job) error { return nil })
		synctest.Wait()
		if came := stop(); !slices.Equal(came, []string{"gives up"}) || len(left(t, j)) > 0 {
			t.Errorf("%q came, %q are left", came, left(t, j))
		}
	})
}

// What passed while nobody ran jobs is made good once.
func TestMissedTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := jobs.New("jobs", open(t))
		schedule(t, j, jobs.Job{Name: "often", Schedule: "@every 10s"}, false)
		schedule(t, j, jobs.Job{Name: "once", Due: "1s"}, false)
		<-time.After(time.Hour + 5*time.Second)
		stop := run(t, j, 1, func(context.Context, jobs.Job) error { return nil })
		<-time.After(6 * time.Second)
		if came := stop(); !slices.Equal(came, []string{"once", "often", "often"}) {
			t.Errorf("%q came", came)
		}
	})
}

func TestWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := jobs.New("jobs", open(t))
		for _, name := range []string{"deleted", "replaced"} {
			schedule(t, j, jobs.Job{Name: name, Schedule: "@every 10s"}, false)
		}
		answer := make(chan error)
		stop := run(t, j, 2, func(context.Context, jobs.Job) error { return <-answer })
		<-time.After(10 * time.Second)
		synctest.Wait() // both have come
		if err := j.Delete(t.Context(), app(), "deleted"); err != nil {
			t.Error(err)
		}
		schedule(t, j, jobs.Job{Name: "replaced", Due: "100s"}, true)
		answer <- nil
		answer <- errApp // neither changes what was asked for meanwhile
		<-time.After(99 * time.Second)
		if names := left(t, j); !slices.Equal(names, []string{"replaced"}) {
			t.Errorf("%q are left", names)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		answer <- nil
		synctest.Wait()
		if came := stop(); len(came) != 3 || came[2] != "replaced" || len(left(t, j)) > 0 {
			t.Errorf("%q came, %q are left", came, left(t, j))
		}
	})
}

// So many at once and no more; who waits comes when one is done, the longest due first. A job never runs twice at once.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := jobs.New("jobs", open(t))
		for i := range 6 {
			schedule(t, j, jobs.Job{Name: fmt.Sprint(i), Due: fmt.Sprintf("%ds", i+1)}, false)
		}
		schedule(t, j, jobs.Job{Name: "long", Schedule: "@every 1s"}, false)
		var mu sync.Mutex
		under, most := map[string]bool{}, 0
		stop := run(t, j, 3, func(_ context.Context, job jobs.Job) error {
			mu.Lock()
			if under[job.Name] {
				t.Errorf("%s runs twice", job.Name)
			}
			under[job.Name] = true
			most = max(most, len(under))
			mu.Unlock()
			<-time.After(20 * time.Second)
			mu.Lock()
			delete(under, job.Name)
			mu.Unlock()
			return nil
		})
		<-time.After(50 * time.Second)
		came := stop()
		if most != 3 || len(came) != 8 {
			t.Errorf("%d at once, %q came", most, came)
		}
		for i := range 6 {
			if !slices.Contains(came, fmt.Sprint(i)) {
				t.Errorf("%d did not come: %q", i, came)
			}
		}
	})
}

// flaky fails while it is told to.
type flaky struct {
	jobs.Driver
	mu           sync.Mutex
	due, replace bool
}

func (f *flaky) set(due, replace bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.due, f.replace = due, replace
}

func (f *flaky) Due(ctx context.Context, owner string, limit int) ([]jobs.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.due {
		return nil, loam.Errorf(loam.Unavailable, "", "the store is gone")
	}
	return f.Driver.Due(ctx, owner, limit)
}

func (f *flaky) Replace(ctx context.Context, old jobs.Record, next *jobs.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.replace {
		return loam.Errorf(loam.Unavailable, "", "the store is gone")
	}
	return f.Driver.Replace(ctx, old, next)
}

// While the component fails, jobs wait; one that is done does not come again because that could not be kept at once.
func TestComponentFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flaky{Driver: open(t)}
		j := jobs.New("jobs", f)
		schedule(t, j, jobs.Job{Name: "a", Due: "10s"}, false)
		f.set(true, true)
		stop := run(t, j, 4, func(context.Context, jobs.Job) error { return nil })
		<-time.After(time.Minute)
		f.set(false, true)
		<-time.After(time.Minute)
		f.set(false, false)
		<-time.After(time.Minute)
		if came := stop(); !slices.Equal(came, []string{"a"}) || len(left(t, j)) > 0 {
			t.Errorf("%q came, %q are left", came, left(t, j))
		}
	})
}

func TestGrantsAndBounds(t *testing.T) {
	ctx, j := t.Context(), jobs.New("jobs", open(t))
	some := app(loam.Grant{Capability: "jobs", Component: "jobs", Names: []string{"a", "orders/*"}})
	reads := app(loam.Grant{Capability: "jobs", Component: "jobs", ReadOnly: true})
	for what, c := range map[string]struct {
		caller *loam.Caller
		name   string
		want   loam.Code
	}{
		"granted": {some, "orders/1", loam.OK}, "not granted": {some, "b", loam.PermissionDenied}, "nobody": {nil, "a", loam.PermissionDenied},
		"only to read": {reads, "a", loam.PermissionDenied}, "no name": {app(), "", loam.InvalidArgument},
		"a NUL": {app(), "a\x00b", loam.InvalidArgument}, "a long name": {app(), string(make([]byte, jobs.MaxName+1)), loam.InvalidArgument},
	} {
		if err := j.Schedule(ctx, c.caller, jobs.Job{Name: c.name, Due: "1h"}, false); loam.CodeOf(err) != c.want {
			t.Errorf("schedule, %s: %v", what, err)
		}
		if err := j.Delete(ctx, c.caller, c.name); loam.CodeOf(err) != c.want {
			t.Errorf("delete, %s: %v", what, err)
		}
		if _, err := j.Get(ctx, c.caller, c.name); c.want != loam.OK && c.caller != reads && loam.CodeOf(err) != c.want {
			t.Errorf("get, %s: %v", what, err)
		}
	}
	if err := j.Schedule(ctx, app(), jobs.Job{Name: "x", Schedule: "never"}, false); loam.CodeOf(err) != loam.InvalidArgument {
		t.Error(err)
	}
	for _, name := range []string{"a", "orders/1", "orders/2", "z"} {
		schedule(t, j, jobs.Job{Name: name, Due: "1h"}, false)
	}
	if err := j.Schedule(ctx, app(), jobs.Job{Name: "a", Due: "1h"}, false); loam.CodeOf(err) != loam.AlreadyExists {
		t.Error(err)
	}
	if _, err := j.List(ctx, some, "", ""); loam.CodeOf(err) != loam.PermissionDenied {
		t.Error(err)
	}
	if got, err := j.List(ctx, some, "orders/", "orders/1"); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if err := j.DeletePrefix(ctx, some, ""); loam.CodeOf(err) != loam.PermissionDenied {
		t.Error(err)
	}
	if err := j.DeletePrefix(ctx, some, "orders/"); err != nil || !slices.Equal(left(t, j), []string{"a", "z"}) {
		t.Errorf("%v, %q are left", err, left(t, j))
	}
	other := *app()
	other.Name = "other"
	if err := j.Delete(ctx, &other, "a"); loam.CodeOf(err) != loam.NotFound {
		t.Errorf("another's: %v", err)
	}
	apart := j.In("delayed")
	if err := apart.DeletePrefix(ctx, app(), ""); err != nil || len(left(t, j)) != 2 {
		t.Errorf("%v, %q are left", err, left(t, j))
	}
	schedule(t, apart, jobs.Job{Name: "a", Due: "1h"}, false)
	if err := j.DeletePrefix(ctx, app(), ""); err != nil || len(left(t, j)) > 0 || len(left(t, apart)) != 1 {
		t.Errorf("%v, %q and %q are left", err, left(t, j), left(t, apart))
	}
}
