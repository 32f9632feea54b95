// Package policy holds what is done on the way to a target: each policy is a loam.Policy in a file of its own, and
// knows of no other. Chain is the order they stand in.
//
// A constructor such as Retry makes a policy that keeps nothing. One that makes a value, such as NewBreaker, keeps what
// it counts in that value: its method Policy may be called many times, all count together, and who keeps the value keeps
// the counts when the configuration round it changes.
//
// They are blocking-style code that waits only by the request's loam.Task, so they run on an event loop and on
// goroutines alike. A request that a policy lets pass and that succeeds costs next to nothing: no allocation, no lock
// that another core wants, no context.
package policy

import (
	"github.com/loam-run/loam"
)

// A Chain is the policies of one way to a target, in the order that they see a request. Nil ones are left out. Each stands
// where it does for a reason.
type Chain struct {
	// What looks at the request as it came.

	Limits    loam.Policy // what is too large is refused before anybody reads it
	CORS      loam.Policy // a preflight carries no credentials: it is answered before those are asked for
	Authn     loam.Policy // who asks: what follows may depend on it
	Authz     loam.Policy // who may not, does not use up what others share
	RateLimit loam.Policy // counts by who asks; what it refuses costs the target nothing
	Fault     loam.Policy // fails as the target would, so that what guards callers from the target does not hide it

	// What changes it.

	Compression     loam.Policy // the last to touch an answer's body, and none of the copies below
	Session         loam.Policy // which endpoint, before one is chosen
	ResponseHeaders loam.Policy // of whatever answers below, a redirect too
	Redirect        loam.Policy // answers by what was asked for, before that is rewritten
	RequestHeaders  loam.Policy
	Rewrite         loam.Policy
	Mirror          loam.Policy // copies what the target gets, once however often it is tried

	// What guards caller and target from each other.

	Timeout  loam.Policy // bounds all that follows: waits, tries and pauses between them
	Retry    loam.Policy // each try passes what is below
	Hedge    loam.Policy // tries side by side, each counted below
	Bulkhead loam.Policy // a pause between two tries holds no place in it
	Adaptive loam.Policy // measures the target and not the wait for a place
	Breaker  loam.Policy // the target's own failures and no others open it
	Try      loam.Policy // the time of one try, without the waits above
}

// Build makes one policy of a chain.
func Build(c Chain) loam.Policy {
	return func(t loam.Target) loam.Target {
		for _, p := range []loam.Policy{ // from the target outwards
			c.Try, c.Breaker, c.Adaptive, c.Bulkhead, c.Hedge, c.Retry, c.Timeout,
			c.Mirror, c.Rewrite, c.RequestHeaders, c.Redirect, c.ResponseHeaders, c.Session, c.Compression,
			c.Fault, c.RateLimit, c.Authz, c.Authn, c.CORS, c.Limits,
		} {
			if p != nil {
				t = p(t)
			}
		}
		return t
	}
}

// Join makes one policy of several of a kind, the first outermost; nil of none.
func Join(policies ...loam.Policy) loam.Policy {
	switch len(policies) {
	case 0:
		return nil
	case 1:
		return policies[0]
	}
	return func(t loam.Target) loam.Target { return loam.Wrap(t, policies...) }
}
