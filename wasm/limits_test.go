package wasm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	"github.com/loam-run/loam/wasm/wasi"
)

// Each limit answers with its own error, is counted, and the next request is served as if nothing had been.
func TestLimits(t *testing.T) {
	methods := loam.Methods{"m": func(context.Context, *loam.Caller, []byte) ([]byte, error) { return nil, nil }}
	callM := join(call(0, 0, 1, 0, 100, 0, 0), drop) // sends 100 bytes
	loopOf := func(body ...any) []byte { return join(0x03, 0x40, join(body...), 0x0c, 0x00, 0x0b) }
	const second, kilobyte = time.Second, 1 << 10
	for _, c := range []struct {
		name   string
		guest  handmade
		config Config
		body   string
		code   loam.Code
		limit  guest.Limit
		want   string
	}{
		{"request", handmade{serve: serves}, Config{MaxRequest: kilobyte}, strings.Repeat("x", kilobyte+1), loam.InvalidArgument, guest.LimitRequest, "larger than 1024 bytes"},
		{"response", handmade{imports: []string{"loam.response_body"}, serve: join(call(0, 0, 2000), drop)}, Config{MaxResponse: kilobyte}, "", loam.ResourceExhausted, guest.LimitResponse, "larger than 1024 bytes"},
		{"wall", handmade{serve: forever}, Config{Timeout: 100 * time.Millisecond, CPU: time.Hour}, "", loam.DeadlineExceeded, guest.LimitWall, "not done in time"},
		{"wall, asleep", handmade{imports: []string{"wasi_snapshot_preview1.poll_oneoff"}, serve: join(call(0, 0, 64, 1, 128), drop), data: sleepForever}, Config{Timeout: 100 * time.Millisecond}, "", loam.DeadlineExceeded, guest.LimitWall, "not done in time"},
		{"wall, calling the host", handmade{imports: []string{"wasi_snapshot_preview1.clock_time_get"}, serve: loopOf([]byte{0x41, 0, 0x42, 0, 0x41, 0, 0x10, 0, drop})}, Config{Timeout: 100 * time.Millisecond, CPU: time.Hour}, "", loam.DeadlineExceeded, guest.LimitWall, "not done in time"},
		{"cpu", handmade{serve: forever}, Config{Timeout: time.Hour, CPU: 20 * time.Millisecond}, "", loam.DeadlineExceeded, guest.LimitCPU, "20ms of processor time"},
		{"cpu, filling memory", handmade{serve: loopOf([]byte{0x41, 0, 0x41, 7, 0x41, 0x80, 0x80, 0x3c, 0xfc, 11, 0}), pages: 16}, Config{Timeout: time.Hour, CPU: 20 * time.Millisecond}, "", loam.DeadlineExceeded, guest.LimitCPU, "processor time"},
		{"cpu, calling the host", handmade{imports: []string{"wasi_snapshot_preview1.clock_time_get"}, serve: loopOf([]byte{0x41, 0, 0x42, 0, 0x41, 0, 0x10, 0, drop})}, Config{Timeout: time.Hour, CPU: 20 * time.Millisecond}, "", loam.DeadlineExceeded, guest.LimitCPU, "processor time"},
		{"cpu, drawing random bytes", handmade{imports: []string{"wasi_snapshot_preview1.random_get"}, serve: loopOf(call(0, 0, 65536), drop)}, Config{Timeout: time.Hour, CPU: 20 * time.Millisecond}, "", loam.DeadlineExceeded, guest.LimitCPU, "processor time"},
		{"cpu, flooding stderr", handmade{imports: []string{"wasi_snapshot_preview1.fd_write"}, serve: loopOf(call(0, 2, 0, 1, 64), drop), data: []byte("\x00\x00\x00\x00\x00\x00\x01\x00")}, Config{Timeout: time.Hour, CPU: 20 * time.Millisecond}, "", loam.DeadlineExceeded, guest.LimitCPU, "processor time"},
		{"stack", handmade{serve: []byte{0x10, 0}}, Config{Timeout: time.Hour}, "", loam.Internal, guest.LimitStack, "stack overflow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.guest.pages == 0 {
				c.guest.pages = 1
			}
			c.config.Isolation = IsolationShared
			m := compile(t, c.guest.bytes(), c.config)
			_, _, err := trySend(t, m, "POST", "/", c.body)
			if loam.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) || !strings.Contains(fmt.Sprint(err), `function "orders"`) {
				t.Errorf("%v", err)
			}
			if tooLarge := (*http.MaxBytesError)(nil); c.limit == guest.LimitRequest && !errors.As(err, &tooLarge) {
				t.Error("the edge cannot tell that it is a 413")
			}
			if n := m.stats.Limits[c.limit].Load(); n != 1 {
				t.Errorf("the limit was hit %d times: %v", n, &m.stats.Limits)
			}
			if n := m.stats.Outcomes[c.code].Load(); n != 1 {
				t.Errorf("%d calls ended so", n)
			}
			if len(m.idle) != 0 {
				t.Error("an instance that was ended is kept")
			}
		})
	}
	for _, c := range []struct {
		name   string
		config Config
		limit  guest.Limit
	}{
		{"calls", Config{MaxCalls: 3}, guest.LimitCalls},
		{"egress", Config{MaxEgress: 399}, guest.LimitEgress},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.Methods = methods
			// Three calls are answered; of the fourth one the guest hears what it may not.
			m := compile(t, handmade{
				imports: []string{"loam.call", "loam.response_body"}, pages: 1, data: []byte("m"),
				serve: join(callM, callM, callM, call(0, 0, 1, 0, 100, 512, 300), []byte{0x42, 32, 0x88, 0xa7}, mustBe(byte(loam.ResourceExhausted))),
			}.bytes(), c.config)
			send(t, m, "GET", "/", "")
			if n := m.stats.Limits[c.limit].Load(); n != 1 || m.stats.Sent.Load() != 300 {
				t.Errorf("hit %d times, %d bytes were sent", n, m.stats.Sent.Load())
			}
		})
	}
}

