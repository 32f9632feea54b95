package memory

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/state"
)

// BenchmarkGet is a read as a dialect makes it, from as many goroutines as there are processors, while one writes.
func BenchmarkGet(b *testing.B) {
	d, err := New().OpenState(b.Context(), "s", Config{})
	if err != nil {
		b.Fatal(err)
	}
	s, err := state.Open("s", d, state.Options{})
	if err != nil {
		b.Fatal(err)
	}
	caller := &loam.Caller{Name: "orders", Grants: []loam.Grant{{Capability: "*", Component: "*"}}}
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("order-%d", i)
		if errs := s.Write(b.Context(), caller, []state.Op{{Key: keys[i], Value: []byte(strings.Repeat("x", 1024))}}); errs != nil {
			b.Fatal(errs)
		}
	}
	view, err := s.For("orders", "")
	if err != nil {
		b.Fatal(err)
	}
	for i := range keys {
		if errs := view.Write(b.Context(), caller, []state.Op{{Key: keys[i], Value: []byte(strings.Repeat("x", 1024)), TTL: time.Hour}}); errs != nil {
			b.Fatal(errs)
		}
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		i := 0
		for pb.Next() {
			v, err := s.For("orders", "")
			if err != nil {
				b.Error(err)
				return
			}
			it, err := v.GetOne(b.Context(), caller, keys[i%len(keys)], state.GetOptions{})
			if err != nil || len(it.Value) != 1024 {
				b.Error(it, err)
				return
			}
			i++
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	d, err := New().OpenState(b.Context(), "s", Config{})
	if err != nil {
		b.Fatal(err)
	}
	s := state.New("s", d)
	caller := &loam.Caller{Name: "orders", Grants: []loam.Grant{{Capability: "*", Component: "*"}}}
	value := []byte(strings.Repeat("x", 1024))
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("order-%d", i)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		i := 0
		for pb.Next() {
			if errs := s.Write(b.Context(), caller, []state.Op{{Key: keys[i%len(keys)], Value: value}}); errs != nil {
				b.Error(errs)
				return
			}
			i++
		}
	})
}
