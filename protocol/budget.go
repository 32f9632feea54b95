package protocol

import (
	"sync/atomic"

	"github.com/loam-run/loam"
)

// A Budget bounds what large messages hold at once, of however many clients: who sends slowly, or does not take his answer,
// keeps memory that long. What is no larger than Free counts for nothing. A nil one has no bound.
type Budget struct {
	most int64
	used atomic.Int64
}

// Free is how many bytes of each message or body a Budget does not count.
const Free = 64 << 10

// NewBudget makes one of so many bytes.
func NewBudget(most int64) *Budget { return &Budget{most: most} }

// Resize takes what a message that grows or shrinks from one size to another holds more than before, or gives back what it
// holds less. The error, ResourceExhausted, says that there is no more, and nothing was taken.
func (b *Budget) Resize(from, to int) error {
	n := int64(max(to, Free) - max(from, Free))
	if b == nil || n == 0 {
		return nil
	}
	if b.used.Add(n) > b.most && n > 0 {
		b.used.Add(-n)
		return loam.Errorf(loam.ResourceExhausted, "request", "large messages hold all %d bytes that there are for them: try again when they are through", b.most)
	}
	return nil
}

// Used is how many bytes are taken.
func (b *Budget) Used() int64 { return b.used.Load() }
