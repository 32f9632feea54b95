// Package protowire reads and writes the fields of protobuf's wire format. Generated code and what is written by hand do
// it by these functions, field by field; none of them knows a message. The Go SDK, which imports nothing of this module,
// has a copy of this file.
package protowire

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"
)

// Why bytes are no message, or not the one that is read. Nothing else is wrong with a message for this package.
var (
	ErrTruncated = errors.New("message ends too early")
	ErrVarint    = errors.New("number longer than 64 bits")
	ErrWireType  = errors.New("field of another wire type than declared")
	ErrTag       = errors.New("field with no valid number or wire type")
	ErrUTF8      = errors.New("a string is not UTF-8")
	ErrDepth     = errors.New("messages lie too deep in one another")
)

// MaxDepth is how deep messages lie in one another that may do so without end.
const MaxDepth = 200

// Wrap is err with the message and field where it was found.
func Wrap(where string, err error) error { return errors.New(where + ": " + err.Error()) }

// A Field is one field as it stands on the wire.
type Field struct {
	Tag  uint64 // number<<3 | wire type
	Num  uint64 // of a varint
	Data []byte // of any other wire type; it shares the message's memory
}

// Number is the field's number in its message.
func (f Field) Number() int { return int(f.Tag >> 3) }

// Next cuts the first field off b, which is not empty. Groups, which proto3 has not, are refused.
func Next(b []byte) (f Field, rest []byte, err error) {
	if f.Tag, b, err = Varint(b); err != nil {
		return f, nil, err
	}
	if n := f.Tag >> 3; n == 0 || n > 1<<29-1 {
		return f, nil, ErrTag
	}
	size := uint64(0)
	switch f.Tag & 7 {
	case 0:
		f.Num, b, err = Varint(b)
		return f, b, err
	case 1:
		size = 8
	case 2:
		if size, b, err = Varint(b); err != nil {
			return f, nil, err
		}
	case 5:
		size = 4
	default:
		return f, nil, ErrTag
	}
	if size > uint64(len(b)) {
		return f, nil, ErrTruncated
	}
	f.Data = b[:size:size]
	return f, b[size:], nil
}

// Varint cuts a number off b.
func Varint(b []byte) (x uint64, rest []byte, err error) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], nil // nearly all that there are
	}
	x, n := binary.Uvarint(b)
	switch {
	case n == 0:
		return 0, nil, ErrTruncated
	case n < 0:
		return 0, nil, ErrVarint
	}
	return x, b[n:], nil
}

// ParseWords reads an entry of a map of strings into m.
func ParseWords(m map[string]string, b []byte) error {
	k, v, err := entry(b)
	if err == nil {
		m[string(k)] = string(v)
	}
	return err
}

// ParseUTF8Words reads an entry of a map of strings into m and refuses what is not UTF-8.
func ParseUTF8Words(m map[string]string, b []byte) error {
	k, v, err := entry(b)
	if err == nil && !(utf8.Valid(k) && utf8.Valid(v)) {
		err = ErrUTF8
	}
	if err == nil {
		m[string(k)] = string(v)
	}
	return err
}

func entry(b []byte) (k, v []byte, err error) {
	var f Field
	for len(b) > 0 {
		if f, b, err = Next(b); err != nil {
			return nil, nil, err
		}
		switch f.Tag {
		case 1<<3 | 2:
			k = f.Data
		case 2<<3 | 2:
			v = f.Data
		default:
			if n := f.Number(); n == 1 || n == 2 {
				return nil, nil, ErrWireType
			}
		}
	}
	return k, v, nil
}

// AppendVarint appends a number, without its tag.
func AppendVarint(b []byte, x uint64) []byte {
	for x >= 0x80 {
		b = append(b, byte(x)|0x80)
		x >>= 7
	}
	return append(b, byte(x))
}

// AppendBool appends a bool, without its tag.
func AppendBool(b []byte, x bool) []byte {
	if x {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendString appends a string behind its length, without its tag.
func AppendString(b []byte, s string) []byte { return append(AppendVarint(b, uint64(len(s))), s...) }

// AppendBytes appends bytes behind their length, without their tag.
func AppendBytes(b, s []byte) []byte { return append(AppendVarint(b, uint64(len(s))), s...) }

// AppendWords appends an entry of a map of strings behind its length, without its tag.
func AppendWords(b []byte, k, v string) []byte {
	b = AppendVarint(b, uint64(2+sizeVarint(len(k))+len(k)+sizeVarint(len(v))+len(v)))
	b = AppendString(append(b, 1<<3|2), k)
	return AppendString(append(b, 2<<3|2), v)
}

func sizeVarint(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// AppendMessage appends what message appends behind its length, without its tag.
func AppendMessage(b []byte, message func([]byte) []byte) []byte {
	b = append(b, 0)
	return Shut(message(b), len(b))
}

// Open begins a message that is field number of another. What is appended from then on is its content, until Shut, which
// is told where it starts.
func Open(b []byte, number int) (_ []byte, start int) {
	b = append(AppendVarint(b, uint64(number)<<3|2), 0)
	return b, len(b)
}

// Shut ends a message that Open began. Its length is known only now: one byte was left for it, enough for what is shorter
// than 128 bytes; what is longer is moved.
func Shut(b []byte, start int) []byte {
	size := len(b) - start
	if size < 0x80 {
		b[start-1] = byte(size)
		return b
	}
	var head [binary.MaxVarintLen64]byte
	h := AppendVarint(head[:0], uint64(size))
	b = append(b, h[1:]...) // room
	copy(b[start-1+len(h):], b[start:start+size])
	copy(b[start-1:], h)
	return b
}

// AppendField appends a field of bytes, an empty one too: it is one of a list, or of those that tell whether they are set.
func AppendField[T ~string | ~[]byte](b []byte, number int, value T) []byte {
	b = AppendVarint(AppendVarint(b, uint64(number)<<3|2), uint64(len(value)))
	return append(b, value...)
}

// AppendText appends a field that is a string, unless it is empty.
func AppendText(b []byte, number int, s string) []byte {
	if s == "" {
		return b
	}
	return AppendField(b, number, s)
}

// AppendData appends a field of bytes, unless it is empty.
func AppendData(b []byte, number int, s []byte) []byte {
	if len(s) == 0 {
		return b
	}
	return AppendField(b, number, s)
}

// AppendNumber appends a field that is a number, unless it is 0.
func AppendNumber(b []byte, number int, x uint64) []byte {
	if x == 0 {
		return b
	}
	return AppendVarint(AppendVarint(b, uint64(number)<<3), x)
}

// Zigzag is x as sint32 and sint64 have it: small numbers are short, whatever their sign.
func Zigzag(x int64) uint64 { return uint64(x)<<1 ^ uint64(x>>63) }

// Unzigzag is the number that Zigzag made x of.
func Unzigzag(x uint64) int64 { return int64(x>>1) ^ -int64(x&1) }
