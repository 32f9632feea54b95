//go:build linux

// Command upgrade replaces a process of Loam again and again while everything that it serves goes on: HTTP/1 at several
// rates, HTTP/2, gRPC, tunnels whose every byte is checked, functions, subscriptions. Nothing may fail, break off, be lost
// or come twice, and each old process has to end within a second of its last stream. In between it is offered new
// processes that are no good.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loam-run/loam/internal/build"
)

func main() {
	if program() || impostor() {
		return
	}
	var s soak
	flag.StringVar(&s.loam, "loam", "bin/loam", "the binary")
	flag.IntVar(&s.upgrades, "upgrades", 100, "how many upgrades")
	flag.DurationVar(&s.between, "between", 300*time.Millisecond, "from one to the next")
	flag.Parse()
	dir, err := os.MkdirTemp("", "soak-upgrade-")
	if err == nil {
		s.dir = dir
		if err = s.run(os.Stdout); err == nil {
			err = os.RemoveAll(dir)
		} else {
			fmt.Fprintln(os.Stderr, "the log and the data are in", dir)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak-upgrade: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("soak-upgrade: ok")
}

type soak struct {
	loam     string
	upgrades int
	between  time.Duration
	dir      string

	web, tcp, tls string // where the process listens
	up            *upstreams
	load          *load
	pid           int
}

func (s *soak) run(out io.Writer) (err error) {
	// Processes whose parent has ended come to us, so that their end is seen.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	if s.loam, err = filepath.Abs(s.loam); err != nil {
		return err
	}
	if err := build.Go(context.Background(), build.Job{Name: "fn", Dir: source("fn"), Out: filepath.Join(s.dir, "fn.wasm"), Wasm: true}); err != nil {
		return err
	}
	if s.up, err = startUpstreams(); err != nil {
		return err
	}
	defer s.up.close()
	if err := s.start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	if err := s.refusals(out); err != nil {
		return err
	}
	program, err := s.program()
	if err != nil {
		return err
	}

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	s.load = &load{web: s.web, tcp: s.tcp, tls: s.tls, ctx: ctx, counts: map[string]*atomic.Int64{}}
	s.load.start()
	time.Sleep(time.Second) // every kind of load is under way
	var took, waited, ended []time.Duration
	for i := range s.upgrades {
		time.Sleep(s.between)
		u, err := s.upgrade(i)
		if err != nil {
			return fmt.Errorf("upgrade %d: %w", i+1, err)
		}
		if now, err := s.program(); err != nil || now != program {
			return fmt.Errorf("upgrade %d: the program is process %d, and was %d: %w", i+1, now, program, err)
		}
		took, ended = append(took, u.took), append(ended, u.ended)
		if u.waited > 0 {
			waited = append(waited, u.waited)
		}
		if err := s.load.err(); err != nil {
			return fmt.Errorf("upgrade %d: %w", i+1, err)
		}
	}
	time.Sleep(time.Second)
	stop()
	s.load.work.Wait()
	if err := s.settle(); err != nil {
		return err
	}
	if err := s.load.err(); err != nil {
		return err
	}
	for _, kind := range slices.Sorted(maps.Keys(s.load.counts)) {
		fmt.Fprintf(out, "%-24s %d\n", kind, s.load.counts[kind].Load())
	}
	fmt.Fprintf(out, "events, each once        %d\n", len(s.load.acked))
	fmt.Fprintf(out, "upgrades                 %d: %s\n", s.upgrades, spread(took))
	fmt.Fprintf(out, "capability calls waited  %s\n", spread(waited))
	fmt.Fprintf(out, "old process ended after  %s (from its last stream)\n", spread(ended))
	return nil
}

func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	d = slices.Sorted(slices.Values(d))
	at := func(q float64) time.Duration { return d[int(q*float64(len(d)-1))].Round(time.Millisecond) }
	return fmt.Sprintf("median %v, 90%% %v, most %v", at(.5), at(.9), at(1))
}

// source is a folder beside this file, whichever folder this runs in.
func source(name string) string {
	if _, err := os.Stat(name); err == nil {
		return name
	}
	return filepath.Join("test", "soak", "upgrade", name)
}

const resources = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: loam
  addresses: [{value: 127.0.0.1}]
  listeners:
    - {name: http, port: %s, protocol: HTTP}
    - {name: raw, port: %s, protocol: TCP}
    - {name: secure, port: %s, protocol: HTTPS, tls: {options: {loam.dev/cert-file: cert.pem, loam.dev/key-file: key.pem}}}
