package proxywasm

import (
	"cmp"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
)

// Maps of header fields (proxy_map_type_t).
const (
	mapRequestHeaders = iota
	mapRequestTrailers
	mapResponseHeaders
	mapResponseTrailers
	mapGRPCInitialMetadata
	mapGRPCTrailingMetadata
	mapCallHeaders
	mapCallTrailers
	numMaps
)

// What a map may hold.
const (
	maxFields = 1000
	maxHeader = 1 << 20 // bytes
)

// pseudoHeaders is how many names of a request begin with a colon: :method, :scheme, :authority, :path.
const pseudoHeaders = 4

// header is a map as the guest sees it; nil: there is none at this time. Its strings are its own.
func (s *server) header(id uint32) *loam.Header {
	if id >= numMaps || s.context == 0 {
		return nil
	}
	if h := s.maps[id]; h != nil {
		return h
	}
	h := new(loam.Header)
	add := func(from loam.Header) {
		for _, f := range from {
			h.Add(strings.ToLower(strings.Clone(f.Name)), strings.Clone(f.Value))
		}
	}
	switch req := s.guest.Request; id {
	case mapRequestHeaders:
		path := req.Path
		if req.RawQuery != "" {
			path += "?" + req.RawQuery
		}
		*h = make(loam.Header, 0, pseudoHeaders+len(req.Header))
		h.Add(":method", strings.Clone(req.Method))
		h.Add(":scheme", req.Scheme)
		h.Add(":authority", strings.Clone(req.Authority))
		h.Add(":path", strings.Clone(path))
		add(req.Header)
	case mapRequestTrailers:
		add(req.Trailer)
	case mapResponseHeaders:
		switch {
		case s.behind != nil:
			h.Add(":status", strconv.Itoa(cmp.Or(s.behind.Status, 200)))
			add(s.behind.Header)
		case s.guest.Next == nil || s.local || s.response: // the guest's own
			h.Add(":status", strconv.Itoa(cmp.Or(s.own.Status, 200)))
			add(s.own.Header)
		default:
			return nil // it is not there yet
		}
	case mapResponseTrailers:
		switch {
		case s.behind != nil: // it comes after the body
			if err := s.hold(); err != nil {
				panic(err)
			}
			add(s.own.Trailer)
		case s.guest.Next == nil || s.local || s.response:
			add(s.own.Trailer)
		default:
			return nil
		}
	default:
		return nil
	}
	s.maps[id] = h
	return h
}

// writable is a map that the guest may change now.
func (s *server) writable(id uint32) *loam.Header {
	if s.finished {
		return nil
	}
	switch id {
	case mapRequestHeaders, mapRequestTrailers:
		if s.response || s.local { // it was passed on
			return nil
		}
	case mapResponseHeaders, mapResponseTrailers:
		if s.local {
			return nil
		}
	default:
		return nil
	}
	return s.header(id)
}

// change notes that the guest has written to a map.
func (s *server) change(id uint32) {
	s.changed[id] = true
	s.answered = s.answered || id == mapResponseHeaders || id == mapResponseTrailers
}

// checkPair tells what is wrong with a field of a map.
func checkPair(id uint32, name, value string) error {
	if !strings.HasPrefix(name, ":") {
		return guest.CheckField(name, value)
	}
	if err := guest.CheckField("x", value); err != nil {
		return err
	}
	visible := !strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f })
	fine := false
	switch {
	case id == mapResponseHeaders && name == ":status":
		n, err := strconv.Atoi(value)
		fine = err == nil && len(value) == 3 && guest.CheckStatus(n) == nil
	case id != mapRequestHeaders:
	case name == ":method":
		fine = guest.CheckField(value, "") == nil
	case name == ":scheme":
		fine = value == "http" || value == "https"
	case name == ":authority":
		fine = visible && !strings.ContainsAny(value, "/?#@")
	case name == ":path":
		fine = visible && strings.HasPrefix(value, "/") && !strings.Contains(value, "#")
	}
	if !fine {
		return errors.New("the pseudo-header " + strconv.Quote(name) + " with " + strconv.Quote(value))
	}
	return nil
}

// room tells whether a map may have another field.
func room(h loam.Header, name, value string) bool {
	size := len(name) + len(value)
	for _, f := range h {
		size += len(f.Name) + len(f.Value)
	}
	return len(h) < maxFields && size <= maxHeader
}

// encodedSize is how long encodePairs makes a map.
func encodedSize(h loam.Header) int {
	n := 4
	for _, f := range h {
		n += 8 + len(f.Name) + 1 + len(f.Value) + 1
	}
	return n
}

// encodePairs writes a map as the ABI has it: the count, the lengths, the names and values each with a NUL.
func encodePairs(h loam.Header) []byte {
	b := make([]byte, 0, encodedSize(h))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(h)))
	for _, f := range h {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Name)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Value)))
	}
	for _, f := range h {
		b = append(append(b, f.Name...), 0)
		b = append(append(b, f.Value...), 0)
	}
	return b
}

// decodePairs reads a map. An empty one is nothing, or a byte 0, or a count of 0.
func decodePairs(b []byte) (loam.Header, bool) {
	if len(b) == 0 || len(b) == 1 && b[0] == 0 {
		return nil, true
	}
	if len(b) < 4 || len(b) > maxHeader {
		return nil, false
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxFields || len(b) < 4+8*int(n) {
		return nil, false
	}
	lengths, b := b[4:4+8*n], b[4+8*n:]
	take := func(size uint32) (string, bool) {
		if uint64(size)+1 > uint64(len(b)) || b[size] != 0 {
			return "", false
		}
		s := string(b[:size])
		b = b[size+1:]
		return s, true
	}
	h := make(loam.Header, 0, n)
	for ; len(lengths) > 0; lengths = lengths[8:] {
		name, ok1 := take(binary.LittleEndian.Uint32(lengths))
		if !ok1 {
			return nil, false
		}
		value, ok2 := take(binary.LittleEndian.Uint32(lengths[4:]))
		if !ok2 {
			return nil, false
		}
		h.Add(name, value)
	}
	return h, len(b) == 0
}

// checked decodes a map whose fields a map of that kind may have; names become lower case.
func checked(id uint32, b []byte) (loam.Header, bool) {
	h, ok := decodePairs(b)
	for i, f := range h {
		h[i].Name = strings.ToLower(f.Name)
		ok = ok && checkPair(id, h[i].Name, f.Value) == nil
	}
	return h, ok
}
