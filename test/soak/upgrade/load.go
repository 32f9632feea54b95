//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// load is all that goes on while processes are replaced.
type load struct {
	web, tcp, tls string // addresses of the listeners
	ctx           context.Context
	work          sync.WaitGroup

	mu       sync.Mutex
	counts   map[string]*atomic.Int64
	failures []string
	failed   int
	acked    []string
	lives    []*life // streams under way, and those that have ended
}

// life is when a stream began and ended.
type life struct{ began, ended time.Time }

func (l *load) counter(kind string) *atomic.Int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts[kind]
	if c == nil {
		c = new(atomic.Int64)
		l.counts[kind] = c
	}
	return c
}

func (l *load) fail(kind string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed++; len(l.failures) < 20 {
		l.failures = append(l.failures, fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), kind, err))
	}
}

// err is what has failed so far; nil: nothing.
func (l *load) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == 0 {
		return nil
	}
	return fmt.Errorf("%d failures:\n%s", l.failed, strings.Join(l.failures, "\n"))
}

// begin notes that a stream is under way; call the func at its end.
func (l *load) begin() func() {
	e := &life{began: time.Now()}
	l.mu.Lock()
	l.lives = append(l.lives, e)
	l.mu.Unlock()
	return func() {
		l.mu.Lock()
		e.ended = time.Now()
		l.mu.Unlock()
	}
}

// lastEnd is when the last of the streams ended that were under way at t; false: one still is.
func (l *load) lastEnd(t time.Time) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := t
	for _, e := range l.lives {
		if e.began.After(t) {
			continue
		}
		if e.ended.IsZero() {
			return last, false
		}
		if e.ended.After(last) {
			last = e.ended
		}
	}
	l.lives = slices.DeleteFunc(l.lives, func(e *life) bool { return !e.ended.IsZero() && time.Since(e.ended) > time.Minute })
	return last, true
}

func (l *load) start() {
	for i := range 34 {
		pause, size := time.Duration(0), 100
		switch {
		case i < 1:
		case i < 5:
			pause = 3 * time.Millisecond
		case i < 7:
			pause, size = 30*time.Millisecond, 200<<10
		case i < 14:
			pause = 50 * time.Millisecond
		case i < 24:
			pause = 700 * time.Millisecond
		default:
			pause = 3 * time.Second
		}
		l.work.Go(func() { l.keepAlive(pause, size) })
	}
	for range 2 {
		client := newH2()
		for range 3 {
			l.work.Go(func() { l.transport(client, "http://"+l.web, "http2", 10*time.Millisecond) })
		}
	}
	for _, over := range []string{"http1", "http2"} {
		client := newTLS(over == "http2")
		for _, pause := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 700 * time.Millisecond} {
			l.work.Go(func() { l.transport(client, "https://"+l.tls, over+" in TLS", pause) })
		}
	}
	grpc := newH2()
	for range 3 {
		l.work.Go(func() { l.unary(grpc) })
		l.work.Go(func() { l.stream(grpc) })
	}
	for i := range 6 {
		pause, chunk := 20*time.Millisecond, 64
		if i%3 == 2 {
			pause, chunk = 5*time.Millisecond, 100<<10
		}
		l.work.Go(func() { l.tunnel("upgraded", pause, chunk, l.dialUpgraded) })
		l.work.Go(func() { l.tunnel("tcp", pause, chunk, func() (net.Conn, error) { return net.Dial("tcp", l.tcp) }) })
	}
	for i := range 6 {
		wait := ""
		if i%2 == 0 {
			wait = "/150ms"
		}
		l.work.Go(func() { l.function(strconv.Itoa(i), wait) })
	}
}

func (l *load) pause(d time.Duration) bool {
	if d == 0 {
		return l.ctx.Err() == nil
	}
	select {
	case <-l.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// patience is how long an answer may take.
const patience = 20 * time.Second

// rawClient is a client of HTTP/1.1 that never tries again by itself.
type rawClient struct {
	address string
	conn    net.Conn
	r       *bufio.Reader
}

func (c *rawClient) do(path string, body []byte) ([]byte, error) {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			return nil, err
		}
		c.conn, c.r = conn, bufio.NewReader(conn)
	}
	got, last, err := c.exchange(path, body)
	if err != nil || last {
		c.conn.Close()
		c.conn = nil
	}
	return got, err
}

