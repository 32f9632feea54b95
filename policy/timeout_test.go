package policy

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loam-run/loam"
)

// answersAfter answers when its request's context ends, or after d.
func answersAfter(d time.Duration) loam.Target {
	return loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
		select {
		case <-time.After(d):
			return &loam.Response{Status: 200}, nil
		case <-r.Context().Done():
			return nil, errors.New("gave up") // a target that does not say why
		}
	})
}

func TestTimeout(t *testing.T) {
	for _, c := range []struct {
		name              string
		limit, own, takes time.Duration
		want              loam.Code
		after             time.Duration
	}{
		{"in time", time.Second, 0, 500 * time.Millisecond, loam.OK, 500 * time.Millisecond},
		{"late", time.Second, 0, time.Hour, loam.DeadlineExceeded, time.Second},
		{"the request's own deadline is sooner", time.Minute, time.Second, time.Hour, loam.Unknown, time.Second},
		{"the policy's is sooner", time.Second, time.Minute, time.Hour, loam.DeadlineExceeded, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if c.own > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.own)
					defer cancel()
				}
				req := loam.NewRequest(ctx)
				defer req.Release()
				start := time.Now()
				_, err := Timeout(c.limit)(answersAfter(c.takes)).Serve(req)
				if loam.CodeOf(err) != c.want || time.Since(start) != c.after {
					t.Errorf("%v after %s", err, time.Since(start))
				}
				if d, _ := ctx.Deadline(); err != nil && !req.Deadline().Equal(d) {
					t.Error("a second try would have no time")
				}
			})
		})
	}
}

func TestTimeoutOfTheCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := loam.NewRequest(ctx)
	defer req.Release()
	_, err := Timeout(time.Hour)(loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) { return nil, r.Context().Err() })).Serve(req)
	if loam.CodeOf(err) != loam.Canceled {
		t.Errorf("a caller that went away is not a timeout: %v", err)
	}
}

// The body is bounded too.
func TestTimeoutBoundsTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inside context.Context
		target := loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
			inside = r.Context()
			return &loam.Response{Length: -1, Body: io.NopCloser(until{inside})}, nil
		})
		req := loam.NewRequest(t.Context())
		defer req.Release()
		start := time.Now()
		res, err := Timeout(time.Second)(target).Serve(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(res.Body); loam.CodeOf(err) != loam.DeadlineExceeded || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		if err := res.Close(); err != nil {
			t.Error(err)
		}
	})
}

// until blocks like a socket does, until its context ends.
type until struct{ ctx context.Context }

func (u until) Read([]byte) (int, error) { <-u.ctx.Done(); return 0, u.ctx.Err() }
