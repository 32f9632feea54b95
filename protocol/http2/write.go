package http2

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// beginHead begins a block of fields in out, and tells where its frame will stand.
func (c *conn) beginHead() (start int) {
	b := c.room()
	start = len(b)
	b = append(b, make([]byte, frameHeader)...)
	if c.resize {
		b = append(b, 0x20) // the dynamic table is to have no room: it is not used
	}
	c.out = b
	return start
}

// endHead frames the block that was begun at start.
func (c *conn) endHead(start int, id uint32, end bool) {
	c.resize = false
	b := c.out
	length := len(b) - start - frameHeader
	flags := byte(0)
	if end {
		flags = flagEndStream
	}
	if length <= maxFrame {
		appendFrame(b[:start], length, frameHeaders, flags|flagEndHeaders, id)
		c.wants()
		return
	}
	block := slices.Clone(b[start+frameHeader:])
	b = b[:start]
	for kind := frameHeaders; len(block) > 0; kind, flags = frameContinuation, 0 {
		n := min(len(block), maxFrame)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		b = append(appendFrame(b, n, kind, flags, id), block[:n]...)
		block = block[n:]
	}
	c.out = b
	c.wants()
}

// appendIndexed adds a field that is whole in the static table.
func appendIndexed(b []byte, index byte) []byte { return append(b, 0x80|index) }

// appendNamed adds a field whose name is in the static table at an index below 15.
func appendNamed(b []byte, index byte, value string) []byte {
	return appendString(append(b, index), value)
}

func appendStatus(b []byte, status int) []byte {
	for i := byte(8); i <= 14; i++ {
		if s := static[i].Value; int(s[0]-'0')*100+int(s[1]-'0')*10+int(s[2]-'0') == status {
			return appendIndexed(b, i)
		}
	}
	b = append(b, 8, 3)
	return append(b, byte('0'+status/100), byte('0'+status/10%10), byte('0'+status%10))
}

func appendMethod(b []byte, method string) []byte {
	switch method {
	case http.MethodGet:
		return appendIndexed(b, 2)
	case http.MethodPost:
		return appendIndexed(b, 3)
	}
	return appendNamed(b, 2, method)
}

func appendLength(b []byte, n int64) []byte {
	var digits [20]byte
	return appendString(appendInt(b, 0, 4, 28), view(strconv.AppendInt(digits[:0], n, 10)))
}

// appendRegular adds a field of a head as HTTP/2 sends it: its name in lower case. What speaks of one connection, or has
// its own place, is left out. It is false, and adds nothing, where the field holds what none may: strings that were not
// parsed here may hold anything.
func appendRegular(b []byte, name, value string, trailer bool) ([]byte, bool) {
	most := byte(lowerByte)
	for i := range len(name) {
		c := class[name[i]]
		if c&(lowerByte|lettered) == 0 {
			return b, false
		}
		most &= c
	}
	if name == "" {
		return b, false
	}
	if most == 0 {
		var lower [64]byte
		to := lower[:0]
		for i := range len(name) {
			c := name[i]
			if class[c]&lettered != 0 {
				c |= 0x20
			}
			to = append(to, c)
		}
		name = view(to)
	}
	switch len(name) {
	case 2:
		if name == "te" && (trailer || value != "trailers") {
			return b, true
		}
	case 4:
		if name == "host" {
			return b, true
		}
	case 7:
		if name == "upgrade" {
			return b, true
		}
	case 10, 16, 17, 18, 19:
		if protocol.HopByHop(name) {
			return b, true
		}
	case 14:
		if name == "content-length" {
			return b, true
		}
	}
	if !valid(value) {
		for value != "" && (value[0] == ' ' || value[0] == '\t') {
			value = value[1:]
		}
		for value != "" && (value[len(value)-1] == ' ' || value[len(value)-1] == '\t') {
			value = value[:len(value)-1]
		}
		if !valid(value) {
			return b, false
		}
	}
	return appendField(b, name, value), true
}

// errField is a field that no message may have.
var errField = &loam.Error{Code: loam.Internal, Op: "http2", Err: errorText("a field holds what no field may"), Hint: "header names are tokens, and values hold no line ends"}

type errorText string

func (e errorText) Error() string { return string(e) }
