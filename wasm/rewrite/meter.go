package rewrite

// Metering. The code is divided into segments (scan.go). A segment that something may run any number of times — the
// beginning of a function, the body of a loop — takes its weight from the fuel when it begins and calls the host if
// that is used up. Any other takes its weight only if that is worth an instruction; else the segment in front pays.
//
// The fuel is in a global. A function with a loop that calls nothing keeps it in a local meanwhile, which the engine
// can keep in a register, and brings the global up to date around calls. A function that has no loop and is short is
// paid for by its callers.
//
// What lives across a call the engine keeps in memory, in every turn of a loop in which the call stands, though it be
// hardly ever made. That hurts where there is much to keep and little else to do: in loops that compute with floating
// point, and in very short ones. So these, if they call nothing, are wrapped in a second loop, in which the host is
// called; and the body of a very short one is written twice:
//
//	loop                                    ;; entered again where the fuel was not enough
//	  if fuel < cost { fuel = yield(fuel) }
//	  loop                                  ;; the guest's
//	    br_if 1 (fuel < cost)
//	    fuel -= cost
//	    ...

const (
	// worth is the weight from which on a segment takes its fuel itself. The segment in front pays at most that much
	// too much for those that are not worth it.
	worth = 16

	bulkStep  = 64 << 10 // bytes that are filled or copied between two looks at the fuel
	bulkShift = 2        // 4 bytes are a unit of work: 16 GB/s, as a processor's caches give; pages that are new cost more

	maxTwice = 96 // bytes of the body of a loop that is written twice

	maxCost = 1 << 15 // that must be there before the body of a loop; what it takes beyond is owed

	smallBulk = 4096 // bytes up to which a bulk operation of known length is a matter of weight
)

// A segment is what is known of a stretch of code when its function was walked through once.
type segment struct {
	cost   uint32
	extra  uint32 // how much of cost was taken over from others
	before int32
	forced bool
	leaf   bool // it is the beginning of a loop that gets a second one round it
	looks  bool // a function it calls looks at the fuel: it need not, and if it is short, it need not pay
	again  int  // where the br_if stands that ends the body of a small loop, which is written twice; or 0
}

// A meter writes one function.
type meter struct {
	*writer
	fn      *function
	s       scope
	body    *body
	results []byte

	segs   []segment
	cached bool   // fuel is in a local
	bulk   bool   // a length is needed in a local
	looped bool   // it comes to a loop that looks at the fuel before it calls anything
	units  int64  // of depth that a call takes, if it is recursive
	wraps  bool   // the code is in a block, so that there is one way out
	fuelAt uint32 // local
	lenAt  uint32 // local
	copied int    // how far the code was copied
	at     []int  // for each open block, how many are round it in the new code
	nested int    // how many blocks are open in the new code
}

// function appends the body of a function.
func (w *writer) function(i int) {
	m := w.m
	fn := &w.fns[i]
	t := m.types[m.funcs[m.importedFuncs+i]]
	me := meter{writer: w, fn: fn, s: scope{m, fn.locals}, body: &m.code[i], results: t.results, segs: w.segs[:0]}
	me.plan()
	me.write()
	w.segs = me.segs
}

