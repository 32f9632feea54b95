package server

import (
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/policy"
	"github.com/loam-run/loam/snapshot"
)

// policies makes one policy of what the plan says. What counts over several requests is kept by its State, so that it
// counts on when the rest of the configuration changes.
func (s *server) policies(p snapshot.Policy, session *snapshot.Session) loam.Policy {
	if p.Broken != "" {
		return failing(loam.Errorf(loam.Internal, "policy", "%s", p.Broken))
	}
	var c policy.Chain
	c.CORS = must(p.CORS, s.cors)
	c.Authn = s.authn(p.Authn)
	c.Authz = s.authz(p.Authz)
	c.Compression = must(p.Compression, func(z *snapshot.Compression) (loam.Policy, error) {
		return policy.Compression(policy.CompressionConfig{Algorithms: z.Algorithms, MinSize: z.MinSize, Types: z.Types})
	})
	if session != nil {
		c.Session = policy.Session(policy.SessionConfig{Name: session.Name, Header: session.Header, Lifetime: session.Lifetime, Permanent: session.Permanent})
	}
	if l := p.Limits; l != nil {
		c.Limits = policy.Limits(policy.LimitsConfig{HeaderBytes: l.HeaderBytes, HeaderCount: l.HeaderCount, BodyBytes: l.BodyBytes})
	}
	var limits []loam.Policy
	for _, l := range p.RateLimits {
		by, _ := policy.ParseBy(l.By) // Build let nothing else through
		limits = append(limits, keep(s, l.State, func() *policy.RateLimit {
			c := policy.RateLimitConfig{Requests: l.Requests, Per: l.Per, Burst: l.Burst, By: by, Told: s.told}
			switch by {
			case policy.ByHeader:
				c.Header = l.Name
			case policy.ByClaim:
				c.Claim = l.Name
			}
			if l.Component != "" {
				c.Shared = s.shared(l)
			}
			return policy.NewRateLimit(c)
		}).Policy())
	}
	c.RateLimit = policy.Join(limits...)
	if f := p.Fault; f != nil {
		c.Fault = policy.Fault(policy.FaultConfig{
			Delay: policy.FaultDelay{Duration: f.Delay, Percent: f.DelayPercent},
			Abort: policy.FaultAbort{Status: f.Status, GRPC: grpcCode(f.GRPCStatus), Percent: f.AbortPercent}, Told: s.told,
		})
	}
	if h := p.ResponseHeaders; h != nil {
		c.ResponseHeaders = policy.ResponseHeaders(headers(h))
	}
	if r := p.Redirect; r != nil {
		c.Redirect = policy.Redirect(policy.RedirectConfig{Scheme: r.Scheme, Hostname: r.Hostname, Port: r.Port, Path: path(r.Path), Status: r.Status})
	}
	if h := p.RequestHeaders; h != nil {
		c.RequestHeaders = policy.RequestHeaders(headers(h))
	}
	if r := p.Rewrite; r != nil {
		c.Rewrite = policy.Rewrite(policy.RewriteConfig{Hostname: r.Hostname, Path: path(r.Path)})
	}
	var mirrors []loam.Policy
	for _, m := range p.Mirrors {
		mirrors = append(mirrors, policy.Mirror(policy.MirrorConfig{
			To: s.backend(m.Backend, m.Subset, "", "HTTPRoute"), Percent: m.Percent, Log: s.o.Log, Told: s.told,
		}))
	}
	c.Mirror = policy.Join(mirrors...)
	var perTry loam.Policy
	if t := p.Timeout; t != nil {
		c.Timeout = policy.Timeout(t.Request)
		if t.Idle > 0 {
			c.Timeout = policy.Join(c.Timeout, policy.Idle(t.Idle))
		}
		perTry = policy.Timeout(t.BackendRequest)
	}
	if r := p.Retry; r != nil {
		c.Retry = policy.Retry(s.retry(r))
		if r.PerTry > 0 {
			perTry = policy.Timeout(r.PerTry)
		}
	}
	c.Try = perTry
	if h := p.Hedge; h != nil {
		c.Hedge = policy.Hedge(policy.HedgeConfig{After: h.After, Max: h.Max, Told: s.told})
	}
	if b := p.Bulkhead; b != nil {
		c.Bulkhead = keep(s, b.State, func() *policy.Bulkhead {
			return policy.NewBulkhead(policy.BulkheadConfig{Concurrency: b.Concurrency, Queue: b.Queue, Wait: b.Wait, Told: s.told})
		}).Policy()
	}
	if a := p.Adaptive; a != nil {
		c.Adaptive = keep(s, a.State, func() *policy.Adaptive {
			return policy.NewAdaptive(policy.AdaptiveConfig{Min: a.Min, Max: a.Max, Initial: a.Initial, Told: s.told})
		}).Policy()
	}
	if b := p.Breaker; b != nil {
		c.Breaker = keep(s, b.State, func() *policy.Breaker {
			failures := b.Failures
			if failures == 0 {
				failures = -1
			}
			c := policy.BreakerConfig{
				Failures: failures, ErrorRatio: b.ErrorRatio, MinRequests: b.MinRequests, Window: b.Window, Rest: b.Rest, HalfOpen: b.HalfOpen, Told: s.told,
			}
			if b.Trip != "" {
				c.Interval = b.Window
				c.Trip, _ = policy.ParseTrip(b.Trip) // Build let nothing else through
			}
			return policy.NewBreaker(c)
		}).Policy()
	}
	return policy.Build(c)
}

