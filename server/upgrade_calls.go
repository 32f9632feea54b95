package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
)

// A gate is where capability calls find out who has the components: this process, the one before or after it, or, for a
// moment in an upgrade, nobody. Then they wait.
type gate struct {
	at     atomic.Pointer[place]
	inside atomic.Int64 // uses under way here; closing is added while there shall be none
	shut   bool         // closing was added; the upgrade's own
	empty  chan struct{}
}

// place is who has the components. One that is neither here nor a peer's is nobody's.
type place struct {
	here  bool
	peer  *peer
	moved chan struct{} // closed when another place holds
}

func newGate() *gate {
	g := &gate{empty: make(chan struct{}, 1)}
	g.at.Store(&place{here: true, moved: make(chan struct{})})
	return g
}

// enter begins a use of the components, which ends with leave; where another process has them, it returns that one.
func (g *gate) enter(ctx context.Context) (*peer, error) {
	for {
		p := g.at.Load()
		switch {
		case p.here:
			if g.enterNow() {
				return nil, nil
			}
		case p.peer != nil:
			return p.peer, nil
		default:
			select {
			case <-p.moved:
			case <-ctx.Done():
				return nil, loam.Errorf(loam.Unavailable, "upgrade", "the store changes hands: %w", ctx.Err())
			}
		}
	}
}

// enterNow is enter where the components are here and nobody takes them away.
func (g *gate) enterNow() bool {
	if !g.at.Load().here {
		return false
	}
	if g.inside.Add(1) < closing {
		return true
	}
	g.leave() // it is being shut: another place holds already
	return false
}

func (g *gate) leave() {
	if g.inside.Add(-1) == closing {
		select {
		case g.empty <- struct{}{}:
		default:
		}
	}
}

// hold makes uses wait, and returns when those under way have ended, or ctx has.
func (g *gate) hold(ctx context.Context) error {
	g.move(&place{})
	if g.shut {
		return nil
	}
	g.shut = true
	select {
	case <-g.empty: // of an earlier hold
	default:
	}
	if g.inside.Add(closing) == closing {
		return nil
	}
	select {
	case <-g.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open lets uses in: the components are here.
func (g *gate) open() {
	if g.shut {
		g.shut = false
		g.inside.Add(-closing)
	}
	g.move(&place{here: true})
}

// forward sends uses to another process, which has the components.
func (g *gate) forward(p *peer) { g.move(&place{peer: p}) }

func (g *gate) move(p *place) {
	p.moved = make(chan struct{})
	close(g.at.Swap(p).moved)
}

// method makes m go where the components are.
func (g *gate) method(name string, m loam.Method) loam.Method {
	return func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
		p, err := g.enter(ctx)
		if err != nil {
			return nil, err
		}
		if p != nil {
			return p.call(ctx, name, caller, in)
		}
		defer g.leave()
		return m(ctx, caller, in)
	}
}

// taskMethod makes m go in the caller's task where the components are here; else the call waits as any other does, by method.
func (g *gate) taskMethod(m loam.TaskMethod, method loam.Method) loam.TaskMethod {
	return func(ctx context.Context, task loam.Task, caller *loam.Caller, in []byte) (out []byte, err error) {
		if !g.enterNow() {
			task.Await(func() { out, err = method(ctx, caller, in) })
			return out, err
		}
		defer g.leave()
		return m(ctx, task, caller, in)
	}
}

// A peer is another process, in whose components this one's calls may go, and the other way round.
type peer struct {
	*wire
	methods loam.Methods // what its calls go to

	mu    sync.Mutex
	last  uint64
	calls map[uint64]chan *message // of ours, under way
	ended error                    // why there will be no more answers

	theirs  map[uint64]context.CancelFunc // of its calls, under way here
	serving sync.WaitGroup
	room    chan struct{} // for its calls, so many at once
}

// maxCalls is how many calls of one process another one serves at once. Those beyond wait unread.
const maxCalls = 1024

// longest is how long a call may take that brings no deadline.
const longest = time.Hour

func newPeer(w *wire, methods loam.Methods) *peer {
	return &peer{wire: w, methods: methods, calls: map[uint64]chan *message{}, theirs: map[uint64]context.CancelFunc{}, room: make(chan struct{}, maxCalls)}
}

// call is a capability call on its way to another process.
type call struct {
	Method string       `json:"method"`
	Caller *loam.Caller `json:"caller,omitempty"`
	Left   int64        `json:"left,omitempty"` // nanoseconds that the caller waits; 0: as long as it takes
}

// failure is an error on its way to another process.
type failure struct {
	Code loam.Code `json:"code"`
	Op   string    `json:"op,omitempty"`
	Text string    `json:"text"`
	Hint string    `json:"hint,omitempty"`
}

func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Code: loam.CodeOf(err), Text: err.Error(), Hint: loam.HintOf(err)}
	var e *loam.Error
	if errors.As(err, &e) && e == err && e.Err != nil {
		f.Op, f.Text = e.Op, e.Err.Error()
	}
	return f
}

