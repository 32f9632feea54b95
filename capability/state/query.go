package state

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
)

// Bounds of a query.
const (
	MaxQuery   = 64 << 10 // bytes of its JSON
	maxFilters = 256      // in one query, those inside others counted
	maxDepth   = 16       // of filters inside filters
	maxSort    = 8
)

// A Query selects items by what their values, JSON objects, hold: Dapr's query, parsed.
type Query struct {
	Filter *Filter // nil: every item
	Sort   []Sort  // by the first, then the second…, then the key
	Limit  int     // items of a page; 0: as many as there may be, MaxOps
	Token  string  // of the page before; "": the first page
}

// A Filter tells whether a value is selected. One about a member is false where the value has no such member, NEQ too.
type Filter struct {
	Op     string   // EQ, NEQ, GT, GTE, LT, LTE, IN; AND, OR
	Key    string   // the member, names with dots between: person.org
	Values []any    // what it is compared with, several for IN: as encoding/json has them, numbers as json.Number
	Of     []Filter // of AND, OR: at least two
}

// Sort is one order of items.
type Sort struct {
	Key        string
	Descending bool
}

// A Page is a part of what a query selects.
type Page struct {
	Items []Item
	Token string // for the next page; "": there is none
}

// ParseQuery reads a query as Dapr's API has it:
//
//	{"filter": {"AND": [{"EQ": {"state": "CA"}}, {"IN": {"id": [1, 2]}}]}, "sort": [{"key": "id", "order": "DESC"}],
//	 "page": {"limit": 10, "token": "…"}}
func ParseQuery(b []byte) (*Query, error) {
	if len(b) > MaxQuery {
		return nil, loam.Errorf(loam.InvalidArgument, "state.Query", "a query of %d bytes: at most %d", len(b), MaxQuery)
	}
	q, err := parseQuery(b)
	if err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: "state.Query", Err: err}
	}
	return q, nil
}

func parseQuery(b []byte) (*Query, error) {
	var in struct {
		Filter any `json:"filter"`
		Sort   []struct {
			Key   string `json:"key"`
			Order string `json:"order"`
		} `json:"sort"`
		Page struct {
			Limit int    `json:"limit"`
			Token string `json:"token"`
		} `json:"page"`
	}
	if err := decode(b, &in); err != nil {
		return nil, err
	}
	q := &Query{Limit: in.Page.Limit, Token: in.Page.Token}
	if q.Limit < 0 {
		return nil, fmt.Errorf("page limit %d: it is at least 0", q.Limit)
	}
	if len(in.Sort) > maxSort {
		return nil, fmt.Errorf("%d keys to sort by: at most %d", len(in.Sort), maxSort)
	}
	for _, s := range in.Sort {
		switch {
		case s.Key == "":
			return nil, fmt.Errorf("a sort without a key")
		case s.Order != "" && s.Order != "ASC" && s.Order != "DESC":
			return nil, fmt.Errorf("sort order %q is neither ASC nor DESC", s.Order)
		}
		q.Sort = append(q.Sort, Sort{s.Key, s.Order == "DESC"})
	}
	if m, ok := in.Filter.(map[string]any); in.Filter == nil || ok && len(m) == 0 {
		return q, nil
	}
	left := maxFilters
	f, err := parseFilter(in.Filter, maxDepth, &left)
	q.Filter = &f
	return q, err
}

// decode reads one JSON value, whose numbers stay as they are written.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return err
	}
	if len(bytes.TrimLeft(b[d.InputOffset():], " \t\r\n")) > 0 {
		return fmt.Errorf("there is more behind the JSON value")
	}
	return nil
}

func parseFilter(in any, depth int, left *int) (f Filter, err error) {
	m, ok := in.(map[string]any)
	if !ok || len(m) != 1 {
		return f, fmt.Errorf("a filter is an object with one member")
	}
	if *left--; *left < 0 || depth == 0 {
		return f, fmt.Errorf("more than %d filters, or %d inside each other", maxFilters, maxDepth)
	}
	var what any
	for f.Op, what = range m {
	}
	switch f.Op {
	case "AND", "OR":
		list, ok := what.([]any)
		if !ok || len(list) < 2 {
			return f, fmt.Errorf("%s takes a list of at least two filters", f.Op)
		}
		for _, one := range list {
			sub, err := parseFilter(one, depth-1, left)
			if err != nil {
				return f, err
			}
			f.Of = append(f.Of, sub)
		}
		return f, nil
	case "EQ", "NEQ", "GT", "GTE", "LT", "LTE", "IN":
	default:
		return f, fmt.Errorf("unsupported filter %q", f.Op)
	}
	pair, ok := what.(map[string]any)
	if !ok || len(pair) != 1 {
		return f, fmt.Errorf("%s takes an object with one member", f.Op)
	}
	for f.Key, what = range pair {
	}
	f.Values = []any{what}
	if f.Op == "IN" {
		if f.Values, ok = what.([]any); !ok {
			return f, fmt.Errorf("IN takes a list of values")
		}
		if *left -= len(f.Values); *left < 0 {
			return f, fmt.Errorf("more than %d filters and values", maxFilters)
		}
	}
	return f, nil
}

// Match tells whether a value, as encoding/json decodes it, is selected.
func (f *Filter) Match(value any) bool {
	switch f.Op {
	case "AND":
		return !slices.ContainsFunc(f.Of, func(sub Filter) bool { return !sub.Match(value) })
	case "OR":
		return slices.ContainsFunc(f.Of, func(sub Filter) bool { return sub.Match(value) })
	}
	have, ok := member(value, f.Key)
	if !ok {
		return false
	}
	switch f.Op {
	case "EQ", "IN":
		return slices.ContainsFunc(f.Values, func(v any) bool { return same(have, v) })
	case "NEQ":
		return !same(have, f.Values[0])
	}
	if rank(have) != rank(f.Values[0]) || rank(have) < numbers || rank(have) > strs {
		return false // only numbers and strings have an order that means something
	}
	switch c := compare(have, f.Values[0]); f.Op {
	case "GT":
		return c > 0
	case "GTE":
		return c >= 0
	case "LT":
		return c < 0
	default:
		return c <= 0
	}
}

