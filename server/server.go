// Package server is the process: it loads resources, makes what they declare run, swaps in each new generation while
// the old one finishes, and ends in order. It is embeddable: Run takes all it needs and leaves nothing behind.
package server

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/internal/filelock"
	"github.com/loam-run/loam/internal/rss"
	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/snapshot"
	"github.com/loam-run/loam/wasm"
)

// A Provider is where resources come from.
type Provider interface {
	// Load reads them all. A problem spoils its own resource; the error means nothing could be read.
	Load(ctx context.Context) ([]*resource.Object, []resource.Problem, error)
	// Watch calls changed after something changed, until ctx ends.
	Watch(ctx context.Context, changed func()) error
}

// Programs beside this one offer component types, and come and go.
type Programs interface {
	// Factories are the types they offer at this moment. The error says which of them could not be asked.
	Factories(ctx context.Context) ([]loam.Factory, error)
	// Watch calls changed after a program has come, gone, or been replaced, until ctx ends.
	Watch(ctx context.Context, changed func())
	// Close ends the connections to them. It is called once, after the components were closed.
	Close() error
}

// Options of Run.
type Options struct {
	Provider  Provider
	Factories []loam.Factory // the component types there are
	Programs  Programs       // that offer further ones; nil: there are none
	Instances int            // where another process has DataDir, DataDir.2 and so on are tried, up to so many; 0: 1
	DataDir   string         // loam.db, the compile cache, the admin token
	Version   string
	Address   string // where to listen when no Gateway is declared; "" is 127.0.0.1:8080
	App       string // the one program that all is for, as with loam sidecar; "": what the resources declare
	Admin     string // the admin endpoint's address; "" is any free port of loopback
	Metrics   string // where to serve metrics to whoever asks; "": nowhere but at the admin endpoint
	Log       *slog.Logger
	// SetLevel changes from which level on is logged what a component says; nil: nobody can.
	SetLevel func(component, level string) error
	// Resolver makes what apps of other processes are found by, by the name of a resolution and its configuration; nil: they
	// are not.
	Resolver  func(name string, config map[string]string) (invoke.Resolver, error)
	AccessLog io.Writer // where the lines go of routes that have an access log; nil: os.Stdout
	// Goroutines serves by a goroutine for each connection where event loops are to be had.
	Goroutines bool
	Grace      time.Duration // for requests under way at the end; 0 is 30s

	// Quick serves a function that is new or changed at once, by interpreting it, and makes its native code meanwhile.
	// It is for who waits for each change, as with loam dev.
	Quick bool

	// Prepare brings a plan's files up to date before they are opened, as loam dev does by building them. It returns
	// what it could not do, by resource key. nil: the files are as they are.
	Prepare func(ctx context.Context, p *snapshot.Plan) map[string]error
	// Changed is told of every generation that was applied; nil: nobody is.
	Changed func(admin.Status)

	// Successor is the command of a process that shall take this one's place, of another binary or, for "", of this one's;
	// nil: none can.
	Successor func(binary string) (*exec.Cmd, error)
	// Predecessor is the connection to the process whose place this one takes, as Predecessor returns it; nil: there is none.
	Predecessor *os.File
	// Upgrade asks for an upgrade to this process's own binary, as SIGUSR2 does.
	Upgrade <-chan os.Signal
	// Patience is how long a new process may take until it serves; 0 is 30s.
	Patience time.Duration
	// Upgraded is told of the process that serves now; nil: nobody is.
	Upgraded func(pid int)
}

// Run serves until ctx ends, then drains, and returns nil; or it returns why it could not start. Once it serves, no
// resource can end it.
func Run(ctx context.Context, o Options) (err error) {
	if o.Grace == 0 {
		o.Grace = 30 * time.Second
	}
	if o.AccessLog == nil {
		o.AccessLog = os.Stdout
	}
	if o.Address == "" {
		o.Address = "127.0.0.1:8080"
	}
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	if o.Predecessor != nil {
		w, err := newWire(o.Predecessor)
		if err != nil {
			return err
		}
		return run(ctx, o, w)
	}
	return run(ctx, o, nil)
}

