package loam

import (
	"time"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// An Outgoing is a request that a function makes. The zero value is a GET with nothing in it.
type Outgoing struct {
	Method  string // "": GET, with a body POST
	Header  Header
	Body    []byte
	Timeout time.Duration // 0: as long as the function itself has
}

// Invoke asks another function, or the app, by name; path may have a query. Whatever it answers is a response, a 500
// too: an error is a call that was not answered.
func Invoke(target, path string, o Outgoing) (*Response, error) {
	var resp api.InvokeCallResponse
	err := call("invoke.Call", &api.InvokeCallRequest{
		Target: target, Method: o.Method, Path: path, Headers: o.Header.toAPI(), Body: o.Body, TimeoutMs: milliseconds(o.Timeout),
	}, &resp)
	if err != nil {
		return nil, err
	}
	return &Response{Status: int(resp.Status), Header: headerOf(resp.Headers), Body: resp.Body}, nil
}

// Fetch sends a request to a host outside that was granted. Redirects are answers like all others.
func Fetch(url string, o Outgoing) (*Response, error) {
	var resp api.HttpSendResponse
	err := call("http.Send", &api.HttpSendRequest{
		Method: o.Method, Url: url, Headers: o.Header.toAPI(), Body: o.Body, TimeoutMs: milliseconds(o.Timeout),
	}, &resp)
	if err != nil {
		return nil, err
	}
	return &Response{Status: int(resp.Status), Header: headerOf(resp.Headers), Body: resp.Body}, nil
}

func (h Header) toAPI() []api.Header {
	to := make([]api.Header, len(h))
	for i, f := range h {
		to[i] = api.Header{Name: f.Name, Value: f.Value}
	}
	return to
}

func headerOf(from []api.Header) Header {
	h := make(Header, len(from))
	for i, f := range from {
		h[i] = Field{f.Name, f.Value}
	}
	return h
}
