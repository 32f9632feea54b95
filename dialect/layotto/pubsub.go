package layotto

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/pubsub"
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

// maxUnanswered is how many events a stream brings before the program has answered one.
const maxUnanswered = 64

// subscribeTopicEvents brings a topic's events for as long as the program keeps the stream open.
func (a *API) subscribeTopicEvents(st *grpc.Stream) error {
	var first pb.SubscribeTopicEventsRequest
	if err := st.Recv(&first); err != nil {
		return endOf(err)
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
	o := pubsub.Options{Topic: in.Topic, Group: a.app, InFlight: maxUnanswered, Metadata: in.Metadata, Caller: a.caller, Log: a.log}
	if in.DeadLetterTopic != nil {
		o.DeadLetter = *in.DeadLetterTopic
	}
	if err := b.CheckSubscribe(a.caller, in.Topic); err != nil {
		return because(err, "cannot subscribe to topic %s in pubsub %s: ", in.Topic, in.PubsubName)
	}
	if err := st.Send(&pb.SubscribeTopicEventsResponse{InitialResponse: &pb.SubscribeTopicEventsResponseInitial{}}); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(st.Context())
	defer stop()
	s := &eventStream{out: st, component: in.PubsubName, unanswered: map[string][]chan error{}}
	over := make(chan error, 1)
	go func() {
		err := b.Subscribe(ctx, o, func(ctx context.Context, e loam.Event, _ int) error { return s.deliver(ctx, &e) })
		if ctx.Err() == nil { // it ended by itself, and the program waits in vain
			over <- because(cmp.Or(err, error(errEnded)), "subscription to topic %s in pubsub %s: ", in.Topic, in.PubsubName)
			st.Task().Cancel()
		}
		close(over)
	}()
	err = s.answers()
	stop()
	s.end()
	st.Task().Await(func() { // events that the program has not answered are the subscription's again by now
		if ended := <-over; ended != nil {
			err = ended
		}
	})
	return err
}

var errEnded = loam.Errorf(loam.Unavailable, "layotto", "it is over")

// endOf is what a call ends with whose client sent all it had.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// An eventStream is a subscription whose events come by a stream, and whose answers go by it.
type eventStream struct {
	out       *grpc.Stream
	component string

	mu         sync.Mutex
	unanswered map[string][]chan error // by the event's ID, which is no event's alone: they are answered in turn
	ended      bool
}

var errStreamEnded = loam.Errorf(loam.Unavailable, "layotto", "the stream that subscribed is over")

// deliver sends an event and waits for what becomes of it.
func (s *eventStream) deliver(ctx context.Context, e *loam.Event) error {
	answer := make(chan error, 1)
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return errStreamEnded
	}
	s.unanswered[e.ID] = append(s.unanswered[e.ID], answer)
	s.mu.Unlock()
	if err := s.out.Post(&pb.SubscribeTopicEventsResponse{EventMessage: topicEvent(e, s.component)}); err != nil {
		s.forget(e.ID, answer)
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		s.forget(e.ID, answer)
		return ctx.Err()
	}
}

func (s *eventStream) forget(id string, answer chan error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.unanswered[id]
	for i, w := range waiting {
		if w == answer {
			s.set(id, append(waiting[:i:i], waiting[i+1:]...))
			return
		}
	}
}

// set is called with mu held.
func (s *eventStream) set(id string, waiting []chan error) {
	if len(waiting) == 0 {
		delete(s.unanswered, id)
	} else {
		s.unanswered[id] = waiting
	}
}

// answers takes what the program says of events until it says no more.
func (s *eventStream) answers() error {
	for {
		var m pb.SubscribeTopicEventsRequest
		if err := s.out.Recv(&m); err != nil {
			return endOf(err)
		}
		if m.EventProcessed == nil {
			return invalid("duplicate initial request received")
		}
		status := pb.TopicEventResponse_SUCCESS // as an empty message says in proto3
		if m.EventProcessed.Status != nil {
			status = m.EventProcessed.Status.Status
		}
		s.mu.Lock()
		if waiting := s.unanswered[m.EventProcessed.Id]; len(waiting) > 0 {
			s.set(m.EventProcessed.Id, waiting[1:])
			waiting[0] <- verdict(status)
		} // else nobody waits for it: it was late, or never sent
		s.mu.Unlock()
	}
}

// end answers all that is left.
func (s *eventStream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, waiting := range s.unanswered {
		for _, answer := range waiting {
			answer <- errStreamEnded
		}
	}
	clear(s.unanswered)
}
