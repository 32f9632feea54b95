package policy

import (
	"errors"
	"io"
	"sync"

	"github.com/loam-run/loam"
)

// rewinder is a body that may be able to begin anew, since all that was read of it is still in memory.
type rewinder interface{ Rewind() bool }

// keeper is a body that can itself keep what is read of it, up to so many bytes, so that Rewind begins it anew. It is false
// where it does not. What relays bodies without reading them knows its own from others': wrapped it would have to copy.
type keeper interface {
	rewinder
	Keep(most int) bool
}

// bufferer is a body that knows how many bytes a Read gives without waiting.
type bufferer interface{ Buffered() int }

// atHand tells whether all of a request's body is in memory and can be read from its beginning again.
func atHand(req *loam.Request) bool {
	b, ok := req.Body.(bufferer)
	if !ok || req.Length < 0 || int64(b.Buffered()) < req.Length {
		return false
	}
	_, ok = req.Body.(rewinder)
	return ok
}

// replay is a body that remembers what was read of it, up to a bound, to give it again. What reads it streams as before,
// maybe in a task of its own, as clients of HTTP/2 do: it has stopped when the answer was closed.
type replay struct {
	from io.ReadCloser
	most int

	mu    sync.Mutex // guards what follows; not held while from is read
	kept  []byte
	at    int   // of kept that was given again; len(kept): the next bytes come from from
	lost  bool  // more was read than is kept
	ended error // what from answered at its end
}

func (r *replay) Read(p []byte) (int, error) {
	r.mu.Lock()
	if r.at < len(r.kept) {
		defer r.mu.Unlock()
		n := copy(p, r.kept[r.at:])
		r.at += n
		return n, nil
	}
	ended := r.ended
	r.mu.Unlock()
	if ended != nil {
		return 0, ended
	}
	n, err := r.from.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost || len(r.kept)+n > r.most {
		r.lost, r.kept, r.at = true, nil, 0
	} else {
		r.kept = append(r.kept, p[:n]...)
		r.at = len(r.kept)
	}
	if loam.CodeOf(err) != loam.Canceled { // that one ends who reads, and not what is read
		r.ended = err
	}
	return n, err
}

// whole tells whether Rewind could begin the body anew.
func (r *replay) whole() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.lost && (r.ended == nil || errors.Is(r.ended, io.EOF))
}

// Rewind begins the body anew. It is false where bytes of it are gone, or it broke off.
func (r *replay) Rewind() bool {
	if !r.whole() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = 0
	return true
}

// Buffered is how many bytes a Read gives without waiting.
func (r *replay) Buffered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.kept) - r.at; n > 0 {
		return n
	}
	if b, ok := r.from.(bufferer); ok && r.ended == nil {
		return b.Buffered()
	}
	return 0
}

// start readies it for a body. What it kept of another one is room now.
func (r *replay) start(from io.ReadCloser, most int) {
	r.from, r.most, r.kept, r.at, r.lost, r.ended = from, most, r.kept[:0], 0, false, nil
}

// forget lets go of the body.
func (r *replay) forget() {
	r.start(nil, 0)
	if cap(r.kept) > 64<<10 {
		r.kept = nil
	}
}

// Close does nothing: who gave the body closes it, once no try follows.
func (r *replay) Close() error { return nil }

// discard ends an answer that nobody gets. Where the rest of it is there already, it is read, so that its connection can be
// used again.
func discard(res *loam.Response) {
	if res == nil {
		return
	}
	if b, ok := res.Body.(bufferer); ok && res.Length >= 0 && int64(b.Buffered()) >= res.Length && res.Tunnel == nil {
		_, _ = io.Copy(io.Discard, res.Body) // if it fails, its connection is not used again, which is what Close does then
	}
	_ = res.Close()
}
