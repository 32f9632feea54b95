package jobs

import (
	"strings"
	"testing"
	"time"
)

func ptr[T any](v T) *T { return &v }

func clockTime(t *testing.T, text string) time.Time {
	t.Helper()
	if text == "" {
		return time.Time{}
	}
	v, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestNewRecord(t *testing.T) {
	now := clockTime(t, "2026-03-01 10:00:00")
	for _, c := range []struct {
		job           Job
		turn, expires string
	}{
		{Job{Due: "90s"}, "2026-03-01 10:01:30", ""},
		{Job{Due: "0s"}, "2026-03-01 10:00:00", ""},
		{Job{Due: "PT90S"}, "2026-03-01 10:01:30", ""},
		{Job{Due: "P1Y2M3W4DT5H6M7S"}, "2027-05-26 15:06:07", ""},
		{Job{Due: "2026-03-05T12:00:00Z"}, "2026-03-05 12:00:00", ""},
		{Job{Due: "2026-03-05T12:00:00+02:00"}, "2026-03-05 10:00:00", ""},
		{Job{Due: "2020-01-01T00:00:00Z"}, "2020-01-01 00:00:00", ""}, // long ago: at once
		{Job{Due: "1m", TTL: "1m"}, "2026-03-01 10:01:00", "2026-03-01 10:02:00"},
		{Job{Schedule: "@every 10m"}, "2026-03-01 10:10:00", ""},
		{Job{Schedule: "TZ=UTC 0 30 * * * *"}, "2026-03-01 10:30:00", ""},
		{Job{Schedule: "TZ=UTC 30 * * * *", Repeats: ptr(uint32(1))}, "2026-03-01 10:30:00", ""},
		{Job{Schedule: "@hourly", Due: "5m", TTL: "24h"}, "2026-03-01 10:05:00", "2026-03-02 10:05:00"},
		{Job{Schedule: "@every 10m", TTL: "2026-03-01T10:10:00Z"}, "2026-03-01 10:10:00", "2026-03-01 10:10:00"},
		{Job{Schedule: "@every 10m", Failure: &FailurePolicy{Drop: true}}, "2026-03-01 10:10:00", ""},
	} {
		r, err := newRecord(c.job, now)
		if err != nil || !r.Turn.Equal(clockTime(t, c.turn)) || !r.Next.Equal(r.Turn) || !r.Expires.Equal(clockTime(t, c.expires)) {
			t.Errorf("%+v: due %s, over %s, %v; want %s and %s", c.job, r.Turn, r.Expires, err, c.turn, c.expires)
		}
	}
}

func TestNewRecordRefuses(t *testing.T) {
	now := time.Now()
	for what, job := range map[string]Job{
		"no time": {}, "only a ttl": {TTL: "1h"}, "not a schedule": {Schedule: "often"}, "never due": {Schedule: "0 0 0 30 2 *"},
		"no repeats": {Schedule: "@hourly", Repeats: ptr(uint32(0))}, "repeats without a schedule": {Due: "1s", Repeats: ptr(uint32(2))},
		"not a time": {Due: "soon"}, "before now": {Due: "-1s"}, "a ttl that is no time": {Due: "1s", TTL: "x"},
		"over before it is due": {Schedule: "@every 1h", TTL: "1m"}, "much data": {Due: "1s", Data: make([]byte, MaxData+1)},
		"a long type": {Due: "1s", Type: strings.Repeat("x", 1025)}, "an interval before now": {Due: "1s", Failure: &FailurePolicy{Interval: -1}},
		"ISO 8601 without a number": {Due: "PT"}, "in disorder": {Due: "P1D2Y"}, "twice": {Due: "PT1M1M"}, "only P": {Due: "P"},
		"with a sign": {Due: "P-1D"}, "endless": {Due: "P9999999999Y"}, "past all years": {Due: "P999999Y"}, "hours without end": {Due: "PT999999999999H"},
		"a repetition": {Due: "R5/PT1S"}, "long": {Due: strings.Repeat("1", 100) + "s"},
	} {
		if r, err := newRecord(job, now); err == nil {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

func TestDoneAndFailed(t *testing.T) {
	turn := clockTime(t, "2026-03-01 10:00:00")
	every := Job{Schedule: "@every 1m"}
	for _, c := range []struct {
		what         string
		record       Record
		fails        bool
		now          string
		next         string // "": it is over
		runs, tries  uint32
		turnIsNotNew bool
	}{
		{what: "once", record: Record{}, now: "2026-03-01 10:00:00"},
		{what: "again", record: Record{Job: every}, now: "2026-03-01 10:00:01", next: "2026-03-01 10:01:00", runs: 1},
		{what: "again, after long", record: Record{Job: every}, now: "2026-03-01 12:34:56", next: "2026-03-01 12:35:00", runs: 1},
		{what: "the last", record: Record{Job: Job{Schedule: "@every 1m", Repeats: ptr(uint32(3))}, Runs: 2}, now: "2026-03-01 10:00:00"},
		{what: "not the last", record: Record{Job: Job{Schedule: "@every 1m", Repeats: ptr(uint32(3))}, Runs: 1}, now: "2026-03-01 10:00:00", next: "2026-03-01 10:01:00", runs: 2},
		{what: "over", record: Record{Job: every, Expires: turn.Add(59 * time.Second)}, now: "2026-03-01 10:00:00"},
		{what: "not over", record: Record{Job: every, Expires: turn.Add(60 * time.Second)}, now: "2026-03-01 10:00:00", next: "2026-03-01 10:01:00", runs: 1},

		{what: "fails first", fails: true, record: Record{}, now: "2026-03-01 10:00:03", next: "2026-03-01 10:00:04", tries: 1, turnIsNotNew: true},
		{what: "fails for the third time", fails: true, record: Record{Tries: 2}, now: "2026-03-01 10:00:03", next: "2026-03-01 10:00:04", tries: 3, turnIsNotNew: true},
		{what: "fails for the fourth time", fails: true, record: Record{Tries: 3}, now: "2026-03-01 10:00:03"},
		{what: "fails and goes on", fails: true, record: Record{Job: every, Tries: 3}, now: "2026-03-01 10:00:03", next: "2026-03-01 10:01:00", runs: 1},
		{what: "is dropped", fails: true, record: Record{Job: Job{Schedule: "@every 1m", Failure: &FailurePolicy{Drop: true}}}, now: "2026-03-01 10:00:03", next: "2026-03-01 10:01:00", runs: 1},
		{what: "its own interval", fails: true, record: Record{Job: Job{Failure: &FailurePolicy{Interval: time.Hour, MaxRetries: ptr(uint32(1))}}}, now: "2026-03-01 10:00:03", next: "2026-03-01 11:00:03", tries: 1, turnIsNotNew: true},
		{what: "its own retries", fails: true, record: Record{Job: Job{Failure: &FailurePolicy{Interval: time.Hour, MaxRetries: ptr(uint32(1))}}, Tries: 1}, now: "2026-03-01 10:00:03"},
		{what: "for ever", fails: true, record: Record{Job: Job{Failure: &FailurePolicy{Interval: time.Second}}, Tries: 1000}, now: "2026-03-01 10:00:03", next: "2026-03-01 10:00:04", tries: 1001, turnIsNotNew: true},
		{what: "for ever, but over", fails: true, record: Record{Job: Job{Failure: &FailurePolicy{Interval: time.Second}}, Expires: turn.Add(time.Second)}, now: "2026-03-01 10:00:03"},
	} {
		c.record.Turn, c.record.Next = turn, turn
		next := c.record.done(clockTime(t, c.now))
		if c.fails {
			next = c.record.failed(clockTime(t, c.now))
		}
		if next == nil || c.next == "" {
			if next != nil || c.next != "" {
				t.Errorf("%s: %+v, want %q", c.what, next, c.next)
			}
			continue
		}
		if !next.Next.Equal(clockTime(t, c.next)) || next.Runs != c.runs || next.Tries != c.tries || next.Turn.Equal(turn) != c.turnIsNotNew {
			t.Errorf("%s: due %s, its turn %s, %d runs, %d tries", c.what, next.Next, next.Turn, next.Runs, next.Tries)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"90s", "PT1H30M", "2026-01-02T15:04:05Z", "P1Y2M3W4DT5H6M7S", "P", "PT", "-1s", "P9999Y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		from := time.Unix(1_800_000_000, 0).UTC()
		if got, err := parseTime(text, from); err == nil && text[0] == 'P' && got.Before(from) {
			t.Errorf("%q is %s", text, got)
		}
	})
}
