package loop

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// Trap 3: neither a panic nor a Goexit leaves its task.
func TestTrapPanicAndGoexit(t *testing.T) {
	loggingEngines(t, func(t *testing.T, e Engine, j *journal) {
		ln := serve(t, e, func(t loam.Task, c Conn) Verdict {
			b := make([]byte, 20)
			n, _ := c.Read(b)
			switch string(b[:n]) {
			case "panic":
				panic("a bad handler")
			case "later":
				_ = loam.Sleep(t, time.Millisecond)
				_ = b[n:n][n]
			case "goexit":
				runtime.Goexit()
			case "await":
				t.Await(func() { panic("a bad call") })
			case "awaitexit":
				t.Await(runtime.Goexit)
			case "child":
				t.Go(func(loam.Task) { panic("a bad child") })
				t.Go(func(loam.Task) { runtime.Goexit() })
				_, _ = c.Write([]byte("fine"))
			default:
				_, _ = c.Write(b[:n])
				return Idle
			}
			return Close
		})
		good := dial(t, ln)
		for range 20 {
			for _, how := range []string{"panic", "later", "goexit", "await", "awaitexit"} {
				c := dial(t, ln)
				_, _ = c.Write([]byte(how))
				ended(t, c)
				want(t, good, "others live")
			}
			c := dial(t, ln)
			_, _ = c.Write([]byte("child"))
			if b, err := io.ReadAll(c); err != nil || string(b) != "fine" {
				t.Errorf("%q %v", b, err)
			}
		}
		e.Go(func(loam.Task) { panic("from outside") })
		until(t, "all of it is logged", func() bool {
			return j.has("a bad handler") && j.has("out of range") && j.has("a bad call") && j.has("a bad child") && j.has("from outside") &&
				j.has("traps_test.go")
		})
		until(t, "the bad connections are closed", func() bool { return ln.Connections() == 1 })
	})
}

// Trap 4: of several wakes at once, one ends a wait, and none of the others ends a later one for its own reason.
func TestTrapTwoWakes(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, echo)
		var timeouts, ready, canceled atomic.Int64
		var wg sync.WaitGroup
		for range 200 {
			wg.Add(1)
			e.Go(func(t loam.Task) {
				defer wg.Done()
				c, err := Dial(t, "tcp", ln.Addr().String(), time.Time{})
				if err != nil {
					return
				}
				child := make(chan struct{})
				other := t.Go(func(o loam.Task) {
					defer close(child)
					// All at about the same time: bytes, the deadline, a Cancel, and the connection being closed.
					_ = c.SetReadDeadline(o.Now().Add(time.Millisecond))
					_, err := c.Read(make([]byte, 10))
					switch {
					case err == nil:
						ready.Add(1)
					case errors.Is(err, os.ErrDeadlineExceeded):
						timeouts.Add(1)
					}
					if err := o.Park(time.Time{}); errors.Is(err, context.Canceled) { // neither ready nor closed may end this
						canceled.Add(1)
					}
				})
				_, _ = c.Write([]byte("x"))
				_ = t.Park(t.Now().Add(time.Millisecond))
				c.Close()
				other.Cancel()
				t.Await(func() { <-child })
			})
		}
		wg.Wait()
		if canceled.Load() != 200 {
			t.Error(canceled.Load(), "of 200 waits ended with the Cancel that was for them")
		}
		t.Log(ready.Load(), "ready,", timeouts.Load(), "late")
	})
}

// Two tasks that wait for one direction: the second one fails, and the first one is not disturbed.
func TestBusy(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		if e.Shards() == 1 {
			return // goroutines queue for it
		}
		got := make(chan error, 2)
		ln := serve(t, e, func(t loam.Task, c Conn) Verdict {
			_, _ = c.Read(make([]byte, 8))
			t.Go(func(o loam.Task) {
				_, err := c.Read(make([]byte, 8))
				got <- err
				_, _ = c.Write([]byte("go on"))
			})
			_, err := c.Read(make([]byte, 8))
			got <- err
			return Close
		})
		c := dial(t, ln)
		_, _ = c.Write([]byte("x"))
		if err := recv(t, got); loam.CodeOf(err) != loam.FailedPrecondition {
			t.Error(err)
		}
		_, _ = io.ReadFull(c, make([]byte, 5))
		_, _ = c.Write([]byte("x"))
		if err := recv(t, got); err != nil {
			t.Error(err)
		}
	})
}

