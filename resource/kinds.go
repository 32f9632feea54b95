package resource

import (
	"crypto/sha256"
	"fmt"
	"time"
)

// The groups and versions Loam reads.
const (
	loamV1alpha1    = "loam.dev/v1alpha1"
	daprV1alpha1    = "dapr.io/v1alpha1"
	daprV2alpha1    = "dapr.io/v2alpha1"
	gatewayV1       = "gateway.networking.k8s.io/v1"
	gatewayV1alpha2 = "gateway.networking.k8s.io/v1alpha2"
	gatewayV1alpha3 = "gateway.networking.k8s.io/v1alpha3"
	coreV1          = "v1"
)

// A kind is one row of the table of what a document can be.
type kind struct {
	apiVersion string
	name       string
	spec       func() any // a new, empty spec
	scopes     bool       // may carry Dapr's scopes
	auth       bool       // may carry Dapr's auth
	inline     bool       // its fields stand beside metadata, not below spec
}

// kinds is the table: a new kind is a row here and a type, its defaults and its checks.
var kinds = []kind{
	{apiVersion: loamV1alpha1, name: "Function", spec: func() any { return new(Function) }},
	{apiVersion: loamV1alpha1, name: "App", spec: func() any { return new(App) }},
	{apiVersion: loamV1alpha1, name: "Service", spec: func() any { return new(Service) }},
	{apiVersion: loamV1alpha1, name: "Policy", spec: func() any { return new(Policy) }},
	{apiVersion: gatewayV1, name: "Gateway", spec: func() any { return new(Gateway) }},
	{apiVersion: gatewayV1, name: "HTTPRoute", spec: func() any { return new(HTTPRoute) }},
	{apiVersion: gatewayV1, name: "GRPCRoute", spec: func() any { return new(GRPCRoute) }},
	{apiVersion: gatewayV1, name: "TLSRoute", spec: func() any { return new(TLSRoute) }},
	{apiVersion: gatewayV1alpha3, name: "TLSRoute", spec: func() any { return new(TLSRoute) }},
	{apiVersion: gatewayV1alpha2, name: "TLSRoute", spec: func() any { return new(TLSRoute) }},
	{apiVersion: gatewayV1, name: "TCPRoute", spec: func() any { return new(TCPRoute) }},
	{apiVersion: gatewayV1alpha2, name: "TCPRoute", spec: func() any { return new(TCPRoute) }},
	{apiVersion: daprV1alpha1, name: "Component", spec: func() any { return new(Component) }, scopes: true, auth: true},
	{apiVersion: daprV2alpha1, name: "Subscription", spec: func() any { return new(Subscription) }, scopes: true},
	{apiVersion: daprV1alpha1, name: "Subscription", spec: func() any { return new(subscriptionV1) }, scopes: true},
	{apiVersion: daprV1alpha1, name: "Configuration", spec: func() any { return new(Configuration) }},
	{apiVersion: daprV1alpha1, name: "Resiliency", spec: func() any { return new(Resiliency) }, scopes: true},
	{apiVersion: daprV1alpha1, name: "HTTPEndpoint", spec: func() any { return new(HTTPEndpoint) }, scopes: true, auth: true},
	{apiVersion: coreV1, name: "Secret", spec: func() any { return new(Secret) }, inline: true},
	{apiVersion: coreV1, name: "ConfigMap", spec: func() any { return new(ConfigMap) }, inline: true},
}

// laterKinds are kinds of the standards that Loam does not do yet, and what to do without.
var laterKinds = map[string]string{
	"GatewayClass":     "delete it: Loam serves every Gateway it is given",
	"BackendTLSPolicy": "write spec.tls in the Service",
	"ListenerSet":      "write the listeners in the Gateway",
	"ReferenceGrant":   "delete it: Loam has one namespace",
	"UDPRoute":         "delete it",
	"MCPServer":        "delete it",
}

// Tags of the types below. yaml: the field's name. need: it must be there, and this is what to write. enum: the
// values it takes. later: on a blank field, names of fields that the standard has and Loam does not do yet.
// quoted: a number or boolean may stand in quotes, because Dapr's metadata are strings. one: a single value stands for a
// list of it. yaml:"*": a map of the fields that are not named. What is a pointer is nil where it was not written.

