package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/filelock"
	"github.com/loam-run/loam/snapshot"
	"github.com/loam-run/loam/target/app"
)

// A hot upgrade replaces the process by one of a new binary, while it serves. The old process starts the new one with one
// end of a socket pair, and they say in turn:
//
//	old: hello     what it serves
//	new: ready     it has read the resources and compiled the functions, and can do all that the old one does; or refused
//	               Now the old one lets deliveries end, has capability calls wait, and closes the store.
//	old: socket*   each listening socket; it goes on accepting
//	old: take      the data directory's lock, the admin endpoint's socket, the registry
//	new: serving   the store is open, and it accepts; or refused. Until this the old one can take everything back
//	old: app*, conn*, relay*, call*    what the old one has, as it becomes free, and the capability calls of what it still serves
//
// and the old one ends with the last request that it serves.

// predecessorEnv names the descriptor of the old process's end of the wire.
const predecessorEnv = "LOAM_PREDECESSOR_FD"

// Predecessor is the connection to the process whose place this one shall take, as that process gave it; nil where this
// one begins alone.
func Predecessor() (*os.File, error) {
	v := os.Getenv(predecessorEnv)
	if v == "" {
		return nil, nil
	}
	if err := os.Unsetenv(predecessorEnv); err != nil { // programs that this process starts have no such connection
		return nil, err
	}
	fd, err := strconv.Atoi(v)
	if err != nil || fd < 3 {
		return nil, loam.Errorf(loam.InvalidArgument, predecessorEnv, "%q is no descriptor", v)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "predecessor"), nil
}

// heir is the new process, once it serves.
type heir struct {
	*successor
	listeners []string // whose sockets it took
}

// arrival is a new process that is ready, or why there is none.
type arrival struct {
	n   *successor
	err error
}

// An upgradeRequest asks for an upgrade.
type upgradeRequest struct {
	binary   string
	patience time.Duration
	progress func(string)
	done     chan error // gets one, and has room for it
}

// Upgrade replaces this process by one of another binary, "" for the one it was started by, and returns once that
// serves. It tells of its progress meanwhile. An error leaves this process serving as before.
func (s *server) Upgrade(ctx context.Context, binary string, patience time.Duration, progress func(string)) error {
	r := &upgradeRequest{binary: binary, patience: cmp.Or(patience, s.o.Patience), progress: progress, done: make(chan error, 1)}
	select {
	case s.upgrades <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.life.Done():
		return loam.Errorf(loam.Unavailable, "upgrade", "the process is ending")
	}
	select { // who asked may go away: the upgrade goes on
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// signaled is the request of who sent SIGUSR2, and reads the log.
func (s *server) signaled() *upgradeRequest {
	return &upgradeRequest{patience: s.o.Patience, progress: func(text string) { s.o.Log.Info("upgrade", "progress", text) }, done: make(chan error, 1)}
}

// A successor is the new process, as the old one sees it.
type successor struct {
	peer   *peer
	cmd    *exec.Cmd
	exited chan struct{}
	status error // of its end
	ready  ready
	began  time.Time
	says   chan *message // beside calls; closed at its end
	limit  context.Context
	cancel context.CancelFunc
}

// startSuccessor starts the new process and returns when it is ready, or why it is not.
func (s *server) startSuccessor(ctx context.Context, r *upgradeRequest, h hello) (*successor, error) {
	if s.o.Successor == nil {
		return nil, &loam.Error{Code: loam.Unimplemented, Op: "upgrade", Err: errors.New("this process cannot be replaced while it runs"), Hint: "end it and start the new one"}
	}
	cmd, err := s.o.Successor(r.binary)
	if err != nil {
		return nil, err
	}
	ours, its, err := socketPair()
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, its)
	cmd.Env = append(cmd.Environ(), predecessorEnv+"="+strconv.Itoa(2+len(cmd.ExtraFiles)), "LOAM_DATA="+s.o.DataDir)
	err = cmd.Start()
	its.Close()
	if err != nil {
		ours.Close()
		return nil, &loam.Error{Code: loam.FailedPrecondition, Op: "upgrade", Err: err, Hint: "name a binary of loam that this user may run: --binary FILE"}
	}
	n := &successor{cmd: cmd, exited: make(chan struct{}), began: time.Now(), says: make(chan *message)}
	n.limit, n.cancel = context.WithTimeout(ctx, r.patience)
	go func() {
		n.status = cmd.Wait()
		close(n.exited)
	}()
	w, err := newWire(ours)
	if err != nil {
		n.kill()
		return nil, err
	}
	n.peer = newPeer(w, s.methods)
	go func() {
		defer close(n.says)
		_ = n.peer.read(func(m *message) error { // its end is what counts, and shows by says
			select {
			case n.says <- m:
				return nil
			case <-n.exited:
				return errors.New("it has ended")
			}
		})
	}()
	r.progress(fmt.Sprintf("started process %d, %s", cmd.Process.Pid, cmd.Path))
	if err := n.send("hello", h); err != nil {
		return nil, n.fail(err)
	}
	m, err := n.wait("ready", r.progress)
	if err != nil {
		return nil, n.fail(err)
	}
	if err := m.into(&n.ready); err != nil {
		return nil, n.fail(err)
	}
	return n, nil
}

// send says something to the new process.
func (n *successor) send(kind string, body any, files ...*os.File) error {
	err := n.peer.send(kind, 0, body, nil, files...)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		err = errEnded
	}
	return err
}

