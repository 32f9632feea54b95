package dapr

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/dapr"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/protocol/grpc"
)

func (a *API) grpcPublishEvent(c *grpc.Call, in *pb.PublishEventRequest) (*pb.Empty, error) {
	p, err := a.publication(in.PubsubName, in.Topic, in.Metadata, traceOf(c.Request().Header))
	if err != nil {
		return nil, err
	}
	e, err := p.event(in.Data, in.DataContentType, in.Metadata)
	if err != nil {
		return nil, err
	}
	if err := p.publish(c.Request(), e); err != nil {
		return nil, err
	}
	return &pb.Empty{}, nil
}

func (a *API) grpcBulkPublishEvent(c *grpc.Call, in *pb.BulkPublishRequest) (*pb.BulkPublishResponse, error) {
	p, err := a.publication(in.PubsubName, in.Topic, in.Metadata, traceOf(c.Request().Header))
	if err != nil {
		return nil, err
	}
	entries := make([]publishEntry, len(in.Entries))
	for i := range in.Entries {
		e := &in.Entries[i]
		entries[i] = publishEntry{e.EntryId, e.ContentType, e.Event, e.Metadata}
	}
	failed, err := p.publishAll(c.Request(), entries)
	if err != nil {
		return nil, err
	}
	out := &pb.BulkPublishResponse{}
	for _, f := range failed {
		out.FailedEntries = append(out.FailedEntries, pb.BulkPublishResponseFailedEntry{EntryId: f.ID, Error: f.Error})
	}
	return out, nil
}

func (a *API) grpcGetConfiguration(c *grpc.Call, in *pb.GetConfigurationRequest) (*pb.GetConfigurationResponse, error) {
	items, err := a.getConfig(c.Request(), in.StoreName, in.Keys)
	if err != nil {
		return nil, err
	}
	return &pb.GetConfigurationResponse{Items: configMessages(items)}, nil
}

func configMessages(items []config.Item) map[string]pb.ConfigurationItem {
	m := make(map[string]pb.ConfigurationItem, len(items))
	for _, it := range items {
		m[it.Key] = pb.ConfigurationItem{Value: it.Value, Version: it.Version, Metadata: it.Metadata}
	}
	return m
}

// configStreams are the streams that tell of changes, by the subscription's id.
type configStreams struct {
	mu sync.Mutex
	by map[string]*configStream
}

type configStream struct {
	task    loam.Task
	stopped bool // by UnsubscribeConfiguration
	behind  error
}

// stop ends the stream of a subscription, and tells whether there was one.
func (c *configStreams) stop(id string, behind error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.by[id]
	if s == nil || s.stopped {
		return false
	}
	s.stopped, s.behind = true, behind
	s.task.Wake()
	return true
}

func (c *configStreams) state(s *configStream) (stopped bool, behind error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.stopped, s.behind
}

// grpcSubscribeConfiguration tells of changes until the client goes, or unsubscribes. Its first message is the
// subscription's id.
func (a *API) grpcSubscribeConfiguration(st *grpc.Stream) error {
	var in pb.SubscribeConfigurationRequest
	if err := st.Recv(&in); err != nil {
		return err
	}
	begun := make(chan struct{}) // closed once the id was sent, which comes first
	id, err := a.subscribeConfig(st.Request(), in.StoreName, in.Keys, func(id string, items []config.Item) {
		<-begun
		if err := st.Post(&pb.SubscribeConfigurationResponse{Id: id, Items: configMessages(items)}); err != nil {
			a.configs.stop(id, err) // what it does not take is lost, so that it is better told than left with old values
		}
	})
	if err != nil {
		return err
	}
	s := &configStream{task: st.Task()}
	a.configs.mu.Lock()
	if a.configs.by == nil {
		a.configs.by = map[string]*configStream{}
	}
	a.configs.by[id] = s
	a.configs.mu.Unlock()
	defer func() {
		a.configs.mu.Lock()
		delete(a.configs.by, id) // nobody wakes the task any more
		a.configs.mu.Unlock()
		_ = a.watches.Remove(in.StoreName, id) // it is there
	}()
	err = st.Send(&pb.SubscribeConfigurationResponse{Id: id})
	close(begun)
	for err == nil {
		if stopped, behind := a.configs.state(s); stopped {
			return behind
		}
		err = st.Task().Park(time.Time{})
	}
	return err
}

func (a *API) grpcUnsubscribeConfiguration(_ *grpc.Call, in *pb.UnsubscribeConfigurationRequest) (*pb.UnsubscribeConfigurationResponse, error) {
	timing := a.settings.Metrics.begin(nil)
	if !a.configs.stop(in.Id, nil) {
		timing.end(configCalls, in.StoreName, "unsubscribe", 1)
		return &pb.UnsubscribeConfigurationResponse{Message: unsubscribeFailed(in.Id)}, nil
	}
	timing.end(configCalls, in.StoreName, "unsubscribe", 0)
	return &pb.UnsubscribeConfigurationResponse{Ok: true}, nil
}

