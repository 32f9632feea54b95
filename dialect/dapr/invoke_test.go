package dapr

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/listener"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/http1"
	"github.com/loam-run/loam/protocol/http2"
)

// book is name resolution whose answers a test writes.
type book struct {
	mu   sync.Mutex
	apps map[string][]string
}

func (b *book) Resolve(_ context.Context, id, _ string) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.apps[id]; len(a) > 0 {
		return slices.Clone(a), nil
	}
	return nil, loam.Errorf(loam.NotFound, "book", "there is no %s", id)
}

func (b *book) Announce(_ context.Context, id, address string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.apps == nil {
		b.apps = map[string][]string{}
	}
	b.apps[id] = append(b.apps[id], address)
	return nil
}

func (b *book) set(id string, addresses ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.apps[id] = addresses
}

// A fleet is several sidecars with sockets of their own that find each other.
type fleet struct {
	t      testing.TB
	engine loop.Engine
	hub    *http2.Hub
	book   *book
	log    *slog.Logger
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	e := loop.New(loop.Options{})
	f := &fleet{t: t, engine: e, hub: http2.NewHub(e), book: &book{}, log: slog.New(slog.DiscardHandler)}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// A sidecar is an API with its sockets.
type sidecar struct {
	*API
	http, grpc, internal string // addresses
}

// start starts the sidecar of an app at address; "": it has none.
func (f *fleet) start(id, address string, change func(*dialect.Options, *Settings)) *sidecar {
	f.t.Helper()
	names := invoke.NewNames(f.book, f.log)
	f.t.Cleanup(names.Close)
	o := dialect.Options{
		App:    dialect.App{ID: id, Caller: &loam.Caller{Name: id, Grants: []loam.Grant{{Capability: "*", Component: "*"}}}},
		Engine: f.engine, Log: f.log, Capabilities: &components{},
	}
	s := Settings{AppProtocol: "http", Invocation: Invocation{Hub: f.hub, Names: names, Address: "192.0.2.1"}}
	if change != nil {
		change(&o, &s)
	}
	if address != "" && o.App.Target == nil {
		if o.App.GRPC {
			c := http2.NewClient(address, http2.ClientConfig{Hub: f.hub})
			o.App.Target = c
			f.t.Cleanup(c.Close)
		} else {
			c := http1.NewClient(address, http1.ClientConfig{Engine: f.engine})
			o.App.Target = c
			f.t.Cleanup(c.Close)
		}
	}
	a, err := New(o, s)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(a.Close)
	grpc := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		if req.Path == pathInvokeService {
			return a.invokes.Serve(req)
		}
		return a.serveProxy(req)
	})
	side := &sidecar{API: a, http: f.listen(a.HTTP()), grpc: f.listen(grpc), internal: f.listen(a.Internal())}
	if err := f.book.Announce(f.t.Context(), id, side.internal); err != nil {
		f.t.Fatal(err)
	}
	return side
}

func (f *fleet) listen(target loam.Target) string { return f.listenOn("127.0.0.1:0", target) }

func (f *fleet) listenOn(address string, target loam.Target) string {
	f.t.Helper()
	l, err := listener.Listen(f.t.Context(), f.engine, f.hub, listener.Config{Name: "test", Address: address, Log: f.log}, listener.Service{HTTP: target, Plain: true})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := l.Drain(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			f.t.Log(err)
		}
	})
	return l.Addr().String()
}

