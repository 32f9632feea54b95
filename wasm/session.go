package wasm

import (
	"container/list"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
)

// key is what names the request's session; empty: it has none.
func (s *Session) key(req *loam.Request) string {
	if s.Header != "" {
		return req.Header.Get(s.Header)
	}
	for _, f := range req.Header {
		if !strings.EqualFold(f.Name, "cookie") {
			continue
		}
		for pair := range strings.SplitSeq(f.Value, ";") { // RFC 6265, section 4.2.1
			if name, value, ok := strings.Cut(strings.TrimLeft(pair, " "), "="); ok && name == s.Cookie {
				return value
			}
		}
	}
	return ""
}

// maxKey is how long the name of a session may be, in bytes.
const maxKey = 512

// Sessions are a function's. The module's lock guards them.
type sessions struct {
	max int
	all map[string]*session
	old list.List // of *session that serve nothing: the one idle for longest is in front
}

// A session is an instance that serves the requests of one session, one after the other.
type session struct {
	key     string
	i       *instance // nil: there is none yet
	busy    bool
	waiting queue
	used    time.Time
	at      *list.Element // in sessions.old; nil: it is busy
}

func newSessions(maximum int) *sessions { return &sessions{max: maximum, all: map[string]*session{}} }

func (s *sessions) len() int { return len(s.all) }

// take makes the session of that name busy, or returns it with busy set by others. evicted is an instance that had to
// make room. It is nil where there is no room.
func (s *sessions) take(key string) (found *session, mine bool, evicted *instance) {
	if f := s.all[key]; f != nil {
		if f.busy {
			return f, false, nil
		}
		s.old.Remove(f.at)
		f.busy, f.at = true, nil
		return f, true, nil
	}
	if len(s.all) >= s.max {
		front := s.old.Front()
		if front == nil {
			return nil, false, nil
		}
		evicted = s.remove(front)
	}
	f := &session{key: strings.Clone(key), busy: true}
	s.all[f.key] = f
	return f, true, evicted
}

func (s *sessions) remove(e *list.Element) *instance {
	f := e.Value.(*session)
	s.old.Remove(e)
	delete(s.all, f.key)
	return f.i
}

// give ends a request of a session, and returns who is next in it.
func (s *sessions) give(f *session, now time.Time) *waiter {
	f.used = now
	if w := f.waiting.next(); w != nil {
		return w
	}
	f.busy = false
	if f.i == nil { // its guest failed
		delete(s.all, f.key)
		return nil
	}
	f.at = s.old.PushBack(f)
	return nil
}

// expire ends the sessions that were not used since then.
func (s *sessions) expire(then time.Time) (gone []*instance) {
	for e := s.old.Front(); e != nil && e.Value.(*session).used.Before(then); e = s.old.Front() {
		gone = append(gone, s.remove(e))
	}
	return gone
}

// waiting appends those who wait for a session.
func (s *sessions) waiting(to []loam.Task) []loam.Task {
	for _, f := range s.all {
		to = f.waiting.tasks(to)
	}
	return to
}

// serveSession serves the request by its session's instance, when that has no other.
func (v *visit) serveSession(key string, body []byte) (*loam.Response, error) {
	m := v.module
	if len(key) > maxKey {
		return nil, loam.Errorf(loam.InvalidArgument, op(m.name), "the session's name is longer than %d bytes", maxKey)
	}
	s, err := v.session(key)
	if err != nil {
		return nil, err
	}
	defer func() {
		m.mu.Lock()
		w := m.sessions.give(s, time.Now())
		m.mu.Unlock()
		if w != nil {
			w.task.Wake()
		}
	}()
	if err := v.slot(); err != nil {
		return nil, err
	}
	defer m.free()
	if s.i == nil {
		i, err := v.make()
		if err != nil {
			return nil, err
		}
		s.i = i
	}
	resp, err := v.run(s.i, body)
	if err != nil { // its state is lost; the next request begins anew
		s.i.discard()
		s.i = nil
		m.stats.Dropped.Add(1)
	}
	return resp, err
}

// session takes the session of that name, when the request before in it is done.
func (v *visit) session(key string) (*session, error) {
	m := v.module
	for looked := false; ; looked = true {
		m.mu.Lock()
		s, mine, evicted := m.sessions.take(key)
		switch {
		case mine:
			m.mu.Unlock()
			if evicted != nil {
				m.stats.Evicted.Add(1)
				v.task.Await(func() { m.destroy(evicted) })
			}
			return s, nil
		case s == nil:
			m.mu.Unlock()
			m.stats.Limits[guest.LimitSessions].Add(1)
			return nil, &loam.Error{
				Code: loam.ResourceExhausted, Op: op(m.name), Err: fmt.Errorf("all its %d sessions are busy", m.config.Session.Max),
				Hint: "raise the number of its sessions",
			}
		case !looked:
			m.mu.Unlock()
			if v.waitsForItself() {
				return nil, &loam.Error{
					Code: loam.FailedPrecondition, Op: op(m.name),
					Err:  errors.New("it calls itself, directly or through others, in the session that it serves: that would wait for ever"),
					Hint: "leave the session's header or cookie away from calls that it makes to itself",
				}
			}
			continue // the lock was given away, so all may be different
		case s.waiting.len() >= m.config.Queue:
			m.mu.Unlock()
			m.stats.Limits[guest.LimitQueue].Add(1)
			return nil, &loam.Error{
				Code: loam.ResourceExhausted, Op: op(m.name), Err: fmt.Errorf("%d requests wait in this session", max(m.config.Queue, 0)),
				Hint: "send less at a time in one session",
			}
		}
		w := s.waiting.add(v.task)
		m.mu.Unlock()
		if err := v.wait(w, &s.waiting); err != nil {
			return nil, &loam.Error{
				Code: loam.CodeOf(err), Op: op(m.name), Err: fmt.Errorf("request %s waited for the one before in its session: %w", v.req.ID, err),
				Hint: "raise its spec.timeout",
			}
		}
		return s, nil
	}
}
