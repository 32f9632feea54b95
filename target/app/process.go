package app

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/http2"
)

const (
	restartMin  = 200 * time.Millisecond
	restartMax  = 10 * time.Second
	steadyAfter = 10 * time.Second // a program that lived so long starts its back-off anew
	maxLine     = 8 << 10          // bytes of a line of its output; the rest of the line is cut
	startWait   = 30 * time.Second // a request waits so long for the program to listen
)

// Command is a program for Loam to start.
type Command struct {
	Name  string   // of the app
	Args  []string // a program with a slash that is no absolute path lies in Dir
	Dir   string
	Env   map[string]string // beside the process's own
	Port  int               // to listen on, told to it in PORT; 0: a free one
	Ready string            // path that answers 2xx to GET once it is ready; empty, or of grpc: it is once it listens
	Grace time.Duration     // between SIGTERM and SIGKILL; 0: 10s

	Protocol string     // that it speaks; "": http
	Hub      *http2.Hub // as Config has it
}

// A Process is a loam.Target: a program kept running. Requests wait until it listens.
type Process struct {
	command Command
	address string
	app     *App
	log     *slog.Logger
	life    context.Context
	stop    context.CancelFunc // asks the program to end
	kill    context.CancelFunc // does not ask
	killed  context.Context
	done    chan struct{}

	given chan struct{} // closed once another process keeps the program running

	mu       sync.Mutex
	ready    chan struct{} // closed while the program listens; made anew when it dies
	state    string
	restarts int
	child    *child        // nil: it does not run
	reading  chan struct{} // closed when nobody reads the child's output any more
	resumed  bool          // it waits for Adopt
}

// Start starts the program and keeps it running until Close. Tasks of engine call it.
func Start(engine loop.Engine, c Command, log *slog.Logger) (*Process, error) {
	if c.Port == 0 {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		c.Port = port
	}
	program := c.Args[0]
	if filepath.Base(program) != program && !filepath.IsAbs(program) {
		program = filepath.Join(c.Dir, program) // as exec.Cmd will look for it
	}
	if _, err := exec.LookPath(program); err != nil && !errors.Is(err, exec.ErrDot) {
		return nil, &loam.Error{Code: loam.NotFound, Op: "app " + strconv.Quote(c.Name), Err: err, Hint: "correct its command, or build it first: loam build"}
	}
	p := newProcess(engine, c, log)
	go p.keep(p.life, nil)
	return p, nil
}

func newProcess(engine loop.Engine, c Command, log *slog.Logger) *Process {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port))
	p := &Process{
		command: c, address: address, app: New(Config{Engine: engine, Hub: c.Hub, Address: address, Protocol: c.Protocol}), log: log.With("app", c.Name),
		done: make(chan struct{}), given: make(chan struct{}), ready: make(chan struct{}), state: "starting",
	}
	p.life, p.stop = context.WithCancel(context.Background())
	p.killed, p.kill = context.WithCancel(context.Background())
	return p
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// Address is where the program listens.
func (p *Process) Address() string { return p.address }

// State says in a few words how the program is.
func (p *Process) State() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.restarts > 0 {
		return fmt.Sprintf("%s, restarted %d times", p.state, p.restarts)
	}
	return p.state
}

// Serve waits until the program listens, then sends it the request.
func (p *Process) Serve(req *loam.Request) (*loam.Response, error) {
	p.mu.Lock()
	ready := p.ready
	p.mu.Unlock()
	select {
	case <-ready:
	default:
		var err error
		ctx := req.Context()
		req.Task().Await(func() { err = p.wait(ctx, ready) })
		if err != nil {
			return nil, err
		}
	}
	return p.app.Serve(req)
}

// wait returns once the program listens.
func (p *Process) wait(ctx context.Context, ready chan struct{}) error {
	op := "app " + strconv.Quote(p.command.Name)
	timer := time.NewTimer(startWait)
	defer timer.Stop()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return loam.Errorf(loam.Unavailable, op, "it is %s: %w", p.State(), ctx.Err())
	case <-timer.C:
		return loam.Errorf(loam.Unavailable, op, "it does not listen on PORT %d; it is %s", p.command.Port, p.State())
	case <-p.done:
		return loam.Errorf(loam.Unavailable, op, "it was stopped")
	}
}

// Close ends the program, unless it was given away: SIGTERM, and SIGKILL once its grace or ctx is over.
func (p *Process) Close(ctx context.Context) error {
	p.mu.Lock()
	if p.resumed { // nobody keeps it yet
		p.resumed = false
		close(p.done)
	}
	p.mu.Unlock()
	p.stop()
	select {
	case <-p.given: // it is another process's
	case <-p.done:
	case <-ctx.Done():
		p.kill()
		<-p.done
	}
	p.kill()
	return p.app.Close(ctx)
}

func (p *Process) set(state string, ready bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	select {
	case <-p.ready:
		if !ready {
			p.ready = make(chan struct{})
		}
	default:
		if ready {
			close(p.ready)
		}
	}
}

