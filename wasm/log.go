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
	lineRate    = 500     // lines a second and function, in the long run
	lineBurst   = 2000    // lines at once
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
	ok, lost := w.limit.allow(time.Now())
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

// allow takes a token. lost is how many were refused since one was last given, told once.
func (l *limiter) allow(now time.Time) (ok bool, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used = max(l.used-now.Sub(l.last).Seconds()*lineRate, 0)
	l.last = now
	if l.used+1 > lineBurst {
		l.lost++
		return false, 0
	}
	l.used++
	lost, l.lost = l.lost, 0
	return true, lost
}
