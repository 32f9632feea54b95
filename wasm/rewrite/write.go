package rewrite

import (
	"errors"
	"sort"
)

// A writer writes the module that was asked for.
type writer struct {
	code // of the function that is being written
	m    *module
	o    Options
	out  *Module
	fns  []function

	inserted    uint32 // functions imported besides those of the module
	yield, trap uint32 // two of them
	fuelGlobal  uint32

	types  []funcType // the module's and those that were appended
	typeOf map[string]uint32
	extra  []appended

	contents    [][]int32 // of the tables that are removed
	dispatchers map[dispatch]uint32
	classifiers map[uint32]uint32
	steppers    map[uint16]uint32

	flow flow
	segs []segment
	from uint32 // where the function that is being written stood in the code section
}

// An appended function is one the module did not have.
type appended struct {
	typ  uint32
	body []byte
}

var (
	yieldType = funcType{[]byte{byte(I64)}, []byte{byte(I64)}}
	trapType  = funcType{params: []byte{byte(I32)}}
)

// rewrite does all that options ask for.
func (m *module) rewrite(o Options) (*Module, error) {
	fns, u, err := m.scan()
	if err != nil {
		return nil, err
	}
	out := &Module{Custom: m.customs, Exports: m.exports, imports: uint32(m.importedFuncs), funcs: uint32(len(m.funcs))}
	w := &writer{
		m: m, o: o, out: out, fns: fns, types: m.types[:len(m.types):len(m.types)], typeOf: map[string]uint32{},
		inserted: 1, yield: uint32(m.importedFuncs), trap: uint32(m.importedFuncs) + 1, fuelGlobal: uint32(len(m.globals)),
		dispatchers: map[dispatch]uint32{}, classifiers: map[uint32]uint32{}, steppers: map[uint16]uint32{},
	}
	for i, t := range m.types {
		w.typeOf[t.key()] = uint32(i)
	}
	for _, i := range m.imports {
		out.Imports = append(out.Imports, i.Import)
	}
	if len(m.memories) > 0 {
		out.Memory = &Memory{m.memories[0].min, m.memories[0].max, m.importedMemories > 0}
	}
	if o.Tables && len(m.tables) > 0 {
		w.contents, out.TableReason = m.tableContents(o, u)
		if out.TableRemoved = out.TableReason == ""; out.TableRemoved && len(u.asked) > 0 {
			w.inserted = 2
		}
	}
	if o.Image {
		if out.Reason = m.unimageable(u); out.Reason == "" {
			out.Imaged = true
			w.image()
		}
	}
	out.inserted = w.inserted
	code := w.bodies()
	if len(m.funcs)+len(w.extra) > maxFuncs+maxImports || len(code) > 4*maxBinary {
		return nil, errors.New("the rewritten module is too large")
	}
	out.Binary = w.assemble(code)
	return out, nil
}

// moved is the index a function of the module as it was has now.
func (w *writer) moved(f uint32) uint32 {
	if f >= uint32(w.m.importedFuncs) {
		return f + w.inserted
	}
	return f
}

// typeIndex is the index of a function type, which is appended if the module does not have it.
func (w *writer) typeIndex(t funcType) uint32 {
	key := t.key()
	i, ok := w.typeOf[key]
	if !ok {
		i = uint32(len(w.types))
		w.types = append(w.types, t)
		w.typeOf[key] = i
	}
	return i
}

// append adds a function and tells its index.
func (w *writer) append(t funcType, body []byte) uint32 {
	w.extra = append(w.extra, appended{w.typeIndex(t), body})
	return uint32(len(w.m.funcs)) + w.inserted + uint32(len(w.extra)) - 1
}

// blockType writes the type of a block without parameters.
func (w *writer) blockType(results []byte) {
	switch len(results) {
	case 0:
		w.op(blockEmpty)
	case 1:
		w.op(results[0])
	default:
		w.s33(w.typeIndex(funcType{results: results}))
	}
}

