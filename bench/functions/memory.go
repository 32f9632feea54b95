package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/loam-run/loam/test/measure"
	"github.com/loam-run/loam/wasm"
)

// memory measures what functions cost that wait, each with an instance: in a process of its own for each case.
func (b *bench) memory(ctx context.Context) error {
	const distinct = 100
	golang, err := b.guest(ctx, "empty", "go")
	if err != nil {
		return err
	}
	var many []string
	source := filepath.Join(b.root, "bench/functions/guests/echo/tiny/tiny.c")
	for i := range distinct {
		out := filepath.Join(b.dir, fmt.Sprintf("distinct-%d.wasm", i))
		// Another length of its buffer is other code. It does not fit the pages that are copied, so it is mapped.
		if err := clang(ctx, source, out, "-DSIZE="+strconv.Itoa(100_000+i)); err != nil {
			return err
		}
		many = append(many, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Printf("%-34s%14s%14s%14s%14s\n", "RSS, MiB, by functions that wait", "none", "1", "1,000", "10,000")
	for _, c := range []struct {
		name    string
		modules []string
	}{{"the same Go module", []string{golang}}, {fmt.Sprintf("%d modules in C", distinct), many}} {
		cmd := exec.CommandContext(ctx, self, append([]string{"-child", filepath.Join(b.dir, "cache-memory")}, c.modules...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return err
		}
		f := strings.Fields(string(out))
		fmt.Printf("%-34s", c.name)
		for _, v := range f[:4] {
			fmt.Printf("%14s", v)
		}
		fmt.Printf("   and %s of page tables\n", f[4])
		if c.modules[0] == golang {
			rss, err := strconv.ParseFloat(f[3], 64)
			if err != nil {
				return err
			}
			b.goal("10,000 idle Go instances", rss, "MiB", 100)
		}
	}
	return nil
}

// footprint makes 1, then 1,000, then 10,000 functions of modules, each with an instance that waits, and prints what the
// process holds before and after, and last the size of its page tables, which no RSS counts.
func footprint(ctx context.Context, cache string, paths []string) error {
	host, err := wasm.NewHost(wasm.Options{CacheDir: cache})
	if err != nil {
		return err
	}
	var binaries [][]byte
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		binaries = append(binaries, b)
		// Compiled once, so that what is left of compiling is not counted. It is in the cache then.
		m, err := host.Compile(ctx, "compiled", b, wasm.Config{})
		if err != nil {
			return err
		}
		if err := m.Close(ctx); err != nil {
			return err
		}
	}
	print := func() error {
		debug.FreeOSMemory()
		bytes, err := measure.RSS(os.Getpid())
		if err == nil {
			fmt.Printf("%.1f ", bytes/(1<<20))
		}
		return err
	}
	if err := print(); err != nil {
		return err
	}
	have := 0
	for _, want := range []int{1, 1_000, 10_000} {
		for ; have < want; have++ {
			m, err := host.Compile(ctx, "f"+strconv.Itoa(have), binaries[have%len(binaries)], wasm.Config{})
			if err != nil {
				return err
			}
			if _, err := m.Hold(ctx); err != nil { // until the process ends
				return err
			}
		}
		if err := print(); err != nil {
			return err
		}
	}
	bytes, err := measure.Memory(os.Getpid(), "VmPTE")
	fmt.Printf("%.1f\n", bytes/(1<<20))
	return err
}
