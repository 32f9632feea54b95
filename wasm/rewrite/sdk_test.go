//go:build sdk

package rewrite_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/loam-run/loam/wasm/rewrite"
)

// cPrograms builds the programs in C.
func cPrograms(t testing.TB) map[string][]byte {
	t.Helper()
	sources, err := filepath.Glob("../../bench/functions/programs/*.c")
	if err != nil || len(sources) < 10 {
		t.Fatalf("%d programs: %v", len(sources), err)
	}
	out := map[string][]byte{}
	dir := t.TempDir()
	for _, source := range sources {
		name := strings.TrimSuffix(filepath.Base(source), ".c")
		file := filepath.Join(dir, name)
		cmd := exec.Command("clang", "--target=wasm32", "-O2", "-nostdlib", "-mbulk-memory", "-Wl,--no-entry", "-o", file, source)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: test/sdk/install.sh installs what is needed\n%s", name, err, b)
		}
		if out[name], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestLeastFuel: with as little fuel as there can be everything still gets done.
func TestLeastFuel(t *testing.T) {
	for name, binary := range cPrograms(t) {
		ctx := context.Background()
		r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
		defer r.Close(ctx)
		yields := 0
		_, err := r.NewHostModuleBuilder(rewrite.HostModule).
			NewFunctionBuilder().WithFunc(func(f int64) int64 { yields++; return int64(rewrite.Fuel(f).Refilled(0)) }).Export(rewrite.Yield).
			NewFunctionBuilder().WithFunc(func(uint32) { panic("trap") }).Export(rewrite.Trapped).Instantiate(ctx)
		if err != nil {
			t.Fatal(err)
		}
		re := mustRewrite(t, binary, rewrite.Options{Image: true, Tables: true})
		plain, metered := run(t, r, binary, nil), run(t, r, re.Binary, re)
		for n := uint64(16); yields < 3 && n < 1<<14; n *= 2 {
			if want, got := plain(n), metered(n); got != want {
				t.Errorf("%s: %s; as it is: %s", name, got, want)
			}
		}
		if yields < 3 {
			t.Errorf("%s: the host was never asked", name)
		}
	}
}
