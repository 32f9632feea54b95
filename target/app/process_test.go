package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
)

// The test binary is its own app: with LOAM_TEST_APP set it plays the part named there.
func TestMain(m *testing.M) {
	switch os.Getenv("LOAM_TEST_APP") {
	case "":
		goleak.VerifyTestMain(m)
	case "serve":
		serve()
	case "child": // a program whose child holds the port
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "LOAM_TEST_APP=stubborn")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			os.Exit(1)
		}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		serve()
	case "deaf": // never listens
		<-time.After(time.Hour) // with nothing to wait for, Go's runtime would end it
	case "supervisor": // plays Loam, until it is killed
		p, err := Start(engine, Command{Name: "orphan", Args: os.Args[:1], Env: map[string]string{"LOAM_TEST_APP": "serve"}}, slog.New(slog.DiscardHandler))
		if err != nil {
			panic(err)
		}
		fmt.Println(p.Address())
		select {}
	}
}

func serve() {
	healthy := make(chan struct{})
	var once sync.Once
	mux := http.NewServeMux()
	mux.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getenv(r.URL.RawQuery)) })
	mux.HandleFunc("/dir", func(w http.ResponseWriter, _ *http.Request) { d, _ := os.Getwd(); fmt.Fprint(w, d) })
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-healthy:
		default:
			w.WriteHeader(503)
		}
	})
	mux.HandleFunc("/recover", func(http.ResponseWriter, *http.Request) { once.Do(func() { close(healthy) }) })
	fmt.Print("out 1\nerr ", strings.Repeat("x", 3*maxLine), "\nunfinished")
	if err := http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), mux); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	}
}

var silent = slog.New(slog.DiscardHandler)

var engine = loop.New(loop.Options{Goroutines: true})

func start(t *testing.T, part string, c Command, log *slog.Logger) *Process {
	t.Helper()
	c.Name, c.Args = "mailer", os.Args[:1]
	if c.Env == nil {
		c.Env = map[string]string{}
	}
	c.Env["LOAM_TEST_APP"] = part
	p, err := Start(engine, c, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func ask(t *testing.T, target loam.Target, path string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req := loam.NewRequest(ctx)
	defer req.Release()
	req.Method, req.Scheme, req.Authority = "GET", "http", "mailer"
	req.Path, req.RawQuery, _ = strings.Cut(path, "?")
	res, err := target.Serve(req)
	if err != nil {
		return "", err
	}
	defer res.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline.C:
			t.Fatal("never: " + what)
		case <-tick.C:
		}
	}
}

func listens(address string) bool {
	conn, err := net.Dial("tcp", address)
	return err == nil && conn.Close() == nil
}

func TestAppAtAnAddress(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host+r.URL.Path) }))
	a := New(Config{Engine: engine, Address: s.Listener.Addr().String()})
	if got, err := ask(t, a, "/x"); err != nil || got != "mailer/x" {
		t.Error(got, err)
	}
	s.Close()
	if _, err := ask(t, a, "/x"); loam.CodeOf(err) != loam.Unavailable || loam.HintOf(err) == "" {
		t.Errorf("%v, hint %q", err, loam.HintOf(err))
	}
	if err := a.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// The first request is sent before the program listens, and waits for it.
func TestProcess(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "serve", Command{Dir: dir, Env: map[string]string{"GREETING": "hi", "PORT": "1"}}, silent)
	_, port, _ := net.SplitHostPort(p.Address())
	for path, want := range map[string]string{"/env?PORT": port, "/env?LOAM_APP": "mailer", "/env?GREETING": "hi", "/dir": dir} {
		if got, err := ask(t, p, path); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", path, got, err, want)
		}
	}
	if got := p.State(); got != "ready" {
		t.Error(got)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := p.State(); got != "stopped" || listens(p.Address()) {
		t.Errorf("%s, or somebody still listens", got)
	}
	if _, err := ask(t, p, "/pid"); loam.CodeOf(err) != loam.Unavailable {
		t.Error(err)
	}
}

func TestProcessIsStartedAgain(t *testing.T) {
	p := start(t, "serve", Command{}, silent)
	before, err := ask(t, p, "/pid")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, p, "/exit"); loam.CodeOf(err) != loam.Unavailable {
		t.Error(err)
	}
	var after string
	eventually(t, "another process answers", func() bool {
		after, err = ask(t, p, "/pid")
		return err == nil && after != before
	})
	if got := p.State(); got != "ready, restarted 1 times" {
		t.Error(got)
	}
}

