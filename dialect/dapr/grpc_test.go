package dapr

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/dapr"
	"github.com/loam-run/loam/api/reflection"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/internal/protowire"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http2"
)

// call calls a method of the service, past any socket.
func (a *API) call(t testing.TB, method string, in, out grpc.Message, headers ...string) error {
	t.Helper()
	req := loam.NewRequest(t.Context())
	defer req.Release()
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	if !strings.HasPrefix(method, "/") {
		method = service + method
	}
	return (&grpc.Client{Target: a.GRPC()}).Call(req, method, in, out, nil)
}

// stream opens one over a connection; the test's goroutine is its task.
func (a *API) stream(t testing.TB, method string) *grpc.ClientStream {
	t.Helper()
	return streamOf(t, a.GRPC(), service+method)
}

func streamOf(t testing.TB, target loam.Target, path string) *grpc.ClientStream {
	t.Helper()
	e := loop.New(loop.Options{Goroutines: true})
	hub := http2.NewHub(e)
	server := http2.NewServer(target, http2.ServerConfig{Options: protocol.Options{Log: slog.New(slog.DiscardHandler)}, Hub: hub})
	l, err := e.Listen(t.Context(), "tcp", "127.0.0.1:0", loop.ListenOptions{Open: func(c loop.Conn) loop.Session { return server.Session(c, nil, nil, nil) }})
	if err != nil {
		t.Fatal(err)
	}
	client := http2.NewClient(l.Addr().String(), http2.ClientConfig{Hub: hub})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	st := (&grpc.Client{Target: client}).Open(loam.NewRequest(ctx), path)
	t.Cleanup(func() {
		st.Close()
		cancel()
		client.Close()
		if err := errors.Join(l.Stop(), e.Close()); err != nil {
			t.Error(err)
		}
	})
	return st
}

func status(t testing.TB, err error) *grpc.Status {
	t.Helper()
	var s *grpc.Status
	if !errors.As(err, &s) {
		t.Fatalf("no status: %v", err)
	}
	return s
}

