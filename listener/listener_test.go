package listener

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/http2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var silent = slog.New(slog.DiscardHandler)

func hello(*loam.Request) (*loam.Response, error) {
	return loam.NewResponse(200, "text/plain", []byte("hello")), nil
}

// engines runs a test over every engine there is.
func engines(t *testing.T, test func(t *testing.T, e loop.Engine)) {
	for name, o := range map[string]loop.Options{"goroutines": {Goroutines: true}, "loops": {Loops: 2}} {
		t.Run(name, func(t *testing.T) {
			e := loop.New(o)
			t.Cleanup(func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, e)
		})
	}
}

func listen(t *testing.T, e loop.Engine, l Limits, s Service) *Listener {
	t.Helper()
	one, err := Listen(t.Context(), e, http2.NewHub(e), Config{Name: "web", Address: "127.0.0.1:0", Limits: l, Log: silent}, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := one.Drain(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return one
}

func plain(t loam.TargetFunc) Service { return Service{HTTP: t, Plain: true} }

// client speaks one version of HTTP and forgets its connections at the test's end, before the listener drains.
func client(t *testing.T, h2c bool) *http.Client {
	var p http.Protocols
	p.SetHTTP1(!h2c)
	p.SetUnencryptedHTTP2(h2c)
	transport := &http.Transport{Protocols: &p}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestBothVersions(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		l := listen(t, e, Limits{}, plain(hello))
		for major, h2c := range map[int]bool{1: false, 2: true} {
			get(t, client(t, h2c), "http://"+l.Addr().String(), major)
		}
		if l.Name() != "web" {
			t.Error(l.Name())
		}
	})
}

func get(t *testing.T, c *http.Client, url string, major int) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || string(b) != "hello" || res.ProtoMajor != major {
		t.Errorf("%s %q %v", res.Proto, b, err)
	}
}

// certificate makes one for names, and a pool that trusts it.
func certificate(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: names, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// One port takes plaintext and TLS, HTTP/1 and HTTP/2, each name with its own certificate, and passes on what is not
// to be decrypted.
func TestOnePortForAll(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		pair, pool := certificate(t, "shop.example")
		passed, passedPool := certificate(t, "db.example")
		up, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{passed}})
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close()
		go func() {
			for {
				c, err := up.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(c, c); c.Close() }()
			}
		}()
		l := listen(t, e, Limits{}, Service{
			HTTP: loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
				if (r.Scheme == "https") != (r.Peer != nil) || r.Peer != nil && r.Peer.ServerName != "shop.example" {
					return nil, errors.New("who asks is not told")
				}
				return hello(r)
			}),
			Plain: true,
			TLS: func(name string) *tls.Config {
				if name == "shop.example" {
					return &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
				}
				return nil
			},
			Stream: func(name string) loam.Target {
				if name != "db.example" {
					return nil
				}
				return loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
					if r.Method != "CONNECT" || r.Authority != "db.example" {
						return nil, errors.New("not told what for")
					}
					c, err := loop.Dial(r.Task(), "tcp", up.Addr().String(), time.Time{})
					return &loam.Response{Tunnel: c}, err
				})
			},
		})
		get(t, client(t, false), "http://"+l.Addr().String(), 1)
		get(t, client(t, true), "http://"+l.Addr().String(), 2)
		for major, protocols := range map[int][]string{1: {"http/1.1"}, 2: {"h2"}} {
			tr := &http.Transport{ForceAttemptHTTP2: major == 2, TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "shop.example", NextProtos: protocols}}
			for range 3 {
				get(t, &http.Client{Transport: tr}, "https://"+l.Addr().String(), major)
			}
			tr.CloseIdleConnections()
		}
		if _, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "other.example", RootCAs: pool}); err == nil {
			t.Error("a name that nobody serves got a certificate")
		}
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "db.example", RootCAs: passedPool})
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4)
		if _, err := io.WriteString(c, "ping"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
			t.Errorf("%q %v", b, err)
		}
		c.Close()
	})
}

