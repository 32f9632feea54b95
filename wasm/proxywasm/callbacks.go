package proxywasm

import (
	"fmt"
	"log/slog"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	wasmapi "github.com/tetratelabs/wazero/api"
)

// A callback is a function that a guest may export.
type callback uint8

const (
	start callback = iota
	initialize
	mainFunction
	getID // Layotto's
	allocate
	malloc
	onContextCreate
	onVMStart
	onConfigure
	onRequestHeaders
	onRequestBody
	onRequestTrailers
	onResponseHeaders
	onResponseBody
	onResponseTrailers
	onHTTPCallResponse
	onDone
	onLog
	onDelete
	numCallbacks
)

// signatures are their names and types; parameters and results are all i32.
var signatures = [numCallbacks]struct {
	name            string
	params, results int
}{
	start:              {"_start", 0, 0},
	initialize:         {"_initialize", 0, 0},
	mainFunction:       {"main", 2, 1},
	getID:              {"proxy_get_id", 0, 0},
	allocate:           {"proxy_on_memory_allocate", 1, 1},
	malloc:             {"malloc", 1, 1},
	onContextCreate:    {"proxy_on_context_create", 2, 0},
	onVMStart:          {"proxy_on_vm_start", 2, 1},
	onConfigure:        {"proxy_on_configure", 2, 1},
	onRequestHeaders:   {"proxy_on_request_headers", 3, 1}, // 0.1.0: 2
	onRequestBody:      {"proxy_on_request_body", 3, 1},
	onRequestTrailers:  {"proxy_on_request_trailers", 2, 1},
	onResponseHeaders:  {"proxy_on_response_headers", 3, 1}, // 0.1.0: 2
	onResponseBody:     {"proxy_on_response_body", 3, 1},
	onResponseTrailers: {"proxy_on_response_trailers", 2, 1},
	onHTTPCallResponse: {"proxy_on_http_call_response", 5, 0},
	onDone:             {"proxy_on_done", 1, 1},
	onLog:              {"proxy_on_log", 1, 0},
	onDelete:           {"proxy_on_delete", 1, 0},
}

// fits tells whether an export is of the callback's type.
func (cb callback) fits(f wasmapi.FunctionDefinition) bool {
	is := func(types []wasmapi.ValueType, n int) bool {
		for _, t := range types {
			if t != i32 {
				return false
			}
		}
		return len(types) == n
	}
	s := signatures[cb]
	short := (cb == onRequestHeaders || cb == onResponseHeaders) && is(f.ParamTypes(), 2)
	return (short || is(f.ParamTypes(), s.params)) && is(f.ResultTypes(), s.results)
}

// find is a callback's function; nil: the guest does not export it. To look one up costs kilobytes, so it is done once,
// and only for what is called.
func (s *server) find(cb callback) wasmapi.Function {
	if !s.sought[cb] {
		s.sought[cb] = true
		if f := s.module.ExportedFunction(signatures[cb].name); f != nil && cb.fits(f.Definition()) {
			s.functions[cb] = f
		}
	}
	return s.functions[cb]
}

// run calls a callback. One that is not there results in 0.
func (s *server) run(cb callback, params ...uint64) (result uint64, err error) {
	f := s.find(cb)
	if f == nil {
		return 0, nil
	}
	var stack [5]uint64
	copy(stack[:], params)
	if err := f.CallWithStack(s.guest, stack[:]); err != nil {
		return 0, err
	}
	return uint64(uint32(stack[0])), nil
}

// root is the id of the plugin's context, which Start makes.
const root = 1

// Start implements guest.Starter: what a proxy does before its first request. The effects are in the image.
func (ABI) Start(c *guest.Call, m wasmapi.Module) error {
	s := bind(m)
	s.guest, c.State = c, s
	refuse := func(hint, format string, args ...any) error {
		return &loam.Error{Code: loam.InvalidArgument, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	for cb := range numCallbacks {
		if f := m.ExportedFunction(signatures[cb].name); f != nil && cb != mainFunction && !cb.fits(f.Definition()) {
			return refuse("build it with an SDK for Proxy-Wasm 0.1 or 0.2", "it exports %s with other parameters or results", signatures[cb].name)
		}
	}
	if s.find(allocate) == nil && s.find(malloc) == nil {
		return refuse("build it with an SDK for Proxy-Wasm 0.1 or 0.2", "it exports neither proxy_on_memory_allocate nor malloc")
	}
	begin := mainFunction
	if s.find(initialize) == nil { // else the host has called it, and _start is for commands
		begin = start
	}
	if _, err := s.run(begin); err != nil {
		return err
	}
	if s.find(getID) != nil {
		if _, err := s.run(getID); err != nil {
			return err
		}
		c.Log(slog.LevelDebug, fmt.Appendf(nil, "the guest calls itself %.200q: routes may match that in the header id", s.data))
	}
	if _, err := s.run(onContextCreate, root, 0); err != nil {
		return err
	}
	for _, f := range []struct {
		callback
		size   int
		buffer uint32
	}{
		{onVMStart, 0, bufferVMConfiguration},
		{onConfigure, len(c.Settings), bufferPluginConfiguration},
	} {
		s.configuration = f.buffer
		fine, err := s.run(f.callback, root, uint64(f.size))
		if err != nil {
			return err
		}
		if fine == 0 && s.find(f.callback) != nil {
			return refuse("its log lines say why", "%s refused its configuration of %d bytes", signatures[f.callback].name, f.size)
		}
	}
	return nil
}
