package service

import "time"

// member is an endpoint in a set.
type member struct {
	Endpoint
	*state
	share float64 // its weight, less while it starts slowly
}

// set is what requests choose from. It never changes: what changes is which set is the present one.
type set struct {
	members []member       // that requests go to
	picker  picker         // of members; nil: there is none
	usable  []member       // of all zones
	pinned  map[string]int // of usable, by id: sessions may keep to it
	all     int            // endpoints on the list
	panics  bool           // too few are healthy: all count as usable
	ramps   bool           // a share will grow with time
}

// build makes the set of the endpoints in list that have labels, as they are now. It is called with s.mu held.
func (s *Service) build(list []member, labels map[string]string, now time.Time) *set {
	n := &set{pinned: map[string]int{}}
	var all []member
	for _, m := range list {
		if !m.has(labels) {
			continue
		}
		grown := s.ramp(m.state, now)
		m.share = float64(m.Weight) * grown
		n.ramps = n.ramps || grown < 1
		all = append(all, m)
		if m.usable() {
			n.usable = append(n.usable, m)
		}
	}
	n.all = len(all)
	if n.all == 0 {
		return n
	}
	n.panics = len(n.usable) == 0 || float64(len(n.usable)) < s.c.PanicBelow*float64(n.all)
	if n.panics {
		n.usable = all
	}
	for i := range n.usable {
		n.pinned[n.usable[i].id] = i
	}
	n.members = n.usable
	if s.c.Zone != "" && !n.panics {
		n.members = near(all, n.usable, s.c.Zone)
	}
	n.picker = s.newPicker(n.members)
	return n
}

// ramp is the part of its weight that an endpoint has, from a tenth to 1.
func (s *Service) ramp(e *state, now time.Time) float64 {
	if e.fresh.IsZero() || s.c.hashes() {
		return 1
	}
	return min(1, max(0.1, float64(now.Sub(e.fresh))/float64(s.c.SlowStart)))
}

func (s *Service) newPicker(members []member) picker {
	if len(members) == 1 {
		return one{}
	}
	switch s.c.Algorithm {
	case RoundRobin:
		return newRotation(members)
	case Random:
		return newLottery(members)
	case PeakEWMA:
		return &peakEWMA{newLottery(members), members, s.decay}
	case RingHash:
		return newRing(members, s.c.BoundedLoad, &s.total)
	case Maglev:
		return newTable(members)
	}
	return &leastRequest{newLottery(members), members}
}

func (m *member) has(labels map[string]string) bool {
	for k, v := range labels {
		if got, ok := m.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// near are the usable ones of the zone, while they carry half of its weight; else all of them.
func near(all, usable []member, zone string) []member {
	var whole, left int
	for i := range all {
		if all[i].Zone == zone {
			whole += all[i].Weight
		}
	}
	var here []member
	for i := range usable {
		if usable[i].Zone == zone {
			here = append(here, usable[i])
			left += usable[i].Weight
		}
	}
	if left == 0 || 2*left < whole {
		return usable
	}
	return here
}
