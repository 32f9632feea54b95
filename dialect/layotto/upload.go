package layotto

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/grpc"
)

// receive hands what a program streams to do, as a body. do runs where it may block; the stream is read by the call's own
// task, a message ahead at most. Where the stream breaks off, so does the body, with its error.
func receive[T any](c *grpc.Call, next func() ([]byte, error), do func(ctx context.Context, body io.Reader) (T, error)) (v T, err error) {
	u := &upload{task: c.Task(), over: make(chan struct{})}
	u.arrived.L = &u.mu
	ctx := c.Context()
	u.task.Go(func(t loam.Task) {
		t.Await(func() { v, err = do(ctx, u) })
		u.finish()
	})
	for {
		chunk, err := next()
		if err == nil {
			err = u.write(c, chunk)
		}
		if err != nil {
			u.end(err)
			break
		}
	}
	u.task.Await(func() { <-u.over }) // whoever was canceled cannot park any more
	return v, err
}

// errTaken is the end of an upload that nobody reads further.
var errTaken = errors.New("nobody reads on")

// An upload is a body that a task fills and a driver reads, one chunk at a time.
type upload struct {
	task loam.Task     // fills it
	over chan struct{} // closed when nobody reads any more

	mu       sync.Mutex
	arrived  sync.Cond // a chunk, or the end
	chunk    []byte    // what was not read of it
	err      error     // what comes after the chunk
	finished bool
}

// Read is the driver's.
func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.chunk) == 0 && u.err == nil {
		u.arrived.Wait()
	}
	if len(u.chunk) == 0 {
		return 0, u.err
	}
	n := copy(p, u.chunk)
	if u.chunk = u.chunk[n:]; len(u.chunk) == 0 {
		u.task.Wake()
	}
	return n, nil
}

// write waits until the chunk before was read, and leaves this one.
func (u *upload) write(c *grpc.Call, chunk []byte) error {
	for len(chunk) > 0 {
		if u.leave(&chunk) {
			continue
		}
		if u.isFinished() {
			return errTaken
		}
		if err := u.task.Park(c.Request().Deadline()); err != nil {
			return err
		}
	}
	return nil
}

func (u *upload) leave(chunk *[]byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.chunk) > 0 || u.finished {
		return false
	}
	u.chunk, *chunk = *chunk, nil
	u.arrived.Signal()
	return true
}

func (u *upload) isFinished() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.finished
}

// end says that no chunk comes any more, and why.
func (u *upload) end(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
	u.arrived.Signal()
}

// finish says that nobody reads any more.
func (u *upload) finish() {
	u.mu.Lock()
	u.finished = true
	u.mu.Unlock()
	u.task.Wake()
	close(u.over)
}
