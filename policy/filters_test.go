package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

func TestFault(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var count tally
		serve := func(c FaultConfig, deadline time.Duration) (*loam.Response, time.Duration, error) {
			req := get(t, "/")
			start := time.Now()
			if deadline > 0 {
				req.SetDeadline(start.Add(deadline))
			}
			c.Told = count.told
			res, err := Fault(c)(&fixed{res: status(200)}).Serve(req)
			return res, time.Since(start), err
		}
		delayed := FaultConfig{Delay: FaultDelay{Duration: time.Second, Percent: 100}}
		if res, took, err := serve(delayed, 0); err != nil || res.Status != 200 || took != time.Second {
			t.Errorf("delay: %v, %v, %s", res, err, took)
		}
		if _, took, err := serve(delayed, 300*time.Millisecond); loam.CodeOf(err) != loam.DeadlineExceeded || took != 300*time.Millisecond {
			t.Errorf("a delay beyond the deadline: %v, %s", err, took)
		}
		if res, _, err := serve(FaultConfig{Abort: FaultAbort{Status: 503, Percent: 100}}, 0); err != nil || res.Status != 503 {
			t.Errorf("abort: %v, %v", res, err)
		}
		if _, _, err := serve(FaultConfig{Abort: FaultAbort{GRPC: loam.Unavailable, Percent: 100}}, 0); loam.CodeOf(err) != loam.Unavailable {
			t.Errorf("abort by a code: %v", err)
		}
		if res, took, err := serve(FaultConfig{Delay: FaultDelay{Duration: time.Second}, Abort: FaultAbort{Status: 503}}, 0); err != nil || res.Status != 200 || took != 0 {
			t.Errorf("none of the requests: %v, %v, %s", res, err, took)
		}
		if count.of(Delayed) != 2 || count.of(Aborted) != 2 {
			t.Errorf("told %v", count.acts)
		}
		n := 0
		for range 10_000 {
			if by(30) {
				n++
			}
		}
		if n < 2700 || n > 3300 {
			t.Errorf("30 %% of 10000 is %d", n)
		}
	})
}

// The copy is what the target gets, body and all; its own target is not waited for, nor heard.
func TestMirror(t *testing.T) {
	for _, c := range []struct {
		name    string
		body    int
		unknown bool
		reads   int // by the target; -1: all
		copied  bool
	}{
		{"no body", -1, false, -1, true},
		{"a body", 100, false, -1, true},
		{"a body of unknown length", 100, true, -1, true},
		{"just its length is read", 100, false, 100, true},
		{"too large", 101, false, -1, false},
		{"too large, as it turns out", 101, true, -1, false},
		{"not read whole", 100, false, 50, false},
		{"an empty body", 0, true, -1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var mu sync.Mutex
				var got []string
				release := make(chan struct{})
				to := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
					<-release
					line := req.Method + " " + req.Path + " " + req.Header.Get("A")
					if req.Body != nil {
						b, err := io.ReadAll(req.Body)
						if err != nil || int64(len(b)) != req.Length {
							t.Errorf("%d bytes of %d, %v", len(b), req.Length, err)
						}
						line += fmt.Sprint(" ", len(b))
					}
					mu.Lock()
					defer mu.Unlock()
					got = append(got, line)
					return nil, errBroken
				})
				var count tally
				p := Mirror(MirrorConfig{To: to, Percent: 100, Body: 100, Told: count.told})
				req := loam.NewRequest(t.Context())
				req.Method, req.Path = "PUT", "/x"
				req.Header.Add("A", "1")
				if c.body >= 0 {
					req.Body, req.Length = io.NopCloser(strings.NewReader(strings.Repeat("x", c.body))), int64(c.body)
					if c.unknown {
						req.Length = -1
					}
				}
				res, err := p(loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
					if req.Body != nil && c.reads < 0 {
						if n, err := io.Copy(io.Discard, req.Body); err != nil || int(n) != c.body {
							t.Errorf("the target reads %d bytes, %v", n, err)
						}
					} else if req.Body != nil {
						_, _ = io.ReadFull(req.Body, make([]byte, c.reads))
					}
					req.Header.Set("A", "2") // the copy was made before
					return status(200), nil
				})).Serve(req)
				if err != nil || res.Status != 200 {
					t.Errorf("%v, %v", res, err)
				}
				req.Release()
				close(release)
				pass(time.Second)
				want := ""
				if c.copied {
					if want = "PUT /x 1"; c.body >= 0 {
						want += fmt.Sprint(" ", c.body)
					}
				}
				if strings.Join(got, ";") != want || (count.of(Mirrored) == 1) != c.copied {
					t.Errorf("the copy is %q, told %v", got, count.acts)
				}
			})
		})
	}
}

