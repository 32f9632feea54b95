package cel

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// facts are the variables of the tests.
type facts map[string]any

func (f facts) Var(name string) any { return f[name] }

var (
	env = &Env{
		Variables: map[string]Type{
			"request.method": String, "request.headers": Map(String), "names": List(String), "numbers": List(Int), "claims": Map(Dyn),
			"n": Int, "d": Double, "b": Bool, "s": String, "any": Dyn,
		},
		Functions: map[string]Function{"twice": {Params: []Type{String}, Result: String, Call: func(args []any) (any, error) {
			s, ok := args[0].(string)
			if !ok {
				return nil, errors.New("no such overload")
			}
			return s + s, nil
		}}},
	}
	values = facts{
		"request.method": "GET", "request.headers": map[string]string{"accept": "text/html", "x-n": "7"}, "names": []string{"ann", "bob", "äöü"},
		"numbers": []any{int64(1), int64(2), int64(3)}, "n": int64(7), "d": 2.5, "b": true, "s": "hello", "any": nil,
		"claims": map[string]any{
			"sub": "ann", "level": float64(3), "big": float64(1 << 60), "roles": []any{"admin", "user"}, "org": map[string]any{"id": "o1", "n": float64(2)}, "none": nil, "ok": true,
			"mixed": []any{"a", float64(1), nil, true},
		},
	}
)