// A Function is code that runs as Wasm inside the process.
type Function struct {
	File        string            `yaml:"file"`   // the Wasm module, relative to the file that declares it; default build/<name>.wasm
	Source      string            `yaml:"source"` // folder it is built from, relative likewise; empty: File is all there is
	ABI         string            `yaml:"abi" enum:"loam,wagi,http-wasm,proxy-wasm"`
	Isolation   string            `yaml:"isolation" enum:"request,session,shared"` // request: a clean instance for each
	Session     *FunctionSession  `yaml:"session"`                                 // of isolation session
	Env         map[string]string `yaml:"env"`
	Settings    string            `yaml:"settings"`    // the guest's own configuration, for ABIs that have such a thing
	Timeout     time.Duration     `yaml:"timeout"`     // of one request
	Memory      Bytes             `yaml:"memory"`      // of one instance, at most
	CPU         time.Duration     `yaml:"cpu"`         // of the processor, for one request; default Timeout
	Concurrency int               `yaml:"concurrency"` // requests at once, at most
	Queue       int               `yaml:"queue"`       // that wait beyond those; default 16 times as many
	Limits      FunctionLimits    `yaml:"limits"`
	Idle        time.Duration     `yaml:"idle"` // after which it is unloaded; default 10m
	Warmup      *Warmup           `yaml:"warmup"`
	Grants      []Grant           `yaml:"grants"`
}

// A FunctionSession says which requests an instance of a function keeps what it knows for. It has Header or Cookie.
type FunctionSession struct {
	Header string        `yaml:"header"`
	Cookie string        `yaml:"cookie"`
	Max    int           `yaml:"max"`  // sessions at once; default 1000
	Idle   time.Duration `yaml:"idle"` // after which one ends; default 10m
}

// FunctionLimits bound one request of a function; 0: the default.
type FunctionLimits struct {
	Request  Bytes `yaml:"request"`  // of its body; 16Mi
	Response Bytes `yaml:"response"` // of the answer's; 16Mi
	Calls    int   `yaml:"calls"`    // of capabilities; 1000
	Egress   Bytes `yaml:"egress"`   // that those may send; 64Mi
}

// A Warmup is a request that is in the memory every instance begins with.
type Warmup struct {
	Method string `yaml:"method"` // default GET
	Path   string `yaml:"path" need:"path: /"`
	Body   string `yaml:"body"`
}

// A Grant lets a function or app reach one component of one capability.
type Grant struct {
	Capability string   `yaml:"capability" need:"capability: state"`
	Component  string   `yaml:"component"`
	Names      []string `yaml:"names"` // keys, topics, locks…; "orders/*" is a prefix; none: all
	Access     string   `yaml:"access" enum:"read,write"`
}

// An App is an ordinary program beside Loam: one that runs already at Address, or one that Loam starts by Command or
// builds from Source. With an API alone it is one that only asks.
type App struct {
	Address        string            `yaml:"address"`
	Command        []string          `yaml:"command"`
	Source         string            `yaml:"source"` // folder with a Go main package, relative to the file that declares it
	Dir            string            `yaml:"dir"`    // where it runs, relative likewise; default: that file's folder
	Env            map[string]string `yaml:"env"`
	Port           int               `yaml:"port"`                                      // it listens on; 0: a free one, told in PORT
	Protocol       string            `yaml:"protocol" enum:"http,https,h2c,grpc,grpcs"` // what it speaks there
	MaxConcurrency int               `yaml:"maxConcurrency"`                            // requests at once that it is sent; 0: no bound
	Health         Health            `yaml:"health"`
	Grants         []Grant           `yaml:"grants"`
	API            AppAPI            `yaml:"api"`
}

// Health says how to ask an app whether it is well.
type Health struct {
	Path      string        `yaml:"path"`      // answers 2xx to GET; empty: it is well once it listens
	Interval  time.Duration `yaml:"interval"`  // between two probes while it runs; 0: it is asked at its start only
	Timeout   time.Duration `yaml:"timeout"`   // of one probe
	Threshold int           `yaml:"threshold"` // probes in a row that fail before it counts as unwell
}

