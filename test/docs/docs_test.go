package docs

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	root     = "../.."
	patience = 5 * time.Minute // for one command; a cold machine builds the standard library for Wasm meanwhile
)

// The test binary is its own curl: called by that name it is one.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "curl" {
		if err := curl(os.Args[1:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Every console block of README.md and docs/ does what it shows.
func TestDocuments(t *testing.T) {
	files, err := filepath.Glob(root + "/docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(bin, "loam"), "./cmd/loam")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build loam: %v\n%s", err, out)
	}
	linkCurl(t, bin)
	for _, name := range append([]string{root + "/README.md"}, files...) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(text, []byte("\n```console\n")) {
				return // nothing to run in it
			}
			dir := t.TempDir()
			copyTree(t, root, dir)
			play(t, string(text), dir, bin)
		})
	}
}

func linkCurl(t *testing.T, bin string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "curl")); err != nil {
		t.Fatal(err)
	}
}

// copyTree copies what is in the repository, and nothing that was built or is stored there.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch base := d.Name(); {
			case rel == ".":
				return nil
			case base == ".git", base == ".loam", rel == "bin", base == "build" && strings.HasPrefix(rel, "examples"):
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// freePort takes a port that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// A log is what a command printed so far.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// play does what a document tells its reader to do, in dir, with the programs of bin first in PATH.
func play(t *testing.T, text, dir, bin string) {
	t.Helper()
	if err := perform(t, text, dir, bin); err != nil {
		t.Error(err)
	}
}

func perform(t *testing.T, text, dir, bin string) error {
	port := freePort(t)
	own := func(s string) string { return strings.ReplaceAll(s, "8080", port) }
	if err := ownPort(dir, own); err != nil {
		return err
	}
	steps, err := parse(own(text))
	if err != nil {
		return err
	}
	env := append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"), "NO_COLOR=1", "LOAM_LISTEN=127.0.0.1:"+port, "LC_ALL=C", "MAKEFLAGS=", "MAKELEVEL=")

	var running []program
	defer func() {
		for _, p := range running {
			p.stop(t)
		}
	}()
	for _, s := range steps {
		if s.file != "" {
			name := filepath.Join(dir, filepath.FromSlash(s.file))
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(name, []byte(s.content), 0o644); err != nil {
				return err
			}
			continue
		}
		if to, ok := strings.CutPrefix(s.command, "cd "); ok {
			dir = filepath.Join(dir, filepath.FromSlash(to))
			if err := ownPort(dir, own); err != nil {
				return fmt.Errorf("line %d: %w", s.line, err)
			}
			continue
		}
		var out log
		cmd := exec.Command("/bin/sh", "-c", s.command)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &out, &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
		p := program{cmd, make(chan struct{}), new(error)}
		go func() {
			*p.err = cmd.Wait()
			close(p.ended)
		}()
		if s.background {
			running = append(running, p)
			if !p.eventually(func() bool { return matches(s.want, out.String(), true) }) {
				return fmt.Errorf("line %d: %s &: printed\n%s\nnot\n%s", s.line, s.command, out.String(), s.want)
			}
			continue
		}
		select {
		case <-p.ended:
		case <-time.After(patience):
			p.stop(t)
			return fmt.Errorf("line %d: %s: goes on after %v; it printed\n%s", s.line, s.command, patience, out.String())
		}
		status := ""
		if *p.err != nil {
			status = (*p.err).Error()
		}
		if status != s.fails {
			return fmt.Errorf("line %d: %s: %q, want %q; it printed\n%s", s.line, s.command, status, s.fails, out.String())
		}
		if !matches(s.want, out.String(), false) {
			return fmt.Errorf("line %d: %s: printed\n%s\nnot\n%s", s.line, s.command, out.String(), s.want)
		}
	}
	return nil
}

// ownPort rewrites the port in the YAML files of dir.
func ownPort(dir string, own func(string) string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) != ".yaml" {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if s := own(string(b)); s != string(b) {
			return os.WriteFile(name, []byte(s), 0o644)
		}
		return nil
	})
}

