package resource

import "time"

// A Policy says what is done on the way to a target. It holds for what TargetRefs names, or where a route's filter of
// type ExtensionRef names it. What is nil is not done, or is left to a policy further out.
type Policy struct {
	TargetRefs          []PolicyTarget       `yaml:"targetRefs"`
	Timeout             *PolicyTimeout       `yaml:"timeout"`
	Retry               *PolicyRetry         `yaml:"retry"`
	Hedge               *Hedge               `yaml:"hedge"`
	Breaker             *Breaker             `yaml:"breaker"`
	Bulkhead            *Bulkhead            `yaml:"bulkhead"`
	RateLimit           []RateLimit          `yaml:"rateLimit"`
	AdaptiveConcurrency *AdaptiveConcurrency `yaml:"adaptiveConcurrency"`
	Fault               *Fault               `yaml:"fault"`
	Mirror              []Mirror             `yaml:"mirror"`
	Authn               *Authn               `yaml:"authn"`
	Authz               []AuthzRule          `yaml:"authz"`
	Compression         *Compression         `yaml:"compression"`
	Limits              *Limits              `yaml:"limits"`
	CORS                *CORS                `yaml:"cors"`
	Connections         *Connections         `yaml:"connections"` // of Gateways
	AccessLog           *AccessLog           `yaml:"accessLog"`
}

// Protects tells whether the policy says who may call.
func (p *Policy) Protects() bool { return p.Authn != nil || len(p.Authz) > 0 }

// A PolicyTarget is what a policy is attached to.
type PolicyTarget struct {
	Group       string `yaml:"group" enum:"gateway.networking.k8s.io,loam.dev"`
	Kind        string `yaml:"kind" need:"kind: HTTPRoute" enum:"Gateway,HTTPRoute,GRPCRoute,Service,App,Function" later:"TLSRoute,TCPRoute"`
	Name        string `yaml:"name" need:"name: shop"`
	SectionName string `yaml:"sectionName"` // a Gateway's listener, a route's rule
}

// PolicyTimeout bounds how long a request takes. Nil: not said here; 0: as long as it takes.
type PolicyTimeout struct {
	Request        *time.Duration `yaml:"request"`        // all of it, retries too
	BackendRequest *time.Duration `yaml:"backendRequest"` // one try
	Idle           *time.Duration `yaml:"idle"`           // between two pieces of a body or stream
}

// PolicyRetry sends a request again that failed.
type PolicyRetry struct {
	Attempts   int           `yaml:"attempts"` // beside the first
	On         []Text        `yaml:"on"`       // the RetryOn words, statuses from 400 to 599
	Backoff    time.Duration `yaml:"backoff"`  // before the first; doubles up to MaxBackoff, with jitter
	MaxBackoff time.Duration `yaml:"maxBackoff"`
	PerTry     time.Duration `yaml:"perTry"`  // 0: timeout.backendRequest
	Methods    []string      `yaml:"methods"` // none: those that are idempotent (RFC 9110, section 9.2.2)
	Budget     *RetryBudget  `yaml:"budget"`
}

