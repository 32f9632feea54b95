package wasm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
)

// What an instance may see of earlier requests.
const (
	IsolationRequest = "request" // nothing: each request has a clean instance
	IsolationSession = "session" // those of the same session; without a session as with IsolationRequest
	IsolationShared  = "shared"  // those that it happened to serve, one after the other
)

// A Config says how a function runs. What is not set takes its default.
type Config struct {
	ABI         string            // default loam
	Isolation   string            // default IsolationRequest
	Session     Session           // for IsolationSession
	Env         map[string]string // all the environment it sees
	Settings    []byte            // the guest's own configuration, where its ABI has such a thing
	Next        loam.Target       // what requests go on to that the guest lets pass, where its ABI has such a thing; nil: nothing
	Memory      int64             // bytes, rounded down to 64 KiB; default 128 MiB
	Timeout     time.Duration     // of a request, its start and its wait included; default 30 s
	CPU         time.Duration     // of the processor, for a request; default Timeout
	Concurrency int               // requests served at once; default 64
	Queue       int               // requests that may wait beyond those; default 16 times as many; below 0: none
	MaxRequest  int64             // bytes of a request's body; default 16 MiB
	MaxResponse int64             // bytes of a response's body; default 16 MiB
	MaxCalls    int64             // capability calls for a request; default 1000
	MaxEgress   int64             // bytes that these may send; default 64 MiB
	Idle        time.Duration     // after which it is unloaded; default 10 minutes; below 0: never
	Interpret   bool              // make no native code: ready in a tenth of the time, and many times slower from then on
	Warmup      *Warmup           // a request that the first instance serves before its image is taken; nil: none
	Methods     loam.Methods      // the capability calls it may make
	Caller      *loam.Caller      // as whom

	InTask map[string]loam.TaskMethod // those of Methods that run in the task of the function's call, and need no thread
}

// A Session says which requests belong together.
type Session struct {
	Header string        // whose value names the session; or
	Cookie string        // the cookie whose value does
	Max    int           // sessions at a time; default 1000. The one that was idle for longest makes room for a new one
	Idle   time.Duration // after which a session ends; default 10 minutes
}

// A Warmup is a request whose handling is in the image, so that each instance begins as if it had served it: what it
// changes in the guest's memory, all requests see. It can make no capability calls.
type Warmup struct {
	Method, Path string
	Body         []byte
}

func (c Config) withDefaults() Config {
	orDefault(&c.ABI, "loam")
	orDefault(&c.Isolation, IsolationRequest)
	orDefault(&c.Session.Max, 1000)
	orDefault(&c.Session.Idle, 10*time.Minute)
	orDefault(&c.Memory, 128<<20)
	c.Memory = min(c.Memory, 1<<32-1<<16) // a 32-bit size cannot tell more
	orDefault(&c.Timeout, 30*time.Second)
	orDefault(&c.CPU, c.Timeout)
	orDefault(&c.Concurrency, 64)
	orDefault(&c.Queue, 16*c.Concurrency)
	orDefault(&c.MaxRequest, 16<<20)
	orDefault(&c.MaxResponse, 16<<20)
	orDefault(&c.MaxCalls, 1000)
	orDefault(&c.MaxEgress, 64<<20)
	orDefault(&c.Idle, 10*time.Minute)
	return c
}

func orDefault[T comparable](v *T, d T) {
	if *v == *new(T) {
		*v = d
	}
}

// A Module is a function. It is safe for concurrent use.
type Module struct {
	host     *Host
	name     string
	config   Config
	limits   guest.Limits
	log      *slog.Logger
	lines    limiter // of guests' log lines
	failures sampler // of log lines about guests that failed
	recipe   recipe
	stats    Stats

	account loam.Account // what it has of the loops

	profiler atomic.Pointer[profiler] // nil: no profile is being made

	mu       sync.Mutex
	program  *program      // nil: it is not loaded
	loading  *loading      // nil: nobody loads it
	failed   *loading      // the last attempt to load it, which failed
	calls    int           // under way, those that wait included
	busy     int           // being served
	waiting  queue         // for one of those to be done
	idle     []*instance   // with state of earlier requests, for IsolationShared
	sessions *sessions     // for IsolationSession
	used     time.Time     // when the last call was done
	closed   bool          // no more calls
	empty    chan struct{} // closed when it is closed and no call is under way

	life context.Context // ends when calls under way may take no longer
	end  context.CancelFunc
	done sync.WaitGroup // loading
}

