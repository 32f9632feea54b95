package http1

import "testing"

// corpus is requests that two readers could take for different messages, or that try to get past one. Each is a whole
// message, or looks like one; status is what it is refused with, 0 where it is taken.
var corpus = []struct {
	name   string
	raw    string
	status int
}{
	{"plain", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
	// Two lengths.
	{"CL and TE", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", 400},
	{"TE and CL", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nX", 400},
	{"CL twice, same", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400},
	{"CL twice, other", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400},
	{"CL list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx", 400},
	{"CL plus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400},
	{"CL minus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx", 400},
	{"CL hex", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx", 400},
	{"CL empty", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400},
	{"CL blank inside", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\nx", 400},
	{"CL fraction", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1.0\r\n\r\nx", 400},
	{"CL exponent", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e1\r\n\r\nx", 400},
	{"CL quoted", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"1\"\r\n\r\nx", 400},
	{"CL overflow", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nx", 400},
	{"CL huge", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999999\r\n\r\nx", 400},
	{"CL underscore", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nx", 400},
	{"CL semicolon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1;\r\n\r\nx", 400},
	{"CL non-ASCII digits", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa1\r\n\r\nx", 400},
	{"CL_ with underscore is another field", "GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n", 0},
	// Codings.
	{"TE identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501},
	{"TE gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
	{"TE chunked, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501},
	{"TE chunked, identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501},
	{"TE twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501},
	{"TE twice, second broken", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 501},
	{"TE xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
	{"TE chunked;x", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;x=1\r\n\r\n0\r\n\r\n", 501},
	{"TE quoted", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501},
	{"TE empty", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 501},
	{"TE comma", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 501},
	{"TE tab before", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", 0},
	{"TE vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
	{"TE form feed", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n", 400},
	{"TE nul", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n", 400},
	{"TE in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"TE non-breaking space", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n", 501},
	{"TE cut by CR", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\rX: y\r\n\r\n0\r\n\r\n", 400},
	// Names.
	{"blank before colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
	{"tab before colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 1\r\n\r\nx", 400},
	{"blank in name", "GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n", 400},
	{"empty name", "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", 400},
	{"no colon", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding chunked\r\n\r\n", 400},
	{"nul in name", "GET / HTTP/1.1\r\nHost: a\r\nX\x00Y: 1\r\n\r\n", 400},
	{"non-ASCII name", "GET / HTTP/1.1\r\nHost: a\r\nX\xe9: 1\r\n\r\n", 400},
	{"kelvin sign in name", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\xe2\x84\xaa: chunked\r\n\r\n", 400},
	{"parenthesis in name", "GET / HTTP/1.1\r\nHost: a\r\nX(: 1\r\n\r\n", 400},
	{"slash in name", "GET / HTTP/1.1\r\nHost: a\r\nX/Y: 1\r\n\r\n", 400},
	{"CR in name", "GET / HTTP/1.1\r\nHost: a\r\nX\rY: 1\r\n\r\n", 400},
	// Lines.
	{"fold", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400},
	{"fold with tab", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n", 501},
	{"fold first", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
	{"bare LF in head", "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400},
	{"bare LF after request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
	{"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
	{"bare LFs", "GET / HTTP/1.1\nHost: a\n\n", 400},
	{"bare CR in value", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n", 400},
	{"CR CR LF", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\r\n\r\n", 400},
	{"bare CR line", "GET / HTTP/1.1\r\nHost: a\r\n\rX: 1\r\n\r\n", 400},
	{"LF before the request", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"nul in value", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\x002\r\n\r\n", 400},
	{"DEL in value", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\x7f\r\n\r\n", 400},
	{"escape in value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[31m\r\n\r\n", 400},
	// Request lines.
	{"two blanks", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"two blanks after", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"tab", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"blank first", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"blank last", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
	{"blank in target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"no version", "GET /\r\nHost: a\r\n\r\n", 400},
	{"no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"HTTP/0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
	{"HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
	{"HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400},
	{"HTTP/01.1", "GET / HTTP/01.1\r\nHost: a\r\n\r\n", 400},
	{"http/1.1", "GET / http/1.1\r\nHost: a\r\n\r\n", 400},
	{"HTTP/1,1", "GET / HTTP/1,1\r\nHost: a\r\n\r\n", 400},
	{"method with colon", "GE:T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"method of non-ASCII", "G\xc9T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"nul in target", "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"DEL in target", "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"fragment", "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"target without slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"star for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"query only", "GET ?x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"other scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"scheme without authority", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"userinfo", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"backslash authority", "GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"CONNECT with path", "CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"CONNECT with body", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\nx", 400},
	{"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400},
	{"empty method", " / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	// Hosts.
	{"no host", "GET / HTTP/1.1\r\nX: 1\r\n\r\n", 400},
	{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
	{"two equal hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
	{"two hosts in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400},
	{"host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
	{"host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
	{"host with userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
	{"host with query", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400},
	{"host with fragment", "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", 400},
	{"host with blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
	{"host with backslash", "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400},
	{"host with port in letters", "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400},
	{"host with two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", 400},
	{"host is a port", "GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400},
	{"host of non-ASCII", "GET / HTTP/1.1\r\nHost: \xe2\x82\xac\r\n\r\n", 400},
	{"blank before host's colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
	// Connection.
	{"connection names CL", "POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 1\r\n\r\nx", 400},
	{"connection names TE", "POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"connection names host", "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", 400},
	// Chunks.
	{"chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=\"y\"\r\nx\r\n0\r\nT: 1\r\n\r\n", 0},
	{"chunk 0x", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n", 400},
	{"chunk minus", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n", 400},
	{"chunk plus", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n", 400},
	{"chunk empty", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nx\r\n0\r\n\r\n", 400},
	{"chunk blank before", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 1\r\nx\r\n0\r\n\r\n", 400},
	{"chunk blank after", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n", 400},
	{"chunk bare LF", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", 400},
	{"chunk bare LF in extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nx\r\n0\r\n\r\n", 400},
	{"chunk CR in extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\rb\r\nx\r\n0\r\n\r\n", 400},
	{"chunk data too long", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n", 400},
	{"chunk data without end", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx0\r\n\r\n", 400},
	{"chunk data ends in LF", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n", 400},
	{"chunk overflow", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx\r\n0\r\n\r\n", 400},
	{"chunk comma", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1,2\r\nx\r\n0\r\n\r\n", 400},
	{"last chunk bare LF", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\n\n", 400},
	{"trailer with CL", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", 400},
	{"trailer with TE", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
	{"trailer with host", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\n\r\n", 400},
	{"trailer folded", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: 1\r\n 2\r\n\r\n", 400},
	{"trailer bare LF", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: 1\n\r\n", 400},
}

func TestCorpusIsLarge(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range corpus {
		if seen[c.name] {
			t.Errorf("%s stands there twice", c.name)
		}
		seen[c.name] = true
	}
	if len(seen) < 100 {
		t.Errorf("%d cases", len(seen))
	}
}
