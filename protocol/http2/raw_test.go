package http2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http2"
)

// raw is one end of a connection by frames, on which a test may do what no peer should.
type raw struct {
	net.Conn
	t   testing.TB
	dec *hpack.Decoder
}

// got is a frame that came in.
type got struct {
	kind, flags byte
	id          uint32
	payload     []byte
	fields      []hpack.HeaderField // of HEADERS
}

func (g got) String() string {
	return fmt.Sprintf("frame %d, flags %#x, stream %d, %d bytes %q %v", g.kind, g.flags, g.id, len(g.payload), g.payload[:min(len(g.payload), 40)], g.fields)
}

// code is that of a GOAWAY or RST_STREAM.
func (g got) code() http2.Code {
	if g.kind == 7 {
		return http2.Code(binary.BigEndian.Uint32(g.payload[4:]))
	}
	return http2.Code(binary.BigEndian.Uint32(g.payload))
}

func (g got) field(name string) string {
	for _, f := range g.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func newRaw(t testing.TB, c net.Conn) *raw {
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute)) // a test that hangs shall say where
	return &raw{Conn: c, t: t, dec: hpack.NewDecoder(4096, nil)}
}

// dialRaw is a client that has greeted the server.
func dialRaw(t testing.TB, address string) *raw {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := newRaw(t, c)
	r.send(append([]byte(http2.Preface), frame(nil, 4, 0, 0, nil)...))
	r.want(4, 0)
	r.send(frame(nil, 4, 1, 0, nil))
	return r
}

func (r *raw) send(b []byte) {
	r.t.Helper()
	if _, err := r.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// next is the next frame; false: the connection was ended.
func (r *raw) next() (g got, ok bool) {
	r.t.Helper()
	var h [9]byte
	if _, err := io.ReadFull(r.Conn, h[:]); err != nil {
		if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
			r.t.Fatal("no frame comes")
		}
		return g, false
	}
	g.kind, g.flags, g.id = h[3], h[4], binary.BigEndian.Uint32(h[5:])
	g.payload = make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))
	if _, err := io.ReadFull(r.Conn, g.payload); err != nil {
		return g, false
	}
	if g.kind == 1 {
		var err error
		if g.fields, err = r.dec.DecodeFull(g.payload); err != nil {
			r.t.Fatal(err)
		}
	}
	return g, true
}

// want skips to the next frame of that kind and stream.
func (r *raw) want(kind byte, id uint32) got {
	r.t.Helper()
	for {
		g, ok := r.next()
		if !ok {
			r.t.Fatalf("the connection ended before frame %d of stream %d", kind, id)
		}
		if g.kind == kind && g.id == id {
			return g
		}
		if g.kind == 7 {
			r.t.Fatalf("GOAWAY %v %q", g.code(), g.payload[8:])
		}
	}
}

// wantClosed waits for the end of the connection and returns the code of the GOAWAY before it, NoError where none came.
func (r *raw) wantClosed() (code http2.Code) {
	r.t.Helper()
	for {
		g, ok := r.next()
		if !ok {
			return code
		}
		if g.kind == 7 {
			code = g.code()
		}
	}
}

// block encodes fields, given as name and value in turn.
func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a buffer takes all
	}
	return b.Bytes()
}

// get is the head of a request without a body, with more fields.
func get(more ...string) []byte {
	return block(append([]string{":method", "GET", ":scheme", "http", ":authority", "h", ":path", "/"}, more...)...)
}

func post(more ...string) []byte {
	return block(append([]string{":method", "POST", ":scheme", "http", ":authority", "h", ":path", "/"}, more...)...)
}

