package cel

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// parser turns an expression into nodes that evaluate it, checking types on the way: one pass, by precedence
// (cel-spec, "Syntax").
type parser struct {
	env    *Env
	in     string
	tok    token
	next   int // where the token after tok begins
	depth  int
	locals []local // of the comprehensions round this place
}

type local struct {
	name string
	typ  Type
}

const (
	maxDepth  = 100
	maxLength = 16 << 10
)

func (p *parser) whole() (node, error) {
	if len(p.in) > maxLength {
		return node{}, fmt.Errorf("it is longer than %d bytes", maxLength)
	}
	if err := p.advance(); err != nil {
		return node{}, err
	}
	n, err := p.expr()
	if err == nil && p.tok.kind != tokEnd {
		err = p.unexpected("an operator")
	}
	return n, err
}

func (p *parser) advance() (err error) {
	p.tok, p.next, err = scan(p.in, p.next)
	return err
}

func (p *parser) is(op string) bool { return p.tok.kind == tokOperator && p.tok.text == op }

// take goes past an operator if it is next.
func (p *parser) take(op string) (bool, error) {
	if !p.is(op) {
		return false, nil
	}
	return true, p.advance()
}

func (p *parser) need(op string) error {
	ok, err := p.take(op)
	if err == nil && !ok {
		err = p.unexpected(op)
	}
	return err
}

func (p *parser) unexpected(wanted string) error {
	return errorAt(p.tok.at, "%s stands where %s should", p.tok.text, wanted)
}

// name reads a name.
func (p *parser) name() (string, error) {
	name := p.tok.text
	if p.tok.kind != tokName || strings.Contains(reserved, " "+name+" ") {
		return "", p.unexpected("a name")
	}
	return name, p.advance()
}

// expr is or ? expr : expr.
func (p *parser) expr() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return node{}, errorAt(p.tok.at, "it is nested too deeply")
	}
	defer func() { p.depth-- }()
	cond, err := p.logic("||")
	if err != nil || !p.is("?") {
		return cond, err
	}
	at := p.tok.at
	if err := p.advance(); err != nil {
		return node{}, err
	}
	yes, err := p.logic("||")
	if err == nil {
		err = p.need(":")
	}
	if err != nil {
		return node{}, err
	}
	no, err := p.expr()
	if err != nil {
		return node{}, err
	}
	if !cond.typ.fits(Bool) {
		return node{}, errorAt(at, "%s is no condition", cond.typ)
	}
	if !yes.typ.fits(no.typ) {
		return node{}, errorAt(at, "one is of type %s and the other of type %s", yes.typ, no.typ)
	}
	return node{typ: join(yes.typ, no.typ), eval: func(f *frame) (any, error) {
		c, err := cond.eval(f)
		if err != nil {
			return nil, err
		}
		switch c {
		case true:
			return yes.eval(f)
		case false:
			return no.eval(f)
		}
		return nil, noOverload("?:", c)
	}}, nil
}

// logic is a chain of || or &&. What one side decides, an error of the other does not undo.
func (p *parser) logic(op string) (node, error) {
	below, decides := p.relation, false
	if op == "||" {
		below, decides = func() (node, error) { return p.logic("&&") }, true
	}
	left, err := below()
	for err == nil && p.is(op) {
		at := p.tok.at
		if err = p.advance(); err != nil {
			break
		}
		var right node
		if right, err = below(); err != nil {
			break
		}
		if !left.typ.fits(Bool) || !right.typ.fits(Bool) {
			return node{}, errorAt(at, "%s is of bools, not of %s and %s", op, left.typ, right.typ)
		}
		left = node{typ: Bool, eval: logic(op, left.eval, right.eval, decides)}
	}
	return left, err
}

