package redis

import (
	"context"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// SequenceConfig is the metadata of a sequence component.
type SequenceConfig struct {
	Server
}

// Sequence is a sequence.Driver. What Redis forgets in a crash or a failover may be given a second time: where that must
// not be, let it write everything to disk at once.
type Sequence struct{ c *client }

// OpenSequence opens a sequence component.
func OpenSequence(ctx context.Context, name string, c SequenceConfig) (*Sequence, error) {
	conn, err := c.open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Sequence{conn}, nil
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

// Close waits for calls under way and disconnects.
func (s *Sequence) Close() error { return s.c.close() }
