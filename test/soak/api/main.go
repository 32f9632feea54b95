//go:build linux

// Command api has hostile clients at a real sidecar and at Layotto's API, all kinds at once: wrong types, huge and endless
// bodies, slow senders, slow readers, thousands of idle streams, bad tokens, and names that look like paths, over HTTP and
// gRPC. It holds every answer against what it should be, searches each for what lies outside of what the client may reach,
// and asks besides: that a client that behaves gets every answer right, that memory stays bounded and comes back, that the
// idle streams still live, and that nothing was written where it should not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/loam-run/loam/test/measure"
)

func main() {
	var s soak
	flag.StringVar(&s.loam, "loam", "bin/loam", "the binary")
	flag.DurationVar(&s.length, "for", 2*time.Minute, "how long the attacks go on; 75s at least, since slow clients are cut off after 30s")
	flag.IntVar(&s.idle, "idle", 10_000, "idle streams")
	only := flag.String("only", "", "attacks to make: a regular expression of their names")
	flag.Parse()
	var err error
	if s.only, err = regexp.Compile(*only); err == nil {
		err = s.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak-api: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("soak-api: ok")
}

// What is asked of the processes.
const (
	mostMemory = 1000.0          // MB while all attacks go on: large messages hold 128 MiB for each API, and the collector doubles that
	mostKept   = 80.0            // MB more than before, some time after
	comesBack  = 5 * time.Minute // that time
)

const token = "open-sesame"

// secrets are what no client may ever see: what stands in a file outside of all folders, in a secret that the
// Configuration denies, and in a component that is another app's.
var secrets = []string{"canary-outside", "canary-denied", "canary-theirs", "root:x:0"}

type soak struct {
	loam   string
	length time.Duration
	idle   int
	only   *regexp.Regexp

	dir             string
	http            string // addresses: of Dapr's API over HTTP
	dapr, layotto   string // over gRPC
	sidecar, second *process

	mu     sync.Mutex
	counts map[string]map[string]int // of outcomes, by attack
	errs   []error
}

// An attack goes on until ctx ends, and tells of what is not answered as it should be.
type attack struct {
	name string
	do   func(ctx context.Context, a *attacker) error
	many int // of it at once; 0: one
}

// An attacker is one client that is hostile.
type attacker struct {
	*soak
	name string
	at   int // which of many
}

// count notes an outcome.
func (a *attacker) count(outcome string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts[a.name] == nil {
		a.counts[a.name] = map[string]int{}
	}
	a.counts[a.name][outcome]++
}

// check holds an answer against what it may be, and what it may not tell.
func (a *attacker) check(what string, status int, answer string, want []int, words string) error {
	for _, secret := range secrets {
		if strings.Contains(answer, secret) {
			return fmt.Errorf("%s was told %q: %s", what, secret, brief(answer))
		}
	}
	if !slices.Contains(want, status) {
		return fmt.Errorf("%s was answered with %d, not one of %d: %s", what, status, want, brief(answer))
	}
	if words != "" && !strings.Contains(answer, words) {
		return fmt.Errorf("%s was answered with %d and not the words %q: %s", what, status, words, brief(answer))
	}
	if answer == "" && status >= 400 {
		return fmt.Errorf("%s was answered with %d and not a word", what, status)
	}
	a.count(strconv.Itoa(status))
	return nil
}

func brief(s string) string { return s[:min(len(s), 300)] }

func (s *soak) run() (err error) {
	if s.dir, err = os.MkdirTemp("", "soak-api-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	if err := s.files(); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	defer func() {
		for _, p := range []*process{s.sidecar, s.second} {
			if e := p.stop(); e != nil {
				err = errors.Join(err, fmt.Errorf("%s did not end cleanly: %w", p.name, e))
			}
			if err != nil {
				text, _ := os.ReadFile(p.log)
				fmt.Fprintf(os.Stderr, "%s said:\n%s\n", p.name, text[max(0, len(text)-3000):])
			}
		}
	}()
	if err := s.prepare(); err != nil {
		return err
	}
	s.counts = map[string]map[string]int{}
	before := [2]float64{s.sidecar.resident(), s.second.resident()}

	ctx, cancel := context.WithTimeout(context.Background(), s.length)
	defer cancel()
	watch := s.watch(cancel)
	var group sync.WaitGroup
	good := &neighbour{soak: s}
	group.Go(func() { s.fail("the client that behaves", good.run(ctx)) })
	for _, a := range s.attacks() {
		if !s.only.MatchString(a.name) {
			continue
		}
		for at := range max(a.many, 1) {
			group.Go(func() { s.fail(a.name, a.do(ctx, &attacker{s, a.name, at})) })
		}
	}
	group.Wait()
	peaks := watch()
	s.print()
	fmt.Println(good)
	fmt.Printf("memory: sidecar %.0f MB before, %.0f at most; Layotto's %.0f and %.0f\n", before[0], peaks[0], before[1], peaks[1])
	for i, p := range peaks {
		if p > mostMemory {
			s.errs = append(s.errs, fmt.Errorf("a process of %.0f MB, where at most %.0f should be held (%d)", p, mostMemory, i))
		}
	}
	if len(s.errs) == 0 {
		s.errs = append(s.errs, s.back(before), s.untouched())
	}
	return errors.Join(s.errs...)
}

// fail notes what went wrong. The others go on.
func (s *soak) fail(name string, err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) < 40 {
		s.errs = append(s.errs, fmt.Errorf("%s: %w", name, err))
	}
}

