// Package nethttp carries requests between net/http and Loam's own: for everything that is not hot, and, until the
// data path has its own protocols, for the listeners too.
package nethttp

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// RequestID is the header that names a request in every log on its way.
const RequestID = "X-Request-Id"

// Options of a Handler.
type Options struct {
	Log     *slog.Logger // of panics and broken answers; required
	MaxBody int64        // bytes of a request's body; 0: no bound
	// Done is told of each request once its answer is sent; nil: nobody is.
	Done func(req *loam.Request, status int, sent int64, took time.Duration)
}

// Handler serves a target by net/http. Bodies stream both ways; a target's panic is its request's 500 and nobody
// else's trouble.
func Handler(target loam.Target, o Options) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		req := FromHTTP(r)
		defer req.Release()
		status, sent := http.StatusInternalServerError, int64(0)
		defer func() {
			p := recover()
			if o.Done != nil {
				o.Done(req, status, sent, time.Since(start))
			}
			if p == nil {
				return
			}
			if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				logPanic(o.Log, req, p)
			}
			panic(http.ErrAbortHandler) // what was sent cannot be taken back: cut the connection
		}()
		res, err := (*loam.Response)(nil), refuse(r, o.MaxBody)
		if err == nil {
			if o.MaxBody > 0 && req.Body != nil {
				req.Body = http.MaxBytesReader(w, req.Body, o.MaxBody)
			}
			res, err = serve(target, req, o.Log)
		}
		if err != nil {
			if code := loam.CodeOf(err); code == loam.Internal || code == loam.Unknown || code == loam.DataLoss {
				o.Log.Error("request failed", "request", req.ID, "method", req.Method, "path", req.Path, "error", err)
			}
			res = protocol.ErrorResponse(err, req.ID)
		}
		status = cmp.Or(res.Status, http.StatusOK)
		sent, err = send(w, r.Method, res, req.ID)
		if err != nil && r.Context().Err() == nil {
			o.Log.Warn("answer broken off", "request", req.ID, "path", req.Path, "error", err)
			panic(http.ErrAbortHandler) // so that the peer sees a broken answer and not a short one
		}
	})
}

// refuse is the error of a request that no target shall see.
func refuse(r *http.Request, maxBody int64) error {
	switch {
	case r.Method == http.MethodConnect:
		return loam.Errorf(loam.Unimplemented, "request", "CONNECT: this is no forward proxy")
	case maxBody > 0 && r.ContentLength > maxBody:
		return loam.Errorf(loam.ResourceExhausted, "request", "a body of %d bytes, at most %d are taken: %w", r.ContentLength, maxBody, &http.MaxBytesError{Limit: maxBody})
	}
	return nil
}

// serve calls the target and turns into an error what cannot be sent: a panic, a status that is none.
func serve(target loam.Target, req *loam.Request, log *slog.Logger) (res *loam.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			logPanic(log, req, p)
			res, err = nil, loam.Errorf(loam.Internal, "serve", "the target panicked")
		}
	}()
	res, err = target.Serve(req)
	if err == nil && res.Status != 0 && (res.Status < 200 || res.Status > 999) {
		err = loam.Errorf(loam.Internal, "serve", "the target answered with status %d, which ends no request", res.Status)
		return nil, errors.Join(err, res.Close())
	}
	return res, err
}

// logPanic keeps the stack, which no stranger should read, for the log. It is called by what recovers.
func logPanic(log *slog.Logger, req *loam.Request, p any) {
	log.Error("panic while answering", "request", req.ID, "method", req.Method, "path", req.Path, "panic", p, "stack", string(debug.Stack()))
}

// FromHTTP makes a request of net/http's. The header Host is the Authority; hop-by-hop fields are left out.
func FromHTTP(r *http.Request) *loam.Request {
	req := loam.NewRequest(r.Context())
	req.Method, req.Authority, req.Remote = r.Method, r.Host, r.RemoteAddr
	req.Scheme = "http"
	if r.TLS != nil {
		req.Scheme = "https"
	}
	req.Path, req.RawQuery = r.URL.EscapedPath(), r.URL.RawQuery
	if req.Path == "" {
		req.Path = "/"
	}
	req.Header = appendFields(req.Header, r.Header)
	if req.ID = req.Header.Get(RequestID); !validID(req.ID) {
		req.ID = rand.Text()
		req.Header.Set(RequestID, req.ID)
	}
	if req.Length = r.ContentLength; r.Body != nil && r.Body != http.NoBody {
		req.Body = r.Body
	}
	return req
}

// validID refuses what would forge a line of a log.
func validID(id string) bool {
	return id != "" && len(id) <= 128 && !strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' })
}

// hopByHop are the fields that speak of one connection (RFC 9110, section 7.6.1).
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authenticate", "Proxy-Authorization":
		return true
	}
	return false
}

