package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam/admin"
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

// A program registers by the admin endpoint, and the service that asks for its name sends to it.
func TestRegistryByAdmin(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	r := start(t, serviceYAML("{registry: {}}", "/"))
	data := filepath.Join(filepath.Dir(r.file), "data")
	client, err := admin.Dial(data)
	if err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(data, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(data, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	var contact struct{ Address string }
	if err := json.Unmarshal(b, &contact); err != nil {
		t.Fatal(err)
	}
	register := func(bearer string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+contact.Address+"/v1/registry/s/one", strings.NewReader(`{"address":"`+up+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	if status, _ := get(t, r.url+"/"); status != 503 {
		t.Errorf("a service of none answers %d", status)
	}
	if status := register("guessed"); status != 401 {
		t.Errorf("without the token: %d", status)
	}
	if status := register(string(token)); status != 200 {
		t.Errorf("register: %d", status)
	}
	late := time.After(30 * time.Second)
	for status := 0; status != 200; status, _ = get(t, r.url+"/") {
		select {
		case <-late:
			t.Fatal("what was registered gets no request within 30s")
		case <-time.After(5 * time.Millisecond):
		}
	}
	all, err := client.Services(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "s" || len(all[0].Endpoints) != 1 || all[0].Endpoints[0].Address != up || all[0].Endpoints[0].Requests == 0 {
		t.Errorf("%+v, %v", all, err)
	}
}
