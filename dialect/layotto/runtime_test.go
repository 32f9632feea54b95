package layotto_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/dialect"
)

func TestHello(t *testing.T) {
	w := newWorld(t, nil)
	var out pb.SayHelloResponse
	works(t, w.call(t, pb.MethodRuntimeSayHello, &pb.SayHelloRequest{ServiceName: "helloworld", Name: "Ann", Data: &pb.Any{TypeUrl: "x", Value: []byte("y")}}, &out))
	if out.Hello != "greeting, Ann" || out.Data == nil || string(out.Data.Value) != "y" {
		t.Errorf("%+v", out)
	}
	apply := func(kind, name string, metadata map[string]string) error {
		return w.call(t, pb.MethodLifecycleApplyConfiguration, &pb.DynamicConfiguration{ComponentConfig: &pb.ComponentConfig{Kind: kind, Name: name, Metadata: metadata}}, &pb.ApplyConfigurationResponse{})
	}
	works(t, apply("hellos", "helloworld", map[string]string{"hello": "goodbye"}))
	out = pb.SayHelloResponse{}
	works(t, w.call(t, pb.MethodRuntimeSayHello, &pb.SayHelloRequest{ServiceName: "helloworld"}, &out))
	if out.Hello != "goodbye" {
		t.Errorf("%+v", out)
	}
	fails(t, apply("", "x", nil), loam.InvalidArgument, "field kind is not configured")
	fails(t, apply("state", "", nil), loam.InvalidArgument, "field name is not configured")
	fails(t, apply("state", "state_demo", nil), loam.InvalidArgument, "field metadata is not configured")
	fails(t, apply("state", "state_demo", map[string]string{"a": "b"}), loam.Unimplemented, "change that")
	fails(t, apply("pub_subs", "redis", map[string]string{"a": "b"}), loam.Unimplemented, "change that")
	fails(t, apply("state", "none", map[string]string{"a": "b"}), loam.InvalidArgument, "component not found. kind: state , name: none")
	var err error
	for i := range 200 {
		if err = apply("hellos", fmt.Sprint(i), map[string]string{"hello": "x"}); err != nil {
			break
		}
	}
	fails(t, err, loam.ResourceExhausted, "greeters")
}

