package route

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/loam-run/loam"
)

// maxHost is the longest a host name can be (RFC 1035): what is longer is under no wildcard, and not searched for one.
const maxHost = 253

// A Table finds the rule of a request. It is immutable; many goroutines may use it at once.
type Table struct {
	hosts map[string]*paths // by host; "" any; ".example.com" what ends so
	wild  bool              // there are hosts that begin with a dot
}

// paths are the rules of one host.
type paths struct {
	exact   map[string][]*candidate // each list in order of precedence
	prefix  map[string][]*candidate // without the slash at the end
	depth   int                     // segments of the longest prefix
	regexps []*candidate
}

// A candidate is one match of a rule, its path aside.
type candidate struct {
	rule    *compiled
	order   int
	path    *regexp.Regexp // of a Regexp path
	method  string
	headers []value
	query   []value
}

type compiled struct {
	Rule
	total int // of the weights
}

type value struct {
	name, value string
	regexp      *regexp.Regexp // in place of value
}

// Compile builds the table. Among rules that accept the same request the one listed first wins where the standard's
// precedence leaves a tie. It fails on a bad pattern and on a rule without a backend of positive weight.
func Compile(rules []Rule) (*Table, error) {
	t := &Table{hosts: map[string]*paths{}}
	var errs []error
	order := 0
	for _, r := range rules {
		c := &compiled{Rule: r}
		for _, b := range r.Backends {
			if b.Weight < 0 || b.Weight > 0 && b.Target == nil {
				errs = append(errs, fmt.Errorf("%s: a backend of weight %d without a target", r.Name, b.Weight))
			}
			c.total += max(b.Weight, 0)
		}
		if c.total == 0 {
			errs = append(errs, fmt.Errorf("%s: no backend has a weight", r.Name))
		}
		hosts, matches := r.Hosts, r.Matches
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		if len(matches) == 0 {
			matches = []Match{{}}
		}
		for _, m := range matches {
			order++
			one := &candidate{rule: c, order: order, method: m.Method}
			var err1, err2, err3 error
			one.headers, err1 = values(m.Headers)
			one.query, err2 = values(m.Query)
			if m.Path.Kind == Regexp {
				one.path, err3 = whole(m.Path.Value)
			}
			if err := errors.Join(err1, err2, err3); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", r.Name, err))
				continue
			}
			for _, h := range hosts {
				t.host(h).add(one, m.Path)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: "route.Compile", Err: err}
	}
	for _, p := range t.hosts {
		for _, c := range p.exact {
			slices.SortFunc(c, precedence)
		}
		for _, c := range p.prefix {
			slices.SortFunc(c, precedence)
		}
		slices.SortFunc(p.regexps, precedence)
	}
	return t, nil
}

// precedence is the standard's for what remains when host and path are the same.
func precedence(a, b *candidate) int {
	has := func(method string) int { return min(len(method), 1) }
	return cmp.Or(
		cmp.Compare(has(b.method), has(a.method)),
		cmp.Compare(len(b.headers), len(a.headers)),
		cmp.Compare(len(b.query), len(a.query)),
		cmp.Compare(a.order, b.order),
	)
}

func values(vs []Value) ([]value, error) {
	var all []value
	for _, v := range vs {
		w := value{name: v.Name, value: v.Value}
		if v.Regexp {
			var err error
			if w.regexp, err = whole(v.Value); err != nil {
				return nil, err
			}
		}
		all = append(all, w)
	}
	return all, nil
}

// whole compiles a pattern that accepts all of a text or nothing.
func whole(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil { // alone: a(b and c)d are no patterns, and neither is what joins them
		return nil, err
	}
	return regexp.Compile(`^(?s:` + pattern + `)$`)
}

func (t *Table) host(host string) *paths {
	host = strings.ToLower(host)
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		host, t.wild = suffix, true
	}
	p := t.hosts[host]
	if p == nil {
		p = &paths{exact: map[string][]*candidate{}, prefix: map[string][]*candidate{}}
		t.hosts[host] = p
	}
	return p
}