// member finds a member of a value by its path.
func member(value any, path string) (any, bool) {
	for {
		m, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok := m[path]; ok { // a name may have dots itself
			return v, true
		}
		name, rest, more := strings.Cut(path, ".")
		if value, ok = m[name]; !ok || !more {
			return nil, false
		}
		path = rest
	}
}

// same tells whether two values are equal.
func same(a, b any) bool {
	if rank(a) != rank(b) {
		return false
	}
	switch a := a.(type) {
	case []any:
		return slices.EqualFunc(a, b.([]any), same)
	case map[string]any:
		m := b.(map[string]any)
		if len(a) != len(m) {
			return false
		}
		for k, v := range a {
			if w, ok := m[k]; !ok || !same(v, w) {
				return false
			}
		}
		return true
	}
	return compare(a, b) == 0
}

// The ranks of values of different types in an order.
const (
	missing = iota
	nulls
	bools
	numbers
	strs
	others
)

// absent stands for a member that is not there.
type absent struct{}

func rank(v any) int {
	switch v.(type) {
	case absent:
		return missing
	case nil:
		return nulls
	case bool:
		return bools
	case json.Number, float64:
		return numbers
	case string:
		return strs
	}
	return others
}

// compare orders two values: by their types, then numbers by size and strings by bytes; lists and objects are all one.
func compare(a, b any) int {
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	switch a := a.(type) {
	case bool:
		return cmp.Compare(bit(a), bit(b.(bool)))
	case string:
		return cmp.Compare(a, b.(string))
	case json.Number, float64:
		i, ok := whole(a)
		j, also := whole(b)
		if ok && also {
			return cmp.Compare(i, j)
		}
		return cmp.Compare(float(a), float(b))
	}
	return 0
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func whole(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := strconv.ParseInt(string(n), 10, 64)
	return i, err == nil
}

func float(v any) float64 {
	if f, ok := v.(float64); ok {
		return f
	}
	f, _ := v.(json.Number).Float64() // out of range: infinite, which is right
	return f
}

// position is where an item stands in a query's order: what it is sorted by, then its key.
type position struct {
	by  []any
	key string
}

func (p position) compare(q position, sort []Sort) int {
	for i, s := range sort {
		if c := compare(p.by[i], q.by[i]); c != 0 {
			if s.Descending {
				return -c
			}
			return c
		}
	}
	return cmp.Compare(p.key, q.key)
}

// token writes a position down. What is no scalar stands as an empty one of its kind, which sorts alike.
func (p position) token() (string, error) {
	parts := []any{[]byte(p.key)} // in base64: it may be any bytes
	for _, v := range p.by {
		switch rank(v) {
		case missing:
			parts = append(parts, []any{})
		case others:
			parts = append(parts, map[string]any{})
		default:
			parts = append(parts, v)
		}
	}
	b, err := json.Marshal(parts)
	return base64.RawURLEncoding.EncodeToString(b), err
}

func parseToken(token string, sort []Sort) (p position, err error) {
	wrong := func() (position, error) {
		return position{}, loam.Errorf(loam.InvalidArgument, "state.Query", "a token that no page of this query was answered with")
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return wrong()
	}
	var parts []any
	if decode(b, &parts) != nil || len(parts) != 1+len(sort) {
		return wrong()
	}
	text, _ := parts[0].(string)
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return wrong()
	}
	p.key = string(key)
	for _, v := range parts[1:] {
		if list, ok := v.([]any); ok {
			if len(list) > 0 {
				return wrong()
			}
			v = absent{}
		}
		p.by = append(p.by, v)
	}
	return p, nil
}

// Select is a Query over items that a driver reads one by one, in whatever order, each key once. It keeps no more than two
// pages.
func Select(q *Query, items iter.Seq2[Item, error]) (Page, error) {
	limit := q.Limit
	if limit <= 0 || limit > MaxOps {
		limit = MaxOps
	}
	var after position
	if q.Token != "" {
		var err error
		if after, err = parseToken(q.Token, q.Sort); err != nil {
			return Page{}, err
		}
	}
	type found struct {
		position
		item Item
	}
	var page []found
	order := func(a, b found) int { return a.compare(b.position, q.Sort) }
	for it, err := range items {
		if err != nil {
			return Page{}, err
		}
		at := position{key: it.Key}
		if q.Filter != nil || len(q.Sort) > 0 {
			var value any
			if decode(it.Value, &value) != nil || q.Filter != nil && !q.Filter.Match(value) {
				continue // what is no JSON is selected by nothing
			}
			for _, s := range q.Sort {
				v, ok := member(value, s.Key)
				if !ok {
					v = absent{}
				}
				at.by = append(at.by, v)
			}
		}
		if q.Token != "" && at.compare(after, q.Sort) <= 0 {
			continue
		}
		if page = append(page, found{at, it}); len(page) > 2*limit {
			slices.SortFunc(page, order)
			clear(page[limit+1:])
			page = page[:limit+1]
		}
	}
	slices.SortFunc(page, order)
	var out Page
	if len(page) > limit {
		page = page[:limit]
		var err error
		if out.Token, err = page[limit-1].token(); err != nil {
			return Page{}, err
		}
	}
	for _, f := range page {
		out.Items = append(out.Items, f.item)
	}
	return out, nil
}
