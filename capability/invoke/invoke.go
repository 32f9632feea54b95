// Package invoke is the invocation capability: a function or app asks another one by its name. What answers is a
// Target like every other; this package checks the grant, keeps calls from going round in circles for ever, and turns
// the contract's messages into a request and back. Who the names stand for, it is told by server.
package invoke

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// Component is the one component there is, as grants name it.
const Component = "default"

// Bounds of a call.
const (
	MaxBody    = 16 << 20 // bytes of what is answered
	MaxDepth   = 16       // calls that wait for each other
	MaxTimeout = 24 * time.Hour
	maxName    = 253
	maxPath    = 16 << 10
)

// An Invoker makes calls by name.
type Invoker struct {
	find func(name string) (loam.Target, error)
}

// New makes an Invoker; find returns the function or app of a name, or NotFound.
func New(find func(name string) (loam.Target, error)) *Invoker { return &Invoker{find} }

// Has tells whether the name is that of a function, app or service of this process.
func (i *Invoker) Has(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	_, err := i.find(name)
	return err == nil
}

// Serve hands a request on to the target of that name. Its Caller becomes the one who asks, whose grant is checked:
// one to read is enough for GET, HEAD and OPTIONS.
func (i *Invoker) Serve(caller *loam.Caller, name string, req *loam.Request) (*loam.Response, error) {
	op := "invoke " + strconv.Quote(name)
	if name == "" || len(name) > maxName {
		return nil, loam.Errorf(loam.InvalidArgument, op, "a name takes 1 to %d bytes", maxName)
	}
	if err := caller.Check("invoke", Component, name, !safe(req.Method)); err != nil {
		return nil, err
	}
	target, err := i.find(name)
	if err != nil {
		return nil, err
	}
	req.Caller, req.Target = caller, name
	return target.Serve(req)
}

// depth is the context's key for how many calls wait already.
type depth struct{}

// Call serves a call of the contract: the whole answer is read.
func (i *Invoker) Call(ctx context.Context, caller *loam.Caller, c *api.InvokeCallRequest) (*api.InvokeCallResponse, error) {
	ctx, end, err := begin(ctx, c)
	if err != nil {
		return nil, err
	}
	defer end()
	return i.exchange(loam.NewRequest(ctx), caller, c)
}

// CallWithin is Call in a task of an event loop, which the call shares: what answers runs there too.
func (i *Invoker) CallWithin(ctx context.Context, task loam.Task, caller *loam.Caller, c *api.InvokeCallRequest) (resp *api.InvokeCallResponse, err error) {
	ctx, end, err := begin(ctx, c)
	if err != nil {
		return nil, err
	}
	defer end()
	task.Within(ctx, func(t loam.Task) { resp, err = i.exchange(loam.NewRequestOf(t), caller, c) })
	if loam.CodeOf(err) == loam.Canceled && errors.Is(ctx.Err(), context.DeadlineExceeded) { // which a task is not told
		err = &loam.Error{Code: loam.DeadlineExceeded, Op: op(c), Err: err}
	}
	return resp, err
}

func op(c *api.InvokeCallRequest) string { return "invoke " + strconv.Quote(c.Target) }

// begin makes the context of a call. The func returned ends it.
func begin(ctx context.Context, c *api.InvokeCallRequest) (context.Context, context.CancelFunc, error) {
	n, _ := ctx.Value(depth{}).(int)
	if n >= MaxDepth {
		return nil, nil, &loam.Error{
			Code: loam.ResourceExhausted, Op: op(c), Err: fmt.Errorf("%d calls wait for each other already", MaxDepth),
			Hint: "look whether functions call each other in a circle",
		}
	}
	ctx = context.WithValue(ctx, depth{}, n+1)
	if c.TimeoutMs < 0 || c.TimeoutMs > MaxTimeout.Milliseconds() {
		return nil, nil, loam.Errorf(loam.InvalidArgument, op(c), "a timeout of %d ms: it lasts up to %s", c.TimeoutMs, MaxTimeout)
	}
	if c.TimeoutMs == 0 {
		return ctx, func() {}, nil
	}
	ctx, end := context.WithTimeout(ctx, api.Millis(c.TimeoutMs))
	return ctx, end, nil
}

