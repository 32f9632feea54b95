package dapr

import (
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/http1"
)

// BenchmarkInvoke is a call by two sidecars, with its client and its app in the same process; direct is those two alone:
// the difference is what the sidecars cost.
func BenchmarkInvoke(b *testing.B) {
	for _, size := range []int{0, 1 << 10} {
		body := strings.Repeat("x", size)
		f := newFleet(b)
		answer := []byte(`{"ok":true}`)
		target := f.listen(loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if req.Body != nil {
				if _, err := io.Copy(io.Discard, req.Body); err != nil {
					return nil, err
				}
			}
			return loam.NewResponse(200, "application/json", answer), nil
		}))
		f.start("callee", target, nil)
		caller := f.start("caller", "", nil)
		for _, c := range []struct{ name, address, path string }{{"direct", target, "/orders"}, {"two sidecars", caller.http, "/v1.0/invoke/callee/method/orders"}} {
			b.Run(c.name+map[bool]string{true: " GET", false: " POST 1 KB"}[size == 0], func(b *testing.B) {
				b.ReportAllocs()
				client := http1.NewClient(c.address, http1.ClientConfig{Engine: f.engine})
				defer client.Close()
				const connections = 16
				var all sync.WaitGroup
				start := cpu(b)
				all.Add(connections)
				for i := range connections {
					f.engine.Go(func(t loam.Task) {
						defer all.Done()
						var req loam.Request
						for n := i; n < b.N; n += connections {
							req.Begin(t)
							req.Method, req.Scheme, req.Authority, req.Path = "GET", "http", "x", c.path
							if size > 0 {
								req.Method, req.Body, req.Length = "POST", io.NopCloser(strings.NewReader(body)), int64(size)
							}
							req.Header = append(req.Header[:0], loam.Field{Name: "User-Agent", Value: "bench"}, loam.Field{Name: "Accept", Value: "*/*"}, loam.Field{Name: "Content-Type", Value: "application/json"})
							res, err := client.Serve(&req)
							if err != nil {
								b.Error(err)
								return
							}
							if res.Body != nil {
								_, err = io.Copy(io.Discard, res.Body)
							}
							if res.Status != 200 || err != nil {
								b.Error(res.Status, err)
							}
							_ = res.Close()
							req.End()
						}
					})
				}
				all.Wait()
				b.ReportMetric((cpu(b)-start)/float64(b.N), "cpu-µs/op")
			})
		}
	}
}

// cpu is what the process has used, in microseconds.
func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3
}
