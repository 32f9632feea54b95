package pluggable

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api/dapr/components"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/protocol/grpc"
)

// State is a state.Driver. Items of several keys are there at one moment where the program answers a BulkGet so.
type State struct {
	*conn
	limits state.Limits
}

// QueryState is a State that answers queries.
type QueryState struct{ *State }

func openState(ctx context.Context, c *conn, metadata map[string]string, transactions, size, query bool) (state.Driver, error) {
	if err := c.init(ctx, "StateStore", &components.InitRequest{Metadata: &components.MetadataRequest{Properties: metadata}}); err != nil {
		return nil, err
	}
	features, err := c.features(ctx, "StateStore")
	if err != nil {
		return nil, err
	}
	has := func(feature string) bool {
		for _, f := range features {
			if strings.EqualFold(f, feature) {
				return true
			}
		}
		return false
	}
	s := &State{conn: c, limits: state.Limits{NoETags: !has("ETAG"), NoTransactions: !transactions || !has("TRANSACTIONAL"), NoNewETags: true, TextKeys: true}}
	if size && !s.limits.NoTransactions {
		var out components.MultiMaxSizeResponse
		if err := c.call(ctx, "TransactionalStoreMultiMaxSize/MultiMaxSize", &components.MultiMaxSizeRequest{}, &out); err != nil {
			return nil, c.fail("MultiMaxSize", err)
		}
		s.limits.MaxOps = int(max(0, min(out.MaxSize, state.MaxOps)))
	}
	if query && has("QUERY_API") {
		return &QueryState{s}, nil
	}
	return s, nil
}

// Limits are what the program's component lacks.
func (s *State) Limits() state.Limits { return s.limits }

// GetOne reads one item.
func (s *State) GetOne(ctx context.Context, key string, o state.GetOptions) (state.Item, error) {
	it := state.Item{Key: key}
	if err := textKey(key); err != nil {
		return it, err
	}
	in := components.GetRequest{Key: key, Metadata: o.Metadata, Consistency: components.StateOptions_CONSISTENCY_STRONG}
	if o.Eventual {
		in.Consistency = components.StateOptions_CONSISTENCY_EVENTUAL
	}
	var out components.GetResponse
	if err := s.call(ctx, "StateStore/Get", &in, &out); err != nil {
		if loam.CodeOf(err) == loam.NotFound {
			return it, nil
		}
		return it, s.fail("state.Get "+strconv.Quote(key), err)
	}
	s.fill(&it, out.Data, out.Etag, out.Metadata)
	return it, nil
}

// fill completes an item. One that comes with neither a value nor an ETag is not there; where the program has no ETags,
// one is made up of the value.
func (s *State) fill(it *state.Item, data []byte, etag *components.Etag, metadata map[string]string) {
	switch {
	case etag != nil && etag.Value != "":
		it.ETag = etag.Value
	case len(data) == 0:
		return
	default:
		h := fnv.New64a()
		_, _ = h.Write(data) // it never fails
		it.ETag = strconv.FormatUint(h.Sum64(), 36)
	}
	if data == nil {
		data = []byte{}
	}
	it.Value = data
	if t, err := time.Parse(time.RFC3339Nano, metadata["ttlExpireTime"]); err == nil {
		it.Expires = t
	}
}

func textKey(key string) error {
	if !utf8.ValidString(key) {
		return loam.Errorf(loam.InvalidArgument, "state "+strconv.Quote(key), "a pluggable component takes keys in UTF-8 only")
	}
	return nil
}

// Get reads items.
func (s *State) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	items := make([]state.Item, len(keys))
	if len(keys) == 1 {
		var err error
		items[0], err = s.GetOne(ctx, keys[0], state.GetOptions{})
		return items, err
	}
	in, out := components.BulkGetRequest{Options: &components.BulkGetRequestOptions{Parallelism: 10}}, components.BulkGetResponse{}
	asked := map[string]bool{}
	for _, k := range keys {
		if err := textKey(k); err != nil {
			return nil, err
		}
		if !asked[k] {
			in.Items = append(in.Items, components.GetRequest{Key: k})
			asked[k] = true
		}
	}
	if err := s.call(ctx, "StateStore/BulkGet", &in, &out); err != nil {
		if loam.CodeOf(err) != loam.Unimplemented {
			return nil, s.fail("state.Get", err)
		}
		for i, k := range keys {
			if items[i], err = s.GetOne(ctx, k, state.GetOptions{}); err != nil {
				return nil, err
			}
		}
		return items, nil
	}
	byKey := make(map[string]*components.BulkStateItem, len(out.Items))
	for i := range out.Items {
		byKey[out.Items[i].Key] = &out.Items[i]
	}
	for i, k := range keys {
		items[i].Key = k
		got := byKey[k]
		if got == nil {
			continue
		}
		if got.Error != "" {
			return nil, loam.Errorf(loam.Unknown, "component "+s.instance+": state.Get "+strconv.Quote(k), "%s", got.Error)
		}
		s.fill(&items[i], got.Data, got.Etag, got.Metadata)
	}
	return items, nil
}

