package dapr

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/dapr"
)

// What the API itself costs, without a connection: a request in, an answer out.
func BenchmarkGetState(b *testing.B) {
	a := newAPI(b, nil)
	do(b, a.HTTP(), "POST", "/v1.0/state/store", `[{"key":"k","value":"`+strings.Repeat("x", 100)+`"}]`)
	task, end := loam.NewTask(b.Context())
	defer end()
	b.Run("http", func(b *testing.B) {
		b.ReportAllocs()
		req := new(loam.Request)
		to := a.HTTP()
		for b.Loop() {
			req.Begin(task)
			req.Method, req.Path = "GET", "/v1.0/state/store/k"
			req.Header = append(req.Header, loam.Field{Name: "Accept", Value: "*/*"})
			res, err := to.Serve(req)
			if err != nil || res.Status != 200 {
				b.Fatal(err)
			}
			if err := res.Close(); err != nil {
				b.Fatal(err)
			}
			req.End()
		}
	})
	b.Run("grpc", func(b *testing.B) {
		b.ReportAllocs()
		message := (&pb.GetStateRequest{StoreName: "store", Key: "k"}).AppendProto(nil)
		frame := append([]byte{0, 0, 0, 0, byte(len(message))}, message...)
		req := new(loam.Request)
		to := a.GRPC()
		var body bytes.Reader
		buf := make([]byte, 1024)
		for b.Loop() {
			body.Reset(frame)
			req.Begin(task)
			req.Method, req.Path = "POST", service+"GetState"
			req.Header = append(req.Header, loam.Field{Name: "content-type", Value: "application/grpc"})
			req.Body, req.Length = io.NopCloser(&body), int64(len(frame))
			res, err := to.Serve(req)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := res.Body.Read(buf); err != io.EOF {
				b.Fatal(err)
			}
			if err := res.Close(); err != nil {
				b.Fatal(err)
			}
			req.End()
		}
	})
}

func BenchmarkSaveState(b *testing.B) {
	a := newAPI(b, nil)
	task, end := loam.NewTask(b.Context())
	defer end()
	text := `[{"key":"k","value":"` + strings.Repeat("x", 100) + `"}]`
	b.ReportAllocs()
	req := new(loam.Request)
	to := a.HTTP()
	var body strings.Reader
	for b.Loop() {
		body.Reset(text)
		req.Begin(task)
		req.Method, req.Path = "POST", "/v1.0/state/store"
		req.Body, req.Length = io.NopCloser(&body), int64(len(text))
		res, err := to.Serve(req)
		if err != nil || res.Status != 204 {
			b.Fatal(err)
		}
		if err := res.Close(); err != nil {
			b.Fatal(err)
		}
		req.End()
	}
}
