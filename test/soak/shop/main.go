// Command shop places the customer's orders at the shop while its process is killed again and again. It serves
// examples/shop with bin/loam on a data directory of its own, kills it with SIGKILL at random moments, starts it anew,
// and passes on the customer's verdict: stock adds up, no order is lost or closed twice.
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
	"syscall"
	"time"

	"github.com/loam-run/loam/test/measure"
)

func main() {
	var s soak
	flag.StringVar(&s.loam, "loam", "bin/loam", "the binary")
	flag.StringVar(&s.shop, "shop", "examples/shop", "the shop's resources")
	flag.IntVar(&s.kills, "kills", 5, "how often to kill the process")
	flag.IntVar(&s.orders, "orders", 1000, "how many orders to place")
	flag.IntVar(&s.parallel, "parallel", 16, "how many at a time")
	flag.Parse()
	if err := s.run(); err != nil {
		fmt.Fprintln(os.Stderr, "soak-shop: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("soak-shop: ok")
}

type soak struct {
	loam, shop              string
	kills, orders, parallel int
}

func (s soak) run() (err error) {
	dir, err := os.MkdirTemp("", "soak-shop-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	customer := filepath.Join(dir, "customer")
	if err := run(exec.Command("go", "build", "-o", customer, "./examples/shop/customer")); err != nil {
		return err
	}
	if err := run(exec.Command(s.loam, "build", s.shop)); err != nil {
		return err
	}
	address, err := measure.FreeAddress()
	if err != nil {
		return err
	}
	shop, err := s.start(dir, address)
	if err != nil {
		return err
	}
	defer func() {
		_ = shop.Process.Signal(syscall.SIGTERM) // it may be gone
		if e := shop.Wait(); e != nil {
			err = errors.Join(err, fmt.Errorf("the shop did not end cleanly: %w", e))
		}
	}()

	buy := exec.Command(customer, "-url", "http://"+address, "-orders", fmt.Sprint(s.orders), "-parallel", fmt.Sprint(s.parallel), "-patience", "5m")
	buy.Stdout, buy.Stderr = os.Stdout, os.Stderr
	if err := buy.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- buy.Wait() }()
	for kill := 1; kill <= s.kills; kill++ {
		select {
		case err := <-done:
			return errors.Join(err, fmt.Errorf("all orders were closed after %d kills of %d: ask for more orders", kill-1, s.kills))
		case <-time.After(200*time.Millisecond + rand.N(400*time.Millisecond)):
		}
		start := time.Now()
		if err := shop.Process.Kill(); err != nil {
			return err
		}
		_ = shop.Wait() // killed, as asked
		if shop, err = s.start(dir, address); err != nil {
			_ = buy.Process.Kill()
			return err
		}
		fmt.Printf("kill %d of %d: serving again after %d ms\n", kill, s.kills, time.Since(start).Milliseconds())
	}
	return <-done
}

// start serves the shop and waits for its first answer.
func (s soak) start(dir, address string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(dir, "shop.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(s.loam, "run", "--data", filepath.Join(dir, "data"), "--listen", address, s.shop)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/stock", nil)
		if err != nil {
			return nil, err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return cmd, nil
			}
		}
		select {
		case <-ctx.Done():
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("the shop does not answer; it said:\n%s", text)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func run(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
