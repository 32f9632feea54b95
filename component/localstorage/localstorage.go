// Package localstorage keeps files in a folder of this machine: as the file capability's store, and as Dapr's
// bindings.localstorage. Files have the names that they were given, below the folder, so that other programs find them;
// what else is kept of them is in the folder's .loam. Nothing outside the folder is reached, whatever a name or a symbolic
// link says. A file that is written is there whole once the call returned, and not at all if the process ends before.
package localstorage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/component"
)

// Factories are the component types of this package.
func Factories() []loam.Factory {
	store := component.New("file.localstorage", OpenStore)
	store.Aliases = []string{"file.local"}
	output := component.New("binding.localstorage", OpenBinding)
	output.Aliases = []string{"bindings.localstorage"}
	return []loam.Factory{store, output}
}

// Our own folder, which no file's name begins with.
const (
	own     = ".loam"
	temp    = own + "/temp"
	meta    = own + "/meta"
	uploads = own + "/uploads"
)

// A folder is where files are. Names are paths with slashes that were cleaned.
type folder struct {
	root     *os.Root
	fileMode fs.FileMode
	dirMode  fs.FileMode

	// Held for writing while a name changes hands, and for reading while a file and what is kept of it are opened. Nobody
	// waits for a stream under it.
	mu sync.RWMutex
}

func openFolder(op, dir string, fileMode, dirMode fs.FileMode) (*folder, error) {
	fail := func(err error) error {
		return &loam.Error{Code: loam.FailedPrecondition, Op: op, Err: err, Hint: "rootPath must name a folder that can be written, or made"}
	}
	if err := allowed(dir); err != nil {
		return nil, fail(err)
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fail(err)
	}
	if resolved, err := filepath.EvalSymlinks(dir); err != nil {
		return nil, fail(err)
	} else if err := allowed(resolved); err != nil {
		return nil, fail(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fail(err)
	}
	if err := root.MkdirAll(temp, 0o700); err != nil {
		return nil, errors.Join(fail(err), root.Close())
	}
	return &folder{root: root, fileMode: fileMode, dirMode: dirMode}, nil
}

// allowed refuses folders that are the system's, as Dapr does.
func allowed(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for _, no := range []string{"/proc", "/sys", "/boot", "/dev", "/var/run/secrets", "/run/secrets"} {
		if dir == no || strings.HasPrefix(dir, no+"/") {
			return fmt.Errorf("%s is the system's", dir)
		}
	}
	return nil
}

// sweep removes what a process that ended has left in a folder of ours, once it is older than age.
func (f *folder) sweep(dir string, age time.Duration) error {
	entries, err := f.list(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > age {
			if err := f.root.RemoveAll(path.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// list reads a directory in no order.
func (f *folder) list(dir string) ([]fs.DirEntry, error) {
	d, err := f.root.Open(dir)
	if err != nil {
		return nil, err
	}
	entries, err := d.ReadDir(-1)
	return entries, errors.Join(err, d.Close())
}

// stage writes what body holds to a file without a name yet, and to others beside it, and answers where it is.
func (f *folder) stage(body io.Reader, also ...io.Writer) (name string, err error) {
	name = temp + "/" + rand.Text()
	file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.fileMode)
	if err != nil {
		return "", err
	}
	var w io.Writer = file
	if len(also) > 0 {
		w = io.MultiWriter(append(also, file)...)
	}
	_, err = io.Copy(w, body)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return "", errors.Join(err, f.root.Remove(name))
	}
	return name, nil
}

// place gives a staged file its name; under mu. It answers the directories that are to be synced, when mu is free.
func (f *folder) place(staged, name string) (changed []string, err error) {
	dir := path.Dir(name)
	changed = append(changed, dir)
	for up := dir; up != "."; {
		if _, err := f.root.Lstat(up); err == nil {
			break
		}
		up = path.Dir(up)
		changed = append(changed, up) // which gets an entry
	}
	if dir != "." {
		if err := f.root.MkdirAll(dir, f.dirMode); err != nil {
			return nil, err
		}
	}
	return changed, f.root.Rename(staged, name)
}

// sync makes sure that entries of directories are on disk.
func (f *folder) sync(dirs ...string) error {
	if runtime.GOOS == "windows" { // where a directory cannot be synced, nor needs to
		return nil
	}
	for _, dir := range dirs {
		d, err := f.root.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed again since
		}
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// put stores a body under a name.
func (f *folder) put(name string, body io.Reader) error {
	staged, err := f.stage(body)
	if err != nil {
		return explain(err)
	}
	f.mu.Lock()
	changed, err := f.place(staged, name)
	f.mu.Unlock()
	if err != nil {
		return explain(errors.Join(err, f.root.Remove(staged)))
	}
	return explain(f.sync(changed...))
}

// remove forgets a file, and directories that are empty without it; under mu.
func (f *folder) remove(name string) error {
	if err := f.regular(name); err != nil {
		return err
	}
	if err := f.root.Remove(name); err != nil {
		return err
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if f.root.Remove(dir) != nil { // it is not empty
			break
		}
	}
	return nil
}

// open opens a regular file. Others are not opened at all: that can wait for ever.
func (f *folder) open(name string) (*os.File, error) {
	if err := f.regular(name); err != nil {
		return nil, err
	}
	return f.root.Open(name)
}

func (f *folder) regular(name string) error {
	info, err := f.root.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return err
}

// walk calls each for every regular file below dir in the byte order of their names, until it answers false. enter is
// asked before a directory is read, by its path with a slash at the end.
func (f *folder) walk(ctx context.Context, dir string, enter func(dir string) bool, each func(name string, e fs.DirEntry) bool) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	entries, err := f.list(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) { // removed since
			return true, nil
		}
		return false, err
	}
	sortEntries(entries)
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir() && name != own && enter(name+"/"):
			if more, err := f.walk(ctx, name, enter, each); !more || err != nil {
				return more, err
			}
		case e.Type().IsRegular():
			if !each(name, e) {
				return false, nil
			}
		}
	}
	return true, nil
}

func (f *folder) Close() error { return f.root.Close() }

// explain says what kind of failure it is of a file system.
func explain(err error) error {
	var known *loam.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := &loam.Error{Code: loam.Unavailable, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Code, e.Err = loam.NotFound, errors.New("there is no such file")
	case errors.Is(err, fs.ErrPermission):
		e.Code, e.Hint = loam.FailedPrecondition, "the user that runs loam needs the right to write to the folder and what is in it"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.Code, e.Hint = loam.ResourceExhausted, "free some disk space"
	case errors.Is(err, syscall.ENAMETOOLONG):
		e.Code, e.Err = loam.InvalidArgument, errors.New("a part of the name is longer than the file system takes")
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, fs.ErrExist):
		e.Code, e.Err = loam.FailedPrecondition, errors.New("a folder cannot hold both a file and files below its name")
	case strings.Contains(err.Error(), "escapes from parent"): // os.Root has no error of its own for it
		e.Code, e.Err = loam.PermissionDenied, errors.New("the name leads out of the folder")
	}
	return e
}
