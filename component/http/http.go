// Package http is Dapr's bindings.http: an endpoint over HTTP that was configured, asked by operations that are methods.
package http

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/component"
)

// Factories are the component types of this package.
func Factories() []loam.Factory {
	f := component.New("binding.http", Open)
	f.Aliases = []string{"bindings.http"}
	return []loam.Factory{f}
}

// Config is the metadata of bindings.http. Certificates and keys are PEM, or the path of a file of it.
type Config struct {
	URL           string          `meta:"url" need:"yes"`
	Timeout       time.Duration   `meta:"responseTimeout"` // of a request with its answer; 0: as long as the caller has
	MaxBody       component.Bytes `meta:"maxResponseBodySize,100Mi"`
	ErrorIfNot2XX bool            `meta:"errorIfNot2XX,true"`
	RootCA        string          `meta:"MTLSRootCA"` // whom to believe instead of the system's authorities
	ClientCert    string          `meta:"MTLSClientCert"`
	ClientKey     string          `meta:"MTLSClientKey"`
	Renegotiation string          `meta:"MTLSRenegotiation"` // RenegotiateNever, RenegotiateOnceAsClient or RenegotiateFreelyAsClient
	Token         string          `meta:"securityToken"`     // sent with each request
	TokenHeader   string          `meta:"securityTokenHeader"`
}

// Check looks at what can be wrong without asking anybody.
func (c *Config) Check() error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("metadata url: it is no http:// or https:// URL")
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		return errors.New("metadata MTLSClientCert and MTLSClientKey: one needs the other")
	}
	_, err = renegotiation(c.Renegotiation)
	return err
}

func renegotiation(name string) (tls.RenegotiationSupport, error) {
	switch name {
	case "", "RenegotiateNever":
		return tls.RenegotiateNever, nil
	case "RenegotiateOnceAsClient":
		return tls.RenegotiateOnceAsClient, nil
	case "RenegotiateFreelyAsClient":
		return tls.RenegotiateFreelyAsClient, nil
	}
	return 0, fmt.Errorf("metadata MTLSRenegotiation: %q is none of RenegotiateNever, RenegotiateOnceAsClient, RenegotiateFreelyAsClient", name)
}

// Open opens bindings.http. Nobody is asked before there is an operation.
func Open(_ context.Context, _ string, c Config) (binding.Driver, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if t.Renegotiation, err = renegotiation(c.Renegotiation); err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: "bindings.http", Err: err}
	}
	fail := func(name string, err error) (binding.Driver, error) {
		return nil, &loam.Error{
			Code: loam.FailedPrecondition, Op: "bindings.http", Err: fmt.Errorf("metadata %s: %w", name, err),
			Hint: "write PEM there, or the path of a file of it that can be read",
		}
	}
	if c.RootCA != "" {
		text, err := pemOf(c.RootCA)
		if err != nil {
			return fail("MTLSRootCA", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return fail("MTLSRootCA", errors.New("there is no certificate in it"))
		}
	}
	if c.ClientCert != "" {
		cert, err := pemOf(c.ClientCert)
		if err != nil {
			return fail("MTLSClientCert", err)
		}
		key, err := pemOf(c.ClientKey)
		if err != nil {
			return fail("MTLSClientKey", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return fail("MTLSClientCert", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return &endpoint{c, &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    15 * time.Second,
		TLSClientConfig:        t,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           100,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 1 << 20,
		ExpectContinueTimeout:  time.Second,
	}}}, nil
}

func pemOf(text string) ([]byte, error) {
	if b, _ := pem.Decode([]byte(text)); b != nil {
		return []byte(text), nil
	}
	return os.ReadFile(text)
}

type endpoint struct {
	config Config
	client *http.Client
}

func (e *endpoint) Close() error {
	e.client.CloseIdleConnections()
	return nil
}

func (*endpoint) Operations() []string {
	return []string{"create", "get", "head", "post", "put", "patch", "delete", "options", "trace"}
}

// Invoke sends a request. Metadata: path, which is put behind the URL; errorIfNot2XX; and headers, which are those whose
// names begin with a capital, and the three of tracing.
func (e *endpoint) Invoke(ctx context.Context, r binding.Request) (binding.Response, error) {
	if e.config.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.config.Timeout)
		defer cancel()
	}
	req, err := e.request(ctx, &r)
	if err != nil {
		return binding.Response{}, &loam.Error{Code: loam.InvalidArgument, Err: err}
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return binding.Response{}, failure(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or of no use any more
	most := int64(cmp.Or(r.MaxAnswer, binding.MaxData))
	why := "what the caller can take"
	if e.config.MaxBody > 0 && int64(e.config.MaxBody) < most {
		most, why = int64(e.config.MaxBody), "the metadata maxResponseBodySize"
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return binding.Response{}, failure(ctx, err)
	}
	if int64(len(body)) > most {
		return binding.Response{}, loam.Errorf(loam.ResourceExhausted, "", "the answer is larger than %d bytes, %s", most, why)
	}
	answer := binding.Response{Data: body, Metadata: make(map[string]string, len(resp.Header)+2)}
	for name, values := range resp.Header {
		answer.Metadata[name] = strings.Join(values, ", ")
	}
	answer.Metadata["statusCode"], answer.Metadata["status"] = strconv.Itoa(resp.StatusCode), resp.Status
	strict := e.config.ErrorIfNot2XX
	if text := r.Metadata["errorIfNot2XX"]; text != "" {
		strict = truthy(text)
	}
	if strict && resp.StatusCode/100 != 2 {
		return answer, loam.Errorf(loam.Unknown, "", "received status code %d", resp.StatusCode)
	}
	return answer, nil
}

func (e *endpoint) request(ctx context.Context, r *binding.Request) (*http.Request, error) {
	target := e.config.URL
	if p := r.Metadata["path"]; p != "" {
		target = strings.TrimRight(target, "/") + "/" + strings.TrimLeft(p, "/")
	}
	method := strings.ToUpper(r.Operation)
	if method == "CREATE" {
		method = http.MethodPost
	}
	var body io.Reader
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		body = bytes.NewReader(r.Data)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, errors.New("the path makes no URL") // whose text may hold a secret
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	req.Header.Set("Accept", "application/json; charset=utf-8")
	for name, value := range r.Metadata {
		if name != "" && name[0] >= 'A' && name[0] <= 'Z' {
			req.Header.Set(name, value)
		}
	}
	for _, name := range []string{"traceparent", "tracestate", "baggage"} {
		if value := r.Metadata[name]; value != "" {
			req.Header.Set(name, value)
		}
	}
	if host := req.Header.Get("Host"); host != "" { // which is no header to net/http
		req.Host = host
		req.Header.Del("Host")
	}
	if e.config.Token != "" && e.config.TokenHeader != "" && r.Metadata[e.config.TokenHeader] == "" {
		req.Header.Set(e.config.TokenHeader, e.config.Token)
	}
	return req, nil
}

// truthy reads what Dapr takes for true.
func truthy(text string) bool {
	switch strings.ToLower(text) {
	case "y", "yes", "true", "t", "on", "1":
		return true
	}
	return false
}

// failure says what kind it is of what broke on the way, without the URL, which may hold a secret.
func failure(ctx context.Context, err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	e := &loam.Error{Code: loam.Unavailable, Err: err}
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		e.Code = loam.Canceled
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		e.Code = loam.DeadlineExceeded
	case strings.HasPrefix(err.Error(), "net/http: invalid "):
		e.Code = loam.InvalidArgument
	}
	return e
}
