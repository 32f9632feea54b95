package memory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
)

// What a topic keeps of the events that every group with a subscriber has taken, for groups that come later, and what all
// topics of a component may hold for groups that have not.
const (
	retainEvents = 1000
	retainBytes  = 4 << 20
	maxBacklog   = 64 << 20
)

// OpenPubsub opens a pubsub component.
func (m *Memory) OpenPubsub(context.Context, string, Config) (*Pubsub, error) {
	return &Pubsub{m: m, topics: map[string]*topic{}}, nil
}

// Pubsub is a pubsub.Driver. A topic keeps its latest events, so that a group that comes later starts at the oldest of
// them, and all that a group with a subscriber has not taken yet: one that falls too far behind has Publish fail.
//
// A subscription to a topic that ends in a star is one to every topic that begins with what stands before the star and goes
// on, those included that come later, as it is in Dapr's component.
type Pubsub struct {
	m      *Memory
	topics map[string]*topic
	wild   []*subscriber // of topics that end in a star
	held   int           // bytes of all topics' logs
}

type topic struct {
	name   string
	log    []loam.Event
	first  int // the number of the event that is log's first
	size   int // bytes of log
	groups map[groupKey]*group
}

// A groupKey tells groups apart. Who subscribes to a topic and to all that are like it gets its events twice.
type groupKey struct{ name, pattern string }

// A group is where a consumer group stands: next is the first event it was not handed.
type group struct {
	next        int
	subscribers int           // there are, those included that only wait for their last deliveries
	ready       []*subscriber // that take events; the first of them with room takes the next one
	retries     []retry       // the earliest first
	timer       *time.Timer   // for the first of them
}

// A subscriber takes events as long as it handles fewer than it may.
type subscriber struct {
	key      groupKey
	places   []place // one, unless it is of a topic that ends in a star
	turn     int     // whose turn among places it is to be given what there is first
	room     int
	begin    func(d pubsub.Delivery, done func(pubsub.Verdict))
	handlers sync.WaitGroup
}

// A place is where a subscriber takes events.
type place struct {
	t *topic
	g *group
}

type retry struct {
	pubsub.Delivery
	due time.Time
}

// topic finds or makes a topic; the lock is held.
func (p *Pubsub) topic(name string) *topic {
	t := p.topics[name]
	if t == nil {
		t = &topic{name: strings.Clone(name), groups: map[groupKey]*group{}}
		p.topics[t.name] = t
		for _, s := range p.wild {
			if matches(s.key.pattern, t.name) {
				p.join(t, s)
			}
		}
	}
	return t
}

// matches tells whether a topic is one of those that a pattern, which ends in a star, stands for.
func matches(pattern, topic string) bool {
	begin := pattern[:len(pattern)-1]
	return len(topic) > len(begin) && strings.HasPrefix(topic, begin)
}

// join makes a topic one that a subscriber takes events of; the lock is held.
func (p *Pubsub) join(t *topic, s *subscriber) {
	g := t.groups[s.key]
	if g == nil {
		g = &group{}
		t.groups[s.key] = g
	}
	g.next = max(g.next, t.first)
	g.subscribers++
	g.ready = append(g.ready, s)
	s.places = append(s.places, place{t, g})
	p.deliver(t, g)
}

// Features says in Dapr's words what it can beyond the least.
func (p *Pubsub) Features() []string { return []string{"SUBSCRIBE_WILDCARDS"} }

// Instant tells that nothing is waited for.
func (p *Pubsub) Instant() bool { return true }

// Publish appends events.
func (p *Pubsub) Publish(_ context.Context, events []loam.Event) error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	return p.append(events)
}

// append adds all events or none; the lock is held.
func (p *Pubsub) append(events []loam.Event) error {
	size := 0
	for i := range events {
		size += sizeOf(&events[i])
	}
	if p.held+size > maxBacklog { // what is only kept for groups that may come goes first
		for _, t := range p.topics {
			p.cut(t, 0, 0)
		}
	}
	if p.held+size > maxBacklog {
		return &loam.Error{
			Code: loam.ResourceExhausted, Op: "pubsub.Publish", Err: errors.New("a subscription is so far behind that its events take all the memory there is for them"),
			Hint: "find the subscription that does not keep up, or use a pubsub component that stores events",
		}
	}
	for i := range events {
		e := own(&events[i])
		t := p.topic(e.Topic)
		t.log = append(t.log, e)
		t.size += sizeOf(&e)
		p.held += sizeOf(&e)
		p.trim(t)
		for _, g := range t.groups {
			p.deliver(t, g)
		}
	}
	return nil
}

// trim forgets the oldest events that no group needs and the topic does not retain; the lock is held.
func (p *Pubsub) trim(t *topic) { p.cut(t, retainEvents, retainBytes) }

// cut is trim for a topic that retains so much; the lock is held.
func (p *Pubsub) cut(t *topic, events, size int) {
	needed := t.first + len(t.log)
	for _, g := range t.groups {
		if g.subscribers > 0 {
			needed = min(needed, g.next)
		}
	}
	for t.first < needed && (len(t.log) > events || t.size > size) {
		n := sizeOf(&t.log[0])
		t.size -= n
		p.held -= n
		t.log[0] = loam.Event{}
		t.log = t.log[1:]
		t.first++
	}
}

// sizeOf is about what an event takes, in bytes.
func sizeOf(e *loam.Event) int {
	n := 256 + len(e.Data)
	for k, v := range e.Attributes {
		n += 32 + len(k) + len(v)
	}
	for k, v := range e.Extra {
		n += 32 + len(k) + len(v)
	}
	for k, v := range e.Metadata {
		n += 32 + len(k) + len(v)
	}
	return n
}

