package policy

import (
	"sync"
	"time"

	"github.com/loam-run/loam/internal/cel"
)

// A Trip says when a breaker opens: an expression in CEL over what the breaker has counted since it was closed, asked when a
// request fails. Its variables are requests, totalSuccesses, totalFailures, consecutiveSuccesses and consecutiveFailures.
type Trip struct{ program *cel.Program }

// ParseTrip compiles the expression of a Trip.
func ParseTrip(expression string) (*Trip, error) {
	program, err := cel.Compile(&cel.Env{Variables: map[string]cel.Type{
		"requests": cel.Int, "totalSuccesses": cel.Int, "totalFailures": cel.Int, "consecutiveSuccesses": cel.Int, "consecutiveFailures": cel.Int,
	}}, expression, cel.Bool)
	if err != nil {
		return nil, err
	}
	return &Trip{program}, nil
}

// tripSteps bounds the evaluation of one expression over five numbers.
const tripSteps = 10_000

// counts are what a Trip is asked about.
type counts struct {
	trip     *Trip
	interval time.Duration // after which they begin anew; 0: never

	mu                          sync.Mutex
	since                       time.Time
	requests, successes, failed int64
	wonInARow, lostInARow       int64
}

// Var is a variable's value.
func (c *counts) Var(name string) any {
	switch name {
	case "requests":
		return c.requests
	case "totalSuccesses":
		return c.successes
	case "totalFailures":
		return c.failed
	case "consecutiveSuccesses":
		return c.wonInARow
	}
	return c.lostInARow
}

// add counts a request and tells whether the breaker shall open. An expression that cannot be evaluated opens nothing.
func (c *counts) add(now time.Time, failed bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() || c.interval > 0 && now.Sub(c.since) >= c.interval {
		c.clear(now)
	}
	c.requests++
	if !failed {
		c.successes++
		c.wonInARow, c.lostInARow = c.wonInARow+1, 0
		return false
	}
	c.failed++
	c.wonInARow, c.lostInARow = 0, c.lostInARow+1
	v, err := c.trip.program.Eval(c, tripSteps)
	open, _ := v.(bool)
	return err == nil && open
}

// clear begins anew. The caller has the lock.
func (c *counts) clear(now time.Time) {
	c.since, c.requests, c.successes, c.failed, c.wonInARow, c.lostInARow = now, 0, 0, 0, 0, 0
}

func (c *counts) forget(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear(now)
}
