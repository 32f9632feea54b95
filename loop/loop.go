// Package loop is where request code waits. An Engine accepts connections and runs the tasks that serve them: on Linux
// coroutines over one event loop per core, elsewhere goroutines over the net package. The code above it is written once,
// in blocking style, against Conn and loam.Task, and does not know which of the two runs it.
//
// An idle connection owns neither a task nor a buffer: it has a Session, and the engine begins a task for that when
// bytes come in.
package loop

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/loam-run/loam"
)

// ErrAgain is what a Read in polling mode answers where it would have to wait. It is a net.Error that is temporary, so
// that crypto/tls does not keep it.
var ErrAgain error = again{}

type again struct{}

func (again) Error() string   { return "nothing there yet" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// ErrStopped is what every wait ends with once the engine was closed.
var ErrStopped = &loam.Error{Code: loam.Unavailable, Op: "loop", Err: errors.New("the engine has stopped")}

// An Engine runs tasks and the connections they wait for.
type Engine interface {
	// Shards is what every Task.Shard is below: 1 more than there are loops, since tasks that are goroutines (of events,
	// of the admin endpoint) have shard 0. The goroutine engine has that one only.
	Shards() int
	// Listen opens a socket ("tcp" or "unix") and begins a session for each connection that comes in. Every loop of the
	// engine accepts for itself.
	Listen(ctx context.Context, network, address string, o ListenOptions) (Listener, error)
	// Go starts a task on one of the loops from outside of them.
	Go(fn func(loam.Task))
	// Each runs fn in a task of every shard, and returns when all have ended: state that is split by shard is reached
	// from outside so. A task does not call it: its own loop would wait for itself.
	Each(fn func(loam.Task))
	// Relays is how many relays are under way.
	Relays() int
	// Freeze takes every relay out of the engine whose ends are plain sockets, with the bytes under way in it, for
	// another process to go on with. The peers notice nothing; Done of those relays is not called.
	Freeze() []Frozen
	// Thaw goes on with a relay that was frozen, in this process or another one, and takes its files. done is what
	// Relay.Done is; its counts include what was carried before.
	Thaw(f Frozen, done func(aToB, bToA int64)) error
	// Close ends every wait with ErrStopped, and returns when every task has ended and every connection is closed. What
	// is begun after it does not run.
	Close() error
}

// ListenOptions say how a listener takes connections in.
type ListenOptions struct {
	// Open begins the session of a connection that was accepted. It must not wait.
	Open func(Conn) Session
	// Idle closes a connection that says nothing for that long after it was accepted. 0: it may be silent for ever.
	Idle time.Duration
	// MaxConnections is how many may be open at once; those beyond wait unaccepted. 0: no bound.
	MaxConnections int
	// Files are sockets that another process listened on before and handed over, as Listener.Files gave them. They are
	// used instead of opening new ones, and closed.
	Files []*os.File
}

// A Listener is an open socket that is accepted from.
type Listener interface {
	Addr() net.Addr
	// Connections is how many connections are open that it accepted.
	Connections() int
	// Files are duplicates of its sockets, to be handed to a new process.
	Files() ([]*os.File, error)
	// Stop accepts no more. Connections that were accepted live on. A task calls it by Await.
	Stop() error
	// Each calls fn for every connection it accepted that no task serves at this moment, on the loop that owns it, and
	// returns when all were seen. fn must not wait; it may close the connection or take its File. A task does not call it.
	Each(fn func(Conn, Session))
	// Cut closes every connection it accepted, and cancels the tasks that serve them. A task does not call it.
	Cut()
	// Adopt takes in a connection that another process accepted, as Conn.File gave it, as if it had been accepted here,
	// but that it is closed when it says nothing for idle; 0: for as long as an accepted one. f is closed.
	Adopt(f *os.File, idle time.Duration) error
}

// A Session gives a connection's bytes their meaning.
type Session interface {
	// Serve is called in a task of its own when there is something to read, or the connection was ended by the peer, and
	// no task has the connection. It deals with what is there: it returns Idle only after a Read answered ErrAgain.
	// When the peer goes away while t waits for something else, t is canceled.
	Serve(t loam.Task, c Conn) Verdict
	// Close is called once, after the connection was closed, whoever did it, on the loop that owned it, before Conn.Close
	// returns: a lock that it takes is not held there. A session that was replaced by Release is not told.
	Close()
}

// Eager is a Session whose peer may wait for this side to speak first.
type Eager interface {
	// Eager is asked when the connection was accepted, and tells whether to call Serve at once, be there something to read
	// or not.
	Eager() bool
}

func isEager(s Session) bool {
	e, ok := s.(Eager)
	return ok && e.Eager()
}

// A Verdict is what becomes of a connection after Serve.
type Verdict uint8

const (
	Idle   Verdict = iota // nothing more is there: call Serve again when there is; where Release was not called, as before
	Close                 // close it
	Handed                // it belongs to something else now: a relay, another session
)

// A Conn is a stream socket. The task that has it reads and writes in blocking style: it waits in the task that calls.
// Its methods may be called by tasks of its loop only; where another task waits for the same direction, they fail.
type Conn interface {
	net.Conn
	// Poll makes Read answer ErrAgain where it would have to wait, until it is called with false. Where a system has no
	// such read (Windows), Read waits all the same.
	Poll(on bool)
	// Ready waits until a Read would not: for bytes, the end, or an error. It needs no buffer meanwhile.
	Ready() error
	// CloseWrite ends the direction towards the peer.
	CloseWrite() error
	// Release leaves the connection to s until Take: it is idle, s.Serve is called when something comes in, and after
	// idle (0: no limit) it is closed. Its deadlines are forgotten.
	Release(s Session, idle time.Duration)
	// Take gives a released connection to the calling task, which is t. It is false where it was closed meanwhile, or has
	// something to say already.
	Take(t loam.Task) bool
	// File takes the socket out of the engine: a descriptor of it for another process. The connection counts as closed
	// here; nothing is sent to the peer. Only an idle one can be taken.
	File() (*os.File, error)
}
