package redis

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/lock"
)

// LockConfig is the metadata of a lock component.
type LockConfig struct {
	Server
}

// Check refuses a cluster: a failover there may lose a lock that somebody holds, without a word.
func (c *LockConfig) Check() error {
	err := c.Server.Check()
	if c.Type == "cluster" {
		err = errors.Join(err, errors.New("metadata redisType: a cluster may forget a lock that is held; locks take one node"))
	}
	return err
}

// Lock is a lock.Driver. An owner must see to it that a lease which ran out does no harm: Redis forgets locks with what it
// had not written to disk.
type Lock struct {
	c                   *client
	take, renew, unlock *script
}

// OpenLock opens a lock component.
func OpenLock(ctx context.Context, name string, c LockConfig) (*Lock, error) {
	conn, err := c.open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Lock{c: conn, take: newScript(takeText), renew: newScript(holderText + renewText), unlock: newScript(holderText + unlockText)}, nil
}

const (
	takeText = `
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`
	holderText = `
local holder = redis.call('GET', KEYS[1])
if not holder then return -1 end
if holder ~= ARGV[1] then return -2 end
`
	renewText  = `return redis.call('PEXPIRE', KEYS[1], ARGV[2])`
	unlockText = `return redis.call('DEL', KEYS[1])`
)

func (l *Lock) run(ctx context.Context, s *script, repeat bool, name string, args ...any) (int64, error) {
	res, err := l.c.run(ctx, nil, repeat, s, []string{strings.Clone(name)}, args...)
	n, _ := res.(int64)
	return n, l.c.fail("lock "+strconv.Quote(name), err)
}

// TryLock takes a lease.
func (l *Lock) TryLock(ctx context.Context, name, owner string, ttl time.Duration) (bool, error) {
	n, err := l.run(ctx, l.take, true, name, strings.Clone(owner), max(ttl, time.Millisecond).Milliseconds())
	return n == 1, err
}

// Renew lengthens a lease.
func (l *Lock) Renew(ctx context.Context, name, owner string, ttl time.Duration) error {
	n, err := l.run(ctx, l.renew, true, name, strings.Clone(owner), max(ttl, time.Millisecond).Milliseconds())
	return held(n, err, name, owner)
}

// Unlock ends a lease. It is not tried twice: the second time nobody would hold it.
func (l *Lock) Unlock(ctx context.Context, name, owner string) error {
	n, err := l.run(ctx, l.unlock, false, name, strings.Clone(owner))
	return held(n, err, name, owner)
}

func held(n int64, err error, name, owner string) error {
	if err != nil {
		return err
	}
	switch n {
	case -1:
		return lock.CheckHolder(name, "", owner)
	case -2:
		return lock.CheckHolder(name, owner+" not", owner)
	case 1:
		return nil
	}
	return loam.Errorf(loam.NotFound, "lock "+strconv.Quote(name), "it ended this moment")
}

// Close waits for calls under way and disconnects.
func (l *Lock) Close() error { return l.c.close() }
