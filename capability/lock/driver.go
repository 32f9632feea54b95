package lock

import (
	"context"
	"strconv"
	"time"

	"github.com/loam-run/loam"
)

// A Driver is what a component implements to offer locks: leases with an owner and an end. Every method may be
// called from many goroutines at once.
type Driver interface {
	// TryLock takes name for owner until ttl has passed. It is false, with no error, where another owner holds it;
	// an owner that holds it already gets it anew.
	TryLock(ctx context.Context, name, owner string, ttl time.Duration) (bool, error)
	// Renew puts the end ttl from now. NotFound: nobody holds it; PermissionDenied: another owner does.
	Renew(ctx context.Context, name, owner string, ttl time.Duration) error
	// Unlock gives it back, with Renew's errors.
	Unlock(ctx context.Context, name, owner string) error
	Close() error
}

// CheckHolder tells whether owner may renew or release name, which holder holds ("" for nobody): nil, or the error that
// every driver answers alike.
func CheckHolder(name, holder, owner string) error {
	switch holder {
	case owner:
		return nil
	case "":
		return loam.Errorf(loam.NotFound, "lock "+strconv.Quote(name), "nobody holds it")
	}
	return loam.Errorf(loam.PermissionDenied, "lock "+strconv.Quote(name), "another owner holds it")
}
