package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/loam-run/loam/test/measure"
)

// A contender is a proxy with the same job as the others: one route each for plain HTTP, TLS, gRPC and tunnels to the
// upstream, timeouts, one retry, a breaker where it has one, request ids, the forwarding headers and an access log of
// one request in a hundred.
type contender struct {
	name  string
	files map[string]string            // configuration: name to template
	args  func(dir string) []string    // the command
	lacks map[string]bool              // what it cannot do
	main  func(pid int) ([]int, error) // the processes that do the work, where it is not the one that was started
	ports map[string]string            // by job kind: h1, tls, h2c, h2, grpc, tcp
	dir   string
	place place
	core  int
	proc  *exec.Cmd
	log   bytes.Buffer
	pids  []int
}

// place is what the templates see.
type place struct {
	Dir, Cert, Key         string
	H1, TLS, H2C, GRPC, Up string // host:port; Up is the upstream in HTTP/1, UpGRPC in h2c
	UpGRPC                 string
}

// Port is the port of a host:port.
func (place) Port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

const loamYAML = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: bench
spec:
  gatewayClassName: loam
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners:
    - {name: http, protocol: HTTP, port: {{.Port .H1}}}
    - {name: h2c, protocol: HTTP, port: {{.Port .H2C}}}
    - {name: grpc, protocol: HTTP, port: {{.Port .GRPC}}}
    - name: https
      protocol: HTTPS
      port: {{.Port .TLS}}
      tls: {options: {loam.dev/cert-file: {{.Cert}}, loam.dev/key-file: {{.Key}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bench}
spec:
  parentRefs: [{name: bench, sectionName: http}, {name: bench, sectionName: https}, {name: bench, sectionName: h2c}]
  rules: [{backendRefs: [{kind: Service, group: loam.dev, name: upstream}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: bench}
spec:
  parentRefs: [{name: bench, sectionName: grpc}]
  rules: [{backendRefs: [{kind: Service, group: loam.dev, name: grpc}]}]
---
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: upstream}
spec: {endpoints: [{address: "{{.Up}}"}]}
---
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: grpc}
spec: {endpoints: [{address: "{{.UpGRPC}}"}], protocol: grpc}
---
apiVersion: loam.dev/v1alpha1
kind: Policy
metadata: {name: bench}
spec:
  targetRefs: [{kind: Service, name: upstream}, {kind: Service, name: grpc}]
  timeout: {request: 15s}
  retry: {attempts: 1, on: [connect, reset]}
  breaker: {failures: 5, rest: 1s}
---
apiVersion: loam.dev/v1alpha1
kind: Policy
metadata: {name: log}
spec:
  targetRefs: [{kind: Gateway, name: bench}]
  accessLog: {format: text, sample: 0.01}
`

const nginxConf = `
worker_processes 1;
daemon off;
pid {{.Dir}}/nginx.pid;
error_log {{.Dir}}/error.log error;
events { worker_connections 19000; }
http {
  access_log off;
  split_clients $request_id $sampled { 1% 1; * 0; }
  log_format line '$time_iso8601 $request_method $host $uri $status $bytes_sent $request_time $remote_addr $request_id';
  access_log {{.Dir}}/access.log line buffer=64k flush=1s if=$sampled;
  client_body_temp_path {{.Dir}}/b; proxy_temp_path {{.Dir}}/p; fastcgi_temp_path {{.Dir}}/f; uwsgi_temp_path {{.Dir}}/u; scgi_temp_path {{.Dir}}/s;
  keepalive_requests 100000000;
  keepalive_timeout 3600;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  upstream up { server {{.Up}} max_fails=5 fail_timeout=1s; keepalive 512; keepalive_requests 100000000; }
  upstream grpc { server {{.UpGRPC}} max_fails=5 fail_timeout=1s; keepalive 512; keepalive_requests 100000000; }
  proxy_http_version 1.1;
  proxy_set_header Connection $connection_upgrade;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Host $http_host;
  proxy_set_header X-Request-Id $request_id;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $http_host;
  proxy_read_timeout 3600s; proxy_next_upstream error timeout; proxy_next_upstream_tries 2;
  server { listen {{.H1}} backlog=4096; location / { proxy_pass http://up; } location /status { stub_status; } }
  server { listen {{.H2C}} http2 backlog=4096; location / { proxy_pass http://up; } }
  server { listen {{.GRPC}} http2 backlog=4096; http2_max_concurrent_streams 1024; location / { grpc_pass grpc://grpc; grpc_read_timeout 3600s; } }
  server { listen {{.TLS}} ssl backlog=4096; ssl_certificate {{.Cert}}; ssl_certificate_key {{.Key}}; ssl_protocols TLSv1.3; location / { proxy_pass http://up; } }
}
`

const haproxyConf = `
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 3600s
  timeout server 15s
  timeout tunnel 3600s
  retries 1
  option http-keep-alive
  option forwardfor
  http-reuse always
frontend h1
  bind {{.H1}}
  unique-id-format %{+X}o\ %ci%cp%fi%fp%Ts%rt
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  default_backend up
frontend h2c
  bind {{.H2C}} proto h2
  unique-id-format %{+X}o\ %ci%cp%fi%fp%Ts%rt
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  default_backend up
frontend tls
  bind {{.TLS}} ssl crt {{.Dir}}/both.pem ssl-min-ver TLSv1.3
  unique-id-format %{+X}o\ %ci%cp%fi%fp%Ts%rt
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  default_backend up
frontend grpc
  bind {{.GRPC}} proto h2
  unique-id-format %{+X}o\ %ci%cp%fi%fp%Ts%rt
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  default_backend grpc
backend up
  server one {{.Up}} maxconn 4096 pool-max-conn 1024
backend grpc
  server one {{.UpGRPC}} proto h2 maxconn 4096
`

const caddyConf = `
{
  admin off
  auto_https off
  default_bind 127.0.0.1
  servers {
    protocols h1 h2 h2c
  }
}
(up) {
  reverse_proxy {{.Up}} {
    header_up X-Request-Id {http.request.uuid}
    lb_try_duration 1s
    transport http {
      keepalive_idle_conns_per_host 512
    }
  }
}
http://:{{.Port .H1}} {
  import up
}
http://:{{.Port .H2C}} {
  import up
}
http://:{{.Port .GRPC}} {
  reverse_proxy h2c://{{.UpGRPC}}
}
https://:{{.Port .TLS}} {
  tls {{.Cert}} {{.Key}}
  import up
}
`

// contenders are all of them, Loam first.
func contenders(loam, self string) []*contender {
	return []*contender{
		{
			name: "loam", files: map[string]string{"bench.yaml": loamYAML},
			args: func(dir string) []string {
				return []string{loam, "run", "--data", filepath.Join(dir, "data"), filepath.Join(dir, "bench.yaml")}
			},
		},
		{
			name: "nginx", files: map[string]string{"nginx.conf": nginxConf},
			args: func(dir string) []string { return []string{"nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf")} },
			main: children,
		},
		{
			name: "haproxy", files: map[string]string{"haproxy.cfg": haproxyConf, "both.pem": `{{include .Cert}}{{include .Key}}`},
			args: func(dir string) []string { return []string{"haproxy", "-db", "-f", filepath.Join(dir, "haproxy.cfg")} },
		},
		{
			name: "caddy", files: map[string]string{"Caddyfile": caddyConf},
			args: func(dir string) []string {
				return []string{"caddy", "run", "--adapter", "caddyfile", "--config", filepath.Join(dir, "Caddyfile")}
			},
		},
		{
			name: "ReverseProxy", files: map[string]string{"job": "{{.H1}} {{.TLS}} {{.Up}} {{.Cert}} {{.Key}}"},
			args:  func(dir string) []string { return []string{self, "-reverseproxy", filepath.Join(dir, "job")} },
			lacks: map[string]bool{"h2c": true, "grpc": true},
		},
	}
}

// start runs c pinned to one core and waits until it answers.
func (c *contender) start(dir string, p place, core int) error {
	c.ports = map[string]string{"h1": p.H1, "tls": p.TLS, "h2c": p.H2C, "grpc": p.GRPC}
	p.Dir = dir
	c.dir, c.place, c.core = dir, p, core
	for name, text := range c.files {
		var b bytes.Buffer
		t := template.Must(template.New(name).Funcs(template.FuncMap{"include": func(f string) (string, error) {
			s, err := os.ReadFile(f)
			return string(s), err
		}}).Parse(text))
		if err := t.Execute(&b, p); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600); err != nil {
			return err
		}
	}
	args := c.args(dir)
	if _, err := exec.LookPath(args[0]); err != nil {
		return fmt.Errorf("%w: apt-get install nginx-light haproxy caddy wrk nghttp2-client", err)
	}
	c.proc = exec.Command("taskset", append([]string{"-c", strconv.Itoa(core)}, args...)...)
	c.proc.Stdout, c.proc.Stderr = &c.log, &c.log
	c.proc.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	c.proc.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.proc.Start(); err != nil {
		return err
	}
	began := time.Now()
	for {
		res, err := http.Get("http://" + p.H1 + "/128")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
			err = fmt.Errorf("status %d", res.StatusCode)
		}
		if time.Since(began) > 20*time.Second {
			c.stop()
			return fmt.Errorf("%s does not answer: %w; it said:\n%s", c.name, err, tail(c.log.String()))
		}
		time.Sleep(5 * time.Millisecond)
	}
	for kind, address := range c.ports {
		if !c.lacks[kind] {
			if err := reachable(address); err != nil {
				return err
			}
		}
	}
	c.pids = []int{c.proc.Process.Pid}
	if c.main != nil {
		var err error
		if c.pids, err = c.main(c.proc.Process.Pid); err != nil {
			return err
		}
	}
	return nil
}

// again starts c anew.
func (c *contender) again() error {
	c.stop()
	return c.start(c.dir, c.place, c.core)
}

func (c *contender) stop() {
	_ = c.proc.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = c.proc.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		_ = c.proc.Process.Kill()
		<-done
	}
}

// children are the processes that pid started.
func children(pid int) ([]int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(string(b)) {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		pids = append(pids, n)
	}
	return pids, nil
}

// cpu is the processor time that pids have used.
func cpu(pids []int) (time.Duration, error) {
	var ticks int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:])) // from state on: utime is the 12th, stime the 13th
		for _, s := range f[11:13] {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil // USER_HZ is 100 on every Linux
}

// memory is how many bytes pids hold, by a name of proc(5)'s status.
func (c *contender) memory(name string) (bytes float64, err error) {
	for _, pid := range c.pids {
		n, err := measure.Memory(pid, name)
		if err != nil {
			return 0, err
		}
		bytes += n
	}
	return bytes, nil
}

func tail(s string) string { return s[max(0, len(s)-3000):] }

// reverseProxy is the contender that the standard library is: httputil.ReverseProxy, tuned.
func reverseProxy(job string) error {
	b, err := os.ReadFile(job)
	if err != nil {
		return err
	}
	f := strings.Fields(string(b))
	plain, secure, up, cert, key := f[0], f[1], f[2], f[3], f[4]
	target := &url.URL{Scheme: "http", Host: up}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		Transport:  &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true, ResponseHeaderTimeout: 15 * time.Second},
		BufferPool: pool{make(chan []byte, 1024)},
	}
	go func() { panic(http.ListenAndServeTLS(secure, cert, key, proxy)) }()
	return http.ListenAndServe(plain, proxy)
}

type pool struct{ c chan []byte }

func (p pool) Get() []byte {
	select {
	case b := <-p.c:
		return b
	default:
		return make([]byte, 32<<10)
	}
}

func (p pool) Put(b []byte) {
	select {
	case p.c <- b:
	default:
	}
}
