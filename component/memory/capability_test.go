package memory

// The capabilities, on the drivers of this package: what they check, and what they answer a carrier.

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/sequence"
	"github.com/loam-run/loam/capability/state"
)

// opened is one component of each capability, called default.
type opened struct {
	store    *state.Store
	bus      *pubsub.Bus
	locker   *lock.Locker
	config   *config.Config
	sequence *sequence.Sequence
}

func openAll(t *testing.T) opened {
	t.Helper()
	m, ctx := New(), t.Context()
	s, err1 := m.OpenState(ctx, "default", Config{})
	p, err2 := m.OpenPubsub(ctx, "default", Config{})
	l, err3 := m.OpenLock(ctx, "default", Config{})
	c, err4 := m.OpenConfig(ctx, "default", Config{})
	q, err5 := m.OpenSequence(ctx, "default", Config{})
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	return opened{state.New("default", s), pubsub.New("default", p), lock.New("default", l), config.New("default", c), sequence.New("default", q)}
}

// granted is a caller that may do all, or with names only what they match.
func granted(names ...string) *loam.Caller {
	c := &loam.Caller{Name: "orders"}
	for _, capability := range []string{"state", "pubsub", "lock", "config", "sequence"} {
		c.Grants = append(c.Grants, loam.Grant{Capability: capability, Component: "default", Names: names})
	}
	return c
}

func readOnly(c *loam.Caller) *loam.Caller {
	for i := range c.Grants {
		c.Grants[i].ReadOnly = true
	}
	return c
}

func wantCode(t *testing.T, what string, err error, code loam.Code) {
	t.Helper()
	if loam.CodeOf(err) != code {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
	if code == loam.PermissionDenied && loam.HintOf(err) == "" {
		t.Errorf("%s: denied, without a word on what to grant: %v", what, err)
	}
}

func put(key string) []state.Op { return []state.Op{{Key: key, Value: []byte("v")}} }

func TestStateChecks(t *testing.T) {
	s, ctx := openAll(t).store, t.Context()
	all, some := granted(), granted("orders/*", "exact")
	apply := func(caller *loam.Caller, ops []state.Op) error {
		_, err := s.Apply(ctx, caller, ops, nil, nil)
		return err
	}
	get := func(caller *loam.Caller, keys ...string) error {
		_, err := s.Get(ctx, caller, keys...)
		return err
	}
	list := func(caller *loam.Caller, prefix string, limit int) error {
		_, err := s.List(ctx, caller, prefix, "", limit)
		return err
	}
	if err := apply(nil, put("k")); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("no caller: %v", err)
	}
	wantCode(t, "granted prefix", apply(some, put("orders/1")), loam.OK)
	wantCode(t, "granted key", apply(some, put("exact")), loam.OK)
	wantCode(t, "no grant", apply(some, put("exactly")), loam.PermissionDenied)
	wantCode(t, "one of two", apply(some, append(put("orders/1"), put("other")...)), loam.PermissionDenied)
	wantCode(t, "another component", apply(&loam.Caller{Name: "x", Grants: []loam.Grant{{Capability: "state", Component: "second"}}}, put("k")), loam.PermissionDenied)
	wantCode(t, "write with a grant to read", apply(readOnly(granted()), put("k")), loam.PermissionDenied)
	wantCode(t, "read with a grant to read", get(readOnly(granted()), "k"), loam.OK)
	wantCode(t, "read without", get(some, "orders/1", "other"), loam.PermissionDenied)

	wantCode(t, "list a granted prefix", list(some, "orders/", 10), loam.OK)
	wantCode(t, "list a longer one", list(some, "orders/1", 10), loam.OK)
	wantCode(t, "list a shorter one", list(some, "orders", 10), loam.PermissionDenied)
	wantCode(t, "list what one key's grant begins", list(some, "exact", 10), loam.PermissionDenied)
	wantCode(t, "list all", list(all, "", 0), loam.OK)
	wantCode(t, "list more than there may be", list(all, "", state.MaxOps+1), loam.InvalidArgument)
	wantCode(t, "list by a huge prefix", list(all, strings.Repeat("k", state.MaxKey+1), 1), loam.InvalidArgument)

	wantCode(t, "no key", get(all), loam.InvalidArgument)
	wantCode(t, "empty key", get(all, ""), loam.InvalidArgument)
	wantCode(t, "longest key", get(all, strings.Repeat("k", state.MaxKey)), loam.OK)
	wantCode(t, "too long a key", get(all, strings.Repeat("k", state.MaxKey+1)), loam.InvalidArgument)
	wantCode(t, "too many keys", get(all, slices.Repeat([]string{"k"}, state.MaxOps+1)...), loam.InvalidArgument)
	wantCode(t, "nothing to do", apply(all, nil), loam.InvalidArgument)
	wantCode(t, "one key twice", apply(all, append(put("k"), put("k")...)), loam.OK)
	wantCode(t, "largest value", apply(all, []state.Op{{Key: "k", Value: make([]byte, state.MaxValue)}}), loam.OK)
	wantCode(t, "too large a value", apply(all, []state.Op{{Key: "k", Value: make([]byte, state.MaxValue+1)}}), loam.InvalidArgument)
	wantCode(t, "negative TTL", apply(all, []state.Op{{Key: "k", TTL: -1}}), loam.InvalidArgument)
	wantCode(t, "delete what must not be there", apply(all, []state.Op{{Key: "k", Delete: true, IfAbsent: true}}), loam.AlreadyExists)
	wantCode(t, "conditions that contradict each other", apply(all, []state.Op{{Key: "k", IfMatch: "x", IfAbsent: true}}), loam.InvalidArgument)
	wantCode(t, "a projection without an outbox", apply(all, []state.Op{{Key: "k", Projection: true}}), loam.InvalidArgument)
}

