package policy

import (
	"io"

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

// replay is a body that remembers what was read of it, up to a bound, to give it again. What reads it streams as before.
type replay struct {
	from  io.ReadCloser
	most  int
	kept  []byte
	at    int   // of kept that was given again; len(kept): the next bytes come from from
	lost  bool  // more was read than is kept
	ended error // what from answered at its end
}

func (r *replay) Read(p []byte) (int, error) {
	if r.at < len(r.kept) {
		n := copy(p, r.kept[r.at:])
		r.at += n
		return n, nil
	}
	if r.ended != nil {
		return 0, r.ended
	}
	n, err := r.from.Read(p)
	if len(r.kept)+n > r.most {
		r.lost, r.kept, r.at = true, nil, 0
	} else if !r.lost {
		r.kept = append(r.kept, p[:n]...)
		r.at = len(r.kept)
	}
	r.ended = err
	return n, err
}

// Rewind begins the body anew. It is false where bytes of it are gone, or it broke off.
func (r *replay) Rewind() bool {
	if r.lost || r.ended != nil && r.ended != io.EOF {
		return false
	}
	r.at = 0
	return true
}

// Buffered is how many bytes a Read gives without waiting.
func (r *replay) Buffered() int {
	if n := len(r.kept) - r.at; n > 0 {
		return n
	}
	if b, ok := r.from.(bufferer); ok && r.ended == nil {
		return b.Buffered()
	}
	return 0
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
