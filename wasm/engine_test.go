package wasm

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
)

// onTask serves a request in a task of an engine.
func onTask(task loam.Task, m *Module, method, path, body string, begun func(*loam.Request)) (int, string, error) {
	r := request(context.Background(), method, path, body)
	defer r.Release()
	r.SetTask(task)
	if begun != nil {
		begun(r)
	}
	resp, err := m.Serve(r)
	if err != nil || resp.Body == nil {
		return 0, "", err
	}
	var b strings.Builder
	buf := make([]byte, 512)
	for {
		n, err := resp.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return resp.Status, b.String(), nil
		}
	}
}

// Guests run inside their request's task, on event loops as on goroutines: one that never ends gives way to others on
// the same loop, capability calls, sleep and waiting for a slot give the loop's thread away, and Cancel ends them.
func TestOnEngines(t *testing.T) {
	engines := map[string]func() (loop.Engine, error){
		"goroutines": func() (loop.Engine, error) { return loop.Goroutines(), nil },
	}
	if runtime.GOOS == "linux" {
		engines["coroutines"] = func() (loop.Engine, error) { return loop.Coroutines(loop.Options{Loops: 1}) }
	}
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			e, err := open()
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}()
			inside := make(chan struct{})
			m := compile(t, guestModule, Config{Timeout: time.Hour, CPU: time.Hour, Concurrency: 3, Methods: loam.Methods{
				"state.Get": func(context.Context, *loam.Caller, []byte) ([]byte, error) {
					<-inside // until another request of the same loop was served
					return nil, loam.Errorf(loam.NotFound, "", "it is no state")
				},
			}})
			var wg sync.WaitGroup
			run := func(fn func(loam.Task)) loam.Task {
				task := make(chan loam.Task, 1)
				wg.Add(1)
				e.Go(func(t loam.Task) {
					defer wg.Done()
					task <- t
					fn(t)
				})
				return <-task
			}
			ended := func(path string) loam.Task {
				return run(func(task loam.Task) {
					if _, _, err := onTask(task, m, "GET", path, "", nil); loam.CodeOf(err) != loam.Canceled {
						t.Errorf("%s: %v", path, err)
					}
				})
			}
			endless := ended("/loop")
			asleep := ended("/sleep/1h")
			run(func(task loam.Task) {
				if status, _, err := onTask(task, m, "POST", "/call/get?key=a", "", nil); err != nil || status != 404 {
					t.Errorf("the capability call: %d %v", status, err)
				}
			})
			for m.busyNow() < 3 {
				runtime.Gosched()
			}
			waiting := ended("/count") // for a slot
			for {
				m.mu.Lock()
				n := m.waiting.len()
				m.mu.Unlock()
				if n == 1 {
					break
				}
				runtime.Gosched()
			}
			other := compile(t, guestModule, Config{})
			for range 20 {
				done := make(chan string, 1)
				run(func(task loam.Task) {
					_, body, err := onTask(task, other, "GET", "/hello/you", "", nil)
					if err != nil {
						t.Error(err)
					}
					done <- body
				})
				if body := <-done; body != "hello you" {
					t.Errorf("%q", body)
				}
			}
			waiting.Cancel()
			for m.Calls() > 3 {
				runtime.Gosched()
			}
			close(inside)
			asleep.Cancel()
			endless.Cancel()
			wg.Wait()
			if n := m.Calls(); n != 0 {
				t.Errorf("%d calls are under way", n)
			}
		})
	}
}
