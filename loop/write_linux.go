package loop

import "time"

// What is written while events of the turn are still to be looked at goes out when all of them were. Written in a row it
// wakes a peer that sleeps once; written between the work of two requests it wakes it each time, and to wake somebody on
// another core is the dearest part of a write. Little is copied, and its task goes on; who writes more waits.

// notes are small writes of one turn.
type notes struct {
	bytes []byte // of one after the other
	of    []note
}

type note struct {
	c *conn
	n int
}

const (
	maxNote  = 4 << 10 // more than that costs more to copy than to wait with
	maxNotes = 64 << 10
)

// note takes p over. It is false where p has to be written by whoever has it.
func (c *conn) note(p []byte) bool {
	l := c.l
	if c.flags&(canWrite|hung|dead|owes) != canWrite || len(p) > maxNote || len(l.notes.bytes)+len(p) > maxNotes || c.check(c.writeBy) != nil {
		return false
	}
	l.notes.bytes = append(l.notes.bytes, p...)
	l.notes.of = append(l.notes.of, note{c, len(p)})
	c.flags |= noted
	return true
}

// send writes what was noted. What a socket has no room for, its connection owes.
func (l *loop) send() {
	p := l.notes.bytes
	for i := range l.notes.of {
		c, mine := l.notes.of[i].c, p[:l.notes.of[i].n]
		p = p[len(mine):]
		l.notes.of[i].c = nil
		c.flags &^= noted // the first of several clears it for all: they are in order
		if c.flags&owes != 0 {
			l.debts[c] = append(l.debts[c], mine...)
		} else {
			c.sendNow(mine)
		}
	}
	l.notes.bytes, l.notes.of = l.notes.bytes[:0], l.notes.of[:0]
}

// sendNow writes what nobody waits for. A failure is told to whoever reads: the peer has left.
func (c *conn) sendNow(p []byte) {
	n, again, err := c.tryWrite(p)
	switch {
	case again:
		c.flags |= owes
		c.l.debts[c] = append([]byte(nil), p[n:]...)
	case err != nil && c.flags&dead == 0:
		c.flags |= hung | canRead
		if c.reader != nil {
			c.l.later(c.reader, wakeReady)
		}
	}
}

// clear sends what was noted of the connection, and is false where it owes something still.
func (c *conn) clear() bool {
	if c.flags&noted != 0 {
		c.l.send()
	}
	return c.flags&owes == 0
}

// paid writes what is owed, and is true where nothing is any more.
func (c *conn) paid() bool {
	if c.flags&owes == 0 {
		return true
	}
	rest := c.l.debts[c]
	delete(c.l.debts, c)
	c.flags &^= owes
	c.sendNow(rest)
	return c.flags&owes == 0
}

// lingerFor is for how long a peer may take nothing of what it is owed after the connection was closed.
const lingerFor = 30 * time.Second

// linger closes a connection that owes something, once that is written.
func (c *conn) linger() {
	rest := c.l.debts[c]
	f := c.detach()
	go func() {
		defer f.Close()
		_ = f.SetWriteDeadline(time.Now().Add(lingerFor)) // a socket has deadlines
		_, _ = f.Write(rest)                              // nobody is left to be told
	}()
}

// together has the running task write when all events of this turn were looked at.
func (l *loop) together() {
	t := l.cur
	l.writers = append(l.writers, t)
	t.why = wakeReady
	t.yield(waitTurn, 0)
}

// takeWriters writes what waited until all events of the turn were seen.
func (l *loop) takeWriters() {
	l.send()
	for _, t := range l.writers { // none is added: no event of the turn is left
		t.turn()
	}
	clear(l.writers)
	l.writers = l.writers[:0]
}
