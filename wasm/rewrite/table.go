package rewrite

// Table removal. A table that nothing changes after instantiation is known when the module is rewritten. An indirect
// call becomes a call of a dispatcher, a function made for its type and table, which takes the index behind the
// parameters and calls by br_table what is there. The host then has no table to fill for each instance: for a large
// guest that is most of what starting it costs.

const (
	maxDispatch = 10_000  // functions that one dispatcher leads to
	maxTargets  = 1 << 20 // br_table entries of all dispatchers
)

// A dispatch is an indirect call's type and table.
type dispatch struct {
	typ   string // key of the function type: equal types are the same
	table uint32
}

// tableContents works out what is in the tables; a slot that is empty is -1. The reason why it cannot be said, or why
// the tables have to stay, is not empty.
func (m *module) tableContents(o Options, u *uses) (tables [][]int32, reason string) {
	switch {
	case m.importedTables > 0:
		return nil, "a table is imported"
	case u.tableChange:
		return nil, "the code changes a table"
	case u.tableRead, len(u.refFunc) > 0:
		return nil, "the code reads a table or takes a function's reference"
	}
	for _, e := range m.exports {
		if e.Kind == KindTable && !o.Closed {
			return nil, "a table is exported"
		}
	}
	for _, t := range m.tables {
		slots := make([]int32, t.min)
		for i := range slots {
			slots[i] = none
		}
		tables = append(tables, slots)
	}
	for _, e := range m.elems {
		if e.mode != active {
			continue // nothing can use it
		}
		if e.offset.op != opI32Const {
			return nil, "an element segment's offset is not a constant"
		}
		slots := tables[e.table]
		if uint64(e.offset.value)+uint64(len(e.items)) > uint64(len(slots)) {
			return nil, "an element segment is beyond the end of its table"
		}
		for i, it := range e.items {
			at := &slots[int(e.offset.value)+i]
			switch it.op {
			case opRefFunc:
				*at = int32(it.index)
			case opRefNull:
				*at = none
			default:
				return nil, "an element is taken from a global"
			}
		}
	}
	return tables, m.dispatchable(tables, u)
}

// dispatchable tells why the dispatchers would be too large.
func (m *module) dispatchable(tables [][]int32, u *uses) string {
	entries := 0
	for table, slots := range tables {
		entries += len(slots)
		seen := map[string]bool{}
		for t := range u.asked {
			key := m.types[t].key()
			if seen[key] {
				continue
			}
			seen[key] = true
			lo, hi, callees := m.callees(slots, key)
			if len(callees) > maxDispatch {
				return "a table has too many functions of one type"
			}
			if entries += hi - lo + len(callees)*len(m.types[t].params); entries > maxTargets {
				return "the tables are too large"
			}
		}
		_ = table
	}
	return ""
}

// callees are the functions of a type in a table, each once, and the range of slots in which they are.
func (m *module) callees(slots []int32, key string) (lo, hi int, callees []int32) {
	seen := map[int32]bool{}
	for i, f := range slots {
		if f == none || m.types[m.funcs[f]].key() != key {
			continue
		}
		if len(callees) == 0 {
			lo = i
		}
		hi = i + 1
		if !seen[f] {
			seen[f] = true
			callees = append(callees, f)
		}
	}
	return lo, hi, callees
}

// dispatcher is the function that stands for indirect calls of a type through a table.
func (w *writer) dispatcher(typ, table uint32) uint32 {
	t := w.m.types[typ]
	d := dispatch{t.key(), table}
	if f, ok := w.dispatchers[d]; ok {
		return f
	}
	slots := w.contents[table]
	lo, hi, callees := w.m.callees(slots, d.typ)
	block := map[int32]int{}
	for i, f := range callees {
		block[f] = i
	}
	other := len(callees) // the block of everything else

	var c code
	index := uint32(len(t.params))
	c.op(0)
	if len(callees) > 0 {
		for range other + 1 {
			c.op(opBlock, blockEmpty)
		}
		c.local(opLocalGet, index)
		if lo > 0 {
			c.i32(uint32(lo))
			c.op(opI32Sub)
		}
		c.op(opBrTable)
		c.u(uint64(hi - lo))
		for _, f := range slots[lo:hi] {
			to, ok := block[f]
			if !ok {
				to = other
			}
			c.u(uint64(to))
		}
		c.u(uint64(other))
		for _, f := range callees {
			c.op(opEnd)
			for p := range t.params {
				c.local(opLocalGet, uint32(p))
			}
			c.call(w.moved(uint32(f)))
			c.op(opReturn)
		}
		c.op(opEnd)
	}
	c.local(opLocalGet, index)
	c.call(w.classifier(table))
	c.op(opUnreachable, opEnd)

	f := w.append(funcType{append(append([]byte{}, t.params...), byte(I32)), t.results}, c.b)
	w.dispatchers[d] = f
	return f
}

// classifier is the function that traps for an index: it tells an empty slot, or none, from one of another type.
func (w *writer) classifier(table uint32) uint32 {
	if f, ok := w.classifiers[table]; ok {
		return f
	}
	slots := w.contents[table]
	var c code
	c.op(0, opBlock, blockEmpty, opBlock, blockEmpty)
	c.local(opLocalGet, 0)
	c.op(opBrTable)
	c.u(uint64(len(slots)))
	for _, f := range slots {
		if f == none {
			c.u(0)
		} else {
			c.u(1)
		}
	}
	c.u(0)
	for _, t := range []Trap{UndefinedElement, TypeMismatch} {
		c.op(opEnd)
		c.i32(uint32(t))
		c.call(w.trap)
		c.op(opUnreachable)
	}
	c.op(opEnd)
	f := w.append(funcType{params: []byte{byte(I32)}}, c.b)
	w.classifiers[table] = f
	return f
}
