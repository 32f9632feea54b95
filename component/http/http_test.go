package http

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers what it was asked.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	status := 200
	if _, err := fmt.Sscanf(r.URL.Query().Get("status"), "%d", &status); err == nil {
		defer w.WriteHeader(status)
	}
	w.Header()["X-Many"] = []string{"a", "b"}
	for _, name := range []string{"Content-Type", "Accept", "X-Own", "Traceparent", "Tracestate", "Baggage", "Authorization"} {
		w.Header().Set("Got-"+name, r.Header.Get(name))
	}
	w.Header().Set("Got-Host", r.Host)
	if status == 200 {
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Method, r.URL, body)
	}
}

func open(t *testing.T, metadata map[string]string) *binding.Binding {
	t.Helper()
	f := Factories()[0]
	if err := f.Check(metadata); err != nil {
		t.Fatal(err)
	}
	d, err := f.Open(t.Context(), "web", metadata)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.(binding.Driver).Close() })
	return binding.New("web", d.(binding.Driver))
}

func anyone() *loam.Caller {
	return &loam.Caller{Name: "app", Grants: []loam.Grant{{Capability: "binding", Component: "web"}}}
}

func TestOperations(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(echo))
	defer s.Close()
	b := open(t, map[string]string{"url": s.URL + "/base/", "securityToken": "Bearer x", "securityTokenHeader": "Authorization"})
	for _, c := range []struct {
		operation string
		metadata  map[string]string
		want      string
		headers   map[string]string
	}{
		{"create", nil, "POST /base/ data", map[string]string{"Got-Content-Type": "application/json; charset=utf-8", "Got-Authorization": "Bearer x"}},
		{"post", map[string]string{"path": "/a?b=c"}, "POST /base/a?b=c data", nil},
		{"PUT", map[string]string{"path": "a/b"}, "PUT /base/a/b data", nil},
		{"patch", map[string]string{"Content-Type": "text/plain"}, "PATCH /base/ data", map[string]string{"Got-Content-Type": "text/plain"}},
		{"get", map[string]string{"X-Own": "1", "x-own": "2", "traceparent": "tp", "tracestate": "ts", "baggage": "bg"}, "GET /base/ ",
			map[string]string{"Got-X-Own": "1", "Got-Traceparent": "tp", "Got-Tracestate": "ts", "Got-Baggage": "bg", "Got-Content-Type": "", "Got-Accept": "application/json; charset=utf-8"}},
		{"delete", map[string]string{"Host": "other.example", "Accept": "*/*"}, "DELETE /base/ ", map[string]string{"Got-Host": "other.example", "Got-Accept": "*/*"}},
		{"options", map[string]string{"Authorization": "mine"}, "OPTIONS /base/ ", map[string]string{"Got-Authorization": "mine"}},
		{"trace", nil, "TRACE /base/ ", nil},
		{"head", nil, "", map[string]string{"X-Many": "a, b", "statusCode": "200", "status": "200 OK"}},
	} {
		r, err := b.Invoke(t.Context(), anyone(), binding.Request{Operation: c.operation, Data: []byte("data"), Metadata: c.metadata})
		if err != nil || string(r.Data) != c.want {
			t.Errorf("%s: %q, %v; want %q", c.operation, r.Data, err, c.want)
		}
		for name, want := range c.headers {
			if r.Metadata[name] != want {
				t.Errorf("%s: %s is %q, want %q", c.operation, name, r.Metadata[name], want)
			}
		}
	}
	for _, operation := range []string{"connect", "list", "", strings.Repeat("x", 300)} {
		if _, err := b.Invoke(t.Context(), anyone(), binding.Request{Operation: operation}); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s: %v", operation, err)
		}
	}
	for name, value := range map[string]string{"X-A\r\nB": "1", "X-A": "1\r\nB: 2", "path": "\x00"} {
		if _, err := b.Invoke(t.Context(), anyone(), binding.Request{Operation: "get", Metadata: map[string]string{name: value}}); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%q: %q: %v", name, value, err)
		}
	}
}

func TestStatus(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(echo))
	defer s.Close()
	for _, c := range []struct {
		component, call, status string
		fails                   bool
	}{
		{"", "", "404", true}, {"", "", "302", true}, {"", "", "204", false}, {"", "false", "500", false}, {"", "no", "500", false},
		{"false", "", "404", false}, {"false", "true", "404", true}, {"false", "Y", "503", true}, {"true", "", "201", false},
	} {
		metadata := map[string]string{"url": s.URL}
		if c.component != "" {
			metadata["errorIfNot2XX"] = c.component
		}
		r, err := open(t, metadata).Invoke(t.Context(), anyone(), binding.Request{Operation: "get", Metadata: map[string]string{"path": "?status=" + c.status, "errorIfNot2XX": c.call}})
		if (err != nil) != c.fails || r.Metadata["statusCode"] != c.status {
			t.Errorf("%+v: %v, %v", c, r.Metadata, err)
		}
		if err != nil && !strings.Contains(err.Error(), "received status code "+c.status) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestBounds(t *testing.T) {
	hang := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			<-hang
		case "/break":
			panic(http.ErrAbortHandler)
		default:
			_, _ = w.Write(make([]byte, 2000))
		}
	}))
	defer s.Close()
	defer close(hang)
	b := open(t, map[string]string{"url": s.URL, "maxResponseBodySize": "1Ki", "responseTimeout": "50ms"})
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		path string
		want loam.Code
	}{
		{t.Context(), "large", loam.ResourceExhausted}, {t.Context(), "hang", loam.DeadlineExceeded}, {canceled, "hang", loam.Canceled},
		{t.Context(), "break", loam.Unavailable},
	} {
		if _, err := b.Invoke(c.ctx, anyone(), binding.Request{Operation: "get", Metadata: map[string]string{"path": c.path}}); loam.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %v", c.path, err, c.want)
		}
	}
	secret := open(t, map[string]string{"url": "http://user:s3cret@127.0.0.1:1/?key=s3cret"})
	if _, err := secret.Invoke(t.Context(), anyone(), binding.Request{Operation: "get"}); loam.CodeOf(err) != loam.Unavailable || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v", err)
	}
}

