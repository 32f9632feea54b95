// Command base measures what the process costs before it does anything: the size of the binary, the time from its start
// to its first answer, and its memory at rest. It runs bin/loam, which make build leaves, beside a Go function too, whose
// compiled code is in the cache.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/loam-run/loam/test/measure"
)

func main() {
	loam := flag.String("loam", "../bin/loam", "the binary")
	runs := flag.Int("runs", 15, "how often to start it; medians are printed")
	flag.Parse()
	if err := run(*loam, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "base:", err)
		os.Exit(1)
	}
}

const route = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: base}
spec:
  rules:
    - backendRefs: [{kind: %s, name: base}]
---
`

const app = `
apiVersion: loam.dev/v1alpha1
kind: App
metadata: {name: base}
spec: {address: "%s"}
`

const function = `
apiVersion: loam.dev/v1alpha1
kind: Function
metadata: {name: base}
spec:
  source: %s
  isolation: %s
  grants: [{capability: state}]
`

func run(loam string, runs int) error {
	loam, err := filepath.Abs(loam)
	if err != nil {
		return err
	}
	info, err := os.Stat(loam)
	if err != nil {
		return fmt.Errorf("%w: make build first", err)
	}
	dir, err := os.MkdirTemp("", "bench-base-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer upstream.Close()

	guest, err := filepath.Abs("../examples/shop/inventory")
	if err != nil {
		return err
	}
	cases := []struct{ name, yaml string }{
		{"route to an app", fmt.Sprintf(route, "App") + fmt.Sprintf(app, upstream.Listener.Addr())},
		{"Go function, shared", fmt.Sprintf(route, "Function") + fmt.Sprintf(function, guest, "shared")},
		{"Go function, an instance each", fmt.Sprintf(route, "Function") + fmt.Sprintf(function, guest, "request")},
	}
	fmt.Printf("%-32s %18s %14s\n", "medians of "+strconv.Itoa(runs)+" starts", "first answer, ms", "idle RSS, MiB")
	var starts, rss []float64
	for i, c := range cases {
		home := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(home, 0o700); err != nil {
			return err
		}
		file := filepath.Join(home, "base.yaml")
		if err := os.WriteFile(file, []byte(c.yaml), 0o600); err != nil {
			return err
		}
		if out, err := exec.Command(loam, "build", home).CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w\n%s", err, out)
		}
		var ms, mib []float64
		for n := range runs + 1 { // the first makes the database and the compile cache
			took, rest, err := start(loam, home, file)
			if err != nil {
				return err
			}
			if n > 0 {
				ms, mib = append(ms, took), append(mib, rest)
			}
		}
		starts, rss = append(starts, measure.Median(ms)), append(rss, measure.Median(mib))
		fmt.Printf("%-32s %18.1f %14.1f\n", c.name, starts[i], rss[i])
	}
	fmt.Println()
	goal("binary size", float64(info.Size())/1e6, "MB", 60)
	goal("start to first answer", starts[0], "ms", 60)
	goal("idle RSS", rss[0], "MiB", 30)
	return nil
}

// start runs loam once: milliseconds to the first answer, and MiB resident a second later.
func start(loam, home, file string) (ms, mib float64, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return 0, 0, err
	}
	var log bytes.Buffer
	cmd := exec.Command(loam, "run", "--data", filepath.Join(home, "data"), "--listen", address, file)
	cmd.Stdout, cmd.Stderr = &log, &log
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	for {
		res, err := http.Get("http://" + address + "/stock")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Since(began) > 30*time.Second {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return 0, 0, fmt.Errorf("no answer; it said:\n%s", tail(log.String()))
		}
		time.Sleep(time.Millisecond / 2)
	}
	took := time.Since(began)
	time.Sleep(time.Second)
	bytes, err := measure.RSS(cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, 0, err
	}
	if err := cmd.Wait(); err != nil {
		return 0, 0, fmt.Errorf("it did not end cleanly: %w\n%s", err, tail(log.String()))
	}
	return float64(took.Microseconds()) / 1000, bytes / (1 << 20), nil
}

// tail is the end of a log.
func tail(s string) string { return s[max(0, len(s)-2000):] }

// goal prints a goal's line.
func goal(name string, value float64, unit string, most float64) {
	verdict := "ok"
	if value > most {
		verdict = "short"
	}
	fmt.Printf("%s\t%.1f\t%s\t≤%g\t%s\n", name, value, unit, most, verdict)
}
