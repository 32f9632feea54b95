package loop

import (
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/loam-run/loam"
)

// A loop is one thread, one epoll set, and the coroutines that run on it. Only its own thread touches it, but for the
// inbox.
type loop struct {
	e     *coroutines
	shard int
	log   *slog.Logger
	base  time.Time

	epoll   int
	bell    int // an eventfd: wakes the thread
	conns   []*conn
	sockets map[int32]*socket // that connections come in by
	gen     uint32
	open    int // connections there are

	now   int64 // since base, in nanoseconds; read once a turn
	busy  int64 // the last turn that had an event
	cur   *task // that runs
	turns []interface{ turn() }
	spare []interface{ turn() }

	more    bool    // events of this turn are still to be looked at
	notes   notes   // what is written once they were
	writers []*task // that write then
	debts   map[*conn][]byte

	yielded []*task // that let others run and work for nobody in particular
	fair    fair    // those that work for somebody
	from    int64   // when what the running task's account has not paid for began
	exact   bool    // by the processor's time
	wheel   wheel

	workers   map[*worker]struct{}
	free      []*worker
	leastFree int   // how few were free since the loop looked last whether there are too many
	prune     timer // when it looks again
	tasks     int   // that have begun and not ended
	buffers   [len(bufferSizes)][]*Buffer
	scratch   []byte // what relays read into
	relays    map[*relay]struct{}
	stopping  bool

	dog    watched
	inbox  inbox
	posted []*task // room for what is taken out of the inbox
	calls  []func()
	ended  chan struct{}
}

// inbox is how others reach the loop.
type inbox struct {
	some     atomic.Bool // there is something in it
	sleeping atomic.Bool // the thread waits in epoll
	mu       sync.Mutex
	tasks    []*task
	calls    []func()
	closed   bool // the loop has ended
}

func newLoop(e *coroutines, shard int) (*loop, error) {
	l := &loop{
		e: e, shard: shard, log: e.log, base: e.base, sockets: map[int32]*socket{}, workers: map[*worker]struct{}{},
		relays: map[*relay]struct{}{}, debts: map[*conn][]byte{}, ended: make(chan struct{}), busy: -int64(nap * time.Millisecond),
	}
	l.dog.goid = map[uint32][]byte{}
	l.prune.owner = (*pruner)(l)
	var err error
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	bell, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		_ = syscall.Close(l.epoll)
		return nil, os.NewSyscallError("eventfd2", errno)
	}
	l.bell = int(bell)
	// By edges the bell needs no reading: each write to it makes one.
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | edge, Fd: int32(l.bell)}
	if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, l.bell, &event); err != nil {
		_ = syscall.Close(l.bell)
		_ = syscall.Close(l.epoll)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return l, nil
}

// since is t as the loop counts time; 0 where t is zero.
func (l *loop) since(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(int64(t.Sub(l.base)), 1)
}

// run is the thread's life.
func (l *loop) run() {
	runtime.LockOSThread() // for good, and before the first coroutine: those run only under the lock they were made under
	defer close(l.ended)
	defer l.finish()
	l.dog.enter(0)
	events := make([]syscall.EpollEvent, 256)
	for !l.stopping || l.tasks > 0 || !l.inbox.close() {
		n := l.poll(events)
		l.dog.mark(0)
		l.now = int64(time.Since(l.base))
		if n > 0 {
			l.busy = l.now
		}
		l.takeTurns(n > 0)
		for i := range events[:n] {
			l.more = i+1 < n
			l.event(&events[i])
		}
		l.takeWriters()
		for i := 0; i < roundsPerTurn && l.inbox.some.Load(); i++ {
			l.read()
		}
		l.wheel.advance(l.now)
		l.takeYielded() // last, and not all at once: what computes waits for sockets and clock, not they for it
		l.takeShares()
	}
}

// roundsPerTurn is how often tasks may wake each other before the loop looks at its sockets again.
const roundsPerTurn = 8

// takeTurns gives each of those that wait for their turn one. more: there are events of this turn.
func (l *loop) takeTurns(more bool) {
	if len(l.turns) == 0 {
		return
	}
	turns := l.turns
	l.turns = l.spare[:0]
	for i, t := range turns {
		l.more = more || i+1 < len(turns)
		t.turn()
	}
	clear(turns)
	l.spare = turns
}

// yieldTime is for how long those run that yielded, before the loop looks at its sockets again: many that compute must
// not make the others wait for all of them.
const yieldTime = int64(60 * time.Microsecond)

// takeYielded goes on with those that yielded, first come first served, for as long as there is time. At least one runs.
func (l *loop) takeYielded() {
	n, done := len(l.yielded), 0 // who yields meanwhile comes after those
	if n == 0 {
		return
	}
	began := l.clock()
	l.now = began
	for done < n {
		t := l.yielded[done]
		done++
		t.turn()
		if done < n && l.clock()-began > yieldTime {
			break
		}
	}
	if done > 0 {
		left := copy(l.yielded, l.yielded[done:])
		clear(l.yielded[left:])
		l.yielded = l.yielded[:left]
	}
}

// nap is for how many milliseconds after it last had something to do a loop waits without telling Go's scheduler. To tell
// it costs more than a request: its monitor thread wakes every 20 µs as long as threads go to wait and come back. A loop
// that has something to do a few dozen times a second never tells it; others wait a moment longer for its processor, of
// which there is one more than there are loops. A collection that stops the world interrupts the wait by a signal. A
// shorter nap costs more: a timer of a few milliseconds is the next one that the core's clock is set to, and setting that
// costs as much as reading and writing do.
const nap = 30

