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
	Routes        []Route  // of requests
	Streams       []Stream // of connections
	Services      []Service
	Policies      []TargetPolicy // what holds for a function, app or service whoever asks it
	Functions     []Function
	Apps          []App
	Components    []Component
	Subscriptions []Subscription
	Inputs        []Input
	APIs          []API
	HTTPEndpoints []HTTPEndpoint
	Resiliency    Resiliency // of calls that no app's API makes: what has no scopes
	Statuses      []Status   // one for each declared resource, the implicit Gateway and each file with a part that names none

	good map[string]*resource.Object // the last version of each that held together, by key
}

// A Listener is a socket to open. It has one Section for each listener of its Gateway that shares its port. A connection
// belongs to a section by its protocol and, for TLS, by the server name it asks for; a request by its host: to the
// section of the most specific Hostname that takes it, and to no other (the standard's listener isolation).
type Listener struct {
	Name        string // the first section's, and its address where its Gateway has several
	Gateway     string
	Address     string // host:port
	Connections Connections
	Sections    []Section // of protocol TCP: one; else of HTTP, HTTPS and TLS
}

// A Section is one listener of a Gateway. Two sockets have the same where the Gateway has two addresses.
type Section struct {
	Name     string // its Gateway and listener: "default/http"
	Protocol string // HTTP, HTTPS, TLS or TCP
	Hostname string // "" any; "*.example.com" what ends so
	Port     int
	TLS      *ServerTLS // of HTTPS and TLS
}

// ServerTLS is how a section speaks TLS.
type ServerTLS struct {
	Passthrough  bool          // it does not: connections go on to a TLSRoute's backend as they are
	Certificates []Certificate // at least one, but for Passthrough; the first that fits the name asked for
	ClientCA     []Authority   // none: clients are asked for no certificate
	ClientAuth   string        // of ClientCA: require a certificate that verifies, or accept any ("request")
	MinVersion   string        // 1.2 or 1.3
}

// The values of ServerTLS.ClientAuth.
const (
	ClientAuthRequire = "require" // AllowValidOnly
	ClientAuthRequest = "request" // AllowInsecureFallback: who verifies it is told, who does not is served too
)

// A Certificate and its key, in two files or in memory.
type Certificate struct {
	Name     string             // for logs: "Secret/shop-tls" or the file
	CertFile string             // joined to the folder of the file that declares it
	KeyFile  string             // likewise
	CertPEM  string             // in place of CertFile
	KeyPEM   resource.Sensitive // in place of KeyFile
}

// An Authority is certificates that others are verified by.
type Authority struct {
	Name string
	File string // joined to the folder of the file that declares it
	PEM  string // in place of File
}

// Connections bounds what clients may hold of a listener; 0: the listener's own default.
type Connections struct {
	Max           int           // at once
	MaxStreams    int           // at once on one connection of HTTP/2
	HeaderBytes   int64         // of a request
	HeaderCount   int           // fields of a request
	HeaderTimeout time.Duration // to send a request's header
	IdleTimeout   time.Duration // between two requests
	MinRate       int64         // bytes a second of a body on its way in
}

// A Route is one rule of an HTTPRoute or GRPCRoute at one section.
type Route struct {
	Name     string // for logs and metrics: "HTTPRoute/shop rules[0]", or "HTTPRoute/shop/checkout" where the rule has a name
	Kind     string // HTTPRoute; GRPCRoute: what is broken answers with gRPC's UNAVAILABLE in place of 500
	Listener string // Name of its Section
	Hosts    []string
	Matches  []route.Match
	Policy   Policy // for whichever backend, round its own
	Session  *Session
	Backends []Backend // none: Policy.Redirect answers
}

// A Session sends a client to the backend and endpoint it was sent to before.
type Session struct {
	Name      string        // of the cookie or header
	Header    bool          // in a header, in place of a cookie
	Lifetime  time.Duration // 0: as long as the client keeps it
	Permanent bool          // the cookie outlives the browser, for Lifetime
}

// A Stream is what a TCPRoute or TLSRoute does at one section with connections.
type Stream struct {
	Name     string   // "TLSRoute/db rules[0]", or "TLSRoute/db/main" where the rule has a name
	Kind     string   // TCPRoute or TLSRoute
	Listener string   // Name of its Section
	Hosts    []string // server names of a TLSRoute
	Backends []Backend
}

// A Backend is a target by name and its share of a route's requests.
type Backend struct {
	TargetRef
	Subset map[string]string // of a service: only endpoints with all of these labels
	Weight int
	Policy Policy // within the route's: what holds for this backend, that of its target included
	Broken string // why there is no such target: it answers 500, as the Gateway API asks, and refuses connections
}

// A TargetRef names a function, app or service.
type TargetRef struct {
	Kind string // Function, App or Service
	Name string
}