func TestTransactionPublishes(t *testing.T) {
	o, ctx := openAll(t), t.Context()
	event := func(topic string) []loam.Event { return []loam.Event{{Topic: topic, Data: []byte("{}")}} }

	events := event("created")
	if _, err := o.store.Apply(ctx, granted(), put("k"), o.bus, events); err != nil {
		t.Fatal(err)
	}
	e := events[0]
	if e.ID == "" || e.Source != "orders" || e.Type != "created" || e.ContentType != "application/json" || e.Time.IsZero() {
		t.Errorf("the event was not completed: %+v", e)
	}

	absent := func(key string) {
		t.Helper()
		if items, err := o.store.Get(ctx, granted(), key); err != nil || items[0].ETag != "" {
			t.Errorf("%s was written: %+v, %v", key, items, err)
		}
	}
	onlyState := &loam.Caller{Name: "orders", Grants: []loam.Grant{{Capability: "state", Component: "default"}}}
	_, err := o.store.Apply(ctx, onlyState, put("denied"), o.bus, event("created"))
	wantCode(t, "publish without a grant", err, loam.PermissionDenied)
	absent("denied")
	_, err = o.store.Apply(ctx, granted(), put("stranger"), openAll(t).bus, event("created"))
	wantCode(t, "publish to a bus of another store", err, loam.FailedPrecondition)
	if loam.HintOf(err) == "" {
		t.Errorf("no hint: %v", err)
	}
	absent("stranger")
	_, err = o.store.Apply(ctx, granted(), put("nowhere"), nil, event("created"))
	wantCode(t, "publish to no bus", err, loam.FailedPrecondition)
	absent("nowhere")
	_, err = o.store.Apply(ctx, granted(), put("badTopic"), o.bus, event(""))
	wantCode(t, "publish to no topic", err, loam.InvalidArgument)
	absent("badTopic")
}

