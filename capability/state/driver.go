package state

import (
	"context"
	"strconv"
	"time"

	"github.com/loam-run/loam"
)

// A Driver is what a component implements to offer the state capability. It does the bare work: names were checked,
// grants too, sizes are in bounds. Every method may be called from many goroutines at once.
type Driver interface {
	// Get returns one item for each key, in that order; a key that is not there gives an Item with an empty ETag.
	Get(ctx context.Context, keys []string) ([]Item, error)
	// Apply does all the ops or none, durably once it returns, and returns the new ETag of each (empty for a
	// delete). A condition that does not hold fails with Aborted (IfMatch) or AlreadyExists (IfAbsent) and names the key.
	Apply(ctx context.Context, ops []Op) (etags []string, err error)
	Close() error
}

// A Lister is a Driver that can list keys in byte order.
type Lister interface {
	// List returns at most limit items whose key begins with prefix and is greater than after, in byte order.
	List(ctx context.Context, prefix, after string, limit int) ([]Item, error)
}

// An Outbox is a Driver that can publish in the same commit as it writes.
type Outbox interface {
	// SharesCommit tells whether bus, a pubsub.Driver, stores its log where this driver stores its items.
	SharesCommit(bus any) bool
	// ApplyAndPublish is Apply with events published to bus: all of both or none of either.
	ApplyAndPublish(ctx context.Context, ops []Op, bus any, events []loam.Event) (etags []string, err error)
}

// An Item is one key with what is stored under it.
type Item struct {
	Key     string
	Value   []byte
	ETag    string    // changes with each write; empty: the key is not there
	Expires time.Time // zero: never
}

// An Op is one write.
type Op struct {
	Delete   bool
	Key      string
	Value    []byte
	TTL      time.Duration // 0: for ever
	IfMatch  string        // only if the item's ETag is this; empty: whatever it is
	IfAbsent bool          // only if the key is not there
}

// CheckCondition tells whether op may be done on a key that is there (or not) with that ETag: nil, or the error that
// every driver answers alike.
func CheckCondition(op Op, there bool, etag string) error {
	switch {
	case op.IfAbsent && there:
		return loam.Errorf(loam.AlreadyExists, "state "+strconv.Quote(op.Key), "the key is there already")
	case op.IfMatch != "" && !there:
		return loam.Errorf(loam.Aborted, "state "+strconv.Quote(op.Key), "the key is not there any more")
	case op.IfMatch != "" && op.IfMatch != etag:
		return loam.Errorf(loam.Aborted, "state "+strconv.Quote(op.Key), "its ETag is %s by now, not %s", etag, op.IfMatch)
	}
	return nil
}
