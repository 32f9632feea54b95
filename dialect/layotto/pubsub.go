package layotto

import (
	"context"
	"errors"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/protocol/grpc"
)

// What Layotto writes into the envelope of an event that says neither.
const (
	eventSource = "runtime"
	eventType   = "com.runtime.event.sent"
)

func (a *API) bus(name string) (*pubsub.Bus, error) {
	if name == "" {
		return nil, invalid("pubsub name is empty")
	}
	return find(a, pubsubs, name, a.opts.Capabilities.Pubsub)
}

// newEvent makes the event that a program publishes.
func newEvent(in *pb.PublishEventRequest, h loam.Header) (loam.Event, error) {
	if in.Topic == "" {
		return loam.Event{}, invalid("topic is empty in pubsub %s", in.PubsubName)
	}
	p := pubsub.Publication{
		Topic: in.Topic, Data: in.Data, ContentType: in.DataContentType, Metadata: in.Metadata, Source: eventSource, Type: eventType,
		TraceParent: h.Get("traceparent"), TraceState: h.Get("tracestate"),
	}
	e, err := p.Event()
	if err != nil {
		return e, invalid("cannot create cloudevent: %s", words(err))
	}
	return e, nil
}

func (a *API) publishEvent(c *grpc.Call, in *pb.PublishEventRequest) (*pb.Empty, error) {
	if in.PubsubName != "" && in.Topic == "" {
		return nil, invalid("topic is empty in pubsub %s", in.PubsubName)
	}
	b, err := a.bus(in.PubsubName)
	if err != nil {
		return nil, err
	}
	e, err := newEvent(in, c.Request().Header)
	if err != nil {
		return nil, err
	}
	await(c, func(ctx context.Context) { err = b.Publish(ctx, a.caller, []loam.Event{e}) })
	if err != nil {
		return nil, because(err, "error when publish to topic %s in pubsub %s: ", in.Topic, in.PubsubName)
	}
	return &pb.Empty{}, nil
}

// topicEvent is an event as the program is told of it.
func topicEvent(e *loam.Event, component string) *pb.TopicEventRequest {
	return &pb.TopicEventRequest{
		Id: e.ID, Source: e.Source, Type: e.Type, SpecVersion: "1.0", DataContentType: e.ContentType, Data: e.Data,
		Topic: e.Topic, PubsubName: component, Metadata: e.Attributes,
	}
}

// dropped is the error of an event that the program does not want again.
type dropped struct{ error }

func (dropped) Drop() bool { return true }

// verdict is what the program's answer means. What it says of itself other than that it is done or not wanted, is to come
// again.
func verdict(status pb.TopicEventResponse_TopicEventResponseStatus) error {
	switch status {
	case pb.TopicEventResponse_SUCCESS:
		return nil
	case pb.TopicEventResponse_DROP:
		return dropped{errors.New("layotto: the app answered DROP")}
	case pb.TopicEventResponse_RETRY:
		return loam.Errorf(loam.Unavailable, "layotto", "the app answered RETRY")
	}
	return loam.Errorf(loam.Unavailable, "layotto", "the app answered status %d, which nobody knows", status)
}

// subscribeTopicEvents brings a topic's events for as long as the program keeps the stream open.
func (a *API) subscribeTopicEvents(st *grpc.Stream) error {
	var first pb.SubscribeTopicEventsRequest
	if err := st.Recv(&first); err != nil {
		return dialect.EndOf(err)
	}
	in := first.InitialRequest
	switch {
	case in == nil:
		return invalid("initial request is required")
	case in.PubsubName == "":
		return invalid("pubsubName is required")
	case in.Topic == "":
		return invalid("topic is required")
	}
	b, err := a.bus(in.PubsubName)
	if err != nil {
		return err
	}
	o := pubsub.Options{Topic: in.Topic, Group: a.app, InFlight: dialect.MaxUnanswered, Metadata: in.Metadata, Caller: a.caller, Log: a.log}
	if in.DeadLetterTopic != nil {
		o.DeadLetter = *in.DeadLetterTopic
	}
	if err := b.CheckSubscribe(a.caller, in.Topic); err != nil {
		return because(err, "cannot subscribe to topic %s in pubsub %s: ", in.Topic, in.PubsubName)
	}
	if err := st.Send(&pb.SubscribeTopicEventsResponse{InitialResponse: &pb.SubscribeTopicEventsResponseInitial{}}); err != nil {
		return err
	}
	s := dialect.NewEventStream(st)
	return s.Run(func(ctx context.Context) error {
		return b.Subscribe(ctx, o, func(ctx context.Context, e loam.Event, _ int) error {
			return a.opts.Guarded(ctx, "pubsub", in.PubsubName, func(ctx context.Context) error {
				return s.Deliver(ctx, e.ID, &pb.SubscribeTopicEventsResponse{EventMessage: topicEvent(&e, in.PubsubName)})
			})
		})
	}, func(err error) error {
		return because(err, "subscription to topic %s in pubsub %s: ", in.Topic, in.PubsubName)
	}, func() error { return eventAnswers(st, s) })
}

// eventAnswers takes what the program says of events until it says no more.
func eventAnswers(st *grpc.Stream, s *dialect.EventStream) error {
	for {
		var m pb.SubscribeTopicEventsRequest
		if err := st.Recv(&m); err != nil {
			return dialect.EndOf(err)
		}
		if m.EventProcessed == nil {
			return invalid("duplicate initial request received")
		}
		status := pb.TopicEventResponse_SUCCESS // as an empty message says in proto3
		if m.EventProcessed.Status != nil {
			status = m.EventProcessed.Status.Status
		}
		s.Answer(m.EventProcessed.Id, verdict(status))
	}
}
