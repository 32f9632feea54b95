package http1

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/http1/http1test"
)

// memory is a connection that gives what is in r.
type memory struct {
	net.Conn
	r io.Reader
}

func (m *memory) Read(p []byte) (int, error)      { return m.r.Read(p) }
func (m *memory) SetReadDeadline(time.Time) error { return nil }

// still is a task for which no time goes by.
type still struct{ loam.Task }

func (still) Now() time.Time { return time.Time{} }

// TestCorpus reads each message as the server does: head, body, trailer.
func TestCorpus(t *testing.T) {
	for _, c := range http1test.Corpus() {
		for _, step := range []int{1, 7, 1 << 20} { // how many bytes come at a time makes no difference
			if got := verdict([]byte(c.Raw), step); got != c.Status {
				t.Errorf("%s, %d bytes at a time: %d, want %d", c.Name, step, got, c.Status)
			}
		}
	}
}

// verdict is the status that raw is refused with, 0 where it is taken, -1 where more is waited for.
func verdict(raw []byte, step int) int {
	var req loam.Request
	var m message
	lim := limits()
	n := 0
	var err error
	for have := min(step, len(raw)); ; have = min(have+step, len(raw)) {
		req.Header = req.Header[:0]
		if n, err = parseRequest(raw[:have], lim, &req, &m); n > 0 || err != nil || have == len(raw) {
			break
		}
	}
	if err == nil && n == 0 {
		return -1
	}
	if err == nil {
		var trailer loam.Header
		buf := make([]byte, len(raw)+4096)
		copy(buf, raw[:n])
		r := reader{conn: &memory{r: &slow{bytes.NewReader(raw[n:]), step}}, buf: buf, base: n, r: n, w: n, task: still{}, req: &req}
		var b body
		b.start(&r, m, lim, -1, &trailer)
		_, err = io.ReadAll(&b)
	}
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r.status
	case err != nil:
		return -1
	}
	return 0
}

type slow struct {
	r    io.Reader
	step int
}

func (s *slow) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.step)]) }
