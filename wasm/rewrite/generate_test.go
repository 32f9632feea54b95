package rewrite_test

import "math/rand/v2"

// A generator writes modules that are valid and end: a global counts what they do and makes them trap when it is
// enough. They use all that the rewriting touches.
type generator struct {
	*rand.Rand
	code   []byte
	f      int // the function that is being written; it may call those behind it
	funcs  []signature
	locals []byte
	labels [][]byte // types of the values that a branch to each open block takes, the outermost first
	depth  int
}

type signature struct{ params, results []byte }

var valueTypes = []byte{i32, i64, f64}

const (
	tableSize  = 8
	stepGlobal = 0 // counts down
)

// generate makes a module with functions f0, f1, …, a memory, a table, globals and data.
func generate(r *rand.Rand) []byte {
	g := &generator{Rand: r}
	types := func(most int) (t []byte) {
		for range g.IntN(most + 1) {
			t = append(t, valueTypes[g.IntN(len(valueTypes))])
		}
		return t
	}
	var sigs, indexes, exports, bodies [][]byte
	for i := range 2 + g.IntN(4) {
		s := signature{types(3), types(2)}
		g.funcs = append(g.funcs, s)
		sigs = append(sigs, functype(string(s.params), string(s.results)))
		indexes = append(indexes, uleb(uint64(i)))
		exports = append(exports, export("f"+string(rune('0'+i)), 0, uint64(i)))
	}
	for i, s := range g.funcs {
		g.f, g.code, g.labels, g.depth = i, nil, [][]byte{s.results}, 0
		extra := types(4)
		g.locals = append(append([]byte{}, s.params...), extra...)
		var runs [][]byte
		for _, t := range extra {
			runs = append(runs, []byte{1, t})
		}
		if g.IntN(3) > 0 { // some functions are short
			g.step()
			g.statements(4)
		}
		g.values(s.results)
		bodies = append(bodies, fn(runs, g.code...))
	}
	exports = append(exports, export("memory", 2, 0), export("steps", 3, stepGlobal), export("g1", 3, 1), export("g2", 3, 2), export("g3", 3, 3))
	var items [][]byte
	for range g.IntN(tableSize) {
		items = append(items, uleb(uint64(g.IntN(len(g.funcs)))))
	}
	return moduleOf(
		section(1, sigs...), section(3, indexes...), section(4, []byte{0x70, 0, tableSize}), section(5, []byte{1, 1, 3}),
		section(6, cat([]byte{i32, 1}, i32c(400), []byte{0x0b}), []byte{i32, 1, 0x41, 7, 0x0b}, []byte{i64, 1, 0x42, 9, 0x0b},
			[]byte{f64, 1, 0x44, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x0b}),
		section(7, exports...),
		section(9, cat([]byte{0}, i32c(1), []byte{0x0b}, vec(items...))),
		section(10, bodies...),
		section(11, cat([]byte{0}, i32c(100), []byte{0x0b}, sized([]byte("some data that is there from the beginning"))), cat([]byte{0}, i32c(65000), []byte{0x0b}, sized([]byte("more")))),
	)
}

func (g *generator) op(b ...byte)    { g.code = append(g.code, b...) }
func (g *generator) index(n int)     { g.op(uleb(uint64(n))...) }
func (g *generator) const32(v int32) { g.op(i32c(v)...) }

// step makes the module trap when it has done enough.
func (g *generator) step() {
	g.op(0x23, stepGlobal)
	g.const32(1)
	g.op(0x6b, 0x24, stepGlobal, 0x23, stepGlobal, 0x45, 0x04, 0x40, 0x00, 0x0b)
}

func (g *generator) statements(n int) {
	for range 1 + g.IntN(n) {
		g.statement()
	}
}

// block writes an open block's inside and its end. Loops take no values, and other blocks may give some.
func (g *generator) block(label []byte, inside func()) {
	g.labels = append(g.labels, label)
	g.depth++
	inside()
	g.depth--
	g.labels = g.labels[:len(g.labels)-1]
}