func TestRequestsWaitNoLongerThanTheirDeadline(t *testing.T) {
	p := start(t, "deaf", Command{}, silent)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	req := loam.NewRequest(ctx)
	defer req.Release()
	if _, err := p.Serve(req); loam.CodeOf(err) != loam.Unavailable || !strings.Contains(err.Error(), "it is starting") {
		t.Error(err)
	}
}

func TestReadyWhenItSaysSo(t *testing.T) {
	p := start(t, "serve", Command{Ready: "/health"}, silent)
	eventually(t, "it listens", func() bool { return listens(p.Address()) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	req := loam.NewRequest(ctx)
	defer req.Release()
	if _, err := p.Serve(req); loam.CodeOf(err) != loam.Unavailable {
		t.Errorf("it answers 503 yet, so requests wait: %v", err)
	}
	if _, err := ask(t, New(Config{Engine: engine, Address: p.Address()}), "/recover"); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, p, "/pid"); err != nil {
		t.Error(err)
	}
}

// What the program started goes with it, be it deaf to SIGTERM, and Close's context shortens the grace.
func TestCloseEndsTheWholeGroup(t *testing.T) {
	p := start(t, "child", Command{Grace: time.Hour}, silent)
	if _, err := ask(t, p, "/pid"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
	eventually(t, "the child is gone", func() bool { return !listens(p.Address()) })

	p = start(t, "stubborn", Command{Grace: 10 * time.Millisecond}, silent)
	if _, err := ask(t, p, "/pid"); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil || listens(p.Address()) {
		t.Errorf("%v, or it outlived its grace", err)
	}
}

// A program that dies and leaves a child behind could never listen again.
func TestWhatACrashLeavesBehindIsEnded(t *testing.T) {
	p := start(t, "child", Command{}, silent)
	child, err := ask(t, p, "/pid")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(child)
	if err != nil {
		t.Fatal(err)
	}
	group, err := syscall.Getpgid(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(group, syscall.SIGKILL); err != nil { // the program only, not its group
		t.Fatal(err)
	}
	eventually(t, "another child answers", func() bool {
		again, err := ask(t, p, "/pid")
		return err == nil && again != child
	})
}

func TestMissingProgram(t *testing.T) {
	_, err := Start(engine, Command{Name: "x", Dir: t.TempDir(), Args: []string{"./missing"}}, silent)
	if loam.CodeOf(err) != loam.NotFound || !strings.Contains(loam.HintOf(err), "loam build") {
		t.Errorf("%v, hint %q", err, loam.HintOf(err))
	}
	dir := t.TempDir()
	if err := os.Symlink(os.Args[0], filepath.Join(dir, "here")); err != nil {
		t.Fatal(err)
	}
	p, err := Start(engine, Command{Name: "x", Dir: dir, Args: []string{"./here"}, Env: map[string]string{"LOAM_TEST_APP": "serve"}}, silent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, p, "/pid"); err != nil {
		t.Error(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOutputIsLogged(t *testing.T) {
	var mu sync.Mutex
	var b bytes.Buffer
	p := start(t, "serve", Command{}, slog.New(slog.NewTextHandler(locked{&mu, &b}, nil)))
	if _, err := ask(t, p, "/pid"); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"msg=\"out 1\" app=mailer", "msg=\"err xxx", "msg=unfinished app=mailer"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%.300s misses %s", b.String(), want)
		}
	}
	if b.Len() > 2*maxLine {
		t.Errorf("%d bytes: a long line was not cut", b.Len())
	}
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// FuzzLines: however a program's output is cut into writes, its lines are the same.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\r\n\nlast"), 2)
	f.Add(bytes.Repeat([]byte("x"), maxLine+5), 7)
	f.Fuzz(func(t *testing.T, output []byte, size int) {
		lines := func(size int) (lines []string) {
			l := &lineLog{log: slog.New(collect{&lines})}
			for rest := output; len(rest) > 0; {
				n := min(size, len(rest))
				if _, err := l.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			l.flush()
			return lines
		}
		whole, parts := lines(len(output)+1), lines(max(1, size))
		if strings.Join(whole, "\n") != strings.Join(parts, "\n") {
			t.Fatalf("%q and %q", whole, parts)
		}
		for _, line := range whole {
			if line == "" || len(line) > maxLine || strings.Contains(line, "\n") {
				t.Fatalf("%q", line)
			}
		}
	})
}

type collect struct{ lines *[]string }

func (c collect) Enabled(context.Context, slog.Level) bool { return true }
func (c collect) Handle(_ context.Context, r slog.Record) error {
	*c.lines = append(*c.lines, r.Message)
	return nil
}
func (c collect) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c collect) WithGroup(string) slog.Handler      { return c }