// What a request may not be, beyond h2spec's cases; and what it may.
func TestMalformed(t *testing.T) {
	const end, endHeaders = 1, 4
	bad := map[string][]byte{
		"userinfo in :authority":          block(":method", "GET", ":scheme", "http", ":authority", "a@h", ":path", "/"),
		"empty :authority":                block(":method", "GET", ":scheme", "http", ":authority", "", ":path", "/"),
		"a path that is none":             block(":method", "GET", ":scheme", "http", ":authority", "h", ":path", "x"),
		"star of another than OPTIONS":    block(":method", "GET", ":scheme", "http", ":authority", "h", ":path", "*"),
		"space in :path":                  block(":method", "GET", ":scheme", "http", ":authority", "h", ":path", "/a b"),
		"fragment in :path":               block(":method", "GET", ":scheme", "http", ":authority", "h", ":path", "/a#b"),
		"line end in :path":               block(":method", "GET", ":scheme", "http", ":authority", "h", ":path", "/\r\nx: y"),
		"a method that is no token":       block(":method", "GE T", ":scheme", "http", ":authority", "h", ":path", "/"),
		"another scheme":                  block(":method", "GET", ":scheme", "ftp", ":authority", "h", ":path", "/"),
		"host differs":                    get("host", "other"),
		"host twice":                      get("host", "h", "host", "h"),
		"content-length without a body":   get("content-length", "3"),
		"content-length twice":            get("content-length", "0", "content-length", "0"),
		"content-length with a sign":      get("content-length", "+0"),
		"content-length beyond numbers":   get("content-length", "99999999999999999999"),
		"transfer-encoding":               get("transfer-encoding", "chunked"),
		"keep-alive":                      get("keep-alive", "1"),
		"proxy-connection":                get("proxy-connection", "close"),
		"upgrade":                         get("upgrade", "websocket"),
		"te":                              get("te", "gzip"),
		"line end in a value":             get("x", "a\nb"),
		"carriage return in a value":      get("x", "a\rb"),
		"zero in a value":                 get("x", "a\x00b"),
		"control character in a value":    get("x", "a\x1fb"),
		"delete in a long value":          get("x", strings.Repeat("a", 20)+"\x7f"),
		"a value that begins with space":  get("x", " a"),
		"a value that ends with tab":      get("x", "a\t"),
		"upper case in a name":            get("X", "a"),
		"space in a name":                 get("a b", "a"),
		"colon in a name":                 get("a:b", "a"),
		"an empty name":                   get("", "a"),
		"a pseudo-header that is unknown": get(":x", "a"),
		":status in a request":            block(":method", "GET", ":scheme", "http", ":status", "200", ":path", "/"),
		":protocol without CONNECT":       block(":method", "GET", ":scheme", "http", ":authority", "h", ":path", "/", ":protocol", "websocket"),
		"CONNECT with a path":             block(":method", "CONNECT", ":scheme", "http", ":authority", "h", ":path", "/"),
		"CONNECT without an authority":    block(":method", "CONNECT"),
	}
	good := map[string][]byte{
		"OPTIONS *":                block(":method", "OPTIONS", ":scheme", "http", ":authority", "h", ":path", "*"),
		"no :authority, but host":  block(":method", "GET", ":scheme", "http", ":path", "/", "host", "h"),
		"the same host":            get("host", "H"),
		"te: trailers":             get("te", "trailers"),
		"an empty value":           get("x", ""),
		"tab and bytes above 0x7f": get("x", "a\tb\xff"),
		"content-length 0":         get("content-length", "0"),
		"a method of our own":      block(":method", "PURGE", ":scheme", "https", ":authority", "h:80", ":path", "/?"),
	}
	engines(t, func(t *testing.T, e *engine) {
		address, _ := e.serve(t, echo)
		r := dialRaw(t, address)
		id := uint32(1)
		for range 3 { // the memo must change nothing
			for name, b := range bad {
				r.send(frame(nil, 1, endHeaders|end, id, b))
				if g := r.want(3, id); g.code() != http2.ProtocolError {
					t.Errorf("%s: %v", name, g)
				}
				id += 2
			}
			for name, b := range good {
				r.send(frame(nil, 1, endHeaders|end, id, b))
				if g := r.want(1, id); g.field(":status") != "200" {
					t.Errorf("%s: %v", name, g)
				}
				id += 2
			}
		}
	})
}

func TestCookiesAreJoined(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		address, _ := e.serve(t, echo)
		r := dialRaw(t, address)
		for id := uint32(1); id < 8; id += 2 {
			r.send(frame(nil, 1, 5, id, get("cookie", "a=1", "x-give", "this", "cookie", "b=2", "cookie", "c=3")))
			if g := r.want(1, id); g.field("x-given") != "this" || g.field("x-cookie") != "a=1; b=2; c=3" {
				t.Errorf("%v", g)
			}
		}
	})
}

