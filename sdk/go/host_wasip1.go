package loam

import (
	"log/slog"
	"math/bits"
	"os"
	"unsafe"
)

// What this function logs becomes Loam's log: a line of JSON keeps its level and attributes. It is set before main's
// own func init, which may set another.
func init() {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{} // the host knows when
			}
			return a
		},
	})))
	warm()
}

// warm takes something of each size that requests use from Go's heap. The first of a size has the heap set pages aside
// for it, which costs microseconds: done here it is in the image that every instance begins as.
func warm() {
	for size := 8; size <= 4<<10; size += max(8, 1<<bits.Len(uint(size))>>4) {
		warmed = make([]byte, size)
		warmed = make([]*byte, size/8)
	}
	warmed = nil
}

var warmed any // so that what is put there is taken from the heap

//go:wasmexport loam_serve
func loamServe() { serve() }

func hostRequestHead(b []byte) int { return int(requestHead(unsafe.SliceData(b), uint32(len(b)))) }

func hostRequestBody(b []byte) int { return int(requestBody(unsafe.SliceData(b), uint32(len(b)))) }

func hostResponseHead(b []byte) { responseHead(unsafe.SliceData(b), uint32(len(b))) }

func hostResponseBody(b []byte) int { return int(responseBody(unsafe.SliceData(b), uint32(len(b)))) }

func hostCall(method string, in, out []byte) uint64 {
	return uint64(capabilityCall(unsafe.StringData(method), uint32(len(method)),
		unsafe.SliceData(in), uint32(len(in)), unsafe.SliceData(out), uint32(len(out))))
}

func hostResult(b []byte) int { return int(result(unsafe.SliceData(b), uint32(len(b)))) }

//go:wasmimport loam request_head
//go:noescape
func requestHead(ptr *byte, size uint32) uint32

//go:wasmimport loam request_body
//go:noescape
func requestBody(ptr *byte, size uint32) int32

//go:wasmimport loam response_head
//go:noescape
func responseHead(ptr *byte, size uint32)

//go:wasmimport loam response_body
//go:noescape
func responseBody(ptr *byte, size uint32) int32

//go:wasmimport loam call
//go:noescape
func capabilityCall(method *byte, methodLen uint32, in *byte, inLen uint32, out *byte, outCap uint32) int64

//go:wasmimport loam result
//go:noescape
func result(ptr *byte, size uint32) int32
