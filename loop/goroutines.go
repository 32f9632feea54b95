package loop

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
)

// Goroutines makes the portable engine: a goroutine for each connection, on the net package.
func Goroutines() Engine { return newGoroutines(slog.New(slog.DiscardHandler)) }

func newGoroutines(log *slog.Logger) *goroutines {
	e := &goroutines{log: log, conns: map[*netConn]struct{}{}, listeners: map[*netListener]struct{}{}, relays: map[*carried]struct{}{}}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// goroutines is the portable engine.
type goroutines struct {
	log     *slog.Logger
	ctx     context.Context // of all its tasks
	cancel  context.CancelFunc
	stopped atomic.Bool
	wg      sync.WaitGroup // every goroutine it started

	mu        sync.Mutex // held for a few instructions; nothing is called with it
	conns     map[*netConn]struct{}
	listeners map[*netListener]struct{}
	relays    map[*carried]struct{}
	patrols   bool
}

// routine is a task of the engine.
type routine struct {
	loam.Task
	e   *goroutines
	end context.CancelFunc
}

func (e *goroutines) routine() *routine {
	if e == nil { // of a connection that no engine looks after
		t, end := loam.NewTask(context.Background())
		return &routine{Task: t, e: newGoroutines(slog.New(slog.DiscardHandler)), end: end}
	}
	t, end := loam.NewTask(e.ctx)
	return &routine{Task: t, e: e, end: end}
}

func (r *routine) Park(deadline time.Time) error {
	err := r.Task.Park(deadline)
	if err != nil && r.e.stopped.Load() {
		return ErrStopped
	}
	return err
}

func (r *routine) Go(fn func(loam.Task)) loam.Task {
	child := r.e.routine()
	r.e.wg.Add(1) // the task that calls is counted: the engine is not past waiting
	go r.e.run(child, fn)
	return child
}

func (r *routine) Within(ctx context.Context, fn func(loam.Task)) {
	t, end := loam.NewTask(ctx)
	defer end()
	fn(&routine{Task: t, e: r.e, end: end})
}

func (e *goroutines) run(r *routine, fn func(loam.Task)) {
	defer e.wg.Done()
	defer r.end()
	defer e.guard()
	fn(r)
}

// guard keeps a panic in a task from ending the process.
func (e *goroutines) guard() {
	if p := recover(); p != nil && e != nil {
		e.log.Error("a task panicked", "panic", p, "stack", string(debug.Stack()))
	}
}

func (e *goroutines) Shards() int { return 1 }

func (e *goroutines) Go(fn func(loam.Task)) {
	if e.enter() {
		go e.run(e.routine(), fn)
	}
}

func (e *goroutines) Each(fn func(loam.Task)) {
	if !e.enter() {
		return
	}
	done := make(chan struct{})
	go e.run(e.routine(), func(t loam.Task) {
		defer close(done)
		fn(t)
	})
	<-done
}

// enter counts a goroutine in that is about to start; it is false once the engine has stopped.
func (e *goroutines) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped.Load() {
		return false
	}
	e.wg.Add(1)
	return true
}

func (e *goroutines) goWatch(watch func()) bool {
	if !e.enter() {
		return false
	}
	go func() {
		defer e.wg.Done()
		watch()
	}()
	return true
}

func (e *goroutines) add(c *netConn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped.Load() {
		return false
	}
	e.conns[c] = struct{}{}
	return true
}

func (e *goroutines) remove(c *netConn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
}

// connections are those there are at this moment, of ln or, where that is nil, all.
func (e *goroutines) connections(ln *netListener) []*netConn {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*netConn, 0, len(e.conns))
	for c := range e.conns {
		if ln == nil || c.ln == ln {
			all = append(all, c)
		}
	}
	return all
}

func (e *goroutines) addRelay(c *carried) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.relays[c] = struct{}{}
}

// dropRelay forgets a relay that is over. It is false where Freeze has taken it.
func (e *goroutines) dropRelay(c *carried) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.relays[c]
	delete(e.relays, c)
	return ok
}

func (e *goroutines) Relays() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.relays)
}

func (e *goroutines) Freeze() []Frozen {
	e.mu.Lock()
	var taken []*carried
	for c := range e.relays {
		_, a := c.A.(*netConn)
		_, b := c.B.(*netConn)
		if a && b {
			c.frozen.Store(true)
			delete(e.relays, c)
			taken = append(taken, c)
		}
	}
	e.mu.Unlock()
	for _, c := range taken {
		for _, end := range [2]*netConn{c.A.(*netConn), c.B.(*netConn)} {
			end.mu.Lock()
			end.end(os.ErrDeadlineExceeded)
			end.mu.Unlock()
		}
	}
	frozen := make([]Frozen, 0, len(taken))
	for _, c := range taken {
		<-c.stopped
		if f, ok := c.freeze(); ok {
			frozen = append(frozen, f)
		}
	}
	return frozen
}