// poll returns how many events there are. It waits for some where there is nothing else to do.
func (l *loop) poll(events []syscall.EpollEvent) int {
	ms, told := 0, false
	if len(l.turns)+len(l.yielded)+len(l.fair.waiting) == 0 {
		now := int64(time.Since(l.base))
		ms = l.wheel.wait(now)
		told = ms != 0 && now-l.busy >= int64(nap*time.Millisecond)
	}
	if ms != 0 {
		l.inbox.sleeping.Store(true)
		switch {
		case l.inbox.some.Load():
			ms, told = 0, false
		case !told && (ms < 0 || ms > nap):
			ms = nap
		}
	}
	var n uintptr
	var e syscall.Errno
	if told {
		n, _, e = syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
	} else {
		n, _, e = syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
	}
	l.inbox.sleeping.Store(false)
	if e != 0 {
		return 0 // EINTR
	}
	if n == 0 && ms != 0 {
		l.fair.rest()
	}
	return int(n)
}

func (l *loop) event(ev *syscall.EpollEvent) {
	if ev.Fd == int32(l.bell) {
		return
	}
	if int(ev.Fd) < len(l.conns) {
		if c := l.conns[ev.Fd]; c != nil {
			if c.gen == uint32(ev.Pad) { // else the event is of one that had the descriptor before
				c.ready(ev.Events)
			}
			return
		}
	}
	if s := l.sockets[ev.Fd]; s != nil && s.gen == uint32(ev.Pad) {
		s.accept()
	}
}

// read works the inbox off.
func (l *loop) read() {
	in := &l.inbox
	in.mu.Lock()
	in.some.Store(false)
	in.tasks, l.posted = l.posted[:0], in.tasks
	in.calls, l.calls = l.calls[:0], in.calls
	in.mu.Unlock()
	for _, t := range l.posted {
		t.read()
	}
	for _, fn := range l.calls {
		fn()
	}
	clear(l.posted)
	clear(l.calls)
}

// close shuts the inbox for good, unless there is something in it.
func (in *inbox) close() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = in.closed || !in.some.Load()
	return in.closed
}

// post asks the loop to look at t. Any thread may.
func (l *loop) post(t *task) {
	in := &l.inbox
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return
	}
	in.tasks = append(in.tasks, t)
	in.some.Store(true)
	in.mu.Unlock()
	l.ring()
}

// call runs fn on the loop, outside of any task: fn must not wait. It is false where the loop has ended. Any thread may
// call it.
func (l *loop) call(fn func()) bool {
	in := &l.inbox
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return false
	}
	in.calls = append(in.calls, fn)
	in.some.Store(true)
	in.mu.Unlock()
	l.ring()
	return true
}

// do is call that returns when fn has. The loop's own tasks do not call it.
func (l *loop) do(fn func()) bool {
	done := make(chan struct{})
	if !l.call(func() {
		defer close(done)
		fn()
	}) {
		return false
	}
	<-done
	return true
}

// ring wakes the thread where it sleeps.
func (l *loop) ring() {
	if l.inbox.sleeping.CompareAndSwap(true, false) {
		one := [8]byte{1}
		_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(l.bell), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// safely calls what is not the loop's own.
func (l *loop) safely(fn func()) {
	defer func() {
		if p := recover(); p != nil {
			l.log.Error("a callback panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	fn()
}

// start begins a task from outside of any.
func (l *loop) start(fn func(loam.Task)) bool {
	return l.call(func() {
		if !l.stopping {
			l.begin(&task{l: l}, l.worker(), fn)
		}
	})
}

// stop ends every wait, and lets the loop end when every task has.
func (l *loop) stop() {
	l.stopping = true
	for _, s := range l.sockets {
		s.close()
	}
	for r := range l.relays {
		r.close()
	}
	var waiting []*task
	for w := range l.workers {
		if w.t != nil {
			waiting = append(waiting, w.t)
		}
	}
	for _, t := range waiting {
		if p := t.life.Load(); p != nil {
			p.cancel()
		}
		l.later(t, wakeStop)
	}
	l.closeAll(func(c *conn) bool { return c.flags&free != 0 })
}

func (l *loop) closeAll(which func(*conn) bool) {
	for _, c := range l.conns {
		if c != nil && which(c) {
			hangUp(c, c.session)
		}
	}
}

// finish ends the loop: it has no tasks any more.
func (l *loop) finish() {
	l.closeAll(func(*conn) bool { return true })
	_ = syscall.Close(l.bell)
	_ = syscall.Close(l.epoll)
	// A worker that a Goexit went through hands it on to whoever stops it: what is deferred runs all the same.
	for w := range l.workers {
		defer w.stop()
	}
}

// pruner looks now and then whether the loop keeps more coroutines than it needs.
type pruner loop

const (
	pruneEvery = 5 * time.Second
	keptFree   = 16
)

func (p *pruner) expire(now int64) {
	l := (*loop)(p)
	for range min(l.leastFree/2, len(l.free)-keptFree) {
		w := l.free[0]
		l.free[0] = l.free[len(l.free)-1]
		l.free[len(l.free)-1] = nil
		l.free = l.free[:len(l.free)-1]
		if w.exited { // it could not be stopped without ending the loop
			l.free = append(l.free, w)
			continue
		}
		l.wheel.disarm(&w.tm)
		delete(l.workers, w)
		l.dog.leave(w)
		w.stop()
	}
	l.leastFree = len(l.free)
	if len(l.free) > keptFree {
		l.wheel.arm(&l.prune, now+int64(pruneEvery))
	}
}
