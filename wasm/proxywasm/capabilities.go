package proxywasm

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// fails keeps the error of a capability call, of which the guest gets no more than a status, and tells the log.
func (s *server) fails(name string, err error) {
	s.failed = err
	line := name + ": " + err.Error()
	if hint := loam.HintOf(err); hint != "" {
		line += " (" + hint + ")"
	}
	s.guest.Log(slog.LevelWarn, []byte(line))
}

// proxy_get_state(store, store_size, key, key_size, &value, &size) reads state of the component that the store is called.
// What is not there is empty, as it is for Layotto's guests.
func getState(c *call) status {
	store, valid1 := c.text(0)
	key, valid2 := c.text(2)
	if !valid1 || !valid2 || !c.canPut(4, 5) { // before anything is done that the guest would not hear of
		return invalidMemoryAccess
	}
	if c.context == 0 {
		return badArgument
	}
	out, err := c.guest.Do("state.Get", (&api.StateGetRequest{Component: store, Keys: []string{key}}).AppendProto(nil))
	var resp api.StateGetResponse
	if err == nil {
		err = resp.ParseProto(out)
	}
	if err != nil {
		c.fails(c.name, err)
		return internalFailure
	}
	var value []byte
	if len(resp.Items) > 0 {
		value = resp.Items[0].Value
	}
	return c.give(4, value)
}

// functionOf is the name of the function that Layotto's guests know by an id. Its ids may have underscores and capitals,
// a resource's name has neither.
func functionOf(id string) string { return strings.ToLower(strings.ReplaceAll(id, "_", "-")) }

// proxy_invoke_service(id, id_size, method, method_size, param, param_size, &result, &size) calls a function: it gets the
// parameter as its body.
func invokeService(c *call) status {
	id, valid1 := c.text(0)
	method, valid2 := c.text(2)
	param, valid3 := c.in(4)
	if !valid1 || !valid2 || !valid3 || !c.canPut(6, 7) {
		return invalidMemoryAccess
	}
	if c.context == 0 {
		return badArgument
	}
	req := api.InvokeCallRequest{
		Target: functionOf(id), Method: "POST", Path: "/" + strings.TrimPrefix(method, "/"), Body: param,
		Headers: []api.Header{{Name: "id", Value: id}},
	}
	out, err := c.guest.Do("invoke.Call", req.AppendProto(nil))
	var resp api.InvokeCallResponse
	if err == nil {
		err = resp.ParseProto(out)
	}
	if err == nil && resp.Status >= 400 {
		err = loam.Errorf(codeOf(resp.Status), "invoke "+strconv.Quote(req.Target), "it answered with status %d", resp.Status)
	}
	if err != nil {
		c.fails(c.name, err)
		return internalFailure
	}
	return c.give(6, resp.Body)
}

// codeOf is what a status of another function's says of this one's.
func codeOf(status uint32) loam.Code {
	switch status {
	case 403:
		return loam.PermissionDenied
	case 404:
		return loam.NotFound
	case 429:
		return loam.ResourceExhausted
	case 503:
		return loam.Unavailable
	case 504:
		return loam.DeadlineExceeded
	}
	return loam.Internal
}

// An outgoing call waits until the guest pauses, or its request is over.
type outgoing struct {
	token   uint32
	request api.HttpSendRequest
}

// maxOutgoing is how many calls may wait at once.
const maxOutgoing = 16

// proxy_http_call(upstream, upstream_size, headers, headers_size, body, body_size, trailers, trailers_size, timeout, &token)
// sends a request to :authority, or to the upstream where that is an address with a scheme. What may be reached is the
// function's grants of the capability http.
func httpCall(c *call) status {
	upstream, valid1 := c.text(0)
	pairs, valid2 := c.in(2)
	data, valid3 := c.text(4)
	trailers, valid4 := c.in(6)
	if !valid1 || !valid2 || !valid3 || !valid4 || !c.canPut(9) {
		return invalidMemoryAccess
	}
	h, fine := checked(mapRequestHeaders, pairs)
	if t, valid := checked(mapRequestTrailers, trailers); !valid || len(t) > 0 || !fine || c.context == 0 {
		return badArgument // trailers cannot be sent
	}
	method, authority, path := h.Get(":method"), h.Get(":authority"), h.Get(":path")
	if method == "" || authority == "" || path == "" {
		return badArgument
	}
	waiting := int64(len(data))
	for _, o := range c.calls {
		waiting += int64(len(o.request.Body))
	}
	if len(c.calls) >= maxOutgoing || waiting > c.guest.Limits.Egress {
		return internalFailure
	}
	origin := strings.TrimSuffix(upstream, "/")
	if !strings.HasPrefix(origin, "http://") && !strings.HasPrefix(origin, "https://") {
		scheme := h.Get(":scheme")
		if scheme == "" {
			scheme = "http"
		}
		origin = scheme + "://" + authority
	}
	c.token++
	o := &outgoing{c.token, api.HttpSendRequest{Method: method, Url: origin + path, Body: []byte(data), TimeoutMs: int64(c.arg(8))}}
	for _, f := range h {
		if f.Name[0] != ':' {
			o.request.Headers = append(o.request.Headers, api.Header{Name: f.Name, Value: f.Value})
		}
	}
	c.calls = append(c.calls, o)
	c.guest.Moved(len(pairs) + len(data))
	return c.put(9, o.token)
}

// call makes the first of the calls that wait, and tells the guest what became of it.
func (s *server) call() error {
	o := s.calls[0]
	s.calls = s.calls[1:]
	out, err := s.guest.Do("http.Send", o.request.AppendProto(nil))
	var resp api.HttpSendResponse
	if err == nil {
		err = resp.ParseProto(out)
	}
	fields, size := 0, 0
	if err != nil {
		s.fails("proxy_http_call", fmt.Errorf("%s %s: %w", o.request.Method, o.request.Url, err))
	} else {
		h := make(loam.Header, 0, 1+len(resp.Headers))
		h.Add(":status", strconv.Itoa(int(resp.Status)))
		for _, f := range resp.Headers {
			h.Add(strings.ToLower(f.Name), f.Value)
		}
		s.maps[mapCallHeaders], s.maps[mapCallTrailers] = &h, new(loam.Header)
		s.answer, s.status = resp.Body, resp.Status
		fields, size = len(h), len(resp.Body)
	}
	s.answering = true
	_, err = s.run(onHTTPCallResponse, root, uint64(o.token), uint64(fields), uint64(size), 0)
	s.maps[mapCallHeaders], s.maps[mapCallTrailers] = nil, nil
	s.answering, s.answer, s.status = false, nil, 0
	return err
}