// freeze takes the sockets out of a relay whose tasks have stopped. It is false where the relay was over.
func (c *carried) freeze() (Frozen, bool) {
	ab, ba := &c.halves[0], &c.halves[1]
	f := Frozen{
		FromA: ab.due, FromB: ba.due, EndA: ab.ended, EndB: ba.ended, Idle: c.Idle, Tag: c.Tag, AToB: ab.n, BToA: ba.n,
	}
	var errA, errB error
	f.A, errA = c.A.(*netConn).detach()
	f.B, errB = c.B.(*netConn).detach()
	if errA == nil && errB == nil {
		return f, true
	}
	for _, file := range [2]*os.File{f.A, f.B} {
		if file != nil {
			file.Close()
		}
	}
	if c.Done != nil {
		c.Done(ab.n, ba.n)
	}
	return Frozen{}, false
}

func (e *goroutines) Thaw(f Frozen, done func(aToB, bToA int64)) error {
	var ends [2]*netConn
	for i, file := range [2]*os.File{f.A, f.B} {
		nc, err := net.FileConn(file)
		file.Close()
		if err == nil {
			ends[i], err = newNetConn(e, nc)
		}
		if err != nil {
			if i == 0 {
				f.B.Close()
			} else {
				_ = ends[0].Close()
			}
			return err
		}
	}
	if !e.enter() {
		_ = ends[0].Close()
		_ = ends[1].Close()
		return ErrStopped
	}
	defer e.wg.Done()
	c := &carried{Relay: Relay{A: ends[0], B: ends[1], Idle: f.Idle, Tag: f.Tag, Done: done}, e: e}
	c.halves[0] = half{c: c, from: ends[0], to: ends[1], due: f.FromA, n: f.AToB, ended: f.EndA}
	c.halves[1] = half{c: c, from: ends[1], to: ends[0], due: f.FromB, n: f.BToA, ended: f.EndB}
	c.start(func(fn func(loam.Task)) loam.Task {
		r := e.routine()
		e.wg.Add(1)
		go e.run(r, fn)
		return r
	})
	return nil
}

func (e *goroutines) Close() error {
	e.mu.Lock()
	e.stopped.Store(true)
	var listeners []*netListener
	for ln := range e.listeners {
		listeners = append(listeners, ln)
	}
	e.mu.Unlock()
	e.cancel()
	for _, ln := range listeners {
		_ = ln.Stop() // the sockets are gone either way
	}
	for _, c := range e.connections(nil) {
		c.mu.Lock()
		c.end(ErrStopped) // a released one is closed by its watcher
		c.mu.Unlock()
	}
	e.wg.Wait()
	for _, c := range e.connections(nil) {
		_ = c.Close()
	}
	return nil
}

// patrol looks now and then whether the peers of connections that are being served are still there: nobody reads from
// those, and only a read would show it.
func (e *goroutines) patrol() {
	if !canPeek {
		return
	}
	tick := time.NewTicker(patrolEvery)
	defer tick.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-tick.C:
		}
		for _, c := range e.connections(nil) {
			r := c.serving.Load()
			if r == nil || c.reading.Load() {
				continue
			}
			_ = c.raw.Control(func(fd uintptr) { // fails for a closed connection only
				if _, gone := peek(fd); gone && c.serving.Load() == r {
					r.Cancel()
				}
			})
		}
	}
}

// patrolEvery is how late a peer's leaving may be seen.
const patrolEvery = 200 * time.Millisecond

// netListener is a listener of the portable engine. More than one socket are those another process had, one for each of
// its loops.
type netListener struct {
	e       *goroutines
	o       ListenOptions
	sockets []net.Listener
	open    atomic.Int64
	room    chan struct{} // holds a token for each connection that may be open; nil: there is no bound
	once    sync.Once
	stop    chan struct{}
	given   atomic.Bool // another process has the sockets
}

