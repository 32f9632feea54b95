package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Usage is what calls of a function took.
type Usage struct {
	Calls     int64 // that ended, however they did
	Failed    int64 // of those: that had no answer of the function
	ColdLoad  int64 // of the calls: that the function had to be loaded for
	ColdStart int64 // for which an instance was started
	ColdFork  int64 // for which one was forked
	CPU       int64 // ns of the processor
	Wall      int64 // ns
	Memory    int64 // KiB × µs
	In        int64 // bytes of requests' bodies
	Out       int64 // bytes of responses' bodies
	CapCalls  int64 // capability calls
	Sent      int64 // bytes by them
	Received  int64
}

// numbers are its fields in the order in which they are stored.
func (u *Usage) numbers() [13]*int64 {
	return [...]*int64{
		&u.Calls, &u.Failed, &u.ColdLoad, &u.ColdStart, &u.ColdFork, &u.CPU, &u.Wall, &u.Memory, &u.In, &u.Out,
		&u.CapCalls, &u.Sent, &u.Received,
	}
}

// Add adds what other calls took.
func (u *Usage) Add(v *Usage) {
	from := v.numbers()
	for i, to := range u.numbers() {
		*to += *from[i]
	}
}

// since is what came to u after it was base.
func (u Usage) since(base *Usage) Usage {
	from := base.numbers()
	for i, to := range u.numbers() {
		*to -= *from[i]
	}
	return u
}

// LedgerOptions of OpenLedger.
type LedgerOptions struct {
	Dir      string        // where its files are; it is made
	Shards   int           // tasks of how many shards record
	Keep     int           // days; 0 is 92
	MaxBytes int64         // of all files: the oldest days go first; 0 is 512 MiB
	Sync     time.Duration // how much a loss of power may cost; 0 is 10 s
	Log      *slog.Logger
}

// A Ledger sums up what functions used, by function and hour (UTC). A call is in it as soon as Record returned, whatever
// becomes of the process: the sums are written to a file that is mapped into memory, so that they are the kernel's at
// once. A loss of power may cost the calls of the last Sync.
//
// A record is either whole in the file or not there at all: each sum has two copies with a checksum each, which are
// written in turn.
//
// Locks are taken in this order: mu, a shard's, the file's.
type Ledger struct {
	o LedgerOptions

	mu     sync.Mutex
	file   *usageFile // of the present day
	hour   uint32     // the present one, since 1970
	ended  map[usageKey]Usage
	shards []usageShard

	told time.Time // when trouble was last logged

	stop context.CancelFunc
	done sync.WaitGroup
}

// usageKey is what one sum is of.
type usageKey struct {
	function string
	hour     uint32
}

// usageShard is what the tasks of one loop record.
type usageShard struct {
	mu      sync.Mutex
	entries map[string]*usageEntry
	file    *usageFile
	hour    uint32
	failed  error // why there was no room in the file, in this second
	_       [64]byte
}

// usageEntry is one function's.
type usageEntry struct {
	slot usageSlot // where it is stored; none: it is not yet
	base Usage     // what the file had of this hour before this process came
	now  Usage     // what it has now
	done Usage     // what this process recorded in earlier hours
}

// fresh is what this process recorded in the present hour.
func (e *usageEntry) fresh() Usage { return e.now.since(&e.base) }

// OpenLedger opens the ledger in a folder, with what earlier processes recorded there. A process that shares the folder
// writes files of its own. Where the folder cannot be written, calls are counted in memory until it can.
func OpenLedger(o LedgerOptions) *Ledger {
	o.Keep, o.MaxBytes, o.Sync = cmp.Or(o.Keep, 92), cmp.Or(o.MaxBytes, 512<<20), cmp.Or(o.Sync, 10*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &Ledger{o: o, ended: map[usageKey]Usage{}, shards: make([]usageShard, o.Shards)}
	for i := range l.shards {
		l.shards[i].entries = map[string]*usageEntry{}
	}
	l.roll(hourOf(time.Now()))
	var ctx context.Context
	ctx, l.stop = context.WithCancel(context.Background())
	l.done.Go(func() { l.tend(ctx) })
	return l
}

// Close stores all there is.
func (l *Ledger) Close() error {
	l.stop()
	l.done.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		defer s.mu.Unlock()
		s.file = nil // who records after the end is counted in memory only
		for _, e := range s.entries {
			e.slot = usageSlot{}
		}
	}
	if l.file == nil {
		return nil
	}
	return errors.Join(l.file.sync(), l.file.close())
}

// Record adds a call to the sums of a function. It is called by tasks of that shard, at the call's end and before its
// answer is given away.
func (l *Ledger) Record(shard int, function string, u *Usage) {
	s := &l.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[function]
	if e == nil {
		e = &usageEntry{}
		s.entries[strings.Clone(function)] = e
	}
	e.now.Add(u)
	if e.slot.bytes == nil && !s.attach(e, usageKey{function, s.hour}, shard) {
		return
	}
	e.slot.write(&e.now)
}

