package http1test

import "testing"

func TestCorpusIsLarge(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Corpus() {
		if seen[c.Name] {
			t.Errorf("%s stands there twice", c.Name)
		}
		seen[c.Name] = true
	}
	if len(seen) < 100 {
		t.Errorf("%d cases", len(seen))
	}
}
