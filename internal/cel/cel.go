// Package cel is the part of the Common Expression Language (cel.dev) that rules about requests are written in: literals of
// bool, int, double, string, list, map and null; the operators; has, all, exists and exists_one; startsWith, endsWith,
// contains, matches, size, string, int and double. Not in it: timestamps, durations, bytes, uint, messages, type values, and
// patterns that are not written out. What is in it means what the language's own implementation makes of it, which the tests
// compare it with. That one is not used here since it costs every process 8 MB of binary and 6 MB of memory, used or not.
//
// Expressions have no loops but over what a request holds, and a bound on their steps. Their types are checked when they are
// compiled, as far as they are known.
package cel

import (
	"errors"
	"fmt"
)

// A Type is what an expression is known to be.
type Type struct {
	kind kind
	elem *Type // of a list's elements, or a map's values; its keys are strings
}

type kind uint8

const (
	isDyn kind = iota
	isNull
	isBool
	isInt
	isDouble
	isString
	isList
	isMap
)

// The types without elements. Dyn is known when the expression is evaluated.
var (
	Dyn    = Type{kind: isDyn}
	Null   = Type{kind: isNull}
	Bool   = Type{kind: isBool}
	Int    = Type{kind: isInt}
	Double = Type{kind: isDouble}
	String = Type{kind: isString}
)

// List is a list of elem.
func List(elem Type) Type { return Type{isList, &elem} }

// Map is a map from strings to elem.
func Map(elem Type) Type { return Type{isMap, &elem} }

// String is the type as errors name it.
func (t Type) String() string {
	name := [...]string{"dyn", "null", "bool", "int", "double", "string", "list", "map"}[t.kind]
	switch t.kind {
	case isList:
		return name + "(" + t.elem.String() + ")"
	case isMap:
		return name + "(string, " + t.elem.String() + ")"
	}
	return name
}

// fits tells whether values of both types may be compared, or one be used as the other.
func (t Type) fits(u Type) bool {
	if t.kind == isDyn || u.kind == isDyn {
		return true
	}
	return t.kind == u.kind && (t.elem == nil || t.elem.fits(*u.elem))
}

// join is the type of what is of one of two types.
func join(t, u Type) Type {
	if t.kind != u.kind {
		return Dyn
	}
	if t.elem == nil {
		return t
	}
	elem := join(*t.elem, *u.elem)
	return Type{t.kind, &elem}
}

// A Function is one that expressions may call beside the language's own. Its parameters and result are of the types that
// values have: see Vars.
type Function struct {
	Params []Type
	Result Type
	Call   func(args []any) (any, error)
}

// An Env is what expressions may name. It is not changed once it is used.
type Env struct {
	Variables map[string]Type // names may have dots; none is another's beginning
	Functions map[string]Function
}

// Vars gives variables their values: nil, bool, int64, float64, string, []any, []string, map[string]any or map[string]string, in
// []any and map[string]any any of these. Those of Env are always there.
type Vars interface {
	Var(name string) any
}

// A Program is an expression that was compiled. It is safe for concurrent use.
type Program struct{ root node }

// ErrSteps is the error of an expression that took too many steps.
var ErrSteps = errors.New("the expression takes too many steps for this request")

// Compile reads and checks an expression. Its result is of type want, or not known before it is evaluated.
func Compile(env *Env, expression string, want Type) (*Program, error) {
	p := &parser{env: env, in: expression}
	root, err := p.whole()
	if err != nil {
		return nil, err
	}
	if !root.typ.fits(want) {
		return nil, fmt.Errorf("the expression is of type %s, not %s", root.typ, want)
	}
	return &Program{root}, nil
}

// Eval evaluates the expression in at most so many steps.
func (p *Program) Eval(vars Vars, steps int) (any, error) {
	return p.root.eval(&frame{vars: vars, left: steps})
}

// frame is one evaluation.
type frame struct {
	vars   Vars
	left   int   // steps
	locals []any // of the comprehensions that are under way
}

// step counts work.
func (f *frame) step(n int) error {
	if f.left -= n; f.left < 0 {
		return ErrSteps
	}
	return nil
}

// node is a part of an expression, compiled.
type node struct {
	typ   Type
	eval  func(*frame) (any, error)
	text  *string // of a literal string
	of    *node   // of a field: what it is of
	field string
}
