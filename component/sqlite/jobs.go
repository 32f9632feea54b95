package sqlite

import (
	"context"
	"errors"

	"github.com/loam-run/loam/capability/jobs"
)

// OpenJobs opens a jobs component: they are kept as state is, in a space of their own.
func (f *Files) OpenJobs(ctx context.Context, name string, c Config) (jobs.Driver, error) {
	s, err := f.openSpace(ctx, "jobs", name, c)
	if err != nil {
		return nil, err
	}
	state := &State{s, f}
	d, err := jobs.OverState(state)
	if err != nil {
		return nil, errors.Join(err, state.Close())
	}
	return d, nil
}
