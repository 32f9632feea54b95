package cel

import (
	"encoding/json"
	"fmt"
	"strings"
)

// normal is a value in the form that is computed with: nil, bool, int64, float64, string, []any, []string, map[string]any or
// map[string]string.
func normal(v any) any {
	switch v := v.(type) {
	case int:
		return int64(v)
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		n, err := v.Float64()
		if err != nil {
			return string(v)
		}
		return n
	}
	return v
}

// typeName is a value's type for errors.
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "double"
	case string:
		return "string"
	case []any, []string:
		return "list"
	case map[string]any, map[string]string:
		return "map"
	}
	return fmt.Sprintf("%T", v)
}

func noOverload(op string, args ...any) error {
	names := make([]string, len(args))
	for i, a := range args {
		names[i] = typeName(a)
	}
	return fmt.Errorf("no such overload: %s(%s)", op, strings.Join(names, ", "))
}

// length is how many elements a list or map has; -1: it is none.
func length(v any) int {
	switch v := v.(type) {
	case []any:
		return len(v)
	case []string:
		return len(v)
	case map[string]any:
		return len(v)
	case map[string]string:
		return len(v)
	}
	return -1
}

func isListValue(v any) bool {
	switch v.(type) {
	case []any, []string:
		return true
	}
	return false
}

// element is that of a list at i.
func element(v any, i int) any {
	if all, ok := v.([]string); ok {
		return all[i]
	}
	return normal(v.([]any)[i])
}

// value is a map's at key.
func value(v any, key string) (any, bool) {
	if all, ok := v.(map[string]string); ok {
		s, ok := all[key]
		return s, ok
	}
	one, ok := v.(map[string]any)[key]
	return normal(one), ok
}

// keys are a map's.
func keys(v any) []string {
	all := make([]string, 0, length(v))
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			all = append(all, k)
		}
	case map[string]string:
		for k := range v {
			all = append(all, k)
		}
	}
	return all
}

// equal compares values of any types: those of different types are not equal, but for numbers.
func (f *frame) equal(a, b any) (bool, error) {
	if err := f.step(1); err != nil {
		return false, err
	}
	switch x := a.(type) {
	case nil:
		return b == nil, nil
	case bool:
		y, ok := b.(bool)
		return ok && x == y, nil
	case string:
		y, ok := b.(string)
		return ok && x == y, f.step(min(len(x), len(y)) / 16)
	case int64, float64:
		if order, ok := compareNumbers(a, b); ok {
			return order == same, nil
		}
		return false, nil
	}
	if n := length(a); n != length(b) || n < 0 || isListValue(a) != isListValue(b) {
		return false, nil
	}
	if isListValue(a) {
		for i := range length(a) {
			if is, err := f.equal(element(a, i), element(b, i)); !is || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	for _, k := range keys(a) {
		x, _ := value(a, k)
		y, ok := value(b, k)
		if !ok {
			return false, nil
		}
		if is, err := f.equal(x, y); !is || err != nil {
			return false, err
		}
	}
	return true, nil
}

type order int8

const (
	less order = iota - 1
	same
	more
	none // one is not a number
)

// compareNumbers orders an int64 or float64 and another one; false where one of them is neither.
func compareNumbers(a, b any) (order, bool) {
	switch x := a.(type) {
	case int64:
		switch y := b.(type) {
		case int64:
			return compare(x, y), true
		case float64:
			return -compareMixed(y, x), true
		}
	case float64:
		switch y := b.(type) {
		case int64:
			return compareMixed(x, y), true
		case float64:
			return compareFloats(x, y), true
		}
	}
	return none, false
}

func compare[T int64 | string](x, y T) order {
	switch {
	case x < y:
		return less
	case x > y:
		return more
	}
	return same
}

func compareFloats(x, y float64) order {
	switch {
	case x < y:
		return less
	case x > y:
		return more
	case x == y:
		return same
	}
	return none
}

// compareMixed orders x and y, as the float that is nearest to it.
func compareMixed(x float64, y int64) order {
	if o := compareFloats(x, float64(y)); o != none {
		return o
	}
	return 2 // none, whichever way it is turned
}
