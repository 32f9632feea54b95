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
	"time"
	"unicode"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
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
}

// New makes a Bus of the component called name.
func New(name string, d Driver) *Bus { return &Bus{name, d} }

// PubsubDriver is the component's driver, for a state component that can publish in its own commit.
func (b *Bus) PubsubDriver() any { return b.driver }

// Prepare checks the caller's grants and completes the events in place: ID, Source, Type, Time, ContentType.
func (b *Bus) Prepare(caller *loam.Caller, events []loam.Event) error {
	now := time.Now()
	for i := range events {
		e := &events[i]
		if err := checkTopic("pubsub.Publish", e.Topic); err != nil {
			return err
		}
		if err := checkAttributes(e); err != nil {
			return &loam.Error{Code: loam.InvalidArgument, Op: "pubsub.Publish " + strconv.Quote(e.Topic), Err: err}
		}
		if len(e.Data) > MaxData {
			return loam.Errorf(loam.InvalidArgument, "pubsub.Publish "+strconv.Quote(e.Topic), "an event of %d bytes: at most %d", len(e.Data), MaxData)
		}
		if err := caller.Check("pubsub", b.name, e.Topic, true); err != nil {
			return err
		}
		if e.ID == "" {
			e.ID = rand.Text()
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
		if e.Time.IsZero() {
			e.Time = now
		}
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
	return b.driver.Publish(ctx, events)
}

// reserved are CloudEvents' own attributes, and those that carriers add: an extension of that name would be taken for it.
var reserved = []string{
	"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64", "topic", "pubsubname",
}

// checkAttributes tells whether an event's attributes are such as every carrier can write: a header of HTTP is one line.
func checkAttributes(e *loam.Event) error {
	if len(e.Attributes) > MaxAttributes {
		return fmt.Errorf("%d attributes: at most %d", len(e.Attributes), MaxAttributes)
	}
	for _, a := range [...]struct{ name, value string }{
		{"id", e.ID}, {"source", e.Source}, {"type", e.Type}, {"subject", e.Subject}, {"content type", e.ContentType},
	} {
		if len(a.value) > MaxAttribute || strings.ContainsFunc(a.value, unicode.IsControl) {
			return fmt.Errorf("%s %.40q: at most %d bytes, without control characters", a.name, a.value, MaxAttribute)
		}
	}
	for name, value := range e.Attributes {
		if name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || slices.Contains(reserved, name) {
			return fmt.Errorf("attribute %.80q: a name takes lower case letters and digits, at most 64, and is none of CloudEvents' own", name)
		}
		if len(value) > MaxAttribute {
			return fmt.Errorf("attribute %s of %d bytes: at most %d", name, len(value), MaxAttribute)
		}
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
	InFlight      int           // events handled at once; 16
	DeadLetter    string        // the topic for events given up on; empty: none is ever given up on
	MaxDeliveries int           // with DeadLetter, how often an event is tried; 5
	RetryMin      time.Duration // before the second attempt, doubling with each further one; 500ms
	RetryMax      time.Duration // between attempts at most; 30s
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
// again after a while that grows, or sent to the dead letter topic.
func (b *Bus) Subscribe(ctx context.Context, o Options, handle func(ctx context.Context, e loam.Event, attempt int) error) error {
	o.setDefaults()
	if err := checkTopic("pubsub.Subscribe", o.Topic); err != nil {
		return err
	}
	return b.driver.Subscribe(ctx, Subscription{Topic: o.Topic, Group: o.Group, InFlight: o.InFlight}, func(ctx context.Context, d Delivery) Verdict {
		err := handle(ctx, d.Event, d.Attempt)
		if err == nil {
			return Verdict{}
		}
		log := o.Log.With("topic", o.Topic, "group", o.Group, "event", d.Event.ID, "attempt", d.Attempt, "error", err)
		var dropped interface{ Drop() bool }
		if errors.As(err, &dropped) && dropped.Drop() {
			log.Warn("event dropped")
			return Verdict{}
		}
		if o.DeadLetter != "" && d.Attempt >= o.MaxDeliveries {
			e := deadLetter(d.Event, o, err)
			if err = b.driver.Publish(ctx, []loam.Event{e}); err == nil {
				log.Warn("event moved to the dead letter topic", "deadLetter", o.DeadLetter)
				return Verdict{}
			}
			log.Error("event could not be moved to the dead letter topic", "deadLetter", o.DeadLetter, "cause", err)
		}
		after := backoff(o, d.Attempt)
		log.Warn("delivery failed", "again", after.Round(time.Millisecond))
		return Verdict{Retry: true, After: after}
	})
}

// deadLetter is the event as it is given up, saying where it comes from and why. Attribute names are CloudEvents':
// lower case letters and digits.
func deadLetter(e loam.Event, o Options, err error) loam.Event {
	reason := err.Error()
	attributes := map[string]string{"deadlettertopic": o.Topic, "deadlettergroup": o.Group, "deadletterreason": reason[:min(len(reason), MaxAttribute)]}
	for k, v := range e.Attributes {
		attributes[k] = v
	}
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
