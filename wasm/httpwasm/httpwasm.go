// Package httpwasm is the HTTP handler ABI of http-wasm.io, which Dapr's Wasm middleware and Traefik's plugins speak. A
// guest handles a request by handle_request; where it passes it on, what stands behind it answers, and handle_response
// sees the answer before the client does. A function has nothing behind it, a filter has; see [guest.Call]. It can
// make no capability calls. What the host cannot do traps, as the ABI wants it.
package httpwasm

import (
	"context"
	"slices"

	"github.com/loam-run/loam/wasm/guest"
	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
)

// Name is what a Function's spec.abi says. Module is what guests import from.
const (
	Name   = "http-wasm"
	Module = "http_handler"
)

const (
	handleRequest  = "handle_request"
	handleResponse = "handle_response"
)

const (
	i32 = wasmapi.ValueTypeI32
	i64 = wasmapi.ValueTypeI64
)

// ABI is this ABI. It implements [guest.ABI].
type ABI struct{}

// Modules implements guest.ABI.
func (ABI) Modules() []string { return []string{Module} }

// Exports implements guest.ABI.
func (ABI) Exports() []guest.Export {
	return []guest.Export{
		{Name: handleRequest, Results: []wasmapi.ValueType{i64}},
		{Name: handleResponse, Params: []wasmapi.ValueType{i32, i32}},
	}
}

// callCost is what a host function bills besides what it moves, in units of fuel.
const callCost = 200

// Define implements guest.ABI.
func (ABI) Define(ctx context.Context, rt wazero.Runtime) error {
	none, one, wide := []wasmapi.ValueType(nil), []wasmapi.ValueType{i32}, []wasmapi.ValueType{i64}
	b := rt.NewHostModuleBuilder(Module)
	for _, f := range []struct {
		name    string
		params  int // each an i32
		results []wasmapi.ValueType
		early   bool // a guest may call it while it starts
		do      func(c *call)
	}{
		{"enable_features", 1, one, true, enableFeatures},
		{"get_config", 2, one, true, getConfig},
		{"log", 3, none, true, logLine},
		{"log_enabled", 1, one, true, logEnabled},
		{"get_method", 2, one, false, getMethod},
		{"set_method", 2, none, false, setMethod},
		{"get_uri", 2, one, false, getURI},
		{"set_uri", 2, none, false, setURI},
		{"get_protocol_version", 2, one, false, getProtocolVersion},
		{"get_source_addr", 2, one, false, getSourceAddr},
		{"get_header_names", 3, wide, false, getHeaderNames},
		{"get_header_values", 5, wide, false, getHeaderValues},
		{"set_header_value", 5, none, false, setHeaderValue},
		{"add_header_value", 5, none, false, addHeaderValue},
		{"remove_header", 3, none, false, removeHeader},
		{"read_body", 3, wide, false, readBody},
		{"write_body", 3, none, false, writeBody},
		{"get_status_code", 0, one, false, getStatusCode},
		{"set_status_code", 1, none, false, setStatusCode},
	} {
		b.NewFunctionBuilder().WithGoModuleFunction(wasmapi.GoModuleFunc(func(ctx context.Context, m wasmapi.Module, stack []uint64) {
			c := call{name: f.name, memory: m.Memory(), p: stack}
			if f.early {
				c.server = &server{guest: guest.Of(ctx)}
			} else {
				c.server = guest.Serving(ctx, Module+"."+f.name).State.(*server)
			}
			c.guest.Owner.Worked(callCost)
			f.do(&c)
		}), slices.Repeat(one, f.params), f.results).Export(f.name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// Bind implements guest.ABI.
func (ABI) Bind(m wasmapi.Module) guest.Server {
	return &server{handleRequest: m.ExportedFunction(handleRequest), handleResponse: m.ExportedFunction(handleResponse)}
}
