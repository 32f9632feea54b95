package wasm

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// A profile names the guest's functions and places, and its samples stand for the work that was billed: also where a
// call takes less than a slice.
func TestProfile(t *testing.T) {
	for _, c := range []struct{ name, method, path, body, want string }{
		{"calls of some slices", "POST", "/json", `{"items":[` + strings.Repeat(`{"id":1,"name":"widget","price":9.5},`, 20) + `{"id":2}]}`, "encoding/json"},
		{"calls of a part of one", "GET", "/hello/x", "", "loam/sdk/go.serve"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := tryCompile(t, testHost, guestModule, Config{})
			if err != nil {
				t.Fatal(err)
			}
			var profile bytes.Buffer
			var profiling sync.WaitGroup
			began := m.stats.CPU.Load()
			profiling.Go(func() {
				if err := m.Profile(t.Context(), 300*time.Millisecond, &profile); err != nil {
					t.Error(err)
				}
			})
			for m.profiler.Load() == nil {
				send(t, m, "GET", "/count", "")
			}
			if err := m.Profile(t.Context(), time.Second, &profile); loam.CodeOf(err) != loam.FailedPrecondition {
				t.Errorf("a second profile: %v", err)
			}
			for m.profiler.Load() != nil {
				send(t, m, c.method, c.path, c.body)
			}
			billed := m.stats.CPU.Load() - began
			profiling.Wait()
			samples, cpu, text := readProfile(t, profile.Bytes())
			if samples < 100 {
				t.Fatalf("%d samples", samples)
			}
			if cpu < billed/2 || cpu > billed*2 {
				t.Errorf("%v of the processor, billed were %v", time.Duration(cpu), time.Duration(billed))
			}
			if strings.Contains(text, "$0") {
				t.Error("there is a function without a name: the host's")
			}
			for _, want := range []string{c.want, "sdk/go/loam.go", "loam_serve", "orders.wasm"} {
				if !strings.Contains(text, want) {
					t.Errorf("there is no %q in\n%.3000s", want, text)
				}
			}
		})
	}
}

// readProfile has the Go toolchain read a profile, and sums up.
func readProfile(t *testing.T, profile []byte) (samples, cpu int64, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	if err := os.WriteFile(file, profile, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "tool", "pprof", "-raw", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	_, lines, _ := strings.Cut(string(out), "samples/count cpu/nanoseconds\n")
	lines, _, _ = strings.Cut(lines, "\nLocations")
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		n, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			t.Fatalf("%q", line)
		}
		ns, err := strconv.ParseInt(strings.TrimSuffix(f[1], ":"), 10, 64)
		if err != nil {
			t.Fatalf("%q", line)
		}
		samples, cpu = samples+n, cpu+ns
	}
	return samples, cpu, string(out)
}

// Who goes away gets no profile, and the next one can have one.
func TestProfileGivenUp(t *testing.T) {
	m, err := tryCompile(t, testHost, guestModule, Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var b bytes.Buffer
	if err := m.Profile(ctx, time.Hour, &b); loam.CodeOf(err) != loam.Canceled || b.Len() > 0 {
		t.Errorf("%v, %d bytes", err, b.Len())
	}
	if err := m.Profile(t.Context(), time.Nanosecond, &b); err != nil || b.Len() == 0 {
		t.Errorf("an empty profile: %v, %d bytes", err, b.Len())
	}
}