func TestGRPCState(t *testing.T) {
	a := newAPI(t, nil)
	var none pb.Empty
	save := func(items ...pb.StateItem) error {
		return a.call(t, "SaveState", &pb.SaveStateRequest{StoreName: "store", States: items}, &none)
	}
	get := func(key string) *pb.GetStateResponse {
		t.Helper()
		var out pb.GetStateResponse
		if err := a.call(t, "GetState", &pb.GetStateRequest{StoreName: "store", Key: key, Consistency: pb.StateOptions_CONSISTENCY_STRONG}, &out); err != nil {
			t.Fatal(err)
		}
		return &out
	}
	if out := get("a"); out.Etag != "" || len(out.Data) > 0 {
		t.Errorf("there is %+v", out)
	}
	if err := save(pb.StateItem{Key: "a", Value: []byte{0, 255}, Metadata: map[string]string{"ttlInSeconds": "60"}}, pb.StateItem{Key: "b", Value: []byte("2")}); err != nil {
		t.Fatal(err)
	}
	first := get("a")
	if !bytes.Equal(first.Data, []byte{0, 255}) || first.Etag == "" || first.Metadata["ttlExpireTime"] == "" {
		t.Errorf("%+v", first)
	}
	if err := save(pb.StateItem{Key: "a", Value: []byte("3"), Etag: &pb.Etag{Value: "wrong"}}); loam.CodeOf(err) != loam.Aborted || !strings.Contains(err.Error(), "possible etag mismatch") {
		t.Errorf("a wrong ETag: %v", err)
	}
	if err := save(pb.StateItem{Key: "a", Value: []byte("3"), Options: &pb.StateOptions{Concurrency: pb.StateOptions_CONCURRENCY_FIRST_WRITE}}); loam.CodeOf(err) != loam.Aborted {
		t.Errorf("a first write of what is there: %v", err)
	}
	if err := save(pb.StateItem{Key: "a", Value: []byte("3"), Etag: &pb.Etag{Value: first.Etag}}); err != nil {
		t.Error(err)
	}
	if err := save(pb.StateItem{Value: []byte("3")}); loam.CodeOf(err) != loam.InvalidArgument || status(t, err).Message != "state key cannot be empty" {
		t.Errorf("an empty key: %v", err)
	}
	var bulk pb.GetBulkStateResponse
	if err := a.call(t, "GetBulkState", &pb.GetBulkStateRequest{StoreName: "store", Keys: []string{"a", "none", "b"}}, &bulk); err != nil {
		t.Fatal(err)
	}
	if len(bulk.Items) != 3 || string(bulk.Items[0].Data) != "3" || bulk.Items[1].Key != "none" || bulk.Items[1].Etag != "" || string(bulk.Items[2].Data) != "2" {
		t.Errorf("%+v", bulk.Items)
	}
	if err := a.call(t, "DeleteState", &pb.DeleteStateRequest{StoreName: "store", Key: "a", Etag: &pb.Etag{Value: first.Etag}}, &none); loam.CodeOf(err) != loam.Aborted {
		t.Errorf("deleted with an old ETag: %v", err)
	}
	if err := a.call(t, "DeleteBulkState", &pb.DeleteBulkStateRequest{StoreName: "store", States: []pb.StateItem{{Key: "a"}, {Key: "b"}}}, &none); err != nil {
		t.Error(err)
	}
	transaction := &pb.ExecuteStateTransactionRequest{StoreName: "store", Operations: []pb.TransactionalStateOperation{
		{OperationType: "upsert", Request: &pb.StateItem{Key: "x", Value: []byte("1")}}, {OperationType: "upsert", Request: &pb.StateItem{Key: "y", Value: []byte("1")}},
		{OperationType: "delete", Request: &pb.StateItem{Key: "x"}},
	}}
	if err := a.call(t, "ExecuteStateTransaction", transaction, &none); err != nil {
		t.Fatal(err)
	}
	if x, y := get("x"), get("y"); x.Etag != "" || string(y.Data) != "1" {
		t.Errorf("after the transaction: %+v, %+v", x, y)
	}
	transaction.Operations[0].OperationType = "list"
	if err := a.call(t, "ExecuteStateTransaction", transaction, &none); loam.CodeOf(err) != loam.Unimplemented {
		t.Errorf("an unknown operation: %v", err)
	}
	// What HTTP saved gRPC reads, and the other way round.
	do(t, a.HTTP(), "POST", "/v1.0/state/store", `[{"key":"both","value":{"n":1}}]`)
	if out := get("both"); string(out.Data) != `{"n":1}` {
		t.Errorf("%s", out.Data)
	}
}

