package protocol

import "github.com/loam-run/loam"

// A Bound is a body whose Read waits for another task and not for a connection: it cannot know by itself which task calls.
// Who reads a body in another task than its request's binds it first, and to nil when it reads no more before the end.
type Bound interface {
	Bind(t loam.Task)
}

// A Whole is a body that is in memory, of which nothing was read yet. Who sends it takes it at once instead of reading it,
// and needs no buffer. The bytes are valid until Close.
type Whole interface {
	Whole() []byte
}

// An Owing is a body of a stream whose sender may be silent for long between two messages, but not within one. Its reader
// says when it waits for what the head of a message announced.
type Owing interface {
	Owe(on bool)
}

// Bind binds a body that has to be.
func Bind(body any, t loam.Task) {
	if b, ok := body.(Bound); ok {
		b.Bind(t)
	}
}
