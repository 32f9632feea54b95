package dapr

import (
	"crypto/subtle"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// A call is one request of the HTTP API while it is served.
type call struct {
	*loam.Request
	api    *API
	params [3]string // what the route's parameters stand for, unescaped
	answer *answer
	held   int // bytes of the body that was read
}

// serveHTTP serves the API's port: CORS, the token, then the route.
func (a *API) serveHTTP(req *loam.Request) (*loam.Response, error) {
	if a.cors == nil {
		return a.routeHTTP(req, a.routes)
	}
	origin := req.Header.Get("Origin")
	if req.Method == http.MethodOptions && req.Header.Has("Access-Control-Request-Method") {
		return a.cors.preflight(req, origin), nil
	}
	res, err := a.routeHTTP(req, a.routes)
	if err == nil {
		a.cors.answer(&res.Header, origin)
	}
	return res, err
}

// servePublic serves the public port: health and metadata, without a token.
func (a *API) servePublic(req *loam.Request) (*loam.Response, error) {
	return a.routeHTTP(req, a.public)
}

func (a *API) routeHTTP(req *loam.Request, routes *routeTable) (*loam.Response, error) {
	p := cleanPath(req.Path)
	if routes.meters != nil {
		req.Observer = routes.meters.of(req.Method)
	}
	if a.opts.App.APIToken != "" && routes == a.routes {
		token := req.Header.Get(tokenHeader)
		if subtle.ConstantTimeCompare([]byte(token), []byte(a.opts.App.APIToken)) != 1 && !(req.Method == http.MethodGet && (p == "/v1.0/healthz" || p == "/v1.0/healthz/outbound")) {
			return text(http.StatusUnauthorized, "invalid api token"), nil
		}
		req.Header.Del(tokenHeader)
	}
	var params [3]string
	r, err := routes.match(req.Method, p, &params)
	if r != nil && r.meters != nil {
		req.Observer = r.meters.of(req.Method)
	}
	switch {
	case err != nil:
		return text(http.StatusBadRequest, err.Error()), nil
	case r == nil && !routes.fallback:
		return text(http.StatusNotFound, "404 page not found"), nil
	case r == nil || r.serve == nil:
		return a.serveInvoke(req)
	}
	c := calls.Get().(*call)
	c.Request, c.api, c.params, c.answer = req, a, params, newAnswer()
	defer c.end()
	if err := r.serve(c); err != nil {
		c.fail(err)
	}
	res := c.answer
	c.answer = nil
	return &res.Response, nil
}

const tokenHeader = "dapr-api-token"

var calls = sync.Pool{New: func() any { return new(call) }}

func (c *call) end() {
	if c.answer != nil {
		_ = c.answer.Close() // gives it back
	}
	_ = c.api.budget.Resize(c.held, 0) // giving back is never refused
	*c = call{}
	calls.Put(c)
}

// fail makes the answer of an error.
func (c *call) fail(err error) {
	f := failureOf(err)
	if f.code == loam.Internal {
		c.api.log.Debug("API request failed", "method", c.Method, "path", c.Path, "error", err)
	}
	head := c.answer.Header[:0] // metadata of an answer beside an error is sent too
	for _, h := range c.answer.Header {
		if strings.HasPrefix(h.Name, metadataPrefix) {
			head = append(head, h)
		}
	}
	c.answer.Header = head
	c.json(f.status, f.appendJSON(nil))
}

// empty answers without a body.
func (c *call) empty() { c.answer.Status = http.StatusNoContent }

// json answers with a body; its type is JSON unless the answer has one already.
func (c *call) json(status int, body []byte) {
	if !c.answer.Header.Has("Content-Type") {
		c.answer.Header.Add("Content-Type", "application/json")
	}
	c.body(status, body)
}

func (c *call) body(status int, body []byte) {
	if len(body) > protocol.Free {
		if err := c.api.budget.Resize(0, len(body)); err != nil {
			c.answer.Header = c.answer.Header[:0]
			f := failureOf(err)
			f.status = http.StatusTooManyRequests
			c.fail(f)
			return
		}
		c.answer.budget = c.api.budget
	}
	c.answer.size = len(body)
	c.answer.Status, c.answer.data, c.answer.Length = status, body, int64(len(body))
}

// hold takes of the budget what the call holds, in place of what it did before.
func (c *call) hold(n int) error {
	err := c.api.budget.Resize(c.held, n)
	if err == nil {
		c.held = n
		return nil
	}
	f := failureOf(err)
	f.status = http.StatusTooManyRequests
	return f
}

// readBody reads the request's body whole.
func (c *call) readBody() ([]byte, error) {
	body, err := readBody(c.Body, c.Length, c.api.maxBody, c.hold)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		f := errBodyRead.failure("failed to read request body: stream too large: at most %d bytes", large.Limit)
		f.status = http.StatusRequestEntityTooLarge
		return nil, f
	case loam.CodeOf(err) == loam.ResourceExhausted:
		return nil, err
	case err != nil:
		f := errBodyRead.failure("failed to read request body: %v", err)
		if errors.Is(err, protocol.ErrSlowBody) {
			f.status = http.StatusRequestTimeout
		}
		return nil, f
	}
	return body, nil
}

// readAll reads a body of that length (-1: unknown) and no more than limit bytes (0: no bound).
func readAll(body io.Reader, length, limit int64) ([]byte, error) {
	return readBody(body, length, limit, func(int) error { return nil })
}

