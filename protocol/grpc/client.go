package grpc

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// A Client calls methods. It is safe for concurrent use.
type Client struct {
	Target     loam.Target // leads to a server: a client of package http2, or one with policies round it
	Authority  string      // of calls whose request has none; "": localhost
	MaxMessage int         // bytes of a message that is received; 0: MaxMessage
}

// A Reply is what came besides the message. What it holds is its own.
type Reply struct {
	Header, Trailer loam.Header
}

// Call calls a method of one message each way: "/package.Service/Method". req is its metadata (Header), its deadline, and
// the task that waits; the rest of it is set here, and may be used for another call after it. The error is a *Status where
// the server sent one; reply, unless it is nil, is filled then too.
func (c *Client) Call(req *loam.Request, method string, in, out Message, reply *Reply) error {
	x := exchanges.Get().(*exchange)
	defer x.free()
	metadata := len(req.Header)
	c.prepare(req, method)
	x.out = appendFrame(x.out[:0], in)
	req.Body, req.Length = x, int64(len(x.out))
	// A server may answer while the rest of a long message is on its way: the request is read until the response is closed.
	defer func() { req.Body, req.Header = nil, req.Header[:metadata] }()
	res, err := c.Target.Serve(req)
	if err != nil {
		return late(req.Task(), req.Deadline(), err)
	}
	err = late(req.Task(), req.Deadline(), x.receive(res, c.MaxMessage, out))
	if reply != nil {
		reply.Header, reply.Trailer = cloneHeader(res.Header), cloneHeader(res.Trailer)
	}
	return errors.Join(err, res.Close())
}

// late is err, or that the time is over: a server that watches the deadline too resets the stream at that very moment.
func late(t loam.Task, deadline time.Time, err error) error {
	if err == nil || deadline.IsZero() || loam.CodeOf(err) != loam.Unavailable {
		return err
	}
	if _, said := errors.AsType[*Status](err); said || t.Now().Add(timing).Before(deadline) {
		return err
	}
	return &loam.Error{Code: loam.DeadlineExceeded, Op: "grpc", Err: err}
}

// timing is how far two clocks and timers are apart.
const timing = 10 * time.Millisecond

// prepare fills in what makes a request a call.
func (c *Client) prepare(req *loam.Request, method string) {
	req.Method, req.Path, req.RawQuery = http.MethodPost, method, ""
	if req.Scheme == "" {
		req.Scheme = "http"
	}
	if req.Authority == "" {
		if req.Authority = c.Authority; req.Authority == "" {
			req.Authority = "localhost"
		}
	}
	req.Header = append(req.Header, loam.Field{Name: "content-type", Value: "application/grpc"}, loam.Field{Name: "te", Value: "trailers"})
	if d := req.Deadline(); !d.IsZero() {
		req.Header = AppendTimeout(req.Header, d.Sub(req.Task().Now()))
	}
}

