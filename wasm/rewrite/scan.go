package rewrite

import (
	"errors"
	"fmt"
)

// A flow follows the blocks of a function's code, and divides the code into segments: a segment is code of which all
// is run if its beginning is, save for traps. Code that is run exactly when an earlier segment is belongs to that
// segment, though a loop or an if stands between.
type flow struct {
	frames []frame
	cur    int32 // the segment of the next instruction; none: it cannot be reached
	count  int32 // segments begun

	loops   int // open
	deepest int // most blocks that were open at a time
	labels  int // of branch tables
}

// effort is about how much time, in units of 20 ns, the engine needs to compile a function beyond what is in
// proportion to its length: that grows with the square of some things.
func (f *flow) effort() int { return f.deepest*f.deepest + f.labels*f.labels/100 }

const none = -1

// A frame is a block that is open.
type frame struct {
	op       uint16
	targeted bool  // something branches to it
	fell     bool  // the first arm of an if runs to its end
	calls    bool  // it calls a metered function
	floats   bool  // it computes with floating point
	seg      int32 // the segment in front of it, which is run before anything in it
	head     int32 // the first segment of a loop
	body     int32 // where the code inside it begins
	out      int32 // the outermost frame something in it branches to
}

// reset begins a function. Its first segment is 0.
func (f *flow) reset() {
	f.frames = append(f.frames[:0], frame{op: opBlock, seg: 0})
	f.cur, f.count = 0, 1
	f.loops, f.deepest, f.labels = 0, 0, 0
}

// step goes over an instruction that was read and tells whether a new segment begins behind it, and which segment is
// run before that.
func (f *flow) step(r *reader, in *instr) (begins bool, before int32) {
	top := &f.frames[len(f.frames)-1]
	switch in.op {
	case opBlock, opLoop, opIf:
		if len(f.frames) > maxNesting {
			r.fail("blocks nested deeper than %d", maxNesting)
			return false, none
		}
		seg := f.cur
		f.frames = append(f.frames, frame{op: in.op, seg: seg, head: f.count, body: int32(in.to), out: int32(len(f.frames))})
		f.deepest = max(f.deepest, len(f.frames))
		if in.op == opLoop {
			if f.loops++; f.loops > maxLoops {
				r.fail("loops nested deeper than %d", maxLoops)
			}
		}
		if in.op != opBlock {
			return f.begin(seg)
		}
	case opElse:
		if top.op != opIf {
			r.fail("else without if")
			return false, none
		}
		top.op, top.fell = opElse, f.cur >= 0
		return f.begin(top.seg)
	case opEnd:
		return f.end()
	case opBr, opBrIf, opBrTable:
		reached := f.cur >= 0
		if in.op == opBrTable {
			f.labels += int(in.a)
		}
		labels(in, r.b, func(label uint32) {
			at := len(f.frames) - 1 - int(label)
			if label >= uint32(len(f.frames)) {
				r.fail("label %d of %d", label, len(f.frames))
			} else if reached {
				f.frames[at].targeted = true
				top.out = min(top.out, int32(at))
			}
		})
		if in.op == opBrIf {
			return f.begin(f.cur)
		}
		f.cur = none
	case opReturn:
		if f.cur >= 0 {
			top.out = 0
		}
		f.cur = none
	case opUnreachable:
		f.cur = none
	}
	return false, none
}

func (f *flow) begin(before int32) (bool, int32) {
	if before < 0 {
		f.cur = none
		return false, none
	}
	f.cur = f.count
	f.count++
	return true, before
}

func (f *flow) end() (bool, int32) {
	at := len(f.frames) - 1
	top := f.frames[at]
	f.frames = f.frames[:at]
	if top.op == opLoop {
		f.loops--
	}
	if at == 0 {
		return false, none
	}
	up := &f.frames[at-1]
	escapes := int(top.out) < at
	if escapes {
		up.out = min(up.out, top.out)
	}
	up.calls = up.calls || top.calls
	up.floats = up.floats || top.floats
	reached := f.cur >= 0 || top.fell || top.op == opIf || top.op != opLoop && top.targeted
	switch {
	case top.seg < 0 || !reached:
		f.cur = none
	case escapes:
		return f.begin(top.seg)
	default:
		f.cur = top.seg
	}
	return false, none
}

