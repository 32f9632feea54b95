package loop

import (
	"context"
	"iter"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
)

// A worker is a coroutine that runs one task after another. It lives as long as its loop, or until the loop has had too
// many of them for a while.
type worker struct {
	l      *loop
	id     uint32 // for the watchdog
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	tm     timer // of whatever its task waits for
	t      *task // that it runs; nil: it is free
	fn     func(loam.Task)
	own    task // of a session: used again and again, so that serving allocates nothing
	exited bool // a Goexit went through it: stop will pass that on to its caller
}

// A task is a line of execution on a loop. All but state and life belong to the loop's thread.
type task struct {
	l        *loop
	w        *worker       // nil: it has ended
	conn     *conn         // that a session is served on
	account  *loam.Account // whom it works for; nil: nobody
	state    atomic.Uint32
	life     atomic.Pointer[life]
	deadline int64 // of the present wait; 0: none
	wait     wait
	why      wake
	budget   int16
}

// Bits of task.state.
const (
	woken    = 1 << iota // a Wake that no Park has taken
	canceled             // for good
	posted               // it is in the loop's inbox
)

// wait is what a task waits for, and so what may end its wait.
type wait uint8

const (
	waitNone  wait = iota // it runs
	waitPark              // a Wake
	waitConn              // a connection
	waitAwait             // a goroutine that uses its data: nothing else ends that
	waitTurn              // its turn: why is settled
)

// wake is why a wait has ended.
type wake uint8

const (
	wakeReady  wake = iota
	wakeLate        // the deadline
	wakeCancel      // Cancel
	wakeStop        // the engine stops
	wakeClosed      // the connection was closed by another task
)

func (w wake) err() error {
	switch w {
	case wakeLate:
		return os.ErrDeadlineExceeded
	case wakeCancel:
		return context.Canceled
	case wakeStop:
		return ErrStopped
	case wakeClosed:
		return errClosed
	}
	return nil
}

// budget is how many reads and writes a task may do in a row that need not wait. A peer that is always ready must not
// starve the others.
const budget = 64

func (l *loop) worker() *worker {
	if n := len(l.free); n > 0 {
		w := l.free[n-1]
		l.free = l.free[:n-1]
		l.leastFree = min(l.leastFree, n-1)
		return w
	}
	w := &worker{l: l}
	w.own.l = l
	w.tm.owner = w
	l.dog.name(w)
	w.next, w.stop = iter.Pull(func(yield func(struct{}) bool) {
		w.yield = yield
		l.dog.enter(w.id)
		w.main()
	})
	l.workers[w] = struct{}{}
	if l.leastFree = 0; len(l.workers) > keptFree {
		l.wheel.arm(&l.prune, l.now+int64(pruneEvery))
	}
	return w
}

// main runs tasks. Neither a panic nor a Goexit leaves it: both would come out of next, on the loop. A Goexit cannot be
// stopped, but what it defers may take as long as it likes: the worker goes on inside of that.
func (w *worker) main() {
	over := false
	defer func() {
		if over {
			return
		}
		w.exited = true
		w.l.log.Error("a task ended its goroutine: runtime.Goexit", "stack", string(debug.Stack()))
		w.done(Close)
		if w.yield(struct{}{}) {
			w.main()
		}
	}()
	for w.run(); w.yield(struct{}{}); w.run() {
	}
	over = true
}

// run runs one task.
func (w *worker) run() {
	v := Close
	exit := true
	defer func() {
		if p := recover(); p != nil {
			stack := any(string(debug.Stack()))
			if a, ok := p.(*awaited); ok {
				p, stack = a.value, a.stack
			}
			w.l.log.Error("a task panicked", "panic", p, "stack", stack)
			exit = false
		}
		if !exit {
			w.done(v)
		}
	}()
	if w.fn != nil {
		w.fn(w.t)
	} else {
		v = w.t.conn.session.Serve(w.t, w.t.conn)
	}
	exit = false
}

