package wasm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// A handmade is a Wasm module written by hand, for guests that no compiler would make.
type handmade struct {
	imports     []string // "loam.call", or with its type "env.f/iI:i"; by their index they are called
	serve       []byte   // code of loam_serve; nil: it is not exported
	initialize  []byte   // code of _initialize; nil: there is none
	hookStart   []byte   // of loam_start
	hookDestroy []byte   // of loam_destroy
	start       bool     // there is a start function
	table       bool     // there is a table of one function
	passive     []byte   // a passive data segment, the first one
	pages       int      // of memory; 0: there is none
	data        []byte   // at address 0
}

// importTypes are the types of what is imported, as parameters and results, where they are not ii:i.
var importTypes = map[string]string{
	"loam.response_head": "ii:", "loam.call": "iiiiii:I", "loam.mistyped": ":",
	"wasi_snapshot_preview1.proc_exit": "i:", "wasi_snapshot_preview1.fd_write": "iiii:i",
	"wasi_snapshot_preview1.clock_time_get": "iIi:i", "wasi_snapshot_preview1.poll_oneoff": "iiii:i",
}

func (h handmade) bytes() []byte {
	str := func(s string) []byte { return append(uleb(len(s)), s...) }
	vector := func(items ...[]byte) []byte {
		b := uleb(len(items))
		for _, i := range items {
			b = append(b, i...)
		}
		return b
	}
	var types, imports, functions, exports, code, data [][]byte
	known := map[string]int{}
	typeOf := func(sig string) []byte {
		if _, ok := known[sig]; !ok {
			known[sig] = len(types)
			t := []byte{0x60}
			for list := range strings.SplitSeq(sig, ":") {
				t = append(t, byte(len(list)))
				for _, c := range list {
					t = append(t, map[rune]byte{'i': 0x7f, 'I': 0x7e}[c])
				}
			}
			types = append(types, t)
		}
		return uleb(known[sig])
	}
	for _, name := range h.imports {
		name, sig, ok := strings.Cut(name, "/")
		if !ok {
			if sig = importTypes[name]; sig == "" {
				sig = "ii:i"
			}
		}
		module, field, _ := strings.Cut(name, ".")
		field = strings.Replace(field, "mistyped", "result", 1)
		imports = append(imports, append(append(append(str(module), str(field)...), 0), typeOf(sig)...))
	}
	function := func(name string, body []byte) int {
		if body == nil {
			return -1
		}
		at := len(h.imports) + len(functions)
		if name != "" {
			exports = append(exports, append(str(name), append([]byte{0}, uleb(at)...)...))
		}
		functions = append(functions, typeOf(":"))
		body = append(append([]byte{0}, body...), 0x0b)
		code = append(code, append(uleb(len(body)), body...))
		return at
	}
	function("loam_serve", h.serve)
	function("_initialize", h.initialize)
	function("loam_start", h.hookStart)
	function("loam_destroy", h.hookDestroy)
	start := -1
	if h.start {
		start = function("", []byte{0x41, 16, 0x41, 1, 0x36, 2, 0}) // memory[16] = 1
	}

	b := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, content []byte) { b = append(append(append(b, id), uleb(len(content))...), content...) }
	section(1, vector(types...))
	section(2, vector(imports...))
	section(3, vector(functions...))
	if h.table {
		section(4, []byte{1, 0x70, 0, 1})
	}
	if h.pages > 0 {
		section(5, append([]byte{1, 0}, uleb(h.pages)...))
		exports = append(exports, append(str("memory"), 2, 0))
	}
	section(7, vector(exports...))
	if start >= 0 {
		section(8, uleb(start))
	}
	if h.passive != nil {
		data = append(data, append([]byte{1}, str(string(h.passive))...))
	}
	if h.data != nil {
		data = append(data, append([]byte{0, 0x41, 0, 0x0b}, str(string(h.data))...))
	}
	if len(data) > 0 {
		section(12, uleb(len(data)))
	}
	section(10, vector(code...))
	if len(data) > 0 {
		section(11, vector(data...))
	}
	return b
}

func uleb(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// call is the code of a call of the import of that index.
func call(index int, args ...int32) (b []byte) {
	for _, a := range args {
		b = append(b, 0x41) // i32.const, signed LEB128
		for a > 63 || a < -64 {
			b = append(b, byte(a)|0x80)
			a >>= 7
		}
		b = append(b, byte(a)&0x7f)
	}
	return append(append(b, 0x10), uleb(index)...)
}

func join(parts ...any) (b []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			b = append(b, p...)
		case int:
			b = append(b, byte(p))
		}
	}
	return b
}