func (s *server) retry(r *snapshot.Retry) policy.RetryConfig {
	c := policy.RetryConfig{
		Attempts: r.Attempts, Statuses: r.Statuses, Backoff: r.Backoff, MaxBackoff: r.MaxBackoff, Methods: r.Methods, Told: s.told,
	}
	if c.Attempts == 0 {
		c.Attempts = -1
	}
	for _, word := range r.On {
		on, _ := policy.ParseCondition(word)
		c.On |= on
	}
	for _, word := range r.GRPC {
		c.GRPC = append(c.GRPC, grpcCode(word))
	}
	if r.BudgetPercent > 0 || r.BudgetMin > 0 {
		c.Budget = keep(s, r.State, func() *policy.Budget {
			least := r.BudgetMin
			if least == 0 {
				least = -1
			}
			return policy.NewBudget(policy.BudgetConfig{Percent: r.BudgetPercent, MinPerSecond: least})
		})
	}
	return c
}

func (s *server) cors(c *snapshot.CORS) (loam.Policy, error) {
	return policy.CORS(policy.CORSConfig{
		AllowOrigins: c.AllowOrigins, AllowCredentials: c.AllowCredentials, AllowMethods: c.AllowMethods, AllowHeaders: c.AllowHeaders,
		ExposeHeaders: c.ExposeHeaders, MaxAge: c.MaxAge,
	})
}

// authn is who may ask, by certificate and by token.
func (s *server) authn(a *snapshot.Authn) loam.Policy {
	if a == nil {
		return nil
	}
	var both []loam.Policy
	if m := a.MTLS; m != nil {
		both = append(both, policy.MTLS(policy.MTLSConfig{Required: m.Required, Subjects: m.Subjects, SANs: m.SANs, Told: s.told}))
	}
	var issuers []policy.JWTConfig
	for _, j := range a.JWT {
		keys, err := s.keys(j)
		if err != nil {
			return failing(err)
		}
		issuers = append(issuers, policy.JWTConfig{Issuer: j.Issuer, Audiences: j.Audiences, Keys: keys, Forward: j.Forward})
	}
	if len(issuers) > 0 {
		both = append(both, policy.JWT(policy.JWTOptions{Told: s.told}, issuers...))
	}
	return policy.Join(both...)
}