// What TLS carried is passed on decrypted, though the upstream speaks first, and the end of either direction with it.
func TestWithin(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		pair, pool := certificate(t, "db.example")
		up, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close()
		go func() {
			for {
				c, err := up.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.WriteString(c, "220 ready\r\n"); _, _ = io.Copy(c, c); c.Close() }()
			}
		}()
		l := listen(t, e, Limits{}, Service{
			TLS: func(string) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{pair}} },
			Within: func(name string) loam.Target {
				return loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
					if r.Method != "CONNECT" || r.Authority != name || r.Peer == nil || r.Peer.ServerName != name {
						return nil, errors.New("not told what for")
					}
					c, err := loop.Dial(r.Task(), "tcp", up.Addr().String(), time.Time{})
					return &loam.Response{Tunnel: c}, err
				})
			},
		})
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "db.example", RootCAs: pool, NextProtos: []string{"postgresql"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		long := strings.Repeat("0123456789abcdef", 1<<16)
		go func() {
			_, _ = io.WriteString(c, long)
			_ = c.CloseWrite()
		}()
		b, err := io.ReadAll(c)
		if err != nil || string(b) != "220 ready\r\n"+long {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		n, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		_ = n.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(n, "GET / HTTP/1.1\r\n\r\n")
		if b, _ := io.ReadAll(n); len(b) > 0 {
			t.Errorf("who speaks no TLS is told %q, though no requests are taken here", b)
		}
	})
}

func TestTCP(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		up, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close()
		go func() {
			for {
				c, err := up.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.WriteString(c, "220 ready\r\n"); _, _ = io.Copy(c, c); c.Close() }()
			}
		}()
		l := listen(t, e, Limits{HeadTimeout: time.Hour}, Service{TCP: loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
			c, err := loop.Dial(r.Task(), "tcp", up.Addr().String(), time.Time{})
			return &loam.Response{Tunnel: c}, err
		})})
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); err != nil || line != "220 ready\r\n" { // though nobody said anything to it
			t.Errorf("%q %v", line, err)
		}
		if _, err := io.WriteString(c, "HELO\r\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := r.ReadString('\n'); err != nil || line != "HELO\r\n" {
			t.Errorf("%q %v", line, err)
		}
	})
}

func TestPlaintextWhereTLSIsSpoken(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		l := listen(t, e, Limits{}, Service{HTTP: loam.TargetFunc(hello), TLS: func(string) *tls.Config { return nil }})
		res, err := client(t, false).Get("http://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 400 {
			t.Error(res.StatusCode)
		}
	})
}

// What is served changes for connections that are open.
func TestUpdate(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		l := listen(t, e, Limits{}, plain(func(*loam.Request) (*loam.Response, error) { return loam.NewResponse(200, "", []byte("old")), nil }))
		c := client(t, false)
		for _, want := range []string{"old", "hello"} {
			res, err := c.Get("http://" + l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(b) != want {
				t.Errorf("%q", b)
			}
			l.Update(plain(hello))
		}
	})
}

func TestAddressInUse(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		l := listen(t, e, Limits{}, plain(hello))
		hub := http2.NewHub(e)
		_, err := Listen(t.Context(), e, hub, Config{Name: "second", Address: l.Addr().String(), Log: silent}, plain(hello))
		if loam.CodeOf(err) != loam.Unavailable || !strings.Contains(fmt.Sprint(err), `listener "second" on 127.0.0.1:`) || !strings.Contains(loam.HintOf(err), "another port") {
			t.Errorf("%v, hint %q", err, loam.HintOf(err))
		}
		_, err = Listen(t.Context(), e, hub, Config{Name: "far", Address: "192.0.2.1:0", Log: silent}, plain(hello))
		if !strings.Contains(loam.HintOf(err), "addresses") {
			t.Errorf("%v, hint %q", err, loam.HintOf(err))
		}
	})
}

func TestDrainFinishesWhatIsUnderWay(t *testing.T) {
	engines(t, testDrainFinishes)
}

