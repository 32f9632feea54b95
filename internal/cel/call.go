package cel

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// call is a function's call: has, one of the language's own, or one of the environment.
func (p *parser) call(name string, at int) (node, error) {
	args, err := p.args()
	if err != nil {
		return node{}, err
	}
	if name == "has" {
		if len(args) != 1 || args[0].of == nil {
			return node{}, errorAt(at, "has is of a field: has(claims.role)")
		}
		return has(args[0]), nil
	}
	if fn, ok := p.env.Functions[name]; ok {
		return fn.node(name, at, args)
	}
	if len(args) == 1 {
		switch name {
		case "size":
			return size(args[0], at)
		case "string", "int", "double":
			return convert(name, args[0], at)
		}
	}
	return node{}, errorAt(at, "there is no function %s of %d arguments here", name, len(args))
}

func (p *parser) args() (args []node, err error) {
	if err := p.need("("); err != nil {
		return nil, err
	}
	err = p.items(")", func() error {
		n, err := p.expr()
		args = append(args, n)
		return err
	})
	return args, err
}

// node is a call of the function.
func (fn Function) node(name string, at int, args []node) (node, error) {
	if len(args) != len(fn.Params) {
		return node{}, errorAt(at, "%s has %d arguments, not %d", name, len(fn.Params), len(args))
	}
	for i, a := range args {
		if !a.typ.fits(fn.Params[i]) {
			return node{}, errorAt(at, "argument %d of %s is of type %s, not %s", i+1, name, fn.Params[i], a.typ)
		}
	}
	return node{typ: fn.Result, eval: func(f *frame) (any, error) {
		if err := f.step(10); err != nil {
			return nil, err
		}
		values := make([]any, len(args))
		for i, a := range args {
			var err error
			if values[i], err = a.eval(f); err != nil {
				return nil, err
			}
		}
		return fn.Call(values)
	}}, nil
}

func has(field node) node {
	return node{typ: Bool, eval: func(f *frame) (any, error) {
		of, err := field.of.eval(f)
		if err != nil {
			return nil, err
		}
		switch {
		case isListValue(of):
			return nil, noOverload("has", of)
		case length(of) < 0: // it has no fields at all
			return false, nil
		}
		_, there := value(of, field.field)
		return there, f.step(1)
	}}
}

// unary is a call with one argument.
func unary(typ Type, arg node, apply func(f *frame, v any) (any, error)) node {
	return node{typ: typ, eval: func(f *frame) (any, error) {
		if err := f.step(1); err != nil {
			return nil, err
		}
		v, err := arg.eval(f)
		if err != nil {
			return nil, err
		}
		return apply(f, v)
	}}
}

func size(arg node, at int) (node, error) {
	switch arg.typ.kind {
	case isDyn, isString, isList, isMap:
	default:
		return node{}, errorAt(at, "%s has no size", arg.typ)
	}
	return unary(Int, arg, func(f *frame, v any) (any, error) {
		if s, ok := v.(string); ok {
			return int64(utf8.RuneCountInString(s)), f.step(len(s) / 16)
		}
		if n := length(v); n >= 0 {
			return int64(n), nil
		}
		return nil, noOverload("size", v)
	}), nil
}

func convert(to string, arg node, at int) (node, error) {
	switch arg.typ.kind {
	case isDyn, isString, isInt, isDouble:
	case isBool:
		if to == "string" {
			break
		}
		fallthrough
	default:
		return node{}, errorAt(at, "there is no %s of %s", to, arg.typ)
	}
	typ := map[string]Type{"string": String, "int": Int, "double": Double}[to]
	return unary(typ, arg, func(f *frame, v any) (any, error) {
		switch x := v.(type) {
		case string:
			switch to {
			case "string":
				return x, nil
			case "int":
				n, err := strconv.ParseInt(x, 10, 64)
				return n, err
			}
			return strconv.ParseFloat(x, 64)
		case int64:
			switch to {
			case "string":
				return strconv.FormatInt(x, 10), nil
			case "int":
				return x, nil
			}
			return float64(x), nil
		case float64:
			switch to {
			case "string":
				return strconv.FormatFloat(x, 'g', -1, 64), nil
			case "double":
				return x, nil
			}
			if !(x > math.MinInt64 && x < math.MaxInt64) {
				return nil, errOverflow
			}
			return int64(x), nil
		case bool:
			if to == "string" {
				return strconv.FormatBool(x), nil
			}
		}
		return nil, noOverload(to, v)
	}), nil
}

