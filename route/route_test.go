package route

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path"
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
	table, err := Compile(rules)
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
	target, r := table.Match(request(line))
	if r == nil {
		return ""
	}
	if string(target.(named)) != r.Name {
		return "another target than the rule's"
	}
	return r.Name
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
		rule("never", nil, Match{Path: Path{Regexp, "/files/.*"}}), // a prefix, be it /, comes first
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
		"GET h/files/a": "root", "GET h/w": "root",

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
	if _, got := table.Match(r); got == nil || got.Name != "root" {
		t.Errorf("OPTIONS *: matched %v", got)
	}
	if got := matched(compile(t, rule("a", nil, exact("/a"))), "GET h/b"); got != "" {
		t.Errorf("matched %q, want none", got)
	}
	if got := matched(compile(t), "GET h/"); got != "" {
		t.Errorf("an empty table matched %q", got)
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
		target, _ := table.Match(req)
		count[target]++
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
		if _, err := Compile([]Rule{r}); err == nil || !strings.Contains(err.Error(), name) || loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("Compile: %v, want %s", err, name)
		}
	}
}

// many makes n rules with hosts and paths of their own, and one that has all that costs.
func many(n int) []Rule {
	var rules []Rule
	for i := range n {
		rules = append(rules, rule(fmt.Sprint(i), []string{fmt.Sprintf("h%d.example.com", i%100)}, Match{Path: Path{Prefix, fmt.Sprintf("/api/v%d/items", i)}}))
	}
	return append(rules, Rule{Name: "last", Hosts: []string{"*.example.org"}, Backends: []Backend{{named("a"), 1}, {named("b"), 1}}, Matches: []Match{{
		Path: Path{Prefix, "/api"}, Method: "GET", Headers: []Value{{"x-a", "1", false}, {"x-b", "[0-9]+", true}}, Query: []Value{{"q", "1", false}},
	}}})
}

func TestMatchAllocatesNothing(t *testing.T) {
	table := compile(t, many(1000)...)
	for _, line := range []string{"GET h7.example.com:8080/api/v7/items/5?a=b", "GET x.example.org/api/v7?a=b&q=1 X-B=12 X-A=1", "GET nobody/"} {
		req := request(line)
		if n := testing.AllocsPerRun(100, func() { table.Match(req) }); n != 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		table := compile(b, many(n)...)
		req := request(fmt.Sprintf("GET h%d.example.com:8080/api/v%d/items/5?a=b", (n-1)%100, n-1))
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, r := table.Match(req); r == nil {
					b.Fatal("no match")
				}
			}
		})
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
					rank[1], rank[2] = 1, len(p)
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
		for i := range 12 {
			m := Match{Path: Path{Prefix, pick("/", "/a", "/a/b", "/b", "/b/")}, Method: pick("", "", "GET", "POST")}
			if rnd.IntN(3) == 0 {
				m.Path = Path{Exact, pick("/", "/a", "/a/", "/a/b")}
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

		normal := clean(p)
		if again := clean(normal); again != normal || normal[0] != '/' {
			t.Fatalf("clean(%q) = %q, and of that %q", p, normal, again)
		}
		if !strings.ContainsAny(p, "%") && strings.TrimSuffix(normal, "/") != strings.TrimSuffix(path.Clean("/"+p), "/") {
			t.Fatalf("clean(%q) = %q, but path.Clean says %q", p, normal, path.Clean("/"+p))
		}
		want := slow(rules, req, normal)
		if other, ambiguous := reread(normal); ambiguous && slow(rules, req, other) != want {
			want = ""
		}
		if _, err := url.ParseQuery(query); err != nil && strings.ContainsAny(query, ";%") {
			return // the two read a malformed query differently
		}
		got := ""
		if _, r := table.Match(req); r != nil {
			got = r.Name
		}
		if got != want {
			t.Fatalf("%s %s%s?%s matched %q, want %q", req.Method, host, p, query, got, want)
		}
	})
}
