package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"sync"

	"github.com/loam-run/loam/capability/config"
)

// OpenConfig opens a config component.
func (f *Files) OpenConfig(ctx context.Context, name string, c Config) (*Settings, error) {
	s, err := f.openSpace(ctx, "config", name, c)
	return &Settings{space: s, files: f, watchers: map[*config.Watcher]struct{}{}}, err
}

// Settings is a config.Driver. Watchers learn of changes made through this process; no other can make any.
type Settings struct {
	space
	files *Files

	mu       sync.Mutex
	watchers map[*config.Watcher]struct{}
}

// Close lets go of the file.
func (s *Settings) Close() error { return s.files.release(s.space) }

// Get reads items.
func (s *Settings) Get(ctx context.Context, keys []string) (items []config.Item, err error) {
	query, args := "SELECT key, value, version, metadata FROM config WHERE space = ?", []any{s.id}
	if len(keys) > 0 {
		query, args = in(query+" AND key", args, keys)
	}
	err = s.rows(ctx, func(r *sql.Rows) error {
		var it config.Item
		var version int64
		var metadata []byte
		if err := r.Scan(&it.Key, &it.Value, &version, &metadata); err != nil {
			return err
		}
		it.Version = formatVersion(version)
		if metadata != nil {
			if err := json.Unmarshal(metadata, &it.Metadata); err != nil {
				return err
			}
		}
		items = append(items, it)
		return nil
	}, query+" ORDER BY key", args...)
	return items, err
}

// Set writes items.
func (s *Settings) Set(ctx context.Context, items []config.Item) error {
	changed := make([]config.Item, len(items))
	return s.change(ctx, changed, func(d *db) error {
		for i, it := range items {
			var metadata any
			if len(it.Metadata) > 0 {
				b, err := json.Marshal(it.Metadata)
				if err != nil {
					return err
				}
				metadata = b
			}
			version := d.nextVersion()
			if err := d.exec("INSERT OR REPLACE INTO config (space, key, value, version, metadata) VALUES (?, ?, ?, ?, ?)",
				s.id, it.Key, it.Value, version, metadata); err != nil {
				return err
			}
			it.Version = formatVersion(version)
			changed[i] = it
		}
		return nil
	})
}

// Delete removes keys.
func (s *Settings) Delete(ctx context.Context, keys []string) error {
	changed := make([]config.Item, len(keys))
	return s.change(ctx, changed, func(d *db) error {
		for i, k := range keys {
			if err := d.exec("DELETE FROM config WHERE space = ? AND key = ?", s.id, k); err != nil {
				return err
			}
			changed[i] = config.Item{Key: k}
		}
		return nil
	})
}

// change writes, then tells the watchers what apply left in changed. The lock keeps their order the writer's.
func (s *Settings) change(ctx context.Context, changed []config.Item, apply func(*db) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.write(ctx, apply); err != nil {
		return err
	}
	for w := range s.watchers {
		w.Changed(changed)
	}
	return nil
}

// Watch tells of changes.
func (s *Settings) Watch(ctx context.Context, keys []string, changed func([]config.Item)) error {
	w := config.NewWatcher(keys)
	s.mu.Lock()
	s.watchers[w] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	}()
	there, err := s.Get(ctx, keys) // a change that comes meanwhile may be told twice
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	w.Run(ctx, there, changed)
	return nil
}
