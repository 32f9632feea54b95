package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
)

// serveUpstream is what all proxies stand before: HTTP/1 at one address, HTTP/2 without TLS at the other. It does as little
// as it can: /N answers N bytes, an Upgrade answers what it is sent.
func serveUpstream(plain, h2c string) error {
	l, err := net.Listen("tcp", plain)
	if err != nil {
		return err
	}
	h2, err := net.Listen("tcp", h2c)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := h2.Accept()
			if err != nil {
				return
			}
			go answerGRPC(c)
		}
	}()
	if err := l.Close(); err != nil { // it was free: the engine takes the port
		return err
	}
	e := loop.New(loop.Options{Loops: 1})
	if _, err := e.Listen(context.Background(), "tcp", plain, loop.ListenOptions{Open: func(loop.Conn) loop.Session { return &answerer{} }}); err != nil {
		return err
	}
	select {}
}

var answers = map[string][]byte{}

func init() {
	for _, n := range []int{128, 16 << 10} {
		answers["/"+strconv.Itoa(n)] = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Sat, 21 Nov 2026 08:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", n, strings.Repeat("x", n))
	}
}

// answerer answers the requests of one connection.
type answerer struct {
	part []byte // of a request
	echo bool   // the connection was upgraded
}

func (a *answerer) Close() {}

func (a *answerer) Serve(_ loam.Task, c loop.Conn) loop.Verdict {
	var buf [4096]byte
	c.Poll(true)
	for {
		n, err := c.Read(buf[:])
		if err != nil {
			c.Poll(false)
			if errors.Is(err, loop.ErrAgain) {
				return loop.Idle
			}
			return loop.Close
		}
		out := buf[:n]
		if !a.echo {
			out = a.answer(buf[:n])
		}
		if _, err := c.Write(out); err != nil {
			return loop.Close
		}
	}
}

// answer is what is due for what was read.
func (a *answerer) answer(in []byte) (out []byte) {
	if len(a.part) > 0 {
		in = append(a.part, in...)
	}
	for {
		end := bytes.Index(in, []byte("\r\n\r\n"))
		if end < 0 {
			a.part = append(a.part[:0:0], in...)
			return out
		}
		if bytes.Contains(in[:end], []byte("pgrade: echo")) {
			a.echo, a.part = true, nil
			return append([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"), in[end+4:]...)
		}
		line, _, _ := bytes.Cut(in, []byte(" HTTP/1.1"))
		_, path, _ := bytes.Cut(line, []byte(" "))
		if out == nil {
			out = answers[string(path)]
		} else {
			out = append(out[:len(out):len(out)], answers[string(path)]...)
		}
		if in = in[end+4:]; len(in) == 0 {
			a.part = nil
			return out
		}
	}
}

// message is one of gRPC's: a length and 128 bytes.
var message = append([]byte{0, 0, 0, 0, 128}, make([]byte, 128)...)

// answerGRPC is a server of HTTP/2 that knows one answer: a message, or a hundred where the path says Stream. It writes once
// for all that one read brought.
func answerGRPC(c net.Conn) {
	defer c.Close()
	const headers, data, reset, settings, ping, windowUpdate = 1, 0, 3, 4, 6, 8
	frame := func(b []byte, kind, flags byte, stream uint32, payload ...byte) []byte {
		b = append(b, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
		return append(binary.BigEndian.AppendUint32(b, stream), payload...)
	}
	literal := func(b []byte, name, value string) []byte { // without indexing, without Huffman (RFC 7541, section 6.2.2)
		b = append(append(b, 0, byte(len(name))), name...)
		return append(append(b, byte(len(value))), value...)
	}
	head := literal([]byte{0x88}, "content-type", "application/grpc") // 0x88 is :status 200
	trailer := literal(nil, "grpc-status", "0")
	// Settings: no dynamic table, many streams, a large window; and as large a one for the connection.
	out := frame(nil, settings, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0x10, 0, 0, 4, 0x3f, 0xff, 0xff, 0xff)
	out = frame(out, windowUpdate, 0, 0, 0x3f, 0, 0, 0)
	streams := map[uint32]bool{} // whether a hundred messages are wanted
	long := map[string]bool{}    // likewise, by a head's bytes
	decoder := hpack.NewDecoder(4096, nil)
	buf := make([]byte, 64<<10)
	n, skip := 0, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	var received uint32
	for {
		if len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		at := 0
		if skip > 0 {
			if n < skip {
				continue
			}
			at, skip = skip, 0
		}
		for n-at >= 9 {
			size := int(buf[at])<<16 | int(buf[at+1])<<8 | int(buf[at+2])
			if n-at < 9+size {
				break
			}
			kind, flags, id := buf[at+3], buf[at+4], binary.BigEndian.Uint32(buf[at+5:])
			payload := buf[at+9 : at+9+size]
			at += 9 + size
			switch kind {
			case headers:
				is, known := long[string(payload)]
				if !known {
					fields, err := decoder.DecodeFull(payload)
					if err != nil {
						return
					}
					for _, f := range fields {
						is = is || f.Name == ":path" && strings.Contains(f.Value, "Stream")
					}
					if len(long) < 1000 {
						long[string(payload)] = is
					}
				}
				streams[id] = is
			case data:
				received += uint32(size)
			case reset:
				delete(streams, id)
			case settings:
				if flags&1 == 0 {
					out = frame(out, settings, 1, 0)
				}
			case ping:
				if flags&1 == 0 {
					out = frame(out, ping, 1, 0, payload...)
				}
			}
			if (kind == headers || kind == data) && flags&1 != 0 { // the request has ended
				messages := 1
				if streams[id] {
					messages = 100
				}
				delete(streams, id)
				out = frame(out, headers, 4, id, head...)
				for range messages {
					out = frame(out, data, 0, id, message...)
				}
				out = frame(out, headers, 5, id, trailer...)
			}
		}
		n = copy(buf, buf[at:n])
		if received > 1<<20 {
			out = frame(out, windowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, received)...)
			received = 0
		}
	}
}

// tunnels opens as many upgraded connections and sends messages to and fro on each until stop, and tells how many came
// back.
func tunnels(address string, n, size int, stop <-chan struct{}) (int64, error) {
	counts := make(chan int64, n)
	errs := make(chan error, n)
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return 0, err
		}
		if _, err := io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err != nil {
			return 0, err
		}
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return 0, err
		}
		if res.StatusCode != http.StatusSwitchingProtocols {
			return 0, fmt.Errorf("status %d", res.StatusCode)
		}
		go func() {
			<-stop
			_ = c.Close()
		}()
		go func() {
			buf := make([]byte, size)
			var count int64
			for {
				if _, err := c.Write(buf); err != nil {
					break
				}
				if _, err := io.ReadFull(r, buf); err != nil {
					break
				}
				count++
			}
			select {
			case <-stop:
			default:
				errs <- fmt.Errorf("a tunnel broke after %d messages", count)
			}
			counts <- count
		}()
	}
	var total int64
	for range n {
		total += <-counts
	}
	select {
	case err := <-errs:
		return total, err
	default:
		return total, nil
	}
}