// run is Run. before is the process whose place this one takes, nil for nobody.
func run(ctx context.Context, o Options, before *wire) (err error) {
	refuse := func(err error) error {
		if before != nil {
			_ = before.send("refused", 0, failureOf(err), nil) // if it is gone, nobody wants to know
		}
		return err
	}
	s, err := open(o, before)
	if err != nil {
		return refuse(err)
	}
	// The reverse of how things were made: sockets first, so that nothing new comes in while the rest ends.
	grace := o.Grace
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		err = errors.Join(err, s.close(ctx), s.host.Close(), s.disown())
	}()
	if o.App != "" {
		var end context.CancelFunc
		ctx, end = context.WithCancel(ctx)
		defer end()
		s.shutdown = end
	}
	if before == nil {
		err = s.begin(ctx)
	} else {
		err = s.succeed(ctx)
	}
	if err != nil {
		return refuse(err)
	}
	if o.Metrics != "" {
		s.ending.Go(func() { admin.ServeMetrics(s.life, o.Metrics, s, o.Log) })
	}
	heir, err := s.serve(ctx)
	if heir == nil {
		return errors.Join(err, s.admin.Close())
	}
	end := time.Now().Add(o.Grace)
	leaving, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	s.leave(leaving, heir)
	grace = max(time.Until(end), 0)
	s.heir = heir
	return err
}

// open makes a server that has nothing to serve yet. Its data directory is its own, unless there is a process before it.
func open(o Options, before *wire) (*server, error) {
	var owned *os.File
	if before == nil {
		var err error
		if o.DataDir, owned, err = occupy(o); err != nil {
			return nil, err
		}
	}
	var s *server
	host, err := wasm.NewHost(wasm.Options{CacheDir: filepath.Join(o.DataDir, "cache"), Log: o.Log, Usage: func(u wasm.Usage) { s.used(&u) }})
	if err != nil {
		if owned != nil {
			err = errors.Join(err, owned.Close())
		}
		return nil, err
	}
	s = newServer(o, host)
	s.owned = owned
	if before != nil {
		s.meet(before)
	}
	return s, nil
}

// occupy takes the data directory, or the next one that nobody has.
func occupy(o Options) (string, *os.File, error) {
	for n := 1; ; n++ {
		dir := o.DataDir
		if n > 1 {
			dir += "." + strconv.Itoa(n)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", nil, &loam.Error{Code: loam.PermissionDenied, Op: "data directory", Err: err, Hint: "choose one that can be written: --data DIR"}
		}
		owned, err := filelock.Take(filepath.Join(dir, "lock"))
		switch {
		case err == nil && n > 1:
			o.Log.Warn("another process has the data directory of this app: what it keeps there is not seen here", "data", dir)
			return dir, owned, nil
		case err == nil:
			return dir, owned, nil
		case n >= o.Instances:
			return "", nil, &loam.Error{
				Code: loam.FailedPrecondition, Op: "data directory " + dir, Err: err,
				Hint: "end that process, or give this one a data directory of its own: --data DIR",
			}
		}
	}
}

// disown lets go of the data directory, and of the process before this one.
func (s *server) disown() error {
	if s.before != nil {
		s.desert()
	}
	if s.heir != nil {
		s.heir.peer.close()
		for range s.heir.says { // until its reader has ended
		}
	}
	if s.owned == nil {
		return nil
	}
	return s.owned.Close()
}

// begin serves what the resources declare.
func (s *server) begin(ctx context.Context) (err error) {
	if s.admin, err = admin.Listen(ctx, admin.Options{Address: s.o.Admin, DataDir: s.o.DataDir, Log: s.o.Log}, s); err != nil {
		return err
	}
	if err = s.reload(ctx); err == nil {
		err = cmp.Or(s.deaf(), s.fatal())
	}
	if err != nil {
		err = errors.Join(err, s.admin.Close())
	}
	return err
}

