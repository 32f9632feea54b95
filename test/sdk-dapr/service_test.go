package sdkdapr

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

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
	ticks        chan struct{}
	jobs         chan []byte // nil: it handles none
	calls        chan *common.InvocationEvent
}

// newApp adds handlers to a service and starts it.
func newApp(t *testing.T, s common.Service, path string) *app {
	t.Helper()
	a := &app{
		events: make(chan *common.TopicEvent, 16), dead: make(chan *common.TopicEvent, 16), ticks: make(chan struct{}, 16),
		calls: make(chan *common.InvocationEvent, 16),
	}
	err := errors.Join(
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
		return err == nil && len(m.Subscriptions) >= 2
	})
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	a := newApp(t, sdkgrpc.NewServiceWithListener(l), "")
	a.exercise(t, start(t, "orders", port, "grpc", "--enable-app-health-check", "--app-health-probe-interval", "1"))
}

func TestServiceHTTP(t *testing.T) {
	port := freePort(t)
	a := newApp(t, sdkhttp.NewService("127.0.0.1:"+port), "/")
	a.exercise(t, start(t, "orders", port, "http", "--enable-app-health-check", "--app-health-check-path", "/healthz", "--app-health-probe-interval", "1"))
}
