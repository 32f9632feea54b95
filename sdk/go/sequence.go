package loam

import "github.com/loam-run/loam/sdk/go/internal/api"

// A SequenceStore is a component of the sequence capability: numbers that never come twice.
type SequenceStore struct{ component string }

// Sequence is the component of that name, the default one for "".
func Sequence(component string) SequenceStore { return SequenceStore{component} }

// Next returns the next number of key; the first is 1, and some may be left out.
func (s SequenceStore) Next(key string) (int64, error) { return s.NextN(key, 1) }

// NextN reserves n numbers and returns the first of them.
func (s SequenceStore) NextN(key string, n int64) (first int64, err error) {
	var resp api.SequenceNextResponse
	err = call("sequence.Next", &api.SequenceNextRequest{Component: s.component, Key: key, Count: n}, &resp)
	return resp.First, err
}
