// Package loam is the vocabulary every other package speaks: a Request ends at a Target, a Policy is a wrapper
// round a Target, an Event is what a source delivers, a Factory opens a component, a Code says what went wrong.
// It imports the standard library only and holds no behaviour that could be somebody's to configure.
package loam

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Target is where a request ends: a function, the app, a remote service, or another Target wrapped in a policy.
//
// Serve is written in blocking style; the engine that runs it decides what waiting costs. It either returns a
// response whose body the caller reads to its end or closes, or an error whose Code the edge turns into a status.
// It may read req until the response's body is closed and never after.
type Target interface {
	Serve(req *Request) (*Response, error)
}

// TargetFunc is a Target made of a func.
type TargetFunc func(*Request) (*Response, error)

// Serve calls f.
func (f TargetFunc) Serve(req *Request) (*Response, error) { return f(req) }

// A Policy is something done on the way to a target: a retry is a Target round a Target.
type Policy func(Target) Target

// Wrap puts policies round t so that the first one listed sees a request first.
func Wrap(t Target, policies ...Policy) Target {
	for _, p := range slices.Backward(policies) {
		t = p(t)
	}
	return t
}

// A Field is one header line. Names keep the spelling they came with and compare without regard to case.
type Field struct{ Name, Value string }

// A Header is the ordered list of a message's fields (RFC 9110, section 5). The zero value is empty and ready.
// Messages carry a dozen fields, so a scan costs less than a map and keeps the order that was sent.
type Header []Field

// Get returns the first value of name, "" where there is none.
func (h Header) Get(name string) string {
	for i := range h {
		if equalFold(h[i].Name, name) {
			return h[i].Value
		}
	}
	return ""
}

// Has tells whether a field of that name is there, be its value empty.
func (h Header) Has(name string) bool {
	return slices.ContainsFunc(h, func(f Field) bool { return equalFold(f.Name, name) })
}

// Values returns every value of name in the order they came.
func (h Header) Values(name string) []string {
	var v []string
	for i := range h {
		if equalFold(h[i].Name, name) {
			v = append(v, h[i].Value)
		}
	}
	return v
}

// Add appends a field.
func (h *Header) Add(name, value string) { *h = append(*h, Field{name, value}) }

// Set replaces every field of that name by one, which stands where the first of them stood.
func (h *Header) Set(name, value string) {
	for i := range *h {
		if equalFold((*h)[i].Name, name) {
			(*h)[i].Value = value
			rest := (*h)[i+1:]
			*h = (*h)[:i+1+len(slices.DeleteFunc(rest, func(f Field) bool { return equalFold(f.Name, name) }))]
			return
		}
	}
	h.Add(name, value)
}

// Del removes every field of that name.
func (h *Header) Del(name string) {
	*h = slices.DeleteFunc(*h, func(f Field) bool { return equalFold(f.Name, name) })
}

// equalFold compares field names, which are ASCII; strings.EqualFold would also fold Unicode.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

// A Request is one message on its way to a target. It belongs to one task at a time. Its strings may stand in a buffer
// that is used again after Release: what outlives the request is cloned.
type Request struct {
	Method    string // GET, POST, …
	Scheme    string // http or https
	Authority string // the Host header or :authority, with its port where it was sent
	Path      string // as sent, with its escapes; never empty
	RawQuery  string // without the question mark
	Header    Header
	Body      io.ReadCloser // nil: there is none
	Length    int64         // of the body in bytes; -1: not known before its end
	Trailer   Header        // whole once Body was read to its end

	ID     string  // names this request in logs, and in the header x-request-id; never empty past a listener
	Remote string  // address of the peer that sent it, "" for an event
	Caller *Caller // who asks, and what it may reach; nil: a stranger from outside
	Peer   *Peer   // what the connection it came in on proved; nil: nothing

	Route  string // the name of the route that matched, for logs and metrics
	Target string // what it was sent to, the last one where it was tried again

	// Affinity is the endpoint of a service that its sender is to stay with, by the opaque name that the service gave it;
	// "": any. Past the service it is the endpoint that the request was sent to. The same name means the same endpoint in
	// every process.
	Affinity string
	Tried    []string // addresses of the endpoints it was sent to; a service that gets it again prefers others

	// Claims are what a token says of who sent it that a policy verified, by name, as JSON has them; nil: there was none.
	Claims map[string]any
	// Idle is how long the sender or the receiver of a body or stream may be silent; 0: as long as its protocol allows.
	// Who reads and writes bodies keeps to it.
	Idle time.Duration

	// Observer is told of the answer once it was sent; nil: nobody is. A route sets it.
	Observer Observer

	enders   []Ender
	task     Task
	end      context.CancelFunc // of a task that was made here
	deadline time.Time
	ctx      context.Context // of task and deadline; made when somebody asks
	done     context.CancelFunc
}

