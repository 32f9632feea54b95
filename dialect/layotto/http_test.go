package layotto_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/dialect/layotto"
	"github.com/loam-run/loam/protocol/grpc"
)

// ask sends a request to the actuator.
func ask(t testing.TB, api *layotto.API, method, path, body string) (int, string) {
	t.Helper()
	req := loam.NewRequest(t.Context())
	defer req.Release()
	req.Method, req.Path = method, path
	if body != "" {
		req.Body, req.Length = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	res, err := api.HTTP().Serve(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.Status, string(b)
}

func TestActuator(t *testing.T) {
	var lacks error
	levels := map[string]string{}
	w := newWorld(t, func(o *dialect.Options) {
		o.Healthy = func() error { return lacks }
		o.SetLevel = func(component, level string) error {
			if level == "LOUD" {
				return loam.Errorf(loam.InvalidArgument, "log", "level %q: DEBUG, INFO, WARN or ERROR", level)
			}
			levels[component] = level
			return nil
		}
	})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/actuator/health/liveness", "", 200, `{"status":"UP","components":{"runtime_startup":{"status":"UP","details":{"reason":""}}}}`},
		{"GET", "/actuator/health/readiness", "", 200, `{"status":"UP","components":{"runtime_startup":{"status":"UP","details":{"reason":""}}}}`},
		{"GET", "/actuator/health/readiness/", "", 200, `{"status":"UP","components":{"runtime_startup":{"status":"UP","details":{"reason":""}}}}`},
		{"GET", "/actuator/health/other", "", 503, `{}`},
		{"GET", "/actuator/health", "", 503, `{}`},
		{"GET", "/actuator/info", "", 200, `{"app":{"name":"Loam","version":"1.2.3"}}`},
		{"GET", "/actuator/none", "", 404, ``},
		{"GET", "/wasm/install", "", 404, ``},
		{"GET", "/", "", 404, ``},
		{"POST", "/actuator/info", "", 405, ``},
		{"GET", "/actuator/logger", "", 405, ``},
		{"POST", "/actuator/logger", `{"component":"state","level":"DEBUG"}`, 200, `{}`},
		{"POST", "/actuator/logger", `{"component":"state","level":"LOUD"}`, 400, `{"error":"log: invalid argument: level \"LOUD\": DEBUG, INFO, WARN or ERROR"}`},
		{"POST", "/actuator/logger", `nonsense`, 400, `{"error":"the body is JSON: {component, level}"}`},
		{"POST", "/actuator/logger", strings.Repeat(" ", 100<<10), 413, ``},
	} {
		if status, body := ask(t, w.api, c.method, c.path, c.body); status != c.status || body != c.want {
			t.Errorf("%s %s %.40s: %d %s, want %d %s", c.method, c.path, c.body, status, body, c.status, c.want)
		}
	}
	if levels["state"] != "DEBUG" {
		t.Error(levels)
	}
	lacks = loam.Errorf(loam.Unavailable, "component redis", "it did not open")
	if status, body := ask(t, w.api, "GET", "/actuator/health/readiness", ""); status != 503 || !strings.Contains(body, `"status":"DOWN"`) || !strings.Contains(body, "component redis: unavailable: it did not open") {
		t.Errorf("%d %s", status, body)
	}
	lacks = errors.New("a password is in here")
	if _, body := ask(t, w.api, "GET", "/actuator/health/readiness", ""); strings.Contains(body, "password") {
		t.Error(body)
	}
	if status, _ := ask(t, w.api, "GET", "/actuator/health/liveness", ""); status != 200 {
		t.Errorf("%d: a new process would lack the same", status)
	}
	plain := newWorld(t, nil)
	if status, _ := ask(t, plain.api, "POST", "/actuator/logger", `{"component":"state","level":"DEBUG"}`); status != 501 {
		t.Errorf("%d: it was not done", status)
	}
}

// Calls of other services go on to who serves them.
func TestThen(t *testing.T) {
	w := newWorld(t, nil)
	next := &grpc.Server{Methods: map[string]grpc.Method{"/other.Service/Say": grpc.Unary(func(*grpc.Call, *grpc.Raw) (*grpc.Raw, error) {
		out := grpc.Raw("said")
		return &out, nil
	})}}
	both := &grpc.Client{Target: w.api.Then(next)}
	w.do(t, func(req *loam.Request) {
		var out grpc.Raw
		in := grpc.Raw("x")
		works(t, both.Call(req, "/other.Service/Say", &in, &out, nil))
		if string(out) != "said" {
			t.Errorf("%q", out)
		}
		works(t, both.Call(req, pb.MethodRuntimeSayHello, &pb.SayHelloRequest{}, &pb.SayHelloResponse{}, nil))
		fails(t, both.Call(req, "/other.Service/Sing", &in, &out, nil), loam.Unimplemented, "unknown method Sing")
	})
	fails(t, w.call(t, "/spec.proto.runtime.v1.Runtime/Sing", &pb.Empty{}, &pb.Empty{}), loam.Unimplemented, "unknown method Sing for service spec.proto.runtime.v1.Runtime")
	fails(t, w.call(t, "/dapr.proto.runtime.v1.Dapr/GetState", &pb.Empty{}, &pb.Empty{}), loam.Unimplemented, "unknown service dapr.proto.runtime.v1.Dapr")
}

// What is no message, or too large a one, is told, and nothing else happens.
func TestWrongMessages(t *testing.T) {
	w := newWorld(t, func(o *dialect.Options) { o.App.MaxBody = 10_000 })
	for _, method := range []string{pb.MethodRuntimeGetState, pb.MethodRuntimeSaveState, pb.MethodRuntimeInvokeService, pb.MethodObjectStorageServiceListObjects} {
		for _, wrong := range []string{"\xff\xff\xff", "\x0a\xff\xff\xff\xff\x0f", "\x08\x01", "\x0a\x02\xff\xfe", strings.Repeat("\x0a\x00", 100) + "\x0b"} {
			raw := grpc.Raw(wrong)
			if err := w.call(t, method, &raw, &grpc.Raw{}); err == nil {
				t.Errorf("%s takes %q", method, wrong)
			}
		}
		large := grpc.Raw(strings.Repeat("\x0a\x00", 10_000))
		fails(t, w.call(t, method, &large, &grpc.Raw{}), loam.ResourceExhausted, "at most 10000 are taken")
	}
}

// FuzzCalls has strangers' bytes for every method of one message: it answers, and nothing breaks.
func FuzzCalls(f *testing.F) {
	w := newWorld(f, nil)
	w.set.apps["echo"] = loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		for _, h := range req.Header {
			if strings.ContainsAny(h.Value, "\r\n\x00") {
				f.Errorf("header %s: %q", h.Name, h.Value)
			}
		}
		if strings.ContainsAny(req.Path+req.RawQuery+req.Method, " \r\n\x00") {
			f.Errorf("%s %s?%s", req.Method, req.Path, req.RawQuery)
		}
		return loam.NewResponse(200, "", nil), nil
	})
	methods := []string{
		pb.MethodRuntimeSayHello, pb.MethodRuntimeInvokeService, pb.MethodRuntimeGetConfiguration, pb.MethodRuntimeSaveConfiguration,
		pb.MethodRuntimeDeleteConfiguration, pb.MethodRuntimeTryLock, pb.MethodRuntimeUnlock, pb.MethodRuntimeLockKeepAlive, pb.MethodRuntimeGetNextId,
		pb.MethodRuntimeGetState, pb.MethodRuntimeGetBulkState, pb.MethodRuntimeSaveState, pb.MethodRuntimeDeleteState, pb.MethodRuntimeDeleteBulkState,
		pb.MethodRuntimeExecuteStateTransaction, pb.MethodRuntimePublishEvent, pb.MethodRuntimeListFile, pb.MethodRuntimeDelFile, pb.MethodRuntimeGetFileMeta,
		pb.MethodRuntimeInvokeBinding, pb.MethodRuntimeGetSecret, pb.MethodRuntimeGetBulkSecret, pb.MethodLifecycleApplyConfiguration,
		pb.MethodObjectStorageServiceDeleteObject, pb.MethodObjectStorageServiceCopyObject, pb.MethodObjectStorageServiceListObjects,
		pb.MethodObjectStorageServiceHeadObject, pb.MethodObjectStorageServiceListParts, pb.MethodObjectStorageServiceListMultipartUploads,
		pb.MethodCryptionServiceEncrypt, pb.MethodCryptionServiceDecrypt, pb.MethodDelayQueuePublishDelayMessage,
		pb.MethodRuntimeGetFile, pb.MethodRuntimePutFile, pb.MethodRuntimeSubscribeTopicEvents, pb.MethodRuntimeSubscribeConfiguration,
		pb.MethodObjectStorageServicePutObject, pb.MethodObjectStorageServiceGetObject, pb.MethodObjectStorageServiceUploadPart, pb.MethodObjectStorageServiceAppendObject,
	}
	direct := &grpc.Client{Target: w.api.GRPC()}
	for i := range methods {
		f.Add(byte(i), []byte("\x0a\x0astate_demo\x12\x03a/b\x1a\x03x=y"))
	}
	f.Add(byte(1), (&pb.InvokeServiceRequest{Id: "echo", Message: &pb.CommonInvokeRequest{Method: "/a", ContentType: "b", HttpExtension: &pb.HTTPExtension{Verb: 3, Querystring: "c=d"}}}).AppendProto(nil))
	f.Add(byte(11), (&pb.SaveStateRequest{StoreName: "state_demo", States: []pb.StateItem{{Key: "a", Etag: &pb.Etag{Value: "0"}, Options: &pb.StateOptions{Concurrency: 1}}}}).AppendProto(nil))
	f.Add(byte(17), (&pb.DelFileRequest{Request: &pb.FileRequest{StoreName: "file_demo", Name: "../x"}}).AppendProto(nil))
	f.Add(byte(33), (&pb.PutFileRequest{StoreName: "file_demo", Name: "a/b", Data: []byte("x")}).AppendProto(nil))
	f.Fuzz(func(t *testing.T, method byte, in []byte) {
		name := methods[int(method)%len(methods)]
		w.do(t, func(req *loam.Request) {
			cs := direct.Open(req, name)
			defer cs.Close()
			raw := grpc.Raw(in)
			_ = cs.Send(&raw) // it may be refused before it was taken
			cs.CloseSend()
			for range 100 {
				var out grpc.Raw
				if cs.Recv(&out) != nil {
					break
				}
			}
		})
	})
}

func BenchmarkGetState(b *testing.B) {
	w := newWorld(b, nil)
	s := must(must(w.set.State("state_demo"))(b).For("app1", ""))(b)
	if _, err := s.Apply(b.Context(), everything("app1"), []state.Op{{Key: "key", Value: []byte("value")}}, nil, nil); err != nil {
		b.Fatal(err)
	}
	direct := &grpc.Client{Target: w.api.GRPC()}
	b.ReportAllocs()
	w.do(b, func(req *loam.Request) {
		var in, out = pb.GetStateRequest{StoreName: "state_demo", Key: "key"}, pb.GetStateResponse{}
		for b.Loop() {
			if err := direct.Call(req, pb.MethodRuntimeGetState, &in, &out, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