// op is a function's name as errors have it.
func op(name string) string { return "function " + strconv.Quote(name) }

// ErrClosed is in the chain of the error of a call that came after Close: nothing of its request was read, and the
// function's next version can serve it.
var ErrClosed = errors.New("it is being stopped")

// Compile makes a function of a Wasm binary and loads it, so that what is wrong with it shows now. Where the cache knows
// that it could be loaded before, it is not loaded before its first request. The caller closes the module.
func (h *Host) Compile(ctx context.Context, name string, binary []byte, c Config) (*Module, error) {
	c = c.withDefaults()
	m := &Module{
		host: h, name: name, account: loam.Account{Name: name}, config: c, log: h.log.With("function", name),
		limits: guest.Limits{Response: c.MaxResponse, Calls: c.MaxCalls, Egress: c.MaxEgress},
		empty:  make(chan struct{}),
	}
	if _, once := h.abis[c.ABI].(guest.Once); once && (c.Isolation != IsolationRequest || c.Warmup != nil) {
		return nil, &loam.Error{
			Code: loam.InvalidArgument, Op: op(name),
			Err:  fmt.Errorf("isolation %q, warm-up %t: a program of the ABI %s ends with each request, so there is nothing to keep", c.Isolation, c.Warmup != nil, c.ABI),
			Hint: "leave isolation and the warm-up out",
		}
	}
	switch c.Isolation {
	case IsolationRequest, IsolationShared:
	case IsolationSession:
		if (c.Session.Header == "") == (c.Session.Cookie == "") {
			return nil, &loam.Error{
				Code: loam.InvalidArgument, Op: op(name), Err: errors.New("isolation session needs to know what names a session"),
				Hint: "give it the name of a header or of a cookie, one of both",
			}
		}
		m.sessions = newSessions(c.Session.Max)
	default:
		return nil, &loam.Error{
			Code: loam.InvalidArgument, Op: op(name), Err: fmt.Errorf("there is no isolation %q", c.Isolation),
			Hint: "isolation: request, session or shared",
		}
	}
	m.recipe = recipe{name: name, sum: sha256.Sum256(binary), config: &m.config, log: m.log, failures: &m.failures}
	m.recipe.binary = func() ([]byte, error) { return binary, nil }
	m.life, m.end = context.WithCancel(context.Background())
	if c.Interpret || !h.codes.good(m.recipe.sum, m.recipe.key()) {
		if err := m.load(ctx); err != nil {
			m.end()
			return nil, err
		}
	} else if _, err := h.engine(false); err != nil { // the first request shall not wait for it
		m.end()
		return nil, err
	}
	if !c.Interpret {
		if err := h.codes.keep(m.recipe.sum, binary); err == nil {
			m.recipe.binary = func() ([]byte, error) { return h.codes.module(m.recipe.sum) }
		}
	}
	m.used = time.Now()
	h.mu.Lock()
	h.modules[m] = struct{}{}
	h.mu.Unlock()
	return m, nil
}

// load loads the function now.
func (m *Module) load(ctx context.Context) error {
	p, err := m.host.acquire(ctx, &m.recipe)
	if err != nil {
		return named(err, m.name)
	}
	m.mu.Lock()
	spare := m.program != nil
	if !spare {
		m.program = p
	}
	m.mu.Unlock()
	if spare { // a request has it loaded
		p.release()
	}
	return nil
}

// named gives an error the name of this function where another one of the same program has met it.
func named(err error, name string) error {
	if e := (*loam.Error)(nil); errors.As(err, &e) && e.Op != op(name) {
		return &loam.Error{Code: e.Code, Op: op(name), Err: err, Hint: e.Hint}
	}
	return err
}

// A State is how a function is, for status.
type State struct {
	Loaded bool
	Image  bool   // instances are forked from an image; else each is started anew, and that takes longer
	Reason string // why there is no image
	Reset  string // how an instance is made clean: PAGEMAP_SCAN, madvise or copy, and why it is not the first of these
	Idle   int    // instances that wait
}

