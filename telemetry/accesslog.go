package telemetry

import (
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/loam-run/loam"
)

// An AccessLog writes a line for each request, or for a sample of them. Lines are gathered in memory and written by a
// goroutine of its own: a slow disk never holds a request up, lines that find no room are counted and dropped.
type AccessLog struct {
	w      io.Writer
	json   bool
	sample uint64 // of 2^32
	wake   chan struct{}
	done   chan struct{}

	mu      sync.Mutex
	buf     []byte
	closed  bool
	dropped uint64
}

// Formats of an access log.
const (
	JSON = "json"
	Text = "text"
)

// room is how many bytes of lines may wait to be written.
const room = 1 << 20

// NewAccessLog makes a log that writes a share of sample (0 to 1) of the requests to w. Close ends it.
func NewAccessLog(w io.Writer, format string, sample float64) *AccessLog {
	l := &AccessLog{w: w, json: format == JSON, sample: uint64(min(max(sample, 0), 1) * (1 << 32)), wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.write()
	return l
}

// Log writes down a request that has ended. Requests that failed on this side are always written, whatever the sample.
func (l *AccessLog) Log(listener string, req *loam.Request, now time.Time, status int, sent int64, took time.Duration) {
	if status < 500 && l.sample < 1<<32 && uint64(rand.Uint32()) >= l.sample {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.buf) > room {
		l.dropped++
		return
	}
	first := len(l.buf) == 0
	line := line{l.buf, l.json}
	line.begin(now)
	line.text("listener", listener)
	line.text("method", req.Method)
	line.text("host", req.Authority)
	line.text("path", req.Path)
	line.number("status", int64(status))
	line.number("bytes", sent)
	line.number("us", took.Microseconds())
	line.text("route", req.Route)
	line.text("target", req.Target)
	line.text("remote", req.Remote)
	line.text("request", req.ID)
	l.buf = line.end()
	if first {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// write hands what was gathered on until Close.
func (l *AccessLog) write() {
	defer close(l.done)
	var spare []byte
	for range l.wake {
		l.mu.Lock()
		lines, dropped, closed := l.buf, l.dropped, l.closed
		l.buf, l.dropped = spare[:0], 0
		l.mu.Unlock()
		if dropped > 0 {
			line := line{lines, l.json}
			line.begin(time.Now())
			line.number("dropped", int64(dropped))
			lines = line.end()
		}
		_, _ = l.w.Write(lines) // there is nowhere to tell that a log cannot be written
		spare = lines
		if closed {
			return
		}
	}
}

// Close writes what is left.
func (l *AccessLog) Close() error {
	l.mu.Lock()
	again := l.closed
	l.closed = true
	l.mu.Unlock()
	if !again {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	<-l.done
	return nil
}

// line is one line being written.
type line struct {
	b    []byte
	json bool
}

func (l *line) begin(now time.Time) {
	if l.json {
		l.b = append(l.b, `{"time":"`...)
	}
	l.b = now.UTC().AppendFormat(l.b, "2006-01-02T15:04:05.000Z")
	if l.json {
		l.b = append(l.b, '"')
	}
}

func (l *line) key(name string) {
	if l.json {
		l.b = append(append(append(l.b, `,"`...), name...), `":`...)
		return
	}
	l.b = append(append(append(l.b, ' '), name...), '=')
}

func (l *line) number(name string, n int64) {
	l.key(name)
	l.b = strconv.AppendInt(l.b, n, 10)
}

// text writes a string that a stranger may have chosen: quoted wherever it could pass for something else.
func (l *line) text(name, s string) {
	if s == "" {
		return
	}
	l.key(name)
	if !l.json && plain(s) {
		l.b = append(l.b, s...)
		return
	}
	l.b = append(l.b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			l.b = append(l.b, '\\', byte(r))
		case r < ' ' || r == 0x7f || r == utf8.RuneError || r == 0x2028 || r == 0x2029:
			const hex = "0123456789abcdef"
			l.b = append(l.b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		default:
			l.b = utf8.AppendRune(l.b, r)
		}
	}
	l.b = append(l.b, '"')
}

func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '=' || c == '\\' {
			return false
		}
	}
	return true
}

func (l *line) end() []byte {
	if l.json {
		l.b = append(l.b, '}')
	}
	return append(l.b, '\n')
}
