//go:build sdk

package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/capability/http"
	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/secret"
	"github.com/loam-run/loam/capability/sequence"
	"github.com/loam-run/loam/capability/state"
	keyset "github.com/loam-run/loam/component/crypto"
	"github.com/loam-run/loam/component/local"
	"github.com/loam-run/loam/component/localstorage"
	"github.com/loam-run/loam/component/memory"
	"github.com/loam-run/loam/internal/build"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/wasm"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var languages = []string{"go", "rust", "c", "assemblyscript"}

// compiled builds the function that lies in a folder. A compiler that is missing is a failure, never a pass.
func compiled(t testing.TB, dir string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "function.wasm")
	err := build.Run(t.Context(), build.Job{Name: filepath.Base(dir), Dir: dir, Out: out, Wasm: true})
	var e *build.Error
	if errors.As(err, &e) && e.Hint != "" {
		t.Fatalf("%v\n%s; or all that this test needs: test/sdk/install.sh", err, e.Hint)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A world is a function with all capabilities, in memory, and a record of what it asked of them.
type world struct {
	module *wasm.Module

	mu      sync.Mutex
	calls   []string                // method and message, in order
	applied []api.StateApplyRequest // the transactions that were committed
	log     bytes.Buffer
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// tour is what the function of examples/languages may reach.
func tour(outside string) map[string][]string {
	return map[string][]string{
		"state": {"visits/*", "notes/*", "seen/*"}, "pubsub": {"notes", "news"}, "lock": {"door"}, "config": nil, "sequence": {"tickets"},
		"secret": {"token", "gone"}, "invoke": {"other", "nobody"}, "http": {outside}, "binding": {"create", "get"},
		"crypto": {"seal", "sign", "gone"}, "file": {"a/*"}, "jobs": {"tea"},
	}
}

// newWorld makes a world for a function that runs as c says and is granted names by capability.
func newWorld(t testing.TB, binary []byte, c wasm.Config, grants map[string][]string) *world {
	t.Helper()
	w := &world{}
	host, err := wasm.NewHost(wasm.Options{Log: slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	caller := &loam.Caller{Name: "tour"}
	for name, only := range grants {
		caller.Grants = append(caller.Grants, loam.Grant{Capability: name, Component: "default", Names: only})
	}
	c.Methods, c.Caller = w.recorded(capabilities(t)), caller
	w.module, err = host.Compile(t.Context(), "tour", binary, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.module.Close(context.Background()), host.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// recorded notes each call before it is made.
func (w *world) recorded(methods loam.Methods) loam.Methods {
	all := loam.Methods{}
	for name, m := range methods {
		all[name] = func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			w.mu.Lock()
			if name == "crypto.Open" {
				w.calls = append(w.calls, name) // no two messages are sealed alike
			} else {
				w.calls = append(w.calls, fmt.Sprintf("%s %q", name, in))
			}
			w.mu.Unlock()
			out, err := m(ctx, caller, in)
			if err == nil && name == "state.Apply" {
				w.mu.Lock()
				w.commit(in)
				w.mu.Unlock()
			}
			return out, err
		}
	}
	return all
}

// capabilities are components of memory, secrets of a folder, one function to ask and the network.
func capabilities(t testing.TB) loam.Methods {
	t.Helper()
	ctx, m := t.Context(), memory.New()
	s, err1 := m.OpenState(ctx, "default", memory.Config{})
	p, err2 := m.OpenPubsub(ctx, "default", memory.Config{})
	l, err3 := m.OpenLock(ctx, "default", memory.Config{})
	c, err4 := m.OpenConfig(ctx, "default", memory.Config{})
	q, err5 := m.OpenSequence(ctx, "default", memory.Config{})
	dir := t.TempDir()
	err6 := os.WriteFile(filepath.Join(dir, "token"), []byte("s3cret\n"), 0o600)
	f, err7 := local.OpenFile(ctx, "default", local.FileConfig{Dir: dir})
	err8 := c.Set(ctx, []config.Item{{Key: "greeting", Value: "Hello"}, {Key: "language", Value: "Ünicode"}})
	files, err9 := localstorage.OpenStore(ctx, "default", localstorage.StoreConfig{Root: filepath.Join(dir, "files")})
	folder, err10 := localstorage.OpenBinding(ctx, "default", localstorage.BindingConfig{Root: filepath.Join(dir, "folder")})
	keys, err11 := keyset.OpenSet(ctx, "default", keyset.SetConfig{Set: keySet})
	waiting, err12 := m.OpenJobs(ctx, "default", memory.Config{})
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9, err10, err11, err12); err != nil {
		t.Fatal(err)
	}
	sender := http.New()
	t.Cleanup(func() {
		if err := errors.Join(f.Close(), sender.Close(), files.Close(), folder.Close(), keys.Close(), waiting.Close()); err != nil {
			t.Error(err)
		}
	})
	bus := pubsub.New("default", p)
	other := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		var body []byte
		if req.Body != nil {
			body, _ = io.ReadAll(req.Body)
		}
		return loam.NewResponse(202, "text/x-other", fmt.Appendf(nil, "%s %s %s %s %s", req.Method, req.Path, req.RawQuery, req.Header.Get("x-asked-by"), body)), nil
	})
	all := loam.Methods{}
	for _, methods := range []loam.Methods{
		state.Methods(only(state.New("default", s)), func(component string) (state.Bus, error) { return only(bus)(component) }),
		pubsub.Methods(only(bus)), lock.Methods(only(lock.New("default", l))), config.Methods(only(config.New("default", c))),
		sequence.Methods(only(sequence.New("default", q))), secret.Methods(only(secret.New("default", f))), sender.Methods(),
		binding.Methods(only(binding.New("default", folder))), crypto.Methods(only(crypto.New("default", keys))),
		file.Methods(only(file.New("default", files))), jobs.Methods(only(jobs.New("default", waiting))),
		invoke.New(func(name string) (loam.Target, error) {
			if name != "other" {
				return nil, loam.Errorf(loam.NotFound, "invoke", "there is no function or app %q", name)
			}
			return other, nil
		}).Methods(),
	} {
		for name, m := range methods {
			all[name] = m
		}
	}
	return all
}

// keySet are keys that anybody may know.
const keySet = `{"keys": [
	{"kid": "seal", "kty": "oct", "k": "b25seSBhbiBleGFtcGxlLCBuZXZlciBhIGtleSAxMTE"},
	{"kid": "sign", "kty": "OKP", "crv": "Ed25519", "d": "b25seSBhbiBleGFtcGxlLCBuZXZlciBhIGtleSAwMDA", "x": "ZO_LfjDR5S_DlqLt89bqtlbdyi4jGhW3A5Z8woiieiU"}
]}`

// only finds the one component there is.
func only[C any](c C) func(component string) (C, error) {
	return func(component string) (C, error) {
		if component != "" {
			return *new(C), loam.Errorf(loam.NotFound, "find", "no component %q", component)
		}
		return c, nil
	}
}

// An exchange is one request and what must be answered; what ends in "…" is how the answer begins. A body that the host
// writes is "…".
type exchange struct {
	method, target, body string
	header               []string // name, value, …
	status               int
	want                 string
	wantHeader           []string
}

func (w *world) send(t *testing.T, e exchange) (status int, body string, header loam.Header) {
	t.Helper()
	req := loam.NewRequest(t.Context())
	defer req.Release()
	req.Method, req.Scheme, req.Authority, req.ID = e.method, "http", "shop.example:8080", "r-1"
	req.Path, req.RawQuery, _ = strings.Cut(e.target, "?")
	for i := 0; i < len(e.header); i += 2 {
		req.Header.Add(e.header[i], e.header[i+1])
	}
	if e.body != "" {
		req.Body, req.Length = io.NopCloser(strings.NewReader(e.body)), int64(len(e.body))
	}
	resp, err := w.module.Serve(req)
	if err != nil {
		return protocol.HTTPStatus(loam.CodeOf(err)), "…", nil
	}
	var b []byte
	if resp.Body != nil {
		b, err = io.ReadAll(resp.Body)
	}
	if err := errors.Join(err, resp.Close()); err != nil {
		t.Fatal(err)
	}
	return resp.Status, string(b), resp.Header
}

const (
	large      = "0123456789abcdef" // times 20,000: more than any first buffer
	largeTimes = 20_000
)

func script(outside string) []exchange {
	event := func(id, data string, more ...string) exchange {
		return exchange{method: "POST", target: "/events/notes", body: data, header: append([]string{
			"Content-Type", "text/plain", "ce-specversion", "1.0", "Ce-Id", id, "ce-source", "%C3%BCs", "ce-type", "notes", "ce-topic", "notes",
			"ce-subject", "order%207", "Ce-Size", "100%",
		}, more...)}
	}
	then := func(e exchange, status int, want string) exchange {
		e.status, e.want = status, want
		return e
	}
	big := strings.Repeat(large, largeTimes)
	long := strings.Repeat("x", 5000)
	return []exchange{
		// Routes.
		{method: "GET", target: "/nothing", status: 404, want: `{"code":"not found","message":"nothing answers /nothing"}` + "\n", wantHeader: []string{"Content-Type", "application/json"}},
		{method: "GET", target: "/", status: 404, want: `{"code":"not found","message":"nothing answers /"}` + "\n"},
		{method: "PATCH", target: "/notes/1", status: 405, want: `{"code":"unimplemented","message":"PATCH is not among PUT, GET, DELETE"}` + "\n", wantHeader: []string{"Allow", "PUT, GET, DELETE"}},
		{method: "GET", target: "/hello/", status: 404, want: `{"code":"not found","message":"nothing answers /hello/"}` + "\n"},
		{method: "GET", target: "/hello/a/b", status: 404, want: `{"code":"not found","message":"nothing answers /hello/a/b"}` + "\n"},
		{method: "GET", target: "/echo", status: 404, want: `{"code":"not found","message":"nothing answers /echo"}` + "\n"},

		// State, configuration, query, log.
		{method: "GET", target: "/hello/Ada", status: 200, want: "Hello, Ada! Visit 1.\n", wantHeader: []string{"Content-Type", "text/plain; charset=utf-8"}},
		{method: "HEAD", target: "/hello/Ada", status: 200, want: "Hello, Ada! Visit 2.\n"},
		{method: "GET", target: "/hello/J%C3%B6rg%2Fx%zz?greeting=Gr%C3%BC%C3%9F+Gott%21&greeting=no", status: 200, want: "Grüß Gott!, J%C3%B6rg%2Fx%zz! Visit 1.\n"},
		{method: "GET", target: "/hello/J%C3%B6rg%2Fx?x&gree%74ing=Gr%C3%BC%C3%9F+Gott%21&greeting=no", status: 200, want: "Grüß Gott!, Jörg/x! Visit 1.\n"},
		{method: "GET", target: "/hello/😀?greeting=%zz&greeting=ok", status: 200, want: "ok, 😀! Visit 1.\n"},
		{method: "GET", target: "/visits", status: 200, want: "Ada: 2\nJ%C3%B6rg%2Fx%zz: 1\nJörg/x: 1\n😀: 1\n", wantHeader: []string{"Content-Type", "text/html; charset=utf-8"}},

		// Transactions, conditions, errors.
		{method: "PUT", target: "/notes/1", body: "read me", status: 201, want: "", wantHeader: []string{"Location", "/notes/1"}},
		{method: "PUT", target: "/notes/1", body: "again", status: 409, want: "is there already"},
		{method: "PUT", target: "/notes/2", status: 400, want: `{"code":"invalid argument","message":"a note says something, even <this> \"one\""}` + "\n"},
		{method: "GET", target: "/notes/1", status: 200, want: "read me", wantHeader: []string{"Content-Type", "application/octet-stream"}},
		{method: "GET", target: "/notes/9", status: 404, want: `{"code":"not found","message":"state \"notes/9\" is not there"}` + "\n"},
		{method: "PUT", target: "/notes/large", body: big, status: 201},
		{method: "GET", target: "/notes/large", status: 200, want: big},
		{method: "DELETE", target: "/notes/1", status: 204},
		{method: "DELETE", target: "/notes/1", status: 204},
		{method: "GET", target: "/notes/1", status: 404, want: `{"code":"not found","message":"state \"notes/1\" is not there"}` + "\n"},

		// Events.
		then(event("1", "hello"), 204, ""),
		then(event("2", "nonsense"), 404, `{"code":"not found","message":"`),
		then(event("3", "later"), 503, `{"code":"unavailable"}`+"\n"),
		then(event("4", "missing"), 500, `{"code":"internal"}`+"\n"),
		{method: "POST", target: "/events/notes", body: "x", status: 400, want: `{"code":"invalid argument","message":"no event: CloudEvents headers are missing"}` + "\n"},
		{method: "GET", target: "/events/notes", status: 405, want: `{"code":"unimplemented","message":"GET is not among POST"}` + "\n"},
		{method: "POST", target: "/announce/news", body: "it works", status: 204},
		{method: "POST", target: "/announce/gossip", body: "psst", status: 403, want: "denied"},

		// Locks, sequences, configuration, secrets.
		{method: "POST", target: "/locks/door/a", status: 200, want: "yours\n"},
		{method: "POST", target: "/locks/door/b", status: 400, want: `{"code":"failed precondition","message":"another holds it"}` + "\n"},
		{method: "PUT", target: "/locks/door/a", status: 204},
		{method: "PUT", target: "/locks/door/b", status: 403, want: "denied"},
		{method: "DELETE", target: "/locks/door/a", status: 204},
		{method: "DELETE", target: "/locks/door/a", status: 404, want: "nobody"},
		{method: "POST", target: "/locks/window/a", status: 403, want: "denied"},
		{method: "POST", target: "/tickets/1", status: 200, want: "1\n"},
		{method: "POST", target: "/tickets/10", status: 200, want: "2\n"},
		{method: "POST", target: "/tickets/1", status: 200, want: "12\n"},
		{method: "POST", target: "/tickets/2000000", status: 400, want: "count"},
		{method: "POST", target: "/tickets/many", status: 400, want: `{"code":"invalid argument","message":"how many?"}` + "\n"},
		{method: "GET", target: "/settings", status: 200, want: "greeting=Hello\nlanguage=Ünicode\n"},
		{method: "GET", target: "/secrets/token", status: 200, want: "6 bytes\n"},
		{method: "GET", target: "/secrets/gone", status: 404, want: "gone"},
		{method: "GET", target: "/secrets/other", status: 403, want: "denied"},

		// Other functions, hosts outside.
		{method: "POST", target: "/ask/other/a/b%20c?d=e", body: "body", status: 400, want: "path"},
		{method: "POST", target: "/ask/other/a/b?d=e", body: "body", status: 202, want: "POST /a/b d=e r-1 body", wantHeader: []string{"Content-Type", "text/x-other"}},
		{method: "POST", target: "/ask/other/?d", status: 202, want: "GET / d r-1 "},
		{method: "POST", target: "/ask/nobody/", status: 404, want: "nobody"},
		{method: "POST", target: "/ask/stranger/", status: 403, want: "denied"},
		{method: "GET", target: "/fetch?url=http://" + outside + "/teapot", status: 200, want: "418 short and stout"},
		{method: "GET", target: "/fetch?url=http://example.org/", status: 403, want: "denied"},
		{method: "GET", target: "/fetch", status: 400, want: "URL"},

		// Files.
		{method: "PUT", target: "/files/a/tea.txt", body: "green tea", header: []string{"Content-Type", "text/plain"}, status: 201, want: "…"},
		{method: "GET", target: "/files/a/tea.txt", status: 200, want: "green tea", wantHeader: []string{"Content-Type", "text/plain"}},
		{method: "GET", target: "/files/a/tea.txt?from=2&length=3", status: 200, want: "een"},
		{method: "GET", target: "/files/a/tea.txt?from=9", status: 200, want: ""},
		{method: "GET", target: "/files/a/tea.txt?from=10", status: 400, want: "out of range"},
		{method: "PUT", target: "/files/a/b/large%20%C3%BC", body: big, status: 201, want: "…"},
		{method: "POST", target: "/files/a/b/large%20%C3%BC", body: big, status: 200, want: "640000 bytes\n"},
		{method: "GET", target: "/files/a/b/large%20%C3%BC?from=319999", status: 200, want: "f" + big},
		{method: "POST", target: "/files/a/new", body: "1", status: 200, want: "1 bytes\n"},
		{method: "GET", target: "/folder?prefix=a/", status: 200, want: "a/b/\na/new: 1\nnext: a/new\n"},
		{method: "GET", target: "/folder?prefix=a/&after=a/new", status: 200, want: "a/tea.txt: 9\nnext: \n"},
		{method: "GET", target: "/folder", status: 403, want: "denied"},
		{method: "DELETE", target: "/files/a/new", status: 204},
		{method: "DELETE", target: "/files/a/new", status: 404, want: "not found"},
		{method: "PUT", target: "/files/b", status: 403, want: "denied"},

		// Keys.
		{method: "POST", target: "/seal/seal", body: big, status: 200, want: big},
		{method: "POST", target: "/seal/seal?broken=yes", body: "x", status: 400, want: "changed"},
		{method: "POST", target: "/seal/gone", body: "x", status: 404, want: "gone"},
		{method: "POST", target: "/seal/other", body: "x", status: 403, want: "denied"},
		{method: "POST", target: "/cipher/seal", body: "a message", status: 200, want: "9, 16: a message; 24: a key of 16 byte\n"},
		{method: "POST", target: "/cipher/sign", body: "a message", status: 400},
		{method: "POST", target: "/sign/sign", body: "a message", status: 200, want: "64 bytes, true, false\n"},
		{method: "GET", target: "/keys/sign", status: 200, want: "-----BEGIN PUBLIC KEY-----\n…"},
		{method: "GET", target: "/keys/seal", status: 404, want: "symmetric"},

		// Bindings, out and in.
		{method: "POST", target: "/bind/create?file=x", body: "kept here", status: 200, want: `{"fileName":"x"}`},
		{method: "POST", target: "/bind/get?file=x", status: 200, want: "kept here"},
		{method: "POST", target: "/bind/get?file=y", status: 404},
		{method: "POST", target: "/bind/delete?file=x", status: 403, want: "denied"},
		{method: "POST", target: "/tick", body: "now", header: []string{"Content-Type", "application/json", "timeZone", "UTC"}, status: 200, want: "ticked\n"},
		{method: "GET", target: "/notes/tick", status: 200, want: "UTC now"},

		// Jobs.
		{method: "POST", target: "/jobs/tea?due=1h", body: "green", status: 204},
		{method: "POST", target: "/jobs/tea?due=1h", body: "black", status: 409, want: "already exists"},
		{method: "GET", target: "/jobs/tea", status: 200, want: "tea  1h 1 text/plain 5 green\n"},
		{method: "POST", target: "/jobs/tea?due=1h&schedule=@daily&replace=yes", body: "black", status: 204},
		{method: "GET", target: "/jobs/tea", status: 200, want: "tea @daily 1h 2 text/plain 5 black\n"},
		{method: "DELETE", target: "/jobs/tea", status: 204},
		{method: "DELETE", target: "/jobs/tea", status: 404, want: "not found"},
		{method: "GET", target: "/jobs/tea", status: 404, want: `job \"tea\" is not there`},
		{method: "POST", target: "/jobs/tea", body: "green", status: 400, want: "due"},
		{method: "POST", target: "/jobs/coffee?due=1h", body: "green", status: 403, want: "denied"},
		{method: "POST", target: "/job/a%20b", body: "green", header: []string{"Content-Type", "text/plain"}, status: 204},
		{method: "GET", target: "/notes/job-a%20b", status: 200, want: "text/plain green"},
		{method: "POST", target: "/job/tea", body: "nonsense", status: 404, want: `{"code":"not found","message":"`},
		{method: "POST", target: "/job/tea", body: "later", status: 503, want: `{"code":"unavailable"}` + "\n"},
		{method: "POST", target: "/job/tea", body: "missing", status: 500, want: `{"code":"internal"}` + "\n"},

		// What came is what was sent.
		{method: "POST", target: "/echo/a%2Fb/?c=%20d", body: "\x00\xff binary", header: []string{"content-TYPE", "x/y", "X", "1", "X", "2"}, status: 200, want: "\x00\xff binary",
			wantHeader: []string{"Content-Type", "x/y", "X-Echo", "POST shop.example:8080 /echo/a%2Fb/ c=%20d", "X-Fields", "3", "X-Late", "false"}},
		{method: "PURGE", target: "/echo/", header: []string{"Content-Type", long}, status: 200, wantHeader: []string{"Content-Type", long, "X-Fields", "1"}},
		{method: "PUT", target: "/echo/x", body: big, header: []string{"Content-Type", "x/y"}, status: 200, want: big},

		// What breaks inside is told to nobody outside.
		{method: "GET", target: "/broken", status: 500, want: `{"code":"unknown"}` + "\n"},
		{method: "GET", target: "/crash", status: 500, want: ""},
		{method: "GET", target: "/hello/Ada", status: 200, want: "Hello, Ada! Visit 3.\n"},
	}
}

func TestLanguages(t *testing.T) {
	teapot := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.WriteHeader(418)
		fmt.Fprint(w, "short and stout")
	}))
	defer teapot.Close()
	outside := strings.TrimPrefix(teapot.URL, "http://")
	var first *world // whose calls the others' are held against
	for _, language := range languages {
		t.Run(language, func(t *testing.T) {
			binary := compiled(t, "../../examples/languages/"+language)
			for mode, c := range map[string]wasm.Config{
				"request": {Isolation: wasm.IsolationRequest},
				"shared":  {Isolation: wasm.IsolationShared},
				// Every instance begins as if it had drawn a random number already.
				"warm": {Isolation: wasm.IsolationRequest, Warmup: &wasm.Warmup{Method: "GET", Path: "/random"}},
			} {
				t.Run(mode, func(t *testing.T) {
					w := newWorld(t, binary, c, tour(outside))
					for _, e := range script(outside) {
						w.check(t, e)
					}
					w.checkLog(t)
					w.checkRandom(t)
					if mode == "shared" {
						w.checkMemory(t)
					}
					if first == nil {
						first = w
					}
					if diff := cmp.Diff(first.calls, w.calls); diff != "" {
						t.Errorf("it does not ask what %s asks: %s", languages[0], diff)
					}
				})
			}
		})
	}
}

