package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// greeter is a server that says its name and then what it hears.
func greeter(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// dead is an address that nobody listens at.
func dead(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestDial(t *testing.T) {
	up, down := greeter(t, "hello"), dead(t)
	s := newService(t, Config{Algorithm: RoundRobin, Discovery: Static(Endpoint{Address: down}, Endpoint{Address: up}), Open: TCP(0, nil)}, nil)
	for range 4 {
		req := newRequest(t)
		c, err := s.Dial(req)
		if err != nil {
			t.Fatal(err)
		}
		if n := find(t, s, up).InFlight; n != 1 {
			t.Errorf("%d connections under way", n)
		}
		b := make([]byte, 8)
		if _, err := c.Write([]byte("you")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "helloyou" {
			t.Errorf("%q, %v", b, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		req.Release()
	}
	if e := find(t, s, up); e.InFlight != 0 || e.Requests != 4 {
		t.Errorf("%+v", e)
	}
	if e := find(t, s, down); e.Failures == 0 || e.Requests != e.Failures {
		t.Errorf("%+v", e)
	}
}

func TestDialFails(t *testing.T) {
	s := newService(t, Config{Discovery: Static(Endpoint{Address: dead(t)}, Endpoint{Address: dead(t)}, Endpoint{Address: dead(t)}, Endpoint{Address: dead(t)}), Open: TCP(0, nil)}, nil)
	req := newRequest(t)
	if _, err := s.Dial(req); loam.CodeOf(err) != loam.Unavailable || len(req.Tried) != dials {
		t.Errorf("tried %q: %v", req.Tried, err)
	}
	req.Release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req = loam.NewRequest(ctx)
	if _, err := s.Dial(req); loam.CodeOf(err) != loam.Canceled || len(req.Tried) != 1 {
		t.Errorf("nobody waits any more; tried %q: %v", req.Tried, err)
	}
	req.Release()
	req = newRequest(t)
	req.SetDeadline(time.Now().Add(-time.Second))
	if _, err := s.Dial(req); loam.CodeOf(err) != loam.DeadlineExceeded || len(req.Tried) != 1 {
		t.Errorf("past its deadline; tried %q: %v", req.Tried, err)
	}
	req.Release()
	for _, e := range s.Status().Endpoints {
		if e.InFlight != 0 {
			t.Errorf("%+v", e)
		}
	}
	req = newRequest(t)
	defer req.Release()
	none := newService(t, Config{Discovery: Static(), Open: TCP(0, nil)}, nil)
	if _, err := none.Dial(req); loam.CodeOf(err) != loam.Unavailable {
		t.Error(err)
	}
	http := newService(t, Config{}, equal(1))
	if _, err := http.Dial(req); loam.CodeOf(err) != loam.FailedPrecondition {
		t.Errorf("a transport that answers: %v", err)
	}
}

func TestDialTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	defer server.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	address := Static(Endpoint{Address: server.Listener.Addr().String()})
	s := newService(t, Config{Discovery: address, Open: TCP(0, &tls.Config{RootCAs: trusted, ServerName: "example.com"})}, nil)
	req := newRequest(t)
	defer req.Release()
	c, err := s.Dial(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) == 0 {
		t.Errorf("%q, %v", b, err)
	}
	c.Close()
	stranger := newService(t, Config{Discovery: address, Open: TCP(0, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"})}, nil)
	if _, err := stranger.Dial(req); loam.CodeOf(err) != loam.Unavailable {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	// A server that accepts and says nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mute := newService(t, Config{Discovery: Static(Endpoint{Address: l.Addr().String()}), Open: TCP(50*time.Millisecond, &tls.Config{ServerName: "example.com"})}, nil)
	if _, err := mute.Dial(req); loam.CodeOf(err) != loam.DeadlineExceeded {
		t.Errorf("a handshake that is not answered: %v", err)
	}
}
