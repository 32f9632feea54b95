package dapr

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/dapr"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/protocol/cloudevents"
	"github.com/loam-run/loam/protocol/grpc"
)

// callGRPC calls a method of the program's services. header is metadata.
func (c *channel) callGRPC(ctx context.Context, method string, in, out grpc.Message, header loam.Header) error {
	return c.callIn(ctx, nil, method, in, out, header)
}

// callIn is callGRPC that waits in a task.
func (c *channel) callIn(ctx context.Context, t loam.Task, method string, in, out grpc.Message, header loam.Header) error {
	if err := c.ready(); err != nil {
		return err
	}
	timing := c.settings.Metrics.begin(t)
	err := c.callOn(ctx, t, c.grpc, method, in, out, header)
	timing.end(grpcClient, method, "", codeOf(err))
	return err
}

// codeOf is how a call ended, as gRPC has it.
func codeOf(err error) int {
	if err == nil {
		return int(loam.OK)
	}
	return int(grpc.StatusOf(err).Code)
}

func (c *channel) callOn(ctx context.Context, t loam.Task, client *grpc.Client, method string, in, out grpc.Message, header loam.Header) error {
	req := loam.NewRequest(ctx)
	defer req.Release()
	if t != nil {
		req.SetTask(t)
	}
	req.ID = randomID()
	req.Header = append(req.Header, header...)
	if token := c.opts.App.AppToken; token != "" {
		req.Header = append(req.Header, loam.Field{Name: tokenHeader, Value: token})
	}
	return client.Call(req, method, in, out, nil)
}

// newer calls a method by its present name, and by its older one where the program knows only that.
func (c *channel) newer(ctx context.Context, method, older string, in, out grpc.Message, header loam.Header) error {
	err := c.callGRPC(ctx, method, in, out, header)
	if err != nil && loam.CodeOf(err) == loam.Unimplemented {
		return c.callGRPC(ctx, older, in, out, header)
	}
	return err
}

// Bounds of what comes together, where a program says none, and at most.
const (
	bulkMax   = 100
	bulkWait  = time.Second
	bulkMost  = 10_000
	bulkLater = time.Minute
)

func bulk(most, waitMs int32) *event.Bulk {
	b := &event.Bulk{Max: bulkMax, Wait: bulkWait}
	if most > 0 {
		b.Max = min(int(most), bulkMost)
	}
	if waitMs > 0 {
		b.Wait = min(time.Duration(waitMs)*time.Millisecond, bulkLater)
	}
	return b
}

func (c *channel) subscriptionsGRPC(ctx context.Context) ([]event.Subscription, error) {
	const op = "ListTopicSubscriptions"
	var said pb.ListTopicSubscriptionsResponse
	if err := c.callGRPC(ctx, pb.MethodAppCallbackListTopicSubscriptions, &pb.Empty{}, &said, nil); err != nil {
		if loam.CodeOf(err) == loam.Unimplemented {
			return nil, nil
		}
		return nil, err
	}
	if n := len(said.Subscriptions); n > maxSubscriptions {
		return nil, loam.Errorf(loam.ResourceExhausted, op, "%d subscriptions, at most %d are taken", n, maxSubscriptions)
	}
	var all []event.Subscription
	for _, s := range said.Subscriptions {
		sub := event.Subscription{Component: s.PubsubName, Topic: s.Topic, DeadLetter: s.DeadLetterTopic, Metadata: s.Metadata}
		if r := s.Routes; r != nil {
			for _, rule := range r.Rules {
				sub.Rules = append(sub.Rules, event.Rule{Match: strings.TrimSpace(rule.Match), Path: rule.Path})
			}
			sub.Default = r.Default
		}
		if b := s.BulkSubscribe; b != nil && b.Enabled {
			sub.Bulk = bulk(b.MaxMessagesCount, b.MaxAwaitDurationMs)
		}
		if c.take(&sub) {
			all = append(all, sub)
		}
	}
	return all, nil
}