func TestPublishChecks(t *testing.T) {
	b, ctx := openAll(t).bus, t.Context()
	publish := func(caller *loam.Caller, events ...loam.Event) error { return b.Publish(ctx, caller, events) }
	with := func(name, value string) loam.Event {
		return loam.Event{Topic: "t", Attributes: map[string]string{name: value}}
	}
	wantCode(t, "granted", publish(granted("t"), loam.Event{Topic: "t"}), loam.OK)
	wantCode(t, "no grant", publish(granted("t"), loam.Event{Topic: "u"}), loam.PermissionDenied)
	wantCode(t, "a grant to read", publish(readOnly(granted()), loam.Event{Topic: "t"}), loam.PermissionDenied)
	wantCode(t, "no events", publish(granted()), loam.InvalidArgument)
	wantCode(t, "too many events", publish(granted(), make([]loam.Event, pubsub.MaxEvents+1)...), loam.InvalidArgument)
	wantCode(t, "too long a topic", publish(granted(), loam.Event{Topic: strings.Repeat("t", pubsub.MaxTopic+1)}), loam.InvalidArgument)
	wantCode(t, "too much data", publish(granted(), loam.Event{Topic: "t", Data: make([]byte, pubsub.MaxData+1)}), loam.InvalidArgument)
	wantCode(t, "an attribute", publish(granted(), with("traceparent", "any text: ü\n")), loam.OK)
	wantCode(t, "an attribute's bad name", publish(granted(), with("x y", "")), loam.InvalidArgument)
	wantCode(t, "an attribute that would forge a header", publish(granted(), with("Ce:x", "")), loam.InvalidArgument)
	wantCode(t, "an attribute without a name", publish(granted(), with("", "")), loam.InvalidArgument)
	wantCode(t, "an attribute that would forge another", publish(granted(), with("source", "bank")), loam.InvalidArgument)
	wantCode(t, "a huge attribute", publish(granted(), with("x", strings.Repeat("x", pubsub.MaxAttribute+1))), loam.InvalidArgument)
	wantCode(t, "an id that would end a header", publish(granted(), loam.Event{Topic: "t", ID: "1\r\nX-Admin: 1"}), loam.InvalidArgument)
	wantCode(t, "a type that would", publish(granted(), loam.Event{Topic: "t", Type: "1\n2"}), loam.InvalidArgument)
}

// A failing delivery is tried again after a while that doubles, a quarter more or less, up to a most; at last it goes to
// the dead letter topic, which says where it comes from.
func TestBackoffAndDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := openAll(t)
		ctx, cancel := context.WithCancel(t.Context())
		if err := o.bus.Publish(ctx, granted(), []loam.Event{{ID: "1", Topic: "t", Attributes: map[string]string{"x": "kept"}}}); err != nil {
			t.Fatal(err)
		}
		var at []time.Time
		ended := make(chan error, 1)
		go func() {
			ended <- o.bus.Subscribe(ctx, pubsub.Options{
				Topic: "t", Group: "g", DeadLetter: "dead", MaxDeliveries: 6, RetryMin: time.Second, RetryMax: 5 * time.Second, Log: slog.New(slog.DiscardHandler),
			}, func(_ context.Context, _ loam.Event, attempt int) error {
				if at = append(at, time.Now()); attempt != len(at) {
					t.Errorf("attempt %d is called %d", len(at), attempt)
				}
				return errors.New("no luck")
			})
		}()
		dead := make(chan loam.Event, 1)
		deadEnded := make(chan error, 1)
		go func() {
			deadEnded <- o.bus.Subscribe(ctx, pubsub.Options{Topic: "dead", Group: "g"}, func(_ context.Context, e loam.Event, _ int) error {
				dead <- e
				return nil
			})
		}()
		e := <-dead
		cancel()
		if err := errors.Join(<-ended, <-deadEnded); err != nil {
			t.Error(err)
		}
		want := map[string]string{"x": "kept", "deadlettertopic": "t", "deadlettergroup": "g", "deadletterreason": "no luck", "topic": "t"}
		if e.ID != "1" || e.Topic != "dead" || !cmp.Equal(e.Attributes, want) {
			t.Errorf("the dead letter is %+v", e)
		}
		if len(at) != 6 {
			t.Fatalf("it was tried %d times", len(at))
		}
		for i, about := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
			if waited := at[i+1].Sub(at[i]); waited < about*3/4 || waited > about*5/4 {
				t.Errorf("before attempt %d it waited %v, want about %v", i+2, waited, about)
			}
		}
	})
}

