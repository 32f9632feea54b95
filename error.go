package loam

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// A Code says what kind of failure an error is. The numbers and meanings are gRPC's
// (google.rpc.Code); the edge maps them to a protocol's own status, nobody else does.
type Code uint8

// The codes, in gRPC's order.
const (
	OK                 Code = iota
	Canceled                // the caller went away
	Unknown                 // nobody classified it
	InvalidArgument         // the request can never succeed as it is
	DeadlineExceeded        // it took too long
	NotFound                //
	AlreadyExists           //
	PermissionDenied        // known, but not granted
	ResourceExhausted       // a limit or quota was hit
	FailedPrecondition      // not in the system's present state
	Aborted                 // a concurrent change won: an ETag that does not match
	OutOfRange              //
	Unimplemented           // not done here
	Internal                // a broken invariant
	Unavailable             // try again, later
	DataLoss                // stored data is damaged
	Unauthenticated         // not known
)

var codeNames = [...]string{
	"ok", "canceled", "unknown", "invalid argument", "deadline exceeded", "not found", "already exists",
	"permission denied", "resource exhausted", "failed precondition", "aborted", "out of range", "unimplemented",
	"internal", "unavailable", "data loss", "unauthenticated",
}

// String is the code in words, as errors print it.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "code " + strconv.Itoa(int(c))
}

// An Error is a failure somebody can act on: what kind, doing what, why, and what to do next.
type Error struct {
	Code Code
	Op   string // the operation and its object: `state.Get "orders"`; may be empty
	Err  error  // the cause; nil where the code says it all
	Hint string // what to do next, for the person who operates this; may be empty

	Logged bool // it was logged, or counted among those that were left out of the log, where it happened
}

// Error prints `op: code: cause`. The hint is not part of it: who shows errors to a person prints it beside.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	b.WriteString(e.Code.String())
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error; the format takes %w.
func Errorf(code Code, op, format string, args ...any) *Error {
	return &Error{Code: code, Op: op, Err: fmt.Errorf(format, args...)}
}

// CodeOf classifies any error: the code of the outermost Error in its chain, else what the standard library's own
// errors mean, else Unknown. It is OK for nil.
func CodeOf(err error) Code {
	if err == nil {
		return OK // before e is made, which costs an allocation
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		if e.Code == OK {
			return Unknown // an error is never a success, whatever it calls itself
		}
		return e.Code
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, fs.ErrNotExist):
		return NotFound
	case errors.Is(err, fs.ErrPermission):
		return PermissionDenied
	}
	return Unknown
}

// HintOf returns the first hint in err's chain, "" where there is none.
func HintOf(err error) string {
	for e := (*Error)(nil); errors.As(err, &e); err = e.Err {
		if e.Hint != "" {
			return e.Hint
		}
		if e.Err == nil {
			break
		}
	}
	return ""
}

// Logged tells whether an error in err's chain was logged where it happened, so that it need not be again.
func Logged(err error) bool {
	for e := (*Error)(nil); errors.As(err, &e); err = e.Err {
		if e.Logged {
			return true
		}
		if e.Err == nil {
			break
		}
	}
	return false
}