func testDrainFinishes(t *testing.T, e loop.Engine) {
	began, release := make(chan struct{}), make(chan struct{})
	l := listen(t, e, Limits{}, plain(func(r *loam.Request) (*loam.Response, error) {
		close(began)
		r.Task().Await(func() { <-release })
		return hello(r)
	}))
	answer := make(chan string, 1)
	c := client(t, false)
	go func() {
		res, err := c.Get("http://" + l.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		answer <- string(b)
	}()
	<-began
	drained := make(chan error, 1)
	go func() { drained <- l.Drain(context.Background()) }()
	for { // until it accepts no more
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-drained:
		t.Fatal("drained with a request under way", err)
	default:
	}
	close(release)
	if got := <-answer; got != "hello" {
		t.Error(got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestDrainCutsOffAtItsDeadline(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		began, ended := make(chan struct{}), make(chan struct{})
		l, err := Listen(t.Context(), e, http2.NewHub(e), Config{Name: "web", Address: "127.0.0.1:0", Log: silent}, plain(func(r *loam.Request) (*loam.Response, error) {
			ctx := r.Context()
			close(began)
			r.Task().Await(func() { <-ctx.Done() })
			close(ended)
			return nil, ctx.Err()
		}))
		if err != nil {
			t.Fatal(err)
		}
		c := client(t, false)
		gone := make(chan error, 1)
		go func() {
			res, err := c.Get("http://" + l.Addr().String())
			if err == nil {
				res.Body.Close()
			}
			gone <- err
		}()
		<-began
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := l.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cut off") {
			t.Error(err)
		}
		<-ended
		if err := <-gone; err == nil {
			t.Error("answered")
		}
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	engines(t, testBounded)
}

func testBounded(t *testing.T, e loop.Engine) {
	l := listen(t, e, Limits{MaxConnections: 1}, plain(hello))
	dial := func() (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		return conn, bufio.NewReader(conn)
	}
	first, r := dial()
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	second, r2 := dial()
	_ = second.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := r2.Peek(1); err == nil {
		t.Fatal("a second connection was served beside the first")
	}
	first.Close()
	_ = second.SetReadDeadline(time.Now().Add(2 * time.Minute))
	if res, err := http.ReadResponse(r2, nil); err != nil || res.StatusCode != 200 {
		t.Errorf("the slot was not given back: %v %v", res, err)
	}
}

func TestLimits(t *testing.T) {
	engines(t, testLimits)
}

func testLimits(t *testing.T, e loop.Engine) {
	whole := plain(func(r *loam.Request) (*loam.Response, error) {
		_, err := io.Copy(io.Discard, r.Body)
		return loam.NewResponse(200, "", nil), err
	})
	l := listen(t, e, Limits{MaxHeader: 1 << 10, MaxBody: 1 << 10}, whole)
	base := "http://" + l.Addr().String()
	for _, c := range []struct {
		header string
		body   string
		status int
	}{
		{"", "x", 200},
		{strings.Repeat("h", 16<<10), "x", 431},
		{"", strings.Repeat("b", 4<<20), 413}, // far more than a socket buffers: the refusal must be readable all the same
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, base, strings.NewReader(c.body))
		req.Header.Set("X-H", c.header)
		res, err := client(t, false).Do(req)
		if err != nil {
			t.Fatalf("%d: %v", c.status, err)
		}
		res.Body.Close()
		if res.StatusCode != c.status {
			t.Errorf("%d, want %d", res.StatusCode, c.status)
		}
	}
	slow, err := net.Dial("tcp", listen(t, e, Limits{HeadTimeout: 50 * time.Millisecond}, whole).Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprint(slow, "GET / HTTP/1.1\r\nHost: ") // and no more
	_ = slow.SetReadDeadline(time.Now().Add(2 * time.Minute))
	if _, err := io.ReadAll(slow); err != nil {
		t.Errorf("a head that never ends was waited for: %v", err)
	}
}

// A stream of HTTP/2 on which nothing moves is ended, where the limits say after how long.
func TestStreamIdle(t *testing.T) {
	engines(t, func(t *testing.T, e loop.Engine) {
		l := listen(t, e, Limits{StreamIdle: 50 * time.Millisecond}, plain(func(req *loam.Request) (*loam.Response, error) {
			return nil, req.Task().Park(time.Time{})
		}))
		res, err := client(t, true).Get("http://" + l.Addr().String())
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusGatewayTimeout {
				t.Errorf("%d", res.StatusCode)
			}
		}
	})
}
