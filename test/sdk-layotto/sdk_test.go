//go:build sdk

package sdklayotto

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSDK(t *testing.T) {
	dir := t.TempDir()
	loam := filepath.Join(dir, "loam")
	run(t, "../..", nil, "go", "build", "-o", loam, "./cmd/loam")
	for _, name := range []string{"package.json", "package-lock.json", "sdk.mjs"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(text))
	}
	run(t, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")

	ports := map[string]string{}
	config, err := os.ReadFile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	text := string(config)
	for _, name := range []string{"GRPC", "ACTUATOR", "CALLBACK", "HTTPAPP"} {
		ports[name] = freePort(t)
		text = strings.ReplaceAll(text, ":"+name+`"`, ":"+ports[name]+`"`)
		text = strings.ReplaceAll(text, ":"+name+"/", ":"+ports[name]+"/")
		text = strings.ReplaceAll(text, ": "+name+"}", ": "+ports[name]+"}")
	}
	write(t, filepath.Join(dir, "config.json"), text)
	write(t, filepath.Join(dir, "secrets.json"), `{"db": {"user": "loam"}}`)
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	write(t, filepath.Join(dir, "keys", "main"), string(key))
	run(t, dir, nil, loam, "convert", "config.json", "-o", "deploy")
	write(t, filepath.Join(dir, "deploy", "hello.yaml"), fmt.Sprintf(`apiVersion: loam.dev/v1alpha1
kind: App
metadata: {name: hello-service}
spec: {address: "127.0.0.1:%s"}
`, ports["HTTPAPP"]))
	run(t, dir, nil, loam, "check", "deploy")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	serve := exec.CommandContext(ctx, loam, "run", "--listen", "127.0.0.1:0", "deploy")
	serve.Dir = dir
	var log bytes.Buffer
	serve.Stdout, serve.Stderr = &log, &log
	serve.Cancel = func() error { return serve.Process.Signal(syscall.SIGTERM) }
	serve.WaitDelay = 20 * time.Second
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stop()
		_ = serve.Wait() // it was told to end
		if t.Failed() {
			t.Logf("loam run said:\n%s", log.String())
		}
	}()
	run(t, dir, []string{
		"runtime_GRPC_HOST=127.0.0.1", "runtime_GRPC_PORT=" + ports["GRPC"], "appcallback_GRPC_PORT=" + ports["CALLBACK"],
		"ACTUATOR_PORT=" + ports["ACTUATOR"], "HTTPAPP_PORT=" + ports["HTTPAPP"],
	}, "node", "sdk.mjs")
}

// run runs a command to its end, which must be a good one.
func run(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, t.Output()), io.MultiWriter(&out, t.Output())
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out.String())
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
