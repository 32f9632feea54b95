package http2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/grpc"
)

// A head is a block of fields decoded and looked over: of a request, a response or a trailer.
type head struct {
	method, scheme, authority, path, query string
	protocol                               string // of extended CONNECT (RFC 8441)
	status                                 int
	fields                                 loam.Header
	id                                     string        // the request's id, where it has a valid one
	length                                 int64         // of the body; -1: it does not say
	timeout                                time.Duration // gRPC's; 0: it does not say
	grpc                                   bool

	arena bytes.Buffer // where the strings stand that are not in the block
}

// reset empties h for another block, keeping its room.
func (h *head) reset() {
	fields, arena := h.fields[:0], h.arena
	if cap(fields) > 64 {
		fields = nil
	}
	if arena.Reset(); arena.Cap() > 4<<10 {
		arena = bytes.Buffer{}
	}
	*h = head{fields: fields, arena: arena, length: -1}
}

// What a head is read as.
type headKind uint8

const (
	requestHead headKind = iota
	responseHead
	trailerHead
)

// errMalformed is a head that is decoded well and says what none may (RFC 9113, section 8.1.1).
type errMalformed string

func (e errMalformed) Error() string { return "malformed: " + string(e) }

// errTooMany is a head beyond the limits.
var errTooMany = errors.New("the head is too large")

// A decoder reads the blocks of one connection.
type decoder struct {
	memo   *memo
	most   int            // bytes of names and values, and 32 for each field
	count  int            // fields
	table  *hpack.Decoder // once a block has used the dynamic table
	sized  bool           // the peer has said how large the table is
	size   int            // and this is it
	shrunk bool           // the peer has acknowledged that the table has no room
}

// tableSize is how large the peer's dynamic table may be until it has acknowledged our settings (RFC 9113, section 6.5.2).
const tableSize = 4096

// decode reads a block into a head: one of the memo's, which nobody changes, or own. An error is errCompression, which
// ends the connection, errTooMany or an errMalformed; the connection's table is right after the last two.
func (d *decoder) decode(block []byte, kind headKind, own *head) (*head, error) {
	// Who has heard that the table has no room says so once, in front of the next block. Of a table that nobody has used
	// nothing needs to be kept for that.
	for d.table == nil && len(block) > 0 && block[0]&0xe0 == 0x20 {
		r := blockReader{p: block}
		n, err := r.int(5)
		if err != nil || n > tableSize || d.shrunk && n > 0 {
			return nil, errCompression
		}
		d.size, d.sized, block = n, true, r.p
	}
	key := d.memo.key(block, kind)
	if h := d.memo.get(key, block, kind); h != nil {
		return h, nil
	}
	own.reset()
	b := builder{h: own, kind: kind, left: d.most, count: d.count}
	own.arena.Grow(len(block)) // so that it does not grow while the block is read from it
	own.arena.Write(block)
	r := blockReader{p: own.arena.Bytes(), arena: &own.arena, memo: d.memo}
	for len(r.p) > 0 {
		f, known, err := r.next()
		if err != nil {
			if errors.Is(err, errStateful) {
				return own, d.stateful(block, kind, own)
			}
			return nil, errCompression
		}
		b.add(f, known)
	}
	if err := b.end(); err != nil {
		return own, err
	}
	d.memo.put(key, block, kind, own)
	return own, nil
}

// stateful reads a block with the dynamic table.
func (d *decoder) stateful(block []byte, kind headKind, own *head) error {
	if d.table == nil {
		d.table = hpack.NewDecoder(tableSize, nil)
		d.table.SetMaxStringLength(max(d.most, tableSize))
		if d.sized {
			d.table.SetMaxDynamicTableSize(uint32(d.size))
		}
		d.limit()
	}
	own.reset()
	b := builder{h: own, kind: kind, left: d.most, count: d.count}
	d.table.SetEmitEnabled(true)
	d.table.SetEmitFunc(func(f hpack.HeaderField) { b.add(loam.Field{Name: f.Name, Value: f.Value}, false) })
	_, err := d.table.Write(block)
	if err == nil {
		err = d.table.Close()
	}
	if err != nil {
		return errCompression
	}
	return b.end()
}

