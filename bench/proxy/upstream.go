package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// serveUpstream is what all proxies stand before: HTTP/1 at one address, HTTP/2 without TLS at the other. It does as little
// as it can: /N answers N bytes, an Upgrade answers what it is sent.
func serveUpstream(plain, h2c string) error {
	l, err := net.Listen("tcp", plain)
	if err != nil {
		return err
	}
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	go func() {
		s := http.Server{Addr: h2c, Handler: http.HandlerFunc(grpcAnswer), Protocols: &p, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 4096}}
		panic(s.ListenAndServe())
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go answer(c)
	}
}

var answers = map[string][]byte{}

func init() {
	for _, n := range []int{128, 16 << 10} {
		answers["/"+strconv.Itoa(n)] = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Sat, 21 Nov 2026 08:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", n, strings.Repeat("x", n))
	}
}

func answer(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 16<<10)
	n := 0
	for {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		end := bytes.Index(buf[:n], []byte("\r\n\r\n"))
		if end < 0 {
			continue
		}
		line, _, _ := bytes.Cut(buf[:n], []byte(" HTTP/1.1"))
		_, path, _ := strings.Cut(string(line), " ")
		if bytes.Contains(buf[:end], []byte("pgrade: echo")) {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			_, _ = io.Copy(c, c)
			return
		}
		if _, err := c.Write(answers[path]); err != nil {
			return
		}
		n = copy(buf, buf[end+4:n])
	}
}

// message is one of gRPC's: a length and 128 bytes.
var message = append([]byte{0, 0, 0, 0, 128}, make([]byte, 128)...)

func grpcAnswer(w http.ResponseWriter, r *http.Request) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Trailer", "Grpc-Status")
	n := 1
	if strings.HasPrefix(r.URL.Path, "/bench.Bench/Stream") {
		n = 100
	}
	for i := range n {
		_, _ = w.Write(message)
		if n > 1 && i%4 == 3 {
			_ = http.NewResponseController(w).Flush()
		}
	}
	h.Set("Grpc-Status", "0")
}

// tunnels opens as many upgraded connections and sends messages to and fro on each until stop, and tells how many came
// back.
func tunnels(address string, n, size int, stop <-chan struct{}) (int64, error) {
	counts := make(chan int64, n)
	errs := make(chan error, n)
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return 0, err
		}
		if _, err := io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err != nil {
			return 0, err
		}
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return 0, err
		}
		if res.StatusCode != http.StatusSwitchingProtocols {
			return 0, fmt.Errorf("status %d", res.StatusCode)
		}
		go func() {
			<-stop
			_ = c.Close()
		}()
		go func() {
			buf := make([]byte, size)
			var count int64
			for {
				if _, err := c.Write(buf); err != nil {
					break
				}
				if _, err := io.ReadFull(r, buf); err != nil {
					break
				}
				count++
			}
			select {
			case <-stop:
			default:
				errs <- fmt.Errorf("a tunnel broke after %d messages", count)
			}
			counts <- count
		}()
	}
	var total int64
	for range n {
		total += <-counts
	}
	select {
	case err := <-errs:
		return total, err
	default:
		return total, nil
	}
}