// An exchange is a unary call, and the body of its request.
type exchange struct {
	in   frames
	out  []byte
	sent int
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func (x *exchange) Read(p []byte) (int, error) {
	n := copy(p, x.out[x.sent:])
	if x.sent += n; x.sent == len(x.out) {
		return n, io.EOF
	}
	return n, nil
}

// Whole is the request's message.
func (x *exchange) Whole() []byte { return x.out }

func (x *exchange) Close() error { return nil }

func (x *exchange) free() {
	if cap(x.out) > 16<<10 {
		x.out = nil
	}
	x.sent, x.in.body = 0, nil
	exchanges.Put(x)
}

// receive takes the answer.
func (x *exchange) receive(res *loam.Response, most int, out Message) error {
	if err := answered(res); err != nil || res.Body == nil {
		if err == nil {
			err = errNoMessage
		}
		return err
	}
	if err := x.in.begin(res.Body, most, res.Header.Get("grpc-encoding")); err != nil {
		return err
	}
	b, err := x.in.only()
	if err != nil && !errors.Is(err, errNoMessage) {
		return err
	}
	if bad := ended(res); bad != nil {
		return bad
	}
	if err != nil {
		return err
	}
	return parse(out, b)
}

// answered looks at the head of an answer: nil, or why no message comes.
func answered(res *loam.Response) error {
	if status, ok := ParseStatus(res.Header); ok && (status != nil || res.Body == nil) {
		if status == nil {
			return nil
		}
		return status
	}
	if res.Status == http.StatusOK && Is(res.Header.Get("content-type")) {
		return nil
	}
	return NewStatus(codeOfHTTP(res.Status), "the answer is no gRPC: HTTP status "+strconv.Itoa(res.Status)+", content-type "+strconv.Quote(res.Header.Get("content-type")))
}

// ended looks at the trailer.
func ended(res *loam.Response) error {
	switch status, ok := ParseStatus(res.Trailer); {
	case !ok:
		return errNoStatus
	case status != nil:
		return status
	}
	return nil
}

var errNoStatus = NewStatus(loam.Internal, "the answer ends without a grpc-status")

// codeOfHTTP is what an answer counts as that has an HTTP status only, by gRPC's table for that.
func codeOfHTTP(status int) loam.Code {
	switch status {
	case http.StatusBadRequest:
		return loam.Internal
	case http.StatusUnauthorized:
		return loam.Unauthenticated
	case http.StatusForbidden:
		return loam.PermissionDenied
	case http.StatusNotFound:
		return loam.Unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return loam.Unavailable
	}
	return loam.Unknown
}

func cloneHeader(h loam.Header) loam.Header {
	if len(h) == 0 {
		return nil
	}
	c := make(loam.Header, len(h))
	for i, f := range h {
		c[i] = loam.Field{Name: strings.Clone(f.Name), Value: strings.Clone(f.Value)}
	}
	return c
}

// ---- Streams

// A ClientStream is a call whose messages come one after another. Send and CloseSend are called by one task at a time,
// Recv, Header and Trailer by one too, which may be another.
type ClientStream struct {
	req   *loam.Request
	task  loam.Task // that opened it
	max   int
	out   pipe
	in    frames
	child loam.Task

	mu     sync.Mutex
	res    *loam.Response
	err    error
	here   bool          // res or err are
	over   bool          // the child has ended
	waits  loam.Task     // for res or err; nil: nobody does
	gone   chan struct{} // who waits for the child's end; nil: nobody
	status error         // how it ended; io.EOF: well
}

// Open begins a call. req is its metadata, its deadline, and the task that waits; it belongs to the stream until Close.
// It does not wait for the server: the first Recv does.
func (c *Client) Open(req *loam.Request, method string) *ClientStream {
	cs := &ClientStream{req: req, task: req.Task(), max: c.MaxMessage}
	c.prepare(req, method)
	req.Body, req.Length = (*request)(cs), -1
	cs.child = cs.task.Go(func(t loam.Task) {
		req.SetTask(t)
		cs.out.bind(t)
		res, err := c.Target.Serve(req)
		cs.mu.Lock()
		cs.res, cs.err, cs.here, cs.over = res, err, true, true
		if cs.waits != nil {
			cs.waits.Wake()
			cs.waits = nil
		}
		if cs.gone != nil {
			close(cs.gone)
		}
		cs.mu.Unlock()
		if err != nil {
			cs.out.abandon(io.EOF)
		}
	})
	return cs
}

// A request is the body of a stream's request.
type request ClientStream

func (r *request) Bind(t loam.Task)           { r.out.bind(t) }
func (r *request) Read(p []byte) (int, error) { return r.out.read(p, time.Time{}) }
func (r *request) Close() error               { return nil }

// Send sends a message; the task calls it that opened the stream. io.EOF means that the server has ended the call: Recv
// tells how.
func (cs *ClientStream) Send(m Message) error { return cs.SendIn(cs.task, m) }

// SendIn is Send by another task, which is t.
func (cs *ClientStream) SendIn(t loam.Task, m Message) error {
	return cs.out.write(t, m, cs.req.Deadline())
}

// Post sends a message without waiting; anyone may call it. Where the server is too far behind it fails with
// ResourceExhausted.
func (cs *ClientStream) Post(m Message) error { return cs.out.write(nil, m, time.Time{}) }

// CloseSend says that no more messages come.
func (cs *ClientStream) CloseSend() { cs.out.end() }

// Recv waits for a message; the task calls it that opened the stream. The error is io.EOF where the call ended well, and a
// *Status where the server sent one.
func (cs *ClientStream) Recv(m Message) error { return cs.RecvIn(cs.task, m) }

// RecvIn is Recv by another task, which is t.
func (cs *ClientStream) RecvIn(t loam.Task, m Message) error {
	if cs.status != nil {
		return cs.status
	}
	res, err := cs.response(t)
	if err != nil {
		return late(t, cs.req.Deadline(), err)
	}
	if cs.in.body == nil {
		if cs.status = answered(res); cs.status == nil && res.Body == nil {
			cs.status = io.EOF
		}
		if cs.status == nil {
			cs.status = cs.in.begin(res.Body, cs.max, res.Header.Get("grpc-encoding"))
		}
		if cs.status != nil {
			cs.out.abandon(io.EOF)
			return cs.status
		}
	}
	b, err := cs.in.next()
	if errors.Is(err, io.EOF) {
		if cs.status = ended(res); cs.status == nil {
			cs.status = io.EOF
		}
		cs.out.abandon(io.EOF)
		return cs.status
	}
	if err != nil {
		return late(t, cs.req.Deadline(), err)
	}
	return parse(m, b)
}

// response waits for the head of the answer.
func (cs *ClientStream) response(t loam.Task) (*loam.Response, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for !cs.here {
		cs.waits = t
		cs.mu.Unlock()
		err := t.Park(time.Time{})
		cs.mu.Lock()
		cs.waits = nil
		if err != nil {
			return nil, err
		}
	}
	return cs.res, cs.err
}

// Header waits for the metadata that comes before the first message, in the task that opened the stream. It is valid
// until Close.
func (cs *ClientStream) Header() (loam.Header, error) {
	res, err := cs.response(cs.task)
	if err != nil {
		return nil, err
	}
	return res.Header, nil
}

// Trailer is the metadata that came after the last message, once Recv has told of the end. It is valid until Close.
func (cs *ClientStream) Trailer() loam.Header {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.res == nil {
		return nil
	}
	if len(cs.res.Trailer) == 0 && cs.res.Body == nil {
		return cs.res.Header
	}
	return cs.res.Trailer
}

// Close ends the call if it is under way, and gives the request back to who opened the stream. The task calls it that
// opened it, once, when no other uses it any more.
func (cs *ClientStream) Close() {
	cs.out.abandon(errOver)
	cs.mu.Lock()
	if !cs.over {
		gone := make(chan struct{})
		cs.gone = gone
		cs.mu.Unlock()
		cs.child.Cancel()
		cs.task.Await(func() { <-gone }) // the task may be canceled itself, and then no other wait would wait
		cs.mu.Lock()
	}
	res := cs.res
	cs.mu.Unlock()
	if res != nil {
		_ = res.Close() // its end is known, or nobody cares for it
	}
	cs.req.Body = nil
	cs.req.SetTask(cs.task)
}

var (
	_ protocol.Bound = (*request)(nil)
	_ protocol.Whole = (*exchange)(nil)
)
