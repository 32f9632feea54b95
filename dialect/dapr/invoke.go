package dapr

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/protocol/grpc"
	"github.com/loam-run/loam/protocol/http2"
)

// Invocation is how other apps are reached, and by whom this one is. The zero value reaches what this process serves, and
// nothing else.
type Invocation struct {
	Hub   *http2.Hub    // of the engine; nil: other sidecars are not reached
	Names *invoke.Names // where other sidecars are; nil: nowhere
	// Sibling is another app of this process whose API is Dapr's, by its id: what its API.App is. nil, or answers nil: there
	// is none.
	Sibling func(id string) loam.Target
	// Endpoint is what an HTTPEndpoint of that name stands for. nil, or false: there is none.
	Endpoint func(name string) (Endpoint, bool)
	Access   *Access // who may call the app, of those that are other apps; nil: all
	MTLS     bool    // sidecars are to prove who they are, which is not done yet: none is called or answered
	Address  string  // of this machine, as other sidecars see it, for the header Forwarded; "": it is left out
}

var (
	errInvoke     = kind{tag: "ERR_DIRECT_INVOKE", status: http.StatusInternalServerError, code: loam.Internal}
	errInvokeNoID = kind{tag: "ERR_DIRECT_INVOKE", status: http.StatusNotFound, code: loam.NotFound}
)

const (
	defaultNamespace = "default"
	maxID            = 512 // bytes of an id, which may be a URL
	maxCallees       = 4096
)

// invocation is what an API knows of those it calls.
type invocation struct {
	namespace string
	forwarded string // the value of Forwarded
	hostname  string

	mu      sync.Mutex // nothing waits while it is held
	callees map[string]loam.Target
	clients map[string]*client
	closed  bool
}

func newInvocation(s Settings) *invocation {
	i := &invocation{namespace: s.Namespace, callees: map[string]loam.Target{}, clients: map[string]*client{}}
	if i.namespace == "" {
		i.namespace = defaultNamespace
	}
	i.hostname, _ = os.Hostname() // then it is left out
	var parts []string
	if a := s.Invocation.Address; a != "" {
		if strings.Contains(a, ":") {
			a = `"[` + a + `]"` // RFC 7239, section 6
		}
		parts = append(parts, "for="+a, "by="+a)
	}
	if i.hostname != "" {
		parts = append(parts, "host="+i.hostname)
	}
	i.forwarded = strings.Join(parts, ";")
	return i
}

// close lets go of connections.
func (i *invocation) close() {
	i.mu.Lock()
	clients := i.clients
	i.clients, i.closed = nil, true
	i.mu.Unlock()
	for _, c := range clients {
		c.Close()
	}
}

// serveInvoke serves /v1.0/invoke/… and every HTTP request that names its receiver by the header dapr-app-id.
func (a *API) serveInvoke(req *loam.Request) (*loam.Response, error) {
	id, method, err := receiver(req)
	if err != nil {
		return a.refuse(errInvokeNoID.failure("%s", err)), nil
	}
	if id == "" {
		return a.refuse(errInvokeNoID.failure("failed getting app id either from the URL path or the header dapr-app-id")), nil
	}
	if method, err = normalize(method); err != nil {
		return a.refuse(errInvoke.failure("failed to invoke, id: %s, err: %s", id, grpcWords(loam.InvalidArgument, err))), nil
	}
	req.Path = escape(method)
	dropOfConnection(&req.Header)
	res, err := a.invoke(req, id)
	if err != nil {
		return a.refuse(invokeFailed(id, err)), nil
	}
	return httpAnswer(res), nil
}

// refuse is a failure as HTTP answers it.
func (a *API) refuse(f *failure) *loam.Response {
	return loam.NewResponse(f.status, "application/json", f.appendJSON(nil))
}