func TestLimits(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		address, _ := e.serve(t, echo, func(c *http2.ServerConfig) { c.Body, c.Head, c.Fields = 1000, 2000, 20 })
		r := dialRaw(t, address)
		big := strings.Repeat("x", 3000)
		many := []string{}
		for i := range 30 {
			many = append(many, fmt.Sprint("x-", i), "")
		}
		id := uint32(1)
		for name, c := range map[string]struct {
			head   []byte
			data   int
			status string
		}{
			"fine":                          {post(), 1000, "200"},
			"a head that is too long":       {get("x", big), -1, "431"},
			"too many fields":               {get(many...), -1, "431"},
			"a body that is announced long": {post("content-length", "1001"), 0, "413"},
			"a body that is too long":       {post(), 1001, "413"},
		} {
			flags := byte(4)
			if c.data < 0 {
				flags |= 1
			}
			r.send(frame(nil, 1, flags, id, c.head))
			if c.data > 0 {
				r.send(frame(nil, 0, 1, id, make([]byte, c.data)))
			}
			if g := r.want(1, id); g.field(":status") != c.status {
				t.Errorf("%s: %v", name, g)
			}
			id += 2
		}
		r.send(frame(nil, 1, 5, id, get()))
		if g := r.want(1, id); g.field(":status") != "200" {
			t.Errorf("after that: %v", g)
		}
	})
}

// Frames that move nothing, more of them than anybody needs.
func TestFloods(t *testing.T) {
	for name, attack := range map[string]func(i int) []byte{
		"ping":          func(int) []byte { return frame(nil, 6, 0, 0, make([]byte, 8)) },
		"ping answers":  func(int) []byte { return frame(nil, 6, 1, 0, make([]byte, 8)) },
		"settings":      func(int) []byte { return frame(nil, 4, 0, 0, nil) },
		"priority":      func(i int) []byte { return frame(nil, 2, 0, uint32(2*i+1), make([]byte, 5)) },
		"unknown":       func(int) []byte { return frame(nil, 200, 0, 0, nil) },
		"window update": func(int) []byte { return frame(nil, 8, 0, 0, []byte{0, 0, 0, 1}) },
		"empty data": func(i int) []byte {
			if i == 0 {
				return frame(nil, 1, 4, 1, post())
			}
			return frame(nil, 0, 0, 1, nil)
		},
		"padding": func(i int) []byte {
			if i == 0 {
				return frame(nil, 1, 4, 1, post())
			}
			return frame(nil, 0, 8, 1, []byte{3, 0, 0, 0})
		},
		"rapid reset": func(i int) []byte {
			return frame(frame(nil, 1, 5, uint32(2*i+1), get()), 3, 0, uint32(2*i+1), []byte{0, 0, 0, 8})
		},
		"malformed requests": func(i int) []byte { return frame(nil, 1, 5, uint32(2*i+1), get("te", "x")) },
		"continuation": func(i int) []byte {
			if i == 0 {
				return frame(nil, 1, 0, 1, get())
			}
			return frame(nil, 9, 0, 1, nil)
		},
		"continuation with bytes": func(i int) []byte {
			if i == 0 {
				return frame(nil, 1, 0, 1, get())
			}
			return frame(nil, 9, 0, 1, literal(nil, "x", strings.Repeat("y", 100)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, e *engine) {
				address, _ := e.serve(t, echo, func(c *http2.ServerConfig) { c.Nuisance = 200 })
				r := dialRaw(t, address)
				go func() {
					for i := range 100_000 {
						if _, err := r.Write(attack(i)); err != nil {
							return
						}
					}
				}()
				if code := r.wantClosed(); code != http2.EnhanceYourCalm && code != http2.NoError { // the reset of the connection may be faster than the GOAWAY
					t.Errorf("ended with %v", code)
				}
			})
		})
	}
}

// A client that makes the server answer and takes nothing is not read from any more, and let go.
func TestClientThatTakesNothing(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		address, _ := e.serve(t, echo, func(c *http2.ServerConfig) {
			c.WriteTimeout = 300 * time.Millisecond
			c.Nuisance = 1 << 30
		})
		r := dialRaw(t, address)
		b := []byte(nil)
		for range 1000 {
			b = frame(b, 6, 0, 0, make([]byte, 8))
		}
		sent := 0
		for {
			n, err := r.Write(b)
			sent += n
			if err != nil {
				if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
					t.Fatal("the connection stays")
				}
				break
			}
			if sent > 256<<20 {
				t.Fatal("it is read from for ever")
			}
		}
	})
}

