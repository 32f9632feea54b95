// Package pubsub is the publish and subscribe capability: events appended to topics, delivered to consumer groups at
// least once. Bus holds what is the same for every component (grants, CloudEvents attributes, retries, dead letters),
// a Driver what is not.
package pubsub

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/protocol/cloudevents"
)

// Bounds of what a caller may ask at once.
const (
	MaxTopic  = 256     // bytes
	MaxData   = 4 << 20 // bytes
	MaxEvents = 1000

	MaxAttributes = 64
	MaxAttribute  = 4096 // bytes
)

// A Bus is one component's topics.
type Bus struct {
	name   string
	driver Driver
	scopes *scopes // nil: none
	guard  loam.Guard
}

// New makes a Bus of the component called name, without settings.
func New(name string, d Driver) *Bus { return &Bus{name: name, driver: d} }

// Open makes a Bus of the component called name. Settings are the component's metadata that is this package's:
// publishingScopes, subscriptionScopes, allowedTopics and protectedTopics.
func Open(name string, d Driver, settings map[string]string) (*Bus, error) {
	scopes, err := parseScopes(settings)
	if err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: "component " + strconv.Quote(name), Err: err}
	}
	return &Bus{name: name, driver: d, scopes: scopes}, nil
}

// Guarded is the bus with g round every call of the component, but for those that last.
func (b *Bus) Guarded(g loam.Guard) *Bus {
	made := *b
	made.guard = g
	return &made
}

// PubsubDriver is the component's driver, for a state component that can publish in its own commit.
func (b *Bus) PubsubDriver() any { return b.driver }

// Instant tells whether Publish only touches memory, so that an event loop may call it without Task.Await.
func (b *Bus) Instant() bool {
	i, ok := b.driver.(Instant)
	return ok && i.Instant()
}

// Name is the component's.
func (b *Bus) Name() string { return b.name }

// Features are what the component's driver can beyond the least, in Dapr's words.
func (b *Bus) Features() []string {
	if f, ok := b.driver.(Featured); ok {
		return f.Features()
	}
	return nil
}

// CheckPublish tells whether the caller may publish to a topic: its grants and the component's scopes say.
func (b *Bus) CheckPublish(caller *loam.Caller, topic string) error {
	if err := checkTopic("pubsub.Publish", topic); err != nil {
		return err
	}
	if err := caller.Check("pubsub", b.name, topic, true); err != nil {
		return err
	}
	return b.scopes.check(b.name, caller.Name, topic, true)
}

// CheckSubscribe tells whether the caller may subscribe to a topic.
func (b *Bus) CheckSubscribe(caller *loam.Caller, topic string) error {
	if err := checkTopic("pubsub.Subscribe", topic); err != nil {
		return err
	}
	if err := caller.Check("pubsub", b.name, topic, false); err != nil {
		return err
	}
	return b.scopes.check(b.name, caller.Name, topic, false)
}