// reference is the language's own implementation.
func reference(t testing.TB) *cel.Env {
	t.Helper()
	texts := cel.MapType(cel.StringType, cel.StringType)
	e, err := cel.NewEnv(
		cel.Variable("request.method", cel.StringType), cel.Variable("request.headers", texts), cel.Variable("names", cel.ListType(cel.StringType)),
		cel.Variable("numbers", cel.ListType(cel.IntType)), cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("n", cel.IntType), cel.Variable("d", cel.DoubleType), cel.Variable("b", cel.BoolType), cel.Variable("s", cel.StringType), cel.Variable("any", cel.DynType),
		cel.Function("twice", cel.Overload("twice_string", []*cel.Type{cel.StringType}, cel.StringType, cel.UnaryBinding(func(v ref.Val) ref.Val {
			s, ok := v.Value().(string)
			if !ok {
				return types.NewErr("no such overload")
			}
			return types.String(s + s)
		}))),
	)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// differ compares what both make of an expression. Where the reference takes it and this package does not, it says so by ours
// being false: that is a part of the language that is not here. The reference knows the types of some expressions better and
// refuses more of them, such as of the elements of an empty list: here they fail when they are evaluated.
func differ(t testing.TB, ref *cel.Env, expression string) (ours bool) {
	t.Helper()
	mine, err := Compile(env, expression, Dyn)
	if err != nil {
		return false
	}
	ast, issues := ref.Compile(expression)
	if err := issues.Err(); err != nil {
		if strings.Contains(err.Error(), "found no matching overload") || strings.Contains(err.Error(), "expected type") {
			return false
		}
		t.Errorf("%s\nis taken here, and not by the reference: %v", expression, issues.Err())
		return true
	}
	program, err := ref.Program(ast)
	if err != nil {
		t.Fatal(err)
	}
	theirs, _, theirErr := program.Eval(map[string]any(values))
	got, gotErr := mine.Eval(values, 1<<30)
	if (gotErr != nil) != (theirErr != nil) {
		t.Errorf("%s\nis %v, %v here; the reference says %v, %v", expression, got, gotErr, theirs, theirErr)
		return true
	}
	if gotErr == nil && !same2(got, theirs) {
		t.Errorf("%s\nis %v (%T) here; the reference says %v (%T)", expression, got, got, theirs.Value(), theirs.Value())
	}
	return true
}

// same2 compares a value with the reference's.
func same2(got any, want ref.Val) bool {
	if d, ok := got.(float64); ok && math.IsNaN(d) {
		w, ok := want.Value().(float64)
		return ok && math.IsNaN(w)
	}
	v := types.DefaultTypeAdapter.NativeToValue(got)
	if got == nil {
		v = types.NullValue
	}
	return v.Type() == want.Type() && v.Equal(want) == types.True
}

// What the language is, in examples: each is taken here, and means what the reference says.
func TestAgainstReference(t *testing.T) {
	ref := reference(t)
	for _, e := range []string{
		`1 + 2 * 3 - 4 / 2 % 3`, `(1 + 2) * 3`, `-7 / 2`, `-7 % 3`, `7 % -3`, `- -3`, `-n`, `--n`, `!b`, `!!b`, `!!!b`, `-(1)`, `-9223372036854775808`, `0x1F`, `010`, `-0x10`,
		`9223372036854775807 + 1`, `-9223372036854775808 - 1`, `9223372036854775807 * 2`, `-9223372036854775808 / -1`, `-9223372036854775808 % -1`, `1 / 0`, `1 % 0`, `1.0 / 0.0`, `0.0 / 0.0`,
		`1.5 + 2.5`, `.5`, `1e3`, `1.5e-3`, `-1.5`, `-d`, `d * 2.0`, `d / 0.0 == -d / 0.0`,
		`"a" + 'b'`, `"a\"b\n\t\\\x41\u00e4\U0001F600\101"`, `r"a\b"`, `'it\'s'`, `"ä" < "z"`, `"a" < "b"`, `"" == ""`, `size("äöü")`, `"äöü".size()`,
		`1 < 2`, `2 <= 2`, `1.5 > 1.0`, `1 >= 2`, `false < true`, `1 == 1`, `1 != 2`, `"a" == "a"`, `null == null`, `[1, 2] == [1, 2]`, `[1] == [2]`, `[] == []`, `{} == {}`,
		`{"a": 1} == {"a": 1}`, `{"a": 1}["a"]`, `{"a": 1}.a`, `{"a": 1, "a": 2}`, `[1, 2][1]`, `[1][1]`, `[1][-1]`, `[[1], [2]][1][0]`, `[1] + [2]`, `[1, "a", null]`, `[1,]`, `{"a": 1,}`,
		`true || false && false`, `true ? 1 : 2`, `false ? 1 : true ? 2 : 3`, `b ? "x" : "y"`, `b ? any : "y"`,
		`1 / 0 == 1 || true`, `true || 1 / 0 == 1`, `1 / 0 == 1 && false`, `false && 1 / 0 == 1`, `1 / 0 == 1 || false`, `1 / 0 == 1 && true`,
		`request.method`, `request.method == "GET"`, `request.headers["accept"]`, `request.headers.accept`, `request.headers["none"]`, `"accept" in request.headers`, `"x" in request.headers`,
		`has(request.headers.accept)`, `has(request.headers.none)`, `has(claims.sub)`, `has(claims.org.id)`, `has(claims.org.x)`, `has(claims.x.y)`, `has(claims.none)`, `has(claims.sub.x)`, `has(claims.roles.x)`, `has(claims.level.x)`, `has(claims.ok.x)`,
		`claims.sub`, `claims["sub"]`, `claims.x`, `claims.sub == "ann"`, `claims.level >= 3`, `claims.level == 3`, `claims.level == 3.0`, `claims.level + 1.0`, `claims.level + 1`, `claims.level in [1, 2, 3]`,
		`claims.big == 1152921504606846976`, `claims.big > 1152921504606846975`, `claims.none == null`, `claims.sub == null`, `claims.sub == 1`, `claims.ok`, `claims.ok && true`, `claims.sub && true`, `claims.sub || true`, `!claims.sub`, `!claims.ok`,
		`"admin" in claims.roles`, `"x" in claims.roles`, `claims.roles[0]`, `claims.roles[0.0]`, `claims.roles["a"]`, `claims.roles[2]`, `claims.org.id.startsWith("o")`, `claims.level.startsWith("o")`, `claims.org`, `claims.org == {"id": "o1", "n": 2}`,
		`claims.roles == ["admin", "user"]`, `claims.mixed == ["a", 1, null, true]`, `1 in claims.mixed`, `null in claims.mixed`, `"id" in claims.org`, `1 in claims.org`, `1 in claims.sub`, `size(claims.roles)`, `size(claims)`, `size(claims.sub)`, `size(claims.level)`, `claims.sub ? 1 : 2`,
		`claims.sub < "b"`, `claims.sub < 1`, `claims.level < 4`, `claims.level < 4.5`, `claims.roles < 1`, `-claims.level`, `-claims.sub`, `claims.sub + "x"`, `claims.roles + ["x"]`, `claims.sub + 1`,
		`"ann" in names`, `size(names)`, `names[2]`, `names + ["x"]`, `names == ["ann", "bob", "äöü"]`, `2 in numbers`, `numbers[0] + 1`, `numbers + [4]`,
		`names.exists(e, e == "bob")`, `names.all(e, e != "x")`, `names.exists_one(e, e.startsWith("a"))`, `names.exists_one(e, true)`, `[].exists(e, true)`, `[].all(e, false)`, `[].exists_one(e, true)`,
		`numbers.exists(e, 1 / (e - 2) == 1)`, `numbers.exists(e, 1 / (e - 1) == 7)`, `numbers.all(e, 1 / (e - 2) > 5)`, `numbers.all(e, 1 / (e - 3) < 5)`, `numbers.exists_one(e, 1 / (e - 2) == 1)`,
		`request.headers.exists(k, k == "accept")`, `request.headers.all(k, request.headers[k] != "")`, `claims.roles.exists(r, r == "admin")`, `claims.sub.exists(r, true)`, `claims.org.all(k, k != "")`,
		`names.exists(a, numbers.exists(b, a == "bob" && b == 2))`, `names.all(a, names.exists(b, a == b))`, `names.exists(n, n == "ann") && n == 7`, `[[1, 2], [3]].exists(l, l.exists(e, e == 3))`, `names.exists(e, claims.sub == e) ? names.all(e, e != "") : false`,
		`claims.mixed.exists(e, e)`, `claims.mixed.all(e, e)`, `claims.mixed.exists(e, e == true)`,
		`s.startsWith("he")`, `s.endsWith("lo")`, `s.contains("ell")`, `s.matches("^h.*o$")`, `s.matches("l+")`, `"äöü".matches("^.{3}$")`, `s.contains("")`, `claims.sub.matches("a")`, `claims.level.matches("a")`,
		`string(1)`, `string("a")`, `string(true)`, `int("12")`, `int("x")`, `int(2.9)`, `int(-2.9)`, `int(1)`, `int(1e30)`, `double("1.5")`, `double(2)`, `double("x")`, `int(request.headers["x-n"]) > 5`, `int(claims.level)`, `string(claims.sub)`, `int(claims.ok)`, `double(claims.level)`,
		`twice("a")`, `twice(claims.sub)`, `twice(claims.level)`, `any == null`, `any == 1`, `any.x`, `any[0]`, `any + 1`, `size(any)`, `has(any.x)`,
		"1 +\n 2 // a comment", `1// a comment`, `b?1:2`, `[n,n][0]`, `n==7&&b`, `1 < 2 == true`, `n > 1 == b`,
	} {
		if !differ(t, ref, e) {
			_, err := Compile(env, e, Dyn)
			t.Errorf("%s: %v", e, err)
		}
	}
}

// What is refused before anything is evaluated: mistakes, and the parts of the language that are not here.
func TestMistakes(t *testing.T) {
	for e, want := range map[string]string{
		``: "at column 1: the end stands where a value should", `1 +`: "a value", `(1`: "where ) should", `1)`: "an operator", `a`: "a is not known", `request`: "request is not known", `request.x`: "request.x is not known", `request.method.x`: "string has no fields",
		`1 == "a"`: "== is not of int and string", `1 == 1.0`: "==", `1 < "a"`: "<", `[1] < [2]`: "<", `1 && true`: "bools", `!1`: "bool", `-"a"`: "number", `1 + "a"`: "+", `1 + 1.0`: "+", `true + true`: "+", `1.5 % 2.0`: "%", `"a" - "b"`: "-",
		`1 in 2`: "in", `1 in names`: "in", `1 in request.headers`: "in", `1 ? 2 : 3`: "condition", `b ? 1 : "a"`: "one is of type", `n.x`: "no fields", `names["a"]`: "no element", `n[0]`: "no element", `request.headers[1]`: "no element",
		`has(n)`: "has is of a field", `has(claims["x"])`: "has is of a field", `has((claims.x))`: "has is of a field", `has()`: "has is", `unknown(1)`: "no function", `s.unknown("a")`: "no function", `size()`: "no function", `size(1)`: "no size", `s.startsWith()`: "arguments", `n.startsWith("a")`: "of strings",
		`s.matches(s)`: "written out", `s.matches("(")`: "missing closing", `names.exists(e)`: ", should", `names.exists(1, true)`: "a name", `names.exists(e, 1)`: "bool", `n.exists(e, true)`: "no elements", `names.map(e, e)`: "e is not known", `twice()`: "arguments", `twice(1)`: "argument 1", `int(true)`: "no int of bool",
		`"a`: "does not end", `"a` + "\n" + `"`: "in its line", `"\q"`: "no escape", `"\x4"`: "no escape", `"\ud800"`: "no escape", `"""a"""`: "three quotes", `b"a"`: "bytes", `1u`: "no number", `1x`: "no number", `99999999999999999999`: "no int", `#`: "nothing known", `ä`: "nothing known", "\"\xff\"": "UTF-8",
		`if`: "a name", `{1: 2}`: "keys are strings", `{"a"}`: "where : should", `[1 2]`: "where ] should", `claims.`: "a name", `.n`: "a value",
		strings.Repeat("(", 200) + "1" + strings.Repeat(")", 200): "too deeply", strings.Repeat("1+", 20_000) + "1": "longer than",
	} {
		if _, err := Compile(env, e, Dyn); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50s: %v, want %q", e, err, want)
		}
	}
	if _, err := Compile(env, `1`, Bool); err == nil || !strings.Contains(err.Error(), "of type int, not bool") {
		t.Error(err)
	}
	if _, err := Compile(env, `claims.x`, Bool); err != nil {
		t.Error(err)
	}
}

