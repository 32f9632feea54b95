package loam

import (
	"errors"
	"fmt"
	"strconv"
)

// A Code says what kind of failure an error is: gRPC's codes, by gRPC's numbers.
type Code uint8

// The codes.
const (
	OK                 Code = iota
	Canceled                // the caller went away
	Unknown                 // nobody classified it
	InvalidArgument         // the request can never succeed as it is
	DeadlineExceeded        // it took too long
	NotFound                // no such thing
	AlreadyExists           // IfAbsent, and it is there
	PermissionDenied        // known, but not granted
	ResourceExhausted       // a limit or quota was hit
	FailedPrecondition      // not in the system's present state
	Aborted                 // IfMatch, and a concurrent change won
	OutOfRange              // past the end
	Unimplemented           // not done here
	Internal                // something is broken
	Unavailable             // try again, later
	DataLoss                // stored data is damaged
	Unauthenticated         // not known
)

var codes = [...]struct {
	name   string
	status int
}{
	{"ok", 200}, {"canceled", 499}, {"unknown", 500}, {"invalid argument", 400}, {"deadline exceeded", 504},
	{"not found", 404}, {"already exists", 409}, {"permission denied", 403}, {"resource exhausted", 429},
	{"failed precondition", 400}, {"aborted", 409}, {"out of range", 400}, {"unimplemented", 501}, {"internal", 500},
	{"unavailable", 503}, {"data loss", 500}, {"unauthenticated", 401},
}

// String is the code in words.
func (c Code) String() string {
	if int(c) < len(codes) {
		return codes[c].name
	}
	return "code " + strconv.Itoa(int(c))
}

// Status is the HTTP status that says the same.
func (c Code) Status() int {
	if int(c) < len(codes) {
		return codes[c].status
	}
	return 500
}

// An Error is a failure with a code. Capability calls return it; a handler that returns one chooses its status.
type Error struct {
	Code    Code
	Message string
	Hint    string // what to do next, for the person who operates this; may be empty

	cause error
}

// Error prints the message, or the code where there is none.
func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code.String()
	}
	return e.Message
}

// Unwrap returns what Errorf was given with %w.
func (e *Error) Unwrap() error { return e.cause }

// Errorf makes an Error; the format takes %w.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// CodeOf is the code of the outermost *Error in err's chain, Unknown without one, OK for nil.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &e):
		return e.Code
	}
	return Unknown
}

// IsNotFound tells whether err says that something is not there.
func IsNotFound(err error) bool { return CodeOf(err) == NotFound }

// IsConflict tells whether err says that somebody else was first: an ETag that no longer matches, or a key that is
// there already. Read again and decide anew.
func IsConflict(err error) bool {
	c := CodeOf(err)
	return c == Aborted || c == AlreadyExists
}
