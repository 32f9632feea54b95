package route

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/loam-run/loam"
)

// named is a target that only has a name.
type named string

func (named) Serve(*loam.Request) (*loam.Response, error) { return nil, nil }

func rule(name string, hosts []string, matches ...Match) Rule {
	return Rule{Name: name, Hosts: hosts, Matches: matches, Backends: []Backend{{named(name), 1}}}
}

func compile(t testing.TB, rules ...Rule) *Table {
	t.Helper()
	table, err := Compile(Site{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// request makes one of "METHOD host/path?query [name=value…]".
func request(line string) *loam.Request {
	f := strings.Fields(line)
	r := loam.NewRequest(context.Background())
	r.Method = f[0]
	r.Authority, r.Path, _ = strings.Cut(f[1], "/")
	r.Path, r.RawQuery, _ = strings.Cut("/"+r.Path, "?")
	for _, h := range f[2:] {
		name, value, _ := strings.Cut(h, "=")
		r.Header.Add(name, value)
	}
	return r
}

func matched(table *Table, line string) string {
	got := table.Match(request(line))
	if got.Rule == nil {
		return ""
	}
	if string(got.Rule.Pick().(named)) != got.Rule.Name {
		return "another target than the rule's"
	}
	return got.Rule.Name
}

func TestMatch(t *testing.T) {
	prefix := func(p string) Match { return Match{Path: Path{Prefix, p}} }
	exact := func(p string) Match { return Match{Path: Path{Exact, p}} }
	shop, wild := []string{"shop.example.com"}, []string{"*.example.com"}
	table := compile(t,
		rule("root", nil),
		rule("orders", nil, prefix("/orders/")),
		rule("open", nil, prefix("/orders/open")),
		rule("one", nil, exact("/orders/open/1")),
		rule("post", nil, Match{Path: Path{Prefix, "/orders"}, Method: "POST"}),
		rule("beta", nil, Match{Path: Path{Prefix, "/orders"}, Headers: []Value{{Name: "X-Version", Value: "beta"}}}),
		rule("beta-de", nil, Match{Path: Path{Prefix, "/orders"}, Headers: []Value{{Name: "x-version", Value: "beta"}, {Name: "x-lang", Value: "de.*", Regexp: true}}}),
		rule("later", nil, prefix("/orders")),
		rule("query", nil, Match{Path: Path{Prefix, "/orders"}, Query: []Value{{Name: "a b", Value: "c&d"}}}),
		rule("admin", nil, prefix("/admin")),
		rule("files", nil, Match{Path: Path{Regexp, "/files/.*"}}, Match{Path: Path{Regexp, "^(/docs)/[a-z]+|/docs/[0-9]+$"}}),
		rule("docs", nil, prefix("/docs"), exact("/docs/me")),
		rule("image", nil, Match{Path: Path{Regexp, `.*\.(?:png|JPG)`}}, Match{Path: Path{Regexp, `(?i)/upper/x`}}),
		rule("wild", wild, prefix("/w")),
		rule("wilder", []string{"*.eu.example.com"}, prefix("/w")),
		rule("shop", shop, prefix("/w"), Match{Path: Path{Regexp, `/item-\d+`}}),
	)
	for line, want := range map[string]string{
		"GET h/": "root", "GET h/ordersx": "root", "GET h/orders": "orders", "GET h/orders/": "orders", "GET h/orders/1/2/3": "orders",
		"GET h/orders/open": "open", "GET h/orders/open/1": "one", "GET h/orders/open/1/": "open", "GET h/orders/open/12": "open",
		"POST h/orders": "post", "POST h/orders/open": "open", "POST h/orders x-version=beta": "post", "GET h/orders x-version=beta": "beta",
		"GET h/orders x-version=beta x-lang=de-AT": "beta-de", "GET h/orders x-version=beta x-lang=xde": "beta",
		"GET h/orders?z=1&a+b=c%26d": "query", "GET h/orders?a+b=x&a+b=c%26d": "orders", "GET h/orders?a%zzb": "orders",
		"GET h/files/a": "files", "GET h/files/": "files", "GET h/files": "root", "GET h/filesystem": "root", "GET h/files/a/b.png": "files",
		"GET h/docs/abc": "files", "GET h/docs/12": "files", "GET h/docs/a1": "docs", "GET h/docs/me": "docs", "GET h/docs/a/b.png": "docs",
		"GET h/x.png": "image", "GET h/x.jpg": "root", "GET h/UPPER/X": "image", "GET h/x/../files/%61": "files", "GET h/w": "root",

		"GET a.example.com/w": "wild", "GET a.b.example.com:8080/w/x": "wild", "GET example.com/w": "root", "GET .example.com/w": "root",
		"GET a.eu.example.com/w": "wilder", "GET eu.example.com/w": "wild", "GET SHOP.example.com./w": "shop", "GET shop.example.com/item-7": "shop",
		"GET shop.example.com/item-7x": "root", "GET shop.example.com/orders": "orders", "GET [::1]:80/orders": "orders",

		"GET h//orders": "orders", "GET h/x/../orders": "orders", "GET h/%6frders": "orders", "GET h/./orders/.": "orders", "GET h/../../admin": "admin",
		"GET h/%2e%2e/admin": "admin", "GET h/x/%2E%2e/admin/": "admin", "GET h/orders/../admin": "admin",
		// Some take an escaped slash for one: what would be another rule then is nobody's.
		"GET h/orders%2f..%2fadmin": "", "GET h/orders/..%2fadmin": "", "GET h/admin%2Fusers": "", `GET h/admin\users`: "", "GET h/%5cadmin": "",
		"GET h/orders/a%2Fb": "orders", "GET h/x%2Fy": "root", "GET h/orders/%2525": "orders", "GET h/orders/%zz": "orders",
	} {
		if got := matched(table, line); got != want {
			t.Errorf("%s: matched %q, want %q", line, got, want)
		}
	}
	r := request("OPTIONS h/")
	r.Path = "*"
	if got := table.Match(r).Rule; got == nil || got.Name != "root" {
		t.Errorf("OPTIONS *: matched %v", got)
	}
	if got := matched(compile(t, rule("a", nil, exact("/a"))), "GET h/b"); got != "" {
		t.Errorf("matched %q, want none", got)
	}
	if got := matched(compile(t), "GET h/"); got != "" {
		t.Errorf("an empty table matched %q", got)
	}
}

// TestResult: what matched, and how much of the path it accounts for.
func TestResult(t *testing.T) {
	table := compile(t, rule("exact", nil, Match{Path: Path{Exact, "/a/b"}}), rule("prefix", nil, Match{Path: Path{Prefix, "/a/"}}),
		rule("any", nil), rule("regexp", nil, Match{Path: Path{Regexp, "/r/.*"}}))
	for path, want := range map[string]Result{
		"/a/b": {Path: "/a/b", Prefix: 4}, "/a": {Path: "/a", Prefix: 2}, "/a/": {Path: "/a/", Prefix: 2}, "/x/..//a/%62/c": {Path: "/a/b/c", Prefix: 2},
		"/": {Path: "/"}, "/z": {Path: "/z"}, "/r/1": {Path: "/r/1"},
	} {
		req := request("GET h/")
		req.Path = path
		got := table.Match(req)
		if got.Rule == nil || got.Path != want.Path || got.Prefix != want.Prefix {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
	if got := compile(t).Match(request("GET h/x//y")); got.Rule != nil || got.Path != "/x/y" {
		t.Errorf("no rules: %+v", got)
	}
}

// TestSites: a request is for one listener, that of the most specific host, and what that has no rule for is nobody's.
func TestSites(t *testing.T) {
	table, err := Compile(
		Site{Rules: []Rule{rule("any", nil)}},
		Site{Host: "*.example.com", Rules: []Rule{rule("wild", nil), rule("wild-a", []string{"a.example.com"}, Match{Path: Path{Prefix, "/a"}})}},
		Site{Host: "foo.example.com", Rules: []Rule{rule("foo", nil, Match{Path: Path{Prefix, "/foo"}})}},
		Site{Host: "*.b.example.com"},
	)
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"GET h/": "any", "GET example.com/foo": "any", "GET x.example.com/foo": "wild", "GET a.example.com/a": "wild-a", "GET a.example.com/b": "wild",
		"GET foo.example.com/foo": "foo", "GET foo.example.com/": "", "GET x.b.example.com/": "", "GET b.example.com/": "wild", "GET x.foo.example.com/": "wild",
	} {
		if got := matched(table, line); got != want {
			t.Errorf("%s: matched %q, want %q", line, got, want)
		}
	}
	for _, two := range [][2]string{{"", ""}, {"http", ""}, {"", "https"}, {"http", "http"}} {
		if _, err := Compile(Site{Host: "a.x", Scheme: two[0]}, Site{Host: "A.x", Scheme: two[1]}); err == nil {
			t.Errorf("two sites of one host, and schemes %q, compiled", two)
		}
	}
	table, err = Compile(Site{Scheme: "http", Rules: []Rule{rule("plain", nil)}}, Site{Scheme: "https", Rules: []Rule{rule("secure", nil)}}, Site{Host: "both", Rules: []Rule{rule("both", nil)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ scheme, host, rule string }{{"http", "h", "plain"}, {"https", "h", "secure"}, {"", "h", "plain"}, {"http", "both", "both"}, {"https", "both", "both"}} {
		req := request("GET " + want.host + "/")
		req.Scheme = want.scheme
		if got := table.Match(req).Rule; got == nil || got.Name != want.rule {
			t.Errorf("%v: matched %v", want, got)
		}
	}
}

// TestMisdirected: who met a site by TLS asks that site, be it for many hosts; what it asks of others is misdirected.
func TestMisdirected(t *testing.T) {
	table, err := Compile(
		Site{Scheme: "https", Host: "*.example.com", Rules: []Rule{rule("wild", nil)}},
		Site{Scheme: "https", Host: "secret.example.com", Rules: []Rule{rule("secret", nil)}},
		Site{Scheme: "http", Host: "secret.example.com", Rules: []Rule{rule("plain", nil)}},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		server, host, rule string
		misdirected        bool
	}{
		{"secret.example.com", "secret.example.com:8443", "secret", false},
		{"a.example.com", "b.example.com", "wild", false},
		{"a.example.com", "SECRET.example.com", "", true},
		{"secret.example.com", "a.example.com", "", true},
		{"", "a.example.com", "", true},
		{"a.example.com", "example.org", "", false},
		{"example.org", "secret.example.com", "", true},
	} {
		req := request("GET " + c.host + "/")
		req.Scheme, req.Peer = "https", &loam.Peer{ServerName: c.server}
		got := table.Match(req)
		if got.Misdirected != c.misdirected || (got.Rule == nil) != (c.rule == "") || got.Rule != nil && got.Rule.Name != c.rule {
			t.Errorf("%+v: %+v", c, got)
		}
	}
	req := request("GET secret.example.com/")
	req.Scheme, req.Peer = "http", &loam.Peer{ServerName: "x"}
	if got := table.Match(req); got.Rule == nil || got.Rule.Name != "plain" {
		t.Errorf("without TLS: %+v", got)
	}
	one, err := Compile(Site{Rules: []Rule{rule("any", nil)}})
	if err != nil {
		t.Fatal(err)
	}
	req.Scheme = "https"
	if got := one.Match(req); got.Rule == nil {
		t.Errorf("a single site: %+v", got)
	}
}

func TestHosts(t *testing.T) {
	var h Hosts[string]
	if got, ok := h.Find("a"); ok {
		t.Errorf("an empty one found %q", got)
	}
	for _, name := range []string{"a.example.com", "*.example.com", "*.eu.Example.com", "*.com"} {
		h.Set(name, name)
	}
	for host, want := range map[string]string{
		"a.example.com": "a.example.com", "A.Example.COM.": "a.example.com", "b.example.com": "*.example.com", "b.a.example.com": "*.example.com",
		"x.eu.example.com": "*.eu.Example.com", "eu.example.com": "*.example.com", "example.com": "*.com", "com": "", "": "", ".com": "", ".example.com": "*.com",
		"*.example.com": "*.example.com", strings.Repeat("a.", 200) + "com": "", "a..com": "*.com", "..": "",
	} {
		if got, ok := h.Find(host); got != want || ok != (want != "") {
			t.Errorf("Find(%q) = %q, %v; want %q", host, got, ok, want)
		}
	}
	h.Set("", "any")
	if got, _ := h.Find(strings.Repeat("a.", 100_000)); got != "any" {
		t.Errorf("found %q", got)
	}
}

// TestManyOnOnePath: many rules that differ by a header only are found by it, with the precedence they had.
func TestManyOnOnePath(t *testing.T) {
	var rules []Rule
	for i := range 100 {
		rules = append(rules, rule(fmt.Sprint(i), nil, Match{Headers: []Value{{Name: "X-Tenant", Value: fmt.Sprint(i % 50)}}}))
	}
	tenant := []Value{{Name: "x-tenant", Value: "7"}, {Name: "x-beta", Value: "1"}}
	rules = append(rules, rule("beta", nil, Match{Headers: tenant}), rule("post", nil, Match{Method: "POST"}), rule("none", nil),
		rule("empty", nil, Match{Headers: []Value{{Name: "x-tenant", Value: ""}, {Name: "x-e", Value: "1"}}}))
	table := compile(t, rules...)
	for line, want := range map[string]string{
		"GET h/ x-tenant=7": "7", "GET h/ X-TENANT=49": "49", "GET h/ x-tenant=50": "none", "GET h/": "none", "POST h/ x-tenant=7": "post",
		"GET h/ x-tenant=7 x-beta=1": "beta", "GET h/ x-e=1": "none", "GET h/ x-e=1 x-tenant=": "empty",
	} {
		if got := matched(table, line); got != want {
			t.Errorf("%s: matched %q, want %q", line, got, want)
		}
	}
}

// TestRegexpsElsewhereAreNotTried: a pattern that can match only below /a costs nothing elsewhere.
func TestRegexpsElsewhereAreNotTried(t *testing.T) {
	for pattern, want := range map[string]string{
		"/a/b/[0-9]+": "/a/b", "^/a/(b|c)$": "/a", "(/a)(/x.*)": "/a", "/a/.*|/a/b/c": "/a", "/ab?/x": "", "(?i)/a/b": "", "/a/../b/.*": "/a", `/a/\.\./b/.*`: "", ".*": "", "/a": "",
		"/a//b/.*": "", "/a/{2}b": "", `\A/a/b\z`: "/a", "(": "", "/é/x.*": "/é", "(?m)^/a/b": "",
	} {
		if got := folder(pattern); got != want {
			t.Errorf("folder(%q) = %q, want %q", pattern, got, want)
		}
	}
}

// TestHostile: what a stranger sends costs no more than what it is long.
func TestHostile(t *testing.T) {
	table := compile(t, rule("any", nil, Match{Path: Path{Prefix, "/a/b"}}), rule("wild", []string{"*.x"}))
	dots, slashes := strings.Repeat("a.", 100_000)+"x", strings.Repeat("/a", 100_000)
	if got := matched(table, "GET "+dots+"/a/b"); got != "any" {
		t.Errorf("matched %q", got)
	}
	if got := matched(table, "GET h"+slashes); got != "" {
		t.Errorf("matched %q", got)
	}
	if got := matched(table, "GET h/a/b"+strings.Repeat("/..", 100_000)+"/a/b/c"); got != "any" {
		t.Errorf("matched %q", got)
	}
}

func TestWeights(t *testing.T) {
	table := compile(t, Rule{Name: "r", Backends: []Backend{{named("a"), 90}, {named("never"), 0}, {named("b"), 10}}})
	count := map[loam.Target]int{}
	req := request("GET h/")
	for range 10_000 {
		count[table.Match(req).Rule.Pick()]++
	}
	if b := count[named("b")]; b < 800 || b > 1200 || count[named("never")] > 0 || len(count) != 2 {
		t.Errorf("picked %v of 90 to 10", count)
	}
}

func TestCompileErrors(t *testing.T) {
	for name, r := range map[string]Rule{
		"no backend has a weight": {Backends: []Backend{{named("a"), 0}}},
		"without a target":        {Backends: []Backend{{nil, 1}}},
		"missing closing )":       rule("r", nil, Match{Path: Path{Regexp, "("}}),
		"unexpected )":            rule("r", nil, Match{Headers: []Value{{"a", "b)(c", true}}}),
	} {
		if _, err := Compile(Site{Rules: []Rule{r}}); err == nil || !strings.Contains(err.Error(), name) || loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("Compile: %v, want %s", err, name)
		}
	}
}

// many makes n rules with hosts and paths of their own, and one that has all that costs.
func many(n int) []Rule {
	var rules []Rule
	for i := range n {
		rules = append(rules, rule(fmt.Sprint(i), []string{fmt.Sprintf("h%02d.example.com", i%100)}, Match{Path: Path{Prefix, fmt.Sprintf("/api/v%05d/items", i)}}))
	}
	return append(rules, Rule{Name: "last", Hosts: []string{"*.example.org"}, Backends: []Backend{{named("a"), 1}, {named("b"), 1}}, Matches: []Match{{
		Path: Path{Prefix, "/api"}, Method: "GET", Headers: []Value{{"x-a", "1", false}, {"x-b", "[0-9]+", true}}, Query: []Value{{"q", "1", false}},
	}}})
}

func TestMatchAllocatesNothing(t *testing.T) {
	table := compile(t, many(1000)...)
	for _, line := range []string{"GET h07.example.com:8080/api/v00007/items/5?a=b", "GET x.example.org/api/v7?a=b&q=1 X-B=12 X-A=1", "GET nobody/"} {
		req := request(line)
		if n := testing.AllocsPerRun(100, func() { table.Match(req) }); n != 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		table := compile(b, many(n)...)
		req := request(fmt.Sprintf("GET h%02d.example.com:8080/api/v%05d/items/5?a=b", (n-1)%100, n-1))
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if table.Match(req).Rule == nil {
					b.Fatal("no match")
				}
			}
		})
	}
}

// BenchmarkMatchAlike: what differs by a header, or by a regular expression, only.
func BenchmarkMatchAlike(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		var tenants, patterns []Rule
		for i := range n {
			tenants = append(tenants, rule("", nil, Match{Headers: []Value{{Name: "x-tenant", Value: fmt.Sprint(i)}}}))
			patterns = append(patterns, rule("", nil, Match{Path: Path{Regexp, fmt.Sprintf("/t%05d/[0-9]+", i)}}))
		}
		for name, rules := range map[string][]Rule{"headers": tenants, "regexps": patterns} {
			table := compile(b, rules...)
			req := request(fmt.Sprintf("GET h/t%05d/1 x-tenant=%d", n-1, n-1))
			b.Run(fmt.Sprintf("%s=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if table.Match(req).Rule == nil {
						b.Fatal("no match")
					}
				}
			})
		}
	}
}

