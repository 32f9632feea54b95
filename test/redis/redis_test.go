// Package redis holds component/redis against the components that daprd has: what one writes into a Redis, the other reads,
// and both consume one stream as one group.
package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	daprconfig "github.com/dapr/components-contrib/configuration"
	daprconfigredis "github.com/dapr/components-contrib/configuration/redis"
	daprlock "github.com/dapr/components-contrib/lock"
	daprlockredis "github.com/dapr/components-contrib/lock/redis"
	"github.com/dapr/components-contrib/metadata"
	daprpubsub "github.com/dapr/components-contrib/pubsub"
	daprpubsubredis "github.com/dapr/components-contrib/pubsub/redis"
	daprstate "github.com/dapr/components-contrib/state"
	daprstateredis "github.com/dapr/components-contrib/state/redis"
	"github.com/dapr/kit/logger"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/component/redis"
	"github.com/loam-run/loam/component/redis/redistest"
)

const patience = 30 * time.Second

// ours opens a component of Loam's.
func ours[D interface{ Close() error }](t *testing.T, typ string, m map[string]string) D {
	t.Helper()
	for _, f := range redis.Factories() {
		if f.Type == typ {
			d, err := f.Open(t.Context(), "shared", m)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := d.(D).Close(); err != nil {
					t.Error(err)
				}
			})
			return d.(D)
		}
	}
	t.Fatal("there is no type " + typ)
	panic("unreachable")
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// base is a component's metadata as daprd hands it over; it writes into the map.
func base(m map[string]string) metadata.Base {
	c := map[string]string{}
	for k, v := range m {
		c[k] = v
	}
	return metadata.Base{Name: "shared", Properties: c}
}

func TestState(t *testing.T) {
	m := map[string]string{"redisHost": redistest.Start(t).Addr}
	loams := ours[*redis.State](t, "state.redis", m)
	daprs := daprstateredis.NewRedisStateStore(logger.NewLogger("test"))
	must(t, "init", daprs.Init(t.Context(), daprstate.Metadata{Base: base(m)}))
	t.Cleanup(func() { _ = daprs.Close() })
	ctx := t.Context()
	read := func(key string) (value, etag string) {
		t.Helper()
		r, err := daprs.Get(ctx, &daprstate.GetRequest{Key: key})
		must(t, "daprd reads", err)
		it, err := loams.GetOne(ctx, key, state.GetOptions{})
		must(t, "Loam reads", err)
		if r.ETag == nil {
			if it.ETag != "" {
				t.Errorf("%s is there for Loam, and not for daprd", key)
			}
			return "", ""
		}
		if string(r.Data) != string(it.Value) || *r.ETag != it.ETag {
			t.Errorf("daprd reads %q with %s, Loam %q with %s", r.Data, *r.ETag, it.Value, it.ETag)
		}
		return string(r.Data), *r.ETag
	}
	_, err := loams.Apply(ctx, []state.Op{{Key: "app||a", Value: []byte(`{"n":1}`)}})
	must(t, "Loam writes", err)
	value, etag := read("app||a")
	if value != `{"n":1}` {
		t.Errorf("%q", value)
	}
	must(t, "daprd writes on", daprs.Set(ctx, &daprstate.SetRequest{Key: "app||a", Value: []byte("2"), ETag: &etag, Options: daprstate.SetStateOption{Concurrency: daprstate.FirstWrite}}))
	if _, err := loams.Apply(ctx, []state.Op{{Key: "app||a", Value: []byte("x"), IfMatch: etag}}); loam.CodeOf(err) != loam.Aborted {
		t.Errorf("Loam writes by an ETag that daprd has changed: %v", err)
	}
	_, etag = read("app||a")
	_, err = loams.Apply(ctx, []state.Op{{Key: "app||a", Value: []byte("3"), IfMatch: etag}})
	must(t, "Loam writes on", err)
	if err := daprs.Set(ctx, &daprstate.SetRequest{Key: "app||a", Value: []byte("x"), ETag: &etag, Options: daprstate.SetStateOption{Concurrency: daprstate.FirstWrite}}); err == nil {
		t.Error("daprd writes by an ETag that Loam has changed")
	}
	_, etag = read("app||a")
	must(t, "daprd deletes", daprs.Delete(ctx, &daprstate.DeleteRequest{Key: "app||a", ETag: &etag}))
	if _, etag := read("app||a"); etag != "" {
		t.Error("it is still there")
	}
	must(t, "daprd's transaction", daprs.(daprstate.TransactionalStore).Multi(ctx, &daprstate.TransactionalStateRequest{Operations: []daprstate.TransactionalStateOperation{
		daprstate.SetRequest{Key: "app||b", Value: []byte("1")}, daprstate.SetRequest{Key: "app||c", Value: map[string]int{"n": 2}},
	}}))
	if b, _ := read("app||b"); b != "1" {
		t.Errorf("%q", b)
	}
	if c, _ := read("app||c"); c != `{"n":2}` {
		t.Errorf("%q", c)
	}
	_, err = loams.Apply(ctx, []state.Op{{Key: "app||new", Value: []byte("1"), IfAbsent: true}})
	must(t, "Loam's first write", err)
	if err := daprs.Set(ctx, &daprstate.SetRequest{Key: "app||new", Value: []byte("2"), Options: daprstate.SetStateOption{Concurrency: daprstate.FirstWrite}}); err == nil {
		t.Error("daprd's first write succeeds after Loam's")
	}
	must(t, "daprd's first write", daprs.Set(ctx, &daprstate.SetRequest{Key: "app||new2", Value: []byte("2"), Options: daprstate.SetStateOption{Concurrency: daprstate.FirstWrite}}))
	if _, err := loams.Apply(ctx, []state.Op{{Key: "app||new2", IfAbsent: true}}); loam.CodeOf(err) != loam.AlreadyExists {
		t.Errorf("Loam's first write after daprd's: %v", err)
	}
	must(t, "daprd's TTL", daprs.Set(ctx, &daprstate.SetRequest{Key: "app||ttl", Value: []byte("1"), Metadata: map[string]string{"ttlInSeconds": "100"}}))
	if it, err := loams.GetOne(ctx, "app||ttl", state.GetOptions{}); err != nil || time.Until(it.Expires) < 90*time.Second || time.Until(it.Expires) > 100*time.Second {
		t.Errorf("daprd's TTL: %+v, %v", it, err)
	}
}

