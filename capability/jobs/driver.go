package jobs

import (
	"context"
	"time"
)

// A Driver is what a component implements to keep jobs. Every method may be called from many goroutines at once; what a
// write returned from is durable, as far as the component is.
type Driver interface {
	// Put keeps a new record. AlreadyExists: its owner has one of that name, and overwrite is false.
	Put(ctx context.Context, r Record, overwrite bool) error
	// Get returns one. NotFound: there is none.
	Get(ctx context.Context, owner, name string) (Record, error)
	// List returns at most limit records of an owner whose name begins with prefix and is greater than after, in byte order.
	List(ctx context.Context, owner, prefix, after string, limit int) ([]Record, error)
	// Due returns at most limit records of an owner in the order of Next.
	Due(ctx context.Context, owner string, limit int) ([]Record, error)
	// Replace puts next where old, as it was read, still is, and deletes it where next is nil. Aborted: it was changed meanwhile.
	Replace(ctx context.Context, old Record, next *Record) error
	// Changed returns a channel that is closed with the next change that another call makes.
	Changed() <-chan struct{}
	Close() error
}

// A Record is a job as it is kept.
type Record struct {
	Job
	Owner   string
	Created time.Time
	Turn    time.Time // when the run that comes next is due by the schedule
	Next    time.Time // when to bring it: Turn, or after a failure later
	Expires time.Time // when it is over; zero: never
	Runs    uint32    // done or given up
	Tries   uint32    // how often the run that comes next has failed
	Version string    // changes with each write; the driver's
}
