package pluggable

import (
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

// A component whose program comes after the sidecar is there once the program is, and again after the program was
// replaced by another: that one is told of the component anew.
func TestThroughSidecar(t *testing.T) {
	loam := filepath.Join(bin, "loam")
	if out, err := exec.Command("go", "build", "-C", "../..", "-o", loam, "./cmd/loam").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	folder, resources := t.TempDir(), t.TempDir()
	component := "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: vault}\n" +
		"spec: {type: secretstores.vault.v1, version: v1, metadata: [{name: token, value: s3cret}]}\n"
	if err := os.WriteFile(filepath.Join(resources, "vault.yaml"), []byte(component), 0o600); err != nil {
		t.Fatal(err)
	}
	var ports [3]string
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(loam, "sidecar", "--app-id", "reader", "--resources-path", resources, "--dapr-http-port", ports[0], "--dapr-grpc-port", ports[1],
		"--dapr-internal-grpc-port", ports[2], "--enable-metrics=false", "--data", t.TempDir())
	cmd.Env = append(os.Environ(), "DAPR_COMPONENTS_SOCKETS_FOLDER="+folder)
	cmd.Stderr, cmd.Stdout = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	client := &http.Client{Timeout: 5 * time.Second}
	read := func() string {
		resp, err := client.Get("http://127.0.0.1:" + ports[0] + "/v1.0/secrets/vault/token")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", string(b), err)
	}
	until := func(what, wanted string) {
		t.Helper()
		got := ""
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if got = read(); strings.Contains(got, wanted) {
				return
			}
		}
		t.Fatalf("%s: %s", what, got)
	}
	until("before there is a program", "errorCode")
	stop := start(t, "vault", folder)
	until("with the program", "s3cret")
	stop()
	until("without it", "errorCode")
	if err := os.Remove(filepath.Join(folder, "Vault.v1.sock")); err != nil {
		t.Fatal(err)
	}
	start(t, "vault", folder)
	until("with another one in its place", "s3cret")
}
