package telemetry

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// call is the usage of the nth call of a function: each number is different and tells n.
func call(n int64) Usage {
	var u Usage
	for i, p := range u.numbers() {
		*p = n * int64(i+1)
	}
	u.Calls, u.Failed = 1, n%2
	return u
}

// calls is the sum of the first n.
func calls(n int64) Usage {
	var sum Usage
	for i := range n {
		u := call(i + 1)
		sum.Add(&u)
	}
	return sum
}

func openLedger(t *testing.T, o LedgerOptions) *Ledger {
	t.Helper()
	if o.Shards == 0 {
		o.Shards = 2
	}
	return OpenLedger(o)
}

func closeLedger(t *testing.T, l *Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// sums are the report's sums by function.
func sums(t *testing.T, l *Ledger, q UsageQuery) map[string]Usage {
	t.Helper()
	lines, err := l.Report(q)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]Usage{}
	for _, line := range lines {
		sum := all[line.Function]
		sum.Add(&line.Usage)
		all[line.Function] = sum
	}
	return all
}

// A process that records is killed, twenty times; what it said is recorded is in the ledger, and nothing by halves.
func TestLedgerSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	var acknowledged, recorded [4]int64 // by worker: what it said of, what the ledger has
	for round := range 20 {
		child := exec.Command(os.Args[0], "-test.run", "^TestRecordForEver$")
		child.Env = append(os.Environ(), "LOAM_TEST_LEDGER="+dir, fmt.Sprint("LOAM_TEST_FROM=", strings.Trim(fmt.Sprint(recorded), "[]")))
		pipe, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewReader(pipe)
		stop := 500 + rand.IntN(3000)
		for n := 0; ; n++ {
			if n == stop {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			var b [9]byte
			if _, err := io.ReadFull(said, b[:]); err != nil {
				break // all that it wrote before its end was read
			}
			acknowledged[b[0]] = int64(binary.LittleEndian.Uint64(b[1:]))
		}
		_ = child.Wait() // killed, as asked
		l := openLedger(t, LedgerOptions{Dir: dir, Shards: 4})
		got := sums(t, l, UsageQuery{})
		closeLedger(t, l)
		for w := range recorded {
			sum := got[fmt.Sprint("worker-", w)]
			recorded[w], acknowledged[w] = sum.Calls, max(acknowledged[w], recorded[w])
			if sum != calls(sum.Calls) {
				t.Fatalf("round %d: worker %d: a call is recorded by halves: %+v", round, w, sum)
			}
			if sum.Calls != acknowledged[w] && sum.Calls != acknowledged[w]+1 {
				t.Fatalf("round %d: worker %d: %d calls are recorded of %d and one under way", round, w, sum.Calls, acknowledged[w])
			}
		}
	}
	if acknowledged[0] == 0 || acknowledged[3] == 0 {
		t.Error("nothing was recorded")
	}
}

// TestRecordForEver is the process that TestLedgerSurvivesKill kills.
func TestRecordForEver(t *testing.T) {
	dir := os.Getenv("LOAM_TEST_LEDGER")
	if dir == "" {
		return
	}
	var from [4]int64
	if _, err := fmt.Sscan(os.Getenv("LOAM_TEST_FROM"), &from[0], &from[1], &from[2], &from[3]); err != nil {
		t.Fatal(err)
	}
	l := openLedger(t, LedgerOptions{Dir: dir, Shards: 4, Sync: time.Millisecond})
	for w := range from {
		go func() {
			for n := from[w] + 1; ; n++ {
				u := call(n)
				l.Record(w, fmt.Sprint("worker-", w), &u)
				if _, err := os.Stdout.Write(binary.LittleEndian.AppendUint64([]byte{byte(w)}, uint64(n))); err != nil {
					os.Exit(1) // who started it is gone
				}
			}
		}()
	}
	select {}
}