func TestTimeouts(t *testing.T) {
	const short = 60 * time.Millisecond
	for name, c := range map[string]struct {
		limit func(*http2.ServerConfig)
		do    func(r *raw)
		reset http2.Code // of stream 1
		code  http2.Code
	}{
		"an idle connection":         {limit: func(c *http2.ServerConfig) { c.IdleTimeout = short }, do: func(*raw) {}},
		"a frame that does not end":  {limit: func(c *http2.ServerConfig) { c.HeadTimeout = short }, do: func(r *raw) { r.send([]byte{0, 0, 8}) }, code: http2.EnhanceYourCalm},
		"a head that does not end":   {limit: func(c *http2.ServerConfig) { c.HeadTimeout = short }, do: func(r *raw) { r.send(frame(nil, 1, 0, 1, get())) }, code: http2.EnhanceYourCalm},
		"a client that says nothing": {limit: func(c *http2.ServerConfig) { c.KeepAlive = short }, do: func(r *raw) { r.send(frame(nil, 1, 4, 1, post())) }},
		"a window that stays shut": {limit: func(c *http2.ServerConfig) { c.WriteTimeout = short }, do: func(r *raw) {
			r.send(frame(nil, 4, 0, 0, []byte{0, 4, 0, 0, 0, 0}))
			r.send(frame(frame(nil, 1, 4, 1, post()), 0, 1, 1, make([]byte, 100)))
		}, reset: http2.Cancel},
		"a stream on which nothing moves": {limit: func(c *http2.ServerConfig) { c.StreamIdle = short }, do: func(r *raw) {
			r.send(frame(nil, 1, 4, 1, post("content-type", "application/grpc")))
		}, reset: http2.InternalError},
	} {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, e *engine) {
				address, _ := e.serve(t, echo, c.limit)
				r := dialRaw(t, address)
				c.do(r)
				if c.reset != 0 {
					if g := r.want(3, 1); g.code() != c.reset {
						t.Errorf("%v", g)
					}
					return
				}
				if code := r.wantClosed(); code != c.code {
					t.Errorf("ended with %v", code)
				}
			})
		})
	}
	t.Run("a gRPC stream without a limit", func(t *testing.T) {
		engines(t, func(t *testing.T, e *engine) {
			address, _ := e.serve(t, loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) { // says something later than the other limits allow
				if err := loam.Sleep(req.Task(), 4*short); err != nil {
					return nil, err
				}
				return loam.NewResponse(200, "application/grpc", nil), nil
			}), func(c *http2.ServerConfig) { c.StreamIdle, c.BodyTimeout, c.HeadTimeout = -1, short, short })
			r := dialRaw(t, address)
			r.send(frame(nil, 1, 4, 1, post("content-type", "application/grpc")))
			if g := r.want(1, 1); g.field(":status") != "200" {
				t.Errorf("%v", g)
			}
		})
	})
	t.Run("a gRPC message that does not end", func(t *testing.T) {
		engines(t, func(t *testing.T, e *engine) {
			s := &grpc.Server{Methods: map[string]grpc.Method{"/": grpc.Unary(func(_ *grpc.Call, in *grpc.Raw) (*grpc.Raw, error) { return in, nil })}}
			address, _ := e.serve(t, s, func(c *http2.ServerConfig) { c.StreamIdle, c.BodyTimeout = -1, short })
			r := dialRaw(t, address)
			head := []byte{0, 0, 2, 0, 0} // 128 KiB are announced
			r.send(frame(frame(nil, 1, 4, 1, post("content-type", "application/grpc")), 0, 0, 1, append(head, "and not sent"...)))
			if g := r.want(1, 1); g.field("grpc-status") != "3" || !strings.Contains(g.field("grpc-message"), "does not come in time") {
				t.Errorf("%v", g)
			}
		})
	})
	t.Run("a body that does not come", func(t *testing.T) {
		engines(t, func(t *testing.T, e *engine) {
			address, _ := e.serve(t, echo, func(c *http2.ServerConfig) { c.BodyTimeout = short })
			r := dialRaw(t, address)
			r.send(frame(nil, 1, 4, 1, post("content-length", "10")))
			if g := r.want(1, 1); g.field(":status") != "408" {
				t.Errorf("%v", g)
			}
		})
	})
}

