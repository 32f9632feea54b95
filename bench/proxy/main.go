// Command proxy measures the data path beside nginx, haproxy, Caddy and the standard library's ReverseProxy, each doing
// the same job. The proxy under test has one core, the load and the upstream the other; what is compared is the
// proxy's own processor time for each request, as the median of rounds in which the contenders take turns. How long the
// paced requests take is another question: there everything runs where the system puts it, as in a pod.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/loam-run/loam/test/measure"
)

func main() {
	loam := flag.String("loam", "../bin/loam", "the binary")
	rounds := flag.Int("rounds", 5, "turns each contender gets at each job")
	length := flag.Duration("for", 2*time.Second, "length of a turn")
	only := flag.String("only", "", "jobs to run: a regular expression of their names")
	who := flag.String("who", "", "contenders to run, by name, comma-separated; all")
	upstream := flag.String("upstream", "", "be the upstream, at these two addresses (used by the benchmark itself)")
	reverse := flag.String("reverseproxy", "", "be the ReverseProxy contender (used by the benchmark itself)")
	flag.Parse()
	var err error
	switch {
	case *upstream != "":
		a, b, _ := strings.Cut(*upstream, ",")
		err = serveUpstream(a, b)
	case *reverse != "":
		err = reverseProxy(*reverse)
	default:
		err = run(*loam, *rounds, *length, *only, *who)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

// A job is a kind of load.
type job struct {
	name string
	port string // of the contender
	unit string // of what is counted
	// run loads the proxy and tells how many requests it answered.
	run func(address string, length time.Duration) (int64, error)
	// goal is Loam's at most share of that of peer; peer "" where there is none.
	peer string
	goal float64
}

func jobs() []job {
	var all []job
	for _, size := range []string{"128", "16384"} {
		for _, c := range []int{1, 64, 256} {
			j := job{name: fmt.Sprintf("HTTP/1 %s B c=%d", size, c), port: "h1", unit: "request", run: wrk("http", size, c)}
			if c == 64 {
				j.peer, j.goal = "nginx", 0.8
			}
			all = append(all, j)
		}
		all = append(all, job{name: "TLS 1.3 " + size + " B c=64", port: "tls", unit: "request", run: wrk("https", size, 64), peer: "nginx", goal: 0.75})
	}
	return append(all,
		job{name: "HTTP/2 128 B c=16x4", port: "h2c", unit: "request", run: h2load("/128", 16, 4, "")},
		job{name: "gRPC unary 128 B c=64x4", port: "grpc", unit: "call", run: h2load("/bench.Bench/Call", 64, 4, "grpc"), peer: "haproxy", goal: 0.6},
		job{name: "gRPC stream of 100 x 128 B c=16x4", port: "grpc", unit: "call", run: h2load("/bench.Bench/Stream", 16, 4, "grpc")},
		job{name: "WebSocket echo 128 B c=64", port: "h1", unit: "message", run: func(address string, length time.Duration) (int64, error) {
			stop := make(chan struct{})
			time.AfterFunc(length, func() { close(stop) })
			return tunnels(address, 64, 128, stop)
		}},
	)
}

func run(loam string, rounds int, length time.Duration, only, who string) error {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	loam, err = filepath.Abs(loam)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-proxy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // nginx's workers may be another user
		return err
	}
	cert, key, err := certificate(dir)
	if err != nil {
		return err
	}
	up, upGRPC := free(), free()
	server := exec.Command("taskset", "-c", "1", self, "-upstream", up+","+upGRPC)
	server.Stderr = os.Stderr
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	if err := reachable(up); err != nil {
		return err
	}
	if err := exec.Command("taskset", "-a", "-p", "-c", "1", strconv.Itoa(os.Getpid())).Run(); err != nil {
		return err
	}
	newPlace := func() place {
		return place{Cert: cert, Key: key, H1: free(), TLS: free(), H2C: free(), GRPC: free(), Up: up, UpGRPC: upGRPC}
	}

	var all []*contender
	for _, c := range contenders(loam, self) {
		if who != "" && !slices.Contains(strings.Split(who, ","), c.name) {
			continue
		}
		home := filepath.Join(dir, c.name)
		if err := os.Mkdir(home, 0o777); err != nil {
			return err
		}
		if err := c.start(home, newPlace(), 0); err != nil {
			return err
		}
		defer c.stop()
		all = append(all, c)
	}
	fmt.Printf("%-36s", fmt.Sprintf("µs of CPU each, median of %d", rounds))
	for _, c := range all {
		fmt.Printf("%14s", c.name)
	}
	fmt.Println()
	var verdicts []string
	for _, j := range jobs() {
		if !pattern.MatchString(j.name) {
			continue
		}
		cost := map[string][]float64{}
		rate := map[string][]float64{}
		for round := range rounds + 1 { // the first warms up
			for i := range all {
				c := all[(i+round)%len(all)] // who comes first after a pause, and after whom each comes, changes
				if c.lacks[j.port] {
					continue
				}
				took := length
				if round == 0 {
					took = length / 4
				}
				us, per, err := turn(c, j, took)
				if err != nil {
					return fmt.Errorf("%s, %s: %w\n%s", j.name, c.name, err, tail(c.log.String()))
				}
				if round > 0 {
					cost[c.name], rate[c.name] = append(cost[c.name], us), append(rate[c.name], per)
				}
			}
		}
		fmt.Printf("%-36s", j.name)
		for _, c := range all {
			if c.lacks[j.port] {
				fmt.Printf("%14s", "-")
				continue
			}
			fmt.Printf("%14s", fmt.Sprintf("%.2f (%.0fk)", measure.Median(cost[c.name]), measure.Median(rate[c.name])/1000))
		}
		fmt.Println()
		if j.peer != "" && len(cost["loam"]) > 0 && len(cost[j.peer]) > 0 {
			verdicts = append(verdicts, goal(j.name+", beside "+j.peer, ratio(cost["loam"], cost[j.peer]), "x", j.goal))
		}
	}
	if pattern.MatchString("memory") {
		lines, err := memory(all)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, lines...)
	}
	if pattern.MatchString("two hops") && (who == "" || strings.Contains(who, "loam")) {
		lines, err := hops(loam, self, dir, newPlace, up, server.Process.Pid, rounds)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, lines...)
	}
	fmt.Println()
	for _, v := range verdicts {
		fmt.Print(v)
	}
	return nil
}

