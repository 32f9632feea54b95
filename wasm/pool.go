package wasm

import "sync"

// A pool keeps clean instances of a program for the next requests. It is split by the loop that a request runs on, so
// that loops do not contend for it and an instance comes back to the processor that has it in its caches.
type pool struct {
	shards [8]shard
}

type shard struct {
	mu     sync.Mutex
	idle   []*instance // the last one in is the first one out: it is the warmest
	least  int         // how many there were at least since trim looked
	closed bool
	_      [64]byte // its own line in the processors' caches
}

// maxIdle bounds the idle instances of a shard.
const maxIdle = 256

func (p *pool) take(at int) *instance {
	s := &p.shards[at&7]
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.idle)
	if n == 0 {
		return nil
	}
	i := s.idle[n-1]
	s.idle[n-1] = nil
	s.idle = s.idle[:n-1]
	s.least = min(s.least, n-1)
	return i
}

// put takes a clean instance, or closes it where it is not wanted.
func (p *pool) put(at int, i *instance) {
	s := &p.shards[at&7]
	s.mu.Lock()
	keep := !s.closed && len(s.idle) < maxIdle
	if keep {
		s.idle = append(s.idle, i)
	}
	s.mu.Unlock()
	if !keep {
		i.close()
	}
}

// trim closes the instances that nobody needed since it was last called.
func (p *pool) trim() {
	for at := range p.shards {
		s := &p.shards[at]
		s.mu.Lock()
		n := min(s.least, len(s.idle))
		gone := append([]*instance(nil), s.idle[:n]...) // the coldest
		s.idle = append(s.idle[:0], s.idle[n:]...)
		clear(s.idle[len(s.idle):cap(s.idle)])
		s.least = len(s.idle)
		s.mu.Unlock()
		for _, i := range gone {
			i.close()
		}
	}
}

// close closes the instances that are there, and those that come.
func (p *pool) close() {
	for at := range p.shards {
		s := &p.shards[at]
		s.mu.Lock()
		gone := s.idle
		s.idle, s.closed = nil, true
		s.mu.Unlock()
		for _, i := range gone {
			i.close()
		}
	}
}

// len is how many instances are idle.
func (p *pool) len() (n int) {
	for at := range p.shards {
		s := &p.shards[at]
		s.mu.Lock()
		n += len(s.idle)
		s.mu.Unlock()
	}
	return n
}
