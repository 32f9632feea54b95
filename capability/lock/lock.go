// Package lock is the lock capability: a name held by one owner until its lease ends. Locker holds what is the same
// for every component, a Driver what is not.
package lock

import (
	"context"
	"strconv"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// MaxTTL is how long a lease may be; who needs longer renews.
const MaxTTL = 24 * time.Hour

// A Locker is one component's locks.
type Locker struct {
	name   string
	driver Driver
}

// New makes a Locker of the component called name.
func New(name string, d Driver) *Locker { return &Locker{name, d} }

// TryLock takes a lock for owner until ttl has passed, and tells whether it could.
func (l *Locker) TryLock(ctx context.Context, caller *loam.Caller, name, owner string, ttl time.Duration) (bool, error) {
	if err := l.check(caller, name, owner); err != nil {
		return false, err
	}
	if err := checkTTL(name, ttl); err != nil {
		return false, err
	}
	return l.driver.TryLock(ctx, name, owner, ttl)
}

// Renew puts a lock's end ttl from now. NotFound: nobody holds it; PermissionDenied: another owner does.
func (l *Locker) Renew(ctx context.Context, caller *loam.Caller, name, owner string, ttl time.Duration) error {
	if err := l.check(caller, name, owner); err != nil {
		return err
	}
	if err := checkTTL(name, ttl); err != nil {
		return err
	}
	return l.driver.Renew(ctx, name, owner, ttl)
}

// Unlock gives a lock back, with Renew's errors.
func (l *Locker) Unlock(ctx context.Context, caller *loam.Caller, name, owner string) error {
	if err := l.check(caller, name, owner); err != nil {
		return err
	}
	return l.driver.Unlock(ctx, name, owner)
}

func (l *Locker) check(caller *loam.Caller, name, owner string) error {
	if name == "" || owner == "" || len(name) > 1024 || len(owner) > 1024 {
		return loam.Errorf(loam.InvalidArgument, "lock "+strconv.Quote(name), "name and owner take 1 to 1024 bytes each")
	}
	return caller.Check("lock", l.name, name, true)
}

func checkTTL(name string, ttl time.Duration) error {
	if ttl <= 0 || ttl > MaxTTL {
		return loam.Errorf(loam.InvalidArgument, "lock "+strconv.Quote(name), "a lease of %s: it lasts from 1ms to %s", ttl, MaxTTL)
	}
	return nil
}

// Methods are the capability's calls; find returns the component of a name.
func Methods(find func(component string) (*Locker, error)) loam.Methods {
	return loam.Methods{
		"lock.TryLock": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.LockTryLockRequest
			l, err := api.Parse(&req, in, func() (*Locker, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			ok, err := l.TryLock(ctx, caller, req.Name, req.Owner, api.Millis(req.TtlMs))
			if err != nil {
				return nil, err
			}
			return (&api.LockTryLockResponse{Acquired: ok}).AppendProto(nil), nil
		},
		"lock.Renew": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.LockRenewRequest
			l, err := api.Parse(&req, in, func() (*Locker, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			return nil, l.Renew(ctx, caller, req.Name, req.Owner, api.Millis(req.TtlMs))
		},
		"lock.Unlock": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.LockUnlockRequest
			l, err := api.Parse(&req, in, func() (*Locker, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			return nil, l.Unlock(ctx, caller, req.Name, req.Owner)
		},
	}
}
