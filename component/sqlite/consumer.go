package sqlite

import (
	"container/heap"
	"context"
	"database/sql"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
)

// fetchSize is how many events are read from the log at once.
const fetchSize = 64

// A consumer is a group's place in a topic. Everything up to cursor is finished; above it, the table done says which
// events are, and the table retry holds those that wait for another attempt, be they below the cursor or above. So a
// log that is worked off in order costs one small update for many events.
type consumer struct {
	bus         *Pubsub
	name        string // of the topic
	id, topic   int64
	subscribers int // guarded by Pubsub.mu

	mu       sync.Mutex
	next     int64              // the first event not read from the log
	buffer   []logEntry         // read and not handed out
	inflight map[int64]struct{} // handed out for the first time and not finished
	skip     map[int64]struct{} // above next, and finished or waiting in retries since before we were loaded
	retries  retryQueue
	news     chan struct{} // closed when there may be something to take

	cursor   int64 // as the table has it
	doneRows bool  // the table done may hold rows of ours
	verdicts []verdict
	flushing bool
	flusher  sync.WaitGroup
	closing  chan struct{}
	flushErr error // what the last flush before the end said
}

type logEntry struct {
	seq   int64
	event loam.Event
}

type verdict struct {
	seq     int64
	attempt int
	retry   time.Time // zero: finished
}

func (c *consumer) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeLocked()
}

func (c *consumer) wakeLocked() {
	close(c.news)
	c.news = make(chan struct{})
}

