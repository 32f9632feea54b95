package policy

import (
	"fmt"
	"io"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// LimitsConfig bounds requests. 0: no bound but the listener's own.
type LimitsConfig struct {
	HeaderBytes int64 // names and values together, with four bytes for each field as HTTP/1 writes it
	HeaderCount int   // fields
	BodyBytes   int64
}

// Limits refuses requests that are too large: 431 for their header (RFC 6585), 413 for their body, at once where it says
// its length, else when more of it is read.
func Limits(c LimitsConfig) loam.Policy {
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if c.HeaderCount > 0 && len(req.Header) > c.HeaderCount {
				return answerStatus(req, 431, loam.Errorf(loam.ResourceExhausted, "request", "a header of %d fields, at most %d are taken", len(req.Header), c.HeaderCount)), nil
			}
			if n := headerBytes(req.Header, c.HeaderBytes); c.HeaderBytes > 0 && n > c.HeaderBytes {
				return answerStatus(req, 431, loam.Errorf(loam.ResourceExhausted, "request", "a header of %d bytes, at most %d are taken", n, c.HeaderBytes)), nil
			}
			if c.BodyBytes > 0 && req.Body != nil {
				switch {
				case req.Length > c.BodyBytes:
					return nil, fmt.Errorf("a body of %d bytes: %w", req.Length, protocol.TooLarge(c.BodyBytes))
				case req.Length < 0:
					req.Body = &limited{ReadCloser: req.Body, left: c.BodyBytes, limit: c.BodyBytes}
				}
			}
			return next.Serve(req)
		})
	}
}

func headerBytes(h loam.Header, limit int64) (n int64) {
	if limit > 0 {
		for i := range h {
			n += int64(len(h[i].Name)+len(h[i].Value)) + 4
		}
	}
	return n
}

// limited is a body of unknown length that must not be longer than limit.
type limited struct {
	io.ReadCloser
	left, limit int64
}

func (l *limited) Read(p []byte) (int, error) {
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.ReadCloser.Read(p)
	if l.left -= int64(n); l.left < 0 {
		l.left = -1
		return 0, protocol.TooLarge(l.limit)
	}
	return n, err
}
