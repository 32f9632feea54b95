package dapr

import (
	"crypto/tls"
	"net"
	"net/url"
	"strings"
	"sync"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/http1"
)

// An Endpoint is somewhere outside that has a name: Dapr's HTTPEndpoint.
type Endpoint struct {
	BaseURL string
	Header  loam.Header // of every request to it
	TLS     *tls.Config // nil: that of any client
}

// outsides are the ways to what is outside, by what they were made of.
type outsides struct {
	mu     sync.Mutex
	by     map[string]*outside
	closed bool
}

// outside is the target of a URL.
type outside struct {
	client    *http1.Client
	endpoint  Endpoint
	scheme    string
	authority string
	path      string // that methods stand below
	query     string
}

const maxOutsides = 256

// outside is the target of a named endpoint. It is made anew where the endpoint was declared anew.
func (a *API) outside(name string, e Endpoint) (loam.Target, error) {
	o := &a.outsides
	o.mu.Lock()
	t := o.by[name]
	o.mu.Unlock()
	if t != nil && t.endpoint.BaseURL == e.BaseURL && t.endpoint.TLS == e.TLS {
		t2 := *t
		t2.endpoint = e
		return &t2, nil
	}
	made, err := a.newOutside(e)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if t = o.by[name]; t != nil {
		t.client.Close()
	}
	o.keep(name, made)
	return made, nil
}

// keep takes a target in. It is called with mu held.
func (o *outsides) keep(name string, t *outside) {
	if o.closed {
		t.client.Close()
		return
	}
	for n, other := range o.by {
		if len(o.by) < maxOutsides {
			break
		}
		other.client.Close()
		delete(o.by, n)
	}
	if o.by == nil {
		o.by = map[string]*outside{}
	}
	o.by[name] = t
}

func (o *outsides) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, t := range o.by {
		t.client.Close()
	}
	o.by = nil
}

// newOutside makes the target of a URL.
func (a *API) newOutside(e Endpoint) (*outside, error) {
	u, err := url.Parse(e.BaseURL)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, loam.Errorf(loam.InvalidArgument, "invoke", "%.200q is no URL that can be invoked", e.BaseURL)
	}
	port, secure := u.Port(), e.TLS
	switch u.Scheme {
	case "http":
		secure = nil
		if port == "" {
			port = "80"
		}
	case "https":
		if port == "" {
			port = "443"
		}
		if secure == nil {
			secure = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		secure = secure.Clone()
		if secure.ServerName == "" {
			secure.ServerName = u.Hostname()
		}
		secure.NextProtos = []string{"http/1.1"}
	}
	return &outside{
		client:   http1.NewClient(net.JoinHostPort(u.Hostname(), port), http1.ClientConfig{Engine: a.opts.Engine, TLS: secure, MaxIdle: 16}),
		endpoint: e, scheme: u.Scheme, authority: u.Host, path: strings.TrimSuffix(u.EscapedPath(), "/"), query: u.RawQuery,
	}, nil
}

// Serve sends a request there.
func (o *outside) Serve(req *loam.Request) (*loam.Response, error) {
	req.Scheme, req.Authority, req.Path = o.scheme, o.authority, o.path+req.Path
	req.Remote = "" // the proxies before us are nobody's business there
	if req.Method == "" {
		return nil, errVerb
	}
	req.Header = publicFields(req.Header)
	for _, f := range o.endpoint.Header {
		req.Header.Set(f.Name, f.Value)
	}
	return o.client.Serve(req)
}