// exchange fills and sends a request, releases it, and reads the answer.
func (i *Invoker) exchange(req *loam.Request, caller *loam.Caller, c *api.InvokeCallRequest) (*api.InvokeCallResponse, error) {
	defer req.Release()
	op := op(c)
	if err := fill(req, c); err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: op, Err: err}
	}
	resp, err := i.Serve(caller, c.Target, req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Close() }() // read to its end, or of no use any more
	if resp.Tunnel != nil {
		return nil, loam.Errorf(loam.Unimplemented, op, "it left HTTP with status %d, which a call cannot carry", resp.Status)
	}
	out := &api.InvokeCallResponse{Status: uint32(resp.Status)}
	if out.Status == 0 {
		out.Status = http.StatusOK
	}
	for _, f := range resp.Header {
		out.Headers = append(out.Headers, api.Header{Name: f.Name, Value: f.Value})
	}
	if resp.Body == nil {
		return out, nil
	}
	out.Body, err = io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	switch {
	case err != nil:
		return nil, &loam.Error{Code: loam.CodeOf(err), Op: op, Err: fmt.Errorf("read its answer: %w", err)}
	case len(out.Body) > MaxBody:
		return nil, &loam.Error{
			Code: loam.ResourceExhausted, Op: op, Err: fmt.Errorf("its answer is larger than %d bytes", MaxBody),
			Hint: "answer in pages, or keep large data elsewhere",
		}
	}
	return out, nil
}

// fill makes the request that a call asks for. A guest wrote all of it, and an app reads it from a connection: nothing
// may end a line there.
func fill(req *loam.Request, c *api.InvokeCallRequest) error {
	req.Scheme, req.Authority, req.ID = "http", c.Target, rand.Text()
	req.Method = c.Method
	if req.Method == "" {
		req.Method = http.MethodGet
		if len(c.Body) > 0 {
			req.Method = http.MethodPost
		}
	}
	if !token(req.Method) {
		return fmt.Errorf("method %q", req.Method)
	}
	req.Path, req.RawQuery, _ = strings.Cut(c.Path, "?")
	if req.Path == "" {
		req.Path = "/"
	}
	if len(c.Path) > maxPath || req.Path[0] != '/' || strings.ContainsFunc(c.Path, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) {
		return fmt.Errorf("path %.100q: it begins with a slash, and what it cannot hold stands by percent signs", c.Path)
	}
	for _, f := range c.Headers {
		if !token(f.Name) {
			return fmt.Errorf("header field name %.100q", f.Name)
		}
		if strings.ContainsFunc(f.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return fmt.Errorf("a control character in the value of header field %s", f.Name)
		}
		switch strings.ToLower(f.Name) {
		case "connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
			continue // of a connection, and there is none
		}
		req.Header.Add(f.Name, f.Value)
	}
	req.Length = int64(len(c.Body))
	if len(c.Body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(c.Body))
	}
	return nil
}

// token tells whether s is a method or a field name (RFC 9110, section 5.6.2).
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) })
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// Methods are the capability's calls.
func (i *Invoker) Methods() loam.Methods {
	return loam.Methods{
		"invoke.Call": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			return carry(in, func(c *api.InvokeCallRequest) (*api.InvokeCallResponse, error) { return i.Call(ctx, caller, c) })
		},
	}
}

// TaskMethods are the same for callers that run in a task of an event loop.
func (i *Invoker) TaskMethods() map[string]loam.TaskMethod {
	return map[string]loam.TaskMethod{
		"invoke.Call": func(ctx context.Context, task loam.Task, caller *loam.Caller, in []byte) ([]byte, error) {
			return carry(in, func(c *api.InvokeCallRequest) (*api.InvokeCallResponse, error) {
				return i.CallWithin(ctx, task, caller, c)
			})
		},
	}
}

// carry decodes a call and encodes its answer.
func carry(in []byte, call func(*api.InvokeCallRequest) (*api.InvokeCallResponse, error)) ([]byte, error) {
	var c api.InvokeCallRequest
	if _, err := api.Parse(&c, in, func() (any, error) { return nil, nil }); err != nil {
		return nil, err
	}
	resp, err := call(&c)
	if err != nil {
		return nil, err
	}
	return resp.AppendProto(nil), nil
}
