// Command api measures the runtime API beside daprd: what a call costs in processor time, how long it takes, what the
// sidecars weigh, and how long they take to be ready.
//
//	make bench-api
//
// Both are given the same flags and the same files. A state store in memory and one in Redis are read and written over
// HTTP and gRPC; an event is published until the app has it; an app calls another through two sidecars. Contenders take
// turns with what is least: thin servers by net/http or grpc-go that answer by the same bytes, post what is published to
// the app, or ask each other and the app, in as many steps as the sidecars. What is beyond the figures of these is what a
// sidecar adds. Two more lines say what no sidecar can change: "bare" waits, reads and writes, and what it costs is the
// system's price of waking a core; "direct" is the call with nothing between. Medians are printed. Everything runs where the
// system puts it, as beside an app in a pod; with -pin the sidecars have one core, and load, app and Redis another, so that
// every call at concurrency 1 wakes a core that has gone to sleep, several times. CPU is processor time of the sidecars that
// take part, which neighbours on the machine disturb less than they disturb durations. The last lines are the goals, tab-separated: name,
// value, unit, goal, ok or short.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam/test/measure"
)

func main() {
	var b bench
	flag.StringVar(&b.loam, "loam", "../bin/loam", "the binary")
	flag.StringVar(&b.daprd, "daprd", "", "daprd, built from bench/daprd; empty: it is not measured, and what is held against it is no goal")
	flag.StringVar(&b.redis, "redis", "redis-server", "the program; empty: state in Redis is not measured")
	flag.IntVar(&b.rounds, "rounds", 5, "turns each contender gets")
	flag.DurationVar(&b.length, "for", 2*time.Second, "length of a turn")
	only := flag.String("only", "", "what to measure, a regular expression of the names that are printed")
	flag.IntVar(&b.concurrency, "c", 0, "calls at once; 0: 1, and then 64")
	flag.BoolVar(&pinned, "pin", false, "keep the sidecars on core 0, and all else on core 1")
	child := flag.String("child", "", "be a thin server (used by the benchmark itself)")
	flag.Parse()
	var err error
	if *child != "" {
		err = serveChild(*child)
	} else if b.only, err = regexp.Compile(*only); err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		err = b.run(ctx)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(1)
	}
}

type bench struct {
	loam, daprd, redis string
	rounds             int
	concurrency        int
	length             time.Duration
	only               *regexp.Regexp

	dir   string // of this run, removed when it is done
	goals []string
}

