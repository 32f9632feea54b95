package policy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/loam-run/loam"
)

// HedgeConfig sends a request a second time when the first takes long. Zero fields take the default beside them.
type HedgeConfig struct {
	After  time.Duration // the first try has no answer that long; 100ms
	Max    int           // tries beside the first, After apart; 1
	Body   int           // bytes of a request's body that are read before it is sent; one with a larger is tried once; 64 KiB
	Budget *Budget       // what tries may add to the target's load; nil: one of its own
	Told   Told
}

// Hedge sends a request that is idempotent (RFC 9110, section 9.2.2) again when there is no answer after a while, and takes the
// answer that comes first; the other try is canceled. An error, or a 5xx, is no answer while another try is under way. It
// costs a task for each try and the request's body in memory: it is for targets whose few slow answers hurt.
func Hedge(c HedgeConfig) loam.Policy {
	c.After = cmp.Or(c.After, 100*time.Millisecond)
	c.Max = cmp.Or(c.Max, 1)
	c.Body = cmp.Or(c.Body, 64<<10)
	if c.Budget == nil {
		c.Budget = NewBudget(BudgetConfig{})
	}
	return func(next loam.Target) loam.Target { return &hedge{next, c} }
}

type hedge struct {
	next loam.Target
	c    HedgeConfig
}

func (p *hedge) Serve(req *loam.Request) (*loam.Response, error) {
	p.c.Budget.earn(req.Task())
	if !idempotent(req.Method) || req.Header.Has("Upgrade") || req.Length > int64(p.c.Body) {
		return p.next.Serve(req)
	}
	var body []byte
	if req.Body != nil {
		var whole bool
		var err error
		if body, whole, err = p.read(req); err != nil || !whole {
			if err != nil {
				return nil, err
			}
			return p.next.Serve(req)
		}
	}
	r := &race{task: req.Task(), next: p.next}
	return r.run(req, body, p)
}

// read reads the request's body. Where it is too large for that, the request gets it whole all the same.
func (p *hedge) read(req *loam.Request) (body []byte, whole bool, err error) {
	body, err = io.ReadAll(io.LimitReader(req.Body, int64(p.c.Body)+1))
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("read the body: %w", err)
	case len(body) > p.c.Body:
		req.Body = &rest{memory{b: body}, req.Body}
		return nil, false, nil
	}
	return body, true, nil
}

// rest is a body of which a part was read before.
type rest struct {
	read memory
	io.ReadCloser
}

func (r *rest) Read(p []byte) (int, error) {
	if r.read.Buffered() > 0 {
		return r.read.Read(p)
	}
	return r.ReadCloser.Read(p)
}

// A race is tries of one request side by side.
type race struct {
	task loam.Task // of the request
	next loam.Target

	mu    sync.Mutex // guards what follows and the tries' outcomes; never held while waiting
	tries []*rival
	over  bool // one has won, or nobody waits any more
}

// A rival is one try. It has a task and a copy of the request, and keeps both until the answer that it won with was sent.
type rival struct {
	*race
	req   *loam.Request
	own   loam.Task
	res   *loam.Response
	err   error
	done  bool
	panic any
	won   bool
	ended bool // its answer was sent
}

func (r *race) run(req *loam.Request, body []byte, p *hedge) (*loam.Response, error) {
	r.start(req, body)
	next := r.task.Now().Add(p.c.After)
	for {
		until := req.Deadline()
		more := len(r.tries) <= p.c.Max && (until.IsZero() || next.Before(until))
		if more {
			until = next
		}
		err := r.task.Park(until)
		if best := r.best(); best != nil {
			return r.take(req, best)
		}
		switch {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			r.stop(nil)
			return nil, err
		case !more:
			r.stop(nil)
			return nil, loam.Errorf(loam.DeadlineExceeded, "hedge", "none of %d tries was answered in time", len(r.tries))
		default:
			next = r.task.Now().Add(p.c.After)
			if !p.c.Budget.spend(r.task) {
				p.c.Told.of(req, OverBudget)
				continue
			}
			p.c.Told.of(req, Hedged)
			r.start(req, body)
		}
	}
}

func (r *race) start(req *loam.Request, body []byte) {
	t := &rival{race: r, req: req.Clone(nil)}
	t.req.Length = req.Length
	if req.Body != nil {
		t.req.Body, t.req.Length = &memory{b: body}, int64(len(body))
	}
	if r.task.Shard() != 0 { // tasks of one loop take turns: where the others went can be read, to go elsewhere
		for _, other := range r.tries {
			t.req.Tried = append(t.req.Tried, other.req.Tried...)
		}
	}
	r.tries = append(r.tries, t)
	t.own = r.task.Go(t.run)
}

// best is the try to answer with, nil while it is worth waiting for one.
func (r *race) best() (best *rival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	running := false
	for _, t := range r.tries {
		switch {
		case !t.done:
			running = true
		case t.err == nil && t.panic == nil && t.res.Status < 500:
			return t
		case best == nil || best.res == nil:
			best = t
		}
	}
	if running {
		return nil
	}
	return best
}

// stop ends the race: every try but winner is canceled.
func (r *race) stop(winner *rival) {
	r.mu.Lock()
	r.over = true
	if winner != nil {
		winner.won = winner.res != nil
	}
	r.mu.Unlock()
	for _, t := range r.tries {
		if t != winner {
			t.own.Cancel()
		}
		t.own.Wake()
	}
}

// take gives the request the answer of a try.
func (r *race) take(req *loam.Request, t *rival) (*loam.Response, error) {
	req.Target, req.Affinity = t.req.Target, t.req.Affinity
	res, err, panicked := t.res, t.err, t.panic
	if res != nil {
		req.AtEnd(t)
	}
	r.stop(t)
	if panicked != nil {
		panic(panicked) // in the request's own task, where it is logged
	}
	return res, err
}

// RequestEnded lets go of the copy.
func (t *rival) RequestEnded() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.own.Wake()
}

func (t *rival) run(own loam.Task) {
	defer t.req.Release()
	t.req.SetTask(own)
	res, panicked, err := t.serve()
	if res == nil || res.Status >= 500 {
		t.req.EndTry(0) // the others may wait for a place that it holds, and it for them
	}
	t.mu.Lock()
	t.res, t.err, t.panic, t.done = res, err, panicked, true
	t.mu.Unlock()
	t.task.Wake()
	for {
		t.mu.Lock()
		lost, ended := t.over && !t.won, t.ended
		t.mu.Unlock()
		if lost {
			discard(res)
		}
		if lost || ended {
			return
		}
		if err := own.Park(time.Time{}); err != nil { // the engine stops, or we have just lost
			t.mu.Lock()
			won := t.won
			if !won {
				t.res, t.err = nil, err
			}
			t.mu.Unlock()
			if !won {
				discard(res)
			}
			return
		}
	}
}

func (t *rival) serve() (res *loam.Response, panicked any, err error) {
	defer func() { panicked = recover() }()
	res, err = t.next.Serve(t.req)
	return res, nil, err
}

func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}
