package redis

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/component"
)

// A message that was handed to a consumer stays in its group's list of pending entries until it is acknowledged, with the
// time since it was handed out (idle) and how often it was. Who finds one whose idle time is over processingTimeout takes
// it. So a subscription sets the time of what it holds back now and then; sets that of a message to be tried again to what
// makes it due when it should be; and sets it to be over for what it did not get to before its end.

const (
	blockFor = 5 * time.Second        // of a read that waits; it is ended before that when the subscription is
	again    = 100 * time.Millisecond // before the next try, when Redis is away
	grace    = 5 * time.Second        // for the last acknowledgements
)

// subscription is one call of Subscribe.
type subscription struct {
	p       *Pubsub
	topic   string
	group   string // and the name of its consumers, as Dapr has it
	raw     bool
	handle  pubsub.Handler
	wanted  chan int     // how many messages there are free hands for; it wakes the reader
	free    int          // what wanted said, and the reader has not read for yet; its own
	fresh   chan message // read
	overdue chan message // taken over, or due again
	due     chan time.Duration

	mu     sync.Mutex
	held   map[string]struct{} // ids of what was read and is not done with
	timing sync.Mutex          // over commands that set how long something has been pending; taken before mu
}

type message struct {
	id      string
	values  map[string]any
	attempt int
}

// Subscribe delivers a topic to a group. A group that is new starts at the oldest message there is.
func (p *Pubsub) Subscribe(ctx context.Context, sub pubsub.Subscription, handle pubsub.Handler) error {
	inFlight := max(1, sub.InFlight)
	s := &subscription{
		p: p, topic: strings.Clone(sub.Topic), group: strings.Clone(sub.Group), raw: sub.Raw, handle: handle,
		wanted: make(chan int), fresh: make(chan message, inFlight), overdue: make(chan message, inFlight), due: make(chan time.Duration, 1), held: map[string]struct{}{},
	}
	if p.config.ConsumerID != "" {
		s.group = p.config.ConsumerID
	}
	if s.group == "" {
		s.group = "loam" // Redis takes no group without a name
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var working, keeping sync.WaitGroup
	var fatal error
	working.Go(func() {
		defer cancel()
		fatal = s.read(ctx)
	})
	life, end := context.WithCancel(context.Background())
	defer end()
	if s.redelivers() {
		working.Go(func() { s.reclaim(ctx) })
		keeping.Go(func() { s.keep(life) })
	}
	s.dispatch(ctx, inFlight, &working)
	working.Wait()
	end()
	keeping.Wait()
	s.release()
	return fatal
}

// redelivers tells whether what was not finished comes again.
func (s *subscription) redelivers() bool {
	return s.p.config.ProcessingTimeout > 0 && s.p.config.RedeliverInterval > 0
}

// dispatch hands messages to handlers, as many at once as may be, until ctx ends.
func (s *subscription) dispatch(ctx context.Context, inFlight int, working *sync.WaitGroup) {
	slots := make(chan struct{}, inFlight)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		m, ok := s.next(ctx, inFlight-len(slots)+1)
		if !ok {
			return
		}
		if s.p.slots != nil {
			select {
			case s.p.slots <- struct{}{}:
			case <-ctx.Done():
				s.setTime(ctx, m.id, s.p.config.ProcessingTimeout, m.attempt-1)
				return
			}
		}
		working.Go(func() {
			s.deliver(ctx, m)
			if s.p.slots != nil {
				<-s.p.slots
			}
			<-slots
		})
	}
}

// next waits for a message, what is overdue first. It has as many read as there are free hands: what more would be read
// could not go to another consumer, who has nothing to do.
func (s *subscription) next(ctx context.Context, free int) (m message, ok bool) {
	select {
	case m = <-s.overdue:
		return m, true
	case m = <-s.fresh:
		return m, true
	default:
	}
	wanted := s.wanted
	for {
		select {
		case m = <-s.overdue:
			return m, true
		case m = <-s.fresh:
			return m, true
		case wanted <- free:
			wanted = nil
		case <-ctx.Done():
			return m, false
		}
	}
}

// deliver has one message handled and says so to Redis.
func (s *subscription) deliver(ctx context.Context, m message) {
	v := s.handle(context.WithoutCancel(ctx), pubsub.Delivery{Event: event(s.topic, m, s.raw), Attempt: m.attempt})
	switch {
	case !v.Retry:
		s.settle(ctx, redis.NewCmd(ctx, "xack", s.topic, s.group, m.id))
		s.forget(m.id)
	case s.redelivers():
		s.setTime(ctx, m.id, max(0, s.p.config.ProcessingTimeout-v.After), -1)
		s.wakeIn(min(v.After, s.p.config.ProcessingTimeout))
	default:
		s.forget(m.id) // it stays pending: whoever wants that switched redelivery off
	}
}

