package capability_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/capability/jobs"
	keyset "github.com/loam-run/loam/component/crypto"
	"github.com/loam-run/loam/component/localstorage"
	"github.com/loam-run/loam/component/memory"
)

// verbose is a binding whose answers are longer than anybody asked for.
type verbose struct{}

func (verbose) Close() error         { return nil }
func (verbose) Operations() []string { return nil }
func (verbose) Invoke(_ context.Context, r binding.Request) (binding.Response, error) {
	return binding.Response{Data: make([]byte, r.MaxAnswer+1)}, nil
}

// named finds the one component there is, by its name.
func named[C any](c C) func(string) (C, error) {
	return func(name string) (C, error) {
		if name != "c" {
			var none C
			return none, loam.Errorf(loam.NotFound, "find", "there is no component %q", name)
		}
		return c, nil
	}
}

// methods are those of components that are real.
func methods(t *testing.T) loam.Methods {
	t.Helper()
	dir := t.TempDir()
	files, err1 := localstorage.OpenStore(t.Context(), "c", localstorage.StoreConfig{Root: dir})
	keys, err2 := keyset.OpenSet(t.Context(), "c", keyset.SetConfig{Set: `{"keys": [{"kid": "k", "kty": "oct", "k": "b25seSBhbiBleGFtcGxlLCBuZXZlciBhIGtleSAxMTE"}]}`})
	kept, err3 := memory.New().OpenJobs(t.Context(), "c", memory.Config{})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(files.Close(), keys.Close(), kept.Close()); err != nil {
			t.Error(err)
		}
	})
	all := loam.Methods{}
	for _, m := range []loam.Methods{
		binding.Methods(named(binding.New("c", verbose{}))), crypto.Methods(named(crypto.New("c", keys))),
		file.Methods(named(file.New("c", files))), jobs.Methods(named(jobs.New("c", kept))),
	} {
		for name, do := range m {
			all[name] = do
		}
	}
	return all
}

// requests are one of each method, all of the name that is granted; with another component, each is NotFound.
func requests(component, name string) map[string]api.Message {
	return map[string]api.Message{
		"binding.Invoke":   &api.BindingInvokeRequest{Component: component, Operation: name},
		"crypto.Seal":      &api.CryptoSealRequest{Component: component, Key: name, Algorithm: "AES"},
		"crypto.Open":      &api.CryptoOpenRequest{Component: component, Key: name, Data: sealed},
		"crypto.Encrypt":   &api.CryptoEncryptRequest{Component: component, Key: name, Algorithm: "A256KW"},
		"crypto.Decrypt":   &api.CryptoDecryptRequest{Component: component, Key: name, Algorithm: "A256KW"},
		"crypto.Wrap":      &api.CryptoWrapRequest{Component: component, Key: name, Algorithm: "A256KW"},
		"crypto.Unwrap":    &api.CryptoUnwrapRequest{Component: component, Key: name, Algorithm: "A256KW"},
		"crypto.Sign":      &api.CryptoSignRequest{Component: component, Key: name, Algorithm: "EdDSA"},
		"crypto.Verify":    &api.CryptoVerifyRequest{Component: component, Key: name, Algorithm: "EdDSA"},
		"crypto.PublicKey": &api.CryptoPublicKeyRequest{Component: component, Key: name},
		"file.Put":         &api.FilePutRequest{Component: component, Name: name},
		"file.Append":      &api.FileAppendRequest{Component: component, Name: name},
		"file.Get":         &api.FileGetRequest{Component: component, Name: name},
		"file.Stat":        &api.FileStatRequest{Component: component, Name: name},
		"file.List":        &api.FileListRequest{Component: component, Prefix: name},
		"file.Delete":      &api.FileDeleteRequest{Component: component, Name: name},
		"jobs.Schedule":    &api.JobsScheduleRequest{Component: component, Jobs: []api.Job{{Name: name, Due: "1h"}}},
		"jobs.Get":         &api.JobsGetRequest{Component: component, Names: []string{name}},
		"jobs.Delete":      &api.JobsDeleteRequest{Component: component, Name: name},
	}
}

// sealed begins as a sealed message does, and is none.
var sealed = []byte("dapr.io/enc/v1\n{\"k\":\"k\",\"kw\":1,\"wfk\":\"AAAA\",\"cph\":1,\"np\":\"AAAAAAAAAA==\"}\nAAAA\n")

