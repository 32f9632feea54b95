package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

func TestCORS(t *testing.T) {
	shop := CORSConfig{
		AllowOrigins: []string{"https://shop.example.com", "https://*.example.org:8443"}, AllowMethods: []string{"GET", "PUT"},
		AllowHeaders: []string{"X-A", "X-B"}, ExposeHeaders: []string{"X-C"}, MaxAge: time.Minute,
	}
	withCookies := shop
	withCookies.AllowCredentials = true
	everybody := CORSConfig{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}}
	everybodysCookies := everybody
	everybodysCookies.AllowCredentials = true
	target := &script{steps: []any{status(200, "Access-Control-Allow-Origin", "https://evil.example.com", "Vary", "Accept, origin")}}
	for _, c := range []struct {
		name   string
		c      CORSConfig
		method string
		header []string
		status int
		want   string
	}{
		{"no page", shop, "GET", nil, 200, "[{Access-Control-Allow-Origin https://evil.example.com} {Vary Accept, origin}]"},
		{"a page", shop, "GET", []string{"Origin", "https://shop.example.com"}, 200, "[{Vary Accept, origin} {Access-Control-Allow-Origin https://shop.example.com} {Access-Control-Expose-Headers X-C}]"},
		{"a page of a subdomain", shop, "GET", []string{"Origin", "https://a.b.example.org:8443"}, 200, "[{Vary Accept, origin} {Access-Control-Allow-Origin https://a.b.example.org:8443} {Access-Control-Expose-Headers X-C}]"},
		{"a stranger", shop, "GET", []string{"Origin", "https://evil.example.com"}, 200, "[{Vary Accept, origin}]"},
		{"with credentials", withCookies, "GET", []string{"Origin", "https://shop.example.com"}, 200, "[{Vary Accept, origin} {Access-Control-Allow-Origin https://shop.example.com} {Access-Control-Allow-Credentials true} {Access-Control-Expose-Headers X-C}]"},
		{"everybody", everybody, "GET", []string{"Origin", "https://any.example.com"}, 200, "[{Vary Accept, origin} {Access-Control-Allow-Origin *}]"},
		{"everybody with credentials", everybodysCookies, "GET", []string{"Origin", "https://any.example.com"}, 200, "[{Vary Accept, origin} {Access-Control-Allow-Origin https://any.example.com} {Access-Control-Allow-Credentials true}]"},
		{"nobody with credentials", everybodysCookies, "GET", []string{"Origin", "null"}, 200, "[{Vary Accept, origin}]"},
		{"preflight", shop, "OPTIONS", []string{"Origin", "https://shop.example.com", "Access-Control-Request-Method", "PUT"}, 204,
			"[{Vary Origin} {Access-Control-Allow-Origin https://shop.example.com} {Access-Control-Allow-Methods GET, PUT} {Access-Control-Allow-Headers X-A, X-B} {Access-Control-Max-Age 60}]"},
		{"preflight of a stranger", shop, "OPTIONS", []string{"Origin", "https://evil.example.com", "Access-Control-Request-Method", "PUT"}, 204, "[{Vary Origin}]"},
		{"preflight of everybody", everybody, "OPTIONS", []string{"Origin", "null", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-z"}, 204,
			"[{Access-Control-Allow-Origin *} {Access-Control-Allow-Methods *} {Access-Control-Allow-Headers *} {Access-Control-Max-Age 5}]"},
		{"preflight with credentials", everybodysCookies, "OPTIONS", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-z, x-y"}, 204,
			"[{Vary Origin} {Access-Control-Allow-Origin https://a.example} {Access-Control-Allow-Credentials true} {Access-Control-Allow-Methods PUT} {Access-Control-Allow-Headers x-z, x-y} {Access-Control-Max-Age 5}]"},
		{"preflight that is none", everybodysCookies, "OPTIONS", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "P T", "Access-Control-Request-Headers", "x z"}, 204,
			"[{Vary Origin} {Access-Control-Allow-Origin https://a.example} {Access-Control-Allow-Credentials true} {Access-Control-Allow-Methods *} {Access-Control-Max-Age 5}]"},
		{"OPTIONS that is no preflight", shop, "OPTIONS", []string{"Origin", "https://shop.example.com"}, 200, "[{Vary Accept, origin} {Access-Control-Allow-Origin https://shop.example.com} {Access-Control-Expose-Headers X-C}]"},
	} {
		p, err := CORS(c.c)
		if err != nil {
			t.Fatal(err)
		}
		req := get(t, "/", c.header...)
		req.Method = c.method
		res, err := p(target).Serve(req)
		if err != nil || res.Status != c.status || fmt.Sprint(res.Header) != c.want {
			t.Errorf("%s: %d %v, %v\nwant %s", c.name, res.Status, res.Header, err, c.want)
		}
	}

	// An error further in is one that the page may read, but for what is broken in this process.
	p, err := CORS(shop)
	if err != nil {
		t.Fatal(err)
	}
	res, err := p(&fixed{err: loam.Errorf(loam.Unauthenticated, "jwt", "no token")}).Serve(get(t, "/", "Origin", "https://shop.example.com"))
	if err != nil || res.Status != 401 || !res.Header.Has("Access-Control-Allow-Origin") {
		t.Errorf("%v, %v", res, err)
	}
	if _, err := p(&fixed{err: loam.Errorf(loam.Internal, "x", "y")}).Serve(get(t, "/", "Origin", "https://shop.example.com")); loam.CodeOf(err) != loam.Internal {
		t.Error(err)
	}
	res, err = p(&fixed{res: status(200)}).Serve(get(t, "/"))
	if err != nil || res.Header.Get("Vary") != "Origin" {
		t.Errorf("caches are not told that pages are answered otherwise: %v, %v", res, err)
	}
}