// However an expression is written, so many steps are all that it takes.
func TestSteps(t *testing.T) {
	long := make([]any, 1000)
	for i := range long {
		long[i] = strings.Repeat("x", 1000)
	}
	vars := facts{"claims": map[string]any{"l": long, "s": strings.Repeat("y", 1<<20)}, "b": true}
	for _, e := range []string{
		`claims.l.all(a, claims.l.all(b, a == b))`, `claims.l.exists(a, claims.l.exists(b, a + b == ""))`, `claims.l.all(a, claims.s.contains(a) == false)`, `claims.l.all(a, !claims.s.matches("z+$"))`,
		`claims.l.all(a, !(claims.l + claims.l).exists(b, b == "")) || b`, `claims.l.all(a, claims.l == claims.l)`, `claims.l.all(a, size(claims.s) > 0)`, `claims.l.all(a, claims.l.exists(b, false) || true)`,
	} {
		p, err := Compile(env, e, Bool)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := p.Eval(vars, 50_000); !errors.Is(err, ErrSteps) {
			t.Errorf("%s: %v, %v", e, v, err)
		}
	}
}

// generate writes an expression of some type, mostly a right one.
type generator struct{ r *rand.Rand }

func (g *generator) pick(of ...string) string { return of[g.r.IntN(len(of))] }