// app starts a program.
func app(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// mirror tells what it got.
type mirrored struct {
	Method, Path, Query, Body string
	Header                    http.Header
	Length                    int64
}

func mirror(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(500)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Add("X-Two", "one")
	w.Header().Add("X-Two", "two")
	status := 200
	_, _ = fmt.Sscan(r.Header.Get("X-Status"), &status)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(mirrored{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, string(b), r.Header, r.ContentLength})
}

func send(t testing.TB, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	res, err := client0.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// client0 keeps no connections.
var client0 = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// TestInvokeHTTP: a call of the same kind is the same whether it stays in the sidecar, goes by another, or leads outside.
func TestInvokeHTTP(t *testing.T) {
	f := newFleet(t)
	address := app(t, http.HandlerFunc(mirror))
	f.start("callee", address, func(o *dialect.Options, s *Settings) { o.App.AppToken = "secret" })
	caller := f.start("caller", address, func(o *dialect.Options, s *Settings) {
		s.Invocation.Endpoint = func(name string) (Endpoint, bool) {
			return Endpoint{BaseURL: "http://" + address + "/base/", Header: loam.Header{{Name: "X-Endpoint", Value: "yes"}}}, name == "named"
		}
	})
	base := "http://" + caller.http
	for name, c := range map[string]struct {
		url, prefix string
		header      []string
	}{
		"self":       {url: base + "/v1.0/invoke/caller/method"},
		"remote":     {url: base + "/v1.0/invoke/callee/method"},
		"namespaced": {url: base + "/v1.0/invoke/callee.default/method"},
		"header":     {url: base, header: []string{"dapr-app-id: callee"}},
		"basic":      {url: base, header: []string{"Authorization: Basic ZGFwci1hcHAtaWQ6Y2FsbGVl"}},
		"endpoint":   {url: base + "/v1.0/invoke/named/method", prefix: "/base"},
		"url":        {url: base + "/v1.0/invoke/http://" + address + "/method"},
		"escaped":    {url: base + "/v1.0/invoke/http%3A%2F%2F" + strings.ReplaceAll(address, ":", "%3A") + "/method"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range []struct{ method, path, body, wantPath, wantQuery string }{
				{"POST", "/orders/1?x=1&y=a%20b", "hello", "/orders/1", "x=1&y=a%20b"},
				{"GET", "/orders", "", "/orders", ""},
				{"PUT", "/a/../b//c/./d", strings.Repeat("x", 40<<10), "/b/c/d", ""},
				{"PATCH", "/a%20b/%C3%A9", "{}", "/a%20b/%C3%A9", ""},
				{"DELETE", "/", "", "/", ""},
				{"OPTIONS", "/o", "", "/o", ""},
			} {
				res, b := send(t, s.method, c.url+s.path, s.body, append(c.header, "X-Custom: yes", "X-Two: 1", "X-Two: 2", "Content-Type: text/x", "dapr-api-token: mine", "Connection: close, X-Hop", "X-Hop: 1")...)
				var got mirrored
				if err := json.Unmarshal([]byte(b), &got); err != nil || res.StatusCode != 200 {
					t.Fatalf("%s %s: %d %.200s", s.method, s.path, res.StatusCode, b)
				}
				if got.Method != s.method || got.Path != c.prefix+s.wantPath && !(s.wantPath == "/" && got.Path == c.prefix+"/") || got.Query != s.wantQuery || got.Body != s.body || got.Length != int64(len(s.body)) {
					t.Errorf("%s %s: %s %s?%s, %d bytes of %d", s.method, s.path, got.Method, got.Path, got.Query, len(got.Body), got.Length)
				}
				if got.Header.Get("X-Custom") != "yes" || !slices.Equal(got.Header["X-Two"], []string{"1", "2"}) || got.Header.Get("Content-Type") != "text/x" || got.Header.Get("X-Hop") != "" {
					t.Errorf("%v", got.Header)
				}
				if token := got.Header.Get("Dapr-Api-Token"); token == "mine" || (strings.Contains(c.url, "callee") || c.header != nil) && token != "secret" {
					t.Errorf("token %q", token)
				}
				if !slices.Equal(res.Header["X-Two"], []string{"one", "two"}) || res.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%v", res.Header)
				}
				switch name {
				case "remote":
					if got.Header.Get("X-Forwarded-For") != "192.0.2.1" || !strings.HasPrefix(got.Header.Get("Forwarded"), "for=192.0.2.1;by=192.0.2.1") ||
						got.Header.Get("Dapr-Caller-App-Id") != "caller" || got.Header.Get("Dapr-Callee-App-Id") != "callee" || got.Header.Get("Dapr-Caller-Namespace") != "default" {
						t.Errorf("%v", got.Header)
					}
				case "endpoint":
					if got.Header.Get("X-Endpoint") != "yes" {
						t.Errorf("%v", got.Header)
					}
				}
				for name := range got.Header {
					if private(name) || strings.EqualFold(name, "destination-app-id") {
						t.Errorf("%s got out", name)
					}
				}
			}
			for _, status := range []string{"201", "204", "302", "400", "404", "418", "500", "503"} {
				if res, _ := send(t, "GET", c.url+"/x", "", append(c.header, "X-Status: "+status)...); fmt.Sprint(res.StatusCode) != status {
					t.Errorf("%s became %d", status, res.StatusCode)
				}
			}
			res, b := send(t, "HEAD", c.url+"/x", "", c.header...)
			if res.StatusCode != 200 || b != "" || res.Header.Get("X-Two") != "one" {
				t.Errorf("HEAD: %d %v", res.StatusCode, res.Header)
			}
		})
	}
}

