package dapr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"slices"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability"
	"github.com/loam-run/loam/capability/keys"
	"github.com/loam-run/loam/capability/state"
)

// A stateStore is a state component as the program sees it: keys have a prefix that it does not know of.
type stateStore struct {
	*state.Store
	name string
}

func (a *API) state(name string) (stateStore, error) {
	s, err := a.opts.Capabilities.State(name)
	if err != nil {
		return stateStore{}, a.missing("state", err, errStateNotConfigured, errStateNotFound, "state store "+name, map[string]string{"appID": a.opts.App.ID})
	}
	view, err := s.For(a.opts.App.ID, a.settings.Namespace)
	if err != nil {
		return stateStore{}, errGeneric.caused(err, "%s", words(err))
	}
	return stateStore{view, name}, nil
}

// call has fn ask the store, in the request's task where the component can wait in one.
func (s *stateStore) call(req *loam.Request, fn func(ctx context.Context, s *state.Store)) {
	if in := s.In(req.Task()); in != nil {
		fn(req.Context(), in)
		return
	}
	await(req, func() { fn(req.Context(), s.Store) })
}

// commit has fn write, in place where the store does so in memory.
func (s *stateStore) commit(req *loam.Request, fn func(ctx context.Context, s *state.Store)) {
	switch {
	case s.InstantWrites():
		fn(context.Background(), s.Store)
	case s.HasOutbox(): // it publishes too
		await(req, func() { fn(req.Context(), s.Store) })
	default:
		s.call(req, fn)
	}
}

// getOne reads one item, in place where the store answers from memory.
func (a *API) getOne(req *loam.Request, s *stateStore, key, consistency string, metadata map[string]string) (it state.Item, err error) {
	o := state.GetOptions{Metadata: metadata}
	if err = s.check(key); err == nil && consistency != "" {
		o.Eventual, err = state.Eventual(consistency)
	}
	timing := a.settings.Metrics.begin(req.Task())
	switch {
	case err != nil:
		timing.m = nil // the store was not asked
	case s.Instant():
		it, err = s.GetOne(context.Background(), a.opts.App.Caller, key, o)
	default:
		s.call(req, func(ctx context.Context, s *state.Store) { it, err = s.GetOne(ctx, a.opts.App.Caller, key, o) })
	}
	timing.end(stateCalls, s.name, "get", succeeded(err))
	if err == nil {
		return it, nil
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return it, f
	}
	return it, errStateGet.caused(err, "fail to get %s from state store %s: %s", key, s.name, stateWords(err))
}

// getBulk reads several items, each answered for itself.
func (a *API) getBulk(req *loam.Request, s *stateStore, names []string, parallel int, metadata map[string]string) (results []state.Result, err error) {
	for _, key := range names {
		if err := s.check(key); err != nil {
			return nil, err
		}
	}
	o := state.GetOptions{Metadata: metadata}
	timing := a.settings.Metrics.begin(req.Task())
	await(req, func() { results, err = s.GetBulk(req.Context(), a.opts.App.Caller, names, parallel, o) })
	timing.end(stateCalls, s.name, "bulk_get", succeeded(err))
	if err != nil {
		return nil, errStateBulkGet.caused(err, "%s", words(err))
	}
	return results, nil
}

// write does ops each by itself, as Dapr's save or bulk delete is no transaction. fail makes the error of the first
// that was not done, with the words of all. It is counted as that operation.
func (a *API) write(req *loam.Request, s *stateStore, operation string, ops []state.Op, fail func(err error, words string) error) error {
	var errs []error
	timing := a.settings.Metrics.begin(req.Task())
	s.commit(req, func(ctx context.Context, s *state.Store) { errs = s.Write(ctx, a.opts.App.Caller, ops) })
	var first error
	var text []string
	for _, err := range errs {
		if err != nil {
			first = cmp.Or(first, err)
			text = append(text, stateWords(err))
		}
	}
	timing.end(stateCalls, s.name, operation, succeeded(first))
	if first == nil {
		return nil
	}
	const most = 20 // errors that are told in words
	if n := len(text); n > most {
		text = append(text[:most], fmt.Sprintf("%d more", n-most))
	}
	return fail(first, strings.Join(text, "\n"))
}

// save writes items.
func (a *API) save(req *loam.Request, s *stateStore, items []stateItem) error {
	if len(items) == 0 {
		return nil
	}
	failed := func(err error, words string) error {
		return errStateSave.caused(err, "failed saving state in state store %s: %s", s.name, words)
	}
	ops, err := s.ops(items, false)
	if err != nil {
		return asFailure(err, failed)
	}
	return a.write(req, s, "set", ops, failed)
}

// remove deletes items, one or in bulk.
func (a *API) remove(req *loam.Request, s *stateStore, items []stateItem, bulk bool) error {
	if len(items) == 0 {
		return nil
	}
	failed := func(err error, words string) error {
		if bulk {
			return errStateBulkDelete.caused(err, "failed deleting state in state store %s: %s", s.name, words)
		}
		return errStateDelete.caused(err, "failed deleting state with key %s: %s", items[0].key, words)
	}
	ops, err := s.ops(items, true)
	if err != nil {
		return asFailure(err, failed)
	}
	operation := "delete"
	if bulk {
		operation = "bulk_delete"
	}
	return a.write(req, s, operation, ops, failed)
}

// asFailure leaves a failure as it is, and has one made of any other error.
func asFailure(err error, failed func(err error, words string) error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	return failed(err, words(err))
}