// attach finds or makes the place of an entry in the file.
func (s *usageShard) attach(e *usageEntry, key usageKey, shard int) bool {
	if s.failed != nil || s.file == nil {
		return false
	}
	slot, before, err := s.file.slot(key, shard)
	if err != nil {
		s.failed = err // to be told, and tried again, at the next turn of tend
		return false
	}
	e.slot, e.base = slot, before
	e.now.Add(&before)
	return true
}

// tend does once in a while what no request may wait for, until ctx ends.
func (l *Ledger) tend(ctx context.Context) {
	l.sweep()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	synced := time.Now()
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return
		case now = <-tick.C:
		}
		hour := max(hourOf(now), l.hour) // only this goroutine changes it; a clock that was set back changes nothing
		if hour > l.hour || l.file == nil {
			l.roll(hour)
		}
		if now.Sub(synced) >= l.o.Sync && l.file != nil {
			synced = now
			l.trouble(l.file.sync())
		}
		for i := range l.shards {
			s := &l.shards[i]
			s.mu.Lock()
			err := s.failed
			s.failed = nil
			s.mu.Unlock()
			l.trouble(err)
		}
	}
}

// trouble logs why something could not be stored, once a minute.
func (l *Ledger) trouble(err error) {
	if err == nil || time.Since(l.told) < time.Minute {
		return
	}
	l.told = time.Now()
	l.o.Log.Error("the usage of functions is counted but not stored", "error", err, "hint", "make room on the disk of the data directory, and see that "+l.o.Dir+" can be written")
}

// roll begins an hour, and with it, perhaps, a day. Only one goroutine calls it at a time.
func (l *Ledger) roll(hour uint32) {
	next, there := l.file, map[usageKey]Usage(nil)
	if next == nil || next.day != dayOf(hour) {
		f, sums, err := openUsage(l.o.Dir, dayOf(hour), l.o.MaxBytes/2)
		if l.trouble(err); err == nil { // else the file before is used on: what is stored there says its hour
			next, there = f, sums
		}
	}
	l.mu.Lock()
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for function, e := range s.entries {
			if s.hour == hour {
				break // the file is new, not the hour
			}
			fresh := e.fresh()
			if fresh.Calls > 0 {
				add(l.ended, usageKey{function, s.hour}, &fresh)
			}
			e.done.Add(&fresh)
			e.slot, e.now, e.base = usageSlot{}, Usage{}, Usage{}
		}
		s.hour, s.file = hour, next
		s.mu.Unlock()
	}
	old := l.file
	l.hour, l.file = hour, next
	if old != nil && old != next {
		l.ended = map[usageKey]Usage{} // from now on it is read from there
	}
	for key, u := range there {
		add(l.ended, key, &u)
	}
	l.mu.Unlock()
	if old != nil && old != next {
		l.trouble(errors.Join(old.sync(), old.close()))
		l.sweep()
	}
}

func add(to map[usageKey]Usage, key usageKey, u *Usage) {
	sum := to[key]
	sum.Add(u)
	to[key] = sum
}

// sweep makes files of days before today small, and removes those that are too old or too many.
func (l *Ledger) sweep() {
	files, err := usageFiles(l.o.Dir)
	if l.trouble(err); err != nil {
		return
	}
	today := dayOf(l.hour)
	oldest := dayOf(l.hour - 24*min(l.hour/24, uint32(l.o.Keep)))
	var total int64
	for _, name := range slices.Backward(files) { // the newest first
		day := name[:len(time.DateOnly)]
		path := filepath.Join(l.o.Dir, name)
		if day < today {
			if err := compactUsage(path); err != nil {
				l.o.Log.Warn("a file of the usage of functions stays as it is", "file", path, "error", err)
			}
		}
		info, err := os.Stat(path)
		if err != nil {
			continue // another process was faster
		}
		total += info.Size()
		if day < oldest || day < today && total > l.o.MaxBytes {
			total -= info.Size()
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				l.o.Log.Warn("an old file of the usage of functions stays", "file", path, "error", err)
			}
		}
	}
}

// A UsageQuery is what Report is asked for.
type UsageQuery struct {
	Function string        // ""; all
	Since    time.Time     // the hour in which it lies counts whole; zero: all that is kept
	By       time.Duration // an hour, a day (UTC), or 0: one sum of all
}

// A UsageSum is one line of a report.
type UsageSum struct {
	Function string
	From     time.Time // begin of the hour or day; of a sum of all: of the first hour in it
	Usage
}

