package dapr

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/dapr"
	"github.com/loam-run/loam/internal/protowire"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http2"
)

// The protocol between sidecars: dapr.proto.internals.v1.ServiceInvocation. A call is a stream each way (CallLocalStream),
// whose first message has the head and may have the body too; a sidecar answers CallLocal, one message each way, as well.
const (
	pathCallLocal       = "/dapr.proto.internals.v1.ServiceInvocation/CallLocal"
	pathCallLocalStream = "/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream"
	internalService     = "/dapr.proto.internals.v1."
)

const (
	small = 32 << 10 // bytes of a body that goes with the head, where its length is known
	chunk = 16 << 10 // bytes of one message of a body that does not
	tries = 3        // of a call that nobody has seen

	maxClients = 1024
	maxHead    = 1 << 20 // bytes of a first message beyond what its chunk may have
	maxChunk   = 4 << 20 // bytes of any message that another sidecar sends
)

var errMTLS = &loam.Error{
	Code: loam.FailedPrecondition, Op: "invoke", Err: errors.New("sidecars are to prove to each other who they are (mTLS), which is not done yet"),
	Hint: "start the sidecars without --enable-mtls",
}

// ---- To another sidecar

// A client is the way to another sidecar.
type client struct {
	*http2.Client
	used time.Time
}

// client is the way to the sidecar at an address.
func (a *API) client(address string, now time.Time) (loam.Target, error) {
	i := a.invocation
	i.mu.Lock()
	defer i.mu.Unlock()
	if c := i.clients[address]; c != nil {
		c.used = now
		return c.Client, nil
	}
	if i.closed {
		return nil, loam.Errorf(loam.Unavailable, "invoke", "the process ends")
	}
	if len(i.clients) >= maxClients {
		oldest := ""
		for at, c := range i.clients {
			if oldest == "" || c.used.Before(i.clients[oldest].used) {
				oldest = at
			}
		}
		i.clients[oldest].Close() // calls under way go on
		delete(i.clients, oldest)
	}
	c := &client{http2.NewClient(address, http2.ClientConfig{Hub: a.settings.Invocation.Hub, Limits: http2.Limits{StreamIdle: -1}}), now}
	i.clients[strings.Clone(address)] = c
	return c.Client, nil
}

// find is where the sidecar of an app is.
func (p *peer) find(req *loam.Request) (address string, err error) {
	s := &p.api.settings.Invocation
	switch {
	case s.MTLS:
		return "", errMTLS
	case s.Names == nil || s.Hub == nil:
		return "", &loam.Error{
			Code: loam.NotFound, Err: errors.New("couldn't find service: " + p.whole),
			Hint: "no name resolution is set up here: only apps of this process can be invoked",
		}
	}
	if address, ok := s.Names.Known(p.id, p.namespace); ok {
		return address, nil
	}
	req.Task().Await(func() { address, err = s.Names.Find(req.Context(), p.id, p.namespace) })
	if err != nil && loam.CodeOf(err) == loam.NotFound {
		err = &loam.Error{Code: loam.NotFound, Err: errors.New("couldn't find service: " + p.id), Hint: loam.HintOf(err)}
	}
	return address, err
}

// reach calls send with the way to the app's sidecar, and again with another where nobody has seen the call.
func (p *peer) reach(req *loam.Request, send func(to loam.Target) (res *loam.Response, whole bool, err error)) (*loam.Response, error) {
	for try := 1; ; try++ {
		address, err := p.find(req)
		if err != nil {
			return nil, err
		}
		to, err := p.api.client(address, req.Task().Now())
		if err != nil {
			return nil, err
		}
		res, whole, err := send(to)
		if err == nil {
			return res, nil
		}
		gone := errors.Is(err, protocol.ErrConnect)
		if gone {
			p.api.settings.Invocation.Names.Failed(p.id, p.namespace, address)
		}
		if again := gone || whole && (errors.Is(err, protocol.ErrNotProcessed) || isElsewhere(err)); !again || try == tries {
			return nil, err
		}
		p.api.log.Debug("another sidecar was not reached", "app", p.id, "endpoint", address, "try", try, "error", err)
		if !gone {
			if err := loam.Sleep(req.Task(), time.Duration(try)*100*time.Millisecond); err != nil {
				return nil, err
			}
		}
	}
}

