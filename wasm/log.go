package wasm

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxLine     = 8 << 10 // bytes of a log line that are kept
	lineRate    = 200     // lines a second and function, in the long run
	lineBurst   = 2000    // lines at once
	lineSize    = 256     // bytes of a line that count as one
	lineMessage = "msg"
)

// A lineWriter turns what a guest prints into log lines that name the request. A line that is a JSON object with level
// and msg, as the SDK's slog writes, keeps its level and attributes.
type lineWriter struct {
	log     *slog.Logger
	limit   *limiter
	stream  string
	request string
	line    []byte        // begun, not ended
	lost    *atomic.Int64 // counts lines that were not logged; nil: nobody does
}

// Write takes everything: a guest that prints too much loses lines, never its life.
func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		head, rest, ended := bytes.Cut(p, []byte{'\n'})
		w.line = append(w.line, head[:min(len(head), maxLine-len(w.line))]...)
		if !ended {
			return n, nil
		}
		w.emit()
		p = rest
	}
}

func (w *lineWriter) flush() {
	if len(w.line) > 0 {
		w.emit()
	}
}

func (w *lineWriter) emit() {
	line := bytes.TrimRight(w.line, "\r")
	w.line = w.line[:0]
	ok, lost := w.limit.allow(time.Now(), len(line))
	if lost > 0 {
		w.log.Warn("guest printed too much", "lost_lines", lost)
	}
	if !ok && w.lost != nil {
		w.lost.Add(1)
	}
	if !ok || len(line) == 0 {
		return
	}
	level, message, attrs := slog.LevelInfo, "", []slog.Attr(nil)
	if parsed, ok := parseLine(line); ok {
		level, message, attrs = parsed.level, parsed.message, parsed.attrs
	} else {
		message = string(bytes.ToValidUTF8(line, []byte("\uFFFD")))
		if w.stream == "stderr" {
			level = slog.LevelWarn
		}
		attrs = append(attrs, slog.String("stream", w.stream))
	}
	if w.request != "" {
		attrs = append(attrs, slog.String("request", w.request))
	}
	w.log.LogAttrs(context.Background(), level, message, attrs...)
}

type guestLine struct {
	level   slog.Level
	message string
	attrs   []slog.Attr // in the order the guest wrote them
}

func parseLine(line []byte) (l guestLine, ok bool) {
	if line[0] != '{' {
		return l, false
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return l, false
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return l, false
		}
		var value any
		if err := d.Decode(&value); err != nil {
			return l, false
		}
		text, isText := value.(string)
		switch key.(string) {
		case slog.LevelKey:
			if !isText || l.level.UnmarshalText([]byte(text)) != nil {
				return l, false
			}
		case lineMessage:
			if !isText {
				return l, false
			}
			l.message, ok = text, true
		case slog.TimeKey, "function", "request": // the host's to say
		default:
			l.attrs = append(l.attrs, slog.Any(key.(string), value))
		}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return l, false
	}
	return l, ok && !d.More()
}

// A limiter is a token bucket. The zero value is full.
type limiter struct {
	mu   sync.Mutex
	used float64 // tokens taken and not yet returned
	last time.Time
	lost int
}

// allow takes the tokens for a line of some bytes. lost is how many lines were refused since one was last let through, told
// once.
func (l *limiter) allow(now time.Time, size int) (ok bool, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used = max(l.used-now.Sub(l.last).Seconds()*lineRate, 0)
	l.last = now
	tokens := 1 + float64(size/lineSize)
	if l.used+tokens > lineBurst {
		l.lost++
		return false, 0
	}
	l.used += tokens
	lost, l.lost = l.lost, 0
	return true, lost
}

// A sampler lets the first of many things be told in each second, and counts the others.
type sampler struct {
	mu   sync.Mutex
	next time.Time // when one is let through again
	left int
}

func (s *sampler) allow(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.next) {
		s.left++
		return false
	}
	s.next = now.Add(time.Second)
	return true
}

// rest is how many were left out, each counted once, when their second is over.
func (s *sampler) rest(now time.Time) (left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.next) {
		return 0
	}
	left, s.left = s.left, 0
	return left
}
