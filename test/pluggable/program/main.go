// Command program is components as Dapr's users write them, with Dapr's SDK for Go. It keeps everything in memory, and a
// group's place for each consumerID of a subscription.
package main

import (
	components "github.com/dapr-sandbox/components-go-sdk"
	"github.com/dapr-sandbox/components-go-sdk/bindings/v1"
	"github.com/dapr-sandbox/components-go-sdk/pubsub/v1"
	"github.com/dapr-sandbox/components-go-sdk/state/v1"
)

func main() {
	components.Register("memory",
		components.WithStateStore(func() state.Store { return newStore() }),
		components.WithPubSub(func() pubsub.PubSub { return newTopics() }),
		components.WithOutputBinding(func() bindings.OutputBinding { return echo{} }),
		components.WithInputBinding(func() bindings.InputBinding { return &ticks{} }),
	)
	components.MustRun()
}
