package server

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/loam-run/loam/snapshot"
	"github.com/loam-run/loam/target/app"
)

// leave goes on with what the new process cannot take over, until all of it has ended, or ctx has.
func (s *server) leave(ctx context.Context, n *heir) {
	began := time.Now()
	s.die() // what compiles is of no use any more, and the new process serves the metrics
	taken := map[string]bool{}
	for _, name := range n.listeners {
		taken[name] = true
	}
	say := func(kind string, body any, payload []byte, files ...*os.File) {
		if err := n.peer.send(kind, 0, body, payload, files...); err != nil {
			s.o.Log.Error("a connection was lost on its way to the new process", "error", err)
		}
		for _, f := range files {
			f.Close()
		}
	}
	for _, name := range n.ready.Apps {
		s.give(name, say)
	}
	var ends sync.WaitGroup
	for name, l := range s.listeners {
		switch {
		case l.listener == nil:
			delete(s.listeners, name)
		case !taken[name]: // the new process does not listen there
			delete(s.listeners, name)
			ends.Go(func() { _ = l.listener.Drain(ctx) })
		default:
			if err := l.listener.Leave(); err != nil {
				s.o.Log.Warn("did not end cleanly", "listener", name, "error", err)
			}
		}
	}
	close(s.left)
	ends.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, handTime/2)
		defer cancel()
		s.admin.Leave(ctx)
	})
	if s.before != nil {
		ends.Go(func() {
			select {
			case <-s.before.ended: // its connections are passed on
			case <-ctx.Done():
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		ends.Wait()
		close(ended)
	}()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	retired, alone := false, false
	for {
		left := 0
		for name, l := range s.listeners {
			left += l.listener.Move(func(f *os.File) { say("conn", name, nil, f) })
		}
		if s.engine.Relays() > 0 {
			for _, f := range s.engine.Freeze() {
				say("relay", relayOf{
					FromA: len(f.FromA), FromB: len(f.FromB), EndA: f.EndA, EndB: f.EndB, Idle: f.Idle, Tag: f.Tag, AToB: f.AToB, BToA: f.BToA,
				}, append(f.FromA, f.FromB...), f.A, f.B)
			}
			left += s.engine.Relays() // those in TLS
		}
		if alone && left == 0 {
			return
		}
		if since := time.Since(began); since > handTime {
			if !retired {
				retired = true
				tick.Reset(20 * time.Millisecond)
			}
			for _, l := range s.listeners {
				l.listener.Retire()
			}
		}
		select {
		case <-tick.C:
		case <-ended:
			ended, alone = nil, true
		case <-ctx.Done():
			return
		}
	}
}

// give hands a program to the new process, which starts one where there is none.
func (s *server) give(name string, say func(kind string, body any, payload []byte, files ...*os.File)) {
	var g app.Given
	if h := s.targets[snapshot.TargetRef{Kind: "App", Name: name}]; h != nil && h.current.Load() != nil {
		if p, ok := h.current.Load().target.(*app.Process); ok {
			var err error
			if g, err = p.Give(); err != nil {
				s.o.Log.Error("the app ends with this process, and is started anew", "app", name, "error", err)
			}
		}
	}
	a := appGiven{Name: name, PID: g.PID, Restarts: g.Restarts, Output: g.Output != nil, Leash: g.Leash != nil, Handle: g.Handle != nil}
	var files []*os.File
	for _, f := range []*os.File{g.Output, g.Leash, g.Handle} {
		if f != nil {
			files = append(files, f)
		}
	}
	say("app", a, nil, files...)
}

// handTime is how long the old process waits for connections of HTTP/1 to be between two requests, before it ends them
// with the request that they are in.
const handTime = 600 * time.Millisecond