// plan divides the code into segments and decides which of them take their fuel themselves.
func (me *meter) plan() {
	fl := &me.flow
	fl.reset()
	me.segs = append(me.segs, segment{forced: !me.fn.free})
	r := reader{b: me.body.code}
	var in, prev instr
	called, first := false, int32(0) // the first segment of a loop that is always come to
	for !fl.done() {
		prev = in
		r.instr(&me.s, &in)
		top := &fl.frames[len(fl.frames)-1]
		if in.op == opEnd && top.op == opLoop && !top.calls && !me.fn.free {
			me.cached = true
		}
		top.floats = top.floats || floats(in.op)
		if fl.cur >= 0 {
			seg := &me.segs[fl.cur]
			seg.cost += uint32(in.weight)
			switch in.op {
			case opCall:
				if me.metered(in.a) {
					called, top.calls = true, true
					seg.looks = seg.looks || in.a >= uint32(me.m.importedFuncs)
				} else if in.a >= uint32(me.m.importedFuncs) {
					seg.cost += me.fns[in.a-uint32(me.m.importedFuncs)].cost
				}
			case opCallIndirect:
				called, top.calls = true, true
			default:
				if n, known := length(&in, &prev); known {
					seg.cost += n >> bulkShift
				}
			}
		}
		if in.op == opEnd && top.op == opLoop && top.seg >= 0 {
			head := &me.segs[top.head]
			if head.leaf = head.leaf && !top.calls; head.leaf {
				me.repeat(top, in.from)
				head.leaf = head.again > 0 || top.floats
			}
		}
		if _, known := length(&in, &prev); !known {
			me.bulk = true
		}
		if begins, before := fl.step(&r, &in); begins {
			loop := in.op == opLoop
			me.segs = append(me.segs, segment{before: before, forced: loop, leaf: loop && in.b == 0})
			if loop && before == 0 && !called {
				first = fl.cur
			}
		}
	}
	me.looped = first > 0 && !me.segs[first].looks
	if me.fn.recursive {
		me.units = int64(4 + me.fn.words/2 + me.fn.instrs/16)
		me.segs[0].cost += uint32(me.units / 2)
	}
	if me.fn.free {
		return
	}
	for i := len(me.segs) - 1; i > 0; i-- {
		seg := &me.segs[i]
		if up := &me.segs[seg.before]; !seg.forced && seg.cost+up.extra <= worth {
			up.cost += seg.cost
			up.extra += seg.cost
			seg.cost = 0
		} else if seg.forced && seg.looks && seg.cost <= worth {
			seg.cost = 0
		} else if seg.forced {
			seg.cost = max(seg.cost, 1)
		}
	}
}

// floats tells whether an instruction computes with floating point or vectors.
func floats(op uint16) bool {
	return op >= opF32Abs && op <= opF64Copysign || op>>8 == opSIMD
}

// repeat decides whether the body of a leaf loop is written twice, so that half as many looks at the fuel are needed.
// It is if it is small and nothing but plain instructions and, at its end, the branch back.
func (me *meter) repeat(loop *frame, end int) {
	body := int(loop.body)
	if end-body > maxTwice || me.body.code[body-1] != blockEmpty {
		return
	}
	r := reader{b: me.body.code[:end], p: body}
	var in instr
	cost := uint32(0)
	for r.more() {
		r.instr(&me.s, &in)
		cost += uint32(in.weight)
		switch in.op {
		case opBlock, opLoop, opIf, opBr, opBrTable, opReturn, opUnreachable, opCall, opCallIndirect, opRefFunc,
			opMemoryCopy, opMemoryFill, opMemoryInit, opMemoryGrow, opTableInit, opTableCopy, opTableGrow, opTableFill:
			return
		case opBrIf:
			if r.more() {
				return
			}
		}
	}
	if in.op != opBrIf || in.a != 0 {
		return
	}
	me.segs[loop.head].again = in.from
	me.segs[loop.head].cost = 2 * cost
}

// length tells the length that a bulk operation is given by a constant, if that is small. It is known, and zero, for
// all other instructions.
func length(in, prev *instr) (n uint32, known bool) {
	switch in.op {
	case opMemoryCopy, opMemoryFill, opMemoryInit:
		if prev.op == opI32Const && prev.a <= smallBulk {
			return prev.a, true
		}
		return 0, false
	case opMemoryGrow, opTableInit, opTableCopy, opTableGrow, opTableFill:
		return 0, false
	}
	return 0, true
}

// metered tells whether a function of the module as it was looks at the fuel, or may.
func (w *writer) metered(f uint32) bool {
	return f < uint32(w.m.importedFuncs) || !w.fns[f-uint32(w.m.importedFuncs)].free
}

// write appends the function's locals and code.
func (me *meter) write() {
	b := me.body
	me.wraps = !me.fn.free && (me.cached || me.units > 0)
	more := uint64(0)
	if !me.fn.free {
		me.fuelAt = uint32(me.fn.locals)
		more++
	}
	if me.bulk {
		me.lenAt = uint32(me.fn.locals) + 1
		more++
	}
	me.u(uint64(len(b.locals)) + more)
	for _, run := range b.locals {
		me.u(uint64(run.n))
		me.op(byte(run.typ))
	}
	if !me.fn.free {
		me.op(1, byte(I64))
	}
	if me.bulk {
		me.op(1, byte(I32))
	}
	if !me.fn.free {
		me.enter()
	}
	if me.wraps {
		me.op(opBlock)
		me.blockType(me.results)
	}

	fl := &me.flow
	fl.reset()
	me.at, me.nested = append(me.at, 0), 1
	r := reader{b: b.code}
	var in, prev instr
	for {
		prev = in
		r.instr(&me.s, &in)
		if in.op == opEnd && len(fl.frames) == 1 {
			break
		}
		me.instruction(&in, &prev)
		if begins, _ := fl.step(&r, &in); begins {
			if seg := &me.segs[fl.count-1]; seg.cost > 0 && !me.fn.free {
				me.copy(in.to)
				me.begin(seg)
			}
		}
	}
	me.copy(in.from)
	if me.wraps {
		me.op(opEnd)
		me.leave()
	}
	me.origin(in.from, 1)
	me.op(opEnd)
}