// So many copies are under way and no more, each for so long, and a panic in one is nobody's trouble.
func TestMirrorBounds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		begun, canceled := 0, 0
		to := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			mu.Lock()
			begun++
			n := begun
			mu.Unlock()
			if n == 3 {
				panic("oh")
			}
			err := req.Task().Park(req.Deadline())
			mu.Lock()
			canceled++
			mu.Unlock()
			return nil, err
		})
		var count tally
		target := Mirror(MirrorConfig{To: to, Percent: 100, InFlight: 2, Told: count.told})(&fixed{res: status(200)})
		for range 5 {
			if _, err := target.Serve(get(t, "/")); err != nil {
				t.Fatal(err)
			}
		}
		pass(15*time.Second + 1)
		if begun != 2 || canceled != 2 || count.of(MirrorDropped) != 3 {
			t.Errorf("%d copies, %d timed out, told %v", begun, canceled, count.acts)
		}
		for range 2 {
			if _, err := target.Serve(get(t, "/")); err != nil {
				t.Fatal(err)
			}
			pass(time.Minute)
		}
		if begun != 4 {
			t.Errorf("%d copies: one that panicked holds its place", begun)
		}
	})
}

func TestHeaders(t *testing.T) {
	c := HeadersConfig{Remove: []string{"X-Gone"}, Set: []loam.Field{{Name: "x-set", Value: "new"}, {Name: "host", Value: "other.example.com"}}, Add: []loam.Field{{Name: "X-Added", Value: "2"}}}
	var got string
	req := get(t, "/", "x-gone", "1", "X-Set", "old", "X-Set", "older", "X-Added", "1")
	_, err := RequestHeaders(c)(loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		got = fmt.Sprint(req.Header, req.Authority)
		return status(200), nil
	})).Serve(req)
	if want := "[{X-Set new} {X-Added 1} {X-Added 2}]other.example.com"; err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	c.Set = c.Set[:1]
	res, err := ResponseHeaders(c)(&fixed{res: status(200, "X-GONE", "1", "X-Set", "old")}).Serve(get(t, "/"))
	if want := "[{X-Set new} {X-Added 2}]"; err != nil || fmt.Sprint(res.Header) != want {
		t.Errorf("%v, %v, want %s", res.Header, err, want)
	}
	if _, err := ResponseHeaders(c)(&fixed{err: errBroken}).Serve(get(t, "/")); !errors.Is(err, errBroken) {
		t.Error(err)
	}
}

// The Gateway API's table of ReplacePrefixMatch, and what it does not say.
func TestPathChange(t *testing.T) {
	for _, c := range []struct{ path, prefix, replace, want string }{
		{"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz/", "/xyz/bar"},
		{"/foo", "/foo", "/xyz", "/xyz"},
		{"/foo/", "/foo", "/xyz", "/xyz/"},
		{"/foo/bar", "/foo", "", "/bar"},
		{"/foo/", "/foo", "", "/"},
		{"/foo", "/foo", "", "/"},
		{"/foo/", "/foo", "/", "/"},
		{"/foo", "/foo", "/", "/"},
		{"/foo/bar", "", "/xyz", "/xyz/foo/bar"},
		{"/", "", "/xyz", "/xyz/"},
		{"/foobar", "/foo", "/xyz", "/foobar"},
		{"/%66oo/./bar", "/foo", "/xyz", "/xyz/bar"},
		{"/foo/../foo/a%2Fb", "/foo", "/xyz", "/xyz/a%2Fb"},
	} {
		change := PathChange{Prefix: c.prefix, Replace: c.replace}
		if got := change.of(c.path); got != c.want {
			t.Errorf("%s: %q in place of %q is %s, want %s", c.path, c.replace, c.prefix, got, c.want)
		}
	}
	full := PathChange{Full: true, Replace: "/one"}
	if got := full.of("/a/b"); got != "/one" {
		t.Error(got)
	}
	empty := PathChange{Full: true}
	if got := empty.of("/a"); got != "/" {
		t.Errorf("no path at all: %q", got)
	}
}

func FuzzPathChange(f *testing.F) {
	f.Add("/foo/bar", "/foo", "/xyz")
	f.Add("//%2e%2e/foo", "/", "")
	f.Fuzz(func(t *testing.T, path, prefix, replace string) {
		if !strings.HasPrefix(path, "/") || replace != "" && replace[0] != '/' {
			return // a configuration has no such prefix, and a request no such path
		}
		change := PathChange{Prefix: prefix, Replace: replace}
		if got := change.of(path); !strings.HasPrefix(got, "/") {
			t.Errorf("%q is no path", got)
		}
	})
}