func (p *paths) add(c *candidate, path Path) {
	switch path.Kind {
	case Exact:
		key := clean(path.Value)
		p.exact[key] = append(p.exact[key], c)
	case Regexp:
		p.regexps = append(p.regexps, c)
	default:
		key := strings.TrimSuffix(clean(path.Value), "/")
		p.prefix[key] = append(p.prefix[key], c)
		p.depth = max(p.depth, strings.Count(key, "/"))
	}
}

// Match returns the target for a request, picked by weight, and the rule it is of; nil where none accepts it.
func (t *Table) Match(req *loam.Request) (loam.Target, *Rule) {
	path := clean(req.Path)
	rule := t.find(req, path)
	if other, ambiguous := reread(path); ambiguous && t.find(req, other) != rule {
		return nil, nil
	}
	if rule == nil {
		return nil, nil
	}
	return rule.pick(), &rule.Rule
}

// pick takes a backend by weight.
func (r *compiled) pick() loam.Target {
	at := 0
	if len(r.Backends) > 1 {
		at = rand.IntN(r.total)
	}
	for i := range r.Backends {
		if at -= r.Backends[i].Weight; at < 0 {
			return r.Backends[i].Target
		}
	}
	return nil // the weights sum up to total
}

// find looks at the host itself, at each wildcard above it, then at the rules for any.
func (t *Table) find(req *loam.Request, path string) *compiled {
	host := hostname(req.Authority)
	if p := t.hosts[host]; p != nil && host != "" && host[0] != '.' {
		if r := p.find(req, path); r != nil {
			return r
		}
	}
	if t.wild && len(host) <= maxHost {
		for i := 1; i < len(host); i++ {
			if host[i] != '.' {
				continue
			}
			if p := t.hosts[host[i:]]; p != nil && i+1 < len(host) {
				if r := p.find(req, path); r != nil {
					return r
				}
			}
		}
	}
	if p := t.hosts[""]; p != nil {
		return p.find(req, path)
	}
	return nil
}

func (p *paths) find(req *loam.Request, path string) *compiled {
	if r := first(p.exact[path], req); r != nil {
		return r
	}
	// A prefix ends where a segment does. None is longer than depth segments, and so is none looked up.
	key, segments := path, 0
	for i := range len(path) {
		if path[i] == '/' {
			if segments++; segments > p.depth {
				key = path[:i]
				break
			}
		}
	}
	for {
		if r := first(p.prefix[key], req); r != nil {
			return r
		}
		if key == "" {
			break
		}
		key = key[:max(strings.LastIndexByte(key, '/'), 0)]
	}
	for _, c := range p.regexps {
		if c.path.MatchString(path) && c.accepts(req) {
			return c.rule
		}
	}
	return nil
}

func first(cs []*candidate, req *loam.Request) *compiled {
	for _, c := range cs {
		if c.accepts(req) {
			return c.rule
		}
	}
	return nil
}

func (c *candidate) accepts(req *loam.Request) bool {
	if c.method != "" && c.method != req.Method {
		return false
	}
	for i := range c.headers {
		h := &c.headers[i]
		got := req.Header.Get(h.name)
		if h.regexp == nil && got != h.value || h.regexp != nil && !h.regexp.MatchString(got) || got == "" && !req.Header.Has(h.name) {
			return false
		}
	}
	for i := range c.query {
		q := &c.query[i]
		got, ok := parameter(req.RawQuery, q.name)
		if !ok || q.regexp == nil && got != q.value || q.regexp != nil && !q.regexp.MatchString(got) {
			return false
		}
	}
	return true
}

// parameter returns the first value of a query parameter, decoded.
func parameter(query, name string) (string, bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, v, _ := strings.Cut(pair, "=")
		if k, err := url.QueryUnescape(key); err != nil || k != name {
			continue
		}
		if u, err := url.QueryUnescape(v); err == nil { // it allocates nothing where nothing is escaped
			return u, true
		}
		return "", false
	}
	return "", false
}

// hostname is an authority without its port, in lower case.
func hostname(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && i > strings.LastIndexByte(authority, ']') {
		authority = authority[:i]
	}
	return strings.ToLower(strings.TrimSuffix(authority, "."))
}
