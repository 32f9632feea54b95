package grpc

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// A Message is what is sent and received: it writes itself in the proto3 wire format, and reads itself, adding to what it
// holds. What it read may share the bytes it was given, which are its own from then on.
type Message interface {
	AppendProto([]byte) []byte
	ParseProto([]byte) error
}

// Raw is a message that is not looked into.
type Raw []byte

// AppendProto appends the bytes.
func (r *Raw) AppendProto(b []byte) []byte { return append(b, *r...) }

// ParseProto takes the bytes.
func (r *Raw) ParseProto(b []byte) error { *r = b; return nil }

// MaxMessage is how large a message may be where nobody says otherwise.
const MaxMessage = 4 << 20

// frameHeader is a byte that says whether the message is compressed, and four of its length.
const frameHeader = 5

// appendFrame adds m behind its frame's header.
func appendFrame(b []byte, m Message) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, 0)
	b = m.AppendProto(b)
	binary.BigEndian.PutUint32(b[start+1:], uint32(len(b)-start-frameHeader))
	return b
}

// A frames takes messages from a body.
type frames struct {
	body   io.Reader
	max    int
	budget *protocol.Budget // of what messages hold
	held   int              // bytes of it, of the message that was taken last
	gzip   bool             // what says that it is compressed is so
	err    error
	ahead
}

// ahead is what was read and not taken yet. Small messages come whole by one Read.
type ahead struct {
	from, to int
	b        [1 << 10]byte
}

func (f *frames) begin(body io.Reader, most int, encoding string) error {
	f.body, f.max, f.gzip, f.err, f.from, f.to = body, most, false, nil, 0, 0
	if f.max <= 0 {
		f.max = MaxMessage
	}
	switch encoding {
	case "", "identity":
	case "gzip":
		f.gzip = true
	default:
		return NewStatus(loam.Unimplemented, "grpc: messages compressed by "+encoding+" are not taken, only by gzip")
	}
	return nil
}

// next returns a message in memory of its own. The error is io.EOF where there is none any more.
func (f *frames) next() ([]byte, error) {
	for f.to-f.from < frameHeader {
		if err := f.fill(); err != nil {
			if errors.Is(err, io.EOF) && f.to > f.from {
				return nil, errTruncated
			}
			return nil, err
		}
	}
	flag, size := f.b[f.from], binary.BigEndian.Uint32(f.b[f.from+1:])
	f.from += frameHeader
	if f.held > 0 {
		_ = f.hold(0) // giving back is never refused
	}
	switch {
	case flag > 1:
		return nil, errFrame
	case flag == 1 && !f.gzip:
		return nil, NewStatus(loam.Internal, "grpc: a message is compressed, and grpc-encoding does not say how")
	case uint64(size) > uint64(f.max):
		return nil, tooLarge(uint64(size), f.max)
	}
	m, err := f.take(int(size))
	if err != nil || flag == 0 {
		return m, err
	}
	if m, err = inflate(m, f.max); err != nil {
		return nil, err
	}
	return m, f.hold(len(m))
}

// take reads the n bytes of a message. Memory is made as they come: who only announces a large one gets none.
func (f *frames) take(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	m := make([]byte, 0, min(n, protocol.Free))
	c := min(n, f.to-f.from)
	m = append(m, f.b[f.from:f.from+c]...)
	f.from += c
	if o, ok := f.body.(protocol.Owing); ok && n > protocol.Free {
		o.Owe(true)
		defer o.Owe(false)
	}
	for len(m) < n {
		if len(m) == cap(m) {
			if err := f.hold(min(n, 4*cap(m))); err != nil {
				return nil, err
			}
			grown := make([]byte, len(m), min(n, 4*cap(m)))
			copy(grown, m)
			m = grown
		}
		c, err := f.body.Read(m[len(m):min(n, cap(m))])
		m = m[:len(m)+c]
		if err != nil && len(m) < n {
			if errors.Is(err, io.EOF) {
				err = errTruncated
			}
			return nil, err
		}
		f.err = err
	}
	return m, nil
}

// hold takes of the budget what a message of n bytes holds, in place of the one before.
func (f *frames) hold(n int) error {
	err := f.budget.Resize(f.held, n)
	if err == nil {
		f.held = n
	}
	return err
}

// fill reads ahead.
func (f *frames) fill() error {
	if f.err != nil {
		return f.err
	}
	f.to = copy(f.b[:], f.b[f.from:f.to])
	f.from = 0
	if f.body == nil {
		return io.EOF
	}
	n, err := f.body.Read(f.b[f.to:])
	f.to += n
	if f.err = err; n > 0 {
		return nil
	}
	return err
}

// only returns the one message that there must be.
func (f *frames) only() ([]byte, error) {
	m, err := f.next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errNoMessage
		}
		return nil, err
	}
	if _, err = f.next(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errMessages
		}
		return nil, err
	}
	return m, nil
}

var (
	errTruncated = NewStatus(loam.Internal, "grpc: the body ends within a message")
	errNoMessage = NewStatus(loam.Internal, "grpc: a call of one message came without it")
	errFrame     = NewStatus(loam.Internal, "grpc: a frame is marked in a way that nobody knows")
	errMessages  = NewStatus(loam.Internal, "grpc: a call of one message came with more")
)

// malformed tells whether it is the client who is at fault, though gRPC calls it Internal: nobody needs to read of it in a log.
func malformed(err error) bool {
	return errors.Is(err, errMessage) || errors.Is(err, errTruncated) || errors.Is(err, errNoMessage) || errors.Is(err, errMessages) || errors.Is(err, errFrame)
}

func tooLarge(size uint64, most int) error {
	return loam.Errorf(loam.ResourceExhausted, "grpc", "a message of %d bytes, where at most %d are taken", size, most)
}

// inflate undoes gzip.
func inflate(b []byte, most int) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(z, int64(most)+1))
	}
	switch {
	case err != nil:
		return nil, NewStatus(loam.Internal, "grpc: a message is not what its compression says: "+err.Error())
	case len(b) > most:
		return nil, tooLarge(uint64(len(b)), most)
	}
	return b, nil
}

// parse reads a message.
func parse(m Message, b []byte) error {
	if err := m.ParseProto(b); err != nil {
		return &loam.Error{Code: loam.Internal, Op: "grpc", Err: errors.Join(errMessage, err)}
	}
	return nil
}

var errMessage = errors.New("a message cannot be read")
