package snapshot

import (
	"github.com/loam-run/loam"
	"github.com/loam-run/loam/resource"
)

// Env is what Build knows beside the resources.
type Env struct {
	Factories []loam.Factory // every type of component in the binary
	Embedded  []Component    // what a capability has as its default while no resource says otherwise
	Address   string         // host:port of the Gateway there is when none is declared; default 127.0.0.1:8080
}

// Build compiles what a provider loaded. A resource that is broken, by itself (problems) or in what it names, gets a
// status that says so and keeps its version of prev, which may be nil, as long as that still holds together; it takes
// nothing else down but what depends on it.
func Build(objects []*resource.Object, problems []resource.Problem, prev *Plan, env Env) *Plan {
	return &Plan{}
}

// Hash is a value's digest, the same in every process: an item whose hash stays may go on running.
func Hash(item any) string { return "" }
