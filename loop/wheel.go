package loop

import "math/bits"

// A wheel keeps the timers of one loop: hashed by the tick they are due in, so that arming and disarming cost a few
// instructions however many there are. It is lazy: who waits again and again leaves the timer of an earlier wait where it
// is, and looks when that fires whether its own time has come.
//
// Times are nanoseconds since the engine began. The zero wheel is ready.
type wheel struct {
	slots [wheelSlots]*timer // heads of doubly linked lists
	used  [wheelSlots / 64]uint64
	tick  int64 // the last one that was worked off
	n     int
}

const (
	tickBits   = 20 // a tick is 2^20 ns: 1.05 ms
	wheelSlots = 1024
)

// A timer belongs to one waiter, as part of it.
type timer struct {
	next, prev *timer
	owner      interface{ expire(now int64) }
	at         int64
	slot       uint16
	on         bool
}

// arm sets the timer for at, or earlier where it is set for a time before that already.
func (w *wheel) arm(t *timer, at int64) {
	if t.on {
		if t.at <= at {
			return
		}
		w.disarm(t)
	}
	t.at = at
	w.insert(t, max((at+1<<tickBits-1)>>tickBits, w.tick+1))
}

func (w *wheel) insert(t *timer, tick int64) {
	s := uint16(tick & (wheelSlots - 1))
	t.on, t.slot = true, s
	t.prev, t.next = nil, w.slots[s]
	if t.next != nil {
		t.next.prev = t
	}
	w.slots[s] = t
	w.used[s/64] |= 1 << (s % 64)
	w.n++
}

func (w *wheel) disarm(t *timer) {
	if !t.on {
		return
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else if w.slots[t.slot] = t.next; t.next == nil {
		w.used[t.slot/64] &^= 1 << (t.slot % 64)
	}
	t.next, t.prev, t.on = nil, nil, false
	w.n--
}

// wait is how many milliseconds the loop may sleep; -1: until something else happens.
func (w *wheel) wait(now int64) int {
	if w.n == 0 {
		return -1
	}
	from := uint64(w.tick+1) & (wheelSlots - 1)
	for i := uint64(0); i <= wheelSlots; {
		s := (from + i) & (wheelSlots - 1)
		word := w.used[s/64] >> (s % 64)
		if word == 0 {
			i += 64 - s%64
			continue
		}
		i += uint64(bits.TrailingZeros64(word))
		due := (w.tick + 1 + int64(i)) << tickBits
		return int(max((due-now+999_999)/1_000_000, 0))
	}
	return -1
}

// advance fires what is due at now.
func (w *wheel) advance(now int64) {
	end := now >> tickBits
	if w.n == 0 {
		w.tick = max(w.tick, end)
		return
	}
	w.tick = max(w.tick, end-wheelSlots) // one time round sees every timer
	for w.tick < end {
		w.tick++
		s := w.tick & (wheelSlots - 1)
		if w.used[s/64]&(1<<(s%64)) == 0 {
			continue
		}
		// The list is taken out first: what fires may arm anew, in this slot too.
		list := w.slots[s]
		w.slots[s] = nil
		w.used[s/64] &^= 1 << (s % 64)
		head := timer{next: list}
		list.prev = &head
		for t := head.next; t != nil; t = head.next {
			if head.next = t.next; t.next != nil {
				t.next.prev = &head
			}
			t.next, t.prev, t.on = nil, nil, false
			w.n--
			if t.at > now {
				w.insert(t, max((t.at+1<<tickBits-1)>>tickBits, w.tick+1))
				continue
			}
			t.owner.expire(now)
		}
	}
}
