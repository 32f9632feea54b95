//go:build sdk || daprd

// Package desks runs examples/desks as its README says: the desk that was written for Dapr beside daprd and beside Loam,
// and all three desks through one Loam.
package desks

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// source is where the desks are.
func source(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../examples/desks")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// loam builds the binary.
func loam(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "loam")
	run(t, "../..", "go", "build", "-o", bin, "./cmd/loam")
	return bin
}

func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// start runs a program until the test's end; what it printed is shown where the test fails.
func start(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		slow := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait() // how it ends is not what is tested here
		slow.Stop()
		if t.Failed() {
			t.Logf("%s printed:\n%s", filepath.Base(name), out.String())
		}
	})
}

// ports are free ones.
func ports(t *testing.T, n int) []string {
	t.Helper()
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		all = append(all, port)
	}
	return all
}

// ask sends a request and returns the status and the body in one line.
func ask(method, url, body string) string {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(b)))
}

// until asks until the answer holds what is wanted, and returns the last one.
func until(t *testing.T, url, wanted string) string {
	t.Helper()
	got := ""
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = ask("GET", url, ""); strings.Contains(got, wanted) {
			return got
		}
	}
	t.Fatalf("%s: %q, not %q", url, got, wanted)
	return got
}