func TestState(t *testing.T) {
	w := newWorld(t, nil)
	const store = "state_demo"
	get := func(store, key string) (pb.GetStateResponse, error) {
		var out pb.GetStateResponse
		err := w.call(t, pb.MethodRuntimeGetState, &pb.GetStateRequest{StoreName: store, Key: key}, &out)
		return out, err
	}
	save := func(items ...pb.StateItem) error {
		return w.call(t, pb.MethodRuntimeSaveState, &pb.SaveStateRequest{StoreName: store, States: items}, &pb.Empty{})
	}
	_, err := get("notexists-store", "foo")
	fails(t, err, loam.InvalidArgument, "state store notexists-store is not found")
	_, err = get("", "foo")
	fails(t, err, loam.InvalidArgument, "state store  is not found")
	out, err := get(store, "nothing")
	works(t, err)
	if len(out.Data) != 0 || out.Etag != "" {
		t.Errorf("of what is not there it says %+v", out)
	}
	// Layotto's SDK sends the ETag 0 where the program gave none: it is no condition.
	zero := &pb.Etag{Value: "0"}
	works(t, save(pb.StateItem{Key: "a", Value: []byte("1"), Etag: zero}))
	works(t, save(pb.StateItem{Key: "a", Value: []byte("2"), Etag: zero}, pb.StateItem{Key: "b", Etag: zero}))
	if out, err = get(store, "a"); err != nil || string(out.Data) != "2" || out.Etag == "" {
		t.Errorf("%+v, %v", out, err)
	}
	old := out.Etag
	works(t, save(pb.StateItem{Key: "a", Value: []byte("3"), Etag: &pb.Etag{Value: old}}))
	fails(t, save(pb.StateItem{Key: "a", Value: []byte("4"), Etag: &pb.Etag{Value: old}}), loam.Aborted, "failed saving state in state store state_demo: ")
	first := &pb.StateOptions{Concurrency: pb.StateOptions_CONCURRENCY_FIRST_WRITE, Consistency: pb.StateOptions_CONSISTENCY_STRONG}
	fails(t, save(pb.StateItem{Key: "a", Value: []byte("4"), Etag: zero, Options: first}), loam.Aborted, "failed saving state")
	works(t, save(pb.StateItem{Key: "c", Value: []byte("4"), Etag: zero, Options: first, Metadata: map[string]string{"ttlInSeconds": "1000"}}))
	fails(t, save(pb.StateItem{Key: "x||y"}), loam.InvalidArgument, "input key/keyPrefix 'x||y' can't contain '||'")
	fails(t, save(pb.StateItem{Key: "x", Metadata: map[string]string{"ttlInSeconds": "soon"}}), loam.InvalidArgument, "ttlInSeconds")
	// All items or none.
	fails(t, save(pb.StateItem{Key: "d", Value: []byte("1")}, pb.StateItem{Key: "a", Etag: &pb.Etag{Value: old}}), loam.Aborted, "failed saving state")
	if out, _ = get(store, "d"); out.Etag != "" {
		t.Error("half of a request was done")
	}

	var bulk pb.GetBulkStateResponse
	works(t, w.call(t, pb.MethodRuntimeGetBulkState, &pb.GetBulkStateRequest{StoreName: store, Keys: []string{"c", "none", "a"}, Parallelism: 5}, &bulk))
	var got []string
	for _, it := range bulk.Items {
		got = append(got, it.Key+"="+string(it.Data))
	}
	if want := []string{"c=4", "none=", "a=3"}; !slices.Equal(got, want) {
		t.Errorf("in bulk %q, want %q", got, want)
	}
	// More keys than the capability takes at once.
	many := make([]string, 2500)
	for i := range many {
		many[i] = fmt.Sprint("key", i)
	}
	bulk = pb.GetBulkStateResponse{}
	works(t, w.call(t, pb.MethodRuntimeGetBulkState, &pb.GetBulkStateRequest{StoreName: store, Keys: many}, &bulk))
	if len(bulk.Items) != len(many) || bulk.Items[2499].Key != "key2499" {
		t.Errorf("of %d keys %d came", len(many), len(bulk.Items))
	}

	works(t, w.call(t, pb.MethodRuntimeDeleteState, &pb.DeleteStateRequest{StoreName: store, Key: "none", Etag: zero, Options: first}, &pb.Empty{}))
	fails(t, w.call(t, pb.MethodRuntimeDeleteState, &pb.DeleteStateRequest{StoreName: store, Key: "a", Etag: &pb.Etag{Value: old}}, &pb.Empty{}), loam.Aborted, "failed deleting state with key a: ")
	works(t, w.call(t, pb.MethodRuntimeDeleteBulkState, &pb.DeleteBulkStateRequest{StoreName: store, States: []pb.StateItem{{Key: "a"}, {Key: "b"}}}, &pb.Empty{}))
	if out, _ = get(store, "a"); out.Etag != "" {
		t.Error("what was deleted is there")
	}

	transact := func(ops ...pb.TransactionalStateOperation) error {
		return w.call(t, pb.MethodRuntimeExecuteStateTransaction, &pb.ExecuteStateTransactionRequest{StoreName: store, Operations: ops}, &pb.Empty{})
	}
	works(t, transact())
	works(t, transact(
		pb.TransactionalStateOperation{OperationType: "upsert", Request: &pb.StateItem{Key: "t", Value: []byte("1"), Etag: zero}},
		pb.TransactionalStateOperation{OperationType: "delete", Request: &pb.StateItem{Key: "c"}}))
	if out, _ = get(store, "t"); string(out.Data) != "1" {
		t.Errorf("%+v", out)
	}
	fails(t, transact(pb.TransactionalStateOperation{OperationType: "sing", Request: &pb.StateItem{Key: "t"}}), loam.Unimplemented, "operation type sing not supported")
	fails(t, transact(pb.TransactionalStateOperation{OperationType: "upsert"}), loam.InvalidArgument, "operation 0 has no request")
	// What keyPrefix says: appid, and none.
	if out, _ = get("plain", "app1||t"); string(out.Data) != "" {
		t.Error("a key with a separator was read")
	}
	items, err := must(w.set.State("plain"))(t).Get(t.Context(), everything("x"), "app1||t")
	if err != nil || string(items[0].Value) != "1" {
		t.Errorf("the key in the store is not app1||t: %+v, %v", items, err)
	}

	w.set.down["plain"] = true
	_, err = get("plain", "a")
	fails(t, err, loam.Unavailable, "state store plain is not available: ")
	delete(w.set.known, "state/state_demo")
	delete(w.set.known, "state/plain")
	w.set.down = nil
	_, err = get("plain", "a")
	fails(t, err, loam.FailedPrecondition, "state store is not configured")
}

