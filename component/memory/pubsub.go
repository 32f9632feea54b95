package memory

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
)

// OpenPubsub opens a pubsub component.
func (m *Memory) OpenPubsub(context.Context, string, Config) (*Pubsub, error) {
	return &Pubsub{m: m, topics: map[string]*topic{}}, nil
}

// Pubsub is a pubsub.Driver. A topic keeps its events for as long as the process lives, so that a group that comes later
// starts at the oldest.
type Pubsub struct {
	m      *Memory
	topics map[string]*topic
}

type topic struct {
	log    []loam.Event
	groups map[string]*group
	news   chan struct{} // closed when there is something new to take
}

// A group is where a consumer group stands: next is the first event it was not handed.
type group struct {
	next    int
	retries []retry // the earliest first
}

type retry struct {
	pubsub.Delivery
	due time.Time
}

// topic finds or makes a topic; the lock is held.
func (p *Pubsub) topic(name string) *topic {
	t := p.topics[name]
	if t == nil {
		t = &topic{groups: map[string]*group{}, news: make(chan struct{})}
		p.topics[name] = t
	}
	return t
}

// tell wakes who waits; the lock is held.
func (t *topic) tell() {
	close(t.news)
	t.news = make(chan struct{})
}

// Publish appends events.
func (p *Pubsub) Publish(_ context.Context, events []loam.Event) error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.append(events)
	return nil
}

func (p *Pubsub) append(events []loam.Event) {
	for _, e := range events {
		e.Data, e.Attributes = bytes.Clone(e.Data), maps.Clone(e.Attributes)
		t := p.topic(e.Topic)
		t.log = append(t.log, e)
		t.tell()
	}
}

// Subscribe delivers a topic to a group.
func (p *Pubsub) Subscribe(ctx context.Context, sub pubsub.Subscription, handle pubsub.Handler) error {
	p.m.mu.Lock()
	t := p.topic(sub.Topic)
	g := t.groups[sub.Group]
	if g == nil {
		g = &group{}
		t.groups[sub.Group] = g
	}
	p.m.mu.Unlock()

	var handlers sync.WaitGroup
	defer handlers.Wait()
	slots := make(chan struct{}, max(1, sub.InFlight))
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		d, ok := p.take(ctx, t, g)
		if !ok {
			return nil
		}
		handlers.Go(func() {
			v := handle(context.WithoutCancel(ctx), d)
			<-slots
			if !v.Retry {
				return
			}
			p.m.mu.Lock()
			defer p.m.mu.Unlock()
			r := retry{pubsub.Delivery{Event: d.Event, Attempt: d.Attempt + 1}, p.m.now().Add(v.After)}
			i, _ := slices.BinarySearchFunc(g.retries, r, func(a, b retry) int { return a.due.Compare(b.due) })
			g.retries = slices.Insert(g.retries, i, r)
			t.tell()
		})
	}
}

// take waits for the next event of a group.
func (p *Pubsub) take(ctx context.Context, t *topic, g *group) (pubsub.Delivery, bool) {
	for {
		if ctx.Err() != nil {
			return pubsub.Delivery{}, false
		}
		p.m.mu.Lock()
		news, wait := t.news, time.Hour // with no retry due, a look in vain now and then
		if len(g.retries) > 0 {
			if wait = g.retries[0].due.Sub(p.m.now()); wait <= 0 {
				d := g.retries[0].Delivery
				g.retries = slices.Delete(g.retries, 0, 1)
				p.m.mu.Unlock()
				return d, true
			}
		}
		if g.next < len(t.log) {
			e := t.log[g.next]
			g.next++
			p.m.mu.Unlock()
			e.Data, e.Attributes = bytes.Clone(e.Data), maps.Clone(e.Attributes)
			return pubsub.Delivery{Event: e, Attempt: 1}, true
		}
		p.m.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-news:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Close forgets nothing and frees nothing: the memory goes with the value.
func (p *Pubsub) Close() error { return nil }
