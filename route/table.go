package route

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/loam-run/loam"
)

// A Table finds the rule of a request. It is immutable; many goroutines may use it at once.
type Table struct {
	plain, secure Hosts[*Hosts[*paths]] // sites by scheme, then by host
}

// paths are the rules of one host.
type paths struct {
	exact map[string]*list
	nodes map[string]*node // by prefix, without the slash at the end
	depth int              // segments of the longest prefix
}

// A node is what a path prefix leads to.
type node struct{ regexps, prefix list }

// A candidate is one match of a rule, its path aside.
type candidate struct {
	rule    *Rule
	order   int
	path    *regexp.Regexp // of a Regexp path
	method  string
	headers []value
	query   []value
}

type value struct {
	name, value string
	regexp      *regexp.Regexp // in place of value
}

// Compile builds the table. Among rules that accept the same request the one listed first wins where the standard's
// precedence leaves a tie. It fails on a bad pattern, on a rule without a backend of positive weight, and on two sites
// of one host.
func Compile(sites ...Site) (*Table, error) {
	t := &Table{}
	var errs []error
	order := 0
	for _, s := range sites {
		hosts := &Hosts[*paths]{}
		if !t.enter(s, hosts) {
			errs = append(errs, fmt.Errorf("two sites of host %q", s.Host))
			continue
		}
		for _, r := range s.Rules {
			r.shares = Shares[loam.Target]{}
			for _, b := range r.Backends {
				if b.Weight < 0 || b.Weight > 0 && b.Target == nil {
					errs = append(errs, fmt.Errorf("%s: a backend of weight %d without a target", r.Name, b.Weight))
				}
				r.shares.Add(b.Target, b.Weight)
			}
			if r.shares.total() == 0 {
				errs = append(errs, fmt.Errorf("%s: no backend has a weight", r.Name))
			}
			matches := r.Matches
			if len(matches) == 0 {
				matches = []Match{{}}
			}
			for _, m := range matches {
				order++
				c, err := newCandidate(&r, m, order)
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", r.Name, err))
					continue
				}
				if len(r.Hosts) == 0 {
					at(hosts, "").add(c, m.Path)
				}
				for _, h := range r.Hosts {
					at(hosts, h).add(c, m.Path)
				}
			}
		}
		for _, p := range hosts.of {
			p.finish()
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: "route.Compile", Err: err}
	}
	return t, nil
}

// enter adds a site, where there is none of its scheme and host.
func (t *Table) enter(s Site, hosts *Hosts[*paths]) bool {
	_, plain := t.plain.Get(s.Host)
	_, secure := t.secure.Get(s.Host)
	if plain && s.Scheme != "https" || secure && s.Scheme != "http" {
		return false
	}
	if s.Scheme != "https" {
		t.plain.Set(s.Host, hosts)
	}
	if s.Scheme != "http" {
		t.secure.Set(s.Host, hosts)
	}
	return true
}

func at(hosts *Hosts[*paths], host string) *paths {
	p, there := hosts.Get(host)
	if !there {
		p = &paths{exact: map[string]*list{}, nodes: map[string]*node{}}
		hosts.Set(host, p)
	}
	return p
}

func newCandidate(r *Rule, m Match, order int) (*candidate, error) {
	c := &candidate{rule: r, order: order, method: m.Method}
	var err1, err2, err3 error
	c.headers, err1 = values(m.Headers)
	c.query, err2 = values(m.Query)
	if m.Path.Kind == Regexp {
		c.path, err3 = whole(m.Path.Value)
	}
	return c, errors.Join(err1, err2, err3)
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

func (p *paths) add(c *candidate, path Path) {
	switch path.Kind {
	case Exact:
		key := Clean(path.Value)
		if p.exact[key] == nil {
			p.exact[key] = &list{}
		}
		p.exact[key].all = append(p.exact[key].all, c)
	case Regexp:
		n := p.node(folder(path.Value))
		n.regexps.all = append(n.regexps.all, c)
	default:
		n := p.node(strings.TrimSuffix(Clean(path.Value), "/"))
		n.prefix.all = append(n.prefix.all, c)
	}
}

func (p *paths) node(key string) *node {
	n := p.nodes[key]
	if n == nil {
		n = &node{}
		p.nodes[key] = n
		p.depth = max(p.depth, strings.Count(key, "/"))
	}
	return n
}

func (p *paths) finish() {
	for _, l := range p.exact {
		l.finish()
	}
	for _, n := range p.nodes {
		n.regexps.finish()
		n.prefix.finish()
	}
}

// folder is the longest path that all a pattern accepts is below, without its slash at the end. Only what is in normal
// form counts: a pattern that asks for another is asking for what no path is, and may stand anywhere.
func folder(pattern string) string {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return "" // Compile tells
	}
	text, _ := literal(re)
	text = text[:max(strings.LastIndexByte(text, '/'), 0)]
	if text == "" || Clean(text) != text {
		return ""
	}
	return text
}

