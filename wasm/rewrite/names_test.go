package rewrite_test

import (
	"context"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/loam-run/loam/wasm/rewrite"
)

// TestNames: with Names the engine's stack traces have the guest's own names; without, they can be found.
func TestNames(t *testing.T) {
	names := cat(sized([]byte("name")), []byte{1}, sized(vec(cat(uleb(0), sized([]byte("imported"))), cat(uleb(1), sized([]byte("outer"))), cat(uleb(2), sized([]byte("inner"))))))
	binary := moduleOf(section(1, functype("", "")), section(2, cat(sized([]byte("env")), sized([]byte("f")), []byte{0, 0})), section(3, []byte{0}, []byte{0}),
		section(7, export("run", 0, 1)), section(10, fn(nil, 0x10, 2), fn(nil, 0x10, 0, 0x00)), append([]byte{0}, sized(names)...))
	trace := func(o rewrite.Options) (string, *rewrite.Module) {
		re := mustRewrite(t, binary, o)
		r, _ := runtimeWithHost(t)
		if _, err := r.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func() {}).Export("f").Instantiate(context.Background()); err != nil {
			t.Fatal(err)
		}
		_, err := start(t, r, re.Binary).ExportedFunction("run").Call(context.Background())
		if err == nil {
			t.Fatal("no trap")
		}
		return err.Error(), re
	}
	if s, _ := trace(rewrite.Options{Names: true}); !strings.Contains(s, ".inner()") || !strings.Contains(s, ".outer()") {
		t.Error(s)
	}
	s, re := trace(rewrite.Options{})
	if !strings.Contains(s, ".$3()") {
		t.Error(s)
	}
	if was, ok := re.Function(3); !ok || re.FunctionNames()[was] != "inner" {
		t.Errorf("function 3 was %d, %v", was, ok)
	}
	if was, ok := re.Function(0); !ok || re.FunctionNames()[was] != "imported" {
		t.Errorf("function 0 was %d, %v", was, ok)
	}
	if _, ok := re.Function(1); ok {
		t.Error("the host's function was one of the guest's")
	}
	if _, ok := re.Function(4); ok {
		t.Error("a function that is not there")
	}
}

// code is what is in a module's code section.
func code(t *testing.T, binary []byte) []byte {
	for rest := binary[8:]; len(rest) > 0; {
		size, n := uint64(0), 1
		for shift := 0; ; shift += 7 {
			size |= uint64(rest[n]&0x7f) << shift
			n++
			if rest[n-1] < 0x80 {
				break
			}
		}
		if rest[0] == 10 {
			return rest[n : n+int(size)]
		}
		rest = rest[n+int(size):]
	}
	t.Fatal("no code section")
	return nil
}

// TestOffsets: what was copied is the same at both ends, and most of a guest's code was.
func TestOffsets(t *testing.T) {
	for name, binary := range programs(t) {
		if name == "golang" && testing.Short() {
			continue
		}
		re := mustRewrite(t, binary, rewrite.Options{Image: true, Tables: true, Offsets: true})
		was, now := code(t, binary), code(t, re.Binary)
		seen := map[uint32]bool{}
		for i := range uint32(len(now) - 1) {
			at, ok := re.Offset(i)
			next, _ := re.Offset(i + 1)
			before, known := re.Offset(max(i, 1) - 1)
			if !ok {
				continue
			}
			if int(at) >= len(was) {
				t.Fatalf("%s: %d came from %d of %d", name, i, at, len(was))
			}
			if next == at+1 && (!known || before != at) { // in the midst of what was copied, not behind it
				if now[i] != was[at] {
					t.Fatalf("%s: %#x at %d came from %#x at %d", name, now[i], i, was[at], at)
				}
				seen[at] = true
			}
		}
		if len(seen) < len(was)/2 {
			t.Errorf("%s: of %d bytes %d are found again", name, len(was), len(seen))
		}
		if _, ok := re.Offset(uint32(len(now))); ok {
			t.Errorf("%s: an offset beyond the end is known", name)
		}
	}
}

