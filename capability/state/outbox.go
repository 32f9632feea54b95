package state

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/keys"
	"github.com/loam-run/loam/capability/pubsub"
)

// outbox publishes an event for each write of a transaction: to a topic, if and only if the transaction was committed.
type outbox struct {
	bus, topic string // what is published to
	by         string // the pubsub component that intermediate records go through
	discard    bool
	find       func(component string) (*pubsub.Bus, error)
	log        *slog.Logger

	mu      sync.Mutex
	refused map[string]struct{} // ids of transactions that were certainly not committed, whose records may be forgotten
}

// Bounds of an outbox's patience.
const (
	maxRefused      = 10_000
	commitTimeout   = time.Minute      // how long the transaction behind a record may take
	recordPatience  = 10 * time.Minute // after which a record without its transaction never gets one, whatever the clocks say
	discardPatience = 10 * time.Second // the same where outboxDiscardWhenMissingState says so; Dapr's
)

func newOutbox(component string, o Options) (*outbox, error) {
	out := &outbox{
		bus: keys.Setting(o.Settings, "outboxPublishPubsub"), topic: keys.Setting(o.Settings, "outboxPublishTopic"), by: keys.Setting(o.Settings, "outboxPubsub"),
		discard: keys.True(keys.Setting(o.Settings, "outboxDiscardWhenMissingState")), find: o.Bus, log: o.Log, refused: map[string]struct{}{},
	}
	switch {
	case out.bus == "" && out.topic == "":
		return nil, nil
	case out.bus == "" || out.topic == "":
		return nil, loam.Errorf(loam.InvalidArgument, "component "+strconv.Quote(component), "an outbox takes both outboxPublishPubsub and outboxPublishTopic")
	case o.Bus == nil:
		return nil, loam.Errorf(loam.Internal, "component "+strconv.Quote(component), "nobody finds the pubsub component %q for its outbox", out.bus)
	}
	if out.by == "" {
		out.by = out.bus
	}
	if out.log == nil {
		out.log = slog.New(slog.DiscardHandler)
	}
	return out, nil
}

// Trace is where a request stands in a trace, as W3C writes it; both may be empty.
type Trace struct{ Parent, State string }

// HasOutbox tells whether transactions are published, so that Relay is wanted.
func (s *Store) HasOutbox() bool { return s.outbox != nil }

// Transact does all ops in their order, or none, durably once it returns. Where the component has an outbox, an event for
// each write that is no delete is delivered to its topic at least once if the transaction was committed, and never if not:
// the event's data is the write's value, or that of the op with Projection for the same key; its metadata may say
// contentType, and other members of the envelope.
//
// Where state and pubsub component share their commit (Outbox), the events are part of it. Else each event first goes to an
// internal topic of outboxPubsub as a record, the transaction writes a mark for each beside its own ops, and Relay, which
// reads the records, publishes those whose mark is there and then removes it. A process that is killed between any two
// of these steps leaves either a record without its mark, of a transaction that never was, or one with it, which is read
// again. That is Dapr's way, with its names of topics and marks, so that instances of both may serve one app.
func (s *Store) Transact(ctx context.Context, caller *loam.Caller, ops []Op, trace Trace) error {
	if s.outbox == nil || len(ops) == 0 {
		_, err := s.Apply(ctx, caller, ops, nil, nil)
		return err
	}
	if len(ops) > MaxOps {
		return loam.Errorf(loam.InvalidArgument, "state.Apply", "%d ops: at most %d at once", len(ops), MaxOps)
	}
	if err := s.checkTransaction(caller, ops); err != nil {
		return err
	}
	o := s.outbox
	events := o.events(caller, ops, trace)
	ops = slices.DeleteFunc(slices.Clone(ops), func(op Op) bool { return op.Projection })
	ops, err := s.conceal(ops)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		if len(ops) > 0 {
			_, err = s.apply(ctx, ops)
		}
		return err
	}
	bus, err := o.find(o.bus)
	if err != nil {
		return err
	}
	if d, ok := s.driver.(Outbox); ok && d.SharesCommit(bus.PubsubDriver()) {
		for i := range events {
			events[i].Topic = o.topic
		}
		_, err := d.ApplyAndPublish(ctx, ops, bus.PubsubDriver(), events)
		return err
	}
	return o.viaRecords(ctx, s, caller.Name, ops, events)
}

// viaRecords publishes records, then commits the ops with their marks.
func (o *outbox) viaRecords(ctx context.Context, s *Store, app string, ops []Op, events []loam.Event) error {
	by, err := o.find(o.by)
	if err != nil {
		return err
	}
	most := s.MaxTransaction()
	if n := len(ops) + len(events); n > most && n > 1 {
		return loam.Errorf(loam.InvalidArgument, "state.Apply", "%d ops, and a mark for each of %d events: component %q does at most %d in a transaction", len(ops), len(events), s.name, most)
	}
	for i := range events {
		events[i].Topic = o.records(app, s.namespace)
		ops = append(ops, Op{Key: events[i].ID, Value: []byte("0")})
	}
	if err := by.Forward(ctx, events); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, err = s.apply(ctx, ops)
	if err != nil && refused(err) {
		o.refuse(events)
	}
	return err
}

