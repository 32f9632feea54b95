package telemetry

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// begun is when the process did, as nearly as a dashboard needs it.
var begun = time.Now()

// A figure is what Go's runtime tells of itself, by the name that Prometheus' clients give it.
type figure struct{ name, kind, from, help string }

// ofRuntime leaves out what would have to stop the process to be read.
var ofRuntime = []figure{
	{"go_goroutines", "gauge", "/sched/goroutines:goroutines", "Goroutines that there are."},
	{"go_sched_gomaxprocs_threads", "gauge", "/sched/gomaxprocs:threads", "Threads that may run Go code at once."},
	{"go_gc_cycles_total", "counter", "/gc/cycles/total:gc-cycles", "Collections."},
	{"go_gc_gogc_percent", "gauge", "/gc/gogc:percent", "How much the heap may grow between collections."},
	{"go_memstats_alloc_bytes", "gauge", "/memory/classes/heap/objects:bytes", "Bytes in objects of the heap."},
	{"go_memstats_alloc_bytes_total", "counter", "/gc/heap/allocs:bytes", "Bytes that were ever allocated on the heap."},
	{"go_memstats_heap_objects", "gauge", "/gc/heap/objects:objects", "Objects of the heap."},
	{"go_memstats_heap_released_bytes", "gauge", "/memory/classes/heap/released:bytes", "Bytes of the heap that were given back to the system."},
	{"go_memstats_next_gc_bytes", "gauge", "/gc/heap/goal:bytes", "Size of the heap at which the next collection begins."},
	{"go_memstats_sys_bytes", "gauge", "/memory/classes/total:bytes", "Bytes that Go's runtime has from the system."},
}

// WriteProcess writes what the process uses in Prometheus' text format, by the names that its clients share:
// process_… (prometheus.io, "Writing client libraries") and go_…. What the system does not tell is left out.
func WriteProcess(w io.Writer) error {
	var b strings.Builder
	put := func(name, kind, help string, value float64) {
		fmt.Fprintf(&b, "# HELP %[1]s %[2]s\n# TYPE %[1]s %[3]s\n%[1]s %[4]s\n", name, help, kind, strconv.FormatFloat(value, 'g', -1, 64))
	}
	put("process_start_time_seconds", "gauge", "When the process began, in seconds since 1970.", float64(begun.UnixMilli())/1000)
	if cpu, ok := processorTime(); ok {
		put("process_cpu_seconds_total", "counter", "Processor time, of user and system.", cpu.Seconds())
	}
	var virtual, resident float64
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if _, err := fmt.Sscan(string(text), &virtual, &resident); err == nil {
			page := float64(os.Getpagesize())
			put("process_virtual_memory_bytes", "gauge", "Memory that is mapped.", virtual*page)
			put("process_resident_memory_bytes", "gauge", "Memory that is there.", resident*page)
		}
	}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		put("process_open_fds", "gauge", "Files and sockets that are open.", float64(len(files)-1)) // one reads the folder
	}
	if n, ok := mostFiles(); ok {
		put("process_max_fds", "gauge", "Files and sockets that may be open.", n)
	}
	fmt.Fprintf(&b, "# HELP go_info The version of Go.\n# TYPE go_info gauge\ngo_info{version=%s} 1\n", Label(runtime.Version()))
	samples := make([]metrics.Sample, len(ofRuntime))
	for i := range ofRuntime {
		samples[i].Name = ofRuntime[i].from
	}
	metrics.Read(samples)
	for i, g := range ofRuntime {
		if samples[i].Value.Kind() == metrics.KindUint64 {
			put(g.name, g.kind, g.help, float64(samples[i].Value.Uint64()))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// processorTime is that of all threads, to a hundredth of a second (proc(5), stat's fields 14 and 15).
func processorTime() (time.Duration, bool) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // the name before it may hold anything
	if len(fields) < 13 {
		return 0, false
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, err1 == nil && err2 == nil
}

// mostFiles is how many may be open at once; false where that is unlimited or unknown.
func mostFiles() (float64, bool) {
	text, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			n, err := strconv.ParseFloat(strings.Fields(rest + " ?")[0], 64)
			return n, err == nil
		}
	}
	return 0, false
}