// Statuses have Dapr's codes, words and details.
func TestGRPCErrors(t *testing.T) {
	a := newAPI(t, nil)
	none := newAPI(t, func(o *dialect.Options, _ *Settings) { o.Capabilities = &components{} })
	var out grpc.Raw
	for _, c := range []struct {
		a       *API
		method  string
		in      grpc.Message
		code    loam.Code
		message string
		reason  string // of the ErrorInfo; "": there is none
	}{
		{a, "GetState", &pb.GetStateRequest{StoreName: "nope"}, loam.InvalidArgument, "state store nope is not found", "DAPR_STATE_NOT_FOUND"},
		{none, "GetState", &pb.GetStateRequest{StoreName: "nope"}, loam.FailedPrecondition, "state store nope is not configured", "DAPR_STATE_NOT_CONFIGURED"},
		{a, "GetState", &pb.GetStateRequest{StoreName: "store", Key: "a||b"}, loam.InvalidArgument, "input key/keyPrefix 'a||b' can't contain '||'", "DAPR_STATE_ILLEGAL_KEY"},
		{a, "GetState", &pb.GetStateRequest{StoreName: "lost", Key: "a"}, loam.Unavailable, "state store lost is not available: state: unavailable: connection refused", "DAPR_STATE_NOT_CONFIGURED"},
		{a, "PublishEvent", &pb.PublishEventRequest{}, loam.InvalidArgument, "pubsub name is empty", "DAPR_PUBSUB_NAME_EMPTY"},
		{a, "PublishEvent", &pb.PublishEventRequest{PubsubName: "bus"}, loam.InvalidArgument, "topic is empty in pubsub bus", "DAPR_PUBSUB_TOPIC_NAME_EMPTY"},
		{a, "PublishEvent", &pb.PublishEventRequest{PubsubName: "nope", Topic: "t"}, loam.InvalidArgument, "pubsub nope is not found", "DAPR_PUBSUB_NOT_FOUND"},
		{a, "BulkPublishEvent", &pb.BulkPublishRequest{PubsubName: "bus", Topic: "t", Entries: []pb.BulkPublishRequestEntry{{}}}, loam.InvalidArgument, "error marshaling events to bytes for topic t pubsub bus. error: entryId is duplicated or not present for entry", "DAPR_PUBSUB_MARSHAL_EVENTS"},
		{a, "InvokeBinding", &pb.InvokeBindingRequest{Name: "nope", Operation: "get"}, loam.Internal, "error invoking output binding nope: couldn't find output binding nope", "ERR_INVOKE_OUTPUT_BINDING"},
		{a, "GetSecret", &pb.GetSecretRequest{StoreName: "nope"}, loam.InvalidArgument, "failed finding secret store with key nope", ""},
		{none, "GetSecret", &pb.GetSecretRequest{StoreName: "nope"}, loam.FailedPrecondition, "secret store is not configured", ""},
		{a, "GetConfiguration", &pb.GetConfigurationRequest{StoreName: "nope"}, loam.InvalidArgument, "configuration store nope not found", "ERR_CONFIGURATION_STORE_NOT_FOUND"},
		{a, "TryLockAlpha1", &pb.TryLockRequest{StoreName: "locks"}, loam.InvalidArgument, "ExpiryInSeconds is not positive in lock store locks", ""},
		{a, "ScheduleJob", &pb.ScheduleJobRequest{}, loam.InvalidArgument, "Job is empty", "DAPR_SCHEDULER_EMPTY"},
		{a, "ScheduleJobAlpha1", &pb.ScheduleJobRequest{Job: &pb.Job{}}, loam.InvalidArgument, "Name is empty", "DAPR_SCHEDULER_JOB_NAME_EMPTY"},
		{a, "SubtleEncryptAlpha1", &pb.SubtleEncryptRequest{ComponentName: "nope"}, loam.InvalidArgument, "crypto provider nope not found", ""},
		{a, "InvokeActor", &pb.Empty{}, loam.Unimplemented, "actors: not implemented by this runtime; docs/dapr.md lists what is", ""},
		{a, "StartWorkflowBeta1", &pb.Empty{}, loam.Unimplemented, "workflows: not implemented by this runtime; docs/dapr.md lists what is", ""},
		{a, "ConverseAlpha2", &pb.Empty{}, loam.Unimplemented, "conversation: not implemented by this runtime; docs/dapr.md lists what is", ""},
		{a, "Shutdown", &pb.Empty{}, loam.PermissionDenied, "this process is not the program's to end", ""},
		{a, "NoSuchMethod", &pb.Empty{}, loam.Unimplemented, "*", ""},
	} {
		err := c.a.call(t, c.method, c.in, &out)
		if err == nil {
			t.Errorf("%s: no error", c.method)
			continue
		}
		s := status(t, err)
		if s.Code != c.code || c.message != "*" && s.Message != c.message {
			t.Errorf("%s: %s: %q\nwant %s: %q", c.method, s.Code, s.Message, c.code, c.message)
		}
		reason := ""
		for _, d := range s.Details {
			if d.Type == "google.rpc.ErrorInfo" {
				f, _, err := protowire.Next(d.Value)
				if err != nil {
					t.Fatal(err)
				}
				reason = string(f.Data)
			}
		}
		if reason != c.reason {
			t.Errorf("%s: the reason is %q, not %q", c.method, reason, c.reason)
		}
	}
}

// A message that is no message, too large, or of the wrong kind is refused; the server lives on.
func TestGRPCHostile(t *testing.T) {
	a := newAPI(t, nil)
	var out grpc.Raw
	for _, m := range a.grpcMethods() {
		for _, in := range []grpc.Raw{{0xff}, bytes.Repeat([]byte{10, 0x80}, 100), {10, 3, 0xff, 0xfe, 0xfd}, bytes.Repeat([]byte{0}, 65<<10)} {
			if strings.Contains(m.name, "Subscribe") || strings.HasPrefix(m.name, "Encrypt") || strings.HasPrefix(m.name, "Decrypt") {
				continue // they take several
			}
			err := a.call(t, m.name, &in, &out)
			if err == nil && m.name != "GetMetadata" && m.name != "ListJobs" && m.name != "ListJobsAlpha1" {
				t.Errorf("%s took %.10x", m.name, in)
			}
		}
	}
	if err := a.call(t, "SaveState", &pb.SaveStateRequest{StoreName: "store", States: []pb.StateItem{{Key: "a\x00../b", Value: []byte("1")}}}, &out); err != nil {
		t.Error(err)
	}
}

