package pluggable

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api/dapr/components"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listed is the answer of reflection: those services.
type listed []string

func (l listed) AppendProto(b []byte) []byte {
	var list []byte
	for _, name := range l {
		one := append([]byte{1<<3 | 2, byte(len(name))}, name...)
		list = append(append(list, 1<<3|2, byte(len(one))), one...)
	}
	b = append(b, 6<<3|2)
	for n := len(list); ; n >>= 7 {
		if n < 0x80 {
			b = append(b, byte(n))
			break
		}
		b = append(b, byte(n)|0x80)
	}
	return append(b, list...)
}
func (listed) ParseProto([]byte) error { return nil }

type methods = map[string]grpc.Method

// reflecting adds the reflection of v1, the one that is asked second, to methods.
func reflecting(m methods, services ...string) methods {
	m["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"] = grpc.Streaming(func(s *grpc.Stream) error {
		if err := s.Recv(ignored{}); err != nil {
			return err
		}
		return s.Send(listed(services))
	})
	return m
}

// serve is a program with those methods, at a socket.
func serve(t *testing.T, socket string, m methods) {
	t.Helper()
	e := loop.New(loop.Options{Goroutines: true})
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	s := http2.NewServer(&grpc.Server{Methods: m}, http2.ServerConfig{Hub: http2.NewHub(e)})
	if _, err := e.Listen(context.Background(), "unix", socket, loop.ListenOptions{Open: func(c loop.Conn) loop.Session { return s.Session(c, nil, nil, nil) }}); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, m methods, services ...string) (any, error) {
	t.Helper()
	dir := t.TempDir()
	s := New(dir, "")
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range services {
		services[i] = prefix + services[i]
	}
	serve(t, filepath.Join(dir, "x.sock"), reflecting(m, services...))
	list, err := s.Factories(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%d types, %v", len(list), err)
	}
	return list[0].Open(t.Context(), "c", map[string]string{"a": "b"})
}

// store is methods of a state store that does what do says, and has those features.
func store(features []string, more methods) methods {
	m := methods{
		"/" + prefix + "StateStore/Ping": grpc.Unary(func(_ *grpc.Call, _ *components.PingRequest) (*components.PingResponse, error) {
			return &components.PingResponse{}, nil
		}),
		"/" + prefix + "StateStore/Init": grpc.Unary(func(c *grpc.Call, in *components.InitRequest) (*components.InitResponse, error) {
			if c.Request().Header.Get("x-component-instance") != "c" || in.Metadata == nil || in.Metadata.Properties["a"] != "b" {
				return nil, grpc.NewStatus(loam.InvalidArgument, "not as Dapr does it")
			}
			return &components.InitResponse{}, nil
		}),
		"/" + prefix + "StateStore/Features": grpc.Unary(func(_ *grpc.Call, _ *components.FeaturesRequest) (*components.FeaturesResponse, error) {
			return &components.FeaturesResponse{Features: features}, nil
		}),
	}
	for name, method := range more {
		m["/"+prefix+name] = method
	}
	return m
}

func TestLimits(t *testing.T) {
	size := methods{"TransactionalStoreMultiMaxSize/MultiMaxSize": grpc.Unary(func(_ *grpc.Call, _ *components.MultiMaxSizeRequest) (*components.MultiMaxSizeResponse, error) {
		return &components.MultiMaxSizeResponse{MaxSize: 10}, nil
	})}
	for _, c := range []struct {
		features, services []string
		want               state.Limits
		queries            bool
	}{
		{nil, []string{"StateStore"}, state.Limits{NoETags: true, NoTransactions: true, NoNewETags: true, TextKeys: true}, false},
		{[]string{"ETAG", "QUERY_API", "TRANSACTIONAL"}, []string{"StateStore"}, state.Limits{NoTransactions: true, NoNewETags: true, TextKeys: true}, false},
		{
			[]string{"etag", "TRANSACTIONAL", "QUERY_API"},
			[]string{"StateStore", "TransactionalStateStore", "TransactionalStoreMultiMaxSize", "QueriableStateStore"},
			state.Limits{MaxOps: 10, NoNewETags: true, TextKeys: true},
			true,
		},
	} {
		d, err := open(t, store(c.features, size), c.services...)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.(state.Limited).Limits(); got != c.want {
			t.Errorf("%q: %+v, want %+v", c.features, got, c.want)
		}
		if _, queries := d.(state.Querier); queries != c.queries {
			t.Errorf("%q: it queries: %t", c.features, queries)
		}
	}
}

