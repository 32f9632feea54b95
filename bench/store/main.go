// Command store measures durable writes: state writes and publishes a second by 1, 16 and 256 writers, for the embedded
// default and for what one would use instead, on the same disk in the same run. Rounds are interleaved, so that a disk
// that changes its mind does so for all; what is printed is the median of the rounds. Every contender has the write on
// disk (fsync) before it answers.
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
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

func main() {
	dir := flag.String("dir", ".tmp", "folder on the disk to measure; a memory file system would measure nothing")
	rounds := flag.Int("rounds", 5, "interleaved rounds; the median counts")
	length := flag.Duration("time", 700*time.Millisecond, "length of one measurement")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, *dir, *rounds, *length); err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
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

func run(ctx context.Context, out io.Writer, dir string, rounds int, length time.Duration) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "store-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	perSecond := map[measurement][]float64{}
	for round := range rounds {
		for _, w := range writers {
			for _, kind := range kinds {
				for i := range contenders {
					c := contenders[(i+round)%len(contenders)] // nobody always comes first
					rate, err := measureFresh(ctx, filepath.Join(tmp, "store"), c.open, kind, w, length)
					if err != nil {
						return fmt.Errorf("%s, %s: %w", c.name, kind, err)
					}
					m := measurement{c.name, kind, w}
					perSecond[m] = append(perSecond[m], rate)
				}
			}
		}
		fmt.Fprintf(out, "round %d of %d\n", round+1, rounds)
	}
	report(out, func(m measurement) float64 {
		all := slices.Sorted(slices.Values(perSecond[m]))
		return all[len(all)/2]
	})
	return nil
}

// measureFresh measures a contender that begins with nothing, so that nobody pays for having stored more before.
func measureFresh(ctx context.Context, dir string, open func(string) (contender, error), kind string, writers int, length time.Duration) (rate float64, err error) {
	c, err := open(dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.close(), os.RemoveAll(dir)) }()
	do := c.state
	if kind == "publish" {
		do = c.publish
	}
	if _, err := measure(ctx, writers, length/5, do); err != nil { // files grow at first
		return 0, err
	}
	return measure(ctx, writers, length, do)
}

// measure lets writers write for a while and returns how many writes a second were done.
func measure(ctx context.Context, writers int, length time.Duration, do func(ctx context.Context, writer, n int) error) (float64, error) {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	start := time.Now()
	for w := range writers {
		all.Go(func() {
			for n := 0; time.Since(start) < length; n++ {
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
		return 0, *err
	}
	return float64(done.Load()) / time.Since(start).Seconds(), nil
}

func report(out io.Writer, median func(measurement) float64) {
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
				fmt.Fprintf(t, "%.0f\t", median(measurement{c.name, kind, w}))
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
			ratio := median(measurement{loam, kind, g.writers}) / median(measurement{g.peer, kind, g.writers})
			verdict := "ok"
			if ratio < g.least {
				verdict = "short"
			}
			fmt.Fprintf(out, "store %s, %d writers, beside %s\t%.2f\tx\t>=%g\t%s\n", kind, g.writers, g.peer, ratio, g.least, verdict)
		}
	}
}

var kinds = []string{"state", "publish"}
