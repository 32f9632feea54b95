// Package sequence is the sequence capability: numbers that only ever grow. Sequence holds what is the same for every
// component, a Driver what is not.
package sequence

import (
	"context"
	"strconv"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// MaxCount is how many numbers one call may reserve.
const MaxCount = 1_000_000

// A Sequence is one component's sequences.
type Sequence struct {
	name   string
	driver Driver
}

// New makes a Sequence of the component called name.
func New(name string, d Driver) *Sequence { return &Sequence{name, d} }

// Next reserves count numbers of key and returns the first; the others follow it without a gap.
func (s *Sequence) Next(ctx context.Context, caller *loam.Caller, key string, count int64) (int64, error) {
	if key == "" || len(key) > 1024 || count < 1 || count > MaxCount {
		return 0, loam.Errorf(loam.InvalidArgument, "sequence "+strconv.Quote(key), "a key takes 1 to 1024 bytes, a count 1 to %d", MaxCount)
	}
	if err := caller.Check("sequence", s.name, key, true); err != nil {
		return 0, err
	}
	return s.driver.Next(ctx, key, count)
}

// Methods are the capability's calls; find returns the component of a name.
func Methods(find func(component string) (*Sequence, error)) loam.Methods {
	return loam.Methods{
		"sequence.Next": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.SequenceNextRequest
			s, err := api.Parse(&req, in, func() (*Sequence, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			first, err := s.Next(ctx, caller, req.Key, max(1, req.Count))
			if err != nil {
				return nil, err
			}
			return (&api.SequenceNextResponse{First: first}).AppendProto(nil), nil
		},
	}
}
