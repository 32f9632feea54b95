package resource

import "time"

// A Component is a configured implementation of a capability, as Dapr declares it.
type Component struct {
	Type         string        `yaml:"type" need:"type: state.sqlite"`
	Version      string        `yaml:"version"`
	IgnoreErrors bool          `yaml:"ignoreErrors" quoted:"ok"` // what it cannot be opened for is a warning
	InitTimeout  time.Duration `yaml:"initTimeout"`              // to open it in; 0: 10s
	Metadata     []Metadata    `yaml:"metadata"`
	SecretStore  string        // of auth: the secret component that the secretKeyRefs of Metadata are of
}

// A Metadata is one setting of a component, or one header of an HTTPEndpoint. It has one of Value, SecretKeyRef, EnvRef.
type Metadata struct {
	Name         string        `yaml:"name" need:"name: path"`
	Value        Text          `yaml:"value"`
	SecretKeyRef *SecretKeyRef `yaml:"secretKeyRef"`
	EnvRef       string        `yaml:"envRef"` // a variable of the process's environment
}

// A SecretKeyRef names a value of a secret.
type SecretKeyRef struct {
	Name string `yaml:"name" need:"name: redis"`
	Key  string `yaml:"key"` // of the values that the secret has; "": Name
}

// A Subscription delivers a topic's events to the functions and apps in the object's Scopes, as Dapr declares it.
type Subscription struct {
	Pubsubname      string               `yaml:"pubsubname"`
	Topic           string               `yaml:"topic" need:"topic: orders"`
	Routes          Routes               `yaml:"routes" need:"routes: {default: /orders}"`
	DeadLetterTopic string               `yaml:"deadLetterTopic"`
	BulkSubscribe   BulkSubscribe        `yaml:"bulkSubscribe"`
	Metadata        SubscriptionMetadata `yaml:"metadata"`
}

// Routes says where on the target events go: to the path of the first rule that matches, else to Default.
type Routes struct {
	Rules   []EventRule `yaml:"rules"`
	Default string      `yaml:"default"`
}

// An EventRule sends the events that match to a path.
type EventRule struct {
	Match string `yaml:"match"` // in CEL, over event; "": every event
	Path  string `yaml:"path" need:"path: /orders"`
}

// BulkSubscribe brings several events at once.
type BulkSubscribe struct {
	Enabled            bool `yaml:"enabled"`
	MaxMessagesCount   int  `yaml:"maxMessagesCount"`   // 0: 100
	MaxAwaitDurationMs int  `yaml:"maxAwaitDurationMs"` // for so many to be there; 0: 1000
}

// SubscriptionMetadata is what Loam adds to Dapr's subscription, and what is the component's to read.
type SubscriptionMetadata struct {
	MaxDeliveries int             `yaml:"maxDeliveries" quoted:"ok"` // before the dead-letter topic; without one, for ever; 0: 5, of an app that Dapr's API is served to 1
	MaxInFlight   int             `yaml:"maxInFlight" quoted:"ok"`   // events at once
	RetryAfter    time.Duration   `yaml:"retryAfter"`                // the first time; doubles to 30 s
	RawPayload    bool            `yaml:"rawPayload" quoted:"ok"`    // events come without an envelope
	Others        map[string]Text `yaml:"*"`
}

// subscriptionV1 is dapr.io/v1alpha1's Subscription: one route in place of routes.
type subscriptionV1 struct {
	Pubsubname      string               `yaml:"pubsubname"`
	Topic           string               `yaml:"topic" need:"topic: orders"`
	Route           string               `yaml:"route" need:"route: /orders"`
	DeadLetterTopic string               `yaml:"deadLetterTopic"`
	BulkSubscribe   BulkSubscribe        `yaml:"bulkSubscribe"`
	Metadata        SubscriptionMetadata `yaml:"metadata"`
}

// An HTTPEndpoint is a name for a URL outside, by which it can be invoked, as Dapr declares it.
type HTTPEndpoint struct {
	BaseURL     string     `yaml:"baseUrl" need:"baseUrl: https://api.example.com"`
	Headers     []Metadata `yaml:"headers"`
	ClientTLS   *DaprTLS   `yaml:"clientTLS"`
	SecretStore string     // of auth
}

// DaprTLS is how an HTTPEndpoint is spoken to by TLS.
type DaprTLS struct {
	RootCA        *TLSDocument `yaml:"rootCA"`
	Certificate   *TLSDocument `yaml:"certificate"`
	PrivateKey    *TLSDocument `yaml:"privateKey"`
	Renegotiation string       `yaml:"renegotiation" enum:"RenegotiateNever" later:"RenegotiateOnceAsClient,RenegotiateFreelyAsClient"`
}

// A TLSDocument is PEM: one of Value and SecretKeyRef.
type TLSDocument struct {
	Value        Sensitive     `yaml:"value"`
	SecretKeyRef *SecretKeyRef `yaml:"secretKeyRef"`
}

// Resiliency says what is done round calls to apps and components, as Dapr declares it: for the apps in the object's
// Scopes, or all.
type Resiliency struct {
	Policies ResiliencyPolicies `yaml:"policies"`
	Targets  ResiliencyTargets  `yaml:"targets"`
}

