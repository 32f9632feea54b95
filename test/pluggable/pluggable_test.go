// Package pluggable holds component/pluggable against components as others write them: with Dapr's SDK for Go, and with
// grpc-go and Dapr's messages.
package pluggable

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/pubsub/pubsubtest"
	"github.com/loam-run/loam/capability/secret"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/capability/state/statetest"
	"github.com/loam-run/loam/component/pluggable"
)

const patience = 30 * time.Second

// bin is where the programs were built.
var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pluggable-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bin = dir
	for name, in := range map[string]string{"program": "program", "vault": "vault"} {
		out, err := exec.Command("go", "build", "-C", in, "-o", filepath.Join(dir, name), ".").CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", name, err, out)
			return 1
		}
	}
	return m.Run()
}

// start runs a program with its sockets in a folder, and returns what ends it.
func start(t *testing.T, name, folder string) (stop func()) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, name))
	cmd.Env = append(os.Environ(), "DAPR_COMPONENT_SOCKETS_FOLDER="+folder)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	t.Cleanup(stop)
	return stop
}

// found waits until so many types are offered.
func found(t *testing.T, s *pluggable.Sockets, n int) map[string]loam.Factory {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		list, err := s.Factories(t.Context())
		if len(list) == n {
			byType := map[string]loam.Factory{}
			for _, f := range list {
				byType[f.Type] = f
			}
			return byType
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d types are offered, not %d: %v", len(list), n, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func sockets(t *testing.T, folder string) *pluggable.Sockets {
	t.Helper()
	s := pluggable.New(folder, "")
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// open opens a component of a name of its own, which the program takes for a new one.
func open[D io.Closer](f loam.Factory) func(*testing.T) D {
	return func(t *testing.T) D { return openWith[D](t, f, nil) }
}

var opened atomic.Int64

func openWith[D io.Closer](t *testing.T, f loam.Factory, metadata map[string]string) D {
	t.Helper()
	d, err := f.Open(t.Context(), "component-"+strconv.FormatInt(opened.Add(1), 10), metadata)
	if err != nil {
		t.Fatal(err)
	}
	driver := d.(D)
	t.Cleanup(func() {
		if err := driver.Close(); err != nil {
			t.Error(err)
		}
	})
	return driver
}

func TestSDK(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "not.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := sockets(t, folder)
	if list, err := s.Factories(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("nobody is there: %v, %v", list, err)
	}
	start(t, "program", folder)
	types := found(t, s, 3)
	if got := slices.Sorted(maps.Keys(types)); !slices.Equal(got, []string{"binding.memory", "pubsub.memory", "state.memory"}) {
		t.Fatalf("%q", got)
	}
	t.Run("state", func(t *testing.T) { statetest.Run(t, open[state.Driver](types["state.memory"])) })
	t.Run("pubsub", func(t *testing.T) { pubsubtest.Run(t, open[pubsub.Driver](types["pubsub.memory"])) })
	t.Run("binding", func(t *testing.T) { bindings(t, types["binding.memory"]) })
}

func bindings(t *testing.T, f loam.Factory) {
	if !slices.Equal(f.Aliases, []string{"bindings.memory"}) {
		t.Errorf("aliases %q", f.Aliases)
	}
	d := openWith[binding.Driver](t, f, map[string]string{"prefix": "word "})
	out := d.(binding.Output)
	if !slices.Equal(out.Operations(), []string{"echo", "get"}) {
		t.Errorf("operations %q", out.Operations())
	}
	res, err := out.Invoke(t.Context(), binding.Request{Operation: "echo", Data: []byte("hello"), Metadata: map[string]string{"a": "b"}})
	if err != nil || string(res.Data) != "echo:hello" || res.Metadata["a"] != "b" {
		t.Errorf("%q %v, %v", res.Data, res.Metadata, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var mu sync.Mutex
	tries, done := map[string]int{}, 0
	if err := d.(binding.Input).Read(ctx, func(_ context.Context, e binding.Event) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		word := string(e.Data)
		if tries[word]++; e.Metadata["n"] != word {
			t.Errorf("%q comes with %v", word, e.Metadata)
		}
		if tries[word] == 1 {
			return nil, fmt.Errorf("not yet")
		}
		if done++; done == 5 {
			cancel()
		}
		return e.Data, nil
	}); err != nil {
		t.Error(err)
	}
	for _, word := range []string{"word a", "word b", "word c", "word d", "word e"} {
		if tries[word] < 2 {
			t.Errorf("%s came %d times", word, tries[word])
		}
	}
}

func TestSecrets(t *testing.T) {
	folder := t.TempDir()
	s := sockets(t, folder)
	start(t, "vault", folder)
	f := found(t, s, 1)["secret.vault.v1"]
	if !slices.Equal(f.Aliases, []string{"secretstores.vault.v1"}) {
		t.Errorf("aliases %q", f.Aliases)
	}
	d := openWith[*pluggable.Secret](t, f, map[string]string{"token": "s3cret", "user": "me"})
	if v, err := d.Get(t.Context(), "token"); err != nil || string(v) != "s3cret" {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := d.Get(t.Context(), "none"); loam.CodeOf(err) != loam.NotFound {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := d.Get(t.Context(), "denied"); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("%q, %v", v, err)
	}
	all, err := d.GetAll(t.Context(), nil)
	if err != nil || len(all) != 2 || all["user"]["user"] != "me" {
		t.Errorf("%v, %v", all, err)
	}
	other := openWith[secret.Driver](t, f, map[string]string{"token": "another's"}) // of the same program
	if v, err := other.Get(t.Context(), "token"); err != nil || string(v) != "another's" {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := d.Get(t.Context(), "token"); err != nil || string(v) != "s3cret" {
		t.Errorf("%q, %v", v, err)
	}
}

// TestComesAndGoes ends the program under a component, and starts it again.
func TestComesAndGoes(t *testing.T) {
	folder := t.TempDir()
	s := sockets(t, folder)
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan struct{}, 100)
	var watching sync.WaitGroup
	watching.Go(func() { s.Watch(ctx, func() { told <- struct{}{} }) })
	defer watching.Wait()
	defer cancel()
	stop := start(t, "program", folder)
	hear := func(what string) {
		t.Helper()
		select {
		case <-told:
		case <-time.After(patience):
			t.Fatal(what + ": nobody is told")
		}
	}
	hear("it has come")
	types := found(t, s, 3)
	st, ps := open[state.Driver](types["state.memory"])(t), open[pubsub.Driver](types["pubsub.memory"])(t)
	if _, err := st.Apply(t.Context(), []state.Op{{Key: "k", Value: []byte("v")}}); err != nil {
		t.Fatal(err)
	}
	ids := make(chan string, 100)
	watching.Go(func() {
		if err := ps.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g", InFlight: 1}, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
			ids <- d.Event.ID
			return pubsub.Verdict{}
		}); err != nil {
			t.Error(err)
		}
	})
	if err := ps.Publish(t.Context(), []loam.Event{{ID: "1", Topic: "t"}}); err != nil {
		t.Fatal(err)
	}
	if id := <-ids; id != "1" {
		t.Errorf("delivered %s", id)
	}
	stop()
	if _, err := st.Get(t.Context(), []string{"k"}); loam.CodeOf(err) != loam.Unavailable {
		t.Errorf("without its program: %v", err)
	}
	start(t, "program", folder)
	hear("it was replaced")
	for deadline := time.Now().Add(patience); ; {
		if err := ps.Publish(t.Context(), []loam.Event{{ID: "2", Topic: "t"}}); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	select {
	case id := <-ids:
		if id != "2" {
			t.Errorf("delivered %s", id)
		}
	case <-time.After(patience):
		t.Error("the subscription does not go on with the new program")
	}
}
