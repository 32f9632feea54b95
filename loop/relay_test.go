package loop

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// carriage is what Done of a relay was told.
type carriage struct{ aToB, bToA int64 }

// upstream is a server of the net package's; fn has each connection.
func upstream(t *testing.T, fn func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
				fn(c.(*net.TCPConn))
			})
		}
	})
	return ln.Addr().String()
}

// echoAll sends everything back, and ends when the peer has.
func echoAll(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c)
}

// tunnel listens for connections that it relays to address. The first five bytes are read beforehand.
func tunnel(t *testing.T, e Engine, address string, idle time.Duration, wrap func(loam.Task, Conn) (io.ReadWriteCloser, error)) (Listener, chan carriage) {
	t.Helper()
	done := make(chan carriage, 1024)
	return serve(t, e, func(t loam.Task, c Conn) Verdict {
		a, err := wrap(t, c)
		if err != nil {
			return Close
		}
		early := make([]byte, 5)
		if _, err := io.ReadFull(a, early); err != nil {
			return Close
		}
		b, err := Dial(t, "tcp", address, t.Now().Add(2*time.Minute))
		if err != nil {
			return Close
		}
		Relay{A: a, B: b, FromA: early, Idle: idle, Tag: "a tunnel", Done: func(x, y int64) { done <- carriage{x, y} }}.Start(t)
		return Handed
	}), done
}

func plain(_ loam.Task, c Conn) (io.ReadWriteCloser, error) { return c, nil }

// hidden is a connection the engine knows nothing of.
type hidden struct{ io.ReadWriteCloser }

func (h hidden) CloseWrite() error { return h.ReadWriteCloser.(Conn).CloseWrite() }

func TestRelay(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		for name, wrap := range map[string]func(loam.Task, Conn) (io.ReadWriteCloser, error){
			"plain":  plain,
			"hidden": func(_ loam.Task, c Conn) (io.ReadWriteCloser, error) { return hidden{c}, nil },
		} {
			ln, done := tunnel(t, e, upstream(t, echoAll), time.Minute, wrap)
			c := dial(t, ln).(*net.TCPConn)
			want(t, c, "hello")
			if n := e.Relays(); name == "plain" && n != 1 {
				t.Error(n, "relays")
			}
			sent := make([]byte, 8<<20)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(sent)
			go func() {
				_, _ = c.Write(sent)
				_ = c.CloseWrite() // goes through to the server, which ends then
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(sent), err)
			}
			c.Close()
			if d := recv(t, done); d != (carriage{8<<20 + 5, 8<<20 + 5}) {
				t.Error(name, d)
			}
			until(t, "no relay is left", func() bool { return e.Relays() == 0 })
			until(t, "the connection is counted out", func() bool { return ln.Connections() == 0 })
		}
	})
}

// The end of the server's direction reaches the client, which may go on talking.
func TestRelayHalfCloseByServer(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		got := make(chan string, 1)
		ln, done := tunnel(t, e, upstream(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 5))
			_, _ = c.Write([]byte("farewell"))
			_ = c.CloseWrite()
			b, _ := io.ReadAll(c)
			got <- string(b)
		}), time.Minute, plain)
		c := dial(t, ln).(*net.TCPConn)
		_, _ = c.Write([]byte("hello"))
		if b, err := io.ReadAll(c); err != nil || string(b) != "farewell" {
			t.Errorf("%q %v", b, err)
		}
		_, _ = c.Write([]byte("and this"))
		_ = c.CloseWrite()
		if s := recv(t, got); s != "and this" {
			t.Errorf("%q", s)
		}
		if d := recv(t, done); d != (carriage{13, 8}) {
			t.Error(d)
		}
	})
}

func TestRelayReset(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ended := make(chan error, 1)
		ln, done := tunnel(t, e, upstream(t, func(c *net.TCPConn) {
			_, err := io.Copy(io.Discard, c)
			ended <- err
		}), time.Minute, plain)
		c := dial(t, ln).(*net.TCPConn)
		_, _ = c.Write([]byte("hello"))
		until(t, "the relay is there", func() bool { return e.Relays() == 1 })
		_ = c.SetLinger(0)
		c.Close()
		recv(t, ended)
		recv(t, done)
	})
}

