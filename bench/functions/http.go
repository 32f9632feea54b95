package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/loam-run/loam/test/measure"
)

// A server is a contender under HTTP load: it answers a POST with what it was sent.
type server struct {
	name  string
	files map[string]string // written before the start: templates over place
	args  func(p place) []string
	proc  *exec.Cmd
	log   bytes.Buffer
	place place
}

// A place is where a server runs.
type place struct{ Dir, Address, Host, Port, Guest string }

const loamYAML = `
apiVersion: loam.dev/v1alpha1
kind: Function
metadata: {name: echo}
spec:
  file: {{.Guest}}
  warmup: {method: POST, path: /, body: hello}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: echo}
spec:
  rules: [{backendRefs: [{kind: Function, name: echo}]}]
`

const nodeScript = `
import { createServer } from "node:http";
createServer((req, res) => {
  const body = [];
  req.on("data", (b) => body.push(b));
  req.on("end", () => {
    const b = body.length === 1 ? body[0] : Buffer.concat(body);
    res.writeHead(200, { "Content-Type": "text/plain", "Content-Length": b.length });
    res.end(b);
  });
}).listen({{.Port}}, "{{.Host}}");
`

const workerdConfig = `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .echo)],
  sockets = [(name = "http", address = "{{.Address}}", http = (), service = "main")]
);
const echo :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "worker.js"), (name = "guest.wasm", wasm = embed "guest.wasm")],
  compatibilityDate = "2026-01-01",
);
`

const workerdJS = `
export default {
  async fetch(request) {
    return new Response(await request.arrayBuffer(), { headers: { "Content-Type": "text/plain" } });
  },
};
`

// The guest is the one that speaks the ABI by itself: an instance for each request.
const workerdWasm = `
import module from "guest.wasm";
export default {
  async fetch(request) {
    let body = new Uint8Array(await request.arrayBuffer());
    let answer = body.subarray(0, 0);
    const { exports } = new WebAssembly.Instance(module, { loam: {
      request_body(to, cap) {
        const n = Math.min(cap, body.length);
        new Uint8Array(exports.memory.buffer, to, n).set(body.subarray(0, n));
        body = body.subarray(n);
        return n;
      },
      response_body(from, len) { answer = new Uint8Array(exports.memory.buffer, from, len).slice(); return 0; },
    } });
    exports.loam_serve();
    return new Response(answer, { headers: { "Content-Type": "text/plain" } });
  },
};
`

const payload = "the quick brown fox jumps over the lazy dog, and then it does so again, until there are one hundred and twenty-eight bytes of it"

const wrkScript = `
wrk.method = "POST"
wrk.body = "` + payload + `"
wrk.headers["Content-Type"] = "text/plain"
`

// servers are all of them. Loam's by C counts for the goals: it is a guest as people write them, by the SDK, in a
// language whose own cost is small.
func (b *bench) servers(ctx context.Context) ([]*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	loam := func(kind string) (*server, error) {
		guest, err := b.guest(ctx, "echo", kind)
		return &server{
			name: "loam, " + kind, files: map[string]string{"loam.yaml": strings.ReplaceAll(loamYAML, "{{.Guest}}", guest)},
			args: func(p place) []string {
				return []string{b.loam, "run", "--data", filepath.Join(p.Dir, "data"), "--listen", p.Address, filepath.Join(p.Dir, "loam.yaml")}
			},
		}, err
	}
	var all []*server
	for _, kind := range []string{"tiny", "c", "go"} {
		s, err := loam(kind)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	all = append(all,
		&server{name: "net/http", args: func(p place) []string { return []string{self, "-child", "nethttp", p.Address} }},
		&server{name: "node", files: map[string]string{"echo.mjs": nodeScript}, args: func(p place) []string { return []string{"node", filepath.Join(p.Dir, "echo.mjs")} }},
	)
	if b.workerd == "" {
		return all, nil
	}
	guest, err := b.guest(ctx, "echo", "tiny")
	if err != nil {
		return nil, err
	}
	module, err := os.ReadFile(guest)
	if err != nil {
		return nil, err
	}
	for name, script := range map[string]string{"workerd": workerdJS, "workerd, Wasm": workerdWasm} {
		all = append(all, &server{
			name: name, files: map[string]string{"config.capnp": workerdConfig, "worker.js": script, "guest.wasm": string(module)},
			args: func(p place) []string { return []string{b.workerd, "serve", filepath.Join(p.Dir, "config.capnp")} },
		})
	}
	return all, nil
}

// http loads servers that each have one core, from the other one, with one after the other running.
func (b *bench) http(ctx context.Context) (err error) {
	all, err := b.servers(ctx)
	if err != nil {
		return err
	}
	if err := exec.Command("taskset", "-a", "-p", "-c", "1", strconv.Itoa(os.Getpid())).Run(); err != nil {
		return fmt.Errorf("taskset: %w: two cores are needed", err)
	}
	script := filepath.Join(b.dir, "echo.lua")
	if err := os.WriteFile(script, []byte(wrkScript), 0o600); err != nil {
		return err
	}
	for i, s := range all {
		if err := s.start(filepath.Join(b.dir, "server-"+strconv.Itoa(i))); err != nil {
			return err
		}
		defer s.stop()
	}
	const connections = 64
	cost, rate := map[string][]float64{}, map[string][]float64{}
	for round := range b.rounds + 1 { // the first warms up
		for _, s := range all {
			us, per, err := s.load(script, connections, b.length)
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", s.name, err, s.said())
			}
			if round > 0 {
				cost[s.name], rate[s.name] = append(cost[s.name], us), append(rate[s.name], per)
			}
		}
	}
	fmt.Printf("%-34s%14s%14s%14s\n", fmt.Sprintf("echo of %d B, c=%d, one core", len(payload), connections), "µs of CPU", "requests/s", "RSS, MiB")
	for _, s := range all {
		bytes, err := measure.RSS(s.proc.Process.Pid)
		if err != nil {
			return err
		}
		fmt.Printf("%-34s%14.1f%14.0f%14.1f\n", s.name, measure.Median(cost[s.name]), measure.Median(rate[s.name]), bytes/(1<<20))
	}
	for _, kind := range []string{"c", "go"} {
		for peer, most := range map[string]float64{"workerd": 0.25, "node": 1} {
			if ours, theirs := cost["loam, "+kind], cost[peer]; len(theirs) > 0 {
				var ratios []float64 // of turns of the same round
				for i := range ours {
					ratios = append(ratios, ours[i]/theirs[i])
				}
				b.goal("echo by "+kind+", beside "+peer, measure.Median(ratios), "x", most)
			}
		}
	}
	return nil
}