func (g *generator) statement() {
	if g.depth > 4 || len(g.code) > 3000 {
		g.set()
		return
	}
	switch g.IntN(16) {
	case 0, 1, 2, 3:
		g.set()
	case 4: // store
		g.address()
		t := valueTypes[g.IntN(3)]
		g.value(t)
		g.op(map[byte]byte{i32: 0x36, i64: 0x37, f64: 0x39}[t], 0)
		g.index(g.IntN(100))
	case 5, 6: // if
		g.value(i32)
		g.op(0x04, 0x40)
		g.block(nil, func() {
			g.statements(3)
			if g.IntN(2) == 0 {
				g.op(0x05)
				g.statements(3)
			}
		})
		g.op(0x0b)
	case 7: // if with a value
		t := valueTypes[g.IntN(3)]
		g.value(i32)
		g.op(0x04, t)
		g.block([]byte{t}, func() {
			g.statements(2)
			g.value(t)
			g.op(0x05)
			g.value(t)
		})
		g.op(0x0b, 0x1a)
	case 8: // block
		g.op(0x02, 0x40)
		g.block(nil, func() { g.statements(4) })
		g.op(0x0b)
	case 9, 10: // loop
		g.op(0x03, 0x40)
		g.block(nil, func() {
			g.step()
			if g.IntN(2) == 0 {
				g.statements(3)
			} else {
				g.set()
			}
			g.value(i32)
			g.op(0x0d, 0)
		})
		g.op(0x0b)
	case 11: // br_if or br
		to := g.IntN(len(g.labels))
		label := g.labels[len(g.labels)-1-to]
		g.step() // it may go back
		g.value(i32)
		g.op(0x04, 0x40)
		g.values(label)
		g.op(0x0c)
		g.index(to + 1)
		g.op(0x0b)
	case 12: // br_table over labels without values
		var to []int
		for i := range g.labels {
			if len(g.labels[len(g.labels)-1-i]) == 0 {
				to = append(to, i)
			}
		}
		if len(to) == 0 {
			return
		}
		g.step()
		g.op(0x02, 0x40)
		g.value(i32)
		g.op(0x0e)
		n := g.IntN(4)
		g.index(n)
		for range n {
			g.index(to[g.IntN(len(to))] + 1)
		}
		g.index(0)
		g.op(0x0b)
	case 13: // return
		g.value(i32)
		g.op(0x04, 0x40)
		g.values(g.funcs[g.f].results)
		g.op(0x0f, 0x0b)
	case 14: // bulk
		g.bulkNumber(1 << 16)
		g.bulkNumber(1 << 16)
		g.bulkNumber(1 << 17)
		if g.IntN(2) == 0 {
			g.op(0xfc, 11, 0)
		} else {
			g.op(0xfc, 10, 0, 0)
		}
	case 15: // a call
		g.call()
	}
}

func (g *generator) bulkNumber(most int) {
	if g.IntN(4) == 0 {
		g.value(i32)
		return
	}
	g.const32(int32(g.IntN(most)))
	if g.IntN(2) == 0 {
		g.const32(int32(g.IntN(16)))
		g.op(0x76)
	}
}

// call calls a function behind this one, or any through the table, and drops the results.
func (g *generator) call() {
	if g.IntN(2) == 0 && g.f+1 < len(g.funcs) {
		to := g.f + 1 + g.IntN(len(g.funcs)-g.f-1)
		g.values(g.funcs[to].params)
		g.op(0x10)
		g.index(to)
		g.drop(len(g.funcs[to].results))
		return
	}
	g.step() // it may be recursion
	typ := g.IntN(len(g.funcs))
	g.values(g.funcs[typ].params)
	g.const32(int32(g.IntN(tableSize + 1)))
	g.op(0x11)
	g.index(typ)
	g.op(0)
	g.drop(len(g.funcs[typ].results))
}

func (g *generator) drop(n int) {
	for range n {
		g.op(0x1a)
	}
}

// set sets a local or a global.
func (g *generator) set() {
	if n := len(g.locals); n > 0 && g.IntN(4) > 0 {
		i := g.IntN(n)
		g.value(g.locals[i])
		g.op(0x21)
		g.index(i)
		return
	}
	i := g.IntN(3)
	g.value(valueTypes[i])
	g.op(0x24)
	g.index(i + 1)
}

func (g *generator) values(types []byte) {
	for _, t := range types {
		g.value(t)
	}
}

func (g *generator) address() {
	g.value(i32)
	if g.IntN(8) > 0 {
		g.const32(0xffff)
		g.op(0x71)
	}
}

func (g *generator) value(t byte) {
	g.depth++
	defer func() { g.depth-- }()
	n := g.IntN(10)
	if g.depth > 6 {
		n = g.IntN(4)
	}
	switch n {
	case 0, 1:
		switch t {
		case i32:
			g.const32(int32(g.Uint32()) >> g.IntN(32))
		case i64:
			g.op(0x42)
			g.op(sleb(int64(g.Uint64()) >> g.IntN(64))...)
		default:
			g.op(0x44, 0, 0, 0, 0, 0, 0, byte(g.IntN(256)), 0x40)
		}
	case 2:
		for i := range g.locals {
			if g.locals[i] == t {
				g.op(0x20)
				g.index(i)
				return
			}
		}
		fallthrough
	case 3:
		g.op(0x23, map[byte]byte{i32: 1, i64: 2, f64: 3}[t])
	case 4: // load
		g.address()
		g.op(map[byte]byte{i32: 0x28, i64: 0x29, f64: 0x2b}[t], 0)
		g.index(g.IntN(100))
	case 5: // conversion
		switch t {
		case i32:
			g.value(i64)
			g.op(0xa7)
		case i64:
			g.value(i32)
			g.op(0xad)
		default:
			g.value(i32)
			g.op(0xb7)
		}
	case 6: // select
		g.value(t)
		g.value(t)
		g.value(i32)
		g.op(0x1b)
	case 7:
		if t == i32 {
			if g.IntN(3) == 0 {
				g.const32(int32(g.IntN(2)))
				g.op(0x40, 0) // memory.grow
			} else {
				g.op(0x3f, 0)
			}
			return
		}
		fallthrough
	default:
		g.value(t)
		g.value(t)
		switch t {
		case i32:
			g.op([]byte{0x6a, 0x6b, 0x6c, 0x6d, 0x71, 0x73, 0x74, 0x46, 0x48}[g.IntN(9)])
		case i64:
			g.op([]byte{0x7c, 0x7d, 0x7e, 0x7f, 0x83, 0x85}[g.IntN(6)])
		default:
			g.op([]byte{0xa0, 0xa1, 0xa2, 0xa3, 0xa4}[g.IntN(5)])
		}
	}
}