func TestRelayIdle(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		for _, wrap := range []func(loam.Task, Conn) (io.ReadWriteCloser, error){
			plain, func(_ loam.Task, c Conn) (io.ReadWriteCloser, error) { return struct{ Conn }{c}, nil },
		} {
			ln, done := tunnel(t, e, upstream(t, echoAll), 100*time.Millisecond, wrap)
			c := dial(t, ln)
			for range 3 {
				want(t, c, "hello")
			}
			ended(t, c)
			recv(t, done)
		}
	})
}

// A reader that is slow holds the sender up: what is under way stays within bounds, and nothing is lost.
func TestRelaySlowReader(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		const total = 32 << 20
		sum := make(chan []byte, 1)
		wrote := make(chan int, 1)
		ln, done := tunnel(t, e, upstream(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 5))
			h, src := sha256.New(), rand.NewChaCha8([32]byte{2})
			_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			b, n := make([]byte, 64<<10), 0
			for n < total {
				_, _ = src.Read(b)
				m, err := c.Write(b)
				if err != nil { // it is held up
					wrote <- n + m
					_ = c.SetWriteDeadline(time.Now().Add(2 * time.Minute))
					_, _ = c.Write(b[m:])
				}
				n += len(b)
				h.Write(b)
			}
			sum <- h.Sum(nil)
		}), time.Minute, plain)
		c := dial(t, ln)
		_, _ = c.Write([]byte("hello"))
		if n := recv(t, wrote); n >= total {
			t.Error("nobody was held up")
		}
		h := sha256.New()
		if n, err := io.Copy(h, c); n != total || err != nil {
			t.Error(n, err)
		}
		c.Close()
		recv(t, done)
		if !bytes.Equal(h.Sum(nil), recv(t, sum)) {
			t.Error("what came is not what was sent")
		}
	})
}

// A relay goes from engine to engine, of both kinds, while bytes are under way in it.
func TestFreezeThaw(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		others := []Engine{e}
		for _, portable := range []bool{false, true} {
			o := New(Options{Goroutines: portable, Loops: 2})
			defer o.Close()
			others = append(others, o)
		}
		ln, _ := tunnel(t, e, upstream(t, echoAll), time.Minute, plain)
		const n, size = 8, 4 << 20
		var clients sync.WaitGroup
		var trickle sync.WaitGroup
		stop := make(chan struct{})
		for i := range n {
			c := dial(t, ln).(*net.TCPConn)
			want(t, c, "hello")
			sent := make([]byte, size)
			_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(sent)
			trickle.Go(func() {
				for p := sent; len(p) > 0; { // all the while
					m := min(len(p), size/64)
					if _, err := c.Write(p[:m]); err != nil {
						t.Error(err)
						return
					}
					if p = p[m:]; len(p) == m {
						<-stop
					}
				}
				_ = c.CloseWrite()
			})
			clients.Go(func() {
				got, err := io.ReadAll(c)
				if err != nil || !bytes.Equal(got, sent) {
					t.Errorf("client %d: %d bytes of %d, %v", i, len(got), size, err)
				}
				c.Close()
			})
		}
		done := make(chan carriage, n)
		at := 0
		for round := range 12 {
			from, to := others[at], others[(at+1)%len(others)]
			at = (at + 1) % len(others)
			frozen := from.Freeze()
			if len(frozen) != n || from.Relays() != 0 {
				t.Fatalf("round %d: %d relays of %d, %d left", round, len(frozen), n, from.Relays())
			}
			for _, f := range frozen {
				if f.Tag != "a tunnel" || f.Idle != time.Minute || len(f.FromA) > MaxBuffer || len(f.FromB) > MaxBuffer {
					t.Errorf("%+v", f)
				}
				if err := to.Thaw(f, func(x, y int64) { done <- carriage{x, y} }); err != nil {
					t.Fatal(err)
				}
			}
		}
		close(stop)
		trickle.Wait()
		clients.Wait()
		for range n {
			if d := recv(t, done); d != (carriage{size + 5, size + 5}) {
				t.Error(d)
			}
		}
	})
}

