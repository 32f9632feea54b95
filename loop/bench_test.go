//go:build linux

package loop

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// onTask runs fn in a task of an engine of its own.
func onTask(b *testing.B, portable bool, fn func(t loam.Task)) {
	e := New(Options{Goroutines: portable, Loops: 1})
	defer e.Close()
	done := make(chan struct{})
	e.Go(func(t loam.Task) {
		defer close(done)
		fn(t)
	})
	<-done
}

// BenchmarkYield is a switch to the loop and back, with a look at the sockets.
func BenchmarkYield(b *testing.B) {
	b.ReportAllocs()
	onTask(b, false, func(t loam.Task) {
		for b.Loop() {
			t.Yield()
		}
	})
}

// BenchmarkSwitch is the switch alone: resume and yield.
func BenchmarkSwitch(b *testing.B) {
	e, err := newSwitch()
	if err != nil {
		b.Fatal(err)
	}
	defer e.close()
	b.ReportAllocs()
	e.do(func(next func()) {
		for b.Loop() {
			next()
		}
	})
}

// BenchmarkParkWake is two tasks of one loop that wake each other; BenchmarkParkWakeDeadline waits with a deadline.
func BenchmarkParkWake(b *testing.B)         { parkWake(b, 0) }
func BenchmarkParkWakeDeadline(b *testing.B) { parkWake(b, 15*time.Second) }

func parkWake(b *testing.B, limit time.Duration) {
	for _, portable := range []bool{false, true} {
		b.Run(map[bool]string{false: "coroutines", true: "goroutines"}[portable], func(b *testing.B) {
			b.ReportAllocs()
			onTask(b, portable, func(t loam.Task) {
				over := false
				deadline := func(t loam.Task) (d time.Time) {
					if limit > 0 {
						d = t.Now().Add(limit)
					}
					return
				}
				other := t.Go(func(o loam.Task) {
					for !over {
						if o.Park(deadline(o)) != nil {
							return
						}
						t.Wake()
					}
				})
				for b.Loop() {
					other.Wake()
					if t.Park(deadline(t)) != nil {
						return
					}
				}
				over = true
				other.Cancel()
			})
		})
	}
}

// BenchmarkEcho is a byte there and back over loopback TCP, by one connection.
func BenchmarkEcho(b *testing.B) {
	for _, portable := range []bool{false, true} {
		b.Run(map[bool]string{false: "coroutines", true: "goroutines"}[portable], func(b *testing.B) {
			e := New(Options{Goroutines: portable, Loops: 1})
			defer e.Close()
			c := benchDial(b, e)
			defer c.Close()
			p := make([]byte, 1)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(p); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Read(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEchoInside is the same with the client on the same loop: what the engine itself costs.
func BenchmarkEchoInside(b *testing.B) {
	e := New(Options{Loops: 1})
	defer e.Close()
	ln, err := e.Listen(b.Context(), "tcp", "127.0.0.1:0", ListenOptions{Open: func(Conn) Session { return sessionFunc(echo) }})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error)
	b.ReportAllocs()
	e.Go(func(t loam.Task) {
		c, err := Dial(t, "tcp", ln.Addr().String(), time.Time{})
		p := make([]byte, 1)
		if err == nil {
			for b.Loop() {
				_ = c.SetReadDeadline(t.Now().Add(15 * time.Second))
				if _, err = c.Write(p); err == nil {
					_, err = c.Read(p)
				}
				if err != nil {
					break
				}
			}
			c.Close()
		}
		done <- err
	})
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

func benchDial(b *testing.B, e Engine) net.Conn {
	ln, err := e.Listen(b.Context(), "tcp", "127.0.0.1:0", ListenOptions{Open: func(Conn) Session { return sessionFunc(echo) }})
	if err != nil {
		b.Fatal(err)
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkIdle is how many bytes of heap an idle connection costs, the client's side left out.
func BenchmarkIdle(b *testing.B) {
	e := New(Options{Loops: 1})
	defer e.Close()
	s := sessionFunc(echo)
	ln, err := e.Listen(b.Context(), "tcp", "127.0.0.1:0", ListenOptions{Open: func(Conn) Session { return s }, Idle: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	const n = 4000
	heap := func() (m runtime.MemStats) {
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return
	}
	fds := make([]int, 0, n)
	defer func() {
		for _, fd := range fds {
			closeFd(fd)
		}
	}()
	before := heap()
	for len(fds) < n {
		fd, err := rawDial(ln.Addr())
		if err != nil {
			b.Fatal(err)
		}
		fds = append(fds, fd)
	}
	for ln.Connections() < n {
		runtime.Gosched()
	}
	after := heap()
	for b.Loop() {
		runtime.Gosched()
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/conn")
}
