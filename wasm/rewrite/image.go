package rewrite

import "strconv"

// unimageable tells why an instance's state is not all in its memory and in globals that the host can read and set.
// It is empty if it is.
func (m *module) unimageable(u *uses) string {
	switch {
	case m.importedMemories > 0:
		return "the memory is imported"
	case m.importedTables > 0:
		return "a table is imported"
	case m.importedGlobals > 0:
		return "a global is imported"
	case u.tableChange:
		return "the code changes a table"
	case u.memoryInit:
		return "the code uses passive data segments"
	}
	for _, g := range m.globals {
		if g.mutable && g.typ != I32 && g.typ != I64 && g.typ != F32 && g.typ != F64 {
			return "a mutable global is a reference or a vector"
		}
	}
	for _, d := range m.data {
		if d.mode == active && uint64(d.offset.value)+uint64(len(d.bytes)) > uint64(m.memories[0].min)<<16 {
			return "a data segment is beyond the end of the memory"
		}
	}
	for _, e := range m.elems {
		if e.mode == active && uint64(e.offset.value)+uint64(len(e.items)) > uint64(m.tables[e.table].min) {
			return "an element segment is beyond the end of its table"
		}
	}
	return ""
}

// image fills in what an imaged module leaves to the host.
func (w *writer) image() {
	m, out := w.m, w.out
	for _, d := range m.data {
		if d.mode == active && len(d.bytes) > 0 {
			out.Data = append(out.Data, Segment{d.offset.value, d.bytes})
		}
	}
	for i, g := range m.globals {
		if g.mutable {
			out.Globals = append(out.Globals, Global{Prefix + "g" + strconv.Itoa(i), g.typ, uint32(i)})
		}
	}
	out.Start = m.start >= 0
}

// Lay copies the data into a memory that is as large as the module's smallest, and was zero.
func (m *Module) Lay(memory []byte) {
	for _, d := range m.Data {
		copy(memory[d.Offset:], d.Bytes)
	}
}
