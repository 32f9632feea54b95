package memory

import (
	"context"
	"strings"
	"time"

	"github.com/loam-run/loam/capability/lock"
)

// Lock is a lock.Driver.
type Lock struct {
	m      *Memory
	leases map[string]lease
}

type lease struct {
	owner string
	end   time.Time
}

// holder is who holds name now; the lock is held.
func (l *Lock) holder(name string) string {
	x, ok := l.leases[name]
	if ok && !l.m.now().Before(x.end) {
		delete(l.leases, name)
		return ""
	}
	return x.owner
}

// TryLock takes a lease.
func (l *Lock) TryLock(_ context.Context, name, owner string, ttl time.Duration) (bool, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if h := l.holder(name); h != "" && h != owner {
		return false, nil
	}
	l.leases[strings.Clone(name)] = lease{strings.Clone(owner), l.m.now().Add(ttl)}
	return true, nil
}

// Renew lengthens a lease.
func (l *Lock) Renew(_ context.Context, name, owner string, ttl time.Duration) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if err := lock.CheckHolder(name, l.holder(name), owner); err != nil {
		return err
	}
	l.leases[name] = lease{l.leases[name].owner, l.m.now().Add(ttl)}
	return nil
}

// Unlock ends a lease.
func (l *Lock) Unlock(_ context.Context, name, owner string) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if err := lock.CheckHolder(name, l.holder(name), owner); err != nil {
		return err
	}
	delete(l.leases, name)
	return nil
}

// Close forgets nothing and frees nothing: the memory goes with the value.
func (l *Lock) Close() error { return nil }