// setTime lets go of a message, which has been pending for as long as idle says from then on.
func (s *subscription) setTime(ctx context.Context, id string, idle time.Duration, count int) {
	s.timing.Lock()
	defer s.timing.Unlock()
	s.forget(id)
	s.settle(ctx, s.touch(idle, count, id))
}

// settle sends a command until Redis has answered it; after the subscription's end, for a while only: what is not
// acknowledged comes again.
func (s *subscription) settle(ctx context.Context, cmd redis.Cmder) {
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	defer stop()
	for {
		err := s.p.c.do(last, true, cmd)
		if err == nil && loam.CodeOf(s.p.c.fail("", cmd.Err())) != loam.Unavailable || errors.Is(err, redis.ErrClosed) {
			return // what Redis does not want to hear, it will not want to hear later
		}
		if !component.Pause(last, again) {
			return
		}
		cmd = redis.NewCmd(last, cmd.Args()...)
	}
}

// touch sets how long messages have been pending, and with count >= 0 how often they were handed out.
func (s *subscription) touch(idle time.Duration, count int, ids ...string) *redis.Cmd {
	args := append(make([]any, 0, 10+len(ids)), "xclaim", s.topic, s.group, s.group, 0)
	for _, id := range ids {
		args = append(args, id)
	}
	args = append(args, "idle", idle.Milliseconds(), "justid")
	if count >= 0 {
		args = append(args, "retrycount", count)
	}
	return redis.NewCmd(context.Background(), args...)
}

func (s *subscription) hold(id string) {
	s.mu.Lock()
	s.held[id] = struct{}{}
	s.mu.Unlock()
}

func (s *subscription) forget(id string) {
	s.mu.Lock()
	delete(s.held, id)
	s.mu.Unlock()
}

func (s *subscription) holds(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.held[id]
	return ok
}

// release gives back what was read and not handled, as if it had not been.
func (s *subscription) release() {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	for {
		var m message
		select {
		case m = <-s.fresh:
		case m = <-s.overdue:
		default:
			return
		}
		if err := s.p.c.do(ctx, true, s.touch(s.p.config.ProcessingTimeout, m.attempt-1, m.id)); err != nil {
			return // they come again all the same, later
		}
	}
}

// read fetches new messages until ctx ends. Its error is one that no waiting will heal.
func (s *subscription) read(ctx context.Context) error {
	for ctx.Err() == nil {
		err := s.readFrom(ctx)
		if err == nil {
			continue
		}
		switch err := s.p.c.fail("pubsub.Subscribe "+strconv.Quote(s.topic), err); loam.CodeOf(err) {
		case loam.Unavailable, loam.DeadlineExceeded, loam.Canceled, loam.Unknown, loam.ResourceExhausted:
			component.Pause(ctx, again)
		default:
			if ctx.Err() == nil {
				return err
			}
		}
	}
	return nil
}

// readFrom fetches new messages over one connection, until that or ctx ends.
func (s *subscription) readFrom(ctx context.Context) error {
	db, ok := s.p.reading.db.(*redis.Client)
	if cluster, is := s.p.reading.db.(*redis.ClusterClient); is {
		var err error
		if db, err = cluster.MasterForKey(ctx, s.topic); err != nil {
			return err
		}
	} else if !ok {
		return loam.Errorf(loam.Internal, "pubsub.Subscribe", "a client of type %T", s.p.reading.db)
	}
	conn := db.Conn()
	defer func() { _ = conn.Close() }() // it goes back to the pool, or is broken
	if err := s.makeGroup(ctx); err != nil {
		return err
	}
	id, err := conn.ClientID(ctx).Result()
	if err != nil {
		return err
	}
	end := s.unblock(ctx, db, id)
	defer end()
	for ctx.Err() == nil {
		if s.free == 0 {
			select {
			case s.free = <-s.wanted:
			case <-ctx.Done():
				return nil
			}
		}
		reading, cancel := context.WithTimeout(context.WithoutCancel(ctx), blockFor+2*time.Second)
		res, err := conn.XReadGroup(reading, &redis.XReadGroupArgs{
			Group: s.group, Consumer: s.group, Streams: []string{s.topic, ">"}, Count: int64(max(1, min(s.free, s.p.config.QueueDepth))), Block: blockFor,
		}).Result()
		cancel()
		switch {
		case errors.Is(err, redis.Nil):
			continue
		case err != nil && strings.HasPrefix(err.Error(), "NOGROUP"): // Redis lost it, or somebody deleted the stream
			if err := s.makeGroup(ctx); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		s.free = 0
		for _, stream := range res {
			for _, m := range stream.Messages {
				s.hold(m.ID)
			}
			for _, m := range stream.Messages {
				s.put(ctx, s.fresh, message{m.ID, m.Values, 1})
			}
		}
	}
	return nil
}

// put waits for room. Where ctx ends first, the message is given back.
func (s *subscription) put(ctx context.Context, to chan<- message, m message) {
	select {
	case to <- m:
	case <-ctx.Done():
		s.setTime(ctx, m.id, s.p.config.ProcessingTimeout, m.attempt-1)
	}
}

func (s *subscription) makeGroup(ctx context.Context) error {
	err := s.p.c.db.XGroupCreateMkStream(ctx, s.topic, s.group, "0").Err()
	if err != nil && strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return nil
	}
	return err
}

