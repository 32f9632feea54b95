package http2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
)

// script is a connection whose peer says what it was told to, piece by piece.
type script struct {
	mu      sync.Mutex
	pieces  [][]byte
	session loop.Session
	wrote   []byte
	closed  bool
}

func (c *script) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case len(c.pieces) == 0:
		return 0, loop.ErrAgain
	case len(c.pieces[0]) == 0:
		c.pieces = c.pieces[1:]
		return 0, loop.ErrAgain
	}
	n := copy(p, c.pieces[0])
	c.pieces[0] = c.pieces[0][n:]
	return n, nil
}

func (c *script) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	c.wrote = append(c.wrote, p...)
	return len(p), nil
}

func (c *script) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	s := c.session
	c.mu.Unlock()
	if s != nil {
		s.Close()
	}
	return nil
}

// serve lets the session take the next piece. It is false when there is nothing more to take.
func (c *script) serve() bool {
	c.mu.Lock()
	more := !c.closed && c.session != nil && len(c.pieces) > 0
	c.mu.Unlock()
	if !more {
		return false
	}
	t, end := loam.NewTask(context.Background())
	defer end()
	if c.session.Serve(t, c) == loop.Close {
		_ = c.Close()
	}
	return true
}

func (c *script) Poll(bool)                               {}
func (c *script) Ready() error                            { return nil }
func (c *script) CloseWrite() error                       { return nil }
func (c *script) Release(s loop.Session, _ time.Duration) { c.mu.Lock(); c.session = s; c.mu.Unlock() }
func (c *script) Take(loam.Task) bool                     { return false }
func (c *script) File() (*os.File, error)                 { return nil, errors.ErrUnsupported }
func (c *script) LocalAddr() net.Addr                     { return &net.TCPAddr{} }
func (c *script) RemoteAddr() net.Addr                    { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (c *script) SetDeadline(time.Time) error             { return nil }
func (c *script) SetReadDeadline(time.Time) error         { return nil }
func (c *script) SetWriteDeadline(time.Time) error        { return nil }

// pieces cuts what is fuzzed at a byte that frames rarely have.
func pieces(b []byte) [][]byte { return bytes.Split(b, []byte{0xfe}) }

// checkFrames tells what is wrong with what we wrote.
func checkFrames(t *testing.T, b []byte) {
	dec := hpack.NewDecoder(4096, nil)
	var block []byte
	for len(b) > 0 {
		if len(b) < frameHeader {
			t.Fatalf("%d bytes are no frame", len(b))
		}
		length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if len(b) < frameHeader+length || length > maxFrame {
			t.Fatalf("a frame of %d bytes, %d are there", length, len(b))
		}
		kind, flags, p := b[3], b[4], b[frameHeader:frameHeader+length]
		switch kind {
		case frameHeaders, frameContinuation:
			block = append(block, p...)
			if flags&flagEndHeaders != 0 {
				if _, err := dec.DecodeFull(block); err != nil {
					t.Fatalf("a head that is not HPACK: %v", err)
				}
				block = nil
			}
		case frameWindowUpdate:
			if n := binary.BigEndian.Uint32(p); n == 0 || n > maxWindow {
				t.Fatalf("a window update by %d", n)
			}
		}
		b = b[frameHeader+length:]
	}
}

func fuzzHub() *Hub { return &Hub{shards: make([]shard, 1), memo: newMemo(), ids: protocol.NewIDs()} }

func seedFrames(f *testing.F, add func([]byte)) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/a?b"}, {"content-type", "application/grpc"}, {"te", "trailers"}, {"cookie", "a"}, {"cookie", "b"}} {
		_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}) // a buffer takes all
	}
	head := b.Bytes()
	join := slices.Concat[[]byte]
	frame := func(kind, flags byte, id uint32, p []byte) []byte {
		return append(appendFrame(nil, len(p), kind, flags, id), p...)
	}
	add(join(frame(1, 5, 1, head)))
	add(join(frame(1, 4, 1, head), []byte{0xfe}, frame(0, 0, 1, []byte("hello")), []byte{0xfe}, frame(0, 1, 1, nil)))
	add(join(frame(1, 4, 1, head), frame(0, 9, 1, []byte{2, 'x', 0, 0}), frame(3, 0, 1, []byte{0, 0, 0, 8})))
	add(join(frame(1, 0, 1, head[:4]), frame(9, 4, 1, head[4:]), frame(8, 0, 1, []byte{0, 0, 1, 0}), frame(8, 0, 0, []byte{0, 0, 1, 0})))
	add(join(frame(4, 0, 0, []byte{0, 4, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0}), frame(1, 5, 1, []byte{0x88}), frame(6, 0, 0, make([]byte, 8))))
	add(join(frame(1, 4, 1, []byte{0x88}), frame(0, 0, 1, []byte("body")), frame(1, 5, 1, []byte{0, 1, 'a', 1, 'b'})))
	add(join(frame(1, 4, 1, []byte{0x88}), []byte{0xfe}, frame(7, 0, 0, make([]byte, 8)), frame(3, 0, 1, []byte{0, 0, 0, 7})))
}