// ops makes the writes of items.
func (s *stateStore) ops(items []stateItem, remove bool) ([]state.Op, error) {
	ops := make([]state.Op, len(items))
	for i := range items {
		var err error
		if ops[i], err = s.op(&items[i], remove); err != nil {
			return nil, err
		}
	}
	return ops, nil
}

// check tells whether a program's key may be one: none holds what stands behind its prefix.
func (s *stateStore) check(key string) error {
	if strings.Contains(key, keys.Separator) {
		f := errStateKey.failure("input key/keyPrefix '%s' can't contain '%s'", key, keys.Separator)
		f.field, f.resource = key, &resourceInfo{typ: "state", name: s.name}
		return f
	}
	return nil
}

// A stateItem is one write as a request says it.
type stateItem struct {
	key                      string
	value                    []byte
	etag                     string
	metadata                 map[string]string
	concurrency, consistency string // "", first-write or last-write; "", eventual or strong
}

// op makes the write that a store is asked for.
func (s *stateStore) op(it *stateItem, remove bool) (state.Op, error) {
	if err := s.check(it.key); err != nil {
		return state.Op{}, err
	}
	op := state.Op{Key: it.key, Delete: remove}
	if !remove {
		op.Value = it.value
	}
	return op, op.SetOptions(it.etag, it.concurrency, it.consistency, it.metadata)
}

// A stateWrite is one operation of a transaction.
type stateWrite struct {
	stateItem
	remove bool
}

// transact does all writes or none.
func (a *API) transact(req *loam.Request, s *stateStore, writes []stateWrite) error {
	most := s.MaxTransaction()
	switch {
	case most == 0:
		f := errStateNoTransaction.failure("state store %s doesn't support transactions", s.name)
		f.help, f.resource = true, &resourceInfo{typ: "state", name: s.name}
		return f
	case len(writes) > most:
		f := errStateTooMany.failure("the transaction contains %d operations, which is more than what the state store supports: %d", len(writes), most)
		f.info = map[string]string{"currentOpsTransaction": strconv.Itoa(len(writes)), "maxOpsPerTransaction": strconv.Itoa(most)}
		f.resource = &resourceInfo{typ: "state", name: s.name}
		return f
	}
	ops := make([]state.Op, len(writes))
	var err error
	for i := range writes {
		if ops[i], err = s.op(&writes[i].stateItem, writes[i].remove); err != nil {
			break
		}
	}
	if err == nil {
		timing := a.settings.Metrics.begin(req.Task())
		s.commit(req, func(ctx context.Context, s *state.Store) {
			err = s.Transact(ctx, a.opts.App.Caller, ops, traceOf(req.Header))
		})
		timing.end(stateCalls, s.name, "transaction", succeeded(err))
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if err != nil {
		return errStateTransaction.caused(err, "error while executing state transaction: %s", stateWords(err))
	}
	return nil
}

// query finds the items that a query selects.
func (a *API) query(req *loam.Request, s *stateStore, text []byte) (page state.Page, err error) {
	failed := func(detail string) *failure {
		f := errStateQuery.failure("state store %s query failed: %s", s.name, detail)
		f.resource = &resourceInfo{typ: "state", name: s.name}
		return f
	}
	q, err := state.ParseQuery(text)
	if err != nil {
		return page, failed("failed to parse JSON query body: " + words(err))
	}
	timing := a.settings.Metrics.begin(req.Task())
	await(req, func() { page, err = s.Query(req.Context(), a.opts.App.Caller, q) })
	timing.end(stateCalls, s.name, "query", succeeded(err))
	switch loam.CodeOf(err) {
	case loam.OK:
		return page, nil
	case loam.Unimplemented:
		f := errStateNoQuery.failure("state store does not support querying")
		f.resource = &resourceInfo{typ: "state", name: s.name}
		return page, f
	case loam.PermissionDenied, loam.InvalidArgument:
		f := failed(words(err))
		as := errStateQuery.caused(err, "")
		f.status, f.code = as.status, as.code
		return page, f
	}
	return page, failed(words(err))
}

// stateWords are what an error of a store says, in Dapr's words where a condition did not hold.
func stateWords(err error) string {
	switch loam.CodeOf(err) {
	case loam.Aborted, loam.AlreadyExists:
		cause := err
		var known *loam.Error
		if errors.As(err, &known) && known.Err != nil {
			cause = known.Err
		}
		return "possible etag mismatch. error from state store: " + cause.Error()
	}
	return words(err)
}

// expiry is an item's metadata: when it is over.
func expiry(t time.Time) string { return t.UTC().Format(time.RFC3339) }

const ttlExpireTime = "ttlExpireTime"

// missing makes the failure of a component that cannot be had: Dapr tells whether there is none of its kind at all, and
// we whether it is there and did not open.
func (a *API) missing(capabilityName string, err error, notConfigured, notFound kind, what string, info map[string]string) *failure {
	if loam.CodeOf(err) != loam.NotFound {
		f := notConfigured.failure("%s is not available: %s", what, words(err))
		f.code, f.info = loam.Unavailable, info
		return f
	}
	f := notFound.failure("%s is not found", what)
	if !slices.ContainsFunc(a.opts.Capabilities.Components(a.opts.App.Caller), func(c capability.Component) bool { return c.Capability == capabilityName }) {
		f = notConfigured.failure("%s is not configured", what)
	}
	f.info = info
	return f
}
