package loop

import (
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
)

// coroutines is the engine of event loops.
type coroutines struct {
	log   *slog.Logger
	base  time.Time
	loops []*loop
	side  *goroutines   // shard 0
	next  atomic.Uint32 // loop to start something on
	live  atomic.Int64  // relays

	mu        sync.Mutex
	listeners map[*listener]struct{}
	stopped   bool
	once      sync.Once
	quit      chan struct{}
	guards    sync.WaitGroup
}

// Coroutines makes the engine of event loops: on each a thread, an epoll set, and coroutines that serve. It is Linux's.
// A loop occupies a thread of Go's as long as it has something to do: with GOMAXPROCS one above the number of loops, what
// Await runs need not wait for one of them to be idle.
func Coroutines(o Options) (Engine, error) {
	if o.Loops <= 0 {
		o.Loops = runtime.GOMAXPROCS(0)
	}
	if o.Watchdog == 0 {
		o.Watchdog = 100 * time.Millisecond
	}
	log := o.log()
	e := &coroutines{log: log, base: time.Now(), side: newGoroutines(log), listeners: map[*listener]struct{}{}, quit: make(chan struct{})}
	for i := range o.Loops {
		l, err := newLoop(e, i+1)
		if err != nil {
			for _, l := range e.loops {
				go l.run()
			}
			_ = e.Close() // there is nothing in it
			return nil, loam.Errorf(loam.Unavailable, "loop", "%w", err)
		}
		e.loops = append(e.loops, l)
	}
	for _, l := range e.loops {
		go l.run()
	}
	if o.Watchdog > 0 {
		e.guards.Add(1)
		go e.watch(o.Watchdog)
	}
	return e, nil
}

func (e *coroutines) Shards() int { return len(e.loops) + 1 }

// pick chooses a loop for something that may run on any.
func (e *coroutines) pick() *loop { return e.loops[int(e.next.Add(1))%len(e.loops)] }

func (e *coroutines) Go(fn func(loam.Task)) { e.pick().start(fn) }

func (e *coroutines) Each(fn func(loam.Task)) {
	var wg sync.WaitGroup
	for _, l := range e.loops {
		wg.Add(1)
		if !l.call(func() {
			if l.stopping {
				wg.Done()
				return
			}
			l.begin(&task{l: l}, l.worker(), func(t loam.Task) {
				defer wg.Done()
				fn(t)
			})
		}) {
			wg.Done()
		}
	}
	e.side.Each(fn)
	wg.Wait()
}

func (e *coroutines) Relays() int { return int(e.live.Load()) + e.side.Relays() }

func (e *coroutines) Freeze() []Frozen {
	frozen := e.side.Freeze()
	for _, l := range e.loops {
		l.do(func() {
			for r := range l.relays {
				frozen = append(frozen, r.freeze())
			}
		})
	}
	return frozen
}

func (e *coroutines) Thaw(f Frozen, done func(aToB, bToA int64)) error {
	var fds [2]int
	for i, file := range [2]*os.File{f.A, f.B} {
		fd, err := takeFile(file)
		if err != nil {
			if i == 0 {
				f.B.Close()
			} else {
				closeFd(fds[0])
			}
			return err
		}
		fds[i] = fd
	}
	l := e.pick()
	var err error
	if !l.do(func() { err = l.thaw(f, fds, done) }) {
		closeFd(fds[0])
		closeFd(fds[1])
		return ErrStopped
	}
	return err
}

func (e *coroutines) Close() error {
	e.once.Do(func() {
		e.mu.Lock()
		e.stopped = true
		e.mu.Unlock()
		close(e.quit)
		for _, l := range e.loops {
			l.call(l.stop)
		}
		_ = e.side.Close() // it has no errors of its own
		for _, l := range e.loops {
			<-l.ended
		}
		e.mu.Lock()
		listeners := e.listeners
		e.listeners = nil
		e.mu.Unlock()
		for ln := range listeners {
			_ = ln.Stop() // the sockets are closed: it removes what they leave in the file system
		}
		e.guards.Wait()
	})
	for _, l := range e.loops {
		<-l.ended
	}
	return nil
}
