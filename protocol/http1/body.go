package http1

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// reader reads a connection through a buffer. Bytes below base belong to a head whose strings stand there.
type reader struct {
	conn net.Conn
	buf  []byte
	base int // where the head ends: nothing below it is overwritten
	r, w int // buf[r:w] was read and not yet used

	task     loam.Task
	req      *loam.Request
	patience time.Duration // how long one read may wait, unless req.Idle says so

	rate   int64         // bytes a second that the sender owes for what it is waited for beyond patience; 0: none
	came   int64         // bytes read so far
	waited time.Duration // for them
}

// soon is when a wait that begins now must end.
func soon(t loam.Task, patience time.Duration, deadline time.Time) time.Time {
	if patience == 0 {
		return deadline
	}
	at := t.Now().Add(patience)
	if !deadline.IsZero() && deadline.Before(at) {
		return deadline
	}
	return at
}

// read reads into p straight from the connection.
func (r *reader) read(p []byte) (int, error) {
	wait := cmp.Or(r.req.Idle, r.patience)
	if r.rate > 0 {
		earned := time.Duration(float64(r.came) / float64(r.rate) * float64(time.Second))
		wait = max(min(wait, r.patience+earned-r.waited), time.Millisecond)
	}
	if err := r.conn.SetReadDeadline(soon(r.task, wait, r.req.Deadline())); err != nil {
		return 0, err
	}
	if r.rate == 0 {
		return r.conn.Read(p)
	}
	began := r.task.Now()
	n, err := r.conn.Read(p)
	r.came, r.waited = r.came+int64(n), r.waited+r.task.Now().Sub(began)
	return n, err
}

// fill reads more into the buffer, moving what is unread to the front. It fails where there is no room.
func (r *reader) fill() error {
	if r.r == r.w {
		r.r, r.w = r.base, r.base
	} else if r.w == len(r.buf) && r.r > r.base {
		r.w = r.base + copy(r.buf[r.base:], r.buf[r.r:r.w])
		r.r = r.base
	}
	if r.w == len(r.buf) {
		return errHead
	}
	n, err := r.read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil
	}
	return cmp.Or(err, io.ErrNoProgress)
}

// body is the body of the message whose head was read by its reader.
type body struct {
	*reader
	message
	lim     *Limits
	left    int64 // bytes of the present chunk, or of the whole with a length
	got     int64
	most    int64 // bytes at most; negative: no bound
	excess  int64 // bytes of chunk framing beyond what the data excuses
	begun   bool  // a chunk was begun before: its end is due
	ended   bool
	request bool  // it is a request's: who broke the rules is the client
	err     error // what every further Read answers
	trailer *loam.Header
	first   func() error // called before the first Read; nil: nothing is due
}

// start readies b for a message. most bounds its bytes.
func (b *body) start(r *reader, m message, lim *Limits, most int64, trailer *loam.Header) {
	*b = body{reader: r, message: m, lim: lim, most: most, trailer: trailer, ended: m.framing == bodyNone}
	if m.framing == bodyLength {
		b.left = m.length
	}
}

// Buffered is how many bytes a Read gives without waiting.
func (b *body) Buffered() int {
	n := int64(b.w - b.r)
	switch b.framing {
	case bodyLength:
		return int(min(n, b.left))
	case bodyChunked:
		if b.left == 0 && n > 0 && !b.ended {
			return b.peekChunk()
		}
		return int(min(n, b.left))
	}
	return int(n)
}

// peekChunk is how many bytes of the next chunk are in the buffer, 0 where its size is not.
func (b *body) peekChunk() int {
	p := b.buf[b.r:b.w]
	if b.begun {
		if len(p) < 2 {
			return 0
		}
		p = p[2:]
	}
	i := bytes.IndexByte(p, '\n')
	if i < 1 {
		return 0
	}
	size, err := chunkSize(p[:i-1])
	if err != nil {
		return 0
	}
	return int(min(size, int64(len(p)-i-1)))
}

