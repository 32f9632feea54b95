//go:build sdk

package sdkdaprjs

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/loam-run/loam/component/redis/redistest"
)

const (
	patience = 5 * time.Minute // with a program that does all it has to on a busy machine
	apiToken = "let me in"     // that programs show to their sidecars
	appToken = "it is me"      // that sidecars show to their programs
)

func TestSDK(t *testing.T) {
	dir := t.TempDir()
	loam := os.Getenv("LOAM") // one that was built before
	if loam == "" {
		loam = filepath.Join(dir, "loam")
		run(t, "../..", "go", "build", "-o", loam, "./cmd/loam")
	}
	for _, name := range []string{"package.json", "package-lock.json", "sdk.mjs"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), text)
	}
	run(t, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
	redis := redistest.Start(t, "--notify-keyspace-events", "KA").Addr

	apps := []*app{
		{id: "orders-http", peer: "orders-grpc", protocol: "http"},
		{id: "orders-grpc", peer: "orders-http", protocol: "grpc"},
	}
	for _, a := range apps {
		a.start(t, dir, loam, redis)
	}
	for _, a := range apps { // each needs the other till then
		a.wait(t, a.done)
	}
	for _, a := range apps {
		a.checkMetadata(t)
		if err := a.stdin.Close(); err != nil { // it ends its sidecar, then itself
			t.Error(err)
		}
		a.wait(t, a.ended)
		if err := a.sidecar.Wait(); err != nil {
			t.Errorf("the sidecar of %s: %v", a.id, err)
		}
	}
}

// An app is a program of the SDK's and its sidecar.
type app struct {
	id, peer, protocol string
	httpPort           string
	sidecar            *exec.Cmd
	stdin              io.WriteCloser
	done, ended        chan struct{} // closed when the program says that it has done all, and when it has ended
	err                error         // with which it ended
}

// start starts a sidecar and, while that starts, the program.
func (a *app) start(t *testing.T, dir, loam, redis string) {
	t.Helper()
	appPort, grpcPort, bindingPort := freePort(t), freePort(t), freePort(t)
	a.httpPort = freePort(t)
	env := append(os.Environ(), "DAPR_API_TOKEN="+apiToken, "APP_API_TOKEN="+appToken)
	var log output
	a.sidecar = exec.Command(loam, "sidecar", "--app-id", a.id, "--app-port", appPort, "--app-protocol", a.protocol,
		"--dapr-http-port", a.httpPort, "--dapr-grpc-port", grpcPort, "--dapr-internal-grpc-port", freePort(t), "--metrics-port", freePort(t),
		"--enable-app-health-check", "--app-health-check-path", "/healthz", "--app-health-probe-interval", "1",
		"--resources-path", resources(t, redis, bindingPort), "--data", t.TempDir(), "--log-level", "debug")
	a.sidecar.Env, a.sidecar.Stdout, a.sidecar.Stderr = env, &log, &log
	if err := a.sidecar.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if a.sidecar.ProcessState == nil {
			_ = a.sidecar.Process.Signal(syscall.SIGTERM)
			_ = a.sidecar.Wait() // it is the test that failed
		}
		if t.Failed() {
			t.Logf("the sidecar of %s printed:\n%s", a.id, log.String())
		}
	})

	_, redisPort, err := net.SplitHostPort(redis)
	if err != nil {
		t.Fatal(err)
	}
	program := exec.Command("node", "sdk.mjs")
	program.Dir, program.Stderr = dir, t.Output()
	program.Env = append(env, "PROTOCOL="+a.protocol, "SELF="+a.id, "PEER="+a.peer, "APP_PORT="+appPort,
		"DAPR_HTTP_PORT="+a.httpPort, "DAPR_GRPC_PORT="+grpcPort, "BINDING_PORT="+bindingPort, "REDIS_PORT="+redisPort)
	if a.stdin, err = program.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	a.done, a.ended = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(a.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			fmt.Fprintln(t.Output(), lines.Text())
			if lines.Text() == "done" {
				close(a.done)
			}
		}
		a.err = program.Wait()
	}()
	t.Cleanup(func() {
		_ = program.Process.Kill() // where it has not ended
		<-a.ended
	})
}

