// Package wasm is the guest host: it compiles a function's Wasm module, starts it once, and gives every request an
// instance that is a fork of that start, within limits of memory, processor, time and number. A guest runs in its
// request's task and gives way to others at each slice of its work; no guest can hold up the process. What is spoken
// with a guest is an ABI's, one package each below this one; guest is the seam between them. It knows nothing of routes
// or resources; target/function is who calls it.
package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	"github.com/loam-run/loam/wasm/httpwasm"
	"github.com/loam-run/loam/wasm/loamabi"
	"github.com/loam-run/loam/wasm/proxywasm"
	"github.com/loam-run/loam/wasm/rewrite"
	"github.com/loam-run/loam/wasm/wagi"
	"github.com/loam-run/loam/wasm/wasi"
	"github.com/tetratelabs/wazero"
)

// abis lists the ABIs by the name that a Function's spec.abi gives.
func abis() map[string]guest.ABI {
	return map[string]guest.ABI{
		loamabi.Name:   loamabi.ABI{},
		wagi.Name:      wagi.ABI{},
		httpwasm.Name:  httpwasm.ABI{},
		proxywasm.Name: proxywasm.ABI{},
	}
}

// Options are what all functions of a process share.
type Options struct {
	// CacheDir keeps compiled code between runs; empty: it is compiled anew in each. What lies there runs as native code
	// in this process, so the folder must be this user's alone. Processes may share it.
	CacheDir string
	Log      *slog.Logger // where the lines that guests print go; nil: nowhere
	Usage    func(Usage)  // is told of each call when it is done, from its task: it does not wait; nil: nobody is
}

// A Host compiles modules and keeps what runs of them. It is safe for concurrent use.
type Host struct {
	log    *slog.Logger
	usage  func(Usage)
	codes  codeCache
	native wazero.CompilationCache
	mapper *mapper
	abis   map[string]guest.ABI
	began  time.Time
	rate   float64      // units of fuel in a nanosecond
	deep   atomic.Int64 // instances with a large stack

	buffers guest.Buffers

	mu       sync.Mutex
	engines  [2]wazero.Runtime // compiling, interpreting; made when they are first needed
	programs map[programKey]*program
	modules  map[*Module]struct{} // that may have something to tidy

	stop context.CancelFunc // ends tidying
	done sync.WaitGroup
}

// NewHost opens the compilation cache. The caller closes the host after all its modules.
func NewHost(o Options) (*Host, error) {
	h := &Host{
		log: o.Log, usage: o.Usage, abis: abis(), began: time.Now(),
		programs: map[programKey]*program{}, modules: map[*Module]struct{}{},
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if err := h.open(o.CacheDir); err != nil {
		return nil, errors.Join(err, h.codes.close())
	}
	h.mapper = newMapper()
	if h.mapper.how != bestReset {
		h.log.Info("guests are made clean in a slower way than this program knows", "reset", h.mapper.how)
	}
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	h.done.Go(func() { h.tidy(ctx) })
	return h, nil
}

// trim closes the instances that nobody needed since it was last called.
func (h *Host) trim() {
	h.mu.Lock()
	programs := slices.Collect(maps.Values(h.programs))
	h.mu.Unlock()
	for _, p := range programs {
		p.pool.trim()
	}
}

// bestReset is the best way to make an instance clean.
const bestReset = "PAGEMAP_SCAN"

// open opens the cache, and measures the processor.
func (h *Host) open(dir string) error {
	if h.codes.dir = dir; dir == "" {
		tmp, err := os.MkdirTemp("", "loam-code-")
		if err != nil {
			return loam.Errorf(loam.FailedPrecondition, "make a folder for compiled code", "%w", err)
		}
		h.codes.dir, h.codes.own = tmp, true
	} else if err := privateDir(dir); err != nil {
		return err
	}
	h.codes.sweep()
	native, err := wazero.NewCompilationCacheWithDir(h.codes.dir)
	if err != nil {
		return loam.Errorf(loam.FailedPrecondition, "open the compilation cache", "%w", err)
	}
	h.native = native
	ctx := context.Background()
	wrong := func(err error) error { return loam.Errorf(loam.Internal, "calibrate the meter", "%w", err) }
	spinning, err := rewrite.Rewrite(spin, rewrite.Options{})
	if err != nil {
		return wrong(err)
	}
	tmp, err := os.MkdirTemp(h.codes.dir, "tmp-")
	if err != nil {
		return wrong(err)
	}
	defer func() { _ = os.RemoveAll(tmp) }() // sweep gets what stays
	// The engine's name for the native code of a module that is always the same tells the engine's version and what the
	// processor can do.
	path, err := compileAlone(ctx, tmp, spinning.Binary)
	if err != nil {
		return wrong(err)
	}
	h.codes.build = identity() + path[len(tmp):]
	if h.rate, err = calibrate(spinning.Binary); err != nil {
		return wrong(err)
	}
	return nil
}

// Close frees what was compiled.
func (h *Host) Close() error {
	h.stop()
	h.done.Wait()
	ctx := context.Background()
	var errs []error
	for _, e := range h.engines {
		if e != nil {
			errs = append(errs, e.Close(ctx))
		}
	}
	errs = append(errs, h.native.Close(ctx))
	h.mapper.close()
	return errors.Join(append(errs, h.codes.close())...)
}

// engine is the runtime that guests live in, with all that they may import.
func (h *Host) engine(interpret bool) (wazero.Runtime, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := 0
	if interpret {
		at = 1
	}
	if e := h.engines[at]; e != nil {
		return e, nil
	}
	ctx := context.Background()
	// How much memory a guest may have is its allocator's to say, as all functions share the runtime.
	e := wazero.NewRuntimeWithConfig(ctx, engineConfig(interpret).WithCompilationCache(h.native))
	errs := []error{wasi.Define(ctx, e), defineMeter(ctx, e)}
	for _, a := range h.abis {
		errs = append(errs, a.Define(ctx, e))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(loam.Errorf(loam.Internal, "make the engine", "%w", err), e.Close(ctx))
	}
	h.engines[at] = e
	return e, nil
}

// tidyEvery is how often what is not used is looked for.
const tidyEvery = time.Second

// tidy closes what was not used for a while, until ctx ends.
func (h *Host) tidy(ctx context.Context) {
	t := time.NewTicker(tidyEvery)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			h.mu.Lock()
			modules := slices.Collect(maps.Keys(h.modules))
			h.mu.Unlock()
			for _, m := range modules {
				m.tidy(now)
			}
			h.trim()
		case <-ctx.Done():
			return
		}
	}
}

