package wasm

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/loamabi"
	"github.com/loam-run/loam/wasm/wasi"
)

// Whatever a guest passes to whatever it may import, with whatever in its memory, three times over: it is served or it
// fails by itself, and the next request finds nothing of it.
func FuzzImports(f *testing.F) {
	engine, err := testHost.engine(true)
	if err != nil {
		f.Fatal(err)
	}
	type imported struct{ module, name, sig string }
	var imports []imported
	for _, module := range []string{wasi.Module, loamabi.Name} {
		for name, d := range engine.Module(module).ExportedFunctionDefinitions() {
			sig := ""
			for _, list := range [][]byte{d.ParamTypes(), d.ResultTypes()} {
				for _, t := range list {
					sig += map[byte]string{0x7f: "i", 0x7e: "I"}[t]
				}
				sig += ":"
			}
			imports = append(imports, imported{module, name, sig[:len(sig)-1]})
		}
	}
	slices.SortFunc(imports, func(a, b imported) int { return slices.Compare([]byte(a.module+a.name), []byte(b.module+b.name)) })
	f.Add([]byte{0, 1, 2}, []byte{1, 2, 3, 4})
	f.Add([]byte("\x05\x20\xff\xff\x00\x00\x00\x00"), []byte{0, 0, 0, 0, 0, 0, 1, 0})
	for i := range imports {
		f.Add([]byte{byte(i), 0, 1, 0, 0, 16, 0, 0, 0, 4, 0}, []byte("m\x00\x00\x00\xff\xff\xff\xff\x08\x00\x00\x00"))
	}
	f.Fuzz(func(t *testing.T, calls, memory []byte) {
		next := func() (n int32) {
			var b [4]byte
			k := copy(b[:], calls)
			calls = calls[k:]
			return int32(binary.LittleEndian.Uint32(b[:]))
		}
		g := handmade{pages: 1, data: memory[:min(len(memory), 1<<16)]}
		for n := range 3 {
			i := imports[uint32(next())%uint32(len(imports))]
			g.imports = append(g.imports, i.module+"."+i.name+"/"+i.sig)
			for _, p := range i.sig {
				if p == ':' {
					break
				}
				c := call(0, next()%(1<<18))
				if c = c[:len(c)-2]; p == 'I' {
					c[0] = 0x42
				}
				g.serve = append(g.serve, c...)
			}
			g.serve = append(g.serve, 0x10, byte(n))
			if i.sig[len(i.sig)-1] != ':' {
				g.serve = append(g.serve, drop)
			}
		}
		m, err := testHost.Compile(t.Context(), "fuzz", g.bytes(), Config{Interpret: true, Timeout: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		for range 2 {
			status, _, err := trySend(t, m, "POST", "/path?query", "a body")
			switch loam.CodeOf(err) {
			case loam.OK:
				if status < 200 || status > 599 {
					t.Errorf("status %d", status)
				}
			case loam.Internal, loam.DeadlineExceeded, loam.ResourceExhausted:
			default:
				t.Errorf("%v", err)
			}
		}
		if i := m.program.pool.take(0); i != nil {
			if all := allMemory(i); string(all[:len(m.program.image.bytes)]) != string(m.program.image.bytes) {
				t.Error("the memory is not the image's")
			}
			i.close()
		}
	})
}
