package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// Every goal gets its line, whatever the figures: five fields, the last of them ok or short.
func TestGoals(t *testing.T) {
	var out bytes.Buffer
	b := bench{dir: t.TempDir(), rounds: 1, length: 16 * time.Millisecond, warmUp: 1}
	if err := b.run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	goals := 0
	for line := range strings.Lines(out.String()) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if len(fields) != 5 {
			continue
		}
		if goals++; fields[4] != "ok" && fields[4] != "short" {
			t.Errorf("neither ok nor short: %q", line)
		}
	}
	if goals != 10 {
		t.Errorf("%d goals in:\n%s", goals, &out)
	}
}
