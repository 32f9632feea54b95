package proxywasm

import (
	"log/slog"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	wasmapi "github.com/tetratelabs/wazero/api"
)

// A call is one of a host function.
type call struct {
	*server
	name   string
	memory wasmapi.Memory
	p      []uint64 // the parameters
}

// arg is a parameter.
func (c *call) arg(i int) uint32 { return uint32(c.p[i]) }

// in is a range of the guest's memory, given by the parameters i and i+1. It is valid until the guest runs, its allocator
// included.
func (c *call) in(i int) ([]byte, bool) { return c.memory.Read(c.arg(i), c.arg(i+1)) }

// text is a copy of such a range.
func (c *call) text(i int) (string, bool) {
	b, ok := c.in(i)
	return string(b), ok
}

// put writes a number to where parameter i points.
func (c *call) put(i int, v uint32) status {
	if !c.memory.WriteUint32Le(c.arg(i), v) {
		return invalidMemoryAccess
	}
	return ok
}

// canPut tells whether numbers can be written to where the parameters point, before anything is done.
func (c *call) canPut(params ...int) bool {
	for _, i := range params {
		if _, ok := c.memory.Read(c.arg(i), 4); !ok {
			return false
		}
	}
	return true
}

// give allocates memory of the guest's for b, and writes its address and length to where the parameters i and i+1 point.
func (c *call) give(i int, b []byte) status {
	if !c.canPut(i, i+1) {
		return invalidMemoryAccess
	}
	at := uint32(0)
	c.guest.Moved(len(b)) // what is done with it here and was done before
	if len(b) > 0 {
		f := c.find(allocate)
		if f == nil {
			f = c.find(malloc)
		}
		if f == nil {
			return internalFailure
		}
		if c.allocating {
			panic(guest.Misuse("its allocator called %s, which needs memory", c.name))
		}
		c.allocating = true
		stack := [1]uint64{uint64(len(b))}
		err := f.CallWithStack(c.guest, stack[:])
		c.allocating = false
		if err != nil {
			panic(err)
		}
		if at = uint32(stack[0]); at == 0 {
			return internalFailure
		}
		if !c.memory.Write(at, b) {
			return invalidMemoryAccess
		}
	}
	if s := c.put(i, at); s != ok {
		return s
	}
	return c.put(i+1, uint32(len(b)))
}

// scanned bills that all fields of a map were looked at.
func (c *call) scanned(h loam.Header) { c.guest.Owner.Worked(int64(len(h)) * 8) }

// proxy_log(level, message, size)
func logLine(c *call) status {
	message, valid := c.in(1)
	if !valid {
		return invalidMemoryAccess
	}
	level := slog.LevelDebug
	switch c.arg(0) {
	case 0, 1: // trace, debug
	case 2:
		level = slog.LevelInfo
	case 3:
		level = slog.LevelWarn
	case 4, 5: // error, critical
		level = slog.LevelError
	default:
		return badArgument
	}
	c.guest.Log(level, message)
	return ok
}

// proxy_get_log_level(&level): what the host's log drops is its own to say, line by line; info is what it should get.
func getLogLevel(c *call) status { return c.put(0, 2) }

// proxy_get_current_time_nanoseconds(&time)
func getTime(c *call) status {
	if !c.memory.WriteUint64Le(c.arg(0), uint64(time.Now().UnixNano())) {
		return invalidMemoryAccess
	}
	return ok
}

// proxy_set_tick_period_milliseconds(period): nothing runs between requests, so only no timer can be had.
func setTickPeriod(c *call) status {
	if c.arg(0) != 0 {
		return unimplemented
	}
	return ok
}

// proxy_done()
func done(c *call) status {
	if !c.finishing || c.done {
		return notFound
	}
	c.server.done = true
	return ok
}

// proxy_set_effective_context(id)
func setEffectiveContext(c *call) status {
	if id := c.arg(0); id != root && (id != c.context || id == 0) {
		return badArgument
	}
	return ok // there is one request at a time, so that nothing depends on it
}

// proxy_get_status(&code, &message, &size): of the call whose answer is there
func getStatus(c *call) status {
	if !c.canPut(0, 1, 2) {
		return invalidMemoryAccess
	}
	_ = c.put(0, c.status) // it can be
	return c.give(1, nil)
}

// Buffers (proxy_buffer_type_t).
const (
	bufferRequestBody = iota
	bufferResponseBody
	bufferDownstreamData
	bufferUpstreamData
	bufferCallBody
	bufferGRPCMessage
	bufferVMConfiguration
	bufferPluginConfiguration
	bufferCallData
	numBuffers
)