// serve keeps up with changes until ctx ends, or another process has taken this one's place, which it returns.
func (s *server) serve(ctx context.Context) (*heir, error) {
	ctx, cancel := context.WithCancel(ctx)
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	reload := make(chan struct{}, 1)
	changed := func() {
		select {
		case reload <- struct{}{}:
		default: // one is waiting already, and will see this change too
		}
	}
	if s.o.Programs != nil {
		others.Go(func() { s.o.Programs.Watch(ctx, changed) })
	}
	others.Go(func() {
		if err := s.o.Provider.Watch(ctx, changed); err != nil {
			s.o.Log.Error("watching for changes ended; restart to load further ones", "error", err)
		}
	})
	// Components that did not open are tried again, modules that were replaced are noticed.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var quiet quiet
	var upgrade *upgradeRequest // under way
	ready := make(chan arrival, 1)
	begin := func(r *upgradeRequest) {
		if upgrade != nil {
			r.done <- &loam.Error{Code: loam.FailedPrecondition, Op: "upgrade", Err: errors.New("one is under way already"), Hint: "wait for its end"}
			return
		}
		h, err := s.hello()
		if err != nil {
			r.done <- err
			return
		}
		upgrade = r
		others.Go(func() {
			n, err := s.startSuccessor(ctx, r, h)
			ready <- arrival{n, err}
		})
	}
	for {
		select {
		case <-ctx.Done():
			if upgrade != nil {
				a := <-ready
				if a.n != nil {
					a.err = a.n.fail(ctx.Err())
				}
				upgrade.done <- a.err
			}
			return nil, nil
		case <-reload:
			if err := s.reload(ctx); err != nil {
				s.o.Log.Error("resources could not be loaded; the present ones serve on", "error", err)
			}
		case <-tick.C:
			s.refresh(ctx)
			quiet.look()
		case r := <-s.upgrades:
			begin(r)
		case <-s.o.Upgrade:
			begin(s.signaled())
		case a := <-ready:
			r := upgrade
			upgrade = nil
			var h *heir
			if a.err == nil {
				h, a.err = s.handOver(a.n, r)
			}
			r.done <- a.err
			if h != nil {
				return h, nil
			}
			s.o.Log.Warn("upgrade failed; serving as before", "error", a.err, "hint", loam.HintOf(a.err))
		}
	}
}

// quiet sees when the process has nothing to do, and has it give memory back then.
type quiet struct {
	allocated uint64 // bytes, ever, at the last look
	trimmed   uint64 // at the last trim
	calm      int    // looks in a row that found nothing going on
}

// calmAfter is how many seconds without work make a process idle.
const calmAfter = 2

func (q *quiet) look() {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	now := sample[0].Value.Uint64()
	if now-q.allocated > 256<<10 {
		q.calm = 0
	} else {
		q.calm++
	}
	q.allocated = now
	if q.calm == calmAfter && now-q.trimmed > 1<<20 {
		rss.Trim()
		q.trimmed = now
	}
}

// reload loads the resources and applies what they come to.
func (s *server) reload(ctx context.Context) error {
	objects, problems, err := s.o.Provider.Load(ctx)
	if err != nil {
		return err
	}
	plan := snapshot.Build(objects, problems, s.plan, s.env(ctx))
	s.apply(ctx, plan)
	return nil
}

// env is what plans are made with: the component types among it that there are at this moment.
func (s *server) env(ctx context.Context) snapshot.Env {
	s.factories = s.o.Factories
	if s.o.Programs != nil {
		more, err := s.o.Programs.Factories(ctx)
		if err != nil {
			s.o.Log.Error("a program with components could not be asked what it offers", "error", err)
		}
		s.factories = slices.Concat(s.o.Factories, more)
	}
	return snapshot.Env{
		Factories: s.factories, Embedded: s.embedded(), Address: s.o.Address, App: s.o.App,
		CheckExpression: CheckExpression, CheckMatch: event.CheckMatch, CheckTrip: CheckTrip,
	}
}

// deaf is why no listener could be opened, if there should be some and there is none: a process that nobody can reach
// had better say so than run.
func (s *server) deaf() (err error) {
	for _, l := range s.listeners {
		if l.err == nil {
			return nil
		}
		err = l.err
	}
	return err
}

// embedded are the components a capability has while no resource says otherwise: all data in one file, and the secrets
// of the environment.
func (s *server) embedded() []snapshot.Component {
	path := filepath.Join(s.o.DataDir, "loam.db")
	var cs []snapshot.Component
	for _, capability := range []string{"state", "pubsub", "lock", "config", "sequence", "jobs"} {
		if s.o.App == "" || capability == "jobs" { // an app that is all there is has what it declares, and jobs
			cs = append(cs, snapshot.Component{
				Name: "default", Capability: capability, Type: capability + ".sqlite", Metadata: map[string]string{"path": path}, Default: true,
			})
		}
	}
	if s.o.App == "" {
		cs = append(cs, snapshot.Component{Name: "default", Capability: "secret", Type: "secret.env", Default: true})
	}
	return slices.DeleteFunc(cs, func(c snapshot.Component) bool { // an embedder may have left some out
		return !slices.ContainsFunc(s.o.Factories, func(f loam.Factory) bool { return f.Named(c.Type) })
	})
}
