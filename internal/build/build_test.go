package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGo(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"go.mod": "module x\n\ngo 1.24\n", "main.go": "package main\n\nfunc main() {}\n"})
	for _, wasm := range []bool{false, true} {
		out := filepath.Join(dir, "build", "x")
		if err := Go(t.Context(), Job{Name: "x", Dir: dir, Out: out, Wasm: wasm}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil || strings.HasPrefix(string(b), "\x00asm") != wasm {
			t.Errorf("wasm %t: %v", wasm, err)
		}
		// A build that fails leaves what is there, and nothing beside it.
		write(t, dir, map[string]string{"main.go": "package main\n\nfunc main() { a(); b() }\n"})
		err = Go(t.Context(), Job{Name: "x", Dir: dir, Out: out, Wasm: wasm})
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Output, "main.go:3:15: undefined: a") || !strings.Contains(err.Error(), "undefined: b") {
			t.Errorf("%v", err)
		}
		if again, err := os.ReadFile(out); err != nil || string(again) != string(b) {
			t.Errorf("the output of before is gone: %v", err)
		}
		if entries, _ := os.ReadDir(filepath.Dir(out)); len(entries) != 1 {
			t.Errorf("left behind: %v", entries)
		}
		write(t, dir, map[string]string{"main.go": "package main\n\nfunc main() {}\n"})
	}
}

func TestGoRefuses(t *testing.T) {
	outside, library := t.TempDir(), t.TempDir()
	write(t, outside, map[string]string{"main.go": "package main\n\nfunc main() {}\n"})
	write(t, library, map[string]string{"go.mod": "module x\n\ngo 1.24\n", "x.go": "package x\n"})
	check := func(dir, want string) {
		t.Helper()
		err := Go(t.Context(), Job{Name: "x", Dir: dir, Out: filepath.Join(t.TempDir(), "x")})
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || e.Hint == "" {
			t.Errorf("%v", err)
		}
	}
	check(outside, "inside no Go module")
	check(library, "not main")
	check(filepath.Join(outside, "nothing"), "no such file")
	check(filepath.Join(outside, "main.go"), "it is a file")
	t.Setenv("PATH", "")
	check(outside, "no go command in PATH")
}