// Prepare checks the caller's grants and completes the events in place: ID, Source, Type, Time, ContentType.
func (b *Bus) Prepare(caller *loam.Caller, events []loam.Event) error {
	now := time.Now()
	for i := range events {
		if err := b.prepare(caller, &events[i], now); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bus) prepare(caller *loam.Caller, e *loam.Event, now time.Time) error {
	if err := checkAttributes(e); err != nil {
		return &loam.Error{Code: loam.InvalidArgument, Op: "pubsub.Publish " + strconv.Quote(e.Topic), Err: err}
	}
	if len(e.Data) > MaxData {
		return loam.Errorf(loam.InvalidArgument, "pubsub.Publish "+strconv.Quote(e.Topic), "an event of %d bytes: at most %d", len(e.Data), MaxData)
	}
	if err := b.CheckPublish(caller, e.Topic); err != nil {
		return err
	}
	if e.ID == "" {
		e.ID = rand.Text()
	}
	if e.Time.IsZero() {
		e.Time = now
	}
	if e.Raw {
		return nil
	}
	if e.Source == "" {
		e.Source = caller.Name
	}
	if e.Type == "" {
		e.Type = e.Topic
	}
	if e.ContentType == "" {
		e.ContentType = "application/json"
	}
	return nil
}

// Publish completes the events in place and appends them, all or none; they are durable once it returns.
func (b *Bus) Publish(ctx context.Context, caller *loam.Caller, events []loam.Event) error {
	if len(events) == 0 || len(events) > MaxEvents {
		return loam.Errorf(loam.InvalidArgument, "pubsub.Publish", "%d events: 1 to %d at once", len(events), MaxEvents)
	}
	if err := b.Prepare(caller, events); err != nil {
		return err
	}
	return b.publish(ctx, events)
}

func (b *Bus) publish(ctx context.Context, events []loam.Event) error {
	if b.guard == nil {
		return b.driver.Publish(ctx, events)
	}
	return b.guard(ctx, func(ctx context.Context) error { return b.driver.Publish(ctx, events) })
}

// PublishEach publishes each of the events for itself, as far as it may be: those that may not go keep no other back. nil:
// all are durable; else there is one error for each event, nil for those that are.
func (b *Bus) PublishEach(ctx context.Context, caller *loam.Caller, events []loam.Event) []error {
	errs := make([]error, len(events))
	if len(events) > MaxEvents {
		for i := range errs {
			errs[i] = loam.Errorf(loam.InvalidArgument, "pubsub.Publish", "%d events: at most %d at once", len(events), MaxEvents)
		}
		return errs
	}
	now := time.Now()
	good, at := make([]loam.Event, 0, len(events)), make([]int, 0, len(events))
	for i := range events {
		if errs[i] = b.prepare(caller, &events[i], now); errs[i] == nil {
			good, at = append(good, events[i]), append(at, i)
		}
	}
	if len(good) > 0 {
		if err := b.publish(ctx, good); err != nil {
			for _, i := range at {
				errs[i] = err
			}
			return errs
		}
	}
	if len(good) == len(events) {
		return nil
	}
	return errs
}

// Forward publishes what no caller asks for (what was configured, such as an outbox): complete events, all or none.
func (b *Bus) Forward(ctx context.Context, events []loam.Event) error {
	return b.publish(ctx, events)
}

// reserved are CloudEvents' own attributes, and those that carriers add: an extension of that name would be taken for it.
var reserved = []string{
	"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data", "data_base64", "topic", "pubsubname", "attempt",
}

// checkAttributes tells whether an event's attributes are such as every carrier can write: a header of HTTP is one line.
func checkAttributes(e *loam.Event) error {
	if n := len(e.Attributes) + len(e.Extra); n > MaxAttributes {
		return fmt.Errorf("%d attributes: at most %d", n, MaxAttributes)
	}
	for _, a := range [...]struct{ name, value string }{
		{"id", e.ID}, {"source", e.Source}, {"type", e.Type}, {"subject", e.Subject}, {"content type", e.ContentType},
	} {
		if len(a.value) > MaxAttribute || strings.ContainsFunc(a.value, unicode.IsControl) {
			return fmt.Errorf("%s %.40q: at most %d bytes, without control characters", a.name, a.value, MaxAttribute)
		}
	}
	for name, value := range e.Attributes {
		if err := checkName(name); err != nil {
			return err
		}
		if len(value) > MaxAttribute {
			return fmt.Errorf("attribute %s of %d bytes: at most %d", name, len(value), MaxAttribute)
		}
	}
	size := len(e.Data)
	for name, value := range e.Extra {
		if err := checkName(name); err != nil {
			return err
		}
		if size += len(value); size > MaxData {
			return fmt.Errorf("an envelope of more than %d bytes", MaxData)
		}
	}
	return nil
}

// checkName tells whether an attribute may be called so. CloudEvents wants lower case letters and digits; envelopes that
// programs write themselves have others too, as long as a header can be called so.
func checkName(name string) error {
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
	}) || slices.Contains(reserved, strings.ToLower(name)) {
		return fmt.Errorf("attribute %.80q: a name takes letters, digits, -, _ and ., at most 64, and is none of CloudEvents' own", name)
	}
	return nil
}