// RetryOn are the words of PolicyRetry.On, gRPC's codes the last of them.
var RetryOn = []string{
	"connect", "reset", "refused-stream", "5xx", "gateway-error",
	"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

// A RetryBudget bounds retries by what is sent anyway, so that they make no storm.
type RetryBudget struct {
	Percent      Percent `yaml:"percent"`
	MinPerSecond int     `yaml:"minPerSecond"` // always
}

// Hedge sends a request a second time when the first takes long, and takes the answer that comes first.
type Hedge struct {
	After time.Duration `yaml:"after" need:"after: 200ms"`
	Max   int           `yaml:"max"` // beside the first
}

// A Breaker answers for a target that fails, to give it rest.
type Breaker struct {
	Failures    int           `yaml:"failures"`   // in a row that open it; 0: not counted
	ErrorRatio  Percent       `yaml:"errorRatio"` // of requests in Window that opens it; 0: not counted
	MinRequests int           `yaml:"minRequests"`
	Window      time.Duration `yaml:"window"`
	Rest        time.Duration `yaml:"rest"`     // before it is tried again
	HalfOpen    int           `yaml:"halfOpen"` // tries that must succeed to close it
}

// A Bulkhead bounds requests at once, so that one target cannot take all.
type Bulkhead struct {
	Concurrency int           `yaml:"concurrency" need:"concurrency: 100"`
	Queue       int           `yaml:"queue"` // requests that may wait
	Wait        time.Duration `yaml:"wait"`  // and for how long
}

// A RateLimit bounds requests in time.
type RateLimit struct {
	Requests int           `yaml:"requests" need:"requests: 100"`
	Per      time.Duration `yaml:"per"`
	Burst    int           `yaml:"burst"`                                   // at once; 0: Requests
	By       string        `yaml:"by" enum:"all,route,client,header,claim"` // each of them has its own count
	Header   string        `yaml:"header"`                                  // of by: header
	Claim    string        `yaml:"claim"`                                   // of by: claim
	Shared   *SharedLimit  `yaml:"shared"`                                  // counted together by all that use the component
}

// A SharedLimit names the state component that counts.
type SharedLimit struct {
	Component string `yaml:"component"`
}

// AdaptiveConcurrency bounds requests at once by what the target's latency says it can bear.
type AdaptiveConcurrency struct {
	Min     int `yaml:"min"`
	Max     int `yaml:"max"`
	Initial int `yaml:"initial"`
}

// Fault makes a share of requests slow, or fail.
type Fault struct {
	Delay *FaultDelay `yaml:"delay"`
	Abort *FaultAbort `yaml:"abort"`
}

// FaultDelay holds requests back.
type FaultDelay struct {
	Duration time.Duration `yaml:"duration" need:"duration: 100ms"`
	Percent  Percent       `yaml:"percent"`
}

// FaultAbort answers in the target's place, with one of Status and GRPCStatus.
type FaultAbort struct {
	Status     int     `yaml:"status"`
	GRPCStatus string  `yaml:"grpcStatus" enum:"cancelled,unknown,invalid-argument,deadline-exceeded,not-found,already-exists,permission-denied,resource-exhausted,failed-precondition,aborted,out-of-range,unimplemented,internal,unavailable,data-loss,unauthenticated"`
	Percent    Percent `yaml:"percent"`
}

// Authn says who may call: by a token of one of JWT, by a client certificate, or both.
type Authn struct {
	JWT  []JWT `yaml:"jwt"`
	MTLS *MTLS `yaml:"mtls"`
}

// A JWT accepts tokens of one issuer (RFC 7519). It has one of JWKSFile, JWKS and JWKSURL.
type JWT struct {
	Issuer    string            `yaml:"issuer" need:"issuer: https://login.example.com"`
	Audiences []string          `yaml:"audiences"` // one of them; none: any
	JWKSFile  string            `yaml:"jwksFile"`  // relative to the file that declares it
	JWKS      string            `yaml:"jwks"`
	JWKSURL   string            `yaml:"jwksURL"`
	Forward   map[string]string `yaml:"forward"` // claim → header the target gets it in
}

// MTLS accepts client certificates, which the listener has verified.
type MTLS struct {
	Required bool     `yaml:"required"`
	Subjects []string `yaml:"subjects"` // common names; "*.example.com"
	SANs     []string `yaml:"sans"`     // DNS names and URIs, likewise
}

// An AuthzRule is an expression in CEL. A request that a Deny is true of is refused; where the policy has Allows, so is
// one that none of them is true of.
type AuthzRule struct {
	Allow   string `yaml:"allow"`
	Deny    string `yaml:"deny"`
	Message string `yaml:"message"` // to who is refused
}

// Compression makes answers smaller for who accepts it.
type Compression struct {
	Algorithms []string `yaml:"algorithms" enum:"gzip,deflate,br,zstd"`
	MinSize    Bytes    `yaml:"minSize"`
	Types      []string `yaml:"types"` // media types; "text/*"
}

// Limits of a message; 0: the listener's own.
type Limits struct {
	HeaderBytes Bytes `yaml:"headerBytes"`
	HeaderCount int   `yaml:"headerCount"`
	BodyBytes   Bytes `yaml:"bodyBytes"`
}

// Connections bounds what clients may hold of a Gateway; 0: Loam's own.
type Connections struct {
	Max           int           `yaml:"max"`           // at once
	MaxStreams    int           `yaml:"maxStreams"`    // at once on one of HTTP/2
	HeaderTimeout time.Duration `yaml:"headerTimeout"` // to send a request's header
	IdleTimeout   time.Duration `yaml:"idleTimeout"`   // between two requests
	MinRate       Bytes         `yaml:"minRate"`       // a second, of a body on its way in
	ProxyProtocol string        `yaml:"proxyProtocol" enum:"off" later:"on,v1,v2"`
}

// AccessLog writes a line for requests.
type AccessLog struct {
	Format string   `yaml:"format" enum:"json,text"`
	Sample *float64 `yaml:"sample"` // 0 to 1; nil: all
}