// TestReflection: either port tells of its own service; test/sdk-dapr calls by what it is told.
func TestReflection(t *testing.T) {
	a := newAPI(t, nil)
	for name, target := range map[string]loam.Target{"dapr.proto.runtime.v1.Dapr": a.GRPC(), "dapr.proto.internals.v1.ServiceInvocation": a.Internal()} {
		st := streamOf(t, target, reflection.MethodServerReflectionServerReflectionInfo)
		var list, file reflection.ServerReflectionResponse
		if err := errors.Join(
			st.Send(&reflection.ServerReflectionRequest{ListServices: new(string)}), st.Recv(&list),
			st.Send(&reflection.ServerReflectionRequest{FileContainingSymbol: &name}), st.Recv(&file),
		); err != nil {
			t.Fatal(err)
		}
		if l := list.ListServicesResponse; l == nil || len(l.Service) != 3 || l.Service[0].Name != name {
			t.Errorf("it serves %+v, want %s", l, name)
		}
		if f := file.FileDescriptorResponse; f == nil || len(f.FileDescriptorProto) < 2 {
			t.Errorf("%s: %+v", name, file.ErrorResponse)
		}
	}
}

func TestGRPCToken(t *testing.T) {
	a := newAPI(t, func(o *dialect.Options, s *Settings) { o.App.APIToken = "t0ken" })
	in, out := &pb.GetStateRequest{StoreName: "store", Key: "k"}, &pb.GetStateResponse{}
	for headers, want := range map[string]loam.Code{"": loam.Unauthenticated, "dapr-api-token: wrong": loam.Unauthenticated, "dapr-api-token: t0ken": loam.OK} {
		if err := a.call(t, "GetState", in, out, headers); loam.CodeOf(err) != want {
			t.Errorf("%q: %v", headers, err)
		}
	}
	if err := a.call(t, "/x.Y/Z", in, out, "dapr-app-id: other"); loam.CodeOf(err) != loam.Unauthenticated {
		t.Errorf("a call to another app without a token: %v", err)
	}
}

func TestGRPCAccessRules(t *testing.T) {
	only := newAPI(t, func(_ *dialect.Options, s *Settings) { s.Allowed = []AccessRule{{"state", "v1", "grpc"}} })
	not := newAPI(t, func(_ *dialect.Options, s *Settings) { s.Denied = []AccessRule{{"state", "v1.0", "grpc"}} })
	var out grpc.Raw
	state, metadata := &pb.GetStateRequest{StoreName: "store", Key: "k"}, &pb.GetMetadataRequest{}
	if err := only.call(t, "GetState", state, &out); err != nil {
		t.Error(err)
	}
	if err := only.call(t, "GetMetadata", metadata, &out); loam.CodeOf(err) != loam.Unimplemented || status(t, err).Message != "Not Implemented" {
		t.Errorf("not allowed: %v", err)
	}
	if err := only.call(t, "InvokeService", metadata, &out); loam.CodeOf(err) != loam.Unimplemented {
		t.Errorf("not allowed: %v", err)
	}
	if err := not.call(t, "GetState", state, &out); loam.CodeOf(err) != loam.Unimplemented {
		t.Errorf("denied: %v", err)
	}
	if err := not.call(t, "GetMetadata", metadata, &out); err != nil {
		t.Error(err)
	}
}

