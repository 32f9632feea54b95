package state

import (
	"context"
	"strconv"
	"time"

	"github.com/loam-run/loam"
)

// A Driver is what a component implements to offer the state capability. It does the bare work: names were checked,
// grants too, sizes are in bounds. Every method may be called from many goroutines at once. What it hands out is read and
// not changed, so it may be what it keeps, as long as it does not change that either.
type Driver interface {
	// Get returns one item for each key, in that order; a key that is not there gives an Item with an empty ETag. What it
	// returns was there at one moment.
	Get(ctx context.Context, keys []string) ([]Item, error)
	// Apply does all the ops in their order or none, durably once it returns, and returns the new ETag of each (empty for
	// a delete). An op meets what those before it did, so one key may come several times. A condition that does not hold
	// fails with Aborted (IfMatch) or AlreadyExists (IfAbsent) and names the key.
	Apply(ctx context.Context, ops []Op) (etags []string, err error)
	Close() error
}

// A Getter is a Driver that reads one item at less cost than Get does, or makes something of a read's options.
type Getter interface {
	GetOne(ctx context.Context, key string, o GetOptions) (Item, error)
}

// An Instant driver answers Get, GetOne and Apply from memory: who calls it need not leave an event loop for it.
type Instant interface{ Instant() bool }

// A Tasked driver is asked by tasks of event loops without Task.Await, which costs more than many a call.
type Tasked interface {
	// In is the driver for the calls that task t makes: Get, GetOne and Apply wait in t, nothing else is called. nil: there
	// is none for that task, or none with the component's settings.
	In(t loam.Task) Driver
}

// A Lister is a Driver that can list keys in byte order.
type Lister interface {
	// List returns at most limit items whose key begins with prefix and is greater than after, in byte order.
	List(ctx context.Context, prefix, after string, limit int) ([]Item, error)
}

// A Querier is a Driver that finds items by what their values, JSON objects, hold. Select does it for drivers that can
// only read them all.
type Querier interface {
	// Query returns those of the items whose key begins with prefix that q selects.
	Query(ctx context.Context, prefix string, q *Query) (Page, error)
}

// An Outbox is a Driver that can publish in the same commit as it writes.
type Outbox interface {
	// SharesCommit tells whether bus, a pubsub.Driver, stores its log where this driver stores its items.
	SharesCommit(bus any) bool
	// ApplyAndPublish is Apply with events published to bus: all of both or none of either.
	ApplyAndPublish(ctx context.Context, ops []Op, bus any, events []loam.Event) (etags []string, err error)
}

// A Limited driver cannot do all that the contract asks for. One that is not Limited can.
type Limited interface{ Limits() Limits }

// Limits are what a driver cannot do: it is not asked to.
type Limits struct {
	NoETags        bool // ops with a condition are refused; an item that is there has an ETag all the same, if only a made-up one
	NoTransactions bool // Apply takes one op
	NoTTL          bool // ops with a TTL are refused
	MaxOps         int  // in a transaction; 0: MaxOps of the package
	NoNewETags     bool // Apply answers empty ETags: who wants one reads the item
	TextKeys       bool // a key that is not UTF-8 is refused
}

// GetOptions are what a reader may say beside the keys.
type GetOptions struct {
	Eventual bool              // an older value will do; a driver may answer the newest all the same
	Metadata map[string]string // for the driver: a partition's key
}

// An Item is one key with what is stored under it.
type Item struct {
	Key     string
	Value   []byte    // to be read, not to be changed
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
	Metadata map[string]string

	// Projection: the op writes nothing; its value is what the outbox publishes for the write of the same key.
	Projection bool
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

// CheckConditions tells beforehand whether the conditions of all ops will hold, each after those before it. find looks up
// what is there now, of a key that has a condition.
func CheckConditions(ops []Op, find func(key string) (there bool, etag string, err error)) error {
	var written map[string]bool // by ops of this call: whether it is there after them
	for i, op := range ops {
		if op.IfAbsent || op.IfMatch != "" {
			there, before := written[op.Key]
			etag := "" // one that nobody knows yet
			if !before {
				var err error
				if there, etag, err = find(op.Key); err != nil {
					return err
				}
			}
			if err := CheckCondition(op, there, etag); err != nil {
				return err
			}
		}
		if i < len(ops)-1 {
			if written == nil {
				written = make(map[string]bool, len(ops))
			}
			written[op.Key] = !op.Delete
		}
	}
	return nil
}
