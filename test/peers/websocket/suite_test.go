package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// random is the same bytes each time, which do not compress.
func random(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func exchange(t *testing.T, c *websocket.Conn, kind websocket.MessageType, b []byte) {
	t.Helper()
	sent := make(chan error, 1)
	go func() { sent <- c.Write(t.Context(), kind, b) }() // a message may be larger than all that is on the way
	k, got, err := c.Read(t.Context())
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatalf("%d bytes: %v", len(b), err)
	}
	if k != kind || !bytes.Equal(got, b) {
		t.Fatalf("%d bytes of %v came back as %d of %v", len(b), kind, len(got), k)
	}
}

// The sizes of Autobahn's groups 1 and 9: each length that a frame writes in another way, and large ones.
func TestEcho(t *testing.T) {
	everywhere(t, echo, func(t *testing.T, w way) {
		c := dial(t, w, "/", nil)
		for _, n := range []int{0, 1, 125, 126, 127, 128, 4095, 4096, 16_383, 16_384, 16_385, 32_768, 65_535, 65_536, 65_537, 1 << 20, 1<<20 + 1, 16 << 20} {
			exchange(t, c, websocket.MessageBinary, random(n))
			exchange(t, c, websocket.MessageText, bytes.Repeat([]byte("ü"), n/2))
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	})
}

// Group 5: a message in fragments, empty ones too, with pings between them.
func TestFragments(t *testing.T) {
	everywhere(t, echo, func(t *testing.T, w way) {
		c := dial(t, w, "/", nil)
		for _, sizes := range [][]int{{0, 0, 0}, {1, 1, 1}, {0, 5, 0}, {125, 126, 127}, {65_535, 1, 65_536}, {1000, 300_000, 0, 7}} {
			answer := make(chan []byte, 1)
			go func() {
				_, b, err := c.Read(t.Context())
				if err != nil {
					t.Error(err)
				}
				answer <- b
			}()
			m, err := c.Writer(t.Context(), websocket.MessageBinary)
			if err != nil {
				t.Fatal(err)
			}
			var want []byte
			for _, n := range sizes {
				b := random(n)
				want = append(want, b...)
				if _, err := m.Write(b); err != nil {
					t.Fatal(err)
				}
				if err := c.Ping(t.Context()); err != nil { // it is answered in the middle of the message
					t.Fatal(err)
				}
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			if got := <-answer; !bytes.Equal(got, want) {
				t.Errorf("%v: %d bytes", sizes, len(got))
			}
		}
	})
}

// Group 2: pings either way, many at once.
func TestPing(t *testing.T) {
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		ctx := c.CloseRead(r.Context())
		for range 20 {
			if err := c.Ping(ctx); err != nil {
				_ = c.Close(websocket.StatusInternalError, err.Error()) // the client sees it
				return
			}
		}
		if err := c.Write(ctx, websocket.MessageText, []byte("20 pongs")); err != nil {
			return
		}
		<-ctx.Done()
	}, func(t *testing.T, w way) {
		c := dial(t, w, "/", nil)
		if _, b, err := c.Read(t.Context()); err != nil || string(b) != "20 pongs" {
			t.Fatalf("%q, %v", b, err)
		}
		ctx := c.CloseRead(t.Context())
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if err := c.Ping(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// Group 7: who closes, with what, and what the other sees.
func TestClose(t *testing.T) {
	type closed struct {
		code   websocket.StatusCode
		reason string
	}
	all := []closed{{1000, ""}, {1000, "bye"}, {1001, "going"}, {1002, "p"}, {1003, ""}, {1007, strings.Repeat("ö", 61)}, {1008, ""}, {1009, ""}, {1010, ""}, {1011, ""}, {1012, ""}, {1013, ""}, {1014, ""}, {3000, "x"}, {3999, ""}, {4000, ""}, {4999, strings.Repeat("x", 123)}}
	seen := make(chan closed, 1)
	of := func(err error) closed {
		var e websocket.CloseError
		if errors.As(err, &e) {
			return closed{e.Code, e.Reason}
		}
		return closed{-1, fmt.Sprint(err)}
	}
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		if r.URL.Path == "/server" {
			var i int
			if _, err := fmt.Sscan(r.URL.RawQuery, &i); err == nil {
				_ = c.Close(all[i].code, all[i].reason) // the client tells how that went
			}
			return
		}
		_, _, err = c.Read(r.Context())
		seen <- of(err)
	}, func(t *testing.T, w way) {
		for i, want := range all {
			c := dial(t, w, "/client", nil)
			if err := c.Close(want.code, want.reason); err != nil {
				t.Errorf("%v: %v", want, err)
			}
			if got := <-seen; got != want {
				t.Errorf("the client closed with %v, the server sees %v", want, got)
			}
			c = dial(t, w, fmt.Sprintf("/server?%d", i), nil)
			if _, _, err := c.Read(t.Context()); of(err) != want {
				t.Errorf("the server closed with %v, the client sees %v", want, err)
			}
		}
	})
}

// Who goes away without a word is known to be gone at the other end.
func TestGone(t *testing.T) {
	seen := make(chan error, 1)
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		if r.URL.Path == "/server" {
			return
		}
		_, _, err = c.Read(r.Context())
		seen <- err
	}, func(t *testing.T, w way) {
		c := dial(t, w, "/client", nil)
		if err := c.CloseNow(); err != nil {
			t.Error(err)
		}
		if err := <-seen; err == nil || websocket.CloseStatus(err) != -1 {
			t.Errorf("the client is gone, the server sees %v", err)
		}
		c = dial(t, w, "/server", nil)
		if _, _, err := c.Read(t.Context()); err == nil || websocket.CloseStatus(err) != -1 {
			t.Errorf("the server is gone, the client sees %v", err)
		}
	})
}

