package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// Forks of one image draw different random numbers, fresh ones and those that were reset; what was seeded with a
// constant is the same in all of them.
func TestForksDoNotShareRandomness(t *testing.T) {
	m := compile(t, guestModule, Config{})
	if m.program.image == nil {
		t.Fatal(m.program.reason)
	}
	if n := len(m.program.image.seeds); n != 3 {
		t.Errorf("%d generators are reseeded, want the runtime's two and the guest's own", n)
	}
	seen := map[string]bool{}
	for i := range 8 {
		_, body := send(t, m, "GET", "/generators", "")
		f := strings.Fields(body)
		if seen[f[0]] || seen[f[1]] {
			t.Errorf("request %d drew numbers that an earlier one had: %s", i, body)
		}
		seen[f[0]], seen[f[1]] = true, true
		if f[2] != "6432203506293085853" && i == 0 {
			t.Logf("a generator of a fixed seed draws %s", f[2])
		}
		seen["fixed "+f[2]] = true
		if i%2 == 1 { // the next one is a fork that is new
			m.program.pool.take(0).close()
		}
	}
	n := 0
	for s := range seen {
		if strings.HasPrefix(s, "fixed ") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("a generator that was seeded with a constant drew %d different numbers", n)
	}
}

// The keys of Rust's hash maps: of the two numbers that were drawn, the first counts up with each map.
func TestRustKeys(t *testing.T) {
	drawn := make([]byte, 16)
	for i := range drawn {
		drawn[i] = byte(rand.Uint32())
	}
	first, second := binary.LittleEndian.Uint64(drawn), binary.LittleEndian.Uint64(drawn[8:])
	memory := make([]byte, 64<<10)
	put := func(at int, n uint64) {
		binary.LittleEndian.PutUint64(memory[at:], first+n)
		binary.LittleEndian.PutUint64(memory[at+8:], second)
	}
	copy(memory[100:], drawn) // where it was drawn, on the stack
	if at := rustKeys(memory, [][]byte{drawn}); len(at) != 0 {
		t.Errorf("found at %d before there is a map", at)
	}
	put(1000, 0) // a map
	put(2000, 1) // another
	put(3000, 2) // the keys of the next
	if at := rustKeys(memory, [][]byte{drawn, {1}, make([]byte, 32)}); len(at) != 1 || at[0] != 3000 {
		t.Errorf("found at %d, want 3000", at)
	}
	put(4000, 2) // ambiguous
	if at := rustKeys(memory, [][]byte{drawn}); len(at) != 0 {
		t.Errorf("found at %d though it may be at two places", at)
	}
}

// Time goes on in forks of an image that was made in the past, and never back.
func TestClock(t *testing.T) {
	m := compile(t, guestModule, Config{})
	made := time.Now() // the image is older
	last := int64(0)
	for range 5 {
		before := time.Since(made)
		_, body := send(t, m, "GET", "/clock", "")
		var age, wall int64
		if _, err := fmt.Sscan(body, &age, &wall); err != nil {
			t.Fatal(err)
		}
		if age <= last || time.Duration(age) < before {
			t.Errorf("the guest is %v old, was %v old, and is at least %v old", time.Duration(age), time.Duration(last), before)
		}
		last = age
		if off := time.Since(time.Unix(0, wall)); off < 0 || off > time.Minute {
			t.Errorf("its wall clock is off by %v", off)
		}
	}
}

// ways are hosts that reset instances in each way there is on this system.
func ways(t *testing.T) map[string]*Host {
	hosts := map[string]*Host{"default": newHost(t, Options{})}
	for name, h := range otherWays(t) {
		hosts[name] = h
	}
	return hosts
}

