package redis

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/component/redis/redistest"
)

const patience = 20 * time.Second

// at is the metadata of a component on a server, with more of it.
func at(s *redistest.Server, more ...string) map[string]string {
	m := map[string]string{"redisHost": s.Addr}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

// raw is what others see of a server.
func raw(t *testing.T, s *redistest.Server) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

func TestMetadata(t *testing.T) {
	check := func(typ string, metadata map[string]string) error {
		i := slices.IndexFunc(Factories(), func(f loam.Factory) bool { return f.Type == typ })
		return Factories()[i].Check(metadata)
	}
	for _, m := range []map[string]string{
		{"redisHost": "localhost"},
		{"redisHost": "localhost:6379", "redisPassword": "", "enableTLS": "false", "maxRetries": "3", "maxRetryBackoff": "2s", "failover": "false"},
		{"redisHost": "a:1,b:2,c", "redisType": "cluster", "redisMaxRetries": "-1", "readTimeout": "-1", "dialTimeout": "1500", "idleCheckFrequency": "-1"},
		{"redisHost": "s", "redisPort": "26379", "failover": "true", "sentinelMasterName": "mymaster", "sentinelPassword": "x"},
		{"redisHost": "/run/redis.sock", "ttlInSeconds": "60", "queryIndexes": "[]", "processingTimeout": "15s"},
	} {
		if err := check("state.redis", m); err != nil {
			t.Errorf("%v: %v", m, err)
		}
	}
	for says, m := range map[string]map[string]string{
		"redisHost: missing":          {},
		"another port than 2":         {"redisHost": "a:1", "redisPort": "2"},
		"neither node nor cluster":    {"redisHost": "a", "redisType": "ring"},
		"sentinelMasterName: missing": {"redisHost": "a", "failover": "true"},
		"no login by Entra ID":        {"redisHost": "a", "useEntraID": "true"},
		"one goes with the other":     {"redisHost": "a", "clientCert": "x"},
		"clientCert, clientKey":       {"redisHost": "a", "enableTLS": "true", "clientCert": "x", "clientKey": "y"},
		"did you mean redisPassword":  {"redisHost": "a", "redisPasword": "x"},
	} {
		if err := check("state.redis", m); loam.CodeOf(err) != loam.InvalidArgument || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v, want %s", m, err, says)
		}
	}
	if err := check("lock.redis", map[string]string{"redisHost": "a", "redisType": "cluster"}); err == nil {
		t.Error("a lock takes a cluster")
	}
	if err := check("pubsub.redis", map[string]string{"redisHost": "a", "maxLenApprox": "10", "streamTTL": "1h"}); err == nil {
		t.Error("a stream is trimmed twice")
	}
	want(t, "alias", Factories()[2].Aliases[0], "configuration.redis")
	addresses, err := (&Server{Host: "a, b:1,[::1],/s", Port: 0}).addresses()
	if err != nil || !slices.Equal(addresses, []string{"a:6379", "b:1", "[::1]:6379", "/s"}) {
		t.Errorf("%q, %v", addresses, err)
	}
}

