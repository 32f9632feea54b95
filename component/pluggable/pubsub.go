package pluggable

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api/dapr/components"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/protocol/cloudevents"
)

// Pubsub is a pubsub.Driver. How durable an event is that was published, and whether several are published all or none, is
// the program's affair. A delivery to be tried again is kept here until then, and not acknowledged.
type Pubsub struct {
	*conn
	features []string
}

func openPubsub(ctx context.Context, c *conn, metadata map[string]string) (*Pubsub, error) {
	if err := c.init(ctx, "PubSub", &components.PubSubInitRequest{Metadata: &components.MetadataRequest{Properties: metadata}}); err != nil {
		return nil, err
	}
	features, err := c.features(ctx, "PubSub")
	if err != nil {
		return nil, err
	}
	return &Pubsub{c, features}, nil
}

// Features are what the program says that it can.
func (p *Pubsub) Features() []string { return p.features }

// Publish hands events to the program: those of one topic together, one by one where it cannot take several.
func (p *Pubsub) Publish(ctx context.Context, events []loam.Event) error {
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Topic == events[0].Topic {
			n++
		}
		err := p.publishTo(ctx, events[:n])
		if err != nil {
			return p.fail("pubsub.Publish "+strconv.Quote(events[0].Topic), err)
		}
		events = events[n:]
	}
	return nil
}

func (p *Pubsub) publishTo(ctx context.Context, events []loam.Event) error {
	if len(events) > 1 {
		in, out := components.BulkPublishRequest{PubsubName: p.instance, Topic: events[0].Topic}, components.BulkPublishResponse{}
		for i := range events {
			e := &events[i]
			in.Entries = append(in.Entries, components.BulkMessageEntry{
				EntryId: strconv.Itoa(i), Event: cloudevents.Encode(e, p.instance), ContentType: contentType(e), Metadata: e.Metadata,
			})
		}
		err := p.call(ctx, "PubSub/BulkPublish", &in, &out)
		if len(out.FailedEntries) > 0 {
			return loam.Errorf(loam.Unknown, "", "%d of %d events were not taken: %s", len(out.FailedEntries), len(events), out.FailedEntries[0].Error)
		}
		if loam.CodeOf(err) != loam.Unimplemented {
			return err
		}
	}
	for i := range events {
		e := &events[i]
		in := components.PublishRequest{Data: cloudevents.Encode(e, p.instance), PubsubName: p.instance, Topic: e.Topic, Metadata: e.Metadata, ContentType: contentType(e)}
		if err := p.call(ctx, "PubSub/Publish", &in, ignored{}); err != nil {
			return err
		}
	}
	return nil
}

func contentType(e *loam.Event) string {
	if e.Raw {
		return e.ContentType
	}
	return cloudevents.ContentType
}

// Subscribe delivers what the program pulls for us. The group is told by the metadata consumerID of the topic; Dapr's
// components take theirs from the component's metadata. A stream that breaks is opened anew.
func (p *Pubsub) Subscribe(ctx context.Context, sub pubsub.Subscription, handle pubsub.Handler) error {
	slots := make(chan struct{}, max(1, sub.InFlight))
	for ctx.Err() == nil {
		if err := p.pull(ctx, sub, handle, slots); err != nil && loam.CodeOf(err) == loam.Unimplemented {
			return p.fail("pubsub.Subscribe "+strconv.Quote(sub.Topic), err)
		}
		pause(ctx, 100*time.Millisecond)
	}
	return nil
}

// maxWaiting bounds the deliveries of a subscription that wait to be tried again. Others are given back to the program.
const maxWaiting = 256

// pull delivers by one stream, until that breaks or ctx ends.
func (p *Pubsub) pull(ctx context.Context, sub pubsub.Subscription, handle pubsub.Handler, slots chan struct{}) error {
	topic := &components.Topic{Name: sub.Topic, Metadata: map[string]string{}}
	maps.Copy(topic.Metadata, sub.Metadata)
	if sub.Group != "" && topic.Metadata["consumerID"] == "" {
		topic.Metadata["consumerID"] = sub.Group
	}
	s := p.open("PubSub/PullMessages")
	defer s.end()
	if err := s.Post(&components.PullMessagesRequest{Topic: topic}); err != nil {
		return err
	}
	reading, cancel := context.WithCancel(ctx) // ends with the stream, and with it what waits to be tried again
	var handling sync.WaitGroup
	defer handling.Wait()
	defer cancel()
	waiting := make(chan struct{}, maxWaiting)
	for {
		var m components.PullMessagesResponse
		if err := s.recv(ctx, &m); err != nil {
			return err
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done(): // not handled, not acknowledged: it comes again
			return s.Post(&components.PullMessagesRequest{AckMessageId: m.Id, AckError: &components.AckMessageError{Message: "the subscription has ended"}})
		}
		handling.Go(func() {
			ack := components.PullMessagesRequest{AckMessageId: m.Id}
			if !p.deliver(reading, sub, handle, slots, waiting, &m) {
				ack.AckError = &components.AckMessageError{Message: "it could not be handled"}
			}
			_ = s.Post(&ack) // where the stream is broken it comes again
		})
	}
}

// deliver has one message handled, again and again if need be, and tells whether it is done with. It holds a slot while
// the handler is at work, and gives back the one that it was given.
func (p *Pubsub) deliver(ctx context.Context, sub pubsub.Subscription, handle pubsub.Handler, slots, waiting chan struct{}, m *components.PullMessagesResponse) bool {
	for attempt := 1; ; attempt++ {
		e := cloudevents.Message(m.Data, sub.Topic, sub.Raw)
		e.Metadata = m.Metadata
		if e.Raw {
			e.ID, e.ContentType = m.Id, m.ContentType
		}
		v := handle(context.WithoutCancel(ctx), pubsub.Delivery{Event: e, Attempt: attempt})
		<-slots
		if !v.Retry {
			return true
		}
		select {
		case waiting <- struct{}{}:
		default:
			return false
		}
		again := pause(ctx, v.After)
		<-waiting
		if !again {
			return false
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return false
		}
	}
}
