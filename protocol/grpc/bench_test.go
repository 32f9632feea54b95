package grpc_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/grpc"
)

// A unary call from one task to another process's worth of server: client, server and both connections on one loop.
func BenchmarkCall(b *testing.B) {
	w := newWorld(b, false)
	w.do(b, func(req *loam.Request) {
		b.ReportAllocs()
		for b.Loop() {
			var out text
			if err := w.client.Call(req, "/test.Echo/Say", &text{"hello"}, &out, nil); err != nil || out.s != "hello" {
				b.Error(out.s, err)
				return
			}
		}
	})
}

// The server's part of it without a connection.
func BenchmarkServe(b *testing.B) {
	s := newServer()
	req := new(loam.Request)
	defer req.End()
	body := &frame{b: []byte("\x00\x00\x00\x00\x05hello")}
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		req.Path, req.Body = "/test.Echo/Say", body
		req.Header = append(req.Header[:0], loam.Field{Name: "content-type", Value: "application/grpc"})
		body.read = 0
		res, err := s.Serve(req)
		if err != nil {
			b.Fatal(err)
		}
		n, _ := res.Body.Read(buf)
		if err := res.Close(); err != nil || string(buf[5:n]) != "hello" {
			b.Fatal(string(buf[:n]), err)
		}
	}
}

// What a stream keeps in memory that waits for its next message: both ends of it.
func BenchmarkIdleStreams(b *testing.B) {
	w := newWorld(b, false)
	w.do(b, func(req *loam.Request) {
		const n = 1000
		for b.Loop() {
			before := inUse()
			var open []*grpc.ClientStream
			var requests []*loam.Request
			for range n {
				r := new(loam.Request)
				r.Begin(req.Task())
				cs := w.client.Open(r, "/test.Echo/Chat")
				var out text
				if err := errors.Join(cs.Send(&text{"hello"}), cs.Recv(&out)); err != nil {
					b.Error(err)
					return
				}
				open, requests = append(open, cs), append(requests, r)
			}
			b.ReportMetric(float64(inUse()-before)/n, "B/stream")
			for i, cs := range open {
				cs.Close()
				requests[i].End()
			}
		}
	})
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
