package service

import (
	"fmt"
	"math"
	"time"
)

// Status is how a service is, for operators.
type Status struct {
	Name      string           `json:"name"`
	Algorithm string           `json:"algorithm"`
	Ready     bool             `json:"ready"`           // a list of endpoints is there
	Updated   time.Time        `json:"updated"`         // when discovery last gave a list
	Error     string           `json:"error,omitempty"` // why discovery gave none since
	Panic     bool             `json:"panic,omitempty"` // too few are healthy, so health does not count
	Endpoints []EndpointStatus `json:"endpoints"`
}

// States of an endpoint.
const (
	Healthy   = "healthy"
	Unhealthy = "unhealthy" // by the answers to active checks
	Ejected   = "ejected"   // by what requests saw of it
)

// EndpointStatus is how an endpoint is.
type EndpointStatus struct {
	Address      string            `json:"address"`
	ID           string            `json:"id"` // by which sessions keep to it
	Weight       int               `json:"weight"`
	Zone         string            `json:"zone,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	State        string            `json:"state"`
	Reason       string            `json:"reason,omitempty"`      // the last bad answer
	EjectedUntil time.Time         `json:"ejectedUntil,omitzero"` //
	Share        float64           `json:"share"`                 // of Weight, that it has so far; 1 once it has started slowly
	Connections  int               `json:"connections"`           // that its transport has open
	InFlight     int64             `json:"inFlight"`              //
	Requests     uint64            `json:"requests"`              // since it came
	Failures     uint64            `json:"failures"`              // of them
	Latency      time.Duration     `json:"latency"`               // a moving average, nanoseconds
}

// String says in a few words how the service is.
func (s Status) String() string {
	healthy := 0
	for _, e := range s.Endpoints {
		if e.State == Healthy {
			healthy++
		}
	}
	text := fmt.Sprintf("%d of %d endpoints healthy", healthy, len(s.Endpoints))
	switch {
	case s.Error != "" && s.Ready:
		text += "; the list is old: " + s.Error
	case s.Error != "":
		text = "no endpoints: " + s.Error
	case !s.Ready:
		text = "looking for endpoints"
	}
	if s.Panic {
		text += "; requests go to all of them"
	}
	return text
}

// connected is a transport that counts its connections.
type connected interface{ Connections() int }

// Status tells how the service is at this moment.
func (s *Service) Status() Status {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Name: s.c.Name, Algorithm: s.c.Algorithm.String(), Ready: s.isReady(), Updated: s.foundAt, Panic: s.whole.now.Load().panics,
		Endpoints: make([]EndpointStatus, 0, len(s.list)),
	}
	if s.found != nil {
		st.Error = s.found.Error()
	}
	for i := range s.list {
		m := &s.list[i]
		e := EndpointStatus{
			Address: m.Address, ID: m.id, Weight: m.Weight, Zone: m.Zone, Labels: m.Labels, State: Healthy, Reason: m.why, EjectedUntil: m.ejectedUntil,
			Share: s.ramp(m.state, now), InFlight: m.inFlight(), Requests: m.started.Load(), Failures: m.failed.Load(),
			Latency: time.Duration(math.Round(float64(m.latency.read(stampOf(now), s.decay)))),
		}
		if c, ok := m.via.(connected); ok {
			e.Connections = c.Connections()
		}
		switch {
		case m.sick:
			e.State = Unhealthy
		case !m.ejectedUntil.IsZero():
			e.State = Ejected
		}
		st.Endpoints = append(st.Endpoints, e)
	}
	return st
}
