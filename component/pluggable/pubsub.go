package pluggable

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api/dapr/components"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/component"
	"github.com/loam-run/loam/protocol/cloudevents"
	"github.com/loam-run/loam/protocol/grpc"
)

// Pubsub is a pubsub.Driver. How durable an event is that was published, and whether several are published all or none, is
// the program's affair. A delivery to be tried again is kept here until then, and not acknowledged.
type Pubsub struct {
	*conn
	features []string
	consumer string // the group that the program was told with the component; "": it is told with each topic
}

func openPubsub(ctx context.Context, c *conn, metadata map[string]string, app string) (*Pubsub, error) {
	consumer := cmp.Or(strings.TrimSpace(metadata[consumerID]), app)
	if consumer != "" {
		metadata = maps.Clone(metadata)
		if metadata == nil {
			metadata = map[string]string{}
		}
		metadata[consumerID] = consumer
	}
	if err := c.init(ctx, "PubSub", &components.PubSubInitRequest{Metadata: &components.MetadataRequest{Properties: metadata}}); err != nil {
		return nil, err
	}
	features, err := c.features(ctx, "PubSub")
	if err != nil {
		return nil, err
	}
	return &Pubsub{c, features, consumer}, nil
}

// consumerID is the metadata in which Dapr's pubsub components find the group.
const consumerID = "consumerID"

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

// Subscribe delivers what the program pulls for us. A group that the program was not told with the component is told by the
// metadata consumerID of the topic. A stream that breaks is opened anew.
func (p *Pubsub) Subscribe(ctx context.Context, sub pubsub.Subscription, handle pubsub.Handler) error {
	topic := &components.Topic{Name: sub.Topic, Metadata: map[string]string{}}
	maps.Copy(topic.Metadata, sub.Metadata)
	if p.consumer == "" && sub.Group != "" && topic.Metadata[consumerID] == "" {
		topic.Metadata[consumerID] = sub.Group
	}
	slots, waiting := make(chan struct{}, max(1, sub.InFlight)), make(chan struct{}, maxWaiting)
	ack := func(m *components.PullMessagesResponse, err error) grpc.Message {
		out := &components.PullMessagesRequest{AckMessageId: m.Id}
		if err != nil {
			out.AckError = &components.AckMessageError{Message: err.Error()}
		}
		return out
	}
	for ctx.Err() == nil {
		err := talk(ctx, p.conn, "PubSub/PullMessages", &components.PullMessagesRequest{Topic: topic}, slots, func(ctx context.Context, m *components.PullMessagesResponse) grpc.Message {
			return ack(m, p.deliver(ctx, sub, handle, slots, waiting, m))
		}, func(m *components.PullMessagesResponse) grpc.Message { return ack(m, errEnded) })
		if loam.CodeOf(err) == loam.Unimplemented || errors.Is(err, errClosed) {
			return p.fail("pubsub.Subscribe "+strconv.Quote(sub.Topic), err)
		}
		component.Pause(ctx, again)
	}
	return nil
}

// again is how long to wait before a stream is opened anew.
const again = 100 * time.Millisecond

var (
	errEnded   = errors.New("nobody listens any more")
	errTooMany = errors.New("too many deliveries wait to be tried again")
)

// maxWaiting bounds the deliveries of a subscription that wait to be tried again. Others are given back to the program.
const maxWaiting = 256

// deliver has one message handled, again and again if need be, until it is done with: nil. It holds a slot while the
// handler is at work, and gives back the one that it was given.
func (p *Pubsub) deliver(ctx context.Context, sub pubsub.Subscription, handle pubsub.Handler, slots, waiting chan struct{}, m *components.PullMessagesResponse) error {
	for attempt := 1; ; attempt++ {
		e := cloudevents.Message(m.Data, sub.Topic, sub.Raw)
		e.Metadata = m.Metadata
		if e.Raw {
			e.ID, e.ContentType = m.Id, m.ContentType
		}
		v := handle(context.WithoutCancel(ctx), pubsub.Delivery{Event: e, Attempt: attempt})
		<-slots
		if !v.Retry {
			return nil
		}
		select {
		case waiting <- struct{}{}:
		default:
			return errTooMany
		}
		late := component.Pause(ctx, v.After)
		<-waiting
		if !late {
			return errEnded
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return errEnded
		}
	}
}
