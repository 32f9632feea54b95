package loam

import (
	"errors"
	"time"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// A JobStore is a component of the jobs capability: requests that come back to the function when they are due, kept until
// then.
type JobStore struct{ component string }

// Jobs is the component of that name, the default one for "".
func Jobs(component string) JobStore { return JobStore{component} }

// A Job comes to the handler that HandleJob registered for its name. It needs Schedule or Due.
type Job struct {
	Name        string
	Schedule    string // cron, with seconds first or without, or @every 1h30m, @daily…; "": once, at Due
	Due         string // first: RFC 3339, or 90s from now on; "": when Schedule says
	TTL         string // when it is over, written as Due; "": never
	Repeats     int    // how often in all; 0: as often as Schedule says
	Data        []byte // up to 256 KiB
	ContentType string // of Data; "": application/octet-stream

	DropFailed bool          // a run that fails is not tried again; else
	RetryAfter time.Duration // it is after that long, 0: a second,
	Retries    int           // so often, 0: 3; -1: until it succeeds
}

// Schedule keeps a job. AlreadyExists: there is one of that name.
func (j JobStore) Schedule(job Job) error { return j.schedule(job, false) }

// Replace keeps a job in place of the one of that name, if there is one.
func (j JobStore) Replace(job Job) error { return j.schedule(job, true) }

func (j JobStore) schedule(job Job, overwrite bool) error {
	return call("jobs.Schedule", &api.JobsScheduleRequest{Component: j.component, Overwrite: overwrite, Jobs: []api.Job{job.toAPI()}}, nil)
}

func (job Job) toAPI() api.Job {
	return api.Job{
		Name: job.Name, Schedule: job.Schedule, Due: job.Due, Ttl: job.TTL, Repeats: uint32(max(job.Repeats, 0)), Data: job.Data, ContentType: job.ContentType,
		DropFailed: job.DropFailed, RetryAfterMs: milliseconds(job.RetryAfter), Retries: int64(job.Retries),
	}
}

func jobOf(m api.Job) Job {
	return Job{
		Name: m.Name, Schedule: m.Schedule, Due: m.Due, TTL: m.Ttl, Repeats: int(m.Repeats), Data: m.Data, ContentType: m.ContentType,
		DropFailed: m.DropFailed, RetryAfter: time.Duration(m.RetryAfterMs) * time.Millisecond, Retries: int(m.Retries),
	}
}

// Get returns a job as it was scheduled. NotFound: there is none of that name, or it is done.
func (j JobStore) Get(name string) (Job, error) {
	var resp api.JobsGetResponse
	if err := call("jobs.Get", &api.JobsGetRequest{Component: j.component, Names: []string{name}}, &resp); err != nil {
		return Job{}, err
	}
	if len(resp.Jobs) == 0 {
		return Job{}, Errorf(NotFound, "job %q is not there", name)
	}
	return jobOf(resp.Jobs[0]), nil
}

// Delete forgets a job. NotFound: there is none of that name.
func (j JobStore) Delete(name string) error {
	return call("jobs.Delete", &api.JobsDeleteRequest{Component: j.component, Name: name}, nil)
}

// HandleJob registers h for the function's own jobs of a name, which may be a pattern: report, mail/{id}, {name...} for all
// that no other handler is for. With nil the run is done; with an error it is tried again as the job says, unless that wraps
// ErrDrop. A run may come more than once.
func HandleJob(name string, h func(r *Request, data []byte) error) {
	Handle("POST /job/"+name, func(r *Request) (*Response, error) {
		data, err := r.Body()
		if err != nil {
			return nil, err
		}
		switch err = h(r, data); {
		case err == nil:
			return NoContent(), nil
		case errors.Is(err, ErrDrop):
			return nil, Errorf(NotFound, "%w", err)
		case CodeOf(err) == NotFound: // something else was not there; 404 would drop the job
			return nil, Errorf(Internal, "%w", err)
		}
		return nil, err
	})
}
