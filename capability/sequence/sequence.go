// Package sequence is the sequence capability: numbers that only ever grow. Sequence holds what is the same for every
// component, a Driver what is not.
package sequence

import (
	"context"
	"strconv"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/capability/keys"
)

// MaxCount is how many numbers one call may reserve.
const MaxCount = 1_000_000

// A Sequence is one component's sequences. For makes one whose keys are an app's.
type Sequence struct {
	name     string
	driver   Driver
	prefix   string // of every key of this view
	plain    bool   // keys must not hold keys.Separator
	settings map[string]string
	views    *keys.Views[Sequence]
	guard    loam.Guard
}

// New makes a Sequence of the component called name, without settings.
func New(name string, d Driver) *Sequence {
	return &Sequence{name: name, driver: d, views: &keys.Views[Sequence]{}}
}

// Open makes a Sequence of the component called name. Settings are the component's metadata that is this package's:
// keyPrefix.
func Open(name string, d Driver, settings map[string]string) (*Sequence, error) {
	s := New(name, d)
	s.settings = settings
	_, err := keys.Prefix(settings, name, "", "")
	return s, err
}

// Guarded is the sequence with g round every call of the component, but for those that last.
func (s *Sequence) Guarded(g loam.Guard) *Sequence {
	made := *s
	made.guard = g
	made.views = &keys.Views[Sequence]{}
	return &made
}

// For is the sequence as an app's API finds it: its keys begin with head, which is the dialect's (Layotto's is
// "sequencer|||"), and what keyPrefix says. Grants are for keys as the app writes them. It is made once for each app.
func (s *Sequence) For(head, app, namespace string) (*Sequence, error) {
	return s.views.Get(head, app, namespace, func() (*Sequence, error) {
		prefix, err := keys.Prefix(s.settings, s.name, app, namespace)
		if err != nil {
			return nil, err
		}
		made := *s
		made.prefix, made.plain = head+prefix, true
		return &made, nil
	})
}

// Next reserves count numbers of key and returns the first; the others follow it without a gap. Numbers given later are
// higher.
func (s *Sequence) Next(ctx context.Context, caller *loam.Caller, key string, count int64) (int64, error) {
	if err := s.check(caller, key, count); err != nil {
		return 0, err
	}
	return loam.Guarded(ctx, s.guard, func(ctx context.Context) (int64, error) { return s.driver.Next(ctx, s.prefix+key, count) })
}

// NextWeak is Next where numbers need only be unique and grow in the long run (Layotto's WEAK), which costs some drivers
// less; the others do what Next does.
func (s *Sequence) NextWeak(ctx context.Context, caller *loam.Caller, key string, count int64) (int64, error) {
	if err := s.check(caller, key, count); err != nil {
		return 0, err
	}
	if w, ok := s.driver.(Weak); ok {
		return w.NextWeak(ctx, s.prefix+key, count)
	}
	return loam.Guarded(ctx, s.guard, func(ctx context.Context) (int64, error) { return s.driver.Next(ctx, s.prefix+key, count) })
}

func (s *Sequence) check(caller *loam.Caller, key string, count int64) error {
	if key == "" || len(key) > 1024 || count < 1 || count > MaxCount {
		return loam.Errorf(loam.InvalidArgument, "sequence "+strconv.Quote(key), "a key takes 1 to 1024 bytes, a count 1 to %d", MaxCount)
	}
	if s.plain {
		if err := keys.Check(key); err != nil {
			return err
		}
	}
	return caller.Check("sequence", s.name, key, true)
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
