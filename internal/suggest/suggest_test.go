package suggest

import "testing"

func TestNearest(t *testing.T) {
	words := []string{"timeout", "concurrency", "isolation", "grants", "env", "pubsubname"}
	for word, want := range map[string]string{
		"timout": "timeout", "tiemout": "timeout", "Timeout": "timeout", "concurency": "concurrency", "grant": "grants",
		"pubsub_name": "pubsubname", "enb": "env", "replicas": "", "x": "", "": "",
	} {
		if got := Nearest(word, words); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
