// Package pluggable makes components of programs beside this one that speak Dapr's protocol for them: gRPC over a Unix
// socket in a folder. Which services a program offers is asked by gRPC's reflection; the name of its socket is the name of
// its technology: what listens at redis.sock and offers a StateStore is state.redis. Several components of one program are
// told apart by the metadata x-component-instance.
package pluggable

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/component"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http2"
)

// Dapr's names for where sockets are.
const (
	FolderVariable = "DAPR_COMPONENTS_SOCKETS_FOLDER"
	DefaultFolder  = "/tmp/dapr-components-sockets"
)

// Folder is the folder that the environment says, or Dapr's default.
func Folder() string { return cmp.Or(os.Getenv(FolderVariable), DefaultFolder) }

// askTimeout bounds how long a program may take to say what it offers.
const askTimeout = 5 * time.Second

// Sockets is the programs whose sockets are in a folder. Its methods may be called from many goroutines at once.
type Sockets struct {
	folder string
	app    string

	mu     sync.Mutex
	engine loop.Engine // of the connections; made with the first
	hub    *http2.Hub
	known  map[string]*program // by path
	gone   chan struct{}       // closed by Close
	closed bool
}

// program is what is known of one.
type program struct {
	id        os.FileInfo // of its socket: another one of the same name is another program
	client    *http2.Client
	factories []loam.Factory
}

// New looks into a folder, which need not be there. Nothing is opened before Factories is called. app is the consumerID of
// pubsub components whose metadata has none, as daprd gives it to them; "": there are several apps, and each subscription
// tells its own.
func New(folder, app string) *Sockets {
	return &Sockets{folder: folder, app: app, known: map[string]*program{}, gone: make(chan struct{})}
}

// Factories are the component types that programs offer at this moment. A program that does not say what it offers is part
// of the error, and asked again the next time; the others' factories are there all the same.
func (s *Sockets) Factories(ctx context.Context) ([]loam.Factory, error) {
	sockets, err := s.sockets()
	errs := []error{err}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	for path, p := range s.known {
		if id, ok := sockets[path]; !ok || !os.SameFile(id, p.id) || !id.ModTime().Equal(p.id.ModTime()) {
			p.client.Close()
			delete(s.known, path)
		}
	}
	var factories []loam.Factory
	for _, path := range slices.Sorted(maps.Keys(sockets)) {
		p := s.known[path]
		if p == nil {
			if p, err = s.ask(ctx, path, sockets[path]); err != nil {
				errs = append(errs, fmt.Errorf("pluggable component %s: %w", path, err))
				continue
			}
			s.known[path] = p
		}
		factories = append(factories, p.factories...)
	}
	return factories, errors.Join(errs...)
}

var errClosed = &loam.Error{Code: loam.Unavailable, Op: "pluggable components", Err: errors.New("the folder of sockets is not looked at any more")}

// sockets are those in the folder, by path.
func (s *Sockets) sockets() (map[string]os.FileInfo, error) {
	entries, err := os.ReadDir(s.folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	found := map[string]os.FileInfo{}
	for _, e := range entries {
		path := filepath.Join(s.folder, e.Name())
		if info, err := os.Stat(path); err == nil && info.Mode().Type() == fs.ModeSocket { // one that is gone by now is none
			found[path] = info
		}
	}
	return found, err
}

// Watch calls changed when a socket has come, gone, or been replaced, until ctx ends.
func (s *Sockets) Watch(ctx context.Context, changed func()) {
	look := func() string {
		var b strings.Builder
		sockets, _ := s.sockets() // a folder that cannot be read has none, and Factories says so
		for _, path := range slices.Sorted(maps.Keys(sockets)) {
			fmt.Fprintln(&b, path, sockets[path].ModTime().UnixNano())
		}
		return b.String()
	}
	before := look()
	for component.Pause(ctx, time.Second) {
		if now := look(); now != before {
			before = now
			changed()
		}
	}
}

// Close ends all connections. Components were closed before.
func (s *Sockets) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.gone)
	for path, p := range s.known {
		p.client.Close()
		delete(s.known, path)
	}
	if s.engine == nil {
		return nil
	}
	return s.engine.Close()
}

// ask connects to a program and asks what it offers; the lock is held.
func (s *Sockets) ask(ctx context.Context, path string, id os.FileInfo) (*program, error) {
	if s.engine == nil {
		s.engine = loop.New(loop.Options{Loops: 1})
		s.hub = http2.NewHub(s.engine)
	}
	p := &program{id: id, client: http2.NewClient(path, http2.ClientConfig{Hub: s.hub, Network: "unix", Limits: http2.Limits{StreamIdle: -1}})}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	services, err := services(ctx, &grpc.Client{Target: p.client})
	if err != nil {
		p.client.Close()
		return nil, err
	}
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	if dot := strings.LastIndexByte(filepath.Base(path), '.'); dot > 0 {
		name = filepath.Base(path)[:dot]
	}
	origin := fmt.Sprint(path, id.ModTime().UnixNano())
	p.factories = factories(strings.ToLower(name), s.app, s.engine, s.gone, &grpc.Client{Target: p.client, MaxMessage: maxMessage}, services)
	for i := range p.factories {
		p.factories[i].Origin = origin
	}
	return p, nil
}

// maxMessage bounds what a component answers: a whole page of values.
const maxMessage = 64 << 20

const prefix = "dapr.proto.components.v1."

// factories are the types that a program of those services offers.
func factories(name, app string, engine loop.Engine, gone <-chan struct{}, client *grpc.Client, services []string) []loam.Factory {
	has := func(service string) bool { return slices.Contains(services, prefix+service) }
	var list []loam.Factory
	add := func(capability, dapr string, open func(context.Context, *conn, map[string]string) (any, error)) {
		f := loam.Factory{
			Type:  capability + "." + name,
			Check: func(map[string]string) error { return nil }, // the program knows what it takes
			Open: func(ctx context.Context, instance string, metadata map[string]string) (any, error) {
				return open(ctx, &conn{client: client, engine: engine, gone: gone, instance: instance}, metadata)
			},
		}
		if dapr != capability {
			f.Aliases = []string{dapr + "." + name}
		}
		list = append(list, f)
	}
	if has("StateStore") {
		add("state", "state", func(ctx context.Context, c *conn, m map[string]string) (any, error) {
			return openState(ctx, c, m, has("TransactionalStateStore"), has("TransactionalStoreMultiMaxSize"), has("QueriableStateStore"))
		})
	}
	if has("PubSub") {
		add("pubsub", "pubsub", func(ctx context.Context, c *conn, m map[string]string) (any, error) {
			return openPubsub(ctx, c, m, app)
		})
	}
	if in, out := has("InputBinding"), has("OutputBinding"); in || out {
		add("binding", "bindings", func(ctx context.Context, c *conn, m map[string]string) (any, error) {
			return openBinding(ctx, c, m, in, out)
		})
	}
	if has("SecretStore") {
		add("secret", "secretstores", func(ctx context.Context, c *conn, m map[string]string) (any, error) { return openSecret(ctx, c, m) })
	}
	return list
}
