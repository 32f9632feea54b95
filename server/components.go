package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/secret"
	"github.com/loam-run/loam/capability/sequence"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/snapshot"
)

const (
	openTime     = 5 * time.Second // to open a component in, where it says nothing else
	retryOpening = 5 * time.Second // after which one that did not open is tried again
)

type componentKey struct{ capability, name string }

// A component is one open driver behind its capability's logic.
type component struct {
	hash   string // of its plan, and of what that refers to
	driver interface{ Close() error }
	made   any // *state.Store, *pubsub.Bus…
	err    error
	tried  time.Time

	opened, failed uint64 // how often it did, and did not, since it was declared
}

// applyComponents opens what is new and returns what is to be closed once nothing uses it any more. Secrets come first:
// the others refer to them. What does not open is left out; its previous version serves on.
func (s *server) applyComponents(ctx context.Context, plan *snapshot.Plan) map[componentKey]*component {
	next, old := map[componentKey]*component{}, map[componentKey]*component{}
	rank := func(c snapshot.Component) int {
		switch {
		case c.Capability != "secret":
			return 2
		case len(c.Refs) > 0:
			return 1
		}
		return 0
	}
	for turn := range 3 {
		var opening sync.WaitGroup
		var mu sync.Mutex
		secrets := maps.Clone(next)
		for _, c := range plan.Components {
			if rank(c) != turn {
				continue
			}
			opening.Go(func() {
				key := componentKey{c.Capability, c.Name}
				now := s.keepOrOpen(ctx, c, s.components[key], secrets)
				mu.Lock()
				defer mu.Unlock()
				if was := s.components[key]; was != nil && was.driver != nil && now.driver != was.driver {
					old[key] = was
				}
				next[key] = now
				if now.err != nil {
					s.failures["Component/"+c.Name] = now.err
				}
			})
		}
		opening.Wait()
	}
	for key, c := range s.components {
		if next[key] == nil && c.driver != nil {
			old[key] = c
		}
	}
	s.components = next
	set := newOpened(plan.Components)
	for _, c := range plan.Components {
		x := next[componentKey{c.Capability, c.Name}]
		set.put(c, x, s.guard(plan.Resiliency.Component(c.Capability, c.Name).Outbound))
	}
	s.open.Store(set)
	return old
}

// keepOrOpen is a component as it was, where nothing of it changed and it is open; else as it opens now.
func (s *server) keepOrOpen(ctx context.Context, c snapshot.Component, was *component, secrets map[componentKey]*component) *component {
	if was != nil && was.err != nil && was.hash == s.hash(c) && time.Since(was.tried) < retryOpening {
		return was // it was tried a moment ago
	}
	filled, err := s.fill(ctx, c, secrets)
	hash := s.hash(filled)
	if err == nil && was != nil && was.err == nil && was.hash == hash {
		return was
	}
	now := &component{hash: hash, tried: time.Now(), err: err}
	if was != nil {
		now.opened, now.failed = was.opened, was.failed
	}
	if err == nil {
		now.driver, now.made, now.err = s.openComponent(ctx, filled)
	}
	if now.err == nil {
		now.opened++
		return now
	}
	now.failed++
	now.hash = s.hash(c)
	if was == nil || was.err == nil || was.err.Error() != now.err.Error() {
		level := s.o.Log.Error
		if c.Optional {
			level = s.o.Log.Warn
		}
		level("component did not open", "component", c.Name, "type", c.Type, "error", now.err, "hint", loam.HintOf(now.err))
	}
	if was != nil && was.driver != nil { // the previous one serves on
		now.driver, now.made = was.driver, was.made
	}
	return now
}

// fill writes into a component what it refers to: secrets, variables, and Dapr's placeholders that are the process's.
func (s *server) fill(ctx context.Context, c snapshot.Component, secrets map[componentKey]*component) (snapshot.Component, error) {
	c.Metadata, c.Settings = maps.Clone(c.Metadata), maps.Clone(c.Settings)
	for _, values := range []map[string]string{c.Metadata, c.Settings} {
		for name, value := range values {
			if pod := os.Getenv("POD_NAME"); strings.Contains(value, "{podName}") {
				if pod == "" {
					return c, &loam.Error{Code: loam.FailedPrecondition, Op: "component " + c.Name, Err: fmt.Errorf("metadata %s holds {podName}, and no variable POD_NAME says it", name), Hint: "write the value itself"}
				}
				value = strings.ReplaceAll(value, "{podName}", pod)
			}
			for strings.Contains(value, "{uuid}") {
				value = strings.Replace(value, "{uuid}", s.uuid(c.Capability+"/"+c.Name+"/"+name+"/"+value), 1)
			}
			values[name] = value
		}
	}
	for _, r := range c.Refs {
		value, err := s.refer(ctx, r, secrets)
		if err != nil {
			return c, &loam.Error{Code: loam.CodeOf(err), Op: "component " + c.Name, Err: fmt.Errorf("metadata %s: %w", r.Name, err), Hint: loam.HintOf(err)}
		}
		to := &c.Metadata
		if snapshot.IsSetting(c.Capability, r.Name) {
			to = &c.Settings
		}
		if *to == nil {
			*to = map[string]string{}
		}
		(*to)[r.Name] = value
	}
	return c, nil
}

