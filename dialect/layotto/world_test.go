package layotto_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/secret"
	"github.com/loam-run/loam/capability/sequence"
	"github.com/loam-run/loam/capability/state"
	componentcrypto "github.com/loam-run/loam/component/crypto"
	"github.com/loam-run/loam/component/localstorage"
	"github.com/loam-run/loam/component/memory"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/dialect/layotto"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A set is components in memory and in a folder, by their names.
type set struct {
	known   map[string]any
	invoker *invoke.Invoker
	apps    map[string]loam.Target
	down    map[string]bool // did not open
}

func lookup[T any](s *set, capability, name string) (T, error) {
	var none T
	if s.down[name] {
		return none, loam.Errorf(loam.Unavailable, "component "+name, "it did not open: the server is gone")
	}
	v, ok := s.known[capability+"/"+name].(T)
	if !ok {
		return none, loam.Errorf(loam.NotFound, "component "+name, "it was not declared")
	}
	return v, nil
}

func (s *set) State(n string) (*state.Store, error)    { return lookup[*state.Store](s, "state", n) }
func (s *set) Pubsub(n string) (*pubsub.Bus, error)    { return lookup[*pubsub.Bus](s, "pubsub", n) }
func (s *set) Lock(n string) (*lock.Locker, error)     { return lookup[*lock.Locker](s, "lock", n) }
func (s *set) Config(n string) (*config.Config, error) { return lookup[*config.Config](s, "config", n) }
func (s *set) Secret(n string) (*secret.Store, error)  { return lookup[*secret.Store](s, "secret", n) }
func (s *set) Crypto(n string) (*crypto.Crypto, error) { return lookup[*crypto.Crypto](s, "crypto", n) }
func (s *set) File(n string) (*file.Store, error)      { return lookup[*file.Store](s, "file", n) }
func (s *set) Jobs(n string) (*jobs.Jobs, error)       { return lookup[*jobs.Jobs](s, "jobs", n) }
func (s *set) Invoker() *invoke.Invoker                { return s.invoker }
func (s *set) Sequence(n string) (*sequence.Sequence, error) {
	return lookup[*sequence.Sequence](s, "sequence", n)
}
func (s *set) Binding(n string) (*binding.Binding, error) {
	return lookup[*binding.Binding](s, "binding", n)
}

func (s *set) Components(*loam.Caller) (list []capability.Component) {
	for at := range s.known {
		c, name, _ := strings.Cut(at, "/")
		list = append(list, capability.Component{Name: name, Capability: c})
	}
	return list
}

// secrets is a secret store.
type secrets map[string]map[string]string

func (s secrets) Get(_ context.Context, name string) ([]byte, error) {
	return nil, loam.Errorf(loam.NotFound, "secret "+name, "there is none")
}
func (s secrets) GetFields(_ context.Context, name string, _ map[string]string) (map[string]string, error) {
	if v, ok := s[name]; ok {
		return v, nil
	}
	return nil, loam.Errorf(loam.NotFound, "secret "+name, "there is none")
}
func (s secrets) GetAll(context.Context, map[string]string) (map[string]map[string]string, error) {
	return s, nil
}
func (secrets) Close() error { return nil }

// echo is an output binding.
type echo struct{}

func (echo) Operations() []string { return []string{"get", "create"} }
func (echo) Invoke(_ context.Context, r binding.Request) (binding.Response, error) {
	return binding.Response{Data: r.Data, Metadata: map[string]string{"statusCode": "200", "operation": r.Operation}}, nil
}
func (echo) Close() error { return nil }

