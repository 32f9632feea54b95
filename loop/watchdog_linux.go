package loop

import (
	"bytes"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// watched is what a loop lets the watchdog see.
type watched struct {
	turn atomic.Uint64 // a count of turns, and below it the number of the worker that has this one

	mu   sync.Mutex
	goid map[uint32][]byte // of each worker: the number of its goroutine, as traces print it
	ids  uint32
}

const workerBits = 24

// name numbers a worker. Numbers are used again, but not while somebody has them; 0 is the loop's.
func (d *watched) name(w *worker) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for used := true; used; {
		d.ids = (d.ids + 1) & (1<<workerBits - 1)
		_, used = d.goid[d.ids]
	}
	w.id = d.ids
	d.goid[w.id] = nil
}

// enter notes which goroutine a worker is; 0: the loop. It is called by that.
func (d *watched) enter(worker uint32) {
	var b [64]byte
	trace := b[:runtime.Stack(b[:], false)] // "goroutine 18 [running]:"
	if end := bytes.IndexByte(trace, '['); end > 0 {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.goid[worker] = bytes.Clone(trace[:end])
	}
}

func (d *watched) leave(w *worker) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.goid, w.id)
}

// mark notes that the worker has the thread from now on; 0: the loop itself.
func (d *watched) mark(worker uint32) {
	d.turn.Store((d.turn.Load()>>workerBits+1)<<workerBits | uint64(worker))
}

// watch tells of tasks that hold their loop, until the engine stops. A task is seen when it has for between one and two
// times the limit.
func (e *coroutines) watch(limit time.Duration) {
	defer e.guards.Done()
	tick := time.NewTicker(limit)
	defer tick.Stop()
	type seen struct {
		turn  uint64
		since time.Time
		told  bool
	}
	last := make([]seen, len(e.loops))
	for {
		select {
		case <-e.quit:
			return
		case <-tick.C:
		}
		for i, l := range e.loops {
			turn, s := l.dog.turn.Load(), &last[i]
			if l.inbox.sleeping.Load() || turn != s.turn {
				if s.told {
					e.log.Warn("the loop goes on", "loop", l.shard, "held", time.Since(s.since).Round(time.Millisecond))
				}
				*s = seen{turn: turn, since: time.Now()}
				continue
			}
			if s.told {
				continue
			}
			s.told = true
			l.dog.mu.Lock()
			goid := l.dog.goid[uint32(turn&(1<<workerBits-1))]
			l.dog.mu.Unlock()
			e.log.Warn("a task holds its loop: it blocks or computes where it should Await or Yield, or waits for a lock "+
				"whose holder is parked", "loop", l.shard, "for", time.Since(s.since).Round(time.Millisecond), "stack", stackOf(goid))
		}
	}
}

// stackOf finds the trace of a goroutine among those of all.
func stackOf(goid []byte) string {
	if len(goid) == 0 {
		return ""
	}
	for size := 64 << 10; size <= 16<<20; size *= 4 {
		b := make([]byte, size)
		b = b[:runtime.Stack(b, true)]
		if i := bytes.Index(b, goid); i >= 0 {
			if end := bytes.Index(b[i:], []byte("\n\n")); end > 0 {
				return string(b[i : i+end])
			}
			if len(b) < size { // it is the last one
				return string(b[i:])
			}
		}
		if len(b) < size {
			break
		}
	}
	return "not found: " + strconv.Quote(string(goid))
}
