// Package grpc speaks gRPC over HTTP/2. A Server is a target that answers calls by handlers, a Client calls methods of a
// server that a target leads to; the connections are package http2's. A proxy finds here how a call is told from other
// requests, how long its sender waits, and what a failure looks like to it.
//
// Messages are what reads and writes itself, as tools/apigen makes them: nothing is looked up by reflection, and nothing
// is registered.
package grpc

import (
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
// too ("Trailers-Only"). The message has the hint, for gRPC has no other place to say it.
func ErrorResponse(err error) *loam.Response {
	res := &loam.Response{Status: 200, Header: make(loam.Header, 0, 3)}
	res.Header.Add("content-type", "application/grpc")
	res.Header = AppendStatus(res.Header, err)
	return res
}

// maxMessage bounds grpc-message: a peer refuses a trailer that is too long and would not see the status either.
const maxMessage = 4 << 10

// AppendTimeout adds the field grpc-timeout, rounded up to what eight digits can say.
func AppendTimeout(to loam.Header, d time.Duration) loam.Header {
	const most = 99_999_999
	n, unit := max(int64(d), 0), byte('n')
	for _, next := range [...]struct {
		by   int64
		unit byte
	}{{1000, 'u'}, {1000, 'm'}, {1000, 'S'}, {60, 'M'}, {60, 'H'}} {
		if n <= most {
			break
		}
		n, unit = (n+next.by-1)/next.by, next.unit
	}
	to.Add("grpc-timeout", string(append(strconv.AppendInt(make([]byte, 0, 12), min(n, most), 10), unit)))
	return to
}

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

// ParseCode reads how a call ended from the fields of its trailer. It is false where they do not say.
func ParseCode(trailer loam.Header) (loam.Code, bool) {
	value := trailer.Get("grpc-status")
	if value == "" { // as in every answer that is not gRPC's: no error is made for it
		return loam.Unknown, false
	}
	n, err := strconv.ParseUint(value, 10, 8)
	if err != nil {
		return loam.Unknown, false
	}
	return code(n), true
}
