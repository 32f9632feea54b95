package rewrite_test

import "encoding/binary"

// What the tests assemble modules of.

const (
	i32 = 0x7f
	i64 = 0x7e
	f64 = 0x7c
)

func uleb(v uint64) []byte { return binary.AppendUvarint(nil, v) }

func sleb(v int64) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func cat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// vec is a vector of items; sized is bytes behind their length.
func vec(items ...[]byte) []byte { return append(uleb(uint64(len(items))), cat(items...)...) }
func sized(b []byte) []byte      { return append(uleb(uint64(len(b))), b...) }

func section(id byte, items ...[]byte) []byte { return append([]byte{id}, sized(vec(items...))...) }

func moduleOf(sections ...[]byte) []byte {
	return append([]byte("\x00asm\x01\x00\x00\x00"), cat(sections...)...)
}

func functype(params, results string) []byte {
	return cat([]byte{0x60}, sized([]byte(params)), sized([]byte(results)))
}

func export(name string, kind byte, index uint64) []byte {
	return cat(sized([]byte(name)), []byte{kind}, uleb(index))
}

// fn is a function body: its locals are runs, and its code has no end yet.
func fn(locals [][]byte, code ...byte) []byte {
	return sized(cat(vec(locals...), code, []byte{0x0b}))
}

func i32c(v int32) []byte { return append([]byte{0x41}, sleb(int64(v))...) }

// one is a module with a memory of two pages and one exported function.
func one(params, results string, locals [][]byte, code ...byte) []byte {
	return moduleOf(section(1, functype(params, results)), section(3, []byte{0}), section(5, []byte{0, 2}),
		section(7, export("run", 0, 0), export("memory", 2, 0)), section(10, fn(locals, code...)))
}
