package wasm

import (
	"os"
	"strings"
	"testing"

	"github.com/loam-run/loam/wasm/rewrite"
)

// A guest's functions have the names and places that its own tables say.
func TestSymbols(t *testing.T) {
	c, err := os.ReadFile("testdata/debug.wasm")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		from   []byte
		name   string
		file   string
		source string // the line begins so
	}{
		{guestModule, "main.deepest", "wasm/testdata/guest/main.go", "func deepest("},
		{guestModule, "encoding/json.(*decodeState).unmarshal", "encoding/json/decode.go", ""},
		{c, "inner", "debug.c", "__attribute__((noinline)) static int inner("},
		{c, "outer", "debug.c", "int outer("},
	} {
		m, err := rewrite.Rewrite(want.from, rewrite.Options{Image: true, Tables: true, Closed: true})
		if err != nil {
			t.Fatal(err)
		}
		var got Symbol
		for _, s := range symbolsOf(m) {
			if s.Name == want.name {
				got = s
			}
		}
		if !strings.HasSuffix(got.File, want.file) || got.Line < 1 {
			t.Errorf("%s: %v", want.name, got)
			continue
		}
		if want.source == "" {
			continue
		}
		file := got.File
		if !strings.HasPrefix(file, "/") {
			file = "testdata/" + strings.TrimPrefix(file, "./")
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if line := strings.Split(string(text), "\n")[got.Line-1]; !strings.HasPrefix(line, want.source) {
			t.Errorf("%s: line %d is %q", want.name, got.Line, line)
		}
	}
}

// FuzzSymbols reads debugging tables that may be anything.
func FuzzSymbols(f *testing.F) {
	c, err := os.ReadFile("testdata/debug.wasm")
	if err != nil {
		f.Fatal(err)
	}
	m, err := rewrite.Rewrite(c, rewrite.Options{})
	if err != nil {
		f.Fatal(err)
	}
	section := func(name string) []byte {
		for _, s := range m.Custom {
			if s.Name == name {
				return s.Data
			}
		}
		return nil
	}
	f.Add(section(".debug_info"), section(".debug_abbrev"), section(".debug_line"), section(".debug_str"), []byte(goMagic))
	f.Fuzz(func(t *testing.T, info, abbrev, line, str, table []byte) {
		broken := *m
		broken.Custom = []rewrite.Custom{{Name: ".debug_info", Data: info}, {Name: ".debug_abbrev", Data: abbrev}, {Name: ".debug_line", Data: line}, {Name: ".debug_str", Data: str}}
		broken.Data = []rewrite.Segment{{Offset: 8, Bytes: table}}
		symbolsOf(&broken)
	})
}
