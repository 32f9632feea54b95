package snapshot

import "time"

// A Policy is all that is done on the way to a target: what resources of kind Policy say there and what the filters of
// routes do. What is nil or empty is not done. Build has settled who wins: see policies.go.
//
// What counts over several requests has a State: wherever two policies have the same, they count together, and go on
// counting in the next generation. It is another as soon as what is counted by is another: a limit, a window.
type Policy struct {
	Broken string // why nothing may pass: a policy that should be here is broken, and every request is answered 500

	AccessLog       *AccessLog
	Limits          *Limits
	CORS            *CORS
	Authn           *Authn
	Authz           [][]Rule // the rules of each Policy that has some: a request must pass all of them
	RateLimits      []RateLimit
	Fault           *Fault
	Compression     *Compression
	ResponseHeaders *Headers
	Redirect        *Redirect
	RequestHeaders  *Headers
	Rewrite         *Rewrite
	Mirrors         []Mirror
	Timeout         *Timeout
	Retry           *Retry
	Hedge           *Hedge
	Bulkhead        *Bulkhead
	Adaptive        *Adaptive
	Breaker         *Breaker
}

// A TargetPolicy is what holds for a target whoever asks it: events, invocations and calls between functions too. For
// requests of routes it stands in Backend.Policy already.
type TargetPolicy struct {
	TargetRef
	Policy Policy
}

// AccessLog writes a line for requests.
type AccessLog struct {
	Format string  // json or text
	Sample float64 // share of requests, from 0 to 1
}

// Limits of a message; 0: no other than the listener's.
type Limits struct {
	HeaderBytes int64
	HeaderCount int
	BodyBytes   int64
}

// CORS answers pages of other origins (the Fetch standard's CORS protocol).
type CORS struct {
	AllowOrigins     []string // as the Gateway API has it: "https://a.example.com", "https://*.example.com:8443", "*"
	AllowCredentials bool
	AllowMethods     []string // or "*"
	AllowHeaders     []string // or "*"
	ExposeHeaders    []string // or "*"
	MaxAge           time.Duration
}

// Authn says who may call.
type Authn struct {
	JWT  []JWT // a token of one of them
	MTLS *MTLS
}

// A JWT accepts tokens of one issuer. It has one of File, JWKS and URL.
type JWT struct {
	Issuer    string
	Audiences []string // one of them; none: any
	File      string   // joined to the folder of the file that declares it
	JWKS      string   // JSON (RFC 7517)
	URL       string
	Forward   map[string]string // claim → header
}

// MTLS accepts client certificates that the listener has verified.
type MTLS struct {
	Required bool
	Subjects []string // common names, with * at the start for what ends so; none: any
	SANs     []string // DNS names and URIs, likewise
}

// A Rule is an expression in CEL. A request that one with Deny is true of is refused; where a Policy has others, so is one
// that none of them is true of.
type Rule struct {
	Deny       bool
	Expression string
	Message    string
	Where      string // for errors: "Policy/limits spec.authz[0]"
}

// A RateLimit bounds requests in time.
type RateLimit struct {
	State     string
	Requests  int
	Per       time.Duration
	Burst     int
	By        string // all: together; client, header or claim: each
	Name      string // of the header or claim
	Component string // state component that counts for all who use it; empty: this process alone
}

// Fault makes a share of requests slow, or fail.
type Fault struct {
	Delay        time.Duration
	DelayPercent float64
	Status       int    // of the answer in the target's place; 0: none, or by GRPCStatus
	GRPCStatus   string // "unavailable", in place of Status
	AbortPercent float64
}

// A Bulkhead bounds requests at once.
type Bulkhead struct {
	State       string
	Concurrency int
	Queue       int
	Wait        time.Duration // in Queue
}

// Adaptive bounds requests at once by what latency says the target can bear.
type Adaptive struct {
	State             string
	Min, Max, Initial int
}

// Compression makes answers smaller for who accepts it.
type Compression struct {
	Algorithms []string // the best first
	MinSize    int64
	Types      []string
}

// A Redirect answers with another place to go to.
type Redirect struct {
	Scheme   string // http or https
	Hostname string // "": that of the request, without its port
	Port     int    // 0: none is written, since it is Scheme's own
	Path     *PathChange
	Status   int
}

// Headers changes header fields: Remove, then Set, then Add.
type Headers struct {
	Remove []string
	Set    []Field
	Add    []Field
}

// A Field is a header field to write.
type Field struct{ Name, Value string }

// A Rewrite changes what the target is asked for.
type Rewrite struct {
	Hostname string // "" as it was asked for
	Path     *PathChange
}

// A PathChange gives a request another path: all of it, or another for Prefix, which is in its normal form and has no
// slash at its end, nor has Replace: what follows Prefix in route.Clean(path) is put behind Replace, / where both are
// empty.
type PathChange struct {
	Full    bool // Replace is all of the path
	Prefix  string
	Replace string
}

// A Mirror sends a copy of requests elsewhere and forgets the answer.
type Mirror struct {
	Backend TargetRef
	Subset  map[string]string
	Percent float64
}

// Timeout bounds how long a request takes; 0: as long as it takes.
type Timeout struct {
	Request        time.Duration // all of it, retries too
	BackendRequest time.Duration // one try
	Idle           time.Duration // between two pieces of a body or stream
}

// Retry sends a request again that failed.
type Retry struct {
	State         string   // of the budget
	Attempts      int      // beside the first
	On            []string // connect, reset, refused-stream, 5xx, gateway-error
	Statuses      []int    // from 400 to 599
	GRPC          []string // "unavailable"
	Backoff       time.Duration
	MaxBackoff    time.Duration
	PerTry        time.Duration // 0: Timeout.BackendRequest
	Methods       []string      // none: those that are idempotent
	BudgetPercent float64       // 0, and no BudgetMin: retries have no budget
	BudgetMin     int           // a second, always
}

// Hedge sends a request again when the first takes long, and takes the answer that comes first.
type Hedge struct {
	After time.Duration
	Max   int // beside the first
}

// A Breaker answers for a target that fails.
type Breaker struct {
	State       string
	Failures    int     // in a row that open it; 0: not counted
	ErrorRatio  float64 // of requests in Window that opens it, from 0 to 1; 0: not counted
	MinRequests int     // in Window, before ErrorRatio counts
	Window      time.Duration
	Rest        time.Duration // before it is tried again
	HalfOpen    int           // tries that must succeed to close it
	Trip        string        // in CEL, over the counts since it closed or Window began: it opens where that is true; "": not asked
}
