package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A toolchain makes guests of one language.
type toolchain struct {
	main    string // the file that tells that a folder is written in it
	command func(ctx context.Context, dir, out string, main bool) (*exec.Cmd, error)
	hint    func(said string) string // on what the compiler said; nil: it says enough
}

// How to get what a build needs, on Debian.
const (
	installRust  = "apt-get install rustc libstd-rust-dev-wasm32; with rustup: rustup target add wasm32-wasip1"
	installClang = "apt-get install clang lld wasi-libc libclang-rt-dev-wasm32"
	installNode  = "apt-get install nodejs npm, then npm ci"
)

var toolchains = []toolchain{
	{"main.ts", ascCommand, nil},
	{"main.rs", rustCommand, nil},
	{"main.c", clangCommand, clangHint},
}

// rustCommand builds main.rs and its modules by rustc alone: a guest of the SDK has no crates.
func rustCommand(ctx context.Context, dir, out string, main bool) (*exec.Cmd, error) {
	// A newer compiler may be first in PATH and have no library for WASI, where the distribution's has.
	rustc, target, err := findRustIn(ctx, []string{os.Getenv("RUSTC"), "rustc", "/usr/bin/rustc"})
	if err != nil {
		return nil, err
	}
	crate := "cdylib"
	if main {
		crate = "bin"
	}
	cmd := exec.CommandContext(ctx, rustc, "--edition=2021", "--crate-name=function", "--crate-type="+crate, "--target="+target,
		"-Copt-level=3", "-Clto", "-Ccodegen-units=1", "-Cpanic=abort", "-Cdebuginfo=1", "-o", out, "main.rs")
	cmd.Dir = dir
	return cmd, nil
}

// findRustIn finds the first compiler that has the standard library for WASI.
func findRustIn(ctx context.Context, names []string) (rustc, target string, err error) {
	found := false
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		said, err := exec.CommandContext(ctx, path, "--print=sysroot").Output()
		if err != nil {
			continue
		}
		found = true
		for _, target := range []string{"wasm32-wasip1", "wasm32-wasi"} { // its name since Rust 1.78, and before
			if _, err := os.Stat(filepath.Join(string(bytes.TrimSpace(said)), "lib", "rustlib", target, "lib")); err == nil {
				return path, target, nil
			}
		}
	}
	if found {
		return "", "", &missingError{errors.New("rustc has no standard library for wasm32-wasi"), installRust}
	}
	return "", "", &missingError{errors.New("there is no rustc in PATH"), installRust}
}

// clangCommand builds every .c file of the folder as one module.
func clangCommand(ctx context.Context, dir, out string, main bool) (*exec.Cmd, error) {
	clang, err := exec.LookPath("clang")
	if err != nil {
		return nil, &missingError{errors.New("there is no clang in PATH"), installClang}
	}
	sources, err := filepath.Glob(filepath.Join(dir, "*.c"))
	if err != nil {
		return nil, err
	}
	model := "reactor"
	if main {
		model = "command"
	}
	args := []string{"--target=wasm32-wasi", "-mexec-model=" + model, "-O2", "-g", "-Wall", "-o", out}
	for _, s := range sources {
		args = append(args, filepath.Base(s))
	}
	cmd := exec.CommandContext(ctx, clang, args...)
	cmd.Dir = dir
	return cmd, nil
}

// clangHint tells a clang without the parts for WASI from a mistake in the program.
func clangHint(said string) string {
	for _, part := range []string{
		"unable to execute command", "cannot open crt1", "libclang_rt.builtins-wasm32.a", "unable to find library -lc", "'stdio.h' file not found",
		"'bits/libc-header-start.h' file not found", "No available targets are compatible",
	} {
		if strings.Contains(said, part) {
			return installClang
		}
	}
	return ""
}

// ascCommand builds main.ts by the compiler that the project's package.json pins.
func ascCommand(ctx context.Context, dir, out string, _ bool) (*exec.Cmd, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, &missingError{errors.New("there is no node in PATH"), installNode}
	}
	for d := dir; ; d = filepath.Dir(d) {
		asc := filepath.Join(d, "node_modules", "assemblyscript", "bin", "asc.js")
		if _, err := os.Stat(asc); err == nil {
			cmd := exec.CommandContext(ctx, node, asc, "main.ts", "--outFile", out)
			cmd.Dir = dir
			return cmd, nil
		}
		if d == filepath.Dir(d) {
			return nil, &missingError{errors.New("the AssemblyScript compiler is not installed"), "run npm ci in " + dir}
		}
	}
}