// invokeFailed is the failure of an invocation that came to no answer.
func invokeFailed(id string, err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	s, said := errors.AsType[*grpc.Status](err)
	if said { // another sidecar did
		f = errInvoke.failure("failed to invoke, id: %s, err: %s", id, grpcWords(s.Code, errors.New(s.Message)))
	} else {
		s = grpc.StatusOf(err)
		f = errInvoke.failure("failed to invoke, id: %s, err: %s", id, strings.TrimPrefix(s.Message, s.Code.String()+": "))
	}
	if s.Code == loam.PermissionDenied {
		f.status, f.code = http.StatusForbidden, s.Code
	}
	return f
}

// grpcWords prints an error as Go's gRPC library does, which Dapr's clients see in messages.
func grpcWords(c loam.Code, err error) string {
	return "rpc error: code = " + codeName(c) + " desc = " + err.Error()
}

// codeName is the name of a code as Go's gRPC library spells it.
func codeName(c loam.Code) string {
	names := [...]string{
		"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied", "ResourceExhausted",
		"FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return "Code(" + strconv.Itoa(int(c)) + ")"
}

// httpAnswer makes HTTP of an answer, which may be gRPC's.
func httpAnswer(res *loam.Response) *loam.Response {
	code := res.Header.Get(fieldCode)
	if code == "" {
		return res
	}
	n, _ := strconv.Atoi(code) // written here
	if n != 0 {
		body := statusJSON(n, res.Header.Get(fieldMessage), res.Header)
		status := statusOfCode(loam.Code(n))
		out := loam.NewResponse(status, "", body)
		out.Header = publicFields(res.Header)
		out.Header.Set("Content-Type", "application/json")
		_ = res.Close() // what stands in it is in the body now
		return out
	}
	res.Header = publicFields(res.Header)
	return res
}

func publicFields(h loam.Header) loam.Header {
	return slices.DeleteFunc(slices.Clone(h), func(f loam.Field) bool { return private(f.Name) })
}

// statusOfCode is the HTTP status of a gRPC code, as Dapr has it.
func statusOfCode(c loam.Code) int {
	switch c {
	case loam.OK:
		return http.StatusOK
	case loam.Canceled:
		return http.StatusRequestTimeout
	case loam.InvalidArgument, loam.FailedPrecondition, loam.OutOfRange:
		return http.StatusBadRequest
	case loam.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case loam.NotFound:
		return http.StatusNotFound
	case loam.AlreadyExists, loam.Aborted:
		return http.StatusConflict
	case loam.PermissionDenied:
		return http.StatusForbidden
	case loam.Unauthenticated:
		return http.StatusUnauthorized
	case loam.ResourceExhausted:
		return http.StatusTooManyRequests
	case loam.Unimplemented:
		return http.StatusNotImplemented
	case loam.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// codeOfStatus is the gRPC code of an HTTP status, as Dapr has it.
func codeOfStatus(status int) loam.Code {
	switch status {
	case http.StatusRequestTimeout:
		return loam.Canceled
	case http.StatusBadRequest:
		return loam.Internal
	case http.StatusGatewayTimeout:
		return loam.DeadlineExceeded
	case http.StatusNotFound:
		return loam.NotFound
	case http.StatusConflict:
		return loam.AlreadyExists
	case http.StatusForbidden:
		return loam.PermissionDenied
	case http.StatusUnauthorized:
		return loam.Unauthenticated
	case http.StatusTooManyRequests:
		return loam.ResourceExhausted
	case http.StatusNotImplemented:
		return loam.Unimplemented
	case http.StatusServiceUnavailable:
		return loam.Unavailable
	}
	if status >= 200 && status < 300 {
		return loam.OK
	}
	return loam.Unknown
}

// receiver finds out who is to be called with which method: by the header dapr-app-id, by a user of that name (basic
// authentication), or by the path.
func receiver(req *loam.Request) (id, method string, err error) {
	p := req.Path
	if strings.IndexByte(p, '%') >= 0 {
		if p, err = url.PathUnescape(p); err != nil {
			return "", "", errors.New("the path has an escape that is none")
		}
	}
	if id = req.Header.Get("dapr-app-id"); id != "" {
		id = strings.Clone(id)
		req.Header.Del("dapr-app-id")
		return id, p, nil
	}
	if user, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Basic "); ok {
		if b, err := base64.StdEncoding.DecodeString(user); err == nil {
			name, id, ok := strings.Cut(string(b), ":")
			if ok && strings.EqualFold(name, "dapr-app-id") && !strings.Contains(id, ":") {
				return id, p, nil
			}
		}
	}
	rest := p
	for _, part := range [...]string{"v1.0", "invoke"} {
		rest = strings.TrimLeft(rest, "/")
		var ok bool
		if rest, ok = strings.CutPrefix(rest, part); !ok || rest == "" || rest[0] != '/' {
			return "", "", nil
		}
	}
	rest = strings.TrimLeft(rest, "/")
	at := strings.Index(rest, "/method/")
	if at <= 0 {
		return "", "", nil
	}
	id = rest[:at]
	if strings.ContainsAny(id, "%+") {
		if u, err := url.QueryUnescape(id); err == nil && u != "" {
			id = u
		}
	}
	return id, rest[at+len("/method/"):], nil
}

// normalize cleans a method, which is a path without escapes, as Dapr does it before it looks whether it is allowed: what
// is allowed and what is called are the same then. The result has no slash before it.
func normalize(method string) (string, error) {
	clean := true
	for i := range len(method) {
		switch c := method[i]; {
		case c == '#' || c == '?' || c == 0:
			return "", errors.New("invalid method: method contains forbidden character: " + strconv.Quote(method))
		case c < ' ' || c == 0x7f:
			return "", errors.New("invalid method: method contains control character at position " + strconv.Itoa(i) + ": " + strconv.Quote(method))
		case c == '/' && (i+1 == len(method) || method[i+1] == '/' || method[i+1] == '.'):
			clean = false
		}
	}
	if len(method) > 0 && method[0] == '.' {
		clean = false
	}
	if !clean {
		method = path.Clean("/" + method) // which leaves no way above the root
	}
	return strings.TrimPrefix(method, "/"), nil
}

// escape is a normal method as the path of a request.
func escape(method string) string {
	for i := range len(method) {
		c := method[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`%"<>\^`+"`{|}", c) >= 0 {
			return (&url.URL{Path: "/" + method}).EscapedPath()
		}
	}
	return "/" + method
}

// methodOf is the method that a request's path stands for.
func methodOf(req *loam.Request) string {
	p := strings.TrimPrefix(req.Path, "/")
	if strings.IndexByte(p, '%') >= 0 {
		if u, err := url.PathUnescape(p); err == nil {
			return u
		}
	}
	return p
}

// dropOfConnection removes the fields that speak of one connection (RFC 9110, section 7.6.1) and those that are not for
// who is called.
func dropOfConnection(h *loam.Header) {
	var nominated []string
	for _, v := range h.Values("Connection") {
		for name := range strings.SplitSeq(v, ",") {
			nominated = append(nominated, strings.TrimSpace(name))
		}
	}
	*h = slices.DeleteFunc(*h, func(f loam.Field) bool {
		return ofConnection(f.Name) || private(f.Name) ||
			len(nominated) > 0 && slices.ContainsFunc(nominated, func(n string) bool { return strings.EqualFold(n, f.Name) })
	})
}

func ofConnection(name string) bool {
	switch len(name) {
	case 2:
		return strings.EqualFold(name, "te")
	case 7:
		return strings.EqualFold(name, "trailer") || strings.EqualFold(name, "upgrade")
	case 10:
		return strings.EqualFold(name, "connection") || strings.EqualFold(name, "keep-alive")
	case 14:
		return strings.EqualFold(name, tokenHeader) || strings.EqualFold(name, "http2-settings")
	case 16:
		return strings.EqualFold(name, "proxy-connection")
	case 17:
		return strings.EqualFold(name, "transfer-encoding")
	case 18:
		return strings.EqualFold(name, "proxy-authenticate")
	case 19:
		return strings.EqualFold(name, "proxy-authorization")
	}
	return false
}

// invoke calls the app of an id. The request's path is the method, escaped.
func (a *API) invoke(req *loam.Request, id string) (*loam.Response, error) {
	if len(id) > maxID {
		return nil, loam.Errorf(loam.InvalidArgument, "invoke", "an app id takes 1 to %d bytes", maxID)
	}
	capability, name := "invoke", id
	if _, host, ok := strings.Cut(id, "://"); ok { // outside: a grant of the capability http names the host
		capability = "http"
		name, _, _ = strings.Cut(host, "/")
	}
	if err := a.opts.App.Caller.Check(capability, invoke.Component, name, true); err != nil {
		return nil, err
	}
	t, err := a.callee(id)
	if err != nil {
		return nil, err
	}
	req.Target = id
	return t.Serve(req)
}

// callee is who an id stands for, with what resiliency does round each call.
func (a *API) callee(id string) (loam.Target, error) {
	i := a.invocation
	i.mu.Lock()
	t := i.callees[id]
	i.mu.Unlock()
	if t != nil {
		return t, nil
	}
	id = strings.Clone(id)
	t, err := a.newCallee(id)
	if err != nil {
		return nil, err
	}
	if a.opts.Policies != nil {
		if p := a.opts.Policies(id); p != nil {
			t = p(t)
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.callees) >= maxCallees {
		clear(i.callees) // they are cheap to make again
	}
	i.callees[id] = t
	return t, nil
}

func (a *API) newCallee(id string) (loam.Target, error) {
	if strings.HasPrefix(id, "http://") || strings.HasPrefix(id, "https://") {
		return a.newOutside(Endpoint{BaseURL: id})
	}
	name, namespace, found := strings.Cut(id, ".")
	if !found {
		namespace = a.invocation.namespace
	}
	if name == "" || strings.Contains(namespace, ".") {
		return nil, errInvoke.failure("failed to invoke, id: %s, err: invalid app id %s", id, id)
	}
	if name == a.opts.App.ID && namespace == a.invocation.namespace {
		return loam.TargetFunc(a.channel.call), nil
	}
	return &peer{api: a, whole: id, id: name, namespace: namespace}, nil
}

// A peer is another app: of this process, a name for something outside, or another sidecar's. Which of them may change with
// every call, since configuration does.
type peer struct {
	api                  *API
	whole, id, namespace string
}

// Serve calls it.
func (p *peer) Serve(req *loam.Request) (*loam.Response, error) {
	s := &p.api.settings.Invocation
	if p.namespace == p.api.invocation.namespace {
		if s.Sibling != nil {
			if t := s.Sibling(p.id); t != nil {
				req.Caller = p.api.opts.App.Caller
				return t.Serve(req)
			}
		}
		if i := p.api.invoker(); i != nil && i.Has(p.id) {
			req.Header.Del(fieldProxy)
			req.Authority = p.id
			return i.Serve(p.api.opts.App.Caller, p.id, req)
		}
	}
	if s.Endpoint != nil {
		if e, ok := s.Endpoint(p.whole); ok {
			t, err := p.api.outside(p.whole, e)
			if err != nil {
				return nil, err
			}
			return t.Serve(req)
		}
	}
	if req.Header.Has(fieldProxy) {
		req.Header.Del(fieldProxy)
		return p.forward(req)
	}
	return p.send(req)
}

func (a *API) invoker() *invoke.Invoker {
	if a.opts.Capabilities == nil {
		return nil
	}
	return a.opts.Capabilities.Invoker()
}

// App is the app as others of this process call it: what its Invocation.Sibling answers. Who calls is known for sure, and
// held to the access control list.
func (a *API) App() loam.Target {
	return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		caller := ""
		if req.Caller != nil {
			caller = req.Caller.Name
		}
		if err := a.settings.Invocation.Access.check(caller, a.invocation.namespace, methodOf(req), req.Method, a.opts.App.GRPC); err != nil {
			return nil, err
		}
		return a.channel.call(req)
	})
}