// copy brings over the code up to a place as it stands.
func (me *meter) copy(to int) {
	if to > me.copied {
		me.origin(me.copied, to-me.copied)
		me.b = append(me.b, me.body.code[me.copied:to]...)
		me.copied = to
	}
}

// replace prepares for another form of an instruction.
func (me *meter) replace(in *instr) {
	me.copy(in.from)
	me.origin(in.from, 1)
	me.copied = in.to
}

// instruction writes one that takes another form than it had, or leaves it to be copied.
func (me *meter) instruction(in, prev *instr) {
	switch in.op {
	case opLoop:
		if me.flow.cur >= 0 && me.segs[me.flow.count].leaf {
			me.outer(in, &me.segs[me.flow.count])
		}
		me.at = append(me.at, me.nested)
		me.nested++
	case opBlock, opIf:
		me.at = append(me.at, me.nested)
		me.nested++
	case opEnd:
		top := &me.flow.frames[len(me.flow.frames)-1]
		me.nested--
		me.at = me.at[:len(me.at)-1]
		if top.op == opLoop && top.seg >= 0 && me.segs[top.head].leaf {
			me.copy(in.to)
			me.op(opEnd)
			me.nested--
			if me.segs[top.head].again > 0 {
				me.op(opEnd)
				me.nested--
			}
		}
	case opBr, opBrIf, opBrTable:
		me.branch(in)
	case opCall:
		metered := me.metered(in.a)
		me.replace(in)
		me.spill(metered)
		me.call(me.moved(in.a))
		me.reload(metered)
	case opCallIndirect:
		me.replace(in)
		me.spill(true)
		if me.out.TableRemoved {
			me.call(me.dispatcher(in.a, in.b))
		} else {
			me.b = append(me.b, me.body.code[in.from:in.to]...)
		}
		me.reload(true)
	case opRefFunc:
		me.replace(in)
		me.op(opRefFunc)
		me.u(uint64(me.moved(in.a)))
	case opReturn:
		if me.wraps {
			me.replace(in)
			me.op(opBr)
			me.u(uint64(me.nested - 1))
		}
	default:
		if _, known := length(in, prev); !known {
			me.replace(in)
			me.bulkOperation(in)
		}
	}
}

// outer begins the loop round a leaf loop, and the block round both that the first of two bodies leaves it by.
func (me *meter) outer(in *instr, seg *segment) {
	me.copy(in.from)
	if seg.again > 0 {
		me.op(opBlock, blockEmpty)
		me.nested++
	}
	me.b = append(me.b, me.body.code[in.from:in.to]...)
	me.nested++
	me.short(seg.cost)
	me.op(opIf, blockEmpty)
	me.local(opLocalGet, me.fuelAt)
	me.call(me.yield)
	me.local(opLocalSet, me.fuelAt)
	me.op(opEnd)
}

// first writes the first of two bodies of a loop. It leaves where the second would branch back no more.
func (me *meter) first(again int) {
	from := me.copied
	me.copy(again)
	me.op(opI32Eqz, opBrIf, 2)
	me.copied = from
}

// short writes whether the fuel, in its local, is less than a cost, or than what must be there for one.
func (me *meter) short(cost uint32) {
	me.local(opLocalGet, me.fuelAt)
	me.i64(int64(min(cost, maxCost)) << depthBits)
	me.op(opI64LtS)
}

// begin takes what a segment costs.
func (me *meter) begin(seg *segment) {
	if seg.leaf {
		me.short(seg.cost)
		me.op(opBrIf, 1)
	}
	me.take(int64(seg.cost)<<depthBits, seg.forced && !seg.leaf && !seg.looks, false)
	if seg.again > 0 {
		me.first(seg.again)
	}
}