func (c *rawClient) exchange(path string, body []byte) ([]byte, bool, error) {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: soak\r\nContent-Length: %d\r\n\r\n", path, len(body))
	if _, err := c.conn.Write(append([]byte(head), body...)); err != nil {
		return nil, true, err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, true, fmt.Errorf("from %v: %w", c.conn.LocalAddr(), err)
	}
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, b)
	}
	return b, res.Close, err
}

func (l *load) keepAlive(pause time.Duration, size int) {
	kind := "http1 every " + pause.String()
	c := &rawClient{address: l.web}
	n := l.counter(kind)
	body := bytes.Repeat([]byte("0123456789"), size/10)
	for l.pause(pause) {
		end := l.begin()
		got, err := c.do("/echo", body)
		end()
		if err == nil && !bytes.Equal(got, body) {
			err = errors.New("another answer than expected")
		}
		if err != nil {
			l.fail(kind, err)
			continue
		}
		n.Add(1)
	}
	if c.conn != nil {
		c.conn.Close()
	}
}

func (l *load) function(client, wait string) {
	kind := "function" + wait
	c := &rawClient{address: l.web}
	n := l.counter(kind)
	for i := 0; l.pause(20 * time.Millisecond); i++ {
		id := client + "-" + strconv.Itoa(i)
		end := l.begin()
		got, err := c.do("/fn/"+id+wait, nil)
		end()
		if err == nil && string(got) != id {
			err = fmt.Errorf("another answer than expected: %.40q", got)
		}
		if err != nil {
			l.fail(kind, err)
			continue
		}
		n.Add(1)
		l.mu.Lock()
		l.acked = append(l.acked, id)
		l.mu.Unlock()
	}
	if c.conn != nil {
		c.conn.Close()
	}
}

// newH2 is a client of HTTP/2 that knows so from the start.
func newH2() *http.Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: &p}}
}

// newTLS is a client that believes every certificate.
func newTLS(http2 bool) *http.Client {
	var p http.Protocols
	p.SetHTTP1(!http2)
	p.SetHTTP2(http2)
	return &http.Client{Transport: &http.Transport{Protocols: &p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
}

// A POST is sent again by Go's client only where the server, by GOAWAY or before a byte was written, has said that it
// did not begin with it. It has to be able to: a connection may be told to end between its choice and its use.
type bodies func() io.Reader

// unsized hides a body's length.
type unsized struct{ io.Reader }

func (l *load) transport(client *http.Client, base, kind string, pause time.Duration) {
	n := l.counter(kind)
	body := []byte("over HTTP/2")
	for l.pause(pause) {
		end := l.begin()
		err := l.post(client, base+"/echo", "application/octet-stream", func() io.Reader { return unsized{bytes.NewReader(body)} }, func(res *http.Response) error {
			got, err := io.ReadAll(res.Body)
			if err == nil && !bytes.Equal(got, body) {
				err = errors.New("another answer than expected")
			}
			return err
		})
		end()
		if err != nil {
			l.fail(kind, err)
			continue
		}
		n.Add(1)
	}
	client.CloseIdleConnections()
}

func (l *load) post(client *http.Client, url, contentType string, body bodies, read func(*http.Response) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body())
	if err != nil {
		return err
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(body()), nil }
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Te", "trailers")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%s: %s", res.Status, b)
	}
	return read(res)
}

func readMessage(r io.Reader) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	m := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err := io.ReadFull(r, m)
	return m, err
}

func writeMessage(w io.Writer, m []byte) error {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m)))
	_, err := w.Write(append(b, m...))
	return err
}

func grpcStatus(res *http.Response) error {
	if s := res.Trailer.Get("Grpc-Status"); s != "0" {
		return fmt.Errorf("grpc-status %q %q, header %v", s, res.Trailer.Get("Grpc-Message"), res.Header)
	}
	return nil
}

