// Command reload changes the routes of a running Loam every second, a thousand of them, while thousands of connections
// are idle and others send requests: no request may fail, and memory must stay flat.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/loam-run/loam/test/measure"
)

func main() {
	var s soak
	flag.StringVar(&s.loam, "loam", "bin/loam", "the binary")
	flag.IntVar(&s.idle, "idle", 10_000, "idle keep-alive connections")
	flag.IntVar(&s.routes, "routes", 1000, "routes")
	flag.DurationVar(&s.length, "for", 5*time.Minute, "how long")
	flag.Parse()
	if err := s.run(); err != nil {
		fmt.Fprintln(os.Stderr, "soak-reload: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("soak-reload: ok")
}

type soak struct {
	loam         string
	address      string
	idle, routes int
	length       time.Duration
}

func (s soak) run() (err error) {
	if err := moreFiles(s.idle + 500); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "soak-reload-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("X-Generation")) }))
	defer up.Close()
	address, err := measure.FreeAddress()
	if err != nil {
		return err
	}
	s.address = address
	file := filepath.Join(dir, "routes.yaml")
	if err := s.write(file, up.Listener.Addr().String(), 0); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.loam, "run", "--data", filepath.Join(dir, "data"), file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone
		if e := cmd.Wait(); e != nil {
			err = errors.Join(err, fmt.Errorf("it did not end cleanly: %w", e))
		}
		if err != nil {
			text, _ := os.ReadFile(log.Name())
			fmt.Fprintf(os.Stderr, "it said:\n%s\n", text[max(0, len(text)-4000):])
		}
	}()
	if err := answers(address); err != nil {
		return err
	}

	idle, err := connections(address, s.idle)
	if err != nil {
		return err
	}
	fmt.Printf("%d connections are idle\n", len(idle))
	ctx, stop := context.WithTimeout(context.Background(), s.length)
	defer stop()
	var load sync.WaitGroup
	var requests, failed, seen atomic.Int64
	fail := func(err error) {
		if failed.Add(1) <= 10 {
			fmt.Println("request failed:", err)
		}
	}
	for worker := range 8 {
		load.Go(func() {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			for n := worker; ctx.Err() == nil; n++ {
				res, err := (&http.Client{Transport: tr}).Get("http://" + address + "/route" + strconv.Itoa(n%s.routes) + "/x")
				requests.Add(1)
				if err != nil {
					fail(err)
					continue
				}
				b, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || res.StatusCode != http.StatusOK {
					fail(fmt.Errorf("%d %s %w", res.StatusCode, b, err))
				}
				if g, err := strconv.ParseInt(string(b), 10, 64); err == nil {
					seen.Store(max(seen.Load(), g))
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var rss []float64
	generation := 0
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			generation++
			if err := s.write(file, up.Listener.Addr().String(), generation); err != nil {
				return err
			}
			bytes, err := measure.RSS(cmd.Process.Pid)
			if err != nil {
				return err
			}
			rss = append(rss, bytes/(1<<20))
			if generation%30 == 0 {
				fmt.Printf("after %d s: %.1f MB, %d requests, %d failed, generation %d is served\n", generation, bytes/(1<<20), requests.Load(), failed.Load(), seen.Load())
			}
		case <-ctx.Done():
		}
	}
	load.Wait()
	for i, c := range idle { // each still serves
		if err := ask(c); err != nil {
			return fmt.Errorf("idle connection %d: %w", i, err)
		}
		_ = c.Close()
	}
	third := len(rss) / 3
	early, late := measure.Median(rss[third:2*third]), measure.Median(rss[2*third:])
	fmt.Printf("%d reloads of %d routes, %d requests, %d failed; memory %.1f MB in the second third, %.1f in the last\n", generation, s.routes, requests.Load(), failed.Load(), early, late)
	switch {
	case failed.Load() > 0:
		return fmt.Errorf("%d requests failed", failed.Load())
	case seen.Load() < int64(generation)*8/10:
		return fmt.Errorf("of %d generations the last that was served is %d", generation, seen.Load())
	case late > early*1.1+1:
		return fmt.Errorf("memory grew from %.1f to %.1f MB", early, late)
	}
	return nil
}

// gateway lets connections be idle for longer than the soak takes.
const gateway = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: loam
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, protocol: HTTP, port: %s}]
---
apiVersion: loam.dev/v1alpha1
kind: Policy
metadata: {name: patient}
spec:
  targetRefs: [{kind: Gateway, name: web}]
  connections: {idleTimeout: 1h}
---
`

// write puts a generation of routes in the place of the one before, at once.
func (s soak) write(file, upstream string, generation int) error {
	var b bytes.Buffer
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	fmt.Fprintf(&b, gateway, port)
	fmt.Fprintf(&b, "apiVersion: loam.dev/v1alpha1\nkind: Service\nmetadata: {name: up}\nspec: {endpoints: [{address: %q}]}\n", upstream)
	const most = 16 // rules of a route, as the Gateway API has it
	for i := 0; i < s.routes; i += most {
		fmt.Fprintf(&b, "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r%d}\nspec:\n  parentRefs: [{name: web}]\n  rules:\n", i)
		for n := i; n < min(i+most, s.routes); n++ {
			fmt.Fprintf(&b, "    - matches: [{path: {value: /route%d}}]\n      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Generation, value: \"%d\"}]}}]\n      backendRefs: [{kind: Service, name: up}]\n", n, generation)
		}
	}
	if err := os.WriteFile(file+".new", b.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// connections opens idle ones. The kernel does not ask at this end whether the other is there: all would be asked in the
// same moment, on a loopback that has room for 1,000 packets, and what is asked in vain nine times is reset.
func connections(address string, n int) ([]net.Conn, error) {
	var all []net.Conn
	dialer := net.Dialer{KeepAlive: -1}
	for range n {
		c, err := dialer.Dial("tcp", address)
		if err != nil {
			return nil, err
		}
		if err := ask(c); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// ask sends a request on a connection and reads the answer.
func ask(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "GET /route0 HTTP/1.1\r\nHost: soak\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err = io.Copy(io.Discard, res.Body); err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", res.StatusCode)
	}
	return err
}

func answers(address string) error {
	began := time.Now()
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			err = ask(c)
			_ = c.Close()
		}
		if err == nil || time.Since(began) > 20*time.Second {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func moreFiles(n int) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if l.Cur = l.Max; l.Cur < uint64(n) {
		return fmt.Errorf("at most %d files may be open here: raise the limit (ulimit -Hn), or ask for fewer connections", l.Cur)
	}
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}
