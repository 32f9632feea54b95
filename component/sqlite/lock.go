package sqlite

import (
	"context"
	"time"

	"github.com/loam-run/loam/capability/lock"
)

// OpenLock opens a lock component.
func (f *Files) OpenLock(ctx context.Context, name string, c Config) (*Lock, error) {
	s, err := f.openSpace(ctx, "lock", name, c)
	return &Lock{s, f}, err
}

// Lock is a lock.Driver: leases that end by the wall clock, and outlive the process.
type Lock struct {
	space
	files *Files
}

// Close lets go of the file.
func (l *Lock) Close() error { return l.files.release(l.space) }

// TryLock takes a lease.
func (l *Lock) TryLock(ctx context.Context, name, owner string, ttl time.Duration) (got bool, err error) {
	err = l.write(ctx, func(d *db) error {
		holder, err := l.holder(name)
		if got = err == nil && (holder == "" || holder == owner); !got {
			return err
		}
		return l.put(name, owner, ttl)
	})
	return got && err == nil, err
}

// Renew lengthens a lease.
func (l *Lock) Renew(ctx context.Context, name, owner string, ttl time.Duration) error {
	return l.write(ctx, func(*db) error {
		holder, err := l.holder(name)
		if err == nil {
			err = lock.CheckHolder(name, holder, owner)
		}
		if err != nil {
			return err
		}
		return l.put(name, owner, ttl)
	})
}

// Unlock ends a lease.
func (l *Lock) Unlock(ctx context.Context, name, owner string) error {
	return l.write(ctx, func(d *db) error {
		holder, err := l.holder(name)
		if err == nil {
			err = lock.CheckHolder(name, holder, owner)
		}
		if err != nil {
			return err
		}
		return d.exec("DELETE FROM lease WHERE space = ? AND name = ?", l.id, name)
	})
}

// holder is who holds name now, "" for nobody; in the writer, as is put.
func (l *Lock) holder(name string) (owner string, err error) {
	_, err = l.row([]any{&owner}, "SELECT owner FROM lease WHERE space = ? AND name = ? AND expires > ?", l.id, name, l.now().UnixMilli())
	return owner, err
}

func (l *Lock) put(name, owner string, ttl time.Duration) error {
	return l.exec("INSERT OR REPLACE INTO lease (space, name, owner, expires) VALUES (?, ?, ?, ?)",
		l.id, name, owner, l.now().Add(ttl).UnixMilli())
}