// ResiliencyPolicies are policies by name. Some names have a meaning: DefaultRetryPolicy and its like hold where a target
// names none.
type ResiliencyPolicies struct {
	Timeouts        map[string]time.Duration  `yaml:"timeouts"`
	Retries         map[string]DaprRetry      `yaml:"retries"`
	CircuitBreakers map[string]CircuitBreaker `yaml:"circuitBreakers"`
}

// A DaprRetry tries again what failed.
type DaprRetry struct {
	Policy      string         `yaml:"policy" enum:"constant,exponential"`
	Duration    time.Duration  `yaml:"duration"`               // between tries; of exponential: before the first one
	MaxInterval time.Duration  `yaml:"maxInterval"`            // of exponential
	MaxRetries  *int           `yaml:"maxRetries" quoted:"ok"` // -1, nil: no bound
	Matching    *RetryMatching `yaml:"matching"`
}

// RetryMatching says which failures are tried again: lists such as 429,500-599.
type RetryMatching struct {
	HTTPStatusCodes Text `yaml:"httpStatusCodes"`
	GRPCStatusCodes Text `yaml:"gRPCStatusCodes"`
}

// A CircuitBreaker answers for a target that fails.
type CircuitBreaker struct {
	MaxRequests int           `yaml:"maxRequests" quoted:"ok"` // that try the target when it is half open; 0: 1
	Interval    time.Duration `yaml:"interval"`                // after which the counts begin anew; 0: never
	Timeout     time.Duration `yaml:"timeout"`                 // before the target is tried again; 0: 60s
	Trip        string        `yaml:"trip"`                    // in CEL, over the counts; "": consecutiveFailures > 5
}

// ResiliencyTargets says which policies hold for what.
type ResiliencyTargets struct {
	Apps       map[string]AppResiliency       `yaml:"apps"`
	Actors     map[string]ActorResiliency     `yaml:"actors"`
	Components map[string]ComponentResiliency `yaml:"components"`
}

// AppResiliency names policies for calls to an app.
type AppResiliency struct {
	Timeout                 string `yaml:"timeout"`
	Retry                   string `yaml:"retry"`
	CircuitBreaker          string `yaml:"circuitBreaker"`
	CircuitBreakerCacheSize int    `yaml:"circuitBreakerCacheSize" quoted:"ok"`
}

// ActorResiliency names policies for calls to actors of a type.
type ActorResiliency struct {
	Timeout                 string `yaml:"timeout"`
	Retry                   string `yaml:"retry"`
	CircuitBreaker          string `yaml:"circuitBreaker"`
	CircuitBreakerScope     string `yaml:"circuitBreakerScope" enum:"type,id,both"`
	CircuitBreakerCacheSize int    `yaml:"circuitBreakerCacheSize" quoted:"ok"`
}

// ComponentResiliency names policies for what a component brings, and for what it is asked.
type ComponentResiliency struct {
	Inbound  PolicyNames `yaml:"inbound"`
	Outbound PolicyNames `yaml:"outbound"`
}

// PolicyNames names policies.
type PolicyNames struct {
	Timeout        string `yaml:"timeout"`
	Retry          string `yaml:"retry"`
	CircuitBreaker string `yaml:"circuitBreaker"`
}

// A Configuration says how Dapr's API is served to the apps that name it.
type Configuration struct {
	Tracing         *Tracing        `yaml:"tracing"`
	Metric          *Metrics        `yaml:"metric"`
	Metrics         *Metrics        `yaml:"metrics"`
	MTLS            *DaprMTLS       `yaml:"mtls"`
	Secrets         Secrets         `yaml:"secrets"`
	AccessControl   *AccessControl  `yaml:"accessControl"`
	NameResolution  *NameResolution `yaml:"nameResolution"`
	Features        []Feature       `yaml:"features"`
	API             APIAccess       `yaml:"api"`
	Components      ComponentsDeny  `yaml:"components"`
	Logging         *DaprLogging    `yaml:"logging"`
	HTTPPipeline    *Pipeline       `yaml:"httpPipeline"`
	AppHTTPPipeline *Pipeline       `yaml:"appHttpPipeline"`
	Wasm            *WasmSandbox    `yaml:"wasm"`
	Workflow        *Workflow       `yaml:"workflow"`
}

// Tracing says where spans go.
type Tracing struct {
	SamplingRate Text `yaml:"samplingRate"`
	Stdout       bool `yaml:"stdout"`
	Zipkin       *struct {
		EndpointAddress string `yaml:"endpointAddress"`
	} `yaml:"zipkin"`
	OTel *struct {
		EndpointAddress string        `yaml:"endpointAddress"`
		Protocol        string        `yaml:"protocol" enum:"grpc,http"`
		IsSecure        bool          `yaml:"isSecure"`
		Headers         []Metadata    `yaml:"headers"`
		Timeout         time.Duration `yaml:"timeout"`
	} `yaml:"otel"`
}

