package loop

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/loam-run/loam"
)

// looped is what a task of an event loop can do besides waiting.
type looped interface {
	loam.Task
	dial(network, address string, deadline time.Time) (Conn, error)
	lend(class uint8) *Buffer
	giveBack(*Buffer)
	startRelay(*Relay) bool
}

// Dial connects task t with address: network is "tcp", "tcp4", "tcp6" or "unix". The connection belongs to t and to its
// loop. A zero deadline is none. The error is a *net.OpError; os.ErrDeadlineExceeded and context.Canceled are in its
// chain where they are the reason.
//
// An address of numbers is dialed at once; a host's name is looked up in Await, and its addresses are tried in turn.
func Dial(t loam.Task, network, address string, deadline time.Time) (Conn, error) {
	if l, ok := t.(looped); ok {
		return l.dial(network, address, deadline)
	}
	switch network {
	case "tcp", "tcp4", "tcp6", "unix":
	default:
		return nil, &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
	}
	d := net.Dialer{Deadline: deadline, FallbackDelay: -1}
	nc, err := d.DialContext(t.Context(), network, address)
	if err != nil {
		if cause := context.Cause(t.Context()); cause != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: reason(t)}
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() && !deadline.IsZero() && !time.Now().Before(deadline) {
			err = &net.OpError{Op: "dial", Net: network, Err: os.ErrDeadlineExceeded}
		}
		return nil, err
	}
	var e *goroutines
	if r, ok := t.(*routine); ok {
		e = r.e
	}
	c, err := newNetConn(e, nc)
	if err != nil {
		return nil, err
	}
	c.bind(t)
	return c, nil
}
