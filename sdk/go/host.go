package loam

import (
	"slices"
	"sync"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// serve answers the one request that is there.
func serve() {
	r, err := readRequest()
	if err != nil {
		panic("loam: the host's request is not readable: " + err.Error())
	}
	resp := answer(r)
	head := api.ResponseHead{Status: uint32(resp.Status), Headers: resp.Header.toAPI()}
	wire.Lock()
	defer wire.Unlock()
	wire.in = head.AppendProto(wire.in[:0])
	hostResponseHead(wire.in)
	if len(resp.Body) > 0 {
		hostResponseBody(resp.Body) // where nobody reads any more there is nobody to tell either
	}
}

func readRequest() (*Request, error) {
	wire.Lock()
	defer wire.Unlock()
	n := hostRequestHead(wire.out)
	if n > len(wire.out) {
		wire.out = make([]byte, n)
		n = hostRequestHead(wire.out)
	}
	head := api.RequestHead{Headers: make([]api.Header, 0, 16)} // most requests have no more
	if err := head.ParseProto(slices.Clone(wire.out[:n])); err != nil {
		return nil, err
	}
	return newRequest(&head), nil
}

// wire holds the buffers that messages cross in. The lock is for a handler's own goroutines: the collector may switch
// between them even in Wasm, and an answer that waits must be fetched by who called.
var wire = struct {
	sync.Mutex
	in, out []byte
}{out: make([]byte, 4<<10)}

type message interface {
	AppendProto([]byte) []byte
	ParseProto([]byte) error
}

// call makes one capability call. resp is nil where the answer says nothing.
func call(method string, req, resp message) error {
	wire.Lock()
	wire.in = req.AppendProto(wire.in[:0])
	packed := hostCall(method, wire.in, wire.out)
	code, n := Code(packed>>32), int(uint32(packed))
	if n > len(wire.out) {
		wire.out = make([]byte, n)
		n = max(hostResult(wire.out), 0)
	}
	answer := slices.Clone(wire.out[:n]) // the response's strings and byte fields stand in it
	wire.Unlock()

	if code != OK {
		e := api.Error{Message: method + " failed"}
		_ = e.ParseProto(answer) // the code alone says enough
		return &Error{Code: code, Message: e.Message, Hint: e.Hint}
	}
	if resp == nil {
		return nil
	}
	if err := resp.ParseProto(answer); err != nil {
		return Errorf(Internal, "%s: answer: %w", method, err)
	}
	return nil
}
