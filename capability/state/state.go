// Package state is the state capability: values under keys, with ETags, an end to their life, and transactions. Store
// holds what is the same for every component (bounds, grants, conditions, apps' prefixes, the outbox, encryption), a Driver
// what is not.
package state

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/capability/keys"
	"github.com/loam-run/loam/capability/pubsub"
)

// Bounds of what a caller may ask at once.
const (
	MaxKey   = 1024     // bytes
	MaxValue = 4 << 20  // bytes
	MaxOps   = 1000     // keys, ops or events in a call
	MaxRead  = 32 << 20 // bytes of values that one reads
)

// Options are what a Store is made with beside its driver.
type Options struct {
	// Settings are the component's metadata that is this package's: keyPrefix; outboxPublishPubsub, outboxPublishTopic,
	// outboxPubsub and outboxDiscardWhenMissingState; primaryEncryptionKey and secondaryEncryptionKey.
	Settings map[string]string
	// Bus finds the pubsub components that the outbox publishes to; nil: there is no outbox.
	Bus func(component string) (*pubsub.Bus, error)
	Log *slog.Logger // of the outbox; nil: nothing is logged
}

// A Store is one component's state. For makes one whose keys are an app's.
type Store struct {
	name      string
	driver    Driver
	limits    Limits
	getter    Getter // nil: the driver is none
	instant   bool
	prefix    string // of every key of this view
	namespace string // of the app whose view it is
	plain     bool   // keys must not hold keys.Separator
	settings  map[string]string
	crypt     *crypt  // nil: values are stored as they are
	outbox    *outbox // nil: there is none
	views     *keys.Views[Store]
	guard     loam.Guard // nil: calls of the driver go to it as they are
}

// New makes a Store of the component called name, without settings.
func New(name string, d Driver) *Store {
	s, err := Open(name, d, Options{})
	if err != nil {
		panic("state: " + err.Error()) // only settings can be wrong
	}
	return s
}

// Open makes a Store of the component called name. Its settings may be wrong.
func Open(name string, d Driver, o Options) (*Store, error) {
	s := &Store{name: name, driver: d, settings: o.Settings, views: &keys.Views[Store]{}}
	if l, ok := d.(Limited); ok {
		s.limits = l.Limits()
	}
	s.getter, _ = d.(Getter)
	if i, ok := d.(Instant); ok {
		s.instant = i.Instant()
	}
	_, err := keys.Prefix(o.Settings, name, "", "")
	if err != nil {
		return nil, err
	}
	if s.crypt, err = newCrypt(name, o.Settings); err != nil {
		return nil, err
	}
	if s.outbox, err = newOutbox(name, o); err != nil {
		return nil, err
	}
	return s, nil
}

// Guarded is the store with g round every call of the component.
func (s *Store) Guarded(g loam.Guard) *Store {
	made := *s
	made.guard, made.instant, made.views = g, false, &keys.Views[Store]{}
	return &made
}

// read and apply ask the driver, behind the guard where there is one.
func (s *Store) read(ctx context.Context, keys []string) ([]Item, error) {
	if s.guard == nil {
		return s.driver.Get(ctx, keys)
	}
	return loam.Guarded(ctx, s.guard, func(ctx context.Context) ([]Item, error) { return s.driver.Get(ctx, keys) })
}

func (s *Store) apply(ctx context.Context, ops []Op) ([]string, error) {
	if s.guard == nil {
		return s.driver.Apply(ctx, ops)
	}
	return loam.Guarded(ctx, s.guard, func(ctx context.Context) ([]string, error) { return s.driver.Apply(ctx, ops) })
}

// For is the store as an app's API finds it: the app's keys begin with what keyPrefix says, of which the app sees nothing.
// Grants are for keys as the app writes them. It is made once for each app.
func (s *Store) For(app, namespace string) (*Store, error) {
	return s.views.Get("", app, namespace, func() (*Store, error) {
		prefix, err := keys.Prefix(s.settings, s.name, app, namespace)
		if err != nil {
			return nil, err
		}
		made := *s
		made.prefix, made.namespace, made.plain = prefix, namespace, true
		return &made, nil
	})
}

