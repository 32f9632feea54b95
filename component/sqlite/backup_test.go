package sqlite

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/loam-run/loam/capability/state"
)

// A backup taken while it is written to opens, and holds a moment: a beginning of what was written, without a gap.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, filepath.Join(dir, "loam.db"))
	defer closed(t, s)
	var writing sync.WaitGroup
	stop, begun := make(chan struct{}), make(chan struct{})
	writing.Go(func() {
		for i := 0; ; i++ {
			if _, err := s.Apply(t.Context(), []state.Op{{Key: fmt.Sprintf("%06d", i), Value: value(i)}}); err != nil {
				t.Error(err)
			}
			if i == 100 {
				close(begun)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	<-begun
	copied := filepath.Join(dir, "copy.db")
	if err := s.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	close(stop)
	writing.Wait()
	c := opened(t, copied)
	defer closed(t, c)
	items, err := c.List(t.Context(), "", "", 100_000)
	if err != nil || len(items) < 100 {
		t.Fatalf("%d items are in the copy, %v", len(items), err)
	}
	for i, it := range items {
		if want := fmt.Sprintf("%06d", i); it.Key != want || string(it.Value) != string(value(i)) {
			t.Fatalf("item %d of the copy is %s", i, it.Key)
		}
	}
	if err := s.Backup(t.Context(), copied); err == nil {
		t.Error("a backup was written over a file that was there")
	}
}