func TestInvokeErrors(t *testing.T) {
	f := newFleet(t)
	address := app(t, http.HandlerFunc(mirror))
	f.start("nobody", "", nil)
	f.start("denies", address, func(_ *dialect.Options, s *Settings) { s.Invocation.Access = &Access{Default: "deny"} })
	dead := f.start("dead", "127.0.0.1:1", nil)
	caller := f.start("caller", address, func(o *dialect.Options, _ *Settings) {
		o.App.Caller = &loam.Caller{Name: "caller", Grants: o.App.Caller.Grants, Denied: []loam.Grant{
			{Capability: "invoke", Component: "default", Names: []string{"forbidden"}}, {Capability: "http", Component: "default", Names: []string{"secret.example:8080"}},
		}}
	})
	other := f.start("other", address, nil)
	f.book.set("moved", other.internal) // where somebody else is now
	f.book.set("gone", "127.0.0.1:1")
	for _, c := range []struct {
		path   string
		status int
		words  string
	}{
		{"/v1.0/invoke/unknown/method/x", 500, "failed to invoke, id: unknown, err: "},
		{"/v1.0/invoke/a.b.c/method/x", 500, "failed to invoke, id: a.b.c, err: invalid app id a.b.c"},
		{"/v1.0/invoke/orders/x", 404, "failed getting app id either from the URL path or the header dapr-app-id"},
		{"/nothing", 404, "failed getting app id"},
		{"/v1.0/invoke/caller/method/a%23b", 500, "method contains forbidden character"},
		{"/v1.0/invoke/caller/method/a%0ab", 500, "method contains control character at position 1"},
		{"/v1.0/invoke/nobody/method/x", 500, "app channel is not initialized"},
		{"/v1.0/invoke/denies/method/x", 403, "access control policy has denied access"},
		{"/v1.0/invoke/dead/method/x", 500, "error invoking app channel"},
		{"/v1.0/invoke/gone/method/x", 500, "failed to invoke, id: gone"},
		{"/v1.0/invoke/moved/method/x", 500, `this is the sidecar of "other"`},
		{"/v1.0/invoke/forbidden/method/x", 403, "denied"},
		{"/v1.0/invoke/http://secret.example:8080/method/x", 403, "denied"},
		{"/v1.0/invoke/http:/method/x", 500, "failed to invoke"},
		{"/v1.0/invoke/http:%2F%2F127.0.0.1:1%2F@/method/x", 500, "failed to invoke"},
	} {
		res, b := send(t, "GET", "http://"+caller.http+c.path, "")
		var e struct{ ErrorCode, Message string }
		if err := json.Unmarshal([]byte(b), &e); err != nil || res.StatusCode != c.status || e.ErrorCode != "ERR_DIRECT_INVOKE" || !strings.Contains(e.Message, c.words) {
			t.Errorf("%s: %d %s", c.path, res.StatusCode, b)
		}
	}
	_ = dead
	mtls := f.start("mtls", address, func(_ *dialect.Options, s *Settings) { s.Invocation.MTLS = true })
	if res, b := send(t, "GET", "http://"+mtls.http+"/v1.0/invoke/other/method/x", ""); res.StatusCode != 500 || !strings.Contains(b, "mTLS") {
		t.Errorf("%d %s", res.StatusCode, b)
	}
	if res, b := send(t, "GET", "http://"+caller.http+"/v1.0/invoke/mtls/method/x", ""); res.StatusCode != 500 || !strings.Contains(b, "mTLS") {
		t.Errorf("%d %s", res.StatusCode, b)
	}
}