func (f *failure) err() error {
	if f == nil {
		return nil
	}
	return &loam.Error{Code: f.Code, Op: f.Op, Err: errors.New(f.Text), Hint: f.Hint}
}

// call makes a capability call in the other process.
func (p *peer) call(ctx context.Context, name string, caller *loam.Caller, in []byte) ([]byte, error) {
	c := call{Method: name, Caller: caller}
	if by, ok := ctx.Deadline(); ok {
		c.Left = max(int64(time.Until(by)), 1)
	}
	answer := make(chan *message, 1)
	p.mu.Lock()
	if p.ended != nil {
		p.mu.Unlock()
		return nil, p.gone(name)
	}
	p.last++
	id := p.last
	p.calls[id] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.calls, id)
		p.mu.Unlock()
	}()
	if err := p.send("call", id, c, in); err != nil {
		if loam.CodeOf(err) == loam.ResourceExhausted {
			return nil, err
		}
		return nil, p.gone(name)
	}
	select {
	case m, ok := <-answer:
		if !ok {
			return nil, p.gone(name)
		}
		var f *failure
		if len(m.Body) > 0 {
			if err := m.into(&f); err != nil {
				return nil, err
			}
		}
		return m.payload, f.err()
	case <-ctx.Done():
		_ = p.send("cancel", id, nil, nil) // if it is gone there is nothing to cancel
		return nil, ctx.Err()
	}
}

func (p *peer) gone(name string) error {
	return loam.Errorf(loam.Unavailable, name, "the process that took over the store is gone")
}

// read works off what the other process says until it ends; what is no call goes to other.
func (p *peer) read(other func(*message) error) error {
	for {
		m, err := p.receive()
		if err == nil {
			err = p.dispatch(m, other)
		}
		if err != nil {
			p.end(err)
			return err
		}
	}
}

func (p *peer) dispatch(m *message, other func(*message) error) error {
	switch m.Kind {
	case "call":
		var c call
		if err := m.into(&c); err != nil {
			return err
		}
		p.room <- struct{}{}
		patience := time.Duration(c.Left)
		if c.Left <= 0 {
			patience = longest
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		p.mu.Lock()
		p.theirs[m.ID] = cancel
		p.mu.Unlock()
		p.serving.Go(func() {
			defer func() {
				cancel()
				p.mu.Lock()
				delete(p.theirs, m.ID)
				p.mu.Unlock()
				<-p.room
			}()
			p.serve(ctx, m, c)
		})
	case "cancel":
		p.mu.Lock()
		if cancel := p.theirs[m.ID]; cancel != nil {
			cancel()
		}
		p.mu.Unlock()
	case "answer":
		p.mu.Lock()
		if c := p.calls[m.ID]; c != nil {
			delete(p.calls, m.ID)
			c <- m
		}
		p.mu.Unlock()
	default:
		return other(m)
	}
	return nil
}

// serve makes a call of the other process here.
func (p *peer) serve(ctx context.Context, m *message, c call) {
	do, ok := p.methods[c.Method]
	var out []byte
	var err error
	if ok {
		out, err = do(ctx, c.Caller, m.payload)
	} else {
		err = loam.Errorf(loam.Unimplemented, "call", "there is no method %q", c.Method)
	}
	var body any
	if err != nil {
		body = failureOf(err)
	}
	if err := p.send("answer", m.ID, body, out); loam.CodeOf(err) == loam.ResourceExhausted {
		_ = p.send("answer", m.ID, failureOf(err), nil) // who asked is gone if this fails too
	}
}

// end answers the calls that nobody will answer any more, and waits for those of the other.
func (p *peer) end(err error) {
	p.mu.Lock()
	p.ended = err
	for id, c := range p.calls {
		delete(p.calls, id)
		close(c)
	}
	for _, cancel := range p.theirs {
		cancel()
	}
	p.mu.Unlock()
	p.serving.Wait()
	for _, f := range p.files {
		f.Close()
	}
	p.files = nil
}
