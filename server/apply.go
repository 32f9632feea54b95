package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/http2"
	"github.com/loam-run/loam/snapshot"
	"github.com/loam-run/loam/target/app"
	"github.com/loam-run/loam/target/function"
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
	dapr      *dapr.Metrics  // of the one app of a sidecar, by daprd's names; nil: nobody reads them
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
	if o.App != "" && o.Metrics != "" {
		s.dapr = dapr.NewMetrics(o.App, os.Getenv("NAMESPACE"), s.engine.Shards())
	}
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

// applyTargets starts functions and apps that are new or changed.
func (s *server) applyTargets(ctx context.Context, plan *snapshot.Plan) {
	wanted := map[snapshot.TargetRef]bool{}
	var making sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, 2) // compiling takes a core
	start := func(ref snapshot.TargetRef, hash string, make func() (*version, error)) {
		wanted[ref] = true
		h := s.targets[ref]
		if h == nil {
			h = &handle{name: ref.Name}
			s.targets[ref] = h
		}
		key := ref.Kind + "/" + ref.Name
		if _, failed := s.failures[key]; failed {
			return // it could not be prepared
		}
		if v := h.current.Load(); v != nil && v.hash == hash {
			return
		}
		making.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			v, err := make()
			if err != nil {
				s.o.Log.Error("not started", strings.ToLower(ref.Kind), ref.Name, "error", err, "hint", loam.HintOf(err))
				mu.Lock()
				s.failures[key] = err
				mu.Unlock()
				return
			}
			if old := h.current.Swap(v); old != nil {
				s.endLater(old.end, strings.ToLower(ref.Kind), ref.Name)
			}
			if v.improve != nil {
				s.ending.Go(func() { v.improve(h) })
			}
		})
	}
	for _, f := range plan.Functions {
		ref := snapshot.TargetRef{Kind: "Function", Name: f.Name}
		sum, err := s.digest(f.File)
		start(ref, snapshot.Hash(f)+sum, func() (*version, error) {
			if err != nil {
				return nil, &loam.Error{Code: loam.NotFound, Op: fmt.Sprintf("function %q", f.Name), Err: err, Hint: "build it first: loam build"}
			}
			module, err := os.ReadFile(f.File)
			if err != nil {
				return nil, err
			}
			return s.startFunction(ctx, snapshot.Hash(f)+sum, module, f)
		})
	}
	for _, a := range plan.Apps {
		ref := snapshot.TargetRef{Kind: "App", Name: a.Name}
		sum, err := "", error(nil)
		args := a.Command
		if a.Source != "" {
			args = []string{a.Binary}
			sum, err = s.digest(a.Binary)
		}
		start(ref, snapshot.Hash(a)+sum, func() (*version, error) {
			if err != nil {
				return nil, &loam.Error{Code: loam.NotFound, Op: fmt.Sprintf("app %q", a.Name), Err: err, Hint: "build it first: loam build"}
			}
			if !a.Program() {
				return newVersion(snapshot.Hash(a), onlyAsks(a.Name), func(context.Context) error { return nil }), nil
			}
			if a.Address != "" {
				t := app.New(app.Config{Engine: s.engine, Hub: s.hub, Address: a.Address, Protocol: a.Protocol})
				return newVersion(snapshot.Hash(a), t, t.Close), nil
			}
			command := app.Command{Name: a.Name, Args: args, Dir: a.Dir, Env: a.Env, Port: a.Port, Ready: a.Health, Protocol: a.Protocol, Hub: s.hub}
			var p *app.Process
			if old, ok := s.inheritApp(a.Name, snapshot.Hash(a)+sum); ok {
				command.Port = old.Port
				p = app.Resume(s.engine, command, old.Ready, s.o.Log)
			} else if p, err = app.Start(s.engine, command, s.o.Log); err != nil {
				return nil, err
			}
			v := newVersion(snapshot.Hash(a)+sum, p, p.Close)
			v.state = p.State
			return v, nil
		})
	}
	for _, sv := range plan.Services {
		ref := snapshot.TargetRef{Kind: "Service", Name: sv.Name}
		before := s.targets[ref].service()
		start(ref, snapshot.Hash(sv), func() (*version, error) { return s.startService(snapshot.Hash(sv), sv, before) })
	}
	making.Wait()
	for ref, h := range s.targets {
		if !wanted[ref] {
			delete(s.targets, ref)
			if v := h.current.Swap(nil); v != nil {
				s.endLater(v.end, strings.ToLower(ref.Kind), ref.Name)
			}
		}
	}
	s.guardTargets(plan.Policies)
	named := maps.Clone(s.targets)
	s.named.Store(&named)
	for path := range s.digests {
		if !s.digests[path].used {
			delete(s.digests, path)
		}
	}
}

