package loam

import (
	"time"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// A LockStore is a component of the lock capability: leases with an owner and an end.
type LockStore struct{ component string }

// Lock is the component of that name, the default one for "".
func Lock(component string) LockStore { return LockStore{component} }

// Try takes name for owner until ttl has passed; it is false where another owner holds it.
func (l LockStore) Try(name, owner string, ttl time.Duration) (bool, error) {
	var resp api.LockTryLockResponse
	err := call("lock.TryLock", &api.LockTryLockRequest{Component: l.component, Name: name, Owner: owner, TtlMs: milliseconds(ttl)}, &resp)
	return resp.Acquired, err
}

// Renew puts the end of owner's lease ttl from now. NotFound: nobody holds it; PermissionDenied: another owner does.
func (l LockStore) Renew(name, owner string, ttl time.Duration) error {
	return call("lock.Renew", &api.LockRenewRequest{Component: l.component, Name: name, Owner: owner, TtlMs: milliseconds(ttl)}, nil)
}

// Unlock gives the lock back, with Renew's errors.
func (l LockStore) Unlock(name, owner string) error {
	return call("lock.Unlock", &api.LockUnlockRequest{Component: l.component, Name: name, Owner: owner}, nil)
}