func (g *generator) write(typ string, depth int) string {
	if g.r.IntN(40) == 0 {
		typ = g.pick("bool", "int", "double", "string", "list", "map", "dyn")
	}
	if depth <= 0 {
		return map[string]func() string{
			"bool": func() string { return g.pick("true", "false", "b", "claims.ok") }, "int": func() string { return g.pick("0", "1", "-3", "n", "7", "9223372036854775807") },
			"double": func() string { return g.pick("0.0", "1.5", "d", "-2.0", "claims.level") }, "string": func() string { return g.pick(`""`, `"ann"`, "s", `"é"`, "request.method", "claims.sub") },
			"list": func() string { return g.pick("[]", "names", "numbers", "claims.roles", "claims.mixed", "[1, 2]") }, "map": func() string { return g.pick("{}", "request.headers", "claims", "claims.org") },
			"dyn": func() string {
				return g.pick("any", "claims.none", "claims.sub", "claims.level", "claims.missing", "claims.mixed")
			},
		}[typ]()
	}
	sub := func(typ string) string { return g.write(typ, depth-1-g.r.IntN(2)) }
	switch typ {
	case "bool":
		same := g.pick("int", "double", "string", "dyn")
		return g.pick(
			"("+sub("bool")+g.pick(" && ", " || ", " == ")+sub("bool")+")", "!"+sub("bool"), "("+sub(same)+g.pick(" < ", " <= ", " > ", " >= ", " == ", " != ")+sub(same)+")",
			"("+sub("dyn")+g.pick(" == ", " < ", " != ")+sub(g.pick("int", "double", "string", "list", "bool"))+")",
			sub("list")+g.pick(".exists", ".all", ".exists_one")+"(e, "+g.pick(sub("bool"), "e == "+sub("dyn"), "e", "e != null && "+sub("bool"))+")", sub("map")+g.pick(".exists", ".all")+"(k, k == "+sub("string")+")",
			"("+sub(g.pick("string", "int", "dyn"))+" in "+sub(g.pick("list", "map", "dyn"))+")", sub("string")+g.pick(".startsWith(", ".contains(", ".endsWith(")+sub("string")+")", sub("string")+`.matches("`+g.pick("a", "^.n", "l+$")+`")`, "has(claims."+g.pick("sub", "org.id", "org.x", "sub.x", "x.y", "x")+")",
			"("+sub("bool")+" ? "+sub("bool")+" : "+sub("bool")+")",
		)
	case "int":
		return g.pick("("+sub("int")+g.pick(" + ", " - ", " * ", " / ", " % ")+sub("int")+")", "-"+sub("int"), "size("+sub(g.pick("string", "list", "map"))+")", "numbers["+sub("int")+"]", "int("+sub(g.pick("int", "double", "string"))+")")
	case "double":
		return g.pick("("+sub("double")+g.pick(" + ", " - ", " * ", " / ")+sub("double")+")", "-"+sub("double"), "double("+sub(g.pick("int", "double"))+")")
	case "string":
		return g.pick("("+sub("string")+" + "+sub("string")+")", "names["+sub("int")+"]", "request.headers["+sub("string")+"]", "string("+sub(g.pick("int", "bool", "string"))+")", "twice("+sub("string")+")", "("+sub("bool")+" ? "+sub("string")+" : "+sub("string")+")")
	case "list":
		return g.pick("["+sub(g.pick("int", "string", "dyn"))+", "+sub(g.pick("int", "string", "dyn"))+"]", "("+sub("list")+" + "+sub("list")+")", "claims.roles")
	case "map":
		return g.pick(`{"a": `+sub("dyn")+`, "b": `+sub("int")+"}", "claims")
	}
	return g.pick("claims["+sub("string")+"]", sub("list")+"["+sub("int")+"]", sub("map")+"."+g.pick("a", "sub", "x"), "("+sub("dyn")+g.pick(" + ", " - ")+sub("dyn")+")", "("+sub("bool")+" ? "+sub("dyn")+" : "+sub("dyn")+")")
}

