package shop

import (
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

// TestShop serves the shop as make run does and sends the customer shopping.
func TestShop(t *testing.T) {
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	loam, customer := filepath.Join(dir, "loam"), filepath.Join(dir, "customer")
	run("go", "build", "-o", loam, "../../cmd/loam")
	run("go", "build", "-o", customer, "./customer")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	shop := exec.Command(loam, "dev", "--data", filepath.Join(dir, "data"), "--listen", address, ".")
	shop.Stdout, shop.Stderr = &log, &log
	if err := shop.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := shop.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := shop.Wait(); err != nil {
			t.Errorf("the shop did not end cleanly: %v", err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		res, err := http.Get("http://" + address + "/")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK && strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the shop does not answer")
		}
	}
	cmd := exec.Command(customer, "-url", "http://"+address, "-orders", "200")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "stock adds up; no order was lost or closed twice") {
		t.Errorf("customer: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "loam.db")); err != nil {
		t.Error(err)
	}
}
