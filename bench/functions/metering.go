package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/loam-run/loam/internal/build"
	"github.com/loam-run/loam/wasm/rewrite"
)

// metering measures how much longer a program takes in its rewritten form, which is the one that runs.
func (b *bench) metering(ctx context.Context) error {
	sources, err := filepath.Glob(filepath.Join(b.root, "bench/functions/programs/*.c"))
	if err != nil {
		return err
	}
	programs := map[string]string{}
	var names []string
	for _, source := range sources {
		name := strings.TrimSuffix(filepath.Base(source), ".c")
		programs[name] = filepath.Join(b.dir, "program-"+name+".wasm")
		names = append(names, name)
		if err := clang(ctx, source, programs[name]); err != nil {
			return err
		}
	}
	names = append(names, "golang")
	programs["golang"] = filepath.Join(b.dir, "program-golang.wasm")
	job := build.Job{Name: "golang", Dir: filepath.Join(b.root, "bench/functions/programs/golang"), Out: programs["golang"], Wasm: true}
	if err := build.Go(ctx, job); err != nil {
		return err
	}
	fmt.Printf("%-34s%14s%14s%14s\n", "a program's run, µs of CPU", "as it is", "metered", "ratio")
	sum := 0.0
	for _, name := range names {
		us, err := b.metered(ctx, programs[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		ratio := us[1] / us[0]
		sum += math.Log(ratio)
		fmt.Printf("%-34s%14.0f%14.0f%14.2f\n", name, us[0], us[1], ratio)
	}
	mean := math.Exp(sum / float64(len(names)))
	fmt.Printf("%-34s%14s%14s%14.2f\n", fmt.Sprintf("geometric mean of %d", len(names)), "", "", mean)
	b.goal("metering, geometric mean", mean, "x", 1.2)
	return nil
}

// metered measures a program as it is and rewritten.
func (b *bench) metered(ctx context.Context, path string) ([]float64, error) {
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	re, err := rewrite.Rewrite(binary, rewrite.Options{Image: true, Tables: true, Closed: true})
	if err != nil {
		return nil, err
	}
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return nil, err
	}
	const slice = rewrite.MinFuel // as the host gives it
	_, err = rt.NewHostModuleBuilder(rewrite.HostModule).
		NewFunctionBuilder().WithGoFunction(wasmapi.GoFunc(func(_ context.Context, stack []uint64) {
		stack[0] = uint64(rewrite.Fuel(stack[0]).Refilled(slice))
	}), []wasmapi.ValueType{wasmapi.ValueTypeI64}, []wasmapi.ValueType{wasmapi.ValueTypeI64}).Export(rewrite.Yield).
		NewFunctionBuilder().WithGoFunction(wasmapi.GoFunc(func(_ context.Context, stack []uint64) {
		panic(rewrite.Trap(stack[0]))
	}), []wasmapi.ValueType{wasmapi.ValueTypeI32}, nil).Export(rewrite.Trapped).
		Instantiate(ctx)
	if err != nil {
		return nil, err
	}
	start := func(binary []byte, lay func([]byte)) (run func(n uint64) (uint64, error), err error) {
		m, err := rt.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithName("").WithStartFunctions())
		if err != nil {
			return nil, err
		}
		fuel, _ := m.ExportedGlobal(rewrite.FuelGlobal).(wasmapi.MutableGlobal)
		call := func(f wasmapi.Function, stack []uint64) error {
			if fuel != nil {
				fuel.Set(uint64(rewrite.NewFuel(slice)))
			}
			return f.CallWithStack(ctx, stack)
		}
		if lay != nil {
			view, _ := m.Memory().Read(0, m.Memory().Size())
			lay(view)
		}
		if f := m.ExportedFunction("_initialize"); f != nil {
			if err := call(f, nil); err != nil {
				return nil, err
			}
		}
		f := m.ExportedFunction("run")
		return func(n uint64) (uint64, error) {
			stack := []uint64{n}
			err := call(f, stack)
			return stack[0], err
		}, nil
	}
	plain, err := start(binary, nil)
	if err != nil {
		return nil, err
	}
	metered, err := start(re.Binary, re.Lay)
	if err != nil {
		return nil, err
	}
	want, err1 := plain(1)
	got, err2 := metered(1)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if got != want {
		return nil, fmt.Errorf("it returns %d, and rewritten %d", want, got)
	}
	n := uint64(1)
	for began := time.Now(); ; began = time.Now() {
		if _, err := plain(n); err != nil {
			return nil, err
		}
		if time.Since(began) > time.Millisecond {
			break
		}
		n *= 2
	}
	run := func(f func(uint64) (uint64, error)) func() error {
		return func() error { _, err := f(n); return err }
	}
	return b.contest([]contender{by("as it is", run(plain)), by("metered", run(metered))})
}