// Instant tells whether Get, GetOne and GetBulk answer from memory, so that an event loop may call them without Task.Await.
func (s *Store) Instant() bool { return s.instant }

// InstantWrites tells the same of Apply, Write and Transact, which an outbox makes wait.
func (s *Store) InstantWrites() bool { return s.instant && s.outbox == nil }

// In is the store for calls that task t makes: GetOne, Get, Write and Apply wait in t, and so does Transact where there is no
// outbox; nothing else is called. nil: they block, so t calls the store in Task.Await.
func (s *Store) In(t loam.Task) *Store {
	tasked, ok := s.driver.(Tasked)
	if !ok || s.guard != nil {
		return nil
	}
	d := tasked.In(t)
	if d == nil {
		return nil
	}
	made := *s
	made.driver = d
	made.getter, _ = d.(Getter)
	return &made
}

// Features are what the component can, in Dapr's words: ETAG, TRANSACTIONAL, TTL, QUERY_API.
func (s *Store) Features() []string {
	var f []string
	add := func(can bool, name string) {
		if can {
			f = append(f, name)
		}
	}
	_, queries := s.driver.(Querier)
	add(!s.limits.NoETags, "ETAG")
	add(!s.limits.NoTransactions, "TRANSACTIONAL")
	add(!s.limits.NoTTL, "TTL")
	add(queries && s.crypt == nil, "QUERY_API")
	return f
}

// MaxTransaction is how many ops a transaction takes; 0: the component has none.
func (s *Store) MaxTransaction() int {
	if s.limits.NoTransactions {
		return 0
	}
	if s.limits.MaxOps > 0 {
		return min(s.limits.MaxOps, MaxOps)
	}
	return MaxOps
}

// A Bus is the pubsub component that a transaction publishes to.
type Bus interface {
	// Prepare checks the caller's grants and completes the events in place.
	Prepare(caller *loam.Caller, events []loam.Event) error
	// PubsubDriver is what SharesCommit is asked about.
	PubsubDriver() any
}

// GetOne reads one item; its ETag is empty where the key is not there. Its value is to be read, not to be changed.
func (s *Store) GetOne(ctx context.Context, caller *loam.Caller, key string, o GetOptions) (Item, error) {
	if err := s.check("state.Get", caller, key, false); err != nil {
		return Item{}, err
	}
	return s.getOne(ctx, key, o)
}

func (s *Store) getOne(ctx context.Context, key string, o GetOptions) (it Item, err error) {
	switch {
	case s.getter != nil && s.guard == nil:
		it, err = s.getter.GetOne(ctx, s.prefix+key, o)
	case s.getter != nil:
		it, err = loam.Guarded(ctx, s.guard, func(ctx context.Context) (Item, error) { return s.getter.GetOne(ctx, s.prefix+key, o) })
	default:
		var items []Item
		if items, err = s.read(ctx, []string{s.prefix + key}); err == nil {
			it = items[0]
		}
	}
	if err == nil {
		err = s.reveal(&it)
	}
	return it, err
}

// Get returns one item for each key, in that order; a key that is not there gives an item with an empty ETag. Values are to
// be read, not to be changed.
func (s *Store) Get(ctx context.Context, caller *loam.Caller, keys ...string) ([]Item, error) {
	if len(keys) == 0 || len(keys) > MaxOps {
		return nil, loam.Errorf(loam.InvalidArgument, "state.Get", "%d keys: 1 to %d at once", len(keys), MaxOps)
	}
	for _, k := range keys {
		if err := s.check("state.Get", caller, k, false); err != nil {
			return nil, err
		}
	}
	return s.get(ctx, keys)
}