// TestInvokeRetries: an address where nobody listens any more costs a caller nothing where there is another.
func TestInvokeRetries(t *testing.T) {
	f := newFleet(t)
	callee := f.start("callee", app(t, http.HandlerFunc(mirror)), nil)
	caller := f.start("caller", "", nil)
	f.book.set("callee", "127.0.0.1:1", callee.internal)
	for range 4 {
		if res, b := send(t, "POST", "http://"+caller.http+"/v1.0/invoke/callee/method/x", "hello"); res.StatusCode != 200 {
			t.Errorf("%d %s", res.StatusCode, b)
		}
	}
}

// letters is a body of n bytes that are the same for each n.
type letters struct{ at, n int64 }

func (l *letters) Read(p []byte) (int, error) {
	n := int(min(int64(len(p)), l.n-l.at))
	for i := range n {
		p[i] = byte('a' + (l.at+int64(i))%23)
	}
	l.at += int64(n)
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// same tells whether r is n letters.
func same(r io.Reader, n int64) error {
	want := &letters{n: n}
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		k, err := r.Read(a)
		if _, e := io.ReadFull(want, b[:k]); e != nil && k > 0 || !bytes.Equal(a[:k], b[:k]) {
			return fmt.Errorf("wrong bytes at %d", at)
		}
		if at += int64(k); err == io.EOF {
			if at != n {
				return fmt.Errorf("%d bytes of %d", at, n)
			}
			return nil
		} else if err != nil {
			return fmt.Errorf("after %d bytes: %w", at, err)
		}
	}
}

// TestInvokeLarge: bodies of 12 MB pass both ways, with a length and without, and so do the trailers of an answer.
func TestInvokeLarge(t *testing.T) {
	const size = 12 << 20
	f := newFleet(t)
	failed := make(chan error, 100)
	f.start("callee", app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		failed <- same(r.Body, size)
		if r.Header.Get("X-Known") != "" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		} else {
			w.Header().Set("Trailer", "X-Sum")
		}
		_, _ = io.Copy(w, &letters{n: size})
		if r.Header.Get("X-Known") == "" {
			w.Header().Set("X-Sum", "42")
		}
	})), nil)
	caller := f.start("caller", "", nil)
	for _, known := range []bool{true, false} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+caller.http+"/v1.0/invoke/callee/method/large", &letters{n: size})
		if err != nil {
			t.Fatal(err)
		}
		if known {
			req.ContentLength = size
			req.Header.Set("X-Known", "1")
		}
		res, err := client0.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := same(res.Body, size); err != nil {
			t.Errorf("known %v: %v", known, err)
		}
		if known != (res.ContentLength == size) {
			t.Errorf("known %v: a length of %d", known, res.ContentLength)
		}
		if !known && res.Trailer.Get("X-Sum") != "42" {
			t.Errorf("trailer %v", res.Trailer)
		}
		_ = res.Body.Close()
		if err := <-failed; err != nil {
			t.Errorf("known %v: the app got %v", known, err)
		}
	}
}

