// Package policy holds what is done on the way to a target: each policy is a loam.Policy in a file of its own, and
// knows of no other.
package policy

import (
	"context"
	"io"
	"time"

	"github.com/loam-run/loam"
)

// Timeout bounds a request, from here to the end of the answer's body. A sooner deadline of the request's own stays.
// Past it the target's context ends, and the answer is DeadlineExceeded.
func Timeout(d time.Duration) loam.Policy {
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			whole := req.Context()
			ctx, cancel := context.WithTimeout(whole, d)
			req.SetContext(ctx)
			res, err := next.Serve(req)
			if err != nil {
				req.SetContext(whole) // a retry round this one begins anew
				late := ctx.Err() != nil && whole.Err() == nil
				cancel()
				if late && loam.CodeOf(err) != loam.DeadlineExceeded {
					err = loam.Errorf(loam.DeadlineExceeded, "timeout", "no answer within %s: %w", d, err)
				}
				return nil, err
			}
			if res.Body == nil {
				cancel()
				return res, nil
			}
			res.Body = &bounded{res.Body, cancel}
			return res, nil
		})
	}
}

// bounded keeps the deadline for as long as the body is read.
type bounded struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *bounded) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