func logic(op string, left, right func(*frame) (any, error), decides bool) func(*frame) (any, error) {
	side := func(f *frame, eval func(*frame) (any, error)) (bool, error) {
		v, err := eval(f)
		if err != nil {
			return false, err
		}
		b, ok := v.(bool)
		if !ok {
			return false, noOverload(op, v)
		}
		return b, nil
	}
	return func(f *frame) (any, error) {
		if err := f.step(1); err != nil {
			return nil, err
		}
		l, wrong := side(f, left)
		if wrong == nil && l == decides {
			return decides, nil
		}
		r, err := side(f, right)
		switch {
		case errors.Is(wrong, ErrSteps):
			return nil, wrong
		case err == nil && r == decides:
			return decides, nil
		case wrong != nil:
			return nil, wrong
		case err != nil:
			return nil, err
		}
		return !decides, nil
	}
}

// relation is a chain of comparisons.
func (p *parser) relation() (node, error) {
	left, err := p.sum()
	for err == nil {
		op, at := p.tok.text, p.tok.at
		compares := p.tok.kind == tokOperator && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, op) || p.tok.kind == tokName && op == "in"
		if !compares {
			break
		}
		if err = p.advance(); err != nil {
			break
		}
		var right node
		if right, err = p.sum(); err != nil {
			break
		}
		left, err = relate(op, at, left, right)
	}
	return left, err
}

// binary evaluates both sides first.
func binary(typ Type, left, right node, apply func(f *frame, a, b any) (any, error)) node {
	return node{typ: typ, eval: func(f *frame) (any, error) {
		if err := f.step(1); err != nil {
			return nil, err
		}
		a, err := left.eval(f)
		if err != nil {
			return nil, err
		}
		b, err := right.eval(f)
		if err != nil {
			return nil, err
		}
		return apply(f, a, b)
	}}
}