// TestInvokeStreams: bytes pass as they are sent, both ways at once, through two sidecars.
func TestInvokeStreams(t *testing.T) {
	f := newFleet(t)
	var both http.Protocols
	both.SetUnencryptedHTTP2(true)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				_, _ = w.Write(bytes.ToUpper(buf[:n]))
				_ = c.Flush()
			}
			if err != nil {
				return
			}
		}
	}))
	s.Config.Protocols = &both
	s.Start()
	t.Cleanup(s.Close)
	f.start("callee", "", func(o *dialect.Options, _ *Settings) {
		c := http2.NewClient(s.Listener.Addr().String(), http2.ClientConfig{Hub: f.hub})
		t.Cleanup(c.Close)
		o.App.Target = c
	})
	caller := f.start("caller", "", nil)
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+caller.http+"/v1.0/invoke/callee/method/echo", pr)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = pw.Write([]byte("one")) }()
	res, err := client0.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buf := make([]byte, 3)
	for _, word := range []string{"one", "two", "six"} {
		if word != "one" {
			go func() { _, _ = pw.Write([]byte(word)) }()
		}
		if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != strings.ToUpper(word) {
			t.Fatalf("%q %v", buf, err)
		}
	}
	_ = pw.Close()
	if b, err := io.ReadAll(res.Body); err != nil || len(b) > 0 {
		t.Errorf("%q %v", b, err)
	}
}

// TestInvokeCanceled: who goes away ends the call in the app, through both sidecars; an app that breaks off is no whole
// answer.
func TestInvokeCanceled(t *testing.T) {
	f := newFleet(t)
	begun, ended := make(chan bool, 1), make(chan bool, 1)
	f.start("callee", app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/break" {
			_, _ = io.WriteString(w, strings.Repeat("x", 100<<10))
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path == "/stream" {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
		}
		begun <- true
		<-r.Context().Done()
		ended <- true
	})), nil)
	caller := f.start("caller", "", nil)
	for _, path := range []string{"/head", "/stream"} {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+caller.http+"/v1.0/invoke/callee/method"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			res, err := client0.Do(req)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				_ = res.Body.Close()
			}
			done <- err
		}()
		<-begun
		cancel()
		if err := <-done; err == nil {
			t.Errorf("%s: no error", path)
		}
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: the app was not told", path)
		}
	}
	res, err := client0.Get("http://" + caller.http + "/v1.0/invoke/callee/method/break")
	if err == nil {
		_, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		t.Error("an answer that broke off looked whole")
	}
}

// TestAppMaxConcurrency: so many calls at once, from wherever they come, and the rest waits.
func TestAppMaxConcurrency(t *testing.T) {
	f := newFleet(t)
	var mu sync.Mutex
	now, most := 0, 0
	release := make(chan bool)
	entered := make(chan bool, 100)
	f.start("callee", app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		entered <- true
		<-release
		mu.Lock()
		now--
		mu.Unlock()
	})), func(_ *dialect.Options, s *Settings) { s.MaxConcurrency = 3 })
	caller := f.start("caller", "", nil)
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			if res, b := send(t, "GET", "http://"+caller.http+"/v1.0/invoke/callee/method/x", ""); res.StatusCode != 200 {
				t.Errorf("%d %s", res.StatusCode, b)
			}
		})
	}
	for range 3 {
		<-entered
	}
	close(release)
	all.Wait()
	if most != 3 {
		t.Errorf("%d at once", most)
	}
}

