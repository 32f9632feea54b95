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
	"io"
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
	// from outside so.
	Each(fn func(loam.Task))
	// Close ends every wait with ErrStopped, and returns when every task has ended and every connection is closed.
	Close() error
}

// ListenOptions say how a listener takes connections in.
type ListenOptions struct {
	// Open begins the session of a connection that was accepted. It must not wait.
	Open func(Conn) Session
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
	// Stop accepts no more. Connections that were accepted live on.
	Stop() error
	// Each calls fn for every connection it accepted that no task serves at this moment, on the loop that owns it, and
	// returns when all were seen. fn must not wait; it may close the connection or take its File.
	Each(fn func(Conn, Session))
	// Adopt takes in a connection that another process accepted, as Conn.File gave it, as if it had been accepted here.
	Adopt(f *os.File) error
}

// A Session gives a connection's bytes their meaning.
type Session interface {
	// Serve is called in a task of its own when there is something to read, or the connection was ended by the peer, and
	// no task has the connection. It deals with what is there.
	Serve(t loam.Task, c Conn) Verdict
	// Close is called once, after the connection was closed, whoever did it, on the loop that owned it.
	Close()
}

// A Verdict is what becomes of a connection after Serve.
type Verdict uint8

const (
	Idle   Verdict = iota // nothing more is there: call Serve again when there is, until then it needs no task
	Close                 // close it
	Handed                // it belongs to something else now: a relay, another session
)

// A Conn is a stream socket. The task that has it reads and writes in blocking style: it waits in the task that calls.
// Its methods may be called by tasks of its loop only; where another task waits for the same direction, they fail.
type Conn interface {
	net.Conn
	// Poll makes Read answer ErrAgain where it would have to wait, until it is called with false. A goroutine engine has
	// nobody else to run on its goroutine: there Read waits all the same.
	Poll(on bool)
	// Ready waits until a Read would not: for bytes, the end, or an error. It needs no buffer meanwhile.
	Ready() error
	// CloseWrite ends the direction towards the peer.
	CloseWrite() error
	// Release leaves the connection to s until Take: it is idle, s.Serve is called when something comes in, and after
	// idle (0: no limit) it is closed.
	Release(s Session, idle time.Duration)
	// Take gives a released connection to the calling task. It is false where it was closed meanwhile, or has something
	// to say already.
	Take() bool
	// File takes the socket out of the engine: a descriptor of it for another process. The connection counts as closed
	// here; nothing is sent to the peer. Only an idle one can be taken.
	File() (*os.File, error)
}

// A Relay carries bytes both ways between two connections, without a task where the engine can do it, until both
// directions have ended, or nothing moved for Idle.
type Relay struct {
	A, B  io.ReadWriteCloser // Conns of the calling task's loop, or anything else that reads and writes
	FromA []byte             // read from A already, and due to B
	FromB []byte             // read from B already, and due to A
	Idle  time.Duration      // 0: no limit
	// Done is told how many bytes went from A to B and from B to A once both ends are closed. nil: nobody is.
	Done func(aToB, bToA int64)
}
