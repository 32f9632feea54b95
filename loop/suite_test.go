package loop

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// journal keeps what an engine has logged.
type journal struct {
	mu sync.Mutex
	b  strings.Builder
	t  *testing.T
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) has(what string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Contains(j.b.String(), what)
}

// engines runs a test over each engine, closes it, and looks for descriptors that were left open.
func engines(t *testing.T, test func(t *testing.T, e Engine)) {
	t.Helper()
	loggingEngines(t, func(t *testing.T, e Engine, j *journal) {
		test(t, e)
		if j.has("panic") || j.has("Goexit") {
			t.Error("something broke:", j.b.String())
		}
	})
}

func loggingEngines(t *testing.T, test func(t *testing.T, e Engine, j *journal)) {
	t.Helper()
	for _, portable := range []bool{false, true} {
		if runtime.GOOS != "linux" && !portable {
			continue
		}
		t.Run(map[bool]string{false: "coroutines", true: "goroutines"}[portable], func(t *testing.T) {
			before := descriptors()
			t.Cleanup(func() { // after those of the test have closed its clients
				for deadline := time.Now().Add(2 * time.Minute); descriptors() > before; <-time.After(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Errorf("%d descriptors before, %d after", before, descriptors())
						return
					}
				}
			})
			j := &journal{t: t}
			e := New(Options{Goroutines: portable, Loops: 2, Log: slog.New(slog.NewTextHandler(j, nil))})
			t.Cleanup(func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, e, j)
		})
	}
}

// descriptors is how many sockets and the like the process has open.
func descriptors() (n int) {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // not Linux
	}
	for _, fd := range all {
		name, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && !strings.HasPrefix(name, "pipe:") { // the net package keeps pipes to splice with
			n++
		}
	}
	return n
}

// sessionFunc is a session made of a func.
type sessionFunc func(loam.Task, Conn) Verdict

func (f sessionFunc) Serve(t loam.Task, c Conn) Verdict { return f(t, c) }
func (sessionFunc) Close()                              {}

// closing is a session that tells when it was closed.
type closing struct {
	sessionFunc
	closed chan struct{}
}

func (s *closing) Close() { close(s.closed) }

// serve listens for f to serve.
func serve(t testing.TB, e Engine, f sessionFunc) Listener {
	t.Helper()
	return listen(t, e, ListenOptions{Open: func(Conn) Session { return f }})
}

func listen(t testing.TB, e Engine, o ListenOptions) Listener {
	t.Helper()
	ln, err := e.Listen(context.Background(), "tcp", "127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func dial(t testing.TB, ln Listener) net.Conn {
	t.Helper()
	c, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute)) // a test that hangs shall say where
	return c
}

// echo answers what comes in until there is nothing more.
func echo(t loam.Task, c Conn) Verdict {
	c.Poll(true)
	defer c.Poll(false)
	for {
		b := Borrow(t, 4<<10)
		n, err := c.Read(b.B)
		if n > 0 {
			_, err = c.Write(b.B[:n])
		}
		b.Free(t)
		switch {
		case errors.Is(err, ErrAgain):
			return Idle
		case err != nil:
			return Close
		}
	}
}

// want asks for an echo.
func want(t testing.TB, c net.Conn, say string) {
	t.Helper()
	if _, err := io.WriteString(c, say); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(say))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != say {
		t.Fatalf("%q %v, want %q", b, err, say)
	}
}

// ended waits for the end of a connection.
func ended(t testing.TB, c net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(c); os.IsTimeout(err) || len(b) > 0 {
		t.Fatalf("%q %v, want the end", b, err)
	}
}

// recv waits for ch.
func recv[T any](t testing.TB, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(2 * time.Minute):
		t.Fatal("it did not happen")
	}
	return v
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
	}
}

// inTask runs fn in a task of e and returns what it does.
func inTask[T any](t testing.TB, e Engine, fn func(loam.Task) T) T {
	t.Helper()
	ch := make(chan T, 1)
	e.Go(func(t loam.Task) { ch <- fn(t) })
	return recv(t, ch)
}

func TestEcho(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, echo)
		c := dial(t, ln)
		for range 10 {
			want(t, c, "hello")
		}
		if n := ln.Connections(); n != 1 {
			t.Error(n, "connections")
		}
		c.Close()
		until(t, "the connection is counted out", func() bool { return ln.Connections() == 0 })
	})
}

func TestDial(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, echo)
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		for _, address := range []string{ln.Addr().String(), "localhost:" + port} {
			if err := inTask(t, e, func(t loam.Task) error {
				c, err := Dial(t, "tcp", address, t.Now().Add(2*time.Minute))
				if err != nil {
					return err
				}
				defer c.Close()
				if c.RemoteAddr().String() != ln.Addr().String() || c.LocalAddr().String() == "" {
					return errors.New("addresses " + c.RemoteAddr().String() + " and " + c.LocalAddr().String())
				}
				if _, err = c.Write([]byte("x")); err == nil {
					err = c.Ready()
				}
				if err == nil {
					_, err = c.Read(make([]byte, 10))
				}
				return err
			}); err != nil {
				t.Error(address, err)
			}
		}
	})
}

func TestDialFails(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		gone, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		gone.Close()
		full := fullListener(t)
		for _, c := range []struct {
			network, address string
			deadline         time.Duration
			want             string
		}{
			{"tcp", gone.Addr().String(), 10 * time.Second, "refused"},
			{"unix", t.TempDir() + "/nobody", 10 * time.Second, "no such file"},
			{"tcp", "127.0.0.1:nonsense", 10 * time.Second, "nonsense"},
			{"udp", "127.0.0.1:1", 10 * time.Second, "udp"},
			{"tcp", full, 50 * time.Millisecond, "timeout"},
		} {
			err := inTask(t, e, func(t loam.Task) error {
				c, err := Dial(t, c.network, c.address, t.Now().Add(c.deadline))
				if err == nil {
					c.Close()
				}
				return err
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: %v, want %q", c.network, c.address, err, c.want)
			}
			if c.address == full && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v is no deadline", err)
			}
		}
		dialing := make(chan loam.Task, 1)
		done := make(chan error, 1)
		e.Go(func(t loam.Task) {
			t.Context()
			dialing <- t
			_, err := Dial(t, "tcp", full, time.Time{})
			done <- err
		})
		recv(t, dialing).Cancel()
		if err := recv(t, done); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		results := make(chan error, 4)
		ln := serve(t, e, func(t loam.Task, c Conn) Verdict {
			b := make([]byte, 1<<20)
			_, _ = c.Read(b)
			_ = c.SetReadDeadline(t.Now().Add(10 * time.Millisecond))
			_, err := c.Read(b)
			results <- err
			results <- c.Ready()
			_ = c.SetReadDeadline(time.Time{})
			_ = c.SetWriteDeadline(t.Now().Add(50 * time.Millisecond))
			for err = nil; err == nil; {
				_, err = c.Write(b)
			}
			results <- err
			// A deadline is no end: the connection goes on.
			_ = c.SetDeadline(time.Time{})
			_, err = c.Read(b)
			results <- err
			return Close
		})
		c := dial(t, ln)
		_, _ = c.Write([]byte("x"))
		for i := range 3 {
			if err := recv(t, results); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("wait %d: %v", i, err)
			}
		}
		_, _ = c.Write([]byte("x"))
		if err := recv(t, results); err != nil {
			t.Error(err)
		}
	})
}

