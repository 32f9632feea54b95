//go:build !linux

package wasm

import "testing"

func otherWays(*testing.T) map[string]*Host { return nil }

func allMemory(i *instance) []byte {
	m := i.memory.(*copiedMemory)
	if g, ok := m.grown.(*sliceMemory); ok {
		return g.buf[:cap(g.buf)]
	}
	return m.home
}
