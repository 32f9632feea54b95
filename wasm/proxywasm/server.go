package proxywasm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	wasmapi "github.com/tetratelabs/wazero/api"
)

// A server serves the requests of one instance.
type server struct {
	module     wasmapi.Module
	functions  [numCallbacks]wasmapi.Function
	sought     [numCallbacks]bool
	allocating bool // the guest's allocator runs

	guest         *guest.Call
	data          []byte // call data (buffer 8)
	configuration uint32 // which buffer proxy_get_configuration gives
	last          uint32 // context of a request

	exchange
}

// An exchange is what there is of a request and its response.
type exchange struct {
	context uint32 // of the request; 0: there is none
	began   time.Time

	maps       [numMaps]*loam.Header // as the guest sees them, with the names that begin with a colon; made when asked for
	changed    [numMaps]bool         // by the guest
	properties map[string][]byte     // that the guest set

	body      []byte          // of the request
	bodySet   bool            // by the guest
	own       *guest.Response // the guest's, or what came from behind once its body was read
	behind    *loam.Response  // what came from behind, while its body is there
	response  bool            // the response's callbacks are being called
	local     bool            // own is the guest's local response, and final
	answered  bool            // the guest wrote something of own
	resumed   bool            // the guest said so since it paused
	closed    bool            // the guest closed the stream
	finished  bool            // the response was made
	finishing bool            // on_done said that there is more to do
	done      bool            // and it was done since

	calls     []*outgoing // that wait to be made
	token     uint32      // of the last one
	answering bool        // the answer of one is there
	answer    []byte      // its body
	status    uint32
	failed    error // of the capability call that failed last
}

func bind(m wasmapi.Module) *server {
	return &server{module: m, last: root, configuration: bufferPluginConfiguration}
}

// Serve implements guest.Server.
func (s *server) Serve(c *guest.Call) (*loam.Response, error) {
	s.guest, c.State = c, s
	s.last++
	s.exchange = exchange{context: s.last, began: time.Now(), own: new(guest.Response), body: c.Body}
	resp, err := s.serve()
	if err == nil {
		err = s.finish()
	}
	if err != nil {
		if resp != nil {
			_ = resp.Close() // nobody will read it
		} else if s.behind != nil {
			_ = s.behind.Close()
		}
		resp = nil
	}
	s.exchange, s.data, s.guest = exchange{}, nil, nil
	return resp, err
}

// serve calls the callbacks of the request, and of the response where one comes from behind.
func (s *server) serve() (*loam.Response, error) {
	id := uint64(s.context)
	if _, err := s.run(onContextCreate, id, root); err != nil {
		return nil, err
	}
	if err := s.request(id); err != nil {
		return nil, err
	}
	if !s.local && s.guest.Next != nil {
		resp, err := s.guest.Next.Serve(s.forward())
		if err != nil {
			return nil, err
		}
		s.behind, s.response = resp, true
		if err := s.answerFromBehind(id); err != nil {
			return nil, err
		}
	}
	switch {
	case s.behind != nil:
		s.head(&s.behind.Status, &s.behind.Header, &s.behind.Trailer)
		return s.behind, nil
	case !s.local && !s.response && !s.answered:
		return nil, s.unanswered(loam.NotFound, "it let the request pass, and there is nothing behind it",
			"a function answers by proxy_send_local_response, or by the buffer of the response's body")
	}
	s.head(&s.own.Status, &s.own.Header, &s.own.Trailer)
	if s.failed != nil && len(s.own.Data) == 0 && (s.own.Status == 0 || s.own.Status == 200) {
		return nil, s.unanswered(loam.Internal, "its answer is empty", "")
	}
	return s.own.Done(), nil
}

// unanswered is the error of a guest that has no answer: what failed before, if something did.
func (s *server) unanswered(code loam.Code, what, hint string) error {
	if s.failed != nil {
		return &loam.Error{Code: loam.CodeOf(s.failed), Err: fmt.Errorf("%s, after this: %w", what, s.failed), Hint: loam.HintOf(s.failed)}
	}
	return &loam.Error{Code: code, Err: errors.New(what), Hint: hint}
}

// What a callback wants next (proxy_action_t).
const actionContinue = 0

// request calls the callbacks of the request, until the guest answers.
func (s *server) request(id uint64) error {
	req := s.guest.Request
	if len(s.body) == 0 && s.find(getID) != nil { // Layotto's functions get a query so
		s.body = []byte(req.RawQuery)
	}
	end := uint64(1)
	if len(s.body) > 0 || len(req.Trailer) > 0 {
		end = 0
	}
	if err := s.step(onRequestHeaders, id, uint64(len(req.Header)+pseudoHeaders), end); err != nil || s.local {
		return err
	}
	if len(s.body) > 0 {
		end = 1
		if len(req.Trailer) > 0 {
			end = 0
		}
		if err := s.step(onRequestBody, id, uint64(len(s.body)), end); err != nil || s.local {
			return err
		}
	}
	if len(req.Trailer) > 0 {
		return s.step(onRequestTrailers, id, uint64(len(req.Trailer)))
	}
	return nil
}

