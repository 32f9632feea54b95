package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/loam-run/loam"
)

func TestHTTPStatus(t *testing.T) {
	for code, want := range map[loam.Code]int{
		loam.OK: 200, loam.Canceled: 499, loam.Unknown: 500, loam.InvalidArgument: 400, loam.DeadlineExceeded: 504,
		loam.NotFound: 404, loam.AlreadyExists: 409, loam.PermissionDenied: 403, loam.ResourceExhausted: 429,
		loam.FailedPrecondition: 400, loam.Aborted: 409, loam.OutOfRange: 400, loam.Unimplemented: 501, loam.Internal: 500,
		loam.Unavailable: 503, loam.DataLoss: 500, loam.Unauthenticated: 401, 17: 500, 255: 500,
	} {
		if got := HTTPStatus(code); got != want {
			t.Errorf("%v: %d, want %d", code, got, want)
		}
	}
}

func TestErrorResponse(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		body   string
	}{
		{&loam.Error{Code: loam.NotFound, Op: `function "x"`, Hint: "see loam get"}, 404,
			`{"error":{"code":"not found","message":"function \"x\": not found","hint":"see loam get","requestId":"r1"}}`},
		{fmt.Errorf("open /etc/secret: %w", io.ErrUnexpectedEOF), 500,
			`{"error":{"code":"unknown","message":"unknown","requestId":"r1"}}`},
		{&loam.Error{}, 500, `{"error":{"code":"unknown","message":"ok","requestId":"r1"}}`},
		{loam.Errorf(loam.InvalidArgument, "f", "read: %w", &http.MaxBytesError{Limit: 3}), 413,
			`{"error":{"code":"invalid argument","message":"f: invalid argument: read: http: request body too large","requestId":"r1"}}`},
		{errors.New("a \x80\n\"quote\""), 500, `{"error":{"code":"unknown","message":"unknown","requestId":"r1"}}`},
	} {
		res := ErrorResponse(c.err, "r1")
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.Status != c.status || string(body) != c.body+"\n" || !json.Valid(body) || res.Header.Get("content-type") != "application/json" {
			t.Errorf("%v: %d %s", c.err, res.Status, body)
		}
	}
}