func TestRewriteAndRedirect(t *testing.T) {
	var asked string
	target := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		asked = req.Authority + req.Path + "?" + req.RawQuery
		return status(200), nil
	})
	req := get(t, "/a/b")
	req.RawQuery = "q=1"
	if _, err := Rewrite(RewriteConfig{Hostname: "in.example.com", Path: &PathChange{Prefix: "/a", Replace: "/z"}})(target).Serve(req); err != nil || asked != "in.example.com/z/b?q=1" {
		t.Error(asked, err)
	}
	for _, c := range []struct {
		c                       RedirectConfig
		scheme, authority, want string
	}{
		{RedirectConfig{Scheme: "https", Port: 443}, "http", "shop.example.com:8080", "https://shop.example.com/a/b?q=1"},
		{RedirectConfig{Hostname: "new.example.com", Port: 8080}, "http", "shop.example.com:8080", "http://new.example.com:8080/a/b?q=1"},
		{RedirectConfig{Hostname: "new.example.com", Port: 80}, "http", "shop.example.com", "http://new.example.com/a/b?q=1"},
		{RedirectConfig{Scheme: "https", Port: 443}, "http", "shop.example.com", "https://shop.example.com/a/b?q=1"},
		{RedirectConfig{Scheme: "https", Port: 8443}, "http", "shop.example.com:1", "https://shop.example.com:8443/a/b?q=1"},
		{RedirectConfig{Port: 8080}, "http", "[2001:db8::1]:80", "http://[2001:db8::1]:8080/a/b?q=1"},
		{RedirectConfig{Scheme: "https"}, "http", "[2001:db8::1]", "https://[2001:db8::1]/a/b?q=1"},
		{RedirectConfig{Path: &PathChange{Prefix: "/a", Replace: ""}}, "https", "shop.example.com", "https://shop.example.com/b?q=1"},
		{RedirectConfig{Path: &PathChange{Full: true, Replace: "/c"}}, "https", "shop.example.com", "https://shop.example.com/c?q=1"},
	} {
		req := get(t, "/a/b")
		req.Scheme, req.Authority, req.RawQuery = c.scheme, c.authority, "q=1"
		res, err := Redirect(c.c)(nil).Serve(req)
		if err != nil || res.Status != 302 || res.Header.Get("Location") != c.want {
			t.Errorf("%+v: %v, %v, want %s", c.c, res, err, c.want)
		}
	}
	if res, _ := Redirect(RedirectConfig{Status: 301})(nil).Serve(get(t, "/")); res.Status != 301 {
		t.Error(res.Status)
	}
}

func TestLimits(t *testing.T) {
	target := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		if req.Body != nil {
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return nil, err
			}
		}
		return status(200), nil
	})
	outcome := func(c LimitsConfig, req *loam.Request) int {
		res, err := Limits(c)(target).Serve(req)
		if err != nil {
			res = protocol.ErrorResponse(err, "")
		}
		return res.Status
	}
	small := get(t, "/", "A", "1", "B", "22")
	for _, c := range []struct {
		c    LimitsConfig
		req  *loam.Request
		want int
	}{
		{LimitsConfig{}, small, 200},
		{LimitsConfig{HeaderCount: 2, HeaderBytes: 13}, small, 200},
		{LimitsConfig{HeaderCount: 1}, small, 431},
		{LimitsConfig{HeaderBytes: 12}, small, 431},
		{LimitsConfig{BodyBytes: 5}, post(t, "POST", "hello", false), 200},
		{LimitsConfig{BodyBytes: 4}, post(t, "POST", "hello", false), 413},
		{LimitsConfig{BodyBytes: 5}, post(t, "POST", "hello", true), 200},
		{LimitsConfig{BodyBytes: 4}, post(t, "POST", "hello", true), 413},
	} {
		if got := outcome(c.c, c.req); got != c.want {
			t.Errorf("%+v: %d, want %d", c.c, got, c.want)
		}
	}
	body := &limited{ReadCloser: io.NopCloser(strings.NewReader("hello")), left: 4, limit: 4}
	for range 2 { // the error is for good
		if n, err := body.Read(make([]byte, 100)); n != 0 || !errors.As(err, new(*http.MaxBytesError)) {
			t.Error(n, err)
		}
	}
}

func TestSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var wished string
		endpoint := "one"
		target := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			wished = req.Affinity
			req.Affinity = endpoint
			return status(200), nil
		})
		ask := func(c SessionConfig, scheme string, header ...string) *loam.Response {
			t.Helper()
			req := get(t, "/", header...)
			req.Scheme = scheme
			res, err := Session(c)(target).Serve(req)
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		plain := SessionConfig{Name: "sid"}
		if got := ask(plain, "http").Header.Get("Set-Cookie"); wished != "" || got != "sid=one; Path=/; HttpOnly; SameSite=Lax" {
			t.Errorf("a new client wishes %q and gets %q", wished, got)
		}
		if res := ask(plain, "http", "Cookie", `a=b; sid="one"; c`); wished != "one" || res.Header.Has("Set-Cookie") {
			t.Errorf("a client that is known wishes %q and gets %v", wished, res.Header)
		}
		endpoint = "two"
		if got := ask(plain, "https", "Cookie", "sid=one").Header.Get("Set-Cookie"); wished != "one" || got != "sid=two; Path=/; HttpOnly; SameSite=Lax; Secure" {
			t.Errorf("its endpoint is gone: it wishes %q and gets %q", wished, got)
		}
		for _, value := range []string{strings.Repeat("x", 200), "a b", "a\x00"} {
			if ask(plain, "http", "Cookie", "sid="+value); wished != "" {
				t.Errorf("%q was believed", value)
			}
		}

		lasting := SessionConfig{Name: "sid", Lifetime: time.Hour, Permanent: true}
		got := ask(lasting, "http").Header.Get("Set-Cookie")
		value, rest, _ := strings.Cut(strings.TrimPrefix(got, "sid="), ";")
		if !strings.HasSuffix(value, ".two") || !strings.HasSuffix(rest, "; Max-Age=3600") {
			t.Fatalf("%q", got)
		}
		pass(59 * time.Minute)
		endpoint = "three" // the session moves and is not longer for that
		if got := ask(lasting, "http", "Cookie", "sid="+value).Header.Get("Set-Cookie"); wished != "two" || !strings.HasSuffix(got, "Max-Age=60") {
			t.Errorf("it wishes %q and gets %q", wished, got)
		}
		pass(time.Minute)
		if ask(lasting, "http", "Cookie", "sid="+value); wished != "" {
			t.Errorf("a session that is over wishes %q", wished)
		}
		if ask(lasting, "http", "Cookie", "sid=zzzzzzzz.two"); wished != "" {
			t.Errorf("a session beyond any lifetime wishes %q", wished)
		}

		byHeader := SessionConfig{Name: "X-Session", Header: true}
		if res := ask(byHeader, "http", "x-session", "one"); wished != "one" || res.Header.Get("X-Session") != "three" || res.Header.Has("Set-Cookie") {
			t.Errorf("it wishes %q and gets %v", wished, res.Header)
		}
	})
}

func FuzzSession(f *testing.F) {
	for _, s := range []string{"sid=a", "a=b; sid=10.x; sid=2", "sid=", `sid="`, ";;;=", "sid=\xff"} {
		f.Add(s)
	}
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, value string) {
		req := loam.NewRequest(context.Background())
		defer req.Release()
		req.Header.Add("Cookie", value)
		for _, c := range []SessionConfig{{Name: "sid"}, {Name: "sid", Lifetime: time.Hour}} {
			affinity, ends := c.read(req, now)
			if len(affinity) > longestAffinity+20 || strings.ContainsAny(affinity, "; \"\r\n") {
				t.Errorf("%q was taken from %q", affinity, value)
			}
			if !ends.IsZero() && affinity != "" && (ends.Before(now) || ends.After(now.Add(2*time.Hour))) {
				t.Errorf("a session until %s", ends)
			}
		}
	})
}

func TestActs(t *testing.T) {
	seen := map[string]bool{}
	for a := Retried; a <= Forbidden; a++ {
		if seen[a.String()] || a.String() == "" {
			t.Errorf("act %d is called %q", a, a)
		}
		seen[a.String()] = true
	}
	Told(nil).of(nil, Retried)
}

func TestIdle(t *testing.T) {
	for _, c := range []struct{ has, limit, want time.Duration }{{0, time.Second, time.Second}, {2, 1, 1}, {1, 2, 1}, {1, 0, 1}} {
		req := get(t, "/")
		req.Idle = c.has
		if _, err := Idle(c.limit)(&fixed{res: status(200)}).Serve(req); err != nil || req.Idle != c.want {
			t.Errorf("%s within %s is %s, %v", c.has, c.limit, req.Idle, err)
		}
	}
}

// A connection that left HTTP is not bounded by the time that a request has.
func TestTimeoutOfATunnel(t *testing.T) {
	req := get(t, "/")
	res, err := Timeout(time.Second)(&fixed{res: &loam.Response{Status: 101, Tunnel: nopTunnel{}}}).Serve(req)
	if err != nil || res.Tunnel == nil || !req.Deadline().IsZero() {
		t.Error(err, req.Deadline())
	}
	target := &fixed{}
	if Timeout(0)(target) != loam.Target(target) || Idle(0)(target) != loam.Target(target) {
		t.Error("0 bounds something")
	}
}

type nopTunnel struct{ bytes.Buffer }

func (nopTunnel) Read([]byte) (int, error)    { return 0, io.EOF }
func (nopTunnel) Write(p []byte) (int, error) { return len(p), nil }
func (nopTunnel) Close() error                { return nil }