// wait returns what the new process says, which has to be of the kind wanted.
func (n *successor) wait(kind string, progress func(string)) (*message, error) {
	for {
		select {
		case m, ok := <-n.says:
			switch {
			case !ok:
				return nil, errEnded
			case m.Kind == kind:
				return m, nil
			case m.Kind == "progress":
				var text string
				if m.into(&text) == nil {
					progress(text)
				}
			case m.Kind == "refused":
				var f *failure
				if err := m.into(&f); err != nil {
					return nil, err
				}
				return nil, &refusal{f.err()}
			default:
				return nil, fmt.Errorf("it says %q, which is not expected now", m.Kind)
			}
		case <-n.limit.Done():
			if errors.Is(n.limit.Err(), context.DeadlineExceeded) {
				return nil, errHangs
			}
			return nil, n.limit.Err()
		}
	}
}

var (
	errEnded = errors.New("it ended")
	errHangs = errors.New("it took too long")
)

// refusal is the new process's own reason not to begin.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// fail ends the new process and says why.
func (n *successor) fail(err error) error {
	if errors.Is(err, errEnded) || errors.As(err, new(*refusal)) { // it ends by itself
		select {
		case <-n.exited:
		case <-time.After(5 * time.Second):
		}
	}
	took := time.Since(n.began).Round(time.Millisecond)
	n.kill()
	e := &loam.Error{Code: loam.FailedPrecondition, Op: "upgrade", Hint: "this process serves on as before; what the new one printed stands in the log"}
	switch {
	case errors.As(err, new(*refusal)):
		e.Err = fmt.Errorf("the new process refused: %w", errors.Unwrap(err))
		if hint := loam.HintOf(err); hint != "" {
			e.Hint = hint
		}
	case errors.Is(err, errEnded):
		e.Err = fmt.Errorf("the new process ended before it served: %w", n.status)
		if n.status == nil {
			e.Err = errors.New("the new process ended before it served, with status 0")
		}
	case errors.Is(err, errHangs):
		e.Err = fmt.Errorf("the new process did not serve within %v and was killed", took)
	default:
		e.Err = fmt.Errorf("the new process: %w", err)
	}
	return e
}

// kill ends the new process at once.
func (n *successor) kill() {
	_ = n.cmd.Process.Kill() // it may have ended
	<-n.exited
	n.cancel()
	if n.peer != nil {
		n.peer.close()
		for range n.says { // until its reader has ended
		}
	}
}

// hello is what this process serves.
func (s *server) hello() (h hello, err error) {
	h = hello{Wire: wireVersion, Version: s.o.Version, PID: os.Getpid(), Apps: map[string]appOf{}}
	if h.Registry, err = s.registry.Save(); err != nil {
		return h, err
	}
	for key, c := range s.components {
		if c.driver != nil {
			h.Open = append(h.Open, key.capability+"/"+key.name)
		}
	}
	for ref, hd := range s.targets {
		if v := hd.current.Load(); v != nil {
			if p, ok := v.target.(*app.Process); ok && app.CanGive {
				port, ready := p.Port()
				h.Apps[ref.Name] = appOf{Hash: v.hash, Port: port, Ready: ready}
			}
		}
	}
	for _, st := range s.plan.Statuses {
		if (st.Ready || st.Previous) && st.Key != "" && s.failures[st.Key] == nil {
			h.Serves = append(h.Serves, st.Key)
		}
	}
	return h, nil
}

