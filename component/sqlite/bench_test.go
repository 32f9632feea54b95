package sqlite

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/loam-run/loam/capability/state"
)

// What a read of one key costs; writes are measured beside their peers, in bench/store.
func BenchmarkGet(b *testing.B) {
	s, err := New().OpenState(b.Context(), "s", Config{Path: filepath.Join(b.TempDir(), "loam.db"), Sweep: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var ops []state.Op
	for i := range 1000 {
		ops = append(ops, state.Op{Key: fmt.Sprint(i), Value: make([]byte, 128)})
	}
	if _, err := s.Apply(b.Context(), ops); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := s.Get(b.Context(), []string{ops[i%len(ops)].Key}); err != nil {
			b.Fatal(err)
		}
	}
}
