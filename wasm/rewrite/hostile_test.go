package rewrite_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/rewrite"
)

func start(t testing.TB, r wazero.Runtime, binary []byte) api.Module {
	t.Helper()
	mod, err := r.InstantiateWithConfig(context.Background(), binary, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mod.Close(context.Background()) })
	return mod
}

func mustRewrite(t testing.TB, binary []byte, o rewrite.Options) *rewrite.Module {
	t.Helper()
	m, err := rewrite.Rewrite(binary, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// doubling is a module of n functions, each of which calls the next one twice: 2^n calls without loop or recursion.
func doubling(n int) []byte {
	var types, bodies [][]byte
	for i := range n {
		types = append(types, []byte{0})
		if i == n-1 {
			bodies = append(bodies, fn(nil, bytes.Repeat([]byte{0x41, 1, 0x41, 0, 0x6a, 0x1a}, 100)...))
			continue
		}
		call := append([]byte{0x10}, uleb(uint64(i+1))...)
		bodies = append(bodies, fn(nil, cat(call, call)...))
	}
	return moduleOf(section(1, functype("", "")), section(3, types...), section(7, export("run", 0, 0)), section(10, bodies...))
}

// TestEndless: whatever never ends, or not soon, asks the host again and again, and ends when the host says so.
func TestEndless(t *testing.T) {
	two := moduleOf(section(1, functype("", "")), section(3, []byte{0}, []byte{0}), section(7, export("run", 0, 0)),
		section(10, fn(nil, 0x10, 1), fn(nil, 0x10, 0)))
	indirect := moduleOf(section(1, functype("", "")), section(3, []byte{0}), section(4, []byte{0x70, 0, 1}),
		section(7, export("run", 0, 0)), section(9, cat([]byte{0}, i32c(0), []byte{0x0b, 1, 0})), section(10, fn(nil, 0x41, 0, 0x11, 0, 0)))
	for _, tt := range []struct {
		name   string
		module []byte
		deep   bool
	}{
		{"loop", one("", "", nil, 0x03, 0x40, 0x0c, 0, 0x0b), false},
		{"loop with br_if", one("", "", nil, 0x03, 0x40, 0x41, 1, 0x0d, 0, 0x0b), false},
		{"loop with br_table", one("", "", nil, 0x03, 0x40, 0x41, 0, 0x0e, 1, 0, 0, 0x0b), false},
		{"loop that computes", one("", "", nil, 0x03, 0x40, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0x9f, 0x1a, 0x0c, 0, 0x0b), false},
		{"nested loops", one("", "", nil, 0x03, 0x40, 0x03, 0x40, 0x41, 0, 0x0d, 0, 0x0b, 0x0c, 0, 0x0b), false},
		{"loop with a parameter", moduleOf(section(1, functype("", ""), functype("\x7f", "\x7f")), section(3, []byte{0}), section(7, export("run", 0, 0)),
			section(10, fn(nil, 0x41, 1, 0x03, 1, 0x0c, 0, 0x0b, 0x1a))), false},
		{"loop that fills", one("", "", nil, cat([]byte{0x03, 0x40, 0x41, 0, 0x41, 0}, i32c(1<<17), []byte{0xfc, 11, 0, 0x0c, 0, 0x0b})...), false},
		{"recursion", one("", "", nil, 0x10, 0), true},
		{"recursion with a value", one("\x7f", "\x7f", nil, 0x20, 0, 0x20, 0, 0x10, 0, 0x6a), true},
		{"recursion of two", two, true},
		{"recursion through a table", indirect, true},
		{"doubling", doubling(60), false},
	} {
		for _, v := range variants {
			t.Run(tt.name+", "+v.name, func(t *testing.T) {
				re := mustRewrite(t, tt.module, v.options)
				r, host := runtimeWithHost(t)
				host.budget = 100 * slice
				host.depth = 4 << 20
				mod := start(t, r, re.Binary)
				f := mod.ExportedFunction("run")
				_, err := f.Call(context.Background(), make([]uint64, len(f.Definition().ParamTypes()))...)
				want := errBudget
				if tt.deep {
					want = errDeep
				}
				if !errors.Is(err, want) {
					t.Errorf("%v; want %v", err, want)
				}
				if host.used > host.budget+10*slice {
					t.Errorf("%d units used, with a budget of %d", host.used, host.budget)
				}
				if tt.deep && host.stack > host.depth+32*slice {
					t.Errorf("%d bytes deep, with a limit of %d", host.stack, host.depth)
				}
			})
		}
	}
}

// TestEngineStack: a host that does not look at the stack is still safe from it.
func TestEngineStack(t *testing.T) {
	r, _ := runtimeWithHost(t)
	mod := start(t, r, mustRewrite(t, one("", "", nil, 0x10, 0), rewrite.Options{}).Binary)
	if _, err := mod.ExportedFunction("run").Call(context.Background()); err == nil || !strings.Contains(err.Error(), "stack overflow") {
		t.Errorf("%v", err)
	}
}

// TestBulk compares fills and copies of all lengths, overlapping ones and ones out of bounds, with those of the engine.
func TestBulk(t *testing.T) {
	for name, op := range map[string][]byte{"fill": {0xfc, 11, 0}, "copy": {0xfc, 10, 0, 0}} {
		t.Run(name, func(t *testing.T) {
			const pages = 8
			binary := moduleOf(section(1, functype("\x7f\x7f\x7f", "")), section(3, []byte{0}), section(5, []byte{0, pages}),
				section(7, export("run", 0, 0), export("memory", 2, 0)), section(10, fn(nil, cat([]byte{0x20, 0, 0x20, 1, 0x20, 2}, op)...)))
			r, host := runtimeWithHost(t)
			plain, re := start(t, r, binary), start(t, r, mustRewrite(t, binary, rewrite.Options{}).Binary)
			all := func(m api.Module) []byte {
				b, _ := m.Memory().Read(0, pages<<16)
				return b
			}
			rnd := rand.New(rand.NewPCG(1, 2))
			for i := range all(plain) {
				b := byte(rnd.Uint32())
				all(plain)[i], all(re)[i] = b, b
			}
			number := func() uint64 {
				switch rnd.IntN(8) {
				case 0:
					return uint64(rnd.Uint32())
				case 1:
					return pages << 16
				case 2:
					return uint64(rnd.IntN(pages)<<16 + rnd.IntN(3) - 1&0xffff)
				}
				return uint64(rnd.IntN(pages << 16))
			}
			traps := 0
			for range 2000 {
				args := []uint64{number(), number(), number()}
				if rnd.IntN(2) == 0 {
					args[2] = uint64(rnd.IntN(200_000))
				}
				want, got := outcome(plain.ExportedFunction("run"), args), outcome(re.ExportedFunction("run"), args)
				if want != got {
					t.Fatalf("%d: %s; as it is: %s", args, got, want)
				}
				if strings.HasPrefix(got, "traps") {
					traps++
				}
				if !bytes.Equal(all(plain), all(re)) {
					t.Fatalf("%d: memories differ", args)
				}
			}
			if traps == 0 || traps == 2000 {
				t.Errorf("%d of 2000 trapped", traps)
			}
			// Half a megabyte is 131072 units, and what looks at them as they are used up costs a little.
			host.used = 0
			fuel := re.ExportedGlobal(rewrite.FuelGlobal).(api.MutableGlobal)
			fuel.Set(uint64(rewrite.NewFuel(slice)))
			outcome(re.ExportedFunction("run"), []uint64{0, 0, pages << 16})
			if used := slice - rewrite.Fuel(fuel.Get()).Left(); used < pages<<14 || used > 2*pages<<14 {
				t.Errorf("%d bytes took %d units", pages<<16, used)
			}
		})
	}
}

// TestLongFillYields: the host is asked while a long operation is under way, not behind it.
func TestLongFillYields(t *testing.T) {
	const pages = 2048 // 128 MiB: 8 slices
	binary := moduleOf(section(1, functype("", "")), section(3, []byte{0}), section(5, cat([]byte{0}, uleb(pages))), section(7, export("run", 0, 0)),
		section(10, fn(nil, cat([]byte{0x41, 0, 0x41, 1}, i32c(pages<<16), []byte{0xfc, 11, 0})...)))
	r, host := runtimeWithHost(t)
	host.budget = 2 * slice
	mod := start(t, r, mustRewrite(t, binary, rewrite.Options{}).Binary)
	_, err := mod.ExportedFunction("run").Call(context.Background())
	if !errors.Is(err, errBudget) {
		t.Fatal(err)
	}
	first, _ := mod.Memory().ReadByte(0)
	last, _ := mod.Memory().ReadByte(pages<<16 - 1)
	if first != 1 || last != 0 {
		t.Errorf("first byte %d, last byte %d: it was not ended midway", first, last)
	}
}

// TestGrowIsCharged: memory that is asked for costs before it is there.
func TestGrowIsCharged(t *testing.T) {
	r, _ := runtimeWithHost(t)
	mod := start(t, r, mustRewrite(t, one("\x7f", "\x7f", nil, 0x20, 0, 0x40, 0), rewrite.Options{}).Binary)
	fuel := mod.ExportedGlobal(rewrite.FuelGlobal).(api.MutableGlobal)
	for pages, want := range map[uint64]int64{0: 0, 100: 100 << 8, 1<<32 - 1: 65536 << 8} {
		fuel.Set(uint64(rewrite.NewFuel(1 << 30)))
		if _, err := mod.ExportedFunction("run").Call(context.Background(), pages); err != nil {
			t.Fatal(err)
		}
		if used := 1<<30 - rewrite.Fuel(fuel.Get()).Left(); used < want || used > want+200 {
			t.Errorf("%d pages took %d units", pages, used)
		}
	}
}

// TestLongBodies: what a loop does at a stretch is charged whole, however long that is.
func TestLongBodies(t *testing.T) {
	for name, group := range map[string][]byte{
		"whole numbers": {0x41, 1, 0x41, 0, 0x6a, 0x1a},
		"floats":        {0x43, 0, 0, 0, 0, 0x91, 0x1a},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := runtimeWithHost(t)
			each := func(groups int) int64 {
				body := cat([]byte{0x03, 0x40}, bytes.Repeat(group, groups), []byte{0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b})
				mod := start(t, r, mustRewrite(t, one("\x7f", "", nil, body...), rewrite.Options{}).Binary)
				fuel := mod.ExportedGlobal(rewrite.FuelGlobal).(api.MutableGlobal)
				used := func(rounds uint64) int64 {
					fuel.Set(uint64(rewrite.NewFuel(1 << 30)))
					if _, err := mod.ExportedFunction("run").Call(context.Background(), rounds); err != nil {
						t.Fatal(err)
					}
					return 1<<30 - rewrite.Fuel(fuel.Get()).Left()
				}
				return (used(11) - used(1)) / 10
			}
			if short, long := each(1000), each(100_000); long < 99*short || long > 101*short {
				t.Errorf("%d units, and %d for a body that is 100 times as long", short, long)
			}
		})
	}
}

