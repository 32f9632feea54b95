package dapr

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
)

// health is whether the program counts as healthy. It does not before it was asked once.
type health struct {
	AppHealth
	ok atomic.Bool
}

func newHealth(s AppHealth) (*health, error) {
	if s.Interval == 0 {
		s.Interval = 5 * time.Second
	}
	if s.Timeout == 0 {
		s.Timeout = 500 * time.Millisecond
	}
	if s.Threshold == 0 {
		s.Threshold = 3
	}
	switch {
	case s.Interval < 0 || s.Timeout < 0 || s.Threshold < 0:
		return nil, loam.Errorf(loam.InvalidArgument, "app health", "interval, timeout and threshold are greater than 0")
	case s.Timeout > s.Interval:
		return nil, loam.Errorf(loam.InvalidArgument, "app health", "app health checks probe timeouts must be smaller than probe intervals")
	}
	return &health{AppHealth: s}, nil
}

// AppHealthy tells whether the program counts as healthy: always, where it is not asked. While it does not, it is not
// called, and subscriptions and input bindings are to rest.
func (a *API) AppHealthy() bool {
	h := a.channel.health
	return h == nil || h.ok.Load()
}

// WatchApp asks the program how it is, again and again until ctx ends, and calls changed whenever it counts as healthy or
// as unhealthy from then on: for the first time when it was healthy once. It returns at once where the program is not to
// be asked, without a call of changed. Threshold probes that fail one after the other make it unhealthy, one that succeeds
// makes it healthy again.
func (a *API) WatchApp(ctx context.Context, changed func(healthy bool)) {
	h := a.channel.health
	if h == nil {
		return
	}
	tick := time.NewTicker(h.Interval)
	defer tick.Stop()
	failures := 0
	for {
		probe, cancel := context.WithTimeout(ctx, h.Timeout)
		err := a.channel.Healthy(probe)
		cancel()
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			failures = 0
			if h.ok.CompareAndSwap(false, true) {
				a.log.Info("app is healthy")
				changed(true)
			}
		case failures+1 < h.Threshold:
			failures++
		default:
			if h.ok.CompareAndSwap(true, false) {
				a.log.Warn("app is unhealthy", "probes", h.Threshold, "error", err)
				changed(false)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