// isElsewhere tells whether a sidecar said that it speaks for another app: an address that was another's before.
func isElsewhere(err error) bool {
	var s *grpc.Status
	return errors.As(err, &s) && s.Code == loam.Unavailable
}

// send calls the app by its sidecar.
func (p *peer) send(req *loam.Request) (*loam.Response, error) {
	first, whole, err := p.first(req)
	if err != nil {
		return nil, err
	}
	return p.reach(req, func(to loam.Target) (*loam.Response, bool, error) {
		o := &outbound{frames: frameReader{most: maxHead + maxChunk}}
		o.begin(p, req, first, whole)
		timing := p.api.settings.Metrics.begin(req.Task())
		timing.end(callsSent, p.id, "", 0)
		res, err := o.call(to)
		if err != nil {
			o.req.End()
			o.frames.free()
			return res, whole, err
		}
		timing.end(answersReceived, p.id, "", said(res))
		timing.end(answersAwaited, p.id, "", said(res))
		return res, whole, nil
	})
}

// said is what an app answered: the status of HTTP, or gRPC's code.
func said(res *loam.Response) int {
	if code := res.Header.Get(fieldCode); code != "" {
		n, _ := strconv.Atoi(code) // written here
		return n
	}
	return max(res.Status, 0)
}

// calledBy counts a call of another sidecar's app, and with the func returned what it was answered; nil: nothing was.
func (a *API) calledBy(h *requestHead, t loam.Task) func(*loam.Response) {
	m := a.settings.Metrics
	if m == nil {
		return func(*loam.Response) {}
	}
	caller := "unknown"
	for _, f := range h.header {
		if strings.EqualFold(f.Name, metaCallerID) {
			caller = f.Value
		}
	}
	timing := m.begin(t)
	timing.end(callsReceived, caller, "", 0)
	return func(res *loam.Response) {
		status := 0
		if res != nil {
			status = said(res)
		}
		timing.end(answersSent, caller, "", status)
	}
}

// first is the first message of a call, in its frame. It is the whole of it where the body is short.
func (p *peer) first(req *loam.Request) (message []byte, whole bool, err error) {
	h := requestHead{method: methodOf(req), query: req.RawQuery, contentType: req.Header.Get("content-type"), typeURL: req.Header.Get(fieldTypeURL)}
	if req.Method != "" {
		h.verb = verbNumber(req.Method)
	}
	var data []byte
	length := req.Length
	switch {
	case req.Body == nil || length == 0:
		length, whole = 0, true
	case length > 0 && length <= small:
		if data, err = readAll(req.Body, length, small); err != nil {
			return nil, false, err
		}
		whole = true
	}
	b, frame := openFrame(make([]byte, 0, 1<<10+len(data)))
	b = p.appendHead(b, req, &h, length)
	if len(data) > 0 {
		b = appendPayload(b, data, 0)
	}
	return shutFrame(b, frame), whole, nil
}

// outbound is a call to another sidecar: the request that goes there, and the body of the answer that came.
type outbound struct {
	req    loam.Request
	res    loam.Response
	answer *loam.Response
	frames frameReader
	data   []byte // of the last message, not read yet
	seq    uint64 // of the next chunk
	over   bool   // no more messages come
}

// begin makes the request of its first message.
func (o *outbound) begin(p *peer, req *loam.Request, first []byte, whole bool) {
	r := &o.req
	r.Begin(req.Task())
	r.Method, r.Scheme, r.Authority, r.Path, r.ID, r.Idle = http.MethodPost, "http", p.id, pathCallLocalStream, req.ID, req.Idle
	r.Header = append(r.Header[:0], loam.Field{Name: "content-type", Value: "application/grpc"}, loam.Field{Name: "te", Value: "trailers"})
	if d := req.Deadline(); !d.IsZero() {
		r.SetDeadline(d)
		r.Header = grpc.AppendTimeout(r.Header, d.Sub(req.Task().Now()))
	}
	if r.Length, r.Body = int64(len(first)), (&chunks{due: first}); !whole {
		r.Length, r.Body = -1, &chunks{from: req.Body, due: first}
	}
}

