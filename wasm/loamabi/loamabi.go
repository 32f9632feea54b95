// Package loamabi is the "loam" guest ABI: a request's head and body in, a response's head and body out, and one host
// call that carries every message of the capability API. The wasm package binds it to instances; a guest's side of it
// is sdk/go. Every pointer and length comes from the guest, who may lie: what does not fit its memory traps.
package loamabi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
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

// An ABI serves the instances of one function.
type ABI struct {
	Methods     loam.Methods
	Caller      *loam.Caller // who the capability calls are made as
	MaxResponse int          // bytes of a response's body
}

// Exports are the functions a guest must export, all of type () -> ().
func (a *ABI) Exports() []string { return []string{"loam_serve"} }

// Define offers the host functions to the modules of rt.
func (a *ABI) Define(ctx context.Context, rt wazero.Runtime) error {
	const i32, i64 = wasmapi.ValueTypeI32, wasmapi.ValueTypeI64
	one, two, six := []wasmapi.ValueType{i32}, []wasmapi.ValueType{i32, i32}, []wasmapi.ValueType{i32, i32, i32, i32, i32, i32}
	b := rt.NewHostModuleBuilder(Name)
	for _, f := range []struct {
		name            string
		params, results []wasmapi.ValueType
		do              func(c *call, m wasmapi.Memory, stack []uint64)
	}{
		{"request_head", two, one, requestHead},
		{"request_body", two, one, requestBody},
		{"response_head", two, nil, responseHead},
		{"response_body", two, one, responseBody},
		{"call", six, []wasmapi.ValueType{i64}, capabilityCall},
		{"result", two, one, result},
	} {
		b.NewFunctionBuilder().WithGoModuleFunction(wasmapi.GoModuleFunc(func(ctx context.Context, m wasmapi.Module, stack []uint64) {
			c, ok := ctx.Value(callKey{}).(*call)
			if !ok {
				panic(misuse("it called %s.%s while no request was being served", Name, f.name))
			}
			f.do(c, m.Memory(), stack)
		}), f.params, f.results).Export(f.name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// Bind returns what serves one request, whose whole body is given, by the instance m. It may be called again only if
// it returned no error.
func (a *ABI) Bind(m wasmapi.Module) func(ctx context.Context, req *loam.Request, body []byte) (*loam.Response, error) {
	serve := m.ExportedFunction("loam_serve")
	var head []byte // used again by the next request
	return func(ctx context.Context, req *loam.Request, body []byte) (*loam.Response, error) {
		h := requestHeadOf(ctx, req, len(body))
		head = h.AppendProto(head[:0])
		c := &call{Context: ctx, abi: a, head: head, body: body}
		if err := serve.CallWithStack(c, nil); err != nil {
			return nil, err
		}
		return c.answer(), nil
	}
}

func requestHeadOf(ctx context.Context, req *loam.Request, length int) api.RequestHead {
	h := api.RequestHead{
		Method: req.Method, Scheme: req.Scheme, Authority: req.Authority, Path: req.Path, Query: req.RawQuery,
		Headers: make([]api.Header, len(req.Header)), Id: req.ID, Length: int64(length),
	}
	for i, f := range req.Header {
		h.Headers[i] = api.Header{Name: f.Name, Value: f.Value}
	}
	if t, ok := ctx.Deadline(); ok {
		h.DeadlineUnixMs = t.UnixMilli()
	}
	return h
}

// A call is one request under way. It is the context that the engine hands to host functions, so that they find it
// without a table.
type call struct {
	context.Context
	abi  *ABI
	head []byte
	body []byte // what the guest has not read yet

	answered bool // response_head was called
	response loam.Response
	written  []byte

	result  []byte // of the last capability call, as long as it waits
	waiting bool
}

type callKey struct{}

// Value finds the call itself.
func (c *call) Value(key any) any {
	if _, ok := key.(callKey); ok {
		return c
	}
	return c.Context.Value(key)
}

func (c *call) answer() *loam.Response {
	r := c.response
	if r.Status == 0 {
		r.Status = 200
	}
	r.Length = int64(len(c.written))
	if len(c.written) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(c.written))
	}
	return &r
}

// misuse is a guest that does not keep to the ABI. Host functions panic with it; the engine turns that into a trap.
func misuse(format string, args ...any) error {
	return &loam.Error{
		Code: loam.Internal, Err: fmt.Errorf("the guest broke the "+Name+" ABI: "+format, args...),
		Hint: "build it with Loam's SDK, or see the ABI's description",
	}
}

// view is a range of the guest's memory. It is valid until the guest runs again.
func view(m wasmapi.Memory, name string, ptr, size uint64) []byte {
	b, ok := m.Read(uint32(ptr), uint32(size))
	if !ok {
		panic(misuse("%s: %d bytes at %d lie outside its memory of %d bytes", name, uint32(size), uint32(ptr), m.Size()))
	}
	return b
}

// request_head(ptr, cap) -> len
func requestHead(c *call, m wasmapi.Memory, stack []uint64) {
	to := view(m, "request_head", stack[0], stack[1])
	if len(c.head) <= len(to) {
		copy(to, c.head)
	}
	stack[0] = uint64(len(c.head))
}

// request_body(ptr, cap) -> read
func requestBody(c *call, m wasmapi.Memory, stack []uint64) {
	n := copy(view(m, "request_body", stack[0], stack[1]), c.body)
	c.body = c.body[n:]
	stack[0] = uint64(n)
}

// response_head(ptr, len)
func responseHead(c *call, m wasmapi.Memory, stack []uint64) {
	if c.answered {
		panic(misuse("response_head was called twice"))
	}
	if len(c.written) > 0 {
		panic(misuse("response_head was called after response_body"))
	}
	c.answered = true
	b := view(m, "response_head", stack[0], stack[1])
	if len(b) > maxHead {
		panic(misuse("a response head of %d bytes, more than %d", len(b), maxHead))
	}
	var h api.ResponseHead
	if err := h.ParseProto(b); err != nil {
		panic(misuse("response_head: %w", err))
	}
	if h.Status != 0 && (h.Status < 200 || h.Status > 599) {
		panic(misuse("status %d; a response has 200 to 599", h.Status))
	}
	c.response.Status = int(h.Status)
	c.response.Header = make(loam.Header, 0, len(h.Headers))
	for _, f := range h.Headers {
		if err := checkField(f); err != nil {
			panic(misuse("response_head: %w", err))
		}
		if !ofConnection(f.Name) {
			c.response.Header.Add(f.Name, f.Value)
		}
	}
}

// checkField keeps a guest from writing lines of its own into a connection (RFC 9110, section 5).
func checkField(f api.Header) error {
	if f.Name == "" {
		return errors.New("a header field without a name")
	}
	for i := range len(f.Name) {
		if ch := f.Name[i]; ch <= ' ' || ch >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, ch) >= 0 {
			return fmt.Errorf("header field name %q", f.Name)
		}
	}
	for i := range len(f.Value) {
		if ch := f.Value[i]; ch < ' ' && ch != '\t' || ch == 0x7f {
			return fmt.Errorf("a control character in the value of header field %s", f.Name)
		}
	}
	return nil
}

