package dapr

import (
	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/secret"
)

// secretStore finds a secret component.
func (a *API) secretStore(name string) (*secret.Store, error) {
	s, err := a.opts.Capabilities.Secret(name)
	if err == nil {
		return s, nil
	}
	f := a.missing("secret", err, errSecretNotConfigured, errSecretNotFound, "secret store "+name, nil)
	switch {
	case f.tag == errSecretNotFound.tag:
		f.message = "failed finding secret store with key " + name
	case f.code != loam.Unavailable:
		f.message = "secret store is not configured"
	}
	return nil, f
}
