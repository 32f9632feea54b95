package sqlite

import (
	"context"
	"sync"
)

// sequenceBlock is how many numbers a commit reserves: most calls need none of their own, and a crash skips at most so many.
const sequenceBlock = 100

// OpenSequence opens a sequence component.
func (f *Files) OpenSequence(ctx context.Context, name string, c Config) (*Sequence, error) {
	s, err := f.openSpace(ctx, "sequence", name, c)
	return &Sequence{space: s, files: f, blocks: map[string]*block{}}, err
}

// Sequence is a sequence.Driver.
type Sequence struct {
	space
	files *Files

	mu     sync.Mutex
	blocks map[string]*block
}

// A block is what is reserved on disk and not given out yet: from next up to end, not included.
type block struct {
	mu        sync.Mutex
	next, end int64
}

// Close lets go of the file.
func (s *Sequence) Close() error { return s.files.release(s.space) }

// Next reserves numbers.
func (s *Sequence) Next(ctx context.Context, key string, count int64) (int64, error) {
	s.mu.Lock()
	b := s.blocks[key]
	if b == nil {
		b = &block{}
		s.blocks[key] = b
	}
	s.mu.Unlock()

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end-b.next < count {
		reserve := count + sequenceBlock
		var first int64
		if err := s.write(ctx, func(d *db) error {
			first = 1
			if _, err := d.row([]any{&first}, "SELECT next FROM sequence WHERE space = ? AND key = ?", s.id, key); err != nil {
				return err
			}
			return d.exec("INSERT OR REPLACE INTO sequence (space, key, next) VALUES (?, ?, ?)", s.id, key, first+reserve)
		}); err != nil {
			return 0, err
		}
		b.next, b.end = first, first+reserve
	}
	first := b.next
	b.next += count
	return first, nil
}