// Nothing that one request left in memory is there for the next one: not in an instance that was reset, and not behind
// its end.
func TestNoTraceOfTheRequestBefore(t *testing.T) {
	for name, h := range ways(t) {
		t.Run(name, func(t *testing.T) {
			m, err := tryCompile(t, h, guestModule, Config{})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(m.program.image.how)
			for round := range 4 {
				mark := fmt.Sprintf("mark-%d-%d", round, rand.Uint64())
				if status, body := send(t, m, "GET", "/mark/"+mark, ""); status != 200 || body != "2" {
					t.Fatalf("%d %q: state of an earlier request", status, body)
				}
				i := m.program.pool.take(0)
				if i == nil {
					t.Fatal("the instance was not kept")
				}
				home := len(m.program.image.bytes)
				if size := int(i.module.Memory().Size()); size != home {
					t.Errorf("its memory has %d bytes, the image %d", size, home)
				}
				all := allMemory(i)
				if bytes.Contains(all, []byte(mark)) {
					t.Errorf("the mark is in the instance's memory at %d", bytes.Index(all, []byte(mark)))
				}
				if !bytes.Equal(all[:home], m.program.image.bytes) {
					t.Error("the memory is not the image's")
				}
				if len(bytes.Trim(all[home:], "\x00")) != 0 {
					t.Error("there is something behind the image's end")
				}
				for k, g := range i.globals {
					if g.Get() != m.program.image.globals[k] {
						t.Errorf("global %d is %d", k, g.Get())
					}
				}
				m.program.pool.put(0, i)
			}
		})
	}
}

// A response does not lie in the memory of the guest that made it.
func TestResponseOutlivesItsInstance(t *testing.T) {
	m := compile(t, guestModule, Config{})
	r := request(t.Context(), "POST", "/echo", "the first body")
	defer r.Release()
	resp, err := m.Serve(r)
	if err != nil {
		t.Fatal(err)
	}
	send(t, m, "POST", "/echo", "another one that is longer")
	m.program.pool.take(0).close()
	b := make([]byte, 100)
	n, _ := resp.Body.Read(b)
	if got := string(b[:n]); got != "the first body" {
		t.Errorf("%q", got)
	}
}

// A module whose state is not all in its memory and globals starts anew for each request, and says why.
func TestPlainPath(t *testing.T) {
	counts := join([]byte{
		0x41, 0, 0x41, 0, 0x28, 2, 0, 0x41, 1, 0x6a, 0x36, 2, 0, // memory[0]++
	}, call(0, 0, 1), drop)
	for _, c := range []struct {
		name  string
		guest handmade
		want  string // why; empty: it has an image
		body  string
	}{
		{"image", handmade{serve: counts}, "", "\x01"},
		{"image and start function", handmade{serve: counts, start: true}, "", "\x01"},
		{"passive data", handmade{serve: counts, initialize: []byte{0x41, 0, 0x41, 0, 0x41, 1, 0xfc, 8, 0, 0}, passive: []byte{7}}, "passive data", "\x08"},
		{"passive data and start function", handmade{serve: counts, initialize: []byte{0x41, 0, 0x41, 0, 0x41, 1, 0xfc, 8, 0, 0}, passive: []byte{7}, start: true}, "passive data", "\x08"},
		{"table that is changed", handmade{serve: counts, initialize: []byte{0x41, 0, 0xd0, 0x70, 0x26, 0}, table: true}, "changes a table", "\x01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.guest.imports, c.guest.pages = []string{"loam.response_body"}, 2
			m := compile(t, c.guest.bytes(), Config{})
			if (m.program.image != nil) != (c.want == "") || !strings.Contains(m.program.reason, c.want) {
				t.Errorf("image: %t, because %q", m.program.image != nil, m.program.reason)
			}
			if s := m.State(); s.Image != (c.want == "") || !strings.Contains(s.Reason, c.want) {
				t.Errorf("%+v", s)
			}
			for range 3 {
				if _, body := send(t, m, "GET", "/", ""); body != c.body {
					t.Errorf("%q", body)
				}
			}
			if started := m.stats.Started.Load(); (started == 3) != (c.want != "") {
				t.Errorf("%d instances were started", started)
			}
			shared := compile(t, c.guest.bytes(), Config{Isolation: IsolationShared})
			for n := range byte(3) {
				if _, body := send(t, shared, "GET", "/", ""); body[0] != c.body[0]+n {
					t.Errorf("shared: %q", body)
				}
			}
		})
	}
}