// TestPubsub has both publish, and both consume as one group.
func TestPubsub(t *testing.T) {
	m := map[string]string{"redisHost": redistest.Start(t).Addr, "consumerID": "app"}
	loams := ours[*redis.Pubsub](t, "pubsub.redis", m)
	daprs := daprpubsubredis.NewRedisStreams(logger.NewLogger("test"))
	must(t, "init", daprs.Init(t.Context(), daprpubsub.Metadata{Base: base(m)}))
	t.Cleanup(func() { _ = daprs.Close() })
	var mu sync.Mutex
	got := map[string][2]int{} // how often an event came to daprd, and to Loam
	note := func(id string, who int) {
		mu.Lock()
		defer mu.Unlock()
		n := got[id]
		n[who]++
		got[id] = n
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ending sync.WaitGroup
	defer ending.Wait()
	defer cancel()
	must(t, "daprd subscribes", daprs.Subscribe(ctx, daprpubsub.SubscribeRequest{Topic: "t"}, func(_ context.Context, msg *daprpubsub.NewMessage) error {
		var e map[string]any
		if err := json.Unmarshal(msg.Data, &e); err != nil {
			t.Errorf("daprd reads %q: %v", msg.Data, err)
			return nil
		}
		if id := e["id"].(string); strings.HasPrefix(id, "loam") && (e["specversion"] != "1.0" || e["type"] != "y" || e["data"].(map[string]any)["n"] != 1.0 || e["traceparent"] != "00-1") {
			t.Errorf("daprd reads %v", e)
		}
		note(e["id"].(string), 0)
		return nil
	}))
	ending.Go(func() {
		if err := loams.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "app", InFlight: 4}, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
			e := d.Event
			if strings.HasPrefix(e.ID, "dapr") && (e.Raw || e.Type != "com.dapr.event.sent" || string(e.Data) != `{"n":1}` || e.ContentType != "application/json" || e.Source != "app" ||
				e.Attributes["traceid"] != "00-2" || e.Metadata["partitionKey"] != "p") {
				t.Errorf("Loam reads %+v", e)
			}
			note(e.ID, 1)
			return pubsub.Verdict{}
		}); err != nil {
			t.Error(err)
		}
	})
	const each = 300
	for i := range each {
		must(t, "Loam publishes", loams.Publish(ctx, []loam.Event{{
			ID: fmt.Sprintf("loam-%d", i), Source: "app", Type: "y", ContentType: "application/json", Topic: "t", Data: []byte(`{"n":1}`), Attributes: map[string]string{"traceparent": "00-1"},
		}}))
		envelope := daprpubsub.NewCloudEventsEnvelope(fmt.Sprintf("dapr-%d", i), "app", "", "", "t", "shared", "application/json", []byte(`{"n":1}`), "00-2", "")
		data, err := json.Marshal(envelope)
		must(t, "envelope", err)
		must(t, "daprd publishes", daprs.Publish(ctx, &daprpubsub.PublishRequest{Topic: "t", PubsubName: "shared", Data: data, Metadata: map[string]string{"partitionKey": "p"}}))
	}
	for deadline := time.Now().Add(patience); ; {
		mu.Lock()
		n := len(got)
		mu.Unlock()
		if n == 2*each {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d events came", n, 2*each)
		}
		time.Sleep(5 * time.Millisecond)
	}
	mu.Lock()
	defer mu.Unlock()
	var all [2]int
	for id, n := range got {
		if n[0]+n[1] != 1 {
			t.Errorf("%s came %d times", id, n[0]+n[1])
		}
		all[0] += n[0]
		all[1] += n[1]
	}
	if all[0] == 0 || all[1] == 0 {
		t.Errorf("daprd got %d events and Loam %d: they do not share", all[0], all[1])
	}
}

