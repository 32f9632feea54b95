package cron

import (
	"strings"
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	for _, c := range []struct{ schedule, after, want string }{
		{"15 * * * * *", "2026-03-01T10:00:00Z", "2026-03-01T10:00:15Z"},
		{"15 * * * * *", "2026-03-01T10:00:15Z", "2026-03-01T10:01:15Z"},
		{"15 * * * * *", "2026-03-01T10:00:14.5Z", "2026-03-01T10:00:15Z"},
		{"0 30 * * * *", "2026-03-01T10:30:00Z", "2026-03-01T11:30:00Z"},
		{"30 * * * *", "2026-03-01T10:30:00Z", "2026-03-01T11:30:00Z"},
		{"*/20 * * * * *", "2026-03-01T10:00:41Z", "2026-03-01T10:01:00Z"},
		{"5/20 * * * * *", "2026-03-01T10:00:41Z", "2026-03-01T10:00:45Z"},
		{"0 0 3,15-17/2 * * *", "2026-03-01T03:00:00Z", "2026-03-01T15:00:00Z"},
		{"0 0 3,15-17/2 * * *", "2026-03-01T15:00:00Z", "2026-03-01T17:00:00Z"},
		{"0 0 0 29 2 *", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"0 0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"}, // 2100 has none
		{"0 0 0 30 2 *", "2026-03-01T00:00:00Z", ""},
		{"0 0 9 * * MON-fri", "2026-03-06T09:00:00Z", "2026-03-09T09:00:00Z"},
		{"0 0 0 13 * FRI", "2026-03-01T00:00:00Z", "2026-03-06T00:00:00Z"},  // either
		{"0 0 0 */2 * FRI", "2026-03-01T00:00:00Z", "2026-03-03T00:00:00Z"}, // */2 says something
		{"0 0 0 ? jan *", "2026-03-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"@hourly", "2026-03-01T10:59:59Z", "2026-03-01T11:00:00Z"},
		{"@daily", "2026-03-01T10:59:59Z", "2026-03-02T00:00:00Z"},
		{"@midnight", "2026-12-31T10:59:59Z", "2027-01-01T00:00:00Z"},
		{"@weekly", "2026-03-01T00:00:00Z", "2026-03-08T00:00:00Z"},
		{"@monthly", "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"},
		{"@yearly", "2026-03-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"@every 1h30m", "2026-03-01T10:00:00.25Z", "2026-03-01T11:30:00.25Z"},
		{"TZ=America/New_York 0 0 12 * * *", "2026-01-05T12:00:00Z", "2026-01-05T17:00:00Z"},
		{"CRON_TZ=Asia/Kolkata 0 30 5 * * *", "2026-01-05T12:00:00Z", "2026-01-06T00:00:00Z"},
		// The clock leaps from 2 to 3 on 2026-03-08, and passes 1 to 2 twice on 2026-11-01.
		{"TZ=America/New_York 0 30 2 * * *", "2026-03-08T00:00:00-05:00", "2026-03-09T02:30:00-04:00"},
		{"TZ=America/New_York 0 30 3 * * *", "2026-03-08T00:00:00-05:00", "2026-03-08T03:30:00-04:00"},
		{"TZ=America/New_York 0 30 1 * * *", "2026-11-01T00:00:00-04:00", "2026-11-01T01:30:00-04:00"},
		{"TZ=America/New_York 0 30 1 * * *", "2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00"},
		{"TZ=America/New_York 0 0 0 2 11 *", "2026-11-01T12:00:00-05:00", "2026-11-02T00:00:00-05:00"},
		// There, midnight itself is leapt over.
		{"TZ=America/Asuncion 0 0 * * * *", "2023-09-30T23:30:00-04:00", "2023-10-01T01:00:00-03:00"},
	} {
		s, err := Parse(c.schedule)
		if err != nil {
			t.Errorf("%s: %v", c.schedule, err)
			continue
		}
		if !strings.Contains(c.schedule, "TZ=") {
			s.zone = time.UTC
		}
		after, err := time.Parse(time.RFC3339, c.after)
		if err != nil {
			t.Fatal(err)
		}
		got := s.Next(after)
		if c.want == "" {
			if !got.IsZero() {
				t.Errorf("%s after %s: %s, want none", c.schedule, c.after, got)
			}
			continue
		}
		want, err := time.Parse(time.RFC3339, c.want)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Equal(want) {
			t.Errorf("%s after %s: %s, want %s", c.schedule, c.after, got.In(want.Location()).Format(time.RFC3339Nano), c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", "   ", "* * * *", "* * * * * * *", "60 * * * * *", "* * 24 * * *", "* * * 0 * *", "* * * * 13 *", "* * * * * 7",
		"*/0 * * * * *", "*/-1 * * * * *", "5-1 * * * * *", "+5 * * * * *", "1- * * * * *", "a * * * * *", ", * * * * *",
		"@every", "@every 0s", "@every -1s", "@every 1h extra", "@never", "@hourly x", "TZ=", "TZ=Nowhere/City @daily",
		"TZ=0", "CRON_TZ=UTC", "TZ=UTC @every 1h", "TZ=../../etc/passwd @daily", strings.Repeat("1,", 1000) + "1 * * * *",
		"99999999999999999999 * * * * *", "*/99999999999999999999 * * * *",
	} {
		if s, err := Parse(text); err == nil {
			t.Errorf("%q is a schedule: %+v", text, s)
		}
	}
}

func TestNever(t *testing.T) {
	if got := (Schedule{}).Next(time.Now()); !got.IsZero() {
		t.Errorf("the zero schedule is due %s", got)
	}
}

func TestResume(t *testing.T) {
	at := func(clock string) time.Time {
		t.Helper()
		v, err := time.Parse(time.RFC3339Nano, "2026-03-01T"+clock+"Z")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct{ schedule, last, now, want string }{
		{"@every 10s", "10:00:03", "10:00:03.4", "10:00:13"},
		{"@every 10s", "10:00:03", "10:00:13", "10:00:23"},
		{"@every 10s", "10:00:03", "10:01:00", "10:01:03"}, // five were missed
		{"@every 10s", "10:00:03", "09:59:00", "10:00:13"}, // the clock was put back
		{"0 * * * * *", "10:00:00", "10:00:00.4", "10:01:00"},
		{"0 * * * * *", "10:00:00", "10:05:30", "10:06:00"},
		{"0 * * * * *", "10:00:00", "09:59:59", "10:01:00"},
	} {
		s, err := Parse(c.schedule)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Resume(at(c.last), at(c.now)); !got.Equal(at(c.want)) {
			t.Errorf("%s, last due %s, at %s: %s, want %s", c.schedule, c.last, c.now, got, c.want)
		}
	}
}

// What is due is after what it was asked for, matches, and nothing between matches.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"15 * * * * *", "*/5 1-3,7 ? jan-mar MON", "@every 90s", "TZ=Asia/Tokyo @daily", "0 0 0 30 2 *", "0/9223372036854775807 * * * *",
	} {
		f.Add(seed, int64(1_750_000_000))
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		after := time.Unix(unix%(1<<33), 0)
		due := s.Next(after)
		if due.IsZero() {
			return
		}
		if !due.After(after) {
			t.Fatalf("%q after %s is due %s", text, after, due)
		}
		if s.every > 0 {
			return
		}
		local := due.In(s.zone)
		if s.second>>local.Second()&1 == 0 || s.minute>>local.Minute()&1 == 0 || s.hour>>local.Hour()&1 == 0 || s.month>>local.Month()&1 == 0 {
			t.Fatalf("%q is due %s", text, local)
		}
		if again := s.Next(due.Add(-time.Second)); !again.Equal(due) {
			t.Fatalf("%q is due %s, and asked a second earlier %s", text, due, again)
		}
	})
}
