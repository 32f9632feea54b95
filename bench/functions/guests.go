package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/loam-run/loam/internal/build"
)

// kinds are the languages of the empty guest. tiny is C without a library.
func kinds() []string { return []string{"go", "rust", "c", "assemblyscript", "tiny"} }

// guest builds a guest of the folder guests and returns the module's path.
func (b *bench) guest(ctx context.Context, name, kind string) (string, error) {
	out := filepath.Join(b.dir, name+"-"+kind+".wasm")
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	dir := filepath.Join(b.root, "bench/functions/guests", name, kind)
	switch kind {
	case "tiny":
		return out, clang(ctx, filepath.Join(dir, "tiny.c"), out)
	case "assemblyscript":
		compiler := filepath.Join(b.root, "examples/languages/assemblyscript/node_modules/assemblyscript/bin/asc.js")
		cmd := exec.CommandContext(ctx, "node", compiler, "main.ts", "--outFile", out)
		cmd.Dir = dir
		return out, combined(cmd)
	}
	return out, build.Run(ctx, build.Job{Name: name, Dir: dir, Out: out, Wasm: true})
}

// clang builds a program of one file without a library.
func clang(ctx context.Context, source, out string, more ...string) error {
	args := []string{"--target=wasm32", "-O2", "-nostdlib", "-mbulk-memory", "-Wl,--no-entry", "-o", out}
	return combined(exec.CommandContext(ctx, "clang", append(append(args, more...), source)...))
}

func combined(cmd *exec.Cmd) error {
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s\nmake sdk installs the compilers", filepath.Base(cmd.Path), err, said)
	}
	return nil
}
