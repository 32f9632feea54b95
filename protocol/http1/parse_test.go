package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/http1/http1test"
)

func limits() *Limits {
	var l Limits
	l.setDefaults()
	return &l
}

func parse(raw string) (*loam.Request, message, int, error) {
	var req loam.Request
	var m message
	n, err := parseRequest([]byte(raw), limits(), &req, &m)
	return &req, m, n, err
}

func TestParseRequest(t *testing.T) {
	for _, c := range []struct {
		raw       string
		authority string
		path      string
		query     string
		framing   framing
		length    int64
		close     bool
		header    loam.Header
	}{
		{raw: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", authority: "a", path: "/"},
		{raw: "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", authority: "a", path: "/"},
		{raw: "GET /a%2Fb//c?x=%31&y HTTP/1.1\r\nhOST:  a:80\t\r\nX: 1\r\nx: 2\r\n\r\n", authority: "a:80", path: "/a%2Fb//c", query: "x=%31&y", header: loam.Header{{Name: "X", Value: "1"}, {Name: "x", Value: "2"}}},
		{raw: "GET http://b/p?q HTTP/1.1\r\nHost: a\r\n\r\n", authority: "b", path: "/p", query: "q"},
		{raw: "GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n", authority: "b", path: "/", query: "q"},
		{raw: "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", authority: "a", path: "*"},
		{raw: "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", authority: "[::1]:80", path: "/"},
		{raw: "GET / HTTP/1.1\r\nHost:\r\n\r\n", path: "/"},
		{raw: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", authority: "a", path: "/", framing: bodyLength, length: 5},
		{raw: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", authority: "a", path: "/"},
		{raw: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", authority: "a", path: "/", framing: bodyChunked},
		{raw: "GET / HTTP/1.0\r\n\r\n", path: "/", close: true},
		{raw: "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", path: "/"},
		{raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", authority: "a", path: "/", close: true},
		{raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket,h2C\r\nHTTP2-Settings: A\r\nY: 1\r\n\r\n", authority: "a", path: "/", header: loam.Header{{Name: "Y", Value: "1"}}},
		{raw: "GET / HTTP/1.1\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nY: 1\r\nHost: a\r\nConnection: x-hop, Keep-Alive\r\n\r\n", authority: "a", path: "/", header: loam.Header{{Name: "Y", Value: "1"}}},
		{raw: "GET / HTTP/1.1\r\nHost: a\r\nX: \xe2\x82\xac\r\nEmpty:\r\n\r\n", authority: "a", path: "/", header: loam.Header{{Name: "X", Value: "€"}, {Name: "Empty", Value: ""}}},
	} {
		req, m, n, err := parse(c.raw)
		if err != nil || n != len(c.raw) {
			t.Errorf("%q: %d of %d bytes, %v", c.raw, n, len(c.raw), err)
			continue
		}
		if req.Authority != c.authority || req.Path != c.path || req.RawQuery != c.query || m.framing != c.framing || m.length != c.length || m.close != c.close {
			t.Errorf("%q: %q %q %q %+v", c.raw, req.Authority, req.Path, req.RawQuery, m)
		}
		if len(req.Header) != len(c.header) {
			t.Errorf("%q: fields %v", c.raw, req.Header)
		}
		for i := range c.header {
			if req.Header[i] != c.header[i] {
				t.Errorf("%q: field %v", c.raw, req.Header[i])
			}
		}
		for i := range len(c.raw) { // no part of it is a message, nor refused for being a part
			if strings.HasPrefix(c.raw, "\r\n") && i < 4 {
				continue
			}
			if _, _, n, err := parse(c.raw[:i]); n != 0 || err != nil {
				t.Errorf("%q: %d, %v", c.raw[:i], n, err)
			}
		}
	}
}

// FuzzParseRequest: what is taken for a request is one for net/http too, with the same meaning. The other way round we
// may refuse more.
func FuzzParseRequest(f *testing.F) {
	for _, c := range http1test.Corpus() {
		f.Add([]byte(c.Raw))
	}
	f.Add([]byte("POST http://b:1/|?|x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: a,b\r\nA: 1\r\n\r\nhi"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var req loam.Request
		var m message
		n, err := parseRequest(raw, limits(), &req, &m)
		if n == 0 || err != nil {
			return
		}
		if n > len(raw) {
			t.Fatal("beyond the end")
		}
		their, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimLeft(raw, "\r\n"))))
		if err != nil {
			if strings.Contains(err.Error(), "invalid URL") || strings.Contains(err.Error(), "invalid URI") || strings.Contains(err.Error(), "net/url") ||
				strings.Contains(err.Error(), "parse ") { // it decodes escapes, which is not ours to do
				return
			}
			t.Fatalf("net/http refuses %q: %v", raw, err)
		}
		if their.Method != req.Method || their.Host != req.Authority {
			t.Fatalf("%q: %s %s, net/http has %s %s", raw, req.Method, req.Authority, their.Method, their.Host)
		}
		length := int64(0)
		switch m.framing {
		case bodyLength:
			length = m.length
		case bodyChunked:
			length = -1
		}
		if their.ContentLength != length {
			t.Fatalf("%q: length %d, net/http has %d", raw, length, their.ContentLength)
		}
		// The same body ends at the same byte.
		if req.Method == "CONNECT" {
			return
		}
		var trailer loam.Header
		r := reader{conn: &memory{r: bytes.NewReader(nil)}, buf: append(bytes.Clone(raw), make([]byte, 4096)...), base: n, r: n, w: len(raw), task: still{}, req: &req}
		var b body
		b.start(&r, m, limits(), -1, &trailer)
		our, err := io.ReadAll(&b)
		theirs, theirErr := io.ReadAll(their.Body)
		if err == nil && (theirErr != nil || !bytes.Equal(our, theirs)) {
			t.Fatalf("%q: body %q, net/http has %q, %v", raw, our, theirs, theirErr)
		}
	})
}

// FuzzParseResponse: no bytes of a server's crash the parser, and what it takes net/http takes too.
func FuzzParseResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), false)
	f.Add([]byte("HTTP/1.1 304\r\nTransfer-Encoding: chunked\r\n\r\n"), true)
	f.Add([]byte("HTTP/1.0 200 \r\n\r\nto the end"), false)
	f.Fuzz(func(t *testing.T, raw []byte, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		var res loam.Response
		var m message
		n, err := parseResponse(raw, method, limits(), &res, &m)
		if n == 0 || err != nil {
			return
		}
		their, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", raw, err)
		}
		if their.StatusCode != res.Status {
			t.Fatalf("%q: %d, net/http has %d", raw, res.Status, their.StatusCode)
		}
	})
}

func BenchmarkParseRequest(b *testing.B) {
	raw := []byte("GET /orders/7?full=1 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: curl/8.1.2\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\nX-Request-Id: 0af7651916cd43dd8448eb211c80319c\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n")
	var req loam.Request
	var m message
	lim := limits()
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		req.Header = req.Header[:0]
		if n, err := parseRequest(raw, lim, &req, &m); n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}
