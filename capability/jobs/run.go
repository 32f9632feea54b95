package jobs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/loam-run/loam"
)

// How long a runner waits: after the component failed, and at most, since the wall clock can be put forward.
const (
	pause   = time.Second
	longest = time.Minute
)

// Run brings a program's jobs to handle when they are due, so many at once at most, until ctx ends; it returns when the last
// handle has. One owner, the program's name, has one Run at a time. An error of handle is a failed run, dealt with by the
// job's failure policy; one with Drop() true is never tried again. What was not answered when ctx ended comes again when
// somebody runs the owner's jobs next.
func (j *Jobs) Run(ctx context.Context, owner string, atOnce int, handle func(ctx context.Context, job Job) error) {
	r := runner{
		driver: j.driver, owner: j.owner(owner), handle: handle,
		slots: make(chan struct{}, max(1, atOnce)), under: map[string]bool{}, done: make(chan struct{}, 1),
	}
	defer r.running.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil { // a handle that was ended by it leaves its job due: it must not be begun again
		changed := j.driver.Changed() // before what is due is read, so that nothing is missed in between
		timer.Reset(min(longest, max(0, r.start(ctx))))
		select {
		case <-timer.C:
		case <-changed:
		case <-r.done:
		case <-ctx.Done():
			return
		}
	}
}

// A runner is one Run.
type runner struct {
	driver  Driver
	owner   string
	handle  func(ctx context.Context, job Job) error
	slots   chan struct{} // one for each handle that runs
	done    chan struct{} // holds one where a handle has returned since it was looked at
	running sync.WaitGroup

	mu    sync.Mutex
	under map[string]bool // names of jobs whose handle runs, or has returned since what is due was read last
	ended []string        // those whose handle has returned
}

// start begins what is due and tells how long there is nothing to do but to wait for changes.
func (r *runner) start(ctx context.Context) time.Duration {
	r.mu.Lock()
	for _, name := range r.ended {
		delete(r.under, name)
	}
	r.ended = r.ended[:0]
	r.mu.Unlock()
	due, err := r.driver.Due(ctx, r.owner, 2*cap(r.slots)) // half of which may be under way already
	if err != nil {
		return pause
	}
	now := time.Now()
	for _, record := range due {
		r.mu.Lock()
		under := r.under[record.Name]
		r.mu.Unlock()
		if under {
			continue
		}
		if record.Next.After(now) {
			return record.Next.Sub(now)
		}
		select {
		case r.slots <- struct{}{}:
		default:
			return longest // until one returns
		}
		r.mu.Lock()
		r.under[record.Name] = true
		r.mu.Unlock()
		r.running.Go(func() {
			r.bring(ctx, record)
			r.mu.Lock()
			r.ended = append(r.ended, record.Name)
			r.mu.Unlock()
			<-r.slots
			select {
			case r.done <- struct{}{}:
			default:
			}
		})
	}
	return longest
}

// bring hands one job to the program and keeps what became of it.
func (r *runner) bring(ctx context.Context, record Record) {
	err := r.handle(ctx, record.Job)
	if err != nil && ctx.Err() != nil {
		return // nobody knows whether the program failed
	}
	now := time.Now()
	var drop interface{ Drop() bool }
	next := record.done(now)
	if err != nil && (!errors.As(err, &drop) || !drop.Drop()) {
		next = record.failed(now)
	}
	// It is not due again before this is kept. At the end of ctx there is one more try: a job that is done should not come
	// again after a restart.
	for {
		keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		err := r.driver.Replace(keep, record, next)
		cancel()
		if err == nil || loam.CodeOf(err) == loam.Aborted || loam.CodeOf(err) == loam.NotFound {
			return // Aborted: it was scheduled anew or deleted meanwhile, which counts
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}
