package loam

import "github.com/loam-run/loam/sdk/go/internal/api"

// A SecretStore is a component of the secret capability.
type SecretStore struct{ component string }

// Secret is the component of that name, the default one for "".
func Secret(component string) SecretStore { return SecretStore{component} }

// Get returns the secret of that name; one that is not there is NotFound.
func (s SecretStore) Get(name string) ([]byte, error) {
	var resp api.SecretGetResponse
	err := call("secret.Get", &api.SecretGetRequest{Component: s.component, Name: name}, &resp)
	return resp.Value, err
}