// method is a call on a value.
func (p *parser) method(of node, name string, at int) (node, error) {
	switch name {
	case "all", "exists", "exists_one":
		return p.comprehension(of, name, at)
	}
	args, err := p.args()
	if err != nil {
		return node{}, err
	}
	if name == "size" && len(args) == 0 {
		return size(of, at)
	}
	if len(args) != 1 {
		return node{}, errorAt(at, "there is no function %s of %d arguments here", name, len(args))
	}
	arg := args[0]
	if !of.typ.fits(String) || !arg.typ.fits(String) {
		return node{}, errorAt(at, "%s is of strings, not of %s and %s", name, of.typ, arg.typ)
	}
	var test func(s, arg string) bool
	switch name {
	case "startsWith":
		test = strings.HasPrefix
	case "endsWith":
		test = strings.HasSuffix
	case "contains":
		test = strings.Contains
	case "matches":
		if arg.text == nil {
			return node{}, errorAt(at, "a pattern is to be written out")
		}
		pattern, err := regexp.Compile(*arg.text)
		if err != nil {
			return node{}, errorAt(at, "%v", err)
		}
		cost := len(*arg.text)/4 + 1
		return unary(Bool, of, func(f *frame, v any) (any, error) {
			s, ok := v.(string)
			if !ok {
				return nil, noOverload(name, v)
			}
			if err := f.step((len(s)/16 + 1) * cost); err != nil {
				return nil, err
			}
			return pattern.MatchString(s), nil
		}), nil
	default:
		return node{}, errorAt(at, "there is no function %s here", name)
	}
	return binary(Bool, of, arg, func(f *frame, a, b any) (any, error) {
		s, ok := a.(string)
		t, ok2 := b.(string)
		if !ok || !ok2 {
			return nil, noOverload(name, a, b)
		}
		if err := f.step((len(s) + len(t)) / 16); err != nil {
			return nil, err
		}
		return test(s, t), nil
	}), nil
}

// comprehension is a macro that looks at each element of a list, or key of a map: x.exists(e, e > 1). As || and &&, all and
// exists do not mind errors where another element decides.
func (p *parser) comprehension(of node, name string, at int) (node, error) {
	elem := Dyn
	switch of.typ.kind {
	case isDyn:
	case isList:
		elem = *of.typ.elem
	case isMap:
		elem = String
	default:
		return node{}, errorAt(at, "%s has no elements", of.typ)
	}
	if err := p.need("("); err != nil {
		return node{}, err
	}
	one, err := p.name()
	if err == nil {
		err = p.need(",")
	}
	if err != nil {
		return node{}, err
	}
	slot := len(p.locals)
	p.locals = append(p.locals, local{one, elem})
	test, err := p.expr()
	p.locals = p.locals[:slot]
	if err == nil {
		err = p.need(")")
	}
	if err != nil {
		return node{}, err
	}
	if !test.typ.fits(Bool) {
		return node{}, errorAt(at, "%s asks for a bool, not %s", name, test.typ)
	}
	return unary(Bool, of, func(f *frame, v any) (any, error) {
		n := length(v)
		var names []string
		switch {
		case n < 0:
			return nil, noOverload(name, v)
		case !isListValue(v):
			names = keys(v)
		}
		f.locals = append(f.locals[:slot], nil)
		count := 0
		var wrong error
		for i := range n {
			if err := f.step(2); err != nil {
				return nil, err
			}
			if names != nil {
				f.locals = append(f.locals[:slot], names[i])
			} else {
				f.locals = append(f.locals[:slot], element(v, i))
			}
			r, err := test.eval(f)
			is, ok := r.(bool)
			if err == nil && !ok {
				err = noOverload(name, r)
			}
			switch {
			case errors.Is(err, ErrSteps), err != nil && name == "exists_one":
				return nil, err
			case err != nil:
				wrong = err
			case is == (name == "exists") && name != "exists_one":
				return is, nil
			case is:
				count++
			}
		}
		switch {
		case wrong != nil:
			return nil, wrong
		case name == "exists_one":
			return count == 1, nil
		}
		return name == "all", nil
	}), nil
}
