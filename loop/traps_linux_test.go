package loop

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/loam-run/loam"
)

func coroutinesFor(t *testing.T, o Options) *coroutines {
	t.Helper()
	e, err := Coroutines(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e.(*coroutines)
}

// The kernel's questions whether a peer is still there are not all asked in the same moment.
func TestProbesAreSpread(t *testing.T) {
	e := coroutinesFor(t, Options{Loops: 2})
	const n = 20
	after := make(chan int, n)
	ln, err := e.Listen(t.Context(), "tcp", "127.0.0.1:0", ListenOptions{Open: func(c Conn) Session {
		v, err := syscall.GetsockoptInt(int(c.(*conn).fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
		if err != nil {
			t.Error(err)
		}
		after <- v
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for range n {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() // so that descriptors differ
		v := <-after
		if v < probeAfter || v >= probeAfter+probeSpread {
			t.Errorf("asked after %d s", v)
		}
		seen[v] = true
	}
	if len(seen) < 2 {
		t.Errorf("all are asked after %v s", seen)
	}
}

// A connection within the machine is not slowed down for the sake of a network.
func TestNearbyConnections(t *testing.T) {
	e := coroutinesFor(t, Options{Loops: 1})
	control := func(c Conn) string {
		b := make([]byte, 16)
		n := uint32(len(b))
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(c.(*conn).fd), syscall.IPPROTO_TCP, syscall.TCP_CONGESTION, uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
		if errno != 0 {
			t.Error(errno)
		}
		return strings.TrimRight(string(b[:n]), "\x00")
	}
	both := make(chan string, 2)
	for _, address := range []string{"127.0.0.1:0", ":0"} {
		ln, err := e.Listen(t.Context(), "tcp", address, ListenOptions{Open: func(c Conn) Session {
			both <- control(c)
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		e.Go(func(task loam.Task) {
			c, err := Dial(task, "tcp", "127.0.0.1:"+port, task.Now().Add(2*time.Minute))
			if err != nil {
				t.Error(err)
				both <- ""
				return
			}
			both <- control(c)
			c.Close()
		})
		for range 2 {
			if got := <-both; got != "reno" {
				t.Errorf("%s: %q", address, got)
			}
		}
	}
}

// Trap 1: the state of the thread's lock must be the same where a coroutine is made, resumed and yields, or the runtime
// ends the process. Whoever asks for something, from whatever thread, the loop itself does it.
func TestTrapThreadLock(t *testing.T) {
	e := coroutinesFor(t, Options{Loops: 2})
	ln := serve(t, e, echo)
	address := ln.Addr().String()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if i%2 == 0 {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
			}
			tasks := make(chan loam.Task, 3)
			done := make(chan error, 1)
			e.Go(func(t loam.Task) {
				child := t.Go(func(c loam.Task) {
					c.Go(func(loam.Task) { t.Wake() })
					tasks <- c
					_ = c.Park(time.Time{})
				})
				tasks <- t
				t.Await(func() { child.Wake() })
				_, err := Dial(t, "tcp", address, time.Time{})
				if err == nil {
					err = t.Park(time.Time{})
				}
				done <- err
			})
			(<-tasks).Wake()
			(<-tasks).Wake()
			<-done
			e.Each(func(loam.Task) {})
		})
	}
	wg.Wait()
}

// Trap 1, the other side: a handler that locks the thread ends the process, and says why. It runs in a process of its own.
func TestTrapHandlerLocksThread(t *testing.T) {
	if os.Getenv("LOOP_LOCK_THREAD") != "" {
		e, err := Coroutines(Options{Loops: 1})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		e.Go(func(t loam.Task) {
			runtime.LockOSThread()
			t.Yield()
			close(done)
		})
		<-done
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=TestTrapHandlerLocksThread$")
	cmd.Env = append(os.Environ(), "LOOP_LOCK_THREAD=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "thread lock") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Trap 2: a lock held across a park hangs its loop. Nobody can resume the holder; the watchdog says who waits.
func TestTrapLockAcrossPark(t *testing.T) {
	j := &journal{t: t}
	e := coroutinesFor(t, Options{Loops: 1, Log: slog.New(slog.NewTextHandler(j, nil)), Watchdog: 20 * time.Millisecond})
	var mu sync.Mutex
	var wg sync.WaitGroup
	wg.Add(2)
	e.Go(func(t loam.Task) {
		defer wg.Done()
		mu.Lock()
		_ = loam.Sleep(t, time.Millisecond)
	})
	e.Go(func(loam.Task) {
		defer wg.Done()
		waitsForTheLock(&mu)
	})
	defer func() {
		if t.Failed() {
			mu.Unlock()
			t.Log(j.b.String())
		}
	}()
	until(t, "the watchdog barks", func() bool { return j.has("holds its loop") && j.has("waitsForTheLock") })
	mu.Unlock() // from outside, as no handler could
	wg.Wait()
	until(t, "and is content", func() bool { return j.has("the loop goes on") })
}

//go:noinline
func waitsForTheLock(mu *sync.Mutex) {
	mu.Lock()
	mu.Unlock() //nolint:staticcheck,gocritic // that it waits is all it does
}

// A loop that only carries relays, and never sleeps, is not taken for one that is held.
func TestWatchdogSeesRelays(t *testing.T) {
	e := coroutinesFor(t, Options{Loops: 1})
	ln, _ := tunnel(t, e, upstream(t, echoAll), 0, plain)
	c := dial(t, ln).(*net.TCPConn)
	want(t, c, "hello")
	before := e.loops[0].dog.turn.Load() >> workerBits
	go func() {
		_, _ = c.Write(make([]byte, 4<<20))
		_ = c.CloseWrite()
	}()
	_, _ = io.Copy(io.Discard, c)
	if turns := e.loops[0].dog.turn.Load()>>workerBits - before; turns < 10 {
		t.Error(turns, "turns")
	}
}

// Trap 7: an event that was reported for a descriptor before it was closed must not reach the connection that has its
// number now.
func TestTrapDescriptorReuse(t *testing.T) {
	e := coroutinesFor(t, Options{Loops: 1})
	l := e.loops[0]
	pair := func() [2]int {
		p, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var a, b [2]int
	served := 0
	if !l.do(func() {
		a = pair()
		old, err := l.add(a[0], 0)
		if err != nil {
			t.Error(err)
			return
		}
		stale := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLHUP, Fd: old.fd, Pad: int32(old.gen)}
		old.Close()
		b = pair()
		now, err := l.add(b[0], 0)
		if err != nil {
			t.Error(err)
			return
		}
		if now.fd != old.fd {
			t.Errorf("descriptor %d was not used again, but %d", old.fd, now.fd)
		}
		now.Release(sessionFunc(func(loam.Task, Conn) Verdict {
			served++
			return Idle
		}), 0)
		l.event(&stale)
		if served > 0 || now.flags&(canRead|hung) != 0 {
			t.Error("the event of another connection came through")
		}
		l.event(&syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: now.fd, Pad: int32(now.gen)})
		if served != 1 {
			t.Error("its own did not")
		}
	}) {
		t.Error("the loop has ended")
	}
	closeFd(a[1])
	closeFd(b[1])
}

// Trap 9: buffers are borrowed only while bytes are there: many connections that wait need as many as one.
func TestTrapBuffers(t *testing.T) {
	e := coroutinesFor(t, Options{Loops: 1})
	made := func() (n int) {
		e.loops[0].do(func() {
			for _, kept := range e.loops[0].buffers {
				n += len(kept)
			}
		})
		return
	}
	ln := serve(t, e, func(t loam.Task, c Conn) Verdict { // waits in Ready, not with a buffer in hand
		for {
			if err := c.Ready(); err != nil {
				return Close
			}
			b := Borrow(t, 4<<10)
			n, err := c.Read(b.B)
			if err == nil {
				_, err = c.Write(b.B[:n])
			}
			b.Free(t)
			if err != nil {
				return Close
			}
		}
	})
	relays, _ := tunnel(t, e, upstream(t, echoAll), 0, plain)
	var all []net.Conn
	for i := range 200 {
		c := dial(t, []Listener{ln, relays}[i%2])
		want(t, c, "hello")
		all = append(all, c)
	}
	for _, c := range all {
		want(t, c, "again")
	}
	if n := made(); n != 1 {
		t.Errorf("%d buffers for %d connections that wait", n, len(all))
	}
}

// After a crowd the loop lets go of most of its coroutines.
func TestPrune(t *testing.T) {
	e := coroutinesFor(t, Options{Loops: 1})
	l := e.loops[0]
	var wg sync.WaitGroup
	for range 500 {
		wg.Add(1)
		e.Go(func(t loam.Task) {
			defer wg.Done()
			_ = loam.Sleep(t, 10*time.Millisecond)
		})
	}
	wg.Wait()
	l.do(func() {
		before := len(l.workers)
		for range 20 {
			(*pruner)(l).expire(l.now)
		}
		if n := len(l.workers); n > 3*keptFree || n >= before || len(l.free) != n {
			t.Errorf("%d coroutines before, %d after, %d free", before, n, len(l.free))
		}
	})
	want(t, dial(t, serve(t, e, echo)), "it works on")
}

// Waiting, waking, timers and serving allocate nothing.
func TestNoAllocations(t *testing.T) {
	e := coroutinesFor(t, Options{Loops: 1})
	l := e.loops[0]
	p, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFd(p[1])
	l.do(func() {
		c, err := l.add(p[0], canWrite)
		if err != nil {
			t.Error(err)
			return
		}
		in, out := make([]byte, 1), []byte("x")
		c.Release(sessionFunc(func(t loam.Task, c Conn) Verdict {
			_ = c.SetDeadline(t.Now().Add(time.Minute))
			_, _ = c.Read(in)
			b := Borrow(t, 16<<10)
			b.Free(t)
			_ = t.Park(t.Now().Add(time.Minute))
			_, _ = c.Write(in)
			return Idle
		}), time.Minute)
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: c.fd, Pad: int32(c.gen)}
		if n := testing.AllocsPerRun(1000, func() {
			_, _ = syscall.Write(p[1], out)
			l.event(&event) // serves, until the task parks
			for w := range l.workers {
				if w.t != nil {
					w.t.Wake()
				}
			}
			l.read()
			_, _ = syscall.Read(p[1], in)
		}); n != 0 {
			t.Errorf("%v allocations for a turn", n)
		}
	})
}

func TestWheel(t *testing.T) {
	var w wheel
	var now int64
	fired := map[int]int64{}
	timers := make([]timer, 300)
	due := map[int]int64{}
	owners := make([]owner, len(timers))
	for i := range owners {
		owners[i] = owner{i, fired}
		timers[i].owner = &owners[i]
	}
	step := func(d int64) {
		now += d
		w.advance(now)
		for i, at := range due {
			if got, ok := fired[i]; ok {
				if got < at {
					t.Fatalf("timer %d fired at %d, before %d", i, got, at)
				}
				delete(due, i)
				delete(fired, i)
			} else if at+2<<tickBits <= now {
				t.Fatalf("timer %d is due at %d and has not fired at %d", i, at, now)
			}
		}
		if len(fired) > 0 {
			t.Fatalf("fired and not due: %v", fired)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		i := random.IntN(len(timers))
		switch random.IntN(4) {
		case 0:
			w.disarm(&timers[i])
			delete(due, i)
		default:
			if !timers[i].on {
				at := now + random.Int64N(int64(3*time.Second))
				w.arm(&timers[i], at)
				due[i] = at
			} else if at := timers[i].at - random.Int64N(1<<28); at > now { // earlier
				w.arm(&timers[i], at)
				due[i] = at
			}
		}
		if ms := w.wait(now); len(due) == 0 && ms != -1 || len(due) > 0 && (ms < 0 || int64(ms)*1_000_000 > wheelSlots<<tickBits) {
			t.Fatalf("waits %d ms for %d timers", ms, len(due))
		} else if ms > 0 && random.IntN(4) == 0 { // sleeping as long as it says misses nothing
			step(int64(ms) * 1_000_000)
			continue
		}
		step(random.Int64N(1 << 23))
	}
	step(int64(time.Minute))
	if w.n != 0 || len(due) != 0 {
		t.Error(w.n, len(due), "timers left")
	}
}

// owner notes when a timer fires.
type owner struct {
	i     int
	fired map[int]int64
}

func (o *owner) expire(now int64) {
	if _, twice := o.fired[o.i]; twice {
		panic(fmt.Sprint("timer ", o.i, " fired twice"))
	}
	o.fired[o.i] = now
}

// Many tasks that compute, and yield now and then, do not make the others wait for a turn of each of them.
func TestComputingTasksTakeTurns(t *testing.T) {
	e := coroutinesFor(t, Options{Loops: 1})
	const many, turn = 100, 200 * time.Microsecond
	var stop atomic.Bool
	var turns atomic.Int64
	var group sync.WaitGroup
	for range many {
		group.Add(1)
		e.Go(func(task loam.Task) {
			defer group.Done()
			for !stop.Load() {
				for began := time.Now(); time.Since(began) < turn; {
				}
				turns.Add(1)
				task.Yield()
			}
		})
	}
	most := make(chan int64)
	e.Go(func(task loam.Task) {
		var worst int64
		for range 20 {
			before := turns.Load()
			_ = task.Park(time.Now().Add(time.Millisecond)) // it ends at its deadline
			worst = max(worst, turns.Load()-before)
		}
		stop.Store(true)
		most <- worst
	})
	// The timer has a resolution of a millisecond or two, in which ten turns have room.
	if n := <-most; n > many/2 {
		t.Errorf("%d turns of others in a wait of a millisecond", n)
	}
	group.Wait()
}
