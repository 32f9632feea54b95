//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if program() || impostor() {
		return
	}
	os.Exit(m.Run())
}

// TestSoak is the soak in short; make soak-upgrade is the long one.
func TestSoak(t *testing.T) {
	dir := t.TempDir()
	s := soak{loam: filepath.Join(dir, "loam"), upgrades: 3, between: 300 * time.Millisecond, dir: dir}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", s.loam, "github.com/loam-run/loam/cmd/loam").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := s.run(t.Output()); err != nil {
		t.Fatal(err)
	}
}
