package wasm

import (
	"context"

	"github.com/loam-run/loam"
)

// Hold loads the function and forks an instance that serves nothing until it is released: for measurements of what it
// costs to make one, and to have many. It is an error where the function has no image.
func (m *Module) Hold(ctx context.Context) (release func(), err error) {
	m.mu.Lock()
	p := m.program
	m.mu.Unlock()
	if p == nil {
		if err := m.load(ctx); err != nil {
			return nil, err
		}
		return m.Hold(ctx)
	}
	if p.image == nil {
		return nil, loam.Errorf(loam.FailedPrecondition, op(m.name), "it has no image: %s", p.reason)
	}
	i, err := p.fork()
	if err != nil {
		return nil, err
	}
	return i.close, nil
}
