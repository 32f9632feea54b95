package sdkdapr

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	sdkgrpc "github.com/dapr/go-sdk/service/grpc"
	sdkhttp "github.com/dapr/go-sdk/service/http"
)

// An app is a program of the SDK's that is called back.
type app struct {
	events, dead chan *common.TopicEvent
	routed       chan string // the route an event came by, and what it was
	raw          chan *common.TopicEvent
	retried      chan string
	ticks        chan struct{}
	jobs         chan []byte // nil: it handles none
	calls        chan *common.InvocationEvent
}

// newApp adds handlers to a service and starts it.
func newApp(t *testing.T, s common.Service, path string) *app {
	t.Helper()
	a := &app{
		events: make(chan *common.TopicEvent, 16), dead: make(chan *common.TopicEvent, 16), ticks: make(chan struct{}, 16),
		calls: make(chan *common.InvocationEvent, 16), routed: make(chan string, 16), raw: make(chan *common.TopicEvent, 16), retried: make(chan string, 16),
	}
	route := func(name string) common.TopicEventHandler {
		return func(_ context.Context, e *common.TopicEvent) (bool, error) {
			a.routed <- name + " " + string(e.RawData)
			return false, nil
		}
	}
	var tries atomic.Int32
	err := errors.Join(
		s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "routed", Route: "/other"}, route("other")),
		s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "routed", Route: "/large", Match: "event.data.total > 100", Priority: 2}, route("large")),
		s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "routed", Route: "/cancelled", Match: `event.type == "order.cancelled"`, Priority: 1}, route("cancelled")),
		s.AddTopicEventHandler(&common.Subscription{PubsubName: "stream", Topic: "raw", Route: "/raw", Metadata: map[string]string{"rawPayload": "true"}}, func(_ context.Context, e *common.TopicEvent) (bool, error) {
			a.raw <- e
			return false, nil
		}),
		s.AddTopicEventHandler(&common.Subscription{PubsubName: "stream", Topic: "retried", Route: "/retried"}, func(_ context.Context, e *common.TopicEvent) (bool, error) {
			if tries.Add(1) < 3 {
				return true, errors.New("not yet")
			}
			a.retried <- string(e.RawData)
			return false, nil
		}),
		s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "news", Route: "/news", DeadLetterTopic: "lost"}, func(_ context.Context, e *common.TopicEvent) (bool, error) {
			a.events <- e
			if strings.Contains(string(e.RawData), "poison") {
				return false, errors.New("poison")
			}
			return false, nil
		}),
		s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "lost", Route: "/lost"}, func(_ context.Context, e *common.TopicEvent) (bool, error) {
			a.dead <- e
			return false, nil
		}),
		s.AddBindingInvocationHandler(path+"tick", func(context.Context, *common.BindingEvent) ([]byte, error) {
			select {
			case a.ticks <- struct{}{}:
			default:
			}
			return nil, nil
		}),
		s.AddServiceInvocationHandler(path+"echo", func(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
			a.calls <- in
			return &common.Content{Data: in.Data, ContentType: in.ContentType}, nil
		}),
		s.AddHealthCheckHandler(path+"healthz", func(context.Context) error { return nil }),
	)
	if path == "" { // over HTTP the SDK has no handlers of jobs
		a.jobs = make(chan []byte, 16)
		err = errors.Join(err, s.AddJobEventHandler("reminder", func(_ context.Context, e *common.JobEvent) error {
			a.jobs <- e.Data
			return nil
		}))
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Start() }()
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return a
}

