// Package file provides resources from YAML and JSON files and folders of them, and tells when they change.
package file

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/loam-run/loam/resource"
)

// maxFile is one byte more than a file may have: enough to tell that it has too many.
const maxFile = 4<<20 + 1

// A Provider reads a fixed list of files and folders. Its methods may be called from many goroutines.
type Provider struct {
	paths []string

	// loaded is the digest of what the first Load was about to read: what changed between it and Watch is a change too.
	loaded [sha256.Size]byte
	once   sync.Once
}

// New makes a provider of paths: files, and folders that are searched for *.yaml, *.yml and *.json with their
// subfolders, in byte order. Left out are folders named build, node_modules, testdata or vendor, files and folders that
// begin with a dot or underscore, and JSON that holds no "apiVersion", which other tools leave in the same folders.
func New(paths []string) *Provider { return &Provider{paths: paths} }

// Load reads every file anew. What is wrong with a file, be it that it cannot be read, is a problem of that file; the
// error is ctx's.
func (p *Provider) Load(ctx context.Context) (objects []*resource.Object, problems []resource.Problem, err error) {
	p.once.Do(func() { p.loaded = p.print() })
	files, _, problems := p.find()
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		data, err := read(f.path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !f.given: // it went between the listing and now
		case err != nil:
			problems = append(problems, unreadable(f.path, err))
		case !f.given && filepath.Ext(f.path) == ".json" && !bytes.Contains(data, []byte(`"apiVersion"`)):
		default:
			o, ps := resource.Decode(f.path, data)
			objects, problems = append(objects, o...), append(problems, ps...)
		}
	}
	return objects, problems, ctx.Err()
}

// A found file is one to read.
type found struct {
	path  string
	given bool // by its name, not found in a folder
}

// find lists the files to read and every folder they were searched in.
func (p *Provider) find() (files []found, folders []string, problems []resource.Problem) {
	seen := map[string]bool{} // real paths: two ways to one file read it once, and a link to above ends
	var walk func(path string, given bool)
	walk = func(path string, given bool) {
		info, err := os.Stat(path)
		if err != nil {
			if given {
				problems = append(problems, unreadable(path, err))
			}
			return // a dangling link in a folder is as good as no file
		}
		real, err := filepath.EvalSymlinks(path)
		if real = cmp.Or(real, path); err == nil && seen[real] {
			return
		}
		seen[real] = true
		if !info.IsDir() {
			if given || info.Mode().IsRegular() {
				files = append(files, found{path, given})
			}
			return
		}
		folders = append(folders, path)
		entries, err := os.ReadDir(path)
		if err != nil {
			problems = append(problems, unreadable(path, err))
			return
		}
		for _, e := range entries {
			name := filepath.Join(path, e.Name())
			if hidden(e.Name()) {
				continue
			}
			if e.IsDir() || isResource(e.Name()) || e.Type()&fs.ModeSymlink != 0 && isDir(name) {
				walk(name, false)
			}
		}
	}
	for _, path := range p.paths {
		walk(filepath.Clean(path), true)
	}
	return files, folders, problems
}

func hidden(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") ||
		slices.Contains([]string{"build", "node_modules", "testdata", "vendor"}, name)
}

func isResource(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// read reads a file to the size that resource refuses.
func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a named pipe would wait for a writer
		return nil, fmt.Errorf("it is not a file but a %s", info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	return io.ReadAll(io.LimitReader(f, maxFile))
}

func unreadable(path string, err error) resource.Problem {
	p := resource.Problem{File: path, What: "cannot be read: " + err.Error(), Hint: "check it with ls -l"}
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		p.What = "cannot be read: " + e.Err.Error()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.What, p.Hint = "is not there", "check its name, or create it"
	case errors.Is(err, fs.ErrPermission):
		p.Hint = "let the user that runs loam read it: chmod a+r"
	}
	return p
}
