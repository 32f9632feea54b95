// Command guest is the function that tests of the guest host run: each path does one thing.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	loam "github.com/loam-run/loam/sdk/go"
)

var served int // by this instance

// State that every fork inherits.
var (
	marks   []string
	started = time.Now()
	fixed   = mrand.New(mrand.NewChaCha8([32]byte{1}))
	own     = func() *mrand.Rand {
		var seed [32]byte
		_, _ = rand.Read(seed[:])
		return mrand.New(mrand.NewChaCha8(seed))
	}()
)

//go:noinline
func deepest(n int) error {
	if n == 0 {
		runtime.Breakpoint() // a trap that Go does not catch
		return nil
	}
	return errors.Join(deepest(n - 1))
}

func init() {
	loam.Handle("GET /hello/{name}", func(r *loam.Request) (*loam.Response, error) {
		return loam.Text(200, "hello "+r.PathValue("name")), nil
	})
	loam.Handle("POST /echo", func(r *loam.Request) (*loam.Response, error) {
		b, err := r.Body()
		if err != nil {
			return nil, err
		}
		resp := loam.Bytes(201, r.Header.Get("Content-Type"), b)
		resp.Header.Set("X-Id", r.ID)
		resp.Header.Set("X-Query", r.Query().Get("q"))
		return resp, nil
	})
	loam.Handle("POST /json", func(r *loam.Request) (*loam.Response, error) {
		var order struct {
			Items []struct {
				ID    int     `json:"id"`
				Name  string  `json:"name"`
				Price float64 `json:"price"`
			} `json:"items"`
		}
		b, err := r.Body()
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b, &order); err != nil {
			return nil, err
		}
		sum := 0.0
		for _, i := range order.Items {
			sum += i.Price
		}
		b, err = json.Marshal(map[string]any{"items": len(order.Items), "sum": sum})
		return loam.Bytes(200, "application/json", b), err
	})
	loam.Handle("GET /count", func(*loam.Request) (*loam.Response, error) {
		served++
		return loam.Text(200, strconv.Itoa(served)), nil
	})
	loam.Handle("GET /env", func(*loam.Request) (*loam.Response, error) {
		_, err := os.ReadDir("/")
		return loam.Text(200, fmt.Sprintf("%q files: %t", os.Environ(), err == nil)), nil
	})
	loam.Handle("GET /random", func(*loam.Request) (*loam.Response, error) {
		var b [16]byte
		_, _ = rand.Read(b[:])
		return loam.Text(200, hex.EncodeToString(b[:])+" "+strconv.FormatInt(time.Now().UnixNano(), 10)), nil
	})
	loam.Handle("GET /generators", func(*loam.Request) (*loam.Response, error) {
		return loam.Text(200, fmt.Sprint(mrand.Uint64(), " ", own.Uint64(), " ", fixed.Uint64())), nil
	})
	loam.Handle("GET /clock", func(*loam.Request) (*loam.Response, error) {
		return loam.Text(200, fmt.Sprint(int64(time.Since(started)), " ", time.Now().UnixNano())), nil
	})
	loam.Handle("GET /mark/{mark}", func(r *loam.Request) (*loam.Response, error) {
		large := make([]byte, 8<<20) // the memory grows
		for i := 0; i+64 < len(large); i += 64 {
			copy(large[i:], r.PathValue("mark"))
		}
		marks = append(marks, strings.Repeat(r.PathValue("mark"), 3), string(large[4<<20:5<<20]))
		defer runtime.KeepAlive(large)
		return loam.Text(200, strconv.Itoa(len(marks))), nil
	})
	loam.Handle("GET /trap", func(r *loam.Request) (*loam.Response, error) {
		return nil, deepest(3)
	})
	loam.Handle("GET /recurse", func(r *loam.Request) (*loam.Response, error) {
		return nil, deepest(1 << 30)
	})
	loam.Handle("GET /sleep/{for}", func(r *loam.Request) (*loam.Response, error) {
		d, err := time.ParseDuration(r.PathValue("for"))
		if err != nil {
			return nil, loam.Errorf(loam.InvalidArgument, "%w", err)
		}
		time.Sleep(d)
		return loam.NoContent(), nil
	})
	loam.Handle("GET /loop", func(*loam.Request) (*loam.Response, error) {
		for {
			served++
		}
	})
	loam.Handle("GET /panic", func(*loam.Request) (*loam.Response, error) { panic("oh no") })
	loam.Handle("GET /exit", func(*loam.Request) (*loam.Response, error) { os.Exit(3); return nil, nil })
	loam.Handle("GET /memory", func(*loam.Request) (*loam.Response, error) {
		var all [][]byte
		for {
			all = append(all, make([]byte, 1<<20))
			served = len(all)
		}
	})
	loam.Handle("GET /large/{bytes}", func(r *loam.Request) (*loam.Response, error) {
		n, err := strconv.Atoi(r.PathValue("bytes"))
		return loam.Text(200, strings.Repeat("x", n)), err
	})
	loam.Handle("GET /log", func(*loam.Request) (*loam.Response, error) {
		slog.Warn("stock is low", "article", "pen", "left", 3)
		fmt.Println("plain words")
		fmt.Fprint(os.Stderr, "no newline")
		return nil, nil
	})
	loam.Handle("POST /call/{method}", func(r *loam.Request) (*loam.Response, error) {
		key := r.Query().Get("key")
		switch r.PathValue("method") {
		case "get":
			item, err := loam.State("").Get(key)
			return loam.Bytes(200, "text/plain", item.Value), err
		case "put":
			b, _ := r.Body()
			etag, err := loam.State("").Put(key, b, loam.IfAbsent(), loam.TTL(time.Minute))
			return loam.Text(200, etag), err
		}
		return nil, loam.Errorf(loam.Unimplemented, "no such call")
	})
}

func main() {}
