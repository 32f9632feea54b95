package wasm

import (
	"bytes"
	"debug/dwarf"
	"debug/gosym"
	"fmt"
	"strings"

	"github.com/loam-run/loam/wasm/rewrite"
)

// A Symbol is what is known of a guest's function.
type Symbol struct {
	Name string
	File string // where it is declared; "": the guest does not carry that
	Line int
}

// String is the name and, where it is known, the place.
func (s Symbol) String() string {
	if s.File == "" {
		return s.Name
	}
	return fmt.Sprintf("%s %s:%d", s.Name, s.File, s.Line)
}

// symbolsOf are the functions of a rewritten module, by their index there: as the table of the Go runtime has them, else by the name section and DWARF. All of that is the guest's and may be anything.
func symbolsOf(m *rewrite.Module) map[uint32]Symbol {
	was := map[uint32]Symbol{}
	for f, name := range m.FunctionNames() {
		was[f] = Symbol{Name: name}
	}
	for _, e := range m.Exports { // what has an export has a name at least
		if e.Kind == rewrite.KindFunction && was[e.Index].Name == "" {
			was[e.Index] = Symbol{Name: e.Name}
		}
	}
	declared := dwarfSymbols(m)
	for f, s := range was {
		if d, ok := declared[s.Name]; ok {
			s.File, s.Line = d.File, d.Line
			was[f] = s
		}
	}
	for f, s := range goSymbols(m, was) {
		was[f] = s
	}
	now := map[uint32]Symbol{}
	for n, misses := uint32(0), 0; misses < 1000; n++ {
		old, ok := m.Function(n)
		if !ok {
			misses++
			continue
		}
		if s, ok := was[old]; ok {
			now[n] = s
		}
	}
	return now
}

// maxDebug is how much of debugging sections is read, in bytes.
const maxDebug = 64 << 20

// dwarfSymbols are the functions that DWARF knows, by the name that the name section has: the linkage name, if there is
// one. A name of which there are several is left out.
func dwarfSymbols(m *rewrite.Module) (found map[string]Symbol) {
	found = map[string]Symbol{}
	defer func() { _ = recover() }() // a name without a place is better than none
	sections := map[string][]byte{}
	size := 0
	for _, c := range m.Custom {
		sections[c.Name] = c.Data
		size += len(c.Data)
	}
	if size > maxDebug || len(sections[".debug_info"]) == 0 {
		return found
	}
	d, err := dwarf.New(sections[".debug_abbrev"], nil, nil, sections[".debug_info"], sections[".debug_line"], nil, sections[".debug_ranges"], sections[".debug_str"])
	if err != nil {
		return found
	}
	for _, name := range []string{".debug_addr", ".debug_line_str", ".debug_str_offsets", ".debug_rnglists"} {
		if s := sections[name]; len(s) > 0 {
			if err := d.AddSection(name, s); err != nil {
				return found
			}
		}
	}
	twice := map[string]bool{}
	var files []*dwarf.LineFile
	r := d.Reader()
	for {
		e, err := r.Next()
		if e == nil || err != nil {
			return found
		}
		switch e.Tag {
		case dwarf.TagCompileUnit:
			files = nil
			if lines, err := d.LineReader(e); err == nil && lines != nil {
				files = lines.Files()
			}
		case dwarf.TagSubprogram:
			name, _ := e.Val(dwarf.AttrLinkageName).(string)
			if name == "" {
				name, _ = e.Val(dwarf.AttrName).(string)
			}
			file, _ := e.Val(dwarf.AttrDeclFile).(int64)
			line, _ := e.Val(dwarf.AttrDeclLine).(int64)
			if declared, _ := e.Val(dwarf.AttrDeclaration).(bool); name == "" || declared || file < 0 || file >= int64(len(files)) || files[file] == nil {
				continue
			}
			s := Symbol{name, files[file].Name, int(line)}
			if other, ok := found[name]; ok && other != s {
				twice[name] = true
			}
			if found[name] = s; twice[name] {
				found[name] = Symbol{Name: name}
			}
		}
	}
}

// goMagic begins the Go runtime's table of functions: its version, and that an instruction is a byte and a pointer eight.
const goMagic = "\xf1\xff\xff\xff\x00\x00\x01\x08"

// goSymbols are the functions that the Go runtime's table knows, by their index in the module as it was. The table has
// them in the order of the module; that the name section says the same shows that it is what it seems.
func goSymbols(m *rewrite.Module, names map[uint32]Symbol) (found map[uint32]Symbol) {
	found = map[uint32]Symbol{}
	defer func() { _ = recover() }() // debug/gosym panics on what is broken
	end := 0
	for _, s := range m.Data {
		end = max(end, int(s.Offset)+len(s.Bytes))
	}
	if end > maxDebug {
		return found
	}
	memory := make([]byte, end)
	m.Lay(memory)
	at := bytes.Index(memory, []byte(goMagic))
	if at < 0 {
		return found
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(memory[at:], 0))
	if err != nil {
		return found
	}
	imported := uint32(0)
	for _, i := range m.Imports {
		if i.Kind == rewrite.KindFunction {
			imported++
		}
	}
	for i := range table.Funcs {
		f := &table.Funcs[i]
		index := imported + uint32(i)
		if names[index].Name != goName(f.Name) {
			continue
		}
		s := Symbol{Name: f.Name}
		if file, line, _ := table.PCToLine(f.Entry); line > 0 {
			s.File, s.Line = file, line
		}
		found[index] = s
	}
	return found
}

// goName is a function's name as the Go linker writes it into the name section.
func goName(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
}