// exercise has the sidecar call everything back that the app handles.
func (a *app) exercise(t *testing.T, s *sidecar) {
	t.Helper()
	ctx := t.Context()
	eventually(t, "the app's subscriptions", func() bool {
		m, err := s.GetMetadata(ctx)
		return err == nil && len(m.Subscriptions) >= 5
	})
	for _, e := range []struct {
		data, typ, want string
	}{
		{`{"total":7}`, "", `other {"total":7}`}, {`{"total":700}`, "", `large {"total":700}`}, {`{"total":800}`, "order.cancelled", `cancelled {"total":800}`},
	} {
		opts := []client.PublishEventOption{client.PublishEventWithContentType("application/json")}
		if e.typ != "" {
			opts = append(opts, client.PublishEventWithMetadata(map[string]string{"cloudevent.type": e.typ}))
		}
		if err := s.PublishEvent(ctx, "bus", "routed", []byte(e.data), opts...); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, "an event by its route", a.routed); got != e.want {
			t.Errorf("%s, want %s", got, e.want)
		}
	}
	if err := s.PublishEvent(ctx, "stream", "raw", []byte(`bare`), client.PublishEventWithRawPayload()); err != nil {
		t.Fatal(err)
	}
	if e := receive(t, "a raw event", a.raw); string(e.RawData) != "bare" {
		t.Errorf("%+v", e)
	}
	if err := s.PublishEvent(ctx, "stream", "retried", "again"); err != nil {
		t.Fatal(err)
	}
	contains(t, receive(t, "an event that was tried again", a.retried), "again")
	if err := s.PublishEvent(ctx, "bus", "news", map[string]int{"n": 1}); err != nil {
		t.Fatal(err)
	}
	if e := receive(t, "an event", a.events); string(e.RawData) != `{"n":1}` || e.Topic != "news" || e.PubsubName != "bus" || e.Source != "orders" {
		t.Errorf("%+v", e)
	}
	if err := s.PublishEvent(ctx, "bus", "news", "poison", client.PublishEventWithContentType("text/plain")); err != nil {
		t.Fatal(err)
	}
	id := receive(t, "the poison", a.events).ID
	if e := receive(t, "the poison in the dead letter topic", a.dead); e.ID != id {
		t.Errorf("%+v", e)
	}
	receive(t, "a tick", a.ticks)
	if a.jobs != nil {
		data, err := anypb.New(wrapperspb.String("payload"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.ScheduleJob(ctx, client.NewJob("reminder", client.WithJobDueTime("0s"), client.WithJobData(data))); err != nil {
			t.Fatal(err)
		}
		contains(t, string(receive(t, "a job", a.jobs)), "payload")
	}
	out, err := s.InvokeMethodWithContent(ctx, "orders", "echo?x=y", "post", &client.DataContent{Data: []byte(`"hi"`), ContentType: "application/json"})
	if err != nil || string(out) != `"hi"` {
		t.Errorf("%q, %v", out, err)
	}
	if in := receive(t, "an invocation", a.calls); in.ContentType != "application/json" || in.QueryString != "x=y" {
		t.Errorf("%+v", in)
	}
	if out, err := s.InvokeMethodWithCustomContent(ctx, "orders", "echo", "put", "application/json", map[string]int{"n": 1}); err != nil || string(out) != `{"n":1}` {
		t.Errorf("%q, %v", out, err)
	}
	if in := receive(t, "an invocation", a.calls); in.Verb != "PUT" {
		t.Errorf("%+v", in)
	}
	if out, err := s.InvokeMethod(ctx, "orders", "echo", "get"); err != nil || len(out) > 0 {
		t.Errorf("%q, %v", out, err)
	}
	if in := receive(t, "an invocation", a.calls); in.Verb != "GET" {
		t.Errorf("%+v", in)
	}
	if _, err := s.InvokeMethod(ctx, "orders", "nothing", "post"); err == nil {
		t.Error("a method that is not there answers")
	}
	res, err := http.Post(s.http+"/v1.0/invoke/orders/method/echo", "text/plain", strings.NewReader("over HTTP"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || string(b) != "over HTTP" {
		t.Errorf("%d %q, %v", res.StatusCode, b, err)
	}
	var m struct {
		Subscriptions []struct{ Topic, Type string }
	}
	if err := json.Unmarshal(get(t, s.http+"/v1.0/metadata"), &m); err != nil || len(m.Subscriptions) < 2 || m.Subscriptions[0].Type != "PROGRAMMATIC" {
		t.Errorf("%+v, %v", m, err)
	}
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestServiceGRPC(t *testing.T) {
	t.Setenv("APP_API_TOKEN", "it is me") // without which the SDK refuses what the sidecar brings
	l, port := listen(t)
	a := newApp(t, sdkgrpc.NewServiceWithListener(l), "")
	a.exercise(t, start(t, "orders", port, "grpc", "--enable-app-health-check", "--app-health-probe-interval", "1"))
}

func TestServiceHTTP(t *testing.T) {
	t.Setenv("APP_API_TOKEN", "it is me")
	port := freePort(t)
	a := newApp(t, sdkhttp.NewService("127.0.0.1:"+port), "/")
	a.exercise(t, start(t, "orders", port, "http", "--enable-app-health-check", "--app-health-check-path", "/healthz", "--app-health-probe-interval", "1"))
}

func listen(t *testing.T) (net.Listener, string) {
	t.Helper()
	port := freePort(t)
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	return l, port
}

// Apps call each other through two sidecars that find each other: by the SDK, and by a gRPC service of their own.
func TestBetweenApps(t *testing.T) {
	l, billingPort := listen(t)
	grpcServer := grpc.NewServer()
	health := grpchealth.NewServer()
	healthpb.RegisterHealthServer(grpcServer, health)
	billing := newApp(t, sdkgrpc.NewServiceWithGrpcServer(l, grpcServer), "")
	t.Cleanup(health.Shutdown)
	shippingPort := freePort(t)
	shipping := newApp(t, sdkhttp.NewService("127.0.0.1:"+shippingPort), "/")
	toBilling, toShipping := start(t, "shipping", shippingPort, "http"), start(t, "billing", billingPort, "grpc")
	ctx := t.Context()

	for _, c := range []struct {
		from *sidecar
		to   string
		app  *app
	}{{toBilling, "billing", billing}, {toShipping, "shipping", shipping}} {
		eventually(t, c.to+" to be found", func() bool {
			out, err := c.from.InvokeMethodWithContent(ctx, c.to, "echo?x=y", "post", &client.DataContent{Data: []byte("hello"), ContentType: "text/plain"})
			return err == nil && string(out) == "hello"
		})
		if in := receive(t, "the invocation", c.app.calls); in.ContentType != "text/plain" || in.QueryString != "x=y" || in.Verb != "POST" {
			t.Errorf("%s: %+v", c.to, in)
		}
	}

	calls := healthpb.NewHealthClient(toBilling.GrpcClientConn())
	ctx = metadata.AppendToOutgoingContext(ctx, "dapr-app-id", "billing")
	if res, err := calls.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil || res.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", res, err)
	}
	if _, err := calls.Check(ctx, &healthpb.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("the app's own error: %v", err)
	}
	watch, err := calls.Watch(ctx, &healthpb.HealthCheckRequest{Service: "invoices"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{
		healthpb.HealthCheckResponse_SERVICE_UNKNOWN, healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		if want != healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
			health.SetServingStatus("invoices", want)
		}
		if res, err := watch.Recv(); err != nil || res.Status != want {
			t.Fatalf("%v, %v, want %v", res, err, want)
		}
	}
}