func (l *load) unary(client *http.Client) {
	n := l.counter("grpc unary")
	for l.pause(10 * time.Millisecond) {
		var message bytes.Buffer
		_ = writeMessage(&message, []byte("one")) // a buffer takes all
		body := func() io.Reader { return bytes.NewReader(message.Bytes()) }
		end := l.begin()
		err := l.post(client, "http://"+l.web+"/echo.Echo/Unary", "application/grpc", body, func(res *http.Response) error {
			m, err := readMessage(res.Body)
			if err == nil && string(m) != "one" {
				err = errors.New("another answer than expected")
			}
			if err == nil {
				if _, err = io.Copy(io.Discard, res.Body); err == nil {
					err = grpcStatus(res)
				}
			}
			return err
		})
		end()
		if err != nil {
			l.fail("grpc unary", err)
			continue
		}
		n.Add(1)
	}
	client.CloseIdleConnections()
}

// stream opens streams that live for more than a second and checks every message that comes back.
func (l *load) stream(client *http.Client) {
	n := l.counter("grpc streams")
	messages := l.counter("grpc stream messages")
	for l.pause(10 * time.Millisecond) {
		ctx, cancel := context.WithCancel(context.Background())
		body := func() io.Reader {
			r, w := io.Pipe()
			context.AfterFunc(ctx, func() { r.Close() })
			go func() {
				for i := range 75 {
					if writeMessage(w, []byte(strconv.Itoa(i))) != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
				w.Close()
			}()
			return r
		}
		end := l.begin()
		err := l.post(client, "http://"+l.web+"/echo.Echo/Stream", "application/grpc", body, func(res *http.Response) error {
			for i := range 75 {
				m, err := readMessage(res.Body)
				if err != nil {
					return fmt.Errorf("after %d messages: %w", i, err)
				}
				if string(m) != strconv.Itoa(i) {
					return fmt.Errorf("message %q instead of %d", m, i)
				}
				messages.Add(1)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				return err
			}
			return grpcStatus(res)
		})
		end()
		cancel()
		if err != nil {
			l.fail("grpc stream", err)
			continue
		}
		n.Add(1)
	}
	client.CloseIdleConnections()
}

func (l *load) dialUpgraded() (net.Conn, error) {
	c, err := net.Dial("tcp", l.web)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, "GET /echo HTTP/1.1\r\nHost: soak\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err != nil {
		return nil, err
	}
	var head strings.Builder
	one := make([]byte, 1)
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		if _, err := io.ReadFull(c, one); err != nil {
			return nil, err
		}
		head.Write(one)
	}
	if !strings.HasPrefix(head.String(), "HTTP/1.1 101 ") {
		return nil, fmt.Errorf("the answer was %.60q", head.String())
	}
	return c, nil
}

// tunnel keeps one connection through all upgrades, and checks that the numbers that it sends come back in order.
func (l *load) tunnel(kind string, pause time.Duration, chunk int, dial func() (net.Conn, error)) {
	c, err := dial()
	if err != nil {
		l.fail(kind, err)
		return
	}
	defer c.Close()
	n := l.counter(kind + " tunnels, bytes")
	sent := make(chan uint64, 1)
	go func() {
		b := make([]byte, 0, chunk)
		next := uint64(0)
		for l.pause(pause) {
			b = b[:0]
			for len(b) < chunk {
				b = binary.BigEndian.AppendUint64(b, next)
				next++
			}
			if _, err := c.Write(b); err != nil {
				l.fail(kind, err)
				break
			}
		}
		sent <- next
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	r := bufio.NewReader(c)
	var b [8]byte
	for next := uint64(0); ; next++ {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			if want := <-sent; !errors.Is(err, io.EOF) || next != want {
				l.fail(kind, fmt.Errorf("after %d of %d numbers: %w", next, want, err))
			}
			return
		}
		if got := binary.BigEndian.Uint64(b[:]); got != next {
			l.fail(kind, fmt.Errorf("number %d instead of %d", got, next))
			return
		}
		n.Add(8)
	}
}
