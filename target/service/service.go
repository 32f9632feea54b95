// Package service is the target for a remote name: it knows the endpoints behind it, picks one for each request, counts
// what is under way, and sees who is healthy. How a request travels is the transport's, which is handed in; trying again
// is a policy round the service, and gets another endpoint.
//
// A request picks from an immutable set by one atomic load, takes no lock and allocates nothing. Whatever changes the set
// (discovery, health, ejection, slow start) builds a new one on goroutines of the service's own.
package service

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
)

// most is how many endpoints a service may have; those beyond are left out, and the log says so.
const most = 1 << 14

// A Service is a loam.Target: a remote name. It is safe for concurrent use.
type Service struct {
	c     Config
	decay float32 // in stamps
	cells []cell
	whole *Subset
	total atomic.Int64 // requests under way, where BoundedLoad asks for it
	none  error        // what a request gets where there is no endpoint
	full  error        // and where all have MaxRequests

	ready  chan struct{} // closed with the first list
	poked  chan struct{} // something is due for keep to look at
	stop   context.CancelFunc
	ctx    context.Context // ends with stop
	work   sync.WaitGroup
	update sync.Mutex // one list after the other; taken before mu

	mu       sync.Mutex // nothing waits while it is held
	given    []Endpoint // as discovery gave it
	list     []member
	states   map[string]*state
	subsets  []*Subset
	found    error             // of the last discovery; nil: it worked
	foundAt  time.Time         // when the list last came
	learned  map[string]lesson // of Config.Before, until the first list
	changed  bool              // health has, since the sets were built
	interval time.Time         // of Passive: when the present one ends
}

// cell is the turn of one shard, alone in its cache line.
type cell struct {
	turn atomic.Uint64
	_    [56]byte
}

// A Subset is a loam.Target: the endpoints of a service that have certain labels. They are the service's own, with all
// that is known of them.
type Subset struct {
	s      *Service
	labels map[string]string
	now    atomic.Pointer[set]
}

// New makes a service and starts looking for its endpoints. Those of a Static list are there when it returns.
func New(c Config) (*Service, error) {
	if c.Name == "" || c.Discovery == nil || c.Open == nil {
		return nil, loam.Errorf(loam.InvalidArgument, "service", "a service needs a Name, a Discovery and Open")
	}
	op := "service " + strconv.Quote(c.Name)
	if c.Active != nil && c.Active.Check == nil {
		return nil, loam.Errorf(loam.InvalidArgument, op, "active health needs a Check")
	}
	c.setDefaults()
	s := &Service{
		c: c, decay: max(1, float32(c.Decay>>14)), cells: make([]cell, c.Shards), states: map[string]*state{},
		ready: make(chan struct{}), poked: make(chan struct{}, 1),
		none: &loam.Error{Code: loam.Unavailable, Op: op, Err: errors.New("it has no endpoints"), Hint: "see where it takes them from, and what loam get says of it"},
		full: &loam.Error{Code: loam.ResourceExhausted, Op: op, Err: errors.New("every endpoint has as many requests under way as it may"), Hint: "add endpoints, or raise its pool's bounds"},
	}
	for i := range s.cells {
		s.cells[i].turn.Store(mix(c.Seed + uint64(i)*golden))
	}
	s.whole = &Subset{s: s}
	s.whole.now.Store(&set{})
	s.subsets = []*Subset{s.whole}
	if c.Before != nil {
		s.learned = c.Before.learn()
		s.c.Before = nil // it may go
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	if list, ok := c.Discovery.(static); ok {
		s.setEndpoints(list, nil)
	} else {
		s.work.Go(func() { c.Discovery.Run(s.ctx, s.setEndpoints) })
	}
	if c.Active != nil || c.Passive != nil || c.SlowStart > 0 {
		s.work.Go(s.keep)
	}
	return s, nil
}

func (c *Config) setDefaults() {
	c.Shards = max(c.Shards, 1)
	c.Decay = cmp.Or(c.Decay, 10*time.Second)
	c.Seed = cmp.Or(c.Seed, rand.Uint64())
	if !c.hashes() {
		c.HashOn = nil
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("service", c.Name)
	if c.Active != nil {
		a := *c.Active
		a.Interval, a.Timeout = cmp.Or(a.Interval, 10*time.Second), cmp.Or(a.Timeout, 2*time.Second)
		a.Healthy, a.Unhealthy = cmp.Or(a.Healthy, 2), cmp.Or(a.Unhealthy, 3)
		c.Active = &a
	}
	if c.Passive != nil {
		p := *c.Passive
		p.Interval, p.Ejection = cmp.Or(p.Interval, 10*time.Second), cmp.Or(p.Ejection, 30*time.Second)
		p.MinRequests, p.MaxEjected = cmp.Or(p.MinRequests, 20), cmp.Or(p.MaxEjected, 0.5)
		c.Passive = &p
	}
}

// hashes tells whether endpoints are picked by a key.
func (c *Config) hashes() bool { return c.Algorithm == RingHash || c.Algorithm == Maglev }

// A lesson is what a service hands on of an endpoint.
type lesson struct {
	health
	latency uint64
}

// learn is what the service knows of its endpoints.
func (s *Service) learn() map[string]lesson {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]lesson, len(s.states))
	for address, e := range s.states {
		all[address] = lesson{e.health, e.latency.v.Load()}
	}
	return all
}

