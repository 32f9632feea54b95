package rewrite

// The instructions that are looked at or written. A prefixed one has its prefix in the high byte.
const (
	opUnreachable  = 0x00
	opNop          = 0x01
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opSelect       = 0x1b
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opI32Eqz       = 0x45
	opI32GtU       = 0x4b
	opI32LtU       = 0x49
	opI64LtS       = 0x53
	opI64GtU       = 0x56
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI32ShrU      = 0x76
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Shl       = 0x86
	opF32Abs       = 0x8b
	opF64Copysign  = 0xa6
	opI64ExtendU   = 0xad
	opRefNull      = 0xd0
	opRefIsNull    = 0xd1
	opRefFunc      = 0xd2
	opMisc         = 0xfc
	opSIMD         = 0xfd

	opMemoryInit = 0xfc08
	opDataDrop   = 0xfc09
	opMemoryCopy = 0xfc0a
	opMemoryFill = 0xfc0b
	opTableInit  = 0xfc0c
	opElemDrop   = 0xfc0d
	opTableCopy  = 0xfc0e
	opTableGrow  = 0xfc0f
	opTableSize  = 0xfc10
	opTableFill  = 0xfc11

	opV128Const = 0xfd0c

	blockEmpty = 0x40 // the block type of no parameters and no results
)

// What follows an opcode.
type immediate byte

const (
	immInvalid immediate = iota
	immNone
	immBlock    // block type
	immLabel    // label
	immTable    // vector of labels and one more
	immTypes    // vector of value types
	immFunc     // function
	immIndirect // type, table
	immLocal
	immGlobal
	immTableIndex
	immMemarg
	immZero // a reserved byte
	immI32
	immI64
	imm4  // bytes
	imm8  // bytes
	imm16 // bytes
	immRefType
	immLane
	immMemargLane
	immDataMem // data segment, reserved byte
	immData
	immMemMem // two reserved bytes
	immElemTable
	immElem
	immTableTable
)

// An opcode is what the walker knows of an instruction: its immediates and its weight, about how many machine
// instructions it takes. What an optimising compiler makes nothing of has no weight.
type opcode struct {
	imm    immediate
	weight uint8
}

// opcodes are the instructions: the plain ones by their byte, the others through misc and simd.
var opcodes, misc, simd = func() (plain, misc, simd [256]opcode) {
	fill := func(t *[256]opcode, from, to int, imm immediate, weight uint8) {
		for i := from; i <= to; i++ {
			t[i&0xff] = opcode{imm, weight}
		}
	}
	set := func(op int, imm immediate, weight uint8) {
		t := &plain
		switch op >> 8 {
		case opMisc:
			t = &misc
		case opSIMD:
			t = &simd
		}
		fill(t, op, op, imm, weight)
	}
	set(opUnreachable, immNone, 0)
	set(opNop, immNone, 0)
	set(opBlock, immBlock, 0)
	set(opLoop, immBlock, 0)
	set(opIf, immBlock, 1)
	set(opElse, immNone, 0)
	set(opEnd, immNone, 0)
	set(opBr, immLabel, 1)
	set(opBrIf, immLabel, 1)
	set(opBrTable, immTable, 4)
	set(opReturn, immNone, 1)
	set(opCall, immFunc, 12)
	set(opCallIndirect, immIndirect, 20)
	set(0x1a, immNone, 0) // drop
	set(opSelect, immNone, 2)
	set(0x1c, immTypes, 2) // select with a type
	fill(&plain, opLocalGet, opLocalTee, immLocal, 0)
	fill(&plain, opGlobalGet, opGlobalSet, immGlobal, 1)
	fill(&plain, opTableGet, opTableSet, immTableIndex, 4)
	fill(&plain, 0x28, 0x3e, immMemarg, 2) // loads and stores, their bounds check included
	set(opMemorySize, immZero, 2)
	set(opMemoryGrow, immZero, 50)
	set(opI32Const, immI32, 0)
	set(opI64Const, immI64, 0)
	set(opF32Const, imm4, 0)
	set(opF64Const, imm8, 0)
	fill(&plain, opI32Eqz, 0xc4, immNone, 1)
	for _, from := range []int{0x6d, 0x7f} { // integer division
		fill(&plain, from, from+3, immNone, 12)
	}
	fill(&plain, 0x8b, 0xa6, immNone, 2)               // floating point
	for _, op := range []int{0x91, 0x95, 0x9f, 0xa3} { // its square root and division
		set(op, immNone, 6)
	}
	set(opRefNull, immRefType, 0)
	set(opRefIsNull, immNone, 1)
	set(opRefFunc, immFunc, 10)

	fill(&misc, 0, 7, immNone, 3) // saturating truncation
	set(opMemoryInit, immDataMem, 30)
	set(opDataDrop, immData, 10)
	set(opMemoryCopy, immMemMem, 20)
	set(opMemoryFill, immZero, 30)
	set(opTableInit, immElemTable, 30)
	set(opElemDrop, immElem, 10)
	set(opTableCopy, immTableTable, 30)
	set(opTableGrow, immTableIndex, 100)
	set(opTableSize, immTableIndex, 2)
	set(opTableFill, immTableIndex, 30)

	fill(&simd, 0, 255, immNone, 2)
	fill(&simd, 0, 11, immMemarg, 2) // loads and the store
	fill(&simd, 92, 93, immMemarg, 2)
	fill(&simd, 84, 91, immMemargLane, 3)
	fill(&simd, 12, 13, imm16, 2) // v128.const and i8x16.shuffle
	fill(&simd, 21, 34, immLane, 2)
	return
}()

