package config

import (
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/loam-run/loam"
)

// MaxSubscriptions is how many a program has at once.
const MaxSubscriptions = 1000

// Subscriptions are the watches of one program by their ids, as dialects have them. They outlive components: where a
// watch breaks off (the component was opened anew, its server is gone), it begins again, and what changed meanwhile is
// told.
type Subscriptions struct {
	find func(component string) (*Config, error)
	log  *slog.Logger

	mu     sync.Mutex
	closed bool
	active map[string]*subscription
	ended  sync.WaitGroup
}

// subscription is one of them.
type subscription struct {
	component string
	caller    *loam.Caller
	keys      []string
	told      map[string]said // by key, what the program knows
	end       context.CancelFunc
}

// said is what a program was told of a key. A version alone does not do: who writes into a store by other means may leave it
// as it was.
type said struct{ version, value string }

// NewSubscriptions makes a program's subscriptions, of components that find finds.
func NewSubscriptions(find func(component string) (*Config, error), log *slog.Logger) *Subscriptions {
	return &Subscriptions{find: find, log: log, active: map[string]*subscription{}}
}

// Add begins to call changed with each change of keys, of all that the caller may read where there are none, and returns
// the subscription's id, which changed is called with too. changed is called by one goroutine at a time; a deleted key
// comes with an empty Version. It is not called with what is there already: Get tells that.
func (s *Subscriptions) Add(ctx context.Context, component string, caller *loam.Caller, keys []string, changed func(id string, items []Item)) (id string, err error) {
	c, err := s.find(component)
	if err != nil {
		return "", err
	}
	items, err := c.Get(ctx, caller, keys)
	if err != nil {
		return "", err
	}
	sub := &subscription{component: component, caller: caller, keys: slices.Clone(keys), told: map[string]said{}}
	for _, it := range items {
		sub.told[it.Key] = said{it.Version, it.Value}
	}
	id = rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return "", loam.Errorf(loam.Unavailable, "config.Subscribe", "the program's API is closed")
	case len(s.active) >= MaxSubscriptions:
		return "", loam.Errorf(loam.ResourceExhausted, "config.Subscribe", "%d subscriptions: no more at once", MaxSubscriptions)
	}
	life, end := context.WithCancel(context.Background())
	sub.end = end
	s.active[id] = sub
	s.ended.Go(func() { s.run(life, sub, func(items []Item) { changed(id, items) }) })
	return id, nil
}

// Remove ends a subscription. NotFound: there is none of that id with that component.
func (s *Subscriptions) Remove(component, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.active[id]
	if sub == nil || sub.component != component {
		return loam.Errorf(loam.NotFound, "config.Unsubscribe "+strconv.Quote(id), "there is no such subscription")
	}
	sub.end()
	delete(s.active, id)
	return nil
}

// Close ends all of them, and returns once none calls its func any more.
func (s *Subscriptions) Close() {
	s.mu.Lock()
	s.closed = true
	for id, sub := range s.active {
		sub.end()
		delete(s.active, id)
	}
	s.mu.Unlock()
	s.ended.Wait()
}

// run watches, again and again, until ctx ends.
func (s *Subscriptions) run(ctx context.Context, sub *subscription, changed func([]Item)) {
	defer sub.end()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		began := time.Now()
		c, err := s.find(sub.component)
		if err == nil {
			err = sub.watch(ctx, c, changed)
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			wait = 100 * time.Millisecond
		}
		s.log.Warn("watch of configuration broke off", "component", sub.component, "error", err, "again", wait)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// watch is one watch. It begins with what is there, of which what is not known yet is news.
func (sub *subscription) watch(ctx context.Context, c *Config, changed func([]Item)) error {
	first := true
	return c.Watch(ctx, sub.caller, sub.keys, func(items []Item) {
		var news []Item
		if first {
			first = false
			for _, key := range slices.Sorted(maps.Keys(sub.told)) {
				if !slices.ContainsFunc(items, func(it Item) bool { return it.Key == key }) {
					news = append(news, Item{Key: key})
				}
			}
		}
		for _, it := range items {
			if sub.told[it.Key] != (said{it.Version, it.Value}) {
				news = append(news, it)
			}
		}
		for _, it := range news {
			if sub.told[it.Key] = (said{it.Version, it.Value}); it.Version == "" {
				delete(sub.told, it.Key)
			}
		}
		if len(news) > 0 && ctx.Err() == nil {
			changed(news)
		}
	})
}