// take applies what was known of an endpoint, but for what this service would never find to be otherwise.
func (s *Service) take(e *state, l lesson) {
	e.health = l.health
	e.latency.v.Store(l.latency)
	if s.c.Active == nil {
		e.asked, e.sick, e.why, e.good, e.bad = false, false, "", 0, 0
	}
	if s.c.Passive == nil {
		e.ejectedUntil, e.ejections = time.Time{}, 0
	}
	if s.c.SlowStart == 0 {
		e.fresh = time.Time{}
	}
}

// Ready is closed once the first list of endpoints is there, be it empty. Requests that come before wait for it, 5s at
// most.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Close ends what the service does by itself, and lets go of kept connections. Requests under way go on to their end.
func (s *Service) Close(context.Context) error {
	s.stop()
	s.work.Wait()
	s.update.Lock()
	defer s.update.Unlock()
	s.mu.Lock()
	states := s.states
	s.states = nil
	s.mu.Unlock()
	for _, e := range states {
		e.via.Close()
	}
	return nil
}

// Subset is the part of the service whose endpoints have all of the labels: the same one for the same labels. It lives
// as long as the service.
func (s *Service) Subset(labels map[string]string) *Subset {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.subsets {
		if maps.Equal(sub.labels, labels) {
			return sub
		}
	}
	sub := &Subset{s: s, labels: labels}
	sub.now.Store(s.build(s.list, labels, time.Now()))
	s.subsets = append(s.subsets, sub)
	return sub
}

// Serve sends the request to an endpoint.
func (s *Service) Serve(req *loam.Request) (*loam.Response, error) { return s.whole.Serve(req) }

// Serve sends the request to an endpoint of the subset: the one that req.Affinity names, if it is usable; else one that
// is not among req.Tried, if there is one. It sets the one and adds to the other.
func (v *Subset) Serve(req *loam.Request) (*loam.Response, error) {
	t := req.Task()
	start := t.Now()
	m, err := v.choose(req, t.Shard(), start)
	if err != nil {
		return nil, err
	}
	e := m.state
	req.Affinity, req.Tried = e.id, append(req.Tried, e.address)
	e.begin()
	over := false
	defer func() {
		if !over { // it panicked, or its task was ended
			e.end()
		}
	}()
	res, err := e.via.Serve(req)
	over = true
	failed := blame(res, err, v.s.c.GRPC)
	if now := t.Now(); err == nil || failed { // what the sender broke off tells nothing
		e.latency.observe(now.Sub(start), failed, stampOf(now), v.s.decay)
	}
	switch {
	case failed:
		e.failed.Add(1)
		if n := e.row.Add(1); v.s.c.Passive != nil && int(n) == v.s.c.Passive.ConsecutiveErrors {
			v.s.poke()
		}
	case err == nil && e.row.Load() != 0:
		e.row.Store(0)
	}
	if failed || err != nil || res.Body == nil && res.Tunnel == nil {
		e.end() // a retry may follow, and what is left of a failure costs the endpoint little
		return res, err
	}
	req.AtEnd(e)
	return res, nil
}

// choose picks the endpoint of a request.
func (v *Subset) choose(req *loam.Request, shard int, now time.Time) (*member, error) {
	set := v.now.Load()
	if set.picker == nil && !v.s.isReady() {
		v.s.awaitList(req)
		set = v.now.Load()
	}
	if set.picker == nil {
		return nil, v.s.none
	}
	if req.Affinity != "" {
		if i, ok := set.pinned[req.Affinity]; ok && v.free(&set.usable[i], req) {
			return &set.usable[i], nil
		}
	}
	c := v.s.choice(shard, now)
	if v.s.c.HashOn != nil {
		if key, ok := v.s.c.HashOn(req); ok {
			c.key = key
		}
	}
	if m := &set.members[set.picker.pick(c)]; v.free(m, req) {
		return m, nil
	}
	return v.another(set, c, req, shard, now)
}

