package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/internal/filelock"
	"github.com/loam-run/loam/snapshot"
	"github.com/loam-run/loam/target/app"
)

// A predecessor is the old process, as the new one sees it.
type predecessor struct {
	peer  *peer
	hello hello
	says  chan *message // beside calls; closed at its end
	ended chan struct{} // closed when it has ended, and all it said was worked off
	stop  chan struct{} // closed when nobody listens any more

	mu      sync.Mutex
	sockets []*inherited
	apps    []string // programs that it has started and that shall run on
}

// inherited are a listener's sockets on their way from the old process.
type inherited struct {
	socketOf
	files []*os.File // nil: they are in use
	by    *socket    // what took them
}

// meet begins to listen to the old process.
func (s *server) meet(w *wire) {
	b := &predecessor{peer: newPeer(w, s.methods), says: make(chan *message), ended: make(chan struct{}), stop: make(chan struct{})}
	s.before = b
	s.gate.forward(b.peer)
	go func() {
		defer close(b.says)
		err := b.peer.read(func(m *message) error {
			select {
			case b.says <- m:
				return nil
			case <-b.stop:
				m.close()
				return errors.New("this process has ended")
			}
		})
		s.o.Log.Debug("the old process has nothing more to say", "reason", err)
	}()
}

// wait returns what the old process says next.
func (b *predecessor) wait(ctx context.Context) (*message, error) {
	select {
	case m, ok := <-b.says:
		if !ok {
			return nil, loam.Errorf(loam.Unavailable, "upgrade", "the process that was to be replaced has ended")
		}
		return m, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (b *predecessor) expect(ctx context.Context, kind string, body any) (*message, error) {
	m, err := b.wait(ctx)
	if err == nil && m.Kind != kind {
		err = loam.Errorf(loam.FailedPrecondition, "upgrade", "the old process says %q, not %q", m.Kind, kind)
	}
	if err == nil {
		err = m.into(body)
	}
	return m, err
}

// tell says how far this process is.
func (b *predecessor) tell(format string, args ...any) {
	_ = b.peer.send("progress", 0, fmt.Sprintf(format, args...), nil) // if it is gone the next wait says so
}

// prepare does all that two processes can do at once: it reads the resources and compiles what they name. It refuses to
// go on if anything that the old process serves would be missing.
func (s *server) prepare(ctx context.Context) error {
	b := s.before
	if _, err := b.expect(ctx, "hello", &b.hello); err != nil {
		return err
	}
	if b.hello.Wire != wireVersion {
		return &loam.Error{
			Code: loam.Unimplemented, Op: "upgrade", Err: fmt.Errorf("version %s speaks another language in upgrades (%d) than %s does (%d)", b.hello.Version, b.hello.Wire, s.o.Version, wireVersion),
			Hint: "end the old process and start the new one",
		}
	}
	if err := s.registry.Load(b.hello.Registry); err != nil {
		return err
	}
	objects, problems, err := s.o.Provider.Load(ctx)
	if err != nil {
		return err
	}
	s.plan = snapshot.Build(objects, problems, nil, s.env(ctx))
	b.tell("the new process has read the resources")
	s.failures = map[string]error{}
	s.applyTargets(ctx, s.plan)
	if err := s.missing(); err != nil {
		return err
	}
	return b.peer.send("ready", 0, ready{Version: s.o.Version, Apps: b.apps}, nil)
}

// missing is what the old process serves and this one cannot.
func (s *server) missing() error {
	var errs []error
	for _, st := range s.plan.Statuses {
		if slices.Contains(s.before.hello.Serves, st.Key) {
			if err := works(st, s.failures); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", st.Key, err))
			}
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return &loam.Error{
		Code: loam.FailedPrecondition, Op: "upgrade", Err: errors.Join(errs...),
		Hint: "the old process serves this; mend the resource, or take it away (loam check, with the new binary, tells more)",
	}
}

// succeed takes the place of the process before this one.
func (s *server) succeed(ctx context.Context) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	t, socket, err := s.takeOver(ctx)
	if err != nil {
		if socket != nil {
			socket.Close()
		}
		return err
	}
	if s.admin, err = admin.Listen(ctx, admin.Options{Socket: socket, Token: t.Token, DataDir: s.o.DataDir, Log: s.o.Log}, s); err != nil {
		return err
	}
	filelock.Sign(s.owned)
	s.begun()
	return nil
}

// takeOver waits for what only one process can have, and begins to serve.
func (s *server) takeOver(ctx context.Context) (take, *os.File, error) {
	b := s.before
	var t take
	for {
		m, err := b.wait(ctx)
		if err != nil {
			return t, nil, err
		}
		switch m.Kind {
		case "socket":
			in := &inherited{files: m.files}
			if err := m.into(&in.socketOf); err != nil {
				return t, nil, err
			}
			b.sockets = append(b.sockets, in)
			continue
		case "take":
			if err := m.into(&t); err != nil || len(m.files) != 2 {
				return t, nil, errors.Join(err, fmt.Errorf("the lock and the admin endpoint's socket are missing"))
			}
		default:
			return t, nil, fmt.Errorf("the old process says %q, which is not expected now", m.Kind)
		}
		s.owned = m.files[0]
		if err := s.gate.hold(ctx); err != nil { // nothing is under way here: calls went to the old process
			return t, m.files[1], err
		}
		if err := s.registry.Load(t.Registry); err != nil {
			return t, m.files[1], err
		}
		s.apply(ctx, s.plan)
		if err := errors.Join(s.missing(), s.unopened(), s.deaf()); err != nil {
			return t, m.files[1], err
		}
		return t, m.files[1], nil
	}
}

// unopened is why components are closed that the old process had open.
func (s *server) unopened() error {
	var errs error
	for key, c := range s.components {
		if c.err != nil && slices.Contains(s.before.hello.Open, key.capability+"/"+key.name) {
			errs = errors.Join(errs, c.err)
		}
	}
	return errs
}

// inheritApp is the program of the old process that an app of the same hash can go on with.
func (s *server) inheritApp(name, hash string) (appOf, bool) {
	b := s.before
	if b == nil || s.gate.at.Load().here {
		return appOf{}, false
	}
	a, ok := b.hello.Apps[name]
	if !ok || a.Hash != hash {
		return appOf{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.apps = append(b.apps, name)
	return a, true
}

// inherit is the sockets of the old process for a listener: those of the same name, else of the same address.
func (s *server) inherit(l snapshot.Listener, by *socket) []*os.File {
	if s.before == nil {
		return nil
	}
	for _, same := range []func(*inherited) bool{
		func(in *inherited) bool { return in.Name == l.Name && in.Address == l.Address },
		func(in *inherited) bool { return in.Address == l.Address },
	} {
		for _, in := range s.before.sockets {
			if in.files != nil && same(in) {
				files := in.files
				in.files, in.by = nil, by
				return files
			}
		}
	}
	return nil
}

// begun tells the old process that this one serves, and takes in what comes of it from now on.
func (s *server) begun() {
	b := s.before
	s.gate.open()
	var done serving
	by := map[string]*socket{}
	for _, in := range b.sockets {
		for _, f := range in.files { // the listener is no more
			f.Close()
		}
		in.files = nil
		if in.by != nil && in.by.listener != nil {
			done.Listeners = append(done.Listeners, in.Name)
			by[in.Name] = in.by
		}
	}
	_ = b.peer.send("serving", 0, done, nil) // it may be gone: everything is here
	s.o.Log.Info("took over", "from", b.hello.PID, "version", b.hello.Version)
	s.ending.Go(func() {
		defer close(b.ended)
		defer b.peer.close()
		for m := range b.says {
			if err := s.adopt(m, by); err != nil {
				s.o.Log.Error("something of the old process was lost", "kind", m.Kind, "error", err)
			}
			m.close()
		}
		for _, name := range b.apps { // those that it has not given away: it has broken down
			s.adoptApp(name, app.Given{})
		}
	})
}

// adopt goes on with something of the old process.
func (s *server) adopt(m *message, by map[string]*socket) error {
	switch m.Kind {
	case "conn":
		var name string
		if err := m.into(&name); err != nil {
			return err
		}
		l := by[name]
		if l == nil {
			return loam.Errorf(loam.NotFound, "upgrade", "there is no listener %q", name)
		}
		for i, f := range m.files {
			m.files[i] = nil
			if err := l.listener.Adopt(f); err != nil {
				return err
			}
		}
		m.files = nil
	case "app":
		a, g, err := given(m)
		if err != nil {
			g.End()
			return err
		}
		s.adoptApp(a.Name, g)
	case "relay":
		f, err := thaw(m)
		if err != nil {
			return err
		}
		return s.engine.Thaw(f, nil)
	}
	return nil
}

// adoptApp keeps a program running that the old process has started, or started none: then one is started.
func (s *server) adoptApp(name string, g app.Given) {
	h, _ := s.Target("App", name).(*handle)
	if h == nil || h.current.Load() == nil {
		g.End()
		return
	}
	p, ok := h.current.Load().target.(*app.Process)
	if !ok || !p.Adopt(g) {
		g.End() // it was changed meanwhile
	}
}

// desert ends the conversation with the old process, from whom nothing more is taken.
func (s *server) desert() {
	b := s.before
	close(b.stop)
	b.peer.close()
	for m := range b.says {
		m.close()
	}
	for _, in := range b.sockets {
		for _, f := range in.files {
			f.Close()
		}
	}
}
