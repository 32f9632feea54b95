package server

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/capability/http"
	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/secret"
	"github.com/loam-run/loam/capability/sequence"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/dialect/dapr"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/http2"
	"github.com/loam-run/loam/snapshot"
	"github.com/loam-run/loam/target/service/registry"
	"github.com/loam-run/loam/telemetry"
	"github.com/loam-run/loam/wasm"
)

// server holds what runs. All but the atomic values belongs to the goroutine of Run.
type server struct {
	o         Options
	started   time.Time
	host      *wasm.Host
	ballast   []byte // that nobody looks at
	engine    loop.Engine
	hub       *http2.Hub
	methods   loam.Methods
	inTask    map[string]loam.TaskMethod // those of methods that need no thread
	invoker   *invoke.Invoker
	sender    *http.Sender // of functions' and apps' requests to hosts outside
	series    *telemetry.Set
	ledger    *telemetry.Ledger
	logs      map[snapshot.AccessLog]*telemetry.AccessLog
	acts      telemetry.Acts
	keepMu    sync.Mutex     // guards what follows: APIs make policies when they meet an app
	factories []loam.Factory // the component types there are at this moment
	kept      map[string]any // what policies count, by their kind and State
	keeping   map[string]any // what of it the present plan has
	registry  *registry.Registry

	plan          *snapshot.Plan
	failures      map[string]error // what could not be made to run, by resource key
	components    map[componentKey]*component
	targets       map[snapshot.TargetRef]*handle
	listeners     map[string]*socket
	subscriptions map[string]*subscription
	ending        sync.WaitGroup // old versions that finish their calls, and new ones being compiled
	life          context.Context
	die           context.CancelFunc
	digests       map[string]digest
	uuidMu        sync.Mutex
	uuids         map[string]string // what {uuid} stands for, by place

	apis       map[string]*api            // by app and dialect
	resolvers  map[string]*resolver       // by what they are made of
	neighbours atomic.Pointer[neighbours] // what APIs find of each other
	left       chan struct{}              // closed when another process accepts in this one's place
	shutdown   func()                     // ends the process, where an app may; else nil

	gate     *gate    // where capability calls find the components
	owned    *os.File // the data directory's lock
	admin    *admin.Endpoint
	before   *predecessor // whose place this process takes; nil: nobody's
	heir     *heir        // that took this one's; nil: nobody
	upgrades chan *upgradeRequest

	// What requests find is stored before the sockets open that they come by.
	open   atomic.Pointer[opened]                         // the components that capability calls find
	named  atomic.Pointer[map[snapshot.TargetRef]*handle] // the functions, apps and services that calls by name find
	status atomic.Pointer[current]                        // what admin tells
	dapr   atomic.Pointer[dapr.Metrics]                   // of a sidecar's one app, by daprd's names; nil: nobody wants them
}

// watchdog is how long a task may hold its loop before the log says so: longer than a busy machine keeps one waiting.
const watchdog = 500 * time.Millisecond

// ballast is counted as memory in use by the collector, in bytes, and takes none, since it is never touched. The collector
// runs when the heap has doubled; with the megabyte or two that are in use here, that would be dozens of times a second
// under load, and each time its threads take the core from the loops for milliseconds. With it 16 MB become garbage first.
const ballast = 16 << 20

func newServer(o Options, host *wasm.Host) *server {
	s := &server{
		o: o, started: time.Now(), host: host, components: map[componentKey]*component{}, targets: map[snapshot.TargetRef]*handle{},
		listeners: map[string]*socket{}, subscriptions: map[string]*subscription{}, digests: map[string]digest{}, uuids: map[string]string{}, apis: map[string]*api{}, resolvers: map[string]*resolver{}, left: make(chan struct{}),
		logs: map[snapshot.AccessLog]*telemetry.AccessLog{}, kept: map[string]any{},
		gate: newGate(), upgrades: make(chan *upgradeRequest),
	}
	// A loop occupies one of Go's processors as long as it has something to do: one more lets the rest go on beside them.
	loops := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(loops + 1)
	s.ballast = make([]byte, ballast)
	s.engine = loop.New(loop.Options{Loops: loops, Watchdog: watchdog, Log: o.Log, Goroutines: o.Goroutines})
	s.hub = http2.NewHub(s.engine)
	s.series = telemetry.NewSet(s.engine.Shards())
	s.ledger = telemetry.OpenLedger(telemetry.LedgerOptions{Dir: filepath.Join(o.DataDir, "usage"), Shards: s.engine.Shards(), Log: o.Log})
	s.registry = registry.New(o.Log)
	s.life, s.die = context.WithCancel(context.Background())
	s.open.Store(newOpened(nil))
	s.named.Store(&map[snapshot.TargetRef]*handle{})
	s.sender = http.New()
	s.methods = loam.Methods{}
	findBus := func(name string) (state.Bus, error) { return find[*pubsub.Bus](s, "pubsub")(name) }
	for _, m := range []loam.Methods{
		state.Methods(find[*state.Store](s, "state"), findBus),
		pubsub.Methods(find[*pubsub.Bus](s, "pubsub")),
		lock.Methods(find[*lock.Locker](s, "lock")),
		config.Methods(find[*config.Config](s, "config")),
		sequence.Methods(find[*sequence.Sequence](s, "sequence")),
		secret.Methods(find[*secret.Store](s, "secret")),
		binding.Methods(find[*binding.Binding](s, "binding")),
		crypto.Methods(find[*crypto.Crypto](s, "crypto")),
		file.Methods(find[*file.Store](s, "file")),
		jobs.Methods(find[*jobs.Jobs](s, "jobs")),
	} {
		for name, do := range m {
			s.methods[name] = s.gate.method(name, do)
		}
	}
	s.invoker = invoke.New(s.callee)
	maps.Copy(s.methods, s.invoker.Methods()) // these need no component
	maps.Copy(s.methods, s.sender.Methods())
	s.inTask = s.invoker.TaskMethods()
	for name, do := range state.TaskMethods(find[*state.Store](s, "state"), findBus) {
		s.inTask[name] = s.gate.taskMethod(do, s.methods[name])
	}
	return s
}

