package sequence

import "context"

// A Driver is what a component implements to offer sequences. Every method may be called from many goroutines at once.
type Driver interface {
	// Next reserves count numbers of key and returns the first; the next call gets higher ones, after a crash too.
	// A sequence begins at 1.
	Next(ctx context.Context, key string, count int64) (first int64, err error)
	Close() error
}

// Weak is a Driver that gives numbers at less cost where only uniqueness is asked for: those of another process may be
// higher and come earlier.
type Weak interface {
	NextWeak(ctx context.Context, key string, count int64) (first int64, err error)
}
