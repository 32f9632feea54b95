package http2

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/http2"
)

// engines runs a test over each engine that this system has.
func engines(t *testing.T, test func(t *testing.T, e *engine)) {
	for _, goroutines := range []bool{true, false} {
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		e := loop.New(loop.Options{Goroutines: goroutines, Log: log, Loops: 1})
		name := fmt.Sprintf("%T", e)
		name = name[strings.LastIndexByte(name, '.')+1:]
		if !goroutines && name == "goroutines" {
			_ = e.Close() // there are no event loops here
			continue
		}
		t.Run(name, func(t *testing.T) {
			defer func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}()
			test(t, &engine{Engine: e, hub: http2.NewHub(e), log: log})
		})
	}
}

type engine struct {
	loop.Engine
	hub *http2.Hub
	log *slog.Logger
}

// serve listens for a server of target and returns its address.
func (e *engine) serve(t *testing.T, target loam.Target) (address string) {
	t.Helper()
	s := http2.NewServer(target, http2.ServerConfig{Options: protocol.Options{Log: e.log}, Hub: e.hub})
	ln, err := e.Listen(context.Background(), "tcp", "127.0.0.1:0", loop.ListenOptions{Open: func(c loop.Conn) loop.Session { return s.Session(c, nil, nil, nil) }})
	if err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String()
}
