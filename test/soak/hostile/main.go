//go:build linux

// Command hostile serves guests that do their worst beside a well-behaved function and a plain route, in one real Loam
// on one core, and asks from the other one: that the process lives, that each attack is answered as it should be, that
// the neighbours hardly feel it, that nothing in the process pauses for long, and that its memory stays flat.
//
// It needs clang and wasm-ld (make sdk installs them) and two cores.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/loam-run/loam/test/measure"
)

func main() {
	var s soak
	flag.StringVar(&s.loam, "loam", "bin/loam", "the binary")
	flag.StringVar(&s.source, "guest", "test/soak/hostile/guest", "the hostile guest's source")
	flag.DurationVar(&s.length, "for", 10*time.Minute, "how long the attacks go on")
	only := flag.String("only", "", "attacks to make: a regular expression of their names")
	meter := flag.Bool("meter", false, "be the process that measures (for this program itself)")
	flag.Parse()
	if *meter {
		if err := runMeter(); err != nil {
			fmt.Fprintln(os.Stderr, "soak-hostile: meter:", err)
			os.Exit(1)
		}
		return
	}
	var err error
	if s.only, err = regexp.Compile(*only); err == nil {
		err = s.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak-hostile: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("soak-hostile: ok")
}

// What is asked of the process.
const (
	mostPause = 10 * time.Millisecond // of the garbage collector or the scheduler
	mostPlain = time.Millisecond      // p99 of a small proxied request while guests compute
	mostTimes = 2.0                   // p99 of the neighbour, of what it is when all is quiet
)

type soak struct {
	loam, source string
	length       time.Duration
	only         *regexp.Regexp

	address string
	meter   *meter
	log     string // file
	pid     int
}

// An attack is a function with limits, what is sent to it, and what has to come of it.
type attack struct {
	name  string // of the function
	spec  string // lines of its spec
	paths []string
	body  int   // bytes
	want  []int // statuses
	crowd int   // requests at once; 0: one
	table bool  // the guest is one without an image
}

func attacks() []attack {
	const brief = "  cpu: 50ms\n"
	lies := make([]string, 32)
	for i := range lies {
		lies[i] = "/lie/" + strconv.Itoa(i)
	}
	on := func(path string) []string { return []string{path} }
	return []attack{
		{name: "loop", spec: brief, paths: on("/spin"), want: []int{504}},
		{name: "wall", spec: "  timeout: 200ms\n", paths: on("/spin"), want: []int{504}},
		{name: "recursion", spec: brief, paths: on("/recursion"), want: []int{500}},
		{name: "memory", spec: "  memory: 32Mi\n", paths: on("/memory"), want: []int{500}},
		{name: "fill", spec: brief, paths: on("/fill"), want: []int{504}},
		{name: "copy", spec: brief, paths: on("/copy"), want: []int{504}},
		{name: "trap", paths: on("/trap"), want: []int{500}, crowd: 4},
		{name: "flood", spec: brief, paths: on("/flood"), want: []int{504}},
		{name: "calls", spec: brief + "  limits: {calls: 10}\n  grants: [{capability: state}]\n", paths: on("/calls"), want: []int{500, 504}},
		{name: "self", spec: "  concurrency: 4\n  grants: [{capability: invoke, names: [self]}]\n", paths: on("/self"), want: []int{400}},
		{name: "shout", spec: brief, paths: on("/shout"), want: []int{504}},
		{name: "large", spec: "  limits: {response: 1Mi}\n", paths: on("/large"), want: []int{429}},
		{name: "table", paths: []string{"/table/type", "/table/place", "/table/null"}, want: []int{500}},
		{name: "grow", spec: brief, paths: on("/grow"), want: []int{500, 504}, table: true},
		{name: "hoard", spec: "  memory: 32Mi\n", paths: on("/memory"), want: []int{500}, table: true},
		{name: "lie", paths: lies, want: []int{500}},
		{name: "wasi", paths: on("/wasi"), want: []int{200}},
		{name: "split", paths: on("/split"), want: []int{500}},
		{name: "upload", spec: "  limits: {request: 1Ki}\n", paths: on("/good"), body: 4 << 10, want: []int{413}},
		{name: "crowd", spec: brief + "  concurrency: 1\n  queue: 1\n", paths: on("/spin"), want: []int{429, 504}, crowd: 8},
		{name: "nobody", paths: on("/nothing"), want: []int{404}},
	}
}

func (s *soak) run() (err error) {
	if err := exec.Command("taskset", "-a", "-p", "-c", "1", strconv.Itoa(os.Getpid())).Run(); err != nil {
		return fmt.Errorf("taskset: %w: two cores are needed", err)
	}
	dir, err := os.MkdirTemp("", "soak-hostile-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	guest, table := filepath.Join(dir, "hostile.wasm"), filepath.Join(dir, "table.wasm")
	if err := errors.Join(s.build(guest), s.build(table, "-DTABLE", "-mreference-types", filepath.Join(s.source, "table.s"))); err != nil {
		return err
	}
	if s.meter, err = startMeter(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.meter.stop()) }()
	if s.address, err = measure.FreeAddress(); err != nil {
		return err
	}
	file := filepath.Join(dir, "hostile.yaml")
	if err := os.WriteFile(file, resources(guest, table, s.meter.upstream), 0o600); err != nil {
		return err
	}
	stop, err := s.start(dir, file)
	if err != nil {
		return err
	}
	defer func() {
		if e := stop(); e != nil {
			err = errors.Join(err, fmt.Errorf("it did not end cleanly: %w", e))
		}
		if err != nil {
			text, _ := os.ReadFile(s.log)
			fmt.Fprintf(os.Stderr, "it said:\n%s\n", text[max(0, len(text)-4000):])
		}
	}()

	brief := min(max(s.length/10, 4*time.Second), 30*time.Second)
	quiet, err := s.neighbours(brief, nil)
	if err != nil {
		return err
	}
	quiet.print("quiet")
	endless, err := s.neighbours(brief, []attack{{name: "wall", paths: []string{"/spin"}, want: []int{504}}})
	if err != nil {
		return err
	}
	endless.print("an endless guest")
	watch := s.watch()
	stormy, err := s.neighbours(s.length, slices.DeleteFunc(attacks(), func(a attack) bool { return !s.only.MatchString(a.name) }))
	rss := watch()
	if err != nil {
		return err
	}
	stormy.print("all attacks")
	return s.judge(quiet, endless, stormy, rss)
}

func (s *soak) judge(quiet, endless, stormy *felt, rss []float64) error {
	pause, cycles, err := s.pauses()
	if err != nil {
		return err
	}
	third := len(rss) / 3
	early, late := measure.Median(rss[third:2*third]), measure.Median(rss[2*third:])
	log, err := os.Stat(s.log)
	if err != nil {
		return err
	}
	fmt.Printf("%d collections, longest pause %v; memory %.1f MB in the second third, %.1f in the last; %.1f MB of log\n", cycles, pause, early, late, float64(log.Size())/1e6)
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(pause <= mostPause, "the collector paused the process for %v, more than %v", pause, mostPause)
	for _, f := range []*felt{endless, stormy} {
		check(f.Plain.P99 <= mostPlain, "a plain request took %v at p99, more than %v", f.Plain.P99, mostPlain)
		times := float64(f.Function.P99) / float64(quiet.Function.P99)
		check(times <= mostTimes, "the neighbour's p99 became %.1f times what it was", times)
	}
	check(late <= early*1.1+8, "memory grew from %.1f to %.1f MB", early, late)
	check(log.Size() < 64<<20, "the log has %d bytes", log.Size())
	return errors.Join(errs...)
}

// build builds the hostile guest.
func (s *soak) build(out string, more ...string) error {
	args := []string{"--target=wasm32-wasi", "-mexec-model=reactor", "-O2", "-mbulk-memory", "-Wno-infinite-recursion", "-o", out, filepath.Join(s.source, "main.c")}
	if said, err := exec.Command("clang", append(args, more...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest: %w\n%s\nmake sdk installs the compilers", err, said)
	}
	return nil
}

// resources are the attacks, each a function of its own; a function that behaves; and a route to the upstream.
func resources(guest, table, upstream string) []byte {
	var b bytes.Buffer
	function := func(name, guest, spec string) {
		fmt.Fprintf(&b, "apiVersion: loam.dev/v1alpha1\nkind: Function\nmetadata: {name: %[1]s}\nspec:\n  file: %[2]s\n%[3]s---\n"+
			"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: %[1]s}\nspec:\n  hostnames: [%[1]s.test]\n  rules: [{backendRefs: [{kind: Function, name: %[1]s}]}]\n---\n", name, guest, spec)
	}
	for _, a := range attacks() {
		if a.name != "nobody" { // there is no such function
			file := guest
			if a.table {
				file = table
			}
			function(a.name, file, a.spec)
		}
	}
	function("good", guest, "")
	fmt.Fprintf(&b, "apiVersion: loam.dev/v1alpha1\nkind: Service\nmetadata: {name: plain}\nspec: {endpoints: [{address: %q}]}\n---\n"+
		"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: plain}\nspec:\n  hostnames: [plain.test]\n  rules: [{backendRefs: [{kind: Service, group: loam.dev, name: plain}]}]\n", upstream)
	return b.Bytes()
}

// start serves the file on the first core, its log and the collector's words going to a file.
func (s *soak) start(dir, file string) (stop func() error, err error) {
	s.log = filepath.Join(dir, "log")
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("taskset", "-c", "0", s.loam, "run", "--data", filepath.Join(dir, "data"), "--listen", s.address, file)
	cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.pid = cmd.Process.Pid
	died := make(chan error, 1)
	go func() { died <- cmd.Wait() }()
	stop = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone
		return <-died
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		status, body, err := s.ask(http.DefaultClient, "good", "/good", "hello")
		if err == nil && status == 200 && body == "hello" {
			if text, err := os.ReadFile(s.log); err != nil || bytes.Contains(text, []byte("not started")) {
				return nil, errors.Join(fmt.Errorf("not all functions are there: %w; it said:\n%s", err, text), stop())
			}
			return stop, nil
		}
		if time.Since(began) > time.Minute {
			text, _ := os.ReadFile(s.log)
			return nil, errors.Join(fmt.Errorf("it does not answer: %d %w; it said:\n%s", status, err, text), stop())
		}
	}
}

// ask sends a request to the function or route of that name.
func (s *soak) ask(client *http.Client, name, path, body string) (int, string, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+s.address+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Host = name + ".test"
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// felt is what neighbours felt while something went on.
type felt struct {
	measured
	count map[string]int // attacks
}

func (f *felt) print(when string) {
	for _, l := range []struct {
		name string
		latency
	}{{"plain requests", f.Plain}, {"of the neighbour", f.Function}, {"times the meter's own delay", f.Late}} {
		fmt.Printf("%s: %d %s, p50 %v, p99 %v, most %v\n", when, l.N, l.name, l.P50, l.P99, l.Max)
	}
	if len(f.count) > 0 {
		fmt.Println("  attacks answered:", f.count)
	}
}

// neighbours has the meter send requests to the plain route and to the function that behaves while attacks go on.
func (s *soak) neighbours(length time.Duration, bad []attack) (*felt, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var group sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if len(errs) < 10 {
			errs = append(errs, err)
		}
		cancel()
	}
	counts := map[string]*atomic.Int64{}
	for _, a := range bad {
		n := new(atomic.Int64)
		counts[a.name] = n
		for range max(a.crowd, 1) {
			group.Go(func() {
				if err := s.attack(ctx, a, n); err != nil {
					fail(fmt.Errorf("%s: %w", a.name, err))
				}
			})
		}
	}
	f := &felt{count: map[string]int{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var err error
		if f.measured, err = s.meter.measure(s.address, length); err != nil && ctx.Err() == nil {
			fail(err)
		}
	}()
	select {
	case <-done:
	case <-ctx.Done(): // an attack came to what it should not: nothing that is measured matters any more
		s.meter.kill()
		<-done
	}
	cancel()
	group.Wait()
	for name, n := range counts {
		if f.count[name] = int(n.Load()); f.count[name] == 0 && len(errs) == 0 {
			errs = append(errs, fmt.Errorf("no attack of the kind %s came to its end", name))
		}
	}
	return f, errors.Join(errs...)
}

// attack attacks until ctx ends.
func (s *soak) attack(ctx context.Context, a attack, count *atomic.Int64) error {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	seen := map[int]bool{}
	body := strings.Repeat("x", a.body)
	for n := 0; ctx.Err() == nil; n++ {
		path := a.paths[n%len(a.paths)]
		status, answer, err := s.ask(client, a.name, path, body)
		if err != nil {
			return err
		}
		if !slices.Contains(a.want, status) {
			return fmt.Errorf("%s was answered with %d, not one of %d: %s", path, status, a.want, answer)
		}
		seen[status] = true
		count.Add(1)
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// watch reads the process's memory each second until it is told to stop.
func (s *soak) watch() (stop func() []float64) {
	done, out := make(chan struct{}), make(chan []float64)
	go func() {
		var all []float64
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if bytes, err := measure.RSS(s.pid); err == nil { // it dies: that is seen elsewhere
					all = append(all, bytes/1e6)
				}
			case <-done:
				out <- all
				return
			}
		}
	}()
	return func() []float64 { close(done); return <-out }
}

// gc 7 @1.2s 3%: 0.018+1.3+0.015 ms clock, …: the first and the last of the three are pauses, the wait for all threads
// to stop included.
var collection = regexp.MustCompile(`gc \d+ @[\d.]+s \d+%: ([\d.]+)\+[\d.]+\+([\d.]+) ms clock`)

// pauses finds the longest pause of the collector, and how many collections there were.
func (s *soak) pauses() (longest time.Duration, cycles int, err error) {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return 0, 0, err
	}
	for _, m := range collection.FindAllSubmatch(text, -1) {
		cycles++
		for _, n := range m[1:] {
			ms, err := strconv.ParseFloat(string(n), 64)
			if err != nil {
				return 0, 0, err
			}
			longest = max(longest, time.Duration(ms*float64(time.Millisecond)))
		}
	}
	if cycles == 0 {
		return 0, 0, errors.New("no collection was seen")
	}
	return longest, cycles, nil
}
