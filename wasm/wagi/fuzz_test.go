package wagi

import (
	"bytes"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
)

// Whatever a program prints, what is made of it can be written to a connection.
func FuzzResponse(f *testing.F) {
	f.Add([]byte("Content-Type: text/plain\r\nStatus: 404 Not Found\r\n\r\nhello"))
	f.Add([]byte("Location: /\n\n"))
	f.Add([]byte("Status: 999\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := new(guest.Response)
		if err := parse(r, b); err != nil {
			return
		}
		if r.Status != 0 && guest.CheckStatus(r.Status) != nil {
			t.Errorf("status %d", r.Status)
		}
		for _, h := range r.Header {
			if err := guest.CheckField(h.Name, h.Value); err != nil || guest.OfConnection(h.Name) || strings.EqualFold(h.Name, "Status") {
				t.Errorf("%v: %v", h, err)
			}
		}
		if !bytes.HasSuffix(b, r.Data) {
			t.Errorf("the body %q is not the end of what was printed", r.Data)
		}
	})
}

// Whatever a client sends, each variable is one string that the program reads as it was meant, and none is one that it
// trusts.
func FuzzEnvironment(f *testing.F) {
	f.Add("GET", "/a%00b", "a=b&c", "Proxy", "http://evil", "shop:80", "192.0.2.1:1")
	f.Add("POST", "/", "", "X-A_B", "x\x00y", "[::1]:1", "")
	f.Fuzz(func(t *testing.T, method, path, query, name, value, authority, remote string) {
		req := &loam.Request{Method: method, Path: path, RawQuery: query, Authority: authority, Remote: remote, ID: "r-1", Scheme: "http",
			Header: loam.Header{{Name: name, Value: value}, {Name: name, Value: value}, {Name: "Host", Value: "other"}}}
		seen := map[string]bool{}
		for _, v := range environment(nil, req, nil) {
			n, _, ok := strings.Cut(v, "=")
			if !ok || n == "" || strings.ContainsAny(n, "-\x00") || strings.ContainsRune(v, 0) || seen[n] {
				t.Errorf("%q", v)
			}
			if n == "HTTP_PROXY" {
				t.Errorf("a client sets %s", n)
			}
			seen[n] = true
		}
		if got := arguments([]string{"/"}, strings.Repeat(query+"&", 2000)); len(got) > maxArgs+1 {
			t.Errorf("%d arguments", len(got))
		}
	})
}