// appendFields adds net/http's header, without the fields that end here and those that Connection names.
func appendFields(to loam.Header, from http.Header) loam.Header {
	var named []string
	for _, v := range from["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			named = append(named, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
next:
	for name, values := range from {
		if hopByHop(name) {
			continue
		}
		for _, n := range named {
			if n == name {
				continue next
			}
		}
		for _, v := range values {
			to.Add(name, v)
		}
	}
	return to
}

// send writes an answer and tells how many bytes its body had.
func send(w http.ResponseWriter, method string, res *loam.Response, id string) (sent int64, err error) {
	defer func() { _ = res.Close() }() // the answer was sent whole by then, or err says that it was not
	status := cmp.Or(res.Status, http.StatusOK)
	h := w.Header()
	for _, f := range res.Header {
		if name := http.CanonicalHeaderKey(f.Name); !hopByHop(name) && name != "Content-Length" {
			h[name] = append(h[name], f.Value)
		}
	}
	if h.Get(RequestID) == "" {
		h.Set(RequestID, id)
	}
	bodiless := status == http.StatusNoContent || status == http.StatusNotModified
	head := method == http.MethodHead
	known := res.Length >= 0 && (res.Body != nil || res.Length == 0)
	if !bodiless && (head && res.Length > 0 || !head && known) {
		h.Set("Content-Length", strconv.FormatInt(res.Length, 10))
	}
	w.WriteHeader(status)
	switch {
	case bodiless || head || res.Body == nil:
		return 0, nil
	case known:
		sent, err = io.Copy(w, res.Body)
		if err == nil && sent != res.Length {
			err = io.ErrUnexpectedEOF
		}
	default:
		sent, err = stream(w, res.Body)
	}
	for _, f := range res.Trailer {
		h.Add(http.TrailerPrefix+f.Name, f.Value)
	}
	return sent, err
}

// stream copies a body whose end is not known, handing on what there is as it comes: the head first, for a stream of
// events opens long before the first of them.
func stream(w http.ResponseWriter, body io.Reader) (sent int64, err error) {
	flush := http.NewResponseController(w)
	if err := flush.Flush(); err != nil {
		return 0, err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return sent, err
			}
			sent += int64(n)
			if err := flush.Flush(); err != nil {
				return sent, err
			}
		}
		if err == io.EOF {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
	}
}

// FromHandler makes a target of a net/http handler. The answer is gathered in memory: it is for small things such as
// tests and status pages.
func FromHandler(h http.Handler) loam.Target {
	return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		r, err := toHTTP(req, &url.URL{Scheme: "http", Host: req.Authority})
		if err != nil {
			return nil, err
		}
		r.RequestURI, r.RemoteAddr = r.URL.RequestURI(), req.Remote
		if r.Body == nil {
			r.Body = http.NoBody
		}
		w := &recorder{header: http.Header{}}
		h.ServeHTTP(w, r)
		res := loam.NewResponse(max(w.status, http.StatusOK), "", w.body)
		res.Header = appendFields(res.Header, w.header)
		return res, nil
	})
}

type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}
func (r *recorder) Write(p []byte) (int, error) { r.body = append(r.body, p...); return len(p), nil }

// Upstream is a target that sends requests on to a server at base, such as http://127.0.0.1:9000.
func Upstream(base *url.URL, transport http.RoundTripper) loam.Target {
	op := "upstream " + base.Host
	return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		r, err := toHTTP(req, base)
		if err != nil {
			return nil, err
		}
		if host, _, err := net.SplitHostPort(req.Remote); err == nil {
			r.Header.Set("X-Forwarded-For", strings.Join(append(r.Header["X-Forwarded-For"], host), ", "))
			r.Header.Set("X-Forwarded-Proto", req.Scheme)
			r.Header.Set("X-Forwarded-Host", req.Authority)
		}
		got, err := transport.RoundTrip(r)
		if err != nil {
			return nil, upstreamError(req.Context(), op, err)
		}
		res := &loam.Response{Status: got.StatusCode, Length: got.ContentLength, Body: &upstreamBody{got, nil}}
		res.Body.(*upstreamBody).to = res
		res.Header = appendFields(res.Header, got.Header)
		return res, nil
	})
}

// upstreamBody hands the trailer on when the body has ended.
type upstreamBody struct {
	*http.Response
	to *loam.Response
}

func (b *upstreamBody) Read(p []byte) (int, error) {
	n, err := b.Response.Body.Read(p)
	if err == io.EOF {
		b.to.Trailer = appendFields(b.to.Trailer[:0], b.Response.Trailer)
	}
	return n, err
}

func (b *upstreamBody) Close() error { return b.Response.Body.Close() }

func toHTTP(req *loam.Request, base *url.URL) (*http.Request, error) {
	u := *base
	path, err := url.PathUnescape(req.Path)
	if err != nil {
		return nil, loam.Errorf(loam.InvalidArgument, "request", "path %q: %w", req.Path, err)
	}
	u.Path, u.RawPath, u.RawQuery = path, req.Path, req.RawQuery
	r := (&http.Request{
		Method: req.Method, URL: &u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header, len(req.Header)),
		ContentLength: req.Length, Host: req.Authority,
	}).WithContext(req.Context())
	if req.Body != nil {
		r.Body = req.Body
	} else {
		r.ContentLength = 0
	}
	for _, f := range req.Header {
		name := http.CanonicalHeaderKey(f.Name)
		r.Header[name] = append(r.Header[name], f.Value)
	}
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = nil // none was sent: net/http must not add its own
	}
	return r, nil
}

// upstreamError classifies what a transport says.
func upstreamError(ctx context.Context, op string, err error) error {
	var timeout net.Error
	e := &loam.Error{Code: loam.Unavailable, Op: op, Err: err}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		e.Code = loam.ResourceExhausted
	case ctx.Err() != nil:
		e.Code = loam.CodeOf(ctx.Err())
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Code = loam.DeadlineExceeded
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Err = fmt.Errorf("nothing listens there: %w", err)
		e.Hint = "start the program, or set the app's address to where it listens"
	}
	return e
}
