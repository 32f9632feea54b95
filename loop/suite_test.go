package loop

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// engines runs a test over each engine.
func engines(t *testing.T, test func(t *testing.T, e Engine)) {
	t.Helper()
	for _, portable := range []bool{false, true} {
		name := map[bool]string{false: "coroutines", true: "goroutines"}[portable]
		t.Run(name, func(t *testing.T) {
			e := New(Options{Goroutines: portable, Loops: 2, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
			defer func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}()
			test(t, e)
		})
	}
}

// sessionFunc is a session made of a func.
type sessionFunc func(loam.Task, Conn) Verdict

func (f sessionFunc) Serve(t loam.Task, c Conn) Verdict { return f(t, c) }
func (sessionFunc) Close()                              {}

// serve listens for f to serve, and returns the address.
func serve(t *testing.T, e Engine, f sessionFunc) Listener {
	t.Helper()
	return listen(t, e, ListenOptions{Open: func(Conn) Session { return f }})
}

func listen(t *testing.T, e Engine, o ListenOptions) Listener {
	t.Helper()
	ln, err := e.Listen(context.Background(), "tcp", "127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func dial(t *testing.T, ln Listener) net.Conn {
	t.Helper()
	c, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // a test that hangs shall say where
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
func want(t *testing.T, c net.Conn, say string) {
	t.Helper()
	if _, err := io.WriteString(c, say); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(say))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != say {
		t.Fatalf("%q %v, want %q", b, err, say)
	}
}

func TestEcho(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, echo)
		c := dial(t, ln)
		for range 10 {
			want(t, c, "hello")
		}
		done := make(chan error, 1)
		e.Go(func(t loam.Task) {
			c, err := Dial(t, "tcp", ln.Addr().String(), time.Now().Add(5*time.Second))
			if err == nil {
				_, err = c.Write([]byte("x"))
				if err == nil {
					err = c.Ready()
				}
				if err == nil {
					_, err = c.Read(make([]byte, 10))
				}
				c.Close()
			}
			done <- err
		})
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