// A Peer is what is known of who sent a request beyond its address.
type Peer struct {
	ServerName string              // that the client asked for by TLS (SNI)
	Protocol   string              // that was agreed on by TLS (ALPN)
	Chain      []*x509.Certificate // the client's certificate and those above it, verified; empty: it showed none
}

var requests = sync.Pool{New: func() any { return new(Request) }}

// NewRequest takes an empty request from the pool, for the calling goroutine. ctx ends when nobody waits for the answer
// any more; its deadline is the request's.
func NewRequest(ctx context.Context) *Request {
	r := requests.Get().(*Request)
	r.task, r.end = NewTask(ctx)
	r.deadline, _ = ctx.Deadline()
	return r
}

// NewRequestOf is NewRequest for a task. Its deadline is that of the task's context.
func NewRequestOf(task Task) *Request {
	r := requests.Get().(*Request)
	r.task = task
	r.deadline, _ = task.Context().Deadline()
	return r
}

// Begin empties the request for a new message that task serves. Who keeps requests for reuse calls it, and End after
// each message.
func (r *Request) Begin(task Task) { r.task = task }

// An Observer is told what became of a request: the status of the answer, the bytes of its body, and how long it took
// from the request's head to the end of the answer. It must not wait, nor keep the request.
type Observer interface {
	Observe(req *Request, status int, sent int64, took time.Duration)
}

// An Ender is told of a request's end.
type Ender interface{ RequestEnded() }

// AtEnd has e told once, when the request ends: its answer was sent, or nobody waits for it any more. So a target can
// count what is under way without wrapping the response's body.
func (r *Request) AtEnd(e Ender) { r.enders = append(r.enders, e) }

// Enders is how many wait for the end.
func (r *Request) Enders() int { return len(r.enders) }

// EndTry tells those that came after the first n and forgets them: what they count is over. Who serves a request again
// calls it after a try that came to nothing, with what Enders was before that.
func (r *Request) EndTry(n int) {
	for _, e := range r.enders[n:] {
		e.RequestEnded()
	}
	clear(r.enders[n:])
	r.enders = r.enders[:n]
}

// End closes the body and empties the request. Its header keeps its room.
func (r *Request) End() {
	for _, e := range r.enders {
		e.RequestEnded()
	}
	clear(r.enders)
	if r.Body != nil {
		_ = r.Body.Close() // what could not be read is the peer's loss; nobody waits for it
	}
	if r.done != nil {
		r.done()
	}
	if r.end != nil {
		r.end()
	}
	h, t := r.Header[:cap(r.Header)], r.Trailer[:0]
	clear(h)
	*r = Request{Header: h[:0], Trailer: t, Tried: r.Tried[:0], enders: r.enders[:0]}
}

// Release ends the request and gives it back to the pool. Only who called NewRequest calls it, once, after the
// response's body was closed.
func (r *Request) Release() {
	r.End()
	requests.Put(r)
}

// Clone makes a request like r, without its body, that task may serve longer than r lives.
func (r *Request) Clone(task Task) *Request {
	c := requests.Get().(*Request)
	head, tried, enders := c.Header, c.Tried, c.enders
	*c = Request{
		Method: strings.Clone(r.Method), Scheme: r.Scheme, Authority: strings.Clone(r.Authority), Path: strings.Clone(r.Path),
		RawQuery: strings.Clone(r.RawQuery), ID: strings.Clone(r.ID), Remote: strings.Clone(r.Remote), Caller: r.Caller, Peer: r.Peer,
		Route: r.Route, Target: r.Target, Claims: r.Claims, Idle: r.Idle, Affinity: strings.Clone(r.Affinity), Tried: append(tried, r.Tried...),
		enders: enders, task: task, deadline: r.deadline,
	}
	for _, f := range r.Header {
		head = append(head, Field{strings.Clone(f.Name), strings.Clone(f.Value)})
	}
	c.Header = head
	return c
}