// turn loads a contender once: µs of its processor time for each request, and requests a second.
func turn(c *contender, j job, length time.Duration) (us, rate float64, err error) {
	before, err := cpu(c.pids)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	n, err := j.run(c.ports[j.port], length)
	if err != nil {
		return 0, 0, err
	}
	took := time.Since(began)
	after, err := cpu(c.pids)
	if err != nil {
		return 0, 0, err
	}
	if n == 0 {
		return 0, 0, errors.New("no request was answered")
	}
	return float64((after - before).Microseconds()) / float64(n), float64(n) / took.Seconds(), nil
}

var wrkCount = regexp.MustCompile(`(\d+) requests in`)

func wrk(scheme, path string, c int) func(string, time.Duration) (int64, error) {
	return func(address string, length time.Duration) (int64, error) {
		out, err := exec.Command("taskset", "-c", "1", "wrk", "-t1", "-c"+strconv.Itoa(c), "-d"+strconv.Itoa(max(1, int(length.Seconds()+.5)))+"s", scheme+"://"+address+"/"+path).CombinedOutput()
		m := wrkCount.FindSubmatch(out)
		if err != nil || m == nil {
			return 0, fmt.Errorf("wrk: %w\n%s", err, out)
		}
		if strings.Contains(string(out), "Non-2xx") || strings.Contains(string(out), "Socket errors") && !strings.Contains(string(out), "timeout 0\n") {
			return 0, fmt.Errorf("requests failed:\n%s", out)
		}
		return strconv.ParseInt(string(m[1]), 10, 64)
	}
}

var h2loadCount = regexp.MustCompile(`(\d+) succeeded, (\d+) failed`)