func TestGrants(t *testing.T) {
	w := newWorld(t, func(o *dialect.Options) {
		o.App.Caller = &loam.Caller{Name: "app1", Grants: []loam.Grant{{Capability: "state", Component: "state_demo", Names: []string{"mine/*"}, ReadOnly: true}}}
	})
	works(t, w.call(t, pb.MethodRuntimeGetState, &pb.GetStateRequest{StoreName: "state_demo", Key: "mine/1"}, &pb.GetStateResponse{}))
	fails(t, w.call(t, pb.MethodRuntimeGetState, &pb.GetStateRequest{StoreName: "state_demo", Key: "yours"}, &pb.GetStateResponse{}), loam.PermissionDenied, "fail to get yours from state store state_demo: ")
	fails(t, w.call(t, pb.MethodRuntimeSaveState, &pb.SaveStateRequest{StoreName: "state_demo", States: []pb.StateItem{{Key: "mine/1"}}}, &pb.Empty{}), loam.PermissionDenied, "holds no grant")
	fails(t, w.call(t, pb.MethodRuntimeTryLock, &pb.TryLockRequest{StoreName: "redis", ResourceId: "a", LockOwner: "b", Expire: 1}, &pb.TryLockResponse{}), loam.PermissionDenied, "grant")
	fails(t, w.call(t, pb.MethodRuntimePublishEvent, &pb.PublishEventRequest{PubsubName: "pub_subs_demo", Topic: "a"}, &pb.Empty{}), loam.PermissionDenied, "error when publish to topic a in pubsub pub_subs_demo: ")
	fails(t, w.call(t, pb.MethodDelayQueuePublishDelayMessage, &pb.DelayMessageRequest{ComponentName: "pub_subs_demo", Topic: "a"}, &pb.DelayMessageResponse{}), loam.PermissionDenied, "grant")
	fails(t, w.call(t, pb.MethodRuntimeInvokeService, &pb.InvokeServiceRequest{Id: "shop", Message: &pb.CommonInvokeRequest{Method: "/"}}, &pb.InvokeResponse{}), loam.PermissionDenied, "grant")
}