// privateDir makes dir, or checks that the one there is a folder of this user that nobody else can enter: who can write
// there decides what this process executes.
func privateDir(dir string) error {
	refuse := func(format string, args ...any) error {
		return &loam.Error{
			Code: loam.FailedPrecondition, Op: "open the compilation cache " + dir, Err: fmt.Errorf(format, args...),
			Hint: "remove the folder, it will be made anew; or: chmod 700 " + dir,
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return refuse("%w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return refuse("%w", err)
	}
	if !info.IsDir() {
		return refuse("it is not a folder")
	}
	if perm := info.Mode().Perm(); perm != 0o700 {
		return refuse("its mode is %o and must be 700: it holds native code that this process runs", perm)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return refuse("it belongs to user %d, not to %d who runs this process", st.Uid, os.Geteuid())
	}
	return nil
}

// checkMagic tells a core module from everything else.
func checkMagic(binary []byte) error {
	switch {
	case len(binary) == 0:
		return errors.New("the file is empty")
	case len(binary) < 8 || !bytes.Equal(binary[:4], []byte("\x00asm")):
		return errors.New("the file is not a Wasm module")
	case bytes.Equal(binary[4:8], []byte("\x0d\x00\x01\x00")):
		return errors.New("the file is a Wasm component; a core module is needed")
	case !bytes.Equal(binary[4:8], []byte("\x01\x00\x00\x00")):
		return fmt.Errorf("the file has Wasm version % x, not 1", binary[4:8])
	}
	return nil
}

// checkLinks looks for imports that nobody offers and exports that are missing.
func checkLinks(rt wazero.Runtime, m wazero.CompiledModule, code *code, speak guest.ABI) (hint string, err error) {
	modules := append([]string{wasi.Module}, speak.Modules()...)
	rebuild := "build it with the SDK of this version of Loam"
	for _, i := range code.Imports {
		if !slices.Contains(modules, i.Module) {
			return "a function may import from " + strings.Join(modules, " and ") + " only: build it with Loam's SDK",
				fmt.Errorf("it imports %s from module %q, which nobody offers", i.Name, i.Module)
		}
		if i.Kind != rewrite.KindFunction {
			return "a function brings its own memory, tables and globals", fmt.Errorf("it imports %s.%s, which is no function", i.Module, i.Name)
		}
	}
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		have, ok := rt.Module(module).ExportedFunctionDefinitions()[name]
		if !ok {
			return rebuild, fmt.Errorf("it imports %s.%s, which nobody offers", module, name)
		}
		if !bytes.Equal(have.ParamTypes(), f.ParamTypes()) || !bytes.Equal(have.ResultTypes(), f.ResultTypes()) {
			return rebuild, fmt.Errorf("it imports %s.%s as a function of another type", module, name)
		}
	}
	if len(m.ExportedMemories()) == 0 {
		return "export the memory under the name memory", errors.New("it exports no memory")
	}
	functions := m.ExportedFunctions()
	for _, e := range speak.Exports() {
		f, ok := functions[e.Name]
		if !ok {
			return "a Go function imports github.com/loam-run/loam/sdk/go and is built with -buildmode=c-shared", fmt.Errorf("it does not export %s", e.Name)
		}
		if !bytes.Equal(f.ParamTypes(), e.Params) || !bytes.Equal(f.ResultTypes(), e.Results) {
			return rebuild, fmt.Errorf("it exports %s with other parameters or results", e.Name)
		}
	}
	for _, name := range []string{initialize, hookStart, hookDestroy} {
		if f, ok := functions[name]; ok && len(f.ParamTypes())+len(f.ResultTypes()) > 0 {
			return rebuild, fmt.Errorf("it exports %s with parameters or results", name)
		}
	}
	return "", nil
}