// buffer is what a buffer holds.
func (c *call) buffer(id uint32) ([]byte, status) {
	switch id {
	case bufferRequestBody:
		if c.context != 0 {
			return c.body, ok
		}
	case bufferResponseBody:
		if c.context != 0 && (c.guest.Next == nil || c.response || c.local) {
			if err := c.hold(); err != nil {
				panic(err)
			}
			return c.own.Data, ok
		}
	case bufferCallBody:
		if c.answering {
			return c.answer, ok
		}
	case bufferVMConfiguration:
		return nil, ok // there is none
	case bufferPluginConfiguration:
		return c.guest.Settings, ok
	case bufferCallData:
		return c.data, ok
	}
	if id >= numBuffers {
		return nil, badArgument
	}
	return nil, notFound
}

// proxy_get_configuration(&data, &size)
func getConfiguration(c *call) status {
	b, _ := c.buffer(c.configuration)
	return c.give(0, b)
}

// proxy_get_buffer_status(buffer, &size, &flags)
func getBufferStatus(c *call) status {
	b, s := c.buffer(c.arg(0))
	switch {
	case s != ok:
		return s
	case !c.canPut(1, 2):
		return invalidMemoryAccess
	}
	_ = c.put(2, 0) // it can be
	return c.put(1, uint32(len(b)))
}

// proxy_get_buffer_bytes(buffer, start, max, &data, &size)
func getBufferBytes(c *call) status {
	b, s := c.buffer(c.arg(0))
	if s != ok {
		return s
	}
	from, end := uint64(c.arg(1)), uint64(c.arg(1))+uint64(c.arg(2))
	if from > uint64(len(b)) || end > 1<<32-1 && c.arg(2) != 1<<32-1 {
		return badArgument
	}
	return c.give(3, b[from:min(end, uint64(len(b)))])
}

// maxData is how much call data there may be, in bytes.
const maxData = 64 << 10

// proxy_set_buffer_bytes(buffer, start, size, data, data_size) replaces size bytes at start.
func setBufferBytes(c *call) status {
	id := c.arg(0)
	b, s := c.buffer(id)
	if s != ok {
		return s
	}
	value, valid := c.in(3)
	if !valid {
		return invalidMemoryAccess
	}
	from := min(uint64(c.arg(1)), uint64(len(b)))
	end := min(from+uint64(c.arg(2)), uint64(len(b)))
	grown := len(b) - int(end-from)
	splice := func() []byte {
		if from == uint64(len(b)) { // what is there need not be copied
			c.guest.Moved(len(value))
			return append(b, value...)
		}
		c.guest.Moved(grown + len(value))
		n := make([]byte, 0, grown+len(value))
		return append(append(append(n, b[:from]...), value...), b[end:]...)
	}
	switch id {
	case bufferRequestBody:
		if c.response || c.local || c.finished {
			return badArgument // it was passed on
		}
		c.guest.Respond(grown, len(value)) // as much as a response may be
		if !c.bodySet {
			b = append([]byte(nil), b...) // the request's own stays
		}
		c.body, c.bodySet = splice(), true
	case bufferResponseBody:
		if c.local || c.finished {
			return badArgument // it was sent
		}
		c.guest.Respond(grown, len(value))
		c.own.Data, c.answered = splice(), true
	case bufferCallData:
		if grown+len(value) > maxData {
			return internalFailure
		}
		c.data = splice()
	default:
		return badArgument // it is to be read
	}
	return ok
}

// proxy_get_header_map_size(map, &size)
func getHeaderMapSize(c *call) status {
	h := c.header(c.arg(0))
	if h == nil {
		return badArgument
	}
	return c.put(1, uint32(encodedSize(*h)))
}

// proxy_get_header_map_pairs(map, &data, &size)
func getHeaderMapPairs(c *call) status {
	h := c.header(c.arg(0))
	if h == nil {
		return badArgument
	}
	return c.give(1, encodePairs(*h))
}

// proxy_set_header_map_pairs(map, data, size): pseudo-headers that are not among them stay.
func setHeaderMapPairs(c *call) status {
	b, valid := c.in(1)
	if !valid {
		return invalidMemoryAccess
	}
	h := c.writable(c.arg(0))
	if h == nil {
		return badArgument
	}
	pairs, fine := checked(c.arg(0), b)
	if !fine {
		return badArgument
	}
	c.guest.Moved(len(b))
	for _, f := range *h {
		if f.Name[0] == ':' && !pairs.Has(f.Name) {
			pairs.Add(f.Name, f.Value)
		}
	}
	*h = pairs
	c.change(c.arg(0))
	return ok
}

