package resource

import "time"

// A Gateway says where to listen, as Kubernetes' Gateway API declares it.
type Gateway struct {
	_                struct{}   `later:"infrastructure,allowedListeners,defaultScope"`
	GatewayClassName string     `yaml:"gatewayClassName"` // for clusters; Loam serves every Gateway it is given
	Listeners        []Listener `yaml:"listeners" need:"listeners: [{name: http, port: 8080}]"`
	Addresses        []Address  `yaml:"addresses"`
	TLS              GatewayTLS `yaml:"tls"`
}

// A Listener is one port of a Gateway. Listeners may share a port where their hostnames differ.
type Listener struct {
	Name          string        `yaml:"name" need:"name: http"`
	Hostname      string        `yaml:"hostname"` // "" any; *.example.com a suffix
	Port          int           `yaml:"port" need:"port: 8080"`
	Protocol      string        `yaml:"protocol" enum:"HTTP,HTTPS,TLS,TCP" later:"UDP"`
	TLS           *ListenerTLS  `yaml:"tls"`
	AllowedRoutes AllowedRoutes `yaml:"allowedRoutes"`
}

// ListenerTLS says how a listener of protocol HTTPS or TLS speaks TLS.
type ListenerTLS struct {
	Mode            string            `yaml:"mode" enum:"Terminate,Passthrough"`
	CertificateRefs []ObjectRef       `yaml:"certificateRefs"`
	Options         map[string]string `yaml:"options"` // the Option constants
}

// The options of a listener's TLS.
const (
	OptionCertFile     = "loam.dev/cert-file"      // PEM, relative to the file that declares it
	OptionKeyFile      = "loam.dev/key-file"       // likewise
	OptionClientCAFile = "loam.dev/client-ca-file" // likewise; clients need a certificate of one of these authorities
	OptionMinVersion   = "loam.dev/min-version"    // 1.2, the default, or 1.3
)

// An ObjectRef names a Secret or ConfigMap.
type ObjectRef struct {
	_     struct{} `later:"namespace"`
	Group string   `yaml:"group"` // empty: Kubernetes' own
	Kind  string   `yaml:"kind" enum:"Secret,ConfigMap"`
	Name  string   `yaml:"name" need:"name: shop-tls"`
}

// AllowedRoutes narrows which routes attach to a listener.
type AllowedRoutes struct {
	Namespaces RouteNamespaces `yaml:"namespaces"`
	Kinds      []RouteKind     `yaml:"kinds"` // none: those its protocol can serve
}

// RouteNamespaces are the namespaces of routes; Loam has one, so that Same and All are one.
type RouteNamespaces struct {
	_    struct{} `later:"selector"`
	From string   `yaml:"from" enum:"Same,All" later:"Selector,None"`
}

// A RouteKind is a kind of routes.
type RouteKind struct {
	Group string `yaml:"group" enum:"gateway.networking.k8s.io"`
	Kind  string `yaml:"kind" need:"kind: HTTPRoute" enum:"HTTPRoute,GRPCRoute,TLSRoute,TCPRoute" later:"UDPRoute"`
}

// GatewayTLS is what holds for all HTTPS listeners of a Gateway.
type GatewayTLS struct {
	_        struct{}    `later:"backend"`
	Frontend FrontendTLS `yaml:"frontend"`
}

// FrontendTLS says which client certificates are asked for.
type FrontendTLS struct {
	Default TLSConfig   `yaml:"default"`
	PerPort []PortedTLS `yaml:"perPort"`
}

// A PortedTLS is for the listeners of one port, in place of the default.
type PortedTLS struct {
	Port int       `yaml:"port" need:"port: 8443"`
	TLS  TLSConfig `yaml:"tls"`
}

// TLSConfig is how clients are validated; nil: they are not.
type TLSConfig struct {
	Validation *ClientValidation `yaml:"validation"`
}

// ClientValidation asks clients for a certificate of one of the authorities.
type ClientValidation struct {
	CACertificateRefs []ObjectRef `yaml:"caCertificateRefs" need:"caCertificateRefs: [{kind: ConfigMap, name: client-ca}]"`
	Mode              string      `yaml:"mode" enum:"AllowValidOnly,AllowInsecureFallback"`
}

// An Address is where a Gateway's ports are opened.
type Address struct {
	Type  string `yaml:"type" enum:"IPAddress" later:"Hostname,NamedAddress"`
	Value string `yaml:"value" need:"value: 127.0.0.1"`
}

