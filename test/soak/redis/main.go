// Command redis kills redis-server again and again, with kill -9, while components of component/redis write to it, publish
// and are delivered to, and counts what is there afterwards. The server writes everything to disk before it answers
// (appendfsync always), so
//
//   - every acknowledged write is there, with the value that was written,
//   - no transaction is half there,
//   - every acknowledged event is delivered at least once, and so is that of every transaction that is there, and no other,
//   - while the server is gone, calls fail with Unavailable and a hint,
//   - once it is back, every component serves again, without being opened anew.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/sequence"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/component/redis"
	"github.com/loam-run/loam/component/redis/redistest"
	"github.com/loam-run/loam/loop"
)

func main() {
	kills := flag.Int("kills", 20, "how often to kill the server")
	up := flag.Duration("up", 2*time.Second, "how long it is up in between, at most")
	down := flag.Duration("down", time.Second, "how long it is gone, at most")
	flag.Parse()
	if err := soak(*kills, *up, *down); err != nil {
		fmt.Fprintln(os.Stderr, "soak-redis: FAILED:", err)
		os.Exit(1)
	}
}

const (
	writers = 8 // goroutines of each kind
	topic   = "events"
)

// load is what goes on while the server is killed.
type load struct {
	state    state.Driver
	pubsub   pubsub.Driver
	lock     lock.Driver
	sequence sequence.Driver
	close    func() error
	engine   loop.Engine // whose tasks write

	mu     sync.Mutex
	acked  map[string]bool // ids of writes, transactions and events that were acknowledged
	tried  map[string]bool // ids that were begun and failed: they may be there or not
	got    map[string]int
	wrong  []string
	errors map[string]int // by code
	last   int64          // number of the sequence

	oks [4]atomic.Int64 // by kind, for recovery
}

const (
	writes = iota
	transactions
	events
	numbers
)

var kinds = [...]string{writes: "write", transactions: "tx", events: "event", numbers: "number"}

// open opens a component of each capability, as the process does.
func open(addr string) (*load, error) {
	l := &load{engine: loop.New(loop.Options{}), acked: map[string]bool{}, tried: map[string]bool{}, got: map[string]int{}, errors: map[string]int{}}
	var closers []func() error
	for _, f := range redis.Factories() {
		own := map[string]string{"redisHost": addr}
		if f.Capability() == "pubsub" {
			own["processingTimeout"], own["redeliverInterval"] = "3s", "500ms"
		}
		if f.Capability() == "config" {
			continue
		}
		d, err := f.Open(context.Background(), "soak", own)
		if err != nil {
			return nil, err
		}
		switch d := d.(type) {
		case *redis.State:
			l.state, closers = d, append(closers, d.Close)
		case *redis.Pubsub:
			l.pubsub, closers = d, append(closers, d.Close)
		case *redis.Lock:
			l.lock, closers = d, append(closers, d.Close)
		case *redis.Sequence:
			l.sequence, closers = d, append(closers, d.Close)
		}
	}
	l.close = func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(append(errs, l.engine.Close())...)
	}
	return l, nil
}

// inTask calls the state driver as requests do: in a task of an event loop.
func (l *load) inTask(call func(d state.Driver) error) (err error) {
	done := make(chan struct{})
	l.engine.Go(func(t loam.Task) {
		defer close(done)
		if d := l.state.(state.Tasked).In(t); d != nil {
			err = call(d)
			return
		}
		t.Await(func() { err = call(l.state) })
	})
	<-done
	return err
}

func (l *load) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) < 20 {
		l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	}
}

// note takes note of how a call ended.
func (l *load) note(kind int, id string, err error) {
	if err == nil {
		l.oks[kind].Add(1)
	} else if code := loam.CodeOf(err); code != loam.Unavailable || loam.HintOf(err) == "" {
		l.complain("%s failed with %v (hint %q), and not with unavailable", id, err, loam.HintOf(err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errors[loam.CodeOf(err).String()]++
		l.tried[id] = true
		return
	}
	l.acked[id] = true
}

// run goes on until ctx ends, and returns when all calls have.
func (l *load) run(ctx context.Context) {
	var working sync.WaitGroup
	repeat := func(kind int, do func(id string) error) {
		for g := range writers {
			working.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					id := fmt.Sprintf("%s-%d-%06d", kinds[kind], g, n)
					err := do(id)
					if l.note(kind, id, err); err != nil {
						time.Sleep(5 * time.Millisecond) // as a client would
					}
				}
			})
		}
	}
	whole := context.Background() // what is begun is done
	repeat(writes, func(id string) error {
		return l.inTask(func(d state.Driver) error {
			_, err := d.Apply(whole, []state.Op{{Key: id, Value: []byte("value of " + id)}})
			if err == nil && rand.IntN(4) == 0 {
				items, err := d.Get(whole, []string{id})
				if err == nil && string(items[0].Value) != "value of "+id {
					l.complain("%s holds %q right after it was written", id, items[0].Value)
				}
			}
			return err
		})
	})
	repeat(transactions, func(id string) error {
		ops := []state.Op{{Key: id + "/a", Value: []byte(id), IfAbsent: true}, {Key: id + "/b", Value: []byte(id)}, {Key: id + "/c", Value: []byte(id)}}
		_, err := l.state.(state.Outbox).ApplyAndPublish(whole, ops, l.pubsub, []loam.Event{{ID: id, Topic: topic, Time: time.Now()}})
		return err
	})
	repeat(events, func(id string) error {
		return l.pubsub.Publish(whole, []loam.Event{{ID: id, Topic: topic, Time: time.Now()}})
	})
	working.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			first, err := l.sequence.Next(whole, "numbers", 3)
			if l.note(numbers, fmt.Sprintf("number-%d", n), err); err == nil {
				if first <= l.last {
					l.complain("the number %d came after %d", first, l.last)
				}
				l.last = first + 2
			}
			_, _ = l.lock.TryLock(whole, "lock", "me", time.Minute) // for its connection
			time.Sleep(time.Millisecond)
		}
	})
	working.Go(func() { l.consume(ctx) })
	working.Wait()
}