func TestOrigin(t *testing.T) {
	for _, c := range []struct {
		pattern, from string
		want          bool
	}{
		{"https://shop.example.com", "https://shop.example.com", true},
		{"https://Shop.example.com", "HTTPS://shop.EXAMPLE.com", true},
		{"https://shop.example.com", "http://shop.example.com", false},
		{"https://shop.example.com", "https://shop.example.com:8443", false},
		{"https://shop.example.com", "https://shop.example.com.evil.com", false},
		{"https://shop.example.com", "https://evil.com/shop.example.com", false},
		{"https://*.example.com", "https://a.example.com", true},
		{"https://*.example.com", "https://a.b.example.com", true},
		{"https://*.example.com", "https://example.com", false},
		{"https://*.example.com", "https://.example.com", false},
		{"https://*.example.com", "https://evilexample.com", false},
		{"https://*.example.com", "https://evil.com/.example.com", false},
		{"https://*.example.com", "https://evil.com?.example.com", false},
		{"https://*.example.com", "https://evil.com#.example.com", false},
		{"https://*.example.com", "https://user@a.example.com", false},
		{"https://*.example.com", "https://a.example.com:443", false},
		{"https://*:8443", "https://any.example.com:8443", true},
		{"http://[::1]:3000", "http://[::1]:3000", true},
		{"https://*.example.com", "null", false},
	} {
		o, err := parseOrigin(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.is(c.from); got != c.want {
			t.Errorf("%s takes %s: %t", c.pattern, c.from, got)
		}
	}
	for _, bad := range []string{"", "shop.example.com", "https://", "https://a/b", "https://a.*.com", "https://*a.com", "://a"} {
		if _, err := CORS(CORSConfig{AllowOrigins: []string{bad}}); err == nil {
			t.Errorf("%q is taken for an origin", bad)
		}
	}
}

// What a stranger writes into Origin comes back only where a pattern takes it, and forges no field.
func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"https://a.example.com", "null", "https://a.example.com\r\nX: y", "https://[::1]", "https://.example.com:8443"} {
		f.Add(s)
	}
	p, err := CORS(CORSConfig{AllowOrigins: []string{"https://*.example.com", "https://[::1]"}, AllowCredentials: true})
	if err != nil {
		f.Fatal(err)
	}
	target := p(&fixed{res: status(200)})
	f.Fuzz(func(t *testing.T, from string) {
		req := get(t, "/", "Origin", from)
		res, err := target.Serve(req)
		if err != nil {
			t.Fatal(err)
		}
		got := res.Header.Get("Access-Control-Allow-Origin")
		host, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(got), "https://"), ":")
		if got != "" && (got != from || !strings.HasSuffix(host, ".example.com") && !strings.HasSuffix(got, "[::1]") || strings.ContainsAny(host, "/?#@")) {
			t.Errorf("%q was let pass", from)
		}
		res.Header = nil
	})
}