func checkTopic(op, topic string) error {
	if topic == "" || len(topic) > MaxTopic {
		return loam.Errorf(loam.InvalidArgument, op+" "+strconv.Quote(topic), "a topic takes 1 to %d bytes", MaxTopic)
	}
	return nil
}

// Options say how a topic is delivered to a consumer group. Zero values take the default that stands beside them.
type Options struct {
	Topic         string
	Group         string
	Caller        *loam.Caller      // who subscribes, where grants and scopes are to say whether it may; nil: it was declared
	InFlight      int               // events handled at once; 16
	DeadLetter    string            // the topic for events given up on; empty: none is ever given up on
	MaxDeliveries int               // with DeadLetter, how often an event is tried; 5 (Dapr's: 1)
	RetryMin      time.Duration     // before the second attempt, doubling with each further one; 500ms
	RetryMax      time.Duration     // between attempts at most; 30s
	Raw           bool              // take messages as they lie in the broker, without looking for an envelope
	Metadata      map[string]string // for the driver
	Log           *slog.Logger
}

func (o *Options) setDefaults() {
	o.InFlight = cmp.Or(o.InFlight, 16)
	o.MaxDeliveries = cmp.Or(o.MaxDeliveries, 5)
	o.RetryMin = cmp.Or(o.RetryMin, 500*time.Millisecond)
	o.RetryMax = cmp.Or(o.RetryMax, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Subscribe delivers events to handle until ctx ends and the deliveries under way are done. An event is finished when
// handle returns nil, or an error whose chain has a method Drop() bool that says true; any other error has it delivered
// again after a while that grows. With a dead letter topic, those that were dropped, whose life had ended, or that failed
// often enough go there.
//
// With Options.Raw an event is a message as FromRaw has it. Without, a message that has no envelope comes as an event with
// Raw set: who delivers it to an app written for Dapr hands on its data as it is where that is a JSON object.
func (b *Bus) Subscribe(ctx context.Context, o Options, handle func(ctx context.Context, e loam.Event, attempt int) error) error {
	return b.SubscribeIn(ctx, o, nil, func(ctx context.Context, _ loam.Task, e loam.Event, attempt int) error {
		return handle(ctx, e, attempt)
	})
}

// SubscribeIn is Subscribe with handle in tasks that start begins, where the driver publishes into memory; elsewhere the
// task is nil, and handle may block.
func (b *Bus) SubscribeIn(ctx context.Context, o Options, start func(fn func(loam.Task)), handle func(ctx context.Context, t loam.Task, e loam.Event, attempt int) error) error {
	if err := b.begin(&o); err != nil {
		return err
	}
	deliver := func(ctx context.Context, t loam.Task, d Delivery) Verdict {
		if v, ended := b.receive(ctx, &o, &d); ended {
			return v
		}
		return b.verdict(ctx, &o, d, handle(ctx, t, d.Event, d.Attempt))
	}
	sub := o.subscription()
	if start != nil && b.Instant() {
		lasting := context.WithoutCancel(ctx)
		sub.Begin = func(d Delivery, done func(Verdict)) {
			start(func(t loam.Task) {
				v := Verdict{Retry: true, After: o.RetryMin} // where handle panics
				defer func() { done(v) }()
				v = deliver(lasting, t, d)
			})
		}
	}
	return b.driver.Subscribe(ctx, sub, func(ctx context.Context, d Delivery) Verdict { return deliver(ctx, nil, d) })
}

// Bulk says how many events come together: Max of them, or as many as came within Wait of the first.
type Bulk struct {
	Max  int           // 100
	Wait time.Duration // 1s
}

// SubscribeBulk is Subscribe with several events at a time; handle answers for each: nil, or an error in the place of each
// that failed. One batch is handled at a time.
func (b *Bus) SubscribeBulk(ctx context.Context, o Options, bulk Bulk, handle func(ctx context.Context, batch []Delivery) []error) error {
	if err := b.begin(&o); err != nil {
		return err
	}
	bulk.Max, bulk.Wait = min(cmp.Or(bulk.Max, 100), MaxEvents), cmp.Or(bulk.Wait, time.Second)
	o.InFlight = bulk.Max
	waiting := make(chan pending)
	var batching sync.WaitGroup
	batching.Go(func() {
		collect(ctx, waiting, bulk, func(batch []pending) {
			deliveries := make([]Delivery, len(batch))
			for i, p := range batch {
				deliveries[i] = p.Delivery
			}
			errs := handle(batch[0].ctx, deliveries)
			for i, p := range batch {
				var err error
				switch {
				case i < len(errs):
					err = errs[i]
				case errs != nil:
					err = loam.Errorf(loam.Internal, "pubsub.SubscribeBulk", "%d answers for %d events", len(errs), len(batch))
				}
				p.answer <- err
			}
		})
	})
	err := b.driver.Subscribe(ctx, o.subscription(), func(ctx context.Context, d Delivery) Verdict {
		if v, ended := b.receive(ctx, &o, &d); ended {
			return v
		}
		p := pending{d, ctx, make(chan error, 1)}
		waiting <- p
		return b.verdict(ctx, &o, d, <-p.answer)
	})
	close(waiting)
	batching.Wait()
	return err
}

// pending is a delivery that waits for others to go with.
type pending struct {
	Delivery
	ctx    context.Context
	answer chan error
}

// collect calls handle with batches of what comes in until in is closed; once ctx has ended, it waits for no more to come.
func collect(ctx context.Context, in <-chan pending, bulk Bulk, handle func([]pending)) {
	for first := range in {
		batch := append(make([]pending, 0, bulk.Max), first)
		timer := time.NewTimer(bulk.Wait)
	gather:
		for len(batch) < bulk.Max {
			select {
			case p, ok := <-in:
				if !ok {
					break gather
				}
				batch = append(batch, p)
			case <-timer.C:
				break gather
			case <-ctx.Done():
				break gather
			}
		}
		timer.Stop()
		handle(batch)
	}
}

func (b *Bus) begin(o *Options) error {
	o.setDefaults()
	if o.Caller != nil {
		return b.CheckSubscribe(o.Caller, o.Topic)
	}
	return checkTopic("pubsub.Subscribe", o.Topic)
}

func (o *Options) subscription() Subscription {
	return Subscription{Topic: o.Topic, Group: o.Group, InFlight: o.InFlight, Raw: o.Raw, Metadata: o.Metadata}
}

// receive makes an event what the subscription wants, or ends its delivery where its life has ended.
func (b *Bus) receive(ctx context.Context, o *Options, d *Delivery) (Verdict, bool) {
	switch e := &d.Event; {
	case o.Raw:
		FromRaw(e, b.name)
	case e.Raw: // a driver that keeps no bytes has not looked whether it is an envelope all the same
		if opened := cloudevents.Message(e.Data, e.Topic, false); !opened.Raw {
			opened.ID, opened.Metadata = cmp.Or(opened.ID, e.ID), e.Metadata
			*e = opened
		}
	}
	if d.Event.ID == "" {
		d.Event.ID = rand.Text()
	}
	if len(d.Event.Attributes) == 0 || !expired(&d.Event, time.Now()) {
		return Verdict{}, false
	}
	o.Log.Warn("event dropped: its life has ended", "topic", o.Topic, "group", o.Group, "event", d.Event.ID)
	if o.DeadLetter != "" && !b.bury(ctx, o, d.Event, errors.New("its life has ended")) {
		return Verdict{Retry: true, After: backoff(*o, d.Attempt)}, true
	}
	return Verdict{}, true
}

// FromRaw makes of any event one whose data is the message as it lies in the broker, of a kind that nobody knows, as Dapr
// hands it to subscriptions with rawPayload.
func FromRaw(e *loam.Event, component string) {
	message := e.Data
	if !e.Raw {
		message = cloudevents.Encode(e, component)
	}
	*e = loam.Event{
		ID: e.ID, Source: "Dapr", Type: EventType, Time: e.Time, ContentType: "application/octet-stream", Topic: e.Topic, Data: message, Metadata: e.Metadata,
	}
}

// verdict says what becomes of an event that handle said err of.
func (b *Bus) verdict(ctx context.Context, o *Options, d Delivery, err error) Verdict {
	if err == nil {
		return Verdict{}
	}
	var dropped interface{ Drop() bool }
	drop := errors.As(err, &dropped) && dropped.Drop()
	if o.DeadLetter != "" && (drop || d.Attempt >= o.MaxDeliveries) && b.bury(ctx, o, d.Event, err) {
		return Verdict{}
	}
	log := o.Log.With("topic", o.Topic, "group", o.Group, "event", d.Event.ID, "attempt", d.Attempt, "error", err)
	if drop && o.DeadLetter == "" {
		log.Warn("event dropped")
		return Verdict{}
	}
	after := backoff(*o, d.Attempt)
	log.Warn("delivery failed", "again", after.Round(time.Millisecond))
	return Verdict{Retry: true, After: after}
}

// bury moves an event to the dead letter topic and tells whether it could.
func (b *Bus) bury(ctx context.Context, o *Options, e loam.Event, why error) bool {
	log := o.Log.With("topic", o.Topic, "group", o.Group, "event", e.ID, "deadLetter", o.DeadLetter, "error", why)
	if err := b.driver.Publish(ctx, []loam.Event{deadLetter(e, *o, why)}); err != nil {
		log.Error("event could not be moved to the dead letter topic", "cause", err)
		return false
	}
	log.Warn("event moved to the dead letter topic")
	return true
}

// deadLetter is the event as it is given up, saying where it comes from and why. Attribute names are CloudEvents':
// lower case letters and digits.
func deadLetter(e loam.Event, o Options, err error) loam.Event {
	reason := err.Error()
	attributes := map[string]string{
		"deadlettertopic": o.Topic, "deadlettergroup": o.Group, "deadletterreason": reason[:min(len(reason), MaxAttribute)], "topic": o.Topic,
	}
	for k, v := range e.Attributes {
		attributes[k] = v
	}
	delete(attributes, expiration) // it would be dropped from there too
	e.Topic, e.Attributes = o.DeadLetter, attributes
	return e
}

// backoff doubles with each attempt up to the most, and is spread by a quarter either way so that what failed together
// does not come back together.
func backoff(o Options, attempt int) time.Duration {
	d := o.RetryMin << min(attempt-1, 20)
	if d <= 0 || d > o.RetryMax {
		d = o.RetryMax
	}
	return d*3/4 + time.Duration(mrand.Int64N(int64(d)/2+1))
}

// Methods are the capability's calls; find returns the component of a name.
func Methods(find func(component string) (*Bus, error)) loam.Methods {
	return loam.Methods{
		"pubsub.Publish": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.PubsubPublishRequest
			var events []loam.Event
			b, err := api.Parse(&req, in, func() (_ *Bus, err error) {
				var component string
				if events, component, err = api.Events(req.Events); err != nil {
					return nil, err
				}
				return find(component)
			})
			if err != nil {
				return nil, err
			}
			if err := b.Publish(ctx, caller, events); err != nil {
				return nil, err
			}
			var res api.PubsubPublishResponse
			for i := range events {
				res.EventIds = append(res.EventIds, events[i].ID)
			}
			return res.AppendProto(nil), nil
		},
	}
}