// A deadline that is set by another task counts for the wait that is under way.
func TestDeadlineMoves(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		result := make(chan error, 1)
		ln := serve(t, e, func(t loam.Task, c Conn) Verdict {
			_, _ = c.Read(make([]byte, 8))
			t.Go(func(loam.Task) { _ = c.SetReadDeadline(time.Now().Add(-time.Second)) })
			_, err := c.Read(make([]byte, 8))
			result <- err
			return Close
		})
		_, _ = dial(t, ln).Write([]byte("x"))
		if err := recv(t, result); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestPark(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		steps := make(chan error, 8)
		task := make(chan loam.Task, 1)
		e.Go(func(t loam.Task) {
			t.Wake()
			steps <- t.Park(time.Time{})                                      // the Wake came before
			steps <- t.Park(t.Now().Add(5 * time.Millisecond))                // nobody comes
			steps <- loam.Sleep(t, time.Millisecond)                          //
			child := t.Go(func(c loam.Task) { steps <- c.Park(time.Time{}) }) // canceled before it has begun
			child.Cancel()
			task <- t
			steps <- t.Park(time.Time{}) // woken from outside
			steps <- t.Park(time.Time{}) // canceled
			steps <- t.Park(time.Time{}) // for good
			_, err := Dial(t, "tcp", "127.0.0.1:1", time.Time{})
			steps <- err
		})
		expect := func(want error) {
			t.Helper()
			if err := recv(t, steps); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		expect(nil)
		expect(os.ErrDeadlineExceeded)
		expect(nil)
		other := recv(t, task)
		expect(context.Canceled)
		other.Wake()
		expect(nil)
		other.Cancel()
		expect(context.Canceled)
		expect(context.Canceled)
		expect(context.Canceled)
	})
}

func TestContext(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		tasks := make(chan loam.Task, 1)
		inside := make(chan error, 1)
		var after context.Context
		e.Go(func(t loam.Task) {
			after = t.Context()
			tasks <- t
			t.Await(func() { // Cancel does not end it, but its context does
				<-t.Context().Done()
			})
			inside <- t.Park(time.Time{})
		})
		recv(t, tasks).Cancel()
		if err := recv(t, inside); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		ctx := inTask(t, e, func(t loam.Task) context.Context { return t.Context() })
		recv(t, ctx.Done()) // a context ends with its task
		recv(t, after.Done())
	})
}

// A task in Await leaves its loop to the others.
func TestAwait(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, echo)
		gate := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 { // on every loop
			wg.Add(1)
			e.Go(func(t loam.Task) {
				defer wg.Done()
				t.Await(func() { <-gate })
			})
		}
		for range 4 {
			want(t, dial(t, ln), "there is somebody")
		}
		close(gate)
		wg.Wait()
	})
}

// What runs within a task has a life of its own on the same loop, and ends before the task goes on.
func TestWithin(t *testing.T) {
	type key struct{}
	engines(t, func(t *testing.T, e Engine) {
		type seen struct {
			parked, canceled error
			value            any
			same, after      bool
			thrown           any
		}
		got := inTask(t, e, func(task loam.Task) (s seen) {
			ctx, cancel := context.WithCancel(context.WithValue(task.Context(), key{}, "mine"))
			ended := false
			task.Within(ctx, func(child loam.Task) {
				s.value = child.Context().Value(key{})
				s.same = child.Shard() == task.Shard()
				s.parked = child.Park(time.Now().Add(time.Millisecond))
				child.Await(cancel)
				s.canceled = child.Park(time.Time{})
				ended = true
			})
			s.after = ended
			func() {
				defer func() { s.thrown = recover() }()
				task.Within(task.Context(), func(loam.Task) { panic("out of it") })
			}()
			return s
		})
		if got.value != "mine" || !got.same || !got.after || !errors.Is(got.parked, os.ErrDeadlineExceeded) || !errors.Is(got.canceled, context.Canceled) {
			t.Errorf("%+v", got)
		}
		if got.thrown == nil {
			t.Error("a panic was lost")
		}
		// A Cancel of the task reaches what runs within by its context.
		tasks, err := make(chan loam.Task, 1), make(chan error, 1)
		e.Go(func(task loam.Task) {
			tasks <- task
			task.Within(task.Context(), func(child loam.Task) { err <- child.Park(time.Time{}) })
			err <- task.Park(time.Time{})
		})
		recv(t, tasks).Cancel()
		for range 2 {
			if err := recv(t, err); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}

func TestEach(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		var mu sync.Mutex
		seen := map[int]int{}
		e.Each(func(t loam.Task) {
			_ = loam.Sleep(t, time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			seen[t.Shard()]++
		})
		if len(seen) != e.Shards() {
			t.Errorf("%v of %d shards", seen, e.Shards())
		}
		for s, n := range seen {
			if n != 1 || s < 0 || s >= e.Shards() {
				t.Errorf("shard %d %d times", s, n)
			}
		}
	})
}

func TestIdleLimit(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		s := &closing{echo, make(chan struct{})}
		ln := listen(t, e, ListenOptions{Idle: 50 * time.Millisecond, Open: func(Conn) Session { return s }})
		c := dial(t, ln)
		want(t, c, "hello")
		ended(t, c) // the limit of Open holds on
		recv(t, s.closed)

		slow := serve(t, e, func(t loam.Task, c Conn) Verdict {
			_, _ = c.Read(make([]byte, 100))
			_ = loam.Sleep(t, 100*time.Millisecond) // who is served is not idle
			_, _ = c.Write([]byte("done"))
			c.Release(sessionFunc(echo), time.Millisecond)
			return Idle
		})
		c = dial(t, slow)
		_, _ = c.Write([]byte("x"))
		if b, err := io.ReadAll(c); err != nil || string(b) != "done" {
			t.Errorf("%q %v", b, err)
		}
	})
}