type drop struct{ error }

func (drop) Drop() bool { return true }

// An error that says to drop ends an event; one without a dead letter topic is tried for ever.
func TestDropAndForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := openAll(t)
		ctx, cancel := context.WithCancel(t.Context())
		if err := o.bus.Publish(ctx, granted(), []loam.Event{{ID: "drop", Topic: "t"}, {ID: "keep", Topic: "t"}}); err != nil {
			t.Fatal(err)
		}
		tries := map[string]int{}
		if err := o.bus.Subscribe(ctx, pubsub.Options{Topic: "t", Group: "g", InFlight: 1}, func(_ context.Context, e loam.Event, _ int) error {
			if tries[e.ID]++; e.ID == "drop" {
				return errors.Join(errors.New("it says"), drop{errors.New("no such path")})
			}
			if tries["keep"] == 50 {
				cancel()
			}
			return errors.New("no luck")
		}); err != nil {
			t.Error(err)
		}
		if tries["drop"] != 1 || tries["keep"] != 50 {
			t.Errorf("tried %v", tries)
		}
	})
}

func TestLockChecks(t *testing.T) {
	l, ctx := openAll(t).locker, t.Context()
	try := func(caller *loam.Caller, name, owner string, ttl time.Duration) error {
		_, err := l.TryLock(ctx, caller, name, owner, ttl)
		return err
	}
	wantCode(t, "granted", try(granted("l"), "l", "me", time.Minute), loam.OK)
	wantCode(t, "no grant", try(granted("l"), "m", "me", time.Minute), loam.PermissionDenied)
	wantCode(t, "renew without", l.Renew(ctx, granted("x"), "l", "me", time.Minute), loam.PermissionDenied)
	wantCode(t, "unlock with a grant to read", l.Unlock(ctx, readOnly(granted()), "l", "me"), loam.PermissionDenied)
	wantCode(t, "no name", try(granted(), "", "me", time.Minute), loam.InvalidArgument)
	wantCode(t, "no owner", try(granted(), "l", "", time.Minute), loam.InvalidArgument)
	wantCode(t, "no end", try(granted(), "l", "me", 0), loam.InvalidArgument)
	wantCode(t, "too long", l.Renew(ctx, granted(), "l", "me", lock.MaxTTL+1), loam.InvalidArgument)
}

// What an app's API sees of locks and sequences are its own: names begin with what the dialect and keyPrefix say.
func TestViews(t *testing.T) {
	ctx, m := t.Context(), New()
	ld, err1 := m.OpenLock(ctx, "default", Config{})
	sd, err2 := m.OpenSequence(ctx, "default", Config{})
	l, err3 := lock.Open("default", ld, map[string]string{"keyPrefix": "name"})
	s, err4 := sequence.Open("default", sd, nil)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	mine, err1 := l.For("lock||", "orders", "")
	numbers, err2 := s.For("sequencer|||", "orders", "")
	others, err3 := s.For("sequencer|||", "carts", "")
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if ok, err := mine.TryLock(ctx, granted("x"), "x", "me", time.Minute); !ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	if ld.leases["lock||default||x"].owner != "me" {
		t.Errorf("the leases are %v", ld.leases)
	}
	if got := lock.StatusOf(mine.Unlock(ctx, granted("x"), "x", "you")); got != lock.BelongsToOthers {
		t.Errorf("unlocked by another: %d", got)
	}
	if got := lock.StatusOf(mine.Unlock(ctx, granted("x"), "x", "me")); got != lock.Success {
		t.Errorf("unlocked by its owner: %d", got)
	}
	if got := lock.StatusOf(mine.Unlock(ctx, granted("x"), "x", "me")); got != lock.DoesNotExist {
		t.Errorf("unlocked twice: %d", got)
	}
	if got := lock.StatusOf(mine.Unlock(ctx, granted("y"), "x", "me")); got != lock.InternalError {
		t.Errorf("unlocked without a grant, which is no word on who holds it: %d", got)
	}
	_, err := mine.TryLock(ctx, granted(), "a||b", "me", time.Minute)
	wantCode(t, "a name with a separator", err, loam.InvalidArgument)

	n1, err1 := numbers.Next(ctx, granted("k"), "k", 5)
	n2, err2 := numbers.NextWeak(ctx, granted("k"), "k", 1)
	n3, err3 := others.Next(ctx, granted("k"), "k", 1)
	if err := errors.Join(err1, err2, err3); err != nil || n1 != 1 || n2 != 6 || n3 != 1 || sd.next["sequencer|||orders||k"] != 6 {
		t.Errorf("%d, %d, %d of %v: %v", n1, n2, n3, sd.next, err)
	}
	for _, err := range []error{errOf(lock.Open("l", ld, map[string]string{"keyPrefix": "a||b"})), errOf(sequence.Open("s", sd, map[string]string{"keyPrefix": "a||b"}))} {
		wantCode(t, "a prefix that separates", err, loam.InvalidArgument)
	}
}

