package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/state"
)

// OpenState opens a state component.
func (f *Files) OpenState(ctx context.Context, name string, c Config) (*State, error) {
	s, err := f.openSpace(ctx, "state", name, c)
	return &State{s, f}, err
}

// State is a state.Driver, a state.Lister, a state.Querier and a state.Outbox.
type State struct {
	space
	files *Files
}

// Close lets go of the file.
func (s *State) Close() error { return s.files.release(s.space) }

// Get reads items.
func (s *State) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	items := make([]state.Item, len(keys))
	at := make(map[string]int, len(keys))
	for i, k := range keys {
		items[i].Key = k
		at[k] = i
	}
	query, args := in("SELECT key, value, etag, expires FROM state WHERE space = ? AND (expires = 0 OR expires > ?) AND key",
		[]any{s.id, s.now().UnixMilli()}, keys)
	err := s.rows(ctx, func(r *sql.Rows) error {
		it, err := scanItem(r)
		items[at[it.Key]] = it
		return err
	}, query, args...)
	for i, k := range keys { // a key asked for twice is answered twice
		items[i] = items[at[k]]
	}
	return items, err
}

// List reads a range of keys.
func (s *State) List(ctx context.Context, prefix, after string, limit int) (items []state.Item, err error) {
	query, args := "SELECT key, value, etag, expires FROM state WHERE space = ? AND (expires = 0 OR expires > ?) AND key > ? AND key >= ?",
		[]any{s.id, s.now().UnixMilli(), after, prefix}
	if end := prefixEnd(prefix); end != "" {
		query += " AND key < ?"
		args = append(args, end)
	}
	err = s.rows(ctx, func(r *sql.Rows) error {
		it, err := scanItem(r)
		items = append(items, it)
		return err
	}, query+" ORDER BY key LIMIT ?", append(args, limit)...)
	return items, err
}

// prefixEnd is the first string, in byte order, behind all that begin with prefix; empty where there is none.
func prefixEnd(prefix string) string {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return string(end[:i+1])
		}
	}
	return ""
}

func scanItem(r *sql.Rows) (state.Item, error) {
	var it state.Item
	var etag, expires int64
	if err := r.Scan(&it.Key, &it.Value, &etag, &expires); err != nil {
		return it, err
	}
	it.ETag = formatVersion(etag)
	if expires > 0 {
		it.Expires = time.UnixMilli(expires)
	}
	return it, nil
}

// Apply writes all ops in one commit.
func (s *State) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	return s.ApplyAndPublish(ctx, ops, nil, nil)
}

// SharesCommit tells whether bus is a Pubsub of the same file.
func (s *State) SharesCommit(bus any) bool {
	p, ok := bus.(*Pubsub)
	return ok && p.db == s.db
}

// ApplyAndPublish writes all ops and appends all events in one commit.
func (s *State) ApplyAndPublish(ctx context.Context, ops []state.Op, bus any, events []loam.Event) ([]string, error) {
	etags := make([]string, len(ops))
	p, _ := bus.(*Pubsub)
	err := s.write(ctx, func(d *db) error {
		now := s.now()
		// Every condition first: a refusal must come before any change.
		if err := state.CheckConditions(ops, func(key string) (bool, string, error) { return s.current(key, now) }); err != nil {
			return err
		}
		for i, op := range ops {
			if op.Delete {
				if err := d.exec("DELETE FROM state WHERE space = ? AND key = ?", s.id, op.Key); err != nil {
					return err
				}
				continue
			}
			expires := int64(0)
			if op.TTL > 0 {
				expires = now.Add(op.TTL).UnixMilli()
			}
			version := d.nextVersion()
			etags[i] = formatVersion(version)
			if err := d.exec(`INSERT INTO state (space, key, value, etag, expires) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (space, key) DO UPDATE SET value = excluded.value, etag = excluded.etag, expires = excluded.expires`,
				s.id, op.Key, op.Value, version, expires); err != nil {
				return err
			}
		}
		if len(events) == 0 {
			return nil
		}
		return p.append(events)
	})
	if err != nil {
		return nil, err
	}
	if len(events) > 0 {
		p.published(events)
	}
	return etags, nil
}

// current is a key's ETag, and whether it is there; in the writer.
func (s *State) current(key string, now time.Time) (there bool, etag string, err error) {
	var version, expires int64
	there, err = s.row([]any{&version, &expires}, "SELECT etag, expires FROM state WHERE space = ? AND key = ?", s.id, key)
	return there && (expires == 0 || expires > now.UnixMilli()), formatVersion(version), err
}

// Query finds items by what their values hold. It reads all whose keys begin with prefix: their values are not indexed.
func (s *State) Query(ctx context.Context, prefix string, q *state.Query) (state.Page, error) {
	const batch = 256
	return state.Select(q, func(yield func(state.Item, error) bool) {
		for after := ""; ; {
			items, err := s.List(ctx, prefix, after, batch)
			if err != nil {
				yield(state.Item{}, err)
				return
			}
			for _, it := range items {
				if !yield(it, nil) {
					return
				}
			}
			if len(items) < batch {
				return
			}
			after = items[len(items)-1].Key
		}
	})
}