func TestLock(t *testing.T) {
	w := newWorld(t, nil)
	try := func(in pb.TryLockRequest) (bool, error) {
		var out pb.TryLockResponse
		err := w.call(t, pb.MethodRuntimeTryLock, &in, &out)
		return out.Success, err
	}
	is := func(what string, got bool, err error, want bool) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", what, got, err, want)
		}
	}
	a := pb.TryLockRequest{StoreName: "redis", ResourceId: "order", LockOwner: "a", Expire: 100}
	b := pb.TryLockRequest{StoreName: "redis", ResourceId: "order", LockOwner: "b", Expire: 100}
	got, err := try(a)
	is("a takes it", got, err, true)
	got, err = try(b)
	is("b takes it too", got, err, false)
	unlock := func(owner, resource string) pb.UnlockResponse_Status {
		var out pb.UnlockResponse
		works(t, w.call(t, pb.MethodRuntimeUnlock, &pb.UnlockRequest{StoreName: "redis", ResourceId: resource, LockOwner: owner}, &out))
		return out.Status
	}
	keep := func(owner, resource string) pb.LockKeepAliveResponse_Status {
		var out pb.LockKeepAliveResponse
		works(t, w.call(t, pb.MethodRuntimeLockKeepAlive, &pb.LockKeepAliveRequest{StoreName: "redis", ResourceId: resource, LockOwner: owner, Expire: 200}, &out))
		return out.Status
	}
	if s := keep("a", "order"); s != pb.LockKeepAliveResponse_SUCCESS {
		t.Errorf("its owner keeps it: %v", s)
	}
	if s := keep("b", "order"); s != pb.LockKeepAliveResponse_LOCK_BELONG_TO_OTHERS {
		t.Errorf("another keeps it: %v", s)
	}
	if s := keep("b", "none"); s != pb.LockKeepAliveResponse_LOCK_UNEXIST {
		t.Errorf("one that nobody holds is kept: %v", s)
	}
	if s := unlock("b", "order"); s != pb.UnlockResponse_LOCK_BELONG_TO_OTHERS {
		t.Errorf("another unlocks it: %v", s)
	}
	if s := unlock("a", "order"); s != pb.UnlockResponse_SUCCESS {
		t.Errorf("its owner unlocks it: %v", s)
	}
	if s := unlock("a", "order"); s != pb.UnlockResponse_LOCK_UNEXIST {
		t.Errorf("it is unlocked twice: %v", s)
	}
	for words, in := range map[string]pb.TryLockRequest{
		"ResourceId is empty in lock store redis":               {StoreName: "redis", LockOwner: "a", Expire: 1},
		"LockOwner is empty in lock store redis":                {StoreName: "redis", ResourceId: "a", Expire: 1},
		"Expire is not positive in lock store redis":            {StoreName: "redis", ResourceId: "a", LockOwner: "a"},
		"lock store none not found":                             {StoreName: "none", ResourceId: "a", LockOwner: "a", Expire: 1},
		"input key/keyPrefix 'a||b' can't contain '||'":         {StoreName: "redis", ResourceId: "a||b", LockOwner: "a", Expire: 1},
		"a lease of 27777h46m40s: it lasts from 1ms to 24h0m0s": {StoreName: "redis", ResourceId: "a", LockOwner: "a", Expire: 100_000_000},
		"name and owner take 1 to 1024 bytes each":              {StoreName: "redis", ResourceId: strings.Repeat("a", 2000), LockOwner: "a", Expire: 1},
	} {
		_, err := try(in)
		fails(t, err, loam.InvalidArgument, words)
	}
}

func TestSequence(t *testing.T) {
	w := newWorld(t, nil)
	next := func(in pb.GetNextIdRequest) (int64, error) {
		var out pb.GetNextIdResponse
		err := w.call(t, pb.MethodRuntimeGetNextId, &in, &out)
		return out.NextId, err
	}
	last := int64(0)
	for _, o := range []*pb.SequencerOptions{nil, {Increment: pb.SequencerOptions_WEAK}, {Increment: pb.SequencerOptions_STRONG}} {
		id, err := next(pb.GetNextIdRequest{StoreName: "sequencer_demo", Key: "orders", Options: o})
		if err != nil || id <= last {
			t.Errorf("%+v gives %d after %d, %v", o, id, last, err)
		}
		last = id
	}
	_, err := next(pb.GetNextIdRequest{StoreName: "sequencer_demo"})
	fails(t, err, loam.InvalidArgument, "Key is empty in sequencer store sequencer_demo")
	_, err = next(pb.GetNextIdRequest{StoreName: "none", Key: "a"})
	fails(t, err, loam.InvalidArgument, "Sequencer store none not found")
	_, err = next(pb.GetNextIdRequest{StoreName: "sequencer_demo", Key: "a", Options: &pb.SequencerOptions{Increment: 7}})
	fails(t, err, loam.InvalidArgument, "Options.Increment is illegal.")
	delete(w.set.known, "sequence/sequencer_demo")
	_, err = next(pb.GetNextIdRequest{StoreName: "sequencer_demo", Key: "a"})
	fails(t, err, loam.FailedPrecondition, "Sequencer store is not configured")
}

