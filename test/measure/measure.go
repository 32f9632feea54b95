// Package measure is what the programs have in common that look at Loam from outside, those of test/soak and of bench.
package measure

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
)

// RSS is what a process has in memory, in bytes.
func RSS(pid int) (float64, error) { return Memory(pid, "VmRSS") }

// Memory is an amount that Linux tells of a process under a name of proc_pid_status(5): VmRSS, RssAnon, VmPTE; in bytes.
func Memory(pid int, name string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(b), "\n"+name+":")
	line, _, _ := strings.Cut(after, "\n")
	kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(line, "kB")), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("process %d tells no %s", pid, name) // one that ended and was not waited for has none
	}
	return float64(kib << 10), nil
}

// Median of v, which stays as it is; 0 of none.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// FreeAddress is one on the loopback interface that nobody listened at a moment ago, for a process that has to be told
// where to listen.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
