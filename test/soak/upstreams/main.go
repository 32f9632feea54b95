//go:build linux

// Command upstreams does to a service's endpoints what happens to them: one is killed, hangs, gets slow, resets every
// connection, or is cut off from the network, while requests are sent at a steady rate. It checks that clients hardly
// notice, that retries stay within their budget, that the endpoint is left alone and comes back, that a breaker opens and
// closes, and that the requests of the healthy endpoints take no longer than before.
//
// Each endpoint is a host of its own: a network namespace, which needs root, ip, tc and iptables.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	var s soak
	flag.StringVar(&s.loam, "loam", "bin/loam", "the binary")
	flag.DurationVar(&s.phase, "phase", 8*time.Second, "how long each trouble lasts")
	flag.IntVar(&s.rate, "rate", 300, "requests a second")
	serve := flag.String("serve", "", "be an endpoint at this address (used by the soak itself)")
	flag.Parse()
	var err error
	if *serve != "" {
		err = endpoint(*serve)
	} else if err = s.run(); err == nil {
		fmt.Println("soak-upstreams: ok")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak-upstreams: FAILED:", err)
		os.Exit(1)
	}
}

// endpoint answers with its address, and counts what it is asked. After SIGUSR1 it is well but answers with errors, after
// another one it does not any more.
func endpoint(address string) error {
	var asked atomic.Int64
	var broken atomic.Bool
	turns := make(chan os.Signal, 1)
	signal.Notify(turns, syscall.SIGUSR1)
	go func() {
		for range turns {
			broken.Store(!broken.Load())
		}
	}()
	http.HandleFunc("/count", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, asked.Load()) })
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("X-Endpoint", address)
		if broken.Load() {
			http.Error(w, "broken", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 2000))
	})
	return http.ListenAndServe(address, nil)
}

type soak struct {
	loam  string
	phase time.Duration
	rate  int

	dir, address string
	hosts        []*host
}

// host is an endpoint and the network namespace it is in.
type host struct {
	netns, outside, inside string
	gateway, ip            string
	proc                   *exec.Cmd
}

const port = "9000"

func (h *host) address() string { return net.JoinHostPort(h.ip, port) }

const hostCount = 3

