package http2

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// Heads that came before, and heads that differ in one field: a deadline, a trace.
func BenchmarkHead(b *testing.B) {
	block := func(i int) []byte {
		var buf bytes.Buffer
		e := hpack.NewEncoder(&buf)
		e.SetMaxDynamicTableSize(0)
		_ = e.WriteField(hpack.HeaderField{Name: ":method", Value: "GET"}) // a buffer takes all
		buf.Reset()                                                        // once the table's size was told
		for _, f := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":path", "/grpc.testing.TestService/UnaryCall"}, {":authority", "greeter.example.com:8080"},
			{"content-type", "application/grpc"}, {"user-agent", "grpc-go/1.85.0"}, {"te", "trailers"}, {"grpc-timeout", fmt.Sprintf("%du", 999000+i)},
		} {
			_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // a buffer takes all
		}
		return buf.Bytes()
	}
	for name, n := range map[string]int{"known": 1, "new": 1 << 14} {
		b.Run(name, func(b *testing.B) {
			var blocks [][]byte
			for i := range n {
				blocks = append(blocks, block(i))
			}
			d := decoder{memo: newMemo(), most: 1 << 16, count: 128}
			var own head
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := d.decode(blocks[i%n], requestHead, &own); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
