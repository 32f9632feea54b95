package wasm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/loam-run/loam/wasm/rewrite"
	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// What is compiled is kept in the cache folder:
//
//	<key>.code    what rewriting said of a module, and a husk of the rewritten module
//	<key>.names   its functions' names and places, for traps and profiles
//	<key>.good    it was loaded without an error, so that it need not be again to know that it can be
//	<sum>.wasm    the module as it was
//	wazero-…/     the engine's own: native code, by the hash of what was compiled
//
// The key tells the module, this build of Loam, and the processor. A husk is a module with the same types, imports,
// globals and exports whose functions do nothing. The engine spends nearly all of the time that it takes to load cached
// code on validating functions whose native code it has; so the native code of the rewritten module is filed under the
// husk's name, and the husk is what is loaded. It carries the hash of the module that it stands for: husks of different
// modules are different.

// A code is a module that was compiled.
type code struct {
	Module []byte // the husk; where it is interpreted, the rewritten module itself
	Native string // path of the native code in the cache folder; empty: there is none
	Size   int64  // of that

	Imaged  bool
	Reason  string // why not
	Start   bool
	Data    []rewrite.Segment
	Globals []rewrite.Global
	Memory  *rewrite.Memory
	Imports []rewrite.Import
	Go      bool // the Go toolchain made it

	symbols func() map[uint32]Symbol // of functions, by their index in the rewritten module
}

// newCode takes from a rewritten module what is needed to run it.
func newCode(m *rewrite.Module) *code {
	c := &code{
		Imaged: m.Imaged, Reason: m.Reason, Start: m.Start, Globals: m.Globals, Memory: m.Memory, Imports: m.Imports,
		Go: slices.ContainsFunc(m.Custom, func(c rewrite.Custom) bool {
			return c.Name == "go:buildid" || c.Name == "producers" && bytes.Contains(c.Data, []byte("\x08language\x01\x02Go"))
		}),
	}
	if len(m.Data) > 0 { // a large guest has tens of thousands of segments
		end := 0
		for _, d := range m.Data {
			end = max(end, int(d.Offset)+len(d.Bytes))
		}
		all := make([]byte, end)
		m.Lay(all)
		for _, r := range runsOf(all) {
			c.Data = append(c.Data, rewrite.Segment{Offset: uint32(r.from), Bytes: all[r.from:r.to]})
		}
	}
	return c
}

// lay puts the data into a memory that was zero.
func (c *code) lay(memory []byte) {
	for _, d := range c.Data {
		copy(memory[d.Offset:], d.Bytes)
	}
}

// A codeCache is the cache folder.
type codeCache struct {
	dir   string
	build string // tells this build of Loam and the processor
	own   bool   // the folder goes with the host

	loading [32]sync.Mutex // by the code's name: see load
}