// callbackMetadata is what comes along with events.
func callbackMetadata(h loam.Header) loam.Header {
	for i := range h {
		h[i].Name = strings.ToLower(h[i].Name)
	}
	return carryTrace(slices.DeleteFunc(h, func(f loam.Field) bool { return strings.HasPrefix(f.Name, "grpc-") }))
}

// extensions are the members of an event's envelope that have no field in gRPC's messages.
func extensions(e *loam.Event, component string) *pb.Struct {
	s := &pb.Struct{Fields: make(map[string]pb.Value, 3+len(e.Attributes)+len(e.Extra))}
	text := func(name, value string) { s.Fields[name] = pb.Value{StringValue: &value} }
	for name, value := range e.Attributes {
		text(name, value)
	}
	for name, value := range e.Extra {
		var v pb.Value
		if b, err := valueOf(value); err == nil && v.ParseProto(b) == nil {
			s.Fields[name] = v
		}
	}
	for _, name := range [...]string{"id", "source", "type", "specversion", "datacontenttype", "data", "data_base64"} {
		delete(s.Fields, name)
	}
	text("topic", e.Topic)
	text("pubsubname", component)
	if e.Subject != "" {
		text("subject", e.Subject)
	}
	if !e.Time.IsZero() {
		text("time", e.Time.UTC().Format(time.RFC3339Nano))
	}
	return s
}

func (c *channel) deliverGRPC(ctx context.Context, t loam.Task, to *event.Subscription, path string, given *loam.Event) error {
	e := enveloped(given)
	in := pb.TopicEventRequest{
		Id: e.ID, Source: e.Source, Type: e.Type, SpecVersion: "1.0", DataContentType: e.ContentType, Data: e.Data,
		Topic: to.Topic, PubsubName: to.Component, Path: path, Extensions: extensions(&e, to.Component),
	}
	var out pb.TopicEventResponse
	err := c.callIn(ctx, t, pb.MethodAppCallbackOnTopicEvent, &in, &out, callbackMetadata(cloudEventHeader(to, given)))
	switch {
	case err == nil:
		return outcomeOf(out.Status)
	case loam.CodeOf(err) == loam.Unimplemented:
		return dropped{err}
	}
	return err
}

// outcomeOf is outcome for what gRPC has instead of words.
func outcomeOf(s pb.TopicEventResponse_TopicEventResponseStatus) error {
	switch s {
	case pb.TopicEventResponse_SUCCESS:
		return nil
	case pb.TopicEventResponse_RETRY:
		return outcome("RETRY")
	case pb.TopicEventResponse_DROP:
		return outcome("DROP")
	}
	return outcome(strconv.Itoa(int(s)))
}

func (c *channel) deliverBulkGRPC(ctx context.Context, to *event.Subscription, path string, events []loam.Event) []error {
	metadata := map[string]string{"pubsubName": to.Component}
	in := pb.TopicEventBulkRequest{Id: randomID(), Metadata: metadata, Topic: to.Topic, PubsubName: to.Component, Type: bulkType, Path: path}
	for i := range events {
		entry := pb.TopicEventBulkRequestEntry{EntryId: entryID(&events[i], i), ContentType: cloudevents.ContentType, Metadata: events[i].Metadata}
		if events[i].Raw || to.Raw {
			entry.Bytes, entry.ContentType = events[i].Data, rawType(&events[i])
			if entry.Bytes == nil {
				entry.Bytes = []byte{}
			}
		} else {
			e := enveloped(&events[i])
			entry.CloudEvent = &pb.TopicEventCERequest{
				Id: e.ID, Source: e.Source, Type: e.Type, SpecVersion: "1.0", DataContentType: e.ContentType, Data: e.Data, Extensions: extensions(&e, to.Component),
			}
		}
		in.Entries = append(in.Entries, entry)
	}
	var out pb.TopicEventBulkResponse
	header := loam.Header{{Name: "pubsubname", Value: to.Component}}
	err := c.newer(ctx, pb.MethodAppCallbackOnBulkTopicEvent, pb.MethodAppCallbackAlphaOnBulkTopicEventAlpha1, &in, &out, header)
	if err != nil {
		if loam.CodeOf(err) == loam.Unimplemented {
			err = dropped{err}
		}
		return slices.Repeat([]error{err}, len(events))
	}
	said := make(map[string]error, len(out.Statuses))
	for _, s := range out.Statuses {
		said[s.EntryId] = outcomeOf(s.Status)
	}
	errs := make([]error, len(events))
	for i := range in.Entries {
		var ok bool
		if errs[i], ok = said[in.Entries[i].EntryId]; !ok {
			errs[i] = errSilent
		}
	}
	return errs
}

