package loop

import (
	"log/slog"
	"time"
)

// Options say how an engine runs.
type Options struct {
	// Loops is how many event loops there are, each a thread of its own. 0: one for each core Go may use.
	Loops int
	// Goroutines asks for the portable engine where event loops are to be had.
	Goroutines bool
	// Log is told of panics, of tasks that hold their loop, and of sockets that cannot be accepted. nil: nobody is.
	Log *slog.Logger
	// Watchdog is how long a task may hold its loop before the log says which one and where. 0: 100 ms; negative: for ever.
	Watchdog time.Duration
}

func (o *Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// New makes the engine that suits the system best: event loops on Linux, goroutines elsewhere.
func New(o Options) Engine {
	if !o.Goroutines {
		e, err := Coroutines(o)
		if err == nil {
			return e
		}
		o.log().Info("no event loops here: serving with goroutines", "reason", err)
	}
	return newGoroutines(o.log())
}
