package rewrite

import (
	"errors"
	"fmt"
	"strings"
)

// The limits. They are those of the WebAssembly JavaScript API (its appendix "Implementation-defined Limits"), which
// every toolchain keeps, except where a host that runs strangers' modules has reason to be narrower.
const (
	maxBinary   = 256 << 20
	maxTypes    = 1_000_000
	maxFuncs    = 1_000_000
	maxImports  = 100_000
	maxExports  = 100_000
	maxGlobals  = 1_000_000
	maxSegments = 100_000
	maxTables   = 100
	maxTable    = 1 << 20 // elements of all tables; 8 MiB in the engine, which are in no memory limit
	maxParams   = 1_000
	maxResults  = 1_000
	maxLocals   = 50_000
	maxBody     = 7_654_321
	maxNesting  = 5_000
	maxLoops    = 500 // that are nested
	maxLabels   = 65_520
	maxEffort   = 1 << 30 // see flow.effort; it is some 20 seconds of the engine's time
	maxPages    = 65_536
)

// Section ids in the binary format.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
)

var sectionNames = [...]string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count"}

// sectionOrder is where a section stands: the data count came later and was put before the code.
var sectionOrder = [...]int{secDataCount: 10, secCode: 11, secData: 12, secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secGlobal: 6, secExport: 7, secStart: 8, secElement: 9}

// A module is a parsed one. Its slices are slices of the binary.
type module struct {
	size int // of the binary

	types    []funcType
	imports  []importEntry
	funcs    []uint32 // type of each function, the imported ones first
	tables   []tableType
	memories []memoryType
	globals  []globalType
	exports  []Export
	start    int64 // function, or -1
	elems    []element
	code     []body
	data     []dataSegment
	customs  []Custom

	// how many of each are imported
	importedFuncs, importedTables, importedMemories, importedGlobals int

	dataCount int64 // -1: no such section
	raw       [secDataCount + 1][]byte
}

type funcType struct{ params, results []byte }

// key is the same for equal types.
func (f funcType) key() string { return string(f.params) + "\x00" + string(f.results) }

type importEntry struct {
	Import
	raw []byte // the description, as it stands
}

type tableType struct {
	elem     ValueType
	min, max uint32
	hasMax   bool
}

type memoryType struct {
	min, max uint32
	raw      []byte
}

type globalType struct {
	typ     ValueType
	mutable bool
	init    constant // zero for an imported one
}

// A constant is a constant expression: one instruction.
type constant struct {
	op    byte
	value uint32 // of i32.const, global.get, ref.func
	raw   []byte // the instruction, as it stands
}

// Ways of an element or data segment.
const (
	active = iota
	passive
	declared
)

type element struct {
	mode   int
	table  uint32
	offset constant
	typ    ValueType
	exprs  bool // written as expressions
	items  []item
}

// An item is an element's reference: ref.func, ref.null or global.get.
type item struct {
	op    byte
	index uint32
}

type body struct {
	locals []localRun
	code   []byte // the instructions
	offset uint32 // of code in the code section
	base   int    // of code in the binary
}

type localRun struct {
	n   uint32
	typ ValueType
}

type dataSegment struct {
	mode   int
	offset constant
	bytes  []byte
}

