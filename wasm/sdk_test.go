//go:build sdk

package wasm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loam-run/loam/internal/build"
)

// A real guest of Rust: each fork makes hash maps with keys of its own, and those that are in the image still work.
func TestRustForks(t *testing.T) {
	out := filepath.Join(t.TempDir(), "rust.wasm")
	if err := build.Run(t.Context(), build.Job{Name: "rust", Dir: "testdata/rust", Out: out, Wasm: true}); err != nil {
		t.Fatalf("%v: test/sdk/install.sh installs what is needed", err)
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	m := compile(t, binary, Config{})
	if len(m.program.image.seeds) != 1 {
		t.Fatalf("the keys were not found: %v", m.program.image.seeds)
	}
	seen := map[string]bool{}
	for range 8 {
		_, body := send(t, m, "GET", "/", "")
		hash, kept, _ := strings.Cut(body, " ")
		if seen[hash] || kept != "Some(8)" {
			t.Errorf("%q", body)
		}
		seen[hash] = true
	}
}