func (o *outbox) refuse(events []loam.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range events {
		if len(o.refused) < maxRefused {
			o.refused[events[i].ID] = struct{}{}
		}
	}
}

// wasRefused forgets an id and tells whether it was noted.
func (o *outbox) wasRefused(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, was := o.refused[id]
	delete(o.refused, id)
	return was
}

// records is the topic that an app's records go through; the name is Dapr's.
func (o *outbox) records(app, namespace string) string { return namespace + app + o.topic + "outbox" }

// events are what is to be published for ops.
func (o *outbox) events(caller *loam.Caller, ops []Op, trace Trace) []loam.Event {
	projections := map[string]*Op{}
	for i := range ops {
		if ops[i].Projection {
			projections[ops[i].Key] = &ops[i]
		}
	}
	var events []loam.Event
	for i := range ops {
		op := &ops[i]
		if op.Delete || op.Projection {
			continue
		}
		from := op
		if p := projections[op.Key]; p != nil {
			from = p
		}
		e := loam.Event{
			ID: "outbox-" + rand.Text(), Source: caller.Name, Type: pubsub.EventType, Time: time.Now(), Data: from.Value,
			ContentType: keys.Setting(from.Metadata, "contentType"), Attributes: map[string]string{},
		}
		if e.ContentType == "" {
			e.ContentType = "text/plain"
			if text, ok := jsonString(e.Data); ok { // what a JSON API stored as a string was said as the string
				e.Data = text
			}
		}
		if trace.Parent != "" {
			e.Attributes["traceid"], e.Attributes["traceparent"] = trace.Parent, trace.Parent
		}
		if trace.State != "" {
			e.Attributes["tracestate"] = trace.State
		}
		for name, value := range op.Metadata {
			switch name {
			case "data", "id", "specversion", "time", "topic", "pubsubname", "data_base64", "contentType", "ttlInSeconds", "outbox.projection":
			case "source":
				e.Source = value
			case "type":
				e.Type = value
			case "subject":
				e.Subject = value
			case "datacontenttype":
				e.ContentType = value
			default:
				e.Attributes[name] = value
			}
		}
		events = append(events, e)
	}
	return events
}

func jsonString(b []byte) ([]byte, bool) {
	if b = bytes.TrimSpace(b); len(b) < 2 || b[0] != '"' {
		return nil, false
	}
	var s string
	if json.Unmarshal(b, &s) != nil {
		return nil, false
	}
	return []byte(s), true
}

// Relay publishes what an app's transactions left as records, until ctx ends; nil where nothing is to be relayed: the
// store has no outbox, or its commits publish. It is to run for as long as the app is served, on the store that For made.
func (s *Store) Relay(ctx context.Context, app string) error {
	o := s.outbox
	if o == nil {
		return nil
	}
	bus, err := o.find(o.bus)
	if err != nil {
		return err
	}
	if d, ok := s.driver.(Outbox); ok && d.SharesCommit(bus.PubsubDriver()) {
		return nil
	}
	by, err := o.find(o.by)
	if err != nil {
		return err
	}
	return by.Subscribe(ctx, pubsub.Options{
		Topic: o.records(app, s.namespace), Group: app, RetryMin: 100 * time.Millisecond, RetryMax: 3 * time.Second, Log: o.log,
	}, func(ctx context.Context, e loam.Event, _ int) error { return o.relay(ctx, s, e) })
}

// relay publishes one record if its mark is there.
func (o *outbox) relay(ctx context.Context, s *Store, e loam.Event) error {
	if !strings.HasPrefix(e.ID, "outbox-") {
		return discarded{fmt.Errorf("event %q is no record of an outbox", e.ID)}
	}
	items, err := s.read(ctx, []string{e.ID})
	if err != nil {
		return err
	}
	if items[0].ETag == "" {
		patience := recordPatience
		if o.discard {
			patience = discardPatience
		}
		switch age := time.Since(e.Time); {
		case o.wasRefused(e.ID):
			return nil
		case age > patience:
			return discarded{errors.New("the transaction of this event was never committed, or it was published before")}
		}
		return loam.Errorf(loam.FailedPrecondition, "state.Relay", "the transaction is not committed yet")
	}
	bus, err := o.find(o.bus)
	if err != nil {
		return err
	}
	delete(e.Attributes, "topic")
	e.Topic = o.topic
	if err := bus.Forward(ctx, []loam.Event{e}); err != nil {
		return err
	}
	_, err = s.apply(ctx, []Op{{Delete: true, Key: e.ID}})
	return err
}

// discarded is the error of a record that is not to come again.
type discarded struct{ error }

func (discarded) Drop() bool { return true }