// print tells what became of each attack. One that came to no end was none.
func (s *soak) print() {
	for _, a := range s.attacks() {
		if !s.only.MatchString(a.name) {
			continue
		}
		var all []string
		for outcome, n := range s.counts[a.name] {
			all = append(all, fmt.Sprintf("%s ×%d", outcome, n))
		}
		slices.Sort(all)
		fmt.Printf("%-28s %s\n", a.name, strings.Join(all, ", "))
		if len(all) == 0 && len(s.errs) == 0 {
			s.errs = append(s.errs, fmt.Errorf("no attack of the kind %s came to its end", a.name))
		}
	}
}

// watch follows the memory of both processes, and ends everything before the machine has none left.
func (s *soak) watch(stop func()) (end func() [2]float64) {
	done, out := make(chan struct{}), make(chan [2]float64)
	go func() {
		var most [2]float64
		t := time.NewTicker(100 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				for i, p := range []*process{s.sidecar, s.second} {
					if most[i] = max(most[i], p.resident()); most[i] > 3*mostMemory {
						stop()
					}
				}
			case <-done:
				out <- most
				return
			}
		}
	}()
	return func() [2]float64 { close(done); return <-out }
}

// back waits until the memory is what it was.
func (s *soak) back(before [2]float64) error {
	began := time.Now()
	var now [2]float64
	for time.Since(began) < comesBack {
		now = [2]float64{s.sidecar.resident(), s.second.resident()}
		if now[0] < before[0]+mostKept && now[1] < before[1]+mostKept {
			fmt.Printf("memory came back to %.0f and %.0f MB in %v\n", now[0], now[1], time.Since(began).Round(time.Second))
			return nil
		}
		time.Sleep(time.Second)
	}
	return fmt.Errorf("memory did not come back: %.0f and %.0f MB, %.0f and %.0f before", now[0], now[1], before[0], before[1])
}

// files lays out what the two processes read, and what nobody may reach.
func (s *soak) files() error {
	for name, text := range map[string]string{
		"outside":                 "canary-outside",
		"secrets.json":            `{"open": "may be known", "denied": "canary-denied", "outside": "canary-denied"}`,
		"binding/mine":            "mine",
		"store/mine":              "mine",
		"resources/all.yaml":      s.resources(),
		"config.yaml":             daprConfig,
		"layotto/components.yaml": s.layottoResources(),
	} {
		path := filepath.Join(s.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			return err
		}
	}
	return nil
}

const daprConfig = `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: config}
spec:
  secrets: {scopes: [{storeName: vault, defaultAccess: deny, allowedSecrets: [open]}]}
`

func (s *soak) resources() string {
	component := func(name, kind, metadata, more string) string {
		return fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: %s}\nspec: {type: %s, version: v1, metadata: [%s]}\n%s---\n", name, kind, metadata, more)
	}
	return component("store", "state.in-memory", "", "") +
		component("theirs", "state.in-memory", "", "scopes: [somebody]\n") +
		component("bus", "pubsub.in-memory", "", "") +
		component("locks", "lock.memory", "", "") +
		component("settings", "config.memory", "", "") +
		component("vault", "secretstores.local.file", "{name: secretsFile, value: "+s.dir+"/secrets.json}", "") +
		component("files", "bindings.localstorage", "{name: rootPath, value: "+s.dir+"/binding}", "") +
		component("keys", "crypto.dapr.localstorage", "{name: path, value: "+s.dir+"/binding}", "")
}

func (s *soak) layottoResources() string {
	return strings.ReplaceAll(strings.ReplaceAll(s.resources(), "theirs", "strangers"), "---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: keys}", "---\n"+
		"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: disk}\nspec: {type: file.localstorage, version: v1, metadata: [{name: rootPath, value: "+s.dir+"/store}]}\n---\n"+
		"apiVersion: loam.dev/v1alpha1\nkind: App\nmetadata: {name: mesh}\nspec:\n  grants: [{capability: \"*\"}]\n  api: {layotto: {grpc: LAYOTTO}}\n---\n"+
		"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: keys}")
}

