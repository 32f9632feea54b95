package policy

import "github.com/loam-run/loam"

// An Act is something out of the ordinary that a policy did, to be counted.
type Act uint8

// The acts.
const (
	Retried         Act = iota // a request was sent again
	OverBudget                 // it was not, for want of budget
	Hedged                     // a second try began beside the first
	BreakerOpened              //
	BreakerClosed              //
	BreakerRefused             // a request found the breaker open
	BulkheadRefused            // no place became free in time
	Shed                       // beyond the limit that adapts
	RateLimited                //
	Delayed                    // by fault injection
	Aborted                    // by fault injection
	Mirrored                   //
	MirrorDropped              // too many copies are under way, or the body is too large for one
	Unauthenticated            //
	Forbidden                  //
)

var acts = [...]string{
	"retried", "over-budget", "hedged", "breaker-opened", "breaker-closed", "breaker-refused", "bulkhead-refused", "shed",
	"rate-limited", "delayed", "aborted", "mirrored", "mirror-dropped", "unauthenticated", "forbidden",
}

// String is the act in words, as metrics name it.
func (a Act) String() string { return acts[a] }

// A Told is told what policies do. It must not wait, nor keep the request. Nil: nobody is told.
type Told func(req *loam.Request, act Act)

func (tell Told) of(req *loam.Request, act Act) {
	if tell != nil {
		tell(req, act)
	}
}
