// Package telemetry counts what happened and writes it down: how many requests of which route went to which target, how
// many failed and how long they took (Series), and a line for each of them, or for a sample of them (AccessLog). It is
// called at a request's end and must cost it next to nothing: nothing is allocated, and no two cores write to one place.
package telemetry

import (
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Labels say what a Series counts.
type Labels struct {
	Route  string
	Target string
}

// A Set is all series there are. It is safe for concurrent use.
type Set struct {
	shards int
	mu     sync.Mutex
	series map[Labels]*Series
}

// NewSet makes an empty set for tasks of as many shards.
func NewSet(shards int) *Set { return &Set{shards: shards, series: map[Labels]*Series{}} }

// Series returns the one with those labels, making it if it is not there: a route that comes back after a change of the
// configuration counts on.
func (s *Set) Series(l Labels) *Series {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.series[l]
	if one == nil {
		one = &Series{Labels: l, shards: make([]shard, s.shards)}
		s.series[l] = one
	}
	return one
}

// Keep drops the series of all labels that keep says no to.
func (s *Set) Keep(keep func(Labels) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.series {
		if !keep(l) {
			delete(s.series, l)
		}
	}
}

// All returns the sums of every series, by route and target.
func (s *Set) All() []Sum {
	s.mu.Lock()
	sums := make([]Sum, 0, len(s.series))
	for _, one := range s.series {
		sums = append(sums, one.Sum())
	}
	s.mu.Unlock()
	slices.SortFunc(sums, func(a, b Sum) int {
		if a.Route != b.Route {
			return strings.Compare(a.Route, b.Route)
		}
		return strings.Compare(a.Target, b.Target)
	})
	return sums
}

// A Series counts the requests that one route sent to one target.
type Series struct {
	Labels
	shards []shard
}

// Buckets are half powers of two of a microsecond, from 1 µs to 2 min.
const buckets = 54

// shard is what the tasks of one loop write. The counters are atomic for shard 0, which has many writers, and for who
// reads them; uncontended that costs a few nanoseconds.
type shard struct {
	classes  [6]atomic.Uint64 // by status/100; 0 is what was none
	sent     atomic.Uint64
	nanos    atomic.Uint64
	inFlight atomic.Int64
	latency  [buckets]atomic.Uint64
	_        [64]byte
}

// Begin counts a request as under way in a shard.
func (s *Series) Begin(shard int) { s.shards[shard].inFlight.Add(1) }

// End counts its end.
func (s *Series) End(shard, status int, sent int64, took time.Duration) {
	h := &s.shards[shard]
	h.inFlight.Add(-1)
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	h.classes[class].Add(1)
	if sent > 0 {
		h.sent.Add(uint64(sent))
	}
	took = max(took, 0)
	h.nanos.Add(uint64(took))
	h.latency[bucket(took)].Add(1)
}

// bucket is where a duration counts: the first whose Bound is not below it.
func bucket(d time.Duration) int {
	if d <= time.Microsecond {
		return 0
	}
	k := bits.Len64(uint64(d-1) / 1000) // d is in (1 µs << k-1, 1 µs << k]
	i := 2 * k
	if d <= 1500<<(k-1) {
		i--
	}
	return min(i, buckets-1)
}

// Bound is the longest duration that counts in bucket i; the last has none.
func Bound(i int) time.Duration {
	if i%2 == 0 {
		return time.Microsecond << (i / 2)
	}
	return 1500 << (i / 2)
}

// A Sum is a series at one moment.
type Sum struct {
	Labels
	Requests uint64
	Classes  [6]uint64 // by status/100; 0 is what had none
	InFlight int64
	Sent     uint64        // bytes of bodies
	Total    time.Duration // of all together
	Latency  [buckets]uint64
}

// Sum adds the shards up.
func (s *Series) Sum() Sum {
	sum := Sum{Labels: s.Labels}
	for i := range s.shards {
		h := &s.shards[i]
		for c := range h.classes {
			n := h.classes[c].Load()
			sum.Classes[c] += n
			sum.Requests += n
		}
		sum.InFlight += h.inFlight.Load()
		sum.Sent += h.sent.Load()
		sum.Total += time.Duration(h.nanos.Load())
		for b := range h.latency {
			sum.Latency[b] += h.latency[b].Load()
		}
	}
	return sum
}

// Errors are the requests that this side failed: 5xx, and those that had no status.
func (s Sum) Errors() uint64 { return s.Classes[5] + s.Classes[0] }

// Quantile is the duration that a share of q of the requests did not exceed, as exactly as the buckets are.
func (s Sum) Quantile(q float64) time.Duration {
	var total uint64
	for _, n := range s.Latency {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank := uint64(q * float64(total))
	var below uint64
	for i, n := range s.Latency {
		if below += n; below > rank || below == total {
			return Bound(i)
		}
	}
	return Bound(buckets - 1)
}

// WritePrometheus writes every series in Prometheus' text format.
func (s *Set) WritePrometheus(w io.Writer) error {
	var b strings.Builder
	sums := s.All()
	label := func(l Labels) string {
		return fmt.Sprintf("route=%s,target=%s", Label(l.Route), Label(l.Target))
	}
	b.WriteString("# HELP loam_requests_total Requests that were answered, by the class of their status.\n# TYPE loam_requests_total counter\n")
	for _, sum := range sums {
		for class, n := range sum.Classes {
			if n > 0 {
				fmt.Fprintf(&b, "loam_requests_total{%s,code=\"%dxx\"} %d\n", label(sum.Labels), class, n)
			}
		}
	}
	b.WriteString("# HELP loam_requests_in_flight Requests under way.\n# TYPE loam_requests_in_flight gauge\n")
	for _, sum := range sums {
		fmt.Fprintf(&b, "loam_requests_in_flight{%s} %d\n", label(sum.Labels), sum.InFlight)
	}
	b.WriteString("# HELP loam_response_bytes_total Bytes of response bodies.\n# TYPE loam_response_bytes_total counter\n")
	for _, sum := range sums {
		fmt.Fprintf(&b, "loam_response_bytes_total{%s} %d\n", label(sum.Labels), sum.Sent)
	}
	b.WriteString("# HELP loam_request_duration_seconds From a request's head to the end of its answer.\n# TYPE loam_request_duration_seconds histogram\n")
	for _, sum := range sums {
		var below uint64
		for i, n := range sum.Latency {
			below += n
			if i%4 == 0 && i < buckets-1 { // every power of four: what a dashboard needs
				fmt.Fprintf(&b, "loam_request_duration_seconds_bucket{%s,le=\"%g\"} %d\n", label(sum.Labels), Bound(i).Seconds(), below)
			}
		}
		fmt.Fprintf(&b, "loam_request_duration_seconds_bucket{%s,le=\"+Inf\"} %d\n", label(sum.Labels), below)
		fmt.Fprintf(&b, "loam_request_duration_seconds_sum{%s} %g\n", label(sum.Labels), sum.Total.Seconds())
		fmt.Fprintf(&b, "loam_request_duration_seconds_count{%s} %d\n", label(sum.Labels), below)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Label is a label's value as Prometheus' text format has it, quoted: UTF-8, in which only three are escaped.
func Label(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "\uFFFD")) + `"`
}