func (s *soak) run() (err error) {
	if os.Getuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if s.dir, err = os.MkdirTemp("", "soak-upstreams-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	defer func() {
		for _, h := range s.hosts {
			h.stop()
			_ = command("ip", "netns", "del", h.netns) // what could not be made is not there
		}
	}()
	for i := range hostCount {
		h := &host{
			netns: fmt.Sprintf("loam%d-%d", os.Getpid(), i), outside: fmt.Sprintf("lo%d%c", os.Getpid()%100_000, 'a'+i), inside: "eth0",
			gateway: fmt.Sprintf("10.213.%d.1", 100+i), ip: fmt.Sprintf("10.213.%d.2", 100+i),
		}
		s.hosts = append(s.hosts, h)
		for _, args := range [][]string{
			{"ip", "netns", "add", h.netns},
			{"ip", "link", "add", h.outside, "type", "veth", "peer", "name", h.inside, "netns", h.netns},
			{"ip", "addr", "add", h.gateway + "/24", "dev", h.outside},
			{"ip", "link", "set", h.outside, "up"},
			{"ip", "-n", h.netns, "addr", "add", h.ip + "/24", "dev", h.inside},
			{"ip", "-n", h.netns, "link", "set", h.inside, "up"},
			{"ip", "-n", h.netns, "link", "set", "lo", "up"},
		} {
			if err := command(args...); err != nil {
				return err
			}
		}
		if err := h.start(); err != nil {
			return err
		}
	}
	stop, err := s.serve()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	quiet, err := s.load("/", s.phase)
	if err != nil {
		return err
	}
	fmt.Printf("%-12s %s\n", "quiet", quiet)
	sick := s.hosts[0]
	var problems []error
	for _, trouble := range []struct {
		name       string
		begin, end func() error
	}{
		{"killed", func() error { sick.stop(); return nil }, sick.start},
		{"hangs", func() error { return sick.proc.Process.Signal(syscall.SIGSTOP) }, func() error { return sick.proc.Process.Signal(syscall.SIGCONT) }},
		// The link takes 16 kbit/s and holds five seconds of it: a queue, for a delay (netem) is not in every kernel.
		{"slow", func() error {
			return command("ip", "netns", "exec", sick.netns, "tc", "qdisc", "add", "dev", sick.inside, "root", "tbf", "rate", "16kbit", "burst", "2kb", "latency", "5s")
		}, func() error {
			return command("ip", "netns", "exec", sick.netns, "tc", "qdisc", "del", "dev", sick.inside, "root")
		}},
		{"resets", func() error { return sick.filter("-A", "REJECT", "--reject-with", "tcp-reset") }, func() error { return sick.filter("-D", "REJECT", "--reject-with", "tcp-reset") }},
		{"cut off", func() error { return sick.filter("-A", "DROP") }, func() error { return sick.filter("-D", "DROP") }},
	} {
		before, err := s.asked(s.hosts[1:])
		if err != nil {
			return err
		}
		if err := trouble.begin(); err != nil {
			return err
		}
		got, err := s.load("/", s.phase)
		if err != nil {
			return err
		}
		if err := trouble.end(); err != nil {
			return err
		}
		after, err := s.asked(s.hosts[1:])
		if err != nil {
			return err
		}
		back, err := s.returns(sick)
		if err != nil {
			return err
		}
		fmt.Printf("%-12s %s; the healthy were asked %.2f times for each request; back after %v\n", trouble.name, got, float64(after-before)/float64(got.sent), back.Round(time.Millisecond))
		check := func(ok bool, format string, args ...any) {
			if !ok {
				problems = append(problems, fmt.Errorf(trouble.name+": "+format, args...))
			}
		}
		// One endpoint of three is lost until it is left alone: what fails then is what no retry was left for.
		check(got.failed <= got.sent/20, "%d of %d requests failed", got.failed, got.sent)
		check(float64(after-before) <= 1.25*float64(got.sent), "%d requests became %d at the healthy endpoints: retries beyond their budget", got.sent, after-before)
		check(got.late50 <= 2*quiet.p99+2*time.Millisecond, "once it was left alone the median was %v; p99 was %v before", got.late50, quiet.p99)
		check(got.late99 <= 4*quiet.p99+20*time.Millisecond, "once it was left alone p99 was %v; %v before", got.late99, quiet.p99)
		check(back <= 20*time.Second, "it came back only after %v", back)
	}
	if err := s.storm(); err != nil {
		problems = append(problems, err)
	}
	if err := s.breaker(); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// storm has all endpoints answer with errors, where each request would be sent three times: the budget of retries is a fifth
// of the requests and 5 a second. When they are well again, so is the service, at once.
func (s *soak) storm() error {
	turn := func() error {
		for _, h := range s.hosts {
			if err := h.proc.Process.Signal(syscall.SIGUSR1); err != nil {
				return err
			}
		}
		return nil
	}
	before, err := s.asked(s.hosts)
	if err != nil {
		return err
	}
	if err := turn(); err != nil {
		return err
	}
	got, err := s.load("/", s.phase)
	if err != nil {
		return err
	}
	after, err := s.asked(s.hosts)
	if err != nil {
		return err
	}
	if err := turn(); err != nil {
		return err
	}
	began := time.Now()
	for {
		if status, _, _, err := s.ask("/"); err == nil && status == http.StatusOK {
			break
		}
		if time.Since(began) > 10*time.Second {
			return errors.New("all fail: it does not answer 10 s after they are well again")
		}
		time.Sleep(5 * time.Millisecond)
	}
	fmt.Printf("%-12s %s; asked %.2f times for each request; back after %v\n", "all fail", got, float64(after-before)/float64(got.sent), time.Since(began).Round(time.Millisecond))
	// The budget looks at the last ten seconds, those before the trouble among them.
	if most := float64(got.sent) + 0.2*(float64(got.sent)+10*float64(s.rate)) + 5*s.phase.Seconds() + 50; float64(after-before) > most {
		return fmt.Errorf("all fail: %d requests became %d: a storm of retries", got.sent, after-before)
	}
	if got.failed < got.sent*9/10 {
		return fmt.Errorf("all fail: %d of %d requests failed: the soak has not done what it says", got.failed, got.sent)
	}
	return nil
}

// breaker has a service of one endpoint die and come back: requests fail fast meanwhile, and few reach it.
func (s *soak) breaker() error {
	h := s.hosts[1]
	h.stop()
	got, err := s.load("/one", s.phase/2)
	if err != nil {
		return err
	}
	if err := h.start(); err != nil {
		return err
	}
	began := time.Now()
	for {
		if status, _, _, err := s.ask("/one"); err == nil && status == http.StatusOK {
			break
		}
		if time.Since(began) > 10*time.Second {
			return errors.New("breaker: it did not close within 10 s of the endpoint's return")
		}
		time.Sleep(20 * time.Millisecond)
	}
	closed := time.Since(began)
	text, err := s.prometheus()
	if err != nil {
		return err
	}
	count := func(act string) int {
		n := 0
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "loam_policy_acts_total") && strings.Contains(line, `act="`+act+`"`) && strings.Contains(line, "one") {
				f := strings.Fields(line)
				v, _ := strconv.Atoi(f[len(f)-1])
				n += v
			}
		}
		return n
	}
	opened, refused, closedCount := count("breaker-opened"), count("breaker-refused"), count("breaker-closed")
	fmt.Printf("%-12s %s; opened %d times, refused %d, closed %d times, %v after the endpoint's return\n", "breaker", got, opened, refused, closedCount, closed.Round(time.Millisecond))
	switch {
	case opened == 0 || closedCount == 0 || refused < got.sent/2:
		return fmt.Errorf("breaker: opened %d times, closed %d, refused %d of %d requests", opened, closedCount, refused, got.sent)
	case got.late99 > 100*time.Millisecond:
		return fmt.Errorf("breaker: open, it takes %v to say so", got.late99)
	}
	return nil
}

