package dapr

import (
	"bytes"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/dapr"
	"github.com/loam-run/loam/internal/protowire"
)

// TestInternalMessages: what is written by hand is what the contract's messages read, and the other way round.
func TestInternalMessages(t *testing.T) {
	h := requestHead{method: "a/b", verb: 4, query: "q=1", contentType: "text/x", typeURL: "t/x.Y", data: []byte("data")}
	header := loam.Header{{Name: "x-a", Value: "1"}, {Name: "Skip", Value: "1"}, {Name: "X-A", Value: "2"}, {Name: fieldGRPC, Value: "1"}, {Name: "some-bin", Value: "AQI"}, {Name: "empty", Value: ""}}
	b, stream := protowire.Open(nil, 1)
	b = protowire.AppendNumber(b, 1, 1)
	b = appendFields(b, 2, header, false, func(name string) bool { return name == "Skip" })
	b = appendEntry(b, 2, "Long", strings.Repeat("x", 300), "y")
	b = protowire.Shut(h.appendMessage(b, 3), stream)
	b = appendPayload(b, []byte("chunk"), 7)
	var m pb.InternalInvokeRequestStream
	if err := m.ParseProto(b); err != nil {
		t.Fatal(err)
	}
	r := m.Request
	if r == nil || r.Ver != 1 || r.Message.Method != "a/b" || r.Message.HttpExtension.Verb != 4 || r.Message.HttpExtension.Querystring != "q=1" || r.Message.ContentType != "text/x" ||
		r.Message.Data.TypeUrl != "t/x.Y" || string(r.Message.Data.Value) != "data" || m.Payload.Seq != 7 || string(m.Payload.Data) != "chunk" {
		t.Errorf("%+v", r)
	}
	if len(r.Metadata) != 3 || !slices.Equal(r.Metadata["X-A"].Values, []string{"1", "2"}) || !slices.Equal(r.Metadata["Empty"].Values, []string{""}) || len(r.Metadata["Long"].Values) != 2 {
		t.Errorf("%v", r.Metadata)
	}
	var s streamMessage
	var got requestHead
	if err := errors.Join(s.parse(m.AppendProto(nil)), got.parse(s.head)); err != nil || got.method != "a/b" || got.verb != 4 || got.query != "q=1" || got.typeURL != "t/x.Y" || string(got.data) != "data" || s.seq != 7 || string(s.data) != "chunk" || len(got.header) != 5 {
		t.Errorf("%+v %v", got, err)
	}
	out := responseHead{code: 9, words: "no", details: [][]byte{{10, 1, 'x'}}, contentType: "text/y", typeURL: "t/z", data: []byte("d"), header: header[:1], trailer: loam.Header{{Name: "t", Value: "1"}}}
	var response pb.InternalInvokeResponse
	if err := response.ParseProto(out.append(nil, true)); err != nil {
		t.Fatal(err)
	}
	if response.Status.Code != 9 || response.Status.Message != "no" || len(response.Status.Details) != 1 || response.Message.ContentType != "text/y" || response.Message.Data.TypeUrl != "t/z" ||
		response.Headers["x-a"].Values[0] != "1" || response.Trailers["t"].Values[0] != "1" {
		t.Errorf("%+v", response)
	}
	var back responseHead
	if err := back.parse(response.AppendProto(nil)); err != nil || !back.status || back.code != 9 || back.words != "no" || len(back.details) != 1 || string(back.data) != "d" || back.header.Get("x-a") != "1" || back.trailer.Get("t") != "1" {
		t.Errorf("%+v %v", back, err)
	}
}

