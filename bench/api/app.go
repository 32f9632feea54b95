package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// An app is the program behind the sidecars: it answers calls, and tells who waits for an event that it came.
type app struct {
	port   string
	server *http.Server
	done   chan struct{}

	mu      sync.Mutex
	waiting map[int]chan struct{} // by the event's number
	last    int
}

func serveApp() (*app, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &app{done: make(chan struct{}), waiting: map[int]chan struct{}{}}
	if _, a.port, err = net.SplitHostPort(ln.Addr().String()); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(payload)) // who went away needs no answer
	})
	mux.HandleFunc("POST /orders", a.event)
	mux.HandleFunc("/dapr/", http.NotFound)
	a.server = &http.Server{Handler: mux}
	go func() {
		defer close(a.done)
		_ = a.server.Serve(ln) // until it is closed
	}()
	return a, nil
}

func (a *app) close() {
	_ = a.server.Close()
	<-a.done
}

// event takes one, whose data is {"n": number}.
func (a *app) event(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err == nil {
		if _, rest, ok := bytes.Cut(b, []byte(`"n":`)); ok {
			end := 0
			for end < len(rest) && (rest[end] == ' ' || rest[end] >= '0' && rest[end] <= '9') {
				end++
			}
			if n, err := strconv.Atoi(string(bytes.TrimSpace(rest[:end]))); err == nil {
				a.came(n)
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"status":"SUCCESS"}`)) // as above
}

func (a *app) came(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ch := a.waiting[n]; ch != nil {
		close(ch)
		delete(a.waiting, n)
	}
}

// expect gives a number for an event, and what is closed when it comes.
func (a *app) expect() (int, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	ch := make(chan struct{})
	a.waiting[a.last] = ch
	return a.last, ch
}

var errLost = errors.New("an event did not come within 10 seconds")

// wait waits for an event.
func wait(ch <-chan struct{}, timer *time.Timer) error {
	timer.Reset(10 * time.Second)
	select {
	case <-ch:
		timer.Stop()
		return nil
	case <-timer.C:
		return errLost
	}
}