// config has slowStart: what is slow answers its health check now and then, and would be sent a full share each time.
const config = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all}
spec:
  rules:
    - {name: one, matches: [{path: {value: /one}}], backendRefs: [{kind: Service, name: one}]}
    - {name: all, backendRefs: [{kind: Service, name: all}]}
---
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: all}
spec:
  endpoints: [%s]
  health:
    active: {path: /count, interval: 500ms, timeout: 400ms, healthy: 2, unhealthy: 2}
    passive: {consecutiveErrors: 3, ejection: 2s, maxEjectedPercent: 50}
  slowStart: 10s
  pool: {connectTimeout: 300ms}
---
apiVersion: loam.dev/v1alpha1
kind: Policy
metadata: {name: all}
spec:
  targetRefs: [{kind: Service, name: all}]
  timeout: {request: 2s, backendRequest: 500ms}
  retry: {attempts: 2, on: [connect, reset, gateway-error], backoff: 5ms, budget: {percent: 20, minPerSecond: 5}}
---
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: one}
spec: {endpoints: [{address: "%s"}], pool: {connectTimeout: 300ms}}
---
apiVersion: loam.dev/v1alpha1
kind: Policy
metadata: {name: one}
spec:
  targetRefs: [{kind: Service, name: one}]
  timeout: {request: 500ms}
  breaker: {failures: 5, rest: 500ms}
