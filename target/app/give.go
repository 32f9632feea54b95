package app

import (
	"errors"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/loam-run/loam/loop"
)

// A Given is a program on its way from the process that started it to another one, which keeps it running from then on.
type Given struct {
	PID      int // 0: it does not run at this moment
	Restarts int
	Output   *os.File // what it prints
	Leash    *os.File // keeps it alive
	Handle   *os.File // tells of its end
}

// Close lets go of the files.
func (g *Given) Close() {
	for _, f := range []*os.File{g.Output, g.Leash, g.Handle} {
		if f != nil {
			f.Close()
		}
	}
	g.Output, g.Leash, g.Handle = nil, nil, nil
}

// End ends a program that nobody takes.
func (g *Given) End() {
	if g.PID > 0 {
		_ = signalGroup(g.PID, syscall.SIGTERM) // it may have ended
	}
	g.Close()
}

// Port is where the program listens, and whether it does at this moment.
func (p *Process) Port() (port int, ready bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.ready:
		ready = true
	default:
	}
	return p.command.Port, ready
}

// Give lets go of the program, for another process to keep it running. This one may go on sending it requests.
func (p *Process) Give() (Given, error) {
	p.mu.Lock()
	if p.isGiven() || p.resumed {
		p.mu.Unlock()
		return Given{}, errGiven
	}
	c := p.child
	g := Given{Restarts: p.restarts}
	if c != nil {
		handle := c.handle
		if handle == nil {
			var err error
			if handle, err = handleOf(c.pid); err != nil {
				p.mu.Unlock()
				return Given{}, err
			}
		}
		g.PID, g.Output, g.Leash, g.Handle = c.pid, c.output, c.leash, handle
	}
	close(p.given)
	reading := p.reading
	p.mu.Unlock()
	if c != nil {
		_ = c.output.SetReadDeadline(time.Unix(1, 0)) // a pipe has deadlines
		<-reading
	}
	return g, nil
}

// Resume is a program that another process has started, and that listens on c.Port; ready tells whether it does already.
// It is kept running from Adopt on.
func Resume(engine loop.Engine, c Command, ready bool, log *slog.Logger) *Process {
	p := newProcess(engine, c, log)
	p.resumed = true
	if ready {
		p.set("ready", true)
	}
	return p
}

// Adopt keeps the program running from now on, which another process gave away, and takes its files; where it does not
// run, it is started. It is false where the program is kept already, or not wanted any more.
func (p *Process) Adopt(g Given) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.resumed {
		return false
	}
	p.resumed, p.restarts = false, g.Restarts
	var c *child
	if g.PID > 0 {
		c = &child{pid: g.PID, output: g.Output, leash: g.Leash, handle: g.Handle, wait: func() error {
			if err := awaitEnd(g.Handle); err != nil {
				return err
			}
			return errors.New("it exited; with which status, only the process knows that started it")
		}}
	}
	go p.keep(p.life, c)
	return true
}
