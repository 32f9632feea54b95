package pubsub

import (
	"context"
	"time"

	"github.com/loam-run/loam"
)

// A Driver is what a component implements to offer publish and subscribe. Every method may be called from many
// goroutines at once. A driver whose broker carries bytes writes events by cloudevents.Encode and reads them by
// cloudevents.Message.
type Driver interface {
	// Publish appends the events, each to its Topic, all or none; they are durable once it returns.
	Publish(ctx context.Context, events []loam.Event) error
	// Subscribe delivers the topic's events to handle until ctx ends, then waits for the handlers under way, makes
	// their verdicts durable and returns nil. It delivers each event at least once to each group; with several
	// subscribers in one group, to one of them. A group that is new starts at the oldest event retained.
	Subscribe(ctx context.Context, sub Subscription, handle Handler) error
	Close() error
}

// Featured is a Driver that can something beyond the least, and says so in Dapr's words: MESSAGE_TTL,
// SUBSCRIBE_WILDCARDS.
type Featured interface{ Features() []string }

// An Instant driver publishes into memory: who calls it need not leave an event loop for it.
type Instant interface{ Instant() bool }

// A Subscription says what a consumer group wants.
type Subscription struct {
	Topic    string
	Group    string
	InFlight int // events handled at once, at most; at least 1

	// Raw asks for messages as they lie in the broker, with Event.Raw set: a driver that keeps envelopes does not open them.
	Raw      bool
	Metadata map[string]string // of the subscription, for drivers that know some

	// Begin has a delivery handled in a task of its own, which calls done with what becomes of it; it does not wait. A driver
	// that has its events at hand calls it in the place of its Handler, so that no thread is woken for an event. nil: there
	// are no tasks.
	Begin func(d Delivery, done func(Verdict))
}

// A Handler takes one delivery and says what becomes of it. Its ctx outlives the subscription's by the time a drain
// may take.
type Handler func(ctx context.Context, d Delivery) Verdict

// A Delivery is an event and how often it was handed out, this time included.
type Delivery struct {
	Event   loam.Event
	Attempt int
}

// A Verdict ends a delivery: the zero value acknowledges it, never to be delivered to that group again.
type Verdict struct {
	Retry bool          // deliver it again
	After time.Duration // not before so long
}
