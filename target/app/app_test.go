package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/http2"
)

// TestProtocols: a program is reached by each protocol, TLS with a certificate that nobody signed too.
func TestProtocols(t *testing.T) {
	e := loop.New(loop.Options{Loops: 1})
	hub := http2.NewHub(e)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	for protocol, want := range map[string]string{"": "HTTP/1.1", "http": "HTTP/1.1", "https": "HTTP/1.1 over TLS", "h2c": "HTTP/2.0", "grpc": "HTTP/2.0", "grpcs": "HTTP/2.0 over TLS"} {
		t.Run(protocol, func(t *testing.T) {
			up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				said := r.Proto
				if r.TLS != nil {
					said += " over TLS"
				}
				body, _ := io.ReadAll(r.Body)
				io.WriteString(w, said+" "+string(body))
			}))
			up.Config.Protocols = new(http.Protocols)
			up.Config.Protocols.SetHTTP1(true)
			up.Config.Protocols.SetHTTP2(true)
			up.Config.Protocols.SetUnencryptedHTTP2(true)
			if strings.HasSuffix(want, "TLS") {
				up.EnableHTTP2 = true
				up.StartTLS()
			} else {
				up.Start()
			}
			defer up.Close()
			a := New(Config{Engine: e, Hub: hub, Address: up.Listener.Addr().String(), Protocol: protocol})
			defer a.Close(t.Context())
			got := make(chan string, 1)
			e.Go(func(task loam.Task) {
				req := loam.NewRequest(t.Context())
				defer req.Release()
				req.SetTask(task)
				req.Method, req.Scheme, req.Authority, req.Path = "POST", "http", "app", "/"
				req.Body, req.Length = io.NopCloser(strings.NewReader("hello")), 5
				res, err := a.Serve(req)
				if err != nil {
					got <- err.Error()
					return
				}
				body, err := io.ReadAll(res.Body)
				if err != nil {
					body = []byte(err.Error())
				}
				res.Close()
				got <- string(body)
			})
			if got := <-got; got != want+" hello" {
				t.Errorf("%q, want %q", got, want+" hello")
			}
		})
	}
}
