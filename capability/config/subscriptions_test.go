package config_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// settings is a driver whose server can go away: then its watches end, and nothing is read.
type settings struct {
	mu       sync.Mutex
	version  int
	items    map[string]config.Item
	watchers map[*config.Watcher]context.CancelFunc
	away     bool
}

func newSettings() *settings {
	return &settings{items: map[string]config.Item{}, watchers: map[*config.Watcher]context.CancelFunc{}}
}

var errAway = loam.Errorf(loam.Unavailable, "settings", "the server is away")

func (s *settings) Get(_ context.Context, keys []string) ([]config.Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(keys)
}

func (s *settings) get(keys []string) (items []config.Item, err error) {
	if s.away {
		return nil, errAway
	}
	for _, k := range []string{"a", "b", "c"} {
		if it, ok := s.items[k]; ok && (len(keys) == 0 || slices.Contains(keys, k)) {
			items = append(items, it)
		}
	}
	return items, nil
}

func (s *settings) Set(_ context.Context, items []config.Item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range items {
		s.version++
		if it.Version == "" {
			it.Version = fmt.Sprint(s.version)
		}
		s.items[it.Key] = it
		for w := range s.watchers {
			w.Changed([]config.Item{it})
		}
	}
	return nil
}

func (s *settings) Delete(_ context.Context, keys []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		delete(s.items, k)
		for w := range s.watchers {
			w.Changed([]config.Item{{Key: k}})
		}
	}
	return nil
}

func (s *settings) Watch(ctx context.Context, keys []string, changed func([]config.Item)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	there, err := s.get(keys)
	w := config.NewWatcher(keys)
	s.watchers[w] = cancel
	s.mu.Unlock()
	if err != nil {
		return err
	}
	w.Run(ctx, there, changed)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, w)
	if s.away {
		return errAway
	}
	return nil
}

func (s *settings) setAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away = away; away {
		for _, end := range s.watchers {
			end()
		}
	}
}

func (s *settings) Close() error { return nil }

var reader = &loam.Caller{Name: "app", Grants: []loam.Grant{{Capability: "config", Component: "c"}}}

// world is a program's subscriptions to one component, and what it is told.
type world struct {
	t    *testing.T
	d    *settings
	subs *config.Subscriptions
	told []string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, d: newSettings()}
	c := config.New("c", w.d)
	w.subs = config.NewSubscriptions(func(name string) (*config.Config, error) {
		if name != "c" {
			return nil, loam.Errorf(loam.NotFound, "config", "no component %q", name)
		}
		return c, nil
	}, slog.New(slog.DiscardHandler))
	return w
}

func (w *world) add(keys ...string) string {
	w.t.Helper()
	id, err := w.subs.Add(w.t.Context(), "c", reader, keys, func(id string, items []config.Item) {
		for _, it := range items {
			w.told = append(w.told, it.Key+"="+it.Value+map[bool]string{true: "", false: "deleted"}[it.Version != ""])
		}
	})
	if err != nil || id == "" {
		w.t.Fatal(id, err)
	}
	return id
}

func (w *world) set(key, value string) {
	w.t.Helper()
	if err := w.d.Set(w.t.Context(), []config.Item{{Key: key, Value: value}}); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) want(told ...string) {
	w.t.Helper()
	synctest.Wait()
	if !slices.Equal(w.told, told) {
		w.t.Errorf("told %q, want %q", w.told, told)
	}
	w.told = nil
}

func TestSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set("a", "1")
		id := w.add("a", "b")
		w.want() // what is there is no news
		w.set("a", "2")
		w.set("c", "2")
		w.set("b", "2")
		w.want("a=2", "b=2")
		if err := w.d.Delete(t.Context(), []string{"a"}); err != nil {
			t.Fatal(err)
		}
		w.want("a=deleted")
		if err := w.subs.Remove("other", id); loam.CodeOf(err) != loam.NotFound {
			t.Errorf("of another component: %v", err)
		}
		if err := w.subs.Remove("c", id); err != nil {
			t.Error(err)
		}
		if err := w.subs.Remove("c", id); loam.CodeOf(err) != loam.NotFound {
			t.Errorf("it is gone: %v", err)
		}
		synctest.Wait()
		w.set("b", "3")
		w.want()
		w.add()
		w.set("c", "3")
		w.want("c=3")
		w.subs.Close()
		w.set("c", "4")
		w.want()
		if _, err := w.subs.Add(t.Context(), "c", reader, nil, nil); loam.CodeOf(err) != loam.Unavailable {
			t.Errorf("after the end: %v", err)
		}
	})
}

// Who writes by other means than this may leave the version as it was.
func TestSameVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.subs.Close()
		set := func(value string) {
			if err := w.d.Set(t.Context(), []config.Item{{Key: "a", Value: value, Version: "1"}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		set("1")
		w.add("a")
		set("2")
		set("2")
		set("3")
		w.want("a=2", "a=3")
	})
}

// What changes while a server is away is told once it is back, and told once.
func TestSubscriptionsBreakOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.subs.Close()
		w.set("a", "1")
		w.set("b", "1")
		w.set("c", "1")
		w.add()
		synctest.Wait()
		w.d.setAway(true)
		synctest.Wait()
		w.set("a", "2")
		if err := w.d.Delete(t.Context(), []string{"b"}); err != nil {
			t.Fatal(err)
		}
		w.want()
		w.d.setAway(false)
		waitUntil(t, func() bool { return len(w.told) > 0 })
		w.want("b=deleted", "a=2")
		w.set("b", "3")
		w.want("b=3")
	})
}

// waitUntil lets the bubble's time pass until is holds.
func waitUntil(t *testing.T, is func() bool) {
	t.Helper()
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		<-ctx.Done()
		cancel()
		synctest.Wait()
		if is() {
			return
		}
	}
	t.Fatal("it does not come to be")
}

func TestSubscriptionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.subs.Close()
		for range config.MaxSubscriptions {
			w.add("a")
		}
		if _, err := w.subs.Add(t.Context(), "c", reader, nil, nil); loam.CodeOf(err) != loam.ResourceExhausted {
			t.Errorf("one too many: %v", err)
		}
		_, err1 := w.subs.Add(t.Context(), "other", reader, nil, nil)
		_, err2 := w.subs.Add(t.Context(), "c", &loam.Caller{Name: "x"}, []string{"a"}, nil)
		if loam.CodeOf(err1) != loam.NotFound || loam.CodeOf(err2) != loam.PermissionDenied {
			t.Error(errors.Join(err1, err2))
		}
	})
}