// appendHead writes the field of the first message that has the head.
func (p *peer) appendHead(b []byte, req *loam.Request, h *requestHead, length int64) []byte {
	a, fromGRPC := p.api, req.Header.Has(fieldGRPC)
	b, request := protowire.Open(b, 1)
	b = protowire.AppendNumber(b, 1, 1)
	b = appendFields(b, 2, req.Header, fromGRPC, func(name string) bool {
		switch len(name) {
		case 9:
			return strings.EqualFold(name, "forwarded")
		case 12:
			return strings.EqualFold(name, "content-type")
		case 14:
			return strings.EqualFold(name, "content-length")
		case 15:
			return strings.EqualFold(name, "x-forwarded-for")
		case 16:
			return strings.EqualFold(name, "x-forwarded-host")
		case 13, 18, 21:
			return strings.EqualFold(name, "dapr-caller-app-id") || strings.EqualFold(name, "dapr-callee-app-id") || strings.EqualFold(name, "dapr-caller-namespace")
		}
		return ofConnection(name)
	})
	if fromGRPC {
		b = appendEntry(b, 2, "content-type", "application/grpc")
	}
	if length >= 0 {
		b = appendEntry(b, 2, "Content-Length", strconv.FormatInt(length, 10))
	}
	var one [1]string
	add := func(name, ours string) {
		if values := req.Header.Values(name); len(values) > 0 {
			if ours != "" {
				values = append(values, ours)
			}
			b = appendEntry(b, 2, name, values...)
		} else if ours != "" {
			one[0] = ours
			b = appendEntry(b, 2, name, one[:]...)
		}
	}
	add("X-Forwarded-For", a.settings.Invocation.Address)
	add("X-Forwarded-Host", a.invocation.hostname)
	add("Forwarded", a.invocation.forwarded)
	b = appendEntry(b, 2, "destination-app-id", p.id)
	b = appendEntry(b, 2, "dapr-caller-namespace", a.invocation.namespace)
	b = appendEntry(b, 2, "dapr-caller-app-id", a.opts.App.ID)
	b = appendEntry(b, 2, "dapr-callee-app-id", p.id)
	b = h.appendMessage(b, 3)
	return protowire.Shut(b, request)
}

// call sends the request and takes the head of the answer.
func (o *outbound) call(to loam.Target) (*loam.Response, error) {
	answer, err := to.Serve(&o.req)
	if err != nil {
		return nil, err
	}
	o.answer = answer
	res, err := o.open()
	if err != nil {
		return nil, errors.Join(err, answer.Close())
	}
	return res, nil
}

func (o *outbound) open() (*loam.Response, error) {
	switch s, ok := grpc.ParseStatus(o.answer.Header); {
	case s != nil:
		return nil, s
	case o.answer.Status != http.StatusOK || !grpc.Is(o.answer.Header.Get("content-type")):
		return nil, loam.Errorf(loam.Unavailable, "invoke", "what listens there is no sidecar: it answers %d", o.answer.Status)
	case ok || o.answer.Body == nil:
		return nil, errNoAnswer
	}
	o.frames.body = o.answer.Body
	b, err := o.next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errNoAnswer
		}
		return nil, err
	}
	var m streamMessage
	var h responseHead
	if err = m.parse(b); err == nil {
		err = h.parse(m.head)
	}
	switch {
	case err != nil:
		return nil, loam.Errorf(loam.Internal, "invoke", "the answer of the other sidecar: %w", err)
	case !h.status:
		return nil, loam.Errorf(loam.Internal, "", "response does not contain the required fields in the leading chunk")
	case m.payload && m.seq != 0:
		return nil, errSequence(m.seq, 0)
	}
	if o.data = m.data; m.payload {
		o.seq = 1
	}
	o.head(&h)
	return &o.res, nil
}

var errNoAnswer = loam.Errorf(loam.Internal, "invoke", "the other sidecar answered nothing")

