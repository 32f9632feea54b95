package loop

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// Small writes of a turn go out together, before whatever comes after them on their connection, also where its peer has
// no room for them.
func TestNotesComeThroughInOrder(t *testing.T) {
	random := rand.NewChaCha8([32]byte{5})
	small, large := make([]byte, 48<<10), make([]byte, 200<<10)
	_, _ = random.Read(small) // it does not fail
	_, _ = random.Read(large)
	address := upstream(t, func(c *net.TCPConn) { _, _ = c.Write(large) })
	write := func(t *testing.T, c Conn, p []byte) {
		if n, err := c.Write(p); n != len(p) || err != nil {
			t.Error("written", n, err)
		}
	}
	for name, after := range map[string]struct {
		do   func(*testing.T, loam.Task, Conn) Verdict
		more []byte
	}{
		"close":   {do: func(*testing.T, loam.Task, Conn) Verdict { return Close }},
		"release": {do: func(*testing.T, loam.Task, Conn) Verdict { return Idle }},
		"close write": {do: func(t *testing.T, _ loam.Task, c Conn) Verdict {
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			return Idle
		}},
		"write": {more: large, do: func(t *testing.T, _ loam.Task, c Conn) Verdict {
			write(t, c, large)
			return Close
		}},
		"relay": {more: large, do: func(t *testing.T, task loam.Task, c Conn) Verdict {
			up, err := Dial(task, "tcp", address, task.Now().Add(2*time.Minute))
			if err != nil {
				t.Error(err)
				return Close
			}
			Relay{A: c, B: up}.Start(task)
			return Handed
		}},
	} {
		for _, narrow := range []bool{false, true} {
			t.Run(map[bool]string{false: name, true: name + " with a debt"}[narrow], func(t *testing.T) {
				e := coroutinesFor(t, Options{Loops: 1})
				read := make(chan struct{})
				first := true
				ln := serve(t, e, func(task loam.Task, c Conn) Verdict {
					if !first {
						return Close
					}
					first = false
					own := c.(*conn)
					if narrow {
						if err := syscall.SetsockoptInt(int(own.fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 1); err != nil {
							t.Error(err)
						}
					}
					if _, err := c.Read(make([]byte, 1)); err != nil {
						t.Error(err)
					}
					own.l.more = true // as if there were other events in this turn
					for p := small; len(p) > 0; p = p[1<<10:] {
						write(t, c, p[:1<<10])
					}
					own.l.more = false
					if own.flags&noted == 0 {
						t.Error("what is little was written at once")
					}
					if narrow && own.clear() {
						t.Error("all had room")
					}
					close(read)
					return after.do(t, task, c)
				})
				c, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if narrow {
					if err := c.(*net.TCPConn).SetReadBuffer(8 << 10); err != nil {
						t.Fatal(err)
					}
				}
				_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				<-read
				want := append(append([]byte(nil), small...), after.more...)
				got := make([]byte, len(want))
				if n, err := io.ReadFull(c, got); err != nil {
					t.Fatalf("%d bytes: %v", n, err)
				}
				if !bytes.Equal(got, want) {
					t.Error("other bytes")
				}
				if err := c.(*net.TCPConn).CloseWrite(); err != nil {
					t.Error(err)
				}
				if n, err := c.Read(got); n > 0 || !errors.Is(err, io.EOF) {
					t.Error("at the end:", n, err)
				}
			})
		}
	}
}

// Who waits for an answer to what could not be sent learns that nobody is there.
func TestNoteToNobody(t *testing.T) {
	e := coroutinesFor(t, Options{Loops: 1})
	gone := make(chan error, 1)
	ln := serve(t, e, func(task loam.Task, c Conn) Verdict {
		own := c.(*conn)
		_, _ = c.Read(make([]byte, 1))
		if err := syscall.Shutdown(int(own.fd), syscall.SHUT_WR); err != nil {
			t.Error(err)
		}
		own.l.more = true
		_, err := c.Write([]byte("y"))
		own.l.more = false
		if err == nil {
			err = c.Ready()
		}
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		gone <- err
		return Close
	})
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	c.Close()
	if err := <-gone; err == nil {
		t.Error("no error")
	}
}