func (s *Store) get(ctx context.Context, keys []string) ([]Item, error) {
	if s.prefix != "" {
		whole := make([]string, len(keys))
		for i, k := range keys {
			whole[i] = s.prefix + k
		}
		keys = whole
	}
	items, err := s.read(ctx, keys)
	if err != nil {
		return nil, err
	}
	return items, s.revealAll(items)
}

// reveal makes an item as the driver has it one of this view.
func (s *Store) reveal(it *Item) error {
	it.Key = strings.TrimPrefix(it.Key, s.prefix)
	if s.crypt == nil || it.ETag == "" {
		return nil
	}
	return s.crypt.decrypt(it)
}

func (s *Store) revealAll(items []Item) error {
	if s.prefix == "" && s.crypt == nil {
		return nil
	}
	for i := range items {
		if err := s.reveal(&items[i]); err != nil {
			return err
		}
	}
	return nil
}

// A Result is what became of one key of many.
type Result struct {
	Item Item // its Key is set whatever happened
	Err  error
}

// GetBulk reads many items, each answered for itself: one that is not granted or cannot be read keeps no other back.
// parallel is how many are read at once where the driver is asked for one at a time; 0: 10.
func (s *Store) GetBulk(ctx context.Context, caller *loam.Caller, keys []string, parallel int, o GetOptions) ([]Result, error) {
	if len(keys) > MaxOps {
		return nil, loam.Errorf(loam.InvalidArgument, "state.GetBulk", "%d keys: at most %d at once", len(keys), MaxOps)
	}
	results := make([]Result, len(keys))
	good, at := make([]string, 0, len(keys)), make([]int, 0, len(keys))
	for i, k := range keys {
		results[i].Item.Key = k
		if results[i].Err = s.check("state.Get", caller, k, false); results[i].Err == nil {
			good, at = append(good, k), append(at, i)
		}
	}
	if len(good) == 0 {
		return results, nil
	}
	read := 0
	for len(good) > 0 && read <= MaxRead {
		n := min(len(good), bulkOnce)
		for i, r := range s.getSome(ctx, good[:n], parallel, o) {
			r.Item.Key = good[i]
			results[at[i]] = r
			read += len(r.Item.Value)
		}
		good, at = good[n:], at[n:]
	}
	for _, i := range at {
		results[i].Err = loam.Errorf(loam.ResourceExhausted, "state.Get "+strconv.Quote(keys[i]), "the items before it have more than %d bytes: ask for fewer at once", MaxRead)
	}
	return results, nil
}

// bulkOnce is how many items are read before it is looked how large they are.
const bulkOnce = 100

// getSome reads items, each key once, however often it is asked for.
func (s *Store) getSome(ctx context.Context, keys []string, parallel int, o GetOptions) []Result {
	results := make([]Result, len(keys))
	once, at := make([]string, 0, len(keys)), make([]int, len(keys))
	first := make(map[string]int, len(keys))
	for i, k := range keys {
		n, again := first[k]
		if !again {
			n, first[k] = len(once), len(once)
			once = append(once, k)
		}
		at[i] = n
	}
	found := make([]Result, len(once))
	items, err := []Item(nil), error(nil)
	whole := len(o.Metadata) == 0 || s.getter == nil
	if whole {
		items, err = s.get(ctx, once)
	}
	if whole && err == nil {
		for i, it := range items {
			found[i].Item = it
		}
	} else {
		each(len(once), parallel, func(i int) {
			r := &found[i]
			it, err := s.getOne(ctx, once[i], o)
			if r.Err = err; err == nil {
				r.Item = it
			}
		})
	}
	for i := range results {
		results[i] = found[at[i]]
	}
	return results
}

