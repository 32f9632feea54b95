package grpc

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// A Server is a target that answers calls. It is not changed once it serves.
type Server struct {
	Methods    map[string]Method // by what is in :path: "/package.Service/Method"
	Unknown    loam.Target       // gets calls of methods that are not in Methods, whole; nil: they are Unimplemented
	MaxMessage int               // bytes of a message that is received; 0: MaxMessage
	Budget     *protocol.Budget  // of the memory of large messages, those received and those of answers that are not taken; nil: no bound
}

// A Method answers calls of one name: Unary or Streaming makes one.
type Method interface {
	serve(s *Server, req *loam.Request) (*loam.Response, error)
}

// Serve answers a call.
func (s *Server) Serve(req *loam.Request) (*loam.Response, error) {
	m, ok := s.Methods[req.Path]
	switch {
	case !Is(req.Header.Get("content-type")):
		return loam.NewResponse(415, "text/plain", []byte("this is a gRPC server: the content-type is application/grpc\n")), nil
	case ok:
		return m.serve(s, req)
	case s.Unknown != nil:
		return s.Unknown.Serve(req)
	}
	return nil, unknownMethod(s.Methods, req.Path)
}

// unknownMethod says whether it is the service that is not known or its method, in the words that others use.
func unknownMethod(methods map[string]Method, path string) error {
	service, method, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	for name := range methods {
		if strings.HasPrefix(name, "/"+service+"/") {
			return NewStatus(loam.Unimplemented, "unknown method "+method+" for service "+service)
		}
	}
	return NewStatus(loam.Unimplemented, "unknown service "+service)
}

// A Call is one that is answered. It is the handler's until that returns.
type Call struct {
	req     *loam.Request
	task    loam.Task
	header  loam.Header
	trailer loam.Header
	expects int     // bytes of the answer
	memory  *frames // what counts them; nil: nothing does
}

// Expect says of a unary call, before its answer is made, that this will have so many bytes, or little more: the memory is
// had at once and whole, or there is no answer. It is called once, for an answer that may be large.
func (c *Call) Expect(bytes int) error {
	if bytes <= protocol.Free || c.memory == nil {
		return nil
	}
	c.expects = bytes
	return c.memory.hold(c.memory.held + bytes)
}

// Request is what the call came in: its header is the metadata, next to the fields of gRPC itself.
func (c *Call) Request() *loam.Request { return c.req }

// Task is what runs the handler.
func (c *Call) Task() loam.Task { return c.task }

// Context ends when nobody waits for the answer any more.
func (c *Call) Context() context.Context { return c.req.Context() }

// AddHeader adds metadata before the first message of the answer. The name is in lower case; one that ends in -bin has a
// value of EncodeBinary.
func (c *Call) AddHeader(name, value string) { c.header.Add(name, value) }

// AddTrailer adds metadata after the last one.
func (c *Call) AddTrailer(name, value string) { c.trailer.Add(name, value) }

// failed is an error as what answers the call returns it.
func (c *Call) failed(err error) (*loam.Response, error) {
	if len(c.header) == 0 && len(c.trailer) == 0 && !malformed(err) {
		return nil, err
	}
	res := &loam.Response{Status: 200}
	res.Header.Add("content-type", "application/grpc")
	res.Header = append(res.Header, c.header...)
	res.Header = append(AppendStatus(res.Header, err), c.trailer...)
	return res, nil
}

// A pointer is to a message of type T.
type pointer[T any] interface {
	*T
	Message
}

// Unary makes a method of one message each way from what answers it. The call costs no task besides the request's. f must
// not keep the Call; the request message is its own.
func Unary[In, Out any, PIn pointer[In], POut pointer[Out]](f func(*Call, PIn) (POut, error)) Method {
	return unary(func(c *Call, in, out []byte) ([]byte, error) {
		m := PIn(new(In))
		if err := parse(m, in); err != nil {
			return nil, err
		}
		answer, err := f(c, m)
		if err != nil {
			return nil, err
		}
		if answer == nil {
			return nil, loam.Errorf(loam.Internal, "grpc", "the handler of %s answered nothing", c.req.Path)
		}
		if c.expects > protocol.Free {
			c.task.Await(func() { // it takes too long for others to wait
				out = answer.AppendProto(append(make([]byte, 0, c.expects+c.expects/64), out...))
			})
			return out, nil
		}
		return answer.AppendProto(out), nil
	})
}

