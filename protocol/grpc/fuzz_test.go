package grpc

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/loam-run/loam"
)

// What is taken from a body is the messages that were framed into it, however the bytes come; nothing else is made of it,
// and nothing beyond the bound.
func FuzzFrames(f *testing.F) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write(make([]byte, 3000))
	if err := errors.Join(err, z.Close()); err != nil {
		f.Fatal(err)
	}
	one := Raw("hello")
	frame := appendFrame(nil, &one)
	f.Add(frame, false)
	f.Add(append(frame, frame...), true)
	f.Add(frame[:7], false)
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff}, false)
	f.Add([]byte{2, 0, 0, 0, 0}, false)
	packed := appendFrame(nil, (*Raw)(new(zipped.Bytes())))
	packed[0] = 1
	f.Add(packed, true)
	f.Fuzz(func(t *testing.T, b []byte, slow bool) {
		const most = 2000
		var body io.Reader = bytes.NewReader(b)
		if slow {
			body = iotest.OneByteReader(body)
		}
		var in frames
		if err := in.begin(body, most, "gzip"); err != nil {
			t.Fatal(err)
		}
		rest := b
		for {
			m, err := in.next()
			if err != nil {
				if (errors.Is(err, io.EOF)) != (len(rest) == 0) {
					t.Fatalf("%v with %d bytes left", err, len(rest))
				}
				if !errors.Is(err, io.EOF) && loam.CodeOf(err) != loam.Internal && loam.CodeOf(err) != loam.ResourceExhausted {
					t.Fatalf("%v has no code", err)
				}
				return
			}
			if len(m) > most {
				t.Fatalf("a message of %d bytes", len(m))
			}
			size := int(rest[1])<<24 | int(rest[2])<<16 | int(rest[3])<<8 | int(rest[4])
			if rest[0] == 0 && !bytes.Equal(m, rest[5:5+size]) {
				t.Fatalf("%q is not what was sent", m)
			}
			rest = rest[5+size:]
		}
	})
}

// What a trailer says of how a call ended is read without trouble, whatever it says, and read again as the same.
func FuzzStatus(f *testing.F) {
	f.Add("5", "a%20b%", "CAUSAWE")
	f.Add("0", "", "")
	var rich loam.Header
	rich = AppendStatus(rich, NewStatus(loam.NotFound, "nö", ErrorInfo("A", "b", map[string]string{"c": "d"})))
	f.Add(rich[0].Value, rich[1].Value, rich[2].Value)
	f.Fuzz(func(t *testing.T, code, message, details string) {
		s, ok := ParseStatus(loam.Header{{Name: "grpc-status", Value: code}, {Name: "grpc-message", Value: message}, {Name: "grpc-status-details-bin", Value: details}})
		if !ok || s == nil || len(s.Message) > 1000 || len(details) > 1000 {
			return
		}
		again, ok := ParseStatus(AppendStatus(nil, s))
		if !ok || again == nil || again.Code != s.Code || again.Message != s.Message || len(again.Details) != len(s.Details) {
			t.Fatalf("%#v became %#v", s, again)
		}
	})
}
