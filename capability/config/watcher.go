package config

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// A Watcher gathers changes for one Watch call, so that a slow watcher holds nobody up and misses no last value. Drivers
// that learn of changes in this process use it.
type Watcher struct {
	keys []string
	wake chan struct{}

	mu      sync.Mutex
	pending map[string]Item
}

// NewWatcher watches keys, all of them where there are none.
func NewWatcher(keys []string) *Watcher {
	return &Watcher{keys: keys, wake: make(chan struct{}, 1), pending: map[string]Item{}}
}

// Changed takes note of changes; it does not wait.
func (w *Watcher) Changed(items []Item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range items {
		if len(w.keys) == 0 || slices.Contains(w.keys, it.Key) {
			w.pending[it.Key] = it
		}
	}
	if len(w.pending) > 0 {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Run hands on what is there, then changes, in key order, until ctx ends. The driver has made the watcher known before it
// read what is there.
func (w *Watcher) Run(ctx context.Context, there []Item, changed func([]Item)) {
	changed(there)
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		w.mu.Lock()
		pending := w.pending
		w.pending = map[string]Item{}
		w.mu.Unlock()
		items := make([]Item, 0, len(pending))
		for _, k := range slices.Sorted(maps.Keys(pending)) {
			items = append(items, pending[k])
		}
		if len(items) > 0 {
			changed(items)
		}
	}
}
