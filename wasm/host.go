// Package wasm is the guest host: it compiles a function's Wasm module, keeps instances of it ready, and serves one
// request at a time by each, within limits of memory, time and number. What is spoken with a guest is an ABI's, one
// package each below this one. It knows nothing of routes or resources; target/function is who calls it.
package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"syscall"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/loamabi"
	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// An ABI is how host and guest speak: what the host offers, what the guest must export, how a request is served.
type abi interface {
	Exports() []string
	Define(ctx context.Context, rt wazero.Runtime) error
	Bind(m wasmapi.Module) serveFunc
}

// A serveFunc serves one request whose body was read.
type serveFunc = func(ctx context.Context, req *loam.Request, body []byte) (*loam.Response, error)

// abis lists the ABIs by the name a Function's spec.abi gives.
func abis(c Config) map[string]abi {
	return map[string]abi{
		loamabi.Name: &loamabi.ABI{Methods: c.Methods, Caller: c.Caller, MaxResponse: int(c.MaxResponse)},
	}
}

// Options are what all functions of a process share.
type Options struct {
	// CacheDir keeps compiled code between runs; empty: it is compiled anew each time. What lies there runs as native
	// code in this process, so the folder must be this user's alone.
	CacheDir string
	Log      *slog.Logger // where the lines that guests print go; nil: nowhere
}

// A Host compiles modules. It is safe for concurrent use.
type Host struct {
	cache wazero.CompilationCache
	log   *slog.Logger
}

// NewHost opens the compilation cache. The caller closes the host after all its modules.
func NewHost(o Options) (*Host, error) {
	h := &Host{log: o.Log}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if o.CacheDir == "" {
		h.cache = wazero.NewCompilationCache()
		return h, nil
	}
	if err := privateDir(o.CacheDir); err != nil {
		return nil, err
	}
	cache, err := wazero.NewCompilationCacheWithDir(o.CacheDir)
	if err != nil {
		return nil, loam.Errorf(loam.FailedPrecondition, "open the compilation cache", "%w", err)
	}
	h.cache = cache
	return h, nil
}

// Close frees what was compiled.
func (h *Host) Close() error { return h.cache.Close(context.Background()) }

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

// Compile makes a function of a Wasm binary and starts a first instance of it, so that what is wrong with it shows now.
// The caller closes the module.
func (h *Host) Compile(ctx context.Context, name string, binary []byte, c Config) (*Module, error) {
	c = c.withDefaults()
	m := newModule(h, name, c)
	refuse := func(hint, format string, args ...any) (*Module, error) {
		_ = m.close() // the first error is the one to tell
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: m.op(), Err: fmt.Errorf(format, args...), Hint: hint}
	}
	if err := checkMagic(binary); err != nil {
		return refuse("build it: loam build; for a Go function that is GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared", "%w", err)
	}
	speak, ok := abis(c)[c.ABI]
	if !ok {
		return refuse("abi: "+loamabi.Name, "there is no ABI %q", c.ABI)
	}
	if c.Isolation != IsolationRequest && c.Isolation != IsolationShared {
		return refuse("isolation: request, or isolation: shared", "there is no isolation %q", c.Isolation)
	}
	m.abi = speak

	// A runtime of its own: the memory limit is one of the runtime, and closing it leaves nothing behind. The compiled
	// code is in the cache that all share. CoreFeaturesV2 leaves exception handling off, which wazero 1.12 gets wrong.
	engine := wazero.NewRuntimeConfigCompiler()
	if c.Interpret {
		engine = wazero.NewRuntimeConfigInterpreter()
	}
	m.runtime = wazero.NewRuntimeWithConfig(ctx, engine.
		WithCompilationCache(h.cache).
		WithCoreFeatures(wasmapi.CoreFeaturesV2).
		WithMemoryLimitPages(pages(c.Memory)).
		WithCloseOnContextDone(true))
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, m.runtime); err != nil {
		return refuse("", "%w", err)
	}
	if err := speak.Define(ctx, m.runtime); err != nil {
		return refuse("", "%w", err)
	}
	var err error
	m.compiled, err = m.runtime.CompileModule(experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0)), binary)
	if err != nil {
		return refuse("build it anew; if it needs more memory than it may have, raise spec.memory", "the Wasm module is not valid: %w", err)
	}
	if hint, err := checkLinks(m.runtime, m.compiled, speak.Exports()); err != nil {
		return refuse(hint, "%w", err)
	}
	first, err := m.instantiate(ctx)
	if err != nil {
		_ = m.close() // the first error is the one to tell
		return nil, err
	}
	m.put(first)
	m.start()
	return m, nil
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
func checkLinks(rt wazero.Runtime, m wazero.CompiledModule, exports []string) (hint string, err error) {
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		offered := rt.Module(module)
		if offered == nil {
			return "a function may import from " + loamabi.Name + " and " + wasi_snapshot_preview1.ModuleName +
				" only: build it with Loam's SDK", fmt.Errorf("it imports %s from module %q, which nobody offers", name, module)
		}
		have, ok := offered.ExportedFunctionDefinitions()[name]
		if !ok {
			return "build it with the SDK of this version of Loam", fmt.Errorf("it imports %s.%s, which nobody offers", module, name)
		}
		if !bytes.Equal(have.ParamTypes(), f.ParamTypes()) || !bytes.Equal(have.ResultTypes(), f.ResultTypes()) {
			return "build it with the SDK of this version of Loam", fmt.Errorf("it imports %s.%s as a function of another type", module, name)
		}
	}
	if len(m.ImportedMemories()) > 0 {
		return "a function brings its own memory", errors.New("it imports a memory, which nobody offers")
	}
	if len(m.ExportedMemories()) == 0 {
		return "export the memory under the name memory", errors.New("it exports no memory")
	}
	for _, name := range exports {
		f, ok := m.ExportedFunctions()[name]
		if !ok {
			return "a Go function imports github.com/loam-run/loam/sdk/go and is built with -buildmode=c-shared", fmt.Errorf("it does not export %s", name)
		}
		if len(f.ParamTypes())+len(f.ResultTypes()) > 0 {
			return "build it with the SDK of this version of Loam", fmt.Errorf("it exports %s with parameters or results", name)
		}
	}
	if f, ok := m.ExportedFunctions()["_initialize"]; ok && len(f.ParamTypes())+len(f.ResultTypes()) > 0 {
		return "build it with the SDK of this version of Loam", errors.New("it exports _initialize with parameters or results")
	}
	return "", nil
}

// pages is a memory limit in Wasm's pages of 64 KiB, less than the 65,536 that a 32-bit size cannot tell.
func pages(size int64) uint32 { return uint32(min(max(size>>16, 1), 1<<16-1)) }
