//go:build sdk

package sdk

import (
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm"
)

// What a request to a clean instance costs in each language, the SDK's part of it: head in, route, head out.
func BenchmarkLanguages(b *testing.B) {
	for _, language := range languages {
		b.Run(language, func(b *testing.B) {
			w := newWorld(b, compiled(b, "../../examples/languages/"+language), wasm.Config{}, tour("localhost"))
			req := loam.NewRequest(b.Context())
			defer req.Release()
			req.Method, req.Scheme, req.Authority, req.Path, req.ID = "GET", "http", "localhost", "/echo/", "r-1"
			req.Header.Add("Content-Type", "text/plain")
			b.ReportAllocs()
			for b.Loop() {
				resp, err := w.module.Serve(req)
				if err != nil || resp.Status != 200 {
					b.Fatal(resp, err)
				}
				if err := resp.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
