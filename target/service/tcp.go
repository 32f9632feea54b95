package service

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
)

// TCP makes transports for raw connections, for Config.Open: each request opens one, and its answer's Tunnel is the
// connection. timeout bounds the dialing, the TLS handshake too; 0: 5s. secure is nil for plain TCP.
func TCP(timeout time.Duration, secure *tls.Config) func(address string) Transport {
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	return func(address string) Transport { return &raw{address, timeout, secure} }
}

type raw struct {
	address string
	timeout time.Duration
	secure  *tls.Config
}

// Close does nothing: no connection is kept.
func (*raw) Close() {}

// Serve opens a connection.
func (r *raw) Serve(req *loam.Request) (*loam.Response, error) {
	t := req.Task()
	until := t.Now().Add(r.timeout)
	if d := req.Deadline(); !d.IsZero() && d.Before(until) {
		until = d
	}
	conn, err := loop.Dial(t, "tcp", r.address, until)
	if err != nil {
		return nil, r.explain(err)
	}
	if r.secure == nil {
		return &loam.Response{Status: 200, Length: -1, Tunnel: conn}, nil
	}
	secure := tls.Client(conn, r.secure)
	_ = conn.SetDeadline(until) // it fails only for a connection that is closed, as the handshake will
	if err := secure.HandshakeContext(context.Background()); err != nil {
		return nil, r.explain(errors.Join(err, conn.Close()))
	}
	_ = conn.SetDeadline(time.Time{})
	return &loam.Response{Status: 200, Length: -1, Tunnel: secure}, nil
}

func (r *raw) explain(err error) error {
	code := loam.Unavailable
	switch {
	case errors.Is(err, context.Canceled):
		code = loam.Canceled
	case errors.Is(err, os.ErrDeadlineExceeded):
		code = loam.DeadlineExceeded
	}
	return &loam.Error{Code: code, Op: "connect " + r.address, Err: err}
}

// dials is how many endpoints Dial tries.
const dials = 3

// Dial opens a raw connection to an endpoint of a service whose transport is TCP. Where one does not answer, another is
// tried, up to three: nothing was sent yet. The connection counts as under way until the request ends.
func (s *Service) Dial(req *loam.Request) (io.ReadWriteCloser, error) { return s.whole.Dial(req) }

// Dial is Service.Dial among the subset's endpoints.
func (v *Subset) Dial(req *loam.Request) (io.ReadWriteCloser, error) {
	for try := 1; ; try++ {
		res, err := v.Serve(req)
		switch {
		case err == nil && res.Tunnel != nil:
			return res.Tunnel, nil
		case err == nil:
			return nil, errors.Join(loam.Errorf(loam.FailedPrecondition, "service "+v.s.c.Name, "its transport opens no raw connections"), res.Close())
		}
		late := !req.Deadline().IsZero() && !req.Task().Now().Before(req.Deadline())
		if code := loam.CodeOf(err); try == dials || late || code != loam.Unavailable && code != loam.DeadlineExceeded || errors.Is(err, v.s.none) {
			return nil, err
		}
	}
}
