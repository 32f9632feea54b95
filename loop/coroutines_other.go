//go:build !linux

package loop

import (
	"errors"

	"github.com/loam-run/loam"
)

// Coroutines makes the engine of event loops, which this system does not have.
func Coroutines(Options) (Engine, error) {
	return nil, &loam.Error{Code: loam.Unimplemented, Op: "loop", Err: errors.New("event loops need epoll, which is Linux's"), Hint: "use New: it chooses what the system has"}
}
