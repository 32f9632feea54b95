// Package lock is the lock capability: a name held by one owner until its lease ends. Locker holds what is the same
// for every component, a Driver what is not.
package lock

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/capability/keys"
)

// MaxTTL is how long a lease may be; who needs longer renews.
const MaxTTL = 24 * time.Hour

// A Locker is one component's locks. For makes one whose names are an app's.
type Locker struct {
	name     string
	driver   Driver
	prefix   string // of every name of this view
	plain    bool   // names must not hold keys.Separator
	settings map[string]string
	views    *keys.Views[Locker]
	guard    loam.Guard
}

// New makes a Locker of the component called name, without settings.
func New(name string, d Driver) *Locker {
	return &Locker{name: name, driver: d, views: &keys.Views[Locker]{}}
}

// Open makes a Locker of the component called name. Settings are the component's metadata that is this package's: keyPrefix.
func Open(name string, d Driver, settings map[string]string) (*Locker, error) {
	l := New(name, d)
	l.settings = settings
	_, err := keys.Prefix(settings, name, "", "")
	return l, err
}

// Guarded is the locker with g round every call of the component, but for those that last.
func (l *Locker) Guarded(g loam.Guard) *Locker {
	made := *l
	made.guard = g
	made.views = &keys.Views[Locker]{}
	return &made
}

// For is the locker as an app's API finds it: the names of the app's locks begin with head, which is the dialect's (Dapr's
// is "lock||"), and what keyPrefix says. Grants are for names as the app writes them. It is made once for each app.
func (l *Locker) For(head, app, namespace string) (*Locker, error) {
	return l.views.Get(head, app, namespace, func() (*Locker, error) {
		prefix, err := keys.Prefix(l.settings, l.name, app, namespace)
		if err != nil {
			return nil, err
		}
		made := *l
		made.prefix, made.plain = head+prefix, true
		return &made, nil
	})
}

// TryLock takes a lock for owner until ttl has passed, and tells whether it could.
func (l *Locker) TryLock(ctx context.Context, caller *loam.Caller, name, owner string, ttl time.Duration) (bool, error) {
	if err := l.check(caller, name, owner); err != nil {
		return false, err
	}
	if err := checkTTL(name, ttl); err != nil {
		return false, err
	}
	return loam.Guarded(ctx, l.guard, func(ctx context.Context) (bool, error) { return l.driver.TryLock(ctx, l.prefix+name, owner, ttl) })
}

// Renew puts a lock's end ttl from now. NotFound: nobody holds it; PermissionDenied: another owner does.
func (l *Locker) Renew(ctx context.Context, caller *loam.Caller, name, owner string, ttl time.Duration) error {
	if err := l.check(caller, name, owner); err != nil {
		return err
	}
	if err := checkTTL(name, ttl); err != nil {
		return err
	}
	return l.driver.Renew(ctx, l.prefix+name, owner, ttl)
}

// Unlock gives a lock back, with Renew's errors. What they come to for a dialect, StatusOf says.
func (l *Locker) Unlock(ctx context.Context, caller *loam.Caller, name, owner string) error {
	if err := l.check(caller, name, owner); err != nil {
		return err
	}
	return l.driver.Unlock(ctx, l.prefix+name, owner)
}

// A Status is what became of an Unlock or a Renew, in the words and numbers of Dapr and Layotto.
type Status int32

// The statuses.
const (
	Success Status = iota
	DoesNotExist
	BelongsToOthers
	InternalError
)

// StatusOf is the status of what Unlock or Renew returned. An error that is none of the three with a name is to be told
// beside it.
func StatusOf(err error) Status {
	var held errHeld
	switch {
	case err == nil:
		return Success
	case errors.As(err, &held) && held.by == "":
		return DoesNotExist
	case errors.As(err, &held):
		return BelongsToOthers
	}
	return InternalError
}

func (l *Locker) check(caller *loam.Caller, name, owner string) error {
	if name == "" || owner == "" || len(name) > 1024 || len(owner) > 1024 {
		return loam.Errorf(loam.InvalidArgument, "lock "+strconv.Quote(name), "name and owner take 1 to 1024 bytes each")
	}
	if l.plain {
		if err := keys.Check(name); err != nil {
			return err
		}
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
