package dapr

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/jobs"
)

// jobInfo is in every error of jobs.
func (a *API) jobInfo() map[string]string {
	return map[string]string{"appID": a.opts.App.ID, "namespace": a.settings.Namespace}
}

func (a *API) jobFailure(k kind, err error, what string) error {
	f := k.caused(err, "failed to %s due to: %s", what, words(err))
	f.info = a.jobInfo()
	if k.tag == errJobSchedule.tag {
		switch loam.CodeOf(err) {
		case loam.AlreadyExists:
			f.code, f.status = loam.AlreadyExists, http.StatusConflict
		case loam.Unavailable:
			f.status = http.StatusServiceUnavailable
		}
	}
	return f
}

func (a *API) jobInvalid(k kind, what string) error {
	f := k.failure("%s is empty", what)
	f.info = a.jobInfo()
	return f
}

// jobStore is the component that keeps the program's jobs.
func (a *API) jobStore() (*jobs.Jobs, error) { return a.opts.Capabilities.Jobs("") }

func (a *API) schedule(req *loam.Request, job jobs.Job, overwrite bool) error {
	if job.Name == "" {
		return a.jobInvalid(errJobNoName, "Name")
	}
	if job.Schedule == "" && job.Due == "" {
		return a.jobInvalid(errJobNoTime, "Schedule")
	}
	j, err := a.jobStore()
	if err == nil {
		await(req, func() { err = j.Schedule(req.Context(), a.opts.App.Caller, job, overwrite) })
	}
	if err != nil {
		return a.jobFailure(errJobSchedule, err, "schedule job")
	}
	return nil
}

func (a *API) job(req *loam.Request, name string) (jobs.Job, error) {
	if name == "" {
		return jobs.Job{}, a.jobInvalid(errJobNoName, "Name")
	}
	j, err := a.jobStore()
	var job jobs.Job
	if err == nil {
		await(req, func() { job, err = j.Get(req.Context(), a.opts.App.Caller, name) })
	}
	if err != nil {
		return job, a.jobFailure(errJobGet, err, "get job")
	}
	return job, nil
}

// forgetJob deletes a job. One that is not there is no error, as it is none for Dapr's scheduler.
func (a *API) forgetJob(req *loam.Request, name string) error {
	if name == "" {
		return a.jobInvalid(errJobNoName, "Name")
	}
	j, err := a.jobStore()
	if err == nil {
		await(req, func() { err = j.Delete(req.Context(), a.opts.App.Caller, name) })
	}
	if err != nil && loam.CodeOf(err) != loam.NotFound {
		return a.jobFailure(errJobDelete, err, "delete job")
	}
	return nil
}

func (a *API) forgetJobs(req *loam.Request, prefix string) error {
	j, err := a.jobStore()
	if err == nil {
		await(req, func() { err = j.DeletePrefix(req.Context(), a.opts.App.Caller, prefix) })
	}
	if err != nil {
		return a.jobFailure(errJobDelete, err, "delete job")
	}
	return nil
}

// listJobs reads all of the program's jobs, page by page.
func (a *API) listJobs(req *loam.Request) ([]jobs.Job, error) {
	j, err := a.jobStore()
	var all []jobs.Job
	for err == nil {
		var page []jobs.Job
		after := ""
		if len(all) > 0 {
			after = all[len(all)-1].Name
		}
		await(req, func() { page, err = j.List(req.Context(), a.opts.App.Caller, "", after) })
		if all = append(all, page...); len(page) < jobs.MaxPage {
			break
		}
		if len(all) >= maxJobs {
			err = loam.Errorf(loam.ResourceExhausted, "jobs.List", "there are more than %d jobs", maxJobs)
		}
	}
	if err != nil {
		return nil, a.jobFailure(errJobList, err, "list jobs")
	}
	return all, nil
}

const maxJobs = 100 * jobs.MaxPage

// jsonJob is a job as HTTP has it: its data is JSON.
type jsonJob struct {
	Name     string          `json:"name,omitempty"`
	Schedule string          `json:"schedule,omitempty"`
	Repeats  *uint32         `json:"repeats,omitempty"`
	DueTime  string          `json:"dueTime,omitempty"`
	TTL      string          `json:"ttl,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`

	FailurePolicy *jsonFailurePolicy `json:"failurePolicy,omitempty"`
}

type jsonFailurePolicy struct {
	Drop     *struct{} `json:"drop,omitempty"`
	Constant *struct {
		Interval   string  `json:"interval,omitempty"` // protobuf's JSON: 10s
		MaxRetries *uint32 `json:"maxRetries,omitempty"`
	} `json:"constant,omitempty"`
}

func (c *call) scheduleJob() error {
	var in struct {
		jsonJob
		Due2      string `json:"due_time"`
		Overwrite bool   `json:"overwrite"`
	}
	if err := c.decodeProto(&in); err != nil {
		return err
	}
	if in.Name != "" {
		f := errJobName.failure("Set the job name in the url only")
		f.info = map[string]string{"appID": c.api.opts.App.ID}
		return f
	}
	job := jobs.Job{Name: strings.TrimSpace(c.params[0]), Schedule: in.Schedule, Due: in.DueTime, TTL: in.TTL, Repeats: in.Repeats}
	if job.Due == "" {
		job.Due = in.Due2
	}
	var err error
	if len(in.Data) > 0 {
		job.Type = valueType
		if job.Data, err = valueOf(in.Data); err != nil {
			return errMalformed.failure("failed deserializing HTTP body: %v", err)
		}
	}
	if job.Failure, err = in.FailurePolicy.policy(); err != nil {
		return err
	}
	if err := c.api.schedule(c.Request, job, in.Overwrite); err != nil {
		return err
	}
	c.empty()
	return nil
}

func (p *jsonFailurePolicy) policy() (*jobs.FailurePolicy, error) {
	switch {
	case p == nil:
		return nil, nil
	case p.Drop != nil:
		return &jobs.FailurePolicy{Drop: true}, nil
	case p.Constant == nil:
		return nil, nil
	}
	f := &jobs.FailurePolicy{MaxRetries: p.Constant.MaxRetries}
	if p.Constant.Interval != "" {
		d, err := parseDuration(p.Constant.Interval)
		if err != nil {
			return nil, errMalformed.failure("failed deserializing HTTP body: %v", err)
		}
		f.Interval = d
	}
	return f, nil
}

func (c *call) getJob() error {
	job, err := c.api.job(c.Request, c.params[0])
	if err != nil {
		return err
	}
	out := jsonJob{Name: job.Name, Schedule: job.Schedule, Repeats: job.Repeats, DueTime: job.Due, TTL: job.TTL, Data: anyJSON(job.Type, job.Data)}
	if f := job.Failure; f != nil {
		out.FailurePolicy = &jsonFailurePolicy{}
		if f.Drop {
			out.FailurePolicy.Drop = &struct{}{}
		} else {
			out.FailurePolicy.Constant = &struct {
				Interval   string  `json:"interval,omitempty"`
				MaxRetries *uint32 `json:"maxRetries,omitempty"`
			}{MaxRetries: f.MaxRetries}
			if f.Interval > 0 {
				out.FailurePolicy.Constant.Interval = formatDuration(f.Interval)
			}
		}
	}
	return c.encode(out)
}

func (c *call) deleteJob() error {
	if err := c.api.forgetJob(c.Request, c.params[0]); err != nil {
		return err
	}
	c.empty()
	return nil
}
