package http2_test

import (
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// A stream that is relayed has no task: neither a goroutine nor a coroutine, which is one too.
func TestLongStreamsHaveNoTask(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		const streams = 200
		behind := behind(t, nil, func(r *raw) {
			for {
				g, ok := r.next()
				if !ok {
					return
				}
				switch g.kind {
				case 1:
					r.send(frame(nil, 1, 4, g.id, ok200))
				case 0:
					r.send(frame(nil, 0, g.flags&1, g.id, g.payload)) // says it again
				}
			}
		})
		cl := e.client(behind)
		defer cl.Close()
		address, _ := e.serve(t, cl)
		r, q := dialRaw(t, address), dialRaw(t, address)
		before := 0
		for i, c := range []*raw{r, q} {
			for id := uint32(1); id < streams; id += 2 {
				c.send(frame(nil, 1, 4, id, post("content-type", "application/grpc")))
				c.want(1, id)
				if i == 0 && id == 21 {
					runtime.GC()
					before = runtime.NumGoroutine()
				}
			}
		}
		if after := runtime.NumGoroutine(); after > before+20 {
			t.Errorf("%d goroutines with some streams, %d with %d", before, after, streams)
		}
		for _, c := range []*raw{r, q} {
			for id := uint32(1); id < streams; id += 2 {
				c.send(frame(nil, 0, 0, id, []byte("ping")))
				if g := c.want(0, id); string(g.payload) != "ping" {
					t.Fatalf("%v", g)
				}
				c.send(frame(nil, 0, 1, id, nil))
				if g := c.want(0, id); g.flags&1 == 0 {
					t.Fatalf("%v", g)
				}
			}
		}
	})
}

// observer counts the requests that were told of.
type observer struct{ told atomic.Int64 }

func (o *observer) Observe(*loam.Request, int, int64, time.Duration) { o.told.Add(1) }

// Clients that break off at any moment: every request is told of once, and those that stay get their answers.
func TestChaos(t *testing.T) {
	up := upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stay" {
			_, _ = io.Copy(w, r.Body)
			return
		}
		b := make([]byte, 10_000)
		for range rand.N(20) {
			if _, err := r.Body.Read(b[:rand.N(len(b))]); err != nil && err != io.EOF {
				return
			}
			if _, err := w.Write(b); err != nil {
				return
			}
			if rand.N(10) == 0 {
				panic(http.ErrAbortHandler)
			}
		}
	}))
	engines(t, func(t *testing.T, e *engine) {
		o := &observer{}
		var begun atomic.Int64
		cl := e.client(up)
		defer cl.Close()
		address, _ := e.serve(t, loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			begun.Add(1)
			req.Observer = o
			return cl.Serve(req)
		}))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 10 {
					r := dialRaw(t, address)
					id := uint32(1)
					for range rand.N(30) {
						b := frame(nil, 1, 4, id, post())
						for range rand.N(4) {
							b = frame(b, 0, 0, id, make([]byte, rand.N(5000)))
						}
						switch rand.N(4) {
						case 0:
							b = frame(b, 3, 0, id, []byte{0, 0, 0, 8})
						case 1:
							b = frame(b, 0, 1, id, nil)
						}
						if _, err := r.Write(b); err != nil {
							break
						}
						id += 2
					}
					_ = r.SetReadDeadline(time.Now().Add(rand.N(20 * time.Millisecond)))
					_, _ = io.CopyN(io.Discard, r, rand.N[int64](100_000)) // as much as comes until then
					r.Close()
				}
			})
		}
		client := h2c(t)
		for range 50 {
			body := strings.Repeat("x", rand.N(200_000))
			res, err := client.Post("http://"+address+"/stay", "text/plain", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				break
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(got) != body {
				t.Errorf("%d bytes of %d, %v", len(got), len(body), err)
			}
		}
		wg.Wait()
		for until := time.Now().Add(2 * time.Minute); o.told.Load() != begun.Load(); runtime.Gosched() {
			if time.Now().After(until) {
				t.Fatalf("%d requests, %d told of", begun.Load(), o.told.Load())
			}
		}
	})
}