func errSequence(got, want uint64) error {
	return loam.Errorf(loam.DataLoss, "invoke", "invalid sequence number received: %d (expected: %d)", got, want)
}

// head makes the head of the answer.
func (o *outbound) head(h *responseHead) {
	res := &o.res
	res.Status, res.Length = h.code, -1
	contentType := h.contentType
	if h.typeURL != "" {
		contentType = "application/x-protobuf"
	}
	res.Header = make(loam.Header, 0, len(h.header)+2+len(h.trailer)+len(h.details))
	if contentType != "" && isValue(contentType) {
		res.Header = append(res.Header, loam.Field{Name: "Content-Type", Value: contentType})
	}
	for _, f := range h.header {
		switch {
		case strings.EqualFold(f.Name, "content-length"):
			if n, err := strconv.ParseInt(f.Value, 10, 64); err == nil && n >= 0 {
				res.Length = n
			}
		case strings.EqualFold(f.Name, "content-type"), ofConnection(f.Name), h.code >= 100 && strings.HasSuffix(strings.ToLower(f.Name), "-bin"):
		default:
			res.Header = append(res.Header, f)
		}
	}
	if h.code < 100 { // the app speaks gRPC
		res.Status = statusOfCode(loam.Code(h.code))
		add := func(name, value string) {
			res.Header = append(res.Header, loam.Field{Name: name, Value: value})
		}
		add(fieldCode, strconv.Itoa(h.code))
		if h.words != "" {
			add(fieldMessage, h.words)
		}
		if h.typeURL != "" {
			add(fieldTypeURL, h.typeURL)
		}
		for _, d := range h.details {
			add(fieldDetail, view(d))
		}
		for _, f := range h.trailer {
			add(fieldTrailer+f.Name, f.Value)
		}
		res.Length = -1
	}
	if h.code == http.StatusNoContent || h.code == http.StatusNotModified {
		res.Length = 0
	}
	res.Body = o
}

// next is the next message, or the error that the call ended with; io.EOF where it ended well.
func (o *outbound) next() ([]byte, error) {
	b, err := o.frames.next()
	if !errors.Is(err, io.EOF) {
		return b, err
	}
	o.over = true
	s, ok := grpc.ParseStatus(o.answer.Trailer)
	switch {
	case s != nil:
		return nil, s
	case !ok:
		return nil, loam.Errorf(loam.Unavailable, "invoke", "the answer of the other sidecar broke off")
	}
	for _, f := range o.answer.Trailer {
		if name, ok := cutPrefixFold(f.Name, trailerPrefix); ok {
			o.res.Trailer.Add(strings.Clone(name), strings.Clone(f.Value))
		}
	}
	return nil, io.EOF
}

// trailerPrefix is before the names of an HTTP app's trailer in the trailer of the call. Dapr's protocol has no place for
// them: its sidecars do not see these.
const trailerPrefix = "loam-trailer-"

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}

// Read reads the body of the answer.
func (o *outbound) Read(p []byte) (int, error) {
	for len(o.data) == 0 {
		if o.over {
			return 0, io.EOF
		}
		b, err := o.next()
		if err != nil {
			return 0, err
		}
		if o.data, err = nextChunk(b, &o.seq); err != nil {
			return 0, err
		}
	}
	n := copy(p, o.data)
	o.data = o.data[n:]
	return n, nil
}

// nextChunk is what a message after the first holds.
func nextChunk(b []byte, seq *uint64) ([]byte, error) {
	var m streamMessage
	switch err := m.parse(b); {
	case err != nil:
		return nil, loam.Errorf(loam.Internal, "invoke", "a message of the other sidecar: %w", err)
	case m.head != nil:
		return nil, loam.Errorf(loam.Internal, "invoke", "metadata found in a chunk that is not the first")
	case m.payload && m.seq != *seq:
		return nil, errSequence(m.seq, *seq)
	case m.payload:
		*seq++
	}
	return m.data, nil
}

// Bind tells which task reads.
func (o *outbound) Bind(t loam.Task) { protocol.Bind(o.answer.Body, t) }