func relate(op string, at int, left, right node) (node, error) {
	l, r := left.typ, right.typ
	wrong := errorAt(at, "%s is not of %s and %s", op, l, r)
	switch op {
	case "==", "!=":
		if !l.fits(r) {
			return node{}, wrong
		}
		return binary(Bool, left, right, func(f *frame, a, b any) (any, error) {
			is, err := f.equal(a, b)
			return is == (op == "=="), err
		}), nil
	case "in":
		if r.kind == isList && !l.fits(*r.elem) || r.kind == isMap && !l.fits(String) || r.kind != isList && r.kind != isMap && r.kind != isDyn {
			return node{}, wrong
		}
		return binary(Bool, left, right, in), nil
	}
	if !l.fits(r) || l.kind == isList || l.kind == isMap || l.kind == isNull || r.kind == isList || r.kind == isMap || r.kind == isNull {
		return node{}, wrong
	}
	return binary(Bool, left, right, func(f *frame, a, b any) (any, error) {
		o, ok := compareNumbers(a, b)
		if !ok {
			switch x := a.(type) {
			case string:
				y, isString := b.(string)
				if ok = isString; ok {
					o = compare(x, y)
				}
			case bool:
				y, isBool := b.(bool)
				if ok = isBool; ok {
					o = compare(truth(x), truth(y))
				}
			}
		}
		if !ok {
			return nil, noOverload(op, a, b)
		}
		switch op {
		case "<":
			return o == less, nil
		case "<=":
			return o == less || o == same, nil
		case ">":
			return o == more, nil
		}
		return o == more || o == same, nil
	}), nil
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func in(f *frame, a, b any) (any, error) {
	if isListValue(b) {
		for i := range length(b) {
			if is, err := f.equal(a, element(b, i)); is || err != nil {
				return is, err
			}
		}
		return false, nil
	}
	if length(b) < 0 {
		return nil, noOverload("in", a, b)
	}
	key, ok := a.(string)
	if ok {
		_, ok = value(b, key)
	}
	return ok, nil
}

func (p *parser) sum() (node, error)     { return p.arithmetic("+-", p.product) }
func (p *parser) product() (node, error) { return p.arithmetic("*/%", p.unary) }

func (p *parser) arithmetic(ops string, below func() (node, error)) (node, error) {
	left, err := below()
	for err == nil && p.tok.kind == tokOperator && len(p.tok.text) == 1 && strings.Contains(ops, p.tok.text) {
		op, at := p.tok.text, p.tok.at
		if err = p.advance(); err != nil {
			break
		}
		var right node
		if right, err = below(); err != nil {
			break
		}
		typ := left.typ
		if typ.kind == isDyn {
			typ = right.typ
		}
		known := typ.kind == isDyn || typ.kind == isInt || typ.kind == isDouble && op != "%" || op == "+" && (typ.kind == isString || typ.kind == isList)
		if !left.typ.fits(right.typ) || !known {
			return node{}, errorAt(at, "%s is not of %s and %s", op, left.typ, right.typ)
		}
		if typ.kind == isList && left.typ.kind == right.typ.kind {
			typ = join(left.typ, right.typ)
		}
		left = binary(typ, left, right, func(f *frame, a, b any) (any, error) { return calculate(f, op[0], a, b) })
	}
	return left, err
}

var errOverflow = errors.New("integer overflow")

func calculate(f *frame, op byte, a, b any) (any, error) {
	switch x := a.(type) {
	case int64:
		if y, ok := b.(int64); ok {
			return integers(op, x, y)
		}
	case float64:
		y, ok := b.(float64)
		switch {
		case !ok:
		case op == '+':
			return x + y, nil
		case op == '-':
			return x - y, nil
		case op == '*':
			return x * y, nil
		case op == '/':
			return x / y, nil
		}
	case string:
		if y, ok := b.(string); ok && op == '+' {
			return x + y, f.step((len(x) + len(y)) / 8)
		}
	}
	if op == '+' && isListValue(a) && isListValue(b) {
		n := length(a) + length(b)
		if err := f.step(n); err != nil {
			return nil, err
		}
		all := make([]any, 0, n)
		for _, list := range []any{a, b} {
			for i := range length(list) {
				all = append(all, element(list, i))
			}
		}
		return all, nil
	}
	return nil, noOverload(string(op), a, b)
}

func integers(op byte, x, y int64) (any, error) {
	switch op {
	case '+':
		if sum := x + y; sum > x == (y > 0) || y == 0 {
			return sum, nil
		}
	case '-':
		if rest := x - y; rest < x == (y > 0) || y == 0 {
			return rest, nil
		}
	case '*':
		if x == 0 || y == 0 {
			return int64(0), nil
		}
		if z := x * y; z/y == x && (x != -1 || y != -1<<63) && (y != -1 || x != -1<<63) {
			return z, nil
		}
	default:
		if y == 0 {
			return nil, errors.New("division by zero")
		}
		if x == -1<<63 && y == -1 {
			return nil, errOverflow
		}
		if op == '/' {
			return x / y, nil
		}
		return x % y, nil
	}
	return nil, errOverflow
}

// unary is any number of ! or of -, and a member.
func (p *parser) unary() (node, error) {
	at, op := p.tok.at, p.tok.text
	if !p.is("!") && !p.is("-") {
		return p.member()
	}
	count := 0
	for p.is(op) {
		if err := p.advance(); err != nil {
			return node{}, err
		}
		count++
	}
	if op == "-" && (p.tok.kind == tokInt || p.tok.kind == tokDouble) {
		p.tok.text = "-" + p.tok.text // the least integer has no positive one
		count--
	}
	n, err := p.member()
	if err != nil || count == 0 {
		return n, err
	}
	if op == "!" {
		if !n.typ.fits(Bool) {
			return node{}, errorAt(at, "! is of a bool, not of %s", n.typ)
		}
		return node{typ: Bool, eval: func(f *frame) (any, error) {
			v, err := n.eval(f)
			if err != nil {
				return nil, err
			}
			b, ok := v.(bool)
			if !ok {
				return nil, noOverload("!", v)
			}
			return b != (count%2 == 1), nil
		}}, nil
	}
	if n.typ.kind != isInt && n.typ.kind != isDouble && n.typ.kind != isDyn {
		return node{}, errorAt(at, "- is of a number, not of %s", n.typ)
	}
	return node{typ: n.typ, eval: func(f *frame) (any, error) {
		v, err := n.eval(f)
		for i := 0; err == nil && i < count; i++ {
			switch x := v.(type) {
			case int64:
				v, err = integers('-', 0, x)
			case float64:
				v = -x
			default:
				err = noOverload("-", v)
			}
		}
		return v, err
	}}, nil
}

// member is a primary expression and what is selected of it.
func (p *parser) member() (node, error) {
	n, err := p.primary()
	for err == nil {
		at := p.tok.at
		switch {
		case p.is("."):
			if err = p.advance(); err != nil {
				break
			}
			field := p.tok.text
			if p.tok.kind != tokName {
				return node{}, p.unexpected("a name")
			}
			if err = p.advance(); err != nil {
				break
			}
			if p.is("(") {
				n, err = p.method(n, field, at)
			} else {
				n, err = selection(n, field, at)
			}
		case p.is("["):
			n, err = p.index(n, at)
		default:
			return n, nil
		}
	}
	return n, err
}

func selection(of node, field string, at int) (node, error) {
	typ := Dyn
	switch of.typ.kind {
	case isDyn:
	case isMap:
		typ = *of.typ.elem
	default:
		return node{}, errorAt(at, "%s has no fields", of.typ)
	}
	return node{typ: typ, of: &of, field: field, eval: func(f *frame) (any, error) {
		v, err := of.eval(f)
		if err != nil {
			return nil, err
		}
		return get(f, v, field)
	}}, nil
}

// get is an element of a list or map.
func get(f *frame, of, at any) (any, error) {
	if err := f.step(1); err != nil {
		return nil, err
	}
	if isListValue(of) {
		i, ok := at.(int64)
		if d, double := at.(float64); double && d == float64(int64(d)) {
			i, ok = int64(d), true
		}
		if !ok {
			return nil, noOverload("[]", of, at)
		}
		if i < 0 || i >= int64(length(of)) {
			return nil, fmt.Errorf("index out of bounds: %d", i)
		}
		return element(of, int(i)), nil
	}
	if length(of) < 0 {
		return nil, noOverload("[]", of, at)
	}
	key, ok := at.(string)
	if ok {
		if v, there := value(of, key); there {
			return v, nil
		}
	}
	return nil, fmt.Errorf("no such key: %v", at)
}

func (p *parser) index(of node, at int) (node, error) {
	if err := p.advance(); err != nil {
		return node{}, err
	}
	i, err := p.expr()
	if err == nil {
		err = p.need("]")
	}
	if err != nil {
		return node{}, err
	}
	typ := Dyn
	switch {
	case of.typ.kind == isList && i.typ.fits(Int), of.typ.kind == isMap && i.typ.fits(String):
		typ = *of.typ.elem
	case of.typ.kind != isDyn:
		return node{}, errorAt(at, "%s has no element of type %s", of.typ, i.typ)
	}
	return binary(typ, of, i, get), nil
}

// primary is a literal, a name, a call, or an expression in parentheses.
func (p *parser) primary() (node, error) {
	t := p.tok
	constant := func(typ Type, v any) (node, error) {
		return node{typ: typ, eval: func(*frame) (any, error) { return v, nil }}, p.advance()
	}
	switch {
	case t.kind == tokInt:
		n, err := strconv.ParseInt(t.text, 0, 64)
		if digits := strings.TrimPrefix(t.text, "-"); !strings.HasPrefix(digits, "0x") { // 010 is ten
			n, err = strconv.ParseInt(t.text, 10, 64)
		}
		if err != nil {
			return node{}, errorAt(t.at, "%s is no int", t.text)
		}
		return constant(Int, n)
	case t.kind == tokDouble:
		d, err := strconv.ParseFloat(t.text, 64)
		if err != nil {
			return node{}, errorAt(t.at, "%s is no double", t.text)
		}
		return constant(Double, d)
	case t.kind == tokString:
		n, err := constant(String, t.text)
		n.text = &t.text
		return n, err
	case p.is("("):
		if err := p.advance(); err != nil {
			return node{}, err
		}
		n, err := p.expr()
		if err == nil {
			err = p.need(")")
		}
		n.of = nil // has((a.b)) is not has(a.b)
		return n, err
	case p.is("["):
		return p.list()
	case p.is("{"):
		return p.mapping()
	case t.kind == tokName:
		switch t.text {
		case "true", "false":
			return constant(Bool, t.text == "true")
		case "null":
			return constant(Null, nil)
		}
		return p.named()
	}
	return node{}, p.unexpected("a value")
}

// named is a local, a variable, whose name may have dots, or a function's call.
func (p *parser) named() (node, error) {
	at := p.tok.at
	name, err := p.name()
	if err != nil {
		return node{}, err
	}
	if p.is("(") {
		return p.call(name, at)
	}
	for i := len(p.locals) - 1; i >= 0; i-- {
		if p.locals[i].name == name {
			return node{typ: p.locals[i].typ, eval: func(f *frame) (any, error) { return f.locals[i], nil }}, nil
		}
	}
	for {
		if typ, ok := p.env.Variables[name]; ok {
			return node{typ: typ, eval: func(f *frame) (any, error) { return normal(f.vars.Var(name)), nil }}, nil
		}
		longer := false
		for known := range p.env.Variables {
			longer = longer || strings.HasPrefix(known, name+".")
		}
		if !longer || !p.is(".") {
			known := strings.Join(slices.Sorted(maps.Keys(p.env.Variables)), ", ")
			return node{}, errorAt(at, "%s is not known; these are: %s", name, known)
		}
		if err := p.advance(); err != nil {
			return node{}, err
		}
		part := p.tok.text
		if p.tok.kind != tokName {
			return node{}, p.unexpected("a name")
		}
		name += "." + part
		if err := p.advance(); err != nil {
			return node{}, err
		}
	}
}

// items reads expressions up to a closing one.
func (p *parser) items(end string, one func() error) error {
	for {
		if done, err := p.take(end); done || err != nil {
			return err
		}
		if err := one(); err != nil {
			return err
		}
		if comma, err := p.take(","); err != nil {
			return err
		} else if !comma {
			return p.need(end)
		}
	}
}

func (p *parser) list() (node, error) {
	var all []node
	elem := Dyn
	if err := p.advance(); err != nil {
		return node{}, err
	}
	err := p.items("]", func() error {
		n, err := p.expr()
		if elem = join(elem, n.typ); len(all) == 0 {
			elem = n.typ
		}
		all = append(all, n)
		return err
	})
	return node{typ: List(elem), eval: func(f *frame) (any, error) {
		if err := f.step(1 + len(all)); err != nil {
			return nil, err
		}
		values := make([]any, len(all))
		for i := range all {
			v, err := all[i].eval(f)
			if err != nil {
				return nil, err
			}
			values[i] = v
		}
		return values, nil
	}}, err
}

func (p *parser) mapping() (node, error) {
	var names, all []node
	elem := Dyn
	if err := p.advance(); err != nil {
		return node{}, err
	}
	err := p.items("}", func() error {
		at := p.tok.at
		k, err := p.expr()
		if err == nil && !k.typ.fits(String) {
			err = errorAt(at, "keys are strings here, not %s", k.typ)
		}
		if err == nil {
			err = p.need(":")
		}
		if err != nil {
			return err
		}
		n, err := p.expr()
		if elem = join(elem, n.typ); len(all) == 0 {
			elem = n.typ
		}
		names, all = append(names, k), append(all, n)
		return err
	})
	return node{typ: Map(elem), eval: func(f *frame) (any, error) {
		if err := f.step(1 + len(all)); err != nil {
			return nil, err
		}
		values := make(map[string]any, len(all))
		for i := range all {
			k, err := names[i].eval(f)
			if err != nil {
				return nil, err
			}
			key, ok := k.(string)
			if !ok {
				return nil, noOverload("{}", k)
			}
			if values[key], err = all[i].eval(f); err != nil {
				return nil, err
			}
		}
		return values, nil
	}}, err
}
