package wasm

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/loop"
)

// soak is how long TestSoak goes on, once it has done what it does at least.
var soak = flag.Duration("soak", 0, "how long TestSoak runs on")

// Chained functions are asked without end, each answer is verified, and beside them on the same loops guests do the
// worst they can. No answer is wrong, each bad guest gets the answer it should, and nothing grows.
func TestSoak(t *testing.T) {
	e, err := loop.Coroutines(loop.Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	// The front asks the back for the state of a key; the back answers with what it was sent.
	back := compile(t, guestModule, Config{})
	front := compile(t, guestModule, Config{Caller: &loam.Caller{Name: "front"}, Methods: loam.Methods{
		"state.Get": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var get api.StateGetRequest
			if err := get.ParseProto(in); err != nil {
				return nil, err
			}
			r := request(ctx, "POST", "/echo", "value of "+get.Keys[0])
			defer r.Release()
			r.Caller = caller
			resp, err := back.Serve(r)
			if err != nil {
				return nil, err
			}
			b := make([]byte, resp.Length)
			_, err = resp.Body.Read(b)
			out := api.StateGetResponse{Items: []api.StateItem{{Key: get.Keys[0], Value: b, Etag: "1"}}}
			return out.AppendProto(nil), err
		},
	}})
	quick := Config{Timeout: 20 * time.Millisecond, Concurrency: 4, Memory: 16 << 20}
	loopOf := func(body ...any) []byte { return join(0x03, 0x40, join(body...), 0x0c, 0x00, 0x0b) }
	bad := map[string]struct {
		guest handmade
		codes []loam.Code
	}{
		"loop":      {handmade{serve: forever, pages: 1}, []loam.Code{loam.DeadlineExceeded}},
		"recursion": {handmade{serve: []byte{0x10, 0}, pages: 1}, []loam.Code{loam.Internal, loam.DeadlineExceeded}},
		"memory":    {handmade{serve: loopOf([]byte{0x41, 1, 0x40, 0, drop}), pages: 2}, []loam.Code{loam.DeadlineExceeded}},
		"fill":      {handmade{serve: loopOf([]byte{0x41, 0, 0x41, 7, 0x41, 0x80, 0x80, 0x3c, 0xfc, 11, 0}), pages: 16}, []loam.Code{loam.DeadlineExceeded}},
		"copy":      {handmade{serve: loopOf([]byte{0x41, 0, 0x41, 8, 0x41, 0x80, 0x80, 0x3c, 0xfc, 10, 0, 0}), pages: 16}, []loam.Code{loam.DeadlineExceeded}},
		"trap":      {handmade{serve: []byte{unreachable}, pages: 2}, []loam.Code{loam.Internal, loam.DeadlineExceeded}}, // it has had its share, and its time is short
		"flood":     {handmade{imports: []string{"wasi_snapshot_preview1.fd_write"}, serve: loopOf(call(0, 2, 0, 1, 64), drop), data: []byte("\x00\x00\x00\x00\x00\x00\x01\x00"), pages: 2}, []loam.Code{loam.DeadlineExceeded}},
		"pointers":  {handmade{imports: []string{"loam.call"}, serve: join(call(0, -1, -1, -1, -1, -1, -1), drop), pages: 2}, []loam.Code{loam.Internal, loam.DeadlineExceeded}},
	}
	var stop atomic.Bool
	var wg, worst sync.WaitGroup
	harm := map[string]*atomic.Int64{}
	for name, b := range bad {
		m := compile(t, b.guest.bytes(), quick)
		n := new(atomic.Int64)
		harm[name] = n
		for range 2 {
			worst.Add(1)
			e.Go(func(task loam.Task) {
				defer worst.Done()
				for !stop.Load() {
					_, _, err := onTask(task, m, "GET", "/", "", nil)
					n.Add(1)
					ok := false
					for _, c := range b.codes {
						ok = ok || loam.CodeOf(err) == c
					}
					if !ok {
						t.Errorf("%s: %v", name, err)
						return
					}
					task.Yield()
				}
			})
		}
	}
	const atLeast, at = 1000, 16
	var done atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	began := time.Now()
	resident := func() int64 {
		b, _ := os.ReadFile("/proc/self/statm")
		var all, pages int64
		_, _ = fmt.Sscan(string(b), &all, &pages)
		return pages * int64(os.Getpagesize())
	}
	for range at {
		wg.Add(1)
		e.Go(func(task loam.Task) {
			defer wg.Done()
			for done.Load() < atLeast || time.Since(began) < *soak {
				key := fmt.Sprintf("%x%s", rand.Uint64(), strings.Repeat("k", rand.IntN(200)))
				from := time.Now()
				status, body, err := onTask(task, front, "POST", "/call/get?key="+key, "", nil)
				mu.Lock()
				took = append(took, time.Since(from))
				mu.Unlock()
				if err != nil || status != 200 || body != "value of "+key {
					t.Errorf("%d %q %v, want the value of %s", status, body, err, key)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	stop.Store(true)
	worst.Wait()
	counts := map[string]int64{}
	for name, n := range harm {
		if counts[name] = n.Load(); counts[name] == 0 {
			t.Errorf("no %s came to its end", name)
		}
	}
	runtime.GC()
	slices.Sort(took)
	t.Logf("%d requests in %v, none wrong, p50 %v, p99 %v, slowest %v; beside %v; %d MiB resident", done.Load(), time.Since(began).Round(time.Second),
		took[len(took)/2], took[len(took)*99/100], took[len(took)-1], counts, resident()>>20)
	for range 2 {
		testHost.trim() // nobody needs an instance any more
	}
	if n := testHost.mapper.used(); n > 2000 {
		t.Errorf("%d mappings are left", n)
	}
}
