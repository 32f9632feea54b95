package crypto

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/loam-run/loam"
	capability "github.com/loam-run/loam/capability/crypto"
)

// FolderConfig is the metadata of crypto.localstorage.
type FolderConfig struct {
	Path string `meta:"path" need:"yes"` // the folder; each file below it is a key, by its path
}

// OpenFolder opens crypto.localstorage. A file that changed is the new key at once.
func OpenFolder(_ context.Context, _ string, c FolderConfig) (capability.Driver, error) {
	root, err := os.OpenRoot(c.Path)
	if err != nil {
		return nil, &loam.Error{Code: loam.FailedPrecondition, Op: "crypto.localstorage", Err: err, Hint: "path must name a folder that can be read"}
	}
	return New(&folder{root: root, read: map[string]file{}}), nil
}

// maxCached is how many files' keys are kept: to read a large RSA key takes longer than to use it.
const maxCached = 256

// tick is how coarse the clocks of file systems may be: who reads a file so soon after it was written could miss that it is
// written again.
const tick = 100 * time.Millisecond

// folder reads below a root that neither .. nor symbolic links lead out of.
type folder struct {
	root *os.Root
	mu   sync.Mutex
	read map[string]file
}

// A file's key, for as long as the file is the same.
type file struct {
	size     int64
	modified time.Time
	read     time.Time
	key      *Key
}

func (f *folder) Key(_ context.Context, name string) (*Key, error) {
	info, err := f.root.Stat(name) // before it is opened, which would wait for a pipe's other end
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &loam.Error{Code: loam.NotFound, Err: errors.New("there is no such key"), Hint: "put it into " + f.root.Name()}
		}
		return nil, &loam.Error{Code: loam.NotFound, Err: err}
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeys {
		return nil, loam.Errorf(loam.NotFound, "", "it is no file of up to %d bytes", maxKeys)
	}
	f.mu.Lock()
	have, ok := f.read[name]
	f.mu.Unlock()
	if ok && have.size == info.Size() && have.modified.Equal(info.ModTime()) && have.read.Sub(have.modified) > tick {
		return have.key, nil
	}
	now := time.Now()
	data, err := f.root.ReadFile(name)
	if err != nil {
		return nil, &loam.Error{Code: loam.Unavailable, Err: err}
	}
	k, err := parseFile(name, data)
	if err != nil {
		return nil, &loam.Error{Code: loam.FailedPrecondition, Err: err, Hint: "a key is a file in PEM, DER or JWK, or a symmetric key in base64"}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.read) >= maxCached {
		clear(f.read)
	}
	f.read[name] = file{info.Size(), info.ModTime(), now, k}
	return k, nil
}

func (f *folder) Close() error { return f.root.Close() }
