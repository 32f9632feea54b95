package measure

import (
	"os"
	"slices"
	"testing"
)

func TestMemory(t *testing.T) {
	rss, err := RSS(os.Getpid())
	if err != nil || rss < 1<<20 || rss > 1<<40 {
		t.Errorf("%g bytes, %v", rss, err)
	}
	if n, err := Memory(os.Getpid(), "Name"); err == nil { // which is no amount
		t.Error(n)
	}
	if n, err := RSS(-1); err == nil {
		t.Error(n)
	}
}

func TestMedian(t *testing.T) {
	v := []float64{3, 1, 2}
	if m := Median(v); m != 2 || !slices.Equal(v, []float64{3, 1, 2}) {
		t.Error(m, v)
	}
	if m := Median(nil); m != 0 {
		t.Error(m)
	}
}
