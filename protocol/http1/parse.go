package http1

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unsafe"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// Limits bound what a peer may send. Zero fields take the default beside them.
type Limits struct {
	Head    int   // bytes of a message's first line and fields, and of its trailer; 64 KiB
	Fields  int   // how many fields; 128
	Body    int64 // bytes of a request's body; 64 MiB; negative: no bound
	Discard int   // bytes of a request's body that nobody read and are read all the same to keep the connection; 256 KiB
}

// A framing says where a message's body ends (RFC 9112, section 6.3).
type framing uint8

const (
	bodyNone framing = iota
	bodyLength
	bodyChunked
	bodyToEnd // of the connection: responses only
)

// message is what the head of a request or response says of its connection and its body; the rest is in the fields.
type message struct {
	minor   int // of the version HTTP/1.x
	framing framing
	length  int64 // with bodyLength
	close   bool  // the connection ends with this message
	upgrade bool  // Connection lists upgrade: the field Upgrade is among the fields
	expect  bool  // Expect: 100-continue
	tunnel  bool  // a request that asks to leave HTTP: CONNECT or Upgrade
}

// A refusal is a message that breaks the rules, with the status that says so.
type refusal struct {
	status int
	why    string
}

func (r *refusal) Error() string { return r.why }

// ofRequest is the refusal of a request's body, of which most bytes are taken, as targets see it.
func (r *refusal) ofRequest(most int64) error {
	if r.status == 413 {
		return protocol.TooLarge(most)
	}
	return &loam.Error{Code: loam.InvalidArgument, Op: "request", Err: r}
}

func refuse(status int, why string) *refusal { return &refusal{status, why} }

// The refusals are made once: a flood of broken requests allocates nothing.
var (
	errLine       = refuse(400, "the request line is not METHOD SP target SP version")
	errVersion    = refuse(505, "the version is not HTTP/1.0 or HTTP/1.1")
	errTarget     = refuse(400, "the target holds what no target may")
	errLF         = refuse(400, "a line ends otherwise than in CR LF")
	errFold       = refuse(400, "a field is folded over two lines")
	errName       = refuse(400, "a field name holds what no name may")
	errValue      = refuse(400, "a field value holds a control character")
	errFields     = refuse(431, "there are too many fields")
	errHead       = refuse(431, "the head is too large")
	errHost       = refuse(400, "there is not one valid Host field")
	errLength     = refuse(400, "Content-Length is not one number")
	errCoding     = refuse(501, "Transfer-Encoding is another than chunked")
	errBoth       = refuse(400, "there are both Content-Length and Transfer-Encoding, or an HTTP/1.0 message has the latter")
	errChunk      = refuse(400, "a chunk is not SIZE CR LF DATA CR LF")
	errStatus     = refuse(502, "the status line is not version SP three digits")
	errTrailer    = refuse(400, "the trailer holds a field that belongs in the head")
	errTooLarge   = refuse(413, "the body is too large")
	errConnection = refuse(400, "Connection names a field that frames the message")
)

// Classes of bytes.
const (
	tokenByte  = 1 << iota // RFC 9110, section 5.6.2
	targetByte             // of a request target: visible, no fragment
	hostByte
)

var class = func() (c [256]byte) {
	const others = "!#$%&'*+-.^_`|~"
	for b := range 256 {
		digit, letter := '0' <= b && b <= '9', 'a' <= b|0x20 && b|0x20 <= 'z' && b < 0x80
		if digit || letter || b < 0x80 && bytes.IndexByte([]byte(others), byte(b)) >= 0 {
			c[b] |= tokenByte
		}
		if b > ' ' && b != 0x7f && b != '#' {
			c[b] |= targetByte
		}
		if digit || letter || b < 0x80 && bytes.IndexByte([]byte("-._~!$&'()*+;=:[]%"), byte(b)) >= 0 {
			c[b] |= hostByte
		}
	}
	return c
}()

func all(s []byte, of byte) bool {
	for _, b := range s {
		if class[b]&of == 0 {
			return false
		}
	}
	return true
}

