package httpwasm

import (
	"log/slog"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	wasmapi "github.com/tetratelabs/wazero/api"
)

// A call is one of a host function: the guest's memory, and the parameters, over which results are written.
type call struct {
	*server
	name   string
	memory wasmapi.Memory
	p      []uint64
}

// in is a parameter that is a range of the memory; i is that of its pointer.
func (c *call) in(i int) []byte { return guest.View(c.memory, c.name, c.p[i], c.p[i+1]) }

// kind is the first parameter.
func (c *call) kind() uint32 { return uint32(c.p[0]) }

// give writes b to the buffer of the first two parameters if it has room, and results in the length.
func give[T string | []byte](c *call, b T) {
	if to := c.in(0); len(b) <= len(to) {
		copy(to, b)
		c.guest.Moved(len(b))
	}
	c.p[0] = uint64(len(b))
}

// giveAll does the same with strings that each end with NUL, for the buffer at parameter i; the count is in the upper half
// of the result.
func (c *call) giveAll(i int, all []string) {
	n := 0
	for _, s := range all {
		n += len(s) + 1
	}
	c.guest.Moved(n)
	if to := c.in(i); n <= len(to) {
		for _, s := range all {
			to[copy(to, s)] = 0
			to = to[len(s)+1:]
		}
	}
	c.p[0] = uint64(len(all))<<32 | uint64(n)
}

// Bits of features. All of them are there at any time: the host has the request's body whole, and reads the response's
// when it is asked for.
const allFeatures = 1 | 2 | 4

func enableFeatures(c *call) { c.p[0] = allFeatures }

func getConfig(c *call) { give(c, c.guest.Settings) }

// level is that of the log, by the ABI's number.
func level(n int32) (l slog.Level, ok bool) {
	switch n {
	case -1:
		return slog.LevelDebug, true
	case 0:
		return slog.LevelInfo, true
	case 1:
		return slog.LevelWarn, true
	case 2:
		return slog.LevelError, true
	}
	return 0, false
}

// log(level, ptr, len)
func logLine(c *call) {
	message := c.in(1)
	if l, ok := level(int32(c.p[0])); ok {
		c.guest.Log(l, message)
	}
}

// log_enabled(level): what the host's log drops is its own to say, line by line.
func logEnabled(c *call) {
	_, ok := level(int32(c.p[0]))
	c.p[0] = 0
	if ok {
		c.p[0] = 1
	}
}

func getMethod(c *call) { give(c, c.method) }

func getURI(c *call) { give(c, c.uri) }

func getProtocolVersion(c *call) { give(c, "HTTP/1.1") } // what a target sees of every protocol

func getSourceAddr(c *call) { give(c, c.guest.Request.Remote) }

// notPassedOn traps where it is too late to change the request.
func (c *call) notPassedOn() {
	if c.answering {
		panic(guest.Misuse("%s after the request was passed on", c.name))
	}
}

func setMethod(c *call) {
	c.notPassedOn()
	method := string(c.in(0))
	if err := guest.CheckField(method, ""); err != nil { // both are tokens
		panic(guest.Misuse("set_method: %.40q is no method", method))
	}
	c.method = method
}

// maxURI is how long a path with its query may be that a guest sets, in bytes.
const maxURI = 64 << 10

func setURI(c *call) {
	c.notPassedOn()
	uri := string(c.in(0))
	if uri == "" {
		uri = "/"
	}
	if len(uri) > maxURI || uri[0] != '/' || strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }) {
		panic(guest.Misuse("set_uri: %.100q does not begin with a slash, or is not encoded", uri))
	}
	c.uri = uri
}

// get_header_names(kind, buf, limit) -> count<<32 | len
func getHeaderNames(c *call) {
	h := *c.header(c.kind(), false)
	c.guest.Owner.Worked(int64(len(h)) * int64(len(h)))
	names := make([]string, 0, len(h))
next:
	for _, f := range h {
		name := strings.ToLower(f.Name)
		for _, n := range names {
			if n == name {
				continue next
			}
		}
		names = append(names, name)
	}
	c.giveAll(1, names)
}

// get_header_values(kind, name, name_len, buf, limit) -> count<<32 | len
func getHeaderValues(c *call) {
	h := c.header(c.kind(), false)
	c.guest.Owner.Worked(int64(len(*h)) * 8)
	c.giveAll(3, h.Values(string(c.in(1))))
}

// maxFields is how many fields of a kind there may be for a guest to add one, and how long they may be in all.
const (
	maxFields = 1000
	maxHeader = 1 << 20
)

// change writes a field: (kind, name, name_len, value, value_len)
func (c *call) change(do func(h *loam.Header, name, value string)) {
	name, value := string(c.in(1)), string(c.in(3))
	if err := guest.CheckField(name, value); err != nil {
		panic(guest.Misuse("%s: %w", c.name, err))
	}
	h := c.header(c.kind(), true)
	size := len(name) + len(value)
	for _, f := range *h {
		size += len(f.Name) + len(f.Value)
	}
	if len(*h) >= maxFields || size > maxHeader {
		panic(guest.Misuse("%s: more than %d header fields, or %d bytes of them", c.name, maxFields, maxHeader))
	}
	if !guest.OfConnection(name) {
		do(h, name, value)
	}
	c.guest.Moved(size)
}

func setHeaderValue(c *call) { c.change((*loam.Header).Set) }

func addHeaderValue(c *call) { c.change((*loam.Header).Add) }

// remove_header(kind, name, name_len)
func removeHeader(c *call) {
	name := string(c.in(1))
	c.header(c.kind(), true).Del(name)
}

// read_body(kind, buf, limit) -> eof<<32 | len
func readBody(c *call) {
	to := c.in(1)
	if len(to) == 0 {
		panic(guest.Misuse("read_body into no room"))
	}
	from := c.body
	switch c.kind() {
	case kindRequest:
	case kindResponse:
		c.hold(false)
		from = c.own.Data[min(c.at, len(c.own.Data)):]
	default:
		panic(guest.Misuse("there is no kind of body %d", c.kind()))
	}
	n := copy(to, from)
	c.guest.Moved(n)
	if c.kind() == kindRequest {
		c.body = c.body[n:]
	} else {
		c.at += n
	}
	eof := uint64(0)
	if n == len(from) {
		eof = 1
	}
	c.p[0] = eof<<32 | uint64(n)
}

// write_body(kind, ptr, len): the first one replaces what was there.
func writeBody(c *call) {
	b := c.in(1)
	switch c.kind() {
	case kindRequest:
		c.notPassedOn()
		c.wrote = true
		c.guest.Respond(len(c.written), len(b)) // as much as a response may be
		c.written = append(c.written, b...)
		c.guest.Moved(len(b))
	case kindResponse:
		if !c.begun {
			c.hold(true)
			c.begun, c.own.Data = true, nil
		}
		c.own.Write(c.guest, b)
	default:
		panic(guest.Misuse("there is no kind of body %d", c.kind()))
	}
}

// status is that of the response.
func (c *call) status() *int {
	if c.behind != nil {
		return &c.behind.Status
	}
	return &c.own.Status
}

// get_status_code() -> code
func getStatusCode(c *call) {
	if c.p[0] = uint64(*c.status()); c.p[0] == 0 {
		c.p[0] = 200
	}
}

// set_status_code(code)
func setStatusCode(c *call) {
	n := int(int32(c.p[0]))
	if err := guest.CheckStatus(n); err != nil {
		panic(guest.Misuse("set_status_code: %w", err))
	}
	*c.status() = n
}
