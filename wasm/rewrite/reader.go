package rewrite

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// A reader reads the binary format. After its first error it reads only zeros, so that a parser may look at err where
// it suits it; every loop over a count that was read is bounded by the bytes there are.
type reader struct {
	b    []byte
	p    int
	base int // offset of b in the module, for messages
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("offset %#x: "+format, append([]any{r.base + r.p}, args...)...)
		r.p = len(r.b)
	}
}

func (r *reader) more() bool { return r.p < len(r.b) }

func (r *reader) byte() byte {
	if r.p >= len(r.b) {
		r.fail("unexpected end")
		return 0
	}
	c := r.b[r.p]
	r.p++
	return c
}

func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)-r.p) {
		r.fail("unexpected end: %d bytes wanted, %d left", n, len(r.b)-r.p)
		return nil
	}
	r.p += int(n)
	return r.b[r.p-int(n) : r.p : r.p]
}

// u32 reads an unsigned LEB128 number of at most 32 bits.
func (r *reader) u32() uint32 {
	if r.p < len(r.b) && r.b[r.p] < 0x80 { // most are one byte
		r.p++
		return uint32(r.b[r.p-1])
	}
	var v uint32
	for shift := 0; ; shift += 7 {
		c := r.byte()
		if r.err != nil {
			return 0
		}
		if shift == 28 && c > 0x0f {
			r.fail("number does not fit in 32 bits")
			return 0
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

// signed reads a signed LEB128 number of at most bits bits.
func (r *reader) signed(bits int) int64 {
	var v int64
	for shift := 0; ; {
		c := r.byte()
		if r.err != nil {
			return 0
		}
		v |= int64(c&0x7f) << shift
		if left := bits - shift; left < 7 { // the last byte: what is beyond the sign must repeat it
			if rest := int8(c<<1) >> left; c >= 0x80 || rest != 0 && rest != -1 {
				r.fail("number does not fit in %d bits", bits)
				return 0
			}
		}
		shift += 7
		if c < 0x80 {
			if shift < 64 {
				v = v << (64 - shift) >> (64 - shift)
			}
			return v
		}
	}
}

// count reads the length of a vector whose elements take at least one byte each.
func (r *reader) count(what string, limit uint32) uint32 {
	n := r.u32()
	if n > limit {
		r.fail("%d %s; the limit is %d", n, what, limit)
		return 0
	}
	if uint64(n) > uint64(len(r.b)-r.p) {
		r.fail("%d %s in %d bytes", n, what, len(r.b)-r.p)
		return 0
	}
	return n
}

// index reads an index into a space of n things.
func (r *reader) index(what string, n int) uint32 {
	i := r.u32()
	if r.err == nil && int64(i) >= int64(n) {
		r.fail("%s %d of %d", what, i, n)
		return 0
	}
	return i
}

func (r *reader) name() string {
	b := r.bytes(r.u32())
	if !utf8.Valid(b) {
		r.fail("a name that is not UTF-8")
	}
	return string(b)
}

// section is a reader of the next n bytes.
func (r *reader) section(n uint32) reader {
	base := r.base + r.p
	b := r.bytes(n)
	return reader{b: b, base: base, err: r.err}
}

func appendU(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

func appendS(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func appendName(b []byte, s string) []byte {
	return append(appendU(b, uint64(len(s))), s...)
}
