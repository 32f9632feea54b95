// Package sqlite is the embedded default: every capability in one file, loam.db. All writes go through one writer that
// commits whatever waits as a group, so that one fsync serves many; reads run beside it on connections of their own.
// A write is answered once it is on disk (WAL, synchronous=FULL).
package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/component"
)

// Config is the metadata of every sqlite component.
type Config struct {
	Path      string        `meta:"path,loam.db"`      // the file; components that name the same one share it
	Retention time.Duration `meta:"retention,168h"`    // pub/sub: how long an event is kept, read or not
	Sweep     time.Duration `meta:"sweepInterval,30s"` // how often what has expired is removed
}

// Files are the database files a process has open, each once, however many components live in it.
type Files struct {
	mu   sync.Mutex
	open map[string]*db
	now  func() time.Time
}

// New returns a set with nothing open.
func New() *Files { return &Files{open: map[string]*db{}, now: time.Now} }

// Factories are the component types of this package, sharing the set's files.
func (f *Files) Factories() []loam.Factory {
	return []loam.Factory{
		component.New("state.sqlite", f.OpenState),
		component.New("pubsub.sqlite", f.OpenPubsub),
		component.New("lock.sqlite", f.OpenLock),
		component.New("config.sqlite", f.OpenConfig),
		component.New("sequence.sqlite", f.OpenSequence),
		component.New("jobs.sqlite", f.OpenJobs),
	}
}

// space is one component's share of a file.
type space struct {
	*db
	id int64
}

// open gives a component its share of the file, opening the file where it is the first.
func (f *Files) openSpace(ctx context.Context, capability, name string, c Config) (space, error) {
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return space{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.open[path]
	if d == nil {
		if d, err = openDB(path, c, f.now); err != nil {
			return space{}, err
		}
		f.open[path] = d
	}
	d.users++
	id, err := d.spaceID(ctx, capability+"/"+name)
	if err != nil {
		return space{}, errors.Join(err, f.close(d))
	}
	return space{d, id}, nil
}

// release closes the file when its last component lets go.
func (f *Files) release(s space) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.close(s.db)
}

func (f *Files) close(d *db) error {
	if d.users--; d.users > 0 {
		return nil
	}
	delete(f.open, d.path)
	return d.close()
}
