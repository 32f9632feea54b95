package memory_test

import (
	"testing"

	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/jobs/jobstest"
	"github.com/loam-run/loam/component/memory"
)

func TestJobs(t *testing.T) {
	jobstest.Run(t, func(t *testing.T) jobs.Driver {
		d, err := memory.New().OpenJobs(t.Context(), "jobs", memory.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}