// An HTTPRoute sends requests to functions, apps and services, as Kubernetes' Gateway API declares it.
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
	Name               string              `yaml:"name"`
	Matches            []HTTPMatch         `yaml:"matches"` // none: everything
	Filters            []Filter            `yaml:"filters"`
	BackendRefs        []BackendRef        `yaml:"backendRefs"`
	Timeouts           Timeouts            `yaml:"timeouts"`
	Retry              *Retry              `yaml:"retry"`
	SessionPersistence *SessionPersistence `yaml:"sessionPersistence"`
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

// A BackendRef names a function, app or service and its share of the requests.
type BackendRef struct {
	_       struct{} `later:"namespace"`
	Group   string   `yaml:"group" enum:"loam.dev"`
	Kind    string   `yaml:"kind" enum:"Function,App,Service"`
	Name    string   `yaml:"name" need:"name: orders"`
	Port    int      `yaml:"port"`    // what the app or service has; 0: that
	Weight  int      `yaml:"weight"`  // among those of the rule; 0: none
	Filters []Filter `yaml:"filters"` // of an HTTPRoute or GRPCRoute
}

// Timeouts of a rule's requests. Nil: what policies and the target say; 0: none.
type Timeouts struct {
	Request        *time.Duration `yaml:"request"`        // of all of it, retries too
	BackendRequest *time.Duration `yaml:"backendRequest"` // of one try
}

// Retry says when a request is sent again.
type Retry struct {
	Codes    []int         `yaml:"codes"` // statuses to try again after; connection errors always are
	Attempts int           `yaml:"attempts"`
	Backoff  time.Duration `yaml:"backoff"` // before the first; it doubles
}

// SessionPersistence sends a client to the same endpoint again.
type SessionPersistence struct {
	_               struct{}      `later:"idleTimeout"`
	SessionName     string        `yaml:"sessionName"`     // of the cookie or header; empty: one of Loam's
	AbsoluteTimeout time.Duration `yaml:"absoluteTimeout"` // 0: none
	Type            string        `yaml:"type" enum:"Cookie,Header"`
	CookieConfig    *CookieConfig `yaml:"cookieConfig"`
}

// CookieConfig is for sessions in a cookie.
type CookieConfig struct {
	LifetimeType string `yaml:"lifetimeType" enum:"Session,Permanent"`
}

// A Filter does something to a request on its way; the field named like Type says what.
type Filter struct {
	_                      struct{}        `later:"externalAuth"`
	Type                   string          `yaml:"type" need:"type: RequestHeaderModifier" enum:"RequestHeaderModifier,ResponseHeaderModifier,RequestRedirect,URLRewrite,RequestMirror,CORS,ExtensionRef" later:"ExternalAuth"`
	RequestHeaderModifier  *HeaderModifier `yaml:"requestHeaderModifier"`
	ResponseHeaderModifier *HeaderModifier `yaml:"responseHeaderModifier"`
	RequestRedirect        *Redirect       `yaml:"requestRedirect"`
	URLRewrite             *Rewrite        `yaml:"urlRewrite"`
	RequestMirror          *Mirror         `yaml:"requestMirror"`
	CORS                   *CORS           `yaml:"cors"`
	ExtensionRef           *ExtensionRef   `yaml:"extensionRef"`
}

// A HeaderModifier changes header fields: Remove, then Set, then Add.
type HeaderModifier struct {
	Set    []HeaderValue `yaml:"set"`
	Add    []HeaderValue `yaml:"add"`
	Remove []string      `yaml:"remove"`
}

// A HeaderValue is a header field to write.
type HeaderValue struct {
	Name  string `yaml:"name" need:"name: x-version"`
	Value string `yaml:"value" need:"value: beta"`
}

// A Redirect answers with another place to go to. What is empty stays as it was asked for.
type Redirect struct {
	Scheme     string        `yaml:"scheme" enum:"http,https"`
	Hostname   string        `yaml:"hostname"`
	Path       *PathModifier `yaml:"path"`
	Port       int           `yaml:"port"`
	StatusCode int           `yaml:"statusCode"`
}

// A Rewrite changes what the target is asked for. What is empty stays as it was asked for.
type Rewrite struct {
	Hostname string        `yaml:"hostname"`
	Path     *PathModifier `yaml:"path"`
}

// A PathModifier replaces a path, or the prefix of it that matched.
type PathModifier struct {
	Type               string  `yaml:"type" need:"type: ReplacePrefixMatch" enum:"ReplaceFullPath,ReplacePrefixMatch"`
	ReplaceFullPath    *string `yaml:"replaceFullPath"`
	ReplacePrefixMatch *string `yaml:"replacePrefixMatch"`
}

