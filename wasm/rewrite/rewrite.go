// Package rewrite makes of a core WebAssembly module one that a host can run among strangers: it parses the module,
// checks what the rewriting relies upon, and writes another module that does the same and besides
//
//   - is metered: it counts its work in a global and calls the host when a slice of work is used up, so that no loop,
//     recursion or bulk operation runs on without the host (meter.go);
//   - can be forked: its active data segments are handed to the host, who lays them into a memory image once, and all
//     its other state is in exported globals (image.go);
//   - has no tables, where they never change: an indirect call becomes a br_table over direct calls (table.go).
//
// Results, traps and memory are those of the module as it was. Every module is metered. One that cannot be imaged takes
// the plain path: it is metered, keeps its data segments, tables and start function, and [Module].Reason says why.
//
// The operand types are not checked: the engine that compiles the output does that, and nothing here makes a module
// valid that was not. WebAssembly 2.0 is taken, without threads, exceptions, tail calls and relaxed SIMD.
package rewrite

import (
	"github.com/loam-run/loam"
)

// What the rewritten module imports and exports. A guest that uses a name of this prefix itself is refused.
const (
	Prefix = "loam:"

	// HostModule is the module name of what the rewritten module imports: [Yield] and, where its tables were removed,
	// [Trapped].
	HostModule = Prefix + "host"

	// Yield is called when a slice is used up: (i64) -> (i64), [Fuel] to Fuel. The host bills what was used, gives way to
	// others, and returns a refilled Fuel; or ends the guest by a panic, after which the instance is never used again.
	Yield = "yield"

	// Trapped is called for the traps of an indirect call whose table was removed: (i32) -> (), the number of a [Trap].
	// The host panics with that Trap; it must not return.
	Trapped = "trap"

	// FuelGlobal is the export name of the mutable i64 global that holds the [Fuel]. It is zero in a new instance, so
	// the host sets it before it calls in; otherwise the first thing the guest does is yield. It is not among
	// [Module].Globals. While the guest calls an import it is up to date and may be read and changed.
	FuelGlobal = Prefix + "fuel"

	// StartFunction is the export name of what was the start function of an imaged module: () -> (). The host calls it
	// once, when the data is laid and before anything else, and then takes the image.
	StartFunction = Prefix + "start"
)

// A Fuel is what the guest's global holds: how much work is left before the next yield, and how deep its stack is.
// The guest's code changes both in one operation, which is why they are one number.
type Fuel int64

// depthBits is how many of a Fuel's low bits are the depth. The depth is in units of 16 bytes: 256 MiB.
const depthBits = 24

// MinFuel and MaxFuel are the least and the most that a guest is given at a time: with less it might ask again
// without having done anything.
const (
	MinFuel = maxCost
	MaxFuel = 1 << 38
)

// NewFuel is the Fuel of an instance with an empty stack and n units of work to do, but between MinFuel and MaxFuel.
// A unit is about one machine instruction.
func NewFuel(n int64) Fuel { return Fuel(min(max(n, MinFuel), MaxFuel) << depthBits) }

// Left is the work that is left, in units. When the guest yields it is less than what comes next takes: mostly, but
// not always, negative, as the guest has then done that much more. What it used is what it was given less Left.
func (f Fuel) Left() int64 { return int64(f) >> depthBits }

// Refilled is f with n units of work left, as in [NewFuel], and the stack as deep as it is.
func (f Fuel) Refilled(n int64) Fuel { return NewFuel(n) | f&(1<<depthBits-1) }

// Stack is about how many bytes of native stack the guest's recursive functions occupy. It is estimated from above,
// for functions that can call themselves, through others or not; the rest of the stack is bounded by the module's
// size. The host looks at it in [Yield] and ends the guest that is too deep: between two yields it grows by at most
// some 32 bytes for each unit of fuel.
func (f Fuel) Stack() int64 { return int64(f&(1<<depthBits-1)) << 4 }

// A Trap is the reason of a trap that the rewritten module cannot cause by itself.
type Trap uint32

