package memory

import (
	"context"

	"github.com/loam-run/loam/capability/jobs"
)

// OpenJobs opens a jobs component: they are kept as state is.
func (m *Memory) OpenJobs(context.Context, string, Config) (jobs.Driver, error) {
	return jobs.OverState(&State{m: m})
}