// keys are an issuer's; those of a URL stay as long as it is asked for.
func (s *server) keys(j snapshot.JWT) (*policy.Keys, error) {
	if j.URL != "" {
		return keep(s, j.URL, func() *policy.Keys { return policy.RemoteKeys(policy.FetchURL(keyClient, j.URL), 0) }), nil
	}
	jwks := []byte(j.JWKS)
	if j.File != "" {
		var err error
		if jwks, err = os.ReadFile(j.File); err != nil {
			return nil, &loam.Error{Code: loam.FailedPrecondition, Op: "jwt", Err: err, Hint: "jwksFile must be a JSON Web Key Set (RFC 7517)"}
		}
	}
	return policy.StaticKeys(jwks)
}

// keyClient fetches the keys of issuers: soon, and never by a way that is less safe than the one that was named.
var keyClient = &http.Client{
	Timeout: 10 * time.Second,
	CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" || len(via) > 3 {
			return http.ErrUseLastResponse
		}
		return nil
	},
}

// CheckExpression tells what is wrong with an expression of a policy's authz.
func CheckExpression(expression string) error {
	_, err := policy.Authz(nil, policy.AuthzRule{Expression: expression})
	return err
}

// CheckTrip tells what is wrong with the trip of a Resiliency's breaker.
func CheckTrip(expression string) error {
	_, err := policy.ParseTrip(expression)
	return err
}

// authz is what may be asked: every list of rules must let a request pass.
func (s *server) authz(lists [][]snapshot.Rule) loam.Policy {
	var all []loam.Policy
	for _, list := range lists {
		var rules []policy.AuthzRule
		for _, r := range list {
			rules = append(rules, policy.AuthzRule{Expression: r.Expression, Deny: r.Deny, Message: r.Message, Where: r.Where})
		}
		one, err := policy.Authz(s.told, rules...)
		if err != nil {
			one = failing(err)
		}
		all = append(all, one)
	}
	return policy.Join(all...)
}

// must makes a policy of c, or one that lets nothing pass: what guards a target is never left out for being broken.
func must[C any](c *C, make func(*C) (loam.Policy, error)) loam.Policy {
	if c == nil {
		return nil
	}
	p, err := make(c)
	if err != nil {
		return failing(err)
	}
	return p
}

// failing answers every request with an error.
func failing(err error) loam.Policy {
	return func(loam.Target) loam.Target {
		return loam.TargetFunc(func(*loam.Request) (*loam.Response, error) { return nil, err })
	}
}

// keep returns what is kept under a state's name, making it if it is not there.
func keep[T any](s *server, state string, make func() T) T {
	key := reflect.TypeFor[T]().String() + " " + state
	s.keepMu.Lock()
	defer s.keepMu.Unlock()
	if v, ok := s.kept[key]; ok {
		s.keeping[key] = v
		return v.(T)
	}
	v := make()
	s.kept[key], s.keeping[key] = v, v
	return v
}

// told counts what policies did.
func (s *server) told(req *loam.Request, act policy.Act) { s.acts.Add(req.Route, act.String()) }

// grpcCode reads a code as gRPC writes it: "unavailable", "deadline-exceeded", "DEADLINE_EXCEEDED".
func grpcCode(word string) loam.Code {
	word = strings.ToLower(strings.NewReplacer("-", " ", "_", " ").Replace(word))
	for c := loam.OK; c <= loam.Unauthenticated; c++ {
		if c.String() == word || word == "cancelled" && c == loam.Canceled {
			return c
		}
	}
	return loam.OK
}

func headers(h *snapshot.Headers) policy.HeadersConfig {
	fields := func(all []snapshot.Field) (out []loam.Field) {
		for _, f := range all {
			out = append(out, loam.Field{Name: f.Name, Value: f.Value})
		}
		return out
	}
	return policy.HeadersConfig{Remove: h.Remove, Set: fields(h.Set), Add: fields(h.Add)}
}

func path(p *snapshot.PathChange) *policy.PathChange {
	if p == nil {
		return nil
	}
	return &policy.PathChange{Full: p.Full, Prefix: p.Prefix, Replace: p.Replace}
}
