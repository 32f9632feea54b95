package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/dialect/dapr"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/snapshot"
)

// A round is what an app is brought through an API, and how it is asked whether it is well.
type round struct {
	callback dialect.Callback                                      // nil: the app has no port
	watch    func(ctx context.Context, changed func(healthy bool)) // returns at once where the app is not asked; nil: it never is
	run      func(ctx context.Context) error                       // what the dialect does by itself; nil: nothing
}

// rounds bring an app its events, what its input bindings read and its jobs, as long as it is well. What they are is looked
// at anew after each change of configuration, and whenever the app comes back.
type rounds struct {
	s      *server
	plan   snapshot.API
	caller *loam.Caller
	round
	log   *slog.Logger
	again chan struct{} // one: something changed
	pause chan chan struct{}
	done  chan struct{} // closed when nothing is brought any more

	inbound guards
	said    map[string]string // the last failure of each thing

	mu       sync.Mutex
	declared []snapshot.Subscription
	active   []dapr.Subscription
}

// A delivery brings one kind of thing until it is stopped.
type delivery struct {
	hash string
	from any // the component, as its capability has it
	told *dapr.Subscription
	stop context.CancelFunc
	done chan struct{} // closed at its end
}

// newRounds begins once those of the API before it have ended, which may be nil.
func (s *server) newRounds(life context.Context, p snapshot.API, caller *loam.Caller, r round, inbound guards, before *api) *rounds {
	b := &rounds{
		s: s, plan: p, caller: caller, round: r, inbound: inbound, log: s.o.Log.With("app", p.App, "api", p.Dialect),
		said: map[string]string{}, again: make(chan struct{}, 1), pause: make(chan chan struct{}), done: make(chan struct{}),
	}
	go func() {
		if before != nil && before.rounds != nil {
			<-before.rounds.done
		}
		b.keep(life)
	}()
	return b
}

// look has what is brought looked at anew.
func (b *rounds) look() {
	var mine []snapshot.Subscription
	for _, sub := range b.s.plan.Subscriptions {
		if sub.Target.Kind == "App" && sub.Target.Name == b.plan.App && b.s.subscriber(sub.Target) == b.plan.Key() {
			mine = append(mine, sub)
		}
	}
	b.mu.Lock()
	b.declared = mine
	b.mu.Unlock()
	b.wake()
}

func (b *rounds) wake() {
	select {
	case b.again <- struct{}{}:
	default:
	}
}

// rest ends all that is brought and returns when it has ended, or ctx has; look begins anew.
func (b *rounds) rest(ctx context.Context) error {
	ended := make(chan struct{})
	select {
	case b.pause <- ended:
	case <-b.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// subscriptions are those that are active.
func (b *rounds) subscriptions() []dapr.Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.active)
}

// How often the app is asked again what it wants where it could not say, and what failed is begun again.
const (
	askAgain   = 200 * time.Millisecond
	beginAgain = 2 * time.Second
	askTime    = 10 * time.Second // for one question
)

// keep brings what there is to bring until life ends.
func (b *rounds) keep(life context.Context) {
	defer close(b.done)
	running := map[string]*delivery{}
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(life)
	defer cancel()
	well := make(chan bool, 1)
	work.Go(func() {
		if b.watch != nil {
			b.watch(ctx, func(healthy bool) {
				select {
				case well <- healthy:
				case <-ctx.Done():
				}
			})
		}
	})
	asked := b.watch != nil && b.plan.Health != nil // whether the app is asked how it is
	healthy := !asked
	var wants *wishes // what the app said that it wants; nil: it was not asked since it came
	resting := true   // until look is called first
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-life.Done():
			b.reconcile(life, &work, running, nil)
			return
		case h := <-well:
			if healthy = h; h {
				wants = nil
			}
		case ended := <-b.pause:
			resting = true
			b.reconcile(life, &work, running, nil)
			close(ended)
			continue
		case <-b.again:
			resting = false
		case <-timer.C:
		}
		if resting {
			continue
		}
		next := time.Hour
		if healthy && wants == nil {
			var err error
			if wants, err = b.ask(ctx); err != nil {
				if ctx.Err() == nil {
					b.log.Debug("the app does not say yet what it wants", "error", err)
				}
				wants, next = nil, askAgain
			}
		}
		var all []wanted
		if b.run != nil {
			all = append(all, b.own())
		}
		all = append(all, b.relays()...)
		if healthy && wants != nil {
			all = append(all, b.wanted(wants)...)
		}
		b.reconcile(life, &work, running, all)
		timer.Reset(next)
	}
}

