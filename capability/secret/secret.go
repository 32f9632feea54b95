// Package secret is the secret capability: passwords, keys and tokens by name, read and never written. Store holds what
// is the same for every component, a Driver what is not.
package secret

import (
	"context"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// Bounds of a secret.
const (
	MaxName  = 253
	MaxValue = 1 << 20 // bytes
)

// A Store is one component's secrets.
type Store struct {
	name   string
	driver Driver
}

// New makes a Store of the component called name.
func New(name string, d Driver) *Store { return &Store{name, d} }

// Get returns the secret of that name. Its bytes are the caller's; errors never hold them.
func (s *Store) Get(ctx context.Context, caller *loam.Caller, name string) ([]byte, error) {
	op := "secret " + strconv.Quote(name)
	if !validName(name) {
		return nil, loam.Errorf(loam.InvalidArgument, op, "a name takes 1 to %d letters, digits, dots, dashes and _, and begins with neither a dot nor a dash", MaxName)
	}
	if err := caller.Check("secret", s.name, name, false); err != nil {
		return nil, err
	}
	value, err := s.driver.Get(ctx, name)
	if err != nil {
		return nil, &loam.Error{Code: loam.CodeOf(err), Op: op, Err: err, Hint: loam.HintOf(err)}
	}
	if len(value) > MaxValue {
		return nil, loam.Errorf(loam.ResourceExhausted, op, "it has %d bytes: at most %d", len(value), MaxValue)
	}
	return value, nil
}

// validName keeps to what is the name of a variable, of a file in its own folder and of a key elsewhere.
func validName(name string) bool {
	return name != "" && len(name) <= MaxName && name[0] != '.' && name[0] != '-' && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
	})
}

// Methods are the capability's calls; find returns the component of a name.
func Methods(find func(component string) (*Store, error)) loam.Methods {
	return loam.Methods{
		"secret.Get": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.SecretGetRequest
			s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			value, err := s.Get(ctx, caller, req.Name)
			if err != nil {
				return nil, err
			}
			return (&api.SecretGetResponse{Value: value}).AppendProto(nil), nil
		},
	}
}