// What the listener allows a connection that says nothing does not bind one that waits for an answer.
func TestListenersIdleLimit(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		s := http2.NewServer(loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			err := loam.Sleep(req.Task(), 1500*time.Millisecond)
			return &loam.Response{Status: 200}, err
		}), http2.ServerConfig{Options: protocol.Options{Log: e.log}, Hub: e.hub})
		ln, err := e.Listen(t.Context(), "tcp", "127.0.0.1:0", loop.ListenOptions{Idle: time.Second, Open: func(c loop.Conn) loop.Session { return s.Session(c, nil, nil, nil) }})
		if err != nil {
			t.Fatal(err)
		}
		r := dialRaw(t, ln.Addr().String())
		r.send(frame(nil, 1, 5, 1, get()))
		if g := r.want(1, 1); g.field(":status") != "200" {
			t.Errorf("%v", g)
		}
	})
}

// A drained connection serves what it has, tells twice, and closes.
func TestDrain(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		address, s := e.serve(t, echo)
		r, idle := dialRaw(t, address), dialRaw(t, address)
		r.send(frame(nil, 1, 4, 1, post()))
		r.send(frame(nil, 6, 0, 0, make([]byte, 8)))
		r.want(6, 0) // the request is under way
		s.Drain()
		g, ok := r.next()
		if !ok || g.kind != 7 || binary.BigEndian.Uint32(g.payload) != 1<<31-1 || g.code() != http2.NoError {
			t.Fatalf("%v", g)
		}
		ping := r.want(6, 0)
		r.send(frame(nil, 1, 5, 3, get())) // sent before the first GOAWAY was seen: it counts
		if g := r.want(1, 3); g.field(":status") != "200" {
			t.Errorf("%v", g)
		}
		r.send(frame(nil, 6, 1, 0, ping.payload))
		for g, ok = r.next(); ok && g.kind != 7; g, ok = r.next() {
		}
		if !ok {
			t.Fatal("no second GOAWAY")
		}
		last := binary.BigEndian.Uint32(g.payload)
		if last != 3 {
			t.Errorf("the last stream is %d", last)
		}
		r.send(frame(nil, 1, 5, 5, get()))
		if g := r.want(3, 5); g.code() != http2.RefusedStream {
			t.Errorf("%v", g)
		}
		r.send(frame(nil, 0, 1, 1, []byte("body")))
		if g := r.want(1, 1); g.field(":status") != "200" {
			t.Errorf("%v", g)
		}
		if code := r.wantClosed(); code != http2.NoError {
			t.Errorf("ended with %v", code)
		}
		if code := idle.wantClosed(); code != http2.NoError {
			t.Errorf("the idle one ended with %v", code)
		}
	})
}

// Streams beyond the bound are refused, those that were reset while their task still runs count.
func TestStreamBound(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		address, _ := e.serve(t, echo, func(c *http2.ServerConfig) { c.Streams = 4 })
		r := dialRaw(t, address)
		for id := uint32(1); id <= 9; id += 2 {
			r.send(frame(nil, 1, 4, id, post()))
		}
		if g := r.want(3, 9); g.code() != http2.RefusedStream {
			t.Errorf("%v", g)
		}
		r.send(frame(nil, 0, 1, 9, []byte("for nobody"))) // was on its way
		r.send(frame(nil, 0, 1, 1, nil))
		g := r.want(1, 1)
		if g.field(":status") != "200" {
			t.Errorf("%v", g)
		}
		for g.flags&1 == 0 { // its place is free when it has ended
			g = r.want(0, 1)
		}
		r.send(frame(nil, 1, 5, 11, get()))
		if g := r.want(1, 11); g.field(":status") != "200" {
			t.Errorf("%v", g)
		}
	})
}

// A body that came whole, and that nobody read, takes nothing of the connection's window for good.
func TestUnreadBody(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		address, _ := e.serve(t, loam.TargetFunc(func(*loam.Request) (*loam.Response, error) { return &loam.Response{Status: 200}, nil }), func(*http2.ServerConfig) {})
		r := dialRaw(t, address)
		for id := uint32(1); id < 7; id += 2 {
			b := frame(nil, 1, 4, id, post())
			for i := range 12 { // 192 KiB
				flags := byte(0)
				if i == 11 {
					flags = 1
				}
				b = frame(b, 0, flags, id, make([]byte, 16<<10))
			}
			r.send(b)
			r.want(1, id)
		}
		if g := r.want(8, 0); binary.BigEndian.Uint32(g.payload) < 500<<10 {
			t.Errorf("%v", g)
		}
	})
}
