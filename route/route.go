// Package route finds the target of a request: by host, path, method, header and query, with the precedence of
// Kubernetes' Gateway API. A Table is compiled once from rules and never changes; its lookups allocate nothing and cost
// the same with ten rules or ten thousand, but for regular expressions, which are tried one after another.
//
// Paths are matched in their normal form (RFC 3986, section 6.2.2): escapes of unreserved characters decoded, dot
// segments and empty ones removed. The target gets the path as it was sent. An escaped slash (%2F) or backslash is
// part of a segment to some and ends it to others: such a path matches only where both readings lead to one rule, so
// that no spelling gets round a rule.
package route

import "github.com/loam-run/loam"

// A Rule sends the requests that one of its hosts and one of its matches accept to its backends.
type Rule struct {
	Name     string   // as logs name it: "HTTPRoute/shop rules[0]"
	Hosts    []string // "shop.example.com", "*.example.com"; none: any
	Matches  []Match  // none: every request
	Backends []Backend
}

// A Match accepts a request that has all it asks for.
type Match struct {
	Path    Path
	Method  string // "": any
	Headers []Value
	Query   []Value
}

// A Kind of path match.
type Kind uint8

// The kinds of path matches, the least specific first.
const (
	Prefix Kind = iota // whole segments: /a takes /a, /a/ and /a/b, not /ab
	Regexp             // RE2, all of the path
	Exact
)

// A Path accepts paths; the zero Path all of them.
type Path struct {
	Kind  Kind
	Value string
}

// A Value accepts a header field or query parameter.
type Value struct {
	Name   string
	Value  string
	Regexp bool // Value is RE2 and accepts all of the value
}

// A Backend is a target and its share of a rule's requests.
type Backend struct {
	Target loam.Target
	Weight int
}
