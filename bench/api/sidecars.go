package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/loam-run/loam/test/measure"
)

// A process is one that is measured, or that is needed to measure.
type process struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

// pinned says that what is measured runs on core 0, and this process, with all others, on core 1.
var pinned bool

// begin starts a program, one that is measured or another.
func begin(measured bool, name string, args ...string) (*process, error) {
	p := &process{}
	if pinned && measured { // others inherit this process's core
		name, args = "taskset", append([]string{"-c", "0", name}, args...)
	}
	p.cmd = exec.Command(name, args...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p, p.cmd.Start()
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(8 * time.Second):
		_ = p.cmd.Process.Kill()
		<-done
	}
}

// said is the end of what p wrote. It is read while p may write, for an error message.
func (p *process) said() string {
	if p == nil {
		return ""
	}
	t := p.log.String()
	return t[max(0, len(t)-3000):]
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// startRedis starts a server that keeps nothing on disk.
func startRedis(program, dir string) (*process, string, error) {
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	p, err := begin(false, program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir)
	if err != nil {
		return nil, "", err
	}
	address := "127.0.0.1:" + port
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			return p, address, c.Close()
		}
	}
	p.stop()
	return nil, "", fmt.Errorf("%s does not listen:\n%s", program, p.said())
}

// A contender is a kind of sidecar: two of them run, of an app that calls and of one that is called.
type contender struct {
	name    string
	command []string
	dir     string

	caller, callee *sidecar
}

// id names an app that no other contender has, nor another run of this program: sidecars find each other on the machine.
func (c *contender) id(app string) string { return fmt.Sprint(app, "-", c.name, "-", os.Getpid()) }

// invocation calls the app.
func (c *contender) invocation() []byte {
	return request("GET", "/v1.0/invoke/"+c.id("callee")+"/method/echo", "")
}

// A sidecar runs.
type sidecar struct {
	*process
	http, grpc string // addresses
}

const components = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: memory}
spec: {type: state.in-memory, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.in-memory, version: v1, metadata: []}
`

const redisComponent = `---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: redis}
spec:
  type: state.redis
  version: v1
  metadata:
  - {name: redisHost, value: "%s"}
  - {name: redisPassword, value: ""}
`

const subscription = `apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec:
  pubsubname: bus
  topic: orders
  routes: {default: /orders}
scopes: [%s]
`

// prepare writes the files.
func (c *contender) prepare(dir, redis string) error {
	c.dir = dir
	if err := os.MkdirAll(filepath.Join(dir, "resources"), 0o700); err != nil {
		return err
	}
	text := components
	if redis != "" {
		text += fmt.Sprintf(redisComponent, redis)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "resources", "components.yaml"), []byte(text), 0o600),
		os.WriteFile(filepath.Join(dir, "resources", "subscription.yaml"), fmt.Appendf(nil, subscription, c.id("callee")), 0o600),
	)
}

// sidecar starts an app's, and waits until it is healthy. appPort may be empty.
func (c *contender) sidecar(app, appPort string, poll time.Duration) (*sidecar, error) {
	var ports [4]string
	for i := range ports {
		p, err := freePort()
		if err != nil {
			return nil, err
		}
		ports[i] = p
	}
	args := append(c.command[1:len(c.command):len(c.command)],
		"--app-id", c.id(app), "--dapr-http-port", ports[0], "--dapr-grpc-port", ports[1], "--dapr-internal-grpc-port", ports[2], "--metrics-port", ports[3],
		"--resources-path", filepath.Join(c.dir, "resources"), "--log-level", "error", "--dapr-listen-addresses", "127.0.0.1")
	if appPort != "" {
		args = append(args, "--app-port", appPort)
	}
	if c.name == "loam" {
		args = append(args, "--data", filepath.Join(c.dir, "data-"+app))
	}
	p, err := begin(true, c.command[0], args...)
	if err != nil {
		return nil, err
	}
	s := &sidecar{process: p, http: "127.0.0.1:" + ports[0], grpc: "127.0.0.1:" + ports[1]}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for began := time.Now(); ; time.Sleep(poll) {
		res, err := client.Get("http://" + s.http + "/v1.0/healthz")
		if err == nil {
			_ = res.Body.Close() // there is none
			if res.StatusCode == http.StatusNoContent {
				return s, nil
			}
		}
		if time.Since(began) > 30*time.Second {
			s.stop()
			return nil, fmt.Errorf("%s does not become healthy; it said:\n%s", c.name, s.said())
		}
	}
}

// timeStart starts a sidecar and ends it: ms until it was healthy, MiB that it had then.
func (c *contender) timeStart(ctx context.Context) (ms, mib float64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	s, err := c.sidecar("starter", "", 500*time.Microsecond)
	if err != nil {
		return 0, 0, err
	}
	ms = time.Since(began).Seconds() * 1000
	time.Sleep(500 * time.Millisecond) // what it does after it said so counts too
	bytes, err := measure.RSS(s.pid())
	s.stop()
	return ms, bytes / (1 << 20), err
}

func (c *contender) start(a *app) (err error) {
	if c.callee, err = c.sidecar("callee", a.port, 5*time.Millisecond); err != nil {
		return err
	}
	if c.caller, err = c.sidecar("caller", "", 5*time.Millisecond); err != nil {
		return err
	}
	// The first call finds the other sidecar, which takes its time.
	var last error
	for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(100 * time.Millisecond) {
		h, err := dialHTTP(c.caller.http)
		if err != nil {
			return err
		}
		last = h.do(c.invocation())
		h.close()
		if last == nil {
			return nil
		}
	}
	return fmt.Errorf("%s does not reach the other app: %w\n%s", c.name, last, c.said())
}

func (c *contender) sidecars() []*sidecar { return []*sidecar{c.caller, c.callee} }

func (c *contender) stop() {
	for _, s := range c.sidecars() {
		if s != nil {
			s.stop()
		}
	}
}

func (c *contender) said() string {
	var b strings.Builder
	for _, s := range c.sidecars() {
		if s != nil {
			b.WriteString(s.said())
		}
	}
	return b.String()
}
