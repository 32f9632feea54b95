package http2

import (
	"bytes"
	"errors"
	"unsafe"

	"golang.org/x/net/http2/hpack"

	"github.com/loam-run/loam"
)

// static is the static table of HPACK (RFC 7541, appendix A); index 0 is not used.
var static = [62]loam.Field{
	1: {Name: ":authority"}, 2: {Name: ":method", Value: "GET"}, 3: {Name: ":method", Value: "POST"},
	4: {Name: ":path", Value: "/"}, 5: {Name: ":path", Value: "/index.html"}, 6: {Name: ":scheme", Value: "http"}, 7: {Name: ":scheme", Value: "https"},
	8: {Name: ":status", Value: "200"}, 9: {Name: ":status", Value: "204"}, 10: {Name: ":status", Value: "206"}, 11: {Name: ":status", Value: "304"},
	12: {Name: ":status", Value: "400"}, 13: {Name: ":status", Value: "404"}, 14: {Name: ":status", Value: "500"},
	15: {Name: "accept-charset"}, 16: {Name: "accept-encoding", Value: "gzip, deflate"}, 17: {Name: "accept-language"}, 18: {Name: "accept-ranges"},
	19: {Name: "accept"}, 20: {Name: "access-control-allow-origin"}, 21: {Name: "age"}, 22: {Name: "allow"}, 23: {Name: "authorization"},
	24: {Name: "cache-control"}, 25: {Name: "content-disposition"}, 26: {Name: "content-encoding"}, 27: {Name: "content-language"},
	28: {Name: "content-length"}, 29: {Name: "content-location"}, 30: {Name: "content-range"}, 31: {Name: "content-type"}, 32: {Name: "cookie"},
	33: {Name: "date"}, 34: {Name: "etag"}, 35: {Name: "expect"}, 36: {Name: "expires"}, 37: {Name: "from"}, 38: {Name: "host"},
	39: {Name: "if-match"}, 40: {Name: "if-modified-since"}, 41: {Name: "if-none-match"}, 42: {Name: "if-range"}, 43: {Name: "if-unmodified-since"},
	44: {Name: "last-modified"}, 45: {Name: "link"}, 46: {Name: "location"}, 47: {Name: "max-forwards"}, 48: {Name: "proxy-authenticate"},
	49: {Name: "proxy-authorization"}, 50: {Name: "range"}, 51: {Name: "referer"}, 52: {Name: "refresh"}, 53: {Name: "retry-after"}, 54: {Name: "server"},
	55: {Name: "set-cookie"}, 56: {Name: "strict-transport-security"}, 57: {Name: "transfer-encoding"}, 58: {Name: "user-agent"}, 59: {Name: "vary"},
	60: {Name: "via"}, 61: {Name: "www-authenticate"},
}

// staticName is the index of a name that is in the static table and often sent, 0 of others.
func staticName(name string) byte {
	switch name {
	case "accept-encoding":
		return 16
	case "accept-language":
		return 17
	case "accept-ranges":
		return 18
	case "accept":
		return 19
	case "access-control-allow-origin":
		return 20
	case "age":
		return 21
	case "authorization":
		return 23
	case "cache-control":
		return 24
	case "content-disposition":
		return 25
	case "content-encoding":
		return 26
	case "content-length":
		return 28
	case "content-range":
		return 30
	case "content-type":
		return 31
	case "cookie":
		return 32
	case "date":
		return 33
	case "etag":
		return 34
	case "expires":
		return 36
	case "if-modified-since":
		return 40
	case "if-none-match":
		return 41
	case "last-modified":
		return 44
	case "link":
		return 45
	case "location":
		return 46
	case "range":
		return 50
	case "referer":
		return 51
	case "retry-after":
		return 53
	case "server":
		return 54
	case "set-cookie":
		return 55
	case "strict-transport-security":
		return 56
	case "user-agent":
		return 58
	case "vary":
		return 59
	case "via":
		return 60
	}
	return 0
}

// view is the string of b's bytes where they stand: it changes when they do.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// appendInt adds an integer in HPACK's form (RFC 7541, section 5.1), whose first byte has bits of its own above prefix.
func appendInt(b []byte, first byte, prefix uint, n int) []byte {
	most := 1<<prefix - 1
	if n < most {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// appendString adds a string as it is: Huffman's code would save some bytes and cost more time than the bytes do.
func appendString(b []byte, s string) []byte {
	return append(appendInt(b, 0, 7, len(s)), s...)
}

// appendField adds a field in lower case that neither uses nor changes the dynamic table, which has no room anyway.
func appendField(b []byte, name, value string) []byte {
	if i := staticName(name); i != 0 {
		b = appendInt(b, 0, 4, int(i))
	} else {
		b = append(b, 0)
		b = appendString(b, name)
	}
	return appendString(b, value)
}

// errStateful is a block that uses or changes the dynamic table: what it means depends on the blocks before it.
var errStateful = errors.New("the block uses the dynamic table")

var errCompression = errors.New("the block is not HPACK")

// A blockReader reads a block of header fields that leaves the dynamic table alone. Strings stand in the block, but for
// those in Huffman's code, which are added to arena.
type blockReader struct {
	p     []byte
	arena *bytes.Buffer
	memo  *memo // of words in Huffman's code; nil: none
}

// next is the next field. known tells that its name, and its value where that is not empty in the table, came from the
// static table.
func (r *blockReader) next() (f loam.Field, known bool, err error) {
	b := r.p[0]
	switch {
	case b&0x80 != 0:
		i, err := r.int(7)
		switch {
		case err != nil:
			return f, false, err
		case i == 0:
			return f, false, errCompression
		case i >= len(static):
			return f, false, errStateful
		}
		return static[i], true, nil
	case b&0xf0 != 0 && b&0xf0 != 0x10: // an insertion into the table, or a change of its size
		return f, false, errStateful
	}
	i, err := r.int(4)
	switch {
	case err != nil:
		return f, false, err
	case i >= len(static):
		return f, false, errStateful
	case i > 0:
		f.Name, known = static[i].Name, true
	default:
		if f.Name, err = r.string(); err != nil {
			return f, false, err
		}
	}
	f.Value, err = r.string()
	return f, known, err
}

func (r *blockReader) int(prefix uint) (int, error) {
	most := 1<<prefix - 1
	n := int(r.p[0]) & most
	r.p = r.p[1:]
	if n < most {
		return n, nil
	}
	for shift := 0; shift < 28; shift += 7 {
		if len(r.p) == 0 {
			return 0, errCompression
		}
		b := r.p[0]
		r.p = r.p[1:]
		n += int(b&0x7f) << shift
		if b&0x80 == 0 {
			return n, nil
		}
	}
	return 0, errCompression
}

func (r *blockReader) string() (string, error) {
	if len(r.p) == 0 {
		return "", errCompression
	}
	huffman := r.p[0]&0x80 != 0
	n, err := r.int(7)
	if err != nil || n > len(r.p) {
		return "", errCompression
	}
	s := r.p[:n]
	r.p = r.p[n:]
	if !huffman {
		return view(s), nil
	}
	key := uint64(0)
	if r.memo != nil && n >= shortWord {
		key = r.memo.key(s, 0)
		if w := r.memo.word(key, s); w != nil {
			return w.plain, nil
		}
	}
	from := r.arena.Len()
	if _, err := hpack.HuffmanDecode(r.arena, s); err != nil {
		return "", errCompression
	}
	plain := view(r.arena.Bytes()[from:])
	if r.memo != nil && n >= shortWord {
		r.memo.learn(key, s, plain)
	}
	return plain, nil
}