// The traps of an indirect call.
const (
	UndefinedElement Trap = iota // no function there, or beyond the end of the table
	TypeMismatch                 // a function of another type
)

// Error is the text that wazero has for the same trap.
func (t Trap) Error() string {
	if t == TypeMismatch {
		return "indirect call type mismatch"
	}
	return "invalid table access"
}

// Options say what of a module is rewritten besides metering, which always is.
type Options struct {
	// Image takes the active data segments out and exports the globals, if all state of the module can be carried over
	// to another instance that way.
	Image bool

	// Tables removes tables which nothing can change after instantiation.
	Tables bool

	// Closed says that nobody but the host reaches what the module exports, so that an exported table may be removed
	// and its export with it.
	Closed bool

	// Names keeps the function names of the name section in the rewritten module, so that the engine's stack traces
	// have them. Without it see [Module.FunctionNames].
	Names bool

	// Offsets records where each instruction came from, for [Module.Offset]. It takes memory; do it when it is asked for.
	Offsets bool
}

// A Module is the outcome of [Rewrite]. It does not change afterwards and may be used by many.
// Data and Custom are slices of the binary that was given to Rewrite.
type Module struct {
	Binary []byte // the rewritten module

	Imaged bool   // Data, Globals and Start are all there is to lay, save and restore
	Reason string // why it is not imaged though Options.Image asked for it

	Data    []Segment // to be laid into memory in this order, before Start; nil if not imaged
	Globals []Global  // every mutable global in index order; nil if not imaged
	Start   bool      // the host has to call StartFunction

	TableRemoved bool
	TableReason  string // why not, though Options.Tables asked for it

	Memory  *Memory  // nil: it has none
	Imports []Import // as in the module given: Yield and Trapped are not among them
	Exports []Export // as in the module given

	Custom []Custom // name section, DWARF and whatever else; in the rewritten module there are none of them

	imports  uint32 // functions imported by the module as it was
	inserted uint32 // functions imported besides
	funcs    uint32 // functions of the module as it was
	offsets  []offset
	codeEnd  uint32 // of the functions of the module as it was, in the rewritten code section
}

// A Segment is a run of bytes that stood in an active data segment.
type Segment struct {
	Offset uint32
	Bytes  []byte
}

// A ValueType is a type's code in the binary format.
type ValueType byte

// The value types.
const (
	I32       ValueType = 0x7f
	I64       ValueType = 0x7e
	F32       ValueType = 0x7d
	F64       ValueType = 0x7c
	V128      ValueType = 0x7b
	FuncRef   ValueType = 0x70
	ExternRef ValueType = 0x6f
)

// A Global is a mutable global whose value belongs to the image.
type Global struct {
	Export string // its name among the rewritten module's exports
	Type   ValueType

	index uint32
}

// A Memory is what the module says about its memory.
type Memory struct {
	Min, Max uint32 // pages of 64 KiB; Max is 65536 where the module does not say
	Imported bool
}

// A Kind is what is imported or exported.
type Kind byte

// The kinds.
const (
	KindFunction Kind = iota
	KindTable
	KindMemory
	KindGlobal
)

// An Import is one thing the module needs.
type Import struct {
	Module, Name string
	Kind         Kind
}

// An Export is one thing the module offers.
type Export struct {
	Name  string
	Kind  Kind
	Index uint32 // in the module as it was
}

// A Custom is a custom section.
type Custom struct {
	Name string
	Data []byte
}

// Rewrite reads a core module in the binary format and writes the module described above. Its error is a
// [loam.Error] of code InvalidArgument, for whatever bytes: with it nothing was written. Memory and time are in
// proportion to len(binary).
func Rewrite(binary []byte, o Options) (*Module, error) {
	m, err := parse(binary)
	var out *Module
	if err == nil {
		out, err = m.rewrite(o)
	}
	if err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: "rewrite.Rewrite", Err: err, Hint: "build the module again for core WebAssembly 2.0, as a module, not a component"}
	}
	return out, nil
}