// uuid is what {uuid} at that place stands for as long as the process lives.
func (s *server) uuid(at string) string {
	s.uuidMu.Lock()
	defer s.uuidMu.Unlock()
	if s.uuids[at] == "" {
		var b [16]byte
		_, _ = rand.Read(b[:]) // it never fails
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
		s.uuids[at] = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	}
	return s.uuids[at]
}

// refer is a value that is elsewhere.
func (s *server) refer(ctx context.Context, r snapshot.Ref, secrets map[componentKey]*component) (string, error) {
	if r.Env != "" {
		value, ok := os.LookupEnv(r.Env)
		if !ok {
			return "", &loam.Error{Code: loam.NotFound, Err: fmt.Errorf("there is no variable %s", r.Env), Hint: "start loam with " + r.Env + " in its environment"}
		}
		return value, nil
	}
	x := secrets[componentKey{"secret", r.Store}]
	if x == nil || x.made == nil {
		return "", &loam.Error{Code: loam.Unavailable, Err: fmt.Errorf("secret component %s is not open", r.Store), Hint: "see what became of it: loam get component"}
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	fields, err := x.made.(*secret.Store).GetFields(ctx, reader, r.Secret, nil)
	if err != nil {
		return "", err
	}
	value, ok := fields[r.Key]
	if !ok {
		return "", &loam.Error{
			Code: loam.NotFound, Err: fmt.Errorf("secret %s of %s has no value %q", r.Secret, r.Store, r.Key),
			Hint: "write secretKeyRef.key: one of " + strings.Join(slices.Sorted(maps.Keys(fields)), ", "),
		}
	}
	return value, nil
}

// reader reads the secrets that components refer to: who declares them may name any.
var reader = &loam.Caller{Name: "loam", Grants: []loam.Grant{{Capability: "secret", Component: "*"}}}

// hash changes when a component must be opened anew.
func (s *server) hash(c snapshot.Component) string {
	h := snapshot.Hash(c)
	if i := slices.IndexFunc(s.factories, func(f loam.Factory) bool { return f.Named(c.Type) }); i >= 0 {
		h += s.factories[i].Origin
	}
	return h
}

// openComponent opens a driver and puts it behind its capability's logic.
func (s *server) openComponent(ctx context.Context, c snapshot.Component) (interface{ Close() error }, any, error) {
	i := slices.IndexFunc(s.factories, func(f loam.Factory) bool { return f.Named(c.Type) })
	if i < 0 {
		return nil, nil, loam.Errorf(loam.Unimplemented, "component", "type %q is not in this binary", c.Type)
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.Timeout, openTime))
	defer cancel()
	var driver any
	var err error
	if _, missing := os.Stat(c.Metadata["path"]); c.Embedded && c.Capability == "jobs" && s.o.App != "" && errors.Is(missing, fs.ErrNotExist) {
		driver = newLazyJobs(func(ctx context.Context) (jobs.Driver, error) {
			d, err := s.factories[i].Open(ctx, c.Name, c.Metadata)
			if err != nil {
				return nil, err
			}
			return d.(jobs.Driver), nil
		})
	} else if driver, err = s.factories[i].Open(ctx, c.Name, c.Metadata); err != nil {
		return nil, nil, err
	}
	closer := driver.(interface{ Close() error }) // every Driver has it
	made, err := s.wrap(c, driver)
	if err != nil {
		return nil, nil, errors.Join(err, closer.Close())
	}
	return closer, made, nil
}

// wrap puts a driver behind its capability's logic. A new capability is a case here, and one in capabilities.go.
func (s *server) wrap(c snapshot.Component, driver any) (any, error) {
	log := s.o.Log.With("component", c.Name)
	switch c.Capability {
	case "state":
		return state.Open(c.Name, driver.(state.Driver), state.Options{Settings: c.Settings, Bus: find[*pubsub.Bus](s, "pubsub"), Log: log})
	case "pubsub":
		return pubsub.Open(c.Name, driver.(pubsub.Driver), c.Settings)
	case "lock":
		return lock.Open(c.Name, driver.(lock.Driver), c.Settings)
	case "config":
		return config.New(c.Name, driver.(config.Driver)), nil
	case "sequence":
		return sequence.Open(c.Name, driver.(sequence.Driver), c.Settings)
	case "secret":
		return secret.New(c.Name, driver.(secret.Driver)), nil
	case "binding":
		return binding.New(c.Name, driver.(binding.Driver)), nil
	case "crypto":
		return crypto.New(c.Name, driver.(crypto.Driver)), nil
	case "file":
		return file.New(c.Name, driver.(file.Driver)), nil
	case "jobs":
		return jobs.New(c.Name, driver.(jobs.Driver)), nil
	}
	return nil, loam.Errorf(loam.Unimplemented, "component", "there is no capability %q", c.Capability)
}

// fatal is why the process had better not start: a component that must be there is not.
func (s *server) fatal() error {
	for _, c := range s.plan.Components {
		if x := s.components[componentKey{c.Capability, c.Name}]; c.Fatal && x != nil && x.driver == nil && x.err != nil {
			return &loam.Error{
				Code: loam.CodeOf(x.err), Op: "component " + c.Name, Err: x.err,
				Hint: cmp.Or(loam.HintOf(x.err), "mend it, or take away its annotation loam.dev/fatal to serve the rest without it"),
			}
		}
	}
	return nil
}
