package config

import "context"

// A Driver is what a component implements to offer configuration. Every method may be called from many goroutines
// at once.
type Driver interface {
	// Get returns the items of those keys that are there, of all keys where keys is empty, in key order.
	Get(ctx context.Context, keys []string) ([]Item, error)
	// Set writes items, all or none; their Version is ignored.
	Set(ctx context.Context, items []Item) error
	// Delete removes keys; those that are not there are no error.
	Delete(ctx context.Context, keys []string) error
	// Watch calls changed with what is there of keys (of all keys where keys is empty), be it nothing, as soon as it listens,
	// then with each change, until ctx ends: nil. Another end is an error. A deleted key comes with an empty Version. It
	// calls changed from one goroutine at a time, never after it returned. Changes between two calls may be merged; the
	// last is never lost.
	Watch(ctx context.Context, keys []string, changed func([]Item)) error
	Close() error
}

// An Item is one entry of configuration.
type Item struct {
	Key      string
	Value    string
	Version  string // changes with each write
	Metadata map[string]string
}
