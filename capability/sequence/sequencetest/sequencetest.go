// Package sequencetest is what every driver of the sequence capability must do. A component's own test calls Run.
package sequencetest

import (
	"slices"
	"sync"
	"testing"

	"github.com/loam-run/loam/capability/sequence"
)

// Run tests the drivers that open returns: each call one whose sequences have not begun.
func Run(t *testing.T, open func(t *testing.T) sequence.Driver) {
	t.Run("it grows", func(t *testing.T) { itGrows(t, open(t)) })
	t.Run("no number twice", func(t *testing.T) { noNumberTwice(t, open(t)) })
}

func next(t *testing.T, d sequence.Driver, key string, count int64) int64 {
	t.Helper()
	n, err := d.Next(t.Context(), key, count)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func itGrows(t *testing.T, d sequence.Driver) {
	if n := next(t, d, "a", 1); n != 1 {
		t.Errorf("it begins at %d", n)
	}
	if n := next(t, d, "b", 1); n != 1 {
		t.Errorf("another begins at %d", n)
	}
	last := next(t, d, "a", 5)
	for range 300 {
		n := next(t, d, "a", 1)
		if n < last+1 {
			t.Fatalf("%d came after %d", n, last)
		}
		last = n
	}
	if n := next(t, d, "a", 1_000_000); n <= last {
		t.Errorf("a block begins at %d, after %d", n, last)
	}
}

func noNumberTwice(t *testing.T, d sequence.Driver) {
	var mu sync.Mutex
	var all []int64
	var taking sync.WaitGroup
	for range 8 {
		taking.Go(func() {
			for range 50 {
				n, err := d.Next(t.Context(), "k", 2)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				all = append(all, n, n+1)
				mu.Unlock()
			}
		})
	}
	taking.Wait()
	slices.Sort(all)
	if n := len(slices.Compact(slices.Clone(all))); n != len(all) || n != 800 {
		t.Errorf("%d different numbers, of %d", n, len(all))
	}
}