func (w *world) check(t *testing.T, e exchange) {
	t.Helper()
	status, body, header := w.send(t, e)
	same := body == e.want
	if status >= 400 && !strings.HasPrefix(e.want, "{") || strings.HasSuffix(e.want, `:"`) {
		same = strings.Contains(body, e.want) || body == "…" // a driver's words, or the host's
	}
	if begin, ok := strings.CutSuffix(e.want, "…"); ok && status < 400 {
		same = strings.HasPrefix(body, begin)
	}
	if status != e.status || !same {
		t.Errorf("%s %.100s: %d %.300q, want %d %.300q", e.method, e.target, status, body, e.status, e.want)
	}
	for i := 0; i < len(e.wantHeader); i += 2 {
		if got := header.Get(e.wantHeader[i]); got != e.wantHeader[i+1] {
			t.Errorf("%s %s: %s is %.300q, want %.300q", e.method, e.target, e.wantHeader[i], got, e.wantHeader[i+1])
		}
	}
}

// checkMemory sends more through one instance than its memory could hold.
func (w *world) checkMemory(t *testing.T) {
	t.Helper()
	e := exchange{method: "POST", target: "/echo/", body: strings.Repeat(large, largeTimes)}
	for sent := 0; sent < 160<<20; sent += len(e.body) { // its limit is 128 MiB
		if status, body, _ := w.send(t, e); status != 200 || len(body) != len(e.body) {
			t.Fatalf("after %d MiB: %d, %d bytes", sent>>20, status, len(body))
		}
	}
}

