package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const payload = "the quick brown fox jumps over the lazy dog, and then it does so again, until there are one hundred and twenty-eight bytes of it"

// measured is what a turn showed.
type measured struct{ cpu, p50, p99, rate float64 } // µs of processor time a call; µs; µs; calls a second

// load has n workers call one after the other for a while. worker is 0 to n-1.
func load(ctx context.Context, length time.Duration, n int, pids []int, call func(worker int) error) (m measured, err error) {
	took := make([][]time.Duration, n)
	errs := make([]error, n)
	before, err := cpuOf(pids)
	if err != nil {
		return m, err
	}
	began := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for now := time.Now(); now.Sub(began) < length && ctx.Err() == nil; {
				if err := call(i); err != nil {
					errs[i] = err
					return
				}
				then := time.Now()
				took[i] = append(took[i], then.Sub(now))
				now = then
			}
		})
	}
	wg.Wait()
	whole := time.Since(began)
	after, err := cpuOf(pids)
	if err := errors.Join(append(errs, err, ctx.Err())...); err != nil {
		return m, err
	}
	all := slices.Concat(took...)
	if len(all) == 0 {
		return m, errors.New("nothing was answered")
	}
	slices.Sort(all)
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
	return measured{us(after-before) / float64(len(all)), us(all[len(all)/2]), us(all[len(all)*99/100]), float64(len(all)) / whole.Seconds()}, nil
}

// cpuOf is the processor time that processes have used, to 10 ms.
func cpuOf(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:])) // from state on: utime is the 12th, stime the 13th
		user, err := strconv.ParseInt(f[11], 10, 64)
		if err != nil {
			return 0, err
		}
		system, err := strconv.ParseInt(f[12], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on every Linux
	}
	return sum, nil
}

// An httpConn is a connection of a client that does as little as it can, so that what is measured is the server.
type httpConn struct {
	net.Conn
	in *bufio.Reader
}

func dialHTTP(address string) (*httpConn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &httpConn{c, bufio.NewReader(c)}, nil
}

func (h *httpConn) close() { _ = h.Close() }

// request is one as bytes.
func request(method, path, body string) []byte {
	text := method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n"
	if body != "" {
		text += "Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return []byte(text + "\r\n" + body)
}

// do sends a request and reads its answer, which must be a success.
func (h *httpConn) do(request []byte) error {
	if _, err := h.Write(request); err != nil {
		return err
	}
	line, err := h.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	good := len(line) > 9 && line[9] == '2'
	status := string(line[:min(len(line), 14)])
	length, chunked := 0, false
	for {
		line, err := h.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case len(name) == 14 && bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		case len(name) == 17 && bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if good && !chunked {
		_, err = h.in.Discard(length)
		return err
	}
	body := io.LimitReader(h.in, int64(length))
	if chunked {
		body = httputil.NewChunkedReader(h.in)
	}
	b, err := io.ReadAll(body)
	if err == nil && chunked {
		_, err = h.in.ReadSlice('\n') // the end of a trailer of no fields
	}
	if !good {
		err = errors.Join(fmt.Errorf("%s: %s", status, b), err)
	}
	return err
}