// State tells how the function is at this moment.
func (m *Module) State() State {
	m.mu.Lock()
	p := m.program
	s := State{Loaded: p != nil, Idle: len(m.idle)}
	if m.sessions != nil {
		s.Idle += m.sessions.len()
	}
	m.mu.Unlock()
	if p == nil {
		return s
	}
	s.Reason, s.Idle = p.reason, s.Idle+p.pool.len()
	if p.image != nil {
		s.Image, s.Reset = true, p.image.how
	}
	return s
}

// Stats are the function's counters.
func (m *Module) Stats() *Stats { return &m.stats }

// Calls is how many calls are under way, those that wait included.
func (m *Module) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// Serve answers one request by an instance. It returns when the guest is done, or at the earlier of the request's
// deadline and the function's timeout.
func (m *Module) Serve(req *loam.Request) (resp *loam.Response, err error) {
	v := visit{module: m, req: req, task: req.Task(), began: time.Now()}
	v.until = v.began.Add(m.config.Timeout)
	if d := req.Deadline(); !d.IsZero() && d.Before(v.until) {
		v.until = d
	}
	if err := v.enter(); err != nil {
		return nil, err
	}
	was := v.task.Bill(&m.account)
	defer func() {
		v.task.Bill(was)
		v.leave(resp, err)
	}()
	if !v.task.Now().Before(v.until) {
		m.stats.Limits[guest.LimitWall].Add(1)
		return nil, &loam.Error{
			Code: loam.DeadlineExceeded, Op: op(m.name), Err: fmt.Errorf("request %s waited for its turn: %w", req.ID, context.DeadlineExceeded),
			Hint: "it has had its share of this core, and others wait: send less, or give it more cores",
		}
	}
	return v.serve()
}

// A visit is one call of a function.
type visit struct {
	module  *Module
	program *program
	req     *loam.Request
	task    loam.Task
	began   time.Time
	until   time.Time
	in      int
	usage   Usage
}

// enter counts the call, unless the module is closed, and has it loaded.
func (v *visit) enter() error {
	m := v.module
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return &loam.Error{Code: loam.Unavailable, Op: op(m.name), Err: ErrClosed}
	}
	m.calls++
	v.program = m.program
	m.mu.Unlock()
	return nil
}

func (v *visit) serve() (*loam.Response, error) {
	m := v.module
	if v.program == nil {
		if err := v.load(); err != nil {
			return nil, err
		}
	}
	body, err := v.body()
	if err != nil {
		return nil, err
	}
	v.in = len(body)
	if m.sessions != nil {
		if key := m.config.Session.key(v.req); key != "" {
			return v.serveSession(key, body)
		}
	}
	if err := v.slot(); err != nil {
		return nil, err
	}
	defer m.free()
	i, err := v.take()
	if err != nil {
		return nil, err
	}
	resp, err := v.run(i, body)
	if err == nil && m.config.Isolation == IsolationShared {
		m.keep(i)
	} else {
		v.clean(i)
	}
	return resp, err
}

// leave counts what the call was.
func (v *visit) leave(resp *loam.Response, err error) {
	m := v.module
	u := &v.usage
	u.Wall = v.task.Now().Sub(v.began)
	u.Function, u.Shard, u.Code, u.In = m.name, v.task.Shard(), loam.CodeOf(err), int64(v.in)
	switch {
	case resp != nil:
		u.Out = max(resp.Length, 0) // what passes through from behind the function is not its own
	case err == nil: // a panic of ours is on its way
		u.Code = loam.Internal
	}
	m.stats.count(u)
	if m.host.usage != nil {
		m.host.usage(*u)
	}
	m.mu.Lock()
	m.calls--
	if m.calls == 0 {
		m.used = v.began.Add(u.Wall)
		if m.closed {
			close(m.empty)
		}
	}
	m.mu.Unlock()
}

