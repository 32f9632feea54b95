package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/internal/size"
)

type usageCmd struct {
	Function string `placeholder:"NAME" help:"Only this function."`
	Since    string `default:"24h" placeholder:"TIME" help:"From when on: a duration back (90m, 7d), a day (2026-01-31) or a time (2026-01-31T08:00:00Z); the hour in which it lies counts whole."`
	By       string `default:"" enum:"hour,day," placeholder:"hour|day" help:"A line for each hour or day (UTC); without it, one for each function."`
	Output   string `short:"o" default:"table" enum:"table,json,csv" help:"How to print: table, json or csv."`
	dataFlag
}

func (usageCmd) Help() string {
	return `Shows what functions used: calls, time of the processor, memory, bytes, capability calls, cold starts. It is counted for
each call before its answer is sent, and kept for 92 days.

Examples:
  loam usage
  loam usage --function orders --since 7d --by day
  loam usage --since 2026-01-01 --by hour -o csv > january.csv`
}

func (c usageCmd) Run(ctx context.Context, o out) error {
	since, err := parseSince(c.Since, time.Now())
	if err != nil {
		return err
	}
	client, err := admin.Dial(c.Data)
	if err != nil {
		return err
	}
	lines, err := client.Usage(ctx, c.Function, since, c.By)
	if err != nil {
		return err
	}
	switch c.Output {
	case "json":
		e := json.NewEncoder(o)
		e.SetIndent("", "  ")
		return e.Encode(lines)
	case "csv":
		return writeUsageCSV(o, lines)
	}
	return writeUsageTable(o, lines, c.By)
}

// parseSince reads a time, or a duration before now.
func parseSince(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, &loam.Error{Code: loam.InvalidArgument, Op: fmt.Sprintf("since %q", text), Hint: "write 90m, 7d, 2026-01-31 or 2026-01-31T08:00:00Z"}
}

func writeUsageTable(o io.Writer, lines []admin.Usage, by string) error {
	w := tabwriter.NewWriter(o, 0, 0, 2, ' ', 0)
	if by != "" {
		fmt.Fprint(w, strings.ToUpper(by)+"\t")
	}
	fmt.Fprintln(w, "FUNCTION\tCALLS\tFAILED\tCPU\tWALL\tMEMORY\tIN\tOUT\tCAPABILITY CALLS\tCOLD")
	for _, u := range lines {
		switch by {
		case "hour":
			fmt.Fprint(w, u.From.Format("2006-01-02 15:00")+"\t")
		case "day":
			fmt.Fprint(w, u.From.Format(time.DateOnly)+"\t")
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%.3g GiB·s\t%s\t%s\t%d\t%s\n", u.Function, u.Calls, u.Failed, seconds(u.CPUSeconds), seconds(u.WallSeconds),
			u.MemoryGiBSeconds, size.Format(u.RequestBytes), size.Format(u.ResponseBytes), u.CapabilityCalls, cold(u))
	}
	return w.Flush()
}

// seconds writes a time with three digits that matter.
func seconds(s float64) string {
	d := time.Duration(s * 1e9)
	for unit := time.Hour; unit > time.Nanosecond; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}

// cold says how many calls were cold, and why.
func cold(u admin.Usage) string {
	var why []string
	for _, c := range []struct {
		name string
		n    int64
	}{{"load", u.ColdLoad}, {"start", u.ColdStart}, {"fork", u.ColdFork}} {
		if c.n > 0 {
			why = append(why, fmt.Sprintf("%d %s", c.n, c.name))
		}
	}
	if len(why) == 0 {
		return "none"
	}
	return strings.Join(why, ", ")
}

func writeUsageCSV(o io.Writer, lines []admin.Usage) error {
	w := csv.NewWriter(o)
	_ = w.Write([]string{ // Flush tells
		"from", "function", "calls", "failed", "cold_load", "cold_start", "cold_fork", "cpu_seconds", "wall_seconds", "memory_gib_seconds",
		"request_bytes", "response_bytes", "capability_calls", "capability_sent_bytes", "capability_received_bytes",
	})
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	f := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	for _, u := range lines {
		_ = w.Write([]string{
			u.From.Format(time.RFC3339), u.Function, n(u.Calls), n(u.Failed), n(u.ColdLoad), n(u.ColdStart), n(u.ColdFork),
			f(u.CPUSeconds), f(u.WallSeconds), f(u.MemoryGiBSeconds), n(u.RequestBytes), n(u.ResponseBytes), n(u.CapabilityCalls),
			n(u.CapabilitySent), n(u.CapabilityReceive),
		})
	}
	w.Flush()
	return w.Error()
}