// A connection that nobody has keeps its session, and tells it once when it is closed.
func TestReleaseTake(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, echo)
		first := make(chan net.Conn, 8)
		speak := listen(t, e, ListenOptions{Open: func(c Conn) Session {
			return sessionFunc(func(t loam.Task, c Conn) Verdict { // says more than it was asked for
				_, _ = c.Read(make([]byte, 100))
				_, _ = c.Write([]byte("unasked"))
				return Handed
			})
		}})
		_ = first
		closed := make(chan struct{})
		served := make(chan struct{}, 1)
		if err := inTask(t, e, func(t loam.Task) error {
			c, err := Dial(t, "tcp", ln.Addr().String(), time.Time{})
			if err != nil {
				return err
			}
			s := &closing{func(loam.Task, Conn) Verdict { return Close }, closed}
			for range 100 {
				c.Release(s, time.Minute)
				if !c.Take(t) {
					return errors.New("an idle connection could not be taken")
				}
				if _, err := c.Write([]byte("x")); err != nil {
					return err
				}
				if n, err := c.Read(make([]byte, 10)); n != 1 {
					return err
				}
			}
			c.Release(s, time.Minute)
			if err := c.Close(); err != nil {
				return err
			}
			if c.Take(t) || c.Close() == nil {
				return errors.New("a closed connection was taken or closed")
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				return err
			}

			c, err = Dial(t, "tcp", speak.Addr().String(), time.Time{})
			if err != nil {
				return err
			}
			_, err = c.Write([]byte("x"))
			if err == nil {
				err = c.Ready()
			}
			if err != nil {
				return err
			}
			c.Release(sessionFunc(func(_ loam.Task, c Conn) Verdict {
				served <- struct{}{}
				return Close
			}), 0)
			if c.Take(t) {
				return errors.New("a connection with something to say was taken")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		recv(t, closed)
		recv(t, served)
	})
}

