package loop

import (
	"sync"

	"github.com/loam-run/loam"
)

// A Buffer is room for bytes that is lent while there are some. Waiting for them needs none: Conn.Ready, then Borrow.
type Buffer struct {
	B     []byte // all of it
	class uint8
}

// bufferSizes are the sizes that are lent.
var bufferSizes = [...]int{4 << 10, 16 << 10, 32 << 10}

// MaxBuffer is the size of the largest buffer that is lent.
const MaxBuffer = 32 << 10

// Borrow lends a buffer of at least size bytes, or of MaxBuffer where that is less. What was given back last is lent
// first, so that while nobody waits with a buffer in hand one of them serves a whole loop and stays in its cache. What
// it holds is whatever its last user left.
func Borrow(t loam.Task, size int) *Buffer {
	class := classOf(size)
	if l, ok := t.(looped); ok {
		return l.lend(class)
	}
	if b, ok := buffers[class].Get().(*Buffer); ok {
		return b
	}
	return newBuffer(class)
}

// Free gives the buffer back, by the task that borrowed it or another one of its loop. The buffer is not touched after.
func (b *Buffer) Free(t loam.Task) {
	if l, ok := t.(looped); ok {
		l.giveBack(b)
		return
	}
	buffers[b.class].Put(b)
}

// classOf is the smallest class that has room for size bytes, or the largest there is.
func classOf(size int) (class uint8) {
	for int(class) < len(bufferSizes)-1 && bufferSizes[class] < size {
		class++
	}
	return class
}

func newBuffer(class uint8) *Buffer {
	return &Buffer{B: make([]byte, bufferSizes[class]), class: class}
}

// buffers are those of tasks that are goroutines.
var buffers [len(bufferSizes)]sync.Pool