// wishes are what the app said that it wants.
type wishes struct {
	subscriptions []event.Subscription
}

// ask asks the app, once somebody listens where it should.
func (b *rounds) ask(ctx context.Context) (*wishes, error) {
	if b.callback == nil || b.plan.Silent {
		return &wishes{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	w := &wishes{}
	var err error
	if w.subscriptions, err = b.callback.Subscriptions(ctx); err != nil {
		return nil, err
	}
	return w, nil
}

// wanted is something to bring, and from which component.
type wanted struct {
	id, hash string
	from     any
	told     *dapr.Subscription
	run      func(ctx context.Context) error // until ctx ends
}

// own is what the dialect does by itself.
func (b *rounds) own() wanted {
	j, _ := pick[*jobs.Jobs](b.s.open.Load(), "jobs", "") // a nil one says why
	return wanted{id: "own", from: j, run: b.run}
}

// relays publish what the app's transactions left for the outboxes of state components, whether the app is well or not.
func (b *rounds) relays() (all []wanted) {
	for _, f := range b.s.open.Load().only(b.plan.App, unguarded).all {
		store, ok := f.made.(*state.Store)
		if !ok || !store.HasOutbox() {
			continue
		}
		all = append(all, wanted{id: "outbox " + f.plan.Name, from: store, run: func(ctx context.Context) error {
			view, err := store.For(b.caller.Name, b.plan.Namespace)
			if err != nil {
				return err
			}
			return view.Relay(ctx, b.caller.Name)
		}})
	}
	return all
}

// wanted is all that is to be brought at present.
func (b *rounds) wanted(w *wishes) (all []wanted) {
	if b.callback == nil {
		return nil
	}
	seen := map[string]bool{}
	b.mu.Lock()
	declared := b.declared
	b.mu.Unlock()
	open := b.s.open.Load().only(b.plan.App, unguarded)
	subscribe := func(kind string, sub event.Subscription, o pubsub.Options) {
		key := sub.Component + "\x00" + sub.Topic
		if seen[key] {
			b.log.Warn("the app subscribes to a topic twice", "component", sub.Component, "topic", sub.Topic)
			return
		}
		seen[key] = true
		bus, err := pick[*pubsub.Bus](open, "pubsub", sub.Component)
		if err != nil {
			all = append(all, wanted{id: "subscription " + key, run: func(context.Context) error { return err }})
			return
		}
		if err := sub.Compile(); err != nil {
			all = append(all, wanted{id: "subscription " + key, run: func(context.Context) error { return err }})
			return
		}
		o.Topic, o.Group, o.Raw, o.Metadata, o.Log, o.Caller, o.DeadLetter = sub.Topic, sub.Group, sub.Raw, sub.Metadata, b.log, b.caller, sub.DeadLetter
		guard := b.inbound.of("pubsub", sub.Component)
		all = append(all, wanted{
			id: "subscription " + key, hash: snapshot.Hash([]any{kind, sub, o.InFlight, o.MaxDeliveries, o.RetryMin}), from: bus,
			told: &dapr.Subscription{Subscription: sub, Type: kind},
			run: func(ctx context.Context) error {
				if n := sub.Bulk; n != nil {
					return bus.SubscribeBulk(ctx, o, pubsub.Bulk{Max: n.Max, Wait: n.Wait}, func(ctx context.Context, batch []pubsub.Delivery) []error {
						return guard.each(ctx, len(batch), func(ctx context.Context, which []int) []error {
							events := make([]loam.Event, len(which))
							for i, at := range which {
								events[i] = batch[at].Event
							}
							return b.callback.DeliverBulk(ctx, &sub, events)
						})
					})
				}
				return bus.SubscribeIn(ctx, o, b.s.engine.Go, func(ctx context.Context, t loam.Task, e loam.Event, attempt int) error {
					return guard.in(ctx, t, func(ctx context.Context) error { return b.callback.Deliver(ctx, t, &sub, e, attempt) })
				})
			},
		})
	}
	for _, d := range declared {
		sub := event.Subscription{
			Name: d.Name, Component: d.Component, Topic: d.Topic, Group: d.Group, Default: d.Path, DeadLetter: d.DeadLetter, Raw: d.Raw, Metadata: d.Metadata,
		}
		for _, r := range d.Rules {
			sub.Rules = append(sub.Rules, event.Rule{Match: r.Match, Path: r.Path})
		}
		if d.Bulk > 0 {
			sub.Bulk = &event.Bulk{Max: d.Bulk, Wait: d.BulkWait}
		}
		subscribe("DECLARATIVE", sub, pubsub.Options{InFlight: d.InFlight, MaxDeliveries: d.Deliveries, RetryMin: d.RetryAfter})
	}
	for _, sub := range w.subscriptions {
		sub.Group = cmp.Or(sub.Group, b.plan.App)
		subscribe("PROGRAMMATIC", sub, pubsub.Options{MaxDeliveries: 1})
	}
	for _, f := range open.all {
		if in, ok := f.made.(*binding.Binding); ok && in.Input() && reads(f.plan) {
			all = append(all, b.binding(w, f.plan, in))
		}
	}
	for _, f := range open.all {
		if j, ok := f.made.(*jobs.Jobs); ok && f.plan.Default && b.plan.Dialect == "dapr" {
			all = append(all, wanted{id: "jobs", from: j, run: func(ctx context.Context) error {
				j.Run(ctx, b.plan.App, jobsAtOnce, b.callback.Job)
				return nil
			}})
		}
	}
	return all
}

// jobsAtOnce is how many jobs are with the app at a time.
const jobsAtOnce = 100

// reads tells whether a binding is declared to bring events: its direction says so, or says nothing.
func reads(c snapshot.Component) bool {
	d := c.Settings["direction"]
	return d == "" || containsWord(d, "input")
}

// binding reads a binding, if the app wants what it brings.
func (b *rounds) binding(w *wishes, c snapshot.Component, in *binding.Binding) wanted {
	guard := b.inbound.of("binding", c.Name)
	return wanted{id: "binding " + c.Name, hash: snapshot.Hash(c), from: in, run: func(ctx context.Context) error {
		if !containsWord(c.Settings["direction"], "input") { // what is declared to be an input is not asked about
			asking, cancel := context.WithTimeout(ctx, askTime)
			wants, err := b.callback.Binding(asking, c.Name)
			cancel()
			if err != nil {
				return fmt.Errorf("asking the app for binding %s: %w", c.Name, err)
			}
			if !wants {
				b.log.Debug("the app does not want what a binding brings", "component", c.Name)
				<-ctx.Done()
				return nil
			}
		}
		return in.Read(ctx, func(ctx context.Context, e binding.Event) (answer []byte, err error) {
			err = guard.do(ctx, func(ctx context.Context) error {
				answer, err = b.callback.Read(ctx, c.Name, e.Data, e.Metadata)
				return err
			})
			return answer, err
		})
	}}
}

// reconcile stops what is not wanted any more, waits for it, and begins what is, and what has failed.
func (b *rounds) reconcile(life context.Context, work *sync.WaitGroup, running map[string]*delivery, all []wanted) {
	want := map[string]wanted{}
	for _, w := range all {
		want[w.id] = w
	}
	var ending []*delivery
	for id, d := range running {
		w, ok := want[id]
		ended := false
		select {
		case <-d.done:
			ended = true
		default:
		}
		if ok && !ended && w.hash == d.hash && w.from == d.from {
			delete(want, id)
			continue
		}
		d.stop()
		ending = append(ending, d)
		delete(running, id)
	}
	for _, d := range ending {
		<-d.done
	}
	var active []dapr.Subscription
	for _, w := range all {
		if _, fresh := want[w.id]; fresh {
			ctx, stop := context.WithCancel(life)
			d := &delivery{hash: w.hash, from: w.from, told: w.told, stop: stop, done: make(chan struct{})}
			running[w.id] = d
			work.Go(func() {
				defer close(d.done)
				defer stop()
				if err := w.run(ctx); err != nil && ctx.Err() == nil {
					b.failed(w.id, err)
				}
			})
		}
		if w.told != nil && w.from != nil {
			active = append(active, *w.told)
		}
	}
	b.mu.Lock()
	b.active = active
	b.mu.Unlock()
}

// failed says why something ended that should not have, unless it ended for the same reason before.
func (b *rounds) failed(id string, err error) {
	b.mu.Lock()
	again := b.said[id] == err.Error()
	b.said[id] = err.Error()
	b.mu.Unlock()
	if !again {
		b.log.Error("delivery ended, and is begun again until it works", "of", strings.ReplaceAll(id, "\x00", " "), "error", err, "hint", loam.HintOf(err))
	}
	time.AfterFunc(beginAgain, b.wake)
}
