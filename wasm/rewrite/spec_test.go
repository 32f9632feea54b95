package rewrite_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/loam-run/loam/wasm/rewrite"
)

// The least numbers of assertions that the two suites are known to have. A run that makes fewer has lost some.
const (
	wantV1 = 18_008
	wantV2 = 51_139
)

// variants are the ways a module is rewritten in the tests.
var variants = []struct {
	name    string
	options rewrite.Options
}{
	{"plain", rewrite.Options{Names: true, Offsets: true}},
	{"imaged", rewrite.Options{Image: true}},
	{"tables", rewrite.Options{Tables: true}},
	{"imaged, tables", rewrite.Options{Image: true, Tables: true}},
}

// TestSpec runs the core specification's own tests, which wazero carries with it, in lockstep on modules as they are
// and on rewritten ones. Each command must have the same outcome: the same results to the bit, the same trap, the same
// refusal.
func TestSpec(t *testing.T) {
	dir := spectests(t)
	for _, suite := range []struct {
		name     string
		features api.CoreFeatures
		want     int
	}{{"v1", api.CoreFeaturesV1, wantV1}, {"v2", api.CoreFeaturesV2, wantV2}} {
		t.Run(suite.name, func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join(dir, suite.name, "testdata", "*.json"))
			if err != nil || len(files) == 0 {
				t.Fatalf("no tests found: %v", err)
			}
			spectest, err := os.ReadFile(filepath.Join(dir, "testdata", "spectest.wasm"))
			if err != nil {
				t.Fatal(err)
			}
			total := &tally{}
			for i, file := range files {
				if testing.Short() && i%8 != 0 {
					continue
				}
				runScript(t, file, spectest, suite.features, total)
			}
			t.Logf("%d scripts, %d modules (imaged %d, tables removed %d of %d), %d assertions, each on %d rewritten forms",
				len(files), total.modules, total.imaged, total.removed, total.tables, total.assertions, len(variants))
			if !testing.Short() && total.assertions < suite.want {
				t.Errorf("%d assertions were made; there are %d", total.assertions, suite.want)
			}
			if total.assertions == 0 || total.imaged == 0 || total.removed == 0 {
				t.Errorf("%+v", *total)
			}
		})
	}
}

func spectests(t testing.TB) string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Fatalf("where is wazero's source? %v", err)
	}
	return filepath.Join(dir, "internal", "integration_test", "spectest")
}

type tally struct{ assertions, modules, imaged, tables, removed int }

// A script is what wast2json makes of one of the specification's test files.
type script struct {
	Commands []struct {
		Type       string
		Line       int
		Name       string
		Filename   string
		As         string
		ModuleType string `json:"module_type"`
		Text       string
		Action     struct {
			Type, Module, Field string
			Args                []value
		}
		Expected []value
	}
}

type value struct {
	Type     string
	LaneType string `json:"lane_type"`
	Value    any
}

// bits is a value as wazero passes it. The mask is zero for a NaN of which the test leaves the bits open.
func (v value) bits(t testing.TB) (bits, mask []uint64) {
	one := func(typ, s string) (uint64, uint64) {
		width := 64
		switch typ {
		case "i8":
			width = 8
		case "i16":
			width = 16
		case "i32", "f32":
			width = 32
		}
		full := ^uint64(0) >> (64 - width)
		switch {
		case strings.HasPrefix(s, "nan"):
			return 0, 0
		case s == "null":
			return 0, full
		case strings.HasPrefix(s, "-"):
			n, err := strconv.ParseInt(s, 10, width)
			if err != nil {
				t.Fatal(err)
			}
			return uint64(n) & full, full
		}
		n, err := strconv.ParseUint(s, 10, width)
		if err != nil {
			t.Fatal(err)
		}
		if typ == "externref" {
			n++ // wazero takes 0 for null
		}
		return n, full
	}
	switch x := v.Value.(type) {
	case nil:
		return []uint64{0}, []uint64{0}
	case string:
		b, m := one(v.Type, x)
		return []uint64{b}, []uint64{m}
	case []any:
		bits, mask = make([]uint64, 2), make([]uint64, 2)
		width := 128 / len(x)
		for i, lane := range x {
			b, m := one(v.LaneType, lane.(string))
			bits[i*width/64] |= b << (i * width % 64)
			mask[i*width/64] |= m << (i * width % 64)
		}
		return bits, mask
	}
	t.Fatalf("value %v", v)
	return nil, nil
}

