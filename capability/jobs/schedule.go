package jobs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam/internal/cron"
)

// newRecord reads what a job says of its times.
func newRecord(job Job, now time.Time) (Record, error) {
	r := Record{Job: job, Created: now}
	if len(job.Data) > MaxData || len(job.Type) > 1024 {
		return r, fmt.Errorf("data of %d bytes: at most %d, and 1024 of what says its type", len(job.Data), MaxData)
	}
	if job.Schedule == "" && job.Due == "" {
		return r, errors.New("a job has a schedule, a time when it is due, or both")
	}
	if job.Repeats != nil && *job.Repeats < 1 {
		return r, errors.New("a job comes once at least: repeats is 1 or more")
	}
	if job.Schedule == "" && job.Repeats != nil && *job.Repeats > 1 {
		return r, errors.New("a job that comes again needs a schedule")
	}
	if f := job.Failure; f != nil && f.Interval < 0 {
		return r, errors.New("the interval of a failure policy is negative")
	}
	var schedule cron.Schedule
	var err error
	if job.Schedule != "" {
		if schedule, err = cron.Parse(job.Schedule); err != nil {
			return r, fmt.Errorf("schedule: %w", err)
		}
	}
	begin := now
	if job.Due != "" {
		if begin, err = parseTime(job.Due, now); err != nil {
			return r, fmt.Errorf("due time: %w", err)
		}
		r.Turn = begin
	} else if r.Turn = schedule.Next(now); r.Turn.IsZero() {
		return r, fmt.Errorf("schedule %q: it is never due", job.Schedule)
	}
	r.Next = r.Turn
	if job.TTL != "" {
		if r.Expires, err = parseTime(job.TTL, begin); err != nil {
			return r, fmt.Errorf("ttl: %w", err)
		}
		if r.Turn.After(r.Expires) {
			return r, errors.New("ttl: it is over before it is due")
		}
	}
	return r, nil
}

// done is what becomes of a record whose run succeeded or was given up: nil where it was the last.
func (r Record) done(now time.Time) *Record {
	r.Runs++
	r.Tries = 0
	if r.Schedule == "" || r.Repeats != nil && r.Runs >= *r.Repeats {
		return nil
	}
	s, err := cron.Parse(r.Schedule)
	if err != nil {
		return nil // no more than when it was read first
	}
	r.Turn = s.Resume(r.Turn, now)
	r.Next = r.Turn
	if r.Turn.IsZero() || !r.Expires.IsZero() && r.Turn.After(r.Expires) {
		return nil
	}
	return &r
}

// failed is what becomes of a record whose run failed.
func (r Record) failed(now time.Time) *Record {
	interval, most := DefaultInterval, uint32(DefaultRetries)
	retries := &most
	if r.Failure != nil {
		interval, retries = max(r.Failure.Interval, minInterval), r.Failure.MaxRetries
	}
	if r.Failure != nil && r.Failure.Drop || retries != nil && r.Tries >= *retries || !r.Expires.IsZero() && now.After(r.Expires) {
		return r.done(now)
	}
	r.Tries++
	r.Next = now.Add(interval)
	return &r
}

// parseTime reads a point in time: RFC 3339, or from a time on a duration of Go or ISO 8601.
func parseTime(text string, from time.Time) (time.Time, error) {
	if len(text) > 64 {
		return time.Time{}, errors.New("it is too long")
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		if d < 0 {
			return time.Time{}, fmt.Errorf("%s is in the past", text)
		}
		return from.Add(d), nil
	}
	if t, ok := addISO8601(text, from); ok {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is neither a time (2026-01-02T15:04:05Z) nor a duration (1h30m, PT1H30M)", text)
}

// addISO8601 adds a duration such as P1Y2M3W4DT5H6M7S to a time.
func addISO8601(text string, from time.Time) (time.Time, bool) {
	rest, ok := strings.CutPrefix(text, "P")
	if !ok || rest == "" {
		return time.Time{}, false
	}
	days, clock, timed := strings.Cut(rest, "T")
	if timed && clock == "" {
		return time.Time{}, false
	}
	var n [7]int // Y M W D H M S
	read := func(text, units string, at int) bool {
		for text != "" {
			i := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
			if i <= 0 {
				return false
			}
			u := strings.IndexByte(units, text[i])
			v, err := strconv.Atoi(text[:i])
			if u < 0 || err != nil || v > 1_000_000_000 {
				return false
			}
			n[at+u] = v
			at, units = at+u+1, units[u+1:] // each once, in that order
			text = text[i+1:]
		}
		return true
	}
	if !read(days, "YMWD", 0) || !read(clock, "HMS", 4) {
		return time.Time{}, false
	}
	t := from.AddDate(n[0], n[1], n[2]*7+n[3])
	for i, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
		if time.Duration(n[4+i]) > (1<<62)/unit {
			return time.Time{}, false
		}
		t = t.Add(time.Duration(n[4+i]) * unit)
	}
	return t, t.Year() <= 9999 && !t.Before(from)
}