// Days pass: files are made for each, become small, and go when they are old. The sums stay the same.
func TestLedgerOverDays(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		<-time.After(30 * time.Minute)
		l := openLedger(t, LedgerOptions{Dir: dir, Keep: 3})
		u := call(1)
		for range 60 { // hours
			for shard := range 2 {
				l.Record(shard, "a", &u)
				l.Record(shard, "b", &u)
			}
			<-time.After(time.Hour)
		}
		synctest.Wait()
		if got := sums(t, l, UsageQuery{}); got["a"].Calls != 120 || got["b"].Calls != 120 || got["a"].CPU != 120*u.CPU {
			t.Errorf("after 60 hours: %+v", got)
		}
		if got := l.Totals()["a"]; got.Calls != 120 {
			t.Errorf("the process counts %+v", got)
		}
		if got := sums(t, l, UsageQuery{Function: "a", Since: began.Add(50 * time.Hour)}); got["a"].Calls != 20 || len(got) != 1 {
			t.Errorf("since the 50th hour: %+v", got)
		}
		for by, want := range map[time.Duration]int{0: 1, time.Hour: 60, 24 * time.Hour: 3} {
			lines, err := l.Report(UsageQuery{Function: "a", By: by})
			if err != nil || len(lines) != want {
				t.Errorf("by %v: %d lines, want %d (%v)", by, len(lines), want, err)
			}
			if !lines[0].From.Equal(began) {
				t.Errorf("by %v: the first begins at %v, want %v", by, lines[0].From, began)
			}
		}
		if info, err := os.Stat(filepath.Join(dir, began.UTC().Format(time.DateOnly)+"-0.usage")); err != nil || info.Size() != slotSize*(1+2*24) {
			t.Errorf("the first day's file: %v, %v", info.Size(), err)
		}
		closeLedger(t, l)

		<-time.After(48 * time.Hour)
		l = openLedger(t, LedgerOptions{Dir: dir, Keep: 3})
		<-time.After(time.Second)
		synctest.Wait()
		files, err := usageFiles(dir)
		if err != nil || len(files) != 3 {
			t.Errorf("files %q (%v): the days that are kept, and today", files, err)
		}
		if got := sums(t, l, UsageQuery{}); got["a"].Calls != 72 {
			t.Errorf("after the first day is gone: %+v", got)
		}
		closeLedger(t, l)
	})
}

// Two processes with one folder do not disturb each other, and each one's report has what both recorded.
func TestLedgersBesideEachOther(t *testing.T) {
	dir := t.TempDir()
	one, two := openLedger(t, LedgerOptions{Dir: dir}), openLedger(t, LedgerOptions{Dir: dir})
	for n := range int64(100) {
		u := call(n + 1)
		one.Record(0, "a", &u)
		two.Record(1, "a", &u)
	}
	want := calls(100)
	want.Add(&want)
	for _, l := range []*Ledger{one, two} {
		if got := sums(t, l, UsageQuery{})["a"]; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	closeLedger(t, one)
	closeLedger(t, two)
	again := openLedger(t, LedgerOptions{Dir: dir})
	defer closeLedger(t, again)
	if got := sums(t, again, UsageQuery{})["a"]; got != want {
		t.Errorf("afterwards: got %+v, want %+v", got, want)
	}
}

// Where there is no room the process counts on in memory, and stores again once there is some.
func TestLedgerFull(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := openLedger(t, LedgerOptions{Dir: dir, MaxBytes: 1})
		u := call(1)
		for i := range 300 {
			l.Record(0, fmt.Sprint("f", i), &u)
		}
		if got := sums(t, l, UsageQuery{}); len(got) != 300 {
			t.Errorf("%d functions are reported", len(got))
		}
		<-time.After(2 * time.Second)
		l.mu.Lock()
		l.file.limit = 1000
		l.mu.Unlock()
		l.Record(0, "f299", &u)
		closeLedger(t, l)
		l = openLedger(t, LedgerOptions{Dir: dir})
		defer closeLedger(t, l)
		got := sums(t, l, UsageQuery{})
		if len(got) != chunkSlots || got["f299"].Calls != 2 || got["f0"].Calls != 1 {
			t.Errorf("%d functions are stored, want %d: %+v", len(got), chunkSlots, got["f299"])
		}
	})
}