// done tells whether the function's last block was ended.
func (f *flow) done() bool { return len(f.frames) == 0 }

// A function is what is known of a function before anything is written.
type function struct {
	locals  int    // with the parameters
	words   uint32 // of its locals, 8 bytes each
	instrs  uint32
	weight  uint64   // of all its instructions
	calls   []uint32 // the module's own functions it calls, by their place in the code
	imports bool     // it calls an import
	runs    bool     // it has a loop or an operation that takes as long as its operand says
	asks    bool     // it calls indirectly

	recursive bool   // it may be on the stack more than once
	free      bool   // so short that its callers pay for it
	cost      uint32 // what they pay
}

// uses is what a module's code does that bears on imaging and on its tables.
type uses struct {
	memoryInit  bool
	tableRead   bool // an instruction on tables other than an indirect call
	tableChange bool
	refFunc     map[uint32]bool // functions whose reference is taken
	asked       map[uint32]bool // types of indirect calls
}

// scan walks through all code once, checks it, and notes what is needed to know before code can be written.
func (m *module) scan() ([]function, *uses, error) {
	fns := make([]function, len(m.code))
	u := &uses{refFunc: map[uint32]bool{}, asked: map[uint32]bool{}}
	var fl flow
	effort := 0
	for i := range m.code {
		b, fn := &m.code[i], &fns[i]
		t := m.types[m.funcs[m.importedFuncs+i]]
		fn.locals, fn.words = len(t.params), uint32(len(t.params))
		for _, run := range b.locals {
			fn.locals += int(run.n)
			fn.words += run.n
			if run.typ == V128 {
				fn.words += run.n
			}
		}
		s := scope{m, fn.locals}
		r := reader{b: b.code, base: b.base}
		fl.reset()
		var in instr
		for r.err == nil && r.more() && !fl.done() {
			r.instr(&s, &in)
			fl.step(&r, &in)
			fn.instrs++
			fn.weight += uint64(in.weight)
			m.note(u, fn, &in)
		}
		if r.err == nil && r.more() {
			r.fail("code behind the end of the function")
		}
		if r.err == nil && !fl.done() {
			r.fail("the function does not end")
		}
		if r.err != nil {
			return nil, nil, fmt.Errorf("function %d: %w", m.importedFuncs+i, r.err)
		}
		if effort += fl.effort(); effort > maxEffort {
			return nil, nil, errors.New("the functions together have too many nested blocks or too long branch tables")
		}
	}
	declared := m.declared()
	for f := range u.refFunc {
		if !declared[f] {
			return nil, nil, fmt.Errorf("the reference of function %d is taken, which is not declared", f)
		}
	}
	m.callGraph(fns, u)
	return fns, u, nil
}

func (m *module) note(u *uses, fn *function, in *instr) {
	switch in.op {
	case opLoop:
		fn.runs = true
	case opCall:
		if in.a < uint32(m.importedFuncs) {
			fn.imports = true
		} else {
			fn.calls = append(fn.calls, in.a-uint32(m.importedFuncs))
		}
	case opCallIndirect:
		fn.asks = true
		u.asked[in.a] = true
	case opRefFunc:
		u.refFunc[in.a] = true
	case opMemoryInit, opDataDrop:
		fn.runs, u.memoryInit = true, true
	case opMemoryCopy, opMemoryFill, opMemoryGrow:
		fn.runs = true
	case opTableGet, opTableSize:
		u.tableRead = true
	case opTableSet, opTableInit, opElemDrop, opTableCopy, opTableGrow, opTableFill:
		fn.runs, u.tableRead, u.tableChange = true, true, true
	}
}

// freeCost is up to which weight a function without loops is paid for by its callers.
const freeCost = 48