// each calls do with 0 to n-1, so many at once, and returns when all have.
func each(n, parallel int, do func(i int)) {
	if parallel <= 0 {
		parallel = 10
	}
	if parallel = min(parallel, n, 100); parallel <= 1 {
		for i := range n {
			do(i)
		}
		return
	}
	var next atomic.Int64
	var working sync.WaitGroup
	for range parallel {
		working.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				do(i)
			}
		})
	}
	working.Wait()
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
	if after != "" {
		after = s.prefix + after
	}
	items, err := loam.Guarded(ctx, s.guard, func(ctx context.Context) ([]Item, error) { return l.List(ctx, s.prefix+prefix, after, limit) })
	if err != nil {
		return nil, err
	}
	return items, s.revealAll(items)
}

// Query returns the items that q selects, of those whose keys the view has. It needs a grant for all of them.
func (s *Store) Query(ctx context.Context, caller *loam.Caller, q *Query) (Page, error) {
	if err := caller.Check("state", s.name, "*", false); err != nil {
		return Page{}, err
	}
	d, ok := s.driver.(Querier)
	switch {
	case !ok:
		return Page{}, loam.Errorf(loam.Unimplemented, "state.Query", "component %q cannot be queried", s.name)
	case s.crypt != nil:
		return Page{}, loam.Errorf(loam.FailedPrecondition, "state.Query", "component %q encrypts what it stores: nothing can be looked for in it", s.name)
	}
	page, err := loam.Guarded(ctx, s.guard, func(ctx context.Context) (Page, error) { return d.Query(ctx, s.prefix, q) })
	if err != nil {
		return Page{}, err
	}
	return page, s.revealAll(page.Items)
}

// Apply does all ops and publishes all events, or none of it, durably once it returns. It answers the new ETag of each
// op. bus may be nil where there are no events.
func (s *Store) Apply(ctx context.Context, caller *loam.Caller, ops []Op, bus Bus, events []loam.Event) ([]string, error) {
	if n := len(ops) + len(events); n == 0 || n > MaxOps {
		return nil, loam.Errorf(loam.InvalidArgument, "state.Apply", "%d ops and events: 1 to %d at once", n, MaxOps)
	}
	if err := s.checkTransaction(caller, ops); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(ops, func(op Op) bool { return op.Projection }) {
		return nil, loam.Errorf(loam.InvalidArgument, "state.Apply", "a projection is for Transact")
	}
	ops, err := s.conceal(ops)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return s.apply(ctx, ops)
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
	return loam.Guarded(ctx, s.guard, func(ctx context.Context) ([]string, error) {
		return o.ApplyAndPublish(ctx, ops, bus.PubsubDriver(), events)
	})
}