func TestConfiguration(t *testing.T) {
	w := newWorld(t, nil)
	const store = "config_demo"
	get := func(group, label string, keys ...string) string {
		t.Helper()
		var out pb.GetConfigurationResponse
		works(t, w.call(t, pb.MethodRuntimeGetConfiguration, &pb.GetConfigurationRequest{StoreName: store, AppId: "js-sdk", Group: group, Label: label, Keys: keys}, &out))
		return describe(out.Items)
	}
	save := func(items ...pb.ConfigurationItem) {
		t.Helper()
		works(t, w.call(t, pb.MethodRuntimeSaveConfiguration, &pb.SaveConfigurationRequest{StoreName: store, AppId: "js-sdk", Items: items}, &pb.Empty{}))
	}
	if got := get("", "", "a", "b"); got != "" {
		t.Errorf("before anything was saved: %s", got)
	}
	save(pb.ConfigurationItem{Key: "a", Content: "1", Tags: map[string]string{"env": "prod"}, Metadata: map[string]string{"by": "Ann"}},
		pb.ConfigurationItem{Key: "a", Content: "2", Group: "g"}, pb.ConfigurationItem{Key: "a", Content: "3", Group: "g", Label: "l"},
		pb.ConfigurationItem{Key: "a", Content: "4", Label: "l"}, pb.ConfigurationItem{Key: "b", Content: "5", Group: "default"})
	for want, got := range map[string]string{
		"a=1 tags map[env:prod] metadata map[by:Ann]; b=5": get("", " ", "a", "b"),
		"a=2 group g":         get("g", "default", "a"),
		"a=3 group g label l": get("g", "l", "a"),
		"a=4 label l":         get("", "l", "a"),
		"":                    get("h", "", "a"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got, want := get("g", ""), "a=2 group g"; got != want { // all of the place
		t.Errorf("all of a group: %q, want %q", got, want)
	}

	seen := newJournal()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	begun, over := make(chan struct{}), make(chan error, 1)
	w.Go(func(task loam.Task) {
		req := new(loam.Request)
		req.Begin(task)
		defer req.End()
		context.AfterFunc(ctx, task.Cancel)
		st := w.client.Open(req, pb.MethodRuntimeSubscribeConfiguration)
		defer st.Close()
		for _, group := range []string{"", "g"} {
			if err := st.Send(&pb.SubscribeConfigurationRequest{StoreName: store, AppId: "js-sdk", Keys: []string{"a"}, Group: group}); err != nil {
				over <- err
				return
			}
		}
		close(begun)
		for {
			var out pb.SubscribeConfigurationResponse
			if err := st.Recv(&out); err != nil {
				over <- err
				return
			}
			for _, it := range out.Items {
				seen.add(out.StoreName + " " + describe([]pb.ConfigurationItem{it}))
			}
		}
	})
	<-begun
	// Nothing says when the watch has begun: changes are made until they are seen.
	until(t, seen, func(i int) {
		save(pb.ConfigurationItem{Key: "a", Content: fmt.Sprint("n", i)}, pb.ConfigurationItem{Key: "a", Group: "g", Content: fmt.Sprint("m", i)}, pb.ConfigurationItem{Key: "z", Content: "?"})
	}, "config_demo a=n", "config_demo a=m")
	stop()
	<-over

	works(t, w.call(t, pb.MethodRuntimeDeleteConfiguration, &pb.DeleteConfigurationRequest{StoreName: store, Keys: []string{"a"}}, &pb.Empty{}))
	save(pb.ConfigurationItem{Key: "a", Group: "g"}) // no content: it is taken away
	if got := get("", "", "a") + get("g", "", "a"); got != "" {
		t.Errorf("what was deleted is there: %s", got)
	}
	fails(t, w.call(t, pb.MethodRuntimeGetConfiguration, &pb.GetConfigurationRequest{StoreName: "none"}, &pb.GetConfigurationResponse{}), loam.InvalidArgument, "configure store [none] don't support now")
	fails(t, w.call(t, pb.MethodRuntimeGetConfiguration, &pb.GetConfigurationRequest{StoreName: store, Group: "a||b"}, &pb.GetConfigurationResponse{}), loam.InvalidArgument, "can't contain")
	w.do(t, func(req *loam.Request) {
		st := w.client.Open(req, pb.MethodRuntimeSubscribeConfiguration)
		defer st.Close()
		works(t, st.Send(&pb.SubscribeConfigurationRequest{StoreName: "none"}))
		fails(t, st.Recv(&pb.SubscribeConfigurationResponse{}), loam.InvalidArgument, "configure store [none] don't support now")
	})
	w.do(t, func(req *loam.Request) { // a stream that asks for nothing ends well
		st := w.client.Open(req, pb.MethodRuntimeSubscribeConfiguration)
		defer st.Close()
		st.CloseSend()
		if err := st.Recv(&pb.SubscribeConfigurationResponse{}); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
	w.do(t, func(req *loam.Request) { // and one that asks for too much does not
		st := w.client.Open(req, pb.MethodRuntimeSubscribeConfiguration)
		defer st.Close()
		for range 100 {
			if st.Send(&pb.SubscribeConfigurationRequest{StoreName: store, Keys: []string{"a"}}) != nil {
				break
			}
		}
		fails(t, st.Recv(&pb.SubscribeConfigurationResponse{}), loam.ResourceExhausted, "at most 64 times")
	})
}

// until does something again and again until a journal has an entry that begins with each of the words.
func until(t *testing.T, seen *journal, do func(i int), words ...string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for i := 0; ; i++ {
		do(i)
		seen.mu.Lock()
		entries := slices.Clone(seen.entries)
		seen.mu.Unlock()
		missing := slices.DeleteFunc(slices.Clone(words), func(word string) bool {
			return slices.ContainsFunc(entries, func(e string) bool { return strings.HasPrefix(e, word) })
		})
		if len(missing) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("it was never seen: %q; seen: %q", missing, entries)
		}
	}
}

func describe(items []pb.ConfigurationItem) string {
	var list []string
	for _, it := range items {
		s := it.Key + "=" + it.Content
		if it.Group != "" {
			s += " group " + it.Group
		}
		if it.Label != "" {
			s += " label " + it.Label
		}
		if it.Tags != nil {
			s += fmt.Sprint(" tags ", it.Tags)
		}
		if it.Metadata != nil {
			s += fmt.Sprint(" metadata ", it.Metadata)
		}
		list = append(list, s)
	}
	return strings.Join(list, "; ")
}

func TestSecrets(t *testing.T) {
	w := newWorld(t, nil)
	var one pb.GetSecretResponse
	works(t, w.call(t, pb.MethodRuntimeGetSecret, &pb.GetSecretRequest{StoreName: "secret_demo", Key: "db"}, &one))
	if one.Data["user"] != "loam" || one.Data["password"] != "hush" {
		t.Errorf("%+v", one)
	}
	var all pb.GetBulkSecretResponse
	works(t, w.call(t, pb.MethodRuntimeGetBulkSecret, &pb.GetBulkSecretRequest{StoreName: "secret_demo"}, &all))
	if all.Data["db"].Secrets["password"] != "hush" {
		t.Errorf("%+v", all)
	}
	fails(t, w.call(t, pb.MethodRuntimeGetSecret, &pb.GetSecretRequest{StoreName: "none", Key: "db"}, &one), loam.InvalidArgument, "error when get secret but not find : none")
	fails(t, w.call(t, pb.MethodRuntimeGetSecret, &pb.GetSecretRequest{StoreName: "secret_demo", Key: "none"}, &one), loam.NotFound, "error when get secret : secret name => none,store name =>secret_demo,error => ")
	delete(w.set.known, "secret/secret_demo")
	fails(t, w.call(t, pb.MethodRuntimeGetBulkSecret, &pb.GetBulkSecretRequest{StoreName: "secret_demo"}, &all), loam.FailedPrecondition, "error when get secret but not find configured")
}

func TestBinding(t *testing.T) {
	w := newWorld(t, nil)
	var out pb.InvokeBindingResponse
	works(t, w.call(t, pb.MethodRuntimeInvokeBinding, &pb.InvokeBindingRequest{Name: "bindings_demo", Operation: "get", Data: []byte("ok"), Metadata: map[string]string{"token": "1"}}, &out))
	if string(out.Data) != "ok" || out.Metadata["statusCode"] != "200" {
		t.Errorf("%+v", out)
	}
	fails(t, w.call(t, pb.MethodRuntimeInvokeBinding, &pb.InvokeBindingRequest{Name: "none", Operation: "get"}, &out), loam.InvalidArgument, "error when invoke output binding none: couldn't find output binding none")
	fails(t, w.call(t, pb.MethodRuntimeInvokeBinding, &pb.InvokeBindingRequest{Name: "bindings_demo", Operation: "sing"}, &out), loam.InvalidArgument, "error when invoke output binding bindings_demo: ")
}

func TestInvoke(t *testing.T) {
	w := newWorld(t, nil)
	w.set.apps["HelloService:1.0"] = loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		for _, no := range []string{"te", ":authority", "content-length", "grpc-timeout", "user-agent"} {
			if req.Header.Has(no) {
				t.Errorf("%s was passed on", no)
			}
		}
		var body []byte
		if req.Body != nil {
			body, _ = io.ReadAll(req.Body)
		}
		if req.Path == "/fail" {
			return loam.NewResponse(404, "text/plain", []byte("no such page")), nil
		}
		if req.Path == "/large" {
			return loam.NewResponse(200, "text/plain", bytes.Repeat([]byte("x"), 5<<20)), nil
		}
		res := loam.NewResponse(200, "text/plain", fmt.Appendf(nil, "%s %s?%s %s %s trace %s from %s", req.Method, req.Path, req.RawQuery, req.Header.Get("content-type"), body, req.Header.Get("traceid"), req.Caller.Name))
		res.Header.Add("X-Said", "so")
		return res, nil
	})
	var out pb.InvokeResponse
	in := &pb.InvokeServiceRequest{Id: "HelloService:1.0", Message: &pb.CommonInvokeRequest{
		Method: "/hello", Data: &pb.Any{Value: []byte("hi")}, ContentType: "text/x", HttpExtension: &pb.HTTPExtension{Verb: pb.HTTPExtension_PUT, Querystring: "a=b"},
	}}
	works(t, w.call(t, pb.MethodRuntimeInvokeService, in, &out, loam.Field{Name: "traceid", Value: "7"}))
	if got, want := string(out.Data.Value), "PUT /hello?a=b text/x hi trace 7 from app1"; got != want || out.ContentType != "text/plain" {
		t.Errorf("%q of %s, want %q", got, out.ContentType, want)
	}
	out = pb.InvokeResponse{}
	works(t, w.call(t, pb.MethodRuntimeInvokeService, &pb.InvokeServiceRequest{Id: in.Id, Message: &pb.CommonInvokeRequest{Method: "hello?x=y"}}, &out))
	if got, want := string(out.Data.Value), "GET /hello?x=y   trace  from app1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	invoke := func(id string, m *pb.CommonInvokeRequest) error {
		return w.call(t, pb.MethodRuntimeInvokeService, &pb.InvokeServiceRequest{Id: id, Message: m}, &pb.InvokeResponse{})
	}
	fails(t, invoke(in.Id, &pb.CommonInvokeRequest{Method: "/fail"}), loam.Unavailable, "http response code 404, body: no such page")
	fails(t, invoke(in.Id, &pb.CommonInvokeRequest{Method: "/large"}), loam.ResourceExhausted, "larger than 4194304 bytes")
	fails(t, invoke("none", &pb.CommonInvokeRequest{Method: "/"}), loam.Unavailable, "app none is not known")
	fails(t, invoke("", &pb.CommonInvokeRequest{Method: "/"}), loam.InvalidArgument, "no id")
	fails(t, invoke(in.Id, nil), loam.InvalidArgument, "no message")
	for _, path := range []string{"/a b", "/a\r\nx: y", "/a#b", "/" + strings.Repeat("x", 20<<10)} {
		fails(t, invoke(in.Id, &pb.CommonInvokeRequest{Method: path}), loam.InvalidArgument, "percent signs")
	}
	fails(t, invoke(in.Id, &pb.CommonInvokeRequest{Method: "/", ContentType: "a\nb"}), loam.InvalidArgument, "control character")
	for _, verb := range []pb.HTTPExtension_Verb{pb.HTTPExtension_CONNECT, 77, -1} {
		fails(t, invoke(in.Id, &pb.CommonInvokeRequest{Method: "/", HttpExtension: &pb.HTTPExtension{Verb: verb}}), loam.InvalidArgument, "cannot be called")
	}
}