// Task is what serves the request: where its code waits.
func (r *Request) Task() Task {
	if r.task == nil {
		r.task, r.end = NewTask(context.Background())
	}
	return r.task
}

// SetTask hands the request to another task.
func (r *Request) SetTask(t Task) {
	r.forget()
	r.task = t
}

// Deadline is when nobody waits for the answer any more; zero: there is none.
func (r *Request) Deadline() time.Time { return r.deadline }

// SetDeadline moves it. It binds the whole exchange, the response's body too. Contexts handed out before end.
func (r *Request) SetDeadline(t time.Time) {
	if !r.deadline.Equal(t) {
		r.forget()
		r.deadline = t
	}
}

func (r *Request) forget() {
	if r.done != nil {
		r.done()
	}
	r.ctx, r.done = nil, nil
}

// Context is the request's life for code that takes a context: it ends with the deadline, when the caller is gone, and
// with the request. It costs allocations; code of the data path uses Task and Deadline.
func (r *Request) Context() context.Context {
	if r.ctx == nil {
		if r.deadline.IsZero() {
			r.ctx, r.done = context.WithCancel(r.Task().Context())
		} else {
			r.ctx, r.done = context.WithDeadline(r.Task().Context(), r.deadline)
		}
	}
	return r.ctx
}

// SetContext replaces the request's context. The context given must descend from the present one.
func (r *Request) SetContext(ctx context.Context) {
	if d, ok := ctx.Deadline(); ok {
		r.deadline = d
	}
	r.ctx, r.done = ctx, nil
}

// A Response is a target's answer. Who receives it calls Close, once, when it needs it no more; from then on the response
// and its strings are somebody else's.
type Response struct {
	Status  int // HTTP status; 0 counts as 200
	Header  Header
	Body    io.ReadCloser // nil: there is none
	Length  int64         // of the body in bytes; -1: not known before its end
	Trailer Header        // whole once Body was read to its end

	// Tunnel is the target's end of a connection that leaves HTTP with this answer: a 101, or a 2xx to CONNECT. The edge
	// carries bytes both ways from then on and closes it. nil: the answer is an ordinary one.
	Tunnel io.ReadWriteCloser
}

// Close closes the body where there is one.
func (r *Response) Close() error {
	if r.Tunnel != nil {
		return r.Tunnel.Close()
	}
	if r.Body == nil {
		return nil
	}
	return r.Body.Close()
}

// NewResponse makes an answer whose body is in memory.
func NewResponse(status int, contentType string, body []byte) *Response {
	r := &Response{Status: status, Length: int64(len(body)), Body: io.NopCloser(strings.NewReader(string(body)))}
	if contentType != "" {
		r.Header.Add("Content-Type", contentType)
	}
	return r
}

// An Event is one message of a topic with the attributes of CloudEvents 1.0.
type Event struct {
	ID          string // unique within Source; the pubsub capability gives one where it is empty
	Source      string // who published it
	Type        string // what kind of thing happened
	Subject     string // what it happened to; may be empty
	Time        time.Time
	ContentType string // of Data: application/json where nobody said otherwise
	Topic       string
	Attributes  map[string]string // extensions, traceparent among them
	Data        []byte

	// Extra are members of a publisher's JSON envelope that are no strings (numbers, objects), as they were written.
	Extra map[string]json.RawMessage
	// Metadata is what the publisher and the broker say to each other beside the event: a partition's key.
	Metadata map[string]string
	// Raw: Data is the whole message as it lies in the broker, without an envelope. Topic, and ID where the broker has one,
	// are all that is known beside it.
	Raw bool
}

// A Caller is a function or app as the boundary sees it: a name, and the grants that are all it may reach. It is
// immutable once a snapshot holds it.
type Caller struct {
	Name   string
	Grants []Grant
	Denied []Grant // what it may not reach though a grant says so
}