// Instructions.
const (
	unreachable = 0x00
	drop        = 0x1a
)

var (
	forever = []byte{0x03, 0x40, 0x0c, 0x00, 0x0b} // loop br 0 end
	serves  = []byte{}                             // an empty answer
)

// mustBe traps unless the i32 on the stack is n.
func mustBe(n byte) []byte { return []byte{0x41, n & 0x7f, 0x47, 0x04, 0x40, unreachable, 0x0b} }

const minusOne = 0x7f

// A guest that lies, at any time, traps by itself and harms nobody.
func TestHostileGuest(t *testing.T) {
	head := func(h api.ResponseHead) ([]byte, int32) {
		b := h.AppendProto(nil)
		return b, int32(len(b))
	}
	split, splitLen := head(api.ResponseHead{Status: 200, Headers: []api.Header{{Name: "X", Value: "a\r\nSet-Cookie: b"}}})
	badName, badNameLen := head(api.ResponseHead{Headers: []api.Header{{Name: "X: y", Value: "a"}}})
	early, earlyLen := head(api.ResponseHead{Status: 101})
	fine, fineLen := head(api.ResponseHead{Status: 204})

	calls := 0
	methods := loam.Methods{"m": func(context.Context, *loam.Caller, []byte) ([]byte, error) {
		calls++
		return []byte("answer"), nil
	}}
	for _, c := range []struct {
		name  string
		guest handmade
		want  string // in the error; empty: it is served
	}{
		{"pointer outside", handmade{imports: []string{"loam.request_head"}, serve: join(call(0, -16, 256), drop)}, "256 bytes at 4294967280 lie outside its memory of 65536"},
		{"end outside", handmade{imports: []string{"loam.request_body"}, serve: join(call(0, 65535, 2), drop)}, "outside its memory"},
		{"all of 32 bits", handmade{imports: []string{"loam.response_body"}, serve: join(call(0, 0, -1), drop)}, "4294967295 bytes at 0"},
		{"response head outside", handmade{imports: []string{"loam.response_head"}, serve: call(0, 65536, 1)}, "outside its memory"},
		{"method outside", handmade{imports: []string{"loam.call"}, serve: join(call(0, -1, 1, 0, 0, 0, 0), drop)}, "call: method"},
		{"request outside", handmade{imports: []string{"loam.call"}, serve: join(call(0, 0, 1, 0, -1, 0, 0), drop)}, "call: request"},
		{"answer outside, seen before the call", handmade{imports: []string{"loam.call"}, serve: join(call(0, 0, 1, 0, 0, 65000, 1000), drop)}, "call: answer"},
		{"method is all memory", handmade{imports: []string{"loam.call"}, serve: join(call(0, 0, 65536, 0, 0, 0, 0), drop)}, ""},
		{"result outside", handmade{imports: []string{"loam.result"}, serve: join(call(0, 1, -1), drop)}, "outside its memory"},
		{"result of nothing", handmade{imports: []string{"loam.result"}, serve: join(call(0, 0, 64), mustBe(minusOne))}, ""},
		{"empty at the end", handmade{imports: []string{"loam.request_body"}, serve: join(call(0, 65536, 0), mustBe(0))}, ""},
		{"no response head", handmade{serve: serves}, ""},
		{"response head twice", handmade{imports: []string{"loam.response_head"}, serve: join(call(0, 0, fineLen), call(0, 0, fineLen)), data: fine}, "response_head was called twice"},
		{"response head late", handmade{imports: []string{"loam.response_head", "loam.response_body"}, serve: join(call(1, 0, 1), drop, call(0, 0, 0))}, "after response_body"},
		{"response head is no message", handmade{imports: []string{"loam.response_head"}, serve: call(0, 0, 1), data: []byte{0xff}}, "ends too early"},
		{"response splitting", handmade{imports: []string{"loam.response_head"}, serve: call(0, 0, splitLen), data: split}, "control character in the value of header field X"},
		{"header name", handmade{imports: []string{"loam.response_head"}, serve: call(0, 0, badNameLen), data: badName}, `header field name "X: y"`},
		{"status 101", handmade{imports: []string{"loam.response_head"}, serve: call(0, 0, earlyLen), data: early}, "status 101"},
		{"trap", handmade{serve: []byte{unreachable}}, "trap: unreachable"},
		{"endless recursion", handmade{serve: []byte{0x10, 0}}, "trap: stack overflow"},
		{"exit without an answer", handmade{imports: []string{"wasi_snapshot_preview1.proc_exit"}, serve: call(0, 0)}, "exited with status 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.guest.pages == 0 {
				c.guest.pages = 1
			}
			if c.guest.data == nil {
				c.guest.data = []byte("m")
			}
			m := compile(t, c.guest.bytes(), Config{Isolation: IsolationShared, Methods: methods, Timeout: 10 * time.Second})
			status, body, err := trySend(t, m, "POST", "/", "body")
			switch {
			case c.want == "" && (err != nil || status != 200 || body != ""):
				t.Errorf("%d %q %v", status, body, err)
			case c.want == "":
			case loam.CodeOf(err) != loam.Internal, !strings.Contains(err.Error(), c.want), !strings.Contains(err.Error(), `function "orders"`), !strings.Contains(err.Error(), "r-1"):
				t.Errorf("%v", err)
			case len(m.idle) != 0:
				t.Error("the instance is kept")
			}
		})
	}
	if calls != 0 {
		t.Errorf("a method was called %d times by guests that would not have heard its answer", calls)
	}
}

