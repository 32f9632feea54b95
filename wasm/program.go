package wasm

import (
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	"github.com/loam-run/loam/wasm/rewrite"
	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// What a guest may export besides what its ABI says, all of type () -> ().
const (
	initialize  = "_initialize"  // its language's runtime starts
	hookStart   = "loam_start"   // once, before the first request: what it does is there for every request
	hookDestroy = "loam_destroy" // once, when the function is unloaded
)

// A programKey tells what programs are the same: what their guests are made of and see while they start.
type programKey [sha256.Size]byte

// A program is a module that was compiled and started. Functions of the same module and settings share it.
type program struct {
	host *Host
	key  programKey
	refs int           // under host.mu
	made chan struct{} // closed once it is loaded, or err says why not
	err  error

	abi       guest.ABI
	code      *code
	engine    wazero.Runtime
	compiled  wazero.CompiledModule
	config    wazero.ModuleConfig
	limit     uint64 // bytes of memory
	args, env []string
	hooks     struct{ initialize, start, destroy bool }
	image     *image // nil: each instance starts by itself
	reason    string // why
	pool      pool

	symbolOnce sync.Once // no task waits in it
	symbolOf   map[uint32]Symbol
	lastSymbol uint32 // the highest index in it
}

// recipe is what a program is made of.
type recipe struct {
	name   string // of the function it is first made for, for errors
	binary func() ([]byte, error)
	sum    [sha256.Size]byte // of the binary
	config *Config
	log    *slog.Logger

	failures *sampler // of log

	timeout time.Duration // of a start; 0: the function's
}

func (r *recipe) key() programKey {
	h := sha256.New()
	fmt.Fprintf(h, "%x %q %d %t %q", r.sum, r.config.ABI, r.config.Memory, r.config.Interpret, r.config.Settings)
	for _, k := range slices.Sorted(maps.Keys(r.config.Env)) {
		fmt.Fprintf(h, " %q=%q", k, r.config.Env[k])
	}
	if w := r.config.Warmup; w != nil {
		fmt.Fprintf(h, " warmup %q %q %q", w.Method, w.Path, w.Body)
	}
	return programKey(h.Sum(nil))
}

// acquire returns the program of a recipe, which is loaded if it is not there. release gives it back.
func (h *Host) acquire(ctx context.Context, r *recipe) (*program, error) {
	key := r.key()
	for {
		h.mu.Lock()
		p := h.programs[key]
		if p == nil {
			p = &program{host: h, key: key, refs: 1, made: make(chan struct{})}
			h.programs[key] = p
			h.mu.Unlock()
			if p.err = p.load(ctx, r); p.err != nil {
				h.mu.Lock()
				delete(h.programs, key) // the next one tries again
				h.mu.Unlock()
			}
			close(p.made)
		} else {
			p.refs++
			h.mu.Unlock()
			<-p.made
		}
		if p.err == nil {
			return p, nil
		}
		p.release()
		if loam.CodeOf(p.err) != loam.Canceled || ctx.Err() != nil { // else who loaded it did not need it any more
			return nil, p.err
		}
	}
}

// release gives a program back; the last one to do so frees it.
func (p *program) release() {
	p.host.mu.Lock()
	p.refs--
	last := p.refs == 0
	if last && p.host.programs[p.key] == p {
		delete(p.host.programs, p.key)
	}
	p.host.mu.Unlock()
	if !last {
		return
	}
	p.pool.close()
	if p.image != nil {
		p.image.free()
	}
	if p.compiled != nil {
		_ = p.compiled.Close(context.Background()) // frees memory, which cannot fail
	}
}

// load compiles and starts a program.
func (p *program) load(ctx context.Context, r *recipe) error {
	began := time.Now()
	refuse := func(hint, format string, args ...any) error {
		return &loam.Error{Code: loam.InvalidArgument, Op: op(r.name), Err: fmt.Errorf(format, args...), Hint: hint}
	}
	speak, ok := p.host.abis[r.config.ABI]
	if !ok {
		return refuse("abi: one of "+fmt.Sprint(slices.Sorted(maps.Keys(p.host.abis))), "there is no ABI %q", r.config.ABI)
	}
	p.abi, p.limit = speak, uint64(r.config.Memory)&^(1<<16-1)
	var err error
	if p.engine, err = p.host.engine(r.config.Interpret); err != nil {
		return err
	}
	if err := p.compile(ctx, r, refuse); err != nil {
		return err
	}
	if hint, err := checkLinks(p.engine, p.compiled, p.code, speak); err != nil {
		return refuse(hint, "%w", err)
	}
	exports := p.compiled.ExportedFunctions()
	p.hooks.initialize = exports[initialize] != nil
	p.hooks.start = exports[hookStart] != nil
	p.hooks.destroy = exports[hookDestroy] != nil
	p.args = []string{"function"}
	for _, k := range slices.Sorted(maps.Keys(r.config.Env)) {
		p.env = append(p.env, k+"="+r.config.Env[k])
	}
	// What WASI would give is ours to give; a source of randomness is set as the engine would make one that takes long.
	p.config = wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(crand.Reader)
	p.code.Module = nil // the engine has it

	task, end := loam.NewTask(ctx)
	defer end()
	p.reason = p.code.Reason
	if p.code.Imaged {
		if err := p.makeImage(task, r); err != nil {
			return err
		}
	}
	if p.image == nil { // what is wrong with it shows now
		i, err := p.start(task, r)
		if err != nil {
			return err
		}
		i.close()
	}
	if !r.config.Interpret {
		if err := p.host.codes.setGood(r.sum, p.key); err != nil {
			r.log.Warn("it cannot be noted that the function is in order, so it will be loaded again at the next start", "error", err)
		}
	}
	attrs := []any{"took", time.Since(began).Round(time.Millisecond)}
	if p.image != nil {
		p.code.Data = nil // the image has it
		attrs = append(attrs, "image", len(p.image.bytes), "reset", p.image.how)
		r.log.Debug("function loaded", attrs...)
	} else {
		r.log.Warn("function loaded without an image: each request starts it anew", append(attrs, "reason", p.reason)...)
	}
	return nil
}

// compile gets the program's code from the cache, or compiles it.
func (p *program) compile(ctx context.Context, r *recipe, refuse func(hint, format string, args ...any) error) error {
	codes := &p.host.codes
	fits := func() error {
		if m := p.code.Memory; m != nil && uint64(m.Min)<<16 > p.limit {
			return refuse("raise spec.memory", "it needs a memory of %d bytes and may have %d", uint64(m.Min)<<16, p.limit)
		}
		return nil
	}
	var err error
	if !r.config.Interpret {
		if p.code, err = codes.get(r.sum); err == nil {
			if err := fits(); err != nil {
				return err
			}
			if p.compiled, err = codes.load(ctx, p.engine, p.code); err == nil {
				return nil
			}
		}
	}
	binary, err := r.binary()
	if err != nil {
		return &loam.Error{Code: loam.CodeOf(err), Op: op(r.name), Err: fmt.Errorf("read its module: %w", err)}
	}
	if err := checkMagic(binary); err != nil {
		return refuse("build it: loam build; for a Go function that is GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared", "%w", err)
	}
	invalid := func(err error) error { return refuse("build it anew", "the Wasm module is not valid: %w", err) }
	if r.config.Interpret {
		m, err := rewrite.Rewrite(binary, rewrite.Options{Image: true, Tables: true, Closed: true})
		if err != nil {
			return invalid(err)
		}
		p.code = newCode(m)
		p.code.Module = m.Binary
		p.code.symbols = func() map[uint32]Symbol { return symbolsOf(m) }
		if err := fits(); err != nil {
			return err
		}
		if p.compiled, err = codes.load(ctx, p.engine, p.code); err != nil {
			return invalid(err)
		}
		return nil
	}
	if p.code, err = codes.compile(ctx, r.sum, binary); err != nil {
		if fs := (*fs.PathError)(nil); errors.As(err, &fs) || errors.Is(err, os.ErrPermission) {
			return &loam.Error{Code: loam.Unavailable, Op: op(r.name), Err: fmt.Errorf("keep its code: %w", err), Hint: "look whether there is room in " + codes.dir}
		}
		return invalid(err)
	}
	if err := fits(); err != nil {
		return err
	}
	if p.compiled, err = codes.load(ctx, p.engine, p.code); err != nil {
		return invalid(err)
	}
	return nil
}

// makeImage starts a first instance and keeps its memory and globals.
func (p *program) makeImage(task loam.Task, r *recipe) error {
	first, drawn, err := p.first(task, r)
	if err != nil {
		return err
	}
	defer first.close()
	view, _ := first.module.Memory().Read(0, first.module.Memory().Size())
	im := &image{bytes: view, runs: p.host.mapper.runs(view)}
	for _, g := range first.globals {
		im.globals = append(im.globals, g.Get())
	}
	if im.seeds, err = p.seeds(task, r, view, drawn); err != nil {
		p.reason = err.Error()
		return nil
	}
	if err := p.host.mapper.keep(im); err != nil {
		return err
	}
	p.image = im
	return nil
}

// first starts an instance whose memory is not an image's, and tells what it drew from its randomness.
func (p *program) first(task loam.Task, r *recipe) (*instance, [][]byte, error) {
	source := &recorder{}
	i, err := p.instantiate(task, r, source)
	if err != nil {
		return nil, nil, err
	}
	fail := func(doing string, err error) (*instance, [][]byte, error) {
		i.close()
		return nil, nil, i.failure(r, doing, err)
	}
	if err := i.begin(); err != nil {
		return fail("starting it", err)
	}
	if w := r.config.Warmup; w != nil {
		if err := i.warm(p, w); err != nil {
			return fail("warming it up", err)
		}
	}
	i.finish()
	return i, source.drawn, nil
}

// start makes an instance of a program without an image.
func (p *program) start(task loam.Task, r *recipe) (*instance, error) {
	i, err := p.instantiate(task, r, crand.Reader)
	if err != nil {
		return nil, err
	}
	if err := i.begin(); err != nil {
		i.close()
		return nil, i.failure(r, "starting it", err)
	}
	i.finish()
	return i, nil
}

// instantiate makes an instance with a memory of its own. Its call is that of its start.
func (p *program) instantiate(task loam.Task, r *recipe, random interface{ Read([]byte) (int, error) }) (*instance, error) {
	i := newInstance(p)
	timeout := r.timeout
	if timeout == 0 {
		timeout = r.config.Timeout
	}
	i.prepare(task, time.Now().Add(timeout), r.config.CPU)
	c := &i.call
	c.Random, c.Settings = random, r.config.Settings
	var lines limiter
	i.stdout = lineWriter{log: r.log, limit: &lines, stream: "stdout"}
	i.stderr = lineWriter{log: r.log, limit: &lines, stream: "stderr"}
	if err := i.make(p.host.mapper.plain(p.limit)); err != nil {
		return nil, i.failure(r, "starting it", err)
	}
	return i, nil
}

// seeds finds the random state that forks must not share. Where a Go guest has more generators than its runtime's,
// those that are the same in another start were meant to be.
func (p *program) seeds(task loam.Task, r *recipe, view []byte, drawn [][]byte) ([]seed, error) {
	if len(drawn) == 0 {
		return nil, nil
	}
	const runtimes = 2 // the Go runtime's own
	states := goStates(view)
	if len(states) > runtimes {
		again, _, err := p.first(task, r)
		if err != nil {
			return nil, err
		}
		other, _ := again.module.Memory().Read(0, again.module.Memory().Size())
		states = slices.DeleteFunc(states, func(at int) bool {
			return at+chachaSize <= len(other) && string(view[at+chachaSeed:at+chachaCursor]) == string(other[at+chachaSeed:at+chachaCursor])
		})
		again.close()
	}
	if p.code.Go && len(states) < runtimes {
		return nil, errors.New("the random state of this version of Go is not known")
	}
	var out []seed
	for _, at := range states {
		out = append(out, seed{at: at})
	}
	for _, at := range rustKeys(view, drawn) {
		out = append(out, seed{at: at, rust: true})
	}
	return out, nil
}

// fork makes an instance of a program with an image.
func (p *program) fork() (*instance, error) {
	m, err := p.host.mapper.fork(p.image, p.limit)
	if err != nil {
		return nil, err
	}
	i := newInstance(p)
	i.memory = m
	if err := i.make(m); err != nil {
		return nil, err
	}
	i.restore()
	return i, nil
}

// make instantiates the module. The memory is the engine's from then on.
func (i *instance) make(m experimental.LinearMemory) error {
	p := i.program
	a := &given{m, &i.call.Used.Limits[guest.LimitMemory]}
	mod, err := p.engine.InstantiateModule(experimental.WithMemoryAllocator(&i.call, a), p.compiled, p.config)
	if err != nil {
		m.Free()
		return err
	}
	i.module, i.room = mod, m
	i.fuel = mod.ExportedGlobal(rewrite.FuelGlobal).(wasmapi.MutableGlobal)
	for _, g := range p.code.Globals {
		i.globals = append(i.globals, mod.ExportedGlobal(g.Export).(wasmapi.MutableGlobal))
	}
	return nil
}