// When the peer leaves while its request is served, the task is canceled.
func TestClientGone(t *testing.T) {
	for _, how := range []string{"end", "reset"} {
		t.Run(how, func(t *testing.T) {
			engines(t, func(t *testing.T, e Engine) {
				got := make(chan error, 1)
				begun := make(chan struct{})
				ln := serve(t, e, func(t loam.Task, c Conn) Verdict {
					_, _ = c.Read(make([]byte, 100))
					close(begun)
					got <- t.Park(time.Time{})
					return Close
				})
				c := dial(t, ln)
				_, _ = c.Write([]byte("a request"))
				recv(t, begun)
				if how == "reset" {
					_ = c.(*net.TCPConn).SetLinger(0)
				}
				c.Close()
				if err := recv(t, got); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

// Who has sent more than was read yet is not gone when it ends its direction.
func TestHalfCloseWithBytesLeft(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, func(t loam.Task, c Conn) Verdict {
			b := make([]byte, 3)
			if n, err := c.Read(b); n != 3 || err != nil {
				return Close
			}
			if err := loam.Sleep(t, 20*time.Millisecond); err != nil {
				return Close
			}
			rest, err := io.ReadAll(c)
			if err != nil {
				return Close
			}
			_, _ = c.Write(append(b, rest...))
			return Close
		})
		c := dial(t, ln)
		_, _ = c.Write([]byte("abcdef"))
		_ = c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != "abcdef" {
			t.Errorf("%q %v", b, err)
		}
	})
}

func TestMaxConnections(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := listen(t, e, ListenOptions{MaxConnections: 3, Open: func(Conn) Session { return sessionFunc(echo) }})
		var open []net.Conn
		for range 3 {
			c := dial(t, ln)
			want(t, c, "hello")
			open = append(open, c)
		}
		var more []net.Conn
		for range 3 {
			c := dial(t, ln) // the kernel takes it
			_, _ = c.Write([]byte("later"))
			more = append(more, c)
		}
		if n := ln.Connections(); n != 3 {
			t.Error(n, "connections")
		}
		for i, c := range more {
			open[i].Close()
			_ = i
			_ = c
		}
		for _, c := range more {
			b := make([]byte, 5)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != "later" {
				t.Errorf("%q %v", b, err)
			}
		}
	})
}

// A second engine, as a second process would, is refused the port and the path.
func TestAddressInUse(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		path := t.TempDir() + "/socket"
		o := ListenOptions{Open: func(Conn) Session { return sessionFunc(echo) }}
		ln := listen(t, e, o)
		unix, err := e.Listen(context.Background(), "unix", path, o)
		if err != nil {
			t.Fatal(err)
		}
		want(t, dial(t, unix), "by unix")
		for _, a := range []net.Addr{ln.Addr(), unix.Addr()} {
			for _, portable := range []bool{false, true} {
				other := New(Options{Goroutines: portable, Loops: 2})
				if _, err := other.Listen(context.Background(), a.Network(), a.String(), o); loam.CodeOf(err) != loam.AlreadyExists || loam.HintOf(err) == "" {
					t.Errorf("%s: %v", a, err)
				}
				if err := other.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		if err := unix.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket is left")
		}
		// What a process left behind that was killed is no obstacle.
		dead, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		dead.(*net.UnixListener).SetUnlinkOnClose(false)
		dead.Close()
		if unix, err = e.Listen(context.Background(), "unix", path, o); err != nil {
			t.Fatal(err)
		}
		want(t, dial(t, unix), "again")
		if err := os.WriteFile(path+".file", []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Listen(context.Background(), "unix", path+".file", o); err == nil {
			t.Error("a file was replaced by a socket")
		}
	})
}

// Close ends every kind of wait.
func TestClose(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, echo)
		silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes what comes
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		const each = 20
		errs := make(chan error, 10*each)
		var begun sync.WaitGroup
		wait := func(fn func(t loam.Task) error) {
			for range each {
				begun.Add(1)
				e.Go(func(t loam.Task) {
					begun.Done()
					errs <- fn(t)
				})
			}
		}
		wait(func(t loam.Task) error { return t.Park(time.Time{}) })
		wait(func(t loam.Task) error { return loam.Sleep(t, time.Hour) })
		wait(func(t loam.Task) error {
			c, err := Dial(t, "tcp", silent.Addr().String(), time.Time{})
			if err == nil {
				_, err = c.Read(make([]byte, 1))
			}
			return err
		})
		wait(func(t loam.Task) error {
			c, err := Dial(t, "tcp", silent.Addr().String(), time.Time{})
			for b := make([]byte, 1<<16); err == nil; {
				_, err = c.Write(b)
			}
			return err
		})
		wait(func(t loam.Task) error {
			ctx := t.Context()
			t.Await(func() { <-ctx.Done() })
			return t.Park(time.Time{})
		})
		var clients []net.Conn
		for range each {
			c := dial(t, ln)
			want(t, c, "hello")
			clients = append(clients, c)
		}
		begun.Wait()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		for range 5 * each {
			if err := recv(t, errs); !errors.Is(err, ErrStopped) {
				t.Error(err)
			}
		}
		for _, c := range clients {
			ended(t, c)
		}
		if ln.Connections() != 0 {
			t.Error(ln.Connections(), "connections left")
		}
		e.Go(func(loam.Task) { t.Error("a task ran after Close") })
		e.Each(func(loam.Task) { t.Error("a task ran after Close") })
		if _, err := e.Listen(context.Background(), "tcp", "127.0.0.1:0", ListenOptions{}); !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
	})
}

