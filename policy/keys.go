package policy

import (
	"hash/maphash"
	"net/netip"
	"sync"

	"github.com/loam-run/loam"
)

// keyed holds a value for each of the keys that strangers send, but for no more than a bound: the one not used for longest
// makes room. It is split so that tasks seldom want the same lock.
type keyed[T any] struct {
	seed   maphash.Seed
	shards [keyShards]keyShard[T]
}

const keyShards = 16

type keyShard[T any] struct {
	mu    sync.Mutex
	most  int
	byKey map[string]*entry[T]
	// The entries from the last used one to that not used for longest, and round: first.prev is the last.
	first *entry[T]
	_     [64]byte
}

type entry[T any] struct {
	key        string
	prev, next *entry[T]
	value      T
}

func newKeyed[T any](most int) *keyed[T] {
	k := &keyed[T]{seed: maphash.MakeSeed()}
	for i := range k.shards {
		k.shards[i].most = max(most/keyShards, 1)
		k.shards[i].byKey = map[string]*entry[T]{}
	}
	return k
}

func (k *keyed[T]) shard(key []byte) *keyShard[T] {
	return &k.shards[maphash.Bytes(k.seed, key)%keyShards]
}

// with calls fn with the value of a key, which is zero where it is new, under a lock: fn must not wait. The key's bytes are
// the caller's again afterwards.
func (k *keyed[T]) with(key []byte, fn func(*T)) {
	s := k.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byKey[string(key)]
	if e == nil {
		if len(s.byKey) >= s.most {
			last := s.first.prev
			s.out(last)
			delete(s.byKey, last.key)
		}
		e = &entry[T]{key: string(key)}
		s.byKey[e.key] = e
		s.in(e)
	} else if s.first != e {
		s.out(e)
		s.in(e)
	}
	fn(&e.value)
}

// in puts e first.
func (s *keyShard[T]) in(e *entry[T]) {
	if s.first == nil {
		e.prev, e.next = e, e
	} else {
		e.prev, e.next = s.first.prev, s.first
		e.prev.next, e.next.prev = e, e
	}
	s.first = e
}

func (s *keyShard[T]) out(e *entry[T]) {
	if e.next == e {
		s.first = nil
		return
	}
	e.prev.next, e.next.prev = e.next, e.prev
	if s.first == e {
		s.first = e.next
	}
}

// client appends what a client is known by: its address, or the network that an IPv6 host commonly has for itself.
func client(b []byte, req *loam.Request) []byte {
	at, err := netip.ParseAddrPort(req.Remote)
	addr := at.Addr()
	if err != nil {
		if addr, err = netip.ParseAddr(req.Remote); err != nil {
			return append(b, req.Remote...)
		}
	}
	if addr = addr.Unmap(); addr.Is4() {
		v4 := addr.As4()
		return append(b, v4[:]...)
	}
	v6 := addr.As16()
	return append(b, v6[:8]...)
}