// Functions of the same module and settings share one program, whatever else is different.
func TestProgramsAreShared(t *testing.T) {
	binary := handmade{serve: serves, pages: 3, data: []byte("shared")}.bytes()
	a := compile(t, binary, Config{Timeout: time.Second})
	b := compile(t, binary, Config{Timeout: time.Minute, Concurrency: 7})
	c := compile(t, binary, Config{Env: map[string]string{"A": "B"}})
	if a.program != b.program {
		t.Error("two functions of the same module have a program each")
	}
	if a.program == c.program {
		t.Error("functions with different environments have one image")
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(t, b, "GET", "/", "")
}

// What was loaded well before is loaded when it is first asked for, and again after it was idle for long.
func TestLoadAndUnload(t *testing.T) {
	h := newHost(t, Options{})
	binary := handmade{imports: []string{"loam.response_body"}, serve: join(call(0, 0, 4), drop), pages: 1, data: []byte("lazy")}.bytes()
	first, err := h.Compile(t.Context(), "orders", binary, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if first.program == nil {
		t.Fatal("nobody has looked whether it can be loaded")
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := h.Compile(t.Context(), "orders", bytes.Clone(binary), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if m.State().Loaded {
		t.Error("it was loaded though nobody asked for it")
	}
	for n := range int64(3) {
		done := make(chan string)
		for range 4 {
			go func() {
				_, body, _ := trySend(t, m, "GET", "/", "")
				done <- body
			}()
		}
		for range 4 {
			if body := <-done; body != "lazy" {
				t.Errorf("%q", body)
			}
		}
		if got := m.stats.Loaded.Load(); got != n+1 {
			t.Errorf("loaded %d times, want %d", got, n+1)
		}
		m.tidy(time.Now().Add(9 * time.Minute))
		if !m.State().Loaded {
			t.Error("it was unloaded too early")
		}
		m.tidy(time.Now().Add(11 * time.Minute))
		if m.State().Loaded {
			t.Error("it was not unloaded")
		}
	}
	if n := len(h.programs); n != 0 {
		t.Errorf("%d programs are left", n)
	}
}

// The pool closes what was not needed for a while.
func TestPoolTrims(t *testing.T) {
	m := compile(t, handmade{serve: serves, pages: 2}.bytes(), Config{})
	var busy []*instance
	for range 5 {
		i, err := m.program.fork()
		if err != nil {
			t.Fatal(err)
		}
		busy = append(busy, i)
	}
	p := &pool{}
	for _, i := range busy {
		p.put(0, i)
	}
	p.trim()
	if p.len() != 5 {
		t.Errorf("%d are left of what came since it was last trimmed", p.len())
	}
	two := []*instance{p.take(0), p.take(0)}
	for _, i := range two {
		p.put(0, i)
	}
	if p.trim(); p.len() != 2 {
		t.Errorf("%d are left, two were needed at a time", p.len())
	}
	if p.trim(); p.len() != 0 {
		t.Errorf("%d are left, none was needed", p.len())
	}
	p.close()
	i, err := m.program.fork()
	if err != nil {
		t.Fatal(err)
	}
	if p.put(0, i); p.len() != 0 || !i.module.IsClosed() {
		t.Error("a pool that is closed keeps an instance")
	}
}

// Warm-up and the hooks run once, with what they do in the image, and destroy at the end.
func TestHooks(t *testing.T) {
	add := func(n byte) []byte { return []byte{0x41, 0, 0x41, 0, 0x28, 2, 0, 0x41, n, 0x6a, 0x36, 2, 0} } // memory[0] += n
	var log syncBuffer
	h := newHost(t, Options{Log: textLog(&log)})
	print := join(call(1, 2, 16, 1, 24), drop) // fd_write(2, {32, 8})
	g := handmade{
		imports: []string{"loam.response_body", "wasi_snapshot_preview1.fd_write"},
		serve:   join(add(1), call(0, 0, 1), drop), initialize: add(10), hookStart: add(20), hookDestroy: print, pages: 1,
		data: []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00good-bye"),
	}
	for _, isolation := range []string{IsolationRequest, IsolationShared} {
		m, err := tryCompile(t, h, g.bytes(), Config{Isolation: isolation, Warmup: &Warmup{Method: "GET", Path: "/"}})
		if err != nil {
			t.Fatal(err)
		}
		for n := range byte(3) {
			want := byte(32)
			if isolation == IsolationShared {
				want += n
			}
			if _, body := send(t, m, "GET", "/", ""); body[0] != want {
				t.Errorf("%s: %d, want %d", isolation, body[0], want)
			}
		}
		before := strings.Count(log.String(), "good-bye")
		if err := m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "good-bye") - before; n != 1 {
			t.Errorf("%s: destroyed %d times", isolation, n)
		}
	}
	g.hookStart = []byte{unreachable}
	if _, err := tryCompile(t, h, g.bytes(), Config{}); loam.CodeOf(err) != loam.Internal || !strings.Contains(err.Error(), "starting it") {
		t.Errorf("%v", err)
	}
}

// Code in the cache that is damaged or half gone is made anew.
func TestCacheIsRepaired(t *testing.T) {
	binary := handmade{imports: []string{"loam.response_body"}, serve: join(call(0, 0, 4), drop), pages: 2, data: []byte("code")}.bytes()
	dir := t.TempDir() + "/cache"
	serve := func() error {
		h, err := NewHost(Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		m, err := h.Compile(t.Context(), "orders", binary, Config{})
		if err != nil {
			return errors.Join(err, h.Close())
		}
		_, body, err := trySend(t, m, "GET", "/", "")
		if err == nil && body != "code" {
			err = fmt.Errorf("it answers %q", body)
		}
		return errors.Join(err, m.Close(t.Context()), h.Close())
	}
	if err := serve(); err != nil {
		t.Fatal(err)
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			damage(t, dir)
			for range 2 {
				if err := serve(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// The husk of one module is not that of another one of the same shape.
func TestHusksDiffer(t *testing.T) {
	answer := func(n byte) []byte {
		return handmade{imports: []string{"loam.response_body"}, serve: join([]byte{0x41, 0, 0x41, n, 0x36, 2, 0}, call(0, 0, 1), drop), pages: 2}.bytes()
	}
	for n := range byte(3) {
		m := compile(t, answer(n), Config{})
		if _, body := send(t, m, "GET", "/", ""); body[0] != n {
			t.Errorf("module %d answers as %d", n, body[0])
		}
	}
}

var damages = map[string]func(t *testing.T, dir string){
	"code cut off":          func(t *testing.T, dir string) { cut(t, dir, "*.code") },
	"native code cut off":   func(t *testing.T, dir string) { cut(t, dir, "wazero-*/*") },
	"names cut off":         func(t *testing.T, dir string) { cut(t, dir, "*.names") },
	"native code gone":      func(t *testing.T, dir string) { gone(t, dir, "wazero-*/*") },
	"only native code left": func(t *testing.T, dir string) { gone(t, dir, "*.*") },
	"module gone":           func(t *testing.T, dir string) { gone(t, dir, "*.wasm") },
}

func files(t *testing.T, dir, pattern string) []string {
	all, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(all) == 0 {
		t.Fatalf("nothing to damage: %v", err)
	}
	var out []string
	for _, f := range all {
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
			out = append(out, f)
		}
	}
	return out
}

func cut(t *testing.T, dir, pattern string) {
	for _, f := range files(t, dir, pattern) {
		info, err := os.Stat(f)
		if err := errors.Join(err, os.Truncate(f, info.Size()/2)); err != nil {
			t.Fatal(err)
		}
	}
}

func gone(t *testing.T, dir, pattern string) {
	for _, f := range files(t, dir, pattern) {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

// What nobody used for long goes, and what is used stays.
func TestCacheIsSwept(t *testing.T) {
	dir := t.TempDir() + "/cache"
	old := func(age time.Duration) {
		for _, pattern := range []string{"*", "wazero-*/*"} {
			for _, f := range files(t, dir, pattern) {
				when := time.Now().Add(-age)
				if err := os.Chtimes(f, when, when); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	left := func() (names []string) {
		for _, pattern := range []string{"*.*", "wazero-*/*"} {
			all, _ := filepath.Glob(filepath.Join(dir, pattern))
			for _, f := range all {
				names = append(names, filepath.Base(f))
			}
		}
		return names
	}
	host := func(use ...[]byte) {
		h, err := NewHost(Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for _, binary := range use {
			m, err := h.Compile(t.Context(), "orders", binary, Config{})
			if err == nil {
				_, _, err = trySend(t, m, "GET", "/", "")
				err = errors.Join(err, m.Close(t.Context()))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	a, b := handmade{serve: serves, pages: 2}.bytes(), handmade{serve: serves, pages: 3}.bytes()
	host(a, b)
	all := len(left())
	old(50 * 24 * time.Hour)
	host(a)
	if n := len(left()); n != all {
		t.Errorf("%d files are left of %d after 50 days", n, all)
	}
	for _, f := range files(t, dir, "*.wasm") { // only what is made anew went by time
		if info, _ := os.Stat(f); time.Since(info.ModTime()) > 60*24*time.Hour {
			t.Errorf("%s is old", f)
		}
	}
	aged := func() (n int) {
		for _, pattern := range []string{"*.code", "*.good", "*.names", "wazero-*/*"} {
			for _, f := range files(t, dir, pattern) {
				info, err := os.Stat(f)
				if err != nil {
					t.Fatal(err)
				}
				if then := info.ModTime().Add(-20 * 24 * time.Hour); os.Chtimes(f, then, then) == nil && time.Since(then) > 60*24*time.Hour {
					n++
				}
			}
		}
		return n
	}()
	if aged != 4 {
		t.Errorf("%d files are older than 60 days, want the 4 of the module that was not used", aged)
	}
	host()
	if n := len(left()); n != all-aged {
		t.Errorf("%d files are left, want %d", n, all-aged)
	}
	host(a, b)
	if n := len(left()); n != all {
		t.Errorf("%d files, want %d again", n, all)
	}
}

// A function that cannot be loaded says so to each request, and does not try at each.
func TestLoadThatFails(t *testing.T) {
	dir := t.TempDir() + "/cache"
	h, err := NewHost(Options{CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	binary := handmade{serve: serves, pages: 2}.bytes()
	for range 2 {
		m, err := h.Compile(t.Context(), "orders", binary, Config{})
		if err != nil {
			t.Fatal(err)
		}
		if m.State().Loaded {
			if err := m.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		gone(t, dir, "*.*")
		for range 3 {
			if _, _, err := trySend(t, m, "GET", "/", ""); loam.CodeOf(err) != loam.NotFound || !strings.Contains(err.Error(), `function "orders"`) {
				t.Errorf("%v", err)
			}
		}
		if n := m.stats.Loaded.Load(); n != 1 {
			t.Errorf("it was tried %d times", n)
		}
		if err := m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// explosive is a context at which the compiler panics.
type explosive struct{ context.Context }

func (explosive) Value(any) any { panic("boom") }

// A module that makes the compiler panic is refused by its function's name, and nothing of it is left.
func TestCompilerPanics(t *testing.T) {
	h := newHost(t, Options{})
	binary := handmade{serve: serves, pages: 2, data: []byte("explosive")}.bytes()
	_, err := h.Compile(explosive{t.Context()}, "orders", binary, Config{})
	if loam.CodeOf(err) != loam.InvalidArgument || !strings.Contains(fmt.Sprint(err), `function "orders"`) || !strings.Contains(fmt.Sprint(err), "boom") {
		t.Errorf("%v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cacheDir, "tmp-*")); len(left) > 0 {
		t.Errorf("%v", left)
	}
	m, err := tryCompile(t, h, binary, Config{})
	if err != nil {
		t.Fatal(err)
	}
	send(t, m, "GET", "/", "")
}