// unblock ends a read that waits when ctx does: by a word to Redis, so that no message is on its way to a connection that
// nobody reads. Where Redis does not take that word, the read ends in its time. The func returned waits for its own end.
func (s *subscription) unblock(ctx context.Context, db *redis.Client, id int64) (end func()) {
	over, stop := context.WithCancel(context.Background())
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-ctx.Done():
		case <-over.Done():
			return
		}
		for db.ClientUnblock(over, id).Err() == nil && component.Pause(over, 20*time.Millisecond) { // it may not have been waiting yet
		}
	})
	return func() {
		stop()
		waiting.Wait()
	}
}

// wakeIn has reclaim look after d.
func (s *subscription) wakeIn(d time.Duration) {
	for {
		select {
		case s.due <- d:
			return
		default:
		}
		select { // the earlier one counts
		case other := <-s.due:
			d = min(d, other)
		default:
		}
	}
}

// reclaim takes messages whose time is over.
func (s *subscription) reclaim(ctx context.Context) {
	for at := time.Now(); ; {
		timer := time.NewTimer(time.Until(at))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case d := <-s.due:
			if t := time.Now().Add(d + time.Millisecond); t.Before(at) {
				at = t
			}
		case <-timer.C:
			at = time.Now().Add(s.takeOver(ctx))
		}
		timer.Stop()
	}
}

// keep says now and then, until ctx ends, that what is held is being worked at.
func (s *subscription) keep(ctx context.Context) {
	for component.Pause(ctx, max(s.p.config.ProcessingTimeout/3, 5*time.Millisecond)) {
		s.timing.Lock()
		s.mu.Lock()
		ids := make([]string, 0, len(s.held))
		for id := range s.held {
			ids = append(ids, id)
		}
		s.mu.Unlock()
		if len(ids) > 0 {
			_ = s.p.c.do(ctx, true, s.touch(0, -1, ids...)) // the next time is in time too
		}
		s.timing.Unlock()
	}
}

// takeOver takes what is due, and tells when to look again.
func (s *subscription) takeOver(ctx context.Context) time.Duration {
	const page = 100
	next, from := s.p.config.RedeliverInterval, "-"
	for ctx.Err() == nil {
		pending, err := s.p.c.db.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: s.topic, Group: s.group, Start: from, End: "+", Count: page}).Result()
		if err != nil {
			return next
		}
		var ids []string
		counts := map[string]int{}
		for _, e := range pending {
			if s.holds(e.ID) {
				continue
			}
			if left := s.p.config.ProcessingTimeout - e.Idle; left > 0 {
				next = min(next, left+time.Millisecond)
				continue
			}
			ids = append(ids, e.ID)
			counts[e.ID] = int(e.RetryCount)
		}
		for len(ids) > 0 && ctx.Err() == nil {
			n := min(len(ids), cap(s.overdue))
			s.claim(ctx, ids[:n], counts)
			ids = ids[n:]
		}
		if len(pending) < page {
			break
		}
		from = "(" + pending[len(pending)-1].ID
	}
	return next
}

// claim takes messages, unless another consumer was faster.
func (s *subscription) claim(ctx context.Context, ids []string, counts map[string]int) {
	for _, id := range ids {
		s.hold(id)
	}
	got, err := s.xclaim(ctx, s.p.config.ProcessingTimeout, ids...)
	if errors.Is(err, redis.Nil) { // an entry that was cut off the stream, in Redis before 7: which one?
		for _, id := range ids {
			one, err := s.xclaim(ctx, 0, id)
			if errors.Is(err, redis.Nil) {
				_ = s.p.c.do(ctx, true, redis.NewCmd(ctx, "xack", s.topic, s.group, id)) // else the next time
			}
			got = append(got, one...)
		}
	}
	mine := make(map[string]bool, len(got))
	for _, m := range got {
		mine[m.ID] = true
	}
	for _, id := range ids {
		if !mine[id] {
			s.forget(id)
		}
	}
	for _, m := range got {
		s.put(ctx, s.overdue, message{m.ID, m.Values, counts[m.ID] + 1})
	}
}

func (s *subscription) xclaim(ctx context.Context, idle time.Duration, ids ...string) ([]redis.XMessage, error) {
	return s.p.c.db.XClaim(ctx, &redis.XClaimArgs{Stream: s.topic, Group: s.group, Consumer: s.group, MinIdle: idle, Messages: ids}).Result()
}