// FuzzServer has a client say anything to a server whose target reads and answers.
func FuzzServer(f *testing.F) {
	seedFrames(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, in []byte) {
		synctest.Test(t, func(t *testing.T) {
			target := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
				res := &loam.Response{Status: 200, Length: -1, Body: http2Echo{req.Body}}
				if req.Body == nil {
					res.Body = nil
				}
				for _, h := range req.Header {
					res.Header.Add(h.Name, h.Value)
				}
				return res, nil
			})
			s := NewServer(target, ServerConfig{Options: protocol.Options{Log: slog.New(slog.DiscardHandler)}, Hub: fuzzHub(), Limits: Limits{Streams: 8, Body: 1 << 20, Nuisance: 50}})
			c := &script{pieces: append([][]byte{append([]byte(preface), 0, 0, 0, 4, 0, 0, 0, 0, 0)}, pieces(in)...)}
			c.session = s.Session(c, nil, nil, nil)
			for c.serve() {
				synctest.Wait()
			}
			_ = c.Close()
			synctest.Wait()
			checkFrames(t, c.wrote)
			<-time.After(time.Minute) // of the bubble: the sweeper has nothing more to do
		})
	})
}

type http2Echo struct{ io.ReadCloser }

// FuzzProxy has a client and a server say anything to the proxy between them.
func FuzzProxy(f *testing.F) {
	var seeds [][]byte
	seedFrames(f, func(b []byte) { seeds = append(seeds, b) })
	for _, a := range seeds {
		for _, b := range seeds {
			f.Add(a, b)
		}
	}
	f.Fuzz(func(t *testing.T, down, up []byte) {
		synctest.Test(t, func(t *testing.T) {
			hub := fuzzHub()
			cl := NewClient("up:1", ClientConfig{Hub: hub, MaxConnections: 1, Limits: Limits{Nuisance: 50}})
			behind := &script{pieces: append([][]byte{{0, 0, 0, 4, 0, 0, 0, 0, 0}}, pieces(up)...)}
			dialed := false
			cl.connect = func(loam.Task) (loop.Conn, net.Conn, error) {
				if dialed {
					return nil, nil, net.ErrClosed
				}
				dialed = true
				return behind, nil, nil
			}
			s := NewServer(cl, ServerConfig{Options: protocol.Options{Log: slog.New(slog.DiscardHandler)}, Hub: hub, Limits: Limits{Streams: 8, Body: 1 << 20, Nuisance: 50}})
			c := &script{pieces: append([][]byte{append([]byte(preface), 0, 0, 0, 4, 0, 0, 0, 0, 0)}, pieces(down)...)}
			c.session = s.Session(c, nil, nil, nil)
			for more := true; more; {
				more = c.serve()
				synctest.Wait()
				more = behind.serve() || more
				synctest.Wait()
			}
			_ = c.Close()
			synctest.Wait()
			_ = behind.Close()
			cl.Close()
			synctest.Wait()
			checkFrames(t, c.wrote)
			if dialed {
				if !bytes.HasPrefix(behind.wrote, []byte(preface)) && len(behind.wrote) > 0 {
					t.Fatal("no preface")
				}
				checkFrames(t, behind.wrote[min(len(preface), len(behind.wrote)):])
			}
			sh := &hub.shards[0]
			sh.mu.Lock()
			if n := len(sh.conns); n > 0 {
				t.Errorf("%d connections are left", n)
			}
			sh.mu.Unlock()
			<-time.After(time.Minute) // of the bubble: the sweeper has nothing more to do
		})
	})
}

// FuzzBlock compares the reader of blocks that leave the table alone with the library's, and a head with the same one
// from the memo.
func FuzzBlock(f *testing.F) {
	seedFrames(f, func(b []byte) {
		if len(b) > frameHeader {
			f.Add(b[frameHeader:])
		}
	})
	f.Add([]byte{0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff})
	shared := newMemo()
	f.Add([]byte{0x0f, 0x2f, 0x01, 'a', 0x10, 0x01, 'b', 0x81, 0x1f})
	f.Fuzz(func(t *testing.T, block []byte) {
		var arena bytes.Buffer
		arena.Write(block)
		r := blockReader{p: arena.Bytes(), arena: &arena, memo: shared}
		var got []loam.Field
		var err error
		for len(r.p) > 0 && err == nil {
			var field loam.Field
			if field, _, err = r.next(); err == nil {
				got = append(got, field)
			}
		}
		if !errors.Is(err, errStateful) {
			want, werr := hpack.NewDecoder(4096, nil).DecodeFull(block)
			if (err == nil) != (werr == nil) {
				t.Fatalf("%x: %v, the library says %v", block, err, werr)
			}
			for i := range want {
				if err == nil && (want[i].Name != got[i].Name || want[i].Value != got[i].Value) {
					t.Fatalf("%x: field %d is %v, the library says %v", block, i, got[i], want[i])
				}
			}
		}
		// With the sizes of the table that may stand in front of a block, and whatever the table is used for.
		d := decoder{memo: newMemo(), most: 1 << 20, count: 1 << 20}
		var whole head
		_, err = d.decode(block, trailerHead, &whole)
		if _, werr := hpack.NewDecoder(4096, nil).DecodeFull(block); errors.Is(err, errCompression) != (werr != nil) {
			t.Fatalf("%x: %v, the library says %v", block, err, werr)
		}
		for _, kind := range []headKind{requestHead, responseHead, trailerHead} {
			d := decoder{memo: newMemo(), most: 1 << 16, count: 100}
			var own head
			first, err := d.decode(block, kind, &own)
			if err != nil {
				continue
			}
			fields, path := slices.Clone(first.fields), first.path
			if r.p == nil {
				continue
			}
			for range 2 {
				var again head
				h, err := d.decode(block, kind, &again)
				if d.table == nil && (err != nil || h.path != path || !slices.Equal(h.fields, fields)) {
					t.Fatalf("%x: %v %v, first %v", block, h, err, fields)
				}
			}
		}
	})
}
