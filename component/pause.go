package component

import (
	"context"
	"time"
)

// Pause waits, as a driver does before it tries again, and is false when ctx ended.
func Pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
