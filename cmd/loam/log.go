package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/lmittmann/tint"
	"golang.org/x/term"
)

// logFlags choose how a serving command logs.
type logFlags struct {
	LogLevel  slog.Level `default:"info" placeholder:"LEVEL" help:"What to log: debug (every request), info, warn or error."`
	LogFormat string     `default:"auto" enum:"auto,text,json" help:"How to log: text, json, or auto (text on a terminal, json elsewhere)."`
}

func (f logFlags) logger(w io.Writer, auto string) *slog.Logger {
	format := f.LogFormat
	if format == "auto" {
		if format = auto; isTerminal(w) {
			format = "text"
		}
	}
	return newLogger(w, f.LogLevel, format == "json")
}

func newLogger(w io.Writer, level slog.Leveler, json bool) *slog.Logger {
	if json {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: !isTerminal(w)}))
}

// isTerminal tells whether colours and progress make sense there (see https://no-color.org).
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
}

// paint colours text for a terminal.
func paint(w io.Writer, code int, text string) string {
	if !isTerminal(w) {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, text)
}

const (
	red    = 31
	green  = 32
	yellow = 33
	bold   = 1
)
