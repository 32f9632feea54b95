//go:build !linux

package wasm

import (
	"bytes"

	"github.com/tetratelabs/wazero/experimental"
)

// Elsewhere than on Linux forks are copies.
type (
	imageFile struct{}
	mapper    struct{ how string }
)

func newMapper() *mapper { return &mapper{"copy: this is not Linux"} }

func (*mapper) used() int64 { return 0 }

func (*mapper) close() {}

func (*mapper) runs(b []byte) []run { return runsOf(b) }

func (*mapper) plain(limit uint64) experimental.LinearMemory { return &sliceMemory{limit: limit} }

func (m *mapper) keep(im *image) error {
	im.bytes, im.how = bytes.Clone(im.bytes), m.how
	return nil
}

func (im *image) free() { im.bytes = nil }

func (m *mapper) fork(im *image, limit uint64) (memory, error) {
	return &copiedMemory{image: im, mapper: m, limit: limit}, nil
}