func TestGRPCOthers(t *testing.T) {
	a := newAPI(t, nil)
	var none pb.Empty
	if err := a.call(t, "PublishEvent", &pb.PublishEventRequest{PubsubName: "bus", Topic: "t", Data: []byte(`{"a":1}`), DataContentType: "application/json"}, &none); err != nil {
		t.Error(err)
	}
	var bulk pb.BulkPublishResponse
	if err := a.call(t, "BulkPublishEventAlpha1", &pb.BulkPublishRequest{PubsubName: "bus", Topic: "t", Entries: []pb.BulkPublishRequestEntry{{EntryId: "1", Event: []byte("x"), ContentType: "text/plain"}}}, &bulk); err != nil || len(bulk.FailedEntries) > 0 {
		t.Errorf("%v, %+v", err, bulk)
	}
	var bound pb.InvokeBindingResponse
	if err := a.call(t, "InvokeBinding", &pb.InvokeBindingRequest{Name: "echo", Operation: "create", Data: []byte("x")}, &bound, "given: y", "traceparent: 00-1-2-01"); err != nil || string(bound.Data) != "x" || bound.Metadata["given"] != "y" || bound.Metadata["trace"] != "00-1-2-01" {
		t.Errorf("%v, %+v", err, bound)
	}
	var secret pb.GetSecretResponse
	if err := a.call(t, "GetSecret", &pb.GetSecretRequest{StoreName: "vault", Key: "token"}, &secret); err != nil || secret.Data["token"] != "s3cret" {
		t.Errorf("%v, %+v", err, secret)
	}
	var lock pb.TryLockResponse
	if err := a.call(t, "TryLockAlpha1", &pb.TryLockRequest{StoreName: "locks", ResourceId: "r", LockOwner: "me", ExpiryInSeconds: 10}, &lock); err != nil || !lock.Success {
		t.Errorf("%v, %+v", err, lock)
	}
	var unlock pb.UnlockResponse
	if err := a.call(t, "UnlockAlpha1", &pb.UnlockRequest{StoreName: "locks", ResourceId: "r", LockOwner: "you"}, &unlock); err != nil || unlock.Status != pb.UnlockResponse_LOCK_BELONGS_TO_OTHERS {
		t.Errorf("%v, %+v", err, unlock)
	}
	retries := uint32(2)
	job := &pb.Job{Name: "j", Schedule: optional("@every 1h"), Data: &pb.Any{TypeUrl: "x/y", Value: []byte{1}}, FailurePolicy: &pb.JobFailurePolicy{Constant: &pb.JobFailurePolicyConstant{Interval: &pb.Duration{Seconds: 2, Nanos: 5}, MaxRetries: &retries}}}
	if err := a.call(t, "ScheduleJob", &pb.ScheduleJobRequest{Job: job}, &none); err != nil {
		t.Fatal(err)
	}
	var got pb.GetJobResponse
	if err := a.call(t, "GetJobAlpha1", &pb.GetJobRequest{Name: "j"}, &got); err != nil || !bytes.Equal(got.Job.AppendProto(nil), job.AppendProto(nil)) {
		t.Errorf("%v, %+v", err, got.Job)
	}
	if r := do(t, a.HTTP(), "GET", "/v1.0/jobs/j", ""); !strings.Contains(r.body, `"data":{"@type":"x/y","value":"AQ=="}`) {
		t.Errorf("%s", r.body)
	}
	var list pb.ListJobsResponse
	if err := a.call(t, "ListJobs", &none, &list); err != nil || len(list.Jobs) != 1 {
		t.Errorf("%v, %+v", err, list)
	}
	if err := a.call(t, "DeleteJobsByPrefix", &pb.DeleteJobsByPrefixRequest{NamePrefix: optional("j")}, &none); err != nil {
		t.Error(err)
	}
	if err := a.call(t, "GetJob", &pb.GetJobRequest{Name: "j"}, &got); loam.CodeOf(err) != loam.Internal {
		t.Errorf("it is still there: %v", err)
	}
	if err := a.call(t, "SetMetadata", &pb.SetMetadataRequest{Key: "k", Value: "v"}, &none); err != nil {
		t.Error(err)
	}
	var metadata pb.GetMetadataResponse
	if err := a.call(t, "GetMetadata", &none, &metadata); err != nil || metadata.Id != "orders" || metadata.ExtendedMetadata["k"] != "v" || len(metadata.RegisteredComponents) == 0 || metadata.RuntimeVersion != RuntimeVersion {
		t.Errorf("%v, %+v", err, metadata)
	}
}

