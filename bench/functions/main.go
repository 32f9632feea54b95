// Command functions measures the function host: what an instance costs to make, to make clean and to keep, beside the
// engine as it is and beside V8; what metering costs; how long a function takes to come from disk; and what a request
// costs that goes through HTTP into a guest and back, beside other servers of functions on the same core.
//
//	make bench-functions
//
// Contenders take turns, medians are printed. CPU is processor time of the contender's whole process, which neighbours
// on the machine disturb less than they disturb durations. The last lines are the goals, tab-separated: name, value,
// unit, goal, ok or short.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

func main() {
	var b bench
	flag.StringVar(&b.loam, "loam", "../bin/loam", "the binary")
	flag.StringVar(&b.root, "root", "..", "the repository")
	flag.StringVar(&b.workerd, "workerd", "", "the workerd binary; empty: it is not measured")
	flag.IntVar(&b.rounds, "rounds", 7, "turns each contender gets")
	flag.DurationVar(&b.length, "for", 2*time.Second, "length of a turn under HTTP load; others take a twentieth of it")
	only := flag.String("only", "", "what to measure, a regular expression: instances, memory, metering, cold, http")
	child := flag.String("child", "", "be the process whose memory is measured, or the net/http contender (used by the benchmark itself)")
	flag.Parse()
	var err error
	switch *child {
	case "":
		if b.only, err = regexp.Compile(*only); err == nil {
			err = b.run(context.Background())
		}
	case "nethttp":
		err = serveNetHTTP(flag.Arg(0))
	default:
		err = footprint(context.Background(), *child, flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "functions:", err)
		os.Exit(1)
	}
}

type bench struct {
	loam, root, workerd string
	rounds              int
	length              time.Duration
	only                *regexp.Regexp

	dir   string // of this run, removed when it is done
	goals []string
}

func (b *bench) run(ctx context.Context) (err error) {
	for _, path := range []*string{&b.loam, &b.root, &b.workerd} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
		if _, err := os.Stat(*path); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp("", "bench-functions-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	for _, phase := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"instances", b.instances}, {"memory", b.memory}, {"metering", b.metering}, {"cold", b.cold}, {"http", b.http},
	} {
		if !b.only.MatchString(phase.name) {
			continue
		}
		if err := phase.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
		fmt.Println()
	}
	for _, g := range b.goals {
		fmt.Print(g)
	}
	return nil
}

// goal notes a goal's line.
func (b *bench) goal(name string, value float64, unit string, most float64) {
	verdict := "ok"
	if value > most {
		verdict = "short"
	}
	b.goals = append(b.goals, fmt.Sprintf("%s\t%.2f\t%s\t≤%g\t%s\n", name, value, unit, most, verdict))
}
