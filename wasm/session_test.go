package wasm

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
)

// inSession serves a request of a session; the header has it, or a cookie.
func inSession(t *testing.T, m *Module, path, header, value string) (string, error) {
	t.Helper()
	r := request(t.Context(), "GET", path, "")
	defer r.Release()
	if value != "" {
		r.Header.Add(header, value)
	}
	resp, err := m.Serve(r)
	if err != nil || resp.Body == nil {
		return "", err
	}
	b := make([]byte, 100)
	n, _ := resp.Body.Read(b)
	return string(b[:n]), nil
}

func TestSessions(t *testing.T) {
	for _, c := range []struct {
		config Session
		header string
		value  string // of a session's name
	}{
		{Session{Header: "X-Session"}, "x-session", "%s"},
		{Session{Cookie: "sid"}, "Cookie", "theme=dark; sid=%s; other=sid=9"},
	} {
		m := compile(t, guestModule, Config{Isolation: IsolationSession, Session: c.config})
		for n := 1; n <= 3; n++ {
			for _, key := range []string{"a", "b"} {
				if got, err := inSession(t, m, "/count", c.header, fmt.Sprintf(c.value, key)); got != fmt.Sprint(n) || err != nil {
					t.Errorf("session %s, request %d: %q %v", key, n, got, err)
				}
			}
			if got, _ := inSession(t, m, "/count", c.header, ""); got != "1" {
				t.Errorf("a request without a session counts %s", got)
			}
		}
		if _, err := inSession(t, m, "/exit", c.header, fmt.Sprintf(c.value, "a")); loam.CodeOf(err) != loam.Internal {
			t.Errorf("%v", err)
		}
		if got, _ := inSession(t, m, "/count", c.header, fmt.Sprintf(c.value, "a")); got != "1" {
			t.Errorf("a session whose guest failed counts %s", got)
		}
		if got, _ := inSession(t, m, "/count", c.header, fmt.Sprintf(c.value, "b")); got != "4" {
			t.Errorf("the other session counts %s", got)
		}
		m.tidy(time.Now().Add(9 * time.Minute))
		if n := m.State().Idle; n < 2 {
			t.Errorf("%d instances are left", n)
		}
		m.tidy(time.Now().Add(time.Hour))
		if m.sessions.len() != 0 {
			t.Error("sessions are left that were idle for long")
		}
	}
	if _, err := tryCompile(t, testHost, guestModule, Config{Isolation: IsolationSession}); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("%v", err)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	m := compile(t, guestModule, Config{Isolation: IsolationSession, Session: Session{Header: "s", Max: 2}, Queue: 1})
	count := func(key string) string {
		t.Helper()
		got, err := inSession(t, m, "/count", "s", key)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := count("a") + count("b") + count("a") + count("c") + count("a") + count("b"); got != "112131" {
		t.Errorf("%s: not the oldest session made room", got)
	}
	if n := m.stats.Evicted.Load(); n != 2 {
		t.Errorf("%d sessions made room", n)
	}
	if _, err := inSession(t, m, "/count", "s", strings.Repeat("x", 513)); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("%v", err)
	}

	// Two sessions are busy, and one request waits in each.
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	busy := func(path, key string) {
		wg.Go(func() {
			r := request(ctx, "GET", path, "")
			r.Header.Add("s", key)
			_, _ = m.Serve(r)
		})
	}
	busy("/sleep/1h", "a")
	busy("/sleep/1h", "b")
	for m.busyNow() < 2 {
		runtime.Gosched()
	}
	if _, err := inSession(t, m, "/count", "s", "d"); loam.CodeOf(err) != loam.ResourceExhausted || m.stats.Limits[guest.LimitSessions].Load() != 1 {
		t.Errorf("%v", err)
	}
	busy("/count", "a")
	for m.Calls() < 3 {
		runtime.Gosched()
	}
	for {
		m.mu.Lock()
		waiting := m.sessions.all["a"].waiting.len()
		m.mu.Unlock()
		if waiting == 1 {
			break
		}
		runtime.Gosched()
	}
	if _, err := inSession(t, m, "/count", "s", "a"); loam.CodeOf(err) != loam.ResourceExhausted || m.stats.Limits[guest.LimitQueue].Load() != 1 {
		t.Errorf("%v", err)
	}
}

func (m *Module) busyNow() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.busy
}

// Requests of one session are served one after the other, in the order they came.
func TestSessionIsSerial(t *testing.T) {
	m := compile(t, guestModule, Config{Isolation: IsolationSession, Session: Session{Header: "s"}})
	seen := make(chan string, 40)
	var wg sync.WaitGroup
	for range cap(seen) {
		wg.Go(func() {
			got, err := inSession(t, m, "/count", "s", "one")
			if err != nil {
				t.Error(err)
			}
			seen <- got
		})
	}
	wg.Wait()
	close(seen)
	all := map[string]bool{}
	for got := range seen {
		if all[got] {
			t.Errorf("two requests counted %s", got)
		}
		all[got] = true
	}
	if !all["40"] || len(m.sessions.all) != 1 {
		t.Errorf("%d sessions, counted %v", len(m.sessions.all), all)
	}
}
