package wasm

import (
	"context"
	"time"

	"github.com/loam-run/loam/wasm/guest"
	"github.com/loam-run/loam/wasm/rewrite"
	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// defineMeter offers what rewritten modules import.
func defineMeter(ctx context.Context, rt wazero.Runtime) error {
	const i32, i64 = wasmapi.ValueTypeI32, wasmapi.ValueTypeI64
	ctx = experimental.WithFunctionListenerFactory(ctx, sampling{})
	_, err := rt.NewHostModuleBuilder(rewrite.HostModule).
		NewFunctionBuilder().WithGoFunction(wasmapi.GoFunc(func(ctx context.Context, stack []uint64) {
		i := guest.Of(ctx).Owner.(*instance)
		stack[0] = uint64(i.yield(rewrite.Fuel(stack[0])))
	}), []wasmapi.ValueType{i64}, []wasmapi.ValueType{i64}).Export(rewrite.Yield).
		NewFunctionBuilder().WithGoFunction(wasmapi.GoFunc(func(_ context.Context, stack []uint64) {
		panic(rewrite.Trap(stack[0]))
	}), []wasmapi.ValueType{i32}, nil).Export(rewrite.Trapped).
		Instantiate(ctx)
	return err
}

// spin is a module that exports spin(n): a loop of n turns of ordinary arithmetic.
var spin = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x06\x01\x60\x01\x7f\x01\x7f" + // type 0: (i32) -> i32
	"\x03\x02\x01\x00" +
	"\x07\x08\x01\x04spin\x00\x00" +
	"\x0a\x28\x01\x26\x01\x01\x7f" + // a function with a local
	"\x03\x40" + // loop
	"\x20\x01\x41\x05\x6c\x20\x00\x6a\x21\x01" + // x = x*5 + n
	"\x20\x01\x20\x01\x41\x0d\x76\x73\x21\x01" + // x ^= x >> 13
	"\x20\x00\x41\x01\x6b\x22\x00\x0d\x00" + // n--; until it is 0
	"\x0b\x20\x01\x0b")

// calibrate measures how many units of fuel a guest uses in a nanosecond of this processor.
func calibrate(binary []byte) (float64, error) {
	const turns, tries = 20_000, 5
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, engineConfig(false))
	defer func() { _ = rt.Close(ctx) }()
	if err := defineMeter(ctx, rt); err != nil {
		return 0, err
	}
	m, err := rt.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		return 0, err
	}
	f, fuel := m.ExportedFunction("spin"), m.ExportedGlobal(rewrite.FuelGlobal).(wasmapi.MutableGlobal)
	best := 0.0
	for range tries {
		fuel.Set(uint64(rewrite.NewFuel(rewrite.MaxFuel)))
		stack := []uint64{turns}
		began := time.Now()
		if err := f.CallWithStack(ctx, stack); err != nil {
			return 0, err
		}
		took := max(time.Since(began), 1)
		used := rewrite.MaxFuel - rewrite.Fuel(fuel.Get()).Left()
		best = max(best, float64(used)/float64(took))
	}
	return best, nil
}

// units is how much fuel a time of the processor is.
func (h *Host) units(d time.Duration) int64 { return int64(min(float64(d)*h.rate, 1<<62)) }

// cpu is how much time of the processor fuel is.
func (h *Host) cpu(units int64) time.Duration { return time.Duration(float64(units) / h.rate) }