// A machine runs a script's modules in one form.
type machine struct {
	name    string
	rewrite func([]byte) (*rewrite.Module, error) // nil: as they are
	runtime wazero.Runtime
	last    api.Module
	all     []api.Module
	named   map[string]api.Module
	tally   *tally
}

var errDeep = errors.New("stack overflow")

func runScript(t *testing.T, file string, spectest []byte, features api.CoreFeatures, total *tally) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s script
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	machines := []*machine{{name: "as it is"}}
	for i, v := range variants {
		m := &machine{name: v.name, rewrite: func(b []byte) (*rewrite.Module, error) { return rewrite.Rewrite(b, v.options) }}
		if i == len(variants)-1 {
			m.tally = total
		}
		machines = append(machines, m)
	}
	for _, m := range machines {
		m.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(features))
		defer m.runtime.Close(ctx)
		m.named = map[string]api.Module{}
		if _, err := m.runtime.InstantiateWithConfig(ctx, spectest, wazero.NewModuleConfig()); err != nil {
			t.Fatal(err)
		}
		host := &meter{depth: 16 << 20}
		host.instantiate(t, m.runtime)
	}
	base := filepath.Base(file)
	for i := range s.Commands {
		c := &s.Commands[i]
		if c.ModuleType == "text" {
			continue
		}
		var first string
		for k, m := range machines {
			var got string
			switch c.Type {
			case "module":
				name := ""
				if i+1 < len(s.Commands) && s.Commands[i+1].Type == "register" {
					name = s.Commands[i+1].As
				}
				got = m.load(t, filepath.Join(filepath.Dir(file), c.Filename), name, c.Name)
			case "register":
				continue // done with its module
			case "assert_malformed", "assert_invalid", "assert_unlinkable", "assert_uninstantiable":
				got = m.load(t, filepath.Join(filepath.Dir(file), c.Filename), "", "-")
			default:
				var args []uint64
				for _, a := range c.Action.Args {
					b, _ := a.bits(t)
					args = append(args, b...)
				}
				got = m.act(t, c.Action.Type, c.Action.Module, c.Action.Field, args)
			}
			switch {
			case k == 0:
				first = got
				if want := expected(t, c.Type, c.Text, c.Expected); want != nil && !want(got) {
					t.Errorf("%s:%d: %s: wazero itself: %s", base, c.Line, c.Type, got)
				}
				if strings.HasPrefix(c.Type, "assert_") {
					total.assertions++
				}
			case got == "taken" && first == "refused" && compiles(t, filepath.Join(filepath.Dir(file), c.Filename)):
				continue // valid, but not in WebAssembly 1.0
			case got != first:
				t.Errorf("%s:%d: %s %s, %s: %s; wazero: %s", base, c.Line, c.Type, c.Action.Field, m.name, got, first)
			}
		}
	}
}

// expected checks that the tests were read as they are meant: wazero is known to pass them.
func expected(t testing.TB, typ, text string, values []value) func(string) bool {
	switch typ {
	case "assert_return":
		return func(got string) bool {
			fields := strings.Fields(got)
			i := 1
			for _, v := range values {
				bits, mask := v.bits(t)
				for k := range bits {
					if i >= len(fields) {
						return false
					}
					n, err := strconv.ParseUint(fields[i], 16, 64)
					if err != nil || n&mask[k] != bits[k]&mask[k] {
						return false
					}
					i++
				}
			}
			return fields[0] == "returns" && i == len(fields)
		}
	case "assert_trap", "assert_exhaustion":
		return func(got string) bool { return strings.HasPrefix(got, "traps") }
	case "assert_malformed", "assert_invalid", "assert_unlinkable":
		return func(got string) bool { return got == "refused" }
	case "assert_uninstantiable": // wazero lets a table's segments be out of bounds
		return func(got string) bool { return got == "refused" || text == "out of bounds table access" }
	}
	return nil
}

