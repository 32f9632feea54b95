package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loam-run/loam"
)

// pair is two ends of a wire.
func pair(t *testing.T) (a, b *wire) {
	t.Helper()
	fa, fb, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	a, err = newWire(fa)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	if b, err = newWire(fb); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return a, b
}

func TestWire(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // more than a socket's buffer holds
	sent := make(chan error, 1)
	go func() {
		sent <- errors.Join(
			a.send("first", 0, "hello", nil),
			a.send("second", 7, socketOf{Name: "web"}, large, w),
			a.send("third", 0, nil, nil, w, w),
			w.Close(),
		)
	}()
	for _, want := range []struct {
		kind    string
		id      uint64
		payload int
		files   int
	}{{"first", 0, 0, 0}, {"second", 7, len(large), 1}, {"third", 0, 0, 2}} {
		m, err := b.receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind != want.kind || m.ID != want.id || len(m.payload) != want.payload || len(m.files) != want.files {
			t.Errorf("%s %d with %d bytes and %d files, want %+v", m.Kind, m.ID, len(m.payload), len(m.files), want)
		}
		if want.payload > 0 && !bytes.Equal(m.payload, large) {
			t.Error("the payload is another")
		}
		for _, f := range m.files {
			if _, err := fmt.Fprint(f, m.Kind, " "); err != nil {
				t.Error(err)
			}
		}
		m.close()
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	got, err := io.ReadAll(r) // ends, since no descriptor is left open
	if err != nil || string(got) != "second third third " {
		t.Errorf("%q %v", got, err)
	}
	a.close()
	if _, err := b.receive(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestWireBounds(t *testing.T) {
	a, b := pair(t)
	if err := a.send("large", 0, nil, make([]byte, maxPayload+1)); loam.CodeOf(err) != loam.ResourceExhausted {
		t.Error(err)
	}
	if err := a.send("many", 0, nil, nil, make([]*os.File, maxFiles+1)...); loam.CodeOf(err) != loam.ResourceExhausted {
		t.Error(err)
	}
	if _, err := a.conn.Write(binary.BigEndian.AppendUint64(nil, 1<<62)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.receive(); err == nil {
		t.Error("a message that cannot be was received")
	}
}

func FuzzParseMessage(f *testing.F) {
	frame := func(head string, payload string) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(head)))
		b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
		return append(append(b, head...), payload...)
	}
	f.Add(frame(`{"kind":"hello","body":{"wire":1}}`, ""))
	f.Add(frame(`{"kind":"relay","files":2,"body":{"FromA":1,"FromB":2}}`, "abc"))
	f.Add(frame(`{"kind":"call","id":3,"body":{"method":"state.Get"}}`, "in")[:11])
	f.Add(frame(`{"kind":"app","body":{"Name":"x","PID":1}}`, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n, err := parseMessage(b)
		if err != nil || n == 0 {
			return
		}
		if n < 8 || n > len(b) || m.Files < 0 || m.Files > maxFiles {
			t.Fatalf("%d of %d bytes, %d files", n, len(b), m.Files)
		}
		if fr, err := thaw(m); err == nil {
			t.Fatalf("a relay without files: %v", fr)
		}
		if a, g, err := given(m); err == nil && (g.PID > 0 || a.Output) {
			t.Fatalf("an app without files: %v", a)
		}
	})
}

// talk connects two processes' calls.
func talk(t *testing.T, methods loam.Methods) (caller *peer) {
	t.Helper()
	a, b := pair(t)
	caller, callee := newPeer(a, nil), newPeer(b, methods)
	var readers sync.WaitGroup
	for _, p := range []*peer{caller, callee} {
		readers.Go(func() { _ = p.read(func(m *message) error { return fmt.Errorf("it said %q", m.Kind) }) })
	}
	t.Cleanup(func() {
		a.close()
		b.close()
		readers.Wait()
	})
	return caller
}

func TestForwardedCalls(t *testing.T) {
	asked := make(chan struct{})
	p := talk(t, loam.Methods{
		"state.Get": func(ctx context.Context, c *loam.Caller, in []byte) ([]byte, error) {
			if err := c.Check("state", "default", string(in), true); err != nil {
				return nil, err
			}
			return append([]byte("got "), in...), nil
		},
		"lock.Wait": func(ctx context.Context, _ *loam.Caller, _ []byte) ([]byte, error) {
			asked <- struct{}{}
			<-ctx.Done()
			asked <- struct{}{}
			return nil, ctx.Err()
		},
	})
	caller := &loam.Caller{Name: "fn", Grants: []loam.Grant{{Capability: "state", Component: "default", Names: []string{"a/*"}}}}
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			key := fmt.Sprintf("a/%d", i)
			if out, err := p.call(t.Context(), "state.Get", caller, []byte(key)); err != nil || string(out) != "got "+key {
				t.Errorf("%s: %q %v", key, out, err)
			}
		})
	}
	all.Wait()
	_, err := p.call(t.Context(), "state.Get", caller, []byte("b"))
	if local := caller.Check("state", "default", "b", true); loam.CodeOf(err) != loam.PermissionDenied || err.Error() != local.Error() || loam.HintOf(err) != loam.HintOf(local) {
		t.Errorf("%v; %s", err, loam.HintOf(err))
	}
	if _, err := p.call(t.Context(), "no.Such", caller, nil); loam.CodeOf(err) != loam.Unimplemented {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := p.call(ctx, "lock.Wait", caller, nil)
		result <- err
	}()
	<-asked
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-asked // it was canceled over there too
}