// acknowledged is called when the peer knows that its table has no room any more.
func (d *decoder) acknowledged() {
	d.shrunk = true
	d.limit()
}

func (d *decoder) limit() {
	if d.shrunk && d.table != nil {
		d.table.SetAllowedMaxDynamicTableSize(0)
	}
}

// A builder looks fields over and puts them where they belong in a head.
type builder struct {
	h       *head
	kind    headKind
	left    int // bytes that there may still be
	count   int // fields that there may still be
	err     error
	seen    uint8 // pseudo-header fields
	regular bool  // a regular field was there: no pseudo-header field may follow
	cookies int   // place of the field cookie, from 1
	host    string
	hosts   int
}

const (
	seenMethod = 1 << iota
	seenScheme
	seenAuthority
	seenPath
	seenProtocol
	seenStatus
)

func (b *builder) malformed(why string) {
	if b.err == nil {
		b.err = errMalformed(why)
	}
}

// add takes a field. A name that is known came from the static table.
func (b *builder) add(f loam.Field, known bool) {
	b.count--
	b.left -= len(f.Name) + len(f.Value) + 32
	if b.left < 0 || b.count < 0 {
		b.err = errTooMany
		return
	}
	if b.err != nil {
		return
	}
	if !valid(f.Value) {
		b.malformed("a value holds what no value may")
		return
	}
	if f.Name != "" && f.Name[0] == ':' {
		b.pseudo(f)
		return
	}
	b.regular = true
	if !known && !validName(f.Name) {
		b.malformed("a field name holds what no name may")
		return
	}
	switch len(f.Name) {
	case 2:
		if f.Name == "te" && (f.Value != "trailers" || b.kind == responseHead) {
			b.malformed("te other than trailers")
			return
		}
	case 4:
		if f.Name == "host" && b.kind == requestHead {
			b.host = f.Value
			b.hosts++
			return
		}
	case 6:
		if f.Name == "cookie" && b.kind == requestHead {
			b.cookie(f)
			return
		}
	case 7:
		if f.Name == "upgrade" {
			b.malformed("upgrade")
			return
		}
	case 10, 16, 17:
		if protocol.HopByHop(f.Name) {
			b.malformed("a field that speaks of one connection")
			return
		}
	case 12:
		switch f.Name {
		case "content-type":
			b.h.grpc = b.h.grpc || grpc.Is(f.Value)
		case "grpc-timeout":
			b.h.timeout, _ = grpc.ParseTimeout(f.Value)
		case "x-request-id":
			if b.h.id == "" && protocol.ValidID(f.Value) {
				b.h.id = f.Value
			}
		}
	case 14:
		if f.Name == "content-length" {
			n, ok := parseLength(f.Value)
			if !ok || b.h.length >= 0 || b.kind == trailerHead {
				b.malformed("content-length")
			}
			b.h.length = n
			return
		}
	}
	b.h.fields = append(b.h.fields, f)
}

func (b *builder) pseudo(f loam.Field) {
	bit, to := uint8(0), (*string)(nil)
	switch f.Name {
	case ":method":
		bit, to = seenMethod, &b.h.method
	case ":scheme":
		bit, to = seenScheme, &b.h.scheme
	case ":authority":
		bit, to = seenAuthority, &b.h.authority
	case ":path":
		bit, to = seenPath, &b.h.path
	case ":protocol":
		bit, to = seenProtocol, &b.h.protocol
	case ":status":
		bit = seenStatus
		if len(f.Value) != 3 || f.Value[0] < '1' || f.Value[0] > '9' || !digit(f.Value[1]) || !digit(f.Value[2]) {
			b.malformed(":status")
			return
		}
		b.h.status = int(f.Value[0]-'0')*100 + int(f.Value[1]-'0')*10 + int(f.Value[2]-'0')
	}
	switch {
	case bit == 0 || (bit == seenStatus) != (b.kind == responseHead) || b.kind == trailerHead:
		b.malformed("a pseudo-header field that does not belong there")
	case b.seen&bit != 0:
		b.malformed("a pseudo-header field twice")
	case b.regular:
		b.malformed("a pseudo-header field after another")
	case to != nil:
		*to = f.Value
	}
	b.seen |= bit
}

