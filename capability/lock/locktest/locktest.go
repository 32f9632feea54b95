// Package locktest is what every driver of the lock capability must do. A component's own test calls Run.
package locktest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/lock"
)

// Run tests the drivers that open returns: each call one with no locks held. The driver's clock must be time.Now's.
func Run(t *testing.T, open func(t *testing.T) lock.Driver) {
	t.Run("one owner", func(t *testing.T) { oneOwner(t, open(t)) })
	t.Run("a lease ends", func(t *testing.T) { aLeaseEnds(t, open(t)) })
	t.Run("one of many", func(t *testing.T) { oneOfMany(t, open(t)) })
}

func try(t *testing.T, d lock.Driver, name, owner string, ttl time.Duration, want bool) {
	t.Helper()
	if got, err := d.TryLock(t.Context(), name, owner, ttl); err != nil || got != want {
		t.Errorf("TryLock(%s, %s) = %t, %v; want %t", name, owner, got, err, want)
	}
}

func oneOwner(t *testing.T, d lock.Driver) {
	ctx := t.Context()
	want := func(what string, err error, code loam.Code) {
		t.Helper()
		if loam.CodeOf(err) != code {
			t.Errorf("%s: %v, want %v", what, err, code)
		}
	}
	want("unlock what nobody holds", d.Unlock(ctx, "l", "a"), loam.NotFound)
	want("renew what nobody holds", d.Renew(ctx, "l", "a", time.Hour), loam.NotFound)
	try(t, d, "l", "a", time.Hour, true)
	try(t, d, "l", "b", time.Hour, false)
	try(t, d, "l", "a", time.Hour, true)
	try(t, d, "other", "b", time.Hour, true)
	want("unlock another's", d.Unlock(ctx, "l", "b"), loam.PermissionDenied)
	want("renew another's", d.Renew(ctx, "l", "b", time.Hour), loam.PermissionDenied)
	want("renew one's own", d.Renew(ctx, "l", "a", time.Hour), loam.OK)
	want("unlock one's own", d.Unlock(ctx, "l", "a"), loam.OK)
	try(t, d, "l", "b", time.Hour, true)
}

func aLeaseEnds(t *testing.T, d lock.Driver) {
	try(t, d, "l", "a", 30*time.Millisecond, true)
	deadline := time.Now().Add(10 * time.Second)
	for {
		got, err := d.TryLock(t.Context(), "l", "b", time.Hour)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the lease does not end: %v", err)
		}
		if got {
			break
		}
	}
	if err := d.Renew(t.Context(), "l", "a", time.Hour); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("renew a lease that ended: %v", err)
	}
}

func oneOfMany(t *testing.T, d lock.Driver) {
	var got atomic.Int64
	var trying sync.WaitGroup
	for i := range 16 {
		trying.Go(func() {
			ok, err := d.TryLock(t.Context(), "l", string(rune('a'+i)), time.Hour)
			if err != nil {
				t.Error(err)
			}
			if ok {
				got.Add(1)
			}
		})
	}
	if trying.Wait(); got.Load() != 1 {
		t.Errorf("%d owners hold it", got.Load())
	}
}
