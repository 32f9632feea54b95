package file_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam/provider/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func function(name string) string {
	return fmt.Sprintf("apiVersion: loam.dev/v1alpha1\nkind: Function\nmetadata: {name: %s}\nspec: {}\n", name)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// names loads and returns the names of the objects, then what is wrong with which file.
func names(ctx context.Context, p *file.Provider) string {
	objects, problems, err := p.Load(ctx)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, o := range objects {
		out = append(out, o.Name)
	}
	for _, p := range problems {
		out = append(out, "!"+filepath.Base(p.File)+" "+p.What)
	}
	return strings.Join(out, " ")
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"b.yaml": function("b"), "a.yml": function("a"), "sub/deep/c.yaml": function("c"), "notes.txt": "hello",
		"d.json":       `{"apiVersion": "loam.dev/v1alpha1", "kind": "Function", "metadata": {"name": "d"}, "spec": {}}`,
		"package.json": `{"name": "shop"}`, ".hidden/x.yaml": function("x"), ".x.yaml": function("x"), "build/x.yaml": function("x"),
		"sub/node_modules/x.yaml": function("x"), "broken.yaml": "kind: [a\n",
	} {
		write(t, filepath.Join(dir, name), content)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "sub", "loop")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("gone.yaml", filepath.Join(dir, "dangling.yaml")); err != nil {
		t.Fatal(err)
	}
	broken := "!broken.yaml is not YAML: a [ is not closed, or a comma is missing"
	for _, tt := range []struct {
		name  string
		paths []string
		want  string
	}{
		{"a folder", []string{dir}, "a b d c " + broken},
		{"a file", []string{filepath.Join(dir, "b.yaml")}, "b"},
		{"a file of its folder too", []string{filepath.Join(dir, "b.yaml"), dir}, "b a d c " + broken},
		{"a hidden folder by its name", []string{filepath.Join(dir, ".hidden")}, "x"},
		{"what is not there", []string{filepath.Join(dir, "gone"), filepath.Join(dir, "b.yaml")}, "b !gone is not there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := names(t.Context(), file.New(tt.paths)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := file.New([]string{dir}).Load(ctx); err == nil {
		t.Error("Load went on after its context ended")
	}
}

// TestUnreadable: a file that cannot be read is a problem of its own.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), function("a"))
	write(t, filepath.Join(dir, "big.yaml"), "# "+strings.Repeat("x", 5<<20))
	if err := os.Mkdir(filepath.Join(dir, "folder.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("self.yaml", filepath.Join(dir, "self.yaml")); err != nil {
		t.Fatal(err)
	}
	p := file.New([]string{dir, filepath.Join(dir, "self.yaml")})
	got := names(t.Context(), p)
	if !strings.HasPrefix(got, "a ") || !strings.Contains(got, "!big.yaml has more than") || !strings.Contains(got, "!self.yaml cannot be read") {
		t.Errorf("got %s", got)
	}
}

// A watched provider tells what it sees after each change.
type watched struct {
	t    *testing.T
	p    *file.Provider
	seen chan string
}

func watch(t *testing.T, paths ...string) *watched {
	w := &watched{t: t, p: file.New(paths), seen: make(chan string, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.p.Watch(ctx, func() { w.seen <- names(context.Background(), w.p) }); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

// started waits till the watch works, by changing path till that is seen.
func (w *watched) started(path string) {
	w.t.Helper()
	for i := range 500 {
		write(w.t, path, function(fmt.Sprint("warm-", i)))
		select {
		case <-w.seen:
			write(w.t, path, function("warm"))
			w.want("warm")
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	w.t.Fatal("the watch never began")
}

// want waits till a change brought the names that are wanted.
func (w *watched) want(names string) {
	w.t.Helper()
	late := time.After(10 * time.Second)
	last := "nothing"
	for last != names {
		select {
		case last = <-w.seen:
		case <-late:
			w.t.Fatalf("saw %s last, not %s", last, names)
		}
	}
}

func TestWatch(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Run("a file written in place", func(t *testing.T) {
		f := filepath.Join(t.TempDir(), "a.yaml")
		write(t, f, function("a"))
		w := watch(t, f)
		w.started(f)
		write(t, f, function("b"))
		w.want("b")
	})
	t.Run("a file without an extension", func(t *testing.T) {
		f := filepath.Join(t.TempDir(), "resources")
		write(t, f, function("a"))
		w := watch(t, f)
		w.started(f)
		write(t, f, function("b"))
		w.want("b")
	})
	t.Run("an editor that renames over it", func(t *testing.T) {
		f := filepath.Join(t.TempDir(), "a.yaml")
		write(t, f, function("a"))
		w := watch(t, f)
		w.started(f)
		for _, name := range []string{"b", "c", "d"} {
			must(t, os.Rename(f, f+"~"))
			write(t, f+".swp", function(name))
			must(t, os.Rename(f+".swp", f))
			w.want(name)
		}
	})
	t.Run("new files and folders, and their end", func(t *testing.T) {
		dir := t.TempDir()
		w := watch(t, dir)
		w.started(filepath.Join(dir, "a.yaml"))
		write(t, filepath.Join(dir, "sub", "deep", "b.yaml"), function("b"))
		w.want("warm b")
		write(t, filepath.Join(dir, "sub", "deep", "b.yaml"), function("c"))
		w.want("warm c")
		must(t, os.Rename(filepath.Join(dir, "sub"), filepath.Join(dir, "other")))
		write(t, filepath.Join(dir, "other", "deep", "b.yaml"), function("d"))
		w.want("warm d")
		must(t, os.RemoveAll(filepath.Join(dir, "other")))
		w.want("warm")
	})
	t.Run("the folder itself goes and comes again", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "conf", "d")
		w := watch(t, dir)
		w.started(filepath.Join(dir, "a.yaml"))
		must(t, os.RemoveAll(filepath.Dir(dir)))
		w.want("!d is not there")
		write(t, filepath.Join(dir, "b.yaml"), function("b"))
		w.want("b")
		write(t, filepath.Join(dir, "b.yaml"), function("c"))
		w.want("c")
	})
	t.Run("a ConfigMap's links are swapped", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "..1", "a.yaml"), function("warm"))
		must(t, os.Symlink("..1", filepath.Join(dir, "..data")))
		must(t, os.Symlink(filepath.Join("..data", "a.yaml"), filepath.Join(dir, "a.yaml")))
		w := watch(t, dir)
		w.started(filepath.Join(dir, "..1", "a.yaml"))
		for i, name := range []string{"b", "c"} {
			version := fmt.Sprint("..", i+2)
			write(t, filepath.Join(dir, version, "a.yaml"), function(name))
			must(t, os.Symlink(version, filepath.Join(dir, "..tmp")))
			must(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
			must(t, os.RemoveAll(filepath.Join(dir, fmt.Sprint("..", i+1))))
			w.want(name)
		}
	})
	t.Run("a given link is turned", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "v1", "a.yaml"), function("a"))
		write(t, filepath.Join(dir, "v2", "a.yaml"), function("b"))
		current := filepath.Join(dir, "current")
		must(t, os.Symlink("v1", current))
		w := watch(t, current)
		w.started(filepath.Join(dir, "v1", "a.yaml"))
		must(t, os.Remove(current))
		must(t, os.Symlink("v2", current))
		w.want("b")
	})
	t.Run("what means nothing is not told", func(t *testing.T) {
		dir := t.TempDir()
		w := watch(t, dir)
		w.started(filepath.Join(dir, "a.yaml"))
		for i := range 50 {
			write(t, filepath.Join(dir, "log.txt"), fmt.Sprint(i))
			must(t, os.Chtimes(filepath.Join(dir, "a.yaml"), time.Time{}, time.Unix(int64(i), 0)))
		}
		write(t, filepath.Join(dir, "b.yaml"), function("b"))
		select {
		case got := <-w.seen:
			if got != "warm b" {
				t.Errorf("told of %q", got)
			}
		case <-time.After(10 * time.Second):
			t.Error("did not tell what counts")
		}
	})
}