// unary answers the message in by appending to out.
type unary func(c *Call, in, out []byte) ([]byte, error)

// Watched is a method whose unary calls are told to done when they are answered, with how they ended. Streams are not told.
func Watched(m Method, done func(req *loam.Request, code loam.Code, took time.Duration)) Method {
	if f, ok := m.(unary); ok {
		return watched{f, done}
	}
	return m
}

type watched struct {
	unary
	done func(req *loam.Request, code loam.Code, took time.Duration)
}

func (w watched) serve(s *Server, req *loam.Request) (*loam.Response, error) {
	start := req.Task().Now()
	res, err := w.unary.serve(s, req)
	code := loam.OK
	if err != nil {
		code = StatusOf(err).Code
	} else if c, ok := ParseCode(res.Header); ok {
		code = c
	}
	w.done(req, code, req.Task().Now().Sub(start))
	return res, err
}

// A reply is a unary call, and the body of its answer.
type reply struct {
	Call
	in   frames
	res  loam.Response
	out  []byte
	sent int
}

var replies = sync.Pool{New: func() any { return new(reply) }}

func (f unary) serve(s *Server, req *loam.Request) (*loam.Response, error) {
	r := replies.Get().(*reply)
	r.req, r.task, r.memory = req, req.Task(), &r.in
	if err := r.answer(f, s, req); err != nil {
		res, err := r.failed(err)
		r.free()
		return res, err
	}
	res := &r.res
	res.Status, res.Length, res.Body = 200, int64(len(r.out)), r
	res.Header = append(append(res.Header[:0], loam.Field{Name: "content-type", Value: "application/grpc"}), r.header...)
	res.Trailer = append(append(res.Trailer[:0], loam.Field{Name: "grpc-status", Value: "0"}), r.trailer...)
	return res, nil
}

func (r *reply) answer(f unary, s *Server, req *loam.Request) error {
	var body io.Reader
	if req.Body != nil {
		body = req.Body
	}
	r.in.budget = s.Budget
	if err := r.in.begin(body, s.MaxMessage, req.Header.Get("grpc-encoding")); err != nil {
		return err
	}
	in, err := r.in.only()
	if err != nil {
		return err
	}
	out, err := f(&r.Call, in, append(r.out[:0], 0, 0, 0, 0, 0))
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-frameHeader))
	r.out = out
	if len(out) > protocol.Free {
		return r.in.hold(r.in.held - r.expects + len(out))
	}
	return nil
}

// Read gives the answer, and its end with its last bytes.
func (r *reply) Read(p []byte) (int, error) {
	n := copy(p, r.out[r.sent:])
	if r.sent += n; r.sent == len(r.out) {
		return n, io.EOF
	}
	return n, nil
}

// Whole is the answer.
func (r *reply) Whole() []byte { return r.out }

// Close lets the reply be used again.
func (r *reply) Close() error {
	r.free()
	return nil
}

func (r *reply) free() {
	out := r.out[:0]
	if cap(out) > 16<<10 {
		out = nil
	}
	if r.in.held > 0 {
		_ = r.in.hold(0)
	}
	clear(r.header)
	clear(r.trailer)
	r.Call = Call{header: r.header[:0], trailer: r.trailer[:0]}
	r.in.body, r.in.budget = nil, nil
	r.out, r.sent = out, 0
	replies.Put(r)
}

// ---- Streams

// Streaming makes a method of any number of messages either way from what answers it. f runs in a task beside the
// request's; the answer's head is sent with its first message, and what f returns ends it.
func Streaming(f func(*Stream) error) Method { return streaming(f) }

type streaming func(*Stream) error

