package secret

import "context"

// A Driver is what a component implements to offer secrets. Every method may be called from many goroutines at once.
type Driver interface {
	// Get returns the secret of that name as it is now. NotFound: there is none.
	Get(ctx context.Context, name string) ([]byte, error)
	Close() error
}