// cookie joins the pieces that a cookie may be sent in (RFC 9113, section 8.2.3).
func (b *builder) cookie(f loam.Field) {
	if b.cookies == 0 {
		b.h.fields = append(b.h.fields, f)
		b.cookies = len(b.h.fields)
		return
	}
	have := &b.h.fields[b.cookies-1]
	from := b.h.arena.Len()
	b.h.arena.WriteString(have.Value)
	b.h.arena.WriteString("; ")
	b.h.arena.WriteString(f.Value)
	have.Value = view(b.h.arena.Bytes()[from:])
}

// end looks the whole head over.
func (b *builder) end() error {
	h := b.h
	if b.err != nil || b.kind == trailerHead {
		return b.err
	}
	if b.kind == responseHead {
		if b.seen&seenStatus == 0 || h.status == 101 { // HTTP/2 has no 101 (RFC 9113, section 8.6)
			return errMalformed(":status")
		}
		return nil
	}
	connect := h.method == "CONNECT"
	switch {
	case b.seen&seenMethod == 0 || !token(h.method):
		return errMalformed(":method")
	case b.seen&seenProtocol != 0 && (!connect || !token(h.protocol)):
		return errMalformed(":protocol")
	case connect && b.seen&seenProtocol == 0:
		if b.seen&(seenScheme|seenPath) != 0 || h.authority == "" {
			return errMalformed("CONNECT")
		}
		h.path = "/"
	case b.seen&(seenScheme|seenPath) != seenScheme|seenPath:
		return errMalformed("a pseudo-header field is missing")
	case h.scheme != "http" && h.scheme != "https":
		return errMalformed(":scheme")
	case h.path == "" || h.path[0] != '/' && (h.path != "*" || h.method != "OPTIONS") || !all(h.path, targetByte):
		return errMalformed(":path")
	}
	if b.hosts > 0 {
		if b.hosts > 1 || h.authority != "" && !strings.EqualFold(h.authority, b.host) {
			return errMalformed("host and :authority differ")
		}
		h.authority = b.host
	}
	if h.authority == "" && b.seen&seenAuthority != 0 || !all(h.authority, hostByte) {
		return errMalformed(":authority")
	}
	h.path, h.query, _ = strings.Cut(h.path, "?")
	if h.path == "" {
		h.path = "/"
	}
	return nil
}