// body reads the body before an instance is taken: a slow sender must not hold one.
func (v *visit) body() ([]byte, error) {
	req, m := v.req, v.module
	if req.Body == nil || req.Length == 0 {
		return nil, nil
	}
	limit := m.config.MaxRequest
	tooLarge := func() error {
		m.stats.Limits[guest.LimitRequest].Add(1)
		return &loam.Error{
			Code: loam.InvalidArgument, Op: op(m.name), Err: fmt.Errorf("the request's body is larger than %d bytes: %w", limit, &http.MaxBytesError{Limit: limit}), // the edge knows it: 413
		}
	}
	if req.Length > limit {
		return nil, tooLarge()
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
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: op(m.name), Err: fmt.Errorf("read the request's body: %w", err)}
	}
	if int64(len(body)) > limit {
		return nil, tooLarge()
	}
	return body, nil
}

// slot takes the right to be served, or waits for it in a queue of bounded length.
func (v *visit) slot() error {
	m := v.module
	m.mu.Lock()
	if m.busy < m.config.Concurrency && m.waiting.empty() {
		m.busy++
		m.mu.Unlock()
		return nil
	}
	m.mu.Unlock()
	if v.waitsForItself() {
		return &loam.Error{
			Code: loam.FailedPrecondition, Op: op(m.name),
			Err:  fmt.Errorf("it calls itself, directly or through others, while all its %d instances are busy: that would wait for ever", m.config.Concurrency),
			Hint: "raise its spec.concurrency above the depth of its calls, or do not call itself",
		}
	}
	m.mu.Lock()
	if m.busy < m.config.Concurrency && m.waiting.empty() {
		m.busy++
		m.mu.Unlock()
		return nil
	}
	if m.waiting.len() >= m.config.Queue {
		m.mu.Unlock()
		m.stats.Limits[guest.LimitQueue].Add(1)
		return &loam.Error{
			Code: loam.ResourceExhausted, Op: op(m.name),
			Err:  fmt.Errorf("%d requests are being served and %d wait", m.config.Concurrency, max(m.config.Queue, 0)),
			Hint: "raise its spec.concurrency, or send less",
		}
	}
	w := m.waiting.add(v.task)
	m.mu.Unlock()
	if err := v.wait(w, &m.waiting); err != nil {
		return &loam.Error{
			Code: loam.CodeOf(err), Op: op(m.name), Err: fmt.Errorf("request %s waited for one of %d instances: %w", v.req.ID, m.config.Concurrency, err),
			Hint: "raise its spec.concurrency or spec.timeout",
		}
	}
	return nil
}

// waitsForItself tells whether a call of this function waits for this one. Only a function makes calls under a Caller.
func (v *visit) waitsForItself() bool {
	return v.req.Caller != nil && guest.Waits(v.req.Context(), v.module.name)
}

// wait parks until it is w's turn. With an error it is not, and w is in the queue no more.
func (v *visit) wait(w *waiter, q *queue) error {
	m := v.module
	for {
		err := v.task.Park(v.until)
		m.mu.Lock()
		switch {
		case w.granted:
			m.mu.Unlock()
			return nil
		case m.life.Err() != nil:
			err = context.Canceled
		case err == nil:
			m.mu.Unlock()
			continue
		}
		q.remove(w)
		m.mu.Unlock()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			m.stats.Limits[guest.LimitWall].Add(1)
			err = context.DeadlineExceeded
		}
		return err
	}
}

// free gives the right to be served to who waits for longest.
func (m *Module) free() {
	m.mu.Lock()
	w := m.waiting.next()
	if w == nil {
		m.busy--
	}
	m.mu.Unlock()
	if w != nil {
		w.task.Wake()
	}
}

// take returns an instance: a clean one, or for IsolationShared one that has served before.
func (v *visit) take() (*instance, error) {
	m := v.module
	if m.config.Isolation == IsolationShared {
		m.mu.Lock()
		if n := len(m.idle); n > 0 {
			i := m.idle[n-1]
			m.idle[n-1] = nil
			m.idle = m.idle[:n-1]
			m.mu.Unlock()
			return i, nil
		}
		m.mu.Unlock()
	} else if i := v.program.pool.take(v.task.Shard()); i != nil {
		return i, nil
	}
	return v.make()
}

