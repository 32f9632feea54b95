// Package memory keeps every capability in the process's memory: for tests, and for state that may be lost with the
// process. State is bounded by nothing but the machine, events by what a topic retains and by how far a group may fall
// behind. What it is handed it copies: callers use their buffers again.
package memory

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/component"
)

// Config is empty: there is nothing to choose.
type Config struct{}

// Memory is what the components of one list of factories share: a lock, so that a transaction can publish in the same
// moment it writes.
type Memory struct {
	mu      sync.Mutex
	version int64
	now     func() time.Time
}

// New returns an empty Memory.
func New() *Memory { return &Memory{now: time.Now} }

// Factories are the component types of this package.
func (m *Memory) Factories() []loam.Factory {
	return []loam.Factory{
		also(component.New("state.memory", m.OpenState), "state.in-memory"),
		also(component.New("pubsub.memory", m.OpenPubsub), "pubsub.in-memory"),
		component.New("lock.memory", m.OpenLock),
		component.New("config.memory", m.OpenConfig),
		component.New("sequence.memory", m.OpenSequence),
		component.New("jobs.memory", m.OpenJobs),
	}
}

// also gives a factory another name, Dapr's.
func also(f loam.Factory, name string) loam.Factory {
	f.Aliases = append(f.Aliases, name)
	return f
}

// nextVersion is a new ETag; the lock is held.
func (m *Memory) nextVersion() string {
	m.version++
	return strconv.FormatInt(m.version, 36)
}

// OpenLock opens a lock component.
func (m *Memory) OpenLock(context.Context, string, Config) (*Lock, error) {
	return &Lock{m: m, leases: map[string]lease{}}, nil
}

// OpenSequence opens a sequence component.
func (m *Memory) OpenSequence(context.Context, string, Config) (*Sequence, error) {
	return &Sequence{m: m, next: map[string]int64{}}, nil
}

// Sequence is a sequence.Driver.
type Sequence struct {
	m    *Memory
	next map[string]int64 // the last number given
}

// Next reserves numbers.
func (s *Sequence) Next(_ context.Context, key string, count int64) (int64, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	last, ok := s.next[key]
	if !ok {
		key = strings.Clone(key)
	}
	s.next[key] = last + count
	return last + 1, nil
}

// Close forgets nothing and frees nothing: the memory goes with the value.
func (s *Sequence) Close() error { return nil }