// view is the string of b's bytes where they stand: it changes when they do.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// parseRequest reads a request's head from b into req and m. n is how many bytes it had; 0: it is not whole yet. The
// strings of req stand in b.
//
// It takes what RFC 9112 says a message is and nothing else: where two readers could disagree on where a message ends,
// an attacker speaks to each of them differently.
func parseRequest(b []byte, lim *Limits, req *loam.Request, m *message) (n int, err error) {
	start := 0
	for start+1 < len(b) && b[start] == '\r' && b[start+1] == '\n' { // empty lines before a request (section 2.2)
		start += 2
	}
	if start < len(b) && b[start] == '\n' {
		return 0, errLF
	}
	end := bytes.IndexByte(b[start:], '\n')
	if end < 0 {
		if len(b) > lim.Head {
			return 0, errHead
		}
		// A client that speaks TLS or another protocol is told at its first bytes.
		if start < len(b) && b[start] != '\r' && class[b[start]]&tokenByte == 0 {
			return 0, errLine
		}
		return 0, nil
	}
	line := b[start : start+end]
	if len(line) == 0 || line[len(line)-1] != '\r' {
		return 0, errLF
	}
	line = line[:len(line)-1]
	sp := bytes.IndexByte(line, ' ')
	if sp <= 0 || !all(line[:sp], tokenByte) {
		return 0, errLine
	}
	method, rest := line[:sp], line[sp+1:]
	sp = bytes.IndexByte(rest, ' ')
	if sp <= 0 {
		return 0, errLine
	}
	target, version := rest[:sp], rest[sp+1:]
	if m.minor, err = parseVersion(version); err != nil {
		return 0, err
	}
	if !all(target, targetByte) {
		return 0, errTarget
	}
	*m = message{minor: m.minor, close: m.minor == 0}
	req.Method = view(method)
	authority, err := parseTarget(target, req)
	if err != nil {
		return 0, err
	}
	head := fields{host: -1}
	n, err = head.parse(b, start+end+1, lim, &req.Header, m)
	if n == 0 || err != nil {
		return 0, err
	}
	if err := head.finishRequest(req, authority, m); err != nil {
		return 0, err
	}
	return n, nil
}

func parseVersion(v []byte) (minor int, err error) {
	switch string(v) {
	case "HTTP/1.1":
		return 1, nil
	case "HTTP/1.0":
		return 0, nil
	}
	if len(v) == 8 && string(v[:5]) == "HTTP/" && isDigit(v[5]) && v[6] == '.' && isDigit(v[7]) {
		return 0, errVersion
	}
	return 0, errLine
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// parseTarget takes a request target apart (section 3.2) and returns the authority it names, if it does.
func parseTarget(target []byte, req *loam.Request) (authority []byte, err error) {
	switch {
	case req.Method == "CONNECT":
		if !validHost(target) || len(target) == 0 || bytes.IndexByte(target, ':') < 0 {
			return nil, errTarget
		}
		req.Path, req.RawQuery = "/", ""
		return target, nil
	case target[0] == '/':
	case len(target) == 1 && target[0] == '*':
		if req.Method != "OPTIONS" {
			return nil, errTarget
		}
	default: // the absolute form
		i := bytes.Index(target, []byte("://"))
		if i < 0 || !protocol.EqualFold(view(target[:i]), "http") && !protocol.EqualFold(view(target[:i]), "https") {
			return nil, errTarget
		}
		target = target[i+3:]
		if i = bytes.IndexAny(target, "/?"); i < 0 {
			i = len(target)
		}
		authority, target = target[:i], target[i:]
		if len(authority) == 0 || !validHost(authority) {
			return nil, errTarget
		}
	}
	req.RawQuery = ""
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		req.RawQuery, target = view(target[i+1:]), target[:i]
	}
	if req.Path = view(target); len(target) == 0 {
		req.Path = "/"
	}
	return authority, nil
}

// validHost takes host, host:port and [address]:port; what else a URL's authority may hold, userinfo foremost, is how
// requests are made to look as if they went elsewhere.
func validHost(h []byte) bool {
	if !all(h, hostByte) {
		return false
	}
	if i := bytes.LastIndexByte(h, ':'); i >= 0 && (len(h) == 0 || h[0] != '[' || h[i-1] == ']') {
		if i == 0 || h[0] != '[' && bytes.IndexByte(h[:i], ':') >= 0 {
			return false
		}
		for _, b := range h[i+1:] {
			if !isDigit(b) {
				return false
			}
		}
	}
	return true
}

// fields is what was seen of the fields that matter to the connection.
type fields struct {
	host    int // where Host stands among the fields; -1: it was not there
	hosts   int
	length  int64
	lengths int
	codings int
	named   []string // by Connection, beyond close, keep-alive and upgrade
	keep    bool
	upgrade bool // an Upgrade field is there
}

