// Package http is the outbound HTTP capability: a function or app asks a host outside, if that was granted. It checks
// the grant and the request, keeps what was granted by a wildcard out of this machine and its network, and follows no
// redirects: those lead where nobody granted anything.
package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// Component is the one component there is, as grants name it.
const Component = "default"

// Bounds of a request.
const (
	MaxBody    = 16 << 20 // bytes of an answer
	MaxTimeout = 24 * time.Hour
	maxURL     = 16 << 10
)

// A Sender sends requests.
type Sender struct {
	granted http.RoundTripper // to what is granted by name, wherever it is
	public  http.RoundTripper // to what a wildcard covers: public addresses only
}

// New makes a Sender with connections of its own, which Close closes.
func New() *Sender { return &Sender{transport(nil), transport(publicOnly)} }

// Close closes the connections that wait for use.
func (s *Sender) Close() error {
	for _, t := range []http.RoundTripper{s.granted, s.public} {
		if t, ok := t.(*http.Transport); ok {
			t.CloseIdleConnections()
		}
	}
	return nil
}

// transport keeps connections. control, which may be nil, sees each address before it is dialed, after names were
// resolved: a name that resolves otherwise the second time gains nothing.
func transport(control func(network, address string, _ syscall.RawConn) error) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, Control: control}).DialContext,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // the bytes are those that were sent
		MaxIdleConns:           100,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 1 << 20,
	}
}

var errPrivate = errors.New("the address is not a public one")

func publicOnly(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !public(a.Addr()) {
		return fmt.Errorf("%w: %s", errPrivate, a.Addr())
	}
	return nil
}

// notPublic are the ranges set aside beside those that package netip knows (IANA's special-purpose registries).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"),
}

func public(a netip.Addr) bool {
	a = a.Unmap()
	for _, p := range notPublic {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && a.Zone() == ""
}

// Send sends a request of the contract and reads the whole answer, whatever its status. A grant names hosts
// ("api.example.com", "localhost:8080" where the port is not the scheme's) or beginnings of URLs
// ("https://api.example.com/v1/*"); one to read is enough for GET, HEAD and OPTIONS. One without names is for every
// public host.
func (s *Sender) Send(ctx context.Context, caller *loam.Caller, r *api.HttpSendRequest) (*api.HttpSendResponse, error) {
	op := "http.Send"
	invalid := func(format string, args ...any) (*api.HttpSendResponse, error) {
		return nil, loam.Errorf(loam.InvalidArgument, op, format, args...)
	}
	u, err := parse(r.Url)
	if err != nil {
		return invalid("%w", err)
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
		if len(r.Body) > 0 {
			method = http.MethodPost
		}
	}
	op += " " + method + " " + u.Scheme + "://" + u.Host
	transport, err := s.check(caller, u, method)
	if err != nil {
		return nil, err
	}
	if r.TimeoutMs < 0 || r.TimeoutMs > MaxTimeout.Milliseconds() {
		return invalid("a timeout of %d ms: it lasts up to %s", r.TimeoutMs, MaxTimeout)
	}
	if r.TimeoutMs > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, api.Millis(r.TimeoutMs))
		defer cancel()
	}
	if method == http.MethodConnect {
		return invalid("CONNECT is not offered: a tunnel carries what nobody checks")
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(r.Body))
	if err != nil {
		return invalid("%w", err)
	}
	for _, f := range r.Headers {
		if !ofConnection(f.Name) {
			req.Header.Add(f.Name, f.Value)
		}
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "loam")
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, failure(ctx, op, err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or of no use any more
	out := &api.HttpSendResponse{Status: uint32(resp.StatusCode)}
	for name, values := range resp.Header {
		for _, v := range values {
			if !ofConnection(name) {
				out.Headers = append(out.Headers, api.Header{Name: name, Value: v})
			}
		}
	}
	out.Body, err = io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	switch {
	case err != nil:
		return nil, failure(ctx, op, fmt.Errorf("read the answer: %w", err))
	case len(out.Body) > MaxBody:
		return nil, loam.Errorf(loam.ResourceExhausted, op, "the answer is larger than %d bytes", MaxBody)
	}
	return out, nil
}

// parse reads a URL and brings it into the one form that grants are held against.
func parse(text string) (*url.URL, error) {
	if len(text) > maxURL {
		return nil, fmt.Errorf("a URL of %d bytes: at most %d", len(text), maxURL)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("the URL cannot be read") // its text may hold a secret
	}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	switch {
	case port == "":
		return nil, errors.New("a URL begins with http:// or https://")
	case u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("the URL has no host")
	case u.User != nil:
		return nil, errors.New("the URL has a user in it; send a header Authorization instead")
	}
	u.Fragment, u.RawFragment = "", ""
	u.Host = strings.ToLower(u.Host)
	u.Host = strings.TrimSuffix(strings.TrimSuffix(u.Host, ":"), ":"+port)
	if u.Path == "" {
		u.Path = "/"
	}
	for segment := range strings.SplitSeq(u.Path, "/") { // which is without its escapes
		if segment == "." || segment == ".." {
			return nil, errors.New("the URL's path has . or .. in it")
		}
	}
	return u, nil
}

// check finds the grant and how far it carries.
func (s *Sender) check(caller *loam.Caller, u *url.URL, method string) (http.RoundTripper, error) {
	write := method != http.MethodGet && method != http.MethodHead && method != http.MethodOptions
	err := caller.Check("http", Component, u.Host, write)
	if err != nil && caller.Check("http", Component, u.Scheme+"://"+u.Host+u.EscapedPath(), write) != nil {
		return nil, err
	}
	if caller.Check("http", Component, "", false) == nil { // no names, or *: it names nothing
		return s.public, nil
	}
	return s.granted, nil
}

// failure says what kind it is of what broke on the way; the address is not for the guest to learn.
func failure(ctx context.Context, op string, err error) error {
	e := &loam.Error{Code: loam.Unavailable, Op: op, Err: err}
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, errPrivate):
		e.Code, e.Hint = loam.PermissionDenied, "a grant without names is for public hosts: name this one"
	case errors.Is(ctx.Err(), context.Canceled):
		e.Code = loam.Canceled
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		e.Code = loam.DeadlineExceeded
	case errors.As(err, &dns) && dns.IsNotFound:
		e.Code, e.Err = loam.NotFound, errors.New("there is no host "+strconv.Quote(dns.Name))
	case strings.HasPrefix(err.Error(), "net/http: invalid "):
		e.Code = loam.InvalidArgument
	}
	return e
}

// ofConnection names the fields that belong to a connection, which is not the guest's.
func ofConnection(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "content-length", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// Methods are the capability's calls.
func (s *Sender) Methods() loam.Methods {
	return loam.Methods{
		"http.Send": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.HttpSendRequest
			if _, err := api.Parse(&req, in, func() (any, error) { return nil, nil }); err != nil {
				return nil, err
			}
			resp, err := s.Send(ctx, caller, &req)
			if err != nil {
				return nil, err
			}
			return resp.AppendProto(nil), nil
		},
	}
}