func parseLength(s string) (n int64, ok bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if !digit(s[i]) {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// Classes of bytes.
const (
	lowerByte  = 1 << iota // of a field name as HTTP/2 sends it
	tokenByte              // RFC 9110, section 5.6.2
	targetByte             // of a request target: visible, no fragment
	hostByte
	lettered // an upper-case letter
)

var class = func() (c [256]byte) {
	for b := range 256 {
		b := byte(b)
		letter := 'a' <= b|0x20 && b|0x20 <= 'z' && b < 0x80
		if digit(b) || letter || b != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0 {
			c[b] |= tokenByte | lowerByte
		}
		if 'A' <= b && b <= 'Z' {
			c[b] = c[b]&^lowerByte | lettered
		}
		if b > ' ' && b != 0x7f && b != '#' {
			c[b] |= targetByte
		}
		if digit(b) || letter || b != 0 && strings.IndexByte("-._~!$&'()*+;=:[]%,", b) >= 0 {
			c[b] |= hostByte
		}
	}
	return c
}()

func all(s string, of byte) bool {
	for i := range len(s) {
		if class[s[i]]&of == 0 {
			return false
		}
	}
	return true
}

func token(s string) bool     { return s != "" && all(s, tokenByte) }
func validName(s string) bool { return s != "" && all(s, lowerByte) }

// valid tells whether s may be a field's value: no control characters but tabs, and no space at its ends (RFC 9113,
// section 8.2.1).
func valid(s string) bool {
	if s == "" {
		return true
	}
	if c, e := s[0], s[len(s)-1]; c == ' ' || c == '\t' || e == ' ' || e == '\t' {
		return false
	}
	return printable(s)
}

// printable tells that s has no control characters but tabs.
func printable(s string) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	i := 0
	for b := bytesOf(s); i+8 <= len(b); i += 8 { // eight bytes at once: is one of them below 0x20, or 0x7f?
		w := binary.LittleEndian.Uint64(b[i:])
		del := w ^ 0x7f*ones
		if ((w-0x20*ones)&^w|(del-ones)&^del)&high != 0 {
			break // perhaps a tab: look at each
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// A memo knows the heads of blocks that came before: clients send the same few again and again. It holds what leaves the
// dynamic table alone, which means the same on every connection. A block is taken in when it comes a second time, so
// that blocks which never come again cost nothing but a look. It is bounded, and needs no lock.
type memo struct {
	seed  maphash.Seed
	heads [512]atomic.Pointer[memoised]
	words [512]atomic.Pointer[word] // strings in Huffman's code, of heads that differ in one field only: a deadline, a trace
	seen  [4096]atomic.Uint32       // the upper half of keys that came once
}

// A word is a string in Huffman's code and what it says.
type word struct {
	key         uint64
	code, plain string
}

type memoised struct {
	key   uint64
	kind  headKind
	block string
	head
}

// maxMemo bounds a block that is remembered.
const maxMemo = 2 << 10

func newMemo() *memo { return &memo{seed: maphash.MakeSeed()} }

func (m *memo) key(block []byte, kind headKind) uint64 {
	return maphash.Bytes(m.seed, block) + uint64(kind)
}

func (m *memo) get(key uint64, block []byte, kind headKind) *head {
	if e := m.heads[key%uint64(len(m.heads))].Load(); e != nil && e.key == key && e.kind == kind && e.block == string(block) {
		return &e.head
	}
	return nil
}

// again tells whether a key came before, as far as that is remembered.
func (m *memo) again(key uint64) bool {
	upper := uint32(key >> 32)
	return m.seen[key%uint64(len(m.seen))].Swap(upper) == upper
}

// shortWord is the length below which a string is decoded as fast as it is found.
const shortWord = 6

func (m *memo) word(key uint64, code []byte) *word {
	if w := m.words[key%uint64(len(m.words))].Load(); w != nil && w.key == key && w.code == string(code) {
		return w
	}
	return nil
}

func (m *memo) learn(key uint64, code []byte, plain string) {
	if len(code) <= 256 && m.again(key) {
		m.words[key%uint64(len(m.words))].Store(&word{key, string(code), strings.Clone(plain)})
	}
}

func (m *memo) put(key uint64, block []byte, kind headKind, h *head) {
	if len(block) > maxMemo || !m.again(key) {
		return
	}
	e := &memoised{key: key, kind: kind, block: string(block), head: head{
		method: strings.Clone(h.method), scheme: strings.Clone(h.scheme), authority: strings.Clone(h.authority), path: strings.Clone(h.path),
		query: strings.Clone(h.query), protocol: strings.Clone(h.protocol), id: strings.Clone(h.id), status: h.status, length: h.length,
		timeout: h.timeout, grpc: h.grpc, fields: make(loam.Header, len(h.fields)),
	}}
	for i, f := range h.fields {
		e.fields[i] = loam.Field{Name: strings.Clone(f.Name), Value: strings.Clone(f.Value)}
	}
	m.heads[key%uint64(len(m.heads))].Store(e)
}
