package dapr

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

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
	"github.com/loam-run/loam/component/local"
	"github.com/loam-run/loam/component/memory"
	"github.com/loam-run/loam/dialect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// components are a capability.Set of the components that tests open: the real ones, in memory and in a folder.
type components struct {
	state   map[string]*state.Store
	pubsub  map[string]*pubsub.Bus
	lock    map[string]*lock.Locker
	config  map[string]*config.Config
	secret  map[string]*secret.Store
	binding map[string]*binding.Binding
	crypto  map[string]*crypto.Crypto
	jobs    map[string]*jobs.Jobs
	broken  map[string]error // by capability and name
}

func find[T any](c *components, what string, m map[string]*T, name string) (*T, error) {
	if err := c.broken[what+" "+name]; err != nil {
		return nil, &loam.Error{Code: loam.Unavailable, Op: what, Err: err}
	}
	if t := m[name]; t != nil {
		return t, nil
	}
	return nil, loam.Errorf(loam.NotFound, what, "there is no component %q", name)
}

func (c *components) State(n string) (*state.Store, error)    { return find(c, "state", c.state, n) }
func (c *components) Pubsub(n string) (*pubsub.Bus, error)    { return find(c, "pubsub", c.pubsub, n) }
func (c *components) Lock(n string) (*lock.Locker, error)     { return find(c, "lock", c.lock, n) }
func (c *components) Config(n string) (*config.Config, error) { return find(c, "config", c.config, n) }
func (c *components) Secret(n string) (*secret.Store, error)  { return find(c, "secret", c.secret, n) }
func (c *components) Binding(n string) (*binding.Binding, error) {
	return find(c, "binding", c.binding, n)
}
func (c *components) Crypto(n string) (*crypto.Crypto, error) { return find(c, "crypto", c.crypto, n) }
func (c *components) Jobs(n string) (*jobs.Jobs, error)       { return find(c, "jobs", c.jobs, n) }
func (c *components) File(string) (*file.Store, error) {
	return nil, loam.Errorf(loam.NotFound, "file", "there is none")
}
func (c *components) Sequence(string) (*sequence.Sequence, error) {
	return nil, loam.Errorf(loam.NotFound, "sequence", "there is none")
}
func (c *components) Invoker() *invoke.Invoker { return nil }

func (c *components) Components(*loam.Caller) []capability.Component {
	var all []capability.Component
	add := func(what, name, typ string, features ...string) {
		all = append(all, capability.Component{Name: name, Capability: what, Type: typ, Version: "v1", Features: features})
	}
	for n, s := range c.state {
		add("state", n, "state.in-memory", s.Features()...)
	}
	for n := range c.pubsub {
		add("pubsub", n, "pubsub.in-memory")
	}
	for n := range c.lock {
		add("lock", n, "lock.in-memory")
	}
	for n := range c.config {
		add("config", n, "configuration.in-memory")
	}
	for n := range c.secret {
		add("secret", n, "secretstores.local.env")
	}
	for n := range c.crypto {
		add("crypto", n, "crypto.dapr.localstorage")
	}
	for what, err := range c.broken {
		kind, name, _ := strings.Cut(what, " ")
		all = append(all, capability.Component{Name: name, Capability: kind, Type: kind + ".redis", Err: err})
	}
	return all
}

// echo is a binding that answers what it is asked.
type echo struct{}

func (echo) Operations() []string { return []string{"create", "get", "fail"} }
func (echo) Close() error         { return nil }

func (echo) Invoke(_ context.Context, r binding.Request) (binding.Response, error) {
	m := map[string]string{"operation": r.Operation, "given": r.Metadata["given"], "trace": r.Metadata["traceparent"]}
	if r.Operation == "fail" {
		return binding.Response{Metadata: m}, errors.New("it did not work")
	}
	if r.Operation == "get" {
		return binding.Response{Metadata: m}, nil
	}
	return binding.Response{Data: r.Data, Metadata: m}, nil
}

// everything is a caller that may do all.
func everything(app string) *loam.Caller {
	return &loam.Caller{Name: app, Grants: []loam.Grant{{Capability: "*", Component: "*"}}}
}

