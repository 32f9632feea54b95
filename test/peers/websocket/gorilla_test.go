package websocket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// gorillaEcho answers each message with itself, and what breaks the protocol with the close that says so.
func gorillaEcho(w http.ResponseWriter, r *http.Request) {
	u := gorilla.Upgrader{EnableCompression: true, ReadBufferSize: 1000, WriteBufferSize: 1000, CheckOrigin: func(*http.Request) bool { return true }}
	c, err := u.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	for {
		kind, b, err := c.ReadMessage()
		if err != nil {
			return
		}
		if err := c.WriteMessage(kind, b); err != nil { // in frames of the buffer's size
			return
		}
	}
}

// gorilla's client and server at both ends, for the ways that it knows.
func TestGorilla(t *testing.T) {
	everywhere(t, gorillaEcho, func(t *testing.T, w way) {
		if strings.HasPrefix(w.name, "HTTP2") {
			gorillaThroughHTTP2(t, w)
			return
		}
		for _, compressed := range []bool{false, true} {
			d := gorilla.Dialer{TLSClientConfig: w.tls, EnableCompression: compressed, ReadBufferSize: 1000, WriteBufferSize: 1000}
			c, res, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(w.url, "http"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if compressed != strings.Contains(res.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate") {
				t.Errorf("%v", res.Header)
			}
			for _, n := range []int{0, 1, 999, 1000, 1001, 100_000, 1 << 20, 3 << 20} {
				want := bytes.Repeat([]byte("abcdefghij"), n/10+1)[:n]
				sent := make(chan error, 1)
				go func() { sent <- c.WriteMessage(gorilla.BinaryMessage, want) }()
				kind, got, err := c.ReadMessage()
				if err := errors.Join(err, <-sent); err != nil || kind != gorilla.BinaryMessage || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes: %d of kind %d, %v", n, len(got), kind, err)
				}
			}
			pong := make(chan string, 1)
			c.SetPongHandler(func(data string) error { pong <- data; return nil })
			if err := c.WriteControl(gorilla.PingMessage, []byte("are you there"), time.Now().Add(10*time.Second)); err != nil {
				t.Fatal(err)
			}
			if err := c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(4242, "that was it"), time.Now().Add(10*time.Second)); err != nil {
				t.Fatal(err)
			}
			_, _, err = c.ReadMessage()
			if !gorilla.IsCloseError(err, 4242) || <-pong != "are you there" {
				t.Errorf("%v", err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// gorillaThroughHTTP2 is coder's client to gorilla's server.
func gorillaThroughHTTP2(t *testing.T, w way) {
	c := dial(t, w, "/", nil)
	for _, n := range []int{0, 1, 1000, 100_000, 3 << 20} {
		exchange(t, c, 2, random(n))
	}
	if err := c.Close(4242, "that was it"); err != nil {
		t.Error(err)
	}
}

// What no library of a client sends: frames that break the protocol are the server's to refuse, and its answer arrives.
// Some stand in the same packet as the handshake. The cases are of Autobahn's groups 3, 4 and 7.
func TestBrokenFrames(t *testing.T) {
	masked := func(head ...byte) []byte { return append(head, 0, 0, 0, 0) }
	everywhere(t, gorillaEcho, func(t *testing.T, w way) {
		if w.name != "HTTP1" {
			return // the others carry the same bytes
		}
		for name, c := range map[string]struct {
			frame []byte
			code  int // of the server's close; 0: it echoes
		}{
			"text":                    {append(masked(0x81, 0x82), "hi"...), 0},
			"RSV1 without extension":  {append(masked(0xc1, 0x82), "hi"...), gorilla.CloseProtocolError},
			"RSV3":                    {append(masked(0x91, 0x82), "hi"...), gorilla.CloseProtocolError},
			"opcode 3":                {masked(0x83, 0x80), gorilla.CloseProtocolError},
			"opcode 15":               {masked(0x8f, 0x80), gorilla.CloseProtocolError},
			"ping in fragments":       {masked(0x09, 0x80), gorilla.CloseProtocolError},
			"ping of 126 bytes":       {append(masked(0x89, 0xfe, 0, 126), make([]byte, 126)...), gorilla.CloseProtocolError},
			"continuation of nothing": {append(masked(0x80, 0x82), "hi"...), gorilla.CloseProtocolError},
			"no mask":                 {append([]byte{0x81, 0x02}, "hi"...), gorilla.CloseProtocolError},
			"close with 1005":         {append(masked(0x88, 0x82), 0x03, 0xed), gorilla.CloseProtocolError},
		} {
			for _, together := range []bool{true, false} {
				conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close() // again, where it fails
				if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
					t.Fatal(err)
				}
				shake := "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
				if together {
					_, err = conn.Write(append([]byte(shake), c.frame...))
				} else {
					_, err = io.WriteString(conn, shake)
				}
				if err != nil {
					t.Fatal(err)
				}
				head := make([]byte, 0, 1024)
				for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one[0]) {
					if _, err := io.ReadFull(conn, one); err != nil {
						t.Fatalf("%s: %q: %v", name, head, err)
					}
				}
				if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
					t.Fatalf("%s: %q", name, head)
				}
				if !together {
					if _, err := conn.Write(c.frame); err != nil {
						t.Fatal(err)
					}
				}
				answer := make([]byte, 4)
				if _, err := io.ReadFull(conn, answer); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if c.code == 0 && string(answer) != "\x81\x02hi" || c.code != 0 && (answer[0] != 0x88 || int(answer[2])<<8|int(answer[3]) != c.code) {
					t.Errorf("%s: %x", name, answer)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