// slow finds the rule of a request as the standard tells it: of all that match, the one of highest precedence.
func slow(rules []Rule, req *loam.Request, path string) string {
	type found struct {
		rank []int
		name string
	}
	var all []found
	order := 0
	for _, r := range rules {
		hosts := r.Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for _, m := range r.Matches {
			order++
			for _, h := range hosts {
				host := hostname(req.Authority)
				suffix, wild := strings.CutPrefix(h, "*")
				if wild && len(host) > maxHost {
					continue
				}
				under := wild && strings.HasSuffix(host, suffix) && len(host) > len(suffix)
				if h != "" && (host != h || host == "" || host[0] == '.') && !under {
					continue
				}
				rank := []int{len(h), 0, 0, 0, len(m.Headers), len(m.Query), -order}
				if h != "" && !wild {
					rank[0] = 1000
				}
				switch p := m.Path.Value; m.Path.Kind {
				case Exact:
					if path != p {
						continue
					}
					rank[1], rank[2] = 2, len(p)
				case Prefix:
					p = strings.TrimSuffix(p, "/")
					if path != p && !strings.HasPrefix(path, p+"/") {
						continue
					}
					rank[1], rank[2] = 1, 2*len(p)
				case Regexp:
					if !regexp.MustCompile("^(?:" + p + ")$").MatchString(path) {
						continue
					}
					folder, _, _ := strings.Cut(p, "/[") // those of FuzzMatch
					rank[1], rank[2] = 1, 2*len(folder)+1
				}
				if m.Method != "" {
					if rank[3] = 1; m.Method != req.Method {
						continue
					}
				}
				if slices.ContainsFunc(m.Headers, func(v Value) bool { return req.Header.Get(v.Name) != v.Value }) {
					continue
				}
				query, _ := url.ParseQuery(req.RawQuery)
				if slices.ContainsFunc(m.Query, func(v Value) bool { return !query.Has(v.Name) || query.Get(v.Name) != v.Value }) {
					continue
				}
				all = append(all, found{rank, r.Name})
			}
		}
	}
	if len(all) == 0 {
		return ""
	}
	return slices.MaxFunc(all, func(a, b found) int { return slices.Compare(a.rank, b.rank) }).name
}