// bodies writes the vector of function bodies.
func (w *writer) bodies() []byte {
	code := make([]byte, 0, len(w.m.raw[secCode])+len(w.m.raw[secCode])/2)
	// The appended functions are known when the others are written, so the count, which stands in front, has a fixed
	// width.
	code = append(code, 0x80, 0x80, 0x80, 0x80, 0)
	for i := range w.m.code {
		w.b = w.b[:0]
		w.from = w.m.code[i].offset
		first := len(w.out.offsets)
		w.function(i)
		code = appendU(code, uint64(len(w.b)))
		for k := first; k < len(w.out.offsets); k++ {
			w.out.offsets[k].now += uint32(len(code))
		}
		code = append(code, w.b...)
	}
	w.out.codeEnd = uint32(len(code))
	for _, e := range w.extra {
		code = appendU(code, uint64(len(e.body)))
		code = append(code, e.body...)
	}
	n := len(w.m.code) + len(w.extra)
	for i := range 5 {
		code[i] |= byte(n >> (7 * i) & 0x7f)
	}
	return code
}

// assemble writes the sections.
func (w *writer) assemble(code []byte) []byte {
	m := w.m
	out := make([]byte, 0, m.size+len(code)-len(m.raw[secCode]))
	out = append(out, "\x00asm\x01\x00\x00\x00"...)
	section := func(id byte, b []byte) {
		out = append(out, id)
		out = appendU(out, uint64(len(b)))
		out = append(out, b...)
	}
	as := func(id byte) {
		if m.raw[id] != nil {
			section(id, m.raw[id])
		}
	}
	imports := w.importSection() // may append types
	section(secType, w.typeSection())
	section(secImport, imports)
	section(secFunction, w.functionSection())
	if m.raw[secTable] != nil && !w.out.TableRemoved {
		section(secTable, w.tableSection())
	}
	as(secMemory)
	section(secGlobal, w.globalSection())
	section(secExport, w.exportSection())
	if m.start >= 0 && !w.out.Imaged {
		section(secStart, appendU(nil, uint64(w.moved(uint32(m.start)))))
	}
	if len(m.elems) > 0 && !w.out.TableRemoved {
		section(secElement, w.elementSection())
	}
	if !w.out.Imaged {
		as(secDataCount)
	}
	section(secCode, code)
	if !w.out.Imaged {
		as(secData)
	}
	if w.o.Names {
		if names := w.nameSection(); names != nil {
			section(secCustom, names)
		}
	}
	return out
}

func (w *writer) typeSection() []byte {
	b := appendU(nil, uint64(len(w.types)))
	for _, t := range w.types {
		b = append(b, 0x60)
		b = append(appendU(b, uint64(len(t.params))), t.params...)
		b = append(appendU(b, uint64(len(t.results))), t.results...)
	}
	return b
}

func (w *writer) importSection() []byte {
	b := appendU(nil, uint64(len(w.m.imports))+uint64(w.inserted))
	for _, i := range w.m.imports {
		b = append(appendName(appendName(b, i.Module), i.Name), i.raw...)
	}
	b = append(appendName(appendName(b, HostModule), Yield), byte(KindFunction))
	b = appendU(b, uint64(w.typeIndex(yieldType)))
	if w.inserted == 2 {
		b = append(appendName(appendName(b, HostModule), Trapped), byte(KindFunction))
		b = appendU(b, uint64(w.typeIndex(trapType)))
	}
	return b
}

func (w *writer) functionSection() []byte {
	defined := w.m.funcs[w.m.importedFuncs:]
	b := appendU(nil, uint64(len(defined)+len(w.extra)))
	for _, t := range defined {
		b = appendU(b, uint64(t))
	}
	for _, e := range w.extra {
		b = appendU(b, uint64(e.typ))
	}
	return b
}

// tableSection gives each table a share of maxTable to grow to: nothing else limits what tables take.
func (w *writer) tableSection() []byte {
	defined := w.m.tables[w.m.importedTables:]
	b := appendU(nil, uint64(len(defined)))
	for _, t := range defined {
		most := max(t.min, maxTable/uint32(len(defined)))
		b = append(b, byte(t.elem), 1)
		b = appendU(appendU(b, uint64(t.min)), uint64(min(t.max, most)))
	}
	return b
}

