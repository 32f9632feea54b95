package loop

import (
	"errors"
	"io"
	"time"
)

// relay is a Relay that its loop carries, without a task: as bytes come in they go out. What the other side has no room
// for yet stays in a lent buffer, and nothing more is read meanwhile.
type relay struct {
	l      *loop
	ways   [2]way // A to B, B to A
	tm     timer
	idle   int64
	last   int64 // when bytes moved last
	tag    string
	done   func(aToB, bToA int64)
	queued bool
	over   bool
}

// way is one direction.
type way struct {
	from, to *conn
	due      []byte  // read, and not yet written
	buf      *Buffer // that due is in; nil: it is nobody's
	n        int64   // carried
	ended    bool    // from has nothing more
	shut     bool    // to was told so
}

func (t *task) startRelay(r *Relay) bool {
	a, ok := r.A.(*conn)
	if !ok {
		return false
	}
	b, ok := r.B.(*conn)
	if !ok {
		return false
	}
	t.l.relay(a, b, &Frozen{FromA: r.FromA, FromB: r.FromB, Idle: r.Idle, Tag: r.Tag}, r.Done)
	return true
}

func (l *loop) relay(a, b *conn, f *Frozen, done func(aToB, bToA int64)) {
	r := &relay{l: l, idle: int64(f.Idle), last: l.now, tag: f.Tag, done: done, queued: true}
	r.ways[0] = way{from: a, to: b, due: f.FromA, n: f.AToB, ended: f.EndA}
	r.ways[1] = way{from: b, to: a, due: f.FromB, n: f.BToA, ended: f.EndB}
	for i, c := range [2]*conn{b, a} {
		if !c.clear() {
			w := &r.ways[i]
			w.due = append(l.debts[c], w.due...)
			delete(l.debts, c)
		}
		c.relay, c.owner = r, nil
		c.flags &^= free | poll | owes
	}
	r.tm.owner = r
	if r.idle > 0 {
		l.wheel.arm(&r.tm, l.now+r.idle)
	}
	l.relays[r] = struct{}{}
	l.e.live.Add(1)
	l.turns = append(l.turns, r)
}

// turn goes on with a relay that has given way to others.
func (r *relay) turn() {
	r.queued = false
	r.pump()
}

// pump moves what can be moved now.
func (r *relay) pump() {
	if r.over {
		return
	}
	for i := range r.ways {
		more, err := r.move(&r.ways[i])
		if err != nil {
			r.close()
			return
		}
		if more && !r.queued {
			r.queued = true
			r.l.turns = append(r.l.turns, r)
		}
	}
	if r.ways[0].shut && r.ways[1].shut {
		r.close()
	}
}

// movesPerTurn is how many reads a direction may do before others have their turn.
const movesPerTurn = 8

// move carries one direction as far as it goes. more: it could go on.
func (r *relay) move(w *way) (more bool, err error) {
	for range movesPerTurn {
		if len(w.due) > 0 {
			n, again, err := w.to.tryWrite(w.due)
			w.due = w.due[n:]
			r.moved(w, n)
			if again || err != nil {
				return false, err
			}
		}
		if w.buf != nil {
			r.l.keep(w.buf)
			w.buf = nil
		}
		w.due = nil
		if w.ended {
			if w.shut {
				return false, nil
			}
			w.shut = true
			return false, w.to.CloseWrite()
		}
		if r.l.scratch == nil {
			r.l.scratch = make([]byte, MaxBuffer)
		}
		n, again, err := w.from.tryRead(r.l.scratch)
		switch {
		case again:
			return false, nil
		case errors.Is(err, io.EOF):
			w.ended = true
			continue
		case err != nil:
			return false, err
		}
		sent, again, err := w.to.tryWrite(r.l.scratch[:n])
		r.moved(w, sent)
		if err != nil {
			return false, err
		}
		if again {
			w.buf = r.l.lend(classOf(n - sent))
			w.due = w.buf.B[:copy(w.buf.B, r.l.scratch[sent:n])]
			return false, nil
		}
	}
	return true, nil
}

func (r *relay) moved(w *way, n int) {
	if n > 0 {
		w.n += int64(n)
		r.last = r.l.now
	}
}

// expire closes the relay when nothing has moved for too long.
func (r *relay) expire(now int64) {
	if r.last+r.idle > now {
		r.l.wheel.arm(&r.tm, r.last+r.idle)
		return
	}
	r.close()
}

// leave takes the relay out of the loop's books.
func (r *relay) leave() {
	r.over = true
	delete(r.l.relays, r)
	r.l.e.live.Add(-1)
	r.l.wheel.disarm(&r.tm)
}

// free gives the buffers back.
func (r *relay) free() {
	for i := range r.ways {
		if w := &r.ways[i]; w.buf != nil {
			r.l.keep(w.buf)
			w.buf, w.due = nil, nil
		}
	}
}

func (r *relay) close() {
	if r.over {
		return
	}
	r.leave()
	r.free()
	for i := range r.ways {
		_ = r.ways[i].from.Close() // nobody is left to be told
	}
	if r.done != nil {
		r.l.safely(func() { r.done(r.ways[0].n, r.ways[1].n) })
	}
}

// freeze takes the relay out of the process.
func (r *relay) freeze() Frozen {
	r.leave()
	ab, ba := &r.ways[0], &r.ways[1]
	f := Frozen{
		FromA: append([]byte(nil), ab.due...), FromB: append([]byte(nil), ba.due...), EndA: ab.ended, EndB: ba.ended,
		Idle: time.Duration(r.idle), Tag: r.tag, AToB: ab.n, BToA: ba.n,
	}
	r.free()
	f.A, f.B = ab.from.detach(), ba.from.detach()
	return f
}

// thaw goes on with a relay.
func (l *loop) thaw(f Frozen, fds [2]int, done func(aToB, bToA int64)) error {
	if l.stopping {
		closeFd(fds[0])
		closeFd(fds[1])
		return ErrStopped
	}
	a, err := l.add(fds[0], canRead|canWrite)
	if err != nil {
		closeFd(fds[1])
		return err
	}
	b, err := l.add(fds[1], canRead|canWrite)
	if err != nil {
		_ = a.Close()
		return err
	}
	l.relay(a, b, &f, done)
	return nil
}
