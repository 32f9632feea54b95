package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/loam-run/loam/test/measure"
	"github.com/loam-run/loam/wasm"
)

// cold measures the first request of a function that an earlier process has compiled: the code from disk, a first start,
// its image, a fork, the call.
func (b *bench) cold(ctx context.Context) error {
	fmt.Printf("%-34s%14s%14s\n", "first request, from disk, ms", "median", "least")
	for _, kind := range kinds() {
		path, err := b.guest(ctx, "empty", kind)
		if err != nil {
			return err
		}
		binary, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var took []float64
		least := 1e9
		for n := range 10*b.rounds + 1 { // the first compiles
			ms, err := b.firstRequest(ctx, binary)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			if n > 0 {
				took = append(took, ms)
				least = min(least, ms)
			}
		}
		fmt.Printf("%-34s%14.2f%14.2f\n", kind, measure.Median(took), least)
		if kind == "c" || kind == "rust" {
			b.goal("first request from disk, "+kind, measure.Median(took), "ms", 1.5)
		}
	}
	return nil
}

func (b *bench) firstRequest(ctx context.Context, binary []byte) (ms float64, err error) {
	host, err := wasm.NewHost(wasm.Options{CacheDir: filepath.Join(b.dir, "cache-cold")})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	m, err := host.Compile(ctx, "cold", binary, wasm.Config{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Close(ctx)) }()
	req := request(ctx, nil)
	defer req.Release()
	began := time.Now()
	resp, err := m.Serve(req)
	if err != nil {
		return 0, err
	}
	ms = float64(time.Since(began).Microseconds()) / 1000
	return ms, resp.Close()
}
