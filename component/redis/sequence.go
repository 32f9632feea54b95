package redis

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// SequenceConfig is the metadata of a sequence component.
type SequenceConfig struct {
	Server
	Block int64 `meta:"block,1000"` // numbers that are taken from Redis at once where their order does not matter
}

// Sequence is a sequence.Driver. What Redis forgets in a crash or a failover may be given a second time: where that must
// not be, let it write everything to disk at once.
type Sequence struct {
	c     *client
	block int64

	mu     sync.Mutex
	blocks map[string]block // of sequences that are asked for numbers in any order
}

// block is numbers that are this process's: from next to before end.
type block struct{ next, end int64 }

// maxBlocks bounds the sequences that blocks are kept of. Numbers of one that is dropped are nobody's.
const maxBlocks = 10_000

// OpenSequence opens a sequence component.
func OpenSequence(ctx context.Context, name string, c SequenceConfig) (*Sequence, error) {
	conn, err := c.open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Sequence{c: conn, block: max(1, c.Block), blocks: map[string]block{}}, nil
}

// Next reserves numbers. Those of a call whose answer was lost are nobody's.
func (s *Sequence) Next(ctx context.Context, key string, count int64) (int64, error) {
	cmd := redis.NewIntCmd(ctx, "incrby", strings.Clone(key), count)
	err := s.c.do(ctx, true, cmd)
	if err == nil {
		err = cmd.Err()
	}
	if err != nil {
		return 0, s.c.fail("sequence "+strconv.Quote(key), err)
	}
	return cmd.Val() - count + 1, nil
}

// NextWeak reserves numbers of a block that this process has taken. Those it did not give are nobody's after its end.
func (s *Sequence) NextWeak(ctx context.Context, key string, count int64) (int64, error) {
	if count >= s.block {
		return s.Next(ctx, key, count)
	}
	if first, ok := s.take(key, count); ok {
		return first, nil
	}
	first, err := s.Next(ctx, key, s.block)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.blocks[key]; !known && len(s.blocks) >= maxBlocks {
		for other := range s.blocks { // any
			delete(s.blocks, other)
			break
		}
	}
	s.blocks[strings.Clone(key)] = block{first + count, first + s.block} // where two came at once, one block is left unused
	return first, nil
}

func (s *Sequence) take(key string, count int64) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blocks[key]
	if b.end-b.next < count {
		return 0, false
	}
	s.blocks[key] = block{b.next + count, b.end}
	return b.next, true
}

// Close waits for calls under way and disconnects.
func (s *Sequence) Close() error { return s.c.close() }