func h2load(path string, c, streams int, kind string) func(string, time.Duration) (int64, error) {
	return func(address string, length time.Duration) (int64, error) {
		args := []string{"-c", "1", "h2load", "-t1", "-c" + strconv.Itoa(c), "-m" + strconv.Itoa(streams), "-D" + strconv.Itoa(max(1, int(length.Seconds()+.5)))}
		if kind == "grpc" {
			f := filepath.Join(os.TempDir(), "bench-proxy-message")
			if err := os.WriteFile(f, message, 0o600); err != nil {
				return 0, err
			}
			args = append(args, "-d", f, "-H", "content-type: application/grpc", "-H", "te: trailers")
		}
		out, err := exec.Command("taskset", append(args, "http://"+address+path)...).CombinedOutput()
		m := h2loadCount.FindSubmatch(out)
		if err != nil || m == nil {
			return 0, fmt.Errorf("h2load: %w\n%s", err, out)
		}
		if string(m[2]) != "0" {
			return 0, fmt.Errorf("requests failed:\n%s", out)
		}
		return strconv.ParseInt(string(m[1]), 10, 64)
	}
}

// memory measures what idle connections cost.
func memory(all []*contender) (verdicts []string, err error) {
	const plain, secure = 8_000, 1_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	if limit.Cur = limit.Max; limit.Cur < plain+1000 {
		return nil, fmt.Errorf("at most %d files may be open: raise the limit (ulimit -Hn)", limit.Cur)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	fmt.Printf("\n%-36s%14s%14s%14s\n", "memory", "RSS, MB", "KB per idle", "TLS idle, KB")
	for _, c := range all {
		if err := c.again(); err != nil { // what the load left in memory is not what is asked for
			return nil, err
		}
		time.Sleep(settled)
		base, err := c.memory("VmRSS")
		if err != nil {
			return nil, err
		}
		per, err := idle(c, c.ports["h1"], plain, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		if err := c.again(); err != nil {
			return nil, err
		}
		perTLS, err := idle(c, c.ports["tls"], secure, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Printf("%-36s%14.1f%14.2f%14.2f\n", c.name, base/(1<<20), per, perTLS)
		if c.name == "loam" {
			verdicts = append(verdicts, goal("base RSS", base/(1<<20), "MB", 25), goal("memory per idle connection", per, "KB", 0.3), goal("memory per idle TLS connection", perTLS, "KB", 10))
		}
	}
	return verdicts, nil
}

// settled is after how long memory is looked at: a process may have given back by then what it needs no more.
const settled = 5 * time.Second

// idle opens n connections that have made one request and are kept, and tells the KiB of its own (anonymous) memory
// that each of them costs beyond what the first two hundred have warmed up.
func idle(c *contender, address string, n int, secure *tls.Config) (float64, error) {
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	open := func(n int) error {
		for range n {
			var conn net.Conn
			var err error
			if conn, err = net.Dial("tcp", address); err != nil {
				return err
			}
			if secure != nil {
				conn = tls.Client(conn, secure)
			}
			conns = append(conns, conn)
			if _, err := io.WriteString(conn, "GET /128 HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
				return err
			}
			res, err := http.ReadResponse(bufio.NewReaderSize(conn, 512), nil)
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				return err
			}
		}
		return nil
	}
	if err := open(200); err != nil {
		return 0, err
	}
	time.Sleep(settled)
	before, err := c.memory("RssAnon")
	if err != nil {
		return 0, err
	}
	if err := open(n); err != nil {
		return 0, err
	}
	time.Sleep(settled)
	after, err := c.memory("RssAnon")
	return (after - before) / 1024 / float64(n), err
}

// hops sends 1,000 requests a second through one proxy, and through two of them one behind the other, and tells what they
// add. It goes several times, the chains in turns, and takes the middle one of each: another tenant's burst is not ours.
// Each proxy has one loop or worker, and nothing is kept to a core. With the proxies on one core and all else on another
// the system would have to wake a sleeping core four times for each request, whoever needs it.
func hops(loam, self, dir string, newPlace func() place, up string, upstream, rounds int) (verdicts []string, err error) {
	if err := unpin(os.Getpid(), upstream); err != nil {
		return nil, err
	}
	type chain struct {
		name         string
		address      string
		pids         []int
		p50, p99, us []float64
	}
	chains := []*chain{{name: "none between", address: up}}
	for _, name := range []string{"loam", "nginx"} {
		address := up
		var pids []int
		for i, count := range []string{"one of ", "two of "} {
			cs := contenders(loam, self)
			c := cs[slices.IndexFunc(cs, func(c *contender) bool { return c.name == name })]
			p := newPlace()
			p.Up = address
			home := filepath.Join(dir, name+"-hop"+strconv.Itoa(i))
			if err := os.Mkdir(home, 0o777); err != nil {
				return nil, err
			}
			if err := c.start(home, p, 0); err != nil {
				return nil, err
			}
			defer c.stop()
			if err := unpin(c.pids...); err != nil {
				return nil, err
			}
			address, pids = p.H1, slices.Concat(pids, c.pids)
			chains = append(chains, &chain{name: count + name, address: address, pids: pids})
		}
	}
	for range rounds {
		for _, c := range chains {
			before, err := cpu(c.pids)
			if err != nil {
				return nil, err
			}
			p50, p99, n, err := paced(c.address)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			after, err := cpu(c.pids)
			if err != nil {
				return nil, err
			}
			c.p50, c.p99, c.us = append(c.p50, p50), append(c.p99, p99), append(c.us, float64((after-before).Microseconds())/float64(n))
		}
	}
	fmt.Printf("\n%-36s%14s%14s%14s%14s%14s\n", "paced at 1,000 requests a second", "p50, µs", "p99, µs", "adds", "adds", "µs of CPU each")
	direct := chains[0]
	for _, c := range chains {
		add50, add99 := measure.Median(c.p50)-measure.Median(direct.p50), measure.Median(c.p99)-measure.Median(direct.p99)
		fmt.Printf("%-36s%14.0f%14.0f%14.0f%14.0f%14.0f\n", c.name, measure.Median(c.p50), measure.Median(c.p99), add50, add99, measure.Median(c.us))
		if c.name == "two of loam" {
			verdicts = append(verdicts, goal("two paced hops, added p50", add50, "µs", 200), goal("two paced hops, added p99", add99, "µs", 1000))
		}
	}
	return verdicts, nil
}

// paced sends n requests over 16 connections at 1,000 a second, each at its time whether the one before was answered or
// not, and tells the latencies in µs.
func paced(address string) (p50, p99 float64, n int, err error) {
	const conns, rate, seconds = 16, 1000, 3
	var mu sync.Mutex
	var took []float64
	var wg sync.WaitGroup
	errs := make(chan error, conns)
	start := time.Now().Add(50 * time.Millisecond)
	for i := range conns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return 0, 0, 0, err
		}
		wg.Go(func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for n := i; n < rate*seconds; n += conns {
				due := start.Add(time.Duration(n) * time.Second / rate)
				time.Sleep(time.Until(due))
				sent := time.Now()
				if _, err := io.WriteString(c, "GET /128 HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
					errs <- err
					return
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					errs <- err
					return
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					errs <- err
					return
				}
				if n > rate/2 {
					mu.Lock()
					took = append(took, float64(time.Since(sent).Nanoseconds())/1000)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return 0, 0, 0, err
	default:
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100], rate * seconds, nil
}

// unpin lets processes run on every core.
func unpin(pids ...int) error {
	for _, pid := range pids {
		if out, err := exec.Command("taskset", "-a", "-p", "-c", "0-"+strconv.Itoa(cores-1), strconv.Itoa(pid)).CombinedOutput(); err != nil {
			return fmt.Errorf("taskset: %w\n%s", err, out)
		}
	}
	return nil
}

// cores there are: counted before this process keeps to one of them.
var cores = runtime.NumCPU()

// free is an address that nobody listens at.
func free() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func reachable(address string) error {
	began := time.Now()
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		if time.Since(began) > 10*time.Second {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func certificate(dir string) (cert, key string, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"bench", "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	if err != nil {
		return "", "", err
	}
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return cert, key, errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk}), 0o644))
}

// ratio is the median of the ratios of turns that followed each other: the machine was the same for both.
func ratio(a, b []float64) float64 {
	var r []float64
	for i := range min(len(a), len(b)) {
		r = append(r, a[i]/b[i])
	}
	return measure.Median(r)
}

func goal(name string, value float64, unit string, most float64) string {
	verdict := "ok"
	if value > most {
		verdict = "short"
	}
	return fmt.Sprintf("%s\t%.2f\t%s\t≤%g\t%s\n", name, value, unit, most, verdict)
}