---
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: echo}
spec: {endpoints: [{address: "%s"}]}
---
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: grpc}
spec: {protocol: grpc, endpoints: [{address: "%s"}]}
---
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: raw}
spec: {protocol: tcp, endpoints: [{address: "%s"}]}
---
apiVersion: loam.dev/v1alpha1
kind: App
metadata: {name: collector}
spec: {address: "%s"}
---
apiVersion: loam.dev/v1alpha1
kind: App
metadata: {name: program}
spec: {command: ["%s"], env: {SOAK_PROGRAM: "1"}}
---
apiVersion: loam.dev/v1alpha1
kind: Function
metadata: {name: fn}
spec:
  file: fn.wasm
  grants:
    - {capability: state, names: ["order/*", "seen/*"]}
    - {capability: pubsub, names: [orders, done]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: http}
spec:
  parentRefs: [{name: web, sectionName: http}, {name: web, sectionName: secure}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /fn}}]
      backendRefs: [{group: loam.dev, kind: Function, name: fn}]
    - matches: [{path: {type: PathPrefix, value: /pid}}]
      backendRefs: [{group: loam.dev, kind: App, name: program}]
    - matches: [{path: {type: PathPrefix, value: /echo.Echo}}]
      backendRefs: [{group: loam.dev, kind: Service, name: grpc}]
    - backendRefs: [{group: loam.dev, kind: Service, name: echo}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: raw}
spec:
  parentRefs: [{name: web, sectionName: raw}]
  rules: [{backendRefs: [{group: loam.dev, kind: Service, name: raw}]}]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec: {topic: orders, routes: {default: /events/order}}