// Memory beyond the limit is refused, counted, and the guest's to live without.
func TestMemoryLimit(t *testing.T) {
	for name, passive := range map[string][]byte{"image": nil, "plain": {1}} {
		g := handmade{serve: join([]byte{0x41, 1, 0x40, 0}, mustBe(2), []byte{0x41, 1, 0x40, 0}, mustBe(minusOne), []byte{0x41, 50, 0x40, 0}, mustBe(minusOne)), pages: 2, passive: passive}
		if passive != nil {
			g.initialize = []byte{0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 8, 0, 0}
		}
		m := compile(t, g.bytes(), Config{Memory: 3 << 16})
		for n := range int64(3) {
			send(t, m, "GET", "/", "")
			if got := m.stats.Limits[guest.LimitMemory].Load(); got != 2*(n+1) {
				t.Errorf("%s: refused %d times, want %d", name, got, 2*(n+1))
			}
		}
	}
}

// sleepForever is a subscription to a clock that never strikes.
var sleepForever = append(append(make([]byte, 16), 1, 0, 0, 0, 0, 0, 0, 0), append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, make([]byte, 16)...)...)

// A guest that does not end holds up neither other goroutines nor the garbage collector.
func TestEndlessGuestStallsNobody(t *testing.T) {
	m := compile(t, handmade{serve: forever, pages: 1}.bytes(), Config{Timeout: time.Hour})
	small := compile(t, handmade{serve: serves, pages: 1}.bytes(), Config{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			if _, err := m.Serve(request(ctx, "GET", "/", "")); loam.CodeOf(err) != loam.Canceled {
				t.Errorf("%v", err)
			}
		})
	}
	for m.Calls() < 2*runtime.GOMAXPROCS(0) {
		runtime.Gosched()
	}
	for range 5 {
		runtime.GC()
		send(t, small, "GET", "/", "")
	}
	if n := m.Calls(); n != 2*runtime.GOMAXPROCS(0) {
		t.Errorf("%d guests are still under way", n)
	}
	cancel()
	wg.Wait()
}