// TestTableGrow: a table without a limit does not grow beyond what all tables may have.
func TestTableGrow(t *testing.T) {
	grow := []byte{0xd0, 0x70, 0x20, 0, 0xfc, 15}
	binary := moduleOf(section(1, functype("\x7f", "\x7f\x7f")), section(3, []byte{0}), section(4, []byte{0x70, 0, 1}, []byte{0x70, 1, 1, 5}), section(7, export("run", 0, 0)),
		section(10, fn(nil, cat(grow, []byte{0}, grow, []byte{1})...)))
	for elements, want := range map[uint64]string{0: "returns 1 1", 4: "returns 1 1", 5: "returns 1 ffffffff", 1<<19 - 1: "returns 1 ffffffff", 1 << 19: "returns ffffffff ffffffff"} {
		r, _ := runtimeWithHost(t)
		mod := start(t, r, mustRewrite(t, binary, rewrite.Options{}).Binary)
		if got := outcome(mod.ExportedFunction("run"), []uint64{elements}); got != want {
			t.Errorf("%d elements: %s; want %s", elements, got, want)
		}
	}
}

// TestRefused: what is not taken, and why, in words.
func TestRefused(t *testing.T) {
	empty := functype("", "")
	nest := func(n int, open byte) []byte {
		return cat(bytes.Repeat([]byte{open, 0x40}, n), bytes.Repeat([]byte{0x0b}, n))
	}
	var types, deep [][]byte
	for range 100 {
		types, deep = append(types, []byte{0}), append(deep, fn(nil, nest(4000, 2)...))
	}
	for _, tt := range []struct {
		want   string
		module []byte
	}{
		{"not a WebAssembly module", nil},
		{"not a WebAssembly module", []byte("#!/bin/sh and more")},
		{"component", []byte("\x00asm\x0d\x00\x01\x00")},
		{"version", []byte("\x00asm\x02\x00\x00\x00")},
		{"section 13", moduleOf(section(13))},
		{"out of order", moduleOf(section(3), section(1))},
		{"out of order", moduleOf(section(1), section(1))},
		{"unexpected end", moduleOf([]byte{1, 5, 1})},
		{"too many", moduleOf([]byte{1, 2, 0, 0})},
		{"4294967295 types", moduleOf([]byte{1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f})},
		{"900000 types in", moduleOf([]byte{1, 3}, uleb(900_000))},
		{"does not fit in 32 bits", moduleOf([]byte{1, 5, 0x80, 0x80, 0x80, 0x80, 0x10})},
		{"1 functions with 0 bodies", moduleOf(section(1, empty), section(3, []byte{0}))},
		{"type 1 of 1", moduleOf(section(1, empty), section(3, []byte{1}))},
		{"50001 locals", one("", "", [][]byte{cat(uleb(50_001), []byte{i32})})},
		{"locals; the limit", one("", "", [][]byte{cat(uleb(1<<32-1), []byte{i32}), cat(uleb(1<<32-1), []byte{i32})})},
		{"blocks nested deeper than 5000", one("", "", nil, nest(5001, 2)...)},
		{"loops nested deeper than 500", one("", "", nil, nest(501, 3)...)},
		{"65521 labels", one("", "", nil, cat([]byte{0x41, 0, 0x0e}, uleb(65521))...)},
		{"too many nested blocks", moduleOf(section(1, empty), section(3, types...), section(10, deep...))},
		{"tables of 1048577 elements", moduleOf(section(4, cat([]byte{0x70, 0}, uleb(1<<20+1))))},
		{"shared", moduleOf(section(5, []byte{3, 1, 1}))},
		{"65536 pages", moduleOf(section(5, cat([]byte{0}, uleb(65537))))},
		{"two exports", moduleOf(section(1, empty), section(3, []byte{0}), section(7, export("a", 0, 0), export("a", 0, 0)), section(10, fn(nil)))},
		{"reserved", moduleOf(section(1, empty), section(3, []byte{0}), section(7, export("loam:fuel", 0, 0)), section(10, fn(nil)))},
		{"reserved", moduleOf(section(1, empty), section(2, cat(sized([]byte("loam:host")), sized([]byte("yield")), []byte{0, 0})))},
		{"not UTF-8", moduleOf(section(1, empty), section(3, []byte{0}), section(7, export("\xff", 0, 0)), section(10, fn(nil)))},
		{"start function has", moduleOf(section(1, functype("\x7f", "")), section(3, []byte{0}), []byte{8, 1, 0}, section(10, fn(nil)))},
		{"label 1 of 1", one("", "", nil, 0x0c, 1)},
		{"else without if", one("", "", nil, 0x02, 0x40, 0x05, 0x0b)},
		{"does not end", one("", "", nil, 0x02, 0x40)},
		{"behind the end", one("", "", nil, 0x0b, 0x0b)},
		{"local 0 of 0", one("", "", nil, 0x20, 0, 0x1a)},
		{"global 0 of 0", one("", "", nil, 0x23, 0, 0x1a)},
		{"function 1 of 1", one("", "", nil, 0x10, 1)},
		{"instruction 0xff", one("", "", nil, 0xff)},
		{"instruction 0x12", one("", "", nil, 0x12, 0)}, // a tail call
		{"instruction 0xfe", one("", "", nil, 0xfe, 0)}, // threads
		{"data segment 0", one("", "", nil, 0xfc, 9, 0)},
		{"not declared", moduleOf(section(1, empty), section(3, []byte{0}), section(10, fn(nil, 0xd2, 0, 0x1a)))},
		{"mutable", moduleOf(section(1, empty), section(3, []byte{0}), section(6, []byte{i32, 0, 0x41, 0, 0x0b}), section(10, fn(nil, 0x41, 0, 0x24, 0)))},
	} {
		m, err := rewrite.Rewrite(tt.module, rewrite.Options{Image: true, Tables: true, Names: true})
		if err == nil {
			t.Errorf("taken; want %q", tt.want)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v; want %q", err, tt.want)
		}
		if m != nil || loam.CodeOf(err) != loam.InvalidArgument || loam.HintOf(err) == "" {
			t.Errorf("%v: code %v, hint %q", err, loam.CodeOf(err), loam.HintOf(err))
		}
	}
}

// TestTruncated: a module that was cut off anywhere is refused, or is whole: it ended with a section. None panics.
func TestTruncated(t *testing.T) {
	binary := generate(rand.New(rand.NewPCG(7, 7)))
	mustRewrite(t, binary, rewrite.Options{})
	taken := 0
	for n := range binary {
		if _, err := rewrite.Rewrite(binary[:n], rewrite.Options{Image: true, Tables: true}); err == nil {
			taken++
		} else if loam.CodeOf(err) != loam.InvalidArgument {
			t.Fatal(err)
		}
		flipped := bytes.Clone(binary)
		flipped[n] ^= 1 << (n % 8)
		_, _ = rewrite.Rewrite(flipped, rewrite.Options{Image: true, Tables: true})
	}
	if taken > 10 {
		t.Errorf("%d of %d beginnings were taken", taken, len(binary))
	}
}