func newComponents(t testing.TB) *components {
	t.Helper()
	m, ctx := memory.New(), t.Context()
	s, err1 := m.OpenState(ctx, "store", memory.Config{})
	p, err2 := m.OpenPubsub(ctx, "bus", memory.Config{})
	l, err3 := m.OpenLock(ctx, "locks", memory.Config{})
	f, err4 := m.OpenConfig(ctx, "settings", memory.Config{})
	t.Setenv("DAPR_TEST_token", "s3cret")
	t.Setenv("DAPR_TEST_denied", "hidden")
	env, err5 := local.OpenEnv(ctx, "vault", local.EnvConfig{Prefix: "DAPR_TEST_"})
	dir := t.TempDir()
	key, err6 := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	err1 = os.WriteFile(filepath.Join(dir, "rsa.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	err2 = os.WriteFile(filepath.Join(dir, "aes"), []byte("0123456789abcdef0123456789abcdef"), 0o600)
	folder, err3 := componentcrypto.OpenFolder(ctx, "keys", componentcrypto.FolderConfig{Path: dir})
	kept, err4 := m.OpenState(ctx, "jobs", memory.Config{})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	due, err := jobs.OverState(kept)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), p.Close(), l.Close(), f.Close(), env.Close(), folder.Close(), due.Close()); err != nil {
			t.Error(err)
		}
	})
	return &components{
		state: map[string]*state.Store{"store": state.New("store", s)}, pubsub: map[string]*pubsub.Bus{"bus": pubsub.New("bus", p)},
		lock: map[string]*lock.Locker{"locks": lock.New("locks", l)}, config: map[string]*config.Config{"settings": config.New("settings", f)},
		secret: map[string]*secret.Store{"vault": secret.New("vault", env)}, binding: map[string]*binding.Binding{"echo": binding.New("echo", echo{})},
		crypto: map[string]*crypto.Crypto{"keys": crypto.New("keys", folder)}, jobs: map[string]*jobs.Jobs{"": jobs.New("jobs", due)},
		broken: map[string]error{"state lost": errors.New("connection refused")},
	}
}

// newAPI makes an API for an app called orders.
func newAPI(t testing.TB, change func(*dialect.Options, *Settings)) *API {
	t.Helper()
	o := dialect.Options{
		App:          dialect.App{ID: "orders", Caller: everything("orders"), MaxBody: 64 << 10},
		Capabilities: newComponents(t), Version: "0.6.0", Log: slog.New(slog.DiscardHandler),
	}
	var s Settings
	if change != nil {
		change(&o, &s)
	}
	a, err := New(o, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// reply is an answer that was read.
type reply struct {
	status int
	header loam.Header
	body   string
}

// do sends a request to a target. Headers are written "Name: value".
func do(t testing.TB, to loam.Target, method, target, body string, headers ...string) reply {
	t.Helper()
	// What a request says stands in a buffer, as a connection's does, that is used again after Release.
	buffer := []byte(strings.Join(append([]string{target}, headers...), "\n"))
	defer func() { copy(buffer, bytes.Repeat([]byte("#"), len(buffer))) }()
	said := strings.Split(unsafe.String(unsafe.SliceData(buffer), len(buffer)), "\n")
	req := loam.NewRequest(t.Context())
	defer req.Release()
	req.Method, req.Scheme, req.Authority, req.ID = method, "http", "127.0.0.1:3500", "test"
	req.Path, req.RawQuery, _ = strings.Cut(said[0], "?")
	for _, h := range said[1:] {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	if body != "" {
		req.Body, req.Length = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	res, err := to.Serve(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer res.Close()
	r := reply{status: res.Status}
	for _, f := range res.Header {
		r.header.Add(strings.Clone(f.Name), strings.Clone(f.Value))
	}
	if res.Body != nil {
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.Length >= 0 && int64(len(b)) != res.Length {
			t.Fatalf("%s %s: a length of %d for %d bytes", method, target, res.Length, len(b))
		}
		r.body = string(b)
	}
	return r
}