// compiles tells whether a module is valid WebAssembly 2.0.
func compiles(t testing.TB, file string) bool {
	binary, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2))
	defer r.Close(ctx)
	_, err = r.CompileModule(ctx, binary)
	return err == nil
}

// load instantiates a module and tells whether it could.
func (m *machine) load(t testing.TB, file, register, name string) string {
	ctx := context.Background()
	binary, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var re *rewrite.Module
	if m.rewrite != nil {
		if re, err = m.rewrite(binary); err != nil {
			if name != "-" {
				t.Logf("%s: %s: %v", filepath.Base(file), m.name, err)
			}
			return "refused"
		}
		binary = re.Binary
	}
	mod, err := m.runtime.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithName(register))
	if err != nil {
		if name != "-" {
			t.Logf("%s: %s: %v", filepath.Base(file), m.name, err)
		}
		return "refused"
	}
	if re != nil {
		m.all = append(m.all, mod)
	}
	if re != nil && re.Imaged {
		if err := lay(mod, re); err != nil {
			mod.Close(ctx)
			return "refused"
		}
	}
	if m.tally != nil {
		m.tally.modules++
		if re.Imaged {
			m.tally.imaged++
		}
		if re.TableRemoved {
			m.tally.removed++
		}
		if re.TableRemoved || re.TableReason != "" {
			m.tally.tables++
		}
	}
	if name != "-" {
		m.last = mod
		if name != "" {
			m.named[name] = mod
		}
	}
	return "taken"
}

// lay does for an instance of an imaged module what its data segments and start function did.
func lay(mod api.Module, re *rewrite.Module) error {
	if re.Memory != nil {
		memory, ok := mod.Memory().Read(0, mod.Memory().Size())
		if !ok {
			return errors.New("no memory")
		}
		re.Lay(memory)
	}
	if re.Start {
		_, err := mod.ExportedFunction(rewrite.StartFunction).Call(context.Background())
		return err
	}
	return nil
}

func (m *machine) act(t testing.TB, action, module, field string, args []uint64) string {
	mod := m.last
	if module != "" {
		mod = m.named[module]
	}
	if mod == nil {
		return "no module"
	}
	if action == "get" {
		return fmt.Sprintf("returns %x", mod.ExportedGlobal(field).Get())
	}
	fn := mod.ExportedFunction(field)
	if fn == nil {
		return "no function"
	}
	for _, mod := range m.all { // a call that trapped left its depth behind
		mod.ExportedGlobal(rewrite.FuelGlobal).(api.MutableGlobal).Set(0)
	}
	return outcome(fn, args)
}

// outcome is what a call returned, to the bit, or what it trapped by.
func outcome(fn api.Function, args []uint64) string {
	results, err := fn.Call(context.Background(), args...)
	if err != nil {
		return "traps: " + trapText(err)
	}
	out := "returns"
	k := 0
	for _, typ := range fn.Definition().ResultTypes() {
		n := 1
		if typ == api.ValueType(rewrite.V128) {
			n = 2
		}
		for ; n > 0; n-- {
			r := results[k]
			if typ == api.ValueType(rewrite.FuncRef) && r != 0 {
				r = 1 // an address
			}
			if typ == api.ValueTypeI32 || typ == api.ValueTypeF32 {
				r = uint64(uint32(r))
			}
			out += fmt.Sprintf(" %x", r)
			k++
		}
	}
	return out
}

// trapText is a trap's reason, without the stack.
func trapText(err error) string {
	var trap rewrite.Trap
	switch {
	case errors.Is(err, errDeep):
		return errDeep.Error()
	case errors.Is(err, errBudget):
		return errBudget.Error()
	case errors.As(err, &trap):
		return trap.Error()
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimPrefix(text, "wasm error: ")
}
