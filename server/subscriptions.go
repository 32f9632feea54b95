package server

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/snapshot"
)

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