// literal is the text that all re accepts begins with, and whether that is all there is of it.
func literal(re *syntax.Regexp) (string, bool) {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginText:
		return "", true
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return "", false
		}
		return string(re.Rune), true
	case syntax.OpCapture:
		return literal(re.Sub[0])
	case syntax.OpConcat:
		var all strings.Builder
		for _, sub := range re.Sub {
			text, whole := literal(sub)
			all.WriteString(text)
			if !whole {
				return all.String(), false
			}
		}
		return all.String(), true
	case syntax.OpAlternate:
		common, _ := literal(re.Sub[0])
		for _, sub := range re.Sub[1:] {
			text, _ := literal(sub)
			for !strings.HasPrefix(text, common) {
				common = common[:len(common)-1]
			}
		}
		return common, false
	}
	return "", false
}

// Match finds the rule for a request: Pick takes one of its backends.
func (t *Table) Match(req *loam.Request) Result {
	path := Clean(req.Path)
	host := hostname(req.Authority)
	sites := &t.plain
	if req.Scheme == "https" {
		sites = &t.secure
	}
	hosts, there := sites.Find(host)
	if !there {
		return Result{Path: path}
	}
	if sites.named && req.Scheme == "https" && req.Peer != nil {
		if met, _ := sites.Find(req.Peer.ServerName); met != hosts {
			return Result{Path: path, Misdirected: true}
		}
	}
	rule, prefix := find(hosts, host, path, req)
	if other, ambiguous := reread(path); ambiguous {
		if again, _ := find(hosts, host, other, req); again != rule {
			return Result{Path: path}
		}
	}
	return Result{Rule: rule, Path: path, Prefix: prefix}
}

func find(hosts *Hosts[*paths], host, path string, req *loam.Request) (*Rule, int) {
	for key := hosts.start(host); ; key = hosts.above(key) {
		if p := hosts.of[key]; p != nil {
			if r, prefix := p.find(req, path); r != nil {
				return r, prefix
			}
		}
		if key == "" {
			return nil, 0
		}
	}
}

func (p *paths) find(req *loam.Request, path string) (*Rule, int) {
	if l := p.exact[path]; l != nil {
		if r := l.first(req, path); r != nil {
			return r, len(path)
		}
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
		if n := p.nodes[key]; n != nil {
			if r := n.regexps.first(req, path); r != nil {
				return r, 0
			}
			if r := n.prefix.first(req, path); r != nil {
				return r, len(key)
			}
		}
		if key == "" {
			return nil, 0
		}
		key = key[:max(strings.LastIndexByte(key, '/'), 0)]
	}
}

// A list is candidates of one path. Where there are many, they are found by the header that most of them ask a value of,
// so that a thousand tenants on one path cost no more than ten.
type list struct {
	all    []*candidate // in order of precedence
	header string       // "": all are tried
	by     map[string][]*candidate
	rest   []*candidate // that do not ask for the header
}

const few = 8 // candidates are tried one after another

func (l *list) finish() {
	slices.SortFunc(l.all, precedence)
	if len(l.all) <= few {
		return
	}
	count := map[string]int{}
	for _, c := range l.all {
		for _, h := range c.headers {
			if h.regexp == nil {
				name := strings.ToLower(h.name)
				if count[name]++; count[name] > count[l.header] {
					l.header = name
				}
			}
		}
	}
	if count[l.header] <= few {
		l.header = ""
		return
	}
	l.by = map[string][]*candidate{}
	for _, c := range l.all {
		if i := slices.IndexFunc(c.headers, func(h value) bool { return h.regexp == nil && strings.EqualFold(h.name, l.header) }); i >= 0 {
			l.by[c.headers[i].value] = append(l.by[c.headers[i].value], c)
		} else {
			l.rest = append(l.rest, c)
		}
	}
}

// first returns the rule of the first candidate that accepts a request.
func (l *list) first(req *loam.Request, path string) *Rule {
	some, others := l.all, l.rest
	if l.header != "" {
		some = l.by[req.Header.Get(l.header)]
	}
	for len(some)+len(others) > 0 {
		var c *candidate
		if len(others) == 0 || len(some) > 0 && precedence(some[0], others[0]) < 0 {
			c, some = some[0], some[1:]
		} else {
			c, others = others[0], others[1:]
		}
		if c.accepts(req, path) {
			return c.rule
		}
	}
	return nil
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

func (c *candidate) accepts(req *loam.Request, path string) bool {
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
	return c.path == nil || c.path.MatchString(path)
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
