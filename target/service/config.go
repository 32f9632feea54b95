package service

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"github.com/loam-run/loam"
)

// Config is all a Service is made of. The zero value of a field is the default beside it.
type Config struct {
	Name      string    // as errors, logs and Status call it; required
	Discovery Discovery // where the endpoints come from; required
	// Open makes the way to an endpoint: a client that sends requests to its address. It is called once for each address
	// and must not wait. Required.
	Open   func(address string) Transport
	Shards int // more than every Task.Shard that will be seen, as loop.Engine.Shards has it; 1

	Algorithm Algorithm // LeastRequest
	HashOn    Key       // what of a request RingHash and Maglev go by; nil, or a request without it: any endpoint
	// BoundedLoad keeps an endpoint of RingHash from having more than so many times the mean of requests under way: 1.25
	// is a common choice. 0: no bound.
	BoundedLoad float64
	Decay       time.Duration // after which PeakEWMA has forgotten most of a latency; 10s
	SlowStart   time.Duration // in which a new or returned endpoint comes to its full share; 0: at once

	Zone string // endpoints of this zone are preferred while half of them can be used; "": all are equal
	// PanicBelow is the share of endpoints, 0 to 1, that must be usable for health to count: with fewer, requests go to
	// all of them, since few would be overrun. 0: only where none is usable.
	PanicBelow float64
	// MaxRequests bounds what one endpoint has under way, those that wait for a connection too. What is beyond goes to
	// another endpoint, or is refused where all are full. 0: no bound.
	MaxRequests int
	// GRPC says that requests are gRPC's: a grpc-status in the answer's header tells of failure too.
	GRPC bool

	Active  *Active  // nil: endpoints are not asked
	Passive *Passive // nil: what requests see of an endpoint counts for nothing

	// Before is the service that this one takes the place of: what it has learned of its endpoints is not learned again by
	// sending requests to those that are dead. nil: there was none.
	Before *Service

	Log  *slog.Logger // of endpoints that come, go, fail and return; nil: nothing is logged
	Seed uint64       // of what is random, for tests; 0: the process's own
}

// A Transport sends requests to one endpoint: protocol/http1.Client is one.
type Transport interface {
	loam.Target
	// Close lets go of connections that are kept. Requests under way go on to their end.
	Close()
}

// An Algorithm picks the endpoint of a request. Each of them heeds weights: Maglev within a percent or two, RingHash within
// a fifth, since its points fall as they fall. Those two do not heed SlowStart: a key that moves twice is worse than a
// cold endpoint.
type Algorithm uint8

// The algorithms.
const (
	LeastRequest Algorithm = iota // of two taken at random, the one with less under way (power of two choices)
	RoundRobin                    // one after the other
	Random                        //
	PeakEWMA                      // of two taken at random, the one with less latency times requests under way
	RingHash                      // by a key: a ring of points (ketama); one endpoint less moves only its own keys
	Maglev                        // by a key: a table; picks faster and more evenly, moves a few keys more
)

// String is the algorithm's name in configuration.
func (a Algorithm) String() string {
	if names := [...]string{"least-request", "round-robin", "random", "peak-ewma", "ring-hash", "maglev"}; int(a) < len(names) {
		return names[a]
	}
	return "unknown"
}

// ParseAlgorithm is the algorithm of that name; "" is the default.
func ParseAlgorithm(name string) (Algorithm, error) {
	for a := LeastRequest; a <= Maglev; a++ {
		if name == a.String() {
			return a, nil
		}
	}
	if name == "" {
		return LeastRequest, nil
	}
	return 0, loam.Errorf(loam.InvalidArgument, "load balancer", "there is no algorithm %q", name)
}

// An Endpoint is one place that a service is served at.
type Endpoint struct {
	Address string            // host:port; no two have the same
	Weight  int               // its share beside the others'; 0: 1
	Zone    string            // where it stands
	Labels  map[string]string // what subsets choose by
}

func (e Endpoint) equal(o Endpoint) bool {
	return e.Address == o.Address && e.Weight == o.Weight && e.Zone == o.Zone && maps.Equal(e.Labels, o.Labels)
}

// A Discovery finds the endpoints of a service.
type Discovery interface {
	// Run calls update with all endpoints as soon as it knows them, and again when they change, and returns when ctx ends
	// or nothing can change any more. update keeps the list it was given. Where it cannot tell, it calls update with an error, and the last list stays in use.
	Run(ctx context.Context, update func([]Endpoint, error))
}

// DiscoveryFunc is a Discovery made of a func.
type DiscoveryFunc func(ctx context.Context, update func([]Endpoint, error))

// Run calls f.
func (f DiscoveryFunc) Run(ctx context.Context, update func([]Endpoint, error)) { f(ctx, update) }

// Active asks endpoints how they are, one goroutine for each. An endpoint is usable until its first answer, which counts
// at once; from then on the thresholds do.
type Active struct {
	Check     Check         // one question; required
	Interval  time.Duration // between two of them, give or take a tenth; 10s
	Timeout   time.Duration // of one; 2s
	Healthy   int           // so many good answers in a row bring an endpoint back; 2
	Unhealthy int           // so many bad ones take it out; 3
}

// A Check asks the endpoint at address how it is, by its transport or otherwise: nil is good. It may block; it ends with
// ctx.
type Check func(ctx context.Context, address string, via loam.Target) error

// Passive takes endpoints out for what requests see of them: no answer, one that came too late, or a status of 500 and
// above. An ejected endpoint returns after Ejection times how often it was ejected lately, at most ten times.
type Passive struct {
	ConsecutiveErrors int           // so many in a row; 0: not counted
	Ratio             float64       // of errors, 0 to 1, in an Interval; 0: not counted
	MinRequests       int           // in an Interval, before Ratio counts; 20
	Interval          time.Duration // 10s
	Ejection          time.Duration // 30s
	MaxEjected        float64       // share of endpoints, 0 to 1, that may be out at once, and always one; 0.5
}
