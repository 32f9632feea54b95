package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/tetratelabs/wazero"
)

// What an instance may see of earlier requests.
const (
	IsolationRequest = "request" // a fresh instance for each request
	IsolationShared  = "shared"  // an instance serves many requests, one after the other
)

// ready is how many fresh instances are kept ahead of the requests that will need them.
const ready = 2

// A Config says how a function runs.
type Config struct {
	ABI         string            // default loam
	Isolation   string            // default IsolationRequest
	Env         map[string]string // all the environment it sees
	Memory      int64             // bytes, rounded down to 64 KiB; default 128 MiB
	Timeout     time.Duration     // of a request, its start and its wait included; default 30 s
	Concurrency int               // requests served at once; default 64
	Queue       int               // requests that may wait beyond those; default 16 times as many
	MaxRequest  int64             // bytes of a request's body; default 16 MiB
	MaxResponse int64             // bytes of a response's body; default 16 MiB
	Interpret   bool              // make no native code: ready in a tenth of the time, and many times slower from then on
	Methods     loam.Methods      // the capability calls it may make
	Caller      *loam.Caller      // as whom
}

func (c Config) withDefaults() Config {
	orDefault(&c.ABI, "loam")
	orDefault(&c.Isolation, IsolationRequest)
	orDefault(&c.Memory, 128<<20)
	orDefault(&c.Timeout, 30*time.Second)
	orDefault(&c.Concurrency, 64)
	orDefault(&c.Queue, 16*c.Concurrency)
	orDefault(&c.MaxRequest, 16<<20)
	orDefault(&c.MaxResponse, 16<<20)
	return c
}

func orDefault[T comparable](v *T, d T) {
	if *v == *new(T) {
		*v = d
	}
}

// A Module is a compiled function with its instances. It is safe for concurrent use.
type Module struct {
	name     string
	config   Config
	log      *slog.Logger
	lines    limiter // of guests' log lines
	abi      abi
	runtime  wazero.Runtime
	compiled wazero.CompiledModule

	slots   chan struct{} // one element for each request being served
	waiting atomic.Int64  // requests that want a slot

	mu   sync.Mutex
	idle []*instance // the last one in is the first one out: it is the warmest

	life context.Context // ends with Close; instances ahead are made in it
	end  context.CancelFunc
	want chan struct{} // tells fill that an instance was taken
	done sync.WaitGroup
}

func newModule(h *Host, name string, c Config) *Module {
	m := &Module{
		name: name, config: c, log: h.log.With("function", name),
		slots: make(chan struct{}, c.Concurrency), want: make(chan struct{}, 1),
	}
	m.life, m.end = context.WithCancel(context.Background())
	return m
}

func (m *Module) op() string { return fmt.Sprintf("function %q", m.name) }

// Serve answers one request by an instance. It returns when the guest is done, or at the earlier of the request's
// deadline and the function's timeout.
func (m *Module) Serve(req *loam.Request) (*loam.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), m.config.Timeout)
	defer cancel()
	body, err := m.readBody(req)
	if err != nil {
		return nil, err
	}
	if err := m.enter(ctx, req.ID); err != nil {
		return nil, err
	}
	defer func() { <-m.slots }()
	i, err := m.take(ctx)
	if err != nil {
		return nil, err
	}
	i.begin(ctx, req.ID)
	resp, err := i.serve(ctx, req, body)
	i.flush()
	// After its context ended the engine may close an instance at any moment, so that one is not used again either.
	if err == nil && m.config.Isolation == IsolationShared && ctx.Err() == nil {
		i.begin(m.life, "")
		m.put(i)
	} else {
		i.close()
	}
	if err != nil {
		return nil, m.failure(ctx, "request "+req.ID, err)
	}
	return resp, nil
}

// readBody reads the body before an instance is taken: a slow sender must not hold one.
func (m *Module) readBody(req *loam.Request) ([]byte, error) {
	if req.Body == nil || req.Length == 0 {
		return nil, nil
	}
	limit := m.config.MaxRequest
	tooLarge := &loam.Error{
		Code: loam.InvalidArgument, Op: m.op(), Err: fmt.Errorf("the request's body is larger than %d bytes: %w", limit, &http.MaxBytesError{Limit: limit}), // the edge knows it: 413
	}
	if req.Length > limit {
		return nil, tooLarge
	}
	var body []byte
	var err error
	if req.Length > 0 && req.Length <= 64<<10 { // announced and small: no growing
		body = make([]byte, req.Length)
		_, err = io.ReadFull(req.Body, body)
	} else {
		body, err = io.ReadAll(io.LimitReader(req.Body, limit+1))
	}
	if err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: m.op(), Err: fmt.Errorf("read the request's body: %w", err)}
	}
	if int64(len(body)) > limit {
		return nil, tooLarge
	}
	return body, nil
}

// enter takes a slot, or waits for one in a queue of bounded length.
func (m *Module) enter(ctx context.Context, id string) error {
	select {
	case m.slots <- struct{}{}:
		return nil
	default:
	}
	defer m.waiting.Add(-1)
	if m.waiting.Add(1) > int64(m.config.Queue) {
		return &loam.Error{
			Code: loam.ResourceExhausted, Op: m.op(),
			Err:  fmt.Errorf("%d requests are being served and %d wait", m.config.Concurrency, m.config.Queue),
			Hint: "raise its spec.concurrency, or send less",
		}
	}
	select {
	case m.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &loam.Error{
			Code: loam.CodeOf(ctx.Err()), Op: m.op(), Err: fmt.Errorf("request %s waited for one of %d instances: %w", id, m.config.Concurrency, ctx.Err()),
			Hint: "raise its spec.concurrency or spec.timeout",
		}
	}
}

// take returns an idle instance, or a new one.
func (m *Module) take(ctx context.Context) (*instance, error) {
	m.mu.Lock()
	var i *instance
	if n := len(m.idle); n > 0 {
		i, m.idle[n-1] = m.idle[n-1], nil
		m.idle = m.idle[:n-1]
	}
	m.mu.Unlock()
	select {
	case m.want <- struct{}{}:
	default:
	}
	if i != nil {
		return i, nil
	}
	return m.instantiate(ctx)
}

func (m *Module) put(i *instance) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.idle = append(m.idle, i)
}

// start makes instances ahead in the background until the module is closed. Shared ones are made when they are needed.
func (m *Module) start() {
	if m.config.Isolation == IsolationShared {
		return
	}
	m.want <- struct{}{}
	m.done.Go(func() {
		for {
			select {
			case <-m.want:
				m.fill()
			case <-m.life.Done():
				return
			}
		}
	})
}

func (m *Module) fill() {
	for {
		m.mu.Lock()
		n := len(m.idle)
		m.mu.Unlock()
		if n >= min(ready, m.config.Concurrency) || m.life.Err() != nil {
			return
		}
		i, err := m.instantiate(m.life)
		if err != nil {
			if m.life.Err() == nil {
				m.log.Warn("no instance made ahead", "error", err) // the next request tries, and tells its caller
			}
			return
		}
		m.put(i)
	}
}

// Close frees the module. Nothing may be in Serve any more.
func (m *Module) Close() error { return m.close() }

func (m *Module) close() error {
	m.end()
	m.done.Wait()
	for _, i := range m.idle {
		i.close()
	}
	m.idle = nil
	ctx := context.Background()
	var errs []error
	if m.compiled != nil {
		errs = append(errs, m.compiled.Close(ctx))
	}
	if m.runtime != nil {
		errs = append(errs, m.runtime.Close(ctx))
	}
	return errors.Join(errs...)
}