// own copies an event with all it refers to.
func own(e *loam.Event) loam.Event {
	c := *e
	// One string holds all of them.
	all := strings.Join([]string{e.ID, e.Source, e.Type, e.Subject, e.ContentType, e.Topic}, "")
	for _, s := range []*string{&c.ID, &c.Source, &c.Type, &c.Subject, &c.ContentType, &c.Topic} {
		*s, all = all[:len(*s)], all[len(*s):]
	}
	c.Data = bytes.Clone(e.Data)
	c.Attributes, c.Metadata = cloneStrings(e.Attributes), cloneStrings(e.Metadata)
	if e.Extra != nil {
		c.Extra = make(map[string]json.RawMessage, len(e.Extra))
		for k, v := range e.Extra {
			c.Extra[strings.Clone(k)] = bytes.Clone(v)
		}
	}
	return c
}

func cloneStrings(m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	c := make(map[string]string, len(m))
	for k, v := range m {
		c[strings.Clone(k)] = strings.Clone(v)
	}
	return c
}

// Subscribe delivers a topic to a group.
func (p *Pubsub) Subscribe(ctx context.Context, sub pubsub.Subscription, handle pubsub.Handler) error {
	s := &subscriber{room: max(1, sub.InFlight), begin: sub.Begin}
	if s.begin == nil {
		lasting := context.WithoutCancel(ctx)
		s.begin = func(d pubsub.Delivery, done func(pubsub.Verdict)) {
			go func() { done(handle(lasting, d)) }()
		}
	}
	s.key.name = strings.Clone(sub.Group)
	p.m.mu.Lock()
	if strings.HasSuffix(sub.Topic, "*") {
		s.key.pattern = strings.Clone(sub.Topic)
		p.wild = append(p.wild, s)
		for _, name := range slices.Sorted(maps.Keys(p.topics)) {
			if matches(s.key.pattern, name) {
				p.join(p.topics[name], s)
			}
		}
	} else {
		p.join(p.topic(sub.Topic), s)
	}
	p.m.mu.Unlock()

	<-ctx.Done()
	p.m.mu.Lock()
	p.wild = slices.DeleteFunc(p.wild, func(other *subscriber) bool { return other == s })
	for _, at := range s.places {
		at.g.ready = slices.DeleteFunc(at.g.ready, func(other *subscriber) bool { return other == s })
		at.g.wait(0, nil)
		p.deliver(at.t, at.g)
	}
	p.m.mu.Unlock()
	s.handlers.Wait()

	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	for _, at := range s.places {
		if at.g.subscribers--; at.g.subscribers == 0 {
			p.trim(at.t)
		}
	}
	return nil
}

// deliver hands a group what is there for it, as far as its subscribers have room; the lock is held.
func (p *Pubsub) deliver(t *topic, g *group) {
	for {
		i := slices.IndexFunc(g.ready, func(s *subscriber) bool { return s.room > 0 })
		if i < 0 {
			return
		}
		d, ok := p.pick(t, g)
		if !ok {
			return
		}
		s := g.ready[i]
		g.ready = append(slices.Delete(g.ready, i, i+1), s) // the others come first next time
		s.room--
		s.handlers.Add(1)
		s.begin(d, func(v pubsub.Verdict) { p.done(t, g, s, d, v) })
	}
}

// done notes what became of a delivery.
func (p *Pubsub) done(t *topic, g *group, s *subscriber, d pubsub.Delivery, v pubsub.Verdict) {
	defer s.handlers.Done()
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	s.room++
	if v.Retry {
		r := retry{pubsub.Delivery{Event: d.Event, Attempt: d.Attempt + 1}, p.m.now().Add(v.After)}
		i, _ := slices.BinarySearchFunc(g.retries, r, func(a, b retry) int { return a.due.Compare(b.due) })
		g.retries = slices.Insert(g.retries, i, r)
	}
	if s.room == 1 && len(s.places) > 1 { // it had no room: something may wait for it at any of its places
		s.turn++
		for i := 0; i < len(s.places) && s.room > 0; i++ {
			at := s.places[(s.turn+i)%len(s.places)]
			p.deliver(at.t, at.g)
		}
	}
	p.deliver(t, g)
}

// pick is the next event of a group, if there is one now; the lock is held.
func (p *Pubsub) pick(t *topic, g *group) (d pubsub.Delivery, ok bool) {
	again := len(g.retries) > 0
	var after time.Duration
	if again {
		if after = g.retries[0].due.Sub(p.m.now()); after <= 0 {
			d = g.retries[0].Delivery
			g.retries = slices.Delete(g.retries, 0, 1)
			return d, true
		}
	}
	if g.next < t.first+len(t.log) {
		d = pubsub.Delivery{Event: t.log[g.next-t.first], Attempt: 1}
		g.next++
		if len(t.log) > retainEvents || t.size > retainBytes {
			p.trim(t)
		}
		return d, true
	}
	if again {
		g.wait(after, func() {
			p.m.mu.Lock()
			defer p.m.mu.Unlock()
			p.deliver(t, g)
		})
	}
	return d, false
}

// wait sets the timer of the group's first retry; nil: there is no need of one. The lock is held.
func (g *group) wait(after time.Duration, then func()) {
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	if then != nil {
		g.timer = time.AfterFunc(after, then)
	}
}

// Close forgets nothing and frees nothing: the memory goes with the value.
func (p *Pubsub) Close() error { return nil }
