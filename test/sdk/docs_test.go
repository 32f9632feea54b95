//go:build sdk

package sdk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loam-run/loam/sdk"
)

// The programs that the documentation shows are programs.
func TestDocuments(t *testing.T) {
	text, err := os.ReadFile("../../docs/functions-languages.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ fence, file, language string }{
		{"rust", "main.rs", "rust"}, {"c", "main.c", "c"}, {"ts", "main.ts", "assemblyscript"},
	} {
		t.Run(c.language, func(t *testing.T) {
			t.Parallel()
			_, block, found := strings.Cut(string(text), "\n```"+c.fence+"\n")
			block, _, closed := strings.Cut(block, "\n```\n")
			if !found || !closed {
				t.Fatalf("there is no block of %s", c.fence)
			}
			dir := t.TempDir()
			if err := sdk.Write(filepath.Join(dir, "sdk"), c.language); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, c.file), []byte(block), 0o644); err != nil {
				t.Fatal(err)
			}
			if c.language == "assemblyscript" {
				withCompiler(t, dir)
			}
			compiled(t, dir)
		})
	}
}

// withCompiler gives an AssemblyScript project what npm ci would get: tests download nothing.
func withCompiler(t *testing.T, dir string) {
	t.Helper()
	example, err := filepath.Abs("../../examples/languages/assemblyscript")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(example, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "asconfig.json")
	if _, err := os.Stat(config); err != nil {
		if err := os.WriteFile(config, []byte(`{"extends": "./sdk/asconfig.json"}`), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
