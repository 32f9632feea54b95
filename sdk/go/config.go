package loam

import "github.com/loam-run/loam/sdk/go/internal/api"

// A ConfigStore is a component of the config capability.
type ConfigStore struct{ component string }

// Config is the component of that name, the default one for "".
func Config(component string) ConfigStore { return ConfigStore{component} }

// A ConfigItem is one entry of configuration.
type ConfigItem struct{ Key, Value, Version string }

// Get returns the value of key; one that is not there is NotFound.
func (c ConfigStore) Get(key string) (string, error) {
	items, err := c.GetMany(key)
	if err != nil {
		return "", err
	}
	if len(items) == 0 {
		return "", Errorf(NotFound, "config %q is not there", key)
	}
	return items[0].Value, nil
}

// GetMany returns the items of those keys that are there, of all that are granted where none is named.
func (c ConfigStore) GetMany(keys ...string) ([]ConfigItem, error) {
	var resp api.ConfigGetResponse
	if err := call("config.Get", &api.ConfigGetRequest{Component: c.component, Keys: keys}, &resp); err != nil {
		return nil, err
	}
	items := make([]ConfigItem, len(resp.Items))
	for i, f := range resp.Items {
		items[i] = ConfigItem{f.Key, f.Value, f.Version}
	}
	return items, nil
}
