//go:build sdk

package httpwasm_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/build"
	"github.com/loam-run/loam/wasm"
)

func TestCGuest(t *testing.T) {
	out := filepath.Join(t.TempDir(), "c.wasm")
	if err := build.Run(t.Context(), build.Job{Name: "c", Dir: "testdata/c", Out: out, Wasm: true}); err != nil {
		t.Fatalf("%v: test/sdk/install.sh installs what is needed", err)
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	m := compile(t, binary, wasm.Config{Next: loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
		return loam.NewResponse(200, "text/plain", []byte("behind "+r.Path+" "+r.RawQuery)), nil
	})})
	if s := m.State(); !s.Image {
		t.Errorf("there is no image: %s", s.Reason)
	}
	for range 3 {
		if a, err := send(t, m, "POST", "/", "hello"); err != nil || a.status != 202 || a.body != "1hello" || a.header.Get("Content-Type") != "text/plain" {
			t.Errorf("%v %v", a, err)
		}
		if a, err := send(t, m, "GET", "/v1/orders?a=b", ""); err != nil || a.body != "behind /orders a=b" || a.header.Get("X-Seen") != "yes" {
			t.Errorf("%v %v", a, err)
		}
	}
}

func BenchmarkC(b *testing.B) {
	out := filepath.Join(b.TempDir(), "c.wasm")
	if err := build.Run(b.Context(), build.Job{Name: "c", Dir: "testdata/c", Out: out, Wasm: true}); err != nil {
		b.Fatal(err)
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	m := compile(b, binary, wasm.Config{})
	for b.Loop() {
		if _, err := send(b, m, "POST", "/", "hello"); err != nil {
			b.Fatal(err)
		}
	}
}
