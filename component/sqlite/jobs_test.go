package sqlite

import (
	"path/filepath"
	"testing"

	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/jobs/jobstest"
)

func TestJobs(t *testing.T) {
	jobstest.Run(t, func(t *testing.T) jobs.Driver {
		d, err := New().OpenJobs(t.Context(), "jobs", Config{Path: filepath.Join(t.TempDir(), "loam.db")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		return d
	})
}