// run measures.
func (b *bench) run(ctx context.Context) (err error) {
	for _, path := range []*string{&b.loam, &b.daprd} {
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
	if b.dir, err = os.MkdirTemp("", "bench-api-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if pinned {
		if err := exec.Command("taskset", "-a", "-p", "-c", "1", strconv.Itoa(os.Getpid())).Run(); err != nil {
			return fmt.Errorf("taskset: %w", err)
		}
	}
	a, err := serveApp()
	if err != nil {
		return err
	}
	defer a.close()
	store := ""
	if b.redis != "" {
		r, address, err := startRedis(b.redis, b.dir)
		if err != nil {
			return err
		}
		defer r.stop()
		store = address
	}
	var all []*contender
	for name, command := range map[string][]string{"loam": {b.loam, "sidecar"}, "daprd": {b.daprd}} {
		if command[0] != "" {
			all = append(all, &contender{name: name, command: command})
		}
	}
	slices.SortFunc(all, func(a, b *contender) int { return -cmp.Compare(a.name, b.name) }) // loam first
	for _, c := range all {
		if err := c.prepare(filepath.Join(b.dir, c.name), store); err != nil {
			return err
		}
	}
	if err := b.starts(ctx, all); err != nil {
		return err
	}
	for _, c := range all {
		defer c.stop()
		if err := c.start(a); err != nil {
			return err
		}
	}
	if err := b.weigh(all, "after start"); err != nil {
		return err
	}
	if err := b.calls(ctx, all, a, store != ""); err != nil {
		return err
	}
	if err := b.weigh(all, "after load"); err != nil {
		return err
	}
	fmt.Println()
	for _, g := range b.goals {
		fmt.Print(g)
	}
	return nil
}

// starts measures how long a sidecar takes from its start until it is healthy, and what it weighs then.
func (b *bench) starts(ctx context.Context, all []*contender) error {
	if !b.only.MatchString("start") {
		return nil
	}
	took, rss := map[string][]float64{}, map[string][]float64{}
	for range 2*b.rounds + 1 {
		for _, c := range all {
			ms, mib, err := c.timeStart(ctx)
			if err != nil {
				return err
			}
			took[c.name], rss[c.name] = append(took[c.name], ms), append(rss[c.name], mib)
		}
	}
	fmt.Printf("%-34s%14s%14s\n", "start", "ms to healthy", "RSS, MiB")
	for _, c := range all {
		fmt.Printf("%-34s%14.1f%14.1f\n", c.name, measure.Median(took[c.name]), measure.Median(rss[c.name]))
	}
	fmt.Println()
	b.goal("start to healthy", measure.Median(took["loam"]), "ms", 30)
	b.goal("RSS of an idle sidecar", measure.Median(rss["loam"]), "MiB", 30)
	return nil
}

// weigh prints what the sidecars weigh.
func (b *bench) weigh(all []*contender, when string) error {
	for _, c := range all {
		var line strings.Builder
		for _, s := range c.sidecars() {
			bytes, err := measure.RSS(s.pid())
			if err != nil {
				return err
			}
			fmt.Fprintf(&line, "%14.1f", bytes/(1<<20))
		}
		fmt.Printf("%-34s%s MiB\n", "RSS "+when+", "+c.name, line.String())
	}
	return nil
}

// calls measures every way to call, at one call at a time and at 64.
func (b *bench) calls(ctx context.Context, all []*contender, a *app, redis bool) error {
	thin, err := startThin(a)
	if err != nil {
		return err
	}
	defer thin.stop()
	fmt.Printf("\n%-34s%14s%14s%14s%14s\n", "", "µs of CPU", "p50, µs", "p99, µs", "calls/s")
	for _, k := range kinds {
		if k.redis && !redis || !b.only.MatchString(k.name) {
			continue
		}
		for _, concurrency := range []int{1, 64} {
			if b.concurrency != 0 && b.concurrency != concurrency {
				continue
			}
			if err := b.kind(ctx, k, concurrency, all, a, thin); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
		}
	}
	return nil
}

// kind measures one way to call.
func (b *bench) kind(ctx context.Context, k kind, concurrency int, all []*contender, a *app, thin *thin) error {
	type figures struct{ cpu, p50, p99, rate []float64 }
	got := map[string]*figures{}
	note := func(name string, m measured) {
		f := got[name]
		if f == nil {
			f = new(figures)
			got[name] = f
		}
		f.cpu, f.p50, f.p99, f.rate = append(f.cpu, m.cpu), append(f.p50, m.p50), append(f.p99, m.p99), append(f.rate, m.rate)
	}
	for round := range b.rounds + 1 { // the first warms up
		for _, c := range all {
			call, done, err := k.caller(c, a, concurrency)
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", c.name, err, c.said())
			}
			m, err := load(ctx, b.length, concurrency, k.pids(c), call)
			done()
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", c.name, err, c.said())
			}
			if round > 0 {
				note(c.name, m)
			}
		}
		least := func(name string, call func(int) error, done func(), pids []int, err error) error {
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			defer done()
			m, err := load(ctx, b.length, concurrency, pids, call)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if round > 0 {
				note(name, m)
			}
			return nil
		}
		call, done, pids, err := thin.caller(k, a, concurrency)
		if err := least("thin", call, done, pids, err); err != nil {
			return err
		}
		if concurrency > 1 || k.redis || k.grpc {
			continue
		}
		switch k.floor {
		case answers:
			call, done, err = repeat(thin.bare.http, "/", concurrency)
			err = least("bare", call, done, []int{thin.bare.pid()}, err)
		case relays:
			call, done, err = repeat(thin.app, "/echo", concurrency)
			err = least("direct", call, done, nil, err)
		}
		if err != nil {
			return err
		}
	}
	title := fmt.Sprintf("%s, c=%d", k.name, concurrency)
	for _, name := range []string{"loam", "daprd", "thin", "bare", "direct"} {
		if f := got[name]; f != nil {
			fmt.Printf("%-34s%14.1f%14.0f%14.0f%14.0f  %s\n", title, measure.Median(f.cpu), measure.Median(f.p50), measure.Median(f.p99), measure.Median(f.rate), name)
		}
	}
	ours, theirs := got["loam"], got["daprd"]
	if k.name == "gRPC GetState, memory" && concurrency == 64 {
		b.goal(title, measure.Median(ours.cpu), "µs of CPU", 22)
	}
	if theirs == nil {
		return nil
	}
	most := 1.0 / 3
	if k.redis {
		most = 0.5
	}
	var cpu, added []float64 // of turns of the same round
	for i, base := range got["thin"].p50 {
		cpu = append(cpu, ours.cpu[i]/theirs.cpu[i])
		added = append(added, max(ours.p50[i]-base, 1)/max(theirs.p50[i]-base, 1))
	}
	b.goal(title+": CPU beside daprd", measure.Median(cpu), "x", most)
	if concurrency == 1 && !k.redis {
		b.goal(title+": added p50 beside daprd", measure.Median(added), "x", most)
	}
	return nil
}

// goal notes a goal's line.
func (b *bench) goal(name string, value float64, unit string, most float64) {
	verdict := "ok"
	if value > most {
		verdict = "short"
	}
	b.goals = append(b.goals, fmt.Sprintf("%s\t%.2f\t%s\t≤%.3g\t%s\n", name, value, unit, most, verdict))
}
