//go:build peers

package peers

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/provider/file"
	"github.com/loam-run/loam/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A front is a proxy before an upstream.
type front struct{ network, address string }

func (f front) dial() (net.Conn, error) { return net.Dial(f.network, f.address) }

// silence is how long both wait for what does not come.
const silence = "1s"

const nginxConfig = `
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	scgi_temp_path scgi;
	uwsgi_temp_path uwsgi;
	keepalive_timeout SILENCE;
	client_header_timeout SILENCE;
	client_body_timeout SILENCE;
	upstream up { server UPSTREAM; keepalive 8; }
	server {
		listen unix:nginx.sock;
		location / {
			proxy_pass http://up;
			proxy_http_version 1.1;
			proxy_set_header Host $host;
			proxy_set_header Connection "";
		}
	}
}
`

// nginx starts one on a socket of its own, and returns it and its version.
func nginx(t *testing.T, upstream string) (front, string) {
	t.Helper()
	out, err := exec.Command("nginx", "-v").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s; make test-peers installs it", err, out)
	}
	version := strings.TrimSpace(strings.TrimPrefix(string(out), "nginx version: "))
	dir, err := os.MkdirTemp("", "peers-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	config := strings.NewReplacer("SILENCE", silence, "UPSTREAM", upstream, "unix:nginx.sock", "unix:"+dir+"/nginx.sock").Replace(nginxConfig)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nginx", "-p", dir, "-c", "nginx.conf", "-e", "stderr")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone
		if err := <-ended; err != nil {
			t.Errorf("nginx: %v: %s", err, &said)
		}
		t.Logf("nginx said %q", &said)
	})
	f := front{"unix", filepath.Join(dir, "nginx.sock")}
	within := time.After(20 * time.Second)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		if c, err := f.dial(); err == nil {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			return f, version
		}
		select {
		case err := <-ended:
			ended <- nil
			t.Fatalf("nginx ended: %v: %s", err, &said)
		case <-within:
			t.Fatal("nginx does not listen")
		case <-poll.C:
		}
	}
}

const loamConfig = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: loam
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, protocol: HTTP, port: %s}]
---
apiVersion: loam.dev/v1alpha1
kind: Policy
metadata: {name: hasty}
spec:
  targetRefs: [{kind: Gateway, name: web}]
  connections: {headerTimeout: %[3]s, idleTimeout: %[3]s}
  timeout: {idle: %[3]s}
---
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: up}
spec: {endpoints: [{address: "%[2]s"}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all}
spec:
  parentRefs: [{name: web}]
  rules: [{backendRefs: [{kind: Service, name: up}]}]
`

// loam serves as the program does.
func loam(t *testing.T, upstream string, goroutines bool) front {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	resources := filepath.Join(dir, "all.yaml")
	if err := os.WriteFile(resources, fmt.Appendf(nil, loamConfig, port, upstream, silence), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	serves := make(chan admin.Status, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, server.Options{
			Provider: file.New([]string{resources}), DataDir: filepath.Join(dir, "data"), Version: "test", Goroutines: goroutines,
			Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})), Grace: 10 * time.Second,
			Changed: func(s admin.Status) { serves <- s },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case s := <-serves:
		for _, r := range s.Resources {
			if !r.Ready {
				t.Fatalf("%+v", r)
			}
		}
	case err := <-ended:
		ended <- nil
		t.Fatalf("it ended: %v", err)
	}
	return front{"tcp", address}
}