// handOver gives the new process what only one can have, and returns when it serves. With an error, this one has
// everything again.
func (s *server) handOver(n *successor, r *upgradeRequest) (h *heir, err error) {
	var served serving
	defer func() {
		if err != nil {
			h, err = nil, n.fail(err)
			s.takeBack()
		}
	}()
	start := time.Now()
	r.progress("it is ready; deliveries end")
	if err := s.pause(n.limit); err != nil {
		return nil, err
	}
	paused := time.Now()
	if err := s.gate.hold(n.limit); err != nil {
		return nil, fmt.Errorf("capability calls did not end: %w", err)
	}
	var closing sync.WaitGroup
	var errs error
	for key, c := range s.components {
		if c.driver != nil {
			closing.Go(func() {
				if err := c.driver.Close(); err != nil {
					s.o.Log.Warn("did not end cleanly", "component", key.name, "error", err)
				}
			})
		}
	}
	closing.Wait()
	s.components = map[componentKey]*component{}
	for name, l := range s.listeners {
		if l.listener == nil {
			continue
		}
		files, err := l.listener.Files()
		if err == nil {
			err = n.send("socket", socketOf{Name: name, Address: l.address}, files...)
		}
		for _, f := range files {
			f.Close()
		}
		errs = errors.Join(errs, err)
	}
	if errs != nil {
		return nil, errs
	}
	t := take{Token: s.admin.Token()}
	if t.Registry, err = s.registry.Save(); err != nil {
		return nil, err
	}
	socket, err := s.admin.File()
	if err != nil {
		return nil, err
	}
	err = n.send("take", t, s.owned, socket)
	socket.Close()
	if err != nil {
		return nil, err
	}
	m, err := n.wait("serving", r.progress)
	if err != nil {
		return nil, err
	}
	if err := m.into(&served); err != nil {
		return nil, err
	}
	n.cancel()
	s.gate.forward(n.peer)
	if s.o.Upgraded != nil {
		s.o.Upgraded(n.cmd.Process.Pid)
	}
	r.progress(fmt.Sprintf("process %d serves; deliveries ended in %v, calls waited %v", n.cmd.Process.Pid,
		paused.Sub(start).Round(time.Millisecond), time.Since(paused).Round(time.Millisecond)))
	return &heir{n, served.Listeners}, nil
}

// pause ends deliveries: those under way, and what they came to is on the disk when it returns.
func (s *server) pause(ctx context.Context) error {
	for _, a := range s.apis {
		if a.rounds == nil {
			continue
		}
		if err := a.rounds.rest(ctx); err != nil {
			return fmt.Errorf("a delivery to app %s did not end: %w", a.plan.App, errHangs)
		}
	}
	for _, sub := range s.subscriptions {
		sub.stop()
	}
	for id, sub := range s.subscriptions {
		select {
		case <-sub.done:
			delete(s.subscriptions, id)
		case <-ctx.Done():
			for _, sub := range s.subscriptions {
				sub.failed.Store(true) // so that it is started again
			}
			return fmt.Errorf("a delivery of subscription %s did not end: %w", id, errHangs)
		}
	}
	return nil
}

// takeBack undoes what handOver has done.
func (s *server) takeBack() {
	filelock.Sign(s.owned)
	if err := s.admin.Announce(); err != nil {
		s.o.Log.Error("the admin endpoint cannot be found any more", "error", err)
	}
	s.apply(s.life, s.plan)
	s.gate.open()
}

// works is why a resource of a plan does not work; nil: it does.
func works(st snapshot.Status, failures map[string]error) error {
	if err := failures[st.Key]; err != nil {
		return err
	}
	if st.Ready {
		return nil
	}
	for _, p := range st.Problems {
		return p
	}
	return errors.New(st.Reason)
}
