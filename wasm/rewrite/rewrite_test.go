package rewrite_test

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/loam-run/loam/wasm/rewrite"
)

// slice is what a guest may do between two yields in these tests.
const slice = 1 << 20

// errBudget ends a guest that has used up what it was given.
var errBudget = errors.New("out of budget")

// A meter is a test's host: it counts what guests use.
type meter struct {
	yields int
	used   int64 // of slices that have ended
	budget int64 // 0: no end
	stack  int64 // deepest seen
	depth  int64 // of the stack that is allowed; 0: any
}

func (m *meter) instantiate(t testing.TB, r wazero.Runtime) {
	t.Helper()
	_, err := r.NewHostModuleBuilder(rewrite.HostModule).
		NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
		f := rewrite.Fuel(stack[0])
		m.yields++
		m.used += slice - f.Left()
		m.stack = max(m.stack, f.Stack())
		if m.budget > 0 && m.used > m.budget {
			panic(errBudget)
		}
		if m.depth > 0 && f.Stack() > m.depth {
			panic(errDeep)
		}
		stack[0] = uint64(f.Refilled(slice))
	}), []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).Export(rewrite.Yield).
		NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
		panic(rewrite.Trap(stack[0]))
	}), []api.ValueType{api.ValueTypeI32}, nil).Export(rewrite.Trapped).
		Instantiate(context.Background())
	if err != nil {
		t.Fatal(err)
	}
}

// goGuest builds the guest of package wasm's tests.
func goGuest(t testing.TB) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", out, "../testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoGuest(t *testing.T) {
	binary := goGuest(t)
	m, err := rewrite.Rewrite(binary, rewrite.Options{Image: true, Tables: true, Closed: true})
	if err != nil {
		t.Fatal(err)
	}
	if !m.Imaged || !m.TableRemoved {
		t.Fatalf("imaged %v (%s), table removed %v (%s)", m.Imaged, m.Reason, m.TableRemoved, m.TableReason)
	}
	t.Logf("%d bytes became %d; %d segments, %d globals", len(binary), len(m.Binary), len(m.Data), len(m.Globals))
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	mt := &meter{}
	mt.instantiate(t, r)
	if _, err := r.CompileModule(ctx, m.Binary); err != nil {
		t.Fatal(err)
	}
}

func TestFuel(t *testing.T) {
	for n, want := range map[int64]int64{
		math.MinInt64: rewrite.MinFuel, 0: rewrite.MinFuel, 1 << 20: 1 << 20, 1 << 38: 1 << 38, math.MaxInt64: rewrite.MaxFuel,
	} {
		if got := rewrite.NewFuel(n).Left(); got != want {
			t.Errorf("NewFuel(%d).Left() = %d", n, got)
		}
	}
	f := rewrite.Fuel(-5<<24) + 3 // three units deep
	if f.Left() != -5 || f.Stack() != 48 {
		t.Errorf("left %d, stack %d", f.Left(), f.Stack())
	}
	if f = f.Refilled(1 << 17); f.Left() != 1<<17 || f.Stack() != 48 {
		t.Errorf("refilled: left %d, stack %d", f.Left(), f.Stack())
	}
}