// A call whose process has gone fails as one that may be tried again.
func TestForwardedToNobody(t *testing.T) {
	asked, never := make(chan struct{}), make(chan struct{})
	p := talk(t, loam.Methods{"state.Get": func(context.Context, *loam.Caller, []byte) ([]byte, error) {
		close(asked)
		<-never
		return nil, nil
	}})
	result := make(chan error, 1)
	go func() {
		_, err := p.call(t.Context(), "state.Get", nil, nil)
		result <- err
	}()
	<-asked
	p.close()
	if err := <-result; loam.CodeOf(err) != loam.Unavailable {
		t.Error(err)
	}
	if _, err := p.call(t.Context(), "state.Get", nil, nil); loam.CodeOf(err) != loam.Unavailable {
		t.Error(err)
	}
	close(never)
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		inside, let := make(chan struct{}), make(chan struct{})
		var open atomic.Bool
		open.Store(true)
		m := g.method("state.Get", func(_ context.Context, _ *loam.Caller, in []byte) ([]byte, error) {
			if !open.Load() {
				t.Error("a call came while the store was closed")
			}
			if in != nil {
				close(inside)
				<-let
			}
			return in, nil
		})
		go func() { _, _ = m(t.Context(), nil, []byte("x")) }()
		<-inside
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.hold(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error("held while a call was under way:", err)
		}
		close(let)
		if err := g.hold(t.Context()); err != nil {
			t.Error(err)
		}
		open.Store(false)
		patient, hasty := make(chan error, 1), make(chan error, 1)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { _, err := m(t.Context(), nil, nil); patient <- err }()
		go func() { _, err := m(short, nil, nil); hasty <- err }()
		if err := <-hasty; loam.CodeOf(err) != loam.Unavailable {
			t.Error(err)
		}
		open.Store(true)
		g.open()
		if err := <-patient; err != nil {
			t.Error(err)
		}
		if n := g.inside.Load(); n != 0 {
			t.Error(n, "are counted inside")
		}
	})
}

// Calls that come in all the time see the store open, however often it changes hands.
func TestGateUnderLoad(t *testing.T) {
	g := newGate()
	var open atomic.Bool
	open.Store(true)
	see := func() ([]byte, error) {
		for range 3 {
			if !open.Load() {
				t.Error("a call came while the store was closed")
			}
			runtime.Gosched()
		}
		return nil, nil
	}
	m := g.method("state.Get", func(context.Context, *loam.Caller, []byte) ([]byte, error) { return see() })
	own := g.taskMethod(func(context.Context, loam.Task, *loam.Caller, []byte) ([]byte, error) { return see() }, m)
	ctx, stop := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	var n atomic.Int64
	for i := range 8 {
		calls.Go(func() {
			task, end := loam.NewTask(t.Context())
			defer end()
			for ctx.Err() == nil {
				var err error
				if i%2 == 0 {
					_, err = m(t.Context(), nil, nil)
				} else {
					_, err = own(t.Context(), task, nil, nil)
				}
				if err != nil {
					t.Error(err)
				}
				n.Add(1)
			}
		})
	}
	for i := range 200 {
		for n.Load() < int64(10*i) {
			runtime.Gosched()
		}
		if err := g.hold(t.Context()); err != nil {
			t.Fatal(err)
		}
		open.Store(false)
		runtime.Gosched()
		open.Store(true)
		g.open()
	}
	stop()
	calls.Wait()
}

func TestPredecessor(t *testing.T) {
	t.Setenv(predecessorEnv, "")
	if f, err := Predecessor(); f != nil || err != nil {
		t.Error(f, err)
	}
	t.Setenv(predecessorEnv, "two")
	if _, err := Predecessor(); err == nil || !strings.Contains(err.Error(), "two") {
		t.Error(err)
	}
	if _, there := os.LookupEnv(predecessorEnv); there {
		t.Error("programs that are started would see it")
	}
}