// Report sums up, by function and time. Calls that ended before it was called are in it.
func (l *Ledger) Report(q UsageQuery) ([]UsageSum, error) {
	l.mu.Lock()
	own := ""
	if l.file != nil {
		own = l.file.name
	}
	all := maps.Clone(l.ended)
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for function, e := range s.entries {
			if fresh := e.fresh(); fresh.Calls > 0 {
				add(all, usageKey{function, s.hour}, &fresh)
			}
		}
		s.mu.Unlock()
	}
	l.mu.Unlock()
	since := uint32(0)
	if !q.Since.IsZero() {
		since = hourOf(q.Since)
	}
	files, err := usageFiles(l.o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, name := range files {
		if name == own || since > 0 && name[:len(time.DateOnly)] < dayOf(since-min(since, 24)) { // a day's file may have been used on for a while
			continue
		}
		sums, err := readUsage(filepath.Join(l.o.Dir, name))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotUsage) {
			continue // it was too old; or sweep tells of it
		}
		if err != nil {
			return nil, err
		}
		for key, u := range sums {
			add(all, key, &u)
		}
	}
	return report(all, q, since), nil
}

func report(all map[usageKey]Usage, q UsageQuery, since uint32) []UsageSum {
	by := uint32(q.By / time.Hour)
	sums := map[usageKey]*UsageSum{}
	for key, u := range all {
		if key.hour < since || q.Function != "" && key.function != q.Function {
			continue
		}
		hour := key.hour
		if by > 0 {
			key.hour -= key.hour % by
			hour = key.hour
		} else {
			key.hour = 0
		}
		sum := sums[key]
		if from := timeOf(hour); sum == nil {
			sum = &UsageSum{Function: key.function, From: from}
			sums[key] = sum
		} else if from.Before(sum.From) {
			sum.From = from
		}
		sum.Add(&u)
	}
	lines := make([]UsageSum, 0, len(sums))
	for _, sum := range sums {
		lines = append(lines, *sum)
	}
	slices.SortFunc(lines, func(a, b UsageSum) int {
		return cmp.Or(a.From.Compare(b.From), strings.Compare(a.Function, b.Function))
	})
	if by == 0 {
		slices.SortFunc(lines, func(a, b UsageSum) int { return strings.Compare(a.Function, b.Function) })
	}
	return lines
}

// Totals are what this process recorded since it began, by function.
func (l *Ledger) Totals() map[string]Usage {
	all := map[string]Usage{}
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for function, e := range s.entries {
			sum, fresh := all[function], e.fresh()
			sum.Add(&e.done)
			sum.Add(&fresh)
			all[function] = sum
		}
		s.mu.Unlock()
	}
	return all
}

// WritePrometheus writes the totals in Prometheus' text format.
func (l *Ledger) WritePrometheus(w io.Writer) error {
	all := l.Totals()
	names := slices.Sorted(maps.Keys(all))
	var b strings.Builder
	metric := func(name, help string, labels []string, of func(u *Usage) []float64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %[1]s counter\n", name, help)
		for _, function := range names {
			u := all[function]
			for i, v := range of(&u) {
				label := ""
				if len(labels) > 0 {
					label = "," + labels[i]
				}
				fmt.Fprintf(&b, "%s{function=%s%s} %.12g\n", name, Label(function), label, v)
			}
		}
	}
	metric("loam_function_calls_total", "Calls of functions, by whether the function answered.", []string{`outcome="answered"`, `outcome="failed"`},
		func(u *Usage) []float64 { return []float64{float64(u.Calls - u.Failed), float64(u.Failed)} })
	metric("loam_function_cold_total", "Calls of functions for which no instance waited, by what had to be done.", []string{`why="load"`, `why="start"`, `why="fork"`},
		func(u *Usage) []float64 {
			return []float64{float64(u.ColdLoad), float64(u.ColdStart), float64(u.ColdFork)}
		})
	for _, m := range []struct {
		name, help string
		of         func(u *Usage) float64
	}{
		{"cpu_seconds", "Time of the processor that functions used.", func(u *Usage) float64 { return float64(u.CPU) / 1e9 }},
		{"wall_seconds", "Time that calls of functions took.", func(u *Usage) float64 { return float64(u.Wall) / 1e9 }},
		{"memory_byte_seconds", "Memory of functions under way, times how long.", func(u *Usage) float64 { return float64(u.Memory) * 1024 / 1e6 }},
		{"request_bytes", "Bytes of bodies that functions were sent.", func(u *Usage) float64 { return float64(u.In) }},
		{"response_bytes", "Bytes of bodies that functions answered.", func(u *Usage) float64 { return float64(u.Out) }},
		{"capability_calls", "Capability calls of functions.", func(u *Usage) float64 { return float64(u.CapCalls) }},
		{"capability_sent_bytes", "Bytes that functions sent by capability calls.", func(u *Usage) float64 { return float64(u.Sent) }},
		{"capability_received_bytes", "Bytes that functions received by capability calls.", func(u *Usage) float64 { return float64(u.Received) }},
	} {
		metric("loam_function_"+m.name+"_total", m.help, nil, func(u *Usage) []float64 { return []float64{m.of(u)} })
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func hourOf(t time.Time) uint32 { return uint32(max(t.Unix(), 0) / 3600) }

func timeOf(hour uint32) time.Time { return time.Unix(int64(hour)*3600, 0).UTC() }

func dayOf(hour uint32) string { return timeOf(hour).Format(time.DateOnly) }