// wait waits until the program has come so far.
func (a *app) wait(t *testing.T, until <-chan struct{}) {
	t.Helper()
	select {
	case <-until:
	case <-a.ended:
	case <-time.After(patience):
		t.Fatalf("the program of %s is not done", a.id)
	}
	select {
	case <-a.ended:
		if a.err != nil || until != a.ended {
			t.Fatalf("the program of %s ended: %v", a.id, a.err)
		}
	default:
	}
}

// checkMetadata holds what the sidecar knows of the program against what the program said by the SDK.
func (a *app) checkMetadata(t *testing.T) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1:"+a.httpPort+"/v1.0/metadata", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("dapr-api-token", apiToken)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var m struct {
		Subscriptions []struct{ PubsubName, Topic, Type, DeadLetterTopic string }
	}
	if err := json.NewDecoder(res.Body).Decode(&m); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range m.Subscriptions {
		got = append(got, strings.TrimSpace(strings.Join([]string{s.PubsubName, s.Topic, s.Type, s.DeadLetterTopic}, " ")))
	}
	slices.Sort(got)
	want := []string{
		"bus bulk PROGRAMMATIC", "bus changes PROGRAMMATIC", "bus declared DECLARATIVE", "bus lost PROGRAMMATIC", "bus plain PROGRAMMATIC",
		"bus poison PROGRAMMATIC lost", "bus raw PROGRAMMATIC", "bus rawbulk PROGRAMMATIC", "bus retried PROGRAMMATIC", "bus routed PROGRAMMATIC",
		"stream plain PROGRAMMATIC",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the sidecar of %s knows the subscriptions\n%q\nwant\n%q", a.id, got, want)
	}
}

// resources writes what a sidecar is configured by, and returns the folder.
func resources(t *testing.T, redis, bindingPort string) string {
	t.Helper()
	dir, keys := t.TempDir(), t.TempDir()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	symmetric := make([]byte, 32)
	_, _ = rand.Read(symmetric) // it never fails
	write(t, filepath.Join(keys, "rsa.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	write(t, filepath.Join(keys, "sym"), symmetric)
	secrets := filepath.Join(dir, "secrets.json")
	write(t, secrets, []byte(`{"token": "s3cret", "db": {"user": "u"}}`))
	component := func(name, typ string, metadata ...string) {
		text := fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: %s}\nspec:\n  type: %s\n  version: v1\n  metadata:\n", name, typ)
		for i := 0; i < len(metadata); i += 2 {
			text += fmt.Sprintf("    - {name: %s, value: %q}\n", metadata[i], metadata[i+1])
		}
		write(t, filepath.Join(dir, name+".yaml"), []byte(text))
	}
	component("store", "state.in-memory")
	component("redis", "state.redis", "redisHost", redis)
	component("ledger", "state.in-memory", "outboxPublishPubsub", "bus", "outboxPublishTopic", "changes")
	component("bus", "pubsub.in-memory")
	component("stream", "pubsub.redis", "redisHost", redis)
	component("settings", "configuration.redis", "redisHost", redis)
	component("locks", "lock.memory")
	component("redislocks", "lock.redis", "redisHost", redis)
	component("vault", "secretstores.local.file", "secretsFile", secrets, "nestedSeparator", ":")
	component("keys", "crypto.dapr.localstorage", "path", keys)
	component("files", "bindings.localstorage", "rootPath", t.TempDir())
	component("web", "bindings.http", "url", "http://127.0.0.1:"+bindingPort)
	component("tick", "bindings.cron", "schedule", "@every 1s")
	write(t, filepath.Join(dir, "declared.yaml"), []byte(`apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: declared}
spec:
  pubsubname: bus
  topic: declared
  routes: {default: /declared}
`))
	return dir
}

// output is what a process prints, which may be read meanwhile.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// run runs a command to its end, which must be a good one.
func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

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
