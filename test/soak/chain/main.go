//go:build linux

// Command chain asks three functions that call each other, each by a clean instance, two million times, and verifies
// every body: no answer may be another request's, and no guest may find in its memory what a request before it left.
//
// It needs clang and wasm-ld (make sdk installs them).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/loam-run/loam/internal/build"
	"github.com/loam-run/loam/test/measure"
)

func main() {
	var s soak
	flag.StringVar(&s.loam, "loam", "bin/loam", "the binary")
	flag.StringVar(&s.source, "guests", "test/soak/chain", "folder of the guests' sources")
	flag.Int64Var(&s.requests, "requests", 2_000_000, "how many requests")
	flag.IntVar(&s.parallel, "parallel", 64, "how many at a time")
	flag.Parse()
	if err := s.run(); err != nil {
		fmt.Fprintln(os.Stderr, "soak-chain: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("soak-chain: ok")
}

type soak struct {
	loam, source string
	requests     int64
	parallel     int

	address string
}

const resources = `
apiVersion: loam.dev/v1alpha1
kind: Function
metadata: {name: front}
spec: {file: %[1]s, grants: [{capability: invoke, names: [middle]}]}
---
apiVersion: loam.dev/v1alpha1
kind: Function
metadata: {name: middle}
spec: {file: %[2]s, grants: [{capability: invoke, names: [back]}]}
---
apiVersion: loam.dev/v1alpha1
kind: Function
metadata: {name: back}
spec: {file: %[1]s}
---
apiVersion: loam.dev/v1alpha1
kind: Function
metadata: {name: keeping}
spec: {file: %[1]s, isolation: shared}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: front}
spec:
  hostnames: [front.test]
  rules: [{backendRefs: [{kind: Function, name: front}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: keeping}
spec:
  hostnames: [keeping.test]
  rules: [{backendRefs: [{kind: Function, name: keeping}]}]
`

func (s *soak) run() (err error) {
	dir, err := os.MkdirTemp("", "soak-chain-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, name := range []string{"ends", "middle"} {
		job := build.Job{Name: name, Dir: filepath.Join(s.source, name), Out: filepath.Join(dir, name+".wasm"), Wasm: true}
		if err := build.Run(context.Background(), job); err != nil {
			return err
		}
	}
	file := filepath.Join(dir, "chain.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, resources, filepath.Join(dir, "ends.wasm"), filepath.Join(dir, "middle.wasm")), 0o600); err != nil {
		return err
	}
	if s.address, err = measure.FreeAddress(); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.loam, "run", "--data", filepath.Join(dir, "data"), "--listen", s.address, file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
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
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if err = s.once(http.DefaultClient, 0); err == nil {
			break
		}
		if time.Since(began) > time.Minute {
			return fmt.Errorf("it does not answer: %w", err)
		}
	}
	if err := s.control(); err != nil {
		return err
	}
	return s.load(cmd.Process.Pid)
}

// control proves that the guests find a mark that is there: an instance that is kept has that of the request before.
func (s *soak) control() error {
	for _, want := range []int{200, 500} {
		status, body, err := s.ask(http.DefaultClient, "keeping", "/back", "loam-mark:control")
		if err != nil {
			return err
		}
		if status != want {
			return fmt.Errorf("a function that keeps its memory answered %d, not %d: %s", status, want, body)
		}
	}
	return nil
}

func (s *soak) load(pid int) error {
	var sent, wrong atomic.Int64
	var group sync.WaitGroup
	began := time.Now()
	for range s.parallel {
		group.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
			defer client.CloseIdleConnections()
			for {
				n := sent.Add(1)
				if n > s.requests {
					return
				}
				if err := s.once(client, n); err != nil && wrong.Add(1) <= 10 {
					fmt.Println("wrong:", err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	var rss []float64
	for finished := false; !finished; {
		select {
		case <-tick.C:
		case <-done:
			finished = true
		}
		bytes, err := measure.RSS(pid)
		if err != nil {
			return err
		}
		mb := bytes / 1e6
		rss = append(rss, mb)
		n := min(sent.Load(), s.requests)
		fmt.Printf("%d requests, %.0f a second, %d wrong, %.1f MB\n", n, float64(n)/time.Since(began).Seconds(), wrong.Load(), mb)
	}
	third := len(rss) / 3
	early, late := measure.Median(rss[third:max(2*third, third+1)]), measure.Median(rss[2*third:])
	switch {
	case wrong.Load() > 0:
		return fmt.Errorf("%d of %d answers were wrong", wrong.Load(), s.requests)
	case late > early*1.1+8:
		return fmt.Errorf("memory grew from %.1f to %.1f MB", early, late)
	}
	return nil
}

// once sends a body that no other request has and verifies the answer.
func (s *soak) once(client *http.Client, n int64) error {
	random := rand.New(rand.NewPCG(rand.Uint64(), uint64(n)))
	var b strings.Builder
	for length := 32 + random.IntN(2000); b.Len() < length; {
		b.WriteString("loam-mark:" + strconv.FormatInt(n, 10) + ":" + strconv.FormatUint(random.Uint64(), 36) + ";")
	}
	sent := b.String()
	status, body, err := s.ask(client, "front", "/front", sent)
	if err != nil {
		return err
	}
	reversed := []byte(sent)
	slices.Reverse(reversed)
	if status != 200 || body != "f:m:"+string(reversed) {
		return fmt.Errorf("request %d: %d %.200q, sent %.100q", n, status, body, sent)
	}
	return nil
}

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