// grpcInputs are the input bindings that a program wants, which it says all at once.
type grpcInputs struct {
	mu    sync.Mutex
	names []string
}

// has asks whether the program wants a binding. It is asked anew where it did not say so before: it may be another
// program by now.
func (g *grpcInputs) has(ctx context.Context, c *channel, name string) (bool, error) {
	g.mu.Lock()
	has := slices.Contains(g.names, name)
	g.mu.Unlock()
	if has {
		return true, nil
	}
	var out pb.ListInputBindingsResponse
	if err := c.callGRPC(ctx, pb.MethodAppCallbackListInputBindings, &pb.Empty{}, &out, nil); err != nil {
		if loam.CodeOf(err) == loam.Unimplemented {
			return false, nil
		}
		return false, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.names = out.Bindings
	return slices.Contains(g.names, name), nil
}

func (c *channel) readGRPC(ctx context.Context, name string, data []byte, metadata map[string]string) ([]byte, *bindingAnswer, error) {
	var h loam.Header
	for _, name := range [...]string{"traceparent", "tracestate", "baggage"} {
		if v := metadata[name]; v != "" && isValue(v) {
			h = append(h, loam.Field{Name: name, Value: v})
		}
	}
	var out pb.BindingEventResponse
	in := pb.BindingEventRequest{Name: name, Data: data, Metadata: metadata}
	if err := c.callGRPC(ctx, pb.MethodAppCallbackOnBindingEvent, &in, &out, carryTrace(h)); err != nil {
		return nil, nil, err
	}
	answer := &bindingAnswer{StoreName: out.StoreName, Data: out.Data, To: out.To}
	if out.Concurrency == pb.BindingEventResponse_PARALLEL {
		answer.Concurrency = "parallel"
	}
	for _, s := range out.States {
		item := stateAnswer{Key: s.Key, Value: s.Value, Metadata: s.Metadata}
		if s.Etag != nil {
			item.ETag = &s.Etag.Value
		}
		answer.State = append(answer.State, item)
	}
	return out.Data, answer, nil
}

func (c *channel) jobGRPC(ctx context.Context, job jobs.Job) error {
	in := pb.JobEventRequest{Name: job.Name, Method: "job/" + job.Name, ContentType: job.Type, HttpExtension: &pb.HTTPExtension{Verb: pb.HTTPExtension_POST}}
	if job.Type != "" || len(job.Data) > 0 {
		in.Data = &pb.Any{TypeUrl: job.Type, Value: job.Data}
	}
	return c.newer(ctx, pb.MethodAppCallbackOnJobEvent, pb.MethodAppCallbackAlphaOnJobEventAlpha1, &in, &pb.Empty{}, nil)
}

func (c *channel) healthyGRPC(ctx context.Context) error {
	timing := c.settings.Metrics.begin(nil)
	err := c.callOn(ctx, nil, &grpc.Client{Target: c.direct, Authority: c.authority}, pb.MethodAppCallbackHealthCheckHealthCheck, &pb.Empty{}, &pb.Empty{}, nil)
	timing.end(grpcProbes, "", "", codeOf(err))
	return err
}