// FuzzMatch holds the table against slow, over requests and sets of rules made of few words so that they meet.
func FuzzMatch(f *testing.F) {
	f.Add(uint64(1), "a.x", "/a/b", "q=1")
	f.Add(uint64(2), "b.a.x:80", "/a//b/../%61", "q=2&q=1")
	f.Add(uint64(3), "x", "/b%2fa", "")
	f.Add(uint64(4), "", `\..\a`, "%zz")
	f.Fuzz(func(t *testing.T, seed uint64, host, p, query string) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
		var rules []Rule
		for i := range 40 {
			m := Match{Path: Path{Prefix, pick("/", "/a", "/a/b", "/b", "/b/")}, Method: pick("", "", "GET", "POST")}
			if rnd.IntN(3) == 0 {
				m.Path = Path{Exact, pick("/", "/a", "/a/", "/a/b")}
			}
			if rnd.IntN(4) == 0 {
				m.Path = Path{Regexp, pick("/[ab]*", "/a/[b]+", "/a/b/[^/]+")}
			}
			if rnd.IntN(3) == 0 {
				m.Headers = []Value{{Name: "h", Value: pick("1", "2")}}
			}
			if rnd.IntN(3) == 0 {
				m.Query = []Value{{Name: "q", Value: pick("1", "2")}}
			}
			r := rule(fmt.Sprint(i), nil, m)
			if rnd.IntN(2) == 0 {
				r.Hosts = []string{pick("a.x", "*.x", "*.a.x", "x")}
			}
			rules = append(rules, r)
		}
		req := loam.NewRequest(context.Background())
		req.Method, req.Authority, req.Path, req.RawQuery = pick("GET", "POST"), host, p, query
		req.Header.Add("h", pick("1", "2", "3"))
		table := compile(t, rules...)

		normal := Clean(p)
		if again := Clean(normal); again != normal || normal[0] != '/' {
			t.Fatalf("Clean(%q) = %q, and of that %q", p, normal, again)
		}
		if !strings.ContainsAny(p, "%") && strings.TrimSuffix(normal, "/") != strings.TrimSuffix(path.Clean("/"+p), "/") {
			t.Fatalf("Clean(%q) = %q, but path.Clean says %q", p, normal, path.Clean("/"+p))
		}
		want := slow(rules, req, normal)
		if other, ambiguous := reread(normal); ambiguous && slow(rules, req, other) != want {
			want = ""
		}
		if _, err := url.ParseQuery(query); err != nil && strings.ContainsAny(query, ";%") {
			return // the two read a malformed query differently
		}
		got := ""
		if r := table.Match(req).Rule; r != nil {
			got = r.Name
		}
		if got != want {
			t.Fatalf("%s %s%s?%s matched %q, want %q", req.Method, host, p, query, got, want)
		}
	})
}