// A Service is endpoints to find and balance requests between.
type Service struct {
	Name         string
	Endpoints    []Endpoint // known; none: by DNS or Registry
	DNS          *DNS
	Registry     string // name that endpoints are registered by
	Protocol     string // http, h2c, grpc or tcp
	TLS          *ClientTLS
	LoadBalancer LoadBalancer
	SlowStart    time.Duration // a new endpoint comes to its full share in; 0: at once
	Active       *ActiveHealth
	Passive      *PassiveHealth
	PanicBelow   float64 // share of the endpoints, from 0 to 1: with fewer of them well, requests go to all
	Pool         Pool
}

// An Endpoint is one address of a service.
type Endpoint struct {
	Address string // host:port
	Weight  int
	Zone    string // where it stands
	Labels  map[string]string
}

// DNS finds endpoints by name.
type DNS struct {
	Name    string
	Port    int // 0: SRV records say it
	Refresh time.Duration
}

// ClientTLS is how endpoints are spoken to in TLS.
type ClientTLS struct {
	CA          *Authority   // nil: the system's
	Certificate *Certificate // nil: none is shown
	ServerName  string       // "": the endpoint's host
	Insecure    bool         // nothing is verified
}

// A LoadBalancer picks an endpoint.
type LoadBalancer struct {
	Algorithm string // least-request, round-robin, random, peak-ewma, ring-hash or maglev
	Hash      string // of ring-hash and maglev: header, cookie, query or source
	HashName  string // of the header, cookie or query parameter
	Zone      string // where we stand, whose endpoints are preferred; "": nowhere
}

// ActiveHealth asks endpoints how they are.
type ActiveHealth struct {
	Type      string // http, grpc or tcp
	Path      string // of http
	Service   string // of grpc
	Interval  time.Duration
	Timeout   time.Duration
	Healthy   int   // good answers that bring it back
	Unhealthy int   // bad ones that take it out
	Status    []int // good ones of http; none: 200 to 299
}

// PassiveHealth takes endpoints out for what requests see of them.
type PassiveHealth struct {
	ConsecutiveErrors int     // 0: not counted
	Ratio             float64 // of errors in Interval, from 0 to 1; 0: not counted
	MinRequests       int     // in Interval, before Ratio counts
	Interval          time.Duration
	Ejection          time.Duration
	MaxEjected        float64 // share of the endpoints, from 0 to 1
}

// Pool bounds the connections to one endpoint.
type Pool struct {
	MaxConnections int
	MaxIdle        int
	IdleTimeout    time.Duration
	ConnectTimeout time.Duration
	MaxPending     int // requests that wait for a connection
}

// A Function is Wasm to run.
type Function struct {
	Name        string
	File        string // joined to the folder of the file that declares it
	Source      string // likewise; empty: there is none
	ABI         string
	Isolation   string
	Env         map[string]string
	Settings    string // the guest's own configuration
	Timeout     time.Duration
	CPU         time.Duration // for one request; 0: as long as Timeout
	Memory      int64         // bytes
	Concurrency int
	Queue       int // 0: the host's default, as are all zeros below
	Session     *FunctionSession
	MaxRequest  int64 // bytes
	MaxResponse int64 // bytes
	MaxCalls    int64
	MaxEgress   int64 // bytes
	Idle        time.Duration
	Warmup      *Warmup
	Grants      []loam.Grant // components by their own names
	Denied      []loam.Grant // what it may not reach though a grant says *
}

// A FunctionSession names the header or cookie that says which requests belong together.
type FunctionSession struct {
	Header, Cookie string
	Max            int
	Idle           time.Duration
}

// A Warmup is a request that is served before a function's memory image is taken.
type Warmup struct{ Method, Path, Body string }

// An App is a program to start, or one at Address.
type App struct {
	Name     string
	Address  string // where it runs already; empty: Command or Source is started, where there is one
	Command  []string
	Source   string // folder, joined to that of the file that declares it; empty: Command
	Binary   string // what Source is built to: build/<name> beside that file
	Dir      string // it runs in
	Env      map[string]string
	Port     int    // 0: a free one
	Protocol string // that it speaks: http, https, h2c, grpc, grpcs
	Health   string // path of HTTP
	Grants   []loam.Grant
}

// Program tells whether there is one to send requests to: an app may only ask.
func (a App) Program() bool { return a.Address != "" || len(a.Command) > 0 || a.Source != "" }

// An API is one that an app is served, on sockets of its own.
type API struct {
	App            string
	Dialect        string // dapr or layotto
	Sockets        []APISocket
	Caller         loam.Caller // who its calls are from
	Target         bool        // there is a program to call back
	Protocol       string      // it speaks
	Address        string      // it listens on, where that is known: host:port
	MaxConcurrency int         // calls of it at once; 0: no bound
	Health         *AppHealth  // nil: it is not asked while it runs
	Token          resource.Sensitive
	TokenEnv       string // variable that holds Token
	AppToken       resource.Sensitive
	AppTokenEnv    string
	MaxBody        int64 // bytes of a message; 0: no bound
	Namespace      string
	AllowedOrigins string
	Silent         bool // the app is not asked what it subscribes to
	Dapr           Configuration
	Resiliency     Resiliency
}

// Key names an API among all others.
func (a API) Key() string { return a.App + "/" + a.Dialect }

