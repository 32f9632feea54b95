package memory

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/state"
)

// OpenState opens a state component.
func (m *Memory) OpenState(context.Context, string, Config) (*State, error) {
	return &State{m: m, items: map[string]state.Item{}}, nil
}

// State is a state.Driver, a state.Lister and a state.Outbox.
type State struct {
	m     *Memory
	items map[string]state.Item
}

// get is the item of a key as it is now; the lock is held. What has expired is forgotten when it is asked for.
func (s *State) get(key string) state.Item {
	it, ok := s.items[key]
	if ok && !it.Expires.IsZero() && !s.m.now().Before(it.Expires) {
		delete(s.items, key)
		ok = false
	}
	if !ok {
		return state.Item{Key: key}
	}
	it.Value = bytes.Clone(it.Value)
	return it
}

// Get reads items.
func (s *State) Get(_ context.Context, keys []string) ([]state.Item, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	items := make([]state.Item, len(keys))
	for i, k := range keys {
		items[i] = s.get(k)
	}
	return items, nil
}

// List reads a range of keys.
func (s *State) List(_ context.Context, prefix, after string, limit int) ([]state.Item, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	var items []state.Item
	for _, k := range slices.Sorted(maps.Keys(s.items)) {
		if !strings.HasPrefix(k, prefix) || k <= after || len(items) == limit {
			continue
		}
		if it := s.get(k); it.ETag != "" {
			items = append(items, it)
		}
	}
	return items, nil
}

// Apply writes all ops or none.
func (s *State) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	return s.ApplyAndPublish(ctx, ops, nil, nil)
}

// SharesCommit tells whether bus lives in the same Memory.
func (s *State) SharesCommit(bus any) bool {
	p, ok := bus.(*Pubsub)
	return ok && p.m == s.m
}

// ApplyAndPublish writes all ops and appends all events, or does neither.
func (s *State) ApplyAndPublish(_ context.Context, ops []state.Op, bus any, events []loam.Event) ([]string, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	for _, op := range ops {
		it := s.get(op.Key)
		if err := state.CheckCondition(op, it.ETag != "", it.ETag); err != nil {
			return nil, err
		}
	}
	etags := make([]string, len(ops))
	for i, op := range ops {
		if op.Delete {
			delete(s.items, op.Key)
			continue
		}
		etags[i] = s.m.nextVersion()
		it := state.Item{Key: op.Key, Value: bytes.Clone(op.Value), ETag: etags[i]}
		if op.TTL > 0 {
			it.Expires = s.m.now().Add(op.TTL)
		}
		s.items[op.Key] = it
	}
	if len(events) > 0 {
		bus.(*Pubsub).append(events)
	}
	return etags, nil
}

// Close forgets nothing and frees nothing: the memory goes with the value.
func (s *State) Close() error { return nil }
