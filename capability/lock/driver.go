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
	// Renew puts the end ttl from now. Where owner does not hold it, it fails as CheckHolder does: NotFound if nobody does,
	// PermissionDenied if another owner does.
	Renew(ctx context.Context, name, owner string, ttl time.Duration) error
	// Unlock gives it back, with Renew's errors.
	Unlock(ctx context.Context, name, owner string) error
	Close() error
}

// CheckHolder tells whether owner may renew or release name, which holder holds ("" for nobody): nil, or the error that
// every driver answers alike. A grant that is missing is PermissionDenied too: StatusOf tells them apart by this one.
func CheckHolder(name, holder, owner string) error {
	switch holder {
	case owner:
		return nil
	case "":
		return &loam.Error{Code: loam.NotFound, Op: "lock " + strconv.Quote(name), Err: errHeld{}}
	}
	return &loam.Error{Code: loam.PermissionDenied, Op: "lock " + strconv.Quote(name), Err: errHeld{holder}}
}

// errHeld is the cause where it matters who holds a lock.
type errHeld struct{ by string }

func (e errHeld) Error() string {
	if e.by == "" {
		return "nobody holds it"
	}
	return "another owner holds it"
}
