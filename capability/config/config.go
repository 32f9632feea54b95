// Package config is the configuration capability: settings that change while who reads them runs. Config holds what
// is the same for every component, a Driver what is not.
package config

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// Bounds of what a caller may ask.
const (
	MaxKeys  = 1000
	MaxValue = 1 << 20 // bytes
)

// A Config is one component's settings.
type Config struct {
	name   string
	driver Driver
	guard  loam.Guard
}

// New makes a Config of the component called name.
func New(name string, d Driver) *Config { return &Config{name: name, driver: d} }

// Guarded is the configuration with g round every call of the component, but for those that last.
func (c *Config) Guarded(g loam.Guard) *Config {
	made := *c
	made.guard = g
	return &made
}

// Get returns the items of those keys that are there; with no keys, all that the caller may read.
func (c *Config) Get(ctx context.Context, caller *loam.Caller, keys []string) ([]Item, error) {
	if err := c.check(caller, keys, false); err != nil {
		return nil, err
	}
	items, err := loam.Guarded(ctx, c.guard, func(ctx context.Context) ([]Item, error) { return c.driver.Get(ctx, keys) })
	if len(keys) == 0 {
		items = slices.DeleteFunc(items, func(it Item) bool { return c.unreadable(caller, it) })
	}
	return items, err
}

// Set writes items, all or none.
func (c *Config) Set(ctx context.Context, caller *loam.Caller, items []Item) error {
	keys := make([]string, len(items))
	for i, it := range items {
		if keys[i] = it.Key; len(it.Value) > MaxValue {
			return loam.Errorf(loam.InvalidArgument, "config "+strconv.Quote(it.Key), "a value of %d bytes: at most %d", len(it.Value), MaxValue)
		}
	}
	if err := c.check(caller, keys, true); err != nil {
		return err
	}
	return c.driver.Set(ctx, items)
}

// Delete removes keys.
func (c *Config) Delete(ctx context.Context, caller *loam.Caller, keys []string) error {
	if err := c.check(caller, keys, true); err != nil {
		return err
	}
	return c.driver.Delete(ctx, keys)
}

// Watch calls changed with what is there of keys, be it nothing, then with each change, until ctx ends; with no keys, of all
// that the caller may read. Subscriptions does that for programs, by ids.
func (c *Config) Watch(ctx context.Context, caller *loam.Caller, keys []string, changed func([]Item)) error {
	if err := c.check(caller, keys, false); err != nil {
		return err
	}
	first := true
	return c.driver.Watch(ctx, keys, func(items []Item) {
		items = slices.DeleteFunc(items, func(it Item) bool { return c.unreadable(caller, it) })
		if len(items) > 0 || first {
			changed(items)
		}
		first = false
	})
}

func (c *Config) unreadable(caller *loam.Caller, it Item) bool {
	return caller.Check("config", c.name, it.Key, false) != nil
}

func (c *Config) check(caller *loam.Caller, keys []string, write bool) error {
	if len(keys) > MaxKeys || write && len(keys) == 0 {
		return loam.Errorf(loam.InvalidArgument, "config", "%d keys: 1 to %d at once", len(keys), MaxKeys)
	}
	for _, k := range keys {
		if k == "" || len(k) > 1024 {
			return loam.Errorf(loam.InvalidArgument, "config "+strconv.Quote(k), "a key takes 1 to 1024 bytes")
		}
		if err := caller.Check("config", c.name, k, write); err != nil {
			return err
		}
	}
	return nil
}

// Methods are the capability's calls; find returns the component of a name.
func Methods(find func(component string) (*Config, error)) loam.Methods {
	return loam.Methods{
		"config.Get": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.ConfigGetRequest
			c, err := api.Parse(&req, in, func() (*Config, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			items, err := c.Get(ctx, caller, req.Keys)
			if err != nil {
				return nil, err
			}
			var res api.ConfigGetResponse
			for _, it := range items {
				out := api.ConfigItem{Key: it.Key, Value: it.Value, Version: it.Version}
				for _, name := range slices.Sorted(maps.Keys(it.Metadata)) {
					out.Metadata = append(out.Metadata, api.Attribute{Name: name, Value: it.Metadata[name]})
				}
				res.Items = append(res.Items, out)
			}
			return res.AppendProto(nil), nil
		},
		"config.Set": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.ConfigSetRequest
			c, err := api.Parse(&req, in, func() (*Config, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			items := make([]Item, len(req.Items))
			for i, it := range req.Items {
				items[i] = Item{Key: it.Key, Value: it.Value}
				if len(it.Metadata) > 0 {
					items[i].Metadata = make(map[string]string, len(it.Metadata))
				}
				for _, a := range it.Metadata {
					items[i].Metadata[a.Name] = a.Value
				}
			}
			return nil, c.Set(ctx, caller, items)
		},
		"config.Delete": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.ConfigDeleteRequest
			c, err := api.Parse(&req, in, func() (*Config, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			return nil, c.Delete(ctx, caller, req.Keys)
		},
	}
}