// TestNormalize: what daprd does with a method before it looks whether it is allowed.
func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a", "a/b": "a/b", "/a": "a", "a/": "a", "a//b": "a/b", "a/./b": "a/b", "a/../b": "b", "../../a": "a", "..": "", ".": "", "./a": "a", "a/..": "",
		".hidden": ".hidden", "a/.hidden": "a/.hidden", "a b": "a b", "é": "é", "...": "...",
	} {
		if got, err := normalize(in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"a#b", "a?b", "a\x00b", "a\nb", "a\x7fb"} {
		if got, err := normalize(in); err == nil {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestAccess(t *testing.T) {
	a := &Access{Policies: []AccessPolicy{
		{
			AppID: "shop", Namespace: "default", TrustDomain: "public", Default: "deny",
			Operations: []AccessOperation{
				{Name: "/orders", Verbs: []string{"GET", "POST"}, Action: "allow"}, {Name: "/admin/**", Verbs: []string{"*"}, Action: "deny"},
				{Name: "/users/*", Verbs: []string{"*"}, Action: "allow"}, {Name: "/a*/x", Verbs: []string{"*"}, Action: "allow"}, {Name: "/pkg.Service/*", Action: "allow"},
			},
		},
		{AppID: "friend", Namespace: "default", TrustDomain: "public", Default: "allow", Operations: []AccessOperation{{Name: "/admin/**", Verbs: []string{"*"}, Action: "deny"}}},
		{AppID: "elsewhere", Namespace: "prod", TrustDomain: "public", Default: "allow"},
	}}
	if err := a.Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		caller, method, verb string
		grpc, ok             bool
	}{
		{"shop", "orders", "GET", false, true}, {"shop", "ORDERS", "POST", false, true}, {"shop", "orders", "DELETE", false, false}, {"shop", "orders/1", "GET", false, false},
		{"shop", "users/1", "DELETE", false, true}, {"shop", "users", "GET", false, true}, {"shop", "users/1/2", "GET", false, false}, {"shop", "admin/x/y", "GET", false, false},
		{"shop", "abc/x", "GET", false, true}, {"shop", "bbc/x", "GET", false, false}, {"shop", "pkg.Service/Get", "", true, true}, {"shop", "pkg.service/Get", "", true, false},
		{"friend", "orders", "GET", false, true}, {"friend", "admin/x", "GET", false, false}, {"friend", "admin", "GET", false, false},
		{"elsewhere", "orders", "GET", false, false}, {"stranger", "orders", "GET", false, false}, {"", "orders", "GET", false, false},
	} {
		err := a.check(c.caller, "default", c.method, c.verb, c.grpc)
		if (err == nil) != c.ok || err != nil && loam.CodeOf(err) != loam.PermissionDenied {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, none := range []*Access{nil, {}, {Default: "allow"}} {
		if err := none.check("", "", "x", "GET", false); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []AccessPolicy{{Namespace: "n", TrustDomain: "t"}, {AppID: "a", TrustDomain: "t"}, {AppID: "a", Namespace: "n"}} {
		if (&Access{Policies: []AccessPolicy{bad}}).Check() == nil {
			t.Errorf("%+v", bad)
		}
	}
}

// TestSiblings: an app of the same process is called directly, and its access control list knows for sure who calls.
func TestSiblings(t *testing.T) {
	f := newFleet(t)
	address := app(t, http.HandlerFunc(mirror))
	callee := f.start("callee", address, func(_ *dialect.Options, s *Settings) {
		s.Invocation.Access = &Access{Policies: []AccessPolicy{{
			AppID: "caller", Namespace: "default", TrustDomain: "public", Operations: []AccessOperation{{Name: "/allowed", Verbs: []string{"*"}, Action: "allow"}},
		}}}
	})
	f.book.set("callee") // it is found in no other way
	caller := f.start("caller", address, func(_ *dialect.Options, s *Settings) {
		s.Invocation.Sibling = func(id string) loam.Target {
			if id == "callee" {
				return callee.App()
			}
			return nil
		}
	})
	if res, b := send(t, "GET", "http://"+caller.http+"/v1.0/invoke/callee/method/allowed", ""); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, b)
	}
	if res, b := send(t, "GET", "http://"+caller.http+"/v1.0/invoke/callee/method/other", ""); res.StatusCode != 403 || !strings.Contains(b, "spiffe://public/ns/default/caller") {
		t.Errorf("%d %s", res.StatusCode, b)
	}
}

func newHTTP2(f *fleet, address string) *http2.Client {
	return http2.NewClient(address, http2.ClientConfig{Hub: f.hub})
}
