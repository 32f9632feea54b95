//go:build sdk

package wagi_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm"
)

// A C program that knows of nothing but CGI.
func TestCProgram(t *testing.T) {
	out := filepath.Join(t.TempDir(), "c.wasm")
	if said, err := exec.Command("clang", "--target=wasm32-wasi", "-O2", "-o", out, "testdata/c/main.c").CombinedOutput(); err != nil {
		t.Fatalf("%v: test/sdk/install.sh installs what is needed\n%s", err, said)
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	m := compile(t, binary, wasm.Config{})
	if s := m.State(); !s.Image {
		t.Errorf("there is no image: %s", s.Reason)
	}
	for range 3 {
		status, h, body, err := send(t, m, "PUT", "/?a=b", "hello")
		if err != nil || status != 200 || h.Get("X-Method") != "PUT" || body != "run 1, 2 arguments, last a=b, 5 bytes: HELLO" {
			t.Errorf("%d %v %q %v", status, h, body, err)
		}
	}
	if _, _, _, err := send(t, m, "GET", "/?a&b&c", ""); loam.CodeOf(err) != loam.Internal {
		t.Errorf("exit status 7: %v", err)
	}
}

func BenchmarkC(b *testing.B) {
	out := filepath.Join(b.TempDir(), "c.wasm")
	if said, err := exec.Command("clang", "--target=wasm32-wasi", "-O2", "-o", out, "testdata/c/main.c").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, said)
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	m := compile(b, binary, wasm.Config{})
	for b.Loop() {
		if _, _, _, err := send(b, m, "GET", "/", "hello"); err != nil {
			b.Fatal(err)
		}
	}
}
