// Package grpc is what a proxy needs to know of gRPC over HTTP/2: how a request is told from others, how long its sender
// waits, and what a failure looks like to it. Messages themselves pass through unread.
package grpc

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
)

// Is tells whether a request or response of that content type is gRPC's own: application/grpc, with a suffix or
// parameters or none. gRPC-Web is something else.
func Is(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// ParseTimeout reads the value of the field grpc-timeout: at most eight digits and a unit. What is longer than a
// Duration can say is as long as it can.
func ParseTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	n := int64(0)
	for _, c := range []byte(s[:len(s)-1]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	const longest = 1<<63 - 1
	if n > longest/int64(unit) {
		return longest, true
	}
	return time.Duration(n) * unit, true
}

// ErrorResponse is what a target's error looks like to a gRPC client: an answer of a head alone, which is the trailer
// too ("Trailers-Only"). The message has the hint, for gRPC has no other place to say it. An error that nobody
// classified keeps its words to the log: they may hold what a stranger should not read.
func ErrorResponse(err error) *loam.Response {
	res := &loam.Response{Status: 200, Header: make(loam.Header, 0, 3)}
	res.Header.Add("content-type", "application/grpc")
	res.Header = AppendStatus(res.Header, err)
	return res
}

// AppendStatus adds the fields that say how a call ended.
func AppendStatus(to loam.Header, err error) loam.Header {
	code := loam.CodeOf(err)
	message := ""
	var known *loam.Error
	if errors.As(err, &known) {
		message = err.Error()
		if hint := loam.HintOf(err); hint != "" {
			message += " (" + hint + ")"
		}
	} else if code != loam.OK {
		message = code.String()
	}
	to.Add("grpc-status", strconv.Itoa(int(code)))
	if message != "" {
		to.Add("grpc-message", EncodeMessage(message))
	}
	return to
}

// maxMessage bounds grpc-message: a peer refuses a trailer that is too long and would not see the status either.
const maxMessage = 4 << 10

// EncodeMessage makes a value of grpc-message: what is not printable ASCII, and the percent sign, is percent-encoded.
func EncodeMessage(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() < maxMessage; i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Status reads how a call ended from the fields of its trailer. It is false where they do not say.
func Status(trailer loam.Header) (loam.Code, bool) {
	value := trailer.Get("grpc-status")
	if value == "" { // as in every answer that is not gRPC's: no error is made for it
		return loam.Unknown, false
	}
	n, err := strconv.ParseUint(value, 10, 8)
	if err != nil {
		return loam.Unknown, false
	}
	if n > uint64(loam.Unauthenticated) {
		return loam.Unknown, true
	}
	return loam.Code(n), true
}
