// Package configtest is what every driver of the config capability must do. A component's own test calls Run.
package configtest

import (
	"context"
	"fmt"
	"maps"
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

// watching starts a Watch and waits until it is heard: by changing key probe until that is told.
func watching(t *testing.T, d config.Driver, keys ...string) <-chan config.Item {
	t.Helper()
	told := make(chan config.Item, 10_000)
	ctx, cancel := context.WithCancel(context.Background())
	var ending sync.WaitGroup
	ending.Go(func() {
		if err := d.Watch(ctx, keys, func(items []config.Item) {
			for _, it := range items {
				told <- it
			}
		}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); ending.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; {
		set(t, d, config.Item{Key: "probe", Value: "x"})
		select {
		case <-told:
			return told
		case <-time.After(10 * time.Millisecond):
			if time.Now().After(deadline) {
				t.Fatal("a watch hears nothing")
			}
		}
	}
}

func next(t *testing.T, told <-chan config.Item) config.Item {
	t.Helper()
	for {
		select {
		case it := <-told:
			if it.Key != "probe" {
				return it
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a change was not told")
		}
	}
}

func watch(t *testing.T, d config.Driver) {
	all, some := watching(t, d), watching(t, d, "a", "probe")
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
	told := watching(t, d)
	const last = 200
	for i := 1; i <= last; i++ {
		set(t, d, config.Item{Key: "n", Value: fmt.Sprint(i)})
	}
	for next(t, told).Value != fmt.Sprint(last) {
	}
}
