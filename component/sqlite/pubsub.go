package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
)

// OpenPubsub opens a pubsub component.
func (f *Files) OpenPubsub(ctx context.Context, name string, c Config) (*Pubsub, error) {
	s, err := f.openSpace(ctx, "pubsub", name, c)
	if err != nil {
		return nil, err
	}
	s.db.mu.Lock()
	s.retention[s.id] = c.Retention
	s.db.mu.Unlock()
	return &Pubsub{space: s, files: f, consumers: map[string]map[string]*consumer{}}, nil
}

// Pubsub is a pubsub.Driver: a log for each topic, and for each consumer group what it has finished of it.
type Pubsub struct {
	space
	files *Files

	mu        sync.Mutex
	consumers map[string]map[string]*consumer // by topic and group, while somebody subscribes
}

// Close lets go of the file. Every Subscribe has returned by then.
func (p *Pubsub) Close() error { return p.files.release(p.space) }

// Publish appends events.
func (p *Pubsub) Publish(ctx context.Context, events []loam.Event) error {
	err := p.write(ctx, func(*db) error { return p.append(events) })
	if err == nil {
		p.published(events)
	}
	return err
}

// A logEnd is where a topic's next event goes. The writer keeps them, and forgets them when a commit fails.
type logEnd struct{ topic, next int64 }

// place is where an event lies: its topic's number, and its own in that topic from 1 on.
func place(topic, seq int64) int64 { return topic<<40 + seq }

type topicName struct {
	space int64
	name  string
}

