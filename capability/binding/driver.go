package binding

import "context"

// A Driver is what a component implements to offer bindings: Output, Input or both, beside Close. Every method may be
// called from many goroutines at once.
type Driver interface {
	Close() error
}

// An Output is a Driver that does what a caller asks of the system outside.
type Output interface {
	// Operations are those that Invoke knows, in lower case. None: it takes any.
	Operations() []string
	// Invoke does one. It may answer a Response beside an error: what the system outside said of the failure.
	Invoke(ctx context.Context, r Request) (Response, error)
}

// An Input is a Driver that brings what happens outside.
type Input interface {
	// Read hands each thing that happens to handle, until ctx ends, which is no error. It returns early where it cannot go
	// on. What handle answers with an error is brought again where the system outside can do that.
	Read(ctx context.Context, handle Handler) error
}

// A Handler takes what an input read. Its answer is for systems that await one.
type Handler func(ctx context.Context, e Event) ([]byte, error)

// A Request is one operation for an output.
type Request struct {
	Operation string
	Data      []byte
	Metadata  map[string]string
	MaxAnswer int // bytes of Response.Data that the caller can take; 0: MaxData. A driver that reads them stops there
}

// A Response is what became of it.
type Response struct {
	Data     []byte
	Metadata map[string]string
}

// An Event is what an input read.
type Event struct {
	Data        []byte
	Metadata    map[string]string
	ContentType string // of Data; empty: not known
}
