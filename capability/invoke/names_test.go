package invoke_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/invoke"
)

// book is a Resolver whose answers a test writes.
type book struct {
	mu    sync.Mutex
	apps  map[string][]string
	asked map[string]int
	slow  time.Duration
	told  []string
}

func (b *book) Resolve(ctx context.Context, id, namespace string) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked == nil {
		b.asked = map[string]int{}
	}
	b.asked[id]++
	if b.slow > 0 {
		b.mu.Unlock()
		select {
		case <-time.After(b.slow):
		case <-ctx.Done():
		}
		b.mu.Lock()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if a := b.apps[id]; a != nil {
		return a, nil
	}
	return nil, loam.Errorf(loam.NotFound, "book", "no %s", id)
}

func (b *book) Announce(_ context.Context, id, address string) error {
	b.told = append(b.told, id+" "+address)
	return nil
}

func (b *book) set(id string, addresses ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.apps[id] = addresses
}

func (b *book) times(id string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[id]
}

func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{apps: map[string][]string{"orders": {"a:1", "b:2"}}}
		n := invoke.NewNames(b, nil)
		defer n.Close()
		find := func(id string) string {
			t.Helper()
			a, err := n.Find(t.Context(), id, "default")
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		if _, ok := n.Known("orders", "default"); ok {
			t.Error("known before it was asked for")
		}
		got := []string{find("orders"), find("orders"), find("orders")}
		if got[0] == got[1] || got[0] != got[2] || b.times("orders") != 1 {
			t.Errorf("%v, asked %d times", got, b.times("orders"))
		}
		// It is asked for again beside the calls.
		b.set("orders", "c:3")
		<-time.After(21 * time.Second) // by synctest's clock
		find("orders")
		synctest.Wait()
		if a := find("orders"); a != "c:3" || b.times("orders") != 2 {
			t.Errorf("%s, asked %d times", a, b.times("orders"))
		}
		// Where nobody answers, what is known stays, for two minutes.
		b.set("orders")
		b.apps["orders"] = nil
		for range 5 {
			<-time.After(21 * time.Second) // by synctest's clock
			if a := find("orders"); a != "c:3" {
				t.Error(a)
			}
			synctest.Wait()
		}
		<-time.After(21 * time.Second) // by synctest's clock
		if a, err := n.Find(t.Context(), "orders", "default"); loam.CodeOf(err) != loam.NotFound {
			t.Error(a, err)
		}
		// One that failed is not used again before it is found again.
		b.set("stock", "a:1", "b:2")
		find("stock")
		n.Failed("stock", "default", "a:1")
		if first, second := find("stock"), find("stock"); first != "b:2" || second != "b:2" {
			t.Error("an address that failed was used")
		}
		n.Failed("stock", "default", "b:2")
		find("stock")
		if b.times("stock") != 2 {
			t.Errorf("asked %d times", b.times("stock"))
		}
	})
}

func TestNamesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{apps: map[string][]string{"orders": {"a:1"}}, slow: time.Second}
		n := invoke.NewNames(b, nil)
		defer n.Close()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if a, err := n.Find(t.Context(), "orders", ""); err != nil || a != "a:1" {
					t.Error(a, err)
				}
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := n.Find(ctx, "orders", ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		all.Wait()
		if b.times("orders") != 1 {
			t.Errorf("asked %d times", b.times("orders"))
		}
		// A hundred that nobody has: so many at once are looked for, the rest is told so.
		refused := make(chan error, 100)
		for i := range 100 {
			all.Go(func() {
				_, err := n.Find(t.Context(), fmt.Sprint("none", i), "")
				refused <- err
			})
		}
		all.Wait()
		close(refused)
		count := map[loam.Code]int{}
		for err := range refused {
			count[loam.CodeOf(err)]++
		}
		if count[loam.NotFound] != 64 || count[loam.ResourceExhausted] != 36 {
			t.Error(count)
		}
		if _, err := n.Find(t.Context(), "", ""); loam.CodeOf(err) != loam.InvalidArgument {
			t.Error(err)
		}
	})
}

func TestNamesClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := invoke.NewNames(&book{slow: time.Hour}, nil)
		done := make(chan error)
		go func() {
			_, err := n.Find(t.Context(), "orders", "")
			done <- err
		}()
		synctest.Wait()
		n.Close()
		if err := <-done; loam.CodeOf(err) != loam.Canceled {
			t.Error(err)
		}
		if _, err := n.Find(t.Context(), "orders", ""); loam.CodeOf(err) != loam.Unavailable {
			t.Error(err)
		}
	})
}
