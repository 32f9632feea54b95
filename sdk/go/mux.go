package loam

import (
	"net/url"
	"slices"
	"strings"
)

// routes is this function's: a guest is one program, and its handlers register while it starts.
var routes mux

// A mux holds its routes with the more specific ones first, so that the first match is the right one.
type mux []route

type route struct {
	pattern  string
	method   string // "": any
	segments []segment
	h        HandlerFunc
}

// A segment is one part of a path between slashes.
type segment struct {
	text string // the literal, or a wildcard's name
	kind segmentKind
}

type segmentKind uint8

// In order of precedence.
const (
	literal segmentKind = iota
	wildcard
	rest // takes all that follows
)

func (m *mux) add(pattern string, h HandlerFunc) {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		method, path = "", pattern
	}
	if !strings.HasPrefix(path, "/") || h == nil {
		panic("loam: Handle(" + pattern + "): want a pattern like \"GET /orders/{id}\", and a handler")
	}
	r := route{pattern: pattern, method: method, h: h}
	parts := strings.Split(path[1:], "/")
	for i, part := range parts {
		last := i == len(parts)-1
		s := segment{text: part}
		if name, ok := strings.CutPrefix(part, "{"); ok {
			name, ok = strings.CutSuffix(name, "}")
			s.kind = wildcard
			if n, all := strings.CutSuffix(name, "..."); all && last {
				name, s.kind = n, rest
			}
			if s.text = name; !ok || name == "" || strings.ContainsAny(name, "{}.") {
				panic("loam: Handle(" + pattern + "): a wildcard is {name}, or {name...} at the end")
			}
		} else if part == "" && last {
			s.kind = rest
		}
		r.segments = append(r.segments, s)
	}
	i, taken := slices.BinarySearchFunc(*m, r, compareRoutes)
	if taken {
		panic("loam: Handle(" + pattern + "): " + (*m)[i].pattern + " is registered already and matches the same")
	}
	*m = slices.Insert(*m, i, r)
}

// compareRoutes puts literals before wildcards, longer paths before shorter ones, a method before none. Two routes are
// equal if they match the same requests.
func compareRoutes(a, b route) int {
	for i := range min(len(a.segments), len(b.segments)) {
		x, y := a.segments[i], b.segments[i]
		if x.kind != y.kind {
			return int(x.kind) - int(y.kind)
		}
		if c := strings.Compare(x.text, y.text); c != 0 && x.kind == literal {
			return c
		}
	}
	if c := len(b.segments) - len(a.segments); c != 0 {
		return c
	}
	return -strings.Compare(a.method, b.method)
}

// match finds r's handler and sets its path values. Where only other methods match, allow lists them.
func (m mux) match(r *Request) (h HandlerFunc, allow string) {
	for i := range m {
		rt := &m[i]
		values, ok := rt.matchPath(r.Path)
		if !ok {
			continue
		}
		if rt.method == "" || rt.method == r.Method || rt.method == "GET" && r.Method == "HEAD" {
			r.names, r.values = r.names[:0], values
			for _, s := range rt.segments {
				if s.kind != literal && s.text != "" {
					r.names = append(r.names, s.text)
				}
			}
			return rt.h, ""
		}
		if !strings.Contains(allow, rt.method) {
			if allow != "" {
				allow += ", "
			}
			allow += rt.method
		}
	}
	return nil, allow
}

func (rt *route) matchPath(path string) (values []string, ok bool) {
	path, ok = strings.CutPrefix(path, "/")
	if !ok {
		return nil, false
	}
	for i, s := range rt.segments {
		if s.kind == rest {
			if s.text != "" { // else it is a slash at the pattern's end
				values = append(values, unescape(path))
			}
			return values, true
		}
		part, tail, more := strings.Cut(path, "/")
		if more == (i == len(rt.segments)-1) {
			return nil, false
		}
		if part = unescape(part); s.kind == literal && part != s.text || s.kind == wildcard && part == "" {
			return nil, false
		}
		if s.kind == wildcard {
			values = append(values, part)
		}
		path = tail
	}
	return values, true
}

func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}
