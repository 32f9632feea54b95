// Package guest is what the guest host and the guest ABIs say to each other. Package wasm keeps instances and gives one
// of them a [Call] for each request; an [ABI], one package each beside this one, makes of it what the guest's side
// expects. All that a guest can do, capability calls and waiting included, goes through its Call, where it is counted
// and limited. Pointers and lengths come from guests, who may lie: see [View].
package guest

import (
	"context"
	"fmt"

	"github.com/loam-run/loam"
	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
)

// An ABI is how host and guest speak: what the host offers, what the guest must export, how a request is served. It holds
// nothing of a function or an instance and is used by all of them at once.
type ABI interface {
	// Modules are the names of the modules that its guests may import from, besides WASI's.
	Modules() []string
	// Exports are the functions that a guest must export.
	Exports() []Export
	// Define offers the host functions to the modules of rt, once for each runtime.
	Define(ctx context.Context, rt wazero.Runtime) error
	// Bind makes ready to serve requests by the instance m.
	Bind(m wasmapi.Module) Server
}

// A Starter is an ABI whose guests have more to do before their first request than to initialize themselves. Start
// comes once for each instance that is no fork, after _initialize, with a call that has no request; what it leaves in the
// guest's memory is in the image that others are forked from.
type Starter interface {
	Start(c *Call, m wasmapi.Module) error
}

// A Once is an ABI whose guests run from their begin to their end for each request, so that no instance can keep anything
// for the next.
type Once interface{ Once() }

// An Export is a function of a guest.
type Export struct {
	Name            string
	Params, Results []wasmapi.ValueType
}

// A Server serves requests by one instance, one at a time. With an error the instance is not used again; an error of a
// host function that panicked with a *[loam.Error] is in its chain. What the response holds must not be the guest's
// memory, which is the next request's when Serve returned.
type Server interface {
	Serve(c *Call) (*loam.Response, error)
}

// Misuse is a guest that does not keep to an ABI. Host functions panic with it; the engine makes a trap of that.
func Misuse(format string, args ...any) error {
	return &loam.Error{
		Code: loam.Internal, Err: fmt.Errorf("the guest broke its ABI: "+format, args...),
		Hint: "build it with Loam's SDK, or see the ABI's description",
	}
}

// View is a range of the guest's memory; what is named is for the trap where it lies outside. It is valid until the
// guest runs again. What is written to it has to be written by code of this process: a system call told to write there
// fails, as the memory may be one whose writes are watched.
func View(m wasmapi.Memory, name string, ptr, size uint64) []byte {
	b, ok := m.Read(uint32(ptr), uint32(size))
	if !ok {
		panic(Misuse("%s: %d bytes at %d lie outside its memory of %d bytes", name, uint32(size), uint32(ptr), m.Size()))
	}
	return b
}
