package rewrite_test

import (
	"bytes"
	"context"
	leb128 "encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/rewrite"
)

// FuzzRewrite: of any bytes either nothing becomes, and the error says that the argument is to blame; or a module that
// is valid exactly if they were.
func FuzzRewrite(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join(spectests(f), "v2", "testdata", "*.wasm"))
	for i := 0; i < len(files); i += 20 {
		if b, err := os.ReadFile(files[i]); err == nil && len(b) < 4000 {
			f.Add(b)
		}
	}
	for i := range 10 {
		f.Add(generate(rand.New(rand.NewPCG(1, uint64(i)))))
	}
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	f.Cleanup(func() { r.Close(ctx) })
	f.Fuzz(func(t *testing.T, binary []byte) {
		given := bytes.Clone(binary)
		bare := withoutCustom(binary) // the engine has its own opinion of those
		for _, v := range variants {
			re, err := rewrite.Rewrite(binary, v.options)
			if !bytes.Equal(binary, given) {
				t.Fatal("the module that was given was changed")
			}
			if err != nil {
				if loam.CodeOf(err) != loam.InvalidArgument {
					t.Fatalf("%v: %v", loam.CodeOf(err), err)
				}
				return
			}
			was, werr := r.CompileModule(ctx, bare)
			now, nerr := r.CompileModule(ctx, re.Binary)
			if (werr == nil) != (nerr == nil) {
				t.Fatalf("%s: as it is: %v; rewritten: %v", v.name, werr, nerr)
			}
			if werr == nil {
				was.Close(ctx)
				now.Close(ctx)
			}
			re.FunctionNames()
			for i := range uint32(len(re.Binary)) {
				re.Offset(i)
			}
		}
	})
}

// withoutCustom leaves the custom sections out of a module, and nothing of what is none.
func withoutCustom(binary []byte) []byte {
	if len(binary) < 8 {
		return nil
	}
	out := bytes.Clone(binary[:8])
	for rest := binary[8:]; len(rest) > 0; {
		size, n := leb128.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			return nil
		}
		end := 1 + n + int(size)
		if rest[0] != 0 {
			out = append(out, rest[:end]...)
		}
		rest = rest[end:]
	}
	return out
}

// FuzzDifferential runs generated modules as they are and rewritten, with the same calls, and compares what they
// return, how they trap, and their memory and globals after each call.
func FuzzDifferential(f *testing.F) {
	for i := range uint64(30) {
		f.Add(i, i*i)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) { differential(t, a, b) })
}

// TestDifferential is some of FuzzDifferential in each run of the tests.
func TestDifferential(t *testing.T) {
	n := uint64(250)
	if testing.Short() {
		n = 60
	}
	kinds := map[string]int{}
	for i := range n {
		for kind, count := range differential(t, i, 99) {
			kinds[kind] += count
		}
	}
	t.Logf("%d modules: %v", n, kinds)
	for _, kind := range []string{"returns", "unreachable", "invalid table access", "indirect call type mismatch", "out of bounds memory access"} {
		if kinds[kind] == 0 {
			t.Errorf("no call ended with %q: the modules are too tame", kind)
		}
	}
}

func differential(t *testing.T, a, b uint64) (kinds map[string]int) {
	rnd := rand.New(rand.NewPCG(a, b))
	binary := generate(rnd)
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	defer r.Close(ctx)
	host := &meter{}
	host.instantiate(t, r)
	plain, err := r.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatalf("%d, %d: the generated module is not valid: %v", a, b, err)
	}
	var forms []api.Module
	for _, v := range variants {
		re, err := rewrite.Rewrite(binary, v.options)
		if err != nil {
			t.Fatalf("%d, %d: %v", a, b, err)
		}
		if again, _ := rewrite.Rewrite(binary, v.options); !bytes.Equal(again.Binary, re.Binary) {
			t.Fatalf("%d, %d: not the same twice", a, b)
		}
		if re.Imaged != v.options.Image || re.TableRemoved != v.options.Tables {
			t.Fatalf("%d, %d: %q, %q", a, b, re.Reason, re.TableReason)
		}
		mod, err := r.InstantiateWithConfig(ctx, re.Binary, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			t.Fatalf("%d, %d, %s: %v", a, b, v.name, err)
		}
		if re.Imaged {
			if err := lay(mod, re); err != nil {
				t.Fatal(err)
			}
		}
		forms = append(forms, mod)
	}
	kinds = map[string]int{}
	for range 2 {
		for i := 0; plain.ExportedFunction(fmt.Sprint("f", i)) != nil; i++ {
			name := fmt.Sprint("f", i)
			args := make([]uint64, len(plain.ExportedFunction(name).Definition().ParamTypes()))
			for k := range args {
				args[k] = rnd.Uint64() >> rnd.IntN(64)
			}
			want := state(plain, name, args, kinds)
			for k, mod := range forms {
				fuel := mod.ExportedGlobal(rewrite.FuelGlobal).(api.MutableGlobal)
				fuel.Set(0)
				if got := state(mod, name, args, nil); got != want {
					t.Fatalf("%d, %d: %s%d, %s:\n%s\nas it is:\n%s", a, b, name, args, variants[k].name, got, want)
				}
			}
		}
	}
	return kinds
}

// state calls a function and tells how that ended and how things are then.
func state(mod api.Module, name string, args []uint64, kinds map[string]int) string {
	mod.ExportedGlobal("steps").(api.MutableGlobal).Set(400)
	s := outcome(mod.ExportedFunction(name), args)
	if kinds != nil {
		kind := "returns"
		if len(s) > 7 && s[:7] == "traps: " {
			kind = s[7:]
		}
		kinds[kind]++
	}
	memory, _ := mod.Memory().Read(0, mod.Memory().Size())
	sum := uint64(14695981039346656037)
	for len(memory) >= 8 {
		sum = (sum ^ uint64(memory[0]) ^ uint64(memory[1])<<8 ^ uint64(memory[2])<<16 ^ uint64(memory[3])<<24 ^
			uint64(memory[4])<<32 ^ uint64(memory[5])<<40 ^ uint64(memory[6])<<48 ^ uint64(memory[7])<<56) * 1099511628211
		memory = memory[8:]
	}
	return fmt.Sprint(s, " memory ", mod.Memory().Size(), " ", sum, " globals ", mod.ExportedGlobal("steps").Get(), " ",
		mod.ExportedGlobal("g1").Get(), " ", mod.ExportedGlobal("g2").Get(), " ", mod.ExportedGlobal("g3").Get())
}