// Group 6: what is no UTF-8 is the server's to refuse, and arrives as it was sent.
func TestInvalidText(t *testing.T) {
	everywhere(t, echo, func(t *testing.T, w way) {
		c := dial(t, w, "/", nil)
		exchange(t, c, websocket.MessageText, []byte("a\xff\xfe\xed\xa0\x80b")) // coder's does not look
	})
}

// Groups 12 and 13: compression is agreed on by both ends, and nothing on the way touches it.
func TestCompression(t *testing.T) {
	everywhere(t, echo, func(t *testing.T, w way) {
		for path, mode := range map[string]websocket.CompressionMode{"/": websocket.CompressionDisabled, "/compressed": websocket.CompressionNoContextTakeover, "/takeover": websocket.CompressionContextTakeover} {
			c, res, err := websocket.Dial(t.Context(), w.url+path, &websocket.DialOptions{HTTPClient: w.http, CompressionMode: mode, CompressionThreshold: 1})
			if err != nil {
				t.Fatal(err)
			}
			c.SetReadLimit(-1)
			agreed := res.Header.Get("Sec-WebSocket-Extensions")
			if (mode != websocket.CompressionDisabled) != strings.HasPrefix(agreed, "permessage-deflate") || (mode == websocket.CompressionNoContextTakeover) != strings.Contains(agreed, "no_context_takeover") {
				t.Errorf("%s: %q", path, agreed)
			}
			for range 3 { // what was sent before helps to compress with takeover
				exchange(t, c, websocket.MessageText, []byte(strings.Repeat("to and fro ", 10_000)))
				exchange(t, c, websocket.MessageBinary, random(100_000))
			}
			if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Error(err)
			}
		}
	})
}

