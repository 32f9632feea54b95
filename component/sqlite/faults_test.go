package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/state"
)

// opened is a state component whose file is at path; the caller closes it.
func opened(t *testing.T, path string) *State {
	t.Helper()
	s, err := New().OpenState(t.Context(), "s", Config{Path: path, Retention: time.Hour, Sweep: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closed(t *testing.T, s *State) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func value(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%08d", i), 500) }

// fill writes items from the number first until one is refused, and returns the number of that one and why.
func fill(t *testing.T, s *State, first int) (int, error) {
	t.Helper()
	for i := first; i < first+20_000; i++ {
		if _, err := s.Apply(t.Context(), []state.Op{{Key: fmt.Sprint(i), Value: value(i)}}); err != nil {
			return i, err
		}
	}
	t.Fatal("it never fills up")
	return 0, nil
}

// holds checks that the items below n are there, whole.
func holds(t *testing.T, s *State, n int) {
	t.Helper()
	for i := range n {
		items, err := s.Get(t.Context(), []string{fmt.Sprint(i)})
		if err != nil || !bytes.Equal(items[0].Value, value(i)) {
			t.Fatalf("item %d of %d, which was acknowledged: %d bytes, %v", i, n, len(items[0].Value), err)
		}
	}
}

func acts(t *testing.T, what string, err error, code loam.Code) {
	t.Helper()
	if loam.CodeOf(err) != code || loam.HintOf(err) == "" {
		t.Errorf("%s: %v (hint %q), want %v and what to do", what, err, loam.HintOf(err), code)
	}
}

// A file that may not grow refuses writes, keeps what it acknowledged, goes on reading, and writes again once it may.
func TestFull(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "loam.db"))
	defer closed(t, s)
	grow := func(pages int) {
		if err := s.write(t.Context(), func(d *db) error { return d.conn.script(fmt.Sprintf("PRAGMA max_page_count = %d", pages)) }); err != nil {
			t.Fatal(err)
		}
	}
	grow(200)
	n, err := fill(t, s, 0)
	acts(t, "write to a full file", err, loam.ResourceExhausted)
	holds(t, s, n)
	// A write that needs no room goes on beside those that do, in one group too.
	if _, err := s.Apply(t.Context(), []state.Op{{Key: "0", Delete: true}}); err != nil {
		t.Errorf("delete from a full file: %v", err)
	}
	if _, err := s.Apply(t.Context(), []state.Op{{Key: "0", Value: value(0)}}); err != nil {
		t.Errorf("write into the room that was made: %v", err)
	}
	grow(1000)
	more, err := fill(t, s, n)
	acts(t, "write to a full file", err, loam.ResourceExhausted)
	if more <= n {
		t.Error("nothing more went in once there was room")
	}
	holds(t, s, more)
}

// The same on a disk that is really full, where this user may mount one.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	resize, unmount, err := mountSmall(dir)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		t.Logf("no disk of its own for this user (%v): TestFull stands for it", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unmount(); err != nil {
			t.Error(err)
		}
	}()
	s := opened(t, filepath.Join(dir, "loam.db"))
	n, err := fill(t, s, 0)
	acts(t, "write to a full disk", err, loam.ResourceExhausted)
	holds(t, s, n)
	if err := resize("16m"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), []state.Op{{Key: fmt.Sprint(n), Value: value(n)}}); err != nil {
		t.Errorf("write once there is room: %v", err)
	}
	closed(t, s)

	// A start needs no room to read, and writes go on by themselves once there is some.
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 16<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	s = opened(t, filepath.Join(dir, "loam.db"))
	defer closed(t, s)
	holds(t, s, n+1)
	op := []state.Op{{Key: "new", Value: value(0)}}
	_, err = s.Apply(t.Context(), op)
	acts(t, "write to a disk that was full from the start", err, loam.ResourceExhausted)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), op); err != nil {
		t.Errorf("write once there is room: %v", err)
	}
	holds(t, s, n+1)
}

