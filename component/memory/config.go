package memory

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/loam-run/loam/capability/config"
)

// OpenConfig opens a config component.
func (m *Memory) OpenConfig(context.Context, string, Config) (*Settings, error) {
	return &Settings{m: m, items: map[string]config.Item{}, watchers: map[*config.Watcher]struct{}{}}, nil
}

// Settings is a config.Driver.
type Settings struct {
	m        *Memory
	items    map[string]config.Item
	watchers map[*config.Watcher]struct{}
}

// Get reads items.
func (s *Settings) Get(_ context.Context, keys []string) ([]config.Item, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.get(keys), nil
}

// get reads items; the lock is held.
func (s *Settings) get(keys []string) []config.Item {
	if len(keys) == 0 {
		keys = slices.Collect(maps.Keys(s.items))
	}
	var items []config.Item
	for _, k := range slices.Compact(slices.Sorted(slices.Values(keys))) {
		if it, ok := s.items[k]; ok {
			it.Metadata = maps.Clone(it.Metadata)
			items = append(items, it)
		}
	}
	return items
}

// Set writes items.
func (s *Settings) Set(_ context.Context, items []config.Item) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	changed := make([]config.Item, len(items))
	for i, it := range items {
		changed[i] = config.Item{Key: strings.Clone(it.Key), Value: strings.Clone(it.Value), Version: s.m.nextVersion()}
		for name, value := range it.Metadata {
			if changed[i].Metadata == nil {
				changed[i].Metadata = map[string]string{}
			}
			changed[i].Metadata[strings.Clone(name)] = strings.Clone(value)
		}
		s.items[changed[i].Key] = changed[i]
	}
	s.tell(changed)
	return nil
}

// Delete removes keys.
func (s *Settings) Delete(_ context.Context, keys []string) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	changed := make([]config.Item, len(keys))
	for i, k := range keys {
		delete(s.items, k)
		changed[i] = config.Item{Key: strings.Clone(k)}
	}
	s.tell(changed)
	return nil
}

func (s *Settings) tell(changed []config.Item) {
	for w := range s.watchers {
		w.Changed(changed)
	}
}

// Watch tells of changes.
func (s *Settings) Watch(ctx context.Context, keys []string, changed func([]config.Item)) error {
	w := config.NewWatcher(keys)
	s.m.mu.Lock()
	s.watchers[w] = struct{}{}
	there := s.get(keys)
	s.m.mu.Unlock()
	w.Run(ctx, there, changed)
	s.m.mu.Lock()
	delete(s.watchers, w)
	s.m.mu.Unlock()
	return nil
}

// Close forgets nothing and frees nothing: the memory goes with the value.
func (s *Settings) Close() error { return nil }