// identity tells this build of Loam from others, which may rewrite differently.
func identity() string {
	h := sha256.New()
	if info, ok := debug.ReadBuildInfo(); ok {
		fmt.Fprintln(h, info)
	}
	path := "/proc/self/exe" // stays what it was when the file is replaced
	if _, err := os.Stat(path); err != nil {
		path, _ = os.Executable()
	}
	if info, err := os.Stat(path); err == nil {
		fmt.Fprintln(h, info.Size(), info.ModTime().UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (cc *codeCache) key(sum [sha256.Size]byte) string {
	key := sha256.Sum256(fmt.Appendf(nil, "%x %s", sum, cc.build))
	return hex.EncodeToString(key[:])
}

func (cc *codeCache) path(name string) string { return filepath.Join(cc.dir, name) }

// get returns compiled code, or an error if it is not there whole.
func (cc *codeCache) get(sum [sha256.Size]byte) (*code, error) {
	key := cc.key(sum)
	c := new(code)
	if err := cc.read(key+".code", c); err != nil {
		return nil, err
	}
	cc.note(key+".code", key+".names", c.Native, hex.EncodeToString(sum[:])+".wasm")
	c.symbols = func() map[uint32]Symbol {
		symbols := map[uint32]Symbol{}
		_ = cc.read(key+".names", &symbols) // a stack without names is better than none
		return symbols
	}
	return c, nil
}

// compile compiles a module and keeps it. A module that makes the compiler panic is in error like any other.
func (cc *codeCache) compile(ctx context.Context, sum [sha256.Size]byte, module []byte) (c *code, err error) {
	defer func() {
		if p := recover(); p != nil {
			c, err = nil, fmt.Errorf("the compiler failed on it: %v", p)
		}
	}()
	m, err := rewrite.Rewrite(module, rewrite.Options{Image: true, Tables: true, Closed: true})
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(cc.dir, "tmp-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // what stays is removed with what other processes left
	real, err := compileAlone(ctx, filepath.Join(tmp, "real"), m.Binary)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(real)
	if err != nil {
		return nil, err
	}
	c = newCode(m)
	c.Module, c.Size = husk(m.Binary), info.Size()
	shell, err := compileAlone(ctx, filepath.Join(tmp, "husk"), c.Module)
	if err != nil {
		return nil, err
	}
	c.Native = filepath.Join(filepath.Base(filepath.Dir(shell)), filepath.Base(shell))
	if err := os.MkdirAll(filepath.Dir(cc.path(c.Native)), 0o700); err != nil {
		return nil, err
	}
	one := cc.of(c.Native) // a function of the same module may be loading what is replaced
	one.Lock()
	err = os.Rename(real, cc.path(c.Native))
	one.Unlock()
	if err != nil {
		return nil, err
	}
	key := cc.key(sum)
	symbols := symbolsOf(m)
	c.symbols = func() map[uint32]Symbol { return symbols }
	return c, errors.Join(
		cc.write(key+".names", symbols),
		cc.write(key+".code", c),
	)
}

// compileAlone compiles a module into a folder of its own, and returns the path of the native code. It does so in the
// calling goroutine: a panic in one of the engine's could not be recovered from.
func compileAlone(ctx context.Context, dir string, module []byte) (string, error) {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return "", err
	}
	rt := wazero.NewRuntimeWithConfig(ctx, engineConfig(false).WithCompilationCache(cache))
	_, err = rt.CompileModule(experimental.WithCompilationWorkers(ctx, 1), module)
	err = errors.Join(err, rt.Close(ctx), cache.Close(ctx))
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("the engine kept %d files, not one: %w", len(files), err)
	}
	return files[0], nil
}

// engineConfig is how guests are compiled. CoreFeaturesV2 leaves exception handling off, which wazero 1.12 gets wrong.
func engineConfig(interpret bool) wazero.RuntimeConfig {
	config := wazero.NewRuntimeConfigCompiler()
	if interpret {
		config = wazero.NewRuntimeConfigInterpreter()
	}
	return config.WithCoreFeatures(wasmapi.CoreFeaturesV2).WithDebugInfoEnabled(false)
}

// errNotNative is code whose native part was not what the engine took.
var errNotNative = errors.New("the native code was not found where it was kept")

// of is the lock of whoever loads or replaces native code.
func (cc *codeCache) of(native string) *sync.Mutex {
	return &cc.loading[crc32.Checksum([]byte(native), castagnoli)%uint32(len(cc.loading))]
}

// load has the engine load code. Where its native part is not there, the engine would compile the husk instead.
func (cc *codeCache) load(ctx context.Context, rt wazero.Runtime, c *code) (wazero.CompiledModule, error) {
	if c.Native == "" {
		return rt.CompileModule(ctx, c.Module)
	}
	// The engine (wazero 1.12) shows a module that it takes from its cache to others before it is whole: who loads the same
	// one meanwhile would call through pointers that are not there yet.
	one := cc.of(c.Native)
	one.Lock()
	defer one.Unlock()
	before, err := os.Stat(cc.path(c.Native))
	if err != nil || before.Size() != c.Size {
		return nil, errors.Join(errNotNative, err)
	}
	compiled, err := rt.CompileModule(ctx, c.Module)
	if err != nil {
		return nil, err
	}
	after, err := os.Stat(cc.path(c.Native))
	if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
		return nil, errors.Join(errNotNative, err, compiled.Close(ctx), os.Remove(cc.path(c.Native)))
	}
	return compiled, nil
}

// husk is a module like the one given, with functions that do nothing.
func husk(module []byte) []byte {
	sum := sha256.Sum256(module)
	out := append([]byte(nil), module[:8]...)
	for at := 8; at < len(module); {
		id := module[at]
		size, n := binary.Uvarint(module[at+1:])
		body := at + 1 + n
		end := body + int(size)
		if id != 10 {
			out = append(out, module[at:end]...)
		} else {
			count, n := binary.Uvarint(module[body:])
			content := append([]byte(nil), module[body:body+n]...)
			content = append(content, bytes.Repeat([]byte{3, 0, 0x00, 0x0b}, int(count))...) // no locals, unreachable, end
			out = append(binary.AppendUvarint(append(out, 10), uint64(len(content))), content...)
		}
		at = end
	}
	const name = "\x0aloam:husk-"
	out = append(out, 0, byte(len(name)+len(sum)))
	return append(append(out, name...), sum[:]...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// read decodes a file of the cache folder.
func (cc *codeCache) read(name string, v any) error {
	b, err := os.ReadFile(cc.path(name))
	if err != nil {
		return err
	}
	at := len(b) - 4
	if at < 0 || crc32.Checksum(b[:at], castagnoli) != binary.LittleEndian.Uint32(b[at:]) {
		return fmt.Errorf("%s is damaged", name)
	}
	return gob.NewDecoder(bytes.NewReader(b[:at])).Decode(v)
}

func (cc *codeCache) write(name string, v any) error {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(v); err != nil {
		return err
	}
	return cc.writeFile(name, binary.LittleEndian.AppendUint32(b.Bytes(), crc32.Checksum(b.Bytes(), castagnoli)))
}

// writeFile makes a file that is there whole or not at all.
func (cc *codeCache) writeFile(name string, b []byte) error {
	f, err := os.CreateTemp(cc.dir, "tmp-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), cc.path(name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// good tells whether a program was loaded before; setGood says that it was.
func (cc *codeCache) good(sum [sha256.Size]byte, key programKey) bool {
	name := goodName(cc.key(sum), key)
	cc.note(name)
	for _, name := range []string{name, cc.key(sum) + ".code"} {
		if _, err := os.Stat(cc.path(name)); err != nil {
			return false
		}
	}
	return true
}

func (cc *codeCache) setGood(sum [sha256.Size]byte, key programKey) error {
	return cc.writeFile(goodName(cc.key(sum), key), nil)
}

func goodName(code string, key programKey) string {
	return code + "-" + hex.EncodeToString(key[:8]) + ".good"
}

// keep keeps a module as it is, for when its code has to be made anew.
func (cc *codeCache) keep(sum [sha256.Size]byte, module []byte) error {
	name := hex.EncodeToString(sum[:]) + ".wasm"
	if info, err := os.Stat(cc.path(name)); err == nil && info.Size() == int64(len(module)) {
		return nil
	}
	return cc.writeFile(name, module)
}

// module reads a module that was kept.
func (cc *codeCache) module(sum [sha256.Size]byte) ([]byte, error) {
	b, err := os.ReadFile(cc.path(hex.EncodeToString(sum[:]) + ".wasm"))
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(b) != sum {
		return nil, errors.New("the module in the cache is damaged")
	}
	return b, nil
}

// How long things stay in the cache that nobody uses.
const (
	keepLeft   = time.Hour            // what a process left that died while it compiled
	keepCode   = 60 * 24 * time.Hour  // what can be made anew of a module
	keepModule = 365 * 24 * time.Hour // a module
	noteUse    = 24 * time.Hour       // how often it is noted that something is used
)

// sweep removes what was not used for long.
func (cc *codeCache) sweep() {
	for pattern, age := range map[string]time.Duration{
		"tmp-*": keepLeft, "*.code": keepCode, "*.names": keepCode, "*.good": keepCode, "wazero-*/*": keepCode, "*.wasm": keepModule,
	} {
		files, _ := filepath.Glob(cc.path(pattern))
		for _, path := range files {
			if info, err := os.Lstat(path); err == nil && time.Since(info.ModTime()) > age {
				_ = os.RemoveAll(path) // it is tried again at the next start
			}
		}
	}
}

// note notes that files are used.
func (cc *codeCache) note(names ...string) {
	now := time.Now()
	for _, name := range names {
		if info, err := os.Stat(cc.path(name)); err == nil && now.Sub(info.ModTime()) > noteUse {
			_ = os.Chtimes(cc.path(name), now, now) // else it is compiled anew some time
		}
	}
}

func (cc *codeCache) close() error {
	if !cc.own {
		return nil
	}
	if err := os.RemoveAll(cc.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