// checkTransaction tells whether the caller may do these ops together.
func (s *Store) checkTransaction(caller *loam.Caller, ops []Op) error {
	if most := s.MaxTransaction(); len(ops) > 1 && len(ops) > most {
		if most == 0 {
			return loam.Errorf(loam.Unimplemented, "state.Apply", "component %q has no transactions", s.name)
		}
		return loam.Errorf(loam.InvalidArgument, "state.Apply", "%d ops: component %q does at most %d in a transaction", len(ops), s.name, most)
	}
	for i := range ops {
		if err := s.checkOp(caller, &ops[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) checkOp(caller *loam.Caller, op *Op) error {
	if err := s.check("state.Apply", caller, op.Key, true); err != nil {
		return err
	}
	wrong := func(code loam.Code, format string, args ...any) error {
		return loam.Errorf(code, "state.Apply "+strconv.Quote(op.Key), format, args...)
	}
	switch {
	case len(op.Value) > MaxValue:
		return wrong(loam.InvalidArgument, "a value of %d bytes: at most %d", len(op.Value), MaxValue)
	case op.TTL < 0 || op.IfAbsent && op.IfMatch != "":
		return wrong(loam.InvalidArgument, "conditions that contradict each other, or a negative TTL")
	case op.Projection && (op.Delete || s.outbox == nil):
		return wrong(loam.InvalidArgument, "a projection says what the outbox publishes instead of a write: the component has no outbox, or it is a delete")
	case s.limits.NoTTL && op.TTL > 0:
		return wrong(loam.Unimplemented, "component %q keeps items for ever", s.name)
	case s.limits.NoETags && (op.IfAbsent || op.IfMatch != ""):
		return wrong(loam.Unimplemented, "component %q has no ETags", s.name)
	}
	return nil
}

// conceal makes ops of this view such as the driver does: with whole keys, encrypted.
func (s *Store) conceal(ops []Op) ([]Op, error) {
	if s.prefix == "" && s.crypt == nil {
		return ops, nil
	}
	out := slices.Clone(ops)
	for i := range out {
		op := &out[i]
		op.Key = s.prefix + op.Key
		if s.crypt != nil && !op.Delete {
			var err error
			if op.Value, err = s.crypt.encrypt(op.Value); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Write does each of the ops by itself: what becomes of one is nothing to the others. nil: all were done; else there is one
// error for each op, nil for those that were. Ops of one key are done in their order.
func (s *Store) Write(ctx context.Context, caller *loam.Caller, ops []Op) []error {
	if len(ops) == 1 {
		if err := s.write(ctx, caller, ops); err != nil {
			return []error{err}
		}
		return nil
	}
	errs := make([]error, len(ops))
	if len(ops) > MaxOps {
		for i := range errs {
			errs[i] = loam.Errorf(loam.InvalidArgument, "state.Write", "%d ops: at most %d at once", len(ops), MaxOps)
		}
		return errs
	}
	good, at := make([]Op, 0, len(ops)), make([]int, 0, len(ops))
	failed := false
	for i := range ops {
		if errs[i] = s.checkWrite(caller, &ops[i]); errs[i] != nil {
			failed = true
			continue
		}
		good, at = append(good, ops[i]), append(at, i)
	}
	done := func() []error {
		if failed {
			return errs
		}
		return nil
	}
	good, err := s.conceal(good)
	if err != nil {
		for _, i := range at {
			errs[i], failed = err, true
		}
		return errs
	}
	// Most often all go: in one commit, which costs the least. One that is refused is found by doing each alone.
	if len(good) == 0 {
		return done()
	}
	if len(good) <= s.MaxTransaction() {
		_, err := s.apply(ctx, good)
		switch {
		case err == nil:
			return done()
		case !refused(err):
			for _, i := range at {
				errs[i], failed = err, true
			}
			return errs
		}
	}
	for i := range good {
		if _, err := s.apply(ctx, good[i:i+1]); err != nil {
			errs[at[i]], failed = err, true
		}
	}
	return done()
}

// write does one op.
func (s *Store) write(ctx context.Context, caller *loam.Caller, op []Op) error {
	if err := s.checkWrite(caller, &op[0]); err != nil {
		return err
	}
	op, err := s.conceal(op)
	if err == nil {
		_, err = s.apply(ctx, op)
	}
	return err
}

func (s *Store) checkWrite(caller *loam.Caller, op *Op) error {
	if op.Projection {
		return loam.Errorf(loam.InvalidArgument, "state.Write "+strconv.Quote(op.Key), "a projection is part of a transaction")
	}
	return s.checkOp(caller, op)
}

// refused tells whether an error is one op's own fault, so that others may succeed.
func refused(err error) bool {
	switch loam.CodeOf(err) {
	case loam.Aborted, loam.AlreadyExists, loam.InvalidArgument, loam.FailedPrecondition, loam.NotFound:
		return true
	}
	return false
}

func (s *Store) check(op string, caller *loam.Caller, key string, write bool) error {
	if key == "" || len(key) > MaxKey {
		return loam.Errorf(loam.InvalidArgument, op+" "+strconv.Quote(key), "a key takes 1 to %d bytes", MaxKey)
	}
	if s.plain {
		if err := keys.Check(key); err != nil {
			return err
		}
	}
	return caller.Check("state", s.name, key, write)
}

// Methods are the capability's calls; find returns the component of a name, findBus the pubsub component that a
// transaction publishes to.
func Methods(find func(component string) (*Store, error), findBus func(component string) (Bus, error)) loam.Methods {
	return loam.Methods{
		"state.Get": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			return carryGet(ctx, nil, caller, in, find)
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
			return carryApply(ctx, nil, caller, in, find, findBus)
		},
	}
}

// TaskMethods are the same for callers that run in a task of an event loop, of those whose component may be asked in it.
func TaskMethods(find func(component string) (*Store, error), findBus func(component string) (Bus, error)) map[string]loam.TaskMethod {
	return map[string]loam.TaskMethod{
		"state.Get": func(ctx context.Context, task loam.Task, caller *loam.Caller, in []byte) ([]byte, error) {
			return carryGet(ctx, task, caller, in, find)
		},
		"state.Apply": func(ctx context.Context, task loam.Task, caller *loam.Caller, in []byte) ([]byte, error) {
			return carryApply(ctx, task, caller, in, find, findBus)
		},
	}
}

// few is how many items and ops are no work to speak of: more are not read and written on an event loop.
const few = 16

// ask has fn ask the store, in the task where that is light and can be: in place where the store is instant, or waiting in
// the task. A nil task may block.
func (s *Store) ask(task loam.Task, light, instant bool, fn func(*Store)) {
	if task == nil || light && instant {
		fn(s)
		return
	}
	if light {
		if in := s.In(task); in != nil {
			fn(in)
			return
		}
	}
	task.Await(func() { fn(s) })
}

// carryGet decodes a call and encodes its answer.
func carryGet(ctx context.Context, task loam.Task, caller *loam.Caller, in []byte, find func(component string) (*Store, error)) ([]byte, error) {
	var req api.StateGetRequest
	s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
	if err != nil {
		return nil, err
	}
	var out []byte
	s.ask(task, len(req.Keys) <= few, s.Instant(), func(s *Store) {
		var items []Item
		if items, err = s.Get(ctx, caller, req.Keys...); err == nil {
			out = (&api.StateGetResponse{Items: toAPI(items)}).AppendProto(nil)
		}
	})
	return out, err
}

// carryApply is carryGet of state.Apply.
func carryApply(
	ctx context.Context, task loam.Task, caller *loam.Caller, in []byte, find func(component string) (*Store, error), findBus func(component string) (Bus, error),
) ([]byte, error) {
	var req api.StateApplyRequest
	s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
	if err != nil {
		return nil, err
	}
	ops := make([]Op, len(req.Ops))
	for i, op := range req.Ops {
		ops[i] = Op{Delete: op.Delete, Key: op.Key, Value: op.Value, TTL: api.Millis(op.TtlMs), IfMatch: op.IfMatch, IfAbsent: op.IfAbsent}
	}
	events, component, err := api.Events(req.Events)
	if err != nil {
		return nil, err
	}
	var bus Bus
	if len(events) > 0 {
		if bus, err = findBus(component); err != nil {
			return nil, err
		}
	}
	var res api.StateApplyResponse
	light := len(ops) <= few && len(events) == 0 // publishing waits for more than the store
	s.ask(task, light, s.InstantWrites(), func(s *Store) { res.Etags, err = s.Apply(ctx, caller, ops, bus, events) })
	if err != nil {
		return nil, err
	}
	for i := range events {
		res.EventIds = append(res.EventIds, events[i].ID)
	}
	return res.AppendProto(nil), nil
}

func toAPI(items []Item) []api.StateItem {
	out := make([]api.StateItem, len(items))
	for i, it := range items {
		out[i] = api.StateItem{Key: it.Key, Value: it.Value, Etag: it.ETag, ExpiresUnixMs: api.UnixMilli(it.Expires)}
	}
	return out
}