// start starts both processes and waits until they answer.
func (s *soak) start() (err error) {
	var at [3]string
	for i := range at {
		if at[i], err = measure.FreeAddress(); err != nil {
			return err
		}
	}
	s.http, s.dapr, s.layotto = at[0], at[1], at[2]
	path := filepath.Join(s.dir, "layotto/components.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "LAYOTTO", strconv.Quote(s.layotto), 1)), 0o600); err != nil {
		return err
	}
	port := func(address string) string { _, p, _ := net.SplitHostPort(address); return p }
	s.sidecar, err = launch(s.dir, "sidecar", s.loam, "sidecar", "--app-id", "victim", "--dapr-http-port", port(s.http), "--dapr-grpc-port", port(s.dapr),
		"--dapr-internal-grpc-port", "0", "--dapr-listen-addresses", "127.0.0.1", "--enable-metrics=false", "--resources-path", filepath.Join(s.dir, "resources"),
		"--config", filepath.Join(s.dir, "config.yaml"), "--data", filepath.Join(s.dir, "data"))
	if err != nil {
		return err
	}
	listen, err := measure.FreeAddress()
	if err != nil {
		return err
	}
	s.second, err = launch(s.dir, "layotto", s.loam, "run", "--data", filepath.Join(s.dir, "data2"), "--listen", listen, path)
	if err != nil {
		return errors.Join(err, s.sidecar.stop())
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if s.ready() {
			for _, p := range []*process{s.sidecar, s.second} {
				if text, err := os.ReadFile(p.log); err != nil || strings.Contains(string(text), "not ready") {
					return errors.Join(fmt.Errorf("%s has not all it should have: %w; it said:\n%s", p.name, err, text), s.sidecar.stop(), s.second.stop())
				}
			}
			return nil
		}
		if time.Since(began) > time.Minute {
			a, _ := os.ReadFile(s.sidecar.log)
			b, _ := os.ReadFile(s.second.log)
			return errors.Join(fmt.Errorf("they do not answer; they said:\n%s\n%s", a, b), s.sidecar.stop(), s.second.stop())
		}
	}
}

func (s *soak) ready() bool {
	res, err := http.Get("http://" + s.http + "/v1.0/healthz")
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	for _, address := range []string{s.dapr, s.layotto} {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		_ = c.Close()
	}
	return res.StatusCode == http.StatusNoContent && res.Header.Get("Loam-Degraded") == ""
}

// untouched tells whether all files outside of the components' folders are as they were, and nothing half-written is left.
func (s *soak) untouched() error {
	var errs []error
	for name, want := range map[string]string{"outside": "canary-outside", "binding/mine": "mine", "store/mine": "mine"} {
		if text, err := os.ReadFile(filepath.Join(s.dir, name)); err != nil || string(text) != want {
			errs = append(errs, fmt.Errorf("%s is %q: %w", name, text, err))
		}
	}
	names, err := os.ReadDir(s.dir)
	errs = append(errs, err)
	for _, e := range names {
		if !slices.Contains([]string{"outside", "secrets.json", "binding", "store", "resources", "config.yaml", "layotto", "data", "data2", "sidecar.log", "layotto.log"}, e.Name()) {
			errs = append(errs, fmt.Errorf("%s was made", e.Name()))
		}
	}
	var size int64
	errs = append(errs, filepath.WalkDir(filepath.Join(s.dir, "store"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	}))
	if size > 1<<20 {
		errs = append(errs, fmt.Errorf("uploads that were broken off left %d bytes", size))
	}
	return errors.Join(errs...)
}

// A process is one that is attacked.
type process struct {
	name, log string
	cmd       *exec.Cmd
	died      chan error
}

func launch(dir, name string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), died: make(chan error, 1)}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Env = append(os.Environ(), "DAPR_API_TOKEN="+token, "HOME="+dir)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.died <- p.cmd.Wait() }()
	return p, nil
}

func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
	return <-p.died
}

// resident is what the process has in memory, in MB; 0: it is gone, which is seen elsewhere.
func (p *process) resident() float64 {
	bytes, err := measure.RSS(p.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	return bytes / 1e6
}

// rest waits between two attacks; false: it is over.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// discard reads what is left, and lets go of it.
func discard(body io.ReadCloser) {
	_, _ = io.Copy(io.Discard, body)
	_ = body.Close()
}