// parse reads a module's sections. The instructions are looked at by scan.
func parse(binary []byte) (*module, error) {
	if len(binary) > maxBinary {
		return nil, fmt.Errorf("%d bytes; the limit is %d", len(binary), maxBinary)
	}
	if len(binary) < 8 || string(binary[:4]) != "\x00asm" {
		return nil, errors.New("not a WebAssembly module")
	}
	switch string(binary[4:8]) {
	case "\x01\x00\x00\x00":
	case "\x0d\x00\x01\x00":
		return nil, errors.New("a WebAssembly component, not a core module")
	default:
		return nil, fmt.Errorf("binary format version %#x", binary[4:8])
	}
	m := &module{size: len(binary), start: -1, dataCount: -1}
	r := &reader{b: binary, p: 8}
	last := 0
	for r.err == nil && r.more() {
		id := r.byte()
		if id > secDataCount {
			r.fail("section %d", id)
			break
		}
		s := r.section(r.u32())
		if r.err != nil {
			break
		}
		if id == secCustom {
			if name := s.name(); s.err == nil {
				m.customs = append(m.customs, Custom{name, s.b[s.p:]})
			}
			s.p = len(s.b)
		} else {
			if sectionOrder[id] <= last {
				r.fail("%s section out of order", sectionNames[id])
				break
			}
			last = sectionOrder[id]
			m.raw[id] = s.b
			m.section(id, &s)
		}
		if s.err == nil && s.more() {
			s.fail("%d bytes too many", len(s.b)-s.p)
		}
		if s.err != nil {
			return nil, fmt.Errorf("%s section: %w", sectionNames[id], s.err)
		}
	}
	if r.err == nil {
		r.err = m.agree()
	}
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

// agree checks what sections say of each other.
func (m *module) agree() error {
	if defined := len(m.funcs) - m.importedFuncs; defined != len(m.code) {
		return fmt.Errorf("%d functions with %d bodies", defined, len(m.code))
	}
	if m.dataCount >= 0 && int(m.dataCount) != len(m.data) {
		return fmt.Errorf("%d data segments; %d were said to come", len(m.data), m.dataCount)
	}
	if len(m.memories) > 1 {
		return fmt.Errorf("%d memories", len(m.memories))
	}
	if len(m.tables) > maxTables {
		return fmt.Errorf("%d tables; the limit is %d", len(m.tables), maxTables)
	}
	elements := uint64(0)
	for _, t := range m.tables {
		elements += uint64(t.min)
	}
	if elements > maxTable {
		return fmt.Errorf("tables of %d elements; the limit is %d", elements, maxTable)
	}
	if m.start >= 0 {
		if t := m.types[m.funcs[m.start]]; len(t.params)+len(t.results) > 0 {
			return errors.New("the start function has parameters or results")
		}
	}
	return nil
}

func (m *module) section(id byte, r *reader) {
	switch id {
	case secType:
		for n := r.count("types", maxTypes); n > 0 && r.err == nil; n-- {
			if form := r.byte(); form != 0x60 {
				r.fail("type form %#x", form)
			}
			m.types = append(m.types, funcType{r.valueTypes("parameters", maxParams), r.valueTypes("results", maxResults)})
		}
	case secImport:
		for n := r.count("imports", maxImports); n > 0 && r.err == nil; n-- {
			m.imported(r)
		}
	case secFunction:
		for n := r.count("functions", maxFuncs); n > 0 && r.err == nil; n-- {
			m.funcs = append(m.funcs, r.index("type", len(m.types)))
		}
	case secTable:
		for n := r.count("tables", maxTables); n > 0 && r.err == nil; n-- {
			m.tables = append(m.tables, r.tableType())
		}
	case secMemory:
		for n := r.count("memories", 1); n > 0 && r.err == nil; n-- {
			m.memories = append(m.memories, r.memoryType())
		}
	case secGlobal:
		for n := r.count("globals", maxGlobals); n > 0 && r.err == nil; n-- {
			g := r.globalType()
			g.init = m.constant(r)
			m.globals = append(m.globals, g)
		}
	case secExport:
		seen := map[string]bool{}
		for n := r.count("exports", maxExports); n > 0 && r.err == nil; n-- {
			e := Export{Name: r.name(), Kind: Kind(r.byte())}
			switch e.Kind {
			case KindFunction:
				e.Index = r.index("function", len(m.funcs))
			case KindTable:
				e.Index = r.index("table", len(m.tables))
			case KindMemory:
				e.Index = r.index("memory", len(m.memories))
			case KindGlobal:
				e.Index = r.index("global", len(m.globals))
			default:
				r.fail("export kind %#x", byte(e.Kind))
			}
			if seen[e.Name] {
				r.fail("two exports named %.100q", e.Name)
			}
			seen[e.Name] = true
			r.notReserved(e.Name)
			m.exports = append(m.exports, e)
		}
	case secStart:
		m.start = int64(r.index("function", len(m.funcs)))
	case secElement:
		for n := r.count("element segments", maxSegments); n > 0 && r.err == nil; n-- {
			m.elems = append(m.elems, m.element(r))
		}
	case secDataCount:
		m.dataCount = int64(r.u32())
	case secCode:
		for n := r.count("function bodies", maxFuncs); n > 0 && r.err == nil; n-- {
			m.code = append(m.code, r.body())
		}
	case secData:
		for n := r.count("data segments", maxSegments); n > 0 && r.err == nil; n-- {
			m.data = append(m.data, m.dataSegment(r))
		}
	}
}

func (r *reader) notReserved(name string) {
	if strings.HasPrefix(name, Prefix) {
		r.fail("the name %.100q is reserved", name)
	}
}

func (r *reader) valueType() ValueType {
	t := ValueType(r.byte())
	switch t {
	case I32, I64, F32, F64, V128, FuncRef, ExternRef:
	default:
		r.fail("value type %#x", byte(t))
	}
	return t
}

func (r *reader) refType() ValueType {
	t := ValueType(r.byte())
	if t != FuncRef && t != ExternRef {
		r.fail("reference type %#x", byte(t))
	}
	return t
}

func (r *reader) valueTypes(what string, limit uint32) []byte {
	n := r.count(what, limit)
	from := r.p
	for ; n > 0; n-- {
		r.valueType()
	}
	return r.b[from:r.p:r.p]
}

// limits reads a minimum and, if there is one, a maximum; max is most otherwise.
func (r *reader) limits(most uint32) (min, max uint32, has bool) {
	flag := r.byte()
	if flag > 1 {
		r.fail("limits of form %#x: shared or 64-bit ones are not taken", flag)
	}
	min, max = r.u32(), most
	if flag == 1 {
		max = r.u32()
		if max < min {
			r.fail("minimum %d above maximum %d", min, max)
		}
	}
	return min, max, flag == 1
}

func (r *reader) tableType() tableType {
	t := tableType{elem: r.refType()}
	t.min, t.max, t.hasMax = r.limits(1<<32 - 1)
	return t
}

func (r *reader) memoryType() memoryType {
	from := r.p
	min, max, _ := r.limits(maxPages)
	if min > maxPages || max > maxPages {
		r.fail("a memory of more than %d pages", maxPages)
	}
	return memoryType{min, max, r.b[from:r.p]}
}

func (r *reader) globalType() globalType {
	g := globalType{typ: r.valueType()}
	switch mut := r.byte(); mut {
	case 0:
	case 1:
		g.mutable = true
	default:
		r.fail("mutability %#x", mut)
	}
	return g
}

func (m *module) imported(r *reader) {
	i := importEntry{Import: Import{Module: r.name(), Name: r.name()}}
	r.notReserved(i.Module)
	from := r.p
	i.Kind = Kind(r.byte())
	switch i.Kind {
	case KindFunction:
		m.funcs = append(m.funcs, r.index("type", len(m.types)))
		m.importedFuncs++
	case KindTable:
		m.tables = append(m.tables, r.tableType())
		m.importedTables++
	case KindMemory:
		m.memories = append(m.memories, r.memoryType())
		m.importedMemories++
	case KindGlobal:
		m.globals = append(m.globals, r.globalType())
		m.importedGlobals++
	default:
		r.fail("import kind %#x", byte(i.Kind))
	}
	i.raw = r.b[from:r.p]
	m.imports = append(m.imports, i)
}

// constant reads a constant expression.
func (m *module) constant(r *reader) constant {
	from := r.p
	c := constant{op: r.byte()}
	switch c.op {
	case opI32Const:
		c.value = uint32(r.signed(32))
	case opI64Const:
		r.signed(64)
	case opF32Const:
		r.bytes(4)
	case opF64Const:
		r.bytes(8)
	case opSIMD:
		if sub := r.u32(); sub != opV128Const&0xff {
			r.fail("vector instruction %#x in a constant expression", sub)
		}
		r.bytes(16)
	case opGlobalGet:
		// Only imported globals are there yet.
		if c.value = r.index("imported global", m.importedGlobals); r.err == nil && m.globals[c.value].mutable {
			r.fail("a mutable global in a constant expression")
		}
	case opRefNull:
		r.refType()
	case opRefFunc:
		c.value = r.index("function", len(m.funcs))
	default:
		r.fail("instruction %#x in a constant expression", c.op)
	}
	c.raw = r.b[from:r.p]
	if r.byte() != opEnd {
		r.fail("a constant expression of more than one instruction")
	}
	return c
}

// offset reads the offset of an active segment.
func (m *module) offset(r *reader) constant {
	c := m.constant(r)
	if r.err == nil && c.op != opI32Const && (c.op != opGlobalGet || m.globals[c.value].typ != I32) {
		r.fail("a segment's offset is not an i32")
	}
	return c
}

func (m *module) element(r *reader) element {
	flags := r.u32()
	if flags > 7 {
		r.fail("element segment of form %#x", flags)
	}
	e := element{typ: FuncRef, exprs: flags&4 != 0}
	explicit := flags&2 != 0
	switch {
	case flags&1 == 0:
		if explicit {
			e.table = r.u32()
		}
		if r.err == nil && int(e.table) >= len(m.tables) {
			r.fail("table %d of %d", e.table, len(m.tables))
			return e
		}
		e.offset = m.offset(r)
	case explicit:
		e.mode = declared
	default:
		e.mode = passive
	}
	if flags&3 != 0 {
		if e.exprs {
			e.typ = r.refType()
		} else if kind := r.byte(); kind != 0 {
			r.fail("element kind %#x", kind)
		}
	}
	if e.mode == active && r.err == nil && m.tables[e.table].elem != e.typ {
		r.fail("elements and table are of different types")
	}
	for n := r.count("elements", maxTable); n > 0 && r.err == nil; n-- {
		if !e.exprs {
			e.items = append(e.items, item{opRefFunc, r.index("function", len(m.funcs))})
			continue
		}
		c := m.constant(r)
		switch {
		case r.err != nil:
		case c.op == opRefNull && ValueType(c.raw[1]) == e.typ:
		case c.op == opRefFunc && e.typ == FuncRef:
		case c.op == opGlobalGet && m.globals[c.value].typ == e.typ:
		default:
			r.fail("an element that is not a reference of the segment's type")
		}
		e.items = append(e.items, item{c.op, c.value})
	}
	return e
}

func (r *reader) body() body {
	size := r.u32()
	if size > maxBody {
		r.fail("a function of %d bytes; the limit is %d", size, maxBody)
	}
	section := r.base
	s := r.section(size)
	var b body
	total := uint64(0)
	for n := s.count("runs of locals", maxLocals); n > 0 && s.err == nil; n-- {
		run := localRun{s.u32(), s.valueType()}
		if total += uint64(run.n); total > maxLocals {
			s.fail("%d locals; the limit is %d", total, maxLocals)
		}
		b.locals = append(b.locals, run)
	}
	b.code = s.b[s.p:]
	b.base = s.base + s.p
	b.offset = uint32(b.base - section)
	if r.err == nil {
		r.err = s.err
	}
	return b
}

func (m *module) dataSegment(r *reader) dataSegment {
	d := dataSegment{}
	switch flag := r.u32(); flag {
	case 0, 2:
		if flag == 2 && r.u32() != 0 {
			r.fail("a memory other than the first")
		}
		if len(m.memories) == 0 {
			r.fail("a data segment without a memory")
		}
		d.offset = m.offset(r)
	case 1:
		d.mode = passive
	default:
		r.fail("data segment of form %#x", flag)
	}
	d.bytes = r.bytes(r.u32())
	return d
}
