package server

import (
	"context"
	"sync"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/jobs"
)

// lazyJobs is the jobs of a sidecar whose app has none yet: a driver that is opened with the first one, since most apps
// never have any, and a store costs memory. It is used where there is no store on the disk; where there is one, there may be
// jobs that are due.
type lazyJobs struct {
	open func(ctx context.Context) (jobs.Driver, error)

	mu      sync.Mutex
	driver  jobs.Driver   // nil: not open
	changed chan struct{} // closed when it is opened
}

func newLazyJobs(open func(ctx context.Context) (jobs.Driver, error)) *lazyJobs {
	return &lazyJobs{open: open, changed: make(chan struct{})}
}

// present is the driver, where it is open.
func (l *lazyJobs) present() jobs.Driver {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.driver
}

// Put keeps a record, the first one in a store that is opened for it.
func (l *lazyJobs) Put(ctx context.Context, r jobs.Record, overwrite bool) error {
	l.mu.Lock()
	if l.driver == nil {
		d, err := l.open(ctx)
		if err != nil {
			l.mu.Unlock()
			return err
		}
		l.driver = d
		defer close(l.changed)
	}
	d := l.driver
	l.mu.Unlock()
	return d.Put(ctx, r, overwrite)
}

// Get returns a record.
func (l *lazyJobs) Get(ctx context.Context, owner, name string) (jobs.Record, error) {
	if d := l.present(); d != nil {
		return d.Get(ctx, owner, name)
	}
	return jobs.Record{}, loam.Errorf(loam.NotFound, "", "there are no jobs")
}

// List returns records.
func (l *lazyJobs) List(ctx context.Context, owner, prefix, after string, limit int) ([]jobs.Record, error) {
	if d := l.present(); d != nil {
		return d.List(ctx, owner, prefix, after, limit)
	}
	return nil, nil
}

// Due returns records in the order of Next.
func (l *lazyJobs) Due(ctx context.Context, owner string, limit int) ([]jobs.Record, error) {
	if d := l.present(); d != nil {
		return d.Due(ctx, owner, limit)
	}
	return nil, nil
}

// Replace changes a record.
func (l *lazyJobs) Replace(ctx context.Context, old jobs.Record, next *jobs.Record) error {
	if d := l.present(); d != nil {
		return d.Replace(ctx, old, next)
	}
	return loam.Errorf(loam.Aborted, "", "there are no jobs")
}

// Changed is closed with the next change.
func (l *lazyJobs) Changed() <-chan struct{} {
	if d := l.present(); d != nil {
		return d.Changed()
	}
	return l.changed
}

// Close closes what was opened.
func (l *lazyJobs) Close() error {
	if d := l.present(); d != nil {
		return d.Close()
	}
	return nil
}
