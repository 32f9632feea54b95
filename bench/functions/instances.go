package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/test/measure"
	"github.com/loam-run/loam/wasm"
)

// A contender does one thing, for as long as a turn is, and tells the µs of processor time that it took each time.
type contender struct {
	name string
	turn func(length time.Duration) (us float64, err error)
}

// by is a contender of this process.
func by(name string, op func() error) contender {
	return contender{name, func(length time.Duration) (float64, error) { return turn(length, op) }}
}

// contest lets contenders take turns, and returns the medians in their order.
func (b *bench) contest(all []contender) ([]float64, error) {
	got := make([][]float64, len(all))
	for round := range b.rounds + 1 { // the first warms up
		for i, c := range all {
			us, err := c.turn(b.length / 20)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				got[i] = append(got[i], us)
			}
		}
	}
	medians := make([]float64, len(all))
	for i := range got {
		medians[i] = measure.Median(got[i])
	}
	return medians, nil
}

// instances measures what a clean instance costs: an empty guest in each language, and a request with JSON in Go.
func (b *bench) instances(ctx context.Context) error {
	host, err := wasm.NewHost(wasm.Options{CacheDir: filepath.Join(b.dir, "cache")})
	if err != nil {
		return err
	}
	defer host.Close()
	v8, err := startV8(b.dir)
	if err != nil {
		return err
	}
	defer v8.stop()
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return err
	}

	fmt.Printf("%-34s%14s%14s%14s%14s%14s\n", "an empty guest, µs of CPU", "fork, close", "clean call", "no reset", "wazero", "node's V8")
	for _, kind := range kinds() {
		path, err := b.guest(ctx, "empty", kind)
		if err != nil {
			return err
		}
		all, done, err := emptyGuest(ctx, host, rt, v8, path)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		us, err := b.contest(all)
		if err := errors.Join(err, done()); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		fmt.Printf("%-34s", kind)
		for i, v := range us {
			text := fmt.Sprintf("%.2f", v)
			if i > 2 {
				text = fmt.Sprintf("%.1f (%.0fx)", v, v/us[1])
			}
			fmt.Printf("%14s", text)
		}
		fmt.Println()
		if kind == "go" {
			b.goal("empty clean Go call", us[1], "µs of CPU", 1.5)
		}
	}
	if err := b.kernelPart(); err != nil {
		return fmt.Errorf("the kernel's part: %w", err)
	}
	if err := b.freshFork(ctx, host); err != nil {
		return err
	}
	return b.jsonRequest(ctx, host)
}

// emptyGuest are the ways to have an empty guest called once by an instance that nobody used before, and one without.
func emptyGuest(ctx context.Context, host *wasm.Host, rt wazero.Runtime, v8 *v8, path string) ([]contender, func() error, error) {
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	clean, err := host.Compile(ctx, "clean", binary, wasm.Config{})
	if err != nil {
		return nil, nil, err
	}
	shared, err := host.Compile(ctx, "shared", binary, wasm.Config{Isolation: wasm.IsolationShared})
	if err != nil {
		return nil, nil, err
	}
	plain, err := rt.CompileModule(ctx, binary)
	if err != nil {
		return nil, nil, err
	}
	req := request(ctx, nil)
	call := func(m *wasm.Module) func() error {
		return func() error {
			resp, err := m.Serve(req)
			if err != nil {
				return err
			}
			return resp.Close()
		}
	}
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	once := func() error {
		m, err := rt.InstantiateModule(ctx, plain, config)
		if err != nil {
			return err
		}
		defer m.Close(ctx)
		for _, name := range []string{"_initialize", "loam_serve"} {
			if f := m.ExportedFunction(name); f != nil {
				if err := f.CallWithStack(ctx, nil); err != nil {
					return err
				}
			}
		}
		return nil
	}
	fork := func() error {
		release, err := clean.Hold(ctx)
		if err != nil {
			return err
		}
		release()
		return nil
	}
	all := []contender{
		by("fork", fork), by("clean call", call(clean)), by("no reset", call(shared)), by("wazero", once),
		{"V8", func(length time.Duration) (float64, error) { return v8.turn(path, length) }},
	}
	return all, func() error {
		req.Release()
		return errors.Join(clean.Close(ctx), shared.Close(ctx), plain.Close(ctx))
	}, nil
}