func TestQuery(t *testing.T) {
	d, err := open(t, store([]string{"QUERY_API"}, methods{"QueriableStateStore/Query": grpc.Unary(func(_ *grpc.Call, in *components.QueryRequest) (*components.QueryResponse, error) {
		q := in.Query
		if len(q.Filter) != 1 || string(q.Filter["AND"].Value) != `[{"EQ":{"a":1}},{"IN":{"b":["x","y"]}}]` || len(q.Sort) != 1 || q.Sort[0].Key != "a" ||
			q.Sort[0].Order != components.Sorting_DESC || q.Pagination.Limit != 2 || q.Pagination.Token != "here" {
			return nil, grpc.NewStatus(loam.InvalidArgument, string(q.Filter["AND"].Value))
		}
		return &components.QueryResponse{Token: "there", Items: []components.QueryItem{
			{Key: "app||1", Data: []byte("{}"), Etag: &components.Etag{Value: "7"}}, {Key: "other||1", Data: []byte("{}")}, {Key: "app||2", Data: []byte("[]")},
		}}, nil
	})}), "StateStore", "QueriableStateStore")
	if err != nil {
		t.Fatal(err)
	}
	q, err := state.ParseQuery([]byte(`{"filter": {"AND": [{"EQ": {"a": 1}}, {"IN": {"b": ["x", "y"]}}]}, "sort": [{"key": "a", "order": "DESC"}], "page": {"limit": 2, "token": "here"}}`))
	if err != nil {
		t.Fatal(err)
	}
	page, err := d.(state.Querier).Query(t.Context(), "app||", q)
	if err != nil || page.Token != "there" || len(page.Items) != 2 || page.Items[0].ETag != "7" || page.Items[1].Key != "app||2" || page.Items[1].ETag == "" {
		t.Errorf("%+v, %v", page, err)
	}
}

func TestRefusals(t *testing.T) {
	mismatch := grpc.NewStatus(loam.FailedPrecondition, "mismatch", grpc.BadRequest(grpc.Violation{Field: "etag", Description: "no"}))
	answer := error(mismatch)
	d, err := open(t, store([]string{"ETAG", "TRANSACTIONAL"}, methods{
		"StateStore/Set": grpc.Unary(func(_ *grpc.Call, _ *components.SetRequest) (*components.SetResponse, error) { return nil, answer }),
		"StateStore/Get": grpc.Unary(func(_ *grpc.Call, in *components.GetRequest) (*components.GetResponse, error) {
			if in.Key == "made up" {
				return &components.GetResponse{Data: []byte("x")}, nil
			}
			return nil, answer
		}),
		"StateStore/BulkGet": grpc.Unary(func(_ *grpc.Call, in *components.BulkGetRequest) (*components.BulkGetResponse, error) {
			return &components.BulkGetResponse{Items: []components.BulkStateItem{{Key: in.Items[0].Key, Error: "broken"}}}, nil
		}),
		"TransactionalStateStore/Transact": grpc.Unary(func(_ *grpc.Call, _ *components.TransactionalStateRequest) (*components.TransactionalStateResponse, error) {
			return nil, answer
		}),
	}), "StateStore", "TransactionalStateStore")
	if err != nil {
		t.Fatal(err)
	}
	s := d.(*State)
	apply := func(want loam.Code, ops ...state.Op) {
		t.Helper()
		if _, err := s.Apply(t.Context(), ops); loam.CodeOf(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	apply(loam.Aborted, state.Op{Key: "k", IfMatch: "1"})
	apply(loam.AlreadyExists, state.Op{Key: "k", IfAbsent: true})
	apply(loam.Aborted, state.Op{Key: "j"}, state.Op{Key: "k", IfMatch: "1"})
	answer = grpc.NewStatus(loam.FailedPrecondition, "something else")
	apply(loam.FailedPrecondition, state.Op{Key: "k", IfMatch: "1"})
	if _, err := s.GetOne(t.Context(), "k", state.GetOptions{}); loam.CodeOf(err) != loam.FailedPrecondition || !strings.Contains(err.Error(), "something else") || !strings.Contains(err.Error(), "component c") {
		t.Errorf("%v", err)
	}
	if _, err := s.Get(t.Context(), []string{"a", "b"}); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("%v", err)
	}
	if it, err := s.GetOne(t.Context(), "made up", state.GetOptions{}); err != nil || it.ETag == "" {
		t.Errorf("%+v, %v", it, err)
	}
	answer = grpc.NewStatus(loam.NotFound, "no such key")
	if it, err := s.GetOne(t.Context(), "k", state.GetOptions{}); err != nil || it.ETag != "" {
		t.Errorf("%+v, %v", it, err)
	}
}

// TestBadPrograms has sockets of programs that do not say what they offer.
func TestBadPrograms(t *testing.T) {
	dir := t.TempDir()
	s := New(dir, "")
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := s.Factories(t.Context()); err == nil {
			t.Error("it goes on after Close")
		}
	}()
	serve(t, filepath.Join(dir, "mute.sock"), methods{})
	serve(t, filepath.Join(dir, "good.sock"), reflecting(methods{}, prefix+"SecretStore", "grpc.reflection.v1.ServerReflection"))
	serve(t, filepath.Join(dir, "none.sock"), reflecting(methods{}, "grpc.health.v1.Health"))
	if err := os.Mkdir(filepath.Join(dir, "folder.sock"), 0o700); err != nil {
		t.Fatal(err)
	}
	list, err := s.Factories(t.Context())
	if len(list) != 1 || list[0].Type != "secret.good" || !slices.Equal(list[0].Aliases, []string{"secretstores.good"}) {
		t.Errorf("%+v", list)
	}
	if err == nil || !strings.Contains(err.Error(), "mute.sock") || loam.HintOf(err) == "" && !strings.Contains(err.Error(), "does not tell its services") {
		t.Errorf("%v", err)
	}
	if _, err := list[0].Open(t.Context(), "c", nil); loam.CodeOf(err) != loam.Unimplemented { // it has no such method at all
		t.Errorf("%v", err)
	}
}

