package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/dapr/components-contrib/state"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// store is a state store with ETags, transactions and lives that end.
type store struct {
	mu      sync.Mutex
	items   map[string]item
	version int
}

type item struct {
	value []byte
	etag  string
	ends  time.Time
}

func newStore() *store { return &store{items: map[string]item{}} }

func (s *store) Init(context.Context, state.Metadata) error { return nil }
func (s *store) GetComponentMetadata() map[string]string    { return nil }
func (s *store) Features() []state.Feature {
	return []state.Feature{state.FeatureETag, state.FeatureTransactional}
}

// get is an item as it is now; the lock is held.
func (s *store) get(key string) (item, bool) {
	it, ok := s.items[key]
	if ok && !it.ends.IsZero() && !time.Now().Before(it.ends) {
		delete(s.items, key)
		return item{}, false
	}
	return it, ok
}

func (s *store) Get(_ context.Context, r *state.GetRequest) (*state.GetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, ok := s.get(r.Key)
	if !ok {
		return &state.GetResponse{}, nil
	}
	return &state.GetResponse{Data: it.value, ETag: &it.etag, Metadata: lives(it)}, nil
}

func lives(it item) map[string]string {
	if it.ends.IsZero() {
		return nil
	}
	return map[string]string{"ttlExpireTime": it.ends.UTC().Format(time.RFC3339Nano)}
}

func (s *store) BulkGet(_ context.Context, list []state.GetRequest, _ state.BulkGetOpts) ([]state.BulkGetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []state.BulkGetResponse
	for _, r := range list {
		if it, ok := s.get(r.Key); ok {
			out = append(out, state.BulkGetResponse{Key: r.Key, Data: it.value, ETag: &it.etag, Metadata: lives(it)})
		}
	}
	return out, nil
}

var errMismatch = func() error {
	s, err := status.New(codes.FailedPrecondition, "possible etag mismatch").WithDetails(&errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "etag", Description: "mismatch"}},
	})
	if err != nil {
		panic(err)
	}
	return s.Err()
}()

// check tells whether the items are such as a write wants them; the lock is held.
func (s *store) check(key string, etag *string, concurrency string) error {
	it, there := s.get(key)
	switch {
	case etag != nil && (!there || it.etag != *etag), etag == nil && concurrency == state.FirstWrite && there:
		return errMismatch
	}
	return nil
}

func (s *store) put(r state.SetRequest) error {
	value, ok := r.Value.([]byte)
	if !ok {
		return errors.New("no bytes")
	}
	s.version++
	it := item{value: value, etag: strconv.Itoa(s.version)}
	if ttl, err := strconv.Atoi(r.Metadata["ttlInSeconds"]); err == nil && ttl > 0 {
		it.ends = time.Now().Add(time.Duration(ttl) * time.Second)
	}
	s.items[r.Key] = it
	return nil
}

func (s *store) Set(_ context.Context, r *state.SetRequest) error {
	return s.Multi(context.Background(), &state.TransactionalStateRequest{Operations: []state.TransactionalStateOperation{*r}})
}

func (s *store) Delete(_ context.Context, r *state.DeleteRequest) error {
	return s.Multi(context.Background(), &state.TransactionalStateRequest{Operations: []state.TransactionalStateOperation{*r}})
}

// Multi does all or nothing: on a copy, which takes the items' place in the end.
func (s *store) Multi(_ context.Context, r *state.TransactionalStateRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := make(map[string]item, len(s.items))
	for k, v := range s.items {
		before[k] = v
	}
	for _, o := range r.Operations {
		var err error
		switch o := o.(type) {
		case state.SetRequest:
			if err = s.check(o.Key, o.ETag, o.Options.Concurrency); err == nil {
				err = s.put(o)
			}
		case state.DeleteRequest:
			if err = s.check(o.Key, o.ETag, o.Options.Concurrency); err == nil {
				delete(s.items, o.Key)
			}
		}
		if err != nil {
			s.items = before
			return err
		}
	}
	return nil
}

func (s *store) BulkSet(ctx context.Context, list []state.SetRequest, _ state.BulkStoreOpts) error {
	for i := range list {
		if err := s.Set(ctx, &list[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) BulkDelete(ctx context.Context, list []state.DeleteRequest, _ state.BulkStoreOpts) error {
	for i := range list {
		if err := s.Delete(ctx, &list[i]); err != nil {
			return err
		}
	}
	return nil
}
