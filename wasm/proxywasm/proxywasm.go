// Package proxywasm is the guest ABI that Envoy, MOSN and Layotto speak: Proxy-Wasm 0.2.1, with the names of 0.2.0 and
// 0.1.0, and with the two calls that Layotto adds for functions. The HTTP context's callbacks carry a request; what it
// ends at is the guest's own response, or what stands behind it where it is a filter, see [guest.Call].
//
// Each host function works or returns a status of the specification that says why not; none returns OK and does nothing.
// What the guest swallows is not swallowed: a request without an answer, or one whose only answer is an empty body after
// a capability call failed, is an error.
package proxywasm

import (
	"context"

	"github.com/loam-run/loam/wasm/guest"
	"github.com/loam-run/loam/wasm/wasi"
	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
)

// Name is what a Function's spec.abi says. Module is what guests import from.
const (
	Name   = "proxy-wasm"
	Module = "env"
)

const (
	i32 = wasmapi.ValueTypeI32
	i64 = wasmapi.ValueTypeI64
)

// A status is what a host function results in (proxy_status_t).
type status uint32

const (
	ok                  status = 0
	notFound            status = 1
	badArgument         status = 2
	invalidMemoryAccess status = 6
	internalFailure     status = 10
	unimplemented       status = 12
)

// ABI is this ABI. It implements [guest.ABI] and [guest.Starter].
type ABI struct{}

// Modules implements guest.ABI.
func (ABI) Modules() []string { return []string{Module, wasi.Unstable} }

// Exports implements guest.ABI. All callbacks are optional; that there is an allocator, Start looks.
func (ABI) Exports() []guest.Export { return nil }

// callCost is what a host function bills besides what it moves, in units of fuel.
const callCost = 200

// Define implements guest.ABI.
func (ABI) Define(ctx context.Context, rt wazero.Runtime) error {
	b := rt.NewHostModuleBuilder(Module)
	for _, f := range []struct {
		name   string
		params string // i: i32, I: i64
		do     func(c *call) status
	}{
		{"proxy_log", "iii", logLine},
		{"proxy_get_log_level", "i", getLogLevel},
		{"proxy_get_current_time_nanoseconds", "i", getTime},
		{"proxy_set_tick_period_milliseconds", "i", setTickPeriod},
		{"proxy_done", "", done},
		{"proxy_set_effective_context", "i", setEffectiveContext},
		{"proxy_get_status", "iii", getStatus},

		{"proxy_get_configuration", "ii", getConfiguration}, // 0.1.0
		{"proxy_get_buffer_status", "iii", getBufferStatus},
		{"proxy_get_buffer_bytes", "iiiii", getBufferBytes},
		{"proxy_set_buffer_bytes", "iiiii", setBufferBytes},

		{"proxy_get_header_map_size", "ii", getHeaderMapSize},
		{"proxy_get_header_map_pairs", "iii", getHeaderMapPairs},
		{"proxy_set_header_map_pairs", "iii", setHeaderMapPairs},
		{"proxy_get_header_map_value", "iiiii", getHeaderMapValue},
		{"proxy_add_header_map_value", "iiiii", addHeaderMapValue},
		{"proxy_replace_header_map_value", "iiiii", replaceHeaderMapValue},
		{"proxy_remove_header_map_value", "iii", removeHeaderMapValue},

		{"proxy_get_property", "iiii", getProperty},
		{"proxy_set_property", "iiii", setProperty},

		{"proxy_continue_stream", "i", continueStream},
		{"proxy_continue_request", "", func(c *call) status { return c.resume(streamRequest) }},   // 0.1.0
		{"proxy_continue_response", "", func(c *call) status { return c.resume(streamResponse) }}, // 0.1.0
		{"proxy_close_stream", "i", closeStream},
		{"proxy_send_local_response", "iiiiiiii", sendLocalResponse},
		{"proxy_clear_route_cache", "", never(unimplemented)}, // 0.1.0; the route was chosen before the function was called

		{"proxy_http_call", "iiiiiiiiii", httpCall},
		{"proxy_get_state", "iiiiii", getState},             // Layotto's
		{"proxy_invoke_service", "iiiiiiii", invokeService}, // Layotto's

		{"proxy_grpc_call", "iiiiiiiiiiii", never(unimplemented)},
		{"proxy_grpc_stream", "iiiiiiiii", never(unimplemented)},
		{"proxy_grpc_send", "iiii", never(notFound)}, // there is no such stream
		{"proxy_grpc_cancel", "i", never(notFound)},
		{"proxy_grpc_close", "i", never(notFound)},
		{"proxy_set_shared_data", "iiiii", never(unimplemented)}, // instances share nothing but state that was granted
		{"proxy_get_shared_data", "iiiii", never(unimplemented)},
		{"proxy_register_shared_queue", "iii", never(unimplemented)},
		{"proxy_resolve_shared_queue", "iiiii", never(unimplemented)},
		{"proxy_enqueue_shared_queue", "iii", never(notFound)}, // there is no such queue
		{"proxy_dequeue_shared_queue", "iii", never(notFound)},
		{"proxy_define_metric", "iiii", never(unimplemented)},
		{"proxy_record_metric", "iI", never(notFound)}, // there is no such metric
		{"proxy_increment_metric", "iI", never(notFound)},
		{"proxy_get_metric", "ii", never(notFound)},
		{"proxy_call_foreign_function", "iiiiii", never(notFound)}, // there is no such function
	} {
		params := make([]wasmapi.ValueType, len(f.params))
		for i, p := range f.params {
			params[i] = i32
			if p == 'I' {
				params[i] = i64
			}
		}
		b.NewFunctionBuilder().WithGoModuleFunction(wasmapi.GoModuleFunc(func(ctx context.Context, m wasmapi.Module, stack []uint64) {
			g := guest.Of(ctx)
			g.Owner.Worked(callCost)
			s, _ := g.State.(*server)
			if s == nil { // its runtime starts
				s = bind(m)
				g.State = s
			}
			s.guest = g
			stack[0] = uint64(f.do(&call{s, f.name, m.Memory(), stack}))
		}), params, []wasmapi.ValueType{i32}).Export(f.name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return err
	}
	return wasi.DefineUnstable(ctx, rt)
}

// never is a host function that does nothing and says so.
func never(why status) func(*call) status { return func(*call) status { return why } }

// Bind implements guest.ABI.
func (ABI) Bind(m wasmapi.Module) guest.Server { return bind(m) }