func errOf[T any](_ T, err error) error { return err }

func TestConfigChecks(t *testing.T) {
	c, ctx := openAll(t).config, t.Context()
	items := func(keys ...string) (items []config.Item) {
		for _, k := range keys {
			items = append(items, config.Item{Key: k, Value: "v"})
		}
		return items
	}
	wantCode(t, "set", c.Set(ctx, granted(), items("shop/a", "shop/b", "secret")), loam.OK)
	wantCode(t, "set without a grant", c.Set(ctx, granted("shop/*"), items("shop/a", "secret")), loam.PermissionDenied)
	wantCode(t, "delete with a grant to read", c.Delete(ctx, readOnly(granted()), []string{"secret"}), loam.PermissionDenied)
	wantCode(t, "set nothing", c.Set(ctx, granted(), nil), loam.InvalidArgument)
	wantCode(t, "delete nothing", c.Delete(ctx, granted(), nil), loam.InvalidArgument)
	wantCode(t, "empty key", c.Set(ctx, granted(), items("")), loam.InvalidArgument)
	wantCode(t, "huge value", c.Set(ctx, granted(), []config.Item{{Key: "k", Value: strings.Repeat("v", config.MaxValue+1)}}), loam.InvalidArgument)
	if _, err := c.Get(ctx, granted("shop/*"), []string{"secret"}); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("get without a grant: %v", err)
	}
	got, err := c.Get(ctx, granted("shop/*"), nil)
	if err != nil || len(got) != 2 || got[0].Key != "shop/a" || got[1].Key != "shop/b" {
		t.Errorf("all that is granted: %+v, %v", got, err)
	}

	wctx, cancel := context.WithCancel(ctx)
	told, ended := make(chan string, 1000), make(chan error, 1)
	go func() {
		ended <- c.Watch(wctx, granted("shop/*"), nil, func(items []config.Item) {
			for _, it := range items {
				told <- it.Key
			}
		})
	}()
	if a, b := <-told, <-told; a != "shop/a" || b != "shop/b" {
		t.Errorf("of what was there, %s and %s are told", a, b)
	}
	wantCode(t, "set", c.Set(ctx, granted(), items("secret", "shop/a")), loam.OK)
	if key := <-told; key != "shop/a" {
		t.Errorf("told of %s", key)
	}
	cancel()
	if err := <-ended; err != nil || len(told) > 0 {
		t.Errorf("%v, and %d more were told", err, len(told))
	}
}