// Close ends the call.
func (o *outbound) Close() error {
	err := o.answer.Close()
	o.frames.free()
	o.req.End()
	return err
}

// chunks is the body of a call: a first message that is written already, then those of from, which may be nil.
type chunks struct {
	due  []byte // not sent yet
	from io.Reader
	seq  uint64
	over bool
	buf  []byte
}

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.due) == 0 {
		if c.over || c.from == nil {
			return 0, io.EOF
		}
		if c.buf == nil {
			c.buf = make([]byte, chunk)
		}
		n, err := c.from.Read(c.buf)
		if n > 0 {
			b, frame := openFrame(make([]byte, 0, n+32))
			b = appendPayload(b, c.buf[:n], c.seq)
			c.due = shutFrame(b, frame)
			c.seq++
		}
		if errors.Is(err, io.EOF) {
			c.over = true
		} else if err != nil {
			return 0, err
		}
	}
	n := copy(p, c.due)
	if c.due = c.due[n:]; len(c.due) == 0 && (c.over || c.from == nil) {
		return n, io.EOF
	}
	return n, nil
}

// Bind tells which task reads.
func (c *chunks) Bind(t loam.Task) { protocol.Bind(c.from, t) }

// Close leaves the body to the request that it came with.
func (c *chunks) Close() error { return nil }

// ---- From another sidecar

// Internal serves other sidecars: dapr.proto.internals.v1.ServiceInvocation, and gRPC calls for the app.
func (a *API) Internal() loam.Target {
	served := &grpc.Server{MaxMessage: maxHead + maxChunk, Methods: map[string]grpc.Method{pathCallLocal: grpc.Unary(a.callLocal)}}
	served.Reflect(pb.Descriptors())
	return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		switch {
		case a.settings.Invocation.MTLS:
			return nil, errMTLS
		case req.Path == pathCallLocalStream:
			return a.callLocalStream(req)
		case served.Methods[req.Path] != nil:
			return served.Serve(req)
		case strings.HasPrefix(req.Path, internalService):
			return nil, grpc.NewStatus(loam.Unimplemented, "actors are not built yet: "+req.Path[strings.LastIndexByte(req.Path, '/')+1:])
		case !grpc.Is(req.Header.Get("content-type")):
			return nil, loam.Errorf(loam.Unimplemented, "invoke", "sidecars talk gRPC here")
		}
		return a.serveForeign(req)
	})
}

// inbound is a call from another sidecar: the request that the app gets, and its body.
type inbound struct {
	req    loam.Request
	frames frameReader
	data   []byte
	seq    uint64
	over   bool
	left   int64 // bytes of the body that are to come; -1: unknown

	res    *loam.Response // the app's
	answer loam.Response
	due    []byte
	sent   uint64 // chunks
	done   bool
	buf    []byte
}

func (a *API) callLocalStream(req *loam.Request) (*loam.Response, error) {
	if a.opts.App.Target == nil {
		return nil, grpc.NewStatus(loam.Internal, "app channel is not initialized")
	}
	in := &inbound{frames: frameReader{most: maxHead + maxChunk}}
	var h requestHead
	if err := in.open(req, &h, a.limit()); err != nil {
		return nil, err
	}
	if err := a.admit(&in.req, &h, req); err != nil {
		in.release()
		return nil, err
	}
	in.body()
	answered := a.calledBy(&h, req.Task())
	res, err := a.channel.call(&in.req)
	answered(res)
	if err != nil {
		in.release()
		return nil, channelFailed(err)
	}
	in.res = res
	if err := in.begin(); err != nil {
		_ = in.Close() // err says why
		return nil, channelFailed(err)
	}
	return &in.answer, nil
}

// channelFailed is an app's failure as a sidecar tells another of it.
func channelFailed(err error) error {
	s := grpc.StatusOf(err)
	switch s.Code {
	case loam.PermissionDenied, loam.InvalidArgument, loam.Canceled, loam.DeadlineExceeded:
		return s
	}
	return grpc.NewStatus(loam.Internal, "error invoking app channel: "+s.Message)
}