// No method does anything for who holds no grant for that name, in a component that is not there, or of a message that
// cannot be read; and a grant to read is none to write.
func TestMethodsAreGuarded(t *testing.T) {
	all := methods(t)
	granted := &loam.Caller{Name: "f", Grants: []loam.Grant{
		{Capability: "binding", Component: "c", Names: []string{"k"}}, {Capability: "crypto", Component: "c", Names: []string{"k"}},
		{Capability: "file", Component: "c", Names: []string{"k"}}, {Capability: "jobs", Component: "c", Names: []string{"k"}},
	}}
	reader := &loam.Caller{Name: "f"}
	for _, g := range granted.Grants {
		g.ReadOnly = true
		reader.Grants = append(reader.Grants, g)
	}
	writes := map[string]bool{"binding.Invoke": true, "file.Put": true, "file.Append": true, "file.Delete": true, "jobs.Schedule": true, "jobs.Delete": true}
	if n := len(requests("c", "k")); n != len(all) {
		t.Fatalf("%d methods, %d requests", len(all), n)
	}
	for method, do := range all {
		ask := func(caller *loam.Caller, m api.Message) loam.Code {
			_, err := do(t.Context(), caller, m.AppendProto(nil))
			return loam.CodeOf(err)
		}
		if code := ask(granted, requests("c", "other")[method]); code != loam.PermissionDenied {
			t.Errorf("%s of another name: %v", method, code)
		}
		for what, caller := range map[string]*loam.Caller{"nobody": nil, "without grants": {Name: "f"}} {
			if code := ask(caller, requests("c", "k")[method]); code != loam.PermissionDenied {
				t.Errorf("%s, %s: %v", method, what, code)
			}
		}
		if code := ask(granted, requests("gone", "k")[method]); code != loam.NotFound {
			t.Errorf("%s of a component that is not there: %v", method, code)
		}
		if code := ask(reader, requests("c", "k")[method]); (code == loam.PermissionDenied) != (writes[method] || method == "file.List") {
			t.Errorf("%s with a grant to read: %v", method, code)
		}
		if _, err := do(t.Context(), granted, []byte{0x0a, 0xff}); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s, unreadable: %v", method, err)
		}
	}
}

// What a message holds is bounded, whatever the component would do with it.
func TestMethodsAreBounded(t *testing.T) {
	all := methods(t)
	caller := &loam.Caller{Name: "f", Grants: []loam.Grant{{Capability: "*", Component: "*"}}}
	ask := func(method string, m api.Message) loam.Code {
		t.Helper()
		_, err := all[method](t.Context(), caller, m.AppendProto(nil))
		return loam.CodeOf(err)
	}
	piece := make([]byte, 12<<20)
	for i := range 2 {
		if code := ask("file.Append", &api.FileAppendRequest{Component: "c", Name: "large", Offset: int64(i * len(piece)), Data: piece}); code != loam.OK {
			t.Fatal(code)
		}
	}
	for what, c := range map[string]struct {
		method string
		req    api.Message
		want   loam.Code
	}{
		"a large object whole":    {"file.Get", &api.FileGetRequest{Component: "c", Name: "large"}, loam.ResourceExhausted},
		"its end":                 {"file.Get", &api.FileGetRequest{Component: "c", Name: "large", Offset: 12 << 20}, loam.OK},
		"a piece":                 {"file.Get", &api.FileGetRequest{Component: "c", Name: "large", Offset: 1 << 20, Length: file.MaxMessage}, loam.OK},
		"more than a piece":       {"file.Get", &api.FileGetRequest{Component: "c", Name: "large", Length: file.MaxMessage + 1}, loam.InvalidArgument},
		"less than nothing":       {"file.Get", &api.FileGetRequest{Component: "c", Name: "large", Length: -1}, loam.InvalidArgument},
		"past its end":            {"file.Get", &api.FileGetRequest{Component: "c", Name: "large", Offset: 24<<20 + 1}, loam.OutOfRange},
		"an end that is none":     {"file.Append", &api.FileAppendRequest{Component: "c", Name: "large", Offset: 5}, loam.FailedPrecondition},
		"a long answer":           {"binding.Invoke", &api.BindingInvokeRequest{Component: "c", Operation: "get"}, loam.ResourceExhausted},
		"a long message":          {"crypto.Encrypt", &api.CryptoEncryptRequest{Component: "c", Key: "k", Algorithm: "A256GCM", Data: make([]byte, crypto.MaxMessage+1)}, loam.InvalidArgument},
		"a job with much data":    {"jobs.Schedule", &api.JobsScheduleRequest{Component: "c", Jobs: []api.Job{{Name: "j", Due: "1h", Data: make([]byte, jobs.MaxMessage+1)}}}, loam.InvalidArgument},
		"no jobs":                 {"jobs.Schedule", &api.JobsScheduleRequest{Component: "c"}, loam.InvalidArgument},
		"many jobs":               {"jobs.Schedule", &api.JobsScheduleRequest{Component: "c", Jobs: make([]api.Job, 33)}, loam.InvalidArgument},
		"many names":              {"jobs.Get", &api.JobsGetRequest{Component: "c", Names: make([]string, 33)}, loam.InvalidArgument},
		"fewer retries than none": {"jobs.Schedule", &api.JobsScheduleRequest{Component: "c", Jobs: []api.Job{{Name: "j", Due: "1h", Retries: -2}}}, loam.InvalidArgument},
	} {
		if code := ask(c.method, c.req); code != c.want {
			t.Errorf("%s: %v, want %v", what, code, c.want)
		}
	}
}

