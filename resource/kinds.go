package resource

import "time"

// The groups and versions Loam reads.
const (
	loamV1alpha1 = "loam.dev/v1alpha1"
	daprV1alpha1 = "dapr.io/v1alpha1"
	daprV2alpha1 = "dapr.io/v2alpha1"
	gatewayV1    = "gateway.networking.k8s.io/v1"
)

// A kind is one row of the table of what a document can be.
type kind struct {
	apiVersion string
	name       string
	spec       func() any // a new, empty spec
	scopes     bool       // may carry Dapr's scopes
}

// kinds is the table: a new kind is a row here and a type below, its defaults and its checks.
var kinds = []kind{
	{loamV1alpha1, "Function", func() any { return new(Function) }, false},
	{loamV1alpha1, "App", func() any { return new(App) }, false},
	{gatewayV1, "Gateway", func() any { return new(Gateway) }, false},
	{gatewayV1, "HTTPRoute", func() any { return new(HTTPRoute) }, false},
	{daprV1alpha1, "Component", func() any { return new(Component) }, true},
	{daprV2alpha1, "Subscription", func() any { return new(Subscription) }, true},
	{daprV1alpha1, "Subscription", func() any { return new(subscriptionV1) }, true},
}

// Tags of the types below. yaml: the field's name. need: it must be there, and this is what to write. enum: the
// values it takes. later: on a blank field, names of fields that the standard has and Loam does not do yet.
// quoted: a number may stand in quotes, because Dapr's metadata are strings.

// A Function is code that runs as Wasm inside the process.
type Function struct {
	File        string            `yaml:"file"`   // the Wasm module, relative to the file that declares it; default build/<name>.wasm
	Source      string            `yaml:"source"` // folder with the Go main package it is built from, relative likewise; empty: File is all there is
	ABI         string            `yaml:"abi" enum:"loam"`
	Isolation   string            `yaml:"isolation" enum:"request,shared"` // request: a fresh instance for each
	Env         map[string]string `yaml:"env"`
	Timeout     time.Duration     `yaml:"timeout"`     // of one request
	Memory      Bytes             `yaml:"memory"`      // of one instance, at most
	Concurrency int               `yaml:"concurrency"` // requests at once, at most
	Grants      []Grant           `yaml:"grants"`
}

// A Grant lets a function or app reach one component of one capability.
type Grant struct {
	Capability string   `yaml:"capability" need:"capability: state"`
	Component  string   `yaml:"component"`
	Names      []string `yaml:"names"` // keys, topics, locks…; "orders/*" is a prefix; none: all
	Access     string   `yaml:"access" enum:"read,write"`
}

// An App is an ordinary program beside Loam: one that runs already at Address, or one that Loam starts by Command or
// builds from Source.
type App struct {
	Address string            `yaml:"address"`
	Command []string          `yaml:"command"`
	Source  string            `yaml:"source"` // folder with a Go main package, relative to the file that declares it
	Dir     string            `yaml:"dir"`    // where it runs, relative likewise; default: that file's folder
	Env     map[string]string `yaml:"env"`
	Port    int               `yaml:"port"` // it listens on; 0: a free one, told in PORT
	Health  Health            `yaml:"health"`
	Grants  []Grant           `yaml:"grants"`
}

// Health says how to ask an app whether it is well.
type Health struct {
	Path string `yaml:"path"` // answers 2xx to GET; empty: it is well once it listens
}

// A Component is a configured implementation of a capability, as Dapr declares it.
type Component struct {
	_        struct{}   `later:"ignoreErrors,initTimeout"`
	Type     string     `yaml:"type" need:"type: state.sqlite"`
	Version  string     `yaml:"version"`
	Metadata []Metadata `yaml:"metadata"`
}

// A Metadata is one setting of a component.
type Metadata struct {
	_     struct{} `later:"secretKeyRef,envRef"`
	Name  string   `yaml:"name" need:"name: path"`
	Value Text     `yaml:"value"`
}

// The annotations that mean something to Loam.
const (
	DefaultAnnotation = "loam.dev/default" // "true" makes a component its capability's default
	TryAnnotation     = "loam.dev/try"     // shell lines to try the resource with, {url} for where it is served; loam dev shows them
)

// A Subscription delivers a topic's events to the functions and apps in the object's Scopes, as Dapr declares it.
type Subscription struct {
	_               struct{}             `later:"bulkSubscribe"`
	Pubsubname      string               `yaml:"pubsubname"`
	Topic           string               `yaml:"topic" need:"topic: orders"`
	Routes          Routes               `yaml:"routes" need:"routes: {default: /orders}"`
	DeadLetterTopic string               `yaml:"deadLetterTopic"`
	Metadata        SubscriptionMetadata `yaml:"metadata"`
}

// Routes says where on the target events go.
type Routes struct {
	_       struct{} `later:"rules"`
	Default string   `yaml:"default" need:"default: /orders"`
}

