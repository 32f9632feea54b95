//go:build !linux

package wasm

import "testing"

func otherWays(*testing.T) map[string]*Host { return nil }

func allMemory(i *instance) []byte {
	m := i.memory.(*sliceMemory)
	return m.buf[:cap(m.buf)]
}