// answerFromBehind calls the callbacks of the response. Its body is read into memory only for a guest that wants it.
func (s *server) answerFromBehind(id uint64) error {
	resp := s.behind
	end := uint64(0)
	if resp.Body == nil || resp.Length == 0 {
		end = 1
	}
	if err := s.step(onResponseHeaders, id, uint64(len(resp.Header)+1), end); err != nil || s.local || resp.Tunnel != nil {
		return err
	}
	if s.find(onResponseBody) == nil && s.find(onResponseTrailers) == nil {
		return nil
	}
	if err := s.hold(); err != nil {
		return err
	}
	if n := len(s.own.Data); n > 0 {
		end = 1
		if len(s.own.Trailer) > 0 {
			end = 0
		}
		if err := s.step(onResponseBody, id, uint64(n), end); err != nil || s.local {
			return err
		}
	}
	if n := len(s.own.Trailer); n > 0 {
		return s.step(onResponseTrailers, id, uint64(n))
	}
	return nil
}

// step calls a callback, and makes the calls that the guest waits for if it pauses.
func (s *server) step(cb callback, params ...uint64) error {
	s.resumed = false
	action, err := s.run(cb, params...)
	if err != nil {
		return err
	}
	for action != actionContinue && !s.local && !s.resumed && !s.closed {
		if len(s.calls) == 0 {
			if s.answered && !s.response { // Layotto's functions may pause once they have answered
				return nil
			}
			return s.unanswered(loam.Internal, "it paused in "+signatures[cb].name+", and nothing is under way that could resume it", "its log lines may say why")
		}
		if err := s.call(); err != nil {
			return err
		}
	}
	if s.closed && !s.local {
		return loam.Errorf(loam.Unavailable, "", "it closed the stream in %s", signatures[cb].name)
	}
	return nil
}

// finish tells the guest that the request is over.
func (s *server) finish() error {
	id := uint64(s.context)
	s.finished = true
	complete, err := s.run(onDone, id)
	if err != nil {
		return err
	}
	s.finishing = s.find(onDone) != nil && complete == 0
	for len(s.calls) > 0 { // nobody waits for them but the guest
		if err := s.call(); err != nil {
			return err
		}
	}
	if _, err := s.run(onLog, id); err != nil {
		return err
	}
	_, err = s.run(onDelete, id)
	return err
}

// forward is the request as the guest changed it.
func (s *server) forward() *loam.Request {
	req := s.guest.Request
	if s.changed[mapRequestHeaders] {
		req.Header = nil
		for _, f := range *s.maps[mapRequestHeaders] {
			switch f.Name {
			case ":method":
				req.Method = f.Value
			case ":path":
				req.Path, req.RawQuery, _ = strings.Cut(f.Value, "?")
			case ":authority":
				req.Authority = f.Value
			case ":scheme":
			default:
				if !guest.OfConnection(f.Name) {
					req.Header.Add(f.Name, f.Value)
				}
			}
		}
	}
	if s.changed[mapRequestTrailers] {
		req.Trailer = *s.maps[mapRequestTrailers]
	}
	if req.Body != nil || s.bodySet {
		b := s.guest.Body
		if s.bodySet {
			b = s.body
		}
		whole := &body{was: req.Body}
		whole.Reset(b)
		req.Body, req.Length = whole, int64(len(b))
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

// hold reads the whole body of what came from behind. From then on the response is own.
func (s *server) hold() error {
	r := s.behind
	if r == nil {
		return nil
	}
	if r.Tunnel != nil {
		return guest.Misuse("the response leaves HTTP: it has no body to read or write")
	}
	if r.Body != nil {
		left := s.guest.Limits.Response
		b, err := io.ReadAll(io.LimitReader(r.Body, left+1))
		if err != nil {
			return &loam.Error{Code: loam.CodeOf(err), Err: fmt.Errorf("the response from behind broke off: %w", err)}
		}
		if err := s.guest.Room(0, len(b)); err != nil {
			return err
		}
		s.guest.Moved(len(b))
		s.own.Data = b
	}
	s.own.Status, s.own.Header, s.own.Trailer = r.Status, clone(r.Header), clone(r.Trailer)
	s.own.Header.Del("Content-Length") // Length says it
	s.behind = nil
	_ = r.Close() // it was read
	return nil
}

// clone copies fields that stand in a buffer of somebody else's.
func clone(h loam.Header) loam.Header {
	c := make(loam.Header, len(h))
	for i, f := range h {
		c[i] = loam.Field{Name: strings.Clone(f.Name), Value: strings.Clone(f.Value)}
	}
	return c
}

// head writes what the guest has changed of a response's head.
func (s *server) head(code *int, header, trailer *loam.Header) {
	if s.changed[mapResponseHeaders] {
		*header = nil
		for _, f := range *s.maps[mapResponseHeaders] {
			if f.Name == ":status" {
				*code, _ = strconv.Atoi(f.Value) // it was checked
			} else if !guest.OfConnection(f.Name) {
				header.Add(f.Name, f.Value)
			}
		}
	}
	if s.changed[mapResponseTrailers] {
		*trailer = *s.maps[mapResponseTrailers]
	}
}
