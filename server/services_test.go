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

// certificate makes one for names, which vouches for itself, and the files of it and its key.
func certificate(t *testing.T, names ...string) (pair tls.Certificate, cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, cert, key
}

// A listener whose TLS ends here passes on what it carried: to the TLSRoute of the name that was asked for, or else to
// the TCPRoute, and to nobody where there is neither. HTTPS has the same port.
func TestTerminatedStreams(t *testing.T) {
	pair, cert, key := certificate(t, "db.example.com", "cache.example.com", "lost.example.com", "any.example.org", "shop.example.com")
	says := func(what string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.WriteString(c, what+" "); _, _ = io.Copy(c, c); c.Close() }()
			}
		}()
		return l.Addr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	ends := fmt.Sprintf("port: %d, tls: {mode: Terminate, options: {loam.dev/cert-file: %s, loam.dev/key-file: %s}}", l.Addr().(*net.TCPAddr).Port, cert, key)
	yaml := fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
spec:
  gatewayClassName: loam
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners:
    - {name: shop, protocol: HTTPS, hostname: shop.example.com, %[1]s}
    - {name: named, protocol: TLS, hostname: '*.example.com', %[1]s}
    - {name: any, protocol: TLS, hostname: '*.example.org', %[1]s}
---
{apiVersion: loam.dev/v1alpha1, kind: App, metadata: {name: shop}, spec: {address: %[2]q}}
`, ends, upstream(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "shop") }))
	route := func(kind, name, more string) {
		yaml += fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: %s
metadata: {name: %[2]s}
spec: {%[3]s, rules: [{backendRefs: [{kind: Service, name: %[2]s}]}]}
---
{apiVersion: loam.dev/v1alpha1, kind: Service, metadata: {name: %[2]s}, spec: {protocol: tcp, endpoints: [{address: %[4]q}]}}
`, kind, name, more, says(name))
	}
	route("TLSRoute", "db", "parentRefs: [{name: g, sectionName: named}], hostnames: [db.example.com]")
	route("TLSRoute", "cache", "parentRefs: [{name: g, sectionName: named}], hostnames: [cache.example.com]")
	route("TCPRoute", "any", "parentRefs: [{name: g, sectionName: any}]")
	yaml += "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: shop}, spec: {rules: [{backendRefs: [{kind: App, name: shop}]}]}}\n"
	start(t, yaml)

	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	for name, want := range map[string]string{"db": "db ping", "cache": "cache ping", "lost": "", "any": "any ping"} {
		host := name + ".example.com"
		if name == "any" {
			host = "any.example.org"
		}
		c, err := tls.Dial("tcp", address, &tls.Config{ServerName: host, RootCAs: pool, NextProtos: []string{"some/protocol"}})
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(c, "ping") // to lost it may fail
		_ = c.CloseWrite()
		b, _ := io.ReadAll(c) // likewise
		if string(b) != want {
			t.Errorf("%s: %q, and not %q", host, b, want)
		}
		c.Close()
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{ServerName: "shop.example.com", RootCAs: pool}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "shop.example.com"
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "shop" {
		t.Errorf("%d %q %v", res.StatusCode, b, err)
	}
}

// A service found by name proves by its certificate that it has that name; an address is in few certificates.
func TestServiceByNameWithTLS(t *testing.T) {
	pair, ca, _ := certificate(t, "localhost")
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.TLS.ServerName) }))
	up.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
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
