package jobs

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// Bounds of the Methods. What is due is read several jobs at a time, so that a program that is not trusted has smaller ones.
const (
	MaxMessage = 256 << 10 // bytes of a job's data
	maxAtOnce  = 32        // jobs of one call
)

// Methods are the capability's calls; find returns the component of a name.
func Methods(find func(component string) (*Jobs, error)) loam.Methods {
	return loam.Methods{
		"jobs.Schedule": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.JobsScheduleRequest
			j, err := api.Parse(&req, in, func() (*Jobs, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			if len(req.Jobs) == 0 || len(req.Jobs) > maxAtOnce {
				return nil, loam.Errorf(loam.InvalidArgument, "jobs.Schedule", "%d jobs: 1 to %d at once", len(req.Jobs), maxAtOnce)
			}
			for i := range req.Jobs {
				job, err := fromAPI(&req.Jobs[i])
				if err != nil {
					return nil, &loam.Error{Code: loam.InvalidArgument, Op: "jobs.Schedule " + strconv.Quote(req.Jobs[i].Name), Err: err}
				}
				if err := j.Schedule(ctx, caller, job, req.Overwrite); err != nil {
					return nil, err
				}
			}
			return nil, nil
		},
		"jobs.Get": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.JobsGetRequest
			j, err := api.Parse(&req, in, func() (*Jobs, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			if len(req.Names) == 0 || len(req.Names) > maxAtOnce {
				return nil, loam.Errorf(loam.InvalidArgument, "jobs.Get", "%d names: 1 to %d at once", len(req.Names), maxAtOnce)
			}
			var resp api.JobsGetResponse
			for _, name := range req.Names {
				job, err := j.Get(ctx, caller, name)
				switch {
				case err == nil:
					resp.Jobs = append(resp.Jobs, toAPI(job))
				case loam.CodeOf(err) != loam.NotFound:
					return nil, err
				}
			}
			return resp.AppendProto(nil), nil
		},
		"jobs.Delete": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.JobsDeleteRequest
			j, err := api.Parse(&req, in, func() (*Jobs, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			return nil, j.Delete(ctx, caller, req.Name)
		},
	}
}

func fromAPI(m *api.Job) (Job, error) {
	job := Job{Name: m.Name, Schedule: m.Schedule, Due: m.Due, TTL: m.Ttl, Data: m.Data, Type: m.ContentType}
	if len(m.Data) > MaxMessage {
		return job, fmt.Errorf("data of %d bytes: at most %d", len(m.Data), MaxMessage)
	}
	if m.Repeats > 0 {
		job.Repeats = &m.Repeats
	}
	if !m.DropFailed && m.RetryAfterMs == 0 && m.Retries == 0 {
		return job, nil
	}
	if m.Retries < -1 || m.Retries > 1<<31 || m.RetryAfterMs < 0 {
		return job, fmt.Errorf("%d retries, %d ms after each other: they are 0, 1, 2… or -1 for as many as it takes", m.Retries, m.RetryAfterMs)
	}
	job.Failure = &FailurePolicy{Drop: m.DropFailed, Interval: DefaultInterval}
	if m.RetryAfterMs > 0 {
		job.Failure.Interval = api.Millis(m.RetryAfterMs)
	}
	if m.Retries >= 0 {
		n := uint32(DefaultRetries)
		if m.Retries > 0 {
			n = uint32(m.Retries)
		}
		job.Failure.MaxRetries = &n
	}
	return job, nil
}

func toAPI(job Job) api.Job {
	m := api.Job{Name: job.Name, Schedule: job.Schedule, Due: job.Due, Ttl: job.TTL, Data: job.Data, ContentType: job.Type}
	if job.Repeats != nil {
		m.Repeats = *job.Repeats
	}
	if f := job.Failure; f != nil {
		m.DropFailed, m.RetryAfterMs, m.Retries = f.Drop, int64(f.Interval/time.Millisecond), -1
		if f.MaxRetries != nil {
			m.Retries = int64(*f.MaxRetries)
			m.DropFailed = m.DropFailed || m.Retries == 0
		}
	}
	return m
}
