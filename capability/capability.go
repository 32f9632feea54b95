// Package capability is all capabilities together, as those find them that bring calls to them.
package capability

import (
	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/secret"
	"github.com/loam-run/loam/capability/sequence"
	"github.com/loam-run/loam/capability/state"
)

// A Set is the capabilities that are configured at this moment. Each method finds the component of a name, "" being the
// capability's default, and fails with NotFound where none of that name was declared, with Unavailable where it did
// not open. What it returns is for one call: after a reload the same name may be another component.
type Set interface {
	State(component string) (*state.Store, error)
	Pubsub(component string) (*pubsub.Bus, error)
	Lock(component string) (*lock.Locker, error)
	Config(component string) (*config.Config, error)
	Sequence(component string) (*sequence.Sequence, error)
	Secret(component string) (*secret.Store, error)
	Binding(component string) (*binding.Binding, error)
	Crypto(component string) (*crypto.Crypto, error)
	File(component string) (*file.Store, error)
	Jobs(component string) (*jobs.Jobs, error)
	// Invoker calls functions, apps and services by name.
	Invoker() *invoke.Invoker
	// Components are those that caller may reach, by capability and name, those that did not open too.
	Components(caller *loam.Caller) []Component
}

// A Component is what is told of one.
type Component struct {
	Name       string
	Capability string // state, pubsub…
	Type       string // as it was declared: state.redis
	Version    string
	Features   []string          // what it can beyond the least, in Dapr's words: ETAG, TRANSACTIONAL…
	Settings   map[string]string // metadata that is the capability's, not the technology's: keyPrefix
	Err        error             // why it did not open; nil: it is open
}
