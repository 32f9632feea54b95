// Package dapr speaks Dapr's API, as version 1.18 of it is: HTTP and gRPC for the program beside us, the calls that
// go back to the program, and those between sidecars. It translates into the typed calls of the capabilities and holds
// no logic of theirs. docs/dapr.md lists every route and method with what differs.
package dapr

import (
	"log/slog"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/grpc"
)

// Settings are what Dapr's API has beyond the options of every dialect. The zero value is what daprd does by default.
type Settings struct {
	AllowedOrigins string       // for CORS: "" or "*" as daprd's flag has it, or origins with commas between them
	Allowed        []AccessRule // of Configuration's spec.api: the only groups of routes and methods there are; empty: all
	Denied         []AccessRule // groups there are not, allowed or not
	Features       []string     // enabled, as metadata tells them

	AppAddress     string // of the program, as metadata tells it: 127.0.0.1
	AppPort        int    // 0: it has none
	AppProtocol    string // http, https, h2c, grpc, grpcs
	MaxConcurrency int    // calls of the program at once; 0: no bound
	Health         *AppHealth
	Namespace      string // Dapr's, which names an app besides its id; "": default
	InternalPort   int    // where other sidecars reach this one; 0: they do not

	Invocation Invocation // how other apps are reached

	Subscriptions func() []Subscription // those that are active, as metadata tells them; nil: none

	Metrics *Metrics // what counts the calls; nil: nothing does
}

// AppHealth is how often the program is asked how it is.
type AppHealth struct {
	Path      string // of HTTP; /healthz
	Interval  time.Duration
	Timeout   time.Duration
	Threshold int // probes that fail in a row before it counts as unhealthy
}

// An AccessRule names one group of the API, as spec.api of Dapr's Configuration does.
type AccessRule struct {
	Name     string // state, publish, secrets…
	Version  string // v1, v1.0-alpha1…
	Protocol string // http or grpc; "": both
}

// An API is Dapr's for one program.
type API struct {
	opts     dialect.Options
	settings Settings
	log      *slog.Logger

	channel    *channel // the program, as it is called
	invocation *invocation
	outsides   outsides

	cors    *cors // nil: there is none
	routes  *routeTable
	public  *routeTable
	maxBody int64 // bytes; 0: no bound
	budget  *protocol.Budget
	self    selfMetadata
	watches *config.Subscriptions // of the program, to configuration

	grpc      *grpc.Server
	invokes   *grpc.Server // of InvokeService alone, whose messages have another bound
	configs   configStreams
	streaming streams
}

// New makes the API.
func New(o dialect.Options, s Settings) (*API, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{opts: o, settings: s, log: o.Log, maxBody: o.App.MaxBody, budget: o.App.Budget(), cors: newCORS(s.AllowedOrigins)}
	a.watches = config.NewSubscriptions(o.Capabilities.Config, o.Log)
	a.routes = newRouteTable(httpRoutes(), s.Allowed, s.Denied)
	a.public = newRouteTable(publicRoutes(), nil, nil)
	a.routes.count(s.Metrics)
	a.public.count(s.Metrics)
	a.grpc = a.newGRPC()
	var err error
	if a.channel, err = newChannel(o, s); err != nil {
		return nil, err
	}
	if err := s.Invocation.Access.Check(); err != nil {
		return nil, err
	}
	a.invocation = newInvocation(s)
	return a, nil
}

// HTTP serves what daprd serves on its HTTP port.
func (a *API) HTTP() loam.Target { return loam.TargetFunc(a.serveHTTP) }

// GRPC serves what daprd serves on its gRPC port.
func (a *API) GRPC() loam.Target { return loam.TargetFunc(a.serveGRPC) }

// Public serves what daprd serves on its public port: health and metadata.
func (a *API) Public() loam.Target { return loam.TargetFunc(a.servePublic) }

// Close ends what the API does by itself, and waits for it.
func (a *API) Close() {
	a.watches.Close()
	a.invocation.close()
	a.outsides.close()
}
