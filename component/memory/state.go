package memory

import (
	"bytes"
	"container/heap"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/state"
)

// OpenState opens a state component.
func (m *Memory) OpenState(context.Context, string, Config) (*State, error) {
	return &State{m: m}, nil
}

// State is a state.Driver, and all that one can be beside. One item is read without a lock: what is stored is never changed,
// but replaced. Several are read under the lock that writes take, so that they are of one moment.
type State struct {
	m      *Memory
	items  sync.Map // *state.Item by key
	ending ending   // those that expire, the first first; the lock guards it, as the next
	crowd  int      // as many in ending have those removed that were written anew
}

// get is the item of a key as it is now.
func (s *State) get(key string) state.Item {
	if v, ok := s.items.Load(key); ok {
		if it := v.(*state.Item); it.Expires.IsZero() || s.m.now().Before(it.Expires) {
			return *it
		}
	}
	return state.Item{Key: key}
}

// Instant tells that nothing is waited for.
func (s *State) Instant() bool { return true }

// GetOne reads an item.
func (s *State) GetOne(_ context.Context, key string, _ state.GetOptions) (state.Item, error) {
	return s.get(key), nil
}

// Get reads items.
func (s *State) Get(_ context.Context, keys []string) ([]state.Item, error) {
	if len(keys) == 1 {
		return []state.Item{s.get(keys[0])}, nil
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	items := make([]state.Item, len(keys))
	for i, k := range keys {
		items[i] = s.get(k)
	}
	return items, nil
}

// below reads the items whose keys begin with prefix, in no order.
func (s *State) below(prefix string) map[string]state.Item {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	found := map[string]state.Item{}
	for k, v := range s.items.Range {
		it := v.(*state.Item)
		if strings.HasPrefix(k.(string), prefix) && (it.Expires.IsZero() || s.m.now().Before(it.Expires)) {
			found[it.Key] = *it
		}
	}
	return found
}

// List reads a range of keys.
func (s *State) List(_ context.Context, prefix, after string, limit int) ([]state.Item, error) {
	var items []state.Item
	found := s.below(prefix)
	for _, k := range slices.Sorted(maps.Keys(found)) {
		if k > after && len(items) < limit {
			items = append(items, found[k])
		}
	}
	return items, nil
}

// Query finds items by what their values hold.
func (s *State) Query(_ context.Context, prefix string, q *state.Query) (state.Page, error) {
	found := s.below(prefix)
	return state.Select(q, func(yield func(state.Item, error) bool) {
		for _, it := range found {
			if !yield(it, nil) {
				return
			}
		}
	})
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
	now := s.m.now()
	s.forget(now)
	if err := state.CheckConditions(ops, func(key string) (bool, string, error) {
		it := s.get(key)
		return it.ETag != "", it.ETag, nil
	}); err != nil {
		return nil, err
	}
	if len(events) > 0 {
		if err := bus.(*Pubsub).append(events); err != nil {
			return nil, err
		}
	}
	etags := make([]string, len(ops))
	for i, op := range ops {
		if op.Delete {
			s.items.Delete(op.Key)
			continue
		}
		etags[i] = s.m.nextVersion()
		// The value has no room behind it: who appends to it gets another.
		it := &state.Item{Key: strings.Clone(op.Key), Value: slices.Clip(bytes.Clone(op.Value)), ETag: etags[i]}
		if op.TTL > 0 {
			it.Expires = now.Add(op.TTL)
			heap.Push(&s.ending, it)
		}
		s.items.Store(it.Key, it)
	}
	return etags, nil
}

// forget removes what has expired. The lock is held.
func (s *State) forget(now time.Time) {
	for len(s.ending) > 0 && !now.Before(s.ending[0].Expires) {
		it := heap.Pop(&s.ending).(*state.Item)
		s.items.CompareAndDelete(it.Key, it) // unless it was written anew
	}
	if len(s.ending) > s.crowd {
		s.ending = slices.DeleteFunc(s.ending, func(it *state.Item) bool {
			now, ok := s.items.Load(it.Key)
			return !ok || now != any(it)
		})
		heap.Init(&s.ending)
		s.crowd = 2*len(s.ending) + 1000
	}
}

// ending is a heap of items, by the end of their life.
type ending []*state.Item

func (e ending) Len() int           { return len(e) }
func (e ending) Less(i, j int) bool { return e[i].Expires.Before(e[j].Expires) }
func (e ending) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *ending) Push(x any)        { *e = append(*e, x.(*state.Item)) }
func (e *ending) Pop() any {
	old := *e
	last := len(old) - 1
	it := old[last]
	old[last] = nil
	*e = old[:last]
	return it
}

// Close forgets nothing and frees nothing: the memory goes with the value.
func (s *State) Close() error { return nil }