// branch brings the labels of a branch up to date, which have more blocks round them now.
func (me *meter) branch(in *instr) {
	if me.nested == len(me.at) {
		return
	}
	me.replace(in)
	me.op(byte(in.op))
	if in.op == opBrTable {
		me.u(uint64(in.a))
	}
	labels(in, me.body.code, func(label uint32) {
		me.u(uint64(me.nested - 1 - me.at[len(me.at)-1-int(label)]))
	})
}

// bulkOperation writes an instruction that takes as long as the number on top of the stack says. Long fills and copies
// are done step by step by functions of their own.
func (me *meter) bulkOperation(in *instr) {
	as := func() { me.b = append(me.b, me.body.code[in.from:in.to]...) }
	me.local(opLocalTee, me.lenAt)
	switch in.op {
	case opMemoryFill, opMemoryCopy:
		me.local(opLocalGet, me.lenAt)
		me.i32(bulkStep)
		me.op(opI32GtU, opIf)
		me.s33(me.typeIndex(bulkType))
		me.spill(true)
		me.call(me.stepper(in.op))
		me.reload(true)
		me.op(opElse)
		me.takeLength(bulkShift)
		as()
		me.op(opEnd)
	case opMemoryGrow: // a page is 256 units; no more are asked for than there can be
		me.local(opLocalGet, me.lenAt)
		me.i32(maxPages)
		me.local(opLocalGet, me.lenAt)
		me.i32(maxPages)
		me.op(opI32LtU, opSelect)
		me.local(opLocalSet, me.lenAt)
		me.takeLength(-8)
		as()
	case opMemoryInit:
		me.takeLength(bulkShift)
		as()
	default: // tables: two elements
		me.takeLength(1)
		as()
	}
}

// fuel reads the fuel, from where this function has it.
func (me *meter) fuel() {
	if me.cached {
		me.local(opLocalGet, me.fuelAt)
	} else {
		me.global(opGlobalGet, me.fuelGlobal)
	}
}

// setFuel sets it to what is on the stack and, if there is reason to look at it, calls the host if it is used up.
func (me *meter) setFuel(look bool) {
	switch {
	case !look && me.cached:
		me.local(opLocalSet, me.fuelAt)
		return
	case !look:
		me.global(opGlobalSet, me.fuelGlobal)
		return
	}
	me.local(opLocalTee, me.fuelAt)
	if !me.cached {
		me.global(opGlobalSet, me.fuelGlobal)
		me.local(opLocalGet, me.fuelAt)
	}
	me.i64(0)
	me.op(opI64LtS, opIf, blockEmpty)
	me.local(opLocalGet, me.fuelAt)
	me.call(me.yield)
	me.setFuel(false)
	me.op(opEnd)
}

// take takes an amount from the fuel.
func (me *meter) take(amount int64, look, entry bool) {
	if entry {
		me.global(opGlobalGet, me.fuelGlobal)
	} else {
		me.fuel()
	}
	me.i64(amount)
	me.op(opI64Sub)
	me.setFuel(look)
}

// takeLength takes the length in its local, shifted right, or left.
func (me *meter) takeLength(shift int) {
	me.fuel()
	me.lengthUnits(me.lenAt, shift)
	me.op(opI64Sub)
	me.setFuel(true)
}

// enter takes what the first segment costs, and makes the stack deeper in the same operation.
func (me *meter) enter() {
	me.take(int64(me.segs[0].cost)<<depthBits-me.units, !me.looped, true)
}

// leave undoes what enter did to the depth and brings the global up to date.
func (me *meter) leave() {
	me.fuel()
	if me.units > 0 {
		me.i64(me.units)
		me.op(opI64Sub)
	}
	me.global(opGlobalSet, me.fuelGlobal)
}

// spill brings the global up to date before a call of something that is metered; reload takes it back.
func (me *meter) spill(metered bool) {
	if me.cached && metered {
		me.local(opLocalGet, me.fuelAt)
		me.global(opGlobalSet, me.fuelGlobal)
	}
}

func (me *meter) reload(metered bool) {
	if me.cached && metered {
		me.global(opGlobalGet, me.fuelGlobal)
		me.local(opLocalSet, me.fuelAt)
	}
}

// bulkType is the type of memory.fill, memory.copy and the functions that do them step by step.
var bulkType = funcType{params: []byte{byte(I32), byte(I32), byte(I32)}}