// A job comes back as it was scheduled; one policy has many ways to be written, and the same meaning.
func TestJobsMethods(t *testing.T) {
	all := methods(t)
	caller := &loam.Caller{Name: "f", Grants: []loam.Grant{{Capability: "jobs", Component: "c"}}}
	for _, job := range []api.Job{
		{Name: "plain", Due: "1h"},
		{Name: "whole", Schedule: "@daily", Due: "2h", Ttl: "48h", Repeats: 7, Data: []byte("data"), ContentType: "text/plain", RetryAfterMs: 50, Retries: 9},
		{Name: "dropped", Due: "1h", DropFailed: true, RetryAfterMs: 1000, Retries: 3},
		{Name: "for ever", Due: "1h", RetryAfterMs: 1000, Retries: -1},
	} {
		in := (&api.JobsScheduleRequest{Component: "c", Jobs: []api.Job{job}}).AppendProto(nil)
		if _, err := all["jobs.Schedule"](t.Context(), caller, in); err != nil {
			t.Fatal(err)
		}
		out, err := all["jobs.Get"](t.Context(), caller, (&api.JobsGetRequest{Component: "c", Names: []string{"gone", job.Name}}).AppendProto(nil))
		var got api.JobsGetResponse
		if err != nil || got.ParseProto(out) != nil || len(got.Jobs) != 1 {
			t.Fatal(out, err)
		}
		if a, b := string(got.Jobs[0].AppendProto(nil)), string(job.AppendProto(nil)); a != b {
			t.Errorf("%+v came back as %+v", job, got.Jobs[0])
		}
	}
}

// What was sealed opens whole or not at all.
func TestSealedMessages(t *testing.T) {
	all := methods(t)
	caller := &loam.Caller{Name: "f", Grants: []loam.Grant{{Capability: "crypto", Component: "c"}}}
	for _, n := range []int{0, 1, 64 << 10, 64<<10 + 1, 1 << 20} {
		message := strings.Repeat("x", n)
		out, err := all["crypto.Seal"](t.Context(), caller, (&api.CryptoSealRequest{Component: "c", Key: "k", Algorithm: "AES", Data: []byte(message)}).AppendProto(nil))
		var s api.CryptoSealResponse
		if err != nil || s.ParseProto(out) != nil {
			t.Fatal(err)
		}
		out, err = all["crypto.Open"](t.Context(), caller, (&api.CryptoOpenRequest{Component: "c", Data: s.Data}).AppendProto(nil))
		var o api.CryptoOpenResponse
		if err != nil || o.ParseProto(out) != nil || string(o.Data) != message {
			t.Errorf("%d bytes: %d, %v", n, len(o.Data), err)
		}
		if n == 0 {
			continue
		}
		for what, b := range map[string][]byte{"cut": s.Data[:len(s.Data)-1], "changed": append(s.Data[:len(s.Data)-1:len(s.Data)-1], s.Data[len(s.Data)-1]^1)} {
			if out, err := all["crypto.Open"](t.Context(), caller, (&api.CryptoOpenRequest{Component: "c", Data: b}).AppendProto(nil)); loam.CodeOf(err) != loam.InvalidArgument || out != nil {
				t.Errorf("%d bytes, %s: %d, %v", n, what, len(out), err)
			}
		}
	}
}