// TestProgramThatDoesNotEnd leaves a stream open for ever.
func TestProgramThatDoesNotEnd(t *testing.T) {
	over := make(chan struct{})
	d, err := open(t, methods{
		"/" + prefix + "PubSub/Ping": grpc.Unary(func(_ *grpc.Call, _ *components.PingRequest) (*components.PingResponse, error) {
			return &components.PingResponse{}, nil
		}),
		"/" + prefix + "PubSub/Init": grpc.Unary(func(_ *grpc.Call, _ *components.PubSubInitRequest) (*components.PubSubInitResponse, error) {
			return &components.PubSubInitResponse{}, nil
		}),
		"/" + prefix + "PubSub/PullMessages": grpc.Streaming(func(s *grpc.Stream) error {
			var in components.PullMessagesRequest
			if err := s.Recv(&in); err != nil {
				return err
			}
			if in.Topic == nil || in.Topic.Name != "t" || in.Topic.Metadata["consumerID"] != "g" {
				return grpc.NewStatus(loam.InvalidArgument, "no topic")
			}
			if err := s.Send(&components.PullMessagesResponse{Id: "1", Data: []byte("raw"), Metadata: map[string]string{"m": "n"}}); err != nil {
				return err
			}
			<-over
			return nil
		}),
	}, "PubSub")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- d.(pubsub.Driver).Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g", InFlight: 1}, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
			if !d.Event.Raw || string(d.Event.Data) != "raw" || d.Event.Metadata["m"] != "n" {
				t.Errorf("%+v", d.Event)
			}
			cancel()
			return pubsub.Verdict{}
		})
	}()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the subscription does not end")
	}
	close(over)
}

// TestConsumerID: a pubsub program is told who consumes with the component, as daprd tells it, and else with the topic.
func TestConsumerID(t *testing.T) {
	for name, c := range map[string]struct{ app, written, init, topic string }{
		"of the app":              {"me", "", "me", ""},
		"of the file":             {"me", " them ", "them", ""},
		"of the file, of no app":  {"", "them", "them", ""},
		"of the subscription":     {"", "", "", "g"},
		"of the app, not a space": {"me", "  ", "me", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, told := t.TempDir(), make(chan [2]string, 2)
			serve(t, filepath.Join(dir, "bus.sock"), reflecting(methods{
				"/" + prefix + "PubSub/Init": grpc.Unary(func(_ *grpc.Call, in *components.PubSubInitRequest) (*components.PubSubInitResponse, error) {
					told <- [2]string{in.Metadata.Properties["consumerID"], in.Metadata.Properties["other"]}
					return &components.PubSubInitResponse{}, nil
				}),
				"/" + prefix + "PubSub/Features": grpc.Unary(func(_ *grpc.Call, _ *components.FeaturesRequest) (*components.FeaturesResponse, error) {
					return &components.FeaturesResponse{}, nil
				}),
				"/" + prefix + "PubSub/PullMessages": grpc.Streaming(func(s *grpc.Stream) error {
					var in components.PullMessagesRequest
					if err := s.Recv(&in); err != nil {
						return err
					}
					told <- [2]string{in.Topic.Metadata["consumerID"], in.Topic.Metadata["other"]}
					return grpc.NewStatus(loam.Unimplemented, "enough")
				}),
			}, prefix+"PubSub"))
			s := New(dir, c.app)
			defer s.Close()
			list, err := s.Factories(t.Context())
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			metadata := map[string]string{"other": "x"}
			if c.written != "" {
				metadata["consumerID"] = c.written
			}
			before := maps.Clone(metadata)
			d, err := list[0].Open(t.Context(), "bus", metadata)
			if err != nil {
				t.Fatal(err)
			}
			defer d.(pubsub.Driver).Close()
			if !maps.Equal(metadata, before) {
				t.Errorf("the metadata became %v", metadata)
			}
			err = d.(pubsub.Driver).Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", InFlight: 1, Metadata: map[string]string{"other": "y"}}, nil)
			if loam.CodeOf(err) != loam.Unimplemented {
				t.Fatal(err)
			}
			if got, want := [][2]string{<-told, <-told}, [][2]string{{c.init, "x"}, {c.topic, "y"}}; !slices.Equal(got, want) {
				t.Errorf("told %q, want %q", got, want)
			}
		})
	}
}

// FuzzReflection reads what a program may say that it offers.
func FuzzReflection(f *testing.F) {
	f.Add(listed{"a.B", "c"}.AppendProto(nil))
	f.Add([]byte{7<<3 | 2, 0})
	f.Add([]byte{8, 1, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		var l serviceList
		if err := l.ParseProto(b); len(l.names) > maxServices {
			t.Errorf("%d services, %v", len(l.names), err)
		}
	})
}