// make starts an instance.
func (v *visit) make() (*instance, error) {
	m, p := v.module, v.program
	if p.image == nil {
		v.usage.coldBy(ColdStart)
		m.stats.Started.Add(1)
		r := m.recipe
		r.timeout = time.Until(v.until)
		i, err := p.start(v.task, &r)
		return i, named(err, m.name)
	}
	v.usage.coldBy(ColdFork)
	m.stats.Forked.Add(1)
	i, err := p.fork()
	if loam.CodeOf(err) == loam.Unavailable { // others have more than they need
		m.host.trim()
		i, err = p.fork()
	}
	if err != nil {
		return nil, &loam.Error{Code: loam.CodeOf(err), Op: op(m.name), Err: err, Hint: loam.HintOf(err)}
	}
	return i, nil
}

// run has the instance serve the request.
func (v *visit) run(i *instance, body []byte) (*loam.Response, error) {
	m := v.module
	i.prepare(v.task, v.until, m.config.CPU)
	i.profiler = m.profiler.Load()
	c := &i.call
	c.Request, c.Body, c.Function = v.req, body, m.name
	c.Caller, c.Methods, c.InTask, c.Limits, c.Life = m.config.Caller, m.config.Methods, m.config.InTask, m.limits, m.life
	c.Settings, c.Next, c.Buffers = m.config.Settings, m.config.Next, &m.host.buffers
	lost := &m.stats.Limits[guest.LimitOutput]
	i.stdout = lineWriter{log: m.log, limit: &m.lines, stream: "stdout", request: v.req.ID, line: i.stdout.line[:0], lost: lost}
	i.stderr = lineWriter{log: m.log, limit: &m.lines, stream: "stderr", request: v.req.ID, line: i.stderr.line[:0], lost: lost}
	began := i.slice
	resp, err := i.serve(c)
	if err != nil {
		i.broken = errors.As(err, new(runtime.Error))
		err = i.failure(&m.recipe, "request "+v.req.ID, err)
	}
	u := &v.usage
	u.CPU += m.host.cpu(i.used)
	u.Calls, u.Sent, u.Received = c.Used.Calls, c.Used.Sent, c.Used.Received
	u.Memory += int64(i.module.Memory().Size()) * time.Since(began).Microseconds()
	for l, n := range c.Used.Limits {
		if n > 0 {
			m.stats.Limits[l].Add(int64(n))
		}
	}
	i.finish()
	return resp, err
}

// clean makes an instance ready for a stranger's request, or drops it. That its guest trapped makes no difference: all
// that a guest has are its memory and its globals.
func (v *visit) clean(i *instance) {
	if i.broken || i.memory == nil || !i.reset() {
		i.discard()
		v.module.stats.Dropped.Add(1)
		return
	}
	v.module.stats.Reset.Add(1)
	v.program.pool.put(v.task.Shard(), i)
}

// keep keeps an instance with its state.
func (m *Module) keep(i *instance) {
	m.mu.Lock()
	m.idle = append(m.idle, i)
	m.mu.Unlock()
}

// Close refuses new calls and waits for those under way. Once ctx ends it ends them too; either way nothing of the
// function is left when it returns.
func (m *Module) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		<-m.empty
		m.done.Wait()
		return nil
	}
	m.closed = true
	if m.calls == 0 {
		close(m.empty)
	}
	m.mu.Unlock()
	var err error
	select {
	case <-m.empty:
	case <-ctx.Done():
		select {
		case <-m.empty:
		default:
			err = &loam.Error{Code: loam.CodeOf(ctx.Err()), Op: op(m.name), Err: errors.New("calls under way were ended")}
			m.kill()
			<-m.empty
		}
	}
	m.end()
	m.done.Wait()
	m.host.mu.Lock()
	delete(m.host.modules, m)
	m.host.mu.Unlock()
	m.unload()
	return err
}

// kill ends the calls under way.
func (m *Module) kill() {
	m.end()
	m.mu.Lock()
	waiting := m.waiting.tasks(nil)
	if m.sessions != nil {
		waiting = m.sessions.waiting(waiting)
	}
	if m.loading != nil {
		waiting = append(waiting, m.loading.tasks...)
	}
	m.mu.Unlock()
	for _, t := range waiting {
		t.Wake()
	}
}
