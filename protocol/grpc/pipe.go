package grpc

import (
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// A pipe is a body that some tasks write and another one reads. It keeps what was written and not read, which is bounded.
// Nobody holds its lock while he waits.
type pipe struct {
	mu      sync.Mutex
	b       []byte
	taken   int         // of b
	reader  loam.Task   // where Read waits
	reads   bool        // it does
	writers []loam.Task // that wait for room
	ended   bool        // no more is written
	broken  error       // nobody reads any more
	budget  *protocol.Budget
	held    int // of it
}

const (
	pipeHigh = 64 << 10 // a writer waits from there on
	pipeFull = 4 << 20  // and one that does not wait is refused
)

var (
	errOver     = &loam.Error{Code: loam.Canceled, Op: "grpc", Err: errors.New("the stream is over")}
	errPipeFull = &loam.Error{Code: loam.ResourceExhausted, Op: "grpc", Err: errors.New("the peer does not take what is sent")}
)

// bind tells which task reads from now on; nil: none.
func (p *pipe) bind(t loam.Task) {
	if t == nil {
		p.abandon(io.EOF)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reader = t
}

// write adds m's frame, and waits in t for room first; if t is nil it does not wait.
func (p *pipe) write(t loam.Task, m Message, deadline time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.broken == nil && !p.ended {
		switch n := len(p.b) - p.taken; {
		case n < pipeHigh, t == nil && n < pipeFull:
			return p.add(m)
		case t == nil:
			return errPipeFull
		}
		p.writers = append(p.writers, t)
		p.mu.Unlock()
		err := t.Park(deadline)
		p.mu.Lock()
		if i := slices.Index(p.writers, t); i >= 0 {
			p.writers = slices.Delete(p.writers, i, i+1)
		}
		if err != nil {
			return err
		}
	}
	if p.broken != nil {
		return p.broken
	}
	return errOver
}

// add is called with mu held.
func (p *pipe) add(m Message) error {
	if p.taken > len(p.b)/2 { // else who is never quite behind nor quite through would have all that was ever written
		p.b, p.taken = append(p.b[:0], p.b[p.taken:]...), 0
	}
	before := len(p.b)
	p.b = appendFrame(p.b, m)
	if len(p.b) > protocol.Free || p.held > 0 {
		if err := p.hold(len(p.b)); err != nil {
			p.b = slices.Clone(p.b[:before]) // the memory that it grew to goes
			return err
		}
	}
	p.wake()
	return nil
}

// hold takes of the budget what n bytes hold, in place of those before. It is called with mu held.
func (p *pipe) hold(n int) error {
	err := p.budget.Resize(p.held, n)
	if err == nil {
		p.held = n
	}
	return err
}

// wake wakes the reader where it waits.
func (p *pipe) wake() {
	if p.reads {
		p.reads = false
		p.reader.Wake()
	}
}

// end is called by the writer after the last message.
func (p *pipe) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.wake()
}

// abandon is called when nobody reads any more.
func (p *pipe) abandon(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken == nil {
		p.broken = err
	}
	p.b, p.taken = nil, 0
	_ = p.hold(0) // giving back is never refused
	for _, t := range p.writers {
		t.Wake()
	}
	p.writers = nil
	p.wake()
}

// wait returns when there is something to read, or the end, which it tells.
func (p *pipe) wait(deadline time.Time) (ended bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.b) == p.taken && !p.ended && p.broken == nil {
		t := p.reader
		p.reads = true
		p.mu.Unlock()
		err := t.Park(deadline)
		p.mu.Lock()
		p.reads = false
		if err != nil {
			return false, err
		}
	}
	return len(p.b) == p.taken, p.broken
}

// read waits for bytes.
func (p *pipe) read(to []byte, deadline time.Time) (int, error) {
	if ended, err := p.wait(deadline); ended || err != nil {
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := copy(to, p.b[p.taken:])
	if p.taken += n; p.taken == len(p.b) {
		p.b, p.taken = p.b[:0], 0
		if cap(p.b) > pipeHigh {
			p.b = nil
		}
		if p.held > 0 {
			_ = p.hold(0)
		}
	}
	if len(p.b)-p.taken < pipeHigh/2 {
		for _, t := range p.writers {
			t.Wake()
		}
		p.writers = p.writers[:0]
	}
	return n, nil
}
