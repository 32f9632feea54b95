package redis

import (
	"context"
	"crypto/sha1" //nolint:gosec // what Redis calls a script by
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/component"
	"github.com/loam-run/loam/loop"
)

// Bounds of what is sent together. A second batch may be under way while one waits for its answers; more would only be
// smaller.
const (
	maxBatch   = 128 // calls
	maxFlights = 2
)

// client is a connection pool, and the batches that calls share.
type client struct {
	db                 redis.UniversalClient
	where              string // for errors
	number             int    // of the database
	retries            int
	minRetry, maxRetry time.Duration

	own *redis.Options // how lanes connect; nil: there are none

	mu       sync.Mutex
	lanes    map[int]*lane // by shard
	waiting  []*call
	flights  int
	flying   sync.WaitGroup
	isClosed bool
}

// call is commands that are sent together, and answered together.
type call struct {
	commands []redis.Cmder
	script   *script // of the only command; nil: it is none
	repeat   bool    // it may be done twice
	err      error   // of the connection; a command's own is with it
	done     chan struct{}

	task   loam.Task // that makes it, of an event loop that has a lane; nil: a goroutine
	waiter loam.Task // the same while it waits for a flight in the lane
	landed bool      // the flight's end
}

// do sends commands and waits for their answers. With repeat they are sent again where nobody knows whether they arrived.
// The error returned is that of the connection or of ctx; each command has its own.
func (c *client) do(ctx context.Context, repeat bool, commands ...redis.Cmder) error {
	return c.wait(ctx, &call{commands: commands, repeat: repeat})
}

// run runs a script by its hash; where the server does not know it, by its text. It waits in t; nil: in the goroutine that
// calls.
func (c *client) run(ctx context.Context, t loam.Task, repeat bool, s *script, keys []string, args ...any) (any, error) {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, "evalsha", s.hash, len(keys))
	for _, k := range keys {
		all = append(all, k)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	if err := c.wait(ctx, &call{commands: []redis.Cmder{cmd}, script: s, repeat: repeat, task: t}); err != nil {
		return nil, err
	}
	return cmd.Val(), cmd.Err()
}

