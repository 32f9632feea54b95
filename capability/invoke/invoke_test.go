package invoke

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/loop"
)

var caller = &loam.Caller{Name: "orders", Grants: []loam.Grant{
	{Capability: "invoke", Component: Component, Names: []string{"inventory", "self"}},
	{Capability: "invoke", Component: Component, Names: []string{"catalog"}, ReadOnly: true},
}}

// serving finds targets in a map.
func serving(targets map[string]loam.TargetFunc) *Invoker {
	return New(func(name string) (loam.Target, error) {
		if t, ok := targets[name]; ok {
			return t, nil
		}
		return nil, loam.Errorf(loam.NotFound, "invoke", "there is no %s", name)
	})
}

// echo answers with what came.
func echo(req *loam.Request) (*loam.Response, error) {
	body := []byte(nil)
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
	}
	r := loam.NewResponse(203, "text/plain", []byte(req.Method+" "+req.Path+" "+req.RawQuery+" "+req.Header.Get("x-y")+req.Header.Get("host")+" "+string(body)))
	r.Header.Add("X-Caller", req.Caller.Name)
	return r, nil
}

func TestCall(t *testing.T) {
	i := serving(map[string]loam.TargetFunc{"inventory": echo, "catalog": echo, "other": echo, "self": func(*loam.Request) (*loam.Response, error) {
		return nil, loam.Errorf(loam.Unavailable, "self", "it is overloaded")
	}})
	header := func(name, value string) []api.Header { return []api.Header{{Name: name, Value: value}} }
	for _, c := range []struct {
		call api.InvokeCallRequest
		code loam.Code
		body string
	}{
		{api.InvokeCallRequest{Target: "inventory"}, loam.OK, "GET /   "},
		{api.InvokeCallRequest{Target: "inventory", Path: "/a%20b?c=d", Body: []byte("x"), Headers: header("X-Y", "z")}, loam.OK, "POST /a%20b c=d z x"},
		{api.InvokeCallRequest{Target: "inventory", Method: "PUT", Headers: header("Host", "elsewhere")}, loam.OK, "PUT /   "},
		{api.InvokeCallRequest{Target: "catalog"}, loam.OK, "GET /   "},
		{api.InvokeCallRequest{Target: "catalog", Method: "DELETE"}, loam.PermissionDenied, ""},
		{api.InvokeCallRequest{Target: "other"}, loam.PermissionDenied, ""},
		{api.InvokeCallRequest{Target: "nobody"}, loam.PermissionDenied, ""},
		{api.InvokeCallRequest{Target: "self"}, loam.Unavailable, ""},
		{api.InvokeCallRequest{}, loam.InvalidArgument, ""},
		{api.InvokeCallRequest{Target: strings.Repeat("x", maxName+1)}, loam.InvalidArgument, ""},
		{api.InvokeCallRequest{Target: "inventory", TimeoutMs: -1}, loam.InvalidArgument, ""},
		{api.InvokeCallRequest{Target: "inventory", Method: "GET /\r\n"}, loam.InvalidArgument, ""},
		{api.InvokeCallRequest{Target: "inventory", Path: "inventory"}, loam.InvalidArgument, ""},
		{api.InvokeCallRequest{Target: "inventory", Path: "/a b"}, loam.InvalidArgument, ""},
		{api.InvokeCallRequest{Target: "inventory", Path: "/?a\r\nb"}, loam.InvalidArgument, ""},
		{api.InvokeCallRequest{Target: "inventory", Headers: header("a b", "")}, loam.InvalidArgument, ""},
		{api.InvokeCallRequest{Target: "inventory", Headers: header("", "")}, loam.InvalidArgument, ""},
		{api.InvokeCallRequest{Target: "inventory", Headers: header("a", "b\r\nc: d")}, loam.InvalidArgument, ""},
	} {
		out, err := i.Methods()["invoke.Call"](t.Context(), caller, c.call.AppendProto(nil))
		if loam.CodeOf(err) != c.code {
			t.Errorf("%+v: %v, want %v", c.call, err, c.code)
		}
		if err != nil {
			continue
		}
		var resp api.InvokeCallResponse
		if err := resp.ParseProto(out); err != nil {
			t.Fatal(err)
		}
		if resp.Status != 203 || string(resp.Body) != c.body || len(resp.Headers) != 2 || resp.Headers[1].Value != "orders" {
			t.Errorf("%+v: %d %q %v", c.call, resp.Status, resp.Body, resp.Headers)
		}
	}
	if _, err := i.Methods()["invoke.Call"](t.Context(), nil, (&api.InvokeCallRequest{Target: "inventory"}).AppendProto(nil)); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("no caller: %v", err)
	}
	if _, err := i.Methods()["invoke.Call"](t.Context(), caller, []byte("\xff")); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("no message: %v", err)
	}
}

// A function that calls itself comes to an end.
func TestDepth(t *testing.T) {
	calls := 0
	var i *Invoker
	i = serving(map[string]loam.TargetFunc{"self": func(req *loam.Request) (*loam.Response, error) {
		calls++
		resp, err := i.Call(req.Context(), req.Caller, &api.InvokeCallRequest{Target: "self"})
		if err != nil {
			return nil, err
		}
		return loam.NewResponse(int(resp.Status), "", resp.Body), nil
	}})
	_, err := i.Call(t.Context(), caller, &api.InvokeCallRequest{Target: "self"})
	if loam.CodeOf(err) != loam.ResourceExhausted || loam.HintOf(err) == "" || calls != MaxDepth {
		t.Errorf("%d calls: %v", calls, err)
	}
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := serving(map[string]loam.TargetFunc{"inventory": func(req *loam.Request) (*loam.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}})
		_, err := i.Call(t.Context(), caller, &api.InvokeCallRequest{Target: "inventory", TimeoutMs: 50})
		if loam.CodeOf(err) != loam.DeadlineExceeded {
			t.Error(err)
		}
	})
}