// parse reads the fields from b[at:] to the empty line. Those that speak of one connection are left out of h, but for
// Upgrade where Connection lists it.
func (f *fields) parse(b []byte, at int, lim *Limits, h *loam.Header, m *message) (n int, err error) {
	for count := 0; ; count++ {
		end := bytes.IndexByte(b[at:], '\n')
		if end < 0 {
			if len(b) > lim.Head {
				return 0, errHead
			}
			return 0, nil
		}
		line := b[at : at+end]
		at += end + 1
		if at > lim.Head {
			return 0, errHead
		}
		if len(line) == 0 || line[len(line)-1] != '\r' {
			return 0, errLF
		}
		line = line[:len(line)-1]
		if len(line) == 0 {
			break
		}
		if count >= lim.Fields {
			return 0, errFields
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !all(line[:colon], tokenByte) {
			if line[0] == ' ' || line[0] == '\t' {
				return 0, errFold
			}
			return 0, errName
		}
		value := trim(line[colon+1:])
		if !printable(value) {
			return 0, errValue
		}
		name := view(line[:colon])
		keep, err := f.see(name, view(value), m, len(*h))
		if err != nil {
			return 0, err
		}
		if keep {
			*h = append(*h, loam.Field{Name: name, Value: view(value)})
		}
	}
	if len(f.named) > 0 || f.upgrade && !m.upgrade {
		f.dropNamed(h, m)
	}
	return at, f.frame(m)
}

// see notes what a field says of the connection and tells whether it is one of the message. i is where it would stand.
func (f *fields) see(name, value string, m *message, i int) (keep bool, err error) {
	switch len(name) { // most names are told apart from ours by their length
	case 2:
		return !protocol.EqualFold(name, "te"), nil
	case 4:
		if protocol.EqualFold(name, "host") {
			f.host, f.hosts = i, f.hosts+1
		}
	case 6:
		if protocol.EqualFold(name, "expect") && protocol.EqualFold(value, "100-continue") {
			m.expect = m.minor > 0
			return false, nil
		}
	case 7:
		if protocol.EqualFold(name, "upgrade") {
			// What is sent on a connection that became HTTP/2 at the target would pass by all routes and policies.
			if lists(value, "h2c") {
				return false, nil
			}
			f.upgrade = true
		}
		return !protocol.EqualFold(name, "trailer"), nil
	case 10:
		if protocol.EqualFold(name, "connection") {
			return false, f.connection(value, m)
		}
		return !protocol.EqualFold(name, "keep-alive"), nil
	case 14:
		if protocol.EqualFold(name, "content-length") {
			f.lengths++
			f.length, err = parseLength(value)
			return false, err
		}
	case 16:
		return !protocol.EqualFold(name, "proxy-connection"), nil
	case 17:
		if protocol.EqualFold(name, "transfer-encoding") {
			if f.codings++; !protocol.EqualFold(value, "chunked") {
				return false, errCoding
			}
			return false, nil
		}
	case 18:
		return !protocol.EqualFold(name, "proxy-authenticate"), nil
	case 19:
		return !protocol.EqualFold(name, "proxy-authorization"), nil
	}
	return true, nil
}

func (f *fields) connection(value string, m *message) error {
	for value != "" {
		var option string
		if i := indexByte(value, ','); i >= 0 {
			option, value = value[:i], value[i+1:]
		} else {
			option, value = value, ""
		}
		option = trimString(option)
		switch {
		case option == "":
		case protocol.EqualFold(option, "close"):
			m.close = true
		case protocol.EqualFold(option, "keep-alive"):
			f.keep = true
		case protocol.EqualFold(option, "upgrade"):
			m.upgrade = true
		case protocol.EqualFold(option, "host"), protocol.EqualFold(option, "content-length"), protocol.EqualFold(option, "transfer-encoding"):
			return errConnection
		default:
			f.named = append(f.named, option)
		}
	}
	return nil
}

// lists tells whether a list of tokens has one.
func lists(value, token string) bool {
	for value != "" {
		one := value
		if i := indexByte(value, ','); i >= 0 {
			one, value = value[:i], value[i+1:]
		} else {
			value = ""
		}
		if protocol.EqualFold(trimString(one), token) {
			return true
		}
	}
	return false
}

// dropNamed takes out the fields that Connection names (RFC 9110, section 7.6.1), and an Upgrade that it does not.
func (f *fields) dropNamed(h *loam.Header, m *message) {
	kept := (*h)[:0]
	host := -1
next:
	for i, field := range *h {
		if protocol.EqualFold(field.Name, "upgrade") && !m.upgrade {
			continue
		}
		for _, n := range f.named {
			if strings.EqualFold(n, field.Name) {
				continue next
			}
		}
		if i == f.host {
			host = len(kept)
		}
		kept = append(kept, field)
	}
	*h, f.host = kept, host
}

// frame decides where the body ends.
func (f *fields) frame(m *message) error {
	switch {
	case f.lengths > 1:
		return errLength
	case f.codings > 1:
		return errCoding
	case f.codings == 1 && (f.lengths == 1 || m.minor == 0):
		return errBoth
	case f.codings == 1:
		m.framing = bodyChunked
	case f.lengths == 1 && f.length > 0:
		m.framing, m.length = bodyLength, f.length
	}
	if m.minor == 0 && f.keep {
		m.close = false
	}
	return nil
}

// finishRequest settles the authority and what the request asks of its connection.
func (f *fields) finishRequest(req *loam.Request, authority []byte, m *message) error {
	if f.hosts > 1 || f.hosts == 0 && m.minor > 0 {
		return errHost
	}
	if req.Authority = ""; f.host >= 0 {
		host := req.Header[f.host].Value
		if !validHost(unsafe.Slice(unsafe.StringData(host), len(host))) {
			return errHost
		}
		req.Authority = host
		req.Header = append(req.Header[:f.host], req.Header[f.host+1:]...)
	}
	if authority != nil {
		req.Authority = view(authority) // section 3.2.2: the target's counts
	}
	m.upgrade = m.upgrade && f.upgrade && m.minor > 0
	m.tunnel = m.upgrade || req.Method == "CONNECT"
	if m.tunnel && m.framing != bodyNone && req.Method == "CONNECT" {
		return errBoth
	}
	return nil
}

// parseResponse reads a response's head from b into res and m, as parseRequest does. method is the request's.
func parseResponse(b []byte, method string, lim *Limits, res *loam.Response, m *message) (n int, err error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if len(b) > lim.Head {
			return 0, errHead
		}
		return 0, nil
	}
	line := b[:end]
	// HTTP/1.x SP DDD SP reason; the reason and the space before it may be missing.
	if len(line) < 13 || line[len(line)-1] != '\r' || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' ||
		!isDigit(line[9]) || !isDigit(line[10]) || !isDigit(line[11]) || line[12] != ' ' && len(line) != 13 || line[9] == '0' || !printable(line[12:len(line)-1]) {
		return 0, errStatus
	}
	*m = message{minor: int(line[7] - '0'), close: line[7] == '0'}
	res.Status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
	f := fields{host: -1}
	if n, err = f.parse(b, end+1, lim, &res.Header, m); n == 0 || err != nil {
		return 0, err
	}
	switch {
	case res.Status < 200 || res.Status == 204 || method == "HEAD" || res.Status == 304:
		// What Content-Length says of the body that HEAD did not get is passed on.
		res.Length = -1
		if f.lengths == 1 {
			res.Length = f.length
		}
		m.framing = bodyNone
	case m.framing == bodyNone && f.lengths == 1:
		res.Length = 0
	case m.framing == bodyNone:
		m.framing, m.close = bodyToEnd, true
		res.Length = -1
	case m.framing == bodyLength:
		res.Length = m.length
	default:
		res.Length = -1
	}
	m.upgrade = m.upgrade && f.upgrade
	return n, nil
}

// parseLength reads Content-Length: digits only. A sign, a list or a number beyond 18 digits is refused.
func parseLength(s string) (n int64, err error) {
	if s == "" || len(s) > 18 {
		return 0, errLength
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, errLength
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, nil
}

// trim removes the blanks round a value.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

func trimString(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

func indexByte(s string, c byte) int {
	for i := range len(s) {
		if s[i] == c {
			return i
		}
	}
	return -1
}

// printable tells whether a value holds no control character but tabs. It looks at eight bytes at a time.
func printable(b []byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		low := (x - ones*0x20) &^ x & tops // a byte below 0x20, or one that borrowed from such
		del := x ^ ones*0x7f
		del = (del - ones) &^ del & tops
		if low|del != 0 && !printableSlow(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return printableSlow(b)
}

func printableSlow(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