// request is one as a listener makes it.
func request(ctx context.Context, body []byte) *loam.Request {
	r := loam.NewRequest(ctx)
	r.Method, r.Scheme, r.Authority, r.Path, r.ID = "GET", "http", "localhost", "/", "r-1"
	if body != nil {
		r.Method, r.Length = "POST", int64(len(body))
		r.Header.Add("Content-Type", "application/json")
	}
	return r
}

// freshFork measures how long one fork of a Go guest takes, which is what a burst of requests waits for.
func (b *bench) freshFork(ctx context.Context, host *wasm.Host) (err error) {
	path, err := b.guest(ctx, "empty", "go")
	if err != nil {
		return err
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	m, err := host.Compile(ctx, "fork", binary, wasm.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close(ctx)) }()
	var took []float64
	for range 2000 {
		began := time.Now()
		release, err := m.Hold(ctx)
		took = append(took, float64(time.Since(began).Nanoseconds())/1000)
		if err != nil {
			return err
		}
		release()
	}
	slices.Sort(took)
	fmt.Printf("%-34s%14s\n", "one fork of Go, µs: least p50 p99", fmt.Sprintf("%.1f %.1f %.1f", took[0], took[len(took)/2], took[len(took)*99/100]))
	b.goal("fresh fork of Go, p50", took[len(took)/2], "µs", 10)
	return nil
}

const order = `{"items":[{"id":1,"name":"widget","price":9.5},{"id":2,"name":"gadget","price":3.25},{"id":3,"name":"doohickey","price":7}]}`

// jsonRequest measures what a clean instance adds to a request that does something.
func (b *bench) jsonRequest(ctx context.Context, host *wasm.Host) (err error) {
	path, err := b.guest(ctx, "json", "go")
	if err != nil {
		return err
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	warm := &wasm.Warmup{Method: "POST", Path: "/", Body: []byte(order)}
	var all []contender
	for _, c := range []struct {
		name   string
		config wasm.Config
	}{
		{"clean", wasm.Config{Warmup: warm}},
		{"no reset", wasm.Config{Warmup: warm, Isolation: wasm.IsolationShared}},
		{"clean, not warmed up", wasm.Config{}},
	} {
		m, err := host.Compile(ctx, c.name, binary, c.config)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.Close(ctx)) }()
		req := request(ctx, []byte(order))
		defer req.Release()
		body := strings.NewReader(order)
		all = append(all, by(c.name, func() error {
			body.Reset(order)
			req.Body = io.NopCloser(body)
			resp, err := m.Serve(req)
			if err != nil {
				return err
			}
			if resp.Status != 200 {
				return fmt.Errorf("status %d", resp.Status)
			}
			return resp.Close()
		}))
	}
	us, err := b.contest(all)
	if err != nil {
		return err
	}
	fmt.Printf("\n%-34s%14s%14s%14s\n", "a request with JSON, µs of CPU", "", "clean call", "no reset")
	fmt.Printf("%-34s%14s%14.1f%14.1f\n", "go, warmed up", "", us[0], us[1])
	fmt.Printf("%-34s%14s%14.1f\n", "go, not warmed up", "", us[2])
	b.goal("JSON request in Go, clean over no reset", us[0]/us[1], "x", 1.1)
	return nil
}

//go:embed v8.mjs
var v8Script []byte

// v8 is a node that instantiates modules when it is told.
type v8 struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startV8(dir string) (*v8, error) {
	script := filepath.Join(dir, "v8.mjs")
	if err := os.WriteFile(script, v8Script, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("node", "--no-warnings", script)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &v8{cmd, in, bufio.NewReader(out)}, cmd.Start()
}

func (v *v8) turn(path string, length time.Duration) (float64, error) {
	if _, err := fmt.Fprintln(v.in, path, length.Milliseconds()); err != nil {
		return 0, err
	}
	line, err := v.out.ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(line), 64)
}

func (v *v8) stop() {
	_ = v.in.Close() // it ends with its input
	_ = v.cmd.Wait()
}
