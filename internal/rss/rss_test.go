package rss

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func TestTrim(t *testing.T) {
	if runtime.GOOS != "linux" {
		Trim() // it does not crash
		return
	}
	garbage := make([]byte, 64<<20)
	for i := range garbage {
		garbage[i] = 1
	}
	before := resident(t)
	runtime.KeepAlive(garbage) // and no longer
	Trim()
	if after := resident(t); after > before-60<<10 {
		t.Errorf("%d KiB before, %d after", before, after)
	}
	if strings.Repeat("a", 3) != "aaa" { // the program is still there
		t.Error("it is not")
	}
}

func resident(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