// FuzzInternal: whatever another sidecar sends is refused or read, in memory bounded by what it sent; no field can end a
// line of HTTP or pass for one of ours.
func FuzzInternal(f *testing.F) {
	h := requestHead{method: "a", verb: 1, data: []byte("x")}
	b, stream := protowire.Open(nil, 1)
	b = appendEntry(b, 2, "a\r\nb", "c")
	b = appendEntry(b, 2, ":grpc", "c")
	b = appendEntry(b, 2, "x", "c\r\nd", "e")
	b = protowire.Shut(h.appendMessage(b, 3), stream)
	f.Add(appendPayload(b, []byte("chunk"), 1))
	f.Add((&responseHead{code: 200, header: loam.Header{{Name: "a", Value: "b"}}}).append(nil, false))
	f.Add([]byte{0x0a, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(h loam.Header) {
			for _, field := range h {
				if private(field.Name) || !isToken(field.Name) || !isValue(field.Value) {
					t.Fatalf("%q: %q", field.Name, field.Value)
				}
			}
			if len(h) > maxFields {
				t.Fatalf("%d fields", len(h))
			}
		}
		var s streamMessage
		if s.parse(b) == nil {
			var request requestHead
			if request.parse(s.head) == nil {
				check(request.header)
			}
			var response responseHead
			if response.parse(s.head) == nil {
				check(response.header)
				check(response.trailer)
			}
		}
		_, _, _ = parseInvokeService(b)
		// Frames, in pieces of any size.
		one := frameReader{body: bytes.NewReader(b), most: 1 << 10}
		two := frameReader{body: iotest.OneByteReader(bytes.NewReader(b)), most: 1 << 10}
		for {
			x, err := one.next()
			y, err2 := two.next()
			if !bytes.Equal(x, y) || (err == nil) != (err2 == nil) || errors.Is(err, io.EOF) != errors.Is(err2, io.EOF) {
				t.Fatalf("%q %v, %q %v", x, err, y, err2)
			}
			if err != nil {
				break
			}
		}
	})
}

// FuzzReceiver: what a path, a header or a user names is called by a method that leads nowhere else: clean, without what
// ends a line.
func FuzzReceiver(f *testing.F) {
	f.Add("/v1.0/invoke/orders/method/a/../b", "", "")
	f.Add("//v1.0//invoke/http://x:1/method/%2e%2e/a", "x", "Basic ZGFwci1hcHAtaWQ6Y2FsbGVl")
	f.Add("/v1.0/invoke/a%2fmethod/method/..%2f", "", "")
	f.Fuzz(func(t *testing.T, path, header, user string) {
		var req loam.Request
		req.Path = path
		if header != "" {
			req.Header.Add("dapr-app-id", header)
		}
		if user != "" {
			req.Header.Add("Authorization", user)
		}
		_, method, err := receiver(&req)
		if err != nil {
			return
		}
		clean, err := normalize(method)
		if err != nil {
			return
		}
		if again, err := normalize(clean); err != nil || again != clean {
			t.Fatalf("%q became %q, then %q, %v", method, clean, again, err)
		}
		p := escape(clean)
		for i := range len(p) {
			if c := p[i]; c <= ' ' || c >= 0x7f || c == '#' || c == '?' {
				t.Fatalf("%q", p)
			}
		}
		if back, err := url.PathUnescape(p); err != nil || back != "/"+clean {
			t.Fatalf("%q is %q, %v", p, back, err)
		}
		for part := range strings.SplitSeq(clean, "/") {
			if part == ".." || part == "." {
				t.Fatalf("%q", clean)
			}
		}
	})
}

// FuzzOperations: a pattern without wildcards matches itself and nothing else.
func FuzzOperations(f *testing.F) {
	f.Add("orders/*", "orders/1")
	f.Add("a*b*c", "aXbXc")
	f.Fuzz(func(t *testing.T, pattern, method string) {
		got := matchOperation(pattern, method)
		if !strings.Contains(pattern, "*") && got != (pattern == method) {
			t.Fatalf("%q and %q: %v", pattern, method, got)
		}
		if !matchOperation(method, method) && !strings.Contains(method, "*") {
			t.Fatalf("%q does not match itself", method)
		}
	})
}
