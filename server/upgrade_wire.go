package server

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/loam-run/loam"
)

// wireVersion is of what two processes say to each other in an upgrade. A process that does not know the other's refuses.
const wireVersion = 1

// Bounds of a message.
const (
	maxHead    = 4 << 20   // bytes of its JSON
	maxPayload = 128 << 20 // bytes beside it
	maxFiles   = 200       // descriptors; the kernel takes 253
)

// A message is what one of two processes says to the other in an upgrade: eight bytes that tell the lengths of both parts
// (big endian, 32 bits each), a head in JSON, and a payload that is what it is. Descriptors travel with its first byte.
type message struct {
	Kind  string          `json:"kind"`
	ID    uint64          `json:"id,omitempty"` // of a call
	Files int             `json:"files,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`

	payload []byte
	files   []*os.File
}

// into decodes the message's body.
func (m *message) into(v any) error {
	if err := json.Unmarshal(m.Body, v); err != nil {
		return fmt.Errorf("%s: %w", m.Kind, err)
	}
	return nil
}

// close lets go of descriptors that nobody took.
func (m *message) close() {
	for _, f := range m.files {
		f.Close()
	}
	m.files = nil
}

// A wire carries messages both ways between two processes.
type wire struct {
	conn *net.UnixConn

	sending sync.Mutex
	out     []byte

	// The receiver's.
	in    []byte
	files []*os.File // that came, and belong to no message yet
}

// newWire takes over one end of a socket pair.
func newWire(f *os.File) (*wire, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("it is no unix socket")
	}
	return &wire{conn: u}, nil
}

// socketPair makes two ends of a wire.
func socketPair() (*os.File, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "upgrade"), os.NewFile(uintptr(fds[1]), "upgrade"), nil
}

// send says something to the other process. The files remain the caller's.
func (w *wire) send(kind string, id uint64, body any, payload []byte, files ...*os.File) error {
	m := message{Kind: kind, ID: id, Files: len(files)}
	var err error
	if body != nil {
		if m.Body, err = json.Marshal(body); err != nil {
			return err
		}
	}
	head, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(head) > maxHead || len(payload) > maxPayload || len(files) > maxFiles {
		return loam.Errorf(loam.ResourceExhausted, "upgrade: "+kind, "a message of %d bytes with %d files is too large", len(head)+len(payload), len(files))
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			raw, err := f.SyscallConn() // not by Fd, which makes it block
			if err == nil {
				err = raw.Control(func(fd uintptr) { fds[i] = int(fd) })
			}
			if err != nil {
				return err
			}
		}
		rights = syscall.UnixRights(fds...)
	}
	w.sending.Lock()
	defer w.sending.Unlock()
	b := binary.BigEndian.AppendUint32(w.out[:0], uint32(len(head)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(append(b, head...), payload...)
	if cap(b) <= 1<<20 {
		w.out = b[:0]
	}
	n, _, err := w.conn.WriteMsgUnix(b, rights, nil)
	if err == nil && n < len(b) {
		_, err = w.conn.Write(b[n:])
	}
	return err
}

// receive waits for a message.
func (w *wire) receive() (*message, error) {
	for {
		m, n, err := parseMessage(w.in)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			w.in = append(w.in[:0], w.in[n:]...)
			if m.Files > len(w.files) {
				return nil, errors.New("a message lacks its files")
			}
			m.files = append(m.files, w.files[:m.Files]...)
			w.files = append(w.files[:0], w.files[m.Files:]...)
			return m, nil
		}
		if err := w.fill(); err != nil {
			return nil, err
		}
	}
}

// parseMessage reads a message off b and tells how many bytes it had; 0: it is not there yet.
func parseMessage(b []byte) (*message, int, error) {
	if len(b) < 8 {
		return nil, 0, nil
	}
	head, payload := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if head > maxHead || payload > maxPayload {
		return nil, 0, errors.New("a message is too large")
	}
	end := 8 + head + payload
	if int64(len(b)) < end {
		return nil, 0, nil
	}
	m := &message{}
	if err := json.Unmarshal(b[8:8+head], m); err != nil {
		return nil, 0, fmt.Errorf("a message is broken: %w", err)
	}
	if m.Files < 0 || m.Files > maxFiles {
		return nil, 0, errors.New("a message has too many files")
	}
	m.payload = append([]byte(nil), b[8+head:end]...)
	return m, int(end), nil
}

// fill reads more of what the other process said.
func (w *wire) fill() error {
	if cap(w.in)-len(w.in) < 4<<10 {
		more := make([]byte, len(w.in), 2*cap(w.in)+64<<10)
		copy(more, w.in)
		w.in = more
	}
	rights := make([]byte, syscall.CmsgSpace(4*253))
	n, oob, flags, _, err := w.conn.ReadMsgUnix(w.in[len(w.in):cap(w.in)], rights)
	if n > 0 {
		w.in = w.in[:len(w.in)+n]
	}
	if oob > 0 {
		if err := w.take(rights[:oob]); err != nil {
			return err
		}
	}
	switch {
	case err != nil:
		return err
	case flags&syscall.MSG_CTRUNC != 0:
		return errors.New("descriptors were lost: this process may have too few left")
	case n == 0:
		return io.EOF
	case len(w.files) > 2*maxFiles:
		return errors.New("more files came than messages have")
	}
	return nil
}

// take keeps the descriptors of a control message.
func (w *wire) take(rights []byte) error {
	all, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return err
	}
	for i := range all {
		fds, err := syscall.ParseUnixRights(&all[i])
		if err != nil {
			return err
		}
		for _, fd := range fds {
			w.files = append(w.files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return nil
}

// close ends the wire; the other process sees its end.
func (w *wire) close() {
	_ = w.conn.Close() // the other process may be gone: then there is nobody to tell
}