// An APISocket is where an API is served.
type APISocket struct {
	Name    string // of what is served: http, grpc, internal, public
	Network string // tcp or unix
	Address string // host:port, or a path
}

// AppHealth is how an app is asked while it runs.
type AppHealth struct {
	Path      string // of HTTP
	Interval  time.Duration
	Timeout   time.Duration
	Threshold int // probes in a row that fail before it counts as unwell
}

// A Configuration is what Dapr's resources of that kind come to.
type Configuration struct {
	Allowed        []AccessRule // the only groups of the API that there are; none: all
	Denied         []AccessRule
	Features       []string // that are turned on
	NameResolution string   // mdns, registry…
	Resolution     map[string]string
	MTLS           bool        // sidecars are to prove who they are
	TrustDomain    string      // of the app
	DefaultDeny    bool        // who may call is whom AccessPolicies name
	AccessPolicies []AccessFor // by app
	Pipeline       Policy      // before the API over HTTP
	AppPipeline    Policy      // before the app
	LogCalls       bool
	NoMetrics      bool
}

// An AccessRule names a group of an API.
type AccessRule struct {
	Name     string
	Version  string
	Protocol string // http or grpc; "": both
}

// AccessFor says what an app may call.
type AccessFor struct {
	App         string
	TrustDomain string
	Namespace   string
	Deny        bool // what no operation names
	Operations  []AccessOperation
}

// An AccessOperation is a path, with * for whatever is there, and methods; none: any.
type AccessOperation struct {
	Path    string
	Methods []string
	Deny    bool
}

// Resiliency is what is done round calls: of apps and components by name, and of those that are not named. Its Policies
// have a timeout, a retry and a breaker at most.
type Resiliency struct {
	Apps       map[string]Policy
	OtherApps  Policy
	Components map[string]ComponentResiliency
	Others     map[string]ComponentResiliency // by capability
}

// ComponentResiliency is for what a component is asked, and for what it brings.
type ComponentResiliency struct{ Outbound, Inbound Policy }

// App is what holds for calls to an app.
func (r Resiliency) App(name string) Policy {
	if p, ok := r.Apps[name]; ok {
		return p
	}
	return r.OtherApps
}

// Component is what holds for a component.
func (r Resiliency) Component(capability, name string) ComponentResiliency {
	if p, ok := r.Components[name]; ok {
		return p
	}
	return r.Others[capability]
}

// An HTTPEndpoint is a name for a URL outside.
type HTTPEndpoint struct {
	Name        string
	URL         string // scheme, host and path
	Headers     map[string]string
	RootCA      resource.Sensitive // PEM; "": the system's
	Certificate resource.Sensitive
	PrivateKey  resource.Sensitive
	Refs        []Ref // of Headers, by name; of rootCA, certificate and privateKey
	Scopes      []string
}

// A Component is a driver to open.
type Component struct {
	Name       string
	Capability string
	Type       string // as it was declared: a factory's, or one of its other names
	Version    string
	Metadata   map[string]string
	Settings   map[string]string // metadata that is the capability's, whatever the technology
	Refs       []Ref             // what of both is not written but referred to
	Scopes     []string          // apps that it is for; none: all
	Timeout    time.Duration     // to open it in; 0: the server's own
	Optional   bool              // that it does not open is a warning
	Fatal      bool              // the process does not start while it does not open
	Default    bool              // the capability's own, for who names none
	Embedded   bool              // nobody declared it
}

// A Ref is metadata whose value is elsewhere: in a secret, or a variable.
type Ref struct {
	Name   string // of the metadata
	Store  string // secret component
	Secret string
	Key    string // of the values that the secret has
	Env    string // variable; in place of Store
}

// A Subscription delivers one topic to one target.
type Subscription struct {
	Name       string // of the resource; several share it where it has several scopes
	Component  string
	Topic      string
	Rules      []EventRule // the first that matches says the path
	Path       string      // where none does; "": the event is dropped
	Target     TargetRef
	Group      string // the target's kind and name: who subscribes twice still gets an event once
	DeadLetter string // topic; empty: retries go on for ever
	Deliveries int    // before DeadLetter
	InFlight   int
	RetryAfter time.Duration // the first time
	Bulk       int           // events at once; 0: one
	BulkWait   time.Duration // for so many to be there
	Raw        bool          // events come without an envelope
	Metadata   map[string]string
}

// An Input brings what a binding reads to a target, by a POST to Path. Apps that an API is served to are brought it in the
// words of that one.
type Input struct {
	Component string
	Path      string
	Target    TargetRef
}

// An EventRule sends events that match to a path.
type EventRule struct {
	Match string // in CEL; "": every event
	Path  string
}

// A Status says what became of one resource.
type Status struct {
	Key      string // Kind/name; empty: a document that names none
	File     string
	Line     int
	Ready    bool
	Reason   string             // Ready, or why not: one of the constants in build.go, those of the Gateway API among them
	Problems []resource.Problem // why it is not ready
	Warnings []resource.Problem // what is odd about one that is
	Previous bool               // not ready, but its last good version still serves
}