// TestLayout holds what is stored against what daprd's components store and read.
func TestLayout(t *testing.T) {
	server := redistest.Start(t)
	db, ctx := raw(t, server), t.Context()
	s := openAt[*State](t, "state.redis", at(server, "ttlInSeconds", "90"))
	if _, err := s.Apply(ctx, []state.Op{{Key: "app||k", Value: []byte(`{"a":1}`), IfAbsent: true}, {Key: "app||short", Value: []byte("x"), TTL: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	fields := db.HGetAll(ctx, "app||k").Val()
	want(t, "data", fields["data"], `{"a":1}`)
	want(t, "first-write", fields["first-write"], "0")
	if _, err := strconv.ParseInt(fields["version"], 10, 64); err != nil {
		t.Errorf("version: %v", err)
	}
	if ttl := db.TTL(ctx, "app||k").Val(); ttl < 80*time.Second || ttl > 90*time.Second {
		t.Errorf("the component's TTL: %v", ttl)
	}
	if ttl := db.TTL(ctx, "app||short").Val(); ttl < 59*time.Minute {
		t.Errorf("the op's TTL: %v", ttl)
	}
	db.HSet(ctx, "theirs", "data", "d", "version", 1)
	it, err := s.GetOne(ctx, "theirs", state.GetOptions{})
	if err != nil || string(it.Value) != "d" || it.ETag != "1" {
		t.Errorf("what daprd wrote: %+v, %v", it, err)
	}
	etags, err := s.Apply(ctx, []state.Op{{Key: "theirs", Value: []byte("e"), IfMatch: "1"}})
	if err != nil || etags[0] != "2" {
		t.Errorf("written on: %q, %v", etags, err)
	}
	s.life = "PTTL" // as before Redis 7
	before, err := s.GetOne(ctx, "app||short", state.GetOptions{})
	all, allErr := s.Get(ctx, []string{"app||short", "app||none"})
	for _, it := range []state.Item{before, all[0]} {
		if left := time.Until(it.Expires); err != nil || allErr != nil || left < 59*time.Minute || left > time.Hour {
			t.Errorf("before Redis 7 it ends in %v: %v, %v", left, err, allErr)
		}
	}
	s.life = "PEXPIRETIME"
	db.Set(ctx, "old", "plain", 0) // from before Dapr had ETags
	it, err = s.GetOne(ctx, "old", state.GetOptions{})
	if err != nil || string(it.Value) != "plain" || it.ETag == "" {
		t.Errorf("a plain string: %+v, %v", it, err)
	}
	if _, err := s.Apply(ctx, []state.Op{{Key: "old", Value: []byte("new"), IfMatch: it.ETag}}); err != nil {
		t.Errorf("a plain string, written: %v", err)
	}
	want(t, "a plain string, written", db.HGet(ctx, "old", "data").Val(), "new")

	p := openAt[*Pubsub](t, "pubsub.redis", at(server))
	db.LPush(ctx, "list", "x")
	if _, err := s.Apply(ctx, []state.Op{{Key: "list", Value: []byte("x")}}); loam.CodeOf(err) != loam.FailedPrecondition {
		t.Errorf("written over a list: %v", err)
	}
	if _, err := s.Get(ctx, []string{"list"}); loam.CodeOf(err) != loam.FailedPrecondition {
		t.Errorf("read of a list: %v", err)
	}
	if err := p.Publish(ctx, []loam.Event{{ID: "1", Topic: "list"}}); loam.CodeOf(err) != loam.FailedPrecondition || loam.HintOf(err) == "" {
		t.Errorf("published to a list: %v", err)
	}
	for i, events := range [][]loam.Event{
		{{ID: "1", Source: "orders", Type: "t", ContentType: "application/json", Topic: "t", Data: []byte(`{"n":1}`), Metadata: map[string]string{"partitionKey": "p"}}},
		{{Topic: "t", Raw: true, Data: []byte("raw bytes")}, {Topic: "t", Raw: true, Data: []byte("more"), Metadata: map[string]string{"rawPayload": "true"}}},
	} {
		if err := p.Publish(ctx, events); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	entries := db.XRange(ctx, "t", "-", "+").Val()
	if len(entries) != 3 {
		t.Fatalf("%d entries", len(entries))
	}
	envelope := entries[0].Values["data"].(string)
	for _, part := range []string{`"specversion":"1.0"`, `"id":"1"`, `"pubsubname":"test"`, `"topic":"t"`, `"data":{"n":1}`, `"datacontenttype":"application/json"`} {
		if !strings.Contains(envelope, part) {
			t.Errorf("%s lacks %s", envelope, part)
		}
	}
	want(t, "metadata", entries[0].Values["metadata"].(string), `{"partitionKey":"p"}`)
	if !maps.Equal(entries[1].Values, map[string]any{"data": "raw bytes"}) || !maps.Equal(entries[2].Values, map[string]any{"data": "more", "metadata": `{"rawPayload":"true"}`}) {
		t.Errorf("raw: %v", entries[1:])
	}

	c := openAt[*Config](t, "config.redis", at(server, "redisDB", "3"))
	other := redis.NewClient(&redis.Options{Addr: server.Addr, DB: 3})
	defer func() { _ = other.Close() }()
	for key, value := range map[string]string{"a": "1||v7", "b": "2", "c": "||", "d": "x||5||y||z"} {
		other.Set(ctx, key, value, 0)
	}
	other.LPush(ctx, "list", "x")
	items, err := c.Get(ctx, nil)
	var got []string
	for _, it := range items {
		got = append(got, it.Key+"="+it.Value+"@"+it.Version)
	}
	if err != nil || !slices.Equal(got, []string{"a=1@v7", "b=2@2", "c=@||", "d=x@5"}) {
		t.Errorf("configuration: %q, %v", got, err)
	}
	if err := c.Set(ctx, []config.Item{{Key: "k", Value: "v", Metadata: map[string]string{"m": "1"}}}); err != nil {
		t.Fatal(err)
	}
	if text := other.Get(ctx, "k").Val(); !strings.HasPrefix(text, "v||") || !strings.HasSuffix(text, `||{"m":"1"}`) {
		t.Errorf("configuration is stored as %q", text)
	}
	if err := c.Set(ctx, []config.Item{{Key: "k", Value: "a||b"}}); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("a value with ||: %v", err)
	}

	l := openAt[*Lock](t, "lock.redis", at(server, "redisDB", "4"))
	if ok, err := l.TryLock(ctx, "res", "me", time.Minute); err != nil || !ok {
		t.Fatal(ok, err)
	}
	four := redis.NewClient(&redis.Options{Addr: server.Addr, DB: 4})
	defer func() { _ = four.Close() }()
	want(t, "a lock", four.Get(ctx, "res").Val(), "me")
	if ttl := four.PTTL(ctx, "res").Val(); ttl <= 59*time.Second || ttl > time.Minute {
		t.Errorf("a lease of %v", ttl)
	}
}

func TestStreamsAreTrimmed(t *testing.T) {
	server := redistest.Start(t)
	p := openAt[*Pubsub](t, "pubsub.redis", at(server, "maxLenApprox", "10"))
	ttl := openAt[*Pubsub](t, "pubsub.redis", at(server, "streamTTL", "1ms"))
	for i := range 1000 {
		for topic, d := range map[string]*Pubsub{"len": p, "ttl": ttl} {
			events := []loam.Event{{ID: strconv.Itoa(i), Topic: topic}, {ID: "also", Topic: topic}}
			if err := d.Publish(t.Context(), events[:1+i%2]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, topic := range []string{"len", "ttl"} {
		if n := raw(t, server).XLen(t.Context(), topic).Val(); n > 500 { // Redis cuts off whole nodes of a hundred
			t.Errorf("%s keeps %d of 1500 entries", topic, n)
		}
	}
}

// TestErrors has a server go away, hang and come back, under every component.
func TestErrors(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	quick := at(server, "readTimeout", "300ms", "dialTimeout", "1s")
	s, p := openAt[*State](t, "state.redis", quick), openAt[*Pubsub](t, "pubsub.redis", quick)
	c, l, q := openAt[*Config](t, "config.redis", quick), openAt[*Lock](t, "lock.redis", quick), openAt[*Sequence](t, "sequence.redis", quick)
	ctx := t.Context()
	calls := map[string]func(context.Context) error{
		"get":     func(ctx context.Context) error { _, err := s.GetOne(ctx, "k", state.GetOptions{}); return err },
		"bulk":    func(ctx context.Context) error { _, err := s.Get(ctx, []string{"k", "l"}); return err },
		"list":    func(ctx context.Context) error { _, err := s.List(ctx, "", "", 10); return err },
		"query":   func(ctx context.Context) error { _, err := s.Query(ctx, "", &state.Query{}); return err },
		"apply":   func(ctx context.Context) error { _, err := s.Apply(ctx, []state.Op{{Key: "k"}}); return err },
		"publish": func(ctx context.Context) error { return p.Publish(ctx, []loam.Event{{Topic: "t"}}) },
		"config":  func(ctx context.Context) error { _, err := c.Get(ctx, nil); return err },
		"set":     func(ctx context.Context) error { return c.Set(ctx, []config.Item{{Key: "c"}}) },
		"lock":    func(ctx context.Context) error { _, err := l.TryLock(ctx, "l", "me", time.Hour); return err },
		"next":    func(ctx context.Context) error { _, err := q.Next(ctx, "s", 1); return err },
	}
	each := func(what string, is func(error) bool) {
		t.Helper()
		for name, call := range calls {
			if err := call(ctx); !is(err) {
				t.Errorf("%s, %s: %v (%s)", what, name, err, loam.HintOf(err))
			}
		}
	}
	fine := func(err error) bool { return err == nil }
	gone := func(err error) bool { return loam.CodeOf(err) == loam.Unavailable && loam.HintOf(err) != "" }
	each("there", fine)
	server.Kill()
	each("gone", gone)
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls { // the library may refuse to dial for a second, after many failures
		until(t, "back, "+name, func() bool { return call(ctx) == nil })
	}
	each("back", fine) // scripts are known anew, too
	server.Signal(syscall.SIGSTOP)
	each("hung", gone)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	for name, call := range calls {
		if err := call(short); loam.CodeOf(err) != loam.DeadlineExceeded {
			t.Errorf("hung, with a deadline, %s: %v", name, err)
		}
	}
	server.Signal(syscall.SIGCONT)
	for name, call := range calls {
		until(t, "awake, "+name, func() bool { return call(ctx) == nil })
	}
	ended, end := context.WithCancel(ctx)
	end()
	for name, call := range calls {
		if err := call(ended); loam.CodeOf(err) != loam.Canceled {
			t.Errorf("canceled, %s: %v", name, err)
		}
	}
}

func TestOpen(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "sesame")
	for what, m := range map[string]map[string]string{"no password": at(server), "a wrong one": at(server, "redisPassword", "x")} {
		if _, err := Factories()[0].Open(t.Context(), "x", m); loam.CodeOf(err) != loam.FailedPrecondition || !strings.Contains(loam.HintOf(err), "redisPassword") {
			t.Errorf("%s: %v", what, err)
		}
	}
	openAt[*State](t, "state.redis", at(server, "redisPassword", "sesame"))
	server.Kill()
	if _, err := Factories()[0].Open(t.Context(), "x", at(server)); loam.CodeOf(err) != loam.Unavailable || !strings.Contains(loam.HintOf(err), server.Addr) {
		t.Errorf("nobody listens: %v, %s", err, loam.HintOf(err))
	}
}

// TestCallsShareBatches has many calls at once, and each gets its own answer.
func TestCallsShareBatches(t *testing.T) {
	server := redistest.Start(t)
	s := openAt[*State](t, "state.redis", at(server))
	var working sync.WaitGroup
	for g := range 64 {
		working.Go(func() {
			for i := range 50 {
				key := fmt.Sprintf("%d/%d", g, i%5)
				value := fmt.Sprintf("%d of %d", i, g)
				if _, err := s.Apply(t.Context(), []state.Op{{Key: key, Value: []byte(value)}}); err != nil {
					t.Error(err)
				}
				if it, err := s.GetOne(t.Context(), key, state.GetOptions{}); err != nil || string(it.Value) != value {
					t.Errorf("%s: %q, %v, want %q", key, it.Value, err, value)
				}
				if _, err := s.Apply(t.Context(), []state.Op{{Key: key, IfMatch: "1"}}); loam.CodeOf(err) != loam.Aborted { // amid others that succeed
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	info := raw(t, server).Info(t.Context(), "clients").Val()
	if !strings.Contains(info, "connected_clients:3") && !strings.Contains(info, "connected_clients:2") { // ours, at most maxFlights, and the one that asks
		t.Errorf("64 callers have taken more connections than batches under way: %s", info)
	}
}

func subscribe(t *testing.T, p *Pubsub, group string, inFlight int, h pubsub.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var ending sync.WaitGroup
	ending.Go(func() {
		if err := p.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: group, InFlight: inFlight}, h); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); ending.Wait() })
	t.Cleanup(stop)
	return stop
}

func publish(t *testing.T, p *Pubsub, n int) {
	t.Helper()
	for i := range n {
		if err := p.Publish(t.Context(), []loam.Event{{ID: strconv.Itoa(i), Topic: "t"}}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTakenOver has a consumer of another program die with messages in its hands.
func TestTakenOver(t *testing.T) {
	server := redistest.Start(t)
	p := openAt[*Pubsub](t, "pubsub.redis", at(server, "processingTimeout", "100", "redeliverInterval", "50ms"))
	db, ctx := raw(t, server), t.Context()
	publish(t, p, 10)
	db.XGroupCreate(ctx, "t", "g", "0")
	if got := db.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "g", Consumer: "daprd", Streams: []string{"t", ">"}, Count: 6}).Val(); len(got[0].Messages) != 6 {
		t.Fatal(got)
	}
	db.XDel(ctx, "t", db.XRange(ctx, "t", "-", "+").Val()[2].ID) // one of them is no more
	attempts := make(chan string, 100)
	subscribe(t, p, "g", 2, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
		attempts <- fmt.Sprint(d.Event.ID, "x", d.Attempt)
		return pubsub.Verdict{}
	})
	var got []string
	for range 9 {
		select {
		case a := <-attempts:
			got = append(got, a)
		case <-time.After(patience):
			t.Fatalf("only %q came", got)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"0x2", "1x2", "3x2", "4x2", "5x2", "6x1", "7x1", "8x1", "9x1"}) {
		t.Errorf("%q", got)
	}
	until(t, "nothing is pending", func() bool { return db.XPending(ctx, "t", "g").Val().Count == 0 })
}

// TestLongWorkIsNotTakenOver has handlers that take longer than processingTimeout, and others who wait for their messages.
func TestLongWorkIsNotTakenOver(t *testing.T) {
	server := redistest.Start(t)
	m := at(server, "processingTimeout", "2s", "redeliverInterval", "20ms")
	a, b := openAt[*Pubsub](t, "pubsub.redis", m), openAt[*Pubsub](t, "pubsub.redis", m)
	var handled atomic.Int64
	release := make(chan struct{})
	h := func(context.Context, pubsub.Delivery) pubsub.Verdict {
		handled.Add(1)
		<-release
		return pubsub.Verdict{}
	}
	subscribe(t, a, "g", 2, h)
	subscribe(t, b, "g", 2, h)
	publish(t, a, 4)
	until(t, "all are at work", func() bool { return handled.Load() == 4 })
	db, last, touched := raw(t, server), time.Duration(0), 0
	until(t, "it is said that they are being worked at", func() bool {
		for _, e := range db.XPendingExt(t.Context(), &redis.XPendingExtArgs{Stream: "t", Group: "g", Start: "-", End: "+", Count: 1}).Val() {
			if e.Idle < last {
				touched++
			}
			last = e.Idle
		}
		return touched == 4 // more time than processingTimeout
	})
	close(release)
	until(t, "nothing is pending", func() bool { return db.XPending(t.Context(), "t", "g").Val().Count == 0 })
	want(t, "handled", handled.Load(), 4)
}

// TestRedeliveryOff leaves what failed where it is.
func TestRedeliveryOff(t *testing.T) {
	server := redistest.Start(t)
	p := openAt[*Pubsub](t, "pubsub.redis", at(server, "processingTimeout", "0", "consumerID", "them"))
	ids := make(chan string, 10)
	stop := subscribe(t, p, "g", 1, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
		ids <- d.Event.ID
		return pubsub.Verdict{Retry: d.Event.ID == "0"}
	})
	publish(t, p, 3)
	for i := range 3 {
		want(t, "delivered", <-ids, strconv.Itoa(i))
	}
	stop()
	want(t, "pending", raw(t, server).XPending(t.Context(), "t", "them").Val().Count, 1)
}

// TestConcurrency bounds all subscriptions of a component together.
func TestConcurrency(t *testing.T) {
	p := openAt[*Pubsub](t, "pubsub.redis", at(redistest.Start(t), "concurrency", "2"))
	var now, most atomic.Int64
	var done atomic.Int64
	for _, group := range []string{"a", "b", "c"} {
		subscribe(t, p, group, 8, func(context.Context, pubsub.Delivery) pubsub.Verdict {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-time.After(time.Millisecond) // so that others meet it
			now.Add(-1)
			done.Add(1)
			return pubsub.Verdict{}
		})
	}
	publish(t, p, 20)
	until(t, "all came", func() bool { return done.Load() == 60 })
	want(t, "at once", most.Load(), 2)
}

// TestLostGroup has somebody empty the database under a subscription.
func TestLostGroup(t *testing.T) {
	server := redistest.Start(t)
	p := openAt[*Pubsub](t, "pubsub.redis", at(server))
	ids := make(chan string, 10)
	subscribe(t, p, "g", 1, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict { ids <- d.Event.ID; return pubsub.Verdict{} })
	publish(t, p, 1)
	<-ids
	raw(t, server).FlushAll(t.Context())
	publish(t, p, 1)
	select {
	case <-ids:
	case <-time.After(patience):
		t.Error("nothing comes any more")
	}
}

// TestWatchAfterOutage tells what changed while nobody could listen.
func TestWatchAfterOutage(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always", "--notify-keyspace-events", "AE")
	c := openAt[*Config](t, "config.redis", at(server))
	told := make(chan config.Item, 100)
	ctx, cancel := context.WithCancel(context.Background())
	var ending sync.WaitGroup
	ending.Go(func() {
		if err := c.Watch(ctx, nil, func(items []config.Item) {
			for _, it := range items {
				told <- it
			}
		}); err != nil {
			t.Error(err)
		}
	})
	defer ending.Wait()
	defer cancel()
	heard := func(key, value string) {
		t.Helper()
		for late := time.After(patience); ; {
			select {
			case it := <-told:
				if it.Key == key && it.Value == value {
					return
				}
			case <-late:
				t.Fatalf("%s=%s was not told", key, value)
			}
		}
	}
	until(t, "it listens", func() bool {
		_ = c.Set(ctx, []config.Item{{Key: "probe", Value: "x"}})
		return len(told) > 0
	})
	if flags := raw(t, server).ConfigGet(ctx, "notify-keyspace-events").Val()["notify-keyspace-events"]; !strings.Contains(flags, "E") || !strings.Contains(flags, "K") {
		t.Errorf("others' notifications are gone: %s", flags)
	}
	if err := c.Set(ctx, []config.Item{{Key: "a", Value: "1"}, {Key: "b", Value: "1"}}); err != nil {
		t.Fatal(err)
	}
	heard("a", "1")
	heard("b", "1")
	server.Kill()
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	db := raw(t, server)
	until(t, "changed behind its back", func() bool { return db.Set(ctx, "a", "2||9", 0).Err() == nil && db.Del(ctx, "b").Err() == nil })
	heard("a", "2")
	heard("b", "")
}

func TestLockIsHeldByOthers(t *testing.T) {
	server := redistest.Start(t)
	l := openAt[lock.Driver](t, "lock.redis", at(server))
	raw(t, server).Set(t.Context(), "res", "daprd's owner", time.Minute)
	if ok, err := l.TryLock(t.Context(), "res", "me", time.Minute); ok || err != nil {
		t.Errorf("taken from daprd: %t, %v", ok, err)
	}
	if err := l.Unlock(t.Context(), "res", "me"); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("unlocked from daprd: %v", err)
	}
}

func TestWeakNumbers(t *testing.T) {
	server := redistest.Start(t)
	a, b := openAt[*Sequence](t, "sequence.redis", at(server, "block", "10")), openAt[*Sequence](t, "sequence.redis", at(server, "block", "10"))
	var mu sync.Mutex
	seen := map[int64]bool{}
	var working sync.WaitGroup
	for i := range 8 {
		working.Go(func() {
			for n := range int64(100) {
				s, count := []*Sequence{a, b}[i%2], 1+n%12
				first, err := s.NextWeak(t.Context(), "k", count)
				mu.Lock()
				for x := first; x < first+count; x++ {
					if err != nil || seen[x] {
						t.Errorf("%d again, or %v", x, err)
					}
					seen[x] = true
				}
				mu.Unlock()
			}
		})
	}
	working.Wait()
	before := raw(t, server).Get(t.Context(), "k").Val()
	if _, err := a.NextWeak(t.Context(), "other", 1); err != nil {
		t.Fatal(err)
	}
	if first, err := a.NextWeak(t.Context(), "other", 9); err != nil || first != 2 {
		t.Errorf("%d, %v: not from the block", first, err)
	}
	want(t, "another sequence", raw(t, server).Get(t.Context(), "k").Val(), before)
	want(t, "one block", raw(t, server).Get(t.Context(), "other").Val(), "10")
}

// FuzzEvent reads what anybody may have put into a stream.
func FuzzEvent(f *testing.F) {
	f.Add(`{"specversion":"1.0","id":"1","data":{"a":1}}`, `{"k":"v"}`, false)
	f.Add(`raw`, `not json`, true)
	f.Fuzz(func(t *testing.T, data, metadata string, isRaw bool) {
		e := event("t", message{id: "1-0", values: map[string]any{"data": data, "metadata": metadata}}, isRaw)
		if e.Topic != "t" || isRaw && (!e.Raw || string(e.Data) != data) {
			t.Errorf("%+v", e)
		}
	})
}

// FuzzConfigValue reads what anybody may have put under a key.
func FuzzConfigValue(f *testing.F) {
	f.Add(`v||1||{"a":"b"}`)
	f.Add(`||`)
	f.Fuzz(func(t *testing.T, text string) {
		it := parse("k", text)
		if strings.Contains(it.Value, separator) || strings.Contains(it.Version, separator) || !strings.HasPrefix(text, it.Value) {
			t.Errorf("%q: %+v", text, it)
		}
	})
}
