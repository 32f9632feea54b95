package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/dialect/dapr"
	"github.com/loam-run/loam/snapshot"
	"github.com/loam-run/loam/target/function"
	"github.com/loam-run/loam/telemetry"
	"github.com/loam-run/loam/wasm"
)

// used writes a call of a function into the ledger, before its answer goes out.
func (s *server) used(u *wasm.Usage) {
	sum := telemetry.Usage{
		Calls: 1, CPU: int64(u.CPU), Wall: int64(u.Wall), Memory: u.Memory / 1024, In: u.In, Out: max(u.Out, 0),
		CapCalls: u.Calls, Sent: u.Sent, Received: u.Received,
	}
	if u.Code != loam.OK {
		sum.Failed = 1
	}
	switch u.Cold {
	case wasm.ColdLoad:
		sum.ColdLoad = 1
	case wasm.ColdStart:
		sum.ColdStart = 1
	case wasm.ColdFork:
		sum.ColdFork = 1
	}
	s.ledger.Record(u.Shard, u.Function, &sum)
}

// Usage is what functions used.
func (s *server) Usage(q telemetry.UsageQuery) ([]telemetry.UsageSum, error) {
	return s.ledger.Report(q)
}

// Traffic is what routes sent to their targets.
func (s *server) Traffic() []admin.Traffic {
	all := []admin.Traffic{}
	for _, sum := range s.series.All() {
		all = append(all, admin.Traffic{
			Route: sum.Route, Target: sum.Target, Requests: sum.Requests, Errors: sum.Errors(), InFlight: sum.InFlight,
			P50: sum.Quantile(0.5), P99: sum.Quantile(0.99),
		})
	}
	return all
}

// Profile writes a CPU profile of a function.
func (s *server) Profile(ctx context.Context, name string, d time.Duration, w io.Writer) error {
	if h := (*s.named.Load())[snapshot.TargetRef{Kind: "Function", Name: name}]; h != nil {
		if v := h.current.Load(); v != nil {
			if f, ok := v.target.(*function.Function); ok {
				return f.Profile(ctx, d, w)
			}
		}
		return loam.Errorf(loam.Unavailable, "profile "+strconv.Quote(name), "it is not ready; see loam get")
	}
	return &loam.Error{Code: loam.NotFound, Op: "profile", Err: fmt.Errorf("there is no function %q", name), Hint: "see what there is: loam get function"}
}

// WriteMetrics writes what is counted in Prometheus' text format.
func (s *server) WriteMetrics(w io.Writer) error {
	err := errors.Join(s.series.WritePrometheus(w), s.acts.WritePrometheus(w), s.ledger.WritePrometheus(w), telemetry.WriteProcess(w))
	metrics := s.dapr.Load()
	if metrics == nil {
		return err
	}
	var loaded []dapr.Loaded
	for _, f := range s.open.Load().all {
		if !f.plan.Embedded { // nobody declared it
			loaded = append(loaded, dapr.Loaded{Name: f.plan.Name, Type: f.plan.Type, Opened: f.opened, Failed: f.failed})
		}
	}
	return errors.Join(err, metrics.WritePrometheus(w, loaded))
}
