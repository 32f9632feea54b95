package loop

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/loam-run/loam"
)

// TLS is a Conn that speaks TLS over another one, by crypto/tls.
//
// Of a bare tls.Conn it differs in that it waits outside of crypto/tls's locks: a task may read while another one
// writes, which would hang a loop for ever otherwise when the peer asks for new keys and does not read; that an error
// of a deadline is no end; that what crypto/tls has read ahead counts as there in Poll, Ready and Release; and that it
// writes all records of a Write at once. It says farewell (close_notify) whoever closes it.
type TLS struct {
	Conn // below
	raw  under
	tls  *tls.Conn
	wire wire

	session  Session
	idle     time.Duration
	released bool // since Serve began
	poll     bool
	dry      bool // the last read found nothing
	has      bool // ahead is a byte that was read to see whether there is one
	ahead    [1]byte

	mu      sync.Mutex // of what follows; never held in a wait
	writing bool       // a task writes
	closed  bool
}

// under is what both engines' connections are to TLS.
type under interface {
	Conn
	release(s Session, idle time.Duration, more bool)
	lend(class uint8) *Buffer
	giveBack(*Buffer)
	// now writes what can be written without waiting long.
	now(p []byte)
	// outside is a connection on the same socket for who is no task, until back is called.
	outside() (nc net.Conn, back func(), err error)
}

// TLSServer speaks TLS over c, a connection that an engine accepted, of which early was read already. Handshake comes
// first.
func TLSServer(c Conn, early []byte, config *tls.Config) *TLS {
	x := newTLS(c)
	x.wire.early = early
	x.tls = tls.Server(&x.wire, config)
	return x
}

// TLSClient speaks TLS over c, a connection that was dialed. Handshake comes first.
func TLSClient(c Conn, config *tls.Config) *TLS {
	x := newTLS(c)
	x.tls = tls.Client(&x.wire, config)
	return x
}

func newTLS(c Conn) *TLS {
	raw, ok := c.(under)
	if !ok {
		panic("loop: TLS stands on a Conn of an engine")
	}
	x := &TLS{Conn: c, raw: raw}
	x.wire = wire{Conn: c, x: x}
	return x
}

// wire is what crypto/tls takes for its socket. What it writes is kept until it may be waited for.
type wire struct {
	net.Conn        // that is read from
	x        *TLS   // for its lock
	early    []byte // read before TLS began: it comes first
	shaking  bool
	away     bool    // it is used outside of the loop, which lends nothing there
	buf      *Buffer // that due began in
	due      []byte
}

// maxDue is how much may be kept. Only a peer that asks for new keys again and again, and never reads, comes near it.
const maxDue = 128 << 10

var errFlood = &loam.Error{Code: loam.ResourceExhausted, Op: "tls", Err: errors.New("the peer makes us answer and does not read")}

func (w *wire) Read(p []byte) (int, error) {
	if w.shaking {
		if err := w.flush(w.Conn); err != nil {
			return 0, err
		}
	}
	if n := copy(p, w.early); n > 0 {
		if w.early = w.early[n:]; len(w.early) == 0 {
			w.early = nil
		}
		return n, nil
	}
	return w.Conn.Read(p)
}

func (w *wire) Write(p []byte) (int, error) {
	w.x.mu.Lock()
	defer w.x.mu.Unlock()
	if len(w.due)+len(p) > maxDue {
		return 0, errFlood
	}
	if w.buf == nil && !w.away {
		w.buf = w.x.raw.lend(classOf(MaxBuffer))
		w.due = append(w.buf.B[:0], w.due...)
	}
	w.due = append(w.due, p...)
	return len(p), nil
}

func (w *wire) Close() error                     { return nil } // TLS.Close closes
func (w *wire) SetDeadline(time.Time) error      { return nil } // and it has the deadlines
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// flush writes what is kept to c, and waits for it.
func (w *wire) flush(c net.Conn) error {
	for {
		buf, due := w.take()
		if len(due) == 0 {
			w.free(buf)
			return nil
		}
		n, err := c.Write(due)
		if err != nil {
			w.keep(buf, due[n:])
			return err
		}
		w.free(buf)
	}
}

func (w *wire) take() (*Buffer, []byte) {
	w.x.mu.Lock()
	defer w.x.mu.Unlock()
	buf, due := w.buf, w.due
	w.buf, w.due = nil, nil
	return buf, due
}

// keep puts back what could not be written, before what came since. TLS goes on with it when it is written to again.
func (w *wire) keep(buf *Buffer, due []byte) {
	w.x.mu.Lock()
	defer w.x.mu.Unlock()
	due = append(append([]byte(nil), due...), w.due...)
	if buf != nil {
		w.x.raw.giveBack(buf)
	}
	if w.buf != nil {
		w.x.raw.giveBack(w.buf)
		w.buf = nil
	}
	w.due = due
}

func (w *wire) free(buf *Buffer) {
	if buf != nil {
		w.x.raw.giveBack(buf)
	}
}

