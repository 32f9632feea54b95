//go:build sdk

package wagi_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/build"
	"github.com/loam-run/loam/wasm"
)

// built is the program that lies in a folder.
func built(t testing.TB, dir string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program.wasm")
	if err := build.Run(t.Context(), build.Job{Name: dir, Dir: dir, Out: out, Wasm: true, Main: true}); err != nil {
		t.Fatalf("%v: test/sdk/install.sh installs what is needed", err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What Go's library for CGI makes of a request is what was sent.
func TestCGILibrary(t *testing.T) {
	m := compile(t, built(t, "testdata/cgi"), wasm.Config{})
	for range 2 {
		status, h, body, err := send(t, m, "PUT", "/orders/7%2F8?a=%20b", "hello", "X-Name", "Ada", "Content-Type", "text/plain")
		if err != nil || status != 202 || h.Get("Set-Cookie") != "seen=7/8" || body != "PUT /orders/7/8?a=%20b shop.example:8443 192.0.2.7:4711 Ada 5 hello" {
			t.Errorf("%d %v %q %v", status, h, body, err)
		}
		if status, _, _, err := send(t, m, "GET", "/nothing", ""); err != nil || status != 404 {
			t.Errorf("%d %v", status, err)
		}
	}
}

// A C program that knows of nothing but CGI.
func TestCProgram(t *testing.T) {
	m := compile(t, built(t, "testdata/c"), wasm.Config{})
	if s := m.State(); !s.Image {
		t.Errorf("there is no image: %s", s.Reason)
	}
	for range 3 {
		status, h, body, err := send(t, m, "PUT", "/?a=b", "hello")
		if err != nil || status != 200 || h.Get("X-Method") != "PUT" || body != "run 1, 2 arguments, last a=b, 5 bytes: HELLO" {
			t.Errorf("%d %v %q %v", status, h, body, err)
		}
	}
	if _, _, _, err := send(t, m, "GET", "/?a&b&c", ""); loam.CodeOf(err) != loam.Internal {
		t.Errorf("exit status 7: %v", err)
	}
}

// The program that the documentation shows is one.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/abis.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(text), "\n```c\n")
	block, _, closed := strings.Cut(block, "\n```\n")
	if !found || !closed {
		t.Fatal("there is no block of C")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.c"), []byte(block), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, body, err := send(t, compile(t, built(t, dir), wasm.Config{}), "GET", "/?you", ""); err != nil || body != "hello, you\n" {
		t.Errorf("%q %v", body, err)
	}
}

func BenchmarkC(b *testing.B) {
	m := compile(b, built(b, "testdata/c"), wasm.Config{})
	for b.Loop() {
		if _, _, _, err := send(b, m, "GET", "/", "hello"); err != nil {
			b.Fatal(err)
		}
	}
}

func TestRustProgram(t *testing.T) {
	m := compile(t, built(t, "testdata/rust"), wasm.Config{})
	for range 2 {
		if status, _, body, err := send(t, m, "POST", "/", "hello"); err != nil || status != 200 || body != "POST olleh" {
			t.Errorf("%d %q %v", status, body, err)
		}
		if _, _, _, err := send(t, m, "POST", "/", "\xff"); loam.CodeOf(err) != loam.Internal {
			t.Errorf("%v", err)
		}
	}
}