// A file that cannot be written is read, and says what to do about writes.
func TestReadOnly(t *testing.T) {
	if os.Getuid() == 0 { // nothing is read-only to root
		runAsNobody(t)
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "loam.db")
	s := opened(t, path)
	for i := range 10 {
		if _, err := s.Apply(t.Context(), []state.Op{{Key: fmt.Sprint(i), Value: value(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, s)
	for _, c := range []struct {
		what      string
		file, dir os.FileMode
	}{{"file", 0o400, 0o700}, {"folder", 0o400, 0o500}} {
		for p, mode := range map[string]os.FileMode{path: c.file, dir: c.dir} {
			if err := os.Chmod(p, mode); err != nil {
				t.Fatal(err)
			}
		}
		s := opened(t, path)
		holds(t, s, 10)
		_, err := s.Apply(t.Context(), []state.Op{{Key: "x"}})
		acts(t, "write to a read-only "+c.what, err, loam.FailedPrecondition)
		closed(t, s)
		for p, mode := range map[string]os.FileMode{path: 0o600, dir: 0o700} {
			if err := os.Chmod(p, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	s = opened(t, path)
	defer closed(t, s)
	if _, err := s.Apply(t.Context(), []state.Op{{Key: "10", Value: value(10)}}); err != nil {
		t.Errorf("write once it may: %v", err)
	}
	holds(t, s, 11)
}

// runAsNobody runs this test once more as a user with no rights of root's.
func runAsNobody(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "loam-readonly-") //nolint:usetesting // a folder that nobody can get into: t.TempDir's is root's alone
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(filepath.Join(dir, "test"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close(), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "test"), "-test.run=^TestReadOnly$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = asNobody()
	said, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(said, []byte("--- PASS: TestReadOnly")) {
		t.Errorf("as nobody: %v\n%s", err, said)
	}
}

// A damaged file is read where that goes and not made worse; what is no database says so.
func TestCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loam.db")
	s := opened(t, path)
	const n = 500
	for i := range n {
		if _, err := s.Apply(t.Context(), []state.Op{{Key: fmt.Sprintf("%04d", i), Value: value(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(whole)
	middle := len(damaged) / 2 / 4096 * 4096
	for i := middle; i < middle+16*4096; i++ {
		damaged[i] = 0xa5
	}
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	s = opened(t, path)
	read, lost := 0, 0
	for i := range n {
		items, err := s.Get(t.Context(), []string{fmt.Sprintf("%04d", i)})
		switch {
		case err != nil:
			acts(t, "read from a damaged page", err, loam.DataLoss)
			lost++
		case bytes.Equal(items[0].Value, value(i)):
			read++
		}
	}
	if read < n/4 || read == n {
		t.Errorf("%d of %d items could be read, %d reads failed", read, n, lost)
	}
	_, err = s.Apply(context.Background(), []state.Op{{Key: "x"}})
	acts(t, "write to a damaged file", err, loam.DataLoss)
	closed(t, s)

	if err := os.WriteFile(path, []byte("this is no database, and never was one; it is a letter to nobody in particular"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = New().OpenState(t.Context(), "s", Config{Path: path, Sweep: time.Hour})
	acts(t, "open what is no database", err, loam.DataLoss)

	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s = opened(t, path) // as an operator restores it
	defer closed(t, s)
	if items, err := s.Get(t.Context(), []string{"0499"}); err != nil || !bytes.Equal(items[0].Value, value(499)) {
		t.Errorf("after it was restored: %v", err)
	}
}

// A folder that cannot be written and holds no file: nothing to read, and a clear word about it.
func TestNowhere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New().OpenState(t.Context(), "s", Config{Path: filepath.Join(dir, "file", "loam.db"), Sweep: time.Hour})
	if err == nil || loam.CodeOf(err) == loam.Unknown {
		t.Errorf("open below what is no folder: %v", err)
	}
}

// What is stored is the owner's to read, and nobody else's.
func TestFileModes(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, filepath.Join(dir, "loam.db"))
	defer closed(t, s)
	if _, err := s.Apply(t.Context(), []state.Op{{Key: "secret"}}); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v (%v)", f.Name(), info.Mode(), err)
		}
	}
}