// callGraph finds the functions that can be on the stack more than once, by Tarjan's algorithm for strongly connected
// components, and those that are free. A function called indirectly may be any whose reference was taken, and the
// table, which leads to all of those, is the last node of the graph.
func (m *module) callGraph(fns []function, u *uses) {
	table := len(fns)
	referenced := m.referenced(u)
	callee := func(v, i int) (int, bool) { // the i-th of v
		if v == table {
			if i < len(referenced) {
				return int(referenced[i]), true
			}
			return 0, false
		}
		if fn := &fns[v]; i < len(fn.calls) {
			return int(fn.calls[i]), true
		} else if i == len(fn.calls) && fn.asks {
			return table, true
		}
		return 0, false
	}
	type node struct {
		index, low   int32 // index: in order of discovery, from 1
		onPath, self bool
	}
	type visit struct{ v, i int }
	var (
		nodes = make([]node, table+1)
		path  []int // what belongs to components that are not complete
		stack []visit
		found int32
	)
	enter := func(v int) {
		found++
		nodes[v] = node{index: found, low: found, onPath: true}
		path = append(path, v)
		stack = append(stack, visit{v: v})
	}
	leave := func(v int) {
		at := len(path) - 1
		for path[at] != v {
			at--
		}
		for _, w := range path[at:] {
			nodes[w].onPath = false
			if w != table {
				fns[w].recursive = nodes[w].self || len(path)-at > 1
			}
		}
		path = path[:at]
		if v != table {
			price(fns, v)
		}
	}
	for root := range fns {
		if nodes[root].index != 0 {
			continue
		}
		enter(root)
		for len(stack) > 0 {
			t := &stack[len(stack)-1]
			n := &nodes[t.v]
			if w, ok := callee(t.v, t.i); ok {
				t.i++
				switch {
				case w == t.v:
					n.self = true
				case nodes[w].index == 0:
					enter(w)
				case nodes[w].onPath:
					n.low = min(n.low, nodes[w].index)
				}
				continue
			}
			v := t.v
			stack = stack[:len(stack)-1]
			if len(stack) > 0 {
				up := &nodes[stack[len(stack)-1].v]
				up.low = min(up.low, n.low)
			}
			if n.low == n.index {
				leave(v)
			}
		}
	}
}

// price decides whether a function is free. Its callees have been priced, unless it is recursive.
func price(fns []function, v int) {
	fn := &fns[v]
	if fn.recursive || fn.runs || fn.asks || fn.imports || fn.weight > freeCost {
		return
	}
	cost := uint32(fn.weight)
	for _, c := range fn.calls {
		if !fns[c].free {
			return
		}
		cost += fns[c].cost
	}
	if cost <= freeCost {
		fn.free, fn.cost = true, cost
	}
}

// referenced are the functions that an indirect call may reach, by their place in the code.
func (m *module) referenced(u *uses) []uint32 {
	refs := m.stored()
	shared := m.importedTables > 0 // another module may put what is exported into the table
	for _, e := range m.exports {
		shared = shared || e.Kind == KindTable
	}
	if shared || len(u.refFunc) > 0 {
		refs = m.declared()
	}
	var out []uint32
	for f := range refs {
		if f >= uint32(m.importedFuncs) {
			out = append(out, f-uint32(m.importedFuncs))
		}
	}
	return out
}

// stored are the functions in element segments and globals.
func (m *module) stored() map[uint32]bool {
	refs := map[uint32]bool{}
	for _, e := range m.elems {
		for _, it := range e.items {
			if it.op == opRefFunc {
				refs[it.index] = true
			}
		}
	}
	for _, g := range m.globals {
		if g.init.op == opRefFunc {
			refs[g.init.value] = true
		}
	}
	return refs
}

// declared are the functions whose reference the code may take: those that are stored, and those that are exported.
func (m *module) declared() map[uint32]bool {
	refs := m.stored()
	for _, e := range m.exports {
		if e.Kind == KindFunction {
			refs[e.Index] = true
		}
	}
	return refs
}
