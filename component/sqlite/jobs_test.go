package sqlite

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/loam-run/loam"

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

const killedJobs = "LOAM_TEST_JOBS_DB"

// TestJobsKilled is a process that schedules, begins to run, and is killed: what it was told is kept comes when the next
// one runs jobs, even what this one had begun.
func TestJobsKilled(t *testing.T) {
	caller := &loam.Caller{Name: "app", Grants: []loam.Grant{{Capability: "jobs", Component: "jobs"}}}
	open := func(path string) (*jobs.Jobs, jobs.Driver) {
		d, err := New().OpenJobs(t.Context(), "jobs", Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		return jobs.New("jobs", d), d
	}
	if path := os.Getenv(killedJobs); path != "" {
		j, _ := open(path)
		for name, due := range map[string]string{"begun": "0s", "waits": "1s", "done": "0s"} {
			if err := j.Schedule(t.Context(), caller, jobs.Job{Name: name, Due: due}, false); err != nil {
				t.Fatal(err)
			}
		}
		j.Run(t.Context(), "app", 2, func(ctx context.Context, job jobs.Job) error {
			if job.Name == "begun" {
				for { // until done is no more
					if _, err := j.Get(ctx, caller, "done"); loam.CodeOf(err) == loam.NotFound {
						break
					}
				}
				_, _ = os.Stdout.WriteString("kill me\n")
				<-ctx.Done()
			}
			return nil
		})
		return
	}
	path := filepath.Join(t.TempDir(), "loam.db")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, "-test.run=^TestJobsKilled$")
	c.Env = append(os.Environ(), killedJobs+"="+path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "kill me\n" {
		t.Errorf("%q, %v", line, err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // it was killed

	j, d := open(path)
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var came []string
	j.Run(ctx, "app", 1, func(_ context.Context, job jobs.Job) error {
		if came = append(came, job.Name); len(came) == 2 {
			cancel()
		}
		return nil
	})
	if slices.Sort(came); !slices.Equal(came, []string{"begun", "waits"}) {
		t.Errorf("%q came", came)
	}
	if left, err := j.List(t.Context(), caller, "", ""); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
}
