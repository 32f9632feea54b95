//go:build sdk

package layotto

import (
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Layotto's clients ask as they did, and get what they did; what goes wrong is not an empty 200.
func TestLayotto(t *testing.T) {
	dir := t.TempDir()
	loam := filepath.Join(dir, "loam")
	if out, err := exec.Command("go", "build", "-o", loam, "../../cmd/loam").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var log buffer
	process := exec.Command(loam, "dev", "--data", filepath.Join(dir, "data"), "--listen", address, ".")
	process.Stdout, process.Stderr = &log, &log
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := process.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := process.Wait(); err != nil {
			t.Errorf("it did not end cleanly: %v", err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	ask := func(method, uri, id, body string) (int, string, http.Header, error) {
		req, err := http.NewRequest(method, "http://"+address+uri, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if id != "" {
			req.Header.Set("id", id)
		}
		req.Header.Set("X-Mine", "1")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, "", nil, err
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		return res.StatusCode, string(b), res.Header, err
	}
	for deadline := time.Now().Add(2 * time.Minute); ; {
		if status, _, _, err := ask("PUT", "/stock/book1", "", "100"); err == nil && status == http.StatusNoContent {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not answer")
		}
	}
	if status, _, _, err := ask("PUT", "/stock/secret", "", "of others"); err != nil || status != http.StatusNoContent {
		t.Fatal(status, err)
	}
	for _, c := range []struct {
		name, method, uri, id, body string
		status                      int
		want                        string // in the body
	}{
		{"by its id", "GET", "/?name=book1", "id_1", "", 200, "There are 100 inventories for book1.\n"},
		{"by a body", "POST", "/anything", "id_1", "name=book1", 200, "There are 100 inventories for book1.\n"},
		{"the other one", "POST", "/", "id_2", "book1", 200, "100"},
		{"by a path", "GET", "/inventory?name=book1", "", "", 200, "There are 100 inventories for book1.\n"},
		{"what is not there", "GET", "/?name=book2", "id_1", "", 200, "There are  inventories for book2.\n"},
		{"an unknown id", "GET", "/?name=book1", "id_9", "", 404, ""},
		{"the beginning of an id", "GET", "/?name=book1", "id_", "", 404, ""},
		{"no parameter", "GET", "/?title=book1", "id_1", "", 500, ""},
		{"not granted", "POST", "/", "id_2", "secret", 403, ""},
		{"not granted to who was asked", "GET", "/?name=secret", "id_1", "", 403, ""},
	} {
		status, body, header, err := ask(c.method, c.uri, c.id, c.body)
		if err != nil || status != c.status || c.want != "" && body != c.want || status != 200 && body == "" {
			t.Errorf("%s: %d %q %v", c.name, status, body, err)
		}
		if header.Get("X-Mine") != "" {
			t.Errorf("%s: a request's header came back", c.name)
		}
	}
	if !strings.Contains(log.String(), "the parameter name is missing") {
		t.Error("the guest's own reason is not in the log")
	}
}