// A connection closed under those that wait for it.
func TestCloseUnderReader(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		got := make(chan error, 2)
		ln := serve(t, e, func(t loam.Task, c Conn) Verdict {
			_, _ = c.Read(make([]byte, 8))
			t.Go(func(loam.Task) {
				_, err := c.Read(make([]byte, 8))
				got <- err
			})
			t.Go(func(loam.Task) {
				var err error
				for b := make([]byte, 1<<20); err == nil; {
					_, err = c.Write(b)
				}
				got <- err
			})
			_ = loam.Sleep(t, 20*time.Millisecond)
			return Close
		})
		_, _ = dial(t, ln).Write([]byte("x"))
		for range 2 {
			if err := recv(t, got); !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	})
}

// Trap 8: a dropped coroutine is never collected. Close ends all: TestMain looks for what is left. Here: after a crowd,
// what a loop keeps of coroutines is let go.
func TestTrapParkedAreEnded(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		var ended atomic.Int64
		var begun sync.WaitGroup
		for range 1000 {
			begun.Add(1)
			e.Go(func(t loam.Task) {
				defer ended.Add(1)
				begun.Done()
				for {
					if err := t.Park(time.Time{}); err != nil {
						return
					}
				}
			})
		}
		begun.Wait()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if n := ended.Load(); n != 1000 {
			t.Errorf("%d of 1000 have ended", n)
		}
	})
}

// Trap 10: a task that computes for ever, giving way by the clock, leaves the loop to others; and the clock of its task
// goes on, or it could not be steered by it.
func TestTrapSlices(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, echo)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 * e.Shards() {
			wg.Add(1)
			e.Go(func(task loam.Task) {
				defer wg.Done()
				for {
					select {
					case <-stop:
						return
					default:
					}
					at := task.Now()
					for begin := time.Now(); time.Since(begin) < 200*time.Microsecond; {
					}
					task.Yield()
					if !task.Now().After(at) {
						t.Error("the clock stands still")
						return
					}
				}
			})
		}
		for range 8 {
			c := dial(t, ln)
			for range 10 {
				want(t, c, "hello")
			}
		}
		close(stop)
		wg.Wait()
	})
}

// A peer that is always ready does not keep the loop for itself.
func TestFairness(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		address := upstream(t, func(c *net.TCPConn) { // talks for ever
			for b := make([]byte, 1<<16); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		})
		ln := serve(t, e, echo)
		var wg sync.WaitGroup
		var stop atomic.Bool
		for range e.Shards() {
			wg.Add(1)
			e.Go(func(t loam.Task) {
				defer wg.Done()
				c, err := Dial(t, "tcp", address, time.Time{})
				if err != nil {
					return
				}
				defer c.Close()
				for b := make([]byte, 64); !stop.Load(); {
					if _, err := c.Read(b); err != nil {
						return
					}
				}
			})
		}
		for range 8 {
			want(t, dial(t, ln), "hello")
		}
		stop.Store(true)
		wg.Wait()
	})
}

// What engines log of a Goexit names the culprit.
func TestGoexitIsLogged(t *testing.T) {
	loggingEngines(t, func(t *testing.T, e Engine, j *journal) {
		if e.Shards() == 1 {
			return // a goroutine may end as it likes
		}
		e.Go(func(loam.Task) { runtime.Goexit() })
		until(t, "it is logged", func() bool { return j.has("Goexit") })
		if !strings.Contains(j.b.String(), "TestGoexitIsLogged") {
			t.Error(j.b.String())
		}
	})
}
