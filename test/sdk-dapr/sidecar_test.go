package sdkdapr

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
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

const patience = 2 * time.Minute // with what has to come, on a busy machine

// freePort is one that nobody listens on, of those that the kernel gives to nobody else meanwhile.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(20_000 + mathrand.IntN(12_000))
		l, err := net.Listen("tcp", ":"+port)
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// startRedis starts a redis-server (test/redis/install.sh installs it) and returns its address.
func startRedis(t *testing.T) string {
	t.Helper()
	port := freePort(t)
	cmd := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	address := "127.0.0.1:" + port
	eventually(t, "redis-server to answer", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return address
}

// redis says one command to a sidecar's Redis.
func (s *sidecar) redis(t *testing.T, words string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.redisAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(words + "\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 64)
	if n, err := conn.Read(answer); err != nil || answer[0] == '-' {
		t.Fatalf("%s: %q, %v", words, answer[:n], err)
	}
}

// resources writes what a sidecar is configured by and returns the folder.
func resources(t *testing.T, redis, outside string) string {
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
	component("redis", "state.redis", "redisHost", redis)
	component("ledger", "state.in-memory", "outboxPublishPubsub", "bus", "outboxPublishTopic", "changes")
	component("bus", "pubsub.in-memory")
	component("locks", "lock.memory")
	component("stream", "pubsub.redis", "redisHost", redis)
	component("redislocks", "lock.redis", "redisHost", redis)
	component("settings", "configuration.redis", "redisHost", redis)
	component("web", "bindings.http", "url", outside)
	component("vault", "secretstores.local.file", "secretsFile", filepath.Join(dir, "secrets.json"), "nestedSeparator", ":")
	component("keys", "crypto.dapr.localstorage", "path", keys)
	component("files", "bindings.localstorage", "rootPath", files)
	component("tick", "bindings.cron", "schedule", "@every 1s")
	return dir
}

// A sidecar is a process of loam beside an app.
type sidecar struct {
	client.Client
	http         string // base URL
	grpc         string // host:port
	redisAddress string // of the Redis behind its components
	out          *bytes.Buffer
	ended        chan struct{} // closed when the process has ended
}

// start starts one for an app that listens on port ("": none) and waits until it serves.
func start(t *testing.T, id, port, protocol string, flags ...string) *sidecar {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	httpPort, grpcPort := freePort(t), freePort(t)
	redis := startRedis(t)
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, b)
	}))
	t.Cleanup(outside.Close)
	args := append([]string{
		"sidecar", "--app-id", id, "--dapr-http-port", httpPort, "--dapr-grpc-port", grpcPort, "--dapr-internal-grpc-port", freePort(t),
		"--resources-path", resources(t, redis, outside.URL), "--data", t.TempDir(), "--metrics-port", freePort(t), "--log-level", "debug",
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
	s := &sidecar{http: "http://127.0.0.1:" + httpPort, grpc: "127.0.0.1:" + grpcPort, redisAddress: redis, out: out, ended: make(chan struct{})}
	var failure error
	go func() {
		failure = cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		if s.Client != nil {
			s.Close()
		}
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		<-s.ended
		mu.Lock()
		defer mu.Unlock()
		if failure != nil || t.Failed() {
			t.Errorf("the sidecar ended: %v\n%s", failure, out)
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
	c, err := client.NewClientWithAddressContext(t.Context(), "127.0.0.1:"+grpcPort)
	if err != nil {
		t.Fatal(err)
	}
	s.Client = c
	return s
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// eventually waits until done says so.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
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
	case <-time.After(patience):
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
