package loam

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// A StateStore is a component of the state capability: keys with values that survive the function.
type StateStore struct{ component string }

// State is the component of that name, the default one for "".
func State(component string) StateStore { return StateStore{component} }

// An Item is one key with what is stored under it.
type Item struct {
	Key     string
	Value   []byte
	ETag    string    // changes with each write; empty: the key is not there
	Expires time.Time // zero: never
}

// Exists tells whether the key is there.
func (i Item) Exists() bool { return i.ETag != "" }

// JSON decodes the value into v.
func (i Item) JSON(v any) error { return decodeJSON("state "+strconv.Quote(i.Key), i.Value, v) }

// Get returns the item of key; one that is not there is NotFound.
func (s StateStore) Get(key string) (Item, error) {
	items, err := s.GetMany(key)
	if err != nil {
		return Item{}, err
	}
	if !items[0].Exists() {
		return items[0], Errorf(NotFound, "state %q is not there", key)
	}
	return items[0], nil
}

// GetMany returns one item for each key, in that order; those that are not there have no ETag.
func (s StateStore) GetMany(keys ...string) ([]Item, error) {
	var resp api.StateGetResponse
	if err := call("state.Get", &api.StateGetRequest{Component: s.component, Keys: keys}, &resp); err != nil {
		return nil, err
	}
	if len(resp.Items) != len(keys) {
		return nil, Errorf(Internal, "state.Get: %d items for %d keys", len(resp.Items), len(keys))
	}
	return items(resp.Items), nil
}

// List returns at most limit items whose key begins with prefix and is greater than after, in byte order; limit 0
// leaves the number to the host. The last key is the next call's after.
func (s StateStore) List(prefix, after string, limit int) ([]Item, error) {
	var resp api.StateListResponse
	req := api.StateListRequest{Component: s.component, Prefix: prefix, After: after, Limit: uint32(max(limit, 0))}
	if err := call("state.List", &req, &resp); err != nil {
		return nil, err
	}
	return items(resp.Items), nil
}

func items(from []api.StateItem) []Item {
	to := make([]Item, len(from))
	for i, f := range from {
		to[i] = Item{Key: f.Key, Value: f.Value, ETag: f.Etag}
		if f.ExpiresUnixMs != 0 {
			to[i].Expires = time.UnixMilli(f.ExpiresUnixMs)
		}
	}
	return to
}

// Put stores value under key and returns its new ETag.
func (s StateStore) Put(key string, value []byte, opts ...WriteOption) (etag string, err error) {
	tx := s.Begin()
	tx.Put(key, value, opts...)
	return tx.one()
}

// PutJSON is Put of v as JSON.
func (s StateStore) PutJSON(key string, v any, opts ...WriteOption) (etag string, err error) {
	tx := s.Begin()
	tx.PutJSON(key, v, opts...)
	return tx.one()
}

// Delete removes key; one that is not there is no error.
func (s StateStore) Delete(key string, opts ...WriteOption) error {
	tx := s.Begin()
	tx.Delete(key, opts...)
	return tx.Commit()
}

// A WriteOption says under what condition a write happens, and for how long it holds.
type WriteOption struct {
	etag   string
	absent bool
	ttl    time.Duration
}

// IfMatch writes only while the key has the ETag that was read; otherwise IsConflict. The ETag of an item that was not
// there, "", stands for IfAbsent.
func IfMatch(etag string) WriteOption { return WriteOption{etag: etag, absent: etag == ""} }

// IfAbsent writes only while the key is not there; otherwise IsConflict.
func IfAbsent() WriteOption { return WriteOption{absent: true} }

// TTL lets the item disappear after d, which is rounded up to a millisecond.
func TTL(d time.Duration) WriteOption { return WriteOption{ttl: d} }

// A Tx collects writes and events. Nothing happens before Commit, and then all of it or nothing.
type Tx struct {
	req api.StateApplyRequest
	err error
}

// Begin starts a transaction on this component.
func (s StateStore) Begin() *Tx { return &Tx{req: api.StateApplyRequest{Component: s.component}} }

// Put stores value under key.
func (tx *Tx) Put(key string, value []byte, opts ...WriteOption) {
	tx.add(api.StateOp{Key: key, Value: value}, opts)
}

// PutJSON stores v as JSON under key.
func (tx *Tx) PutJSON(key string, v any, opts ...WriteOption) {
	b, err := json.Marshal(v)
	if err != nil {
		tx.fail(Errorf(InvalidArgument, "state %q: %w", key, err))
		return
	}
	tx.Put(key, b, opts...)
}

// Delete removes key.
func (tx *Tx) Delete(key string, opts ...WriteOption) {
	tx.add(api.StateOp{Key: key, Delete: true}, opts)
}

// Publish publishes data to a topic of a pubsub component (the default one for "") with the commit, as PubsubBus.Publish
// does alone.
func (tx *Tx) Publish(component, topic string, data any, opts ...EventOption) {
	p, err := publication(component, topic, data, opts)
	if err != nil {
		tx.fail(err)
		return
	}
	tx.req.Events = append(tx.req.Events, p)
}

// Commit does everything collected, durably once it returns nil. With an error that IsConflict nothing was done: begin
// again from what is there now.
func (tx *Tx) Commit() error {
	_, err := tx.apply()
	return err
}

func (tx *Tx) apply() (etags []string, err error) {
	if tx.err != nil || len(tx.req.Ops)+len(tx.req.Events) == 0 {
		return nil, tx.err
	}
	var resp api.StateApplyResponse
	err = call("state.Apply", &tx.req, &resp)
	return resp.Etags, err
}

// one commits the transaction of a single write.
func (tx *Tx) one() (etag string, err error) {
	etags, err := tx.apply()
	if err == nil && len(etags) == 1 {
		etag = etags[0]
	}
	return etag, err
}

func (tx *Tx) add(op api.StateOp, opts []WriteOption) {
	for _, o := range opts {
		if o.etag != "" {
			op.IfMatch = o.etag
		}
		op.IfAbsent = op.IfAbsent || o.absent
		if o.ttl > 0 {
			op.TtlMs = milliseconds(o.ttl)
		}
	}
	tx.req.Ops = append(tx.req.Ops, op)
}

// fail keeps the first error for Commit.
func (tx *Tx) fail(err error) {
	if tx.err == nil {
		tx.err = err
	}
}

// milliseconds rounds up: a lease that was asked for is never nothing.
func milliseconds(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }
