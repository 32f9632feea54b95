package service

import "time"

// keep does what is due by the clock, by failures of requests or by answers to checks, until the service is closed:
// ejecting endpoints, bringing them back, letting new ones grow.
func (s *Service) keep() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		case <-s.poked:
		}
		if next := s.tend(time.Now()); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// tend does what is due and tells when there is something to do again; zero: not before a poke.
func (s *Service) tend(now time.Time) (next time.Time) {
	soonest := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.changed || s.ramping()
	s.changed = false
	if p := s.c.Passive; p != nil {
		changed = s.judge(p, now) || changed
		for i := range s.list {
			if e := s.list[i].state; !e.ejectedUntil.IsZero() {
				soonest(e.ejectedUntil)
			}
		}
		soonest(s.interval)
	}
	if changed {
		s.rebuild(now)
	}
	if s.ramping() {
		soonest(now.Add(max(s.c.SlowStart/20, 10*time.Millisecond)))
	}
	return next
}

func (s *Service) ramping() bool {
	for _, sub := range s.subsets {
		if sub.now.Load().ramps {
			return true
		}
	}
	return false
}

// judge ejects who failed and brings back whose time is over. It tells whether it did either.
func (s *Service) judge(p *Passive, now time.Time) (changed bool) {
	out := 0
	for i := range s.list {
		e := s.list[i].state
		if !e.ejectedUntil.IsZero() && !now.Before(e.ejectedUntil) {
			e.ejectedUntil, changed = time.Time{}, true
			e.row.Store(0)
			if s.c.SlowStart > 0 {
				e.fresh = now
			}
			s.c.Log.Info("endpoint returned", "endpoint", e.address)
		}
		if !e.ejectedUntil.IsZero() {
			out++
		}
	}
	most := max(1, int(p.MaxEjected*float64(len(s.list))))
	over := !now.Before(s.interval)
	for i := range s.list {
		e := s.list[i].state
		why := ""
		if p.ConsecutiveErrors > 0 && int(e.row.Load()) >= p.ConsecutiveErrors {
			why = "errors in a row"
		}
		if over {
			ended, failed := e.ended.Load(), e.failed.Load()
			requests, failures := ended-e.seenEnded, failed-e.seenFailed
			e.seenEnded, e.seenFailed = ended, failed
			if p.Ratio > 0 && requests >= uint64(p.MinRequests) && float64(failures) >= p.Ratio*float64(requests) {
				why = "ratio of errors"
			}
			if why == "" && e.ejectedUntil.IsZero() && e.ejections > 0 {
				e.ejections-- // a quiet interval makes up for one ejection
			}
		}
		if why == "" || !e.ejectedUntil.IsZero() || out >= most {
			continue
		}
		out++
		changed = true
		e.ejections = min(e.ejections+1, 10)
		e.ejectedUntil = now.Add(p.Ejection * time.Duration(e.ejections))
		s.c.Log.Warn("endpoint ejected", "endpoint", e.address, "why", why, "until", e.ejectedUntil)
	}
	if over {
		s.interval = now.Add(p.Interval)
	}
	return changed
}
