// Command store measures durable writes: state writes and publishes a second by 1, 16 and 256 writers, for the embedded
// default and for what one would use instead, on the same disk in the same run. Every contender has the write on disk
// (fsync) before it answers, and begins each round with nothing stored. Within a round they take turns of a few dozen
// milliseconds, so that a disk that changes its mind does so for all. What is printed is the median of all turns: of the
// rates in the table, and in the goals of the ratios of turns that followed each other.
//
//	go run -C bench ./store
//
// The last lines are the goals, tab-separated: name, value, unit, goal, ok or short.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/loam-run/loam/test/measure"
)

func main() {
	var b bench
	flag.StringVar(&b.dir, "dir", ".tmp", "folder on the disk to measure; a memory file system would measure nothing")
	flag.IntVar(&b.rounds, "rounds", 5, "how often to measure; the median counts")
	flag.DurationVar(&b.length, "time", 600*time.Millisecond, "length of each measurement")
	flag.Int64Var(&b.warmUp, "warm-up", 1500, "writes before each measurement: files that grow cost more than files that are written anew, and every log here is recycled by then")
	flag.Parse()
	if err := b.run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

type bench struct {
	dir    string
	rounds int
	length time.Duration
	warmUp int64
}

// A contender is something that stores. state and publish each make one write durable and may be called by many
// writers at once; n counts a writer's calls.
type contender struct {
	state   func(ctx context.Context, writer, n int) error
	publish func(ctx context.Context, writer, n int) error
	close   func() error
}

var contenders = []struct {
	name string
	open func(dir string) (contender, error)
}{
	{loam, openLoam}, {fsync, openFsync}, {plain, openPlain}, {jetStream, openNATS},
}

var writers = []int{1, 16, 256}

const valueSize = 128

// A measurement is what one contender did.
type measurement struct {
	contender, kind string
	writers         int
}

func (b bench) run(ctx context.Context, out io.Writer) (err error) {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(b.dir, "store-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()

	rates := map[measurement][]float64{} // one for each turn
	for round := range b.rounds {
		for _, w := range writers {
			for _, kind := range kinds {
				got, err := b.compare(ctx, tmp, kind, w)
				if err != nil {
					return err
				}
				for i, c := range contenders {
					m := measurement{c.name, kind, w}
					rates[m] = append(rates[m], got[i]...)
				}
			}
		}
		fmt.Fprintf(out, "round %d of %d\n", round+1, b.rounds)
	}
	report(out, rates)
	return nil
}

const turns = 16 // of each contender in a round

// compare measures every contender, by turns, and returns the writes a second of each in each turn.
func (b bench) compare(ctx context.Context, dir, kind string, writers int) (rates [][]float64, err error) {
	var does []func(context.Context, int, int) error
	for i, c := range contenders {
		dir := filepath.Join(dir, strconv.Itoa(i))
		opened, err := c.open(dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		defer func() { err = errors.Join(err, opened.close(), os.RemoveAll(dir)) }()
		do := opened.state
		if kind == "publish" {
			do = opened.publish
		}
		does = append(does, do)
		if _, _, err := write(ctx, writers, 0, b.warmUp, do); err != nil {
			return nil, fmt.Errorf("%s, %s: %w", c.name, kind, err)
		}
	}
	rates = make([][]float64, len(does))
	for turn := range turns {
		for j := range does {
			i := (j + turn) % len(does) // nobody always comes first
			n, took, err := write(ctx, writers, b.length/turns, 0, does[i])
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", contenders[i].name, kind, err)
			}
			rates[i] = append(rates[i], float64(n)/took.Seconds())
		}
	}
	return rates, nil
}

// write lets writers write for a while, and least times in all, and returns how many writes were done in
// what time.
func write(ctx context.Context, writers int, length time.Duration, least int64, do func(ctx context.Context, writer, n int) error) (int64, time.Duration, error) {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	start := time.Now()
	for w := range writers {
		all.Go(func() {
			for n := 0; time.Since(start) < length || done.Load() < least; n++ {
				if err := do(ctx, w, n); err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return 0, 0, *err
	}
	return done.Load(), time.Since(start), nil
}

func report(out io.Writer, rates map[measurement][]float64) {
	fmt.Fprintf(out, "\nDurable writes a second, values of %d bytes\n\n", valueSize)
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\t")
	for _, kind := range kinds {
		for _, w := range writers {
			fmt.Fprintf(t, "%s, %d\t", kind, w)
		}
	}
	fmt.Fprintln(t)
	for _, c := range contenders {
		fmt.Fprintf(t, "%s\t", c.name)
		for _, kind := range kinds {
			for _, w := range writers {
				fmt.Fprintf(t, "%.0f\t", measure.Median(rates[measurement{c.name, kind, w}]))
			}
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush() // out is the terminal; nobody would read the error
	fmt.Fprintln(out)
	for _, kind := range kinds {
		for _, g := range []struct {
			writers int
			peer    string
			least   float64
		}{
			{1, plain, 1}, {16, fsync, 2}, {256, fsync, 6}, {16, jetStream, 1}, {256, jetStream, 1},
		} {
			ratios := slices.Clone(rates[measurement{loam, kind, g.writers}])
			for turn, peer := range rates[measurement{g.peer, kind, g.writers}] {
				ratios[turn] /= peer
			}
			ratio := measure.Median(ratios)
			verdict := "ok"
			if ratio < g.least {
				verdict = "short"
			}
			fmt.Fprintf(out, "store %s, %d writers, beside %s\t%.2f\tx\t>=%g\t%s\n", kind, g.writers, g.peer, ratio, g.least, verdict)
		}
	}
}

var kinds = []string{"state", "publish"}
