package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/protowire"
)

// watch begins to ask an endpoint how it is. It is called with mu held.
func (s *Service) watch(e *state) {
	if s.c.Active == nil {
		return
	}
	ctx, stop := context.WithCancel(s.ctx)
	e.stop = stop
	s.work.Go(func() { s.ask(ctx, e) })
}

// ask asks again and again, until ctx ends.
func (s *Service) ask(ctx context.Context, e *state) {
	a := s.c.Active
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		one, cancel := context.WithTimeout(ctx, a.Timeout)
		err := a.Check(one, e.address, e.via)
		cancel()
		if ctx.Err() != nil {
			return // the answer may be of that only
		}
		s.answered(e, err)
		timer.Reset(time.Duration(float64(a.Interval) * (0.9 + 0.2*rand.Float64()))) // or all would ask in step
	}
}

// answered takes in an answer.
func (s *Service) answered(e *state, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !e.asked
	e.asked = true
	was := e.sick
	if err != nil {
		e.why, e.good = err.Error(), 0
		if e.bad++; first || e.bad >= s.c.Active.Unhealthy {
			e.sick = true
		}
	} else {
		e.bad = 0
		if e.good++; e.good >= s.c.Active.Healthy {
			e.sick = false
		}
	}
	if e.sick == was {
		return
	}
	now := time.Now()
	if e.sick {
		s.c.Log.Warn("endpoint is unhealthy", "endpoint", e.address, "error", err)
	} else {
		if e.why = ""; s.c.SlowStart > 0 {
			e.fresh = now
		}
		s.c.Log.Info("endpoint is healthy", "endpoint", e.address)
	}
	s.changed = true
	s.poke() // not built here: a hundred that fail at once make one new set, or a few
}

// CheckTCP opens a connection and closes it.
func CheckTCP(ctx context.Context, address string, _ loam.Target) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// CheckHTTP sends GET path. Good answers have one of the statuses; none: 200 to 299. host is the authority asked for; "":
// the endpoint's address.
func CheckHTTP(path, host string, statuses []int) Check {
	return func(ctx context.Context, address string, via loam.Target) error {
		req := loam.NewRequest(ctx)
		defer req.Release()
		req.Method, req.Scheme, req.Authority, req.Path = "GET", "http", address, path
		if host != "" {
			req.Authority = host
		}
		req.Header.Add("User-Agent", "loam-health")
		res, err := via.Serve(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Close() }() // it was read, or will not be
		if res.Body != nil {               // a connection whose body was read is kept for the next time
			if _, err := io.CopyN(io.Discard, res.Body, maxAnswer); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read the answer: %w", err)
			}
		}
		if len(statuses) == 0 && res.Status >= 200 && res.Status <= 299 || slices.Contains(statuses, res.Status) {
			return nil
		}
		return fmt.Errorf("GET %s answered %d", path, res.Status)
	}
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 10

// CheckGRPC asks by the protocol grpc.health.v1.Health for a service; "": for the server as a whole. via must speak gRPC.
func CheckGRPC(name, host string) Check {
	message := make([]byte, 5, 5+3+len(name)) // uncompressed, and its length in four bytes
	message = protowire.AppendText(message, 1, name)
	n := len(message) - 5
	message[1], message[2], message[3], message[4] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return func(ctx context.Context, address string, via loam.Target) error {
		req := loam.NewRequest(ctx)
		defer req.Release()
		req.Method, req.Scheme, req.Authority, req.Path = "POST", "http", address, "/grpc.health.v1.Health/Check"
		if host != "" {
			req.Authority = host
		}
		req.Header = append(req.Header, loam.Field{Name: "content-type", Value: "application/grpc"}, loam.Field{Name: "te", Value: "trailers"}, loam.Field{Name: "user-agent", Value: "loam-health"})
		req.Body, req.Length = io.NopCloser(bytes.NewReader(message)), int64(len(message))
		res, err := via.Serve(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Close() }() // it was read, or will not be
		if res.Status != 0 && res.Status != 200 {
			return fmt.Errorf("the health service answered with HTTP status %d", res.Status)
		}
		var answer []byte
		if res.Body != nil {
			if answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer)); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
		}
		status := res.Trailer.Get("Grpc-Status")
		if status == "" {
			status = res.Header.Get("Grpc-Status")
		}
		if status != "0" {
			return fmt.Errorf("the health service answered with grpc-status %q %s", status, res.Trailer.Get("Grpc-Message")+res.Header.Get("Grpc-Message"))
		}
		return serving(answer)
	}
}

// serving reads a HealthCheckResponse in its frame: nil where field 1 is SERVING.
func serving(b []byte) error {
	bad := errors.New("the health service's answer is not a HealthCheckResponse")
	if len(b) < 5 || b[0] != 0 {
		return bad
	}
	n := int(b[1])<<24 | int(b[2])<<16 | int(b[3])<<8 | int(b[4])
	if b = b[5:]; n != len(b) {
		return bad
	}
	var status uint64 // the last one counts; none: 0, UNKNOWN
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return bad
		}
		if b = rest; f.Tag == 1<<3 {
			status = f.Num
		}
	}
	if status == 1 {
		return nil
	}
	if names := [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}; status < uint64(len(names)) {
		return errors.New("the service says it is " + names[status])
	}
	return fmt.Errorf("the service says it is %d", status)
}