// A Stream is a call whose messages come one after another. Recv is called by one task at a time, which may be another one
// than the handler's.
type Stream struct {
	Call
	in  frames
	out pipe

	mu     sync.Mutex
	err    error         // of the handler
	over   bool          // the handler has returned
	gone   chan struct{} // who waits for that; nil: nobody
	child  loam.Task
	parent loam.Task
	res    loam.Response
}

var (
	_ protocol.Bound = (*answer)(nil)
	_ protocol.Whole = (*reply)(nil)
)

func (f streaming) serve(s *Server, req *loam.Request) (*loam.Response, error) {
	t := req.Task()
	st := &Stream{parent: t}
	st.req = req
	var body io.Reader
	if req.Body != nil {
		body = req.Body
	}
	st.in.budget, st.out.budget = s.Budget, s.Budget
	if err := st.in.begin(body, s.MaxMessage, req.Header.Get("grpc-encoding")); err != nil {
		return nil, err
	}
	st.out.reader = t
	st.child = t.Go(func(child loam.Task) {
		req.SetTask(child)
		st.task = child
		st.run(f)
	})
	ended, err := st.out.wait(req.Deadline())
	if err != nil {
		st.stop(t)
		return nil, err
	}
	if ended { // there is no message: the head says it all
		st.stop(t)
		if st.err != nil {
			return st.failed(st.err)
		}
		st.res.Status = 200
		st.res.Header = append(loam.Header{{Name: "content-type", Value: "application/grpc"}}, st.header...)
		st.res.Header = append(AppendStatus(st.res.Header, nil), st.trailer...)
		return &st.res, nil
	}
	res := &st.res
	res.Status, res.Length, res.Body = 200, -1, (*answer)(st)
	res.Header = append(loam.Header{{Name: "content-type", Value: "application/grpc"}}, st.header...)
	return res, nil
}

func (st *Stream) run(f streaming) {
	err := error(loam.Errorf(loam.Internal, "serve", "the target panicked"))
	defer func() { // a panic goes on to the engine, which logs it
		if st.in.held > 0 {
			_ = st.in.hold(0)
		}
		st.mu.Lock()
		st.err, st.over = err, true
		if st.gone != nil {
			close(st.gone)
		}
		st.mu.Unlock()
		st.out.end()
	}()
	err = f(st)
}

// stop ends the handler and returns when it has.
func (st *Stream) stop(t loam.Task) {
	defer st.req.SetTask(t)
	st.out.abandon(errOver)
	st.mu.Lock()
	if st.over {
		st.mu.Unlock()
		return
	}
	gone := make(chan struct{})
	st.gone = gone
	st.mu.Unlock()
	st.child.Cancel()
	t.Await(func() { <-gone }) // t may be canceled itself, and then no other wait would wait
}

// Recv waits for a message. The error is io.EOF when the client has sent all.
func (st *Stream) Recv(m Message) error {
	b, err := st.in.next()
	if err != nil {
		return err
	}
	return parse(m, b)
}

// Send sends a message; only the handler's task calls it. Where the client does not take what is sent, it waits.
func (st *Stream) Send(m Message) error { return st.SendIn(st.task, m) }

// SendIn is Send by another task of the handler, which is t.
func (st *Stream) SendIn(t loam.Task, m Message) error {
	return st.out.write(t, m, st.req.Deadline())
}

// Post sends a message without waiting: anyone may call it, until the handler has returned and after. Where the client is
// too far behind it fails with ResourceExhausted, and when the stream is over with Canceled.
func (st *Stream) Post(m Message) error { return st.out.write(nil, m, st.req.Deadline()) }

// An answer is the body of a stream's response.
type answer Stream

func (a *answer) Bind(t loam.Task) { a.out.bind(t) }

func (a *answer) Read(p []byte) (int, error) {
	st := (*Stream)(a)
	n, err := st.out.read(p, st.req.Deadline())
	if errors.Is(err, io.EOF) {
		st.mu.Lock()
		defer st.mu.Unlock()
		st.res.Trailer = append(AppendStatus(st.res.Trailer[:0], st.err), st.trailer...)
	}
	return n, err
}

// Close ends the handler.
func (a *answer) Close() error {
	st := (*Stream)(a)
	st.stop(st.parent)
	return nil
}
