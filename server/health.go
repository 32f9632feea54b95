package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/loam-run/loam"
)

// degraded tells who asks how the sidecar is what it lacks, though it serves.
func (s *server) degraded(next loam.Target) loam.Target {
	return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		res, err := next.Serve(req)
		if err == nil && (req.Path == "/v1.0/healthz" || req.Path == "/v1.0/healthz/outbound") {
			if lacks := s.lacks(); lacks != "" {
				res.Header.Add("Loam-Degraded", lacks)
			}
		}
		return res, err
	})
}

// lacks names the components that did not open, but for those that may be missing, and those whose declaration is wrong.
func (s *server) lacks() string {
	var all []string
	if c := s.status.Load(); c != nil {
		all = slices.Clone(c.wrong)
	}
	for _, f := range s.open.Load().all {
		if f.err != nil && !f.plan.Optional && !slices.Contains(all, f.plan.Name) {
			all = append(all, f.plan.Name)
		}
	}
	return strings.Join(all, ", ")
}

// healthy tells whether what must be there is: components that demand it.
func (s *server) healthy() error {
	for _, f := range s.open.Load().all {
		if f.plan.Fatal && f.made == nil {
			return fmt.Errorf("component %s did not open: %w", f.plan.Name, f.err)
		}
	}
	return nil
}