// done lets go of the task that has ended, and of its connection as v says.
func (w *worker) done(v Verdict) {
	t := w.t
	if c := t.conn; c != nil {
		t.conn = nil
		mine := c.owner == t
		if mine {
			c.owner = nil
		}
		switch {
		case c.flags&dead != 0 || c.relay != nil:
		case v == Close:
			_ = c.Close()
		case v == Idle && mine && c.flags&free == 0:
			c.Release(c.session, c.idle)
		}
	}
	t.wait, t.account = waitNone, nil
	if p := t.life.Swap(nil); p != nil {
		p.cancel()
	}
	t.w, w.t, w.fn = nil, nil, nil
	w.l.tasks--
	w.l.free = append(w.l.free, w)
}

// begin runs a task until it waits for the first time.
func (l *loop) begin(t *task, w *worker, fn func(loam.Task)) {
	t.w, w.t, w.fn = w, t, fn
	l.tasks++
	l.resume(t, wakeReady)
}

// serve begins a task for a connection that nobody has.
func (l *loop) serve(c *conn) {
	w := l.worker()
	t := &w.own
	t.state.Store(0)
	t.conn, c.owner = c, t
	c.flags &^= free | poll
	l.begin(t, w, nil)
}

// resume runs t until it waits again. Only the loop itself calls it, never a task.
func (l *loop) resume(t *task, why wake) {
	t.why, t.budget, t.wait = why, budget, waitNone
	l.cur = t
	l.dog.mark(t.w.id)
	if t.account != nil {
		l.meter()
	}
	t.w.next()
	if t.account != nil {
		l.charge(t.account)
	}
	l.cur = nil
}

// wake ends the wait of t, unless something else has already.
func (l *loop) wake(t *task, why wake) {
	if t.wait == waitPark || t.wait == waitConn {
		l.resume(t, why)
	}
}

// later is wake for who is a task itself: t runs when its turn comes.
func (l *loop) later(t *task, why wake) {
	if t.wait == waitPark || t.wait == waitConn {
		t.wait, t.why = waitTurn, why
		l.turns = append(l.turns, t)
	}
}

// turn runs a task whose turn has come.
func (t *task) turn() {
	if t.wait == waitTurn {
		t.l.resume(t, t.why)
	}
}

// yield gives the thread to the loop until something ends the wait.
func (t *task) yield(w wait, deadline int64) wake {
	if w != waitTurn && w != waitAwait {
		if t.l.stopping {
			return wakeStop
		}
		if t.state.Load()&canceled != 0 {
			return wakeCancel
		}
		if deadline != 0 && deadline <= t.l.now {
			return wakeLate
		}
	}
	t.wait, t.deadline = w, deadline
	if deadline != 0 {
		t.l.wheel.arm(&t.w.tm, deadline)
	}
	t.w.yield(struct{}{})
	return t.why
}

// expire looks, when the timer of a worker fires, whether the time of what its task waits for has come: the timer may be
// older than the wait.
func (w *worker) expire(now int64) {
	t := w.t
	if t == nil || t.deadline == 0 || t.wait != waitPark && t.wait != waitConn {
		return
	}
	if t.deadline > now {
		w.l.wheel.arm(&w.tm, t.deadline)
		return
	}
	w.l.wake(t, wakeLate)
}

func (t *task) Now() time.Time { return t.l.base.Add(time.Duration(t.l.now)) }
func (t *task) Shard() int     { return t.l.shard }

func (t *task) Park(deadline time.Time) error {
	if t.state.Load()&(woken|canceled) == woken && !t.l.stopping {
		t.state.And(^uint32(woken))
		return nil
	}
	why := t.yield(waitPark, t.l.since(deadline))
	if why == wakeReady {
		t.state.And(^uint32(woken))
	}
	return why.err()
}

func (t *task) Wake() {
	if old := t.state.Or(woken | posted); old&posted == 0 {
		t.l.post(t)
	}
}