// A storm of traps leaves nothing behind and harms no request beside it.
func TestTrapStorm(t *testing.T) {
	m := compile(t, handmade{
		imports: []string{"loam.request_body", "loam.response_body"}, pages: 2, // traps if there is a body of which the first byte is 1
		serve: join(call(0, 0, 1), drop, []byte{0x41, 0, 0x2d, 0, 0, 0x41, 1, 0x46, 0x04, 0x40, unreachable, 0x0b}, call(1, 0, 1), drop),
	}.bytes(), Config{})
	before := testHost.mapper.used()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := range 500 {
				if n%2 == 0 {
					if _, _, err := trySend(t, m, "POST", "/", "\x01"); loam.CodeOf(err) != loam.Internal || !strings.Contains(err.Error(), "trap: unreachable") {
						t.Errorf("%v", err)
					}
				} else if status, body := send(t, m, "POST", "/", "\x02"); status != 200 || body != "\x02" {
					t.Errorf("%d %q", status, body)
				}
			}
		})
	}
	wg.Wait()
	if forked, dropped := m.stats.Forked.Load(), m.stats.Dropped.Load(); forked > 32 || dropped > 0 { // 4 would do on 1 loop
		t.Errorf("%d instances were forked, %d dropped", forked, dropped)
	}
	m.program.pool.trim()
	m.program.pool.trim()
	if n := testHost.mapper.used(); n > before {
		t.Errorf("%d mappings, there were %d", n, before)
	}
}

// What a guest that failed left in its memory, the next one does not find, though it may have the same instance: it
// answers with all of its memory.
func TestNothingIsLeftByFailures(t *testing.T) {
	const at, pages, serve = 70000, 2, 2
	when := func(n int, does ...byte) []byte { // the request begins with n
		return join(call(0, at)[:4], []byte{0x2d, 0, 0, 0x41}, n, []byte{0x46, 0x04, 0x40}, does, []byte{0x0b})
	}
	m := compile(t, handmade{
		imports: []string{"loam.request_body", "loam.response_body"}, pages: pages,
		serve: join(call(0, at, 64), drop,
			when(1, unreachable), when(2, forever...), when(3, 0x10, serve),
			when(4, 0x41, 4, 0x40, 0, drop, unreachable), // grows its memory, and traps
			call(1, 0, pages<<16), drop),
	}.bytes(), Config{CPU: 5 * time.Millisecond})
	for range 40 { // its first calls are watched in another way than the later ones
		for kind, code := range []loam.Code{1: loam.Internal, 2: loam.DeadlineExceeded, 3: loam.Internal, 4: loam.Internal} {
			if kind == 0 {
				continue
			}
			if _, _, err := trySend(t, m, "POST", "/", string(rune(kind))+"secret"); loam.CodeOf(err) != code {
				t.Fatalf("%d: %v", kind, err)
			}
			status, body := send(t, m, "POST", "/", "\x00mine")
			if status != 200 || len(body) != pages<<16 || !strings.Contains(body, "mine") || strings.Contains(body, "secret") {
				t.Fatalf("after %d: %d, %d bytes", kind, status, len(body))
			}
		}
	}
	if forked, reset := m.stats.Forked.Load(), m.stats.Reset.Load(); forked > 8 || reset < 300 {
		t.Errorf("%d instances were forked and %d reset: the failed ones were not used again", forked, reset)
	}
}

