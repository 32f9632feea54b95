package dapr

import (
	"github.com/loam-run/loam"
	"github.com/loam-run/loam/dialect"
)

// A channel is the program, as it is called.
type channel struct{}

func newChannel(dialect.Options, Settings) (*channel, error) { return &channel{}, nil }

// Callback is how the program is told of events, bindings and jobs.
func (a *API) Callback() dialect.Callback { return nil }

// pushConfiguration posts a change of a configuration store to the program: POST /configuration/{store}/{key}.
func (a *API) pushConfiguration(store, key string, body []byte) error {
	return loam.Errorf(loam.Unimplemented, "dapr", "not built yet")
}
