package sdkdapr

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	runtime "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
)

func TestState(t *testing.T) {
	s := start(t, "orders", "", "")
	if err := s.Wait(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	for _, store := range []string{"store", "redis"} {
		t.Run(store, func(t *testing.T) { testState(t, s, store) })
	}
	ctx := t.Context()
	if err := s.SaveBulkState(ctx, "store", &client.SetStateItem{Key: "q1", Value: []byte(`{"n":1}`)}, &client.SetStateItem{Key: "q2", Value: []byte(`{"n":2}`)}); err != nil {
		t.Fatal(err)
	}
	found, err := s.QueryStateAlpha1(ctx, "store", `{"filter":{"EQ":{"n":2}}}`, nil)
	if err != nil || len(found.Results) != 1 || found.Results[0].Key != "q2" {
		t.Errorf("%+v, %v", found, err)
	}
	_, err = s.GetState(ctx, "nope", "a", nil)
	if st := status.Convert(err); st.Code() != codes.InvalidArgument || len(st.Details()) == 0 {
		t.Errorf("a store that is not there: %v, details %v", err, st.Details())
	}
}

func testState(t *testing.T, s *sidecar, store string) {
	ctx := t.Context()
	firstWrite := client.WithConcurrency(client.StateConcurrencyFirstWrite)
	if err := s.SaveState(ctx, store, "a", []byte("1"), map[string]string{"ttlInSeconds": "600"}); err != nil {
		t.Fatal(err)
	}
	item, err := s.GetState(ctx, store, "a", nil)
	if err != nil || string(item.Value) != "1" || item.Etag == "" || item.Metadata["ttlExpireTime"] == "" {
		t.Fatalf("%+v, %v", item, err)
	}
	if err := s.SaveStateWithETag(ctx, store, "a", []byte("2"), "99999", nil, firstWrite); status.Code(err) != codes.Aborted {
		t.Errorf("a wrong ETag: %v", err)
	}
	if err := s.SaveStateWithETag(ctx, store, "a", []byte("2"), item.Etag, nil, firstWrite, client.WithConsistency(client.StateConsistencyStrong)); err != nil {
		t.Error(err)
	}
	now, err := s.GetStateWithConsistency(ctx, store, "a", nil, client.StateConsistencyStrong)
	if err != nil || string(now.Value) != "2" || now.Etag == item.Etag {
		t.Errorf("%+v, %v", now, err)
	}
	if err := s.DeleteStateWithETag(ctx, store, "a", &client.ETag{Value: item.Etag}, nil, &client.StateOptions{Concurrency: client.StateConcurrencyFirstWrite}); status.Code(err) != codes.Aborted {
		t.Errorf("a delete with a wrong ETag: %v", err)
	}
	if err := s.SaveState(ctx, store, "brief", []byte("1"), map[string]string{"ttlInSeconds": "1"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the time of an item to be over", func() bool {
		item, err := s.GetState(ctx, store, "brief", nil)
		return err == nil && item.Etag == ""
	})
	if err := s.SaveBulkState(ctx, store, &client.SetStateItem{Key: "b", Value: []byte(`{"n":1}`)}, &client.SetStateItem{Key: "c", Value: []byte{0, 255}}); err != nil {
		t.Fatal(err)
	}
	items, err := s.GetBulkState(ctx, store, []string{"b", "none", "c"}, nil, 10)
	if err != nil || len(items) != 3 {
		t.Fatalf("%+v, %v", items, err)
	}
	for _, it := range items {
		if want := map[string]string{"b": `{"n":1}`, "c": "\x00\xff"}[it.Key]; string(it.Value) != want || it.Error != "" {
			t.Errorf("%+v, want %q", it, want)
		}
	}
	err = s.ExecuteStateTransaction(ctx, store, nil, []*client.StateOperation{
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: "d", Value: []byte("4")}},
		{Type: client.StateOperationTypeDelete, Item: &client.SetStateItem{Key: "b"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if item, err := s.GetState(ctx, store, "b", nil); err != nil || item.Etag != "" {
		t.Errorf("%+v, %v", item, err)
	}
	err = s.ExecuteStateTransaction(ctx, store, nil, []*client.StateOperation{
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: "d", Value: []byte("5")}},
		{Type: client.StateOperationTypeDelete, Item: &client.SetStateItem{Key: "c", Etag: &client.ETag{Value: "99999"}}},
	})
	if item, err2 := s.GetState(ctx, store, "d", nil); status.Code(err) != codes.Aborted || err2 != nil || string(item.Value) != "4" {
		t.Errorf("a transaction with a wrong ETag: %v; %+v, %v", err, item, err2)
	}
	if err := s.DeleteBulkState(ctx, store, []string{"c"}, nil); err != nil {
		t.Error(err)
	}
	if err := s.DeleteBulkStateItems(ctx, store, []*client.DeleteStateItem{{Key: "d"}}); err != nil {
		t.Error(err)
	}
	if err := s.DeleteState(ctx, store, "a", nil); err != nil {
		t.Error(err)
	}
	if items, err := s.GetBulkState(ctx, store, []string{"a", "b", "c", "d"}, nil, 1); err != nil || slices.ContainsFunc(items, func(it *client.BulkStateItem) bool { return it.Etag != "" }) {
		t.Errorf("%+v, %v", items, err)
	}
}

// A store's transactions are published, and nothing of one that did not come to be.
func TestOutbox(t *testing.T) {
	s := start(t, "orders", "", "")
	ctx := t.Context()
	sub, err := s.Subscribe(ctx, client.SubscriptionOptions{PubsubName: "bus", Topic: "changes"})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	put := func(value, etag string) error {
		item := &client.SetStateItem{Key: "order", Value: []byte(value)}
		if etag != "" {
			item.Etag = &client.ETag{Value: etag}
		}
		return s.ExecuteStateTransaction(ctx, "ledger", nil, []*client.StateOperation{{Type: client.StateOperationTypeUpsert, Item: item}})
	}
	if err := put("placed", ""); err != nil {
		t.Fatal(err)
	}
	if err := put("never", "99999"); status.Code(err) != codes.Aborted {
		t.Error(err)
	}
	if err := put("paid", ""); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"placed", "paid"} {
		m, err := sub.Receive()
		if err != nil || string(m.RawData) != want {
			t.Fatalf("%+v, %v, want %s", m, err, want)
		}
		if err := m.Success(); err != nil {
			t.Error(err)
		}
	}
}

