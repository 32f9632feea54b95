package protocol

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"

	"github.com/loam-run/loam"
)

// RequestID is the header that names a request in every log on its way.
const RequestID = "X-Request-Id"

// Options are what the server sides of all protocols share.
type Options struct {
	Log     *slog.Logger // of panics and broken answers; required
	MaxBody int64        // bytes of a request's body; 0: no bound
	MinRate int64        // bytes a second of a request's body, for what it is waited for longer than a pause of it may last; 0: no bound
}

// Serve calls the target and turns into an error what cannot be sent: a panic, a status that ends no request. What is
// wrong with this process and not with the request is logged.
func Serve(target loam.Target, req *loam.Request, log *slog.Logger) (*loam.Response, error) {
	res, err := serve(target, req, log)
	if err != nil {
		if code := loam.CodeOf(err); (code == loam.Internal || code == loam.Unknown || code == loam.DataLoss) && !loam.Logged(err) {
			log.Error("request failed", "request", req.ID, "method", req.Method, "path", req.Path, "error", err)
		}
	}
	return res, err
}

func serve(target loam.Target, req *loam.Request, log *slog.Logger) (res *loam.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			// The stack is for the log: no stranger should read it.
			log.Error("panic while answering", "request", req.ID, "method", req.Method, "path", req.Path, "panic", p, "stack", string(debug.Stack()))
			res, err = nil, loam.Errorf(loam.Internal, "serve", "the target panicked")
		}
	}()
	res, err = target.Serve(req)
	if err == nil && res.Status != 0 && (res.Status < 200 || res.Status > 999) && res.Tunnel == nil {
		err = loam.Errorf(loam.Internal, "serve", "the target answered with status %d, which ends no request", res.Status)
		return nil, errors.Join(err, res.Close())
	}
	return res, err
}

// TooLarge is the error of a body beyond limit bytes.
func TooLarge(limit int64) error {
	return loam.Errorf(loam.ResourceExhausted, "request", "at most %d bytes are taken: %w", limit, &http.MaxBytesError{Limit: limit})
}

// ErrSlowBody is the error of a request's body that its sender does not send in time: the sender's fault, not the
// target's who waits for it. The edge answers 408.
var ErrSlowBody error = loam.Errorf(loam.InvalidArgument, "request", "the body does not come in time")

// ValidID refuses a request id that would forge a line of a log.
func ValidID(id string) bool {
	return id != "" && len(id) <= 128 && !strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' })
}

// IDs makes request ids: the process's own random part and a number. The zero value is not ready: call NewIDs.
type IDs struct {
	prefix string
	last   atomic.Uint64
}

// NewIDs begins a sequence of ids that no other process or sequence makes.
func NewIDs() *IDs { return &IDs{prefix: rand.Text()[:16] + "-"} }

// Append adds the next id to b.
func (ids *IDs) Append(b []byte) []byte {
	const digits = "0123456789abcdefghijklmnopqrstuv"
	b = append(b, ids.prefix...)
	n := ids.last.Add(1)
	for shift := 30; shift >= 0; shift -= 5 {
		b = append(b, digits[n>>shift&31])
	}
	return b
}

// HopByHop tells whether a field speaks of one connection and is not passed on (RFC 9110, section 7.6.1). Upgrade is not
// among them here: a request or response that has it asks to leave HTTP.
func HopByHop(name string) bool {
	switch len(name) {
	case 2:
		return EqualFold(name, "te")
	case 7:
		return EqualFold(name, "trailer")
	case 10:
		return EqualFold(name, "connection") || EqualFold(name, "keep-alive")
	case 16:
		return EqualFold(name, "proxy-connection")
	case 17:
		return EqualFold(name, "transfer-encoding")
	case 18:
		return EqualFold(name, "proxy-authenticate")
	case 19:
		return EqualFold(name, "proxy-authorization")
	}
	return false
}

// EqualFold compares a field name, or a token, with lower, which is in lower case and has letters and hyphens only.
func EqualFold(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := range len(s) {
		if s[i] != lower[i] && (s[i]|0x20 != lower[i] || lower[i] == '-') {
			return false
		}
	}
	return true
}