func TestConfiguration(t *testing.T) {
	m := map[string]string{"redisHost": redistest.Start(t).Addr}
	loams := ours[*redis.Config](t, "config.redis", m)
	daprs := daprconfigredis.NewRedisConfigurationStore(logger.NewLogger("test"))
	must(t, "init", daprs.Init(t.Context(), daprconfig.Metadata{Base: base(m)}))
	t.Cleanup(func() { _ = daprs.(interface{ Close() error }).Close() })
	told := make(chan *daprconfig.Item, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := daprs.Subscribe(ctx, &daprconfig.SubscribeRequest{Keys: []string{"k"}}, func(_ context.Context, e *daprconfig.UpdateEvent) error {
		told <- e.Items["k"]
		return nil
	})
	must(t, "daprd subscribes", err)
	for deadline := time.Now().Add(patience); ; { // it does not say when it listens
		must(t, "Loam sets", loams.Set(ctx, []config.Item{{Key: "k", Value: "v", Metadata: map[string]string{"a": "b"}}}))
		select {
		case it := <-told:
			if it.Value != "v" || it.Version == "" {
				t.Errorf("daprd is told %+v", it)
			}
		case <-time.After(10 * time.Millisecond):
			if time.Now().After(deadline) {
				t.Fatal("daprd is told nothing")
			}
			continue
		}
		break
	}
	r, err := daprs.Get(ctx, &daprconfig.GetRequest{Keys: []string{"k"}})
	must(t, "daprd reads", err)
	items, err := loams.Get(ctx, []string{"k"})
	must(t, "Loam reads", err)
	if it := r.Items["k"]; it.Value != items[0].Value || it.Version != items[0].Version || items[0].Metadata["a"] != "b" {
		t.Errorf("daprd reads %+v, Loam %+v", it, items[0])
	}
}

func TestLock(t *testing.T) {
	m := map[string]string{"redisHost": redistest.Start(t).Addr}
	loams := ours[lock.Driver](t, "lock.redis", m)
	daprs := daprlockredis.NewStandaloneRedisLock(logger.NewLogger("test"))
	ctx := t.Context()
	must(t, "init", daprs.InitLockStore(ctx, daprlock.Metadata{Base: base(m)}))
	t.Cleanup(func() { _ = daprs.(interface{ Close() error }).Close() })
	r, err := daprs.TryLock(ctx, &daprlock.TryLockRequest{ResourceID: "r", LockOwner: "dapr", ExpiryInSeconds: 60})
	must(t, "daprd locks", err)
	if !r.Success {
		t.Error("daprd does not get it")
	}
	if ok, err := loams.TryLock(ctx, "r", "loam", time.Minute); ok || err != nil {
		t.Errorf("Loam takes what daprd holds: %v", err)
	}
	must(t, "Loam gives back what daprd's owner holds", loams.Unlock(ctx, "r", "dapr"))
	if ok, err := loams.TryLock(ctx, "r", "loam", time.Minute); !ok || err != nil {
		t.Errorf("Loam does not get it: %v", err)
	}
	u, err := daprs.Unlock(ctx, &daprlock.UnlockRequest{ResourceID: "r", LockOwner: "dapr"})
	must(t, "daprd unlocks", err)
	if u.Status != daprlock.LockBelongsToOthers {
		t.Errorf("daprd unlocks what Loam holds: %v", u.Status)
	}
}
