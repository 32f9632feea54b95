// Package cron reads schedules: the five fields of cron, six with seconds first, and words such as @hourly and
// @every 90s; and tells when one is due next.
package cron

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// maxText bounds what is read, in bytes.
const maxText = 1024

// A Schedule says when something is due. The zero value is never due.
type Schedule struct {
	every                                 time.Duration // 0: by the fields
	second, minute, hour, day, month, dow uint64        // a bit for each value that matches
	anyDay, anyDow                        bool          // were written as * or ?
	zone                                  *time.Location
}

// A field is where its values begin and end, and the names they have.
type field struct {
	name     string
	min, max int
	names    []string // the first stands for min
}

func fields() [6]field {
	return [6]field{
		{"second", 0, 59, nil}, {"minute", 0, 59, nil}, {"hour", 0, 23, nil}, {"day of month", 1, 31, nil},
		{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
		{"day of week", 0, 6, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
	}
}

// Parse reads a schedule. Its times are of the process's zone, unless it begins with TZ=Area/City or CRON_TZ=Area/City.
func Parse(text string) (Schedule, error) {
	if len(text) > maxText {
		return Schedule{}, fmt.Errorf("a schedule of %d bytes: at most %d", len(text), maxText)
	}
	s := Schedule{zone: time.Local}
	parts := strings.Fields(text)
	if len(parts) > 0 {
		zone, ok := strings.CutPrefix(parts[0], "CRON_TZ=")
		if !ok {
			zone, ok = strings.CutPrefix(parts[0], "TZ=")
		}
		if ok {
			var err error
			if s.zone, err = time.LoadLocation(zone); err != nil {
				return Schedule{}, fmt.Errorf("there is no time zone %q", zone)
			}
			if parts = parts[1:]; len(parts) > 0 && parts[0] == "@every" {
				return Schedule{}, errors.New("@every is counted from now on: it has no time zone")
			}
		}
	}
	if len(parts) == 0 {
		return Schedule{}, errors.New("the schedule is empty: write one such as \"0 30 * * * *\" or @hourly")
	}
	if word := parts[0]; word[0] == '@' {
		if word == "@every" {
			if len(parts) != 2 {
				return Schedule{}, errors.New("@every takes one duration such as 1h30m")
			}
			d, err := time.ParseDuration(parts[1])
			if err != nil || d < time.Millisecond {
				return Schedule{}, fmt.Errorf("@every %s: it takes a duration such as 1h30m, of a millisecond or more", parts[1])
			}
			s.every = d
			return s, nil
		}
		of := map[string]string{
			"@yearly": "0 0 0 1 1 *", "@annually": "0 0 0 1 1 *", "@monthly": "0 0 0 1 * *", "@weekly": "0 0 0 * * 0",
			"@daily": "0 0 0 * * *", "@midnight": "0 0 0 * * *", "@hourly": "0 0 * * * *",
		}[word]
		if of == "" || len(parts) > 1 {
			return Schedule{}, fmt.Errorf("%q is no schedule: there are @every DURATION, @hourly, @daily, @weekly, @monthly and @yearly", strings.Join(parts, " "))
		}
		parts = strings.Fields(of)
	}
	if len(parts) == 5 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) != 6 {
		return Schedule{}, fmt.Errorf("a schedule has five fields, or six with seconds first, not %d", len(parts))
	}
	for i, f := range fields() {
		set, all, err := f.parse(parts[i])
		if err != nil {
			return Schedule{}, fmt.Errorf("%s %q: %w", f.name, parts[i], err)
		}
		switch i {
		case 0:
			s.second = set
		case 1:
			s.minute = set
		case 2:
			s.hour = set
		case 3:
			s.day, s.anyDay = set, all
		case 4:
			s.month = set
		case 5:
			s.dow, s.anyDow = set, all
		}
	}
	return s, nil
}

// parse reads one field: a list of *, N, N-M, and each of them with /STEP. any: it says nothing, being * or ?.
func (f field) parse(text string) (set uint64, all bool, err error) {
	for item := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(item, "/")
		step := 1
		if stepped {
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 {
				return 0, false, fmt.Errorf("a step is a number from 1")
			}
		}
		from, to := f.min, f.max
		if span == "*" || span == "?" {
			all = all || step == 1
		} else {
			first, last, ranged := strings.Cut(span, "-")
			if from, err = f.value(first); err != nil {
				return 0, false, err
			}
			switch {
			case ranged:
				if to, err = f.value(last); err != nil {
					return 0, false, err
				}
			case !stepped: // N/STEP goes on to the end
				to = from
			}
			if from > to {
				return 0, false, fmt.Errorf("it ends before it begins")
			}
		}
		for v := from; v <= to; v += step {
			set |= 1 << v
			if step > to { // so that v does not overflow
				break
			}
		}
	}
	return set, all, nil
}

