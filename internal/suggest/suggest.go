// Package suggest finds what somebody meant to write.
package suggest

// Nearest returns the candidate closest to word by edit distance, "" where none is close enough to be meant.
func Nearest(word string, candidates []string) string {
	best, least := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(fold(word), fold(c), least); d < least {
			best, least = c, d
		}
	}
	return best
}

func fold(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		switch c := s[i]; {
		case 'A' <= c && c <= 'Z':
			b = append(b, c|0x20)
		case c != '_' && c != '-':
			b = append(b, c)
		}
	}
	return b
}

// distance is the optimal string alignment distance of a and b: insertions, deletions, replacements and swaps of
// neighbours cost one each. Lengths that differ by limit or more are not compared.
func distance(a, b []byte, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range a {
		row[0] = i + 1
		for j := range b {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			row[j+1] = min(last[j]+change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
