package policy

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/loam-run/loam"
)

func certificate(name string, dns ...string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: dns, EmailAddresses: []string{"ann@example.com"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/ns/shop/orders"}},
	}
}

func TestMTLS(t *testing.T) {
	shows := func(c *x509.Certificate) *loam.Peer {
		if c == nil {
			return &loam.Peer{}
		}
		return &loam.Peer{Chain: []*x509.Certificate{c, certificate("authority")}}
	}
	orders := certificate("orders", "orders.shop.example.com")
	for _, c := range []struct {
		name string
		c    MTLSConfig
		peer *loam.Peer
		want loam.Code
	}{
		{"none asked for", MTLSConfig{}, nil, loam.OK},
		{"no TLS", MTLSConfig{Required: true}, nil, loam.Unauthenticated},
		{"none shown", MTLSConfig{Required: true}, shows(nil), loam.Unauthenticated},
		{"none shown, nor required", MTLSConfig{SANs: []string{"a"}}, shows(nil), loam.OK},
		{"any", MTLSConfig{Required: true}, shows(orders), loam.OK},
		{"its subject", MTLSConfig{Subjects: []string{"orders"}}, shows(orders), loam.OK},
		{"the authority's subject", MTLSConfig{Subjects: []string{"authority"}}, shows(orders), loam.PermissionDenied},
		{"its name", MTLSConfig{SANs: []string{"orders.shop.example.com"}}, shows(orders), loam.OK},
		{"names that end so", MTLSConfig{SANs: []string{"*.shop.example.com"}}, shows(orders), loam.OK},
		{"its identity", MTLSConfig{SANs: []string{"spiffe://example.com/ns/shop/orders"}}, shows(orders), loam.OK},
		{"identities that begin so", MTLSConfig{SANs: []string{"spiffe://example.com/ns/shop/*"}}, shows(orders), loam.OK},
		{"its address", MTLSConfig{SANs: []string{"192.0.2.1"}}, shows(orders), loam.OK},
		{"one list of two", MTLSConfig{Subjects: []string{"nobody"}, SANs: []string{"*@example.com"}}, shows(orders), loam.OK},
		{"a subject is no name", MTLSConfig{SANs: []string{"orders"}}, shows(orders), loam.PermissionDenied},
		{"another", MTLSConfig{Subjects: []string{"*s2"}, SANs: []string{"*.example.org", "spiffe://other/*"}}, shows(orders), loam.PermissionDenied},
		{"no common name", MTLSConfig{Subjects: []string{"*"}}, shows(certificate("")), loam.PermissionDenied},
	} {
		req := get(t, "/")
		req.Peer = c.peer
		_, err := MTLS(c.c)(&fixed{res: status(200)}).Serve(req)
		if loam.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// Every fact that expressions may ask for.
func TestAuthzFacts(t *testing.T) {
	request := func() *loam.Request {
		req := get(t, "/a/./%62//c", "X-Tag", "one", "x-tag", "two", "Cookie", "a=b")
		req.Method, req.Scheme, req.Authority, req.RawQuery, req.ID = "POST", "https", "Shop.Example.com:8443", "q=a%20b&q=c&bad=%zz&=x&flag", "id-1"
		req.Peer = &loam.Peer{ServerName: "shop.example.com", Chain: []*x509.Certificate{certificate("orders", "orders.example.com")}}
		req.Claims = map[string]any{"sub": "ann", "level": float64(3), "roles": []any{"admin", "user"}, "org": map[string]any{"id": "o1"}}
		req.Caller = &loam.Caller{Name: "cart"}
		return req
	}
	bare := func() *loam.Request {
		req := get(t, "/")
		req.Remote = "@"
		return req
	}
	for expression, c := range map[string]struct {
		of   func() *loam.Request
		want bool
	}{
		`request.method == "POST" && request.scheme == "https"`:                               {request, true},
		`request.host == "shop.example.com"`:                                                  {request, true},
		`request.path == "/a/b/c"`:                                                            {request, true},
		`request.path.startsWith("/a/") && request.path.matches("^/a/[a-z]+/c$")`:             {request, true},
		`request.headers["x-tag"] == "one,two"`:                                               {request, true},
		`"x-none" in request.headers`:                                                         {request, false},
		`request.headers["x-none"] == ""`:                                                     {request, false}, // cannot be decided
		`request.query["q"] == "a b" && !("bad" in request.query) && "flag" in request.query`: {request, true},
		`request.id == "id-1"`:                                                                {request, true},
		`source.address == "192.0.2.7" && inRange(source.address, "192.0.2.0/24")`:            {request, true},
		`inRange(source.address, "10.0.0.0/8")`:                                               {request, false},
		`inRange(source.address, request.host)`:                                               {request, false}, // cannot be decided
		`peer.subject == "orders" && peer.server == "shop.example.com"`:                       {request, true},
		`peer.names.exists(n, n.startsWith("spiffe://example.com/"))`:                         {request, true},
		`caller == "cart"`:                                                                    {request, true},
		`claims.sub == "ann" && claims.level >= 3 && "admin" in claims.roles`:                 {request, true},
		`claims.org.id == "o1"`:                                                               {request, true},
		`has(claims.email) && claims.email == "x"`:                                            {request, false},
		`claims.email == "x"`:                                                                 {request, false}, // cannot be decided
		`claims.sub`:                                                                          {request, false}, // no bool, as it turns out
		`source.address == "@" && caller == ""`:                                               {bare, true},
		`inRange(source.address, "0.0.0.0/0")`:                                                {bare, false},
		`size(peer.names) == 0 && peer.subject == ""`:                                         {bare, true},
		`peer.server == "" && claims == {}`:                                                   {bare, true},
		`size(request.query) == 0 && request.id == ""`:                                        {bare, true},
		`request.headers.all(name, name.size() > 0)`:                                          {request, true},
	} {
		p, err := Authz(nil, AuthzRule{Expression: expression})
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		_, err = p(&fixed{res: status(200)}).Serve(c.of())
		if (err == nil) != c.want {
			t.Errorf("%s: %v", expression, err)
		}
	}
}

func TestAuthzRules(t *testing.T) {
	allow := func(e string) AuthzRule { return AuthzRule{Expression: e, Message: "ask for more"} }
	deny := func(e string) AuthzRule { return AuthzRule{Expression: e, Deny: true} }
	for _, c := range []struct {
		name  string
		rules []AuthzRule
		want  string
	}{
		{"none", nil, ""},
		{"a deny that is not true", []AuthzRule{deny("false")}, ""},
		{"a deny that is true", []AuthzRule{allow("true"), deny("true")}, "authz: permission denied: not allowed"},
		{"a deny that cannot be decided", []AuthzRule{deny(`claims.banned == true`)}, "authz: permission denied: not allowed"},
		{"one allow of two", []AuthzRule{allow("false"), allow("true")}, ""},
		{"no allow", []AuthzRule{allow("false"), allow("false")}, "authz: permission denied: ask for more"},
		{"one allow of two that cannot be decided", []AuthzRule{allow(`claims.admin == true`), allow("true")}, ""},
		{"an allow that cannot be decided", []AuthzRule{allow(`claims.admin == true`)}, "authz: permission denied: ask for more"},
	} {
		var count tally
		p, err := Authz(count.told, c.rules...)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p(&fixed{res: status(200)}).Serve(get(t, "/"))
		if got := ""; c.want != got && (err == nil || err.Error() != c.want || count.of(Forbidden) != 1) || c.want == "" && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A mistake is found when configuration is compiled, and the error says where.
func TestAuthzMistakes(t *testing.T) {
	for _, expression := range []string{
		"", "request.method ==", "request.methode == 'GET'", "request.headers.foo.bar == ''", "1 + 1", `"yes"`, "unknown()", `request.path.matches("(")`,
		"request", "peer.names == 'x'", strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300),
	} {
		_, err := Authz(nil, AuthzRule{Expression: expression, Where: "Policy/shop spec.authz[0]"})
		if loam.CodeOf(err) != loam.InvalidArgument || !strings.Contains(err.Error(), "Policy/shop spec.authz[0]") || loam.HintOf(err) == "" {
			t.Errorf("%q: %v", expression, err)
		}
	}
}

// An expression that a request could make run for long is stopped, and then decides nothing.
func TestAuthzCost(t *testing.T) {
	p, err := Authz(nil, AuthzRule{Expression: `request.headers.all(a, request.headers.all(b, request.headers.all(c, a + b + c != "")))`})
	if err != nil {
		t.Fatal(err)
	}
	target := p(&fixed{res: status(200)})
	few, many := get(t, "/", "A", "1", "B", "2"), get(t, "/")
	for i := range 100 {
		many.Header.Add("X-"+strings.Repeat("x", i), "1")
	}
	if _, err := target.Serve(few); err != nil {
		t.Error(err)
	}
	if _, err := target.Serve(many); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("a million steps: %v", err)
	}
}

// Whatever a request holds, a rule says yes or no, and the right one.
func FuzzAuthz(f *testing.F) {
	f.Add("GET", "/admin", "x=1", "192.0.2.1:80", "ann")
	f.Add("G\xff", "/%2e%2e/admin", "%zz&&==", "[::1%eth0]:1", "\x00")
	p, err := Authz(nil, AuthzRule{Expression: `request.path.startsWith("/admin") || request.path.matches("^/a.*z$")`, Deny: true},
		AuthzRule{Expression: `inRange(source.address, "192.0.2.0/24") || request.query.exists(k, k == "x") || claims.sub == request.headers["x-user"]`})
	if err != nil {
		f.Fatal(err)
	}
	target := p(&fixed{res: status(200)})
	f.Fuzz(func(t *testing.T, method, path, query, remote, user string) {
		req := get(t, path, "X-User", user)
		req.Method, req.RawQuery, req.Remote, req.Claims = method, query, remote, map[string]any{"sub": user}
		_, err := target.Serve(req)
		if code := loam.CodeOf(err); code != loam.OK && code != loam.PermissionDenied {
			t.Error(err)
		}
		if err == nil && strings.HasPrefix(path, "/admin") && !strings.Contains(path, "..") {
			t.Errorf("%q passed", path)
		}
	})
}

func BenchmarkAuthz(b *testing.B) {
	p, err := Authz(nil, AuthzRule{Expression: `request.method == "GET" && request.path.startsWith("/a") && claims.sub == "ann"`})
	if err != nil {
		b.Fatal(err)
	}
	target := p(&fixed{res: status(200)})
	req := get(b, "/a/b")
	req.Claims = map[string]any{"sub": "ann"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := target.Serve(req); err != nil {
			b.Fatal(err)
		}
	}
}