func TestGrants(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(echo))
	defer s.Close()
	b := open(t, map[string]string{"url": s.URL})
	grant := func(names []string, readOnly bool) *loam.Caller {
		return &loam.Caller{Grants: []loam.Grant{{Capability: "binding", Component: "web", Names: names, ReadOnly: readOnly}}}
	}
	for _, c := range []struct {
		caller    *loam.Caller
		operation string
		want      loam.Code
	}{
		{nil, "get", loam.PermissionDenied}, {&loam.Caller{}, "get", loam.PermissionDenied},
		{grant([]string{"get"}, false), "GET", loam.OK}, {grant([]string{"get"}, false), "post", loam.PermissionDenied},
		{grant(nil, true), "get", loam.OK}, {grant(nil, true), "post", loam.PermissionDenied}, {grant(nil, true), "create", loam.PermissionDenied},
		{grant(nil, false), "post", loam.OK},
	} {
		if _, err := b.Invoke(t.Context(), c.caller, binding.Request{Operation: c.operation}); loam.CodeOf(err) != c.want {
			t.Errorf("%+v %s: %v", c.caller, c.operation, err)
		}
	}
	if err := b.Read(t.Context(), nil); loam.CodeOf(err) != loam.Unimplemented {
		t.Errorf("read: %v", err)
	}
}

// certificate makes one, of itself or of a parent, in PEM.
func certificate(t *testing.T, parent *tls.Certificate, c *x509.Certificate) (pair tls.Certificate, cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(1), pkix.Name{CommonName: "test"}
	c.NotAfter, c.BasicConstraintsValid = time.Now().Add(time.Hour), true
	of, by := c, any(k)
	if parent != nil {
		of, by = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, of, k.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	if pair, err = tls.X509KeyPair([]byte(cert), []byte(key)); err != nil {
		t.Fatal(err)
	}
	return pair, cert, key
}

func TestTLS(t *testing.T) {
	ca, caText, _ := certificate(t, nil, &x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign})
	server, _, _ := certificate(t, &ca, &x509.Certificate{DNSNames: []string{"localhost"}, IPAddresses: nil})
	_, clientText, clientKey := certificate(t, &ca, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	s := httptest.NewUnstartedServer(http.HandlerFunc(echo))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	target := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	dir := t.TempDir()
	for name, text := range map[string]string{"ca": caText, "cert": clientText, "key": clientKey} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for what, c := range map[string]struct {
		metadata map[string]string
		want     loam.Code
	}{
		"in the metadata": {map[string]string{"MTLSRootCA": caText, "MTLSClientCert": clientText, "MTLSClientKey": clientKey}, loam.OK},
		"in files": {map[string]string{
			"mtlsRootCA": filepath.Join(dir, "ca"), "mtlsClientCert": filepath.Join(dir, "cert"), "mtlsClientKey": filepath.Join(dir, "key"),
			"mtlsRenegotiation": "RenegotiateOnceAsClient",
		}, loam.OK},
		"without a certificate": {map[string]string{"MTLSRootCA": caText}, loam.Unavailable},
		"without the authority": {map[string]string{"MTLSClientCert": clientText, "MTLSClientKey": clientKey}, loam.Unavailable},
	} {
		c.metadata["url"] = target
		if _, err := open(t, c.metadata).Invoke(t.Context(), anyone(), binding.Request{Operation: "get"}); loam.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	for what, metadata := range map[string]map[string]string{
		"no file": {"MTLSRootCA": filepath.Join(dir, "none")}, "no certificate": {"MTLSRootCA": filepath.Join(dir, "key")},
		"another key": {"MTLSClientCert": caText, "MTLSClientKey": clientKey},
	} {
		metadata["url"] = target
		if _, err := Factories()[0].Open(t.Context(), "web", metadata); loam.CodeOf(err) != loam.FailedPrecondition || loam.HintOf(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, metadata := range []map[string]string{
		{}, {"url": "ftp://x"}, {"url": "x"}, {"url": "http://"}, {"url": "http://x", "MTLSClientCert": "x"}, {"url": "http://x", "MTLSRenegotiation": "Sometimes"},
		{"url": "http://x", "responseTimeout": "soon"}, {"url": "http://x", "nosuch": "1"},
	} {
		if err := Factories()[0].Check(metadata); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%v: %v", metadata, err)
		}
	}
}
