package listener

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var silent = slog.New(slog.DiscardHandler)

func hello(*loam.Request) (*loam.Response, error) {
	return loam.NewResponse(200, "text/plain", []byte("hello")), nil
}

func listen(t *testing.T, c Config, target loam.TargetFunc, log *slog.Logger) *Listener {
	t.Helper()
	c.Name, c.Address = "web", "127.0.0.1:0"
	l, err := Listen(t.Context(), c, target, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Drain(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

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
	l := listen(t, Config{}, hello, silent)
	for major, h2c := range map[int]bool{1: false, 2: true} {
		res, err := client(t, h2c).Get("http://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(b) != "hello" || res.ProtoMajor != major {
			t.Errorf("%s %q %v", res.Proto, b, err)
		}
	}
	if l.Name() != "web" {
		t.Error(l.Name())
	}
}

func TestAddressInUse(t *testing.T) {
	l := listen(t, Config{}, hello, silent)
	_, err := Listen(t.Context(), Config{Name: "second", Address: l.Addr().String()}, loam.TargetFunc(hello), silent)
	if loam.CodeOf(err) != loam.Unavailable || !strings.Contains(fmt.Sprint(err), `listener "second" on 127.0.0.1:`) || !strings.Contains(loam.HintOf(err), "another port") {
		t.Errorf("%v, hint %q", err, loam.HintOf(err))
	}
	_, err = Listen(t.Context(), Config{Name: "far", Address: "192.0.2.1:0"}, loam.TargetFunc(hello), silent)
	if !strings.Contains(loam.HintOf(err), "addresses") {
		t.Errorf("%v, hint %q", err, loam.HintOf(err))
	}
}

func TestDrainFinishesWhatIsUnderWay(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	l := listen(t, Config{}, func(r *loam.Request) (*loam.Response, error) {
		close(began)
		<-release
		return hello(r)
	}, silent)
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
	began, ended := make(chan struct{}), make(chan struct{})
	l, err := Listen(t.Context(), Config{Name: "web", Address: "127.0.0.1:0"}, loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
		close(began)
		<-r.Context().Done()
		close(ended)
		return nil, r.Context().Err()
	}), silent)
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
}

func TestConnectionsAreBounded(t *testing.T) {
	l := listen(t, Config{MaxConnections: 1}, hello, silent)
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
	_ = second.SetReadDeadline(time.Now().Add(10 * time.Second))
	if res, err := http.ReadResponse(r2, nil); err != nil || res.StatusCode != 200 {
		t.Errorf("the slot was not given back: %v %v", res, err)
	}
}

func TestLimits(t *testing.T) {
	l := listen(t, Config{MaxHeader: 1 << 10, MaxBody: 1 << 10, ReadHeaderTimeout: 50 * time.Millisecond}, func(r *loam.Request) (*loam.Response, error) {
		_, err := io.Copy(io.Discard, r.Body)
		return loam.NewResponse(200, "", nil), err
	}, silent)
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
	slow, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprint(slow, "GET / HTTP/1.1\r\nHost: ") // and no more
	_ = slow.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(slow); err != nil {
		t.Errorf("a head that never ends was waited for: %v", err)
	}
}

func TestAccessLog(t *testing.T) {
	var mu sync.Mutex
	var b bytes.Buffer
	l, err := Listen(t.Context(), Config{Name: "web", Address: "127.0.0.1:0"}, loam.TargetFunc(hello), slog.New(slog.NewTextHandler(locked{&mu, &b}, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/a", nil)
	req.Header.Set("X-Request-Id", "r-1")
	res, err := client(t, false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if err := l.Drain(context.Background()); err != nil { // the line is written by then
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"msg=request", "listener=web", "method=GET", "path=/a", "status=200", "bytes=5", "request=r-1", "took="} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s misses %s", b.String(), want)
		}
	}
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
