package secret

import "context"

// A Driver is what a component implements to offer secrets. Every method may be called from many goroutines at once.
type Driver interface {
	// Get returns the secret of that name as it is now. NotFound: there is none.
	Get(ctx context.Context, name string) ([]byte, error)
	Close() error
}

// Fielded is a Driver whose secrets have several values, by name.
type Fielded interface {
	// GetFields returns all values of a secret. One that has a single value has it under its own name. NotFound: there is
	// none.
	GetFields(ctx context.Context, name string, metadata map[string]string) (map[string]string, error)
}

// Lister is a Driver that can return all its secrets.
type Lister interface {
	// GetAll returns each secret's values by its name.
	GetAll(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error)
}