func (f field) value(text string) (int, error) {
	for i, n := range f.names {
		if strings.EqualFold(n, text) {
			return f.min + i, nil
		}
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < f.min || v > f.max || text[0] == '+' || text[0] == '-' {
		return 0, fmt.Errorf("it is %d to %d", f.min, f.max)
	}
	return v, nil
}

// Next is the first time after t that the schedule is due; zero where there is none, as for the 30th of February. What
// falls into an hour that the clock leaps over in spring is not due that day; what falls into one that it passes twice in
// autumn is due twice.
func (s Schedule) Next(t time.Time) time.Time {
	if s.every > 0 {
		return t.Add(s.every)
	}
	if s.second == 0 {
		return time.Time{}
	}
	const years = 8 // after which each date was there, the 29th of February too
	local := t.In(s.zone)
	day := time.Date(local.Year(), local.Month(), local.Day(), 12, 0, 0, 0, time.UTC) // a date; its zone has no leaps
	for last := day.Year() + years; day.Year() <= last; day = day.AddDate(0, 0, 1) {
		if s.month>>day.Month()&1 == 0 {
			day = time.Date(day.Year(), day.Month()+1, 0, 12, 0, 0, 0, time.UTC) // its last day
			continue
		}
		if !s.matchDay(day) {
			continue
		}
		if due := s.within(day, t); !due.IsZero() {
			return due.In(t.Location())
		}
	}
	return time.Time{}
}

// Resume is the first time after now that the schedule is due, where it was due last at last, or after last where that is
// later. @every keeps its step: times that passed since last are left out, not moved.
func (s Schedule) Resume(last, now time.Time) time.Time {
	if now.Before(last) {
		now = last
	}
	if s.every > 0 {
		return last.Add((now.Sub(last)/s.every + 1) * s.every)
	}
	return s.Next(now)
}

// matchDay: where both the day of the month and that of the week say something, either will do, as in every cron.
func (s Schedule) matchDay(day time.Time) bool {
	byDay, byDow := s.day>>day.Day()&1 == 1, s.dow>>day.Weekday()&1 == 1
	if s.anyDay || s.anyDow {
		return byDay && byDow
	}
	return byDay || byDow
}

// within is the first time of that date after t, zero where there is none. It goes by time as it passes: a day has 23 to
// 25 hours.
func (s Schedule) within(day, t time.Time) time.Time {
	at := time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, s.zone)
	end := time.Date(day.Year(), day.Month(), day.Day()+1, 0, 0, 0, 0, s.zone)
	if after := t.Truncate(time.Second).Add(time.Second); after.After(at) {
		at = after
	}
	for at.Before(end) {
		local := at.In(s.zone)
		toMinute := time.Duration(60-local.Second()) * time.Second
		if s.hour>>local.Hour()&1 == 0 {
			at = at.Add(time.Duration(59-local.Minute())*time.Minute + toMinute)
			continue
		}
		if left := s.second >> local.Second(); s.minute>>local.Minute()&1 == 1 && left != 0 {
			return at.Add(time.Duration(bits.TrailingZeros64(left)) * time.Second)
		}
		at = at.Add(toMinute)
	}
	return time.Time{}
}
