package rewrite

// Function tells which function of the module as it was has an index in the rewritten module, and false if none has:
// then it was added here.
func (m *Module) Function(now uint32) (was uint32, ok bool) {
	switch {
	case now < m.imports:
		return now, true
	case now < m.imports+m.inserted || now >= m.funcs+m.inserted:
		return 0, false
	}
	return now - m.inserted, true
}

// FunctionNames reads the function names of the name section, by their index in the module as it was. A broken name
// section is no error: what can be read is there. Names that are not UTF-8 are left out.
func (m *Module) FunctionNames() map[uint32]string {
	names := map[uint32]string{}
	for _, c := range m.Custom {
		if c.Name == "name" {
			functionNames(c.Data, m.funcs, func(f uint32, name string) { names[f] = name })
		}
	}
	return names
}

// functionNames goes through the subsection of function names.
func functionNames(section []byte, funcs uint32, do func(f uint32, name string)) {
	r := reader{b: section}
	for r.more() && r.err == nil {
		id := r.byte()
		s := r.section(r.u32())
		if id != 1 || r.err != nil {
			continue
		}
		for n := s.count("names", maxFuncs+maxImports); n > 0; n-- {
			f, name := s.u32(), s.name()
			if s.err != nil {
				return
			}
			if f < funcs {
				do(f, name)
			}
		}
	}
}

// nameSection is a name section of the functions, as they are numbered now, or nil.
func (w *writer) nameSection() []byte {
	var b []byte
	n, last := uint64(0), int64(-1)
	for _, c := range w.m.customs {
		if c.Name != "name" || n > 0 {
			continue
		}
		functionNames(c.Data, uint32(len(w.m.funcs)), func(f uint32, name string) {
			if int64(f) > last { // they have to ascend
				last = int64(f)
				b = appendName(appendU(b, uint64(w.moved(f))), name)
				n++
			}
		})
	}
	if n == 0 {
		return nil
	}
	b = append(appendU(nil, n), b...)
	section := append(appendName(nil, "name"), 1)
	return append(appendU(section, uint64(len(b))), b...)
}
