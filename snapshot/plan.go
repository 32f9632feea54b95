// Package snapshot compiles resources to one immutable value. Build is pure: it turns objects into a Plan, which says
// all that shall run and why what is broken is. What runs by it is made elsewhere, item by item, and kept as long as
// the item's Hash stays.
package snapshot

import (
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/route"
)

// A Plan is what a set of resources comes to. It is immutable.
type Plan struct {
	Listeners     []Listener
	Routes        []Route
	Functions     []Function
	Apps          []App
	Components    []Component
	Subscriptions []Subscription
	Statuses      []Status // one for each declared resource, the implicit Gateway and each file with a part that names none

	good map[string]*resource.Object // the last version of each that held together, by key
}

// A Listener is a socket to open.
type Listener struct {
	Name    string // its Gateway and listener: "default/http"
	Gateway string
	Address string // host:port
}

// A Route is one rule of an HTTPRoute at one listener.
type Route struct {
	Name     string // "HTTPRoute/shop rules[0]"
	Listener string // Name of it
	Hosts    []string
	Matches  []route.Match
	Timeout  time.Duration // 0: the target's own
	Backends []Backend
}

// A Backend is a target by name and its share of a route's requests.
type Backend struct {
	TargetRef
	Weight int
	Broken string // why there is no such target: it answers 500, as the Gateway API asks
}

// A TargetRef names a function or app.
type TargetRef struct {
	Kind string // Function or App
	Name string
}

// A Function is Wasm to run.
type Function struct {
	Name        string
	File        string // joined to the folder of the file that declares it
	Source      string // likewise; empty: there is none
	ABI         string
	Isolation   string
	Env         map[string]string
	Timeout     time.Duration
	Memory      int64 // bytes
	Concurrency int
	Grants      []loam.Grant // components by their own names
}

// An App is a program to start, or one at Address.
type App struct {
	Name    string
	Address string // where it runs already; empty: Command or Source is started
	Command []string
	Source  string // folder, joined to that of the file that declares it; empty: Command
	Binary  string // what Source is built to: build/<name> beside that file
	Dir     string // it runs in
	Env     map[string]string
	Port    int // 0: a free one
	Health  string
	Grants  []loam.Grant
}

// A Component is a driver to open.
type Component struct {
	Name       string
	Capability string
	Type       string
	Metadata   map[string]string
	Default    bool // the capability's own, for who names none
}

// A Subscription delivers one topic to one target.
type Subscription struct {
	Name       string // of the resource; several share it where it has several scopes
	Component  string
	Topic      string
	Path       string
	Target     TargetRef
	Group      string // the target's kind and name: who subscribes twice still gets an event once
	DeadLetter string // topic; empty: retries go on for ever
	Deliveries int    // before DeadLetter
	InFlight   int
	RetryAfter time.Duration // the first time
}

// A Status says what became of one resource.
type Status struct {
	Key      string // Kind/name; empty: a document that names none
	File     string
	Line     int
	Ready    bool
	Reason   string             // Ready, or Invalid, Duplicate, Unresolved or Conflict
	Problems []resource.Problem // why it is not ready
	Warnings []resource.Problem // what is odd about one that is
	Previous bool               // not ready, but its last good version still serves
}
