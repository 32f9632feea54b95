// Package registry is the embedded registry of services: programs register where they listen and say again, before a
// time is over, that they still do; services and others watch the list. It is kept in memory: after a restart programs
// register again with their next heartbeat, or the list is carried over by Save and Load.
package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/target/service"
)

// Bounds of what is registered.
const (
	maxServices  = 4096
	maxInstances = 16384 // of all services
	maxWatches   = 4096  // at once
	maxLabels    = 32    // of an instance
	maxText      = 256   // bytes of a label's name or value, and of a zone
	maxName      = 128   // bytes of a service's name or an instance's id
	maxWeight    = 1 << 20
	minTTL       = time.Second
	maxTTL       = time.Hour
	defaultTTL   = 30 * time.Second
)

// Duration is a time.Duration that is written as text, "30s".
type Duration time.Duration

// MarshalText writes it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads it.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// An Instance is one program that serves a service.
type Instance struct {
	ID      string            `json:"id"`      // names it within its service
	Address string            `json:"address"` // host:port
	Weight  int               `json:"weight,omitempty"`
	Zone    string            `json:"zone,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Down    bool              `json:"down,omitempty"` // it lives, and says that it wants no requests
	TTL     Duration          `json:"ttl,omitempty"`  // it is gone unless registered again so soon; 30s
}

func (i *Instance) setDefaults() {
	i.TTL = cmp.Or(i.TTL, Duration(defaultTTL))
	i.Weight = cmp.Or(i.Weight, 1)
}

func (i Instance) equal(o Instance) bool {
	return i.ID == o.ID && i.Address == o.Address && i.Weight == o.Weight && i.Zone == o.Zone && i.Down == o.Down && i.TTL == o.TTL && maps.Equal(i.Labels, o.Labels)
}

// A List is the instances of a service at one moment, by id. Each change gives it another version, which grows.
type List struct {
	Version   uint64     `json:"version"`
	Instances []Instance `json:"instances"`
}

// A Registry keeps the lists. It is safe for concurrent use. Close ends it.
type Registry struct {
	log  *slog.Logger
	stop context.CancelFunc
	done chan struct{}
	wake chan struct{} // something may expire sooner than was thought

	mu        sync.Mutex
	services  map[string]*entry
	instances int
	watches   int
	version   uint64 // the last one given
	next      time.Time
}

// entry is a service: there while it has instances or is watched.
type entry struct {
	version   uint64
	instances map[string]*lease
	changed   chan struct{} // closed with the next change
	watches   int
}

type lease struct {
	Instance
	until time.Time
}

// absent is the version of a service that has no entry.
const absent = 1

// New makes an empty registry.
func New(log *slog.Logger) *Registry {
	ctx, stop := context.WithCancel(context.Background())
	r := &Registry{
		log: log, stop: stop, done: make(chan struct{}), wake: make(chan struct{}, 1), services: map[string]*entry{},
		version: uint64(time.Now().UnixMicro()), // above what a process before this one gave; exact in JSON's numbers
	}
	go r.expire(ctx)
	return r
}

// Close ends the registry. Watches end with their contexts.
func (r *Registry) Close() {
	r.stop()
	<-r.done
}

// Register puts an instance on the list of a service, or says that it is still there. Registering it again with
// something changed changes it.
func (r *Registry) Register(name string, i Instance) error {
	op := "register " + strconv.Quote(i.ID) + " of " + strconv.Quote(name)
	i.setDefaults()
	if err := check(name, i); err != nil {
		return &loam.Error{Code: loam.InvalidArgument, Op: op, Err: err}
	}
	i.Labels = maps.Clone(i.Labels)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.services[name]
	var old *lease
	if e != nil {
		old = e.instances[i.ID]
	}
	if old == nil && r.instances >= maxInstances || e == nil && len(r.services) >= maxServices {
		return &loam.Error{Code: loam.ResourceExhausted, Op: op, Err: errors.New("the registry is full"), Hint: "deregister what is gone, or use a registry of your own"}
	}
	until := time.Now().Add(time.Duration(i.TTL))
	if until.Before(r.next) || r.next.IsZero() {
		r.poke()
	}
	if old != nil && old.equal(i) {
		old.until = until
		return nil
	}
	if e == nil {
		e = r.open(name)
	}
	if old == nil {
		r.instances++
		r.log.Info("instance registered", "service", name, "instance", i.ID, "endpoint", i.Address)
	}
	e.instances[i.ID] = &lease{i, until}
	r.change(e)
	return nil
}

// Deregister takes an instance off the list.
func (r *Registry) Deregister(name, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.services[name]
	if e == nil || e.instances[id] == nil {
		return loam.Errorf(loam.NotFound, "deregister", "service %q has no instance %q", name, id)
	}
	r.remove(name, e, id)
	r.change(e)
	r.log.Info("instance deregistered", "service", name, "instance", id)
	return nil
}

// Services counts the instances of every service.
func (r *Registry) Services() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := map[string]int{}
	for name, e := range r.services {
		if len(e.instances) > 0 {
			m[name] = len(e.instances)
		}
	}
	return m
}

// List is the present list of a service. One that nobody registered for is empty.
func (r *Registry) List(name string) List {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list(name)
}

// Watch waits until the list has another version than after, and returns it; a version that was never given returns at
// once. That nothing is left may be told twice. When ctx ends, it returns the list as it is.
func (r *Registry) Watch(ctx context.Context, name string, after uint64) (List, error) {
	if err := checkName(name); err != nil {
		return List{}, &loam.Error{Code: loam.InvalidArgument, Op: "watch", Err: err}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.list(name); l.Version != after {
		return l, nil
	}
	e := r.services[name]
	if r.watches >= maxWatches || e == nil && len(r.services) >= maxServices {
		return List{}, loam.Errorf(loam.ResourceExhausted, "watch", "too many watch already")
	}
	if e == nil {
		e = r.open(name)
	}
	r.watches++
	e.watches++
	for e.version == after && ctx.Err() == nil {
		changed := e.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		r.mu.Lock()
	}
	r.watches--
	e.watches--
	l := r.list(name)
	r.drop(name, e)
	return l, nil
}

// Discovery is the endpoints of a service for the balancer: the instances that are not down.
func (r *Registry) Discovery(name string) service.Discovery {
	return service.DiscoveryFunc(func(ctx context.Context, update func([]service.Endpoint, error)) {
		for version := uint64(0); ctx.Err() == nil; {
			l, err := r.Watch(ctx, name, version)
			if err != nil {
				update(nil, err)
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
				continue
			}
			if l.Version == version {
				continue
			}
			version = l.Version
			endpoints := []service.Endpoint{}
			for _, i := range l.Instances {
				if !i.Down {
					endpoints = append(endpoints, service.Endpoint{Address: i.Address, Weight: i.Weight, Zone: i.Zone, Labels: i.Labels})
				}
			}
			update(endpoints, nil)
		}
	})
}

// Save writes all lists down, for Load.
func (r *Registry) Save() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string][]Instance{}
	for name, e := range r.services {
		if len(e.instances) > 0 {
			all[name] = r.list(name).Instances
		}
	}
	return json.Marshal(all)
}

// Load registers what Save wrote down. Each instance has all of its time left.
func (r *Registry) Load(b []byte) error {
	var all map[string][]Instance
	if err := json.Unmarshal(b, &all); err != nil {
		return loam.Errorf(loam.DataLoss, "load the registry", "%w", err)
	}
	var errs error
	for name, instances := range all {
		for _, i := range instances {
			errs = errors.Join(errs, r.Register(name, i))
		}
	}
	return errs
}

// What follows is called with mu held.

func (r *Registry) open(name string) *entry {
	e := &entry{version: absent, instances: map[string]*lease{}, changed: make(chan struct{})}
	r.services[name] = e
	return e
}

func (r *Registry) list(name string) List {
	e := r.services[name]
	if e == nil {
		return List{Version: absent, Instances: []Instance{}}
	}
	l := List{e.version, make([]Instance, 0, len(e.instances))}
	for _, i := range e.instances {
		l.Instances = append(l.Instances, i.Instance)
	}
	slices.SortFunc(l.Instances, func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })
	return l
}

func (r *Registry) change(e *entry) {
	r.version++
	e.version = r.version
	close(e.changed)
	e.changed = make(chan struct{})
}

func (r *Registry) remove(name string, e *entry, id string) {
	delete(e.instances, id)
	r.instances--
	r.drop(name, e)
}

func (r *Registry) drop(name string, e *entry) {
	if len(e.instances) == 0 && e.watches == 0 && r.services[name] == e {
		delete(r.services, name)
	}
}

func (r *Registry) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// expire removes instances whose time is over, at most a second late, until ctx ends.
func (r *Registry) expire(ctx context.Context) {
	defer close(r.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.wake:
		}
		if next := r.sweep(time.Now()); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(next), time.Second)) // the look at all of them is not had for every single one
		}
	}
}

// sweep removes what is over and tells when the next instance will be.
func (r *Registry) sweep(now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = time.Time{}
	for name, e := range r.services {
		changed := false
		for id, i := range e.instances {
			if !now.Before(i.until) {
				r.remove(name, e, id)
				changed = true
				r.log.Warn("instance expired: it was not registered again in time", "service", name, "instance", id, "ttl", time.Duration(i.TTL))
			} else if r.next.IsZero() || i.until.Before(r.next) {
				r.next = i.until
			}
		}
		if changed {
			r.change(e)
		}
	}
	return r.next
}

// check tells what is wrong with an instance.
func check(name string, i Instance) error {
	if err := checkName(name); err != nil {
		return err
	}
	if !isName(i.ID) {
		return errors.New("the id is not 1 to 128 letters, digits, dots, hyphens, underscores and colons")
	}
	host, port, err := net.SplitHostPort(i.Address)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("address: " + strconv.Quote(port) + " is not a port")
	}
	if len(host) > 253 || !isWord(host, ".-_:%") {
		return errors.New("address: " + strconv.Quote(host) + " is neither a name nor an IP address")
	}
	if i.Weight < 1 || i.Weight > maxWeight {
		return errors.New("weight is not 1 to " + strconv.Itoa(maxWeight))
	}
	if t := time.Duration(i.TTL); t < minTTL || t > maxTTL {
		return errors.New("ttl is not " + minTTL.String() + " to " + maxTTL.String())
	}
	if len(i.Labels) > maxLabels {
		return errors.New("there are more than " + strconv.Itoa(maxLabels) + " labels")
	}
	if !isText(i.Zone) {
		return errors.New("zone is longer than 256 bytes, or not printable ASCII")
	}
	for k, v := range i.Labels {
		if k == "" || !isText(k) || !isText(v) {
			return errors.New("label " + strconv.Quote(k[:min(len(k), maxText)]) + " is empty, longer than 256 bytes, or not printable ASCII")
		}
	}
	return nil
}

func checkName(name string) error {
	if !isName(name) {
		return errors.New("the service's name is not 1 to 128 letters, digits, dots, hyphens, underscores and colons")
	}
	return nil
}

func isName(s string) bool {
	return s != "." && s != ".." && len(s) <= maxName && isWord(s, ".-_:")
}

// isWord tells whether s is of letters, digits and the bytes of others, and not empty.
func isWord(s, others string) bool {
	for _, c := range []byte(s) {
		if letter, digit := 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9'; !letter && !digit && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return s != ""
}

func isText(s string) bool {
	return len(s) <= maxText && !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}
