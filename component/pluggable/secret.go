package pluggable

import (
	"context"
	"strconv"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api/dapr/components"
)

// Secret is a secret.Driver, Fielded and a Lister.
type Secret struct{ *conn }

func openSecret(ctx context.Context, c *conn, metadata map[string]string) (*Secret, error) {
	if err := c.init(ctx, "SecretStore", &components.SecretStoreInitRequest{Metadata: &components.MetadataRequest{Properties: metadata}}); err != nil {
		return nil, err
	}
	return &Secret{c}, nil
}

// Get returns a secret's value: the one under its own name, or the only one.
func (s *Secret) Get(ctx context.Context, name string) ([]byte, error) {
	fields, err := s.GetFields(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	if v, ok := fields[name]; ok {
		return []byte(v), nil
	}
	if len(fields) == 1 {
		for _, v := range fields {
			return []byte(v), nil
		}
	}
	return nil, loam.Errorf(loam.FailedPrecondition, "secret "+strconv.Quote(name), "it has %d values, and none of its own name", len(fields))
}

// GetFields returns all values of a secret.
func (s *Secret) GetFields(ctx context.Context, name string, metadata map[string]string) (map[string]string, error) {
	var out components.GetSecretResponse
	if err := s.call(ctx, "SecretStore/Get", &components.GetSecretRequest{Key: name, Metadata: metadata}, &out); err != nil {
		return nil, s.fail("secret.Get "+strconv.Quote(name), err)
	}
	if len(out.Data) == 0 {
		return nil, loam.Errorf(loam.NotFound, "secret "+strconv.Quote(name), "the component has none of that name")
	}
	return out.Data, nil
}

// GetAll returns all secrets.
func (s *Secret) GetAll(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error) {
	var out components.BulkGetSecretResponse
	if err := s.call(ctx, "SecretStore/BulkGet", &components.BulkGetSecretRequest{Metadata: metadata}, &out); err != nil {
		return nil, s.fail("secret.GetAll", err)
	}
	all := make(map[string]map[string]string, len(out.Data))
	for name, r := range out.Data {
		all[name] = r.Secrets
	}
	return all, nil
}
