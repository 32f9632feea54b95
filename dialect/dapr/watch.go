package dapr

import (
	"encoding/json"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/config"
)

// configuration finds a configuration component.
func (a *API) configuration(name string) (*config.Config, error) {
	c, err := a.opts.Capabilities.Config(name)
	if err == nil {
		return c, nil
	}
	f := a.missing("config", err, errConfigNotConfigured, errConfigNotFound, "configuration store "+name, nil)
	switch f.tag {
	case errConfigNotFound.tag:
		f.message = "configuration store " + name + " not found"
	case errConfigNotConfigured.tag:
		if f.code != loam.Unavailable {
			f.message = "configuration stores not configured"
		}
	}
	return nil, f
}

// getConfig reads items; with no keys, all of them.
func (a *API) getConfig(req *loam.Request, store string, keys []string) ([]config.Item, error) {
	c, err := a.configuration(store)
	if err != nil {
		return nil, err
	}
	var items []config.Item
	timing := a.settings.Metrics.begin(req.Task())
	await(req, func() { items, err = c.Get(req.Context(), a.opts.App.Caller, keys) })
	timing.end(configCalls, store, "get", succeeded(err))
	if err != nil {
		return nil, errConfigGet.caused(err, "failed to get %s from Configuration store %s: %s", keys, store, words(err))
	}
	return items, nil
}

// jsonConfig is an item of configuration as JSON has it.
type jsonConfig struct {
	Value    string            `json:"value,omitempty"`
	Version  string            `json:"version,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func configItems(items []config.Item) map[string]jsonConfig {
	m := make(map[string]jsonConfig, len(items))
	for _, it := range items {
		m[it.Key] = jsonConfig{it.Value, it.Version, it.Metadata}
	}
	return m
}

func (c *call) getConfiguration() error {
	items, err := c.api.getConfig(c.Request, c.params[0], c.queries("key"))
	if err != nil {
		return err
	}
	if len(items) == 0 {
		c.empty()
		return nil
	}
	return c.encode(configItems(items))
}

// subscribeConfiguration has changes posted to the program until it unsubscribes.
func (c *call) subscribeConfiguration() error {
	// The subscription outlives the request, and so its buffers.
	a, store, keys := c.api, strings.Clone(c.params[0]), c.queries("key")
	for i, key := range keys {
		keys[i] = strings.Clone(key)
	}
	if a.opts.App.Target == nil {
		if _, err := a.configuration(store); err != nil {
			return err
		}
		return errAppChannel.failure("app channel is not initialized. cannot subscribe to configuration updates")
	}
	id, err := a.subscribeConfig(c.Request, store, keys, func(id string, items []config.Item) {
		all := configItems(items)
		body, err := json.Marshal(map[string]any{"id": id, "items": all})
		if err != nil {
			panic("dapr: " + err.Error()) // strings only
		}
		for key := range all {
			if err := a.pushConfiguration(store, key, body); err != nil {
				a.log.Warn("change of configuration not delivered", "component", store, "key", key, "error", err)
			}
		}
	})
	if err != nil {
		return err
	}
	return c.encode(map[string]string{"id": id})
}

// subscribeConfig begins to hand changes on.
func (a *API) subscribeConfig(req *loam.Request, store string, keys []string, changed func(id string, items []config.Item)) (id string, err error) {
	if _, err := a.configuration(store); err != nil {
		return "", err
	}
	timing := a.settings.Metrics.begin(req.Task())
	await(req, func() { id, err = a.watches.Add(req.Context(), store, a.opts.App.Caller, keys, changed) })
	timing.end(configCalls, store, "subscribe", succeeded(err))
	if err != nil {
		return "", errConfigSubscribe.caused(err, "failed to subscribe %s from Configuration store %s: %s", keys, store, words(err))
	}
	return id, nil
}

func (c *call) unsubscribeConfiguration() error {
	if _, err := c.api.configuration(c.params[0]); err != nil {
		return err
	}
	timing := c.api.settings.Metrics.begin(c.Task())
	err := c.api.watches.Remove(c.params[0], c.params[1])
	timing.end(configCalls, c.params[0], "unsubscribe", succeeded(err))
	if err != nil {
		b, err := json.Marshal(map[string]string{"message": unsubscribeFailed(c.params[1])})
		c.json(errConfigGet.status, append(b, '\n'))
		return err
	}
	return c.encode(map[string]bool{"ok": true})
}

func unsubscribeFailed(id string) string {
	return "failed to unsubscribe to configuration request " + id + ": subscription does not exist"
}