// open takes the first message, and more where the body of the request begins in the next.
func (in *inbound) open(req *loam.Request, h *requestHead, limit int64) error {
	if req.Body == nil {
		return errInternalRequest("there is no message")
	}
	in.frames.body = req.Body
	b, err := in.frames.next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return errInternalRequest("there is no message")
		}
		return err
	}
	var m streamMessage
	if err = m.parse(b); err == nil && m.head != nil {
		err = h.parse(m.head)
	}
	switch {
	case err != nil:
		return errInternalRequest(err.Error())
	case m.head == nil || !h.message:
		return errInternalRequest("request does not contain the required fields in the leading chunk")
	case m.payload && m.seq != 0:
		return errSequence(m.seq, 0)
	}
	if in.data = m.data; m.payload {
		in.seq = 1
	}
	if len(in.data) == 0 {
		in.data = h.data
	}
	in.left = -1
	fromGRPC := false
	for _, f := range h.header {
		switch {
		case f.Name == "content-type" && strings.HasPrefix(f.Value, "application/grpc"):
			fromGRPC = true
		case strings.EqualFold(f.Name, "content-length"):
			if n, err := strconv.ParseInt(f.Value, 10, 64); err == nil && n >= 0 {
				in.left = n
			}
		}
	}
	if fromGRPC { // the length is that of a message of gRPC's, and the data is one message: it is short, and comes at once
		return in.gather(limit)
	}
	if in.left < 0 && len(in.data) == 0 {
		// Who has no body says no length: whether there is one, the next message tells.
		if err := in.fill(); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if in.over && len(in.data) == 0 {
			in.left = 0
		}
	}
	if in.left >= 0 && int64(len(in.data)) > in.left {
		return errInternalRequest("there is more data than its length says")
	}
	return nil
}

// gather waits for the whole body.
func (in *inbound) gather(limit int64) error {
	all := in.data
	for {
		in.data = nil
		if err := in.fill(); errors.Is(err, io.EOF) {
			in.data, in.left = all, int64(len(all))
			return nil
		} else if err != nil {
			return err
		}
		if all = append(all, in.data...); int64(len(all)) > limit {
			return loam.Errorf(loam.ResourceExhausted, "invoke", "data of more than %d bytes", limit)
		}
	}
}

func errInternalRequest(why string) error {
	return grpc.NewStatus(loam.InvalidArgument, "parsing InternalInvokeRequest error: "+why)
}

// fill waits for the next chunk that has bytes.
func (in *inbound) fill() error {
	for len(in.data) == 0 {
		if in.over {
			return io.EOF
		}
		b, err := in.frames.next()
		if errors.Is(err, io.EOF) {
			in.over = true
			return io.EOF
		}
		if err != nil {
			return err
		}
		if in.data, err = nextChunk(b, &in.seq); err != nil {
			return err
		}
	}
	return nil
}

// admit makes the request that the app gets, if it may.
func (a *API) admit(r *loam.Request, h *requestHead, from *loam.Request) error {
	method, err := normalize(h.method)
	if err != nil {
		return grpc.NewStatus(loam.InvalidArgument, err.Error())
	}
	// Nobody has proved who calls: what the fields say of it does not count.
	if err := a.settings.Invocation.Access.check("", "", method, verbs[h.verb], a.opts.App.GRPC); err != nil {
		return grpc.NewStatus(loam.PermissionDenied, errors.Unwrap(err).Error())
	}
	header := make(loam.Header, 0, len(h.header)+3)
	fromGRPC := false
	for _, f := range h.header {
		switch {
		case strings.EqualFold(f.Name, "dapr-callee-app-id") && f.Value != a.opts.App.ID:
			return grpc.NewStatus(loam.Unavailable, "this is the sidecar of "+strconv.Quote(a.opts.App.ID)+", not of "+strconv.Quote(f.Value))
		case strings.EqualFold(f.Name, "destination-app-id"), strings.EqualFold(f.Name, "content-length"):
			continue
		case strings.EqualFold(f.Name, "content-type"):
			fromGRPC = fromGRPC || f.Name == "content-type" && strings.HasPrefix(f.Value, "application/grpc")
			continue
		}
		header = append(header, f)
	}
	if fromGRPC {
		header = append(header, loam.Field{Name: fieldGRPC, Value: "1"})
	}
	if h.typeURL != "" {
		header = append(header, loam.Field{Name: fieldTypeURL, Value: h.typeURL})
	}
	if h.contentType != "" && isValue(h.contentType) {
		header = append(header, loam.Field{Name: "Content-Type", Value: h.contentType})
	}
	if !isQuery(h.query) {
		return grpc.NewStatus(loam.InvalidArgument, errQuery.Error())
	}
	header = slices.DeleteFunc(header, func(f loam.Field) bool { return ofConnection(f.Name) })
	r.Begin(from.Task())
	r.SetDeadline(from.Deadline())
	r.Method, r.Scheme, r.Authority, r.Path, r.RawQuery, r.ID = verbs[h.verb], "http", a.opts.App.ID, escape(method), h.query, from.ID
	r.Header, r.Idle = header, from.Idle
	return nil
}