// Peers of the worst sort, all at once, while others are served, and the engine stops in the middle of it.
func TestStress(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, func(t loam.Task, c Conn) Verdict {
			done := t.Now().Add(time.Minute)
			other := t.Go(func(o loam.Task) {
				_ = o.Park(done)
				o.Yield()
				t.Wake()
			})
			go other.Wake() // from another thread
			_ = c.SetDeadline(done)
			v := echo(t, c)
			_ = t.Park(t.Now().Add(time.Millisecond))
			if v == Idle {
				c.Release(sessionFunc(echo), time.Minute)
			}
			return v
		})
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for j := range 30 {
					c, err := net.Dial("tcp", ln.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
					switch (i + j) % 5 {
					case 0: // reset with bytes under way
						_, _ = c.Write(make([]byte, 1<<16))
						_ = c.(*net.TCPConn).SetLinger(0)
					case 1: // says nothing
					case 2: // half-close
						_, _ = c.Write([]byte("bye"))
						_ = c.(*net.TCPConn).CloseWrite()
						_, _ = io.ReadAll(c)
					case 3: // byte by byte
						for range 5 {
							_, _ = c.Write([]byte("x"))
							_, _ = c.Read(make([]byte, 1))
						}
					default:
						_, _ = c.Write([]byte("hello"))
						b := make([]byte, 5)
						if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
							t.Errorf("%q %v", b, err)
						}
					}
					c.Close()
				}
			}()
		}
		wg.Wait()
		until(t, "every connection is closed", func() bool { return ln.Connections() == 0 })
		for i := range 50 { // and some that the end of the engine meets
			c := dial(t, ln)
			if i%2 == 0 {
				_, _ = c.Write([]byte("hello"))
			}
		}
	})
}

// Close meets connections at the moment they are released.
func TestCloseMeetsRelease(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes what comes
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	engines(t, func(t *testing.T, e Engine) {
		for range 100 {
			e := New(Options{Goroutines: e.Shards() == 1, Loops: 1})
			released := make(chan struct{})
			e.Go(func(t loam.Task) {
				defer close(released)
				if c, err := Dial(t, "tcp", silent.Addr().String(), time.Time{}); err == nil {
					c.Release(sessionFunc(echo), time.Hour)
				}
			})
			recv(t, released)
			closed := make(chan error, 1)
			go func() { closed <- e.Close() }()
			if err := recv(t, closed); err != nil {
				t.Error(err)
			}
		}
	})
}

// A task that is no engine's dials and keeps connections too: those of shard 0.
func TestForeignTask(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, echo)
		task, end := loam.NewTask(t.Context())
		defer end()
		c, err := Dial(task, "tcp", ln.Addr().String(), time.Now().Add(2*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		s := &closing{func(loam.Task, Conn) Verdict { return Close }, make(chan struct{})}
		for range 10 {
			want(t, c, "hello")
			c.Release(s, time.Minute)
			if !c.Take(task) {
				t.Fatal("it could not be taken")
			}
		}
		c.Release(s, time.Minute)
		if err := ln.Stop(); err != nil {
			t.Error(err)
		}
		ln.Cut() // the other end, be it served at this moment or not
		recv(t, s.closed)

		if c, err = Dial(task, "tcp", serve(t, e, echo).Addr().String(), time.Time{}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		time.AfterFunc(10*time.Millisecond, task.Cancel)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