// ofConnection names the fields that belong to a connection, which the guest has none of: the host knows the length.
func ofConnection(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// response_body(ptr, len) -> 0, or -1 where nobody reads any more
func responseBody(c *call, m wasmapi.Memory, stack []uint64) {
	b := view(m, "response_body", stack[0], stack[1])
	if len(b) > c.abi.MaxResponse-len(c.written) {
		panic(&loam.Error{
			Code: loam.ResourceExhausted, Err: fmt.Errorf("its response's body is larger than %d bytes", c.abi.MaxResponse),
			Hint: "answer in pages, or keep large data elsewhere",
		})
	}
	if c.Err() != nil {
		stack[0] = 1<<32 - 1
		return
	}
	c.written = append(c.written, b...)
	stack[0] = 0
}

// call(method_ptr, method_len, in_ptr, in_len, out_ptr, out_cap) -> code<<32 | len
func capabilityCall(c *call, m wasmapi.Memory, stack []uint64) {
	name := view(m, "call: method", stack[0], stack[1])
	in := view(m, "call: request", stack[2], stack[3])
	view(m, "call: answer", stack[4], stack[5]) // before anything is done that the guest would not hear of

	code, out := loam.OK, []byte(nil)
	err := error(nil)
	method, ok := loam.Method(nil), false
	if len(name) <= maxMethod {
		method, ok = c.abi.Methods[string(name)]
	}
	switch {
	case !ok:
		err = loam.Errorf(loam.Unimplemented, "call", "there is no method %.*q", maxMethod, name)
	case len(in) > maxCall:
		err = loam.Errorf(loam.InvalidArgument, string(name), "a request of %d bytes, more than %d", len(in), maxCall)
	default:
		out, err = method(c.Context, c.abi.Caller, bytes.Clone(in)) // the memory is the guest's again before a driver is done with it
	}
	if err != nil {
		if code = loam.CodeOf(err); code == loam.OK {
			code = loam.Unknown
		}
		e := api.Error{Code: uint32(code), Message: err.Error(), Hint: loam.HintOf(err)}
		out = e.AppendProto(nil)
	}
	c.result, c.waiting = nil, false
	if to := view(m, "call: answer", stack[4], stack[5]); len(out) <= len(to) {
		copy(to, out)
	} else {
		c.result, c.waiting = out, true
	}
	stack[0] = uint64(code)<<32 | uint64(uint32(len(out)))
}

// result(ptr, cap) -> len, or -1 where no answer waits or it does not fit
func result(c *call, m wasmapi.Memory, stack []uint64) {
	to := view(m, "result", stack[0], stack[1])
	if !c.waiting || len(c.result) > len(to) {
		stack[0] = 1<<32 - 1
		return
	}
	stack[0] = uint64(copy(to, c.result))
	c.result, c.waiting = nil, false
}