func TestGRPCCrypto(t *testing.T) {
	a := newAPI(t, nil)
	plain := bytes.Repeat([]byte("secret "), 40<<10)
	run := func(method string, in []byte, options func(first bool, p *pb.StreamPayload) grpc.Message, out func([]byte) *pb.StreamPayload) []byte {
		t.Helper()
		st := a.stream(t, method)
		sent := make(chan error, 1)
		go func() {
			task, end := loam.NewTask(t.Context())
			defer end()
			defer st.CloseSend()
			for seq := uint64(0); seq == 0 || len(in) > 0; seq++ {
				n := min(len(in), 10<<10)
				if err := st.SendIn(task, options(seq == 0, &pb.StreamPayload{Data: in[:n], Seq: seq})); err != nil {
					sent <- err
					return
				}
				in = in[n:]
			}
			sent <- nil
		}()
		var all []byte
		for seq := uint64(0); ; seq++ {
			var raw grpc.Raw
			err := st.Recv(&raw)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			p := out(raw)
			if p.Seq != seq {
				t.Fatalf("message %d has the number %d", seq, p.Seq)
			}
			all = append(all, p.Data...)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		return all
	}
	sealed := run("EncryptAlpha1", plain, func(first bool, p *pb.StreamPayload) grpc.Message {
		m := &pb.EncryptRequest{Payload: p}
		if first {
			m.Options = &pb.EncryptRequestOptions{ComponentName: "keys", KeyName: "rsa.pem", KeyWrapAlgorithm: "rsa"}
		}
		return m
	}, func(b []byte) *pb.StreamPayload {
		var m pb.EncryptResponse
		if err := m.ParseProto(b); err != nil {
			t.Fatal(err)
		}
		return m.Payload
	})
	opened := run("DecryptAlpha1", sealed, func(first bool, p *pb.StreamPayload) grpc.Message {
		m := &pb.DecryptRequest{Payload: p}
		if first {
			m.Options = &pb.DecryptRequestOptions{ComponentName: "keys"}
		}
		return m
	}, func(b []byte) *pb.StreamPayload {
		var m pb.DecryptResponse
		if err := m.ParseProto(b); err != nil {
			t.Fatal(err)
		}
		return m.Payload
	})
	if !bytes.Equal(opened, plain) {
		t.Errorf("%d bytes became %d", len(plain), len(opened))
	}
	for name, m := range map[string]*pb.EncryptRequest{
		"no options": {Payload: &pb.StreamPayload{}}, "no key": {Options: &pb.EncryptRequestOptions{ComponentName: "keys"}},
		"no such key":  {Options: &pb.EncryptRequestOptions{ComponentName: "keys", KeyName: "none", KeyWrapAlgorithm: "RSA"}},
		"wrong number": {Options: &pb.EncryptRequestOptions{ComponentName: "keys", KeyName: "rsa.pem", KeyWrapAlgorithm: "RSA"}, Payload: &pb.StreamPayload{Seq: 7, Data: []byte("x")}},
	} {
		st := a.stream(t, "EncryptAlpha1")
		if err := st.Send(m); err != nil {
			t.Fatal(err)
		}
		st.CloseSend()
		var out pb.EncryptResponse
		if err := st.Recv(&out); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGRPCSubscribeConfiguration(t *testing.T) {
	a := newAPI(t, nil)
	c, err := a.opts.Capabilities.Config("settings")
	if err != nil {
		t.Fatal(err)
	}
	set := func(key, value string) {
		t.Helper()
		if err := c.Set(t.Context(), a.opts.App.Caller, []config.Item{{Key: key, Value: value}}); err != nil {
			t.Fatal(err)
		}
	}
	set("color", "red")
	st := a.stream(t, "SubscribeConfiguration")
	if err := st.Send(&pb.SubscribeConfigurationRequest{StoreName: "settings", Keys: []string{"color"}}); err != nil {
		t.Fatal(err)
	}
	st.CloseSend()
	var m pb.SubscribeConfigurationResponse
	if err := st.Recv(&m); err != nil || m.Id == "" || len(m.Items) > 0 {
		t.Fatalf("%v, %+v", err, m)
	}
	id := m.Id
	set("other", "x")
	set("color", "blue")
	m = pb.SubscribeConfigurationResponse{}
	if err := st.Recv(&m); err != nil || m.Id != id || m.Items["color"].Value != "blue" || len(m.Items) != 1 {
		t.Fatalf("%v, %+v", err, m)
	}
	var done pb.UnsubscribeConfigurationResponse
	if err := a.call(t, "UnsubscribeConfiguration", &pb.UnsubscribeConfigurationRequest{StoreName: "settings", Id: id}, &done); err != nil || !done.Ok {
		t.Fatalf("%v, %+v", err, done)
	}
	if err := st.Recv(&m); !errors.Is(err, io.EOF) {
		t.Errorf("after it was unsubscribed: %v", err)
	}
	done = pb.UnsubscribeConfigurationResponse{}
	if err := a.call(t, "UnsubscribeConfigurationAlpha1", &pb.UnsubscribeConfigurationRequest{StoreName: "settings", Id: id}, &done); err != nil || done.Ok || done.Message != "failed to unsubscribe to configuration request "+id+": subscription does not exist" {
		t.Errorf("%v, %+v", err, done)
	}
}

func TestGRPCSubscribeTopicEvents(t *testing.T) {
	a := newAPI(t, nil)
	st := a.stream(t, "SubscribeTopicEventsAlpha1")
	dead := "lost"
	if err := st.Send(&pb.SubscribeTopicEventsRequestAlpha1{InitialRequest: &pb.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "bus", Topic: "news", DeadLetterTopic: &dead}}); err != nil {
		t.Fatal(err)
	}
	var m pb.SubscribeTopicEventsResponseAlpha1
	if err := st.Recv(&m); err != nil || m.InitialResponse == nil {
		t.Fatalf("%v, %+v", err, m)
	}
	if subs := a.subscriptions(); len(subs) != 1 || subs[0].Type != "STREAMING" || subs[0].Topic != "news" {
		t.Errorf("metadata tells %+v", subs)
	}
	do(t, a.HTTP(), "POST", "/v1.0/publish/bus/news?metadata.cloudevent.id=one", `{"n":1}`, "Content-Type: application/json", "traceparent: 00-1-2-01")
	m = pb.SubscribeTopicEventsResponseAlpha1{}
	if err := st.Recv(&m); err != nil || m.EventMessage == nil {
		t.Fatalf("%v, %+v", err, m)
	}
	e := m.EventMessage
	if e.Id != "one" || e.Topic != "news" || e.PubsubName != "bus" || string(e.Data) != `{"n":1}` || e.DataContentType != "application/json" || e.Source != "orders" || e.Type != "com.dapr.event.sent" || e.SpecVersion != "1.0" || e.Path != "/" {
		t.Errorf("%+v", e)
	}
	if v := e.Extensions.Fields["traceparent"].StringValue; v == nil || *v != "00-1-2-01" {
		t.Errorf("the trace is not told: %+v", e.Extensions)
	}
	// An event that is answered DROP goes to the dead letter topic, where another stream finds it.
	if err := st.Send(&pb.SubscribeTopicEventsRequestAlpha1{EventProcessed: &pb.SubscribeTopicEventsRequestProcessedAlpha1{Id: e.Id, Status: &pb.TopicEventResponse{Status: pb.TopicEventResponse_DROP}}}); err != nil {
		t.Fatal(err)
	}
	other := a.stream(t, "SubscribeTopicEventsAlpha1")
	if err := other.Send(&pb.SubscribeTopicEventsRequestAlpha1{InitialRequest: &pb.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "bus", Topic: "lost"}}); err != nil {
		t.Fatal(err)
	}
	m = pb.SubscribeTopicEventsResponseAlpha1{}
	if err := other.Recv(&m); err != nil {
		t.Fatal(err)
	}
	m = pb.SubscribeTopicEventsResponseAlpha1{}
	if err := other.Recv(&m); err != nil || m.EventMessage.Id != "one" {
		t.Fatalf("%v, %+v", err, m)
	}
	// A second initial request is refused, and ends the stream.
	if err := st.Send(&pb.SubscribeTopicEventsRequestAlpha1{InitialRequest: &pb.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "bus", Topic: "news"}}); err != nil {
		t.Fatal(err)
	}
	if err := st.Recv(&m); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("a second initial request: %v", err)
	}
	for _, in := range []*pb.SubscribeTopicEventsRequestInitialAlpha1{{Topic: "news"}, {PubsubName: "bus"}, {PubsubName: "nope", Topic: "news"}} {
		st := a.stream(t, "SubscribeTopicEventsAlpha1")
		if err := st.Send(&pb.SubscribeTopicEventsRequestAlpha1{InitialRequest: in}); err != nil {
			t.Fatal(err)
		}
		if err := st.Recv(&m); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%+v: %v", in, err)
		}
	}
}
