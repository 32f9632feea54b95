// Package size reads and writes amounts of bytes as Kubernetes quantities: 64Mi, 1Gi, 500k, 4096.
package size

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

var units = []struct {
	suffix string
	bytes  float64
}{
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40},
	{"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"", 1},
}

// Parse reads a quantity of bytes, which is not negative.
func Parse(s string) (int64, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || n < 0 || math.IsNaN(n) || n*u.bytes > 1<<62 {
			break
		}
		return int64(n * u.bytes), nil
	}
	return 0, fmt.Errorf("%q is not an amount of bytes: write one such as 64Mi, 1Gi or 4096", s)
}

// Format writes n with the largest binary unit that divides it.
func Format(n int64) string {
	for i := 3; i >= 0; i-- {
		if unit := int64(units[i].bytes); n >= unit && n%unit == 0 {
			return strconv.FormatInt(n/unit, 10) + units[i].suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
