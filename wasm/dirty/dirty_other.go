//go:build !(linux && amd64)

package dirty

import "errors"

// A Memory is a mapping that is watched.
type Memory struct{}

// Watch is not possible here.
func Watch([]byte) (*Memory, error) {
	return nil, errors.New("writes are watched on Linux for amd64 only")
}

// Pages are the numbers of the pages that were written.
func (*Memory) Pages() (pages []uint32, all bool) { return nil, false }

// Stop ends watching.
func (*Memory) Stop() {}

// Forget ends watching.
func (*Memory) Forget() {}
