package policy

import (
	"container/list"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
)

// BulkheadConfig bounds requests at once. Zero fields take the default beside them.
type BulkheadConfig struct {
	Concurrency int           // requests at once; 100
	Queue       int           // requests that may wait for a place, first come first served; 0: none
	Wait        time.Duration // that they wait at most; 0: as long as they have
	Told        Told
}

// A Bulkhead lets so many requests at a target at once, so that one that is slow cannot take all there is. A request
// holds its place until its answer's body was sent. Who finds no place is answered Unavailable. All ways to the target
// share one.
type Bulkhead struct {
	c       BulkheadConfig
	err     error
	held    atomic.Int64
	waiting atomic.Int64

	mu    sync.Mutex // guards queue; never held while waiting
	queue list.List  // of *waiter
}

type waiter struct {
	task  loam.Task
	given bool
}

// NewBulkhead makes a bulkhead whose places are free.
func NewBulkhead(c BulkheadConfig) *Bulkhead {
	if c.Concurrency == 0 {
		c.Concurrency = 100
	}
	return &Bulkhead{c: c, err: refusal(loam.Unavailable, "bulkhead", "as many requests are at the target as may be", "see why it is slow, or raise bulkhead.concurrency")}
}

// Held is how many places are taken.
func (b *Bulkhead) Held() int { return int(b.held.Load()) }

// Policy puts the bulkhead before a target.
func (b *Bulkhead) Policy() loam.Policy {
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if b.waiting.Load() > 0 || !b.take() {
				if err := b.wait(req); err != nil {
					return nil, err
				}
			}
			req.AtEnd(b) // whatever becomes of it
			return next.Serve(req)
		})
	}
}

// RequestEnded frees a place.
func (b *Bulkhead) RequestEnded() {
	b.held.Add(-1)
	if b.waiting.Load() > 0 {
		b.give()
	}
}

// take takes a place if one is free.
func (b *Bulkhead) take() bool {
	for {
		n := b.held.Load()
		if n >= int64(b.c.Concurrency) {
			return false
		}
		if b.held.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// give hands free places to those who wait longest.
func (b *Bulkhead) give() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.queue.Len() > 0 && b.take() {
		w := b.queue.Remove(b.queue.Front()).(*waiter)
		b.waiting.Add(-1)
		w.given = true
		w.task.Wake()
	}
}

// wait queues for a place. It is nil once the request has one.
func (b *Bulkhead) wait(req *loam.Request) error {
	task := req.Task()
	deadline := req.Deadline()
	if b.c.Wait > 0 {
		if d := task.Now().Add(b.c.Wait); deadline.IsZero() || d.Before(deadline) {
			deadline = d
		}
	}
	w := &waiter{task: task}
	b.mu.Lock()
	if b.queue.Len() >= b.c.Queue {
		b.mu.Unlock()
		b.c.Told.of(req, BulkheadRefused)
		return b.err
	}
	at := b.queue.PushBack(w)
	b.waiting.Add(1)
	b.mu.Unlock()
	b.give() // a place may have become free before we were seen to wait
	for {
		err := task.Park(deadline)
		b.mu.Lock()
		if !w.given && err != nil {
			b.queue.Remove(at)
			b.waiting.Add(-1)
		}
		given := w.given
		b.mu.Unlock()
		switch {
		case given:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			b.c.Told.of(req, BulkheadRefused)
			return b.err
		case err != nil:
			return err
		}
	}
}