// Apply writes. It does not know the new ETags: Dapr's protocol does not tell them.
func (s *State) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	for _, op := range ops {
		if err := textKey(op.Key); err != nil {
			return nil, err
		}
	}
	etags := make([]string, len(ops))
	if len(ops) == 1 {
		op := ops[0]
		var err error
		if op.Delete {
			err = s.call(ctx, "StateStore/Delete", deletion(op), ignored{})
		} else {
			err = s.call(ctx, "StateStore/Set", setting(op), ignored{})
		}
		return etags, s.refusal(op, err)
	}
	var in components.TransactionalStateRequest
	for _, op := range ops {
		if op.Delete {
			in.Operations = append(in.Operations, components.TransactionalStateOperation{Delete: deletion(op)})
		} else {
			in.Operations = append(in.Operations, components.TransactionalStateOperation{Set: setting(op)})
		}
	}
	err := s.call(ctx, "TransactionalStateStore/Transact", &in, ignored{})
	for _, op := range ops { // which of them it was is not told
		if err != nil && (op.IfAbsent || op.IfMatch != "") {
			return etags, s.refusal(op, err)
		}
	}
	return etags, s.fail("state.Apply", err)
}

func deletion(op state.Op) *components.DeleteRequest {
	return &components.DeleteRequest{Key: op.Key, Etag: etagOf(op), Metadata: op.Metadata, Options: optionsOf(op)}
}

func setting(op state.Op) *components.SetRequest {
	in := &components.SetRequest{Key: op.Key, Value: op.Value, Etag: etagOf(op), Metadata: op.Metadata, Options: optionsOf(op), ContentType: op.Metadata["contentType"]}
	if op.TTL > 0 {
		in.Metadata = maps.Clone(op.Metadata)
		if in.Metadata == nil {
			in.Metadata = map[string]string{}
		}
		in.Metadata["ttlInSeconds"] = strconv.Itoa(int(math.Ceil(op.TTL.Seconds())))
	}
	return in
}

func etagOf(op state.Op) *components.Etag {
	if op.IfMatch == "" {
		return nil
	}
	return &components.Etag{Value: op.IfMatch}
}

func optionsOf(op state.Op) *components.StateOptions {
	o := &components.StateOptions{}
	if op.IfAbsent || op.IfMatch != "" {
		o.Concurrency = components.StateOptions_CONCURRENCY_FIRST_WRITE
	}
	return o
}

// refusal tells an ETag that did not match, which Dapr's components say by a field of that name in the status.
func (s *State) refusal(op state.Op, err error) error {
	status, ok := errors.AsType[*grpc.Status](err)
	if !ok || status.Code != loam.FailedPrecondition || !aboutETag(status) {
		return s.fail("state.Apply "+strconv.Quote(op.Key), err)
	}
	code := loam.Aborted
	if op.IfAbsent {
		code = loam.AlreadyExists
	}
	return loam.Errorf(code, "state "+strconv.Quote(op.Key), "%s", status.Message)
}

// aboutETag looks for a violation of the field etag in a BadRequest: fields 1, and in them field 1.
func aboutETag(s *grpc.Status) (is bool) {
	for _, d := range s.Details {
		if d.Type != "google.rpc.BadRequest" {
			continue
		}
		_ = each(d.Value, func(field int, violation []byte) error { // what cannot be read says nothing
			if field != 1 {
				return nil
			}
			return each(violation, func(field int, name []byte) error {
				is = is || field == 1 && string(name) == "etag"
				return nil
			})
		})
	}
	return is
}

// Query has the program select.
func (s *QueryState) Query(ctx context.Context, prefix string, q *state.Query) (state.Page, error) {
	in := components.QueryRequest{Query: &components.Query{Pagination: &components.Pagination{Limit: int64(q.Limit), Token: q.Token}}}
	if q.Filter != nil {
		op, value := filterJSON(q.Filter)
		b, err := json.Marshal(value)
		if err != nil {
			return state.Page{}, loam.Errorf(loam.InvalidArgument, "state.Query", "%w", err)
		}
		in.Query.Filter = map[string]components.Any{op: {Value: b}}
	}
	for _, by := range q.Sort {
		order := components.Sorting_ASC
		if by.Descending {
			order = components.Sorting_DESC
		}
		in.Query.Sort = append(in.Query.Sort, components.Sorting{Key: by.Key, Order: order})
	}
	var out components.QueryResponse
	if err := s.call(ctx, "QueriableStateStore/Query", &in, &out); err != nil {
		return state.Page{}, s.fail("state.Query", err)
	}
	page := state.Page{Token: out.Token}
	for _, got := range out.Items {
		if got.Error != "" {
			return state.Page{}, loam.Errorf(loam.Unknown, "component "+s.instance+": state.Query", "%s: %s", got.Key, got.Error)
		}
		it := state.Item{Key: got.Key}
		if s.fill(&it, got.Data, got.Etag, nil); it.ETag != "" && strings.HasPrefix(it.Key, prefix) {
			page.Items = append(page.Items, it)
		}
	}
	return page, nil
}

// filterJSON is a filter as Dapr's query has it: its operation, and what that is about.
func filterJSON(f *state.Filter) (op string, value any) {
	switch f.Op {
	case "AND", "OR":
		list := make([]any, len(f.Of))
		for i := range f.Of {
			op, value := filterJSON(&f.Of[i])
			list[i] = map[string]any{op: value}
		}
		return f.Op, list
	case "IN":
		return f.Op, map[string]any{f.Key: f.Values}
	}
	return f.Op, map[string]any{f.Key: f.Values[0]}
}