func (c *client) wait(ctx context.Context, x *call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if x.task != nil {
		return c.waitIn(ctx, x.task, x)
	}
	x.done = make(chan struct{})
	c.mu.Lock()
	if c.isClosed {
		c.mu.Unlock()
		return redis.ErrClosed
	}
	if c.flights < maxFlights && len(c.waiting) == 0 {
		c.flights++
		c.flying.Add(1)
		c.mu.Unlock()
		return c.flyAlone(ctx, x)
	}
	c.waiting = append(c.waiting, x)
	if c.flights < maxFlights {
		c.flights++
		c.flying.Go(c.fly)
	}
	c.mu.Unlock()
	select {
	case <-x.done:
		return x.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flyAlone sends a call by who makes it, so that one at a time costs no change of goroutines. What waits by then flies on.
func (c *client) flyAlone(ctx context.Context, x *call) error {
	c.send(ctx, []*call{x}, 0)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) > 0 {
		c.flying.Go(c.fly)
	} else {
		c.flights--
	}
	c.flying.Done()
	if x.err != nil {
		return inTime(ctx, x.err)
	}
	return nil
}

// fly sends batches until nobody waits.
func (c *client) fly() {
	var batch []*call
	for {
		c.mu.Lock()
		n := min(len(c.waiting), maxBatch)
		if n == 0 {
			c.flights--
			c.mu.Unlock()
			return
		}
		batch = append(batch[:0], c.waiting[:n]...)
		left := copy(c.waiting, c.waiting[n:])
		clear(c.waiting[left:])
		c.waiting = c.waiting[:left]
		c.mu.Unlock()
		c.send(context.Background(), batch, 0) // it is many callers': the connection's timeouts bound it
	}
}

// send sends calls, some of them again, until each is answered or given up. attempt is how often they were sent before.
func (c *client) send(ctx context.Context, batch []*call, attempt int) {
	for ; ; attempt++ {
		c.exchange(ctx, batch)
		again := batch[:0]
		wait := false
		for _, x := range batch {
			switch verdict := c.judge(x); {
			case verdict == unknownScript:
				x.sendText()
				again = append(again, x)
			case c.again(ctx, x, verdict, attempt):
				again, wait = append(again, x), true
			default:
				close(x.done)
			}
		}
		if len(again) == 0 {
			return
		}
		if batch = again; wait {
			component.Pause(ctx, c.backoff(attempt))
		}
		for _, x := range batch {
			x.forget()
		}
	}
}

// again tells whether a call is to be sent once more, after so many times before the one that was judged.
func (c *client) again(ctx context.Context, x *call, v verdict, attempt int) bool {
	return attempt < c.retries && ctx.Err() == nil && (v == notDone || v == perhapsDone && x.repeat)
}

// sendText has a script sent as a text the next time.
func (x *call) sendText() {
	args := x.commands[0].Args()
	args[0], args[1] = "eval", x.script.text
	x.script = nil
	x.forget()
}

// forget makes a call ready to be sent again.
func (x *call) forget() {
	x.err = nil
	for _, cmd := range x.commands {
		cmd.SetErr(nil)
	}
}

func (c *client) exchange(ctx context.Context, batch []*call) {
	if len(batch) == 1 && len(batch[0].commands) == 1 {
		_ = c.db.Process(ctx, batch[0].commands[0]) // the command has the error
		return
	}
	pipe := c.db.Pipeline()
	for _, x := range batch {
		for _, cmd := range x.commands {
			_ = pipe.Process(ctx, cmd) // it only queues
		}
	}
	for _, x := range batch {
		for _, cmd := range x.commands {
			cmd.SetErr(errUnanswered) // until its answer is read
		}
	}
	_, err := pipe.Exec(ctx)
	if err == nil {
		err = errUnanswered
	}
	for _, x := range batch {
		for _, cmd := range x.commands {
			if errors.Is(cmd.Err(), errUnanswered) { // the library leaves them where it finds no connection
				cmd.SetErr(err)
			}
		}
	}
}

var errUnanswered = errors.New("no answer")

// backoff doubles with each attempt, and is spread so that what failed together does not come back together.
func (c *client) backoff(attempt int) time.Duration {
	if c.minRetry < 0 {
		return 0
	}
	d := c.minRetry << min(attempt, 20)
	if c.maxRetry > 0 && (d > c.maxRetry || d < 0) {
		d = c.maxRetry
	}
	return d/2 + time.Duration(rand.Int64N(int64(d)/2+1))
}

type verdict int

const (
	answered      verdict = iota // whatever the answer
	notDone                      // Redis did not do it
	perhapsDone                  // nobody knows
	unknownScript                // it must be sent with its text
)

// judge tells what became of a call, and sets its error where that is the connection's.
func (c *client) judge(x *call) verdict {
	result := answered
	for _, cmd := range x.commands {
		err := cmd.Err()
		if err == nil || errors.Is(err, redis.Nil) {
			continue
		}
		var reply redis.Error
		if errors.As(err, &reply) {
			switch word, _, _ := strings.Cut(err.Error(), " "); word {
			case "NOSCRIPT":
				if x.script != nil {
					return unknownScript
				}
			case "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY":
				result = max(result, notDone)
			}
			continue
		}
		x.err = err
		var op *net.OpError
		switch {
		case errors.Is(err, redis.ErrClosed), errors.Is(err, loop.ErrStopped), errors.Is(err, context.Canceled):
		case errors.Is(err, redis.ErrPoolTimeout), errors.As(err, &op) && op.Op == "dial":
			result = max(result, notDone)
		case isTimeout(err): // a server that hangs is not asked again: who waits has waited long enough
		default:
			result = perhapsDone
		}
	}
	return result
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// close waits for what is under way.
func (c *client) close() error {
	c.mu.Lock()
	c.isClosed = true
	c.mu.Unlock()
	c.flying.Wait()
	for _, l := range c.lanes { // nobody makes one any more
		l.close()
	}
	return c.db.Close()
}

// fail gives an error its code, and says what to do.
func (c *client) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	var known *loam.Error
	if errors.As(err, &known) {
		return err
	}
	out := &loam.Error{Op: op, Err: err, Code: loam.Unknown}
	var reply redis.Error
	switch {
	case errors.Is(err, context.Canceled):
		out.Code = loam.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		out.Code = loam.DeadlineExceeded
	case !errors.As(err, &reply):
		out.Code = loam.Unavailable
		switch {
		case errors.Is(err, redis.ErrPoolTimeout):
			out.Hint = "every connection to Redis is in use: raise metadata poolSize, or find out what is slow there"
		case isTimeout(err):
			out.Hint = "Redis at " + c.where + " does not answer in time: see how it is, or raise metadata readTimeout"
		case errors.Is(err, io.EOF):
			out.Hint = "Redis at " + c.where + " ended the connection; it is made anew when it is back"
		default:
			out.Hint = "start Redis at " + c.where + ", or correct metadata redisHost; calls go through again once it answers"
		}
	default:
		switch word, _, _ := strings.Cut(err.Error(), " "); word {
		case "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "BUSY", "MISCONF", "NOREPLICAS", "MOVED", "ASK":
			out.Code, out.Hint = loam.Unavailable, "Redis at "+c.where+" does not serve at the moment, for the reason it says; try again"
		case "OOM":
			out.Code, out.Hint = loam.ResourceExhausted, "Redis has no memory left: raise its maxmemory, or let it evict"
		case "NOAUTH", "WRONGPASS", "NOPERM":
			out.Code, out.Hint = loam.FailedPrecondition, "correct metadata redisUsername and redisPassword, or the user's ACL in Redis"
		case "WRONGTYPE":
			out.Code, out.Hint = loam.FailedPrecondition, "something else lies in Redis under that name: use another database (redisDB), or other names"
		case "CROSSSLOT":
			out.Code, out.Hint = loam.InvalidArgument, "in a cluster all keys of one transaction must be in one slot: give them a common {tag}"
		default:
			if strings.HasPrefix(err.Error(), "ERR unknown command") {
				out.Code, out.Hint = loam.Unimplemented, "this server lacks the command: it takes Redis 6.2 or newer"
			}
		}
	}
	return out
}

// script is a text in Lua and the hash that a server which has seen it knows it by.
type script struct{ text, hash string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // what Redis calls a script by
	return &script{text, hex.EncodeToString(sum[:])}
}

var errStop = errors.New("enough")

// scan names the keys that begin with prefix and are of that type, some of them twice, on all masters of a cluster. Those
// that found gets at once are not many; an error of its ends the scan.
func (c *client) scan(ctx context.Context, prefix, typ string, found func(keys []string) error) error {
	match := globEscape(prefix) + "*"
	node := func(ctx context.Context, db redis.Cmdable) error {
		for cursor := uint64(0); ; {
			keys, next, err := db.ScanType(ctx, cursor, match, 1000, typ).Result()
			if err != nil {
				return inTime(ctx, err)
			}
			if err := found(keys); err != nil {
				return err
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	cluster, ok := c.db.(*redis.ClusterClient)
	if !ok {
		return node(ctx, c.db)
	}
	var mu sync.Mutex // it asks masters at the same time
	one := found
	found = func(keys []string) error {
		mu.Lock()
		defer mu.Unlock()
		return one(keys)
	}
	return cluster.ForEachMaster(ctx, func(ctx context.Context, db *redis.Client) error { return node(ctx, db) })
}

// inTime is err, or that ctx has ended: the connection's deadline is the context's, and may be noticed before that.
func inTime(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return context.DeadlineExceeded
	}
	return err
}

// globEscape makes a pattern that matches s alone.
func globEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(`*?[]\^-`, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
