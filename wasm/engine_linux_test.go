package wasm

import (
	"context"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
)

// A function that is loaded by its first requests does not block the loop that they run on.
func TestLoadOnEngine(t *testing.T) {
	h := newHost(t, Options{})
	compile(t, guestModule, Config{}) // so that the cache knows it
	m, err := h.Compile(t.Context(), "orders", guestModule, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(context.Background())
	if m.State().Loaded {
		t.Fatal("it is loaded already")
	}
	e, err := loop.Coroutines(loop.Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const many = 50
	results := make(chan string, many)
	for range many {
		e.Go(func(task loam.Task) {
			_, body, err := onTask(task, m, "GET", "/hello/you", "", nil)
			if err != nil {
				t.Error(err)
			}
			results <- body
		})
	}
	for range many {
		if body := <-results; body != "hello you" {
			t.Errorf("%q", body)
		}
	}
	if n := m.stats.Loaded.Load(); n != 1 {
		t.Errorf("loaded %d times", n)
	}
}