func (e *goroutines) Listen(ctx context.Context, network, address string, o ListenOptions) (Listener, error) {
	ln := &netListener{e: e, o: o, stop: make(chan struct{})}
	var err error
	if len(o.Files) > 0 {
		for _, f := range o.Files {
			var s net.Listener
			if err == nil {
				if s, err = net.FileListener(f); err == nil {
					ln.sockets = append(ln.sockets, s)
				}
			}
			f.Close()
		}
	} else {
		if err = freePath(network, address); err == nil {
			var s net.Listener
			var lc net.ListenConfig
			if s, err = lc.Listen(ctx, network, address); err == nil {
				ln.sockets = []net.Listener{s}
			}
		}
	}
	if err != nil {
		for _, s := range ln.sockets {
			s.Close()
		}
		return nil, listenError(network, address, err)
	}
	for _, s := range ln.sockets {
		if u, ok := s.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // Stop does, unless another process has it
		}
	}
	if o.MaxConnections > 0 {
		ln.room = make(chan struct{}, o.MaxConnections)
		for range o.MaxConnections {
			ln.room <- struct{}{}
		}
	}
	e.mu.Lock()
	e.listeners[ln] = struct{}{}
	first := !e.patrols
	e.patrols = true
	e.mu.Unlock()
	if first {
		e.goWatch(e.patrol)
	}
	for _, s := range ln.sockets {
		if !e.goWatch(func() { ln.accept(s) }) {
			_ = ln.Stop()
			return nil, ErrStopped
		}
	}
	return ln, nil
}

func (ln *netListener) accept(s net.Listener) {
	for {
		if ln.room != nil {
			select {
			case <-ln.room:
			case <-ln.stop:
				return
			}
		}
		nc, err := s.Accept()
		if err != nil {
			if ln.room != nil {
				ln.room <- struct{}{}
			}
			select {
			case <-ln.stop:
				return
			case <-time.After(acceptPause): // out of descriptors or memory: others have to end first
				if errors.Is(err, net.ErrClosed) {
					return
				}
				ln.e.log.Warn("cannot accept", "listener", ln.Addr().String(), "error", err)
			}
			continue
		}
		_ = ln.begin(nc, ln.o.Idle) // fails while the engine stops
	}
}

// acceptPause is how long accepting waits after it failed.
const acceptPause = 50 * time.Millisecond

// begin begins the session of a connection.
func (ln *netListener) begin(nc net.Conn, idle time.Duration) error {
	ln.open.Add(1)
	c, err := newNetConn(ln.e, nc)
	if err != nil {
		ln.closed()
		return err
	}
	c.mu.Lock()
	c.ln = ln
	c.mu.Unlock()
	s := ln.o.Open(c)
	c.release(s, idle, isEager(s))
	return nil
}

// closed counts a connection out.
func (ln *netListener) closed() {
	ln.open.Add(-1)
	if ln.room != nil {
		select {
		case ln.room <- struct{}{}:
		default: // one that was adopted beyond the bound
		}
	}
}

func (ln *netListener) Addr() net.Addr   { return ln.sockets[0].Addr() }
func (ln *netListener) Connections() int { return int(ln.open.Load()) }

func (ln *netListener) Files() ([]*os.File, error) {
	var files []*os.File
	for _, s := range ln.sockets {
		f, err := s.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, listenError(s.Addr().Network(), s.Addr().String(), err)
		}
		files = append(files, f)
	}
	ln.given.Store(true)
	return files, nil
}

func (ln *netListener) Stop() (err error) {
	ln.once.Do(func() {
		close(ln.stop)
		ln.e.mu.Lock()
		delete(ln.e.listeners, ln)
		ln.e.mu.Unlock()
		if a, ok := ln.Addr().(*net.UnixAddr); ok && !ln.given.Load() {
			err = removePath(a.Name)
		}
		for _, s := range ln.sockets {
			err = errors.Join(err, s.Close())
		}
	})
	return err
}

func (ln *netListener) Each(fn func(Conn, Session)) {
	for _, c := range ln.e.connections(ln) {
		c.visit(fn)
	}
}

func (ln *netListener) Cut() {
	for _, c := range ln.e.connections(ln) {
		c.mu.Lock()
		var t loam.Task
		if c.binding != nil {
			t = c.binding.t
		}
		c.mu.Unlock()
		if t != nil {
			t.Cancel()
		}
		_ = c.Close() // what cannot be closed is closed already
	}
}

func (ln *netListener) Adopt(f *os.File, idle time.Duration) error {
	nc, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return loam.Errorf(loam.InvalidArgument, "loop: adopt", "%w", err)
	}
	if ln.room != nil {
		select {
		case <-ln.room:
		default: // beyond the bound, but it is there
		}
	}
	return ln.begin(nc, cmp.Or(idle, ln.o.Idle))
}
