package loop

import (
	"errors"

	"github.com/loam-run/loam"
)

// Coroutines makes the engine of event loops.
func Coroutines(Options) (Engine, error) {
	return nil, &loam.Error{Code: loam.Unimplemented, Op: "loop", Err: errors.New("not yet")}
}
