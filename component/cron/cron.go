// Package cron is Dapr's bindings.cron: an input that brings an event without data each time a schedule is due.
package cron

import (
	"context"
	"fmt"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/component"
	"github.com/loam-run/loam/internal/cron"
)

// Factories are the component types of this package.
func Factories() []loam.Factory {
	f := component.New("binding.cron", Open)
	f.Aliases = []string{"bindings.cron"}
	return []loam.Factory{f}
}

// Config is the metadata of bindings.cron.
type Config struct {
	Schedule string `meta:"schedule" need:"yes"` // five fields, six with seconds first, or @every 90s, @hourly…
}

// Check reads the schedule.
func (c *Config) Check() error {
	if _, err := cron.Parse(c.Schedule); err != nil {
		return fmt.Errorf("metadata schedule: %w", err)
	}
	return nil
}

// Open opens bindings.cron.
func Open(_ context.Context, _ string, c Config) (binding.Driver, error) {
	s, err := cron.Parse(c.Schedule)
	if err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: "bindings.cron", Err: err}
	}
	if s.Next(time.Now()).IsZero() {
		return nil, loam.Errorf(loam.InvalidArgument, "bindings.cron", "schedule %q: it is never due", c.Schedule)
	}
	return &clock{s, make(chan struct{})}, nil
}

type clock struct {
	schedule cron.Schedule
	closed   chan struct{}
}

func (c *clock) Close() error {
	close(c.closed)
	return nil
}

// longest is how long a wait lasts at most, since the wall clock can be put forward.
const longest = time.Minute

// Read calls handle each time the schedule is due, one call after the other: what became due while one lasted is left out.
// An error of handle changes nothing, as with every clock.
func (c *clock) Read(ctx context.Context, handle binding.Handler) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := time.Now()
	for due := c.schedule.Next(last); !due.IsZero(); due = c.schedule.Resume(last, time.Now()) {
		for wait := time.Until(due); wait > 0; wait = time.Until(due) {
			timer.Reset(min(wait, longest))
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil
			case <-c.closed:
				return nil
			}
		}
		last = due
		_, _ = handle(ctx, binding.Event{Metadata: map[string]string{
			"timeZone":    time.Local.String(),
			"readTimeUTC": time.Now().UTC().String(),
		}})
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}
