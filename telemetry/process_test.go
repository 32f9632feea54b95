package telemetry

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func TestWriteProcess(t *testing.T) {
	garbage := make([][]byte, 64)
	for i := range garbage {
		garbage[i] = make([]byte, 1<<20)
		for at := 0; at < len(garbage[i]); at += 4096 {
			garbage[i][at] = 1
		}
	}
	var b strings.Builder
	if err := WriteProcess(&b); err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(garbage)
	values := map[string]float64{}
	for line := range strings.Lines(b.String()) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, " ")
		v, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			t.Errorf("%q", line)
		}
		if _, again := values[name]; again {
			t.Errorf("%s is there twice", name)
		}
		values[name] = v
	}
	const alive = 64 << 20
	least := map[string]float64{
		"process_start_time_seconds": 1.7e9, `go_info{version="` + runtime.Version() + `"}`: 1, "go_goroutines": 1, "go_sched_gomaxprocs_threads": 1,
		"go_memstats_alloc_bytes": alive, "go_memstats_alloc_bytes_total": alive, "go_memstats_sys_bytes": alive, "go_memstats_next_gc_bytes": alive,
		"go_memstats_heap_objects": 64,
	}
	if runtime.GOOS == "linux" {
		least["process_resident_memory_bytes"], least["process_virtual_memory_bytes"] = alive, alive
		least["process_open_fds"], least["process_max_fds"], least["process_cpu_seconds_total"] = 3, 3, 0
	}
	for name, l := range least {
		if v, ok := values[name]; !ok || v < l {
			t.Errorf("%s is %g (%t)", name, v, ok)
		}
	}
	if open := values["process_open_fds"]; open > 1000 {
		t.Errorf("%g files are open", open)
	}
}
