// Package http1 speaks HTTP/1.1 and 1.0 (RFC 9112) on connections of package loop, to clients and to servers. Messages
// are parsed by pure functions over the bytes of one buffer, and strictly: what two readers could take for two different
// messages is refused. Nothing is allocated for a request that goes through.
package http1

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

func (l *Limits) setDefaults() {
	if l.Head == 0 {
		l.Head = 64 << 10
	}
	if l.Fields == 0 {
		l.Fields = 128
	}
	if l.Body == 0 {
		l.Body = 64 << 20
	}
	if l.Discard == 0 {
		l.Discard = 256 << 10
	}
}

// errField is a field that would end its line early: what comes after it would be read as another message.
var errField = &loam.Error{Code: loam.Internal, Op: "http1", Err: errors.New("a field holds what no field may"), Hint: "header names are tokens, and values hold no line ends"}

// appendFields writes the fields of h but for those of one connection. Strings that were not parsed here may hold
// anything, so each is looked over. The field Upgrade is written with upgrade, those that tell who asked are not written
// with forward: they are the caller's to write.
func appendFields(b []byte, h loam.Header, upgrade, forward bool) (_ []byte, seen known, err error) {
	for i := range h {
		name, value := h[i].Name, h[i].Value
		switch len(name) {
		case 4:
			seen.date = seen.date || protocol.EqualFold(name, "date")
			if protocol.EqualFold(name, "host") {
				continue
			}
		case 7:
			if !upgrade && protocol.EqualFold(name, "upgrade") {
				continue
			}
		case 12:
			seen.id = seen.id || protocol.EqualFold(name, "x-request-id")
		case 14:
			if protocol.EqualFold(name, "content-length") {
				continue
			}
		case 15, 16, 17:
			if forward && forwarded(name) {
				continue
			}
		}
		if protocol.HopByHop(name) {
			continue
		}
		if !validName(name) || !printable(bytesOf(value)) {
			return b, seen, errField
		}
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	return b, seen, nil
}

// known tells which fields a message had that are added to it otherwise.
type known struct{ date, id bool }

func forwarded(name string) bool {
	return protocol.EqualFold(name, "x-forwarded-for") || protocol.EqualFold(name, "x-forwarded-host") || protocol.EqualFold(name, "x-forwarded-proto")
}

func validName(name string) bool { return name != "" && all(bytesOf(name), tokenByte) }

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// sizeLine is how long the line is that begins a chunk: of fixed length, so that the data can be read to where it goes.
const sizeLine = 6

// appendChunkSize writes the line that begins a chunk of n bytes, less than 64 KiB.
func appendChunkSize(b []byte, n int) []byte {
	const hex = "0123456789abcdef"
	return append(b, hex[n>>12&15], hex[n>>8&15], hex[n>>4&15], hex[n&15], '\r', '\n')
}

// appendTrailer ends a chunked body.
func appendTrailer(b []byte, trailer loam.Header) []byte {
	b = append(b, "0\r\n"...)
	for _, f := range trailer {
		if validName(f.Name) && printable(bytesOf(f.Value)) && !protocol.HopByHop(f.Name) && !protocol.EqualFold(f.Name, "content-length") {
			b = append(b, f.Name...)
			b = append(b, ": "...)
			b = append(b, f.Value...)
			b = append(b, "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}

// bodiless tells whether a response of that status has no body, whatever its fields say.
func bodiless(status int) bool {
	return status < 200 || status == http.StatusNoContent || status == http.StatusNotModified
}

// clock is the Date field's value, made once a second.
type clock struct{ at atomic.Pointer[stamp] }

type stamp struct {
	second int64
	field  string
}

func (c *clock) field(now time.Time) string {
	second := now.Unix()
	s := c.at.Load()
	if s == nil || s.second != second {
		s = &stamp{second, "Date: " + now.UTC().Format(http.TimeFormat) + "\r\n"}
		c.at.Store(s)
	}
	return s.field
}

// buffer is lent while bytes are at hand.
type buffer struct{ b []byte }

const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, bufferSize)} }}

// counter is a number that tasks of all loops change.
type counter struct{ n atomic.Int64 }

func (c *counter) add(n int64) int64 { return c.n.Add(n) }
func (c *counter) load() int64       { return c.n.Load() }