// An answer larger than the guest's buffer waits until it is fetched whole, once.
func TestWaitingAnswer(t *testing.T) {
	m := compile(t, handmade{
		imports: []string{"loam.call", "loam.result", "loam.response_body"},
		serve: join(call(0, 0, 1, 0, 0, 16, 2), drop,
			call(1, 16, 5), mustBe(minusOne), // too small still
			call(1, 16, 64), mustBe(6),
			call(1, 16, 64), mustBe(minusOne), // gone
			call(2, 16, 6), drop),
		pages: 1, data: []byte("m"),
	}.bytes(), Config{Methods: loam.Methods{
		"m": func(context.Context, *loam.Caller, []byte) ([]byte, error) { return []byte("answer"), nil },
	}})
	if _, body := send(t, m, "GET", "/", ""); body != "answer" {
		t.Errorf("%q", body)
	}
}

func TestCompileRefuses(t *testing.T) {
	good := handmade{serve: serves, pages: 1}
	for _, c := range []struct {
		name   string
		binary []byte
		config Config
		code   loam.Code
		want   string
	}{
		{"empty", nil, Config{}, loam.InvalidArgument, "the file is empty"},
		{"text", []byte("#!/bin/sh\necho hello\n"), Config{}, loam.InvalidArgument, "not a Wasm module"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), Config{}, loam.InvalidArgument, "Wasm component"},
		{"version", []byte("\x00asm\x02\x00\x00\x00"), Config{}, loam.InvalidArgument, "version 02 00 00 00"},
		{"truncated", guestModule[:len(guestModule)/2], Config{}, loam.InvalidArgument, "not valid"},
		{"truncated by hand", good.bytes()[:20], Config{}, loam.InvalidArgument, "not valid"},
		{"unknown module", handmade{imports: []string{"env.f"}, serve: serves, pages: 1}.bytes(), Config{}, loam.InvalidArgument, `from module "env"`},
		{"unknown import", handmade{imports: []string{"loam.f"}, serve: serves, pages: 1}.bytes(), Config{}, loam.InvalidArgument, "loam.f"},
		{"mistyped import", handmade{imports: []string{"loam.mistyped"}, serve: serves, pages: 1}.bytes(), Config{}, loam.InvalidArgument, "another type"},
		{"no export", handmade{pages: 1}.bytes(), Config{}, loam.InvalidArgument, "does not export loam_serve"},
		{"no memory", handmade{serve: serves}.bytes(), Config{}, loam.InvalidArgument, "exports no memory"},
		{"memory above the limit", handmade{serve: serves, pages: 3}.bytes(), Config{Memory: 2 << 16}, loam.InvalidArgument, "memory"},
		{"unknown ABI", good.bytes(), Config{ABI: "none"}, loam.InvalidArgument, `no ABI "none"`},
		{"unknown isolation", good.bytes(), Config{Isolation: "none"}, loam.InvalidArgument, `no isolation "none"`},
		{"host call while starting", handmade{imports: []string{"loam.request_head"}, serve: serves, initialize: join(call(0, 0, 0), drop), pages: 1}.bytes(), Config{}, loam.Internal, "while no request was being served"},
		{"trap while starting", handmade{serve: serves, initialize: []byte{unreachable}, pages: 1}.bytes(), Config{}, loam.Internal, "starting it: trap"},
		{"endless start", handmade{serve: serves, initialize: forever, pages: 1}.bytes(), Config{Timeout: 100 * time.Millisecond}, loam.DeadlineExceeded, "starting it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := tryCompile(t, testHost, c.binary, c.config)
			if loam.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) || !strings.Contains(fmt.Sprint(err), `function "orders"`) {
				t.Errorf("%v", err)
			}
			if c.code == loam.InvalidArgument && loam.HintOf(err) == "" {
				t.Errorf("no hint: %v", err)
			}
		})
	}
	compile(t, good.bytes(), Config{}) // what the cases vary is right in itself
}