// A Mirror sends a copy of requests elsewhere and forgets the answer.
type Mirror struct {
	BackendRef BackendObject `yaml:"backendRef" need:"backendRef: {kind: Service, name: shadow}"`
	Percent    *Percent      `yaml:"percent"` // nil, and no Fraction: all of them
	Fraction   *Fraction     `yaml:"fraction"`
}

// A BackendObject names a function, app or service.
type BackendObject struct {
	_     struct{} `later:"namespace"`
	Group string   `yaml:"group" enum:"loam.dev"`
	Kind  string   `yaml:"kind" enum:"Function,App,Service"`
	Name  string   `yaml:"name" need:"name: shadow"`
	Port  int      `yaml:"port"`
}

// A Fraction is Numerator of Denominator.
type Fraction struct {
	Numerator   int `yaml:"numerator" need:"numerator: 1"`
	Denominator int `yaml:"denominator"`
}

// CORS says which pages of other origins may call (the Fetch standard's CORS protocol).
type CORS struct {
	AllowOrigins     []string `yaml:"allowOrigins"` // "https://shop.example.com", "https://*.example.com", "*"
	AllowCredentials bool     `yaml:"allowCredentials"`
	AllowMethods     []string `yaml:"allowMethods" enum:"GET,HEAD,POST,PUT,DELETE,CONNECT,OPTIONS,TRACE,PATCH,*"`
	AllowHeaders     []string `yaml:"allowHeaders"`
	ExposeHeaders    []string `yaml:"exposeHeaders"`
	MaxAge           int      `yaml:"maxAge"` // seconds
}

// An ExtensionRef names a Policy.
type ExtensionRef struct {
	Group string `yaml:"group" enum:"loam.dev"`
	Kind  string `yaml:"kind" enum:"Policy"`
	Name  string `yaml:"name" need:"name: limits"`
}

// A GRPCRoute sends calls to apps and services, as Kubernetes' Gateway API declares it.
type GRPCRoute struct {
	_          struct{}    `later:"useDefaultGateways"`
	ParentRefs []ParentRef `yaml:"parentRefs"`
	Hostnames  []string    `yaml:"hostnames"`
	Rules      []GRPCRule  `yaml:"rules" need:"rules: [{backendRefs: [{kind: Service, name: orders}]}]"`
}

// A GRPCRule sends what any of Matches accepts to BackendRefs by weight. Its filters are those of HTTPRoutes that make
// sense for gRPC.
type GRPCRule struct {
	Name               string              `yaml:"name"`
	Matches            []GRPCMatch         `yaml:"matches"` // none: everything
	Filters            []Filter            `yaml:"filters"`
	BackendRefs        []BackendRef        `yaml:"backendRefs"`
	SessionPersistence *SessionPersistence `yaml:"sessionPersistence"`
}

// A GRPCMatch accepts a call that has all it names.
type GRPCMatch struct {
	Method  *MethodMatch `yaml:"method"` // nil: any
	Headers []ValueMatch `yaml:"headers"`
}

// A MethodMatch accepts a gRPC service, a method, or both.
type MethodMatch struct {
	Type    string `yaml:"type" enum:"Exact,RegularExpression"`
	Service string `yaml:"service"` // shop.v1.Orders; empty: any
	Method  string `yaml:"method"`  // empty: any
}

// A TLSRoute sends connections by the server name their TLS asks for, as Kubernetes' Gateway API declares it.
type TLSRoute struct {
	_          struct{}     `later:"useDefaultGateways"`
	ParentRefs []ParentRef  `yaml:"parentRefs"`
	Hostnames  []string     `yaml:"hostnames" need:"hostnames: [db.example.com]"`
	Rules      []StreamRule `yaml:"rules" need:"rules: [{backendRefs: [{kind: Service, name: db}]}]"`
}

// A TCPRoute sends connections of a port, as Kubernetes' Gateway API declares it.
type TCPRoute struct {
	_          struct{}     `later:"useDefaultGateways"`
	ParentRefs []ParentRef  `yaml:"parentRefs"`
	Rules      []StreamRule `yaml:"rules" need:"rules: [{backendRefs: [{kind: Service, name: db}]}]"`
}

// A StreamRule sends connections to BackendRefs by weight.
type StreamRule struct {
	Name        string       `yaml:"name"`
	BackendRefs []BackendRef `yaml:"backendRefs" need:"backendRefs: [{kind: Service, name: db}]"`
}