// SubscriptionMetadata is what Loam adds to Dapr's subscription.
type SubscriptionMetadata struct {
	MaxDeliveries int           `yaml:"maxDeliveries" quoted:"ok"` // before the dead-letter topic; without one, for ever
	MaxInFlight   int           `yaml:"maxInFlight" quoted:"ok"`   // events at once
	RetryAfter    time.Duration `yaml:"retryAfter"`                // the first time; doubles to 30 s
}

// subscriptionV1 is dapr.io/v1alpha1's Subscription: one route in place of routes.
type subscriptionV1 struct {
	_               struct{}             `later:"bulkSubscribe"`
	Pubsubname      string               `yaml:"pubsubname"`
	Topic           string               `yaml:"topic" need:"topic: orders"`
	Route           string               `yaml:"route" need:"route: /orders"`
	DeadLetterTopic string               `yaml:"deadLetterTopic"`
	Metadata        SubscriptionMetadata `yaml:"metadata"`
}

// A Gateway says where to listen, as Kubernetes' Gateway API declares it.
type Gateway struct {
	_                struct{}   `later:"infrastructure,backendTLS,tls,allowedListeners"`
	GatewayClassName string     `yaml:"gatewayClassName"` // for clusters; Loam serves every Gateway it is given
	Listeners        []Listener `yaml:"listeners" need:"listeners: [{name: http, port: 8080}]"`
	Addresses        []Address  `yaml:"addresses"`
}

// A Listener is one port of a Gateway.
type Listener struct {
	_        struct{} `later:"tls,allowedRoutes"`
	Name     string   `yaml:"name" need:"name: http"`
	Hostname string   `yaml:"hostname"` // "" any; *.example.com a suffix
	Port     int      `yaml:"port" need:"port: 8080"`
	Protocol string   `yaml:"protocol" enum:"HTTP" later:"HTTPS,TLS,TCP,UDP"`
}

// An Address is where a Gateway's ports are opened.
type Address struct {
	Type  string `yaml:"type" enum:"IPAddress" later:"Hostname,NamedAddress"`
	Value string `yaml:"value" need:"value: 127.0.0.1"`
}

// An HTTPRoute sends requests to functions and apps, as Kubernetes' Gateway API declares it.
type HTTPRoute struct {
	_          struct{}    `later:"useDefaultGateways"`
	ParentRefs []ParentRef `yaml:"parentRefs"` // none: the Gateway named default, or the only one
	Hostnames  []string    `yaml:"hostnames"`
	Rules      []HTTPRule  `yaml:"rules" need:"rules: [{backendRefs: [{kind: Function, name: orders}]}]"`
}

// A ParentRef attaches a route to a Gateway.
type ParentRef struct {
	_           struct{} `later:"namespace"`
	Group       string   `yaml:"group" enum:"gateway.networking.k8s.io"`
	Kind        string   `yaml:"kind" enum:"Gateway" later:"Service,ListenerSet"`
	Name        string   `yaml:"name" need:"name: default"`
	SectionName string   `yaml:"sectionName"` // one listener of it
	Port        int      `yaml:"port"`        // its listeners of that port
}

// An HTTPRule sends what any of Matches accepts to BackendRefs by weight.
type HTTPRule struct {
	_           struct{}     `later:"filters,retry,sessionPersistence"`
	Name        string       `yaml:"name"`
	Matches     []HTTPMatch  `yaml:"matches"` // none: everything
	BackendRefs []BackendRef `yaml:"backendRefs" need:"backendRefs: [{kind: Function, name: orders}]"`
	Timeouts    Timeouts     `yaml:"timeouts"`
}

// An HTTPMatch accepts a request that has all it names.
type HTTPMatch struct {
	Path        PathMatch    `yaml:"path"`
	Method      string       `yaml:"method" enum:"GET,HEAD,POST,PUT,DELETE,CONNECT,OPTIONS,TRACE,PATCH"`
	Headers     []ValueMatch `yaml:"headers"`
	QueryParams []ValueMatch `yaml:"queryParams"`
}

// A PathMatch accepts paths.
type PathMatch struct {
	Type  string `yaml:"type" enum:"Exact,PathPrefix,RegularExpression"`
	Value string `yaml:"value"`
}

// A ValueMatch accepts a header or query parameter by its value.
type ValueMatch struct {
	Type  string `yaml:"type" enum:"Exact,RegularExpression"`
	Name  string `yaml:"name" need:"name: version"`
	Value string `yaml:"value" need:"value: beta"`
}

// A BackendRef names a function or app and its share of the requests.
type BackendRef struct {
	_      struct{} `later:"filters,namespace,port"`
	Group  string   `yaml:"group" enum:"loam.dev"`
	Kind   string   `yaml:"kind" enum:"Function,App" later:"Service"`
	Name   string   `yaml:"name" need:"name: orders"`
	Weight int      `yaml:"weight"` // among those of the rule; 0: none
}

// Timeouts of a rule's requests.
type Timeouts struct {
	_       struct{}      `later:"backendRequest"`
	Request time.Duration `yaml:"request"` // 0: none but the target's own
}

// Bytes is an amount of memory, written as a Kubernetes quantity (128Mi).
type Bytes int64

// Text is a string that may be written as a number or boolean too.
type Text string
