package function

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/build"
	"github.com/loam-run/loam/wasm"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(f *Function, path string) (string, error) {
	r := loam.NewRequest(context.Background())
	defer r.Release()
	r.Method, r.Path, r.ID = "GET", path, "r-1"
	resp, err := f.Serve(r)
	if err != nil || resp.Body == nil {
		return "", err
	}
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestDrain(t *testing.T) {
	out := filepath.Join(t.TempDir(), "guest.wasm")
	if err := build.Go(t.Context(), build.Job{Name: "guest", Dir: "../../wasm/testdata/guest", Out: out, Wasm: true}); err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	host, err := wasm.NewHost(wasm.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for _, c := range []struct {
		name, path string
		patience   time.Duration
		code       loam.Code // of the call under way
	}{
		{"waits for what ends", "/sleep/200ms", time.Minute, loam.OK},
		{"ends what does not", "/sleep/1h", 50 * time.Millisecond, loam.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := New(t.Context(), host, "guest", binary, wasm.Config{})
			if err != nil {
				t.Fatal(err)
			}
			if body, err := get(f, "/hello/you"); body != "hello you" || err != nil {
				t.Fatal(body, err)
			}
			result := make(chan error, 1)
			go func() {
				_, err := get(f, c.path)
				result <- err
			}()
			for f.module.Calls() == 0 {
				runtime.Gosched()
			}
			ctx, cancel := context.WithTimeout(t.Context(), c.patience)
			defer cancel()
			if err := f.Close(ctx); (err == nil) != (c.code == loam.OK) {
				t.Errorf("close: %v", err)
			}
			if err := <-result; loam.CodeOf(err) != c.code {
				t.Errorf("the call under way: %v", err)
			}
			if _, err := get(f, "/hello/you"); loam.CodeOf(err) != loam.Unavailable || !errors.Is(err, wasm.ErrClosed) {
				t.Errorf("a call after it: %v", err)
			}
		})
	}
}
