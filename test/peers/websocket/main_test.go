// Package websocket tests Loam's way of passing WebSockets on with the libraries that programs speak it with: coder's and
// gorilla's of Go, and ws of Node.js. It is a module of its own, so that nothing of theirs enters Loam's.
package websocket

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/provider/file"
	"github.com/loam-run/loam/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A front is Loam before an upstream.
type front struct {
	plain, secure string // addresses
	ca            string // a PEM file
	roots         *x509.CertPool
}

const config = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: loam
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners:
    - {name: http, protocol: HTTP, port: %[1]s}
    - {name: https, protocol: HTTPS, port: %[2]s, tls: {options: {loam.dev/cert-file: %[3]s, loam.dev/key-file: %[4]s}}}
---
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: up}
spec: {endpoints: [{address: "%[5]s"}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all}
spec:
  parentRefs: [{name: web}]
  rules:
    - matches: [{path: {value: /hurried}}]
      timeouts: {request: 200ms}
      backendRefs: [{kind: Service, name: up}]
    - backendRefs: [{kind: Service, name: up}]
`

func start(t *testing.T, upstream string, goroutines bool) *front {
	t.Helper()
	dir := t.TempDir()
	f := &front{plain: free(t), secure: free(t), ca: filepath.Join(dir, "cert.pem"), roots: x509.NewCertPool()}
	keyFile := filepath.Join(dir, "key.pem")
	certificate(t, f, keyFile)
	_, plain, _ := net.SplitHostPort(f.plain)
	_, secure, _ := net.SplitHostPort(f.secure)
	resources := filepath.Join(dir, "all.yaml")
	if err := os.WriteFile(resources, fmt.Appendf(nil, config, plain, secure, f.ca, keyFile, upstream), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	serves := make(chan admin.Status, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, server.Options{
			Provider: file.New([]string{resources}), DataDir: filepath.Join(dir, "data"), Version: "test", Goroutines: goroutines,
			Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})), Grace: 10 * time.Second,
			Changed: func(s admin.Status) { serves <- s },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case s := <-serves:
		for _, r := range s.Resources {
			if !r.Ready {
				t.Fatalf("%+v", r)
			}
		}
	case err := <-ended:
		ended <- nil
		t.Fatalf("it ended: %v", err)
	}
	return f
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// certificate writes one for 127.0.0.1 and its key.
func certificate(t *testing.T, f *front, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	f.roots.AppendCertsFromPEM(cert)
	for name, text := range map[string][]byte{f.ca: cert, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A way is how a client comes to Loam.
type way struct {
	name string
	url  string
	http *http.Client
	tls  *tls.Config
}

func (f *front) config() *tls.Config { return &tls.Config{RootCAs: f.roots} }

func (f *front) ways(t *testing.T) []way {
	one := &http.Transport{TLSClientConfig: f.config()} // HTTP/1.1 only, for a configuration of TLS was given
	plain := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	secure := &http2.Transport{TLSClientConfig: f.config()}
	t.Cleanup(func() {
		one.CloseIdleConnections()
		plain.CloseIdleConnections()
		secure.CloseIdleConnections()
	})
	return []way{
		{"HTTP1", "http://" + f.plain, &http.Client{Transport: one}, nil},
		{"HTTP1-TLS", "https://" + f.secure, &http.Client{Transport: one}, f.config()},
		{"HTTP2", "http://" + f.plain, &http.Client{Transport: &extended{plain}}, nil},
		{"HTTP2-TLS", "https://" + f.secure, &http.Client{Transport: &extended{secure}}, f.config()},
	}
}

// extended sends the handshake of WebSocket as HTTP/2 does (RFC 8441), for a client that only knows HTTP/1.1's.
type extended struct{ next *http2.Transport }

func (e *extended) RoundTrip(req *http.Request) (*http.Response, error) {
	key := req.Header.Get("Sec-WebSocket-Key")
	r, w := io.Pipe()
	out := req.Clone(req.Context())
	out.Method, out.Body, out.ContentLength = http.MethodConnect, r, -1
	out.Header.Set(":protocol", "websocket")
	for _, name := range []string{"Connection", "Upgrade", "Sec-WebSocket-Key"} {
		out.Header.Del(name)
	}
	res, err := e.next.RoundTrip(out)
	if err != nil {
		_ = w.Close() // never fails
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		_ = w.Close() // never fails
		return res, nil
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	res.StatusCode = http.StatusSwitchingProtocols
	res.Header.Set("Connection", "Upgrade")
	res.Header.Set("Upgrade", "websocket")
	res.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	res.Body = &stream{res.Body, w}
	return res, nil
}

// stream is both ways of a stream of HTTP/2.
type stream struct {
	io.ReadCloser
	w *io.PipeWriter
}

func (s *stream) Write(p []byte) (int, error) { return s.w.Write(p) }

func (s *stream) Close() error {
	_ = s.w.Close() // never fails
	return s.ReadCloser.Close()
}

// everywhere runs a test on each engine and for each way to it.
func everywhere(t *testing.T, handler http.HandlerFunc, test func(t *testing.T, w way)) {
	for name, goroutines := range map[string]bool{"loops": false, "goroutines": true} {
		t.Run(name, func(t *testing.T) {
			up := upstream(t, handler)
			f := start(t, up, goroutines)
			for _, w := range f.ways(t) {
				t.Run(w.name, func(t *testing.T) { test(t, w) })
			}
		})
	}
}

// upstream serves until every connection of it was ended by its handler.
func upstream(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	running := make(chan struct{}, 10_000)
	s := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running <- struct{}{}
		defer func() { <-running }()
		handler(w, r)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln) // until it is closed
	}()
	t.Cleanup(func() {
		_ = s.Close() // what is open is a hijacked connection, and none of its
		<-done
		late := time.After(30 * time.Second)
		poll := time.NewTicker(time.Millisecond)
		defer poll.Stop()
		for len(running) > 0 {
			select {
			case <-poll.C:
			case <-late:
				t.Errorf("%d connections of the upstream do not end although their clients are gone", len(running))
				return
			}
		}
	})
	return ln.Addr().String()
}

func dial(t *testing.T, w way, path string, o *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	if o == nil {
		o = &websocket.DialOptions{}
	}
	o.HTTPClient = w.http
	c, _, err := websocket.Dial(t.Context(), w.url+path, o)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	t.Cleanup(func() { _ = c.CloseNow() }) // most are closed by then
	return c
}

// accept is the upstream's side.
func accept(w http.ResponseWriter, r *http.Request, o *websocket.AcceptOptions) (*websocket.Conn, error) {
	c, err := websocket.Accept(w, r, o)
	if err == nil {
		c.SetReadLimit(-1)
	}
	return c, err
}

// echo answers each message with itself, in the compression that the client asks for.
func echo(w http.ResponseWriter, r *http.Request) {
	mode := websocket.CompressionDisabled
	switch {
	case strings.HasSuffix(r.URL.Path, "/takeover"):
		mode = websocket.CompressionContextTakeover
	case strings.HasSuffix(r.URL.Path, "/compressed"):
		mode = websocket.CompressionNoContextTakeover
	}
	c, err := accept(w, r, &websocket.AcceptOptions{CompressionMode: mode, CompressionThreshold: 1, Subprotocols: []string{"second", "first"}})
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, b, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, b); err != nil {
			return
		}
	}
}
