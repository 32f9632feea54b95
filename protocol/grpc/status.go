package grpc

import (
	"bytes"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/protowire"
)

// A Status is how a call failed, in the words that go over the wire: an error that a handler returns to say just that, and
// the one that a client gets. A loam.Error says the same with its operation before and its hint behind.
type Status struct {
	Code    loam.Code // what is unknown to loam counts as Unknown
	Message string    // for a developer
	Details []Detail  // for a program
}

// Error prints `code: message`.
func (s *Status) Error() string {
	if s.Message == "" {
		return s.Code.String()
	}
	return s.Code.String() + ": " + s.Message
}

// Unwrap is what loam.CodeOf reads the code from.
func (s *Status) Unwrap() error { return &loam.Error{Code: s.Code, Err: errors.New(s.Message)} }

// NewStatus makes a status of a code and words.
func NewStatus(code loam.Code, message string, details ...Detail) *Status {
	return &Status{Code: code, Message: message, Details: details}
}

// StatusOf is err as a peer is told of it; nil for nil. An error that nobody classified keeps its words to the log: they
// may hold what a stranger should not read.
func StatusOf(err error) *Status {
	if err == nil {
		return nil
	}
	if s, ok := errors.AsType[*Status](err); ok {
		return s
	}
	s := &Status{Code: loam.CodeOf(err)}
	if _, ok := errors.AsType[*loam.Error](err); !ok {
		s.Message = s.Code.String()
		return s
	}
	s.Message = err.Error()
	if hint := loam.HintOf(err); hint != "" {
		s.Message += " (" + hint + ")"
	}
	return s
}

// A Detail is a message of google.rpc's error details, or any other, as google.protobuf.Any holds it.
type Detail struct {
	Type  string // its full name: google.rpc.ErrorInfo
	Value []byte // its bytes
}

// typePrefix is before the name in an Any's URL.
const typePrefix = "type.googleapis.com/"

// ErrorInfo is a google.rpc.ErrorInfo: why, in a word of the domain's.
func ErrorInfo(reason, domain string, metadata map[string]string) Detail {
	b := protowire.AppendText(nil, 1, reason)
	b = protowire.AppendText(b, 2, domain)
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		b = protowire.AppendField(b, 3, protowire.AppendText(protowire.AppendText(nil, 1, name), 2, metadata[name]))
	}
	return Detail{"google.rpc.ErrorInfo", b}
}

// ResourceInfo is a google.rpc.ResourceInfo: what was not to be had.
func ResourceInfo(kind, name, owner, description string) Detail {
	b := protowire.AppendText(nil, 1, kind)
	b = protowire.AppendText(b, 2, name)
	b = protowire.AppendText(b, 3, owner)
	return Detail{"google.rpc.ResourceInfo", protowire.AppendText(b, 4, description)}
}

// A Violation is a field of a request that is no good.
type Violation struct{ Field, Description string }

// BadRequest is a google.rpc.BadRequest.
func BadRequest(violations ...Violation) Detail {
	var b []byte
	for _, v := range violations {
		b = protowire.AppendField(b, 1, protowire.AppendText(protowire.AppendText(nil, 1, v.Field), 2, v.Description))
	}
	return Detail{"google.rpc.BadRequest", b}
}

// AppendProto appends s as a google.rpc.Status.
func (s *Status) AppendProto(b []byte) []byte {
	if s.Code != 0 {
		b = append(b, 1<<3, byte(s.Code))
	}
	b = protowire.AppendText(b, 2, s.Message)
	for _, d := range s.Details {
		b = protowire.AppendField(b, 3, protowire.AppendField(protowire.AppendText(nil, 1, typePrefix+d.Type), 2, d.Value))
	}
	return b
}

// ParseProto reads a google.rpc.Status, whose strings are its own.
func (s *Status) ParseProto(b []byte) error {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.Number() {
		case 1:
			s.Code = code(f.Num)
		case 2:
			s.Message = string(f.Data)
		case 3:
			var d Detail
			if err := d.parse(f.Data); err != nil {
				return err
			}
			s.Details = append(s.Details, d)
		}
	}
	return nil
}

// parse reads a google.protobuf.Any.
func (d *Detail) parse(b []byte) error {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.Number() {
		case 1:
			d.Type = string(f.Data[bytes.LastIndexByte(f.Data, '/')+1:])
		case 2:
			d.Value = bytes.Clone(f.Data)
		}
	}
	return nil
}

func code(n uint64) loam.Code {
	if n > uint64(loam.Unauthenticated) {
		return loam.Unknown
	}
	return loam.Code(n)
}

// AppendStatus adds the fields that say how a call ended.
func AppendStatus(to loam.Header, err error) loam.Header {
	if err == nil {
		to.Add("grpc-status", "0")
		return to
	}
	s := StatusOf(err)
	if s.Code == loam.OK {
		s = &Status{Code: loam.Unknown, Message: s.Message, Details: s.Details} // an error is never a success
	}
	to.Add("grpc-status", strconv.Itoa(int(s.Code)))
	if s.Message != "" {
		to.Add("grpc-message", EncodeMessage(s.Message))
	}
	if len(s.Details) > 0 {
		cut := *s
		if len(cut.Message) > maxMessage/4 {
			cut.Message = cut.Message[:maxMessage/4]
		}
		if b := cut.AppendProto(nil); len(b) <= maxDetails { // beyond it a peer would refuse the trailer, and not see the status either
			to.Add("grpc-status-details-bin", EncodeBinary(b))
		}
	}
	return to
}

// maxDetails bounds grpc-status-details-bin: peers take about 8 KiB of fields.
const maxDetails = 4 << 10

// ParseStatus reads how a call ended from the fields of its trailer: nil where it ended well. It is false where they do
// not say.
func ParseStatus(trailer loam.Header) (*Status, bool) {
	c, ok := ParseCode(trailer)
	if !ok || c == loam.OK {
		return nil, ok
	}
	s := &Status{Code: c, Message: DecodeMessage(trailer.Get("grpc-message"))}
	if v := trailer.Get("grpc-status-details-bin"); v != "" {
		var rich Status
		if b, err := DecodeBinary(v); err == nil && rich.ParseProto(b) == nil && rich.Code == c {
			s.Details = rich.Details
		}
	}
	return s, true
}

// EncodeBinary makes a value of a field whose name ends in -bin.
func EncodeBinary(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// DecodeBinary reads a value of a field whose name ends in -bin, with padding or without.
func DecodeBinary(s string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
}

// DecodeMessage reads a value of grpc-message. What is no escape stands for itself.
func DecodeMessage(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return strings.ToValidUTF8(strings.Clone(s), "\uFFFD")
	}
	b := make([]byte, 0, len(s))
	for ; i >= 0; i = strings.IndexByte(s, '%') {
		b = append(b, s[:i]...)
		s = s[i:]
		if len(s) >= 3 {
			if n, err := strconv.ParseUint(s[1:3], 16, 8); err == nil {
				b = append(b, byte(n))
				s = s[3:]
				continue
			}
		}
		b = append(b, '%')
		s = s[1:]
	}
	return strings.ToValidUTF8(string(append(b, s...)), "\uFFFD")
}