// The end of one direction is remembered.
func TestFreezeHalfClosed(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		more := make(chan struct{})
		ln, _ := tunnel(t, e, upstream(t, func(c *net.TCPConn) {
			b, err := io.ReadAll(c)
			if err != nil {
				t.Error(err)
			}
			<-more
			_, _ = c.Write(b)
		}), time.Minute, plain)
		c := dial(t, ln).(*net.TCPConn)
		_, _ = c.Write([]byte("hello"))
		until(t, "the relay is there", func() bool { return e.Relays() == 1 })
		_ = c.CloseWrite()
		frozen := e.Freeze()
		if len(frozen) != 1 {
			t.Fatal(frozen)
		}
		if err := e.Thaw(frozen[0], nil); err != nil {
			t.Fatal(err)
		}
		close(more)
		if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
			t.Errorf("%q %v", b, err)
		}
	})
}

func TestThawFails(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		no := func() *os.File {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		if e.Thaw(Frozen{A: no(), B: no()}, nil) == nil {
			t.Error("no sockets, and no error")
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if err := e.Thaw(Frozen{A: no(), B: no()}, nil); err == nil {
			t.Error("a relay went on after Close")
		}
	})
}

// Sockets and idle connections change hands without a request being lost.
func TestHandOver(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		for _, portable := range []bool{false, true} {
			for _, loops := range []int{1, 3} {
				o := ListenOptions{Open: func(Conn) Session { return sessionFunc(echo) }}
				old := listen(t, e, o)
				next := New(Options{Goroutines: portable, Loops: loops})
				defer next.Close()

				var idle []net.Conn
				for range 10 {
					c := dial(t, old)
					want(t, c, "before")
					idle = append(idle, c)
				}
				stop := make(chan struct{})
				var others sync.WaitGroup
				for range 4 { // who comes meanwhile is served
					others.Go(func() {
						for {
							select {
							case <-stop:
								return
							default:
							}
							c, err := net.Dial("tcp", old.Addr().String())
							if err != nil {
								t.Error(err)
								return
							}
							_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
							_, _ = c.Write([]byte("x"))
							if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
								t.Error(err)
							}
							c.Close()
						}
					})
				}
				files, err := old.Files()
				if err != nil {
					t.Fatal(err)
				}
				opts := o
				opts.Files = files
				fresh, err := next.Listen(t.Context(), "tcp", "", opts)
				if err != nil {
					t.Fatal(err)
				}
				if err := old.Stop(); err != nil {
					t.Error(err)
				}
				if fresh.Addr().String() != old.Addr().String() {
					t.Error(fresh.Addr(), old.Addr())
				}
				close(stop)
				others.Wait()
				moved := 0
				for moved < len(idle) {
					before := moved
					old.Each(func(c Conn, _ Session) {
						f, err := c.File()
						if err == nil {
							moved++
							err = fresh.Adopt(f, 0)
						}
						if err != nil {
							t.Error(err)
						}
					})
					if moved == before {
						until(t, "the rest is idle", func() bool { return old.Connections() <= len(idle)-moved })
					}
				}
				until(t, "the old one has none", func() bool { return old.Connections() == 0 })
				for _, c := range idle {
					want(t, c, "after")
				}
				if fresh.Connections() < len(idle) {
					t.Error(fresh.Connections(), "connections")
				}
			}
		}
	})
}

// A connection that a task has is not handed over.
func TestFileOfBusy(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		result := make(chan error, 1)
		ln := serve(t, e, func(t loam.Task, c Conn) Verdict {
			f, err := c.File()
			if err == nil {
				f.Close()
			}
			result <- err
			return Close
		})
		_, _ = dial(t, ln).Write([]byte("x"))
		if err := recv(t, result); loam.CodeOf(err) != loam.FailedPrecondition {
			t.Error(err)
		}
	})
}

// What was lost cannot come back, but what is there must.
func TestAdoptFails(t *testing.T) {
	engines(t, func(t *testing.T, e Engine) {
		ln := serve(t, e, echo)
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		if err := ln.Adopt(f, 0); err == nil {
			t.Error("a file that is no socket was adopted")
		}
		if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
			t.Error("the file is open")
		}
	})
}