// TestImage: the data is what the segments held, the start function is the host's to call, and the state is all there.
func TestImage(t *testing.T) {
	binary := moduleOf(section(1, functype("", ""), functype("", "\x7f")), section(3, []byte{0}, []byte{1}), section(5, []byte{0, 1}),
		section(6, []byte{i32, 1, 0x41, 5, 0x0b}, []byte{i32, 0, 0x41, 6, 0x0b}, []byte{i64, 1, 0x42, 7, 0x0b}),
		section(7, export("run", 0, 1)), []byte{8, 1, 0},
		section(10, fn(nil, 0x41, 40, 0x24, 0), fn(nil, 0x41, 3, 0x2d, 0, 0, 0x23, 0, 0x6a)),
		section(11, cat([]byte{0, 0x41, 2, 0x0b}, sized([]byte{1, 2, 3})), cat([]byte{0, 0x41, 3, 0x0b}, sized([]byte{9})), []byte{1, 1, 8}))
	re := mustRewrite(t, binary, rewrite.Options{Image: true})
	if !re.Imaged || !re.Start || re.Memory.Min != 1 || len(re.Data) != 2 {
		t.Fatalf("%+v", re)
	}
	if len(re.Globals) != 2 || re.Globals[0].Type != rewrite.I32 || re.Globals[1].Type != rewrite.I64 {
		t.Fatalf("%+v", re.Globals)
	}
	r, _ := runtimeWithHost(t)
	mod := start(t, r, re.Binary)
	if err := lay(mod, re); err != nil {
		t.Fatal(err)
	}
	if got := outcome(mod.ExportedFunction("run"), nil); got != "returns 31" { // 9+40
		t.Error(got)
	}
	if got := mod.ExportedGlobal(re.Globals[0].Export).Get(); got != 40 {
		t.Errorf("the global is %d", got)
	}
	if got := mod.ExportedGlobal(re.Globals[1].Export).Get(); got != 7 {
		t.Errorf("the other global is %d", got)
	}
}

// TestReasons: why a module takes the plain path, and why a table stays.
func TestReasons(t *testing.T) {
	empty := functype("", "")
	body := func(code ...byte) []byte {
		return cat(section(10, fn(nil, code...)))
	}
	head := cat(section(1, empty), section(3, []byte{0}))
	table := section(4, []byte{0x70, 0, 2})
	for _, tt := range []struct {
		module       []byte
		image, table string
	}{
		{moduleOf(section(2, cat(sized([]byte("a")), sized([]byte("b")), []byte{2, 0, 1}))), "the memory is imported", ""},
		{moduleOf(section(2, cat(sized([]byte("a")), sized([]byte("b")), []byte{1, 0x70, 0, 1}))), "a table is imported", "a table is imported"},
		{moduleOf(section(2, cat(sized([]byte("a")), sized([]byte("b")), []byte{3, i32, 0}))), "a global is imported", ""},
		{moduleOf(section(6, []byte{0x70, 1, 0xd0, 0x70, 0x0b})), "a mutable global is a reference or a vector", ""},
		{moduleOf(head, table, body(0x41, 0, 0xd0, 0x70, 0x26, 0)), "the code changes a table", "the code changes a table"},
		{moduleOf(head, table, body(0x41, 0, 0x25, 0, 0x1a)), "", "the code reads a table or takes a function's reference"},
		{moduleOf(head, table, section(7, export("t", 1, 0)), body()), "", "a table is exported"},
		{moduleOf(head, table, section(9, cat([]byte{0, 0x41, 2, 0x0b, 1, 0})), body()), "an element segment is beyond the end of its table", "an element segment is beyond the end of its table"},
		{moduleOf(head, section(5, []byte{0, 0}), body(), section(11, []byte{0, 0x41, 0, 0x0b, 1, 7})), "a data segment is beyond the end of the memory", ""},
		{moduleOf(head, section(5, []byte{0, 1}), []byte{12, 1, 1}, body(0xfc, 9, 0), section(11, []byte{1, 1, 7})), "the code uses passive data segments", ""},
	} {
		re := mustRewrite(t, tt.module, rewrite.Options{Image: true, Tables: true})
		if re.Reason != tt.image || re.Imaged != (tt.image == "") || re.TableReason != tt.table {
			t.Errorf("%q, %q; want %q, %q", re.Reason, re.TableReason, tt.image, tt.table)
		}
	}
	re := mustRewrite(t, moduleOf(head, table, section(7, export("t", 1, 0)), body()), rewrite.Options{Tables: true, Closed: true})
	if !re.TableRemoved {
		t.Error(re.TableReason)
	}
}

func BenchmarkRewrite(b *testing.B) {
	binary := goGuest(b)
	b.SetBytes(int64(len(binary)))
	for b.Loop() {
		mustRewrite(b, binary, rewrite.Options{Image: true, Tables: true, Closed: true})
	}
}

// BenchmarkCompile is what the engine then does with it.
func BenchmarkCompile(b *testing.B) {
	binary := mustRewrite(b, goGuest(b), rewrite.Options{Image: true, Tables: true, Closed: true}).Binary
	ctx := context.Background()
	for b.Loop() {
		r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
		wasi_snapshot_preview1.MustInstantiate(ctx, r)
		if _, err := r.CompileModule(ctx, binary); err != nil {
			b.Fatal(err)
		}
		r.Close(ctx)
	}
}