func TestCacheDir(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "cache")
	for range 2 { // made, then found
		h, err := NewHost(Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		m, err := h.Compile(t.Context(), "orders", handmade{serve: serves, pages: 1}.bytes(), Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(m.Close(context.Background()), h.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("%v %v", info, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatalf("nothing was cached: %v", err)
	}

	open := filepath.Join(parent, "open")
	file := filepath.Join(parent, "file")
	link := filepath.Join(parent, "link")
	if err := errors.Join(os.Mkdir(open, 0o755), os.WriteFile(file, nil, 0o600), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, file, link} {
		if _, err := NewHost(Options{CacheDir: dir}); loam.CodeOf(err) != loam.FailedPrecondition || loam.HintOf(err) == "" {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if os.Geteuid() == 0 { // only root can give a folder away
		if err := os.Chown(dir, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := NewHost(Options{CacheDir: dir}); loam.CodeOf(err) != loam.FailedPrecondition {
			t.Errorf("a folder of another user: %v", err)
		}
	}
}

func TestLogIsBounded(t *testing.T) {
	var log syncBuffer
	var l limiter
	w := lineWriter{log: slog.New(slog.NewTextHandler(&log, nil)), limit: &l, stream: "stdout"}
	fmt.Fprintln(&w, strings.Repeat("x", 10*maxLine))
	if n := strings.Count(log.String(), "x"); n != maxLine {
		t.Errorf("%d bytes of a long line were kept", n)
	}
	now := time.Unix(1000, 0)
	given := func(n, size int) (passed, lost int) {
		for range n {
			ok, missing := l.allow(now, size)
			if ok {
				passed++
			}
			lost += missing
		}
		return passed, lost
	}
	l = limiter{}
	if passed, _ := given(lineBurst+100, 10); passed != lineBurst {
		t.Errorf("%d lines at once", passed)
	}
	now = now.Add(time.Second)
	if passed, lost := given(lineBurst, 10); passed != lineRate || lost != 100 {
		t.Errorf("%d lines a second later, %d told as lost", passed, lost)
	}
	now = now.Add(time.Hour)
	if passed, _ := given(lineBurst, 4<<10); passed != lineBurst/17 {
		t.Errorf("%d long lines at once", passed)
	}
	var s sampler
	told := 0
	for range 100 {
		if s.allow(now) {
			told++
		}
	}
	if left := s.rest(now); told != 1 || left != 0 {
		t.Errorf("%d failures of a second were told, and %d left out before its end", told, left)
	}
	now = now.Add(time.Second)
	if left := s.rest(now); left != 99 || s.rest(now) != 0 || !s.allow(now) {
		t.Errorf("%d were left out", left)
	}
}

func FuzzLogLine(f *testing.F) {
	f.Add(`{"level":"WARN","msg":"stock is low","left":3}`)
	f.Add(`{"level":"NONE","msg":7}`)
	f.Add(`{`)
	f.Fuzz(func(t *testing.T, line string) {
		var log syncBuffer
		w := lineWriter{log: slog.New(slog.NewTextHandler(&log, nil)), limit: new(limiter)}
		if n, err := w.Write([]byte(line + "\n")); n != len(line)+1 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		if got := strings.Count(log.String(), "\n"); got > strings.Count(line, "\n")+1 {
			t.Errorf("%d lines came of one: %q", got, log.String())
		}
	})
}
