package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func serviceYAML(spec, path string) string {
	return fmt.Sprintf(`
apiVersion: loam.dev/v1alpha1
kind: Service
metadata: {name: s}
spec: %s
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  rules:
    - matches: [{path: {value: %s}}]
      backendRefs: [{kind: Service, name: s}]
`, spec, path)
}

// A service found by name proves by its certificate that it has that name; an address is in few certificates.
func TestServiceByNameWithTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.TLS.ServerName) }))
	up.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	up.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	up.StartTLS()
	t.Cleanup(up.Close)
	port := up.Listener.Addr().(*net.TCPAddr).Port
	// localhost may be ::1 too, where nobody listens: requests that are refused there go on to the other.
	r := start(t, serviceYAML(fmt.Sprintf("{dns: {name: localhost, port: %d}, tls: {ca: %s}, health: {passive: {consecutiveErrors: 1, ejection: 1h}}}", port, ca), "/"))
	status, body := 0, ""
	for range 3 {
		if status, body = get(t, r.url+"/"); status == 200 {
			break
		}
	}
	if status != 200 || body != "localhost" {
		t.Errorf("%d %q", status, body)
	}
}

// A changed service does not learn again, at its users' cost, which of its endpoints are dead.
func TestServiceReload(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	spec := func(more string) string {
		return fmt.Sprintf(`{endpoints: [{address: "%s"}, {address: "%s"}], loadBalancer: {algorithm: round-robin}, health: {passive: {consecutiveErrors: 1, ejection: 1h}}%s}`, up, dead, more)
	}
	r := start(t, serviceYAML(spec(""), "/1"))
	good := 0
	for n := 0; good < 10; n++ {
		if status, _ := get(t, r.url+"/1"); status == 200 {
			good++
		} else {
			good = 0
		}
		if n > 1000 {
			t.Fatal("the dead endpoint gets requests for ever")
		}
	}
	r.write(t, serviceYAML(spec(", slowStart: 1s"), "/2"))
	late := time.After(30 * time.Second)
	for status := 0; status != 200; status, _ = get(t, r.url+"/2") {
		if status == 503 {
			t.Fatal("a request went to the endpoint that was known to be dead")
		}
		select {
		case <-late:
			t.Fatal("the new route did not come within 30s")
		case <-time.After(5 * time.Millisecond):
		}
	}
	for range 20 {
		if status, body := get(t, r.url+"/2"); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	}
}
