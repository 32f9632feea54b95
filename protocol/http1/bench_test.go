package http1

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/loam-run/loam/loop"
)

// fixture is a client and a server that allocate nothing, with the proxy between them.
type fixture struct {
	conn     net.Conn
	request  []byte
	response []byte
	close    []func()
}

func newFixture(tb testing.TB, size int) *fixture {
	tb.Helper()
	e := loop.New(loop.Options{Loops: 1})
	up, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	answer := append([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Sat, 21 Nov 2026 08:00:00 GMT\r\nContent-Length: "), []byte{}...)
	answer = append(appendLength(answer[:len(answer)-len("Content-Length: ")], int64(size)), "\r\n"...)
	answer = append(answer, bytes.Repeat([]byte("x"), size)...)
	go func() {
		for {
			c, err := up.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	client := NewClient(up.Addr().String(), ClientConfig{Engine: e})
	server := NewServer(client, ServerConfig{})
	l, err := e.Listen(tb.Context(), "tcp", "127.0.0.1:0", loop.ListenOptions{Open: func(c loop.Conn) loop.Session { return server.Session(c, c, nil, nil) }})
	if err != nil {
		tb.Fatal(err)
	}
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	f := &fixture{conn: conn, request: []byte("GET /orders/7 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"), response: make([]byte, 64<<10)}
	f.close = []func(){func() { conn.Close() }, func() { _ = l.Stop() }, client.Close, func() { _ = e.Close() }, func() { up.Close() }}
	// The answer's length is that of the first: the id's is always the same.
	if _, err := conn.Write(f.request); err != nil {
		tb.Fatal(err)
	}
	n := 0
	for !bytes.HasSuffix(f.response[:n], answer[len(answer)-size:]) {
		m, err := conn.Read(f.response[n:])
		if err != nil {
			tb.Fatal(err)
		}
		n += m
	}
	f.response = f.response[:n]
	return f
}

func (f *fixture) end() {
	for _, c := range f.close {
		c()
	}
}

func (f *fixture) once(tb testing.TB) {
	if _, err := f.conn.Write(f.request); err != nil {
		tb.Fatal(err)
	}
	if _, err := io.ReadFull(f.conn, f.response); err != nil {
		tb.Fatal(err)
	}
}

func BenchmarkProxy(b *testing.B) {
	f := newFixture(b, 128)
	defer f.end()
	b.ReportAllocs()
	for b.Loop() {
		f.once(b)
	}
}
