//go:build !linux

package wasm

// Elsewhere than on Linux forks are copies.
type (
	imageFile struct{}
	mapper    struct{}
)

func newMapper() *mapper { return new(mapper) }

func (*mapper) used() int64 { return 0 }

func (*mapper) close() {}

func (*mapper) keep(im *image) error {
	im.how = "copy: this is not Linux"
	return nil
}

func (im *image) free() { im.bytes = nil }

func (im *image) fork(limit uint64) (memory, error) {
	return &sliceMemory{image: im, limit: limit}, nil
}