// Metrics says what is counted.
type Metrics struct {
	Enabled          *bool `yaml:"enabled"`
	RecordErrorCodes bool  `yaml:"recordErrorCodes"`
	HTTP             *struct {
		IncreasedCardinality bool     `yaml:"increasedCardinality"`
		PathMatching         []string `yaml:"pathMatching"`
		ExcludeVerbs         bool     `yaml:"excludeVerbs"`
	} `yaml:"http"`
	LatencyDistributionBuckets []int `yaml:"latencyDistributionBuckets"`
	Rules                      []struct {
		Name   string `yaml:"name"`
		Labels []struct {
			Name  string            `yaml:"name"`
			Regex map[string]string `yaml:"regex"`
		} `yaml:"labels"`
	} `yaml:"rules"`
}

// DaprMTLS is how sidecars prove who they are to each other.
type DaprMTLS struct {
	Enabled                 bool          `yaml:"enabled"`
	WorkloadCertTTL         time.Duration `yaml:"workloadCertTTL"`
	AllowedClockSkew        time.Duration `yaml:"allowedClockSkew"`
	SentryAddress           string        `yaml:"sentryAddress"`
	ControlPlaneTrustDomain string        `yaml:"controlPlaneTrustDomain"`
	_                       struct{}      `later:"tokenValidators"`
}

// Secrets says which secrets may be read.
type Secrets struct {
	Scopes []SecretsScope `yaml:"scopes"`
}

// A SecretsScope is for one secret component. What has AllowedSecrets allows no others.
type SecretsScope struct {
	StoreName      string   `yaml:"storeName" need:"storeName: vault"`
	DefaultAccess  string   `yaml:"defaultAccess" enum:"allow,deny"`
	AllowedSecrets []string `yaml:"allowedSecrets"`
	DeniedSecrets  []string `yaml:"deniedSecrets"`
}

// AccessControl says which apps may call this one.
type AccessControl struct {
	DefaultAction string         `yaml:"defaultAction" enum:"allow,deny"`
	TrustDomain   string         `yaml:"trustDomain"`
	Policies      []AccessPolicy `yaml:"policies"`
}

// An AccessPolicy is for one calling app.
type AccessPolicy struct {
	AppID         string            `yaml:"appId" need:"appId: orders"`
	DefaultAction string            `yaml:"defaultAction" enum:"allow,deny"`
	TrustDomain   string            `yaml:"trustDomain"`
	Namespace     string            `yaml:"namespace"`
	Operations    []AccessOperation `yaml:"operations"`
}

// An AccessOperation is one path, or what a * in it stands for.
type AccessOperation struct {
	Name     string   `yaml:"name" need:"name: /orders/*"`
	HTTPVerb []string `yaml:"httpVerb"` // "*": any
	Action   string   `yaml:"action" enum:"allow,deny"`
}

// NameResolution says how apps find each other.
type NameResolution struct {
	Component     string          `yaml:"component"`
	Version       string          `yaml:"version"`
	Configuration map[string]Text `yaml:"configuration"`
}

// A Feature is one that is turned on or off.
type Feature struct {
	Name    string `yaml:"name" need:"name: HotReload"`
	Enabled bool   `yaml:"enabled"`
}

// APIAccess says which groups of the API there are.
type APIAccess struct {
	Allowed []APIRule `yaml:"allowed"` // none: all
	Denied  []APIRule `yaml:"denied"`
}

// An APIRule names one group of the API.
type APIRule struct {
	Name     string `yaml:"name" need:"name: state"`
	Version  string `yaml:"version"`
	Protocol string `yaml:"protocol" enum:"http,grpc"`
}

// ComponentsDeny are types of components that there shall not be: state.redis, state.redis/v1, bindings.*.
type ComponentsDeny struct {
	Deny []string `yaml:"deny"`
}

// DaprLogging says what is logged of the API.
type DaprLogging struct {
	APILogging *struct {
		Enabled          *bool `yaml:"enabled"`
		ObfuscateURLs    bool  `yaml:"obfuscateURLs"`
		OmitHealthChecks bool  `yaml:"omitHealthChecks"`
	} `yaml:"apiLogging"`
}

// A Pipeline is middleware, the first listed outermost.
type Pipeline struct {
	Handlers []Handler `yaml:"handlers"`
}

// A Handler names a component of a middleware type.
type Handler struct {
	Name    string   `yaml:"name" need:"name: limit"`
	Type    string   `yaml:"type" need:"type: middleware.http.ratelimit"`
	Version string   `yaml:"version"`
	_       struct{} `later:"selector"`
}

// WasmSandbox is how strictly Wasm is kept.
type WasmSandbox struct {
	StrictSandbox bool `yaml:"strictSandbox"`
}

// Workflow bounds workflows.
type Workflow struct {
	MaxConcurrentWorkflowInvocations int      `yaml:"maxConcurrentWorkflowInvocations"`
	MaxConcurrentActivityInvocations int      `yaml:"maxConcurrentActivityInvocations"`
	_                                struct{} `later:"globalMaxConcurrentWorkflowInvocations,globalMaxConcurrentActivityInvocations,workflowConcurrencyLimits,activityConcurrencyLimits,stateRetentionPolicy"`
}
