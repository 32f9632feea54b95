package telemetry

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
)

// Acts count what policies did out of the ordinary: retries, refusals, breakers that opened. The zero value is ready.
type Acts struct{ m sync.Map }

type actKey struct{ route, act string }

// Add counts one act.
func (a *Acts) Add(route, act string) {
	key := actKey{route, act}
	n, ok := a.m.Load(key)
	if !ok {
		n, _ = a.m.LoadOrStore(key, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

// An Act is how often a route's policies did something.
type Act struct {
	Route, Act string
	Count      uint64
}

// All returns the counts, by route and act.
func (a *Acts) All() []Act {
	var all []Act
	a.m.Range(func(k, n any) bool {
		all = append(all, Act{k.(actKey).route, k.(actKey).act, n.(*atomic.Uint64).Load()})
		return true
	})
	slices.SortFunc(all, func(x, y Act) int { return cmp.Or(cmp.Compare(x.Route, y.Route), cmp.Compare(x.Act, y.Act)) })
	return all
}

// WritePrometheus writes the counts in Prometheus' text format.
func (a *Acts) WritePrometheus(w io.Writer) error {
	if _, err := io.WriteString(w, "# HELP loam_policy_acts_total What policies did out of the ordinary.\n# TYPE loam_policy_acts_total counter\n"); err != nil {
		return err
	}
	for _, act := range a.All() {
		if _, err := fmt.Fprintf(w, "loam_policy_acts_total{route=%s,act=%s} %d\n", Label(act.Route), Label(act.Act), act.Count); err != nil {
			return err
		}
	}
	return nil
}