// A call in a task runs in another one of the same loop, with the same context, bounds and answers.
func TestCallWithin(t *testing.T) {
	e := loop.New(loop.Options{Loops: 1})
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	type key struct{}
	shards := make(chan int, MaxDepth+2)
	var i *Invoker
	i = serving(map[string]loam.TargetFunc{
		"inventory": func(req *loam.Request) (*loam.Response, error) {
			if req.Context().Value(key{}) != "mine" {
				return nil, loam.Errorf(loam.Internal, "inventory", "the context is another one")
			}
			shards <- req.Task().Shard()
			if req.Path == "/wait" {
				return nil, req.Task().Park(time.Time{})
			}
			return echo(req)
		},
		"self": func(req *loam.Request) (*loam.Response, error) {
			shards <- req.Task().Shard()
			_, err := i.CallWithin(req.Context(), req.Task(), req.Caller, &api.InvokeCallRequest{Target: "self"})
			return nil, err
		},
	})
	type answer struct {
		out   []byte
		err   error
		shard int
	}
	call := func(c *api.InvokeCallRequest) answer {
		t.Helper()
		answers := make(chan answer, 1)
		e.Go(func(task loam.Task) {
			ctx := context.WithValue(task.Context(), key{}, "mine")
			out, err := i.TaskMethods()["invoke.Call"](ctx, task, caller, c.AppendProto(nil))
			answers <- answer{out, err, task.Shard()}
		})
		a := <-answers
		for len(shards) > 0 {
			if s := <-shards; s != a.shard {
				t.Errorf("it ran in shard %d, and the caller in %d", s, a.shard)
			}
		}
		return a
	}
	a := call(&api.InvokeCallRequest{Target: "inventory", Path: "/a?b", Body: []byte("text")})
	var resp api.InvokeCallResponse
	if a.err != nil {
		t.Fatal(a.err)
	}
	if err := resp.ParseProto(a.out); err != nil || resp.Status != 203 || string(resp.Body) != "POST /a b  text" {
		t.Errorf("%v %d %q", err, resp.Status, resp.Body)
	}
	if a := call(&api.InvokeCallRequest{Target: "inventory", Path: "/wait", TimeoutMs: 50}); loam.CodeOf(a.err) != loam.DeadlineExceeded {
		t.Error(a.err)
	}
	if a := call(&api.InvokeCallRequest{Target: "self"}); loam.CodeOf(a.err) != loam.ResourceExhausted {
		t.Error(a.err)
	}
	if a := call(&api.InvokeCallRequest{Target: "other"}); loam.CodeOf(a.err) != loam.PermissionDenied {
		t.Error(a.err)
	}
	if a := call(&api.InvokeCallRequest{Target: "inventory", TimeoutMs: -1}); loam.CodeOf(a.err) != loam.InvalidArgument {
		t.Error(a.err)
	}
}

type endless struct{ closed *bool }

func (e endless) Read(b []byte) (int, error) { return len(b), nil }
func (e endless) Close() error               { *e.closed = true; return nil }

// An answer that is too large, or breaks off, is an error and not half an answer.
func TestAnswers(t *testing.T) {
	closed := false
	i := serving(map[string]loam.TargetFunc{
		"inventory": func(*loam.Request) (*loam.Response, error) {
			return &loam.Response{Length: -1, Body: endless{&closed}}, nil
		},
		"catalog": func(*loam.Request) (*loam.Response, error) {
			return &loam.Response{Length: 9, Body: io.NopCloser(io.MultiReader(strings.NewReader("half"), broken{}))}, nil
		},
		"self": func(*loam.Request) (*loam.Response, error) { return &loam.Response{}, nil },
	})
	call := func(name string) (*api.InvokeCallResponse, error) {
		return i.Call(t.Context(), caller, &api.InvokeCallRequest{Target: name})
	}
	if _, err := call("inventory"); loam.CodeOf(err) != loam.ResourceExhausted || !closed {
		t.Errorf("%v, closed: %t", err, closed)
	}
	if _, err := call("catalog"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if r, err := call("self"); err != nil || r.Status != 200 || r.Body != nil {
		t.Errorf("%+v %v", r, err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, context.Canceled }

// Whatever a guest sends, a request goes out only if an app could read it as one.
func FuzzCall(f *testing.F) {
	f.Add((&api.InvokeCallRequest{Target: "inventory", Path: "/a?b", Headers: []api.Header{{Name: "a", Value: "b"}}}).AppendProto(nil))
	i := serving(map[string]loam.TargetFunc{"inventory": func(req *loam.Request) (*loam.Response, error) {
		line := req.Method + req.Path + req.RawQuery
		for _, h := range req.Header {
			line += h.Name + h.Value
		}
		if strings.ContainsAny(line, "\r\n\x00") || req.Path[0] != '/' || req.Method == "" {
			panic(line)
		}
		return &loam.Response{}, nil
	}})
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = i.Methods()["invoke.Call"](t.Context(), caller, in)
	})
}