func TestSequenceChecks(t *testing.T) {
	s, ctx := openAll(t).sequence, t.Context()
	next := func(caller *loam.Caller, key string, count int64) error {
		_, err := s.Next(ctx, caller, key, count)
		return err
	}
	wantCode(t, "granted", next(granted("k"), "k", sequence.MaxCount), loam.OK)
	wantCode(t, "no grant", next(granted("k"), "l", 1), loam.PermissionDenied)
	wantCode(t, "a grant to read", next(readOnly(granted()), "k", 1), loam.PermissionDenied)
	wantCode(t, "no key", next(granted(), "", 1), loam.InvalidArgument)
	wantCode(t, "none", next(granted(), "k", 0), loam.InvalidArgument)
	wantCode(t, "too many", next(granted(), "k", sequence.MaxCount+1), loam.InvalidArgument)
}

// found is what a carrier is given to find components with: there is but one of each, called default or nothing.
func found[C any](c C) func(string) (C, error) {
	return func(name string) (C, error) {
		if name != "" && name != "default" {
			var none C
			return none, loam.Errorf(loam.NotFound, "", "no component %q", name)
		}
		return c, nil
	}
}

// TestMethods goes through every call as a carrier makes it.
func TestMethods(t *testing.T) {
	o := openAll(t)
	methods := loam.Methods{}
	for _, some := range []loam.Methods{
		state.Methods(found(o.store), func(name string) (state.Bus, error) { return found[state.Bus](o.bus)(name) }),
		pubsub.Methods(found(o.bus)), lock.Methods(found(o.locker)), config.Methods(found(o.config)), sequence.Methods(found(o.sequence)),
	} {
		for name, m := range some {
			if methods[name] != nil {
				t.Errorf("%s is there twice", name)
			}
			methods[name] = m
		}
	}
	called := map[string]bool{}
	call := func(name string, req, res api.Message) error {
		t.Helper()
		called[name] = true
		out, err := methods[name](t.Context(), granted(), req.AppendProto(nil))
		if err != nil {
			return err
		}
		if err := res.ParseProto(out); err != nil {
			t.Errorf("%s answered what is no answer: %v", name, err)
		}
		return nil
	}
	must := func(name string, req, res api.Message) {
		t.Helper()
		if err := call(name, req, res); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := &api.Empty{}

	var applied api.StateApplyResponse
	must("state.Apply", &api.StateApplyRequest{
		Ops: []api.StateOp{{Key: "a", Value: []byte("1"), IfAbsent: true}, {Key: "b", Value: []byte("2"), TtlMs: 60_000}, {Key: "c", Delete: true}},
		Events: []api.Publication{{Topic: "t", Id: "mine", Type: "y", Subject: "j", ContentType: "text/plain", Data: []byte("d"), Attributes: []api.Attribute{{Name: "x", Value: "1"}}},
			{Topic: "t"}},
	}, &applied)
	if len(applied.Etags) != 3 || applied.Etags[0] == "" || applied.Etags[2] != "" || len(applied.EventIds) != 2 || applied.EventIds[0] != "mine" || applied.EventIds[1] == "" {
		t.Errorf("state.Apply answered %+v", applied)
	}
	wantCode(t, "state.Apply", call("state.Apply", &api.StateApplyRequest{Ops: []api.StateOp{{Key: "a", IfAbsent: true}}}, empty), loam.AlreadyExists)
	wantCode(t, "state.Apply", call("state.Apply", &api.StateApplyRequest{Ops: []api.StateOp{{Key: "a", IfMatch: "x"}}}, empty), loam.Aborted)
	wantCode(t, "state.Apply", call("state.Apply", &api.StateApplyRequest{Events: []api.Publication{{Topic: "t"}, {Topic: "t", Component: "other"}}}, empty), loam.InvalidArgument)
	wantCode(t, "state.Apply", call("state.Apply", &api.StateApplyRequest{Events: []api.Publication{{Topic: "t", Component: "other"}}}, empty), loam.NotFound)
	var got api.StateGetResponse
	must("state.Get", &api.StateGetRequest{Component: "default", Keys: []string{"b", "nothing", "a"}}, &got)
	if len(got.Items) != 3 || string(got.Items[0].Value) != "2" || got.Items[0].ExpiresUnixMs < time.Now().UnixMilli() || got.Items[1].Etag != "" ||
		got.Items[2].Etag != applied.Etags[0] || got.Items[2].ExpiresUnixMs != 0 {
		t.Errorf("state.Get answered %+v", got)
	}
	var listed api.StateListResponse
	must("state.List", &api.StateListRequest{After: "a", Limit: 5}, &listed)
	if len(listed.Items) != 1 || listed.Items[0].Key != "b" {
		t.Errorf("state.List answered %+v", listed)
	}

	var published api.PubsubPublishResponse
	must("pubsub.Publish", &api.PubsubPublishRequest{Events: []api.Publication{{Topic: "t", Id: "7"}}}, &published)
	if len(published.EventIds) != 1 || published.EventIds[0] != "7" {
		t.Errorf("pubsub.Publish answered %+v", published)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var events []loam.Event
	if err := o.bus.Subscribe(ctx, pubsub.Options{Topic: "t", Group: "g", InFlight: 1}, func(_ context.Context, e loam.Event, _ int) error {
		if events = append(events, e); len(events) == 3 {
			cancel()
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	first := events[0]
	first.Time = time.Time{}
	if want := (loam.Event{ID: "mine", Source: "orders", Type: "y", Subject: "j", ContentType: "text/plain", Topic: "t", Attributes: map[string]string{"x": "1"}, Data: []byte("d")}); !cmp.Equal(first, want) {
		t.Error(cmp.Diff(want, first))
	}

	var locked api.LockTryLockResponse
	must("lock.TryLock", &api.LockTryLockRequest{Name: "l", Owner: "me", TtlMs: 1000}, &locked)
	if !locked.Acquired {
		t.Error("lock.TryLock did not get it")
	}
	var refused api.LockTryLockResponse
	must("lock.TryLock", &api.LockTryLockRequest{Name: "l", Owner: "you", TtlMs: 1000}, &refused)
	if refused.Acquired {
		t.Error("lock.TryLock got what another holds")
	}
	must("lock.Renew", &api.LockRenewRequest{Name: "l", Owner: "me", TtlMs: 1000}, empty)
	must("lock.Unlock", &api.LockUnlockRequest{Name: "l", Owner: "me"}, empty)
	wantCode(t, "lock.Unlock", call("lock.Unlock", &api.LockUnlockRequest{Name: "l", Owner: "me"}, empty), loam.NotFound)

	metadata := []api.Attribute{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}
	must("config.Set", &api.ConfigSetRequest{Items: []api.ConfigItem{{Key: "k", Value: "v", Metadata: metadata}, {Key: "l", Value: "w"}}}, empty)
	must("config.Delete", &api.ConfigDeleteRequest{Keys: []string{"l"}}, empty)
	var configured api.ConfigGetResponse
	must("config.Get", &api.ConfigGetRequest{}, &configured)
	if len(configured.Items) != 1 || configured.Items[0].Value != "v" || configured.Items[0].Version == "" || !cmp.Equal(configured.Items[0].Metadata, metadata) {
		t.Errorf("config.Get answered %+v", configured)
	}

	var next api.SequenceNextResponse
	must("sequence.Next", &api.SequenceNextRequest{Key: "k", Count: 5}, &next)
	must("sequence.Next", &api.SequenceNextRequest{Key: "k"}, &next)
	if next.First != 6 {
		t.Errorf("sequence.Next answered %d", next.First)
	}

	for name, m := range methods {
		if !called[name] {
			t.Errorf("%s is not tested", name)
		}
		_, err := m(t.Context(), granted(), []byte{0xff, 0xff, 0xff})
		wantCode(t, name+" with what is no message", err, loam.InvalidArgument)
		_, err = m(t.Context(), nil, nil)
		if code := loam.CodeOf(err); code != loam.InvalidArgument && code != loam.PermissionDenied && name != "config.Get" {
			t.Errorf("%s for nobody: %v", name, err)
		}
	}
}
