// Command ledger calls functions while their process is killed again and again, and compares what the usage ledger says
// with what was answered: every call whose answer came is in it exactly once, whole, and of the calls that a kill cut
// off, each is in it whole or not at all.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/internal/build"
	"github.com/loam-run/loam/test/measure"
)

func main() {
	var s soak
	flag.StringVar(&s.loam, "loam", "bin/loam", "the binary")
	flag.IntVar(&s.kills, "kills", 20, "how often to kill the process")
	flag.IntVar(&s.workers, "workers", 12, "how many call at a time")
	flag.DurationVar(&s.load, "load", 400*time.Millisecond, "how long, on average, between a start and a kill")
	flag.Parse()
	if err := s.run(); err != nil {
		fmt.Fprintln(os.Stderr, "soak-ledger: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("soak-ledger: ok")
}

type soak struct {
	loam           string
	kills, workers int
	load           time.Duration

	dir, address string
}

// A sum is what is compared.
type sum struct{ calls, failed, in, out, capability int64 }

func (s sum) plus(t sum) sum {
	return sum{s.calls + t.calls, s.failed + t.failed, s.in + t.in, s.out + t.out, s.capability + t.capability}
}

// An account is one function, as its only caller sees it.
type account struct {
	function string
	answered sum
	open     *sum // the call that the last kill cut off; nil: it cut off none
}

// A worker makes one call at a time: of a function of its own, or of two, the first of which calls the second.
type worker struct {
	n        int64 // calls that were begun
	accounts []*account
}

func (s soak) run() (err error) {
	if s.dir, err = os.MkdirTemp("", "soak-ledger-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	if s.address, err = measure.FreeAddress(); err != nil {
		return err
	}
	workers, err := s.prepare()
	if err != nil {
		return err
	}
	cut := 0
	for kill := 0; ; kill++ {
		loam, err := s.start()
		if err != nil {
			return err
		}
		settled, err := s.compare(workers)
		if err != nil {
			_ = loam.Process.Kill()
			_ = loam.Wait()
			return fmt.Errorf("after %d kills: %w", kill, err)
		}
		cut += settled
		if kill == s.kills {
			if err := loam.Process.Signal(syscall.SIGTERM); err != nil {
				return err
			}
			if err := loam.Wait(); err != nil {
				return fmt.Errorf("it did not end cleanly: %w", err)
			}
			break
		}
		ctx, stop := context.WithCancelCause(context.Background())
		var load sync.WaitGroup
		for _, w := range workers {
			load.Go(func() {
				if err := s.call(ctx, w); err != nil {
					stop(err)
				}
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.load/2 + rand.N(s.load)):
		}
		err = loam.Process.Kill()
		_ = loam.Wait() // killed, as asked
		load.Wait()
		stop(nil)
		if err != nil {
			return err
		}
		if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
			return err
		}
	}
	var total sum
	for _, w := range workers {
		for _, a := range w.accounts {
			total = total.plus(a.answered)
			if a.answered.calls == 0 {
				return fmt.Errorf("%s was never called", a.function)
			}
		}
	}
	fmt.Printf("after %d kills the ledger has %d calls of %d functions, %d bytes in, %d bytes out, %d capability calls: what was answered, and %d calls that a kill cut off\n",
		s.kills, total.calls, len(workers)+len(workers)/3, total.in, total.out, total.capability, cut)
	return nil
}

// prepare builds the function and declares it under a name for each worker, two for every third.
func (s soak) prepare() ([]*worker, error) {
	module := filepath.Join(s.dir, "fn.wasm")
	if err := build.Go(context.Background(), build.Job{Name: "fn", Dir: "test/soak/ledger/testdata/fn", Out: module, Wasm: true}); err != nil {
		return nil, err
	}
	var workers []*worker
	var yaml strings.Builder
	declare := func(name string) *account {
		fmt.Fprintf(&yaml, `
apiVersion: loam.dev/v1alpha1
kind: Function
metadata: {name: %[1]s}
spec:
  file: %[2]s
  grants:
    - {capability: state, access: read}
    - {capability: invoke}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %[1]s}
spec:
  hostnames: [%[1]s.test]
  rules: [{backendRefs: [{name: %[1]s}]}]
---
`, name, module)
		return &account{function: name}
	}
	for i := range s.workers {
		w := &worker{accounts: []*account{declare(fmt.Sprint("f", i))}}
		if i%3 == 2 {
			w.accounts = append(w.accounts, declare(fmt.Sprint("behind-f", i)))
		}
		workers = append(workers, w)
	}
	return workers, os.WriteFile(filepath.Join(s.dir, "ledger.yaml"), []byte(yaml.String()), 0o600)
}

// call makes calls until the process is gone. Each call takes another amount of everything.
func (s soak) call(ctx context.Context, w *worker) error {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for {
		w.n++
		in, out, calls := 1+w.n%997, 1+w.n%499, w.n%3
		took := []sum{{calls: 1, in: in, out: out, capability: calls}}
		path := "/work"
		if len(w.accounts) == 2 {
			path = "/pass/" + w.accounts[1].function
			took = []sum{{calls: 1, in: in, out: out, capability: 1}, took[0]}
		}
		status, n, err := post(ctx, client, fmt.Sprintf("http://%s%s?bytes=%d&calls=%d", s.address, path, out, calls), w.accounts[0].function+".test", in)
		var dial *net.OpError
		switch {
		case errors.As(err, &dial) && dial.Op == "dial":
			return nil // it did not get there
		case err != nil:
			for i, a := range w.accounts {
				a.open = &took[i]
			}
			return nil
		case status != http.StatusOK || n != out:
			return fmt.Errorf("%s answered %d with %d bytes, not 200 with %d", w.accounts[0].function, status, n, out)
		}
		for i, a := range w.accounts {
			a.answered = a.answered.plus(took[i])
		}
	}
}

func post(ctx context.Context, client *http.Client, url, host string, n int64) (status int, length int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(make([]byte, n)))
	if err != nil {
		return 0, 0, err
	}
	req.Host = host
	res, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	length, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, length, errors.Join(err, res.Body.Close())
}

// compare holds the ledger against the accounts, which agree afterwards, and returns how many of the calls that were cut
// off are in it.
func (s soak) compare(workers []*worker) (cut int, err error) {
	client, err := admin.Dial(filepath.Join(s.dir, "data"))
	if err != nil {
		return 0, err
	}
	lines, err := client.Usage(context.Background(), "", time.Time{}, "")
	if err != nil {
		return 0, err
	}
	ledger := map[string]sum{}
	for _, l := range lines {
		ledger[l.Function] = sum{l.Calls, l.Failed, l.RequestBytes, l.ResponseBytes, l.CapabilityCalls}
	}
	for _, w := range workers {
		for _, a := range w.accounts {
			got := ledger[a.function]
			switch {
			case got == a.answered:
			case a.open != nil && got == a.answered.plus(*a.open):
				a.answered = got
				cut++
			default:
				return 0, fmt.Errorf("%s: the ledger has %+v; answered were %+v, cut off was %+v", a.function, got, a.answered, a.open)
			}
			a.open = nil
		}
	}
	return cut, nil
}

// start serves and waits until it does.
func (s soak) start() (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(s.dir, "loam.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(s.loam, "run", "--data", filepath.Join(s.dir, "data"), "--listen", s.address, filepath.Join(s.dir, "ledger.yaml"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(time.Minute)
	for {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			return cmd, c.Close()
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("it does not listen; it said:\n%s", text)
		}
		<-time.After(5 * time.Millisecond)
	}
}
