// Package protocol is what all wire protocols share: how a code becomes a status. The packages below it turn bytes
// into requests and responses into bytes, one for each protocol.
package protocol

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/loam-run/loam"
)

// StatusClientClosed is what is logged for a request whose sender went away; nobody receives it. The number is nginx's.
const StatusClientClosed = 499

var statuses = [...]int{
	loam.OK: 200, loam.Canceled: StatusClientClosed, loam.Unknown: 500, loam.InvalidArgument: 400, loam.DeadlineExceeded: 504,
	loam.NotFound: 404, loam.AlreadyExists: 409, loam.PermissionDenied: 403, loam.ResourceExhausted: 429,
	loam.FailedPrecondition: 400, loam.Aborted: 409, loam.OutOfRange: 400, loam.Unimplemented: 501, loam.Internal: 500,
	loam.Unavailable: 503, loam.DataLoss: 500, loam.Unauthenticated: 401,
}

// HTTPStatus is the HTTP status of a code, by the mapping of google.rpc.Code.
func HTTPStatus(c loam.Code) int {
	if int(c) < len(statuses) {
		return statuses[c]
	}
	return http.StatusInternalServerError
}

// ErrorResponse is what a target's error looks like to who asked: its status, and a body that says what, why and
// what to do, with the id that the logs know the request by. An error that nobody classified keeps its words to the
// log: they may hold what a stranger should not read.
func ErrorResponse(err error, requestID string) *loam.Response {
	var body struct {
		Error struct {
			Code      string `json:"code"`
			Message   string `json:"message"`
			Hint      string `json:"hint,omitempty"`
			RequestID string `json:"requestId,omitempty"`
		} `json:"error"`
	}
	code := loam.CodeOf(err)
	body.Error.Code, body.Error.Message, body.Error.RequestID = code.String(), code.String(), requestID
	var known *loam.Error
	if errors.As(err, &known) {
		body.Error.Message, body.Error.Hint = err.Error(), loam.HintOf(err)
	}
	b, _ := json.Marshal(body) // strings only
	status := HTTPStatus(code)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrSlowBody):
		status = http.StatusRequestTimeout
	}
	return loam.NewResponse(status, "application/json", append(b, '\n'))
}