// Read reads the body's bytes. io.EOF comes once the body was whole; another error is for good.
func (b *body) Read(p []byte) (int, error) {
	if b.first != nil {
		f := b.first
		b.first = nil
		if err := f(); err != nil {
			b.err = err
		}
	}
	if b.err != nil {
		return 0, b.err
	}
	if b.ended {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.next(p)
	b.got += int64(n)
	if b.most >= 0 && b.got > b.most {
		n, err = 0, errTooLarge
	}
	if err != nil {
		if errors.Is(err, io.EOF) && !b.ended {
			err = io.ErrUnexpectedEOF
		}
		if b.request {
			if r, ok := errors.AsType[*refusal](err); ok {
				err = r.ofRequest(b.most)
			} else if d := b.req.Deadline(); errors.Is(err, os.ErrDeadlineExceeded) && (d.IsZero() || b.task.Now().Before(d)) {
				err = protocol.ErrSlowBody
			}
		}
		if !errors.Is(err, io.EOF) {
			b.err = err
		}
	}
	return n, err
}

func (b *body) next(p []byte) (int, error) {
	if b.framing == bodyChunked && b.left == 0 {
		if err := b.chunk(); err != nil || b.ended {
			return 0, cmp.Or(err, io.EOF)
		}
	}
	if b.framing != bodyToEnd && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n := 0
	var err error
	if b.r < b.w {
		n = copy(p, b.buf[b.r:b.w])
		b.r += n
	} else {
		n, err = b.read(p)
	}
	if b.framing == bodyToEnd {
		if errors.Is(err, io.EOF) {
			b.ended = true
		}
		return n, err
	}
	b.left -= int64(n)
	if b.left == 0 && b.framing == bodyLength {
		b.ended = true
		return n, nil
	}
	if n > 0 {
		err = nil // it comes again, should it matter
	}
	return n, err
}

// chunk reads up to the next chunk's data, or the trailer and the body's end.
func (b *body) chunk() error {
	if b.begun {
		for b.w-b.r < 2 {
			if err := b.fill(); err != nil {
				return err
			}
		}
		if b.buf[b.r] != '\r' || b.buf[b.r+1] != '\n' {
			return errChunk
		}
		b.r += 2
	}
	var line []byte
	for from := 0; ; {
		if i := bytes.IndexByte(b.buf[b.r+from:b.w], '\n'); i >= 0 {
			line = b.buf[b.r : b.r+from+i]
			break
		}
		if from = b.w - b.r; from > 1024 {
			return errChunk
		}
		if err := b.fill(); err != nil {
			return err
		}
	}
	if len(line) > 1024 || len(line) == 0 || line[len(line)-1] != '\r' {
		return errChunk
	}
	size, err := chunkSize(line[:len(line)-1])
	if err != nil {
		return err
	}
	b.r += len(line) + 1
	// Chunks of one byte, or extensions as long as a line may be, make us read far more than is sent on.
	b.excess = max(0, b.excess+int64(len(line))+2-16-2*size)
	if b.excess > 16<<10 {
		return errChunk
	}
	if b.most >= 0 && b.got+size > b.most {
		return errTooLarge
	}
	b.begun, b.left = true, size
	if size == 0 {
		return b.end()
	}
	return nil
}

// chunkSize reads the size and looks over what follows it: an extension is skipped, anything else is refused.
func chunkSize(line []byte) (n int64, err error) {
	i := 0
	for ; i < len(line); i++ {
		c := line[i]
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			if i == 0 || c != ';' || !printable(line[i:]) {
				return 0, errChunk
			}
			return n, nil
		}
		if i == 15 {
			return 0, errChunk
		}
		n = n<<4 | int64(c)
	}
	if i == 0 {
		return 0, errChunk
	}
	return n, nil
}

// end reads the trailer. Its strings stand in the buffer, which is not read into any more before the message is over.
func (b *body) end() error {
	for {
		*b.trailer = (*b.trailer)[:0]
		f := fields{host: -1}
		var m message
		n, err := f.parse(b.buf[b.r:b.w], 0, b.lim, b.trailer, &m)
		if err != nil {
			return err
		}
		if n > 0 {
			if f.hosts+f.lengths+f.codings > 0 || m.close || m.upgrade || m.expect {
				return errTrailer
			}
			b.r += n
			b.ended = true
			return nil
		}
		if err := b.fill(); err != nil {
			return err
		}
	}
}

// Close has no work: who owns the connection decides what becomes of bytes that were not read.
func (b *body) Close() error {
	if b.err == nil && !b.ended {
		b.err = errClosed
	}
	return nil
}

var errClosed = errors.New("the body was closed")

// discard reads the rest of the body as far as limit bytes go, and tells whether that was all of it.
func (b *body) discard(limit int64) bool {
	if errors.Is(b.err, errClosed) {
		b.err = nil
	}
	if b.ended && b.err == nil {
		return true
	}
	if b.first != nil || b.framing == bodyLength && b.left > limit {
		return false
	}
	var scrap [4096]byte
	for limit > 0 {
		n, err := b.Read(scrap[:])
		limit -= int64(n)
		if err != nil {
			return errors.Is(err, io.EOF)
		}
	}
	return b.ended
}