// guardTargets puts round targets what of their policies holds for events and calls by name as well: what bounds and mends
// calls. What asks who comes from outside, or changes what goes there, is for requests of routes.
func (s *server) guardTargets(all []snapshot.TargetPolicy) {
	own := map[*handle]loam.Target{}
	for _, p := range all {
		if h := s.targets[p.TargetRef]; h != nil {
			inside := snapshot.Policy{
				Timeout: p.Policy.Timeout, Retry: p.Policy.Retry, Hedge: p.Policy.Hedge, Bulkhead: p.Policy.Bulkhead, Adaptive: p.Policy.Adaptive, Breaker: p.Policy.Breaker,
			}
			for _, l := range p.Policy.RateLimits {
				if l.By == "all" {
					inside.RateLimits = append(inside.RateLimits, l)
				}
			}
			own[h] = s.policies(inside, nil)(h)
		}
	}
	for _, h := range s.targets {
		if t := own[h]; t != nil {
			h.own.Store(&t)
		} else {
			h.own.Store(nil)
		}
	}
}

// startFunction makes a version of a function; where quick is wanted, one that is interpreted, which a compiled one
// takes over from as soon as it is there.
func (s *server) startFunction(ctx context.Context, hash string, module []byte, f snapshot.Function) (*version, error) {
	config := wasm.Config{
		ABI: f.ABI, Isolation: f.Isolation, Env: f.Env, Settings: []byte(f.Settings), Timeout: f.Timeout, CPU: f.CPU, Memory: f.Memory,
		Concurrency: f.Concurrency, Queue: f.Queue, MaxRequest: f.MaxRequest, MaxResponse: f.MaxResponse, MaxCalls: f.MaxCalls, MaxEgress: f.MaxEgress, Idle: f.Idle,
		Caller: &loam.Caller{Name: f.Name, Grants: f.Grants, Denied: f.Denied}, Methods: s.methods, InTask: s.inTask, Interpret: s.o.Quick,
	}
	if n := f.Session; n != nil {
		config.Session = wasm.Session{Header: n.Header, Cookie: n.Cookie, Max: n.Max, Idle: n.Idle}
	}
	if w := f.Warmup; w != nil {
		config.Warmup = &wasm.Warmup{Method: w.Method, Path: w.Path, Body: []byte(w.Body)}
	}
	fn, err := function.New(ctx, s.host, f.Name, module, config)
	if err != nil {
		return nil, err
	}
	v := newVersion(hash, fn, fn.Close)
	if !config.Interpret {
		return v, nil
	}
	config.Interpret = false
	v.improve = func(h *handle) {
		compiled, err := function.New(s.life, s.host, f.Name, module, config)
		if err != nil {
			if s.life.Err() == nil {
				s.o.Log.Error("not compiled, it is interpreted from now on", "function", f.Name, "error", err)
			}
			return
		}
		better := newVersion(hash, compiled, compiled.Close)
		if h.current.CompareAndSwap(v, better) {
			s.endLater(v.end, "function", f.Name)
		} else { // a further change, or the end, came first
			s.endLater(better.end, "function", f.Name)
		}
	}
	return v, nil
}

// A digest is a file's content as it was when it was last looked at.
type digest struct {
	size    int64
	changed time.Time
	sum     string
	used    bool
}

func (d digest) stale(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return d.sum != ""
	}
	return info.Size() != d.size || !info.ModTime().Equal(d.changed)
}

// digest tells a file's content from another's; the file is read only where its size or time changed.
func (s *server) digest(path string) (string, error) {
	d := s.digests[path]
	if d.sum == "" || d.stale(path) {
		info, err := os.Stat(path)
		if err != nil {
			s.digests[path] = digest{used: true}
			return "", err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			s.digests[path] = digest{used: true}
			return "", err
		}
		sum := sha256.Sum256(b)
		d = digest{size: info.Size(), changed: info.ModTime(), sum: hex.EncodeToString(sum[:])}
	}
	d.used = true
	s.digests[path] = d
	return d.sum, nil
}

// A subscription delivers what a component brings to a target until it is stopped: a topic, what a binding reads, jobs.
type subscription struct {
	hash   string
	from   any // the component, as it was opened
	stop   context.CancelFunc
	done   chan struct{}
	failed atomic.Bool
}

// A source is a subscription that there shall be.
type source struct {
	key        string // of the resource that it fails
	hash       string
	capability string
	component  string
	run        func(ctx context.Context, log *slog.Logger) error // until ctx ends
}

// applySubscriptions starts and stops deliveries. What stops is waited for before anything of its name starts anew.
func (s *server) applySubscriptions(ctx context.Context, plan *snapshot.Plan) {
	wanted := s.sources(plan)
	for id, sub := range s.subscriptions {
		if w, ok := wanted[id]; ok && w.hash == sub.hash && s.bare(w.capability, w.component) == sub.from && !sub.failed.Load() {
			delete(wanted, id)
			continue
		}
		sub.stop()
		<-sub.done
		delete(s.subscriptions, id)
	}
	for id, w := range wanted {
		from := s.bare(w.capability, w.component)
		if from == nil {
			_, err := pick[any](s.open.Load(), w.capability, w.component)
			s.failures[w.key] = err
			continue
		}
		life, stop := context.WithCancel(context.Background())
		sub := &subscription{hash: w.hash, from: from, stop: stop, done: make(chan struct{})}
		s.subscriptions[id] = sub
		log := s.o.Log.With("subscription", id)
		go func() {
			defer close(sub.done)
			if err := w.run(life, log); err != nil {
				sub.failed.Store(true)
				log.Error("subscription ended", "error", err, "hint", loam.HintOf(err))
			}
		}()
	}
}