// AppAPI says which APIs of others are served to an app, each on sockets of its own.
type AppAPI struct {
	Dapr    *DaprAPI    `yaml:"dapr"`
	Layotto *LayottoAPI `yaml:"layotto"`
}

// DaprAPI is Dapr's API for one app. What has no address is not served.
type DaprAPI struct {
	HTTP           []string  `yaml:"http" one:"ok"`     // addresses: 127.0.0.1:3500
	GRPC           []string  `yaml:"grpc" one:"ok"`     // 127.0.0.1:50001
	Internal       []string  `yaml:"internal" one:"ok"` // where other sidecars reach the app: 0.0.0.0:50002
	Public         []string  `yaml:"public" one:"ok"`   // health and metadata alone
	SocketDir      string    `yaml:"socketDir"`         // folder of Unix sockets, dapr-APP-http.socket and dapr-APP-grpc.socket, in place of HTTP and GRPC
	Token          Sensitive `yaml:"token"`             // that the app must show
	TokenEnv       string    `yaml:"tokenEnv"`          // the variable that holds it
	AppToken       Sensitive `yaml:"appToken"`          // that the app is shown
	AppTokenEnv    string    `yaml:"appTokenEnv"`
	MaxBody        Bytes     `yaml:"maxBody"` // of a message either way
	AllowedOrigins string    `yaml:"allowedOrigins"`
	Configuration  []string  `yaml:"configuration" one:"ok"` // names of Configurations; the last one that says something counts
	Namespace      string    `yaml:"namespace"`
	// NoSubscriptions: the app is not asked what it subscribes to.
	NoSubscriptions bool `yaml:"noSubscriptions"`
	LogCalls        bool `yaml:"logCalls"`
	MTLS            bool `yaml:"mtls"` // other sidecars are to prove who they are: none is talked to yet
}

// LayottoAPI is Layotto's API for one app. What has no address is not served.
type LayottoAPI struct {
	GRPC    []string `yaml:"grpc" one:"ok"` // addresses: 127.0.0.1:34904
	HTTP    []string `yaml:"http" one:"ok"` // of /actuator: 127.0.0.1:34999
	MaxBody Bytes    `yaml:"maxBody"`
}

// The annotations that mean something to Loam.
const (
	DefaultAnnotation = "loam.dev/default" // "true" makes a component its capability's default
	FatalAnnotation   = "loam.dev/fatal"   // "true": the process does not start while the component does not open
	TryAnnotation     = "loam.dev/try"     // shell lines to try the resource with, {url} for where it is served; loam dev shows them
)

// Bytes is an amount of memory, written as a Kubernetes quantity (128Mi).
type Bytes int64

// Text is a string that may be written as a number or boolean too.
type Text string

// Percent is a share from 0 to 100.
type Percent float64

// A Secret holds a certificate and its key, as Kubernetes declares it.
type Secret struct {
	_          struct{}             `later:"immutable"`
	Type       string               `yaml:"type" enum:"kubernetes.io/tls,Opaque"`
	Data       map[string]Sensitive `yaml:"data"`       // base64: tls.crt, tls.key, ca.crt
	StringData map[string]Sensitive `yaml:"stringData"` // as it is; it wins over Data, which complete decodes into it
}

// A ConfigMap holds the certificates of authorities below ca.crt, as Kubernetes declares it.
type ConfigMap struct {
	_    struct{}          `later:"immutable,binaryData"`
	Data map[string]string `yaml:"data"`
}

// Sensitive is text that is printed nowhere. What it encodes to is a digest, so that a change of it still shows.
type Sensitive string

// String hides the text.
func (Sensitive) String() string { return "[redacted]" }

// GoString hides the text.
func (Sensitive) GoString() string { return "[redacted]" }

// MarshalText hides the text and tells it from another.
func (s Sensitive) MarshalText() ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	sum := sha256.Sum256([]byte(s))
	return fmt.Appendf(nil, "[redacted %x]", sum[:8]), nil
}
