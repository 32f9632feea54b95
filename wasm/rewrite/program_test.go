package rewrite_test

import (
	"context"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/loam-run/loam/wasm/rewrite"
)

// programs builds those of bench/functions/programs: the one in Go and, with the tag sdk, those in C.
func programs(t testing.TB) map[string][]byte {
	t.Helper()
	out := cPrograms(t)
	file := filepath.Join(t.TempDir(), "golang")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", file, ".")
	cmd.Dir = "../../bench/functions/programs/golang"
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	binary, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out["golang"] = binary
	return out
}

// run instantiates a program and returns its function. Fuel is set before each call.
func run(t testing.TB, r wazero.Runtime, binary []byte, re *rewrite.Module) func(n uint64) string {
	t.Helper()
	mod, err := r.InstantiateWithConfig(context.Background(), binary, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	if re != nil && re.Imaged {
		if err := lay(mod, re); err != nil {
			t.Fatal(err)
		}
	}
	if init := mod.ExportedFunction("_initialize"); init != nil {
		if _, err := init.Call(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	fn := mod.ExportedFunction("run")
	fuel, _ := mod.ExportedGlobal(rewrite.FuelGlobal).(api.MutableGlobal)
	return func(n uint64) string {
		if fuel != nil {
			fuel.Set(uint64(rewrite.NewFuel(slice)))
		}
		got := outcome(fn, []uint64{n})
		if fuel != nil && !strings.HasPrefix(got, "traps") {
			if depth := rewrite.Fuel(fuel.Get()).Stack(); depth != 0 {
				t.Errorf("the stack is %d bytes deep when all has returned", depth)
			}
		}
		return got
	}
}

func runtimeWithHost(t testing.TB) (wazero.Runtime, *meter) {
	return runtimeOf(t, wazero.NewRuntimeConfigCompiler())
}

func runtimeOf(t testing.TB, config wazero.RuntimeConfig) (wazero.Runtime, *meter) {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, config)
	t.Cleanup(func() { r.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	host := &meter{}
	host.instantiate(t, r)
	return r, host
}

func TestPrograms(t *testing.T) {
	for name, binary := range programs(t) {
		config := wazero.NewRuntimeConfigCompiler()
		if name == "golang" { // it takes seconds to compile
			config = wazero.NewRuntimeConfigInterpreter()
		}
		r, host := runtimeOf(t, config)
		want := run(t, r, binary, nil)(3)
		if !strings.HasPrefix(want, "returns ") {
			t.Fatalf("%s: %s", name, want)
		}
		for i, v := range variants {
			if name == "golang" && i < len(variants)-1 {
				continue
			}
			re, err := rewrite.Rewrite(binary, v.options)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if v.options.Image != re.Imaged {
				t.Errorf("%s, %s: imaged: %v: %s", name, v.name, re.Imaged, re.Reason)
			}
			*host = meter{}
			if got := run(t, r, re.Binary, re)(3); got != want {
				t.Errorf("%s, %s: %s; as it is: %s", name, v.name, got, want)
			}
		}
	}
}

// BenchmarkMetering tells for each program how much longer it takes when it is rewritten, and how many units of fuel it
// uses in a nanosecond. The two forms take turns, and the fastest of each counts.
func BenchmarkMetering(b *testing.B) {
	all := programs(b)
	ratios := map[string]float64{}
	for name, binary := range all {
		b.Run(name, func(b *testing.B) {
			r, host := runtimeWithHost(b)
			plain := run(b, r, binary, nil)
			re, err := rewrite.Rewrite(binary, rewrite.Options{Image: true, Tables: true})
			if err != nil {
				b.Fatal(err)
			}
			metered := run(b, r, re.Binary, re)
			timed := func(f func(uint64) string, n uint64) time.Duration {
				from := time.Now()
				f(n)
				return time.Since(from)
			}
			rounds := uint64(1)
			for min(timed(plain, rounds), timed(plain, rounds), timed(plain, rounds)) < 10*time.Millisecond {
				rounds *= 2
			}
			least := [2]time.Duration{math.MaxInt64, math.MaxInt64}
			for range b.N {
				for range 20 {
					least[0] = min(least[0], timed(plain, rounds))
					*host = meter{}
					least[1] = min(least[1], timed(metered, rounds))
				}
			}
			ratio := float64(least[1]) / float64(least[0])
			b.ReportMetric(ratio, "ratio")
			b.ReportMetric(float64(host.used)/float64(least[0]), "units/ns")
			b.ReportMetric(0, "ns/op")
			ratios[name] = ratio
		})
	}
	sum := 0.0
	for _, r := range ratios {
		sum += math.Log(r)
	}
	b.Logf("geomean %.3f over %d programs", math.Exp(sum/float64(len(ratios))), len(ratios))
}
