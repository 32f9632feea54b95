package sdkdapr

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
)

// binary is the loam that is tested: LOAM, or one built from this checkout.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("LOAM"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "sdk-dapr-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "loam")
	build := exec.Command("go", "build", "-o", path, "./cmd/loam")
	build.Dir = filepath.Join("..", "..")
	build.Stderr = os.Stderr
	return path, build.Run()
})

// freePort is one that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// resources writes the components of a sidecar and returns their folder.
func resources(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	keys, files := t.TempDir(), t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(keys, "rsa.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	write(filepath.Join(dir, "secrets.json"), `{"token":"s3cret","db":{"user":"u"}}`)
	component := func(name, typ string, metadata ...string) {
		text := "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: " + name + "\nspec:\n  type: " + typ + "\n  version: v1\n  metadata:\n"
		if len(metadata) == 0 {
			text += "    []\n"
		}
		for i := 0; i < len(metadata); i += 2 {
			text += "    - name: " + metadata[i] + "\n      value: " + strconv.Quote(metadata[i+1]) + "\n"
		}
		write(filepath.Join(dir, name+".yaml"), text)
	}
	component("store", "state.in-memory")
	component("bus", "pubsub.in-memory")
	component("locks", "lock.memory")
	component("settings", "config.memory")
	component("vault", "secretstores.local.file", "secretsFile", filepath.Join(dir, "secrets.json"), "nestedSeparator", ":")
	component("keys", "crypto.dapr.localstorage", "path", keys)
	component("files", "bindings.localstorage", "rootPath", files)
	component("tick", "bindings.cron", "schedule", "@every 1s")
	return dir
}

// A sidecar is a process of loam beside an app.
type sidecar struct {
	client.Client
	http string // base URL
	out  *bytes.Buffer
}

// start starts one for an app that listens on port ("": none) and waits until it serves.
func start(t *testing.T, id, port, protocol string, flags ...string) *sidecar {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	httpPort, grpcPort := freePort(t), freePort(t)
	args := append([]string{
		"sidecar", "--app-id", id, "--dapr-http-port", httpPort, "--dapr-grpc-port", grpcPort, "--dapr-internal-grpc-port", freePort(t),
		"--resources-path", resources(t), "--data", t.TempDir(), "--metrics-port", freePort(t), "--log-level", "debug",
	}, flags...)
	if port != "" {
		args = append(args, "--app-port", port, "--app-protocol", protocol)
	}
	cmd := exec.Command(path, args...)
	out := &bytes.Buffer{}
	var mu sync.Mutex
	cmd.Stdout = writer(func(p []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return out.Write(p) })
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &sidecar{http: "http://127.0.0.1:" + httpPort, out: out}
	t.Cleanup(func() {
		if s.Client != nil {
			s.Close()
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err := cmd.Wait()
		mu.Lock()
		defer mu.Unlock()
		if err != nil || t.Failed() {
			t.Errorf("the sidecar ended: %v\n%s", err, out)
		}
	})
	eventually(t, "the sidecar to serve", func() bool {
		res, err := http.Get(s.http + "/v1.0/healthz/outbound")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusNoContent
	})
	if s.Client, err = client.NewClientWithAddressContext(t.Context(), "127.0.0.1:"+grpcPort); err != nil {
		t.Fatal(err)
	}
	return s
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// eventually waits until done says so.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// receive waits for what a channel brings.
func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func contains(t *testing.T, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("%q does not hold %q", text, want)
	}
}
