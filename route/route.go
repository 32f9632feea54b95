// Package route finds the target of a request: by host, path, method, header and query, with the precedence of
// Kubernetes' Gateway API; and the target of a connection by the server name its TLS asks for. A Table is compiled once
// from rules and never changes; its lookups allocate nothing and cost the same with ten rules or ten thousand.
//
// Paths are matched in their normal form (RFC 3986, section 6.2.2): escapes of unreserved characters decoded, dot
// segments and empty ones removed. The target gets the path as it was sent. An escaped slash (%2F) or backslash is
// part of a segment to some and ends it to others: such a path matches only where both readings lead to one rule, so
// that no spelling gets round a rule.
//
// The precedence of regular expressions, which the standard leaves open: one counts as a prefix, that of the whole
// segments it begins with, and comes just before that. So /users/[0-9]+ comes after the exact /users/me and the prefix
// /users/admin, before the prefix /users, and is tried for nothing that is not below /users.
package route

import (
	"math/rand/v2"

	"github.com/loam-run/loam"
)

// A Site is the rules of one listener. Where several share a socket, a request is for the site of its scheme with the
// most specific Host that takes its host, and for no other, be there a rule for it or not.
type Site struct {
	Scheme string // http or https; "": both
	Host   string // "shop.example.com", "*.example.com"; "": any
	Rules  []Rule
}

// A Rule sends the requests that one of its hosts and one of its matches accept to its backends.
type Rule struct {
	Name     string   // as logs and metrics name it: "HTTPRoute/shop rules[0]"
	Hosts    []string // "shop.example.com", "*.example.com"; none: any
	Matches  []Match  // none: every request
	Backends []Backend

	shares Shares[loam.Target]
}

// Pick takes the target of one of the rule's backends, by their weights. The rule is one that a Table returned.
func (r *Rule) Pick() loam.Target { return r.shares.Pick() }

// A Match accepts a request that has all it asks for.
type Match struct {
	Path    Path
	Method  string // "": any
	Headers []Value
	Query   []Value
}

// A Kind of path match.
type Kind uint8

// The kinds of path matches.
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

// A Result says what a request matched.
type Result struct {
	Rule *Rule // nil: none accepts the request
	// Misdirected: the request came by a connection for another site, to which the client gave a server name of that site.
	// It is answered 421 (RFC 9110, section 15.5.20): what the connection proved, a client certificate above all, was asked
	// for by the other site.
	Misdirected bool
	Path        string // the request's, in its normal form
	Prefix      int    // bytes of Path that a Prefix match accounts for, a slash at their end not among them; 0 for Regexp; all of them for Exact
}

// Shares picks one of several by weight. The zero value has none.
type Shares[T any] struct {
	all  []T
	ends []int // of each one's part of the line from 0 to the sum of the weights
}

// Add adds one; a weight of 0 or less is no share.
func (s *Shares[T]) Add(one T, weight int) {
	if weight > 0 {
		s.all, s.ends = append(s.all, one), append(s.ends, s.total()+weight)
	}
}

// Pick takes one; the zero T where there is none. Many goroutines may call it at once.
func (s *Shares[T]) Pick() (one T) {
	switch len(s.all) {
	case 0:
		return one
	case 1:
		return s.all[0]
	}
	at, i := rand.IntN(s.total()), 0
	for s.ends[i] <= at {
		i++
	}
	return s.all[i]
}

func (s *Shares[T]) total() int {
	if len(s.ends) == 0 {
		return 0
	}
	return s.ends[len(s.ends)-1]
}
