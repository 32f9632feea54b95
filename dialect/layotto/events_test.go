package layotto_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http2"
)

// publish publishes, by Layotto's API.
func (w *world) publish(t testing.TB, component, topic, data string, metadata map[string]string) error {
	t.Helper()
	return w.call(t, pb.MethodRuntimePublishEvent, &pb.PublishEventRequest{PubsubName: component, Topic: topic, Data: []byte(data), DataContentType: "application/json", Metadata: metadata}, &pb.Empty{})
}

// listen tells of a topic's events to a journal, until the test ends.
func (w *world) listen(t testing.TB, topic string) *journal {
	seen := newJournal()
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	bus := must(w.set.Pubsub("pub_subs_demo"))(t)
	go func() {
		over <- bus.Subscribe(ctx, pubsub.Options{Topic: topic, Group: "listener"}, func(_ context.Context, e loam.Event, _ int) error {
			seen.add(fmt.Sprintf("%s %s %s %s %s", e.Source, e.Type, e.ContentType, e.Data, e.ID))
			return nil
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return seen
}

func TestPublish(t *testing.T) {
	w := newWorld(t, nil)
	seen := w.listen(t, "orders")
	works(t, w.publish(t, "pub_subs_demo", "orders", `{"a":1}`, nil))
	works(t, w.publish(t, "redis", "orders", `{"a":2}`, map[string]string{"ttlInSeconds": "100"})) // pubsub.redis, for redis is a lock's name
	works(t, w.call(t, pb.MethodRuntimePublishEvent, &pb.PublishEventRequest{
		PubsubName: "pub_subs_demo", Topic: "orders", DataContentType: "application/cloudevents+json",
		Data: []byte(`{"specversion":"1.0","id":"7","source":"me","type":"mine","datacontenttype":"text/plain","data":"hi"}`),
	}, &pb.Empty{}))
	got := seen.wait(t, 3)
	slices.Sort(got)
	for i, want := range []string{"me mine text/plain hi 7", `runtime com.runtime.event.sent application/json {"a":1} `, `runtime com.runtime.event.sent application/json {"a":2} `} {
		if !strings.HasPrefix(got[i], want) {
			t.Errorf("%q, want %q", got[i], want)
		}
	}
	fails(t, w.publish(t, "", "orders", "", nil), loam.InvalidArgument, "pubsub name is empty")
	fails(t, w.publish(t, "none", "orders", "", nil), loam.InvalidArgument, "pubsub none not found")
	fails(t, w.publish(t, "pub_subs_demo", "", "", nil), loam.InvalidArgument, "topic is empty in pubsub pub_subs_demo")
	fails(t, w.publish(t, "pub_subs_demo", "orders", "", map[string]string{"ttlInSeconds": "soon"}), loam.InvalidArgument, "cannot create cloudevent: ")
	fails(t, w.call(t, pb.MethodRuntimePublishEvent, &pb.PublishEventRequest{PubsubName: "pub_subs_demo", Topic: "orders", DataContentType: "application/cloudevents+json", Data: []byte("no")}, &pb.Empty{}),
		loam.InvalidArgument, "cannot create cloudevent: ")
	fails(t, w.publish(t, "pub_subs_demo", strings.Repeat("x", 1000), "", nil), loam.InvalidArgument, "error when publish to topic")
}

func TestDelayQueue(t *testing.T) {
	w := newWorld(t, nil)
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- w.api.Run(ctx) }()
	defer func() {
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}()
	seen := w.listen(t, "later")
	delay := func(in pb.DelayMessageRequest) (string, error) {
		var out pb.DelayMessageResponse
		err := w.call(t, pb.MethodDelayQueuePublishDelayMessage, &in, &out)
		return out.MessageId, err
	}
	begun := time.Now()
	id, err := delay(pb.DelayMessageRequest{ComponentName: "pub_subs_demo", Topic: "later", Data: []byte("second"), DataContentType: "text/plain", DelayInSeconds: 1})
	works(t, err)
	now, err := delay(pb.DelayMessageRequest{ComponentName: "redis", Topic: "later", Data: []byte("first"), DataContentType: "text/plain"})
	works(t, err)
	got := seen.wait(t, 2)
	if time.Since(begun) < time.Second {
		t.Error("a message of one second came sooner")
	}
	want := []string{"runtime com.runtime.event.sent text/plain first " + now, "runtime com.runtime.event.sent text/plain second " + id}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	_, err = delay(pb.DelayMessageRequest{ComponentName: "pub_subs_demo", Topic: "later", DelayInSeconds: -1})
	fails(t, err, loam.InvalidArgument, "delay_in_seconds -1")
	_, err = delay(pb.DelayMessageRequest{ComponentName: "pub_subs_demo"})
	fails(t, err, loam.InvalidArgument, "topic is empty in pubsub pub_subs_demo")
	_, err = delay(pb.DelayMessageRequest{ComponentName: "none", Topic: "later"})
	fails(t, err, loam.InvalidArgument, "pubsub none not found")
}

// A stream that subscribes gets the events, says what becomes of them, and gives back what it did not answer.
func TestSubscribeTopicEvents(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 3 {
		works(t, w.publish(t, "pub_subs_demo", "orders", fmt.Sprint(i), map[string]string{"cloudevent.id": fmt.Sprint("id", i)}))
	}
	dead := w.listen(t, "dead")
	open := func(serve func(task loam.Task, st *grpc.ClientStream)) {
		w.do(t, func(req *loam.Request) {
			task := req.Task() // the stream has the request until it is closed
			st := w.client.Open(req, pb.MethodRuntimeSubscribeTopicEvents)
			defer st.Close()
			letter := "dead"
			works(t, st.Send(&pb.SubscribeTopicEventsRequest{InitialRequest: &pb.SubscribeTopicEventsRequestInitial{PubsubName: "pub_subs_demo", Topic: "orders", DeadLetterTopic: &letter}}))
			var first pb.SubscribeTopicEventsResponse
			if err := st.Recv(&first); err != nil || first.InitialResponse == nil {
				t.Errorf("the first message: %+v, %v", first, err)
				return
			}
			serve(task, st)
		})
	}
	next := func(st *grpc.ClientStream) *pb.TopicEventRequest {
		var m pb.SubscribeTopicEventsResponse
		if err := st.Recv(&m); err != nil || m.EventMessage == nil {
			t.Errorf("%+v, %v", m, err)
			return &pb.TopicEventRequest{}
		}
		return m.EventMessage
	}
	answer := func(st *grpc.ClientStream, id string, status pb.TopicEventResponse_TopicEventResponseStatus) {
		err := st.Send(&pb.SubscribeTopicEventsRequest{EventProcessed: &pb.SubscribeTopicEventsRequestProcessed{Id: id, Status: &pb.TopicEventResponse{Status: status}}})
		if err != nil {
			t.Error(err)
		}
	}
	var unanswered string
	open(func(task loam.Task, st *grpc.ClientStream) {
		answer(st, "never-sent", pb.TopicEventResponse_SUCCESS) // which is no trouble
		done := 0
		for done < 2 {
			e := next(st)
			if e.PubsubName != "pub_subs_demo" || e.Topic != "orders" || e.SpecVersion != "1.0" || e.DataContentType != "application/json" || e.Source != "runtime" {
				t.Errorf("%+v", e)
			}
			switch e.Id {
			case "id0":
				answer(st, e.Id, pb.TopicEventResponse_SUCCESS)
				done++
			case "id1":
				answer(st, e.Id, pb.TopicEventResponse_DROP)
				done++
			default:
				unanswered = e.Id
			}
		}
		task.Await(func() { dead.wait(t, 1) }) // what was dropped, once the answers were taken
		st.CloseSend()
		for {
			var m pb.SubscribeTopicEventsResponse
			if err := st.Recv(&m); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				break
			}
		}
	})
	open(func(task loam.Task, st *grpc.ClientStream) { // what was not answered comes again, and RETRY has it come once more
		for range 1 {
			e := next(st)
			if e.Id != "id2" || string(e.Data) != "2" {
				t.Errorf("%+v; unanswered was %q", e, unanswered)
			}
			answer(st, e.Id, pb.TopicEventResponse_RETRY)
		}
		e := next(st)
		answer(st, e.Id, pb.TopicEventResponse_SUCCESS)
		task.Await(func() {
			works(t, w.publish(t, "pub_subs_demo", "orders", "3", map[string]string{"cloudevent.id": "id3"}))
		})
		if e := next(st); e.Id != "id3" {
			t.Errorf("%+v", e)
		}
	})
	refused := func(code loam.Code, words string, messages ...*pb.SubscribeTopicEventsRequest) {
		t.Helper()
		w.do(t, func(req *loam.Request) {
			st := w.client.Open(req, pb.MethodRuntimeSubscribeTopicEvents)
			defer st.Close()
			for _, m := range messages {
				if err := st.Send(m); err != nil {
					t.Error(err)
				}
			}
			for {
				var m pb.SubscribeTopicEventsResponse
				if err := st.Recv(&m); err != nil {
					fails(t, err, code, words)
					return
				}
			}
		})
	}
	initial := func(component, topic string) *pb.SubscribeTopicEventsRequest {
		return &pb.SubscribeTopicEventsRequest{InitialRequest: &pb.SubscribeTopicEventsRequestInitial{PubsubName: component, Topic: topic}}
	}
	refused(loam.InvalidArgument, "initial request is required", &pb.SubscribeTopicEventsRequest{})
	refused(loam.InvalidArgument, "pubsubName is required", initial("", "orders"))
	refused(loam.InvalidArgument, "topic is required", initial("pub_subs_demo", ""))
	refused(loam.InvalidArgument, "pubsub none not found", initial("none", "orders"))
	refused(loam.InvalidArgument, "duplicate initial request received", initial("pub_subs_demo", "others"), initial("pub_subs_demo", "others"))
}

// app is a program that Layotto's API calls back.
type app struct {
	seen *journal
	mu   sync.Mutex
	says func(*pb.TopicEventRequest) (pb.TopicEventResponse_TopicEventResponseStatus, error)
}

// answers has events answered by a func from now on.
func (a *app) answers(says func(*pb.TopicEventRequest) (pb.TopicEventResponse_TopicEventResponseStatus, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.says = says
}

func (a *app) server() *grpc.Server {
	return &grpc.Server{Methods: map[string]grpc.Method{
		pb.MethodAppCallbackListTopicSubscriptions: grpc.Unary(func(*grpc.Call, *pb.Empty) (*pb.ListTopicSubscriptionsResponse, error) {
			return &pb.ListTopicSubscriptionsResponse{Subscriptions: []pb.TopicSubscription{{PubsubName: "redis", Topic: "orders", Metadata: map[string]string{"a": "b"}}}}, nil
		}),
		pb.MethodAppCallbackOnTopicEvent: grpc.Unary(func(_ *grpc.Call, in *pb.TopicEventRequest) (*pb.TopicEventResponse, error) {
			a.seen.add(fmt.Sprintf("%s %s %s %s %s %s %s %s %v", in.Id, in.Source, in.Type, in.SpecVersion, in.DataContentType, in.Topic, in.PubsubName, in.Data, in.Metadata))
			a.mu.Lock()
			says := a.says
			a.mu.Unlock()
			status, err := says(in)
			if err != nil {
				return nil, err
			}
			return &pb.TopicEventResponse{Status: status}, nil
		}),
	}}
}

func TestCallback(t *testing.T) {
	a := &app{seen: newJournal()}
	w := newWorld(t, func(o *dialect.Options) {
		hub := http2.NewHub(o.Engine)
		address := listen(t, o.Engine, hub, slog.New(slog.DiscardHandler), a.server())
		o.App.Target, o.App.GRPC = http2.NewClient(address, http2.ClientConfig{Hub: hub}), true
	})
	call := func(fn func(ctx context.Context, c dialect.Callback)) { fn(t.Context(), w.api.Callback()) } // as drivers do, from a goroutine
	call(func(ctx context.Context, c dialect.Callback) {
		subs, err := c.Subscriptions(ctx)
		if err != nil || len(subs) != 1 || subs[0].Component != "pubsub.redis" || subs[0].Topic != "orders" || subs[0].Group != "app1" || subs[0].Metadata["a"] != "b" || subs[0].Default == "" {
			t.Errorf("%+v, %v", subs, err)
		}
		if err := c.Healthy(ctx); err != nil {
			t.Error(err)
		}
		e := loam.Event{ID: "7", Source: "me", Type: "mine", ContentType: "text/plain", Topic: "orders", Data: []byte("hi"), Attributes: map[string]string{"traceparent": "x"}}
		to := &event.Subscription{Component: "pubsub.redis", Topic: "orders"}
		type drop interface{ Drop() bool }
		for _, try := range []struct {
			status pb.TopicEventResponse_TopicEventResponseStatus
			err    error
			fails  bool
			drops  bool
		}{
			{pb.TopicEventResponse_SUCCESS, nil, false, false},
			{pb.TopicEventResponse_RETRY, nil, true, false},
			{pb.TopicEventResponse_DROP, nil, true, true},
			{99, nil, true, false},
			{0, grpc.NewStatus(loam.Internal, "ouch"), true, false},
			{0, grpc.NewStatus(loam.Unimplemented, "no such handler"), true, true},
		} {
			a.answers(func(*pb.TopicEventRequest) (pb.TopicEventResponse_TopicEventResponseStatus, error) {
				return try.status, try.err
			})
			err := c.Deliver(ctx, nil, to, e, 1)
			var d drop
			if (err != nil) != try.fails || errors.As(err, &d) && d.Drop() != try.drops || !errors.As(err, &d) && try.drops {
				t.Errorf("status %d, %v: it is %v", try.status, try.err, err)
			}
		}
		a.answers(func(in *pb.TopicEventRequest) (pb.TopicEventResponse_TopicEventResponseStatus, error) {
			if in.Id == "8" {
				return pb.TopicEventResponse_RETRY, nil
			}
			return pb.TopicEventResponse_SUCCESS, nil
		})
		other := e
		other.ID = "8"
		if errs := c.DeliverBulk(ctx, to, []loam.Event{e, other, e}); len(errs) != 3 || errs[0] != nil || errs[1] == nil || errs[2] != nil {
			t.Errorf("%v", errs)
		}
	})
	if got, want := a.seen.wait(t, 9)[0], "7 me mine 1.0 text/plain orders redis hi map[traceparent:x]"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	call(func(ctx context.Context, c dialect.Callback) {
		if wants, err := c.Binding(ctx, "x"); wants || err != nil {
			t.Error(wants, err)
		}
		_, err := c.Read(ctx, "x", nil, nil)
		fails(t, err, loam.Unimplemented, "no call for what binding x reads")
	})
}

func TestCallbackWithoutPort(t *testing.T) {
	w := newWorld(t, nil)
	c := w.api.Callback()
	subs, err := c.Subscriptions(t.Context())
	if subs != nil || err != nil {
		t.Error(subs, err)
	}
	err = c.Deliver(t.Context(), nil, &event.Subscription{}, loam.Event{}, 1)
	fails(t, err, loam.FailedPrecondition, "no port for gRPC")
	if err := c.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
}
