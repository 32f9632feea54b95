package wasm

import (
	"bytes"
	crand "crypto/rand"
	"encoding/binary"
	"io"
	"math/rand/v2"
)

// An image holds what the guest drew from its randomness when it started, so all its forks would go on from the same
// state and draw the same "random" numbers. What generators are known are found in the image, and each fork is given
// seeds of its own. Known are the two of the Go runtime, which all of math/rand's functions draw from, and the keys of
// Rust's hash maps. Keys that existing maps were built with must stay; they are as secret as in any process that runs
// for long. crypto/rand, getrandom and the like ask the host each time.

// A seed is where random state is in an image.
type seed struct {
	at   int
	rust bool // else it is a Go ChaCha8 generator
}

// Layout of internal/chacha8rand.State, the same since Go 1.22.
const (
	chachaBuffer  = 32 * 8
	chachaSeed    = chachaBuffer // its offset
	chachaCursor  = chachaSeed + 4*8
	chachaCount   = chachaCursor + 4
	chachaCounter = chachaCursor + 8
	chachaSize    = chachaCursor + 12
)

// goStates finds generators: their buffer is what their seed makes, which nothing else happens to be.
func goStates(b []byte) (at []int) {
	le := binary.LittleEndian
	for i := 0; i+chachaSize <= len(b); i += 8 {
		n, c := le.Uint32(b[i+chachaCount:]), le.Uint32(b[i+chachaCounter:])
		if n < 28 || n > 32 || c > 12 || c%4 != 0 || le.Uint32(b[i+chachaCursor:]) > n || le.Uint64(b[i:]) == 0 {
			continue
		}
		state := append(make([]byte, 0, 48), "chacha8:"...)
		state = binary.BigEndian.AppendUint64(state, uint64(c/4*32))
		state = append(state, b[i+chachaSeed:i+chachaCursor]...)
		var g rand.ChaCha8
		if g.UnmarshalBinary(state) != nil {
			continue
		}
		same := true
		for k := 0; k < 4 && same; k++ {
			same = g.Uint64() == le.Uint64(b[i+8*k:])
		}
		if same {
			at = append(at, i)
		}
	}
	return at
}

// reseed makes the generator at b draw from a new seed: its buffer is used up, and the next one is made of that.
func reseed(b []byte) {
	le := binary.LittleEndian
	for k := range 4 {
		le.PutUint64(b[chachaSeed+8*k:], rand.Uint64())
	}
	le.PutUint32(b[chachaCursor:], 32)
	le.PutUint32(b[chachaCount:], 32)
	le.PutUint32(b[chachaCounter:], 0)
}

// rustKeys finds the two numbers that Rust's standard library makes the keys of new hash maps of: drawn once, and the
// first counted up for each map, so that of all places with such numbers it is the one with the largest.
func rustKeys(b []byte, drawn [][]byte) (at []int) {
	const many = 1 << 20 // maps
	le := binary.LittleEndian
	for _, d := range drawn {
		if len(d) != 16 {
			continue
		}
		found, most, unique := 0, uint64(0), false
		for i := 0; ; {
			k := bytes.Index(b[i:], d[8:])
			if k < 0 {
				break
			}
			i += k + 8
			if i < 16 {
				continue
			}
			switch n := le.Uint64(b[i-16:]) - le.Uint64(d); {
			case n == 0 || n > many:
			case n > most:
				found, most, unique = i-16, n, true
			case n == most:
				unique = false
			}
		}
		if unique {
			at = append(at, found)
		}
	}
	return at
}

// A recorder is a source of randomness that remembers what was drawn from it.
type recorder struct{ drawn [][]byte }

func (r *recorder) Read(b []byte) (int, error) {
	const enough = 1000
	n, err := io.ReadFull(crand.Reader, b)
	if len(r.drawn) < enough && n <= 64 {
		r.drawn = append(r.drawn, bytes.Clone(b[:n]))
	}
	return n, err
}

// refresh gives a fork seeds of its own.
func (im *image) refresh(memory []byte) {
	for _, s := range im.seeds {
		if !s.rust {
			reseed(memory[s.at:])
			continue
		}
		binary.LittleEndian.PutUint64(memory[s.at:], rand.Uint64())
		binary.LittleEndian.PutUint64(memory[s.at+8:], rand.Uint64())
	}
}
