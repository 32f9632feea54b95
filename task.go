package loam

import (
	"context"
	"errors"
	"os"
	"runtime"
	"time"
)

// A Task is the line of execution that serves a request: what its code waits with. On an event loop it is a coroutine,
// and waiting gives the loop's thread to others; elsewhere it is a goroutine. Code that serves requests is the same on
// both as long as it waits only by these methods, by a Conn of package loop, and by Await for everything else, and
// holds no lock while it waits.
//
// Only the task itself calls the methods, but for Wake and Cancel, which anyone may call as long as what the task runs has
// not returned; of a task that Go returned, later too. (An event loop uses the tasks of its connections again.)
type Task interface {
	// Context is the task's life: it ends with Cancel. It costs an allocation on an event loop: hot paths use the rest.
	Context() context.Context
	// Now is the time; on an event loop it may be as old as the loop's present turn.
	Now() time.Time
	// Await runs fn where it may block its thread, and returns after it did. fn must not touch a Conn of the loop, the
	// request's body included. It is not ended by Cancel: fn watches a context for that.
	Await(fn func())
	// Park waits for a Wake, which may have come before; for the deadline, unless that is zero: os.ErrDeadlineExceeded;
	// or for Cancel: context.Canceled. A task may be woken for an older reason: the caller looks whether what it waits
	// for is there, and parks again if not.
	Park(deadline time.Time) error
	// Wake ends the present Park, or the next one.
	Wake()
	// Cancel ends every wait of the task, present and to come, with context.Canceled.
	Cancel()
	// Yield lets others run first: those that are ready, and of those that yielded who works for an account that has had
	// less of the loop.
	Yield()
	// Bill says whom the task works for from now on, and tells for whom it did before; nil is nobody. What it does is
	// counted as the account's, which shares the loop fairly with others: where they wait and have had less, the task waits
	// too. Now is exact afterwards.
	Bill(a *Account) (was *Account)
	// Go starts another task beside this one, on the same loop. fn ends before the engine does.
	Go(fn func(Task)) Task
	// Within runs fn in another task of the same loop, whose life is within ctx: its waits end when ctx does. It works for
	// whom this one works for, and Within returns when fn has, not before: a Cancel of this task does not reach it but by ctx.
	Within(ctx context.Context, fn func(Task))
	// Shard is which of the engine's loops runs the task, from 1; 0: none, the task is a goroutine. State that is split by
	// it is not contended for, and a Conn made in one shard is of no use in another.
	Shard() int
}

// An Account is whom tasks work for, where several who share a loop must not take it from each other: one for each
// function. It is nothing but itself.
type Account struct{ Name string }

// Sleep waits for d in task t. The error is that of t being canceled.
func Sleep(t Task, d time.Duration) error {
	deadline := t.Now().Add(d)
	for {
		switch err := t.Park(deadline); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
	}
}

// NewTask makes a task of the calling goroutine, whose life is ctx. The func returned ends its context.
func NewTask(ctx context.Context) (Task, context.CancelFunc) {
	t := &goroutine{token: make(chan struct{}, 1)}
	t.ctx, t.cancel = context.WithCancel(ctx)
	return t, t.cancel
}

// goroutine is the task that is an ordinary goroutine: where it waits, its goroutine blocks.
type goroutine struct {
	ctx    context.Context
	cancel context.CancelFunc
	token  chan struct{} // a Wake that nobody has taken yet
	timer  *time.Timer
}

func (t *goroutine) Context() context.Context { return t.ctx }
func (t *goroutine) Now() time.Time           { return time.Now() }
func (t *goroutine) Await(fn func())          { fn() }
func (t *goroutine) Cancel()                  { t.cancel() }
func (t *goroutine) Yield()                   { runtime.Gosched() }
func (t *goroutine) Bill(*Account) *Account   { return nil } // Go's scheduler knows no shares
func (t *goroutine) Shard() int               { return 0 }

func (t *goroutine) Within(ctx context.Context, fn func(Task)) {
	child, end := NewTask(ctx)
	defer end()
	fn(child)
}

func (t *goroutine) Wake() {
	select {
	case t.token <- struct{}{}:
	default:
	}
}

func (t *goroutine) Park(deadline time.Time) error {
	var late <-chan time.Time
	if !deadline.IsZero() {
		if t.timer == nil {
			t.timer = time.NewTimer(time.Until(deadline))
		} else {
			t.timer.Reset(time.Until(deadline))
		}
		defer t.timer.Stop()
		late = t.timer.C
	}
	if err := t.ctx.Err(); err != nil {
		return err
	}
	select {
	case <-t.token:
		return nil
	case <-late:
		return os.ErrDeadlineExceeded
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
}

func (t *goroutine) Go(fn func(Task)) Task {
	child, end := NewTask(context.WithoutCancel(t.ctx))
	go func() {
		defer end()
		fn(child)
	}()
	return child
}