func (t *task) Cancel() {
	old := t.state.Or(canceled | posted)
	if p := t.life.Load(); p != nil {
		p.cancel()
	}
	if old&posted == 0 {
		t.l.post(t)
	}
}

// read is what the loop does with a task that was posted.
func (t *task) read() {
	state := t.state.And(^uint32(posted))
	switch {
	case t.w == nil: // it has ended
	case state&canceled != 0:
		t.l.wake(t, wakeCancel)
	case state&woken != 0 && t.wait == waitPark:
		t.l.resume(t, wakeReady)
	}
}

func (t *task) Yield() {
	if t.account != nil {
		t.l.charge(t.account)
		t.l.fair.wait(t)
	} else {
		t.l.yielded = append(t.l.yielded, t)
	}
	t.why = wakeReady
	t.yield(waitTurn, 0)
}

func (t *task) Go(fn func(loam.Task)) loam.Task {
	child := &task{l: t.l}
	t.l.turns = append(t.l.turns, &birth{child, fn})
	t.l.tasks++ // so that the loop waits for it from now on
	return child
}

// birth is a task that has not begun.
type birth struct {
	t  *task
	fn func(loam.Task)
}

func (b *birth) turn() {
	l := b.t.l
	l.tasks--
	l.begin(b.t, l.worker(), b.fn)
}

// life is the context of a task whose code asked for one.
type life struct {
	ctx    context.Context
	cancel context.CancelFunc
}

func newLife(ctx context.Context) *life {
	p := new(life)
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

func (t *task) Context() context.Context {
	p := t.life.Load()
	if p == nil {
		p = newLife(context.Background())
		t.life.Store(p)
		if t.state.Load()&canceled != 0 || t.l.stopping {
			p.cancel()
		}
	}
	return p.ctx
}

// awaited is how what a task waits for, elsewhere than in itself, has ended.
type awaited struct {
	value  any // of a panic
	stack  string
	exited bool // by a Goexit
}

// call calls fn and notes how it ends, and last calls then.
func (a *awaited) call(fn, then func()) {
	a.exited = true
	defer func() {
		if p := recover(); p != nil {
			*a = awaited{value: p, stack: string(debug.Stack())}
		}
		then()
	}()
	fn()
	a.exited = false
}

// end ends the task that waited in the same way.
func (a *awaited) end() {
	switch {
	case a.value != nil:
		panic(a)
	case a.exited:
		runtime.Goexit()
	}
}

func (t *task) Await(fn func()) {
	var a awaited
	go a.call(fn, func() { t.l.call(func() { t.l.resume(t, wakeReady) }) })
	t.yield(waitAwait, 0)
	a.end()
}

func (t *task) Within(ctx context.Context, fn func(loam.Task)) {
	l := t.l
	child := &task{l: l, account: t.account}
	child.life.Store(newLife(ctx))
	stop := context.AfterFunc(ctx, child.Cancel)
	var a awaited
	l.turns = append(l.turns, &birth{child, func(task loam.Task) {
		a.call(func() { fn(task) }, func() {
			t.wait, t.why = waitTurn, wakeReady
			l.turns = append(l.turns, t)
		})
	}})
	l.tasks++ // as in Go
	t.yield(waitAwait, 0)
	stop()
	a.end()
}

func (t *task) lend(class uint8) *Buffer { return t.l.lend(class) }
func (t *task) giveBack(b *Buffer)       { t.l.keep(b) }

func (l *loop) lend(class uint8) *Buffer {
	kept := l.buffers[class]
	if n := len(kept); n > 0 {
		b := kept[n-1]
		l.buffers[class] = kept[:n-1]
		return b
	}
	return newBuffer(class)
}

// keep takes a buffer back. Beyond so many they are left to the garbage collector.
func (l *loop) keep(b *Buffer) {
	if len(l.buffers[b.class]) < keptBuffers {
		l.buffers[b.class] = append(l.buffers[b.class], b)
	}
}

const keptBuffers = 64