// proxy_get_header_map_value(map, key, key_size, &value, &size): several values are joined by commas.
func getHeaderMapValue(c *call) status {
	key, valid := c.text(1)
	if !valid {
		return invalidMemoryAccess
	}
	h := c.header(c.arg(0))
	if h == nil {
		return badArgument
	}
	c.scanned(*h)
	values := h.Values(key)
	if len(values) == 0 {
		return notFound
	}
	return c.give(3, []byte(strings.Join(values, ",")))
}

// pair is the key and value of a call that writes a field, and the map.
func (c *call) pair() (h *loam.Header, key, value string, s status) {
	key, valid1 := c.text(1)
	value, valid2 := c.text(3)
	if !valid1 || !valid2 {
		return nil, "", "", invalidMemoryAccess
	}
	key = strings.ToLower(key)
	h = c.writable(c.arg(0))
	if h == nil || checkPair(c.arg(0), key, value) != nil {
		return nil, "", "", badArgument
	}
	c.scanned(*h)
	if !room(*h, key, value) {
		return nil, "", "", internalFailure
	}
	c.guest.Moved(len(key) + len(value))
	c.change(c.arg(0))
	return h, key, value, ok
}

// proxy_add_header_map_value(map, key, key_size, value, value_size): there is one of a pseudo-header.
func addHeaderMapValue(c *call) status {
	h, key, value, s := c.pair()
	switch {
	case s != ok:
	case key[0] == ':':
		h.Set(key, value)
	default:
		h.Add(key, value)
	}
	return s
}

// proxy_replace_header_map_value(map, key, key_size, value, value_size)
func replaceHeaderMapValue(c *call) status {
	h, key, value, s := c.pair()
	if s == ok {
		h.Set(key, value)
	}
	return s
}

// proxy_remove_header_map_value(map, key, key_size)
func removeHeaderMapValue(c *call) status {
	key, valid := c.text(1)
	if !valid {
		return invalidMemoryAccess
	}
	h := c.writable(c.arg(0))
	if h == nil || strings.HasPrefix(key, ":") { // a message always has them
		return badArgument
	}
	c.scanned(*h)
	h.Del(key)
	c.change(c.arg(0))
	return ok
}

// Streams (proxy_stream_type_t).
const (
	streamRequest = iota
	streamResponse
	streamDownstream
	streamUpstream
)

// resume goes on with what the guest paused.
func (c *call) resume(stream uint32) status {
	switch {
	case stream > streamUpstream:
		return badArgument
	case stream > streamResponse:
		return unimplemented
	case c.context == 0 || c.finished || c.response != (stream == streamResponse):
		return badArgument // it is not there yet, or no more
	}
	c.resumed = true
	return ok
}

// proxy_continue_stream(stream)
func continueStream(c *call) status { return c.resume(c.arg(0)) }

// proxy_close_stream(stream): nobody gets an answer.
func closeStream(c *call) status {
	s := c.resume(c.arg(0))
	if s == ok {
		c.closed = true
	}
	return s
}

// proxy_send_local_response(code, details, details_size, body, body_size, headers, headers_size, grpc_status) answers, and
// nothing else will.
func sendLocalResponse(c *call) status {
	_, valid1 := c.in(1)
	data, valid2 := c.in(3)
	pairs, valid3 := c.in(5)
	if !valid1 || !valid2 || !valid3 {
		return invalidMemoryAccess
	}
	c.guest.Moved(len(pairs))
	h, fine := checked(mapResponseTrailers, pairs) // as no pseudo-headers are allowed there
	if c.context == 0 || c.local || c.finished || !fine || guest.CheckStatus(int(min(c.arg(0), 1000))) != nil {
		return badArgument
	}
	if c.behind != nil {
		_ = c.behind.Close() // nobody will read it
		c.behind = nil
	}
	for _, id := range []uint32{mapResponseHeaders, mapResponseTrailers} {
		c.maps[id], c.changed[id] = nil, false
	}
	c.own = new(guest.Response)
	c.own.Status = int(c.arg(0))
	for _, f := range h {
		if !guest.OfConnection(f.Name) {
			c.own.Header = append(c.own.Header, f)
		}
	}
	c.own.Write(c.guest, data)
	c.local = true
	return ok
}