// What is agreed on in the handshake, and a handshake that the server refuses.
func TestHandshake(t *testing.T) {
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer x" || r.Header.Get("Cookie") != "a=b" {
			w.Header().Set("X-Why", "who are you")
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		w.Header().Set("Set-Cookie", "c=d")
		echo(w, r)
	}, func(t *testing.T, w way) {
		header := http.Header{"Authorization": {"Bearer x"}, "Cookie": {"a=b"}}
		c, res, err := websocket.Dial(t.Context(), w.url, &websocket.DialOptions{HTTPClient: w.http, HTTPHeader: header, Subprotocols: []string{"first", "second"}})
		if err != nil {
			t.Fatal(err)
		}
		if c.Subprotocol() != "second" || res.Header.Get("Set-Cookie") != "c=d" || res.Header.Get("X-Request-Id") == "" {
			t.Errorf("%q, %v", c.Subprotocol(), res.Header)
		}
		exchange(t, c, websocket.MessageText, []byte("hello"))
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
		_, res, err = websocket.Dial(t.Context(), w.url, &websocket.DialOptions{HTTPClient: w.http})
		if err == nil || res == nil || res.StatusCode != http.StatusForbidden || res.Header.Get("X-Why") != "who are you" {
			t.Fatalf("%v, %v", res, err)
		}
		if b, err := io.ReadAll(res.Body); err != nil || string(b) != "no\n" {
			t.Errorf("%q, %v", b, err)
		}
	})
}

// Connections in parallel do not see each other's messages.
func TestMany(t *testing.T) {
	everywhere(t, echo, func(t *testing.T, w way) {
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				c, _, err := websocket.Dial(t.Context(), w.url, &websocket.DialOptions{HTTPClient: w.http})
				if err != nil {
					t.Errorf("%d: %v", i, err)
					return
				}
				defer c.CloseNow()
				for n := range 20 {
					want := fmt.Sprintf("%d of %d %s", n, i, strings.Repeat("x", i*n))
					if err := c.Write(t.Context(), websocket.MessageText, []byte(want)); err != nil {
						t.Errorf("%d: %v", i, err)
						return
					}
					if _, b, err := c.Read(t.Context()); err != nil || string(b) != want {
						t.Errorf("%d got %.40q, %v", i, b, err)
						return
					}
				}
				if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			})
		}
		wg.Wait()
	})
}

// A server that says something unasked, from the first moment on; in order and all of it.
func TestPush(t *testing.T) {
	const messages = 5000
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for i := range messages {
			if c.Write(r.Context(), websocket.MessageText, fmt.Append(nil, i)) != nil {
				return
			}
		}
		_ = c.Close(websocket.StatusNormalClosure, "all") // the client has seen it or not
	}, func(t *testing.T, w way) {
		c := dial(t, w, "/", nil)
		for i := range messages {
			if _, b, err := c.Read(t.Context()); err != nil || string(b) != fmt.Sprint(i) {
				t.Fatalf("%d: %q, %v", i, b, err)
			}
		}
		if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
			t.Error(err)
		}
	})
}

// A client that does not read holds its server back: what is on the way is bounded, and none of it is lost.
func TestSlowReader(t *testing.T) {
	const size, messages, bound = 64 << 10, 1024, 40 << 20 // what the kernel keeps on both ways, and half again
	var sent, taken, most atomic.Int64
	full := make(chan struct{}, 1)
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		b := random(size)
		for range messages {
			ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)

			err := c.Write(ctx, websocket.MessageBinary, b)

			cancel()
			if err != nil {
				return
			}
			under := sent.Add(size) - taken.Load()
			most.Store(max(most.Load(), under))
			if under > 1<<20 {
				select {
				case full <- struct{}{}:
				default:
				}
			}
		}
		_ = c.Close(websocket.StatusNormalClosure, "") // the client has read all by then
	}, func(t *testing.T, w way) {
		sent.Store(0)
		taken.Store(0)
		most.Store(0)
		select {
		case <-full:
		default:
		}
		c := dial(t, w, "/", nil)
		<-full
		want := random(size)
		for i := range messages {
			_, b, err := c.Read(t.Context())
			if err != nil || !bytes.Equal(b, want) {
				t.Fatalf("message %d: %d bytes, %v", i, len(b), err)
			}
			taken.Add(size)
		}
		if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
			t.Error(err)
		}
		if most.Load() > bound {
			t.Errorf("%d bytes were on the way", most.Load())
		}
	})
}

// The timeout of a request ends with its handshake.
func TestOutlivesTimeout(t *testing.T) {
	everywhere(t, echo, func(t *testing.T, w way) {
		c := dial(t, w, "/hurried", nil)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for began := time.Now(); time.Since(began) < time.Second; <-tick.C {
			exchange(t, c, websocket.MessageText, []byte("still there"))
		}
	})
}
