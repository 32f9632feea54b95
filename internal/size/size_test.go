package size

import "testing"

func TestParse(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "4096": 4096, "64Mi": 64 << 20, "1.5Gi": 3 << 29, "500k": 500e3, "2G": 2e9} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "-1", "64MB", "Mi", "1e400", "NaN", "99999999999Ti", "1 Mi"} {
		if got, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", s, got)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, s := range []string{"0", "1000", "1Ki", "64Mi", "3Gi"} {
		n, err := Parse(s)
		if got := Format(n); err != nil || got != s {
			t.Errorf("Format(Parse(%q)) = %q, %v", s, got, err)
		}
	}
}
