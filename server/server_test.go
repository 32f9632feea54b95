package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/component/local"
	"github.com/loam-run/loam/component/memory"
	"github.com/loam-run/loam/component/sqlite"
	"github.com/loam-run/loam/provider/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a server under test.
type running struct {
	url      string
	file     string
	statuses chan admin.Status // every generation that differs from the one before
	stop     func() error
}

func start(t *testing.T, yaml string, more ...loam.Factory) *running {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := &running{url: "http://" + address, file: filepath.Join(dir, "app.yaml"), statuses: make(chan admin.Status, 1000)}
	r.write(t, yaml)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{
			Provider: file.New([]string{r.file}), Factories: slices.Concat(sqlite.New().Factories(), memory.New().Factories(), local.Factories(), more),
			DataDir: filepath.Join(dir, "data"), Version: "test", Address: address, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Grace: 10 * time.Second, Changed: func(s admin.Status) { r.statuses <- s },
		})
	}()
	r.stop = sync.OnceValue(func() error {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		return <-ended
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case s := <-r.statuses:
		r.statuses <- s
	case err := <-ended:
		ended <- err
		t.Fatalf("Run ended: %v", err)
	}
	return r
}

// write replaces the file in one step, as an editor does.
func (r *running) write(t *testing.T, yaml string) {
	t.Helper()
	if err := os.WriteFile(r.file+".new", []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(r.file+".new", r.file); err != nil {
		t.Fatal(err)
	}
}

// await waits for a generation that is as ok wants it.
func (r *running) await(t *testing.T, ok func(admin.Status) bool) admin.Status {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case s := <-r.statuses:
			if ok(s) {
				return s
			}
		case <-late:
			t.Fatal("the generation that was waited for did not come")
		}
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func upstream(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func resources(address, path, more string) string {
	return fmt.Sprintf(`
apiVersion: loam.dev/v1alpha1
kind: App
metadata: {name: a}
spec: {address: "%s"}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  rules:
    - matches: [{path: {value: %s}}]
      backendRefs: [{kind: App, name: a}]
---
%s`, address, path, more)
}

// A target and its routes are replaced again and again under load, and no request notices.
func TestReloadLosesNoRequest(t *testing.T) {
	var addresses [2]string
	for i := range addresses {
		addresses[i] = upstream(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "upstream %d", i) })
	}
	r := start(t, resources(addresses[0], "/x", ""))
	var asked, failed atomic.Int64
	var load sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				res, err := http.Get(r.url + "/x")
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
				if asked.Add(1); err != nil || res.StatusCode != http.StatusOK {
					failed.Add(1)
				}
			}
		})
	}
	for i := range 20 {
		detail := fmt.Sprintf("generation-%d", i)
		r.write(t, resources(addresses[i%2], "/x", "")+fmt.Sprintf(`
apiVersion: loam.dev/v1alpha1
kind: App
metadata: {name: %s}
spec: {address: "%s"}
`, detail, addresses[0]))
		r.await(t, func(s admin.Status) bool {
			for _, x := range s.Resources {
				if x.Name == detail {
					return true
				}
			}
			return false
		})
	}
	close(done)
	load.Wait()
	if failed.Load() > 0 || asked.Load() == 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), asked.Load())
	}
	if _, body := get(t, r.url+"/x"); body != "upstream 1" {
		t.Errorf("the last generation answers %q", body)
	}
}

// A request under way when the process is told to end is answered; new ones are not taken.
func TestDrain(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	r := start(t, resources(upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		close(inside)
		<-release
		io.WriteString(w, "late but whole")
	}), "/", ""))
	answered := make(chan string, 1)
	go func() {
		res, err := http.Get(r.url)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		answered <- string(b)
	}()
	<-inside
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	for refused := false; !refused; { // the socket closes while the request is still in
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if refused = err != nil; !refused {
			_ = c.Close()
		}
	}
	close(release)
	if got := <-answered; got != "late but whole" {
		t.Errorf("the request under way got %q", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}