// take waits for the next event to deliver.
func (c *consumer) take(ctx context.Context) (int64, pubsub.Delivery, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, pubsub.Delivery{}, err
		}
		c.mu.Lock()
		e, attempt, wait, err := c.pick(ctx)
		news := c.news
		c.mu.Unlock()
		if err != nil || attempt > 0 {
			return e.seq, pubsub.Delivery{Event: e.event, Attempt: attempt}, err
		}
		if wait <= 0 {
			wait = time.Hour // with no retry due, a look in vain now and then
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-news:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// pick takes a retry that is due, else the next of the log. An attempt of 0 means there is nothing, for wait at most.
func (c *consumer) pick(ctx context.Context) (e logEntry, attempt int, wait time.Duration, err error) {
	for len(c.retries) > 0 {
		r := c.retries[0]
		if wait = r.due.Sub(c.bus.now()); wait > 0 {
			break
		}
		found, err := c.read(ctx, r.seq, r.seq, 1)
		if err != nil {
			return e, 0, 0, err
		}
		c.retries.pop()
		if len(found) == 0 { // retention took it
			c.finishLocked(verdict{seq: r.seq, attempt: r.attempt})
			continue
		}
		return found[0], r.attempt, 0, nil
	}
	if len(c.buffer) == 0 {
		if err := c.fill(ctx); err != nil {
			return e, 0, 0, err
		}
	}
	if len(c.buffer) == 0 {
		return e, 0, wait, nil
	}
	e, c.buffer = c.buffer[0], c.buffer[1:]
	c.inflight[e.seq] = struct{}{}
	return e, 1, 0, nil
}

// fill reads on in the log.
func (c *consumer) fill(ctx context.Context) error {
	for len(c.buffer) == 0 {
		found, err := c.read(ctx, c.next, 1<<40-1, fetchSize)
		if err != nil || len(found) == 0 {
			return err
		}
		for _, e := range found {
			c.next = e.seq + 1
			if _, skip := c.skip[e.seq]; skip {
				delete(c.skip, e.seq)
				continue
			}
			c.buffer = append(c.buffer, e)
		}
	}
	return nil
}

func (c *consumer) read(ctx context.Context, from, to int64, limit int) (found []logEntry, err error) {
	err = c.bus.rows(ctx, func(r *sql.Rows) error {
		var e logEntry
		var ms int64
		var attributes []byte
		v := &e.event
		if err := r.Scan(&e.seq, &v.ID, &v.Source, &v.Type, &v.Subject, &ms, &v.ContentType, &attributes, &v.Data); err != nil {
			return err
		}
		e.seq -= place(c.topic, 0)
		v.Time, v.Topic = time.UnixMilli(ms), c.name
		found = append(found, e)
		if attributes == nil {
			return nil
		}
		return unmarshalAttributes(attributes, &found[len(found)-1].event)
	}, `SELECT place, id, source, coalesce(type, ?), subject, time, coalesce(content_type, ?), attributes, data
		FROM event WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?`, c.name, usualType, place(c.topic, from), place(c.topic, to), limit)
	return found, err
}

// finish records a verdict. It does not wait for the disk: an event whose verdict is lost with the process is
// delivered again.
func (c *consumer) finish(seq int64, attempt int, v pubsub.Verdict) {
	x := verdict{seq: seq, attempt: attempt}
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.Retry {
		x.retry = c.bus.now().Add(v.After)
		c.retries.push(retry{seq: seq, attempt: attempt + 1, due: x.retry})
		c.wakeLocked() // the timers of those who wait
	}
	c.finishLocked(x)
}

func (c *consumer) finishLocked(x verdict) {
	if x.attempt == 1 {
		delete(c.inflight, x.seq)
	}
	c.verdicts = append(c.verdicts, x)
	if !c.flushing {
		c.flushing = true
		c.flusher.Go(c.flush)
	}
}

// flush makes verdicts durable until there are none.
func (c *consumer) flush() {
	for {
		c.mu.Lock()
		batch := c.verdicts
		c.verdicts = nil
		if len(batch) == 0 {
			c.flushing = false
			c.mu.Unlock()
			return
		}
		low := c.next // everything below it is finished
		if len(c.buffer) > 0 {
			low = c.buffer[0].seq
		}
		for seq := range c.inflight {
			low = min(low, seq)
		}
		c.mu.Unlock()

		err := c.bus.write(context.Background(), func(d *db) error { return c.save(d, batch, low-1) })
		if err == nil {
			c.cursor = low - 1
			continue
		}
		c.mu.Lock()
		c.verdicts = append(batch, c.verdicts...)
		c.mu.Unlock()
		select {
		case <-c.closing:
			c.flushErr = err
			return
		case <-time.After(time.Second): // a full disk: try until there is room
		}
	}
}

// save writes verdicts and the new cursor, in the writer.
func (c *consumer) save(d *db, batch []verdict, cursor int64) error {
	for _, v := range batch {
		if !v.retry.IsZero() {
			if err := d.exec("INSERT OR REPLACE INTO retry (consumer, seq, attempt, due) VALUES (?, ?, ?, ?)",
				c.id, v.seq, v.attempt+1, v.retry.UnixMilli()); err != nil {
				return err
			}
			continue
		}
		if v.attempt > 1 {
			if err := d.exec("DELETE FROM retry WHERE consumer = ? AND seq = ?", c.id, v.seq); err != nil {
				return err
			}
		}
		if v.seq > cursor {
			if err := d.exec("INSERT OR IGNORE INTO done (consumer, seq) VALUES (?, ?)", c.id, v.seq); err != nil {
				return err
			}
			c.doneRows = true
		}
	}
	if cursor <= c.cursor {
		return nil
	}
	if c.doneRows {
		if err := d.exec("DELETE FROM done WHERE consumer = ? AND seq <= ?", c.id, cursor); err != nil {
			return err
		}
	}
	return d.exec("UPDATE consumer SET cursor = ? WHERE id = ?", cursor, c.id)
}

type retry struct {
	seq     int64
	attempt int
	due     time.Time
}

// retryQueue is a heap, the earliest first.
type retryQueue []retry

func (q *retryQueue) push(r retry) { heap.Push((*retryHeap)(q), r) }
func (q *retryQueue) pop()         { heap.Pop((*retryHeap)(q)) }

type retryHeap []retry

func (h retryHeap) Len() int           { return len(h) }
func (h retryHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h retryHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *retryHeap) Push(x any)        { *h = append(*h, x.(retry)) }
func (h *retryHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