// patience is how long a request waits for the first list of endpoints.
const patience = 5 * time.Second

// awaitList waits for the first list.
func (s *Service) awaitList(req *loam.Request) {
	ctx := req.Context()
	req.Task().Await(func() {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-s.ready:
		case <-timer.C:
		case <-ctx.Done():
		case <-s.ctx.Done():
		}
	})
}

// free tells whether an endpoint is one that the request was not sent to yet, and has room.
func (v *Subset) free(m *member, req *loam.Request) bool {
	return v.room(m) && !slices.Contains(req.Tried, m.address)
}

func (v *Subset) room(m *member) bool {
	most := v.s.c.MaxRequests
	return most == 0 || m.inFlight() < int64(most)
}

// another picks an endpoint where the first one picked will not do: a few more by the algorithm, then any.
func (v *Subset) another(set *set, c choice, req *loam.Request, shard int, now time.Time) (*member, error) {
	for range 4 {
		key := mix(c.key) // the same way for every request with the key
		c = v.s.choice(shard, now)
		c.key = key
		if m := &set.members[set.picker.pick(c)]; v.free(m, req) {
			return m, nil
		}
	}
	var tried *member
	for _, list := range [...][]member{set.members, set.usable} { // those of other zones last
		for i := range list {
			m := &list[(uint64(i)+c.random>>1)%uint64(len(list))]
			if v.free(m, req) {
				return m, nil
			}
			if v.room(m) {
				tried = m
			}
		}
	}
	if tried != nil {
		return tried, nil
	}
	return nil, v.s.full
}

// choice begins the next turn of a shard.
func (s *Service) choice(shard int, now time.Time) choice {
	turn := s.cells[min(shard, len(s.cells)-1)].turn.Add(1)
	random := mix(turn * golden)
	return choice{turn: turn, random: random, key: random, now: stampOf(now)}
}

// poke has keep look at the endpoints.
func (s *Service) poke() {
	select {
	case s.poked <- struct{}{}:
	default:
	}
}

// setEndpoints takes in what discovery found.
func (s *Service) setEndpoints(list []Endpoint, err error) {
	s.update.Lock()
	defer s.update.Unlock()
	s.mu.Lock()
	if s.found = err; err != nil {
		s.mu.Unlock()
		s.c.Log.Warn("discovery failed; the endpoints known stay", "error", err)
		return
	}
	if s.states == nil || s.ctx.Err() != nil { // closed
		s.mu.Unlock()
		return
	}
	now := time.Now()
	s.foundAt = now
	first := !s.isReady()
	if !first && slices.EqualFunc(list, s.given, Endpoint.equal) {
		s.mu.Unlock()
		return
	}
	s.given = list
	states := make(map[string]*state, len(list))
	s.list = make([]member, 0, len(list))
	var added []*state
	for _, e := range list {
		if e.Address == "" || states[e.Address] != nil || len(s.list) == most {
			continue
		}
		e.Weight = min(max(e.Weight, 1), maxWeight)
		known := s.states[e.Address]
		if known == nil {
			known = &state{address: e.Address, id: newID(e.Address), via: s.c.Open(e.Address)}
			if s.c.BoundedLoad > 0 {
				known.total = &s.total
			}
			if l, ok := s.learned[e.Address]; ok {
				s.take(known, l)
			} else if s.c.SlowStart > 0 && (!first || len(s.learned) > 0) {
				known.fresh = now
			}
			added = append(added, known)
		}
		states[e.Address] = known
		s.list = append(s.list, member{Endpoint: e, state: known})
	}
	s.learned = nil
	var gone []*state
	for address, e := range s.states {
		if states[address] == nil {
			gone = append(gone, e)
		}
	}
	s.states = states
	for _, e := range added {
		s.watch(e)
	}
	s.rebuild(now)
	s.mu.Unlock()
	if first {
		close(s.ready)
	}
	if len(list) > most {
		s.c.Log.Error("there are too many endpoints; some are left out", "endpoints", len(list), "most", most)
	}
	for _, e := range added {
		s.c.Log.Debug("endpoint came", "endpoint", e.address)
	}
	for _, e := range gone {
		s.c.Log.Debug("endpoint went", "endpoint", e.address)
		if e.stop != nil {
			e.stop()
		}
		e.via.Close() // outside of the lock: it may wait for loops
	}
	s.poke()
}

// maxWeight bounds weights, so that sums of them are exact.
const maxWeight = 1 << 20

func (s *Service) isReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// rebuild puts new sets in place. It is called with mu held.
func (s *Service) rebuild(now time.Time) {
	for _, sub := range s.subsets {
		sub.now.Store(s.build(s.list, sub.labels, now))
	}
}