func (s *server) start(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	address, err := measure.FreeAddress()
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	s.place = place{Dir: dir, Address: address, Host: host, Port: port}
	for name, text := range s.files {
		var b bytes.Buffer
		if strings.HasSuffix(name, ".wasm") {
			b.WriteString(text)
		} else if t, err := template.New(name).Parse(text); err != nil {
			return err
		} else if err := t.Execute(&b, s.place); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600); err != nil {
			return err
		}
	}
	s.proc = exec.Command("taskset", append([]string{"-c", "0"}, s.args(s.place)...)...)
	s.proc.Stdout, s.proc.Stderr = &s.log, &s.log
	s.proc.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.proc.Start(); err != nil {
		return err
	}
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := s.echoes()
		if err == nil {
			return nil
		}
		if time.Since(began) > time.Minute {
			s.stop()
			return fmt.Errorf("%s does not answer: %w; it said:\n%s", s.name, err, s.said())
		}
	}
}

// echoes tells whether s answers as it should.
func (s *server) echoes() error {
	res, err := http.Post("http://"+s.place.Address+"/", "text/plain", strings.NewReader(payload))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || string(b) != payload) {
		err = fmt.Errorf("%d %s", res.StatusCode, b)
	}
	return err
}

func (s *server) stop() {
	_ = s.proc.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = s.proc.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		_ = s.proc.Process.Kill()
		<-done
	}
}

// said is the end of what s wrote. It is read while s may write, for an error message.
func (s *server) said() string { t := s.log.String(); return t[max(0, len(t)-3000):] }

// load sends requests for a while: µs of the server's processor time for each, and how many a second.
func (s *server) load(script string, connections int, length time.Duration) (us, rate float64, err error) {
	seconds := max(1, int(length.Seconds()+.5))
	before, err := cpuOf(s.proc.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	out, err := exec.Command("taskset", "-c", "1", "wrk", "-t1", "-c"+strconv.Itoa(connections), "-d"+strconv.Itoa(seconds)+"s", "-s", script, "http://"+s.place.Address+"/").CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	after, err := cpuOf(s.proc.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	text := string(out)
	if strings.Contains(text, "Non-2xx") || strings.Contains(text, "Socket errors") && !strings.Contains(text, "timeout 0\n") {
		return 0, 0, fmt.Errorf("requests failed:\n%s", text)
	}
	m := regexp.MustCompile(`(\d+) requests in`).FindStringSubmatch(text)
	if m == nil {
		return 0, 0, fmt.Errorf("wrk said:\n%s", text)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err == nil && n == 0 {
		err = errors.New("no request was answered")
	}
	return float64((after - before).Microseconds()) / n, n / float64(seconds), err
}

// serveNetHTTP is the contender that the standard library is: the same in a handler of this process.
func serveNetHTTP(address string) error {
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/plain")
		h.Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b) // who went away needs no answer
	}))
}
