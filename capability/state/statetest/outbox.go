package statetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/state"
)

// RunOutbox tests publishing inside a transaction. open returns a state driver, a pubsub driver that shares its commit,
// and one that does not.
func RunOutbox(t *testing.T, open func(t *testing.T) (s state.Outbox, shared, stranger pubsub.Driver)) {
	s, bus, stranger := open(t)
	if !s.SharesCommit(bus) || s.SharesCommit(stranger) || s.SharesCommit(nil) {
		t.Error("SharesCommit tells the buses wrongly apart")
	}
	event := func(id string) []loam.Event { return []loam.Event{{ID: id, Topic: "t", Time: time.Now()}} }
	etags, err := s.ApplyAndPublish(t.Context(), []state.Op{{Key: "k", Value: []byte("x")}}, bus, event("1"))
	if err != nil || len(etags) != 1 || etags[0] == "" {
		t.Fatalf("%q, %v", etags, err)
	}
	if _, err := s.ApplyAndPublish(t.Context(), []state.Op{{Key: "k", IfAbsent: true}}, bus, event("refused")); loam.CodeOf(err) != loam.AlreadyExists {
		t.Errorf("a condition that does not hold: %v", err)
	}
	if _, err := s.ApplyAndPublish(t.Context(), nil, bus, event("2")); err != nil {
		t.Errorf("events without writes: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	if err := bus.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g", InFlight: 1}, func(_ context.Context, d pubsub.Delivery) pubsub.Verdict {
		if got = append(got, d.Event.ID); d.Event.ID == "2" {
			cancel()
		}
		return pubsub.Verdict{}
	}); err != nil {
		t.Error(err)
	}
	if !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("delivered: %q", got)
	}
}
