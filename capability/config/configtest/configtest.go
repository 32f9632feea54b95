// Package configtest is what every driver of the config capability must do. A component's own test calls Run.
package configtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam/capability/config"
)

// Run tests the drivers that open returns: each call an empty one.
func Run(t *testing.T, open func(t *testing.T) config.Driver) {
	t.Run("get, set, delete", func(t *testing.T) { getSetDelete(t, open(t)) })
	t.Run("watch", func(t *testing.T) { watch(t, open(t)) })
	t.Run("the last is never lost", func(t *testing.T) { theLastIsNeverLost(t, open(t)) })
}

func set(t *testing.T, d config.Driver, items ...config.Item) {
	t.Helper()
	if err := d.Set(t.Context(), items); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, d config.Driver, keys ...string) string {
	t.Helper()
	items, err := d.Get(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	return say(items)
}

func say(items []config.Item) string {
	var b strings.Builder
	for _, it := range items {
		fmt.Fprintf(&b, "%s=%s ", it.Key, it.Value)
	}
	return b.String()
}

func getSetDelete(t *testing.T, d config.Driver) {
	set(t, d, config.Item{Key: "b", Value: "2"}, config.Item{Key: "a", Value: "1", Metadata: map[string]string{"who": "me"}})
	set(t, d, config.Item{Key: "c", Value: "3"})
	for want, keys := range map[string][]string{"a=1 b=2 c=3 ": nil, "a=1 c=3 ": {"c", "nothing", "a"}, "": {"nothing"}} {
		if got := get(t, d, keys...); got != want {
			t.Errorf("Get(%q) = %q, want %q", keys, got, want)
		}
	}
	before, err := d.Get(t.Context(), []string{"a"})
	if err != nil || before[0].Version == "" || !maps.Equal(before[0].Metadata, map[string]string{"who": "me"}) {
		t.Fatalf("%+v, %v", before, err)
	}
	set(t, d, config.Item{Key: "a", Value: "1"})
	after, err := d.Get(t.Context(), []string{"a"})
	if err != nil || after[0].Version == before[0].Version || len(after[0].Metadata) != 0 {
		t.Errorf("written again: %+v, %v", after, err)
	}
	if err := d.Delete(t.Context(), []string{"a", "nothing"}); err != nil {
		t.Error(err)
	}
	if got := get(t, d); got != "b=2 c=3 " {
		t.Errorf("after the delete: %q", got)
	}
}

// watching starts a Watch and returns once it told what was there, and what that was.
func watching(t *testing.T, d config.Driver, keys ...string) (told <-chan config.Item, there []config.Item) {
	t.Helper()
	items, first := make(chan config.Item, 10_000), make(chan []config.Item, 1)
	ctx, cancel := context.WithCancel(context.Background())
	var ending sync.WaitGroup
	ending.Go(func() {
		began := false
		if err := d.Watch(ctx, keys, func(changed []config.Item) {
			if !began {
				began = true
				first <- slices.Clone(changed)
				return
			}
			for _, it := range changed {
				items <- it
			}
		}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); ending.Wait() })
	select {
	case there = <-first:
	case <-time.After(20 * time.Second):
		t.Fatal("a watch does not begin with what is there")
	}
	return items, there
}

func next(t *testing.T, told <-chan config.Item) config.Item {
	t.Helper()
	select {
	case it := <-told:
		return it
	case <-time.After(20 * time.Second):
		t.Fatal("a change was not told")
	}
	panic("unreachable")
}

func watch(t *testing.T, d config.Driver) {
	none, there := watching(t, d)
	if len(there) != 0 {
		t.Errorf("of nothing, %+v is told", there)
	}
	set(t, d, config.Item{Key: "a", Value: "0"}, config.Item{Key: "z", Value: "0"})
	if got := []string{next(t, none).Key, next(t, none).Key}; !slices.Contains(got, "a") || !slices.Contains(got, "z") {
		t.Errorf("told %q", got)
	}
	all, there := watching(t, d)
	if say(there) != "a=0 z=0 " || there[0].Version == "" {
		t.Errorf("it begins with %+v", there)
	}
	some, there := watching(t, d, "a", "c")
	if say(there) != "a=0 " {
		t.Errorf("it begins with %+v", there)
	}
	set(t, d, config.Item{Key: "b", Value: "1"})
	if it := next(t, all); it.Key != "b" || it.Value != "1" || it.Version == "" {
		t.Errorf("told %+v", it)
	}
	set(t, d, config.Item{Key: "a", Value: "2"})
	if it := next(t, some); it.Key != "a" || it.Value != "2" {
		t.Errorf("told %+v", it)
	}
	if err := d.Delete(t.Context(), []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if it := next(t, some); it.Key != "a" || it.Version != "" {
		t.Errorf("a delete is told as %+v", it)
	}
}

func theLastIsNeverLost(t *testing.T, d config.Driver) {
	told, _ := watching(t, d)
	const last = 200
	for i := 1; i <= last; i++ {
		set(t, d, config.Item{Key: "n", Value: fmt.Sprint(i)})
	}
	for next(t, told).Value != fmt.Sprint(last) {
	}
}
