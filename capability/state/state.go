// Package state is the state capability: values under keys, with ETags, an end to their life, and transactions. Store
// holds what is the same for every component (bounds, grants, conditions), a Driver what is not.
package state

import (
	"context"
	"fmt"
	"strconv"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// Bounds of what a caller may ask at once.
const (
	MaxKey   = 1024    // bytes
	MaxValue = 4 << 20 // bytes
	MaxOps   = 1000    // keys, ops or events in a call
)

// A Store is one component's state.
type Store struct {
	name   string
	driver Driver
}

// New makes a Store of the component called name.
func New(name string, d Driver) *Store { return &Store{name, d} }

// A Bus is the pubsub component that a transaction publishes to.
type Bus interface {
	// Prepare checks the caller's grants and completes the events in place.
	Prepare(caller *loam.Caller, events []loam.Event) error
	// PubsubDriver is what SharesCommit is asked about.
	PubsubDriver() any
}

// Get returns one item for each key, in that order; a key that is not there gives an item with an empty ETag.
func (s *Store) Get(ctx context.Context, caller *loam.Caller, keys ...string) ([]Item, error) {
	if len(keys) == 0 || len(keys) > MaxOps {
		return nil, loam.Errorf(loam.InvalidArgument, "state.Get", "%d keys: 1 to %d at once", len(keys), MaxOps)
	}
	for _, k := range keys {
		if err := s.check("state.Get", caller, k, false); err != nil {
			return nil, err
		}
	}
	return s.driver.Get(ctx, keys)
}

// List returns up to limit items whose key begins with prefix and is greater than after, in byte order. It needs a
// grant for all of them: one that names the prefix, or a shorter one, with an asterisk. A limit of 0 is the most there
// may be, MaxOps.
func (s *Store) List(ctx context.Context, caller *loam.Caller, prefix, after string, limit int) ([]Item, error) {
	if limit == 0 {
		limit = MaxOps
	}
	if limit < 0 || limit > MaxOps || len(prefix) > MaxKey || len(after) > MaxKey {
		return nil, loam.Errorf(loam.InvalidArgument, "state.List "+strconv.Quote(prefix), "a limit is 0 to %d, a prefix at most %d bytes", MaxOps, MaxKey)
	}
	if err := caller.Check("state", s.name, prefix+"*", false); err != nil { // no grant of one key alone matches that
		return nil, err
	}
	l, ok := s.driver.(Lister)
	if !ok {
		return nil, loam.Errorf(loam.Unimplemented, "state.List "+strconv.Quote(prefix), "component %q cannot list keys", s.name)
	}
	return l.List(ctx, prefix, after, limit)
}

// Apply does all ops and publishes all events, or none of it, durably once it returns. It answers the new ETag of each
// op. bus may be nil where there are no events.
func (s *Store) Apply(ctx context.Context, caller *loam.Caller, ops []Op, bus Bus, events []loam.Event) ([]string, error) {
	if n := len(ops) + len(events); n == 0 || n > MaxOps {
		return nil, loam.Errorf(loam.InvalidArgument, "state.Apply", "%d ops and events: 1 to %d at once", n, MaxOps)
	}
	seen := make(map[string]struct{}, len(ops))
	for _, op := range ops {
		if err := s.check("state.Apply", caller, op.Key, true); err != nil {
			return nil, err
		}
		if len(op.Value) > MaxValue {
			return nil, loam.Errorf(loam.InvalidArgument, "state.Apply "+strconv.Quote(op.Key), "a value of %d bytes: at most %d", len(op.Value), MaxValue)
		}
		if op.TTL < 0 || op.IfAbsent && (op.Delete || op.IfMatch != "") {
			return nil, loam.Errorf(loam.InvalidArgument, "state.Apply "+strconv.Quote(op.Key), "conditions that contradict each other, or a negative TTL")
		}
		if _, twice := seen[op.Key]; twice {
			return nil, loam.Errorf(loam.InvalidArgument, "state.Apply "+strconv.Quote(op.Key), "two ops for one key: send the last")
		}
		seen[op.Key] = struct{}{}
	}
	if len(events) == 0 {
		return s.driver.Apply(ctx, ops)
	}
	o, ok := s.driver.(Outbox)
	if !ok || bus == nil || !o.SharesCommit(bus.PubsubDriver()) {
		return nil, &loam.Error{
			Code: loam.FailedPrecondition, Op: "state.Apply",
			Err:  fmt.Errorf("state component %q cannot publish in its own commit to that pubsub component", s.name),
			Hint: "use state and pubsub components of one store, such as the embedded default's, or publish after the transaction",
		}
	}
	if err := bus.Prepare(caller, events); err != nil {
		return nil, err
	}
	return o.ApplyAndPublish(ctx, ops, bus.PubsubDriver(), events)
}

func (s *Store) check(op string, caller *loam.Caller, key string, write bool) error {
	if key == "" || len(key) > MaxKey {
		return loam.Errorf(loam.InvalidArgument, op+" "+strconv.Quote(key), "a key takes 1 to %d bytes", MaxKey)
	}
	return caller.Check("state", s.name, key, write)
}

// Methods are the capability's calls; find returns the component of a name, findBus the pubsub component that a
// transaction publishes to.
func Methods(find func(component string) (*Store, error), findBus func(component string) (Bus, error)) loam.Methods {
	return loam.Methods{
		"state.Get": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.StateGetRequest
			s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			items, err := s.Get(ctx, caller, req.Keys...)
			if err != nil {
				return nil, err
			}
			return (&api.StateGetResponse{Items: toAPI(items)}).AppendProto(nil), nil
		},
		"state.List": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.StateListRequest
			s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			items, err := s.List(ctx, caller, req.Prefix, req.After, int(min(req.Limit, MaxOps)))
			if err != nil {
				return nil, err
			}
			return (&api.StateListResponse{Items: toAPI(items)}).AppendProto(nil), nil
		},
		"state.Apply": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.StateApplyRequest
			s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			ops := make([]Op, len(req.Ops))
			for i, op := range req.Ops {
				ops[i] = Op{Delete: op.Delete, Key: op.Key, Value: op.Value, TTL: api.Millis(op.TtlMs), IfMatch: op.IfMatch, IfAbsent: op.IfAbsent}
			}
			var bus Bus
			events, component, err := api.Events(req.Events)
			if err != nil {
				return nil, err
			}
			if len(events) > 0 {
				if bus, err = findBus(component); err != nil {
					return nil, err
				}
			}
			var res api.StateApplyResponse
			if res.Etags, err = s.Apply(ctx, caller, ops, bus, events); err != nil {
				return nil, err
			}
			for i := range events {
				res.EventIds = append(res.EventIds, events[i].ID)
			}
			return res.AppendProto(nil), nil
		},
	}
}

func toAPI(items []Item) []api.StateItem {
	out := make([]api.StateItem, len(items))
	for i, it := range items {
		out[i] = api.StateItem{Key: it.Key, Value: it.Value, Etag: it.ETag, ExpiresUnixMs: api.UnixMilli(it.Expires)}
	}
	return out
}
