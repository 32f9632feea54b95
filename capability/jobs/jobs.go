// Package jobs is the jobs capability: data that comes back to the program at a time, once or again and again, kept until
// then. Jobs holds what is the same for every component (schedules, bounds, grants, retries, the runner), a Driver what is
// not.
//
// A job comes at least once for each time it is due: after a crash it comes again. Times that passed while nobody ran jobs
// are made good by one run, not by one each.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/loam-run/loam"
)

// Bounds of a job.
const (
	MaxName = 512     // bytes
	MaxData = 4 << 20 // bytes
	MaxPage = 1000    // jobs of a list
)

// What a job that sets no FailurePolicy has, as in Dapr.
const (
	DefaultInterval = time.Second
	DefaultRetries  = 3
	minInterval     = 10 * time.Millisecond // so that what fails at once does not keep a core busy
)

// A Job is what a program asks for.
type Job struct {
	Name string
	// Schedule is when it is due: six fields of cron with seconds first, five without, or @every 1h30m, @hourly, @daily,
	// @weekly, @monthly, @yearly. Empty: once, at Due.
	Schedule string
	// Due is when it is due first: a time of RFC 3339, or from now on a duration of Go (90s) or ISO 8601 (PT90S). Empty: when
	// Schedule says.
	Due     string
	TTL     string  // when it is over, written as Due; empty: never
	Repeats *uint32 // how often it comes in all; nil: as often as Schedule says
	Failure *FailurePolicy
	Data    []byte
	Type    string // what Data is, such as the type URL of Dapr's Any; the capability does not read it
}

// A FailurePolicy says what happens when the program fails a job.
type FailurePolicy struct {
	Drop       bool          // nothing: it comes at its next time
	Interval   time.Duration // else it comes again after that long,
	MaxRetries *uint32       // so often at most; nil: until it succeeds
}

// Jobs is one component's jobs.
type Jobs struct {
	name   string
	space  string
	driver Driver
}

// New makes the Jobs of the component called name.
func New(name string, d Driver) *Jobs { return &Jobs{name: name, driver: d} }

// In is the same component with another set of jobs in it, apart from all others: a delayed message is not found among a
// program's jobs. space takes letters.
func (j *Jobs) In(space string) *Jobs { return &Jobs{j.name, space, j.driver} }

// Schedule keeps a job of the caller's. AlreadyExists: there is one of that name, and overwrite is false.
func (j *Jobs) Schedule(ctx context.Context, caller *loam.Caller, job Job, overwrite bool) error {
	op, err := j.check("jobs.Schedule", caller, job.Name, true)
	if err != nil {
		return err
	}
	r, err := newRecord(job, time.Now())
	if err != nil {
		return &loam.Error{Code: loam.InvalidArgument, Op: op, Err: err}
	}
	r.Owner = j.owner(caller.Name)
	return wrap(op, j.driver.Put(ctx, r, overwrite))
}

// Get returns a job as it was scheduled, with the repeats that are left.
func (j *Jobs) Get(ctx context.Context, caller *loam.Caller, name string) (Job, error) {
	op, err := j.check("jobs.Get", caller, name, false)
	if err != nil {
		return Job{}, err
	}
	r, err := j.driver.Get(ctx, j.owner(caller.Name), name)
	return r.Job, wrap(op, err)
}

// Delete forgets a job. NotFound: there is none.
func (j *Jobs) Delete(ctx context.Context, caller *loam.Caller, name string) error {
	op, err := j.check("jobs.Delete", caller, name, true)
	if err != nil {
		return err
	}
	for {
		r, err := j.driver.Get(ctx, j.owner(caller.Name), name)
		if err != nil {
			return wrap(op, err)
		}
		if err = j.driver.Replace(ctx, r, nil); loam.CodeOf(err) != loam.Aborted {
			return wrap(op, err)
		}
	}
}

// DeletePrefix forgets the caller's jobs whose name begins with prefix, all of them where it is empty.
func (j *Jobs) DeletePrefix(ctx context.Context, caller *loam.Caller, prefix string) error {
	op := "jobs.DeletePrefix " + strconv.Quote(prefix)
	if len(prefix) > MaxName {
		return loam.Errorf(loam.InvalidArgument, op, "a name takes at most %d bytes", MaxName)
	}
	if err := caller.Check("jobs", j.name, prefix+"*", true); err != nil { // no grant of one name alone matches that
		return err
	}
	after := ""
	for {
		page, err := j.driver.List(ctx, j.owner(caller.Name), prefix, after, MaxPage)
		if err != nil {
			return wrap(op, err)
		}
		for i := range page {
			if err := j.Delete(ctx, caller, page[i].Name); err != nil && loam.CodeOf(err) != loam.NotFound {
				return err
			}
			after = page[i].Name
		}
		if len(page) < MaxPage {
			return nil
		}
	}
}

// List returns up to MaxPage of the caller's jobs whose name begins with prefix and is greater than after, in byte order.
func (j *Jobs) List(ctx context.Context, caller *loam.Caller, prefix, after string) ([]Job, error) {
	op := "jobs.List " + strconv.Quote(prefix)
	if len(prefix) > MaxName || len(after) > MaxName {
		return nil, loam.Errorf(loam.InvalidArgument, op, "a name takes at most %d bytes", MaxName)
	}
	if err := caller.Check("jobs", j.name, prefix+"*", false); err != nil {
		return nil, err
	}
	page, err := j.driver.List(ctx, j.owner(caller.Name), prefix, after, MaxPage)
	jobs := make([]Job, len(page))
	for i := range page {
		jobs[i] = page[i].Job
	}
	return jobs, wrap(op, err)
}

func (j *Jobs) owner(caller string) string {
	if j.space == "" {
		return caller
	}
	return caller + "\x01" + j.space // no name has that in it
}

func (j *Jobs) check(method string, caller *loam.Caller, name string, write bool) (op string, err error) {
	op = method + " " + strconv.Quote(name)
	if err := checkName(name); err != nil {
		return op, &loam.Error{Code: loam.InvalidArgument, Op: op, Err: err}
	}
	return op, caller.Check("jobs", j.name, name, write)
}

func checkName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("a name takes 1 to %d bytes", MaxName)
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] == 0x7f {
			return errors.New("a name has no control characters")
		}
	}
	return nil
}

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &loam.Error{Code: loam.CodeOf(err), Op: op, Err: err, Hint: loam.HintOf(err)}
}
