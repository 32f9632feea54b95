package invoke

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
)

// A Resolver finds apps that another process speaks for, and tells others of ours.
type Resolver interface {
	// Resolve asks for the addresses, host:port, at which other processes speak for an app; NotFound where there is none.
	// namespace may be ignored by a Resolver that knows of none. It may block.
	Resolve(ctx context.Context, id, namespace string) ([]string, error)
	// Announce makes id known at address until ctx ends.
	Announce(ctx context.Context, id, address string) error
}

// Bounds and times of what Names remembers.
const (
	maxPlaces  = 4096
	maxAsking  = 64               // questions to the Resolver under way
	fresh      = 20 * time.Second // after which an address in use is asked for again, beside the calls
	stale      = 2 * time.Minute  // after which it is not used any more where nobody answered since
	askTimeout = 5 * time.Second
)

// Names remembers what a Resolver found. An address is used for as long as it works: it is asked for again from time to
// time, and when Failed was called; where nobody answers then, what is known stays for a while. It is safe for concurrent
// use. Close ends it, not the Resolver.
type Names struct {
	resolver Resolver
	log      *slog.Logger
	stop     context.CancelFunc
	life     context.Context
	work     sync.WaitGroup

	mu     sync.Mutex // nothing waits while it is held
	places map[app]*place
	asking int
}

type app struct{ id, namespace string }

// place is where an app is.
type place struct {
	addresses []string // never changed, but replaced
	turn      int
	found     time.Time // when the Resolver last said so
	asking    chan struct{}
	err       error // of the last question
}

// NewNames makes a Names that knows nothing yet.
func NewNames(r Resolver, log *slog.Logger) *Names {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	n := &Names{resolver: r, log: log, places: map[app]*place{}}
	n.life, n.stop = context.WithCancel(context.Background())
	return n
}

// Close ends what is asked at the moment.
func (n *Names) Close() {
	n.mu.Lock()
	n.stop()
	n.mu.Unlock()
	n.work.Wait()
}

// Known is an address of the app that is known already, each of several in its turn. It does not wait.
func (n *Names) Known(id, namespace string) (address string, ok bool) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.places[app{id, namespace}]
	if p == nil || len(p.addresses) == 0 {
		return "", false
	}
	switch age := now.Sub(p.found); {
	case age > stale:
		return "", false
	case age > fresh && p.asking == nil && n.asking < maxAsking:
		n.ask(app{strings.Clone(id), strings.Clone(namespace)}, p)
	}
	p.turn++
	return p.addresses[p.turn%len(p.addresses)], true
}

// Find is Known that asks where nothing is known, and waits for the answer until ctx ends.
func (n *Names) Find(ctx context.Context, id, namespace string) (string, error) {
	op := "invoke " + strconv.Quote(id)
	if id == "" || len(id) > maxName {
		return "", loam.Errorf(loam.InvalidArgument, op, "an app id takes 1 to %d bytes", maxName)
	}
	if address, ok := n.Known(id, namespace); ok {
		return address, nil
	}
	key := app{strings.Clone(id), strings.Clone(namespace)}
	n.mu.Lock()
	p := n.places[key]
	if p == nil {
		p = &place{}
		n.places[key] = p
	}
	var asked <-chan struct{} = p.asking
	if asked == nil {
		if n.asking >= maxAsking {
			n.mu.Unlock()
			return "", loam.Errorf(loam.ResourceExhausted, op, "%d apps are looked for already", maxAsking)
		}
		asked = n.ask(key, p)
	}
	n.mu.Unlock()
	select {
	case <-asked:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(p.addresses) == 0 || p.err != nil && time.Since(p.found) > stale {
		return "", p.err
	}
	p.turn++
	return p.addresses[p.turn%len(p.addresses)], nil
}

// ask asks the Resolver, on a goroutine of its own. What it returns is closed with the answer. It is called with mu held.
func (n *Names) ask(key app, p *place) <-chan struct{} {
	done := make(chan struct{})
	p.asking = done
	n.asking++
	if n.life.Err() != nil {
		n.answered(key, p, nil, loam.Errorf(loam.Unavailable, "invoke "+strconv.Quote(key.id), "the process ends"))
		return done
	}
	n.work.Go(func() {
		ctx, cancel := context.WithTimeout(n.life, askTimeout)
		addresses, err := n.resolver.Resolve(ctx, key.id, key.namespace)
		cancel()
		if err == nil && len(addresses) == 0 {
			err = loam.Errorf(loam.NotFound, "invoke "+strconv.Quote(key.id), "nobody speaks for it")
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.answered(key, p, addresses, err)
	})
	return done
}

// answered takes in what the Resolver said. It is called with mu held.
func (n *Names) answered(key app, p *place, addresses []string, err error) {
	n.asking--
	if p.err = err; err == nil {
		n.makeRoom(key)
		p.addresses, p.found = slices.Clone(addresses), time.Now()
	} else {
		n.log.Debug("app was not found", "app", key.id, "error", err)
		if len(p.addresses) == 0 {
			delete(n.places, key) // the next one asks again
		}
	}
	close(p.asking)
	p.asking = nil
}

// makeRoom forgets the app that was found longest ago, where there are too many. It is called with mu held.
func (n *Names) makeRoom(but app) {
	for len(n.places) > maxPlaces {
		var oldest app
		for key, p := range n.places {
			if key != but && p.asking == nil && (oldest.id == "" || p.found.Before(n.places[oldest].found)) {
				oldest = key
			}
		}
		if oldest.id == "" {
			return
		}
		delete(n.places, oldest)
	}
}

// Failed tells that nobody could be reached at an address: it is not used again before the Resolver names it again.
func (n *Names) Failed(id, namespace, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.places[app{id, namespace}]
	if p == nil {
		return
	}
	p.addresses = slices.DeleteFunc(slices.Clone(p.addresses), func(a string) bool { return a == address })
	if len(p.addresses) == 0 && p.asking == nil {
		delete(n.places, app{id, namespace})
	}
}
