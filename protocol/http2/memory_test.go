package http2_test

import (
	"encoding/binary"
	"io"
	"math"
	"net"
	"runtime"
	"testing"

	"github.com/loam-run/loam"
)

// frame appends a frame.
func frame(b []byte, kind, flags byte, id uint32, payload []byte) []byte {
	b = append(b, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	return append(b, payload...)
}

// literal appends fields to a block, each as a literal that no table is used for.
func literal(b []byte, fields ...string) []byte {
	for i := 0; i < len(fields); i += 2 {
		b = append(b, 0, byte(len(fields[i])))
		b = append(b, fields[i]...)
		b = append(b, byte(len(fields[i+1])))
		b = append(b, fields[i+1]...)
	}
	return b
}

// unaryBlock is the head of a gRPC call.
var unaryBlock = literal([]byte{0x83, 0x86}, ":path", "/echo.Echo/Call", ":authority", "example.com", "content-type", "application/grpc",
	"te", "trailers", "user-agent", "grpc-go/1.85.0", "x-request-id", "0123456789abcdef")

// canned is a server that answers each stream that ends with the same unary response.
func canned(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serveCanned(c)
			}()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String()
}

func serveCanned(c net.Conn) {
	head := literal([]byte{0x88}, "content-type", "application/grpc")
	trailer := literal(nil, "grpc-status", "0")
	message := make([]byte, 133)
	out := frame(nil, 4, 0, 0, nil)
	buf := make([]byte, 256<<10)
	n := 0
	taken := uint32(0)
	for first := true; ; first = false {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		p := buf[:n]
		if first {
			p = p[24:]
		}
		for len(p) >= 9 {
			length := int(p[0])<<16 | int(p[1])<<8 | int(p[2])
			if len(p) < 9+length {
				break
			}
			id := binary.BigEndian.Uint32(p[5:])
			switch {
			case p[3] == 4 && p[4] == 0:
				out = frame(out, 4, 1, 0, nil)
			case p[3] == 0:
				taken += uint32(length)
				if p[4]&1 != 0 {
					out = frame(out, 1, 4, id, head)
					out = frame(out, 0, 0, id, message)
					out = frame(out, 1, 5, id, trailer)
				}
			}
			p = p[9+length:]
		}
		if taken > 30_000 {
			out = frame(out, 8, 0, 0, binary.BigEndian.AppendUint32(nil, taken))
			taken = 0
		}
		n = copy(buf, p)
		if _, err := c.Write(out); err != nil {
			return
		}
		out = out[:0]
	}
}

// caller is a client that makes unary calls, several at a time.
type caller struct {
	net.Conn
	next  uint32
	out   []byte
	buf   []byte
	n     int
	taken uint32
}

func newCaller(t testing.TB, address string) *caller {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	k := &caller{Conn: c, next: 1, buf: make([]byte, 256<<10)}
	k.out = append(k.out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"...)
	k.out = frame(k.out, 4, 0, 0, nil)
	k.out = frame(k.out, 4, 1, 0, nil)
	return k
}

var unaryMessage = make([]byte, 133)

// call makes n calls at once and waits for all of them.
func (k *caller) call(n int) error {
	for range n {
		k.out = frame(k.out, 1, 4, k.next, unaryBlock)
		k.out = frame(k.out, 0, 1, k.next, unaryMessage)
		k.next += 2
	}
	if k.taken > 30_000 {
		k.out = frame(k.out, 8, 0, 0, binary.BigEndian.AppendUint32(nil, k.taken))
		k.taken = 0
	}
	if _, err := k.Write(k.out); err != nil {
		return err
	}
	k.out = k.out[:0]
	for n > 0 {
		m, err := k.Read(k.buf[k.n:])
		if err != nil {
			return err
		}
		k.n += m
		p := k.buf[:k.n]
		for len(p) >= 9 {
			length := int(p[0])<<16 | int(p[1])<<8 | int(p[2])
			if len(p) < 9+length {
				break
			}
			switch {
			case p[3] == 0:
				k.taken += uint32(length)
			case p[3] == 1 && p[4]&1 != 0:
				n--
			case p[3] == 3 || p[3] == 7:
				return io.ErrUnexpectedEOF
			}
			p = p[9+length:]
		}
		k.n = copy(k.buf, p)
	}
	return nil
}

// A unary call that goes through allocates nothing of its own but its task.
func TestUnaryAllocations(t *testing.T) {
	behind := canned(t)
	engines(t, func(t *testing.T, e *engine) {
		address, _ := e.serve(t, e.client(behind))
		k := newCaller(t, address)
		for range 200 {
			if err := k.call(4); err != nil {
				t.Fatal(err)
			}
		}
		const calls = 100
		per := math.Inf(1)
		for range 10 { // the least of them: others allocate too, at times
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range calls {
				if err := k.call(4); err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
			per = min(per, float64(after.Mallocs-before.Mallocs)/(4*calls))
		}
		t.Logf("%.1f allocations a call", per)
		if most := map[string]float64{"coroutines": 4, "goroutines": 20}[e.name]; per > most {
			t.Errorf("%.1f allocations a call", per)
		}
	})
}

func BenchmarkUnary(b *testing.B) {
	e := newEngine(b, false)
	behind := canned(b)
	address, _ := e.serve(b, loam.Target(e.client(behind)))
	const conns, streams = 16, 4
	callers := make([]*caller, conns)
	for i := range callers {
		callers[i] = newCaller(b, address)
		if err := callers[i].call(streams); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	done := make(chan error)
	for _, k := range callers {
		go func() {
			for range b.N/conns/streams + 1 {
				if err := k.call(streams); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range callers {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}