// Expressions by chance: what is taken here means what the reference says.
func TestGenerated(t *testing.T) {
	ref := reference(t)
	taken := 0
	for seed := range uint64(1500) {
		g := &generator{rand.New(rand.NewPCG(seed, 1))}
		if e := g.write("bool", 4); differ(t, ref, e) {
			taken++
		}
		if t.Failed() {
			return
		}
	}
	if taken < 500 {
		t.Errorf("only %d of 1500 were taken", taken)
	}
}

func FuzzGenerated(f *testing.F) {
	f.Add(uint64(1), 3)
	ref := reference(f)
	f.Fuzz(func(t *testing.T, seed uint64, depth int) {
		g := &generator{rand.New(rand.NewPCG(seed, 2))}
		differ(t, ref, g.write("bool", max(depth, 0)%6))
	})
}

// Whatever is written, it is refused or evaluated, and nothing breaks.
func FuzzCompile(f *testing.F) {
	for _, e := range []string{`request.method == "GET" && names.exists(e, e in claims.roles)`, `{"a": [1, 2.5, null]}.a[0] > -3 ? "x" : r'\y'`, `has(claims.a.b) || s.matches("^a") && !b`, `"\u00e4\x41"`, "//\n((("} {
		f.Add(e)
	}
	ref := reference(f)
	f.Fuzz(func(t *testing.T, e string) {
		if len(e) <= 300 { // the reference takes long for more
			differ(t, ref, e)
		}
	})
}

func TestTypes(t *testing.T) {
	if got := fmt.Sprint(Map(List(Dyn)), Null, Bool, Double); got != "map(string, list(dyn)) null bool double" {
		t.Error(got)
	}
	if names := slices.Sorted(maps.Keys(env.Variables)); len(names) != len(values) {
		t.Errorf("the variables %v have the values %v", names, values)
	}
}

func BenchmarkEval(b *testing.B) {
	p, err := Compile(env, `request.method == "GET" && s.startsWith("h") && claims.sub == "ann"`, Bool)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if v, err := p.Eval(values, 1000); v != true || err != nil {
			b.Fatal(v, err)
		}
	}
}