// A program is a command that was started.
type program struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed once err is there
	err   *error
}

// stop ends a command and all it started, as Ctrl-C would, and waits for it. How it ends is its own affair; that it
// ends is not.
func (p program) stop(t *testing.T) {
	t.Helper()
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM) // already gone is as good
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // reported below
		<-p.ended
		t.Errorf("%v: still there %v after SIGTERM", p.cmd.Args, patience)
	}
}

// eventually asks until the answer is yes, the program has ended, or patience has.
func (p program) eventually(yes func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !yes() {
		select {
		case <-tick.C:
		case <-p.ended:
			return yes()
		case <-end:
			return false
		}
	}
	return true
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		want, got string
		more, ok  bool
	}{
		{"a", "a\n", false, true},
		{"a", "b", false, false},
		{"a", "a\nb", false, false},
		{"a", "a\nb", true, true},
		{"", "", false, true},
		{"", "x", false, false},
		{"a ... c", "a big c", false, true},
		{"a ... c", "a\nc", false, false},
		{"...", "x\ny\n", false, true},
		{"...", "", false, true},
		{"a\n...\nz", "a\nz", false, true},
		{"a\n...\nz", "a\n1\n2\nz", false, true},
		{"a\n...\nz", "a\n1\n2\ny", false, false},
		{"...\nready", "x\nready\nmore", true, true},
		{"...\nready", "x\nnot ready", true, false},
		{"1.5", "1x5", false, false},
		{"KIND  NAME", "KIND      NAME", false, true},
		{"KIND  NAME", "KINDNAME", false, false},
	} {
		if ok := matches(c.want, c.got, c.more); ok != c.ok {
			t.Errorf("matches(%q, %q, %v) = %v", c.want, c.got, c.more, ok)
		}
	}
}

// The runner is worth something only if a document that lies fails.
func TestRunner(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, r.ContentLength)
		_, _ = r.Body.Read(b)
		got = r.Method + " " + r.Header.Get("X-Who") + " " + string(b)
		fmt.Fprintln(w, "hello")
	}))
	defer server.Close()

	for name, c := range map[string]struct{ text, want string }{
		"output as shown":        {"```console\n$ echo a; echo b\na\n...\n$ true\n```\n", ""},
		"other output":           {"x\n```console\n$ echo a\nb\n```\n", "line 3: echo a: printed"},
		"output not shown":       {"```console\n$ echo a\n$ true\n```\n", "line 2: echo a: printed"},
		"a failure":              {"```console\n$ false\n```\n", `"exit status 1", want ""`},
		"a failure as shown":     {"```console\n$ echo no; exit 3\nno\nexit status 3\n```\n", ""},
		"a success shown failed": {"```console\n$ true\nexit status 1\n```\n", `"", want "exit status 1"`},
		"output without command": {"```console\nwhat\n```\n", "output before any command"},
		"an open fence":          {"```console\n$ true\n", "never closed"},
		"other fences":           {"```sh\nfalse\n```\n", ""},
		"a file":                 {"```yaml sub/a.yaml\nport: 8080\n```\n```console\n$ cd sub\n$ cat a.yaml\nport: 8080\n```\n", ""},
		"going on":               {"```console\n$ echo a \\\n    b\na b\n```\n", ""},
		"background that ends":   {"```console\n$ echo down &\nup\n```\n", "echo down &: printed"},
		"background":             {"```console\n$ echo up; exec sleep 600 &\nup\n$ echo next\nnext\n```\n", ""},
		"curl":                   {"```console\n$ curl -sS -X PUT -H 'X-Who: me' -d '{}' " + server.URL + "\nhello\n```\n", ""},
		"curl, unknown":          {"```console\n$ curl --http3 " + server.URL + "\n...\n```\n", "does not know --http3"},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			linkCurl(t, bin)
			err := perform(t, c.text, t.TempDir(), bin)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	if got != "PUT me {}" {
		t.Errorf("curl sent %q", got)
	}
}