func TestOthers(t *testing.T) {
	s := start(t, "orders", "", "")
	ctx := t.Context()
	if m, err := s.GetSecret(ctx, "vault", "token", nil); err != nil || m["token"] != "s3cret" {
		t.Errorf("%v, %v", m, err)
	}
	if m, err := s.GetBulkSecret(ctx, "vault", nil); err != nil || m["token"]["token"] != "s3cret" {
		t.Errorf("%v, %v", m, err)
	}
	for _, store := range []string{"locks", "redislocks"} {
		for _, c := range []struct {
			owner string
			want  bool
		}{{"me", true}, {"you", false}} {
			if l, err := s.TryLockAlpha1(ctx, store, &client.LockRequest{LockOwner: c.owner, ResourceID: "r", ExpiryInSeconds: 60}); err != nil || l.Success != c.want {
				t.Errorf("%s: %s: %+v, %v", store, c.owner, l, err)
			}
		}
		for _, c := range []struct {
			owner string
			want  int32
		}{{"you", 2}, {"me", 0}, {"me", 1}} { // another's, done, nobody's
			if u, err := s.UnlockAlpha1(ctx, store, &client.UnlockRequest{LockOwner: c.owner, ResourceID: "r"}); err != nil || u.StatusCode != c.want {
				t.Errorf("%s: %s: %+v, %v", store, c.owner, u, err)
			}
		}
	}
	if err := s.SetMetadata(ctx, "color", "blue"); err != nil {
		t.Error(err)
	}
	m, err := s.GetMetadata(ctx)
	if err != nil || m.ID != "orders" || m.ExtendedMetadata["color"] != "blue" || len(m.RegisteredComponents) < 8 {
		t.Errorf("%+v, %v", m, err)
	}
	out, err := s.InvokeBinding(ctx, &client.InvokeBindingRequest{Name: "files", Operation: "create", Data: []byte("plain text"), Metadata: map[string]string{"fileName": "a.txt"}})
	if err != nil {
		t.Errorf("%+v, %v", out, err)
	}
	if out, err = s.InvokeBinding(ctx, &client.InvokeBindingRequest{Name: "files", Operation: "get", Metadata: map[string]string{"fileName": "a.txt"}}); err != nil || string(out.Data) != "plain text" {
		t.Errorf("%+v, %v", out, err)
	}
	if err := s.InvokeOutputBinding(ctx, &client.InvokeBindingRequest{Name: "files", Operation: "delete", Metadata: map[string]string{"fileName": "a.txt"}}); err != nil {
		t.Error(err)
	}
	out, err = s.InvokeBinding(ctx, &client.InvokeBindingRequest{Name: "web", Operation: "post", Data: []byte("hi"), Metadata: map[string]string{"path": "/x"}})
	if err != nil || string(out.Data) != "POST /x hi" || out.Metadata["statusCode"] != "200" {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := s.GetActorState(ctx, &client.GetActorStateRequest{ActorType: "t", ActorID: "1", KeyName: "k"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("actors: %v", err)
	}
}

func TestConfiguration(t *testing.T) {
	s := start(t, "orders", "", "")
	ctx := t.Context()
	s.redis(t, "MSET color blue||1 size large||3")
	if item, err := s.GetConfigurationItem(ctx, "settings", "color"); err != nil || item == nil || item.Value != "blue" || item.Version != "1" {
		t.Errorf("%+v, %v", item, err)
	}
	if items, err := s.GetConfigurationItems(ctx, "settings", []string{"color", "size", "none"}); err != nil || len(items) != 2 || items["size"].Value != "large" {
		t.Errorf("%v, %v", items, err)
	}
	type change struct{ id, value string }
	told := make(chan change, 1000)
	id, err := s.SubscribeConfigurationItems(ctx, "settings", []string{"color"}, func(id string, items map[string]*client.ConfigurationItem) {
		if it := items["color"]; it != nil {
			told <- change{id, it.Value}
		}
	})
	if err != nil || id == "" {
		t.Fatalf("%q, %v", id, err)
	}
	for _, value := range []string{"red", "green"} { // what is new does not begin with a new version
		s.redis(t, "SET color "+value+"||1")
		if got := receive(t, "a change", told); got != (change{id, value}) {
			t.Errorf("told %+v, want %s", got, value)
		}
	}
	if err := s.UnsubscribeConfigurationItems(ctx, "settings", id); err != nil {
		t.Error(err)
	}
	if err := s.UnsubscribeConfigurationItems(ctx, "settings", id); err == nil {
		t.Error("it was unsubscribed twice")
	}
	if _, err := s.GetConfigurationItem(ctx, "nope", "color"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a store that is not there: %v", err)
	}
}

func TestCrypto(t *testing.T) {
	s := start(t, "orders", "", "")
	plain := strings.Repeat("a secret ", 30000)
	sealed, err := s.Encrypt(t.Context(), strings.NewReader(plain), client.EncryptOptions{ComponentName: "keys", KeyName: "rsa.pem", KeyWrapAlgorithm: "RSA"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(sealed)
	if err != nil || !bytes.HasPrefix(b, []byte("dapr.io/enc/v1\n")) {
		t.Fatalf("%.20q, %v", b, err)
	}
	opened, err := s.Decrypt(t.Context(), bytes.NewReader(b), client.DecryptOptions{ComponentName: "keys"})
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(opened); err != nil || string(b) != plain {
		t.Errorf("%.20q, %v", b, err)
	}
}

func TestStreamingSubscription(t *testing.T) {
	s := start(t, "orders", "", "")
	ctx := t.Context()
	sub, err := s.Subscribe(ctx, client.SubscriptionOptions{PubsubName: "bus", Topic: "news"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PublishEvent(ctx, "bus", "news", map[string]int{"n": 1}); err != nil {
		t.Fatal(err)
	}
	m, err := sub.Receive()
	if err != nil || m.Topic != "news" || m.PubsubName != "bus" || string(m.RawData) != `{"n":1}` {
		t.Fatalf("%+v, %v", m, err)
	}
	if err := m.Retry(); err != nil {
		t.Fatal(err)
	}
	if again, err := sub.Receive(); err != nil || again.ID != m.ID {
		t.Fatalf("%+v, %v", again, err)
	} else if err := again.Success(); err != nil {
		t.Fatal(err)
	}
	if res := s.PublishEvents(ctx, "bus", "news", []any{"x", "y"}); res.Error != nil {
		t.Fatal(res.Error)
	}
	for range 2 {
		if m, err = sub.Receive(); err != nil {
			t.Fatal(err)
		}
		if err := m.Success(); err != nil {
			t.Fatal(err)
		}
	}
	if err := sub.Close(); err != nil {
		t.Error(err)
	}
	got := make(chan string, 1)
	stop, err := s.SubscribeWithHandler(ctx, client.SubscriptionOptions{PubsubName: "bus", Topic: "other"}, func(e *common.TopicEvent) common.SubscriptionResponseStatus {
		got <- string(e.RawData)
		return common.SubscriptionResponseStatusSuccess
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PublishEvent(ctx, "bus", "other", "hello"); err != nil {
		t.Fatal(err)
	}
	contains(t, receive(t, "an event", got), "hello")
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// What a stream drops comes to the dead letter topic; what is published bare comes bare; all of it over Redis too.
func TestStreamingSubscriptionKinds(t *testing.T) {
	s := start(t, "orders", "", "")
	ctx := t.Context()
	for _, bus := range []string{"bus", "stream"} {
		t.Run(bus, func(t *testing.T) {
			receiving := func(topic, deadLetter string, metadata map[string]string) (<-chan *common.TopicEvent, func(common.SubscriptionResponseStatus)) {
				got, verdicts := make(chan *common.TopicEvent), make(chan common.SubscriptionResponseStatus)
				opts := client.SubscriptionOptions{PubsubName: bus, Topic: topic, Metadata: metadata}
				if deadLetter != "" {
					opts.DeadLetterTopic = &deadLetter
				}
				stop, err := s.SubscribeWithHandler(ctx, opts, func(e *common.TopicEvent) common.SubscriptionResponseStatus {
					got <- e
					return <-verdicts
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := stop(); err != nil {
						t.Error(err)
					}
				})
				return got, func(v common.SubscriptionResponseStatus) { verdicts <- v }
			}
			poison, judge := receiving("poison", "lost", nil)
			lost, judgeLost := receiving("lost", "", nil)
			if err := s.PublishEventfromCustomContent(ctx, bus, "poison", struct{ Bad bool }{true}); err != nil {
				t.Fatal(err)
			}
			e := receive(t, "an event", poison)
			judge(common.SubscriptionResponseStatusDrop)
			if d := receive(t, "a dead letter", lost); d.ID != e.ID || string(d.RawData) != `{"Bad":true}` {
				t.Errorf("%+v", d)
			}
			judgeLost(common.SubscriptionResponseStatusSuccess)

			raw, judgeRaw := receiving("raw", "", map[string]string{"rawPayload": "true"})
			if err := s.PublishEvent(ctx, bus, "raw", []byte("bare"), client.PublishEventWithRawPayload()); err != nil {
				t.Fatal(err)
			}
			if e := receive(t, "a raw event", raw); !bytes.Contains(e.RawData, []byte("bare")) {
				t.Errorf("%+v", e)
			}
			judgeRaw(common.SubscriptionResponseStatusSuccess)

			many, judgeMany := receiving("many", "", nil)
			if res := s.PublishEvents(ctx, bus, "many", []any{"x", map[string]int{"n": 1}, []byte("z")}, client.PublishEventsWithMetadata(map[string]string{"ttlInSeconds": "600"})); res.Error != nil || len(res.FailedEvents) > 0 {
				t.Fatal(res)
			}
			var got []string
			for range 3 {
				got = append(got, string(receive(t, "one of many", many).RawData))
				judgeMany(common.SubscriptionResponseStatusSuccess)
			}
			slices.Sort(got)
			if want := []string{"x", "z", `{"n":1}`}; !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
	if err := s.PublishEvent(ctx, "nope", "t", "x"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a component that is not there: %v", err)
	}
	if res := s.PublishEvents(ctx, "nope", "t", []any{"x", "y"}); res.Error == nil || len(res.FailedEvents) != 2 {
		t.Errorf("a component that is not there: %+v", res)
	}
}

func TestJobs(t *testing.T) {
	s := start(t, "orders", "", "")
	ctx := t.Context()
	data, err := anypb.New(wrapperspb.String("payload"))
	if err != nil {
		t.Fatal(err)
	}
	job := client.NewJob("j", client.WithJobSchedule("@every 1h"), client.WithJobRepeats(3), client.WithJobData(data))
	if err := s.ScheduleJob(ctx, job); err != nil {
		t.Fatal(err)
	}
	if err := s.ScheduleJobAlpha1(ctx, job); status.Code(err) != codes.AlreadyExists {
		t.Errorf("the same again: %v", err)
	}
	got, err := s.GetJob(ctx, "j")
	if err != nil || *got.Schedule != "@every 1h" || *got.Repeats != 3 || got.Data.TypeUrl != data.TypeUrl {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := s.DeleteJob(ctx, "j"); err != nil {
		t.Error(err)
	}
	if _, err := s.GetJob(ctx, "j"); err == nil {
		t.Error("it is still there")
	}
	for _, name := range []string{"night-1", "night-2", "day"} {
		if err := s.ScheduleJob(ctx, client.NewJob(name, client.WithJobDueTime("1h"), client.WithJobTTL("2h"))); err != nil {
			t.Fatal(err)
		}
	}
	// What the SDK wraps in no method of its own.
	if _, err := s.GrpcClient().DeleteJobsByPrefixAlpha1(ctx, &runtime.DeleteJobsByPrefixRequestAlpha1{NamePrefix: proto.String("night-")}); err != nil {
		t.Error(err)
	}
	if list, err := s.GrpcClient().ListJobsAlpha1(ctx, &runtime.ListJobsRequestAlpha1{}); err != nil || len(list.Jobs) != 1 || list.Jobs[0].Name != "day" {
		t.Errorf("%+v, %v", list, err)
	}
}

// Who does not show the token is not let in; who does may end the sidecar.
func TestTokenAndShutdown(t *testing.T) {
	t.Setenv("DAPR_API_TOKEN", "let me in")
	s := start(t, "orders", "", "")
	ctx := t.Context()
	if _, err := s.GetMetadata(ctx); err != nil {
		t.Error(err)
	}
	s.WithAuthToken("wrong")
	if _, err := s.GetMetadata(ctx); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a wrong token: %v", err)
	}
	s.WithAuthToken("let me in")
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	receive(t, "the sidecar's end", s.ended)
}