// A guest that recurses without end makes no new stack of each call's. Many of them keep no more than the host allows.
func TestLargeStacksAreKept(t *testing.T) {
	m := compile(t, handmade{serve: []byte{0x10, 0}, pages: 1}.bytes(), Config{}) // it calls itself
	overflow := func() {
		if _, _, err := trySend(t, m, "GET", "/", ""); err == nil || !strings.Contains(err.Error(), "stack overflow") {
			t.Error(err)
		}
	}
	overflow()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 50
	for range n {
		overflow()
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > maxStack/4 {
		t.Errorf("%d bytes of garbage for each", each)
	}
	if forked := m.stats.Forked.Load(); forked > 4 { // one for each loop that served it
		t.Errorf("%d instances were forked", forked)
	}
	var wg sync.WaitGroup
	for range 3 * maxDeep {
		wg.Go(overflow)
	}
	wg.Wait()
	if kept := m.program.pool.len(); testHost.deep.Load() > maxDeep || kept > maxDeep {
		t.Errorf("%d large stacks are counted, %d instances kept", testHost.deep.Load(), kept)
	}
	m.program.pool.trim()
	m.program.pool.trim()
	if left := testHost.deep.Load(); left != 0 {
		t.Errorf("%d large stacks are counted when no instance is left", left)
	}
}

// A function that calls itself, directly or through another, is told so where it would wait for ever.
func TestSelfCall(t *testing.T) {
	for _, c := range []struct {
		name                   string
		concurrency            int
		through, session, fits bool
	}{
		{name: "directly", concurrency: 1},
		{name: "through another", concurrency: 1, through: true},
		{name: "with room", concurrency: 3, fits: true},
		{name: "in its session", concurrency: 9, session: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var target, other *Module
			var inner atomic.Value
			depth := 0
			methods := loam.Methods{"state.Get": func(ctx context.Context, caller *loam.Caller, _ []byte) ([]byte, error) {
				r := request(ctx, "GET", "/count", "")
				defer r.Release()
				r.Caller = caller
				if c.session {
					r.Header.Add("X-Session", "a")
				}
				to := target
				if depth++; c.through && depth == 1 {
					r.Method, r.Path, r.RawQuery, to = "POST", "/call/get", "key=a", other
				}
				_, err := to.Serve(r)
				if err != nil && inner.Load() == nil {
					inner.Store(err)
				}
				return nil, loam.Errorf(loam.NotFound, "", "it is no state")
			}}
			config := Config{Concurrency: c.concurrency, Methods: methods, Caller: &loam.Caller{Name: "orders"}}
			if c.session {
				config.Isolation, config.Session = IsolationSession, Session{Header: "X-Session"}
			}
			target = compile(t, guestModule, config)
			var err error
			if other, err = testHost.Compile(t.Context(), "other", guestModule, config); err != nil {
				t.Fatal(err)
			}
			defer other.Close(t.Context())
			r := request(t.Context(), "POST", "/call/get?key=a", "")
			r.Header.Add("X-Session", "a")
			if _, err := target.Serve(r); err != nil {
				t.Fatal(err)
			}
			err, _ = inner.Load().(error)
			if c.fits != (err == nil) || !c.fits && (loam.CodeOf(err) != loam.FailedPrecondition || !strings.Contains(err.Error(), "calls itself")) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Whatever a guest passes to an import of WASI, it is an error of its own or its own trap.
func TestLyingToWASI(t *testing.T) {
	engine, err := testHost.engine(false)
	if err != nil {
		t.Fatal(err)
	}
	functions := engine.Module(wasi.Module).ExportedFunctionDefinitions()
	if len(functions) < 45 {
		t.Fatalf("%d functions", len(functions))
	}
	for name, f := range functions {
		for _, value := range []int32{0, 1, 3, -1, 1 << 16, 1<<16 - 1, 1 << 30, -1 << 31} {
			var code []byte
			sig := ""
			for _, p := range f.ParamTypes() {
				c := call(0, value)
				if c = c[:len(c)-2]; p == 0x7e {
					c[0], sig = 0x42, sig+"I"
				} else {
					sig += "i"
				}
				code = append(code, c...)
			}
			code = append(code, 0x10, 0)
			sig += ":"
			if len(f.ResultTypes()) > 0 {
				code, sig = append(code, drop), sig+"i"
			}
			g := handmade{imports: []string{wasi.Module + "." + name + "/" + sig}, serve: code, pages: 1}
			m, err := testHost.Compile(t.Context(), "orders", g.bytes(), Config{Interpret: true, Timeout: 5 * time.Millisecond})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_, _, err = trySend(t, m, "GET", "/", "")
			if name == "proc_exit" != (loam.CodeOf(err) == loam.Internal) && loam.CodeOf(err) != loam.DeadlineExceeded {
				t.Errorf("%s(%d): %v", name, value, err)
			}
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

// A trap says where it was, by the guest's own names and places, and which request it was.
func TestTrapHasAStack(t *testing.T) {
	var log syncBuffer
	h := newHost(t, Options{Log: textLog(&log)})
	m, err := tryCompile(t, h, guestModule, Config{Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := trySend(t, m, "GET", "/trap", ""); loam.CodeOf(err) != loam.Internal || !strings.Contains(err.Error(), "request r-1: trap: unreachable") {
		t.Errorf("%v", err)
	}
	for _, want := range []string{"function=orders", "request r-1", "main.deepest /", "(indirect call)", "wasm/testdata/guest/main.go:", "loam_serve"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, log.String())
		}
	}
	if _, _, err := trySend(t, m, "GET", "/recurse", ""); loam.CodeOf(err) != loam.Internal || !strings.Contains(err.Error(), "stack overflow") && !strings.Contains(err.Error(), "exited with status 2") {
		t.Errorf("%v", err)
	}
	if status, _ := send(t, m, "GET", "/count", ""); status != 200 {
		t.Errorf("%d", status)
	}
}

// What calls take is told to the host's owner, call by call, and sums up to the function's counters.
func TestUsage(t *testing.T) {
	var mu sync.Mutex
	var all []Usage
	h := newHost(t, Options{Usage: func(u Usage) { mu.Lock(); defer mu.Unlock(); all = append(all, u) }})
	m, err := tryCompile(t, h, guestModule, Config{Methods: loam.Methods{
		"state.Get": func(context.Context, *loam.Caller, []byte) ([]byte, error) {
			return nil, loam.Errorf(loam.NotFound, "", "x")
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	send(t, m, "POST", "/echo", strings.Repeat("x", 100))
	send(t, m, "POST", "/call/get?key=a", "")
	_, _, _ = trySend(t, m, "GET", "/trap", "")
	if len(all) != 3 {
		t.Fatalf("%d calls", len(all))
	}
	first := all[0]
	if first.Function != "orders" || first.Code != loam.OK || first.In != 100 || first.Out != 100 || first.Cold != ColdFork || first.CPU <= 0 || first.Wall <= 0 || first.Memory <= 0 {
		t.Errorf("%+v", first)
	}
	if u := all[1]; u.Calls != 1 || u.Sent == 0 || u.Cold != Warm {
		t.Errorf("%+v", u)
	}
	if u := all[2]; u.Code != loam.Internal {
		t.Errorf("%+v", u)
	}
	var sum Usage
	for _, u := range all {
		sum.CPU += u.CPU
		sum.Memory += u.Memory
		sum.Calls += u.Calls
	}
	s := m.Stats()
	if s.CPU.Load() != int64(sum.CPU) || s.Memory.Load() != sum.Memory || s.Calls.Load() != sum.Calls || s.Outcomes[loam.OK].Load() != 2 || s.Forked.Load() != 1 {
		t.Errorf("the counters differ from the calls' sum %+v", sum)
	}
	// A guest that works longer is billed more; how much of a processor's time that is, is estimated.
	if m.host.cpu(m.host.units(time.Second)).Round(time.Millisecond) != time.Second {
		t.Error("units and time do not convert")
	}
}