var errQuery = errors.New("invalid query string")

// isQuery tells whether s can stand in a request's first line.
func isQuery(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// A request's body.
type inboundBody struct{ in *inbound }

func (b inboundBody) Read(p []byte) (int, error) {
	in := b.in
	if in.left == 0 {
		return 0, io.EOF
	}
	if len(in.data) == 0 {
		if err := in.fill(); err != nil {
			if errors.Is(err, io.EOF) && in.left > 0 {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	n := copy(p, in.data)
	in.data = in.data[n:]
	if in.left > 0 {
		if in.left -= int64(n); in.left < 0 {
			return 0, loam.Errorf(loam.InvalidArgument, "invoke", "there is more data than its length says")
		}
	}
	if in.left == 0 {
		return n, io.EOF
	}
	return n, nil
}

// Bind tells which task reads.
func (b inboundBody) Bind(t loam.Task) { protocol.Bind(b.in.frames.body, t) }

// Close leaves the body to the request that it came with.
func (b inboundBody) Close() error { return nil }

// responseHeadOf is the head of an app's answer.
func responseHeadOf(res *loam.Response) responseHead {
	h := responseHead{code: res.Status, contentType: res.Header.Get("content-type")}
	if h.code == 0 {
		h.code = http.StatusOK
	}
	h.header = make(loam.Header, 0, len(res.Header)+1)
	for _, f := range res.Header {
		switch {
		case !private(f.Name):
			if !ofConnection(f.Name) && !strings.EqualFold(f.Name, "content-length") && !strings.EqualFold(f.Name, "content-type") {
				h.header = append(h.header, f)
			}
		case f.Name == fieldCode:
			h.code, _ = strconv.Atoi(f.Value) // written here
		case f.Name == fieldMessage:
			h.words = f.Value
		case f.Name == fieldTypeURL:
			h.typeURL = f.Value
		case f.Name == fieldDetail:
			h.details = append(h.details, []byte(f.Value))
		case strings.HasPrefix(f.Name, fieldTrailer):
			h.trailer = append(h.trailer, loam.Field{Name: f.Name[len(fieldTrailer):], Value: f.Value})
		}
	}
	return h
}

// begin makes the answer to the other sidecar. A short body goes with the head.
func (in *inbound) begin() error {
	res := in.res
	h := responseHeadOf(res)
	var data []byte
	switch {
	case res.Tunnel != nil:
		return loam.Errorf(loam.Unimplemented, "invoke", "the app left HTTP with status %d, which no sidecar can carry", res.Status)
	case res.Body == nil:
		in.done = true
	case res.Length >= 0 && res.Length <= small:
		var err error
		if data, err = readAll(res.Body, res.Length, small); err != nil {
			return err
		}
		in.done = len(res.Trailer) == 0
	}
	if n := res.Length; n >= 0 && h.code >= 100 {
		h.header = append(h.header, loam.Field{Name: "Content-Length", Value: strconv.FormatInt(n, 10)})
	}
	b, frame := openFrame(make([]byte, 0, 1<<10+len(data)))
	b, response := protowire.Open(b, 1)
	b = protowire.Shut(h.append(b, h.code < 100), response)
	if len(data) > 0 {
		b = appendPayload(b, data, 0)
		in.sent = 1
	}
	in.due = shutFrame(b, frame)
	a := &in.answer
	a.Status, a.Length, a.Body = http.StatusOK, -1, in
	a.Header = append(a.Header, loam.Field{Name: "content-type", Value: "application/grpc"})
	a.Trailer = append(a.Trailer, loam.Field{Name: "grpc-status", Value: "0"})
	return nil
}

// Read reads the body of the answer to the other sidecar.
func (in *inbound) Read(p []byte) (int, error) {
	for len(in.due) == 0 {
		if in.done {
			return 0, io.EOF
		}
		if in.buf == nil {
			in.buf = make([]byte, chunk)
		}
		n, err := in.res.Body.Read(in.buf)
		if n > 0 {
			b, frame := openFrame(make([]byte, 0, n+32))
			b = appendPayload(b, in.buf[:n], in.sent)
			in.due = shutFrame(b, frame)
			in.sent++
		}
		switch {
		case errors.Is(err, io.EOF):
			in.end()
		case err != nil: // the other sidecar has to see that it is not the whole
			in.done = true
			in.answer.Trailer = grpc.AppendStatus(in.answer.Trailer[:0], channelFailed(err))
		}
	}
	n := copy(p, in.due)
	if in.due = in.due[n:]; len(in.due) == 0 && in.done {
		return n, io.EOF
	}
	return n, nil
}

// end takes the app's trailer.
func (in *inbound) end() {
	in.done = true
	for _, f := range in.res.Trailer {
		if isToken(f.Name) && isValue(f.Value) {
			in.answer.Trailer = append(in.answer.Trailer, loam.Field{Name: trailerPrefix + strings.ToLower(f.Name), Value: f.Value})
		}
	}
}

// Bind tells which task reads.
func (in *inbound) Bind(t loam.Task) { protocol.Bind(in.res.Body, t) }

// Close ends the call.
func (in *inbound) Close() error {
	err := in.res.Close()
	in.release()
	return err
}

// release gives back what the call holds. Nobody reads its body any more: the app's answer is closed.
func (in *inbound) release() {
	in.req.End()
	in.frames.free()
}

// callLocal answers a call of one message each way.
func (a *API) callLocal(c *grpc.Call, raw *grpc.Raw) (*grpc.Raw, error) {
	if a.opts.App.Target == nil {
		return nil, grpc.NewStatus(loam.Internal, "app channel is not initialized")
	}
	var h requestHead
	switch err := h.parse(*raw); {
	case err != nil:
		return nil, errInternalRequest(err.Error())
	case !h.message:
		return nil, errInternalRequest("field Message is nil")
	}
	in := &inbound{data: h.data, over: true, left: int64(len(h.data))}
	if err := a.admit(&in.req, &h, c.Request()); err != nil {
		return nil, err
	}
	defer in.req.End()
	in.body()
	answered := a.calledBy(&h, c.Task())
	res, err := a.channel.call(&in.req)
	answered(res)
	if err != nil {
		return nil, channelFailed(err)
	}
	if res.Tunnel != nil {
		return nil, errors.Join(loam.Errorf(loam.Unimplemented, "invoke", "the app left HTTP"), res.Close())
	}
	out := responseHeadOf(res)
	if res.Body != nil {
		out.data, err = readAll(res.Body, res.Length, a.limit())
	}
	b := grpc.Raw(out.append(nil, out.code < 100))
	if err = errors.Join(err, res.Close()); err != nil {
		return nil, channelFailed(err)
	}
	return &b, nil
}

// body sets the body of the app's request.
func (in *inbound) body() {
	if in.req.Length = in.left; in.left != 0 {
		in.req.Body = inboundBody{in}
	}
}

// limit is how many bytes of a message are kept in memory.
func (a *API) limit() int64 {
	if a.maxBody > 0 {
		return a.maxBody
	}
	return grpc.MaxMessage
}