// consume is delivered to, and fails now and then.
func (l *load) consume(ctx context.Context) {
	err := l.pubsub.Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: "soak", InFlight: 64}, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.got[d.Event.ID]++; d.Attempt == 1 && rand.IntN(50) == 0 {
			return pubsub.Verdict{Retry: true, After: 10 * time.Millisecond} // so that retries are under way when the end comes
		}
		return pubsub.Verdict{}
	})
	if err != nil {
		l.complain("the subscription ended: %v", err)
	}
}

func soak(kills int, up, down time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "soak-redis-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := redistest.Run(dir, "--appendonly", "yes", "--appendfsync", "always")
	if err != nil {
		return err
	}
	defer func() { server.Kill() }()
	l, err := open(server.Addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { l.run(ctx) })
	started := time.Now()
	var slowest time.Duration
	for range kills {
		time.Sleep(rand.N(up))
		server.Kill()
		time.Sleep(rand.N(down))
		if err := server.Restart(); err != nil {
			return err
		}
		took, err := l.recovered()
		if err != nil {
			return err
		}
		slowest = max(slowest, took)
	}
	time.Sleep(up / 2)
	cancel()
	running.Wait()
	return l.check(kills, time.Since(started), slowest)
}

// recovered waits until every kind of call has succeeded again.
func (l *load) recovered() (time.Duration, error) {
	start := time.Now()
	var before [len(kinds)]int64
	for k := range kinds {
		before[k] = l.oks[k].Load()
	}
	for k := range kinds {
		for l.oks[k].Load() == before[k] {
			if time.Since(start) > 30*time.Second {
				return 0, fmt.Errorf("no %s within 30 s after the server is back", kinds[k])
			}
			time.Sleep(time.Millisecond)
		}
	}
	return time.Since(start), nil
}

func (l *load) check(kills int, took, slowest time.Duration) error {
	there := map[string]string{}
	for after := ""; ; {
		items, err := l.state.(state.Lister).List(context.Background(), "", after, 20_000)
		if err != nil {
			return err
		}
		for _, it := range items {
			there[it.Key], after = string(it.Value), it.Key
		}
		if len(items) < 20_000 {
			break
		}
	}
	counts, wanted := map[string]int{}, map[string]bool{}
	for id := range l.acked {
		kind, _, _ := strings.Cut(id, "-")
		switch counts[kind]++; kind {
		case "write":
			if there[id] != "value of "+id {
				l.complain("%s was acknowledged and holds %q", id, there[id])
			}
		case "tx":
			if there[id+"/a"] == "" {
				l.complain("%s was acknowledged and is not there", id)
			}
		case "event":
			wanted[id] = true
		}
	}
	parts := map[string]int{}
	for key, value := range there {
		if id, part, ok := strings.Cut(key, "/"); ok {
			parts[id]++
			wanted[id] = true
			if value != id {
				l.complain("%s/%s holds %q", id, part, value)
			}
		}
	}
	for id, n := range parts {
		if n != 3 {
			l.complain("transaction %s is there with %d parts of 3", id, n)
		}
	}
	if missing := l.drain(wanted); missing > 0 {
		l.complain("%d of %d events that are to be delivered were not", missing, len(wanted))
	}
	twice := 0
	for id, times := range l.got {
		if times > 1 {
			twice++
		}
		if strings.HasPrefix(id, "tx") && parts[id] == 0 {
			l.complain("%s was delivered, and its transaction is not there", id)
		}
	}
	fmt.Printf("%d kills in %s: %d writes, %d transactions, %d events and %d numbers acknowledged; %d calls failed %v; %d events delivered, %d of them more than once; every kind of call went through at most %s after the server was back\n",
		kills, took.Round(time.Second), counts["write"], counts["tx"], counts["event"], counts["number"], len(l.tried), l.errors, len(l.got), twice, slowest.Round(time.Millisecond))
	if len(l.wrong) > 0 {
		return fmt.Errorf("something is wrong:\n%s", strings.Join(l.wrong, "\n"))
	}
	if len(l.tried) < kills {
		return fmt.Errorf("only %d calls failed in %d outages: nothing was under way", len(l.tried), kills)
	}
	fmt.Println("soak-redis: ok: all that was acknowledged is there, no transaction is half there, every event was delivered")
	return nil
}

// drain consumes until every wanted event was delivered, and tells how many were not within a minute.
func (l *load) drain(wanted map[string]bool) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	missing := func() (n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for id := range wanted {
			if l.got[id] == 0 {
				n++
			}
		}
		return n
	}
	if missing() > 0 {
		go func() {
			for missing() > 0 && ctx.Err() == nil {
				time.Sleep(100 * time.Millisecond)
			}
			cancel()
		}()
		l.consume(ctx)
	}
	return missing()
}