// An instr is an instruction as it was read. The walker keeps one, not many.
type instr struct {
	op       uint16
	weight   uint8
	from, to int    // where it stands in the code
	a, b     uint32 // its indices in the order they stand; the value of i32.const; b: parameters of a block
}

// A scope is what the indices of a function's code may refer to.
type scope struct {
	m      *module
	locals int // parameters and locals
}

// instr reads an instruction. Labels are looked at by who keeps count of the blocks; see labels.
func (r *reader) instr(s *scope, in *instr) {
	in.from = r.p
	b := r.byte()
	in.op = uint16(b)
	o := opcodes[b]
	if b == opMisc || b == opSIMD {
		sub := r.u32()
		if sub > 0xff {
			r.fail("instruction %#x %#x", b, sub)
		}
		in.op = in.op<<8 | uint16(sub&0xff)
		if o = simd[sub&0xff]; b == opMisc {
			o = misc[sub&0xff]
		}
	}
	in.weight = o.weight
	in.a, in.b = 0, 0
	m := s.m
	switch o.imm {
	case immNone:
	case immBlock:
		in.b = r.blockType(m)
	case immLabel:
		in.a = r.u32()
	case immTable:
		in.a = r.count("labels", maxLabels)
		for n := in.a; n > 0 && r.err == nil; n-- {
			r.u32()
		}
		r.u32()
	case immTypes:
		r.valueTypes("types", 1)
	case immFunc:
		in.a = r.index("function", len(m.funcs))
	case immIndirect:
		in.a = r.index("type", len(m.types))
		if in.b = r.index("table", len(m.tables)); r.err == nil && m.tables[in.b].elem != FuncRef {
			r.fail("an indirect call through a table that is not of functions")
		}
	case immLocal:
		in.a = r.index("local", s.locals)
	case immGlobal:
		in.a = r.index("global", len(m.globals))
		if in.op == opGlobalSet && r.err == nil && !m.globals[in.a].mutable {
			r.fail("global %d is not mutable", in.a)
		}
	case immTableIndex:
		in.a = r.index("table", len(m.tables))
	case immMemarg:
		r.memarg(m)
	case immMemargLane:
		r.memarg(m)
		r.byte()
	case immZero:
		r.memoryIndex(m)
	case immI32:
		in.a = uint32(r.signed(32))
	case immI64:
		r.signed(64)
	case imm4:
		r.bytes(4)
	case imm8:
		r.bytes(8)
	case imm16:
		r.bytes(16)
	case immRefType:
		r.refType()
	case immLane:
		r.byte()
	case immDataMem:
		in.a = r.index("data segment", int(m.dataCount))
		r.memoryIndex(m)
	case immData:
		in.a = r.index("data segment", int(m.dataCount))
	case immMemMem:
		r.memoryIndex(m)
		r.memoryIndex(m)
	case immElemTable:
		in.a = r.index("element segment", len(m.elems))
		in.b = r.index("table", len(m.tables))
	case immElem:
		in.a = r.index("element segment", len(m.elems))
	case immTableTable:
		in.a = r.index("table", len(m.tables))
		in.b = r.index("table", len(m.tables))
	default:
		r.fail("instruction %#x", in.op)
	}
	in.to = r.p
}

// blockType tells how many parameters the block has.
func (r *reader) blockType(m *module) uint32 {
	t := r.signed(33)
	switch {
	case t >= 0 && t < int64(len(m.types)):
		return uint32(len(m.types[t].params))
	case t < 0 && t >= -0x40:
		switch ValueType(t & 0x7f) {
		case blockEmpty, I32, I64, F32, F64, V128, FuncRef, ExternRef:
			return 0
		}
	}
	r.fail("block type %d", t)
	return 0
}

func (r *reader) memarg(m *module) {
	r.u32() // alignment
	r.u32() // offset
	r.needMemory(m)
}

func (r *reader) memoryIndex(m *module) {
	if r.byte() != 0 {
		r.fail("a memory other than the first")
	}
	r.needMemory(m)
}

func (r *reader) needMemory(m *module) {
	if len(m.memories) == 0 {
		r.fail("no memory")
	}
}

// labels calls do with each label of a branch that was read.
func labels(in *instr, code []byte, do func(label uint32)) {
	if in.op != opBrTable {
		do(in.a)
		return
	}
	r := reader{b: code, p: in.from + 1}
	for n := r.u32() + 1; n > 0; n-- {
		do(r.u32())
	}
}
