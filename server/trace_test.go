package server

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What names a request across programs reaches the target as it came: W3C's trace context and baggage, and the request id.
// A request that has none is given an id, and no trace.
func TestTraceContext(t *testing.T) {
	given := map[string][]string{
		"Traceparent":  {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
		"Tracestate":   {"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "third=x"}, // a list may come in two fields
		"Baggage":      {"userId=alice,serverNode=DF%2028;p=1"},
		"X-Request-Id": {"request-7"},
	}
	seen := make(chan http.Header, 1)
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		all := http.Header{}
		for name := range given {
			if v := r.Header.Values(name); v != nil {
				all[name] = v
			}
		}
		all.Set("Proto", r.Proto)
		seen <- all
	}))
	var both, h2 http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	h2.SetUnencryptedHTTP2(true)
	up.Config.Protocols = &both
	up.Start()
	t.Cleanup(up.Close)
	r := start(t, fmt.Sprintf(`
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: one}
spec: {endpoints: [{address: "%s"}]}
---
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: two}
spec: {protocol: h2c, endpoints: [{address: "%[1]s"}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all}
spec:
  rules:
    - {matches: [{path: {value: /one}}], backendRefs: [{kind: Service, name: one}]}
    - {matches: [{path: {value: /two}}], backendRefs: [{kind: Service, name: two}]}
`, up.Listener.Addr()))
	one, two := &http.Transport{}, &http.Transport{Protocols: &h2}
	for _, c := range []struct {
		name, path, proto, contentType string
		by                             *http.Transport
	}{
		{"HTTP/1 to HTTP/1", "/one", "HTTP/1.1", "text/plain", one},
		{"HTTP/1 to HTTP/2", "/two", "HTTP/2.0", "text/plain", one},
		{"HTTP/2 to HTTP/1", "/one", "HTTP/1.1", "text/plain", two},
		{"HTTP/2 to HTTP/2", "/two", "HTTP/2.0", "text/plain", two},
		{"gRPC", "/two", "HTTP/2.0", "application/grpc", two},
	} {
		t.Run(c.name, func(t *testing.T) {
			ask := func(header http.Header) http.Header {
				t.Helper()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+c.path, strings.NewReader("\x00\x00\x00\x00\x00"))
				if err != nil {
					t.Fatal(err)
				}
				maps.Copy(req.Header, header)
				req.Header.Set("Content-Type", c.contentType)
				res, err := c.by.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					t.Fatal(err)
				}
				got := <-seen
				if p := got.Get("Proto"); p != c.proto {
					t.Errorf("the target is spoken to in %s", p)
				}
				return got
			}
			got := ask(given)
			for name, want := range given {
				if strings.Join(got[name], ",") != strings.Join(want, ",") {
					t.Errorf("%s: %q, want %q", name, got[name], want)
				}
			}
			got = ask(nil)
			if got.Get("Traceparent")+got.Get("Tracestate")+got.Get("Baggage") != "" || got.Get("X-Request-Id") == "" {
				t.Errorf("%v", got)
			}
		})
	}
	one.CloseIdleConnections()
	two.CloseIdleConnections()
}
