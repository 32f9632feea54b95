package main

import (
	"os"
	"testing"
)

// The children are this test binary too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-child" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestSoak is the soak in short; make soak-store is the long one.
func TestSoak(t *testing.T) {
	if err := soak(t.TempDir(), 5); err != nil {
		t.Fatal(err)
	}
}