// Handshake shakes hands, in the task that has the connection, within its deadlines. away: the computing is done on
// another thread (Await), for keys that take long: RSA, mostly.
func (x *TLS) Handshake(t loam.Task, away bool) error {
	x.wire.shaking = true
	defer func() { x.wire.shaking = false }()
	if !away || t.Shard() == 0 {
		err := x.tls.HandshakeContext(context.Background()) // a context that can end would cost a goroutine
		return x.shaken(err, x.Conn)
	}
	nc, back, err := x.raw.outside()
	if err != nil {
		return err
	}
	defer back()
	x.wire.Conn, x.wire.away = nc, true
	defer func() { x.wire.Conn, x.wire.away = x.Conn, false }()
	stop := context.AfterFunc(t.Context(), func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	t.Await(func() { err = x.shaken(x.tls.HandshakeContext(context.Background()), nc) })
	if err != nil && t.Context().Err() != nil {
		return t.Context().Err()
	}
	return err
}

// shaken sends the last words of a handshake, be they those of its failure.
func (x *TLS) shaken(err error, c net.Conn) error {
	if ferr := x.wire.flush(c); err == nil {
		err = ferr
	}
	return err
}

// ConnectionState is what the handshake has agreed on.
func (x *TLS) ConnectionState() tls.ConnectionState { return x.tls.ConnectionState() }

// NetConn is the connection below.
func (x *TLS) NetConn() net.Conn { return x.Conn }

// try reads what is there, and answers ErrAgain where there is nothing.
func (x *TLS) try(p []byte) (int, error) {
	x.Conn.Poll(true)
	n, err := x.tls.Read(p)
	x.Conn.Poll(false)
	x.dry = n == 0 && errors.Is(err, ErrAgain)
	return n, err
}

func (x *TLS) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if x.has {
		p[0], x.has = x.ahead[0], false
		n := 0
		if len(p) > 1 {
			n, _ = x.try(p[1:]) // an error shows again at the next read
		}
		return 1 + n, nil
	}
	for {
		n, err := x.try(p)
		switch {
		case !x.dry:
			return n, err
		case x.poll:
			return 0, ErrAgain
		}
		if err := x.Conn.Ready(); err != nil {
			return 0, err
		}
	}
}

// peek reads a byte ahead, and tells whether a read would not wait.
func (x *TLS) peek() (bool, error) {
	if x.has {
		return true, nil
	}
	n, err := x.try(x.ahead[:])
	x.has = n == 1
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, err
	}
	return !x.dry, nil
}

// Ready waits until a Read would not.
func (x *TLS) Ready() error {
	for {
		if there, err := x.peek(); there || err != nil {
			return err
		}
		if err := x.Conn.Ready(); err != nil {
			return err
		}
	}
}

// Poll makes Read answer ErrAgain where it would have to wait.
func (x *TLS) Poll(on bool) { x.poll = on }

// mayWrite tells whether the calling task may write from now on, until wrote.
func (x *TLS) mayWrite() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.closed:
		return net.ErrClosed
	case x.writing:
		return errBusyTLS
	}
	x.writing = true
	return nil
}

func (x *TLS) wrote() {
	x.mu.Lock()
	x.writing = false
	x.mu.Unlock()
}

var errBusyTLS error = &loam.Error{Code: loam.FailedPrecondition, Op: "loop", Err: errors.New("another task writes to the connection")}

// chunk is how much is encrypted before it is waited for.
const chunk = 16 << 10

func (x *TLS) Write(p []byte) (done int, err error) {
	if err := x.mayWrite(); err != nil {
		return 0, err
	}
	defer x.wrote()
	if err := x.wire.flush(x.Conn); err != nil { // what a deadline has left
		return 0, err
	}
	for len(p) > 0 {
		n, err := x.tls.Write(p[:min(len(p), chunk)])
		if err == nil {
			err = x.wire.flush(x.Conn)
		}
		done += n
		if err != nil {
			return done, err
		}
		p = p[n:]
	}
	return done, nil
}

// CloseWrite tells the peer that nothing more comes.
func (x *TLS) CloseWrite() error {
	if err := x.mayWrite(); err != nil {
		return err
	}
	defer x.wrote()
	if err := x.tls.CloseWrite(); err != nil {
		return err
	}
	return x.wire.flush(x.Conn)
}

// Close says farewell as far as that can be done at once, and closes the connection.
func (x *TLS) Close() error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return net.ErrClosed
	}
	x.closed = true
	writing := x.writing
	x.mu.Unlock()
	if !writing { // else a half of a record may be out
		_ = x.tls.Close() // a peer that is gone needs no farewell
		buf, due := x.wire.take()
		x.raw.now(due)
		x.wire.free(buf)
	}
	return x.Conn.Close()
}

// Release leaves the connection to s. What TLS has read ahead counts as something to say.
func (x *TLS) Release(s Session, idle time.Duration) {
	x.session, x.idle, x.released = s, idle, true
	more := x.has
	if !more && !x.dry {
		more, _ = x.peek() // a deadline that has passed says nothing of what is there
	}
	x.raw.release(secure{x}, idle, more)
}

// Take gives a released connection to the calling task.
func (x *TLS) Take(t loam.Task) bool { return x.raw.Take(t) }

// File fails: the keys are not to be had, and without them the socket is of no use.
func (x *TLS) File() (*os.File, error) {
	return nil, &loam.Error{Code: loam.Unimplemented, Op: "loop", Err: errors.New("a TLS connection cannot be handed over")}
}

// secure is the session below a TLS that was released.
type secure struct{ x *TLS }

func (s secure) Serve(t loam.Task, _ Conn) Verdict {
	x := s.x
	x.released = false
	v := x.session.Serve(t, x)
	switch {
	case v == Close:
		_ = x.Close() // it may be closed already
	case v == Idle && !x.released:
		x.Release(x.session, x.idle)
	}
	return v
}

func (s secure) Close() {
	if s.x.session != nil {
		s.x.session.Close()
	}
}

// hangUp is how an engine closes a connection that is idle.
func (s secure) hangUp() { _ = s.x.Close() } // as far as it can be told

// hangUp closes a connection that an engine does not want to keep.
func hangUp(c Conn, s Session) {
	if h, ok := s.(interface{ hangUp() }); ok {
		h.hangUp()
		return
	}
	_ = c.Close() // it may be closed already
}