// must opens something.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newSet(t testing.TB) *set {
	ctx := t.Context()
	m := memory.New()
	s := &set{apps: map[string]loam.Target{}, down: map[string]bool{}}
	s.invoker = invoke.New(func(name string) (loam.Target, error) {
		if target, ok := s.apps[name]; ok {
			return target, nil
		}
		return nil, loam.Errorf(loam.NotFound, "invoke "+name, "there is no app of that name")
	})
	keys := t.TempDir()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	if err := os.WriteFile(filepath.Join(keys, "main"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	stateDriver := must(m.OpenState(ctx, "state_demo", memory.Config{}))(t)
	bus := must(m.OpenPubsub(ctx, "pub_subs_demo", memory.Config{}))(t)
	jobStore := must(m.OpenState(ctx, "jobs", memory.Config{}))(t)
	s.known = map[string]any{
		"state/state_demo":        state.New("state_demo", stateDriver),
		"state/plain":             must(state.Open("plain", stateDriver, state.Options{Settings: map[string]string{"keyPrefix": "none"}}))(t),
		"lock/redis":              lock.New("redis", must(m.OpenLock(ctx, "redis", memory.Config{}))(t)),
		"sequence/sequencer_demo": sequence.New("sequencer_demo", must(m.OpenSequence(ctx, "sequencer_demo", memory.Config{}))(t)),
		"config/config_demo":      config.New("config_demo", must(m.OpenConfig(ctx, "config_demo", memory.Config{}))(t)),
		"pubsub/pub_subs_demo":    pubsub.New("pub_subs_demo", bus),
		"pubsub/pubsub.redis":     pubsub.New("pubsub.redis", bus), // redis is the lock's name already
		"secret/secret_demo":      secret.New("secret_demo", secrets{"db": {"user": "loam", "password": "hush"}}),
		"binding/bindings_demo":   binding.New("bindings_demo", echo{}),
		"file/file_demo":          file.New("file_demo", must(localstorage.OpenStore(ctx, "file_demo", localstorage.StoreConfig{Root: t.TempDir(), UploadAge: time.Hour}))(t)),
		"crypto/cryption_demo":    crypto.New("cryption_demo", must(componentcrypto.OpenFolder(ctx, "cryption_demo", componentcrypto.FolderConfig{Path: keys}))(t)),
		"jobs/":                   jobs.New("default", must(jobs.OverState(jobStore))(t)),
	}
	return s
}

// A world is the API on a port, and a client of it.
type world struct {
	loop.Engine
	set     *set
	api     *layotto.API
	client  *grpc.Client
	address string
}

// everything is a caller that may do all.
func everything(name string) *loam.Caller {
	return &loam.Caller{Name: name, Grants: []loam.Grant{{Capability: "*", Component: "*"}}}
}

// newWorld serves the API; change may change its options.
func newWorld(t testing.TB, change func(*dialect.Options)) *world {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	e := loop.New(loop.Options{Log: log, Loops: 1})
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{Engine: e, set: newSet(t)}
	o := dialect.Options{App: dialect.App{ID: "app1", Caller: everything("app1")}, Capabilities: w.set, Engine: e, Version: "1.2.3", Log: log}
	if change != nil {
		change(&o)
	}
	w.api = must(layotto.New(o))(t)
	hub := http2.NewHub(e)
	w.address = listen(t, e, hub, log, w.api.GRPC())
	w.client = &grpc.Client{Target: http2.NewClient(w.address, http2.ClientConfig{Hub: hub}), MaxMessage: 16 << 20}
	return w
}

// listen serves a target by HTTP/2.
func listen(t testing.TB, e loop.Engine, hub *http2.Hub, log *slog.Logger, target loam.Target) string {
	s := http2.NewServer(target, http2.ServerConfig{Options: protocol.Options{Log: log}, Hub: hub})
	ln, err := e.Listen(context.Background(), "tcp", "127.0.0.1:0", loop.ListenOptions{Open: func(c loop.Conn) loop.Session { return s.Session(c, nil, nil, nil) }})
	if err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String()
}

// do runs fn in a task of the engine, with a request of its own.
func (w *world) do(t testing.TB, fn func(req *loam.Request)) {
	t.Helper()
	done := make(chan struct{})
	w.Go(func(task loam.Task) {
		defer close(done)
		req := new(loam.Request)
		req.Begin(task)
		defer req.End()
		fn(req)
	})
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
}

// call calls a method of one message each way.
func (w *world) call(t testing.TB, method string, in, out grpc.Message, metadata ...loam.Field) (err error) {
	t.Helper()
	w.do(t, func(req *loam.Request) {
		req.Header = append(req.Header, metadata...)
		err = w.client.Call(req, method, in, out, nil)
	})
	return err
}

// fails asserts that a call failed with a code and words.
func fails(t testing.TB, err error, code loam.Code, words string) {
	t.Helper()
	if loam.CodeOf(err) != code {
		t.Errorf("it answers %v, want code %v", err, code)
		return
	}
	var s *grpc.Status
	if s = grpc.StatusOf(err); s == nil || !strings.Contains(s.Message, words) {
		t.Errorf("it says %q, want %q", s.Message, words)
	}
}

// works asserts that a call did not fail. (It ends no test: tasks call it too.)
func works(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// A journal is what was seen, in order, for who waits for it.
type journal struct {
	mu      sync.Mutex
	entries []string
	more    chan struct{}
}

func newJournal() *journal { return &journal{more: make(chan struct{}, 1)} }

func (j *journal) add(entry string) {
	j.mu.Lock()
	j.entries = append(j.entries, entry)
	j.mu.Unlock()
	select {
	case j.more <- struct{}{}:
	default:
	}
}

// wait returns once so many are there.
func (j *journal) wait(t testing.TB, n int) []string {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		j.mu.Lock()
		entries := slices.Clone(j.entries)
		j.mu.Unlock()
		if len(entries) >= n {
			return entries
		}
		select {
		case <-j.more:
		case <-late:
			t.Fatalf("there are %d entries, want %d: %q", len(entries), n, entries)
		}
	}
}