`

// serve starts Loam before the endpoints.
func (s *soak) serve() (stop func() error, err error) {
	var all []string
	for _, h := range s.hosts {
		all = append(all, fmt.Sprintf("{address: %q}", h.address()))
	}
	file := filepath.Join(s.dir, "all.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, strings.Join(all, ", "), s.hosts[1].address()), 0o600); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.address = l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(s.loam, "run", "--data", filepath.Join(s.dir, "data"), "--listen", s.address, file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone
		if err := cmd.Wait(); err != nil {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("it did not end cleanly: %w\n%s", err, text[max(0, len(text)-4000):])
		}
		return nil
	}
	began := time.Now()
	for {
		if status, _, _, err := s.ask("/"); err == nil && status == http.StatusOK {
			return stop, nil
		}
		if time.Since(began) > 20*time.Second {
			text, _ := os.ReadFile(log.Name())
			return nil, errors.Join(fmt.Errorf("it does not answer; it said:\n%s", text), stop())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ask sends one request.
func (s *soak) ask(path string) (status int, endpoint string, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+path, nil)
	if err != nil {
		return 0, "", 0, err
	}
	start := time.Now()
	res, err := client.Do(req)
	if err != nil {
		return 0, "", 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode, res.Header.Get("X-Endpoint"), time.Since(start), err
}

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 512}}

// outcome is what became of a load.
type outcome struct {
	sent, failed   int
	p50, p99       time.Duration
	late50, late99 time.Duration // of the second half: whoever is sick is known by then
}

func (o outcome) String() string {
	return fmt.Sprintf("%5d sent, %3d failed, p50 %v p99 %v, second half p50 %v p99 %v", o.sent, o.failed,
		o.p50.Round(10*time.Microsecond), o.p99.Round(10*time.Microsecond), o.late50.Round(10*time.Microsecond), o.late99.Round(10*time.Microsecond))
}

// load sends requests at the rate, each at its time whether those before were answered or not.
func (s *soak) load(path string, length time.Duration) (outcome, error) {
	type sample struct {
		late bool
		took time.Duration
	}
	var mu sync.Mutex
	var o outcome
	var samples []sample
	var wg sync.WaitGroup
	start := time.Now()
	n := int(length.Seconds() * float64(s.rate))
	for i := range n {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(s.rate))
		time.Sleep(time.Until(due))
		wg.Go(func() {
			status, _, took, err := s.ask(path)
			mu.Lock()
			defer mu.Unlock()
			o.sent++
			if err != nil || status != http.StatusOK {
				o.failed++
			}
			samples = append(samples, sample{i > n/2, took})
		})
	}
	wg.Wait()
	quantiles := func(late bool) (time.Duration, time.Duration) {
		var all []time.Duration
		for _, s := range samples {
			if s.late || !late {
				all = append(all, s.took)
			}
		}
		slices.Sort(all)
		return all[len(all)/2], all[len(all)*99/100]
	}
	o.p50, o.p99 = quantiles(false)
	o.late50, o.late99 = quantiles(true)
	return o, nil
}

// asked is how many requests hosts have seen.
func (s *soak) asked(hosts []*host) (total int64, err error) {
	for _, h := range hosts {
		res, err := http.Get("http://" + h.address() + "/count")
		if err != nil {
			return 0, err
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(string(b), 10, 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// returns waits until an endpoint is sent requests again, and tells when the first came; then until it has its full share,
// so that the next trouble finds it there.
func (s *soak) returns(h *host) (first time.Duration, err error) {
	began := time.Now()
	const of, share = 60, 12 // a third of them in the long run
	for time.Since(began) < 60*time.Second {
		n := 0
		for range of {
			if _, endpoint, _, err := s.ask("/"); err == nil && endpoint == h.address() {
				if n++; first == 0 {
					first = time.Since(began)
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
		if n >= share {
			return first, nil
		}
	}
	return 0, fmt.Errorf("%s is not sent its share of requests any more", h.address())
}

// prometheus reads Loam's metrics.
func (s *soak) prometheus() (string, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "data", "admin.json"))
	if err != nil {
		return "", err
	}
	var admin struct{ Address string }
	if err := json.Unmarshal(b, &admin); err != nil {
		return "", err
	}
	token, err := os.ReadFile(filepath.Join(s.dir, "data", "admin.token"))
	if err != nil {
		return "", err
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+admin.Address+"/metrics", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("metrics: %s", res.Status)
	}
	return string(text), err
}

func (h *host) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	h.proc = exec.Command("ip", "netns", "exec", h.netns, self, "-serve", h.address())
	h.proc.Stderr = os.Stderr
	h.proc.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := h.proc.Start(); err != nil { // ip becomes the endpoint: its pid is the process's own
		return err
	}
	began := time.Now()
	for {
		c, err := net.DialTimeout("tcp", h.address(), 100*time.Millisecond)
		if err == nil {
			return c.Close()
		}
		if time.Since(began) > 10*time.Second {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *host) stop() {
	if h.proc != nil {
		_ = h.proc.Process.Kill()
		_ = h.proc.Wait() // killed, as asked
		h.proc = nil
	}
}

// filter adds or removes a rule about what comes in for the endpoint.
func (h *host) filter(how string, verdict ...string) error {
	return command(append([]string{"ip", "netns", "exec", h.netns, "iptables", how, "INPUT", "-p", "tcp", "--dport", port, "-j"}, verdict...)...)
}

func command(args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
