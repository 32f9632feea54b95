//go:build unix

package filelock

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestTake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	var held Held
	if _, err := Take(path); !errors.As(err, &held) || held.PID != strconv.Itoa(os.Getpid()) {
		t.Errorf("a second Take: %v, want held by %d", err, os.Getpid())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f, err = Take(path)
	if err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	_ = f.Close()
}