// readBody is readAll, and asks hold before it takes so many bytes of memory.
func readBody(body io.Reader, length, limit int64, hold func(n int) error) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	if limit > 0 && length > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	size := int64(512)
	if length >= 0 {
		size = min(length+1, 64<<10) // one more than there is, so that the end is seen without growing
	}
	b := make([]byte, 0, size)
	for {
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if limit > 0 && int64(len(b)) > limit {
			return nil, &http.MaxBytesError{Limit: limit}
		}
		if err == io.EOF || err == nil && int64(len(b)) == length {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		if len(b) == cap(b) {
			next := 4 * int64(len(b))
			if length >= 0 {
				next = min(next, length+1)
			}
			if limit > 0 {
				next = min(next, limit+1)
			}
			next = max(next, int64(len(b))+512)
			if err := hold(int(next)); err != nil {
				return nil, err
			}
			b = append(make([]byte, 0, next), b...)
		}
	}
}

// query is the first value of a name in the query string.
func (c *call) query(name string) string {
	if c.RawQuery == "" {
		return ""
	}
	for rest := c.RawQuery; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		key, value, _ := strings.Cut(pair, "=")
		if unescape(key) == name {
			return unescape(value)
		}
	}
	return ""
}

// queries are all values of a name in the query string.
func (c *call) queries(name string) []string {
	var values []string
	for rest := c.RawQuery; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		key, value, _ := strings.Cut(pair, "=")
		if unescape(key) == name {
			values = append(values, unescape(value))
		}
	}
	return values
}

const metadataPrefix = "metadata."

// metadata is what the query string's parameters metadata.x say; nil where there are none.
func (c *call) metadata() map[string]string {
	if !strings.Contains(c.RawQuery, "metadata") {
		return nil
	}
	var m map[string]string
	for rest := c.RawQuery; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		key, value, _ := strings.Cut(pair, "=")
		name, ok := strings.CutPrefix(unescape(key), metadataPrefix)
		if _, twice := m[name]; !ok || twice {
			continue // the first counts
		}
		if m == nil {
			m = map[string]string{}
		}
		m[name] = unescape(value)
	}
	return m
}

// unescape reads a part of a query string; one that is not escaped rightly is taken as it stands.
func unescape(s string) string {
	if strings.ContainsAny(s, "%+") {
		if u, err := url.QueryUnescape(s); err == nil {
			return u
		}
	}
	return s
}

// cleanPath takes out doubled slashes, dots and a slash at the end, as Dapr does before it looks for a route. What is
// escaped stays: it is part of a name.
func cleanPath(p string) string {
	if strings.Contains(p, "//") || strings.Contains(p, "/.") || len(p) > 1 && p[len(p)-1] == '/' {
		return path.Clean(p)
	}
	return p
}

// An answer is a response whose body is in memory. It is used again once it was closed.
type answer struct {
	loam.Response
	data  []byte
	field [6]loam.Field

	size   int              // of the body
	budget *protocol.Budget // that it is held of; nil: none
}

var answers = sync.Pool{New: func() any { return new(answer) }}

func newAnswer() *answer {
	r := answers.Get().(*answer)
	r.Response = loam.Response{Header: r.field[:0], Body: r}
	return r
}

// Read reads the body.
func (r *answer) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// Whole is the body that is left.
func (r *answer) Whole() []byte { return r.data }

// Close gives the answer back. Only the body's reader calls it, once.
func (r *answer) Close() error {
	if r.budget != nil {
		_ = r.budget.Resize(r.size, 0)
	}
	r.data, r.field, r.size, r.budget = nil, [6]loam.Field{}, 0, nil
	r.Response = loam.Response{}
	answers.Put(r)
	return nil
}

// text answers as net/http's Error does, which is what Dapr uses outside its own errors.
func text(status int, message string) *loam.Response {
	return loam.NewResponse(status, "text/plain; charset=utf-8", []byte(message+"\n"))
}

// cors is who may call the API from a browser.
type cors struct {
	any     bool
	origins []string // in lower case; an asterisk stands for anything
}

// newCORS reads the flag allowed-origins: with "", the default, no browser is answered.
func newCORS(allowed string) *cors {
	if allowed == "" {
		return nil
	}
	c := &cors{}
	for o := range strings.SplitSeq(allowed, ",") {
		o = strings.ToLower(strings.TrimSpace(o))
		c.any = c.any || o == "*"
		c.origins = append(c.origins, o)
	}
	return c
}

func (c *cors) allows(origin string) bool {
	if origin == "" {
		return false
	}
	origin = strings.ToLower(origin)
	for _, o := range c.origins {
		before, after, wild := strings.Cut(o, "*")
		if o == origin || wild && len(origin) >= len(before)+len(after) && strings.HasPrefix(origin, before) && strings.HasSuffix(origin, after) {
			return true
		}
	}
	return false
}

// answer adds to a response what its reader's browser asks for.
func (c *cors) answer(h *loam.Header, origin string) {
	h.Add("Vary", "Origin")
	if c.allows(origin) {
		h.Add("Access-Control-Allow-Origin", c.origin(origin))
	}
}

func (c *cors) origin(origin string) string {
	if c.any {
		return "*"
	}
	return origin
}

// preflight answers what a browser asks before a request.
func (c *cors) preflight(req *loam.Request, origin string) *loam.Response {
	res := &loam.Response{Status: http.StatusOK}
	for _, v := range [...]string{"Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"} {
		res.Header.Add("Vary", v)
	}
	method := strings.ToUpper(req.Header.Get("Access-Control-Request-Method"))
	switch method {
	case http.MethodHead, http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		return res
	}
	if !c.allows(origin) {
		return res
	}
	res.Header.Add("Access-Control-Allow-Origin", c.origin(origin))
	res.Header.Add("Access-Control-Allow-Methods", method)
	if h := req.Header.Get("Access-Control-Request-Headers"); h != "" {
		res.Header.Add("Access-Control-Allow-Headers", h)
	}
	return res
}
