package policy

import (
	"cmp"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// MirrorConfig sends copies of requests elsewhere. Zero fields take the default beside them.
type MirrorConfig struct {
	To       loam.Target   // required
	Percent  float64       // of the requests, from 0 to 100
	InFlight int           // copies at once; what is beyond is not copied; 100
	Body     int           // bytes of a body; a request with a larger one is not copied; 64 KiB
	Timeout  time.Duration // of a copy; 15s
	Log      *slog.Logger  // of panics and of what is broken in this process; nil: nothing is logged
	Told     Told
}

// Mirror sends a copy of requests to another target and forgets its answers and errors. The request itself waits for
// nothing: its body is copied as its own target reads it, and the copy sent once it was read whole.
func Mirror(c MirrorConfig) loam.Policy {
	c.InFlight = cmp.Or(c.InFlight, 100)
	c.Body = cmp.Or(c.Body, 64<<10)
	c.Timeout = cmp.Or(c.Timeout, 15*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	m := &mirror{c: c}
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if by(c.Percent) {
				m.copy(req)
			}
			return next.Serve(req)
		})
	}
}

type mirror struct {
	c        MirrorConfig
	inFlight atomic.Int64
}

func (m *mirror) copy(req *loam.Request) {
	if req.Length > int64(m.c.Body) || req.Header.Has("Upgrade") || !m.begin() {
		m.c.Told.of(req, MirrorDropped)
		return
	}
	t := &twin{m: m, req: req.Clone(nil)}
	t.req.Length = 0
	if req.Body == nil || req.Length == 0 {
		t.send(req.Task())
		return
	}
	t.body, t.task, t.length = req.Body, req.Task(), req.Length
	req.Body = t
	req.AtEnd(t)
}

// begin counts a copy as under way, where it may be.
func (m *mirror) begin() bool {
	if m.inFlight.Add(1) <= int64(m.c.InFlight) {
		return true
	}
	m.inFlight.Add(-1)
	return false
}

// twin is the copy of a request that is not sent yet, and the request's body, as long as that is not read whole.
type twin struct {
	m    *mirror
	req  *loam.Request // nil: it was sent, or given up
	task loam.Task
	body io.ReadCloser
	kept []byte

	length int64 // of body; -1: not known
}

func (t *twin) Read(p []byte) (int, error) {
	n, err := t.body.Read(p)
	if t.req == nil {
		return n, err
	}
	if len(t.kept)+n > t.m.c.Body {
		t.drop()
		return n, err
	}
	t.kept = append(t.kept, p[:n]...)
	if err == io.EOF || int64(len(t.kept)) == t.length {
		t.req.Body, t.req.Length = &memory{b: t.kept}, int64(len(t.kept))
		t.send(t.task)
	}
	return n, err
}

func (t *twin) Close() error { return t.body.Close() }

// Buffered is how many bytes a Read gives without waiting.
func (t *twin) Buffered() int {
	if b, ok := t.body.(bufferer); ok {
		return b.Buffered()
	}
	return 0
}

// RequestEnded gives the copy up where the body was not read whole.
func (t *twin) RequestEnded() {
	if t.req != nil {
		t.drop()
	}
}

func (t *twin) drop() {
	t.req.Release()
	t.req, t.kept = nil, nil
	t.m.inFlight.Add(-1)
}

// send has the copy served by a task of its own.
func (t *twin) send(beside loam.Task) {
	req, m := t.req, t.m
	t.req, t.kept = nil, nil
	m.c.Told.of(req, Mirrored)
	beside.Go(func(task loam.Task) {
		defer m.inFlight.Add(-1)
		defer req.Release()
		req.SetTask(task)
		req.SetDeadline(task.Now().Add(m.c.Timeout))
		res, err := protocol.Serve(m.c.To, req, m.c.Log)
		if err != nil {
			return
		}
		if res.Body != nil {
			_, _ = io.CopyN(io.Discard, res.Body, 1<<20) // so that its connection can be used again; nobody wants it
		}
		_ = res.Close()
	})
}

// memory is a body in memory. It can be read again.
type memory struct {
	b  []byte
	at int
}

func (m *memory) Read(p []byte) (int, error) {
	if m.at == len(m.b) {
		return 0, io.EOF
	}
	n := copy(p, m.b[m.at:])
	m.at += n
	return n, nil
}

func (m *memory) Close() error  { return nil }
func (m *memory) Buffered() int { return len(m.b) - m.at }

func (m *memory) Rewind() bool {
	m.at = 0
	return true
}
