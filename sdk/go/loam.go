// Package loam is how a Go function talks to Loam: it registers handlers for the requests and events that reach it,
// and calls the capabilities it was granted. A function is an ordinary main package built with
// GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared; its func init registers, its func main stays empty:
//
//	func init() {
//		loam.Handle("GET /orders/{id}", get)
//		loam.HandleEvent("/events/stock", stock)
//	}
//
// Logging is log/slog, the environment os.Getenv, time and randomness the standard library's. Outside Wasm the same
// handlers run against a Fake, so that go test needs nothing else.
package loam

import (
	"errors"
	"log/slog"
	"runtime/debug"
	"strconv"
)

// A HandlerFunc answers one request. An error becomes status 500, or the one that fits an *Error's code, and is
// logged. A nil response with a nil error is 204.
type HandlerFunc func(*Request) (*Response, error)

// ErrDrop says, wrapped in what an event handler returns, that the event can never be handled: it is logged and not
// delivered again.
var ErrDrop = errors.New("event dropped")

// Handle registers h for a pattern: an optional method, then a path whose segments may be {name}, and whose last one
// may be {name...} for all that follows. A path that ends in a slash takes everything below it. The more specific
// pattern wins, whatever the order. It is called from func init, and panics on a pattern that is wrong or taken.
func Handle(pattern string, h HandlerFunc) { routes.add(pattern, h) }

// HandleEvent registers h for the events that a subscription routes to path. With nil the event is done; with an
// error it is delivered again later, unless that wraps ErrDrop. Events may come more than once: Event.ID tells.
func HandleEvent(path string, h func(*Request, Event) error) {
	Handle("POST "+path, func(r *Request) (*Response, error) {
		e, ok := r.Event()
		if !ok {
			return nil, Errorf(InvalidArgument, "no event: CloudEvents headers are missing")
		}
		err := h(r, e)
		switch {
		case err == nil:
			return NoContent(), nil
		case errors.Is(err, ErrDrop):
			return nil, Errorf(NotFound, "%w", err)
		case CodeOf(err) == NotFound: // something else was not there; 404 would drop the event
			return nil, Errorf(Internal, "%w", err)
		}
		return nil, err
	})
}

// answer runs the handler that matches r. It always returns a response.
func answer(r *Request) (resp *Response) {
	defer func() {
		if p := recover(); p != nil {
			slog.Error("handler panicked", "method", r.Method, "path", r.Path, "panic", p, "stack", string(debug.Stack()))
			resp = failure(Internal, "")
		}
	}()
	h, allow := routes.match(r)
	switch {
	case h == nil && allow == "":
		return failure(NotFound, "nothing answers "+r.Path)
	case h == nil:
		resp = failure(Unimplemented, r.Method+" is not among "+allow)
		resp.Status = 405
		resp.Header.Set("Allow", allow)
		return resp
	}
	resp, err := h(r)
	if err != nil {
		code := CodeOf(err)
		level, message := slog.LevelWarn, err.Error()
		if code.Status() >= 500 {
			level, message = slog.LevelError, "" // what broke inside is not the caller's to read
		}
		slog.Log(r.Context(), level, "request failed", "method", r.Method, "path", r.Path, "code", code.String(), "error", err)
		return failure(code, message)
	}
	if resp == nil {
		return NoContent()
	}
	return resp
}

// failure is the response that tells of an error: {"code": "not found", "message": "…"}.
func failure(c Code, message string) *Response {
	b := append([]byte(`{"code":`), strconv.Quote(c.String())...)
	if message != "" {
		b = append(appendJSON(append(b, `,"message":`...), message), '}', '\n')
	} else {
		b = append(b, "}\n"...)
	}
	return Bytes(c.Status(), "application/json", b)
}
