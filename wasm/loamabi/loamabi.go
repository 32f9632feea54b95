// Package loamabi is the "loam" guest ABI: a request's head and body in, a response's head and body out, and one host
// call that carries every message of the capability API. The wasm package binds it to instances; a guest's side of it
// is sdk/go. Every pointer and length comes from the guest, who may lie: what does not fit its memory traps.
package loamabi

import (
	"context"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/wasm/guest"
	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
)

// Name is what a Function's spec.abi says, and the module that guests import from.
const Name = "loam"

const (
	maxHead   = 1 << 20  // bytes of a ResponseHead
	maxCall   = 16 << 20 // bytes of a capability call's request
	maxMethod = 128      // bytes of a method's name
)

// callCost is what a host function bills besides what it moves, in units of fuel.
const callCost = 200

// ABI is this ABI. It implements [guest.ABI].
type ABI struct{}

// Modules implements guest.ABI.
func (ABI) Modules() []string { return []string{Name} }

// Exports implements guest.ABI.
func (ABI) Exports() []guest.Export { return []guest.Export{{Name: "loam_serve"}} }

// Define implements guest.ABI.
func (ABI) Define(ctx context.Context, rt wazero.Runtime) error {
	const i32, i64 = wasmapi.ValueTypeI32, wasmapi.ValueTypeI64
	one, two, six := []wasmapi.ValueType{i32}, []wasmapi.ValueType{i32, i32}, []wasmapi.ValueType{i32, i32, i32, i32, i32, i32}
	b := rt.NewHostModuleBuilder(Name)
	for _, f := range []struct {
		name            string
		params, results []wasmapi.ValueType
		do              func(s *server, m wasmapi.Memory, stack []uint64)
	}{
		{"request_head", two, one, requestHead},
		{"request_body", two, one, requestBody},
		{"response_head", two, nil, responseHead},
		{"response_body", two, one, responseBody},
		{"call", six, []wasmapi.ValueType{i64}, capabilityCall},
		{"result", two, one, result},
	} {
		name := Name + "." + f.name
		b.NewFunctionBuilder().WithGoModuleFunction(wasmapi.GoModuleFunc(func(ctx context.Context, m wasmapi.Module, stack []uint64) {
			c := guest.Serving(ctx, name)
			c.Owner.Worked(callCost)
			f.do(c.State.(*server), m.Memory(), stack)
		}), f.params, f.results).Export(f.name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// Bind implements guest.ABI.
func (ABI) Bind(m wasmapi.Module) guest.Server { return &server{run: m.ExportedFunction("loam_serve")} }

// A server serves the requests of one instance.
type server struct {
	run  wasmapi.Function
	call *guest.Call
	head []byte // of the request, made when it is first asked for; used again by the next
	body []byte // what the guest has not read yet

	answered bool // response_head was called
	response *guest.Response

	result  []byte // of the last capability call, as long as it waits
	waiting bool
}

// Serve implements guest.Server.
func (s *server) Serve(c *guest.Call) (*loam.Response, error) {
	r := new(guest.Response)
	s.call, s.body, s.head, s.response = c, c.Body, s.head[:0], r
	s.answered, s.result, s.waiting = false, nil, false
	c.State = s
	err := s.run.CallWithStack(c, nil)
	s.call, s.body, s.response, s.result = nil, nil, nil, nil
	if err != nil {
		r.Drop()
		return nil, err
	}
	return r.Done(), nil
}

func appendHead(b []byte, c *guest.Call) []byte {
	req := c.Request
	h := api.RequestHead{
		Method: req.Method, Scheme: req.Scheme, Authority: req.Authority, Path: req.Path, Query: req.RawQuery,
		Headers: make([]api.Header, len(req.Header)), Id: req.ID, Length: int64(len(c.Body)), DeadlineUnixMs: c.Until.UnixMilli(),
	}
	for i, f := range req.Header {
		h.Headers[i] = api.Header{Name: f.Name, Value: f.Value}
	}
	return h.AppendProto(b)
}

// request_head(ptr, cap) -> len
func requestHead(s *server, m wasmapi.Memory, stack []uint64) {
	to := guest.View(m, "request_head", stack[0], stack[1])
	if len(s.head) == 0 {
		s.head = appendHead(s.head, s.call)
	}
	if len(s.head) <= len(to) {
		copy(to, s.head)
		s.call.Moved(len(s.head))
	}
	stack[0] = uint64(len(s.head))
}

// request_body(ptr, cap) -> read
func requestBody(s *server, m wasmapi.Memory, stack []uint64) {
	n := copy(guest.View(m, "request_body", stack[0], stack[1]), s.body)
	s.body = s.body[n:]
	s.call.Moved(n)
	stack[0] = uint64(n)
}

// response_head(ptr, len)
func responseHead(s *server, m wasmapi.Memory, stack []uint64) {
	if s.answered {
		panic(guest.Misuse("response_head was called twice"))
	}
	if len(s.response.Data) > 0 {
		panic(guest.Misuse("response_head was called after response_body"))
	}
	s.answered = true
	b := guest.View(m, "response_head", stack[0], stack[1])
	if len(b) > maxHead {
		panic(guest.Misuse("a response head of %d bytes, more than %d", len(b), maxHead))
	}
	var h api.ResponseHead
	if err := h.ParseProto(b); err != nil {
		panic(guest.Misuse("response_head: %w", err))
	}
	if h.Status != 0 {
		if err := guest.CheckStatus(int(min(h.Status, 1<<30))); err != nil {
			panic(guest.Misuse("response_head: %w", err))
		}
	}
	s.response.Status = int(h.Status)
	s.response.Header = make(loam.Header, 0, len(h.Headers))
	for _, f := range h.Headers {
		if err := guest.CheckField(f.Name, f.Value); err != nil {
			panic(guest.Misuse("response_head: %w", err))
		}
		if !guest.OfConnection(f.Name) {
			s.response.Header.Add(f.Name, f.Value)
		}
	}
}

// response_body(ptr, len) -> 0, or -1 where nobody reads any more
func responseBody(s *server, m wasmapi.Memory, stack []uint64) {
	b := guest.View(m, "response_body", stack[0], stack[1])
	s.response.Write(s.call, b)
	stack[0] = 0
}

// call(method_ptr, method_len, in_ptr, in_len, out_ptr, out_cap) -> code<<32 | len
func capabilityCall(s *server, m wasmapi.Memory, stack []uint64) {
	name := guest.View(m, "call: method", stack[0], stack[1])
	in := guest.View(m, "call: request", stack[2], stack[3])
	to := guest.View(m, "call: answer", stack[4], stack[5]) // before anything is done that the guest would not hear of

	code, out := loam.OK, []byte(nil)
	err := error(nil)
	switch {
	case len(name) > maxMethod:
		err = loam.Errorf(loam.Unimplemented, "call", "there is no method %.*q", maxMethod, name)
	case len(in) > maxCall:
		err = loam.Errorf(loam.InvalidArgument, string(name), "a request of %d bytes, more than %d", len(in), maxCall)
	default:
		out, err = s.call.Do(string(name), in)
	}
	if err != nil {
		if code = loam.CodeOf(err); code == loam.OK {
			code = loam.Unknown
		}
		e := api.Error{Code: uint32(code), Message: err.Error(), Hint: loam.HintOf(err)}
		out = e.AppendProto(nil)
	}
	s.result, s.waiting = nil, false
	if len(out) <= len(to) {
		copy(to, out)
	} else {
		s.result, s.waiting = out, true
	}
	stack[0] = uint64(code)<<32 | uint64(uint32(len(out)))
}

// result(ptr, cap) -> len, or -1 where no answer waits or it does not fit
func result(s *server, m wasmapi.Memory, stack []uint64) {
	to := guest.View(m, "result", stack[0], stack[1])
	if !s.waiting || len(s.result) > len(to) {
		stack[0] = 1<<32 - 1
		return
	}
	n := copy(to, s.result)
	s.call.Moved(n)
	stack[0] = uint64(n)
	s.result, s.waiting = nil, false
}