// apply makes a plan run, reusing what stays the same, and ends what is no more. What fails is reported on its resource
// and leaves its previous version serving.
func (s *server) apply(ctx context.Context, plan *snapshot.Plan) {
	s.plan, s.failures = plan, map[string]error{}
	if s.o.Prepare != nil {
		maps.Copy(s.failures, s.o.Prepare(ctx, plan))
	}
	s.keepMu.Lock()
	s.keeping = map[string]any{}
	s.keepMu.Unlock()
	oldComponents := s.applyComponents(ctx, plan)
	s.applyTargets(ctx, plan)
	s.applyListeners(ctx, plan)
	s.applyAPIs(ctx, plan)
	s.keepMu.Lock()
	s.kept = s.keeping
	s.keepMu.Unlock()
	s.applySubscriptions(ctx, plan)
	for key, c := range oldComponents {
		s.endLater(func(ctx context.Context) error { return c.driver.Close() }, "component", key.name)
	}
	s.publish()
}

// refresh tries again what failed, and takes in files that were replaced.
func (s *server) refresh(ctx context.Context) {
	if s.plan == nil {
		return
	}
	stale := false
	for _, c := range s.components {
		stale = stale || c.err != nil && time.Since(c.tried) > retryOpening
	}
	for _, l := range s.listeners {
		stale = stale || l.err != nil
	}
	for path, d := range s.digests {
		stale = stale || d.stale(path)
	}
	for _, sub := range s.subscriptions {
		stale = stale || sub.failed.Load()
	}
	if stale {
		s.apply(ctx, s.plan)
	} else {
		s.publish() // the states of processes change by themselves
	}
}

// endLater runs the end of something that calls may still be in.
func (s *server) endLater(end func(context.Context) error, kind, name string) {
	s.ending.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.o.Grace)
		defer cancel()
		if err := end(ctx); err != nil {
			s.o.Log.Warn("did not end cleanly", kind, name, "error", err)
		}
	})
}

// close ends all that runs, in the order that loses nothing: no new requests, then no new deliveries, then the targets,
// then what they call.
func (s *server) close(ctx context.Context) error {
	s.die()
	var ends sync.WaitGroup
	end := func(f func(context.Context) error, kind, name string) {
		ends.Go(func() {
			if err := f(ctx); err != nil {
				s.o.Log.Warn("did not end cleanly", kind, name, "error", err)
			}
		})
	}
	for name, l := range s.listeners {
		if l.listener != nil {
			end(l.listener.Drain, "listener", name)
		}
	}
	for key, a := range s.apis {
		if a.stop(); a.rounds != nil {
			end(func(ctx context.Context) error {
				select {
				case <-a.rounds.done:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}, "api", key)
		}
	}
	for id, sub := range s.subscriptions {
		sub.stop()
		end(func(ctx context.Context) error {
			select {
			case <-sub.done:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, "subscription", id)
	}
	ends.Wait()
	for _, a := range s.apis {
		a.close()
	}
	for _, r := range s.resolvers {
		r.names.Close()
		if c, ok := r.Resolver.(io.Closer); ok {
			_ = c.Close() // others see for themselves that it is gone
		}
	}
	for ref, h := range s.targets {
		if v := h.current.Swap(nil); v != nil {
			end(v.end, strings.ToLower(ref.Kind), ref.Name)
		}
	}
	ends.Wait()
	s.ending.Wait()
	for key, c := range s.components {
		if c.driver != nil {
			end(func(context.Context) error { return c.driver.Close() }, "component", key.name)
		}
	}
	ends.Wait()
	err := s.engine.Close()
	for _, l := range s.logs {
		err = errors.Join(err, l.Close())
	}
	s.registry.Close()
	if s.o.Programs != nil {
		err = errors.Join(err, s.o.Programs.Close())
	}
	return errors.Join(err, s.sender.Close(), s.ledger.Close())
}