// bare is a component as it was opened, without what is put round it anew with each plan; nil: it is not open.
func (s *server) bare(capability, name string) any {
	if f := s.open.Load().by[capability][name]; f != nil {
		return f.bare
	}
	return nil
}

// sources are the subscriptions of a plan, but for those that come in the words of an API. What bindings read and jobs wait
// until there is somebody to bring them to.
func (s *server) sources(plan *snapshot.Plan) map[string]source {
	all := map[string]source{}
	for _, w := range plan.Subscriptions {
		if s.subscriber(w.Target) == "" {
			bus, _ := pick[*pubsub.Bus](s.open.Load(), "pubsub", w.Component) // without it nothing begins
			all[w.Name+"→"+w.Target.Kind+"/"+w.Target.Name] = source{"Subscription/" + w.Name, snapshot.Hash(w), "pubsub", w.Component, s.topic(w, bus)}
		}
	}
	for _, w := range plan.Inputs {
		in, err := pick[*binding.Binding](s.open.Load(), "binding", w.Component)
		if err == nil && in.Input() && s.targets[w.Target].current.Load() != nil {
			all["binding "+w.Component+"→"+w.Target.Kind+"/"+w.Target.Name] = source{"Component/" + w.Component, snapshot.Hash(w), "binding", w.Component, s.input(w, in)}
		}
	}
	for _, f := range plan.Functions {
		to := s.targets[snapshot.TargetRef{Kind: "Function", Name: f.Name}]
		if to.current.Load() == nil {
			continue
		}
		for _, c := range plan.Components {
			j, err := pick[*jobs.Jobs](s.open.Load(), "jobs", c.Name)
			if c.Capability == "jobs" && err == nil && mayReach(&loam.Caller{Grants: f.Grants, Denied: f.Denied}, c) {
				all["jobs "+c.Name+"→Function/"+f.Name] = source{"Component/" + c.Name, "", "jobs", c.Name, jobsOf(f.Name, j, to)}
			}
		}
	}
	return all
}

// subscriber is the API by which a target is brought its events; "": none.
func (s *server) subscriber(ref snapshot.TargetRef) string {
	for _, a := range s.plan.APIs {
		if ref.Kind == "App" && a.App == ref.Name && a.Target {
			return a.Key()
		}
	}
	return ""
}

// topic delivers a topic's events.
func (s *server) topic(w snapshot.Subscription, bus *pubsub.Bus) func(context.Context, *slog.Logger) error {
	to := event.Route{Target: asked{s.targets[w.Target]}, Structured: w.Target.Kind == "App", Path: w.Path, Component: w.Component}
	if len(w.Rules) > 0 {
		to.Rules = &event.Subscription{Component: w.Component, Default: w.Path}
		for _, r := range w.Rules {
			to.Rules.Rules = append(to.Rules.Rules, event.Rule{Match: r.Match, Path: r.Path})
		}
		_ = to.Rules.Compile() // Build let nothing else through
	}
	return func(ctx context.Context, log *slog.Logger) error {
		return bus.Subscribe(ctx, pubsub.Options{
			Topic: w.Topic, Group: w.Group, InFlight: w.InFlight, DeadLetter: w.DeadLetter, MaxDeliveries: w.Deliveries,
			RetryMin: w.RetryAfter, Raw: w.Raw, Metadata: w.Metadata, Log: log,
		}, to.Deliver)
	}
}

// input brings what a binding reads. As of all deliveries, what has begun when it is stopped goes on to its end.
func (s *server) input(w snapshot.Input, in *binding.Binding) func(context.Context, *slog.Logger) error {
	to := event.Input{Target: asked{s.targets[w.Target]}, Path: w.Path}
	return func(ctx context.Context, log *slog.Logger) error {
		return in.Read(ctx, func(ctx context.Context, e binding.Event) ([]byte, error) {
			answer, err := to.Read(context.WithoutCancel(ctx), e.Data, e.Metadata, e.ContentType)
			if err != nil && ctx.Err() == nil {
				log.Warn("what a binding brought was not taken", "target", w.Target.Name, "error", err)
			}
			return answer, err
		})
	}
}

// functionJobs is how many jobs of a function run at a time.
const functionJobs = 16

// jobsOf brings a function its own jobs when they are due.
func jobsOf(function string, j *jobs.Jobs, to loam.Target) func(context.Context, *slog.Logger) error {
	run := event.Jobs{Target: to}
	return func(ctx context.Context, log *slog.Logger) error {
		j.Run(ctx, function, functionJobs, func(ctx context.Context, job jobs.Job) error {
			err := run.Run(context.WithoutCancel(ctx), job.Name, job.Type, job.Data)
			if err != nil && ctx.Err() == nil {
				log.Warn("a job failed", "job", job.Name, "error", err)
			}
			return err
		})
		return nil
	}
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
