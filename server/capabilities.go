package server

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/secret"
	"github.com/loam-run/loam/capability/sequence"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/snapshot"
)

// opened are the components of one generation, open or not.
type opened struct {
	by  map[string]map[string]*found // by capability and name; the default of each stands under "" too
	all []*found                     // by capability and name
}

// found is one of them.
type found struct {
	made any // nil: it did not open
	bare any // made, without what resiliency puts round it
	err  error
	plan snapshot.Component
	told capability.Component

	opened, failed uint64 // how often
}

func newOpened(plan []snapshot.Component) *opened {
	return &opened{by: map[string]map[string]*found{}, all: make([]*found, 0, len(plan))}
}

// put enters a component. An error beside what was made: a newer version did not open.
func (o *opened) put(c snapshot.Component, x *component, g *guard) {
	f := &found{made: guarded(x.made, g), bare: x.made, err: x.err, plan: c, opened: x.opened, failed: x.failed, told: capability.Component{
		Name: c.Name, Capability: c.Capability, Type: c.Type, Version: cmp.Or(c.Version, "v1"), Settings: c.Settings, Err: x.err,
	}}
	if x, ok := x.made.(interface{ Features() []string }); ok {
		f.told.Features = x.Features()
	}
	o.enter(f)
}

func (o *opened) enter(f *found) {
	m := o.by[f.plan.Capability]
	if m == nil {
		m = map[string]*found{}
		o.by[f.plan.Capability] = m
	}
	m[f.plan.Name] = f
	if f.plan.Default {
		m[""], m["default"] = f, f
	}
	o.all = append(o.all, f)
}

// only is what of it an app may find, with what guards its calls.
func (o *opened) only(app string, guards func(capability, name string) *guard) *opened {
	mine := newOpened(nil)
	for _, f := range o.all {
		if len(f.plan.Scopes) == 0 || slices.Contains(f.plan.Scopes, app) {
			if g := guards(f.plan.Capability, f.plan.Name); f.made != f.bare || g != nil {
				f = &found{made: guarded(f.bare, g), bare: f.bare, err: f.err, plan: f.plan, told: f.told, opened: f.opened, failed: f.failed}
			}
			mine.enter(f)
		}
	}
	return mine
}

// guarded puts a guard round what a component is asked. Files are streams: nothing is tried again of them.
func guarded(made any, g *guard) any {
	if g == nil {
		return made
	}
	switch x := made.(type) {
	case *state.Store:
		return x.Guarded(g.do)
	case *pubsub.Bus:
		return x.Guarded(g.do)
	case *lock.Locker:
		return x.Guarded(g.do)
	case *config.Config:
		return x.Guarded(g.do)
	case *sequence.Sequence:
		return x.Guarded(g.do)
	case *secret.Store:
		return x.Guarded(g.do)
	case *binding.Binding:
		return x.Guarded(g.do)
	case *crypto.Crypto:
		return x.Guarded(g.do)
	}
	return made
}

// pick finds a component: NotFound where none of that name was declared, Unavailable where it did not open.
func pick[T any](o *opened, capability, name string) (T, error) {
	f := o.by[capability][name]
	if f == nil {
		var none T
		return none, &loam.Error{
			Code: loam.NotFound, Op: capability, Err: fmt.Errorf("there is no %s component %q", capability, name), Hint: "see what there is: loam get component",
		}
	}
	if made, ok := f.made.(T); ok {
		return made, nil
	}
	var none T
	return none, &loam.Error{
		Code: loam.Unavailable, Op: capability, Err: fmt.Errorf("component %q did not open: %w", name, f.err), Hint: "see what became of it: loam get component",
	}
}

// find makes the func by which a capability's calls find a component.
func find[T any](s *server, capability string) func(string) (T, error) {
	return func(name string) (T, error) { return pick[T](s.open.Load(), capability, name) }
}

// A view is the components as one app finds them: those that are for it.
type view struct {
	s       *server
	app     string
	guards  guards // of outbound calls
	present atomic.Pointer[viewed]
}

// viewed is a view of one generation.
type viewed struct{ whole, mine *opened }

var _ capability.Set = (*view)(nil)

func (v *view) opened() *opened {
	whole := v.s.open.Load()
	if p := v.present.Load(); p != nil && p.whole == whole {
		return p.mine
	}
	mine := whole.only(v.app, v.guards.of)
	v.present.Store(&viewed{whole, mine})
	return mine
}

// State finds a state component.
func (v *view) State(name string) (*state.Store, error) {
	return pick[*state.Store](v.opened(), "state", name)
}

// Pubsub finds a pubsub component.
func (v *view) Pubsub(name string) (*pubsub.Bus, error) {
	return pick[*pubsub.Bus](v.opened(), "pubsub", name)
}

// Lock finds a lock component.
func (v *view) Lock(name string) (*lock.Locker, error) {
	return pick[*lock.Locker](v.opened(), "lock", name)
}

// Config finds a config component.
func (v *view) Config(name string) (*config.Config, error) {
	return pick[*config.Config](v.opened(), "config", name)
}

// Sequence finds a sequence component.
func (v *view) Sequence(name string) (*sequence.Sequence, error) {
	return pick[*sequence.Sequence](v.opened(), "sequence", name)
}

// Secret finds a secret component.
func (v *view) Secret(name string) (*secret.Store, error) {
	return pick[*secret.Store](v.opened(), "secret", name)
}

// Binding finds a binding component.
func (v *view) Binding(name string) (*binding.Binding, error) {
	return pick[*binding.Binding](v.opened(), "binding", name)
}

// Crypto finds a crypto component.
func (v *view) Crypto(name string) (*crypto.Crypto, error) {
	return pick[*crypto.Crypto](v.opened(), "crypto", name)
}

// File finds a file component.
func (v *view) File(name string) (*file.Store, error) {
	return pick[*file.Store](v.opened(), "file", name)
}

// Jobs finds a jobs component.
func (v *view) Jobs(name string) (*jobs.Jobs, error) {
	return pick[*jobs.Jobs](v.opened(), "jobs", name)
}

// Invoker calls functions, apps and services by name.
func (v *view) Invoker() *invoke.Invoker { return v.s.invoker }

// Components are those that caller may reach. Nothing is told of what a sidecar has beside those that were declared for it.
func (v *view) Components(caller *loam.Caller) []capability.Component {
	var all []capability.Component
	for _, f := range v.opened().all {
		if !(f.plan.Embedded && v.s.o.App != "") && mayReach(caller, f.plan) {
			all = append(all, f.told)
		}
	}
	slices.SortFunc(all, func(a, b capability.Component) int {
		return cmp.Or(cmp.Compare(a.Capability, b.Capability), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// mayReach tells whether a grant is for something of a component, and nothing denies all of it.
func mayReach(caller *loam.Caller, c snapshot.Component) bool {
	of := func(g loam.Grant) bool {
		return (g.Capability == c.Capability || g.Capability == "*") && (g.Component == c.Name || g.Component == "*")
	}
	return slices.ContainsFunc(caller.Grants, of) &&
		!slices.ContainsFunc(caller.Denied, func(g loam.Grant) bool { return of(g) && len(g.Names) == 0 && len(g.Except) == 0 })
}