// grpcSubscribeTopicEvents brings a topic's events for as long as the program keeps the stream open.
func (a *API) grpcSubscribeTopicEvents(st *grpc.Stream) error {
	var first pb.SubscribeTopicEventsRequestAlpha1
	if err := st.Recv(&first); err != nil {
		return dialect.EndOf(err)
	}
	in := first.InitialRequest
	switch {
	case in == nil:
		return errBadRequest.failure("initial request is required")
	case in.PubsubName == "":
		return errBadRequest.failure("pubsubName is required")
	case in.Topic == "":
		return errBadRequest.failure("topic is required")
	}
	p, err := a.publication(in.PubsubName, in.Topic, in.Metadata, traceOf(st.Request().Header))
	if err != nil {
		return err
	}
	if err := p.bus.CheckSubscribe(a.opts.App.Caller, in.Topic); err != nil {
		return p.failed(err)
	}
	raw, err := pubsub.RawPayload(in.Metadata)
	if err != nil {
		return err
	}
	o := pubsub.Options{
		Topic: in.Topic, Group: a.opts.App.ID, Caller: a.opts.App.Caller, InFlight: dialect.MaxUnanswered, DeadLetter: value(in.DeadLetterTopic),
		MaxDeliveries: 1, // of which Dapr makes no more where there is a dead letter topic
		Raw:           raw, Metadata: in.Metadata, Log: a.log,
	}
	if err := st.Send(&pb.SubscribeTopicEventsResponseAlpha1{InitialResponse: &pb.SubscribeTopicEventsResponseInitialAlpha1{}}); err != nil {
		return err
	}
	done := a.streaming.add(Subscription{Subscription: event.Subscription{
		Component: in.PubsubName, Topic: in.Topic, Group: o.Group, Default: "/", DeadLetter: o.DeadLetter, Metadata: in.Metadata,
	}, Type: "STREAMING"})
	defer done()
	s := dialect.NewEventStream(st)
	return s.Run(func(ctx context.Context) error {
		return p.bus.Subscribe(ctx, o, func(ctx context.Context, e loam.Event, _ int) error {
			full := enveloped(&e)
			return a.opts.Guarded(ctx, "pubsub", in.PubsubName, func(ctx context.Context) error {
				timing := a.settings.Metrics.begin(nil)
				err := s.Deliver(ctx, full.ID, eventMessage(&full, in))
				timing.end(delivered, in.PubsubName, in.Topic, verdict(err))
				return err
			})
		})
	}, p.failed, func() error { return eventAnswers(st, s) })
}

// eventMessage is an event as the program is told of it by a stream.
func eventMessage(e *loam.Event, to *pb.SubscribeTopicEventsRequestInitialAlpha1) *pb.SubscribeTopicEventsResponseAlpha1 {
	return &pb.SubscribeTopicEventsResponseAlpha1{EventMessage: &pb.TopicEventRequest{
		Id: e.ID, Source: e.Source, Type: e.Type, SpecVersion: "1.0", DataContentType: e.ContentType, Data: e.Data,
		Topic: to.Topic, PubsubName: to.PubsubName, Path: "/", Extensions: extensions(e, to.PubsubName),
	}}
}

// eventAnswers takes what the program says of events until it says no more.
func eventAnswers(st *grpc.Stream, s *dialect.EventStream) error {
	for {
		var m pb.SubscribeTopicEventsRequestAlpha1
		if err := st.Recv(&m); err != nil {
			return dialect.EndOf(err)
		}
		if m.EventProcessed == nil {
			return errBadRequest.failure("duplicate initial request received")
		}
		status := pb.TopicEventResponse_SUCCESS // as an empty message says in proto3
		if m.EventProcessed.Status != nil {
			status = m.EventProcessed.Status.Status
		}
		s.Answer(m.EventProcessed.Id, outcomeOf(status))
	}
}

// streams are the subscriptions by stream, as metadata tells them.
type streams struct {
	mu   sync.Mutex
	next int
	by   map[int]Subscription
}

// add returns the func that takes it out again.
func (s *streams) add(sub Subscription) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[int]Subscription{}
	}
	s.next++
	at := s.next
	s.by[at] = sub
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.by, at)
	}
}

// list is those there are, the oldest first.
func (s *streams) list() []Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Subscription
	for _, i := range slices.Sorted(maps.Keys(s.by)) {
		all = append(all, s.by[i])
	}
	return all
}