func (w *writer) globalSection() []byte {
	defined := w.m.globals[w.m.importedGlobals:]
	b := appendU(nil, uint64(len(defined))+1)
	for _, g := range defined {
		b = append(b, byte(g.typ), 0)
		if g.mutable {
			b[len(b)-1] = 1
		}
		b = append(w.constant(b, g.init), opEnd)
	}
	return append(b, byte(I64), 1, opI64Const, 0, opEnd)
}

// constant appends a constant instruction.
func (w *writer) constant(b []byte, c constant) []byte {
	if c.op == opRefFunc {
		return appendU(append(b, opRefFunc), uint64(w.moved(c.value)))
	}
	return append(b, c.raw...)
}

func (w *writer) exportSection() []byte {
	var b []byte
	n := uint64(0)
	export := func(name string, kind Kind, index uint32) {
		b = append(appendName(b, name), byte(kind))
		b = appendU(b, uint64(index))
		n++
	}
	for _, e := range w.m.exports {
		switch {
		case e.Kind == KindTable && w.out.TableRemoved:
		case e.Kind == KindFunction:
			export(e.Name, e.Kind, w.moved(e.Index))
		default:
			export(e.Name, e.Kind, e.Index)
		}
	}
	export(FuelGlobal, KindGlobal, w.fuelGlobal)
	for _, g := range w.out.Globals {
		export(g.Export, KindGlobal, g.index)
	}
	if w.out.Start {
		export(StartFunction, KindFunction, w.moved(uint32(w.m.start)))
	}
	return append(appendU(nil, n), b...)
}

func (w *writer) elementSection() []byte {
	b := appendU(nil, uint64(len(w.m.elems)))
	for _, e := range w.m.elems {
		// The forms that name table and type; those that do not are only shorter.
		form := uint64(e.mode)
		switch e.mode {
		case active:
			form = 2
		case declared:
			form = 3
		}
		if e.exprs {
			form |= 4
		}
		if e.mode == active && e.table == 0 && e.typ == FuncRef {
			form &^= 2
		}
		b = appendU(b, form)
		if e.mode == active {
			if form&2 != 0 {
				b = appendU(b, uint64(e.table))
			}
			b = append(w.constant(b, e.offset), opEnd)
		}
		if form&3 != 0 {
			if e.exprs {
				b = append(b, byte(e.typ))
			} else {
				b = append(b, 0)
			}
		}
		b = appendU(b, uint64(len(e.items)))
		for _, it := range e.items {
			index := it.index
			if it.op == opRefFunc {
				index = w.moved(index)
			}
			switch {
			case !e.exprs:
				b = appendU(b, uint64(index))
			case it.op == opRefNull:
				b = append(b, opRefNull, byte(e.typ), opEnd)
			default:
				b = append(appendU(append(b, it.op), uint64(index)), opEnd)
			}
		}
	}
	return b
}

// An offset tells that size bytes of code at now stood at was. Both count from the beginning of the code section's
// contents, as DWARF does.
type offset struct{ now, was, size uint32 }

// origin notes that what is written next stood at from in the function's code.
func (me *meter) origin(from, size int) {
	if me.o.Offsets {
		me.out.offsets = append(me.out.offsets, offset{uint32(len(me.b)), me.from + uint32(from), uint32(size)})
	}
}

// Offset tells where code of the rewritten module came from. Both offsets count from the beginning of the code
// section's contents, as those of DWARF do. What metering added belongs to the instruction in front of it. It is false
// for functions the module did not have, and without [Options].Offsets.
func (m *Module) Offset(now uint32) (was uint32, ok bool) {
	i := sort.Search(len(m.offsets), func(i int) bool { return m.offsets[i].now > now }) - 1
	if i < 0 || now >= m.codeEnd {
		return 0, false
	}
	o := m.offsets[i]
	return o.was + min(now-o.now, o.size-1), true
}
