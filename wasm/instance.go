package wasm

import (
	"context"
	crand "crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	"github.com/loam-run/loam/wasm/rewrite"
	wasmapi "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// An instance is one guest. It serves one request at a time, and is never used again after one that failed.
type instance struct {
	program *program
	module  wasmapi.Module
	memory  memory                    // that can be reset; nil: it cannot
	room    experimental.LinearMemory // the memory, whether it can or not
	fuel    wasmapi.MutableGlobal
	globals []wasmapi.MutableGlobal
	server  guest.Server // made when it is first needed: a guest that waits for its first request is small
	call    guest.Call

	clean bool // it has run nothing since it was forked or reset

	stdout, stderr lineWriter

	// Of the call under way.
	given  int64     // units of fuel that it was last given
	used   int64     // and has used before
	worked int64     // of used, what host functions did since the last look at the clock
	budget int64     // units that it may use
	slice  time.Time // when its slice began
	task   loam.Task // that it runs in
	deep   bool      // the engine has given it a large stack
	broken bool      // its last call ended by a fault of the host

	profiler *profiler // who wants to know where it is; nil: nobody
}

func newInstance(p *program) *instance {
	i := &instance{program: p}
	i.call.Owner = i
	return i
}

// prepare makes ready to run in a task, until some time, for some time of the processor.
func (i *instance) prepare(task loam.Task, until time.Time, cpu time.Duration) {
	p := i.program
	c := &i.call
	c.Task, c.Until = task, until
	c.Began, c.Args, c.Env, c.Random = p.host.began, p.args, p.env, crand.Reader
	c.Stdout, c.Stderr = io.Writer(&i.stdout), io.Writer(&i.stderr)
	i.used, i.worked, i.given = 0, 0, 0
	i.task = task
	i.budget = p.host.units(cpu)
	i.slice = task.Now()
}

// run calls an export without parameters, if there is one.
func (i *instance) run(export string) error {
	f := i.module.ExportedFunction(export)
	if f == nil {
		return nil
	}
	i.refuel()
	err := f.CallWithStack(&i.call, nil)
	i.settle()
	return err
}

// begin does what there is to do before a guest's first request, where it is not a fork.
func (i *instance) begin() error {
	if c := i.program.code; c.Imaged {
		view, _ := i.module.Memory().Read(0, i.module.Memory().Size())
		c.lay(view)
		if c.Start {
			if err := i.run(rewrite.StartFunction); err != nil {
				return err
			}
		}
	}
	if i.program.hooks.initialize {
		if err := i.run(initialize); err != nil {
			return err
		}
	}
	if s, ok := i.program.abi.(guest.Starter); ok {
		i.refuel()
		err := s.Start(&i.call, i.module)
		i.settle()
		if err != nil {
			return err
		}
	}
	if i.program.hooks.start {
		return i.run(hookStart)
	}
	return nil
}

// finish ends a call.
func (i *instance) finish() {
	i.stdout.flush()
	i.stderr.flush()
	i.call.End()
	i.profiler = nil
}

// warm serves a request whose answer nobody reads.
func (i *instance) warm(p *program, w *Warmup) error {
	req := loam.NewRequest(context.Background())
	defer req.Release()
	req.Method, req.Scheme, req.Authority, req.Path, req.ID = w.Method, "http", "localhost", w.Path, "warmup"
	c := &i.call
	c.Request, c.Body, c.Limits = req, w.Body, guest.Limits{Response: 16 << 20}
	req.Length = int64(len(w.Body))
	_, err := i.serve(c)
	c.Request, c.Body = nil, nil
	return err
}

// serve lets the guest serve the request of its call.
func (i *instance) serve(c *guest.Call) (*loam.Response, error) {
	if i.server == nil {
		i.server = i.program.abi.Bind(i.module)
	}
	i.refuel()
	resp, err := i.server.Serve(c)
	i.settle()
	return resp, err
}

// restore gives a fork the globals of the image. Its random state it gets when it is used: one that waits has no page
// of memory of its own.
func (i *instance) restore() {
	for k, g := range i.globals {
		g.Set(i.program.image.globals[k])
	}
	i.clean = true
}

// refresh gives a clean fork random state of its own.
func (i *instance) refresh() {
	if !i.clean {
		return
	}
	i.clean = false
	if im := i.program.image; len(im.seeds) > 0 {
		m := i.module.Memory()
		view, _ := m.Read(0, m.Size())
		im.refresh(view)
	}
}

// reset makes the instance as it was when it was forked, and tells whether that was possible.
func (i *instance) reset() bool {
	if i.deep && i.program.host.deep.Load() > maxDeep {
		return false
	}
	if i.memory.reset(i) && !i.shrink() {
		return false
	}
	i.restore()
	return true
}

// shrink has the engine take the memory's size from the image. The engine asks for memory only where it grows.
func (i *instance) shrink() bool {
	i.memory.shrinking(true)
	_, ok := i.module.Memory().Grow(1)
	i.memory.shrinking(false)
	return ok
}

// pause lets others run where the host has worked for a slice of time on an instance whose guest has ended.
func (i *instance) pause() {
	if i.task != nil && time.Since(i.slice) >= sliceTime { // nil: it has served nothing
		i.task.Yield()
		i.slice = time.Now()
	}
}

// discard is close in the task of the instance's last call. What a guest wrote to takes milliseconds to give back, where
// it was much.
func (i *instance) discard() {
	if m, ok := i.room.(pages); ok {
		m.drop(i)
	}
	i.close()
}

// close frees the instance. Nothing of it may be under way.
func (i *instance) close() {
	_ = i.module.Close(context.Background()) // it has no files, whose closing alone can fail
	if i.deep {
		i.program.host.deep.Add(-1)
	}
}

// What a slice is.
const (
	sliceFuel = rewrite.MinFuel       // units after which the clock is looked at
	sliceTime = 80 * time.Microsecond // after which others run
	maxStack  = 512 << 10             // bytes, as wasmtime gives; the engine moves a stack that grows, which holds up the loop

	// A stack of more bytes is a large one. The engine never takes one back, and each that it makes is garbage of twice the
	// size, so a few instances are kept with theirs: a guest that recurses without end makes little work for the collector.
	deepStack = 128 << 10
	maxDeep   = 32 // of a host, so at most 20 MB
)

// An overrun is what ends a guest that used up what it was given.
var (
	errCPU   = errors.New("out of processor time")
	errStack = errors.New("stack overflow")
)

func (i *instance) refuel() {
	i.refresh()
	fuel := rewrite.NewFuel(sliceFuel)
	if i.given = sliceFuel; i.profiler != nil {
		fuel, i.given = firstSlice()
	}
	i.fuel.Set(uint64(fuel))
}

// settle bills what is not billed yet when the guest has returned.
func (i *instance) settle() {
	i.used += i.given - rewrite.Fuel(i.fuel.Get()).Left()
	i.given = 0
}

// yield is what the guest calls when its fuel is used up.
func (i *instance) yield(f rewrite.Fuel) rewrite.Fuel {
	i.used += i.given - f.Left()
	i.given = sliceFuel
	if stack := f.Stack(); stack > deepStack {
		if !i.deep {
			i.deep = true
			i.program.host.deep.Add(1)
		}
		if stack > maxStack {
			i.call.Used.Limits[guest.LimitStack]++
			panic(errStack)
		}
	}
	i.breathe()
	return f.Refilled(sliceFuel)
}

// Worked implements guest.Owner.
func (i *instance) Worked(units int64) {
	i.used += units
	if i.worked += units; i.worked > sliceFuel {
		i.worked = 0
		i.breathe()
	}
}

// breathe looks whether the guest may go on, and lets others run once a slice of time is over.
func (i *instance) breathe() {
	c := &i.call
	if i.used > i.budget {
		c.Used.Limits[guest.LimitCPU]++
		panic(errCPU)
	}
	now := time.Now()
	if now.Sub(i.slice) < sliceTime {
		return
	}
	c.Task.Yield()
	i.slice = time.Now()
	if err := c.Over(i.slice); err != nil {
		panic(err)
	}
}
