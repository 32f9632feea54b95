package proxywasm

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
)

// A map that was read is written as it was, and holds nothing that could not stand in a message.
func FuzzPairs(f *testing.F) {
	f.Add(encodePairs(loam.Header{{Name: "a", Value: "1"}, {Name: "b", Value: "22"}}))
	f.Add(encodePairs(loam.Header{{Name: ":path", Value: "/"}, {Name: ":authority", Value: "x"}, {Name: ":status", Value: "200"}}))
	f.Add([]byte{0})
	f.Add([]byte("\x01\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, valid := decodePairs(b)
		if !valid {
			return
		}
		if again := encodePairs(h); len(b) > 1 && (!bytes.Equal(again, b) || len(again) != encodedSize(h)) {
			t.Errorf("%q became %q", b, again)
		}
		for id := range uint32(numMaps) {
			h, valid := checked(id, slices.Clone(b))
			if !valid {
				continue
			}
			for _, p := range h {
				pseudo := strings.HasPrefix(p.Name, ":")
				if !pseudo && guest.CheckField(p.Name, p.Value) != nil || strings.ContainsAny(p.Name+p.Value, "\r\n\x00") || pseudo && id != mapRequestHeaders && id != mapResponseHeaders {
					t.Errorf("map %d: %q", id, p)
				}
			}
		}
	})
}

// The property paths that guests send name what there is, or nothing.
func FuzzProperty(f *testing.F) {
	f.Add("request\x00headers\x00accept", "192.0.2.1:80", "a=b")
	f.Add("source\x00port", "nowhere", "")
	f.Fuzz(func(t *testing.T, path, remote, query string) {
		s := &server{guest: &guest.Call{Request: &loam.Request{Method: "GET", Path: "/", RawQuery: query, Remote: remote}}}
		s.exchange = exchange{context: 2, own: new(guest.Response)}
		if v, found := s.property(path); !found && v != nil {
			t.Errorf("%q: %q that is not there", path, v)
		}
	})
}
