package sdkdapr

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
)

func TestState(t *testing.T) {
	s := start(t, "orders", "", "")
	ctx := t.Context()
	if err := s.Wait(ctx, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveState(ctx, "store", "a", []byte("1"), map[string]string{"ttlInSeconds": "60"}); err != nil {
		t.Fatal(err)
	}
	item, err := s.GetState(ctx, "store", "a", nil)
	if err != nil || string(item.Value) != "1" || item.Etag == "" || item.Metadata["ttlExpireTime"] == "" {
		t.Fatalf("%+v, %v", item, err)
	}
	if err := s.SaveStateWithETag(ctx, "store", "a", []byte("2"), "wrong", nil, client.WithConcurrency(client.StateConcurrencyFirstWrite)); status.Code(err) != codes.Aborted {
		t.Errorf("a wrong ETag: %v", err)
	}
	if err := s.SaveStateWithETag(ctx, "store", "a", []byte("2"), item.Etag, nil, client.WithConcurrency(client.StateConcurrencyFirstWrite)); err != nil {
		t.Error(err)
	}
	if err := s.SaveBulkState(ctx, "store", &client.SetStateItem{Key: "b", Value: []byte(`{"n":1}`)}, &client.SetStateItem{Key: "c", Value: []byte(`{"n":2}`)}); err != nil {
		t.Fatal(err)
	}
	items, err := s.GetBulkState(ctx, "store", []string{"b", "none", "c"}, nil, 10)
	if err != nil || len(items) != 3 || string(items[0].Value) != `{"n":1}` || len(items[1].Value) > 0 {
		t.Fatalf("%+v, %v", items, err)
	}
	found, err := s.QueryStateAlpha1(ctx, "store", `{"filter":{"EQ":{"n":2}}}`, nil)
	if err != nil || len(found.Results) != 1 || found.Results[0].Key != "c" {
		t.Errorf("%+v, %v", found, err)
	}
	err = s.ExecuteStateTransaction(ctx, "store", nil, []*client.StateOperation{
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: "d", Value: []byte("4")}},
		{Type: client.StateOperationTypeDelete, Item: &client.SetStateItem{Key: "b"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if item, err := s.GetState(ctx, "store", "b", nil); err != nil || item.Etag != "" {
		t.Errorf("%+v, %v", item, err)
	}
	if err := s.DeleteBulkState(ctx, "store", []string{"c", "d"}, nil); err != nil {
		t.Error(err)
	}
	if err := s.DeleteState(ctx, "store", "a", nil); err != nil {
		t.Error(err)
	}
	if _, err := s.GetState(ctx, "nope", "a", nil); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a store that is not there: %v", err)
	}
	st := status.Convert(func() error { _, err := s.GetState(ctx, "nope", "a", nil); return err }())
	if len(st.Details()) == 0 {
		t.Errorf("no details: %v", st)
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
	if items, err := s.GetConfigurationItems(ctx, "settings", []string{"color"}); err != nil || len(items) != 0 {
		t.Errorf("%v, %v", items, err)
	}
	id, err := s.SubscribeConfigurationItems(ctx, "settings", []string{"color"}, func(string, map[string]*client.ConfigurationItem) {})
	if err != nil || id == "" {
		t.Errorf("%q, %v", id, err)
	}
	if err := s.UnsubscribeConfigurationItems(ctx, "settings", id); err != nil {
		t.Error(err)
	}
	l, err := s.TryLockAlpha1(ctx, "locks", &client.LockRequest{LockOwner: "me", ResourceID: "r", ExpiryInSeconds: 30})
	if err != nil || !l.Success {
		t.Errorf("%+v, %v", l, err)
	}
	u, err := s.UnlockAlpha1(ctx, "locks", &client.UnlockRequest{LockOwner: "you", ResourceID: "r"})
	if err != nil || u.StatusCode != 2 {
		t.Errorf("%+v, %v", u, err)
	}
	if u, err = s.UnlockAlpha1(ctx, "locks", &client.UnlockRequest{LockOwner: "me", ResourceID: "r"}); err != nil || u.StatusCode != 0 {
		t.Errorf("%+v, %v", u, err)
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
	if _, err := s.GetActorState(ctx, &client.GetActorStateRequest{ActorType: "t", ActorID: "1", KeyName: "k"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("actors: %v", err)
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
}
