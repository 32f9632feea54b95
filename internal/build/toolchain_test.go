package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stub puts a program into a folder of PATH that stands for a compiler.
func stub(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestLanguages(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	t.Setenv("RUSTC", "")
	sysroot := t.TempDir()
	if err := os.MkdirAll(filepath.Join(sysroot, "lib", "rustlib", "wasm32-wasip1", "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	// Each writes what it was called with to where its output goes.
	const record = `all="$*"; while [ $# -gt 0 ]; do case $1 in -o|--outFile) out=$2;; esac; shift; done; echo "$PWD $X $all" >$out`
	stub(t, bin, "rustc", `[ "$1" = --print=sysroot ] && echo `+sysroot+` && exit; `+record)
	stub(t, bin, "clang", record)
	stub(t, bin, "node", record)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"rust", map[string]string{"main.rs": ""}, []string{"--target=wasm32-wasip1", "--crate-type=cdylib", "main.rs"}},
		{"c", map[string]string{"main.c": "", "other.c": "", "other.h": ""}, []string{"--target=wasm32-wasi", "-mexec-model=reactor", " main.c other.c"}},
		{"assemblyscript", map[string]string{"main.ts": "", "node_modules/assemblyscript/bin/asc.js": ""}, []string{"node_modules/assemblyscript/bin/asc.js main.ts --outFile "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name := range c.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			write(t, dir, c.files)
			out := filepath.Join(dir, "build", "x.wasm")
			if err := Run(t.Context(), Job{Name: "x", Dir: dir, Out: out, Wasm: true, Env: []string{"X=variable"}}); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range append(c.want, dir+" variable ") {
				if !strings.Contains(string(b), want) {
					t.Errorf("%q is not in %s", want, b)
				}
			}
		})
	}
}

// What is missing is said with the command that gets it; what a compiler says about the program needs no hint.
func TestMissingToolchains(t *testing.T) {
	for _, c := range []struct {
		main, stub, script, want, hint string
	}{
		{"main.c", "", "", "no clang in PATH", installClang},
		{"main.c", "clang", `echo 'clang: error: unable to execute command: posix_spawn failed: "wasm-ld" not found'; exit 1`, "wasm-ld", installClang},
		{"main.c", "clang", `echo "loam.h:67:10: fatal error: 'stdio.h' file not found"; exit 1`, "stdio.h", installClang},
		{"main.c", "clang", `echo "wasm-ld-14: error: main.o: undefined symbol: loam_init"; exit 1`, "undefined symbol", ""},
		{"main.c", "clang", `echo "main.c:3:1: error: expected ';'"; exit 1`, "main.c:3:1", ""},
		{"main.ts", "", "", "no node in PATH", installNode},
		{"main.ts", "node", "", "compiler is not installed", "run npm ci in "},
	} {
		bin, dir := t.TempDir(), t.TempDir()
		t.Setenv("PATH", bin)
		if c.stub != "" {
			stub(t, bin, c.stub, c.script)
		}
		write(t, dir, map[string]string{c.main: ""})
		err := Run(t.Context(), Job{Name: "x", Dir: dir, Out: filepath.Join(dir, "x.wasm"), Wasm: true})
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(e.Hint, c.hint) || (e.Hint == "") != (c.hint == "") {
			t.Errorf("%s: %v; hint %q, want %q", c.main, err, e.Hint, c.hint)
		}
	}
}

func TestMissingRust(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	stub(t, bin, "rustc", "echo /nowhere")
	if _, target, err := findRustIn(t.Context(), []string{filepath.Join(bin, "rustc")}); err == nil || !strings.Contains(err.Error(), "no standard library") {
		t.Errorf("%s %v", target, err)
	}
	if _, _, err := findRustIn(t.Context(), []string{filepath.Join(dir, "rustc"), ""}); err == nil || !strings.Contains(err.Error(), "no rustc") {
		t.Error(err)
	}
	var missing *missingError
	if _, _, err := findRustIn(t.Context(), nil); !errors.As(err, &missing) || missing.hint != installRust {
		t.Error(err)
	}
}

// A build that nobody waits for any more says so and nothing else.
func TestCanceled(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin)
	stub(t, bin, "clang", "exit 1")
	write(t, dir, map[string]string{"main.c": ""})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, Job{Name: "x", Dir: dir, Out: filepath.Join(dir, "x.wasm"), Wasm: true}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