// A folder that cannot be written costs nothing of what is recorded, once it can.
func TestLedgerWithoutFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "usage")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		l := openLedger(t, LedgerOptions{Dir: dir})
		u := call(1)
		l.Record(0, "a", &u)
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second)
		u = call(2)
		l.Record(0, "a", &u)
		closeLedger(t, l)
		l = openLedger(t, LedgerOptions{Dir: dir})
		defer closeLedger(t, l)
		if got := sums(t, l, UsageQuery{}); got["a"] != calls(2) {
			t.Errorf("got %+v", got)
		}
	})
}

// What a loss of power left by halves costs the newest copy, or one sum; never all.
func TestLedgerDamaged(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, LedgerOptions{Dir: dir})
	for _, name := range []string{"a", "b", "c"} {
		for n := range int64(3) {
			u := call(n + 1)
			l.Record(0, name, &u)
		}
	}
	closeLedger(t, l)
	path := filepath.Join(dir, l.file.name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[1*slotSize+slotKey+slotCopy+50]++ // a: the third turn's copy
	b[2*slotSize+slotName]++            // b: the name
	if err := os.WriteFile(path, b[:len(b)-100], 0o600); err != nil {
		t.Fatal(err)
	}
	l = openLedger(t, LedgerOptions{Dir: dir})
	got := sums(t, l, UsageQuery{})
	if len(got) != 2 || got["a"] != calls(2) || got["c"] != calls(3) {
		t.Errorf("got %+v", got)
	}
	u := call(3)
	l.Record(0, "a", &u)
	closeLedger(t, l)
	l = openLedger(t, LedgerOptions{Dir: dir})
	if got := sums(t, l, UsageQuery{}); got["a"] != calls(3) {
		t.Errorf("recorded again: %+v", got)
	}
	closeLedger(t, l)

	if err := os.WriteFile(path, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	l = openLedger(t, LedgerOptions{Dir: dir})
	defer closeLedger(t, l)
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Error("a file of something else was not put aside")
	}
}

func TestLedgerMetrics(t *testing.T) {
	l := openLedger(t, LedgerOptions{Dir: t.TempDir()})
	defer closeLedger(t, l)
	l.Record(1, "a", &Usage{Calls: 1, CPU: 1500, Memory: 2, In: 7, ColdFork: 1})
	l.Record(0, "a", &Usage{Calls: 1, Failed: 1})
	var b strings.Builder
	if err := l.WritePrometheus(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`loam_function_calls_total{function="a",outcome="answered"} 1`, `loam_function_calls_total{function="a",outcome="failed"} 1`,
		`loam_function_cold_total{function="a",why="fork"} 1`, `loam_function_cpu_seconds_total{function="a"} 1.5e-06`,
		`loam_function_memory_byte_seconds_total{function="a"} 0.002048`, `loam_function_request_bytes_total{function="a"} 7`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	l := openLedger(t, LedgerOptions{Dir: t.TempDir()})
	defer closeLedger(t, l)
	u := call(1)
	if n := testing.AllocsPerRun(100, func() { l.Record(1, "a", &u) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	l := OpenLedger(LedgerOptions{Dir: b.TempDir(), Shards: 2})
	u := call(1)
	for b.Loop() {
		l.Record(1, "orders", &u)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

// FuzzUsageFile reads whatever stands in a file.
func FuzzUsageFile(f *testing.F) {
	dir := f.TempDir()
	l := OpenLedger(LedgerOptions{Dir: dir, Shards: 1})
	u := call(1)
	l.Record(0, "a", &u)
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, l.file.name))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:4*slotSize])
	f.Add(b[:slotSize+7])
	f.Add([]byte(usageMagic))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		sums, err := parseUsage(b)
		if err == nil && len(sums) > len(b)/slotSize {
			t.Errorf("%d sums of %d bytes", len(sums), len(b))
		}
	})
}
