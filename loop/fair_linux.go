package loop

import (
	"math"
	"syscall"
	"time"
	"unsafe"

	"github.com/loam-run/loam"
)

// What computes on a loop shares it by whom it works for, however many tasks that has: each account gets as much of the
// loop's time as any other, and one that has had less than its share goes first. (This is fair queueing by virtual time,
// as processors and links are shared.) Sockets come before all of them: at each turn of the loop they are looked at, and
// then those that compute run for about a slice.
type fair struct {
	shares  map[*loam.Account]*share
	waiting []*share // those whose tasks wait
	least   int64    // what the one that ran last had had, which of all had had least
	sweepAt int      // how many shares there are when those that are of no use are looked for
}

// A share is what an account has had of the loop's time, in nanoseconds. One that begins, or comes back after it wanted
// nothing for a while, begins with little less than the others have had: who waited for nothing has saved next to nothing.
type share struct {
	had   int64
	tasks []*task // that wait for their turn, first come first served
}

// ahead is by how much an account may have had more than others that wait, and still begin something new before them: so
// much that a few short calls in a row need not wait.
const ahead = int64(200 * time.Microsecond)

// saved is how much of what it did not take an account may have later: so that a neighbour who takes little goes before
// one who takes much and has just begun its next call.
const saved = int64(500 * time.Microsecond)

// share is that of an account.
func (f *fair) share(a *loam.Account) *share {
	s := f.shares[a]
	if s == nil {
		if len(f.shares) >= f.sweepAt {
			f.sweep()
		}
		s = new(share)
		f.shares[a] = s
	}
	s.had = max(s.had, f.least-saved)
	return s
}

// sweep forgets who has had no more than one that comes anew would begin with.
func (f *fair) sweep() {
	if f.shares == nil {
		f.shares = map[*loam.Account]*share{}
	}
	for a, s := range f.shares {
		if len(s.tasks) == 0 && s.had <= f.least-saved {
			delete(f.shares, a)
		}
	}
	f.sweepAt = max(2*len(f.shares), 64)
}

// wait puts a task in line.
func (f *fair) wait(t *task) {
	s := f.share(t.account)
	if len(s.tasks) == 0 {
		f.waiting = append(f.waiting, s)
	}
	s.tasks = append(s.tasks, t)
}

// next takes the first task of the share that has had least; nil: none waits.
func (f *fair) next() *task {
	at, least := -1, int64(math.MaxInt64)
	for i, s := range f.waiting {
		if s.had < least {
			at, least = i, s.had
		}
	}
	if at < 0 {
		return nil
	}
	s := f.waiting[at]
	f.least = max(f.least, least)
	t := s.tasks[0]
	s.tasks[0] = nil
	if s.tasks = s.tasks[1:]; len(s.tasks) == 0 {
		s.tasks = nil
		last := len(f.waiting) - 1
		f.waiting[at] = f.waiting[last]
		f.waiting[last] = nil
		f.waiting = f.waiting[:last]
	}
	return t
}

// rest begins anew: nobody wants anything.
func (f *fair) rest() {
	if len(f.shares) > 0 {
		clear(f.shares)
	}
}

// clock is the time since base, not that of the present turn.
func (l *loop) clock() int64 { return int64(time.Since(l.base)) }

// cpuClock is how long this thread has run, in nanoseconds. What the kernel gave to other threads meanwhile is not the
// running task's to pay. It takes a system call (CLOCK_THREAD_CPUTIME_ID).
func cpuClock() int64 {
	var t syscall.Timespec
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 3, uintptr(unsafe.Pointer(&t)), 0) // it does not fail
	return t.Nano()
}

// meter begins to count what is done for an account: by the processor's time where others wait, and else, as it hardly
// matters, by the clock.
func (l *loop) meter() {
	l.now = l.clock()
	if l.exact = len(l.fair.waiting) > 0; l.exact {
		l.from = cpuClock()
	} else {
		l.from = l.now
	}
}

// charge has an account pay for what was done since meter, where there is somebody whom it could have kept waiting.
func (l *loop) charge(a *loam.Account) {
	l.now = l.clock()
	to := l.now
	if l.exact {
		to = cpuClock()
	} else if l.alone() {
		return
	}
	l.fair.share(a).had += to - l.from
	l.from = to
}

// takeShares lets those compute that wait for it, who has had least first, until there was one slice of it: the loop
// looks at its sockets between any two.
func (l *loop) takeShares() {
	if len(l.fair.waiting) == 0 {
		return
	}
	for began := l.clock(); ; {
		t := l.fair.next()
		if t == nil {
			return
		}
		t.turn()
		if l.clock()-began > yieldTime {
			return
		}
	}
}

// Bill implements loam.Task.
func (t *task) Bill(a *loam.Account) (was *loam.Account) {
	l := t.l
	was = t.account
	if was != nil {
		l.charge(was)
	}
	if a != nil {
		l.meter()
	}
	if t.account = a; a == nil || was != nil && was == a || !l.behind(a) {
		return was
	}
	t.why = wakeReady
	l.fair.wait(t)
	t.yield(waitTurn, 0)
	return was
}

// behind tells whether what an account would begin comes behind what others wait for.
func (l *loop) behind(a *loam.Account) bool {
	if l.alone() {
		return false
	}
	f := &l.fair
	s := f.share(a)
	if s.had <= f.least+ahead {
		// What has come in beside it must not wait for it, nor for all that would begin in one turn.
		return l.more && len(f.shares) > 1
	}
	if len(f.waiting) == 0 && len(f.shares) == 1 { // the others of this turn are its own
		f.least = s.had
		return false
	}
	return true
}

// alone tells that nobody waits for the running task.
func (l *loop) alone() bool { return len(l.fair.waiting) == 0 && !l.more }
