package policy

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/loam-run/loam"
)

// JWTConfig accepts the tokens of one issuer (RFC 7519). Zero fields take the default beside them.
type JWTConfig struct {
	Issuer    string            // required
	Audiences []string          // of which the token has one; none: any
	Keys      *Keys             // of the issuer; required
	Forward   map[string]string // claim, with dots into objects → header that the target gets it in
	Leeway    time.Duration     // that clocks may differ; 60s
}

// JWTOptions hold for all issuers.
type JWTOptions struct {
	Cached int // tokens whose verification is remembered for a minute; 4096; negative: none
	Told   Told
}

// JWT lets requests pass that carry a token of one of the issuers (Authorization: Bearer, RFC 6750), and gives what it says to
// policies further in (Request.Claims) and, where asked to, to the target. Headers that claims are forwarded in are
// taken from every request first: a client cannot forge them. A token is verified by keys of its issuer and by the
// algorithms that those are for; its times, issuer and audience are checked.
func JWT(o JWTOptions, issuers ...JWTConfig) loam.Policy {
	p := &tokens{o: o, issuers: slices.Clone(issuers)}
	if cached := cmp.Or(o.Cached, 4096); cached > 0 {
		p.cache = newKeyed[verified](cached)
	}
	for i := range p.issuers {
		c := &p.issuers[i]
		c.Leeway = cmp.Or(c.Leeway, time.Minute)
		for _, header := range c.Forward {
			p.reserved = append(p.reserved, header)
		}
	}
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			for _, header := range p.reserved {
				req.Header.Del(header)
			}
			token, err := bearer(req.Header)
			if err == nil {
				err = p.accept(req, token)
			}
			if loam.CodeOf(err) == loam.Unauthenticated {
				o.Told.of(req, Unauthenticated)
				res := answer(req, err)
				challenge := "Bearer"
				if token != "" {
					challenge = `Bearer error="invalid_token"`
				}
				res.Header.Add("WWW-Authenticate", challenge)
				return res, nil
			}
			if err != nil {
				return nil, err
			}
			return next.Serve(req)
		})
	}
}

type tokens struct {
	o        JWTOptions
	issuers  []JWTConfig
	reserved []string // headers that only this policy writes
	cache    *keyed[verified]
}

// verified is a token that was: signatures cost more than all the rest of a request.
type verified struct {
	claims map[string]any
	by     *JWTConfig
	keys   *keySet // that verified it: with others it is verified again
	until  time.Time
}

const (
	longestToken = 16 << 10
	remembered   = time.Minute
)

// algorithmsTaken are those of RFC 7518 that sign, but for none.
var algorithmsTaken = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	jose.HS256, jose.HS384, jose.HS512,
}

func unauthenticated(format string, args ...any) error {
	err := loam.Errorf(loam.Unauthenticated, "jwt", format, args...)
	err.Hint = "send a valid token: Authorization: Bearer …"
	return err
}

// bearer finds the token of a request.
func bearer(h loam.Header) (string, error) {
	values := 0
	var token string
	for i := range h {
		if len(h[i].Name) != 13 || !strings.EqualFold(h[i].Name, "Authorization") {
			continue
		}
		values++
		if scheme, t, ok := strings.Cut(h[i].Value, " "); ok && strings.EqualFold(scheme, "Bearer") {
			token = strings.Trim(t, " ")
		}
	}
	switch {
	case token == "":
		return "", unauthenticated("there is no token")
	case values > 1:
		return token, unauthenticated("there are %d Authorization fields", values) // the target might read another one
	case len(token) > longestToken:
		return token, unauthenticated("the token is longer than %d bytes", longestToken)
	}
	return token, nil
}

// accept verifies a token and gives its claims to the request.
func (p *tokens) accept(req *loam.Request, token string) error {
	now := req.Task().Now()
	sum := sha256.Sum256([]byte(token))
	if p.cache != nil {
		var was verified
		p.cache.with(sum[:], func(v *verified) { was = *v })
		if was.by != nil && now.Before(was.until) && was.by.Keys.now.Load() == was.keys {
			was.by.forward(req, was.claims)
			return nil
		}
	}
	v, err := p.verify(req, token)
	if err != nil {
		return err
	}
	if p.cache != nil {
		p.cache.with(sum[:], func(slot *verified) { *slot = v })
	}
	v.by.forward(req, v.claims)
	return nil
}

func (p *tokens) verify(req *loam.Request, token string) (verified, error) {
	parsed, err := jwt.ParseSigned(token, algorithmsTaken)
	if err != nil {
		return verified{}, unauthenticated("the token cannot be read: %w", err)
	}
	var says jwt.Claims
	if err := parsed.UnsafeClaimsWithoutVerification(&says); err != nil { // only to know whose keys to verify it by
		return verified{}, unauthenticated("the token's claims cannot be read: %w", err)
	}
	err = unauthenticated("the token is of another issuer")
	for i := range p.issuers {
		if c := &p.issuers[i]; c.Issuer == says.Issuer {
			var v verified
			if v, err = c.verify(req, parsed); err == nil {
				return v, nil
			}
		}
	}
	return verified{}, err
}

// verify checks a token of the issuer.
func (c *JWTConfig) verify(req *loam.Request, parsed *jwt.JSONWebToken) (verified, error) {
	if len(parsed.Headers) != 1 {
		return verified{}, unauthenticated("the token has %d signatures", len(parsed.Headers))
	}
	head := parsed.Headers[0]
	set, err := c.Keys.get(req)
	if err != nil {
		return verified{}, err
	}
	claims, std, ok := check(parsed, set.find(head.KeyID, jose.SignatureAlgorithm(head.Algorithm)))
	if !ok {
		newer, err := c.Keys.newer(req, set)
		if err != nil {
			return verified{}, err
		}
		if newer != set {
			set = newer
			claims, std, ok = check(parsed, set.find(head.KeyID, jose.SignatureAlgorithm(head.Algorithm)))
		}
		if !ok {
			return verified{}, unauthenticated("none of the issuer's keys verifies the token")
		}
	}
	now := req.Task().Now()
	expected := jwt.Expected{Issuer: c.Issuer, AnyAudience: c.Audiences, Time: now}
	if err := std.ValidateWithLeeway(expected, c.Leeway); err != nil {
		return verified{}, unauthenticated("%w", err)
	}
	until := now.Add(remembered)
	if std.Expiry != nil && std.Expiry.Time().Add(c.Leeway).Before(until) {
		until = std.Expiry.Time().Add(c.Leeway)
	}
	return verified{claims, c, set, until}, nil
}

// check finds the key that verifies a token, and reads its claims.
func check(parsed *jwt.JSONWebToken, keys []key) (claims map[string]any, std jwt.Claims, ok bool) {
	for _, k := range keys {
		claims = nil
		if err := parsed.Claims(k.key, &claims, &std); err == nil {
			return claims, std, true
		}
	}
	return nil, std, false
}

// forward gives the claims to the request.
func (c *JWTConfig) forward(req *loam.Request, claims map[string]any) {
	req.Claims = claims
	for name, header := range c.Forward {
		if value := claim(claims, name); value != "" && fieldValue(value) {
			req.Header.Set(header, value)
		}
	}
}

// fieldValue tells whether a header field may have that value (RFC 9110, section 5.5), and is not enormous.
func fieldValue(s string) bool {
	return len(s) <= 8<<10 && !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}
