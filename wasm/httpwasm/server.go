package httpwasm

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	wasmapi "github.com/tetratelabs/wazero/api"
)

// A server serves the requests of one instance.
type server struct {
	handleRequest, handleResponse wasmapi.Function

	guest *guest.Call

	// Of the request, as the guest sees and changes it. The request itself is changed when it is passed on.
	method, uri     string
	fields, trailer loam.Header
	changed         bool   // fields and trailer are copies
	body            []byte // what the guest has not read of it
	written         []byte // in its place
	wrote           bool

	// Of the response.
	own       *guest.Response // the guest's, or what came from behind once its body was read
	behind    *loam.Response  // what came from behind; nil: own is the response
	answering bool            // handle_response runs
	begun     bool            // the guest wrote of the body
	at        int             // what it has read of it
}

// Serve implements guest.Server.
func (s *server) Serve(c *guest.Call) (*loam.Response, error) {
	req := c.Request
	*s = server{handleRequest: s.handleRequest, handleResponse: s.handleResponse,
		guest: c, method: req.Method, uri: req.Path, fields: req.Header, trailer: req.Trailer, body: c.Body, own: new(guest.Response),
	}
	if req.RawQuery != "" {
		s.uri += "?" + req.RawQuery
	}
	c.State = s
	resp, err := s.serve()
	if err != nil && s.behind != nil {
		_ = s.behind.Close() // nobody will read it
	}
	*s = server{handleRequest: s.handleRequest, handleResponse: s.handleResponse}
	return resp, err
}

func (s *server) serve() (*loam.Response, error) {
	var stack [2]uint64
	if err := s.handleRequest.CallWithStack(s.guest, stack[:]); err != nil {
		return nil, err
	}
	next := stack[0]
	if uint32(next) == 0 {
		return s.own.Done(), nil
	}
	if s.guest.Next == nil {
		return nil, &loam.Error{
			Code: loam.NotFound, Err: errors.New("it passed the request on, and there is nothing behind it"),
			Hint: "a function answers by handle_request returning 0; what passes requests on stands before a target, as a filter",
		}
	}
	resp, failed := s.guest.Next.Serve(s.forward())
	if failed == nil {
		s.behind = resp
	}
	s.answering, s.begun, s.own = true, false, new(guest.Response)
	stack = [2]uint64{next >> 32, 0}
	if failed != nil {
		stack[1] = 1
	}
	err := s.handleResponse.CallWithStack(s.guest, stack[:])
	switch {
	case failed != nil: // handle_response was told, so that it can tidy up
		return nil, failed
	case err != nil:
		return nil, err
	case s.behind != nil:
		return s.behind, nil
	}
	return s.own.Done(), nil
}

// forward is the request as the guest changed it.
func (s *server) forward() *loam.Request {
	req, b := s.guest.Request, s.guest.Body
	req.Method = s.method
	req.Path, req.RawQuery, _ = strings.Cut(s.uri, "?")
	req.Header, req.Trailer = s.fields, s.trailer
	if s.wrote {
		b = s.written
		req.Header.Del("Content-Length") // Length says it
	}
	req.Length = int64(len(b))
	if req.Body != nil || len(b) > 0 {
		whole := &body{was: req.Body}
		whole.Reset(b)
		req.Body = whole
	}
	return req
}

// A body is a request's that the host has read.
type body struct {
	bytes.Reader
	was io.Closer // nil: there was none
}

func (b *body) Close() error {
	if b.was == nil {
		return nil
	}
	return b.was.Close()
}

// hold reads the whole body of what came from behind, so that the guest can read or replace it; replaced is one that
// nobody needs. From then on the response is own. Host functions call it.
func (s *server) hold(replaced bool) {
	r := s.behind
	if r == nil {
		return
	}
	if r.Tunnel != nil {
		panic(guest.Misuse("the response leaves HTTP: it has no body to read or write"))
	}
	if r.Body != nil && !replaced {
		left := s.guest.Limits.Response
		if r.Length > left {
			s.guest.Respond(0, int(r.Length))
		}
		b, err := io.ReadAll(io.LimitReader(r.Body, left+1))
		if err != nil {
			panic(&loam.Error{Code: loam.CodeOf(err), Err: errors.Join(errors.New("the response from behind broke off"), err)})
		}
		s.own.Write(s.guest, b)
	}
	s.own.Status = r.Status
	s.own.Header, s.own.Trailer = clone(r.Header), clone(r.Trailer)
	s.own.Header.Del("Content-Length")
	s.behind = nil
	_ = r.Close() // it was read, or is not wanted
}

// clone copies fields that stand in a buffer of somebody else's.
func clone(h loam.Header) loam.Header {
	c := make(loam.Header, len(h))
	for i, f := range h {
		c[i] = loam.Field{Name: strings.Clone(f.Name), Value: strings.Clone(f.Value)}
	}
	return c
}

// Kinds of header fields and bodies.
const (
	kindRequest = iota
	kindResponse
	kindRequestTrailer
	kindResponseTrailer
)

// header is the fields of a kind; those of the request are copied before they are changed.
func (s *server) header(kind uint32, change bool) *loam.Header {
	if change && (kind == kindRequest || kind == kindRequestTrailer) {
		if s.answering {
			panic(guest.Misuse("the request was passed on: its header can no more be changed"))
		}
		if !s.changed {
			s.changed = true
			s.fields, s.trailer = slices.Clone(s.fields), slices.Clone(s.trailer)
		}
	}
	switch kind {
	case kindRequest:
		return &s.fields
	case kindRequestTrailer:
		return &s.trailer
	case kindResponse:
		if s.behind != nil {
			return &s.behind.Header
		}
		return &s.own.Header
	case kindResponseTrailer:
		s.hold(false) // it comes after the body
		return &s.own.Trailer
	}
	panic(guest.Misuse("there is no kind of header %d", kind))
}