// checkRandom looks whether requests share the state of a random source, as copies of one memory do.
func (w *world) checkRandom(t *testing.T) {
	t.Helper()
	seen := map[string]bool{}
	for range 20 {
		status, body, _ := w.send(t, exchange{method: "GET", target: "/random"})
		if status != 200 || seen[body] {
			t.Errorf("random: %d %s, after %d others", status, body, len(seen))
		}
		seen[body] = true
	}
}

// checkLog looks for the lines that the function and its SDK wrote.
func (w *world) checkLog(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var lines []map[string]any
	for line := range strings.Lines(w.log.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	for _, want := range []map[string]any{
		{"level": "INFO", "msg": "greeted", "name": "Jörg/x", "request": "r-1"},
		{"level": "ERROR", "msg": "request failed", "method": "GET", "path": "/broken", "code": "unknown", "error": "this stays in the log", "request": "r-1"},
		{"level": "WARN", "msg": "request failed", "method": "PUT", "path": "/notes/2", "code": "invalid argument", "error": `a note says something, even <this> "one"`},
	} {
		if !slices.ContainsFunc(lines, func(l map[string]any) bool {
			for k, v := range want {
				if l[k] != v {
					return false
				}
			}
			return true
		}) {
			t.Errorf("no line of the log is %v:\n%s", want, w.log.String())
		}
	}
	if !strings.Contains(w.log.String(), "this too") {
		t.Error("the log does not say why it crashed")
	}
}