// append adds events to their logs, in the writer.
func (p *Pubsub) append(events []loam.Event) error {
	for i := range events {
		e := &events[i]
		end, err := p.logEnd(e.Topic)
		if err != nil {
			return err
		}
		attributes, err := marshalAttributes(e)
		if err != nil {
			return err
		}
		if err := p.exec(`INSERT INTO event (place, id, source, type, subject, time, content_type, attributes, data)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			place(end.topic, end.next), e.ID, e.Source, unless(e.Topic, e.Type), e.Subject, e.Time.UnixMilli(), unless(usualType, e.ContentType), attributes, e.Data); err != nil {
			return err
		}
		end.next++
	}
	return nil
}

// rawMember says in the attributes of an event that it is raw. No attribute is called so.
const rawMember = " raw"

// marshalAttributes is what the column attributes holds: those that are strings as strings, the rest as it is; NULL where
// there are none.
func marshalAttributes(e *loam.Event) (any, error) {
	if !e.Raw && len(e.Extra) == 0 {
		if len(e.Attributes) == 0 {
			return nil, nil
		}
		return json.Marshal(e.Attributes)
	}
	all := make(map[string]any, len(e.Attributes)+len(e.Extra)+1)
	for name, value := range e.Extra {
		all[name] = value
	}
	for name, value := range e.Attributes {
		all[name] = value
	}
	if e.Raw {
		all[rawMember] = true
	}
	return json.Marshal(all)
}

func unmarshalAttributes(b []byte, e *loam.Event) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	for name, value := range all {
		switch {
		case name == rawMember:
			e.Raw = true
		case value[0] == '"':
			if e.Attributes == nil {
				e.Attributes = make(map[string]string, len(all))
			}
			var text string
			if err := json.Unmarshal(value, &text); err != nil {
				return err
			}
			e.Attributes[name] = text
		default:
			if e.Extra == nil {
				e.Extra = map[string]json.RawMessage{}
			}
			e.Extra[name] = value
		}
	}
	return nil
}

// usualType is the content type that most events have.
const usualType = "application/json"

// unless is text as it is stored, NULL where it is the usual one.
func unless(usual, text string) any {
	if text == usual {
		return nil
	}
	return text
}

func (p *Pubsub) logEnd(name string) (*logEnd, error) {
	key := topicName{p.id, name}
	if end := p.ends[key]; end != nil {
		return end, nil
	}
	if err := p.exec("INSERT OR IGNORE INTO topic (space, name) VALUES (?, ?)", p.id, name); err != nil {
		return nil, err
	}
	end := &logEnd{}
	// Retention may have emptied the log; it leaves the last number behind.
	_, err := p.row([]any{&end.topic, &end.next}, `SELECT t.id, 1 + max(t.last,
		coalesce((SELECT max(place) - (t.id << 40) FROM event WHERE place > t.id << 40 AND place < (t.id + 1) << 40), 0))
		FROM topic t WHERE t.space = ? AND t.name = ?`, p.id, name)
	if err == nil {
		p.ends[key] = end
	}
	return end, err
}

// published wakes who waits for the events' topics.
func (p *Pubsub) published(events []loam.Event) {
	if len(events) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	last := ""
	for i := range events {
		if name := events[i].Topic; name != last {
			last = name
			for _, c := range p.consumers[name] {
				c.wake()
			}
		}
	}
}

// Subscribe delivers a topic to a consumer group.
func (p *Pubsub) Subscribe(ctx context.Context, sub pubsub.Subscription, handle pubsub.Handler) error {
	c, err := p.join(ctx, sub)
	if ctx.Err() != nil && err != nil {
		return nil // it had not begun
	}
	if err != nil {
		return err
	}
	var handlers sync.WaitGroup
	slots := make(chan struct{}, max(1, sub.InFlight))
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		seq, d, e := c.take(ctx)
		if e != nil {
			err = e
			break
		}
		handlers.Go(func() {
			c.finish(seq, d.Attempt, handle(context.WithoutCancel(ctx), d))
			<-slots
		})
	}
	handlers.Wait()
	if ctx.Err() != nil {
		err = nil // that is how a subscription ends
	}
	if e := p.leave(sub, c); err == nil {
		err = e
	}
	return err
}

// join finds or loads the group's consumer.
func (p *Pubsub) join(ctx context.Context, sub pubsub.Subscription) (*consumer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.consumers[sub.Topic][sub.Group]; c != nil {
		c.subscribers++
		return c, nil
	}
	c := &consumer{
		bus: p, name: sub.Topic, subscribers: 1, inflight: map[int64]struct{}{}, skip: map[int64]struct{}{},
		news: make(chan struct{}), closing: make(chan struct{}),
	}
	// The row is made by the writer, and read back beside it.
	if err := p.write(ctx, func(d *db) error {
		end, err := p.logEnd(sub.Topic)
		if err != nil {
			return err
		}
		c.topic = end.topic
		return d.exec("INSERT OR IGNORE INTO consumer (topic, name, cursor) VALUES (?, ?, 0)", end.topic, sub.Group)
	}); err != nil {
		return nil, err
	}
	if err := p.rows(ctx, func(r *sql.Rows) error { return r.Scan(&c.id, &c.cursor) },
		"SELECT id, cursor FROM consumer WHERE topic = ? AND name = ?", c.topic, sub.Group); err != nil {
		return nil, err
	}
	c.next = c.cursor + 1
	if err := p.rows(ctx, func(r *sql.Rows) error {
		var seq int64
		err := r.Scan(&seq)
		c.skip[seq], c.doneRows = struct{}{}, true
		return err
	}, "SELECT seq FROM done WHERE consumer = ?", c.id); err != nil {
		return nil, err
	}
	if err := p.rows(ctx, func(r *sql.Rows) error {
		var x retry
		var due int64
		err := r.Scan(&x.seq, &x.attempt, &due)
		x.due = time.UnixMilli(due)
		c.skip[x.seq] = struct{}{}
		c.retries.push(x)
		return err
	}, "SELECT seq, attempt, due FROM retry WHERE consumer = ?", c.id); err != nil {
		return nil, err
	}
	if p.consumers[sub.Topic] == nil {
		p.consumers[sub.Topic] = map[string]*consumer{}
	}
	p.consumers[sub.Topic][sub.Group] = c
	return c, nil
}

// leave makes the consumer's verdicts durable when its last subscriber goes.
func (p *Pubsub) leave(sub pubsub.Subscription, c *consumer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.subscribers--; c.subscribers > 0 {
		c.wake() // what this one might have been woken for
		return nil
	}
	delete(p.consumers[sub.Topic], sub.Group)
	close(c.closing)
	c.flusher.Wait()
	return c.flushErr
}