// stepper is the function that does a long memory.fill or memory.copy. Like the instruction, it does nothing if not
// all can be done.
func (w *writer) stepper(op uint16) uint32 {
	if f, ok := w.steppers[op]; ok {
		return f
	}
	const to, from, n, step, fuel = 0, 1, 2, 3, 4 // for memory.fill, from is the value
	var c code
	c.op(2, 1, byte(I32), 1, byte(I64))
	for i, at := range []uint32{to, from} {
		if i == 1 && op == opMemoryFill {
			break
		}
		c.local(opLocalGet, at)
		c.op(opI64ExtendU)
		c.local(opLocalGet, n)
		c.op(opI64ExtendU, opI64Add, opMemorySize, 0, opI64ExtendU)
		c.i64(16)
		c.op(opI64Shl, opI64GtU, opIf, blockEmpty)
		c.bulk(op, to, from, n)
		c.op(opEnd)
	}
	// steps writes the loop, forwards or backwards.
	steps := func(back bool) {
		c.op(opLoop, blockEmpty)
		c.local(opLocalGet, n)
		c.i32(bulkStep)
		c.local(opLocalGet, n)
		c.i32(bulkStep)
		c.op(opI32LtU, opSelect)
		c.local(opLocalSet, step)
		c.global(opGlobalGet, w.fuelGlobal)
		c.lengthUnits(step, bulkShift)
		c.op(opI64Sub)
		c.local(opLocalTee, fuel)
		c.global(opGlobalSet, w.fuelGlobal)
		c.local(opLocalGet, fuel)
		c.i64(0)
		c.op(opI64LtS, opIf, blockEmpty)
		c.local(opLocalGet, fuel)
		c.call(w.yield)
		c.global(opGlobalSet, w.fuelGlobal)
		c.op(opEnd)
		if back {
			c.add(n, step, opI32Sub)
			c.local(opLocalGet, to)
			c.local(opLocalGet, n)
			c.op(opI32Add)
			c.local(opLocalGet, from)
			c.local(opLocalGet, n)
			c.op(opI32Add)
			c.local(opLocalGet, step)
			c.op(opMisc, byte(op&0xff), 0, 0)
		} else {
			c.bulk(op, to, from, step)
			c.add(to, step, opI32Add)
			if op == opMemoryCopy {
				c.add(from, step, opI32Add)
			}
			c.add(n, step, opI32Sub)
		}
		c.local(opLocalGet, n)
		c.op(opBrIf, 0, opEnd)
	}
	if op == opMemoryFill {
		steps(false)
	} else {
		c.local(opLocalGet, from)
		c.local(opLocalGet, to)
		c.op(opI32LtU, opIf, blockEmpty)
		steps(true)
		c.op(opElse)
		steps(false)
		c.op(opEnd)
	}
	c.op(opEnd)
	f := w.append(bulkType, c.b)
	w.steppers[op] = f
	return f
}

// bulk writes memory.fill or memory.copy on locals.
func (c *code) bulk(op uint16, to, from, n uint32) {
	c.local(opLocalGet, to)
	c.local(opLocalGet, from)
	c.local(opLocalGet, n)
	c.op(opMisc, byte(op&0xff), 0)
	if op == opMemoryCopy {
		c.op(0)
	}
}

// add adds a local to another, or subtracts it.
func (c *code) add(to, by uint32, op byte) {
	c.local(opLocalGet, to)
	c.local(opLocalGet, by)
	c.op(op)
	c.local(opLocalSet, to)
}

// lengthUnits writes the fuel that the length in a local stands for: shifted right by shift, or left.
func (c *code) lengthUnits(at uint32, shift int) {
	c.local(opLocalGet, at)
	left := depthBits
	if shift > 0 {
		c.i32(uint32(shift))
		c.op(opI32ShrU)
	} else {
		left -= shift
	}
	c.op(opI64ExtendU)
	c.i64(int64(left))
	c.op(opI64Shl)
}

// A code is a function's body while it is written.
type code struct{ b []byte }

func (c *code) op(bytes ...byte) { c.b = append(c.b, bytes...) }
func (c *code) u(v uint64)       { c.b = appendU(c.b, v) }
func (c *code) s33(v uint32)     { c.b = appendS(c.b, int64(v)) }

func (c *code) local(op byte, i uint32) {
	c.op(op)
	c.u(uint64(i))
}

func (c *code) global(op byte, i uint32) { c.local(op, i) }

func (c *code) call(f uint32) { c.local(opCall, f) }

func (c *code) i32(v uint32) {
	c.op(opI32Const)
	c.b = appendS(c.b, int64(int32(v)))
}

func (c *code) i64(v int64) {
	c.op(opI64Const)
	c.b = appendS(c.b, v)
}