// A Grant lets a caller reach one component of one capability.
type Grant struct {
	Capability string   // state, pubsub, lock, config, sequence…; "*": any
	Component  string   // which one; "*": any
	Names      []string // keys, topics, locks…; "orders/*" is a prefix; empty: all of them
	Except     []string // names, written likewise, that it is not for
	ReadOnly   bool     // only what changes nothing
}

// covers tells whether the grant is for a name in a component.
func (g *Grant) covers(capability, component, name string) bool {
	return (g.Capability == capability || g.Capability == "*") && (g.Component == component || g.Component == "*") &&
		matchName(g.Names, name) && (len(g.Except) == 0 || !matchName(g.Except, name))
}

// Check tells whether the caller may touch name in a component: nil, or an error with PermissionDenied that says
// what to grant. A nil caller may do nothing.
func (c *Caller) Check(capability, component, name string, write bool) error {
	if c == nil {
		return &Error{Code: PermissionDenied, Op: capability, Err: errors.New("no caller")}
	}
	for i := range c.Denied {
		if c.Denied[i].covers(capability, component, name) {
			return &Error{
				Code: PermissionDenied, Op: capability,
				Err:  errors.New(strconv.Quote(name) + " in " + capability + " component " + strconv.Quote(component) + " is denied to " + strconv.Quote(c.Name)),
				Hint: "see the scopes of the component, and the secrets.scopes of the app's Configuration",
			}
		}
	}
	for i := range c.Grants {
		if g := &c.Grants[i]; (!write || !g.ReadOnly) && g.covers(capability, component, name) {
			return nil
		}
	}
	return &Error{
		Code: PermissionDenied, Op: capability,
		Err:  errors.New(strconv.Quote(c.Name) + " holds no grant for " + strconv.Quote(name) + " in " + capability + " component " + strconv.Quote(component)),
		Hint: "add to its spec.grants: {capability: " + capability + ", component: " + component + ", names: [" + strconv.Quote(name) + "]}",
	}
}

func matchName(names []string, name string) bool {
	if len(names) == 0 {
		return true
	}
	for _, n := range names {
		if prefix, ok := strings.CutSuffix(n, "*"); n == name || ok && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// A Guard is what is done round a call that may fail: a bound on its time, further tries, a breaker. It calls do, perhaps
// several times, perhaps never.
type Guard func(ctx context.Context, do func(ctx context.Context) error) error

// Guarded makes a call behind g; nil guards nothing.
func Guarded[T any](ctx context.Context, g Guard, call func(ctx context.Context) (T, error)) (v T, err error) {
	if g == nil {
		return call(ctx)
	}
	err = g(ctx, func(ctx context.Context) (err error) {
		v, err = call(ctx)
		return err
	})
	return v, err
}

// A Method is one call of the capability API as every carrier hands it on: an encoded request message of api/ in,
// an encoded response message out. A carrier resolves it by name once, then calls it.
type Method func(ctx context.Context, caller *Caller, in []byte) ([]byte, error)

// A TaskMethod is a Method that waits by its task and by nothing else: on an event loop it needs no thread, but where it asks
// for one (Task.Await).
type TaskMethod func(ctx context.Context, task Task, caller *Caller, in []byte) ([]byte, error)

// Methods are the capability API by name: "state.Get", "pubsub.Publish".
type Methods map[string]Method

// A Factory opens one type of component. The list of them says what is in the binary.
type Factory struct {
	Type    string   // capability and technology: "state.sqlite"
	Aliases []string // other names of it, such as Dapr's: "configuration.redis"
	// Origin tells the program that offers the type from the one that did before it: what that one opened is opened anew.
	// "": it is this process.
	Origin string

	// Check decodes metadata and tells what is wrong with it, without touching anything outside.
	Check func(metadata map[string]string) error
	// Open opens the component called name and returns the capability's driver. What it opened, the driver's
	// Close closes.
	Open func(ctx context.Context, name string, metadata map[string]string) (driver any, err error)
}

// Named tells whether typ is one of the factory's names.
func (f Factory) Named(typ string) bool { return f.Type == typ || slices.Contains(f.Aliases, typ) }

// Capability is the part of Type before the dot.
func (f Factory) Capability() string {
	c, _, _ := strings.Cut(f.Type, ".")
	return c
}