// keep runs the program again and again, at first c where that is there: one that runs already.
func (p *Process) keep(ctx context.Context, c *child) {
	defer func() {
		if !p.isGiven() {
			p.set("stopped", false)
			close(p.done)
		}
	}()
	wait := restartMin
	for {
		started := time.Now()
		err := p.run(ctx, c)
		c = nil
		if ctx.Err() != nil || errors.Is(err, errGiven) {
			return
		}
		if time.Since(started) > steadyAfter {
			wait = restartMin
		}
		p.set("failed: "+err.Error(), false)
		p.log.Error("the app ended", "error", err, "again", wait)
		select {
		case <-ctx.Done():
			return
		case <-p.given:
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, restartMax)
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
	}
}

// A child is a program that runs.
type child struct {
	pid    int
	output *os.File     // what it prints
	leash  *os.File     // the program dies when the last process that has this open is gone; nil where the kernel cannot
	handle *os.File     // tells of its end where another process has started it; nil: this one has
	wait   func() error // returns at its end
}

func (c *child) close() {
	for _, f := range []*os.File{c.output, c.leash, c.handle} {
		if f != nil {
			f.Close()
		}
	}
}

// errGiven is why run returns when the program is another process's.
var errGiven = errors.New("another process keeps it running")

// run starts the program once, unless c runs already, and waits for its end, which is always an error unless ctx brought it about.
func (p *Process) run(ctx context.Context, c *child) (err error) {
	out := &lineLog{log: p.log}
	p.mu.Lock()
	if p.isGiven() {
		p.mu.Unlock()
		return errGiven
	}
	if c == nil {
		if c, err = p.command.start(); err != nil {
			p.mu.Unlock()
			return err
		}
	}
	p.child = c
	p.reading = make(chan struct{})
	reading := p.reading
	p.mu.Unlock()
	go func() {
		defer close(reading)
		_, _ = io.Copy(out, c.output) // until its end, or a deadline
		out.flush()
	}()
	var watching sync.WaitGroup
	alive, dead := context.WithCancel(ctx)
	watching.Go(func() { p.awaitListening(alive) })
	exited := make(chan struct{})
	watching.Go(func() {
		select {
		case <-exited:
			return
		case <-p.given:
			return
		case <-ctx.Done():
		}
		_ = signalGroup(c.pid, syscall.SIGTERM) // it may be gone by now; so below
		select {
		case <-exited:
			return
		case <-p.killed.Done():
		case <-time.After(cmp.Or(p.command.Grace, 10*time.Second)):
		}
		_ = signalGroup(c.pid, syscall.SIGKILL)
	})
	err = c.wait()
	p.mu.Lock()
	given := p.isGiven()
	p.child = nil
	p.mu.Unlock()
	close(exited)
	dead()
	if given {
		watching.Wait()
		return errGiven
	}
	_ = signalGroup(c.pid, syscall.SIGKILL) // what it left behind would hold its port
	watching.Wait()
	_ = c.output.SetReadDeadline(time.Now().Add(time.Second)) // a grandchild may hold the output open
	<-reading
	c.close()
	return err
}

func (p *Process) isGiven() bool {
	select {
	case <-p.given:
		return true
	default:
		return false
	}
}

// start starts the program.
func (c Command) start() (*child, error) {
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Dir = c.Dir
	cmd.Env = os.Environ()
	for name, value := range c.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Env = append(cmd.Env, "PORT="+strconv.Itoa(c.Port), "LOAM_APP="+c.Name) // the last of a name counts
	output, its, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer its.Close()
	cmd.Stdout, cmd.Stderr = its, its
	// A group of its own, so that what it starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	leash, err := startOnLeash(cmd)
	if err != nil {
		output.Close()
		return nil, err
	}
	return &child{pid: cmd.Process.Pid, output: output, leash: leash, wait: func() error {
		err := cmd.Wait()
		if err == nil {
			err = errors.New("it exited with status 0")
		}
		return err
	}}, nil
}

func signalGroup(pid int, s syscall.Signal) error { return syscall.Kill(-pid, s) }

// awaitListening polls the port until somebody listens there, and answers well where the command says how to ask.
func (p *Process) awaitListening(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if p.ask(ctx) {
			p.set("ready", true)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Process) ask(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if p.command.Ready == "" || p.command.Protocol == "grpc" {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	}
	req := loam.NewRequest(ctx)
	defer req.Release()
	req.Method, req.Scheme, req.Authority, req.Path = http.MethodGet, "http", p.address, p.command.Ready
	res, err := p.app.Serve(req)
	if err != nil {
		return false
	}
	status := res.Status
	return res.Close() == nil && status >= 200 && status < 300
}

// lineLog writes what a program prints to the log, a line at a time.
type lineLog struct {
	log *slog.Logger
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(b)
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if room := maxLine - l.buf.Len(); room > 0 {
			l.buf.Write(line[:min(len(line), room)])
		}
		if whole {
			l.emit()
		}
		b = rest
	}
	return n, nil
}

func (l *lineLog) emit() {
	if text := bytes.TrimRight(l.buf.Bytes(), "\r"); len(text) > 0 {
		l.log.Info(string(text))
	}
	l.buf.Reset()
}

func (l *lineLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.emit()
}
