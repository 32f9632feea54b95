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
	MaxValue = 1 << 20 // bytes, of all its fields
	MaxAll   = 4 << 20 // bytes, of all that are read at once
)

// A Store is one component's secrets.
type Store struct {
	name   string
	driver Driver
	guard  loam.Guard
}

// New makes a Store of the component called name.
func New(name string, d Driver) *Store { return &Store{name: name, driver: d} }

// Guarded is the store with g round every call of the component, but for those that last.
func (s *Store) Guarded(g loam.Guard) *Store {
	made := *s
	made.guard = g
	return &made
}

// Get returns the secret of that name. Its bytes are the caller's; errors never hold them.
func (s *Store) Get(ctx context.Context, caller *loam.Caller, name string) ([]byte, error) {
	op, err := s.check(caller, name)
	if err != nil {
		return nil, err
	}
	value, err := loam.Guarded(ctx, s.guard, func(ctx context.Context) ([]byte, error) { return s.driver.Get(ctx, name) })
	if err != nil {
		return nil, wrap(op, err)
	}
	return value, checkSize(op, len(value))
}

// GetFields returns all values of the secret of that name, by their names; a secret that has only one has it under its own.
// metadata is for the driver.
func (s *Store) GetFields(ctx context.Context, caller *loam.Caller, name string, metadata map[string]string) (map[string]string, error) {
	op, err := s.check(caller, name)
	if err != nil {
		return nil, err
	}
	if f, ok := s.driver.(Fielded); ok {
		fields, err := loam.Guarded(ctx, s.guard, func(ctx context.Context) (map[string]string, error) { return f.GetFields(ctx, name, metadata) })
		if err != nil {
			return nil, wrap(op, err)
		}
		return fields, checkSize(op, sizeOf(fields))
	}
	value, err := loam.Guarded(ctx, s.guard, func(ctx context.Context) ([]byte, error) { return s.driver.Get(ctx, name) })
	if err != nil {
		return nil, wrap(op, err)
	}
	return map[string]string{name: string(value)}, checkSize(op, len(value))
}

// GetAll returns all secrets that the caller may read, by name, with their values by theirs. Unimplemented: the component
// cannot list what it has.
func (s *Store) GetAll(ctx context.Context, caller *loam.Caller, metadata map[string]string) (map[string]map[string]string, error) {
	const op = "secret.GetAll"
	l, ok := s.driver.(Lister)
	if !ok {
		return nil, loam.Errorf(loam.Unimplemented, op, "component %q does not tell which secrets it has", s.name)
	}
	all, err := loam.Guarded(ctx, s.guard, func(ctx context.Context) (map[string]map[string]string, error) { return l.GetAll(ctx, metadata) })
	if err != nil {
		return nil, wrap(op, err)
	}
	size := 0
	may := make(map[string]map[string]string, len(all))
	for name, fields := range all {
		if caller.Check("secret", s.name, name, false) == nil {
			may[name] = fields
			size += sizeOf(fields)
		}
	}
	if size > MaxAll {
		return nil, loam.Errorf(loam.ResourceExhausted, op, "together they have %d bytes: at most %d", size, MaxAll)
	}
	return may, nil
}

func (s *Store) check(caller *loam.Caller, name string) (op string, err error) {
	op = "secret " + strconv.Quote(name)
	if !validName(name) {
		return op, loam.Errorf(loam.InvalidArgument, op, "a name takes 1 to %d letters, digits and any of .-_:/, and no part of it between slashes is empty or begins with a dot or a dash", MaxName)
	}
	return op, caller.Check("secret", s.name, name, false)
}

func wrap(op string, err error) error {
	return &loam.Error{Code: loam.CodeOf(err), Op: op, Err: err, Hint: loam.HintOf(err)}
}

func sizeOf(fields map[string]string) (n int) {
	for _, v := range fields {
		n += len(v)
	}
	return n
}

func checkSize(op string, n int) error {
	if n > MaxValue {
		return loam.Errorf(loam.ResourceExhausted, op, "it has %d bytes: at most %d", n, MaxValue)
	}
	return nil
}

// validName keeps to what is the name of a variable, of a file below its own folder and of a key elsewhere.
func validName(name string) bool {
	if name == "" || len(name) > MaxName || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_:/", r)
	}) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || part[0] == '-' {
			return false
		}
	}
	return true
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