scopes: [fn]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: done}
spec: {topic: done, routes: {default: /done}}
scopes: [collector]
`

// start writes the resources and starts the first process.
func (s *soak) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := s.certify(); err != nil {
		return err
	}
	var ports [3]string
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
		l.Close()
	}
	s.web, s.tcp, s.tls = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1], "127.0.0.1:"+ports[2]
	if err := s.write(fmt.Sprintf(resources, ports[0], ports[1], ports[2], s.up.http, s.up.grpc, s.up.tcp, s.up.app, self)); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.loam, "run", "--data", s.data(), s.file())
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.pid = cmd.Process.Pid
	by := time.Now().Add(time.Minute)
	for {
		res, err := http.Post("http://"+s.web+"/fn/first", "text/plain", nil)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(res.Status)
		}
		if time.Now().After(by) || gone(s.pid) {
			return fmt.Errorf("it does not serve: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// certify writes a certificate that nobody has to believe.
func (s *soak) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, &c, &c, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	write := func(name, kind string, b []byte) error {
		return os.WriteFile(filepath.Join(s.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600)
	}
	return errors.Join(write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", private))
}

func (s *soak) file() string { return filepath.Join(s.dir, "app.yaml") }
func (s *soak) data() string { return filepath.Join(s.dir, "data") }

// write replaces the resources in one step.
func (s *soak) write(text string) error {
	if err := os.WriteFile(s.file()+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(s.file()+".new", s.file())
}

// upgraded is how an upgrade went.
type upgraded struct{ took, waited, ended time.Duration }

// upgrade replaces the process, every other time by a signal.
func (s *soak) upgrade(i int) (u upgraded, err error) {
	old, start := s.pid, time.Now()
	if i%2 == 0 {
		out, err := exec.Command(s.loam, "upgrade", "--data", s.data()).CombinedOutput()
		if err != nil {
			return u, fmt.Errorf("%w: %s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if _, after, ok := strings.Cut(line, "calls waited "); ok {
				u.waited, _ = time.ParseDuration(strings.TrimSpace(after))
			}
		}
	} else if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
		return u, err
	}
	for by := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if s.pid, err = s.served(); err == nil && s.pid != old {
			break
		}
		if time.Now().After(by) {
			return u, fmt.Errorf("no other process serves after a minute: %w", err)
		}
	}
	done := time.Now()
	u.took = done.Sub(start)
	for by := done.Add(time.Minute); !gone(old); time.Sleep(5 * time.Millisecond) {
		if last, all := s.load.lastEnd(done); all && time.Since(last) > time.Second {
			return u, fmt.Errorf("process %d is still there %v after its last stream", old, time.Since(last))
		}
		if time.Now().After(by) {
			return u, fmt.Errorf("process %d is still there after a minute", old)
		}
	}
	last, _ := s.load.lastEnd(done)
	u.ended = max(time.Since(last), 0)
	return u, nil
}

// served is the process that the data directory says serves.
func (s *soak) served() (pid int, err error) {
	b, err := os.ReadFile(filepath.Join(s.data(), "admin.json"))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(b), `"pid":`)
	_, err = fmt.Sscanf(after, "%d", &pid)
	return pid, err
}

// program plays a program that Loam starts: it tells which process it is. It is false where this is none.
func program() bool {
	if os.Getenv("SOAK_PROGRAM") == "" {
		return false
	}
	fmt.Println("the program begins")
	err := http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, os.Getpid())
	}))
	fmt.Fprintln(os.Stderr, err)
	return true
}

// gone tells whether a process has ended, and buries it.
func gone(pid int) bool {
	var status syscall.WaitStatus
	if got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); err == nil && got == pid {
		return true
	}
	return syscall.Kill(pid, 0) != nil
}

// refusals offers new processes that are no good. The old one has to say why, and serve as before.
func (s *soak) refusals(out io.Writer) error {
	script := func(name, text string) string {
		path := filepath.Join(s.dir, name)
		_ = os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700) // it would not start
		return path
	}
	good, err := os.ReadFile(s.file())
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	impostor := func(name string) string {
		path := filepath.Join(s.dir, name)
		_ = os.Symlink(self, path) // it would not start
		return path
	}
	for _, bad := range []struct {
		name, binary, file, want string
	}{
		{"crashes", script("crash", "exit 7"), "", "exit status 7"},
		{"hangs", script("hang", "exec sleep 1000"), "", "was killed"},
		{"refuses", s.loam, strings.Replace(string(good), "protocol: grpc", "protocol: smtp", 1), "Service/grpc"},
		{"dies late", impostor("die-late"), "", "exit status 9"},
		{"hangs late", impostor("hang-late"), "", "was killed"},
		{"is none", filepath.Join(s.dir, "app.yaml"), "", "name a binary"},
	} {
		if bad.file != "" {
			if err := s.write(bad.file); err != nil {
				return err
			}
		}
		answer, err := exec.Command(s.loam, "upgrade", "--data", s.data(), "--patience", "2s", "--binary", bad.binary).CombinedOutput()
		if err == nil || !strings.Contains(string(answer), bad.want) {
			return fmt.Errorf("a new process that %s: %w, and it said %s", bad.name, err, answer)
		}
		if pid, err := s.served(); err != nil || pid != s.pid {
			return fmt.Errorf("a new process that %s: process %d serves, not %d: %w", bad.name, pid, s.pid, err)
		}
		res, err := http.Post("http://"+s.web+"/fn/"+bad.name, "text/plain", nil)
		if err != nil || res.StatusCode != http.StatusOK {
			return fmt.Errorf("after a new process that %s: %v, %w", bad.name, res, err)
		}
		res.Body.Close()
		fmt.Fprintf(out, "a new process that %-10s: given up, and the old one serves\n", bad.name)
	}
	return s.write(string(good))
}

// settle waits until every event that was acknowledged was delivered, and sees that none came twice.
func (s *soak) settle() error {
	lost := func() (ids []string) {
		for _, id := range s.load.acked {
			if s.up.count(id) == 0 {
				ids = append(ids, id)
			}
		}
		return ids
	}
	for by := time.Now().Add(time.Minute); len(lost()) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(by) {
			ids := lost()
			return fmt.Errorf("%d events of %d were lost: %.200s", len(ids), len(s.load.acked), strings.Join(ids, " "))
		}
	}
	time.Sleep(time.Second) // what comes twice may come late
	s.up.mu.Lock()
	defer s.up.mu.Unlock()
	var twice []string
	for id, n := range s.up.events {
		if n > 1 {
			twice = append(twice, id)
		}
	}
	if len(twice)+len(s.up.twice) > 0 {
		return fmt.Errorf("%d events came twice to the app, %d to the function: %.200s", len(twice), len(s.up.twice), strings.Join(append(twice, s.up.twice...), " "))
	}
	return nil
}

// end ends the last process, and sees that the program ends with it.
func (s *soak) end() error {
	pid, err := s.program()
	if err != nil {
		return err
	}
	if err := syscall.Kill(s.pid, syscall.SIGTERM); err != nil {
		return err
	}
	for by := time.Now().Add(time.Minute); !gone(s.pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(by) {
			_ = syscall.Kill(s.pid, syscall.SIGKILL)
			return errors.New("the last process did not end")
		}
	}
	if !gone(pid) {
		return fmt.Errorf("the program, process %d, is still there", pid)
	}
	return nil
}

// program is the process of the program that Loam has started.
func (s *soak) program() (pid int, err error) {
	res, err := http.Get("http://" + s.web + "/pid")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = fmt.Fscan(res.Body, &pid)
	return pid, err
}
